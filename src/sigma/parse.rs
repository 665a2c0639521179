//! Text to rules: which kind of document it is, what all kinds have in common, and what must be unique.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use rustc_hash::{FxBuildHasher, FxHashMap};

use self::head::Head;
use crate::{
    problem::{Place, Problem, Problems, Refused, Severity, did_you_mean, shown},
    rule::{Correlation, Expr, Filter, Rule},
    yaml::{self, Node},
};

pub(crate) mod collection;
pub(crate) mod condition;
mod correlation;
pub(crate) mod detection;
mod filter;
pub(crate) mod head;
mod hunt;
mod plan;
mod timespan;
pub(crate) mod value;

pub(crate) use plan::CONDITIONS as PLAN_CONDITIONS;

/// One YAML text, read by the caller. It may hold several documents.
#[derive(Clone, Debug)]
pub struct Text {
    /// File as problems are to name it.
    pub file: Arc<str>,
    /// The text.
    pub text: String,
}

/// What the caller knows that texts speak of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParseOptions {
    /// Values of placeholders (modifier `expand`), by name without the percent signs; they may have wildcards.
    pub placeholders: BTreeMap<String, Vec<String>>,
    /// Taxonomies besides `sigma` whose names somebody translates (a pipeline).
    pub taxonomies: BTreeSet<String>,
    /// Playbooks that rules may suggest; one that is not here gets a warning.
    pub playbooks: BTreeSet<String>,
}

/// What texts hold: the rules that can be used, and what is wrong with the others.
#[derive(Clone, Debug, Default)]
pub struct Parsed {
    /// Plain rules, in the order of the texts.
    pub rules: Vec<Arc<Rule>>,
    /// Correlations, in the order of the texts.
    pub correlations: Vec<Correlation>,
    /// Filters, in the order of the texts.
    pub filters: Vec<Filter>,
    /// Problems, in the order of the texts.
    pub problems: Vec<Problem>,
    /// Ids of rules that are not to be evaluated.
    pub(crate) disabled: BTreeSet<Arc<str>>,
    /// What each text holds by itself: what [`crate::RuleSet::changed`] keeps of the files that did not change.
    pub(crate) files: Vec<Arc<ParsedFile>>,
    /// What they were read with.
    pub(crate) options: Arc<ParseOptions>,
}

/// What one text holds, before anything is known of the others.
#[derive(Clone, Debug)]
pub(crate) struct ParsedFile {
    /// The file, as the caller named it.
    pub(crate) file: Arc<str>,
    /// BLAKE3 of the text: what the rule set's hash is made of.
    pub(crate) digest: [u8; 32],
    rules: Vec<Arc<Rule>>,
    correlations: Vec<Correlation>,
    filters: Vec<Filter>,
    problems: Vec<Problem>,
    disabled: BTreeSet<Arc<str>>,
}

impl ParsedFile {
    /// Whether it says what other files' rules are to leave out.
    pub(crate) fn has_filters(&self) -> bool {
        !self.filters.is_empty()
    }

    /// Gives the fields that each rule asks for, each once a rule.
    pub(crate) fn fields_by_rule(&self, each: &mut dyn FnMut(&BTreeSet<Arc<str>>)) {
        for rule in &self.rules {
            let mut fields = BTreeSet::new();
            asked(&rule.condition, &mut fields);
            each(&fields);
        }
    }
}

/// The fields that a condition asks for.
pub(crate) fn asked(expr: &Expr, fields: &mut BTreeSet<Arc<str>>) {
    match expr {
        Expr::All(parts) | Expr::Any(parts) => parts.iter().for_each(|part| asked(part, fields)),
        Expr::Not(part) => asked(part, fields),
        Expr::Test(test) => fields.extend(test.field.clone()),
    }
}

impl Parsed {
    /// Puts files together: what one document does to those of other files happens here, or when it is compiled.
    pub(crate) fn of_files(files: Vec<Arc<ParsedFile>>, options: Arc<ParseOptions>) -> Parsed {
        let mut parsed = Parsed { options, ..Parsed::default() };
        for file in &files {
            parsed.rules.extend_from_slice(&file.rules);
            parsed.correlations.extend_from_slice(&file.correlations);
            parsed.filters.extend_from_slice(&file.filters);
            parsed.problems.extend_from_slice(&file.problems);
            parsed.disabled.extend(file.disabled.iter().cloned());
        }
        parsed.files = files;
        refuse_repeated_ids(&mut parsed);
        parsed
    }

    /// Takes in rules that another reader made of these texts (YARA's, say). Ids stay unique: the first keeps its id.
    pub fn include(&mut self, texts: &[Text], rules: Vec<Rule>, problems: Vec<Problem>) {
        let rules: Vec<Arc<Rule>> = rules.into_iter().map(Arc::new).collect();
        for text in texts {
            self.files.push(Arc::new(ParsedFile {
                file: Arc::clone(&text.file),
                digest: *blake3::hash(text.text.as_bytes()).as_bytes(),
                rules: rules.iter().filter(|rule| rule.file == text.file).cloned().collect(),
                correlations: Vec::new(),
                filters: Vec::new(),
                problems: problems.iter().filter(|problem| problem.file == text.file).cloned().collect(),
                disabled: BTreeSet::new(),
            }));
        }
        self.rules.extend(rules);
        self.problems.extend(problems);
        refuse_repeated_ids(self);
    }

    /// The same with its files in the order of these texts, which decides whose id stays.
    #[must_use]
    pub fn in_order_of(self, texts: &[Text]) -> Parsed {
        let places: FxHashMap<&Arc<str>, usize> =
            texts.iter().zip(0..).map(|(text, place)| (&text.file, place)).collect();
        let mut files = self.files;
        files.sort_by_key(|file| places.get(&file.file).copied());
        Parsed::of_files(files, self.options)
    }
}

/// Reads rules. A bad document never takes a good one down.
#[must_use]
pub fn parse(texts: &[Text]) -> Parsed {
    parse_with(texts, &ParseOptions::default())
}

/// Reads rules with values of placeholders and the like.
#[must_use]
pub fn parse_with(texts: &[Text], options: &ParseOptions) -> Parsed {
    let options = Arc::new(options.clone());
    let files = parse_files(texts, &options);
    Parsed::of_files(files, options)
}

/// Texts from which a second thread reads a half of them.
const TEXTS_OF_TWO_MIN: usize = 256;

/// Reads files, in their order. A file is read for itself, so the result does not depend on who reads it.
fn parse_files(texts: &[Text], options: &Arc<ParseOptions>) -> Vec<Arc<ParsedFile>> {
    let read = |texts: &[Text]| -> Vec<Arc<ParsedFile>> {
        texts.iter().map(|text| Arc::new(parse_file(text, options))).collect()
    };
    if texts.len() < TEXTS_OF_TWO_MIN {
        return read(texts);
    }
    let (first, second) = texts.split_at(texts.len() / 2);
    std::thread::scope(|scope| {
        let second = scope.spawn(|| read(second));
        let mut files = read(first);
        files.extend(second.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        files
    })
}

/// Reads one file; never looks at others.
pub(crate) fn parse_file(text: &Text, options: &Arc<ParseOptions>) -> ParsedFile {
    let mut parsed = Parsed::default();
    let (documents, error) = yaml::documents(&text.text);
    let mut problems = Problems::with(&text.file, options);
    let documents = collection::expand(documents, &mut problems);
    parsed.problems.append(&mut problems.list);
    for document in &documents {
        let mut problems = Problems::with(&text.file, options);
        // Refused documents have said why.
        let _refused = read_document(document, text, &mut problems, &mut parsed);
        parsed.problems.append(&mut problems.list);
    }
    if let Some(error) = error {
        let mut problems = Problems::with(&text.file, options);
        let message = format!("could not read the text as YAML: {}", error.message);
        let _refused = problems.error("yaml", error.at, message, None);
        parsed.problems.append(&mut problems.list);
    }
    let Parsed { rules, correlations, filters, problems, disabled, .. } = parsed;
    let digest = *blake3::hash(text.text.as_bytes()).as_bytes();
    ParsedFile { file: Arc::clone(&text.file), digest, rules, correlations, filters, problems, disabled }
}

fn read_document(document: &Node, text: &Text, problems: &mut Problems, parsed: &mut Parsed) -> Result<(), Refused> {
    let Some(entries) = document.map() else {
        if matches!(document.kind, yaml::Kind::Null) {
            return Ok(()); // an empty document, as after a last `---`
        }
        let message = format!("a rule is a map, this document is {}", document.word());
        return Err(problems.error("not_a_map", document.at, message, None));
    };
    if let Some(title) = document.get("title").and_then(Node::text) {
        problems.rule = Some(Arc::from(shown(title)));
    }
    refuse_repeated_keys(entries, problems)?;
    if let Some(rule) = document.get("rule").filter(|rule| rule.get("conditions").is_some()) {
        return plan::read(rule, text, problems, parsed);
    }
    if let Some(correlation) = document.get("correlation") {
        let head = Head::read(document, text, problems)?;
        parsed.correlations.push(correlation::read(head, correlation, problems)?);
        return Ok(());
    }
    if let Some(filter) = document.get("filter").filter(|_| document.get("detection").is_none()) {
        parsed.filters.push(filter::read(document, filter, text, problems)?);
        return Ok(());
    }
    if let Some(list) = document.get("disable").filter(|_| document.get("detection").is_none()) {
        return read_disabled(list, problems, parsed);
    }
    if let Some(hunt) = document.get("hunt").filter(|_| document.get("detection").is_none()) {
        parsed.rules.push(Arc::new(hunt::read(document, hunt, text, problems)?));
        return Ok(());
    }
    let Some(found) = document.get("detection") else {
        let keys = entries.iter().filter_map(|(key, _)| key.text()).take(100);
        let near = keys
            .filter_map(|key| did_you_mean(key, ["detection", "correlation", "filter", "hunt"]).map(|hint| (key, hint)))
            .next();
        let hint = near.map(|(key, hint)| format!("there is `{}`; {hint}", shown(key)));
        return Err(problems.error("no_detection", document.at, "the document has no `detection`".to_owned(), hint));
    };
    let Some(entries) = found.map() else {
        let message = format!("`detection` is {}, not a map", found.word());
        return Err(problems.error("detection", found.at, message, None));
    };
    refuse_repeated_keys(entries, problems)?;
    let head = Head::read(document, text, problems)?;
    let log_source = head::log_source(document, problems)?;
    let reference = head.name.as_deref().unwrap_or(&head.id).to_owned();
    let entries: Vec<&(Node, Node)> = entries.iter().collect();
    let detection::Read { expr: condition, outline } = detection::read(&entries, found.at, &reference, problems)?;
    let Head { id, name, title, description, level, status, tags, file, line, meta } = head;
    parsed.rules.push(Arc::new(Rule {
        id,
        name,
        title,
        description,
        level,
        status,
        tags,
        file,
        line,
        log_source,
        condition,
        outline: Arc::new(outline),
        hunt: None,
        meta,
    }));
    Ok(())
}

/// Reads `disable: [id, ...]`, a kind of document of our own: rules of whatever file that are not to be evaluated.
fn read_disabled(list: &Node, problems: &mut Problems, parsed: &mut Parsed) -> Result<(), Refused> {
    for node in list.each() {
        let Some(id) = node.text().map(str::trim).filter(|id| !id.is_empty()) else {
            let message = format!("`disable` lists ids of rules, this is {}", node.word());
            return Err(problems.error("disable", node.at, message, None));
        };
        parsed.disabled.insert(Arc::from(id));
    }
    Ok(())
}

/// YAML wants unique keys; the second of two would silently win otherwise.
pub(crate) fn refuse_repeated_keys(entries: &[(Node, Node)], problems: &mut Problems) -> Result<(), Refused> {
    let mut seen = std::collections::HashSet::new();
    for (key, _) in entries {
        if key.text().is_some_and(|text| !seen.insert(text)) {
            let message = format!("the key \"{}\" is given twice", shown(key.text().unwrap_or_default()));
            return Err(problems.error("repeated_key", key.at, message, None));
        }
    }
    Ok(())
}

/// Of rules with one id the first stays.
fn refuse_repeated_ids(parsed: &mut Parsed) {
    let len = parsed.rules.len() + parsed.correlations.len();
    let mut first: FxHashMap<Arc<str>, (Arc<str>, u32)> = FxHashMap::with_capacity_and_hasher(len, FxBuildHasher);
    let Parsed { rules, correlations, problems, .. } = parsed;
    let mut keep = |id: &Arc<str>, title: &Arc<str>, file: &Arc<str>, line: u32| -> bool {
        if let Some((other_file, other_line)) = first.get(id) {
            problems.push(Problem {
                code: "repeated_id",
                severity: Severity::Error,
                file: Arc::clone(file),
                line,
                column: 1,
                rule: Some(Arc::clone(title)),
                message: format!("the id \"{}\" is taken by the rule at {other_file}:{other_line}", shown(id)),
                hint: Some("give it an id of its own".to_owned()),
            });
            return false;
        }
        first.insert(Arc::clone(id), (Arc::clone(file), line));
        true
    };
    // Correlations first: a plan's rule is two with related ids, its correlation bears the one in the text.
    correlations.retain(|rule| keep(&rule.id, &rule.title, &rule.file, rule.line));
    rules.retain(|rule| keep(&rule.id, &rule.title, &rule.file, rule.line));
}

fn place_of(node: Option<&Node>, otherwise: Place) -> Place {
    node.map_or(otherwise, |node| node.at)
}
