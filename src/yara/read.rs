//! Texts to rules: what each file holds, what is wrong with it and where.
//!
//! A file that does not parse is refused as a whole; of a file that does, a bad rule does not take the good ones down,
//! but for those that refer to it.

use std::{
    collections::HashMap,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
    thread,
};

use boreal::{
    Compiler,
    compiler::{CompilerBuilder, CompilerParams},
    module::{Dex, Dotnet, Elf, Hash, MachO, Math, Pe, String_},
};
use boreal_parser::{file::YaraFileComponent, rule::Rule as YaraRule};
use cf_sigma::{
    Problem, Severity, Text,
    rule::{Expr, Matcher, Rule, Test, ValueTest},
};

use crate::{
    engine::{Engine, Limits, YaraTest, inner_name},
    meta::{CONTENT_FIELDS, Meta},
    necessary::{self, Need},
};

/// The codes of problems that [`read`] finds, each with what it means and what to do.
pub const CODES: &[(&str, &str)] = &[
    ("yara_syntax", "The file is no YARA text, so none of its rules is loaded. Mend the place that is named."),
    ("yara_rule", "The rule does not compile and is not loaded; rules that refer to it are not either."),
    ("yara_include", "`include` is refused: files are read one by one. Put the included file among the rules."),
    ("yara_module", "The module is not there. There are pe, elf, macho, dotnet, dex, hash, math and string."),
    ("yara_limit", "There are more rules, strings or bytes of text than are allowed; the rest is not loaded."),
    (
        "yara_level",
        "The level is none of Sigma's, so medium is taken. Give informational, low, medium, high or critical.",
    ),
    ("yara_warning", "The engine finds the rule doubtful, slow for instance."),
];

/// Whether a file of this name is read as YARA.
#[must_use]
pub fn is_yara(file: &str) -> bool {
    let extension = Path::new(file).extension();
    extension.is_some_and(|extension| extension.eq_ignore_ascii_case("yar") || extension.eq_ignore_ascii_case("yara"))
}

/// What texts hold.
#[derive(Clone, Debug)]
pub struct Read {
    /// One rule for each YARA rule that is not private, in the order of the texts.
    pub rules: Vec<Rule>,
    /// What is wrong, in the order of the texts.
    pub problems: Vec<Problem>,
    /// What all of these rules ask.
    pub engine: Arc<Engine>,
}

/// Stack for a byte of text: `not not not ...` becomes a tree as deep as the text is long, and is dropped as one.
const STACK_PER_BYTE: usize = 128;
/// Stack for everything else.
const STACK: usize = 32 << 20;

/// Reads texts and compiles all their rules into one engine.
///
/// On a thread of its own, whose stack suffices for the deepest tree that the largest text can become: a rule text
/// must not be able to end the process.
#[must_use]
pub fn read(texts: &[Text], limits: &Limits) -> Read {
    let largest = texts.iter().map(|text| text.text.len()).max().unwrap_or(0).min(limits.text_bytes_max);
    let work = || {
        let mut reader = Reader::new(*limits);
        for (number, text) in texts.iter().enumerate() {
            reader.file(number, text);
        }
        reader.finish()
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("yara".to_owned()).stack_size(STACK + STACK_PER_BYTE * largest);
        let reading = thread.spawn_scoped(scope, work).map(thread::ScopedJoinHandle::join);
        match reading {
            Ok(Ok(read)) => read,
            // No thread, or one that panicked in spite of all: the rules are told to be missing, the others load.
            Ok(Err(_)) | Err(_) => nothing(texts, limits),
        }
    })
}

fn nothing(texts: &[Text], limits: &Limits) -> Read {
    let mut reader = Reader::new(*limits);
    for text in texts {
        let message = "the rules could not be read: there was no memory for it, or the engine failed".to_owned();
        reader.problem(text, "yara_limit", Severity::Error, 0, None, message, None);
    }
    reader.finish()
}

struct Reader {
    limits: Limits,
    compiler: Compiler,
    loaded: Vec<LoadedRule>,
    by_name: HashMap<String, u32>,
    problems: Vec<Problem>,
    strings: usize,
    bytes: usize,
}

struct LoadedRule {
    meta: Meta,
    file: Arc<str>,
    line: u32,
    necessary: Need,
}

impl Reader {
    fn new(limits: Limits) -> Reader {
        Reader {
            limits,
            compiler: compiler(),
            loaded: Vec::new(),
            by_name: HashMap::new(),
            problems: Vec::new(),
            strings: 0,
            bytes: 0,
        }
    }

    fn file(&mut self, number: usize, text: &Text) {
        self.bytes += text.text.len();
        if self.bytes > self.limits.text_bytes_max {
            let message = format!("YARA texts have more than {} bytes", self.limits.text_bytes_max);
            self.problem(text, "yara_limit", Severity::Error, 0, None, message, None);
            return;
        }
        let parsed = catch_unwind(AssertUnwindSafe(|| boreal_parser::parse(&text.text)));
        let components = match parsed {
            Ok(Ok(file)) => file.components,
            Ok(Err(error)) => {
                let diagnostic = error.to_diagnostic();
                let at = diagnostic.labels.first().map_or(0, |label| label.range.start);
                let message = format!("could not read the text as YARA: {}", said(&diagnostic));
                return self.problem(text, "yara_syntax", Severity::Error, at, None, message, None);
            }
            Err(_) => {
                let message = "could not read the text as YARA: the parser gave up".to_owned();
                return self.problem(text, "yara_syntax", Severity::Error, 0, None, message, None);
            }
        };
        let mut known: HashMap<String, Need> = HashMap::new();
        let mut behind = 0;
        for component in components {
            match component {
                YaraFileComponent::Include(include) => {
                    behind = include.span.end;
                    let message = format!("`include \"{}\"` is refused", shown(&include.path));
                    let hint = Some("rule files are read one by one: put that file among the rules".to_owned());
                    let at = include.span.start;
                    self.problem(text, "yara_include", Severity::Error, at, None, message, hint);
                }
                YaraFileComponent::Import(import) => {
                    behind = import.span.end;
                    if self.add(number, text, import.span.clone()).is_err() {
                        let message = format!("there is no module \"{}\"", shown(&import.name));
                        let hint = match import.name.as_str() {
                            "time" => "whether a rule fits must not depend on the clock",
                            _ => "there are pe, elf, macho, dotnet, dex, hash, math and string",
                        };
                        let (at, hint) = (import.span.start, Some(hint.to_owned()));
                        self.problem(text, "yara_module", Severity::Error, at, None, message, hint);
                    }
                }
                YaraFileComponent::Rule(rule) => {
                    let span = behind..end_of_rule(&text.text, rule.condition.span.end);
                    behind = span.end;
                    self.rule(number, text, &rule, span, &mut known);
                }
            }
        }
    }

    fn rule(
        &mut self,
        number: usize,
        text: &Text,
        rule: &YaraRule,
        span: Range<usize>,
        known: &mut HashMap<String, Need>,
    ) {
        let name = rule.name.as_str();
        let at = rule.name_span.start;
        self.strings += rule.variables.len();
        if self.strings > self.limits.strings_max || self.loaded.len() >= self.limits.rules_max {
            let Limits { rules_max, strings_max, .. } = self.limits;
            let message = format!("there are more than {rules_max} YARA rules or {strings_max} strings");
            return self.problem(text, "yara_limit", Severity::Error, at, Some(name), message, None);
        }
        match self.add(number, text, span) {
            Err((place, message)) => {
                let place = place.unwrap_or(at);
                self.problem(text, "yara_rule", Severity::Error, place, Some(name), message, None);
            }
            Ok(warnings) => {
                for (place, message) in warnings {
                    let place = place.unwrap_or(at);
                    self.problem(text, "yara_warning", Severity::Warning, place, Some(name), message, None);
                }
                let need = necessary::of_rule(rule, known);
                known.insert(rule.name.clone(), need.clone());
                if !rule.is_private {
                    self.load(number, text, rule, need);
                }
            }
        }
    }

    fn load(&mut self, number: usize, text: &Text, rule: &YaraRule, necessary: Need) {
        let meta = Meta::of(rule);
        let at = rule.name_span.start;
        if let Some(level) = &meta.unknown_level {
            let message = format!("unknown level \"{}\"; medium is taken", shown(level));
            let hint = Some("give informational, low, medium, high, critical or a score from 0 to 100".to_owned());
            self.problem(text, "yara_level", Severity::Warning, at, Some(&rule.name), message, hint);
        }
        let place = u32::try_from(self.loaded.len()).unwrap_or(u32::MAX); // bounded by the limits
        self.by_name.insert(inner_name(number, &rule.name), place);
        let (line, _) = position(&text.text, at);
        self.loaded.push(LoadedRule { meta, file: Arc::clone(&text.file), line, necessary });
    }

    /// Compiles a part of a file: warnings, or the error, each with its place in the file.
    fn add(
        &mut self,
        number: usize,
        text: &Text,
        span: Range<usize>,
    ) -> Result<Vec<(Option<usize>, String)>, (Option<usize>, String)> {
        let begin = span.start;
        let source = text.text.get(span).unwrap_or_default();
        let told = |diagnostic: &Diagnostic| {
            (diagnostic.labels.first().map(|label| begin + label.range.start), said(diagnostic))
        };
        let compiler = &mut self.compiler;
        let added = catch_unwind(AssertUnwindSafe(|| {
            compiler
                .add_rules_str_in_namespace(source, number.to_string())
                .map(|status| status.warnings().map(|warning| told(&warning.to_diagnostic())).collect::<Vec<_>>())
                .map_err(|error| told(&error.to_diagnostic()))
        }));
        added.unwrap_or_else(|_| Err((None, "the compiler gave up on it".to_owned())))
    }

    #[allow(clippy::too_many_arguments)] // the parts of a problem, each needed
    fn problem(
        &mut self,
        text: &Text,
        code: &'static str,
        severity: Severity,
        at: usize,
        rule: Option<&str>,
        message: String,
        hint: Option<String>,
    ) {
        let (line, column) = position(&text.text, at);
        let (file, rule) = (Arc::clone(&text.file), rule.map(Arc::from));
        self.problems.push(Problem { code, severity, file, line, column, rule, message, hint });
    }

    fn finish(self) -> Read {
        let engine = Arc::new(Engine::new(self.compiler, self.by_name, &self.limits));
        let rules = (0..).zip(self.loaded).map(|(number, loaded)| loaded.into_rule(&engine, number)).collect();
        Read { rules, problems: self.problems, engine }
    }
}

impl LoadedRule {
    fn into_rule(self, engine: &Arc<Engine>, number: u32) -> Rule {
        let LoadedRule { meta, file, line, necessary } = self;
        let plain: Arc<dyn ValueTest> = Arc::new(YaraTest::new(engine, number, false, necessary.clone()));
        let content: Arc<dyn ValueTest> = Arc::new(YaraTest::new(engine, number, true, None));
        let tests = meta.fields.into_iter().map(|field| {
            let decoded = field.as_deref().is_some_and(|field| CONTENT_FIELDS.contains(&field));
            let test = if decoded { &content } else { &plain };
            Expr::Test(Test { field, matcher: Matcher::External(Arc::clone(test)) })
        });
        Rule {
            id: meta.id,
            title: meta.title,
            description: meta.description,
            level: meta.level,
            status: meta.status,
            tags: meta.tags,
            file,
            line,
            log_source: meta.log_source,
            condition: Expr::Any(tests.collect()),
            meta: meta.beside,
            ..Rule::default()
        }
    }
}

/// The compiler: all modules but `time` (a match must not depend on the clock) and `console` (which prints).
fn compiler() -> Compiler {
    let modules = CompilerBuilder::default()
        .add_module(Math)
        .add_module(String_)
        .add_module(Hash)
        .add_module(Pe)
        .add_module(Elf)
        .add_module(MachO)
        .add_module(Dotnet)
        .add_module(Dex);
    let mut compiler = modules.build();
    compiler.set_params(CompilerParams::default().disable_includes(true).disable_unknown_escape_warning(true));
    compiler
}

/// Behind the `}` of a rule whose condition ends at `from`: only space and comments are between.
fn end_of_rule(text: &str, from: usize) -> usize {
    let mut at = from;
    loop {
        let rest = text.get(at..).unwrap_or_default();
        let skipped = if let Some(comment) = rest.strip_prefix("//") {
            2 + comment.find('\n').unwrap_or(comment.len())
        } else if let Some(comment) = rest.strip_prefix("/*") {
            2 + comment.find("*/").map_or(comment.len(), |end| end + 2)
        } else {
            match rest.chars().next() {
                None => return at,
                Some('}') => return at + 1,
                Some(c) => c.len_utf8(),
            }
        };
        at += skipped;
    }
}

/// Line and column, from 1, of a place in bytes.
fn position(text: &str, at: usize) -> (u32, u32) {
    let before = text.get(..at).or_else(|| (0..at).rev().find_map(|at| text.get(..at))).unwrap_or_default();
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(column).unwrap_or(u32::MAX))
}

type Diagnostic = codespan_reporting::diagnostic::Diagnostic<()>;

/// The message with what the engine says of the place.
fn said(diagnostic: &Diagnostic) -> String {
    let labels = diagnostic.labels.iter().map(|label| label.message.as_str());
    let parts =
        std::iter::once(diagnostic.message.as_str()).chain(labels).chain(diagnostic.notes.iter().map(String::as_str));
    let parts: Vec<&str> = parts.filter(|part| !part.is_empty()).collect();
    shown(&parts.join(": "))
}

/// Text from outside, cut for a message.
fn shown(text: &str) -> String {
    let mut cut: String = text.chars().take(300).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    cut
}
