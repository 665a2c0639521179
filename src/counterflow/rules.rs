//! Rules from files and folders: reading is here, meaning is `cf-sigma`'s.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use cf_sigma::{Options, ParseOptions, Parsed, Problem, RuleSet, Severity, Text};

use crate::hunts;

/// The largest rule file read, in bytes: the largest Sigma file has 300 kB, whole YARA collections some 10 MB.
pub(crate) const RULE_FILE_BYTES_MAX: u64 = 16 << 20;

/// How rules are read and compiled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RuleOptions {
    /// What texts may speak of: values of placeholders and the like.
    pub(crate) parse: ParseOptions,
    /// What is chosen for the whole rule set.
    pub(crate) compile: Options,
}

/// More rule files than this are no rule folder.
const RULE_FILES_MAX: usize = 200_000;

/// A rule set and what was wrong on the way to it.
pub(crate) struct LoadedRules {
    /// What loaded.
    pub(crate) rules: Arc<RuleSet>,
    /// What did not, and what was doubtful.
    pub(crate) problems: Vec<Problem>,
    /// The texts that it is from.
    pub(crate) texts: Vec<Text>,
}

impl LoadedRules {
    /// Problems that kept a rule out.
    pub(crate) fn errors(&self) -> usize {
        self.problems.iter().filter(|problem| problem.severity == Severity::Error).count()
    }
}

/// Loads files (several documents each) and folders (at any depth, sorted by path): `*.yml` and `*.yaml` are Sigma or
/// the plan's form, `*.yar` and `*.yara` YARA.
pub(crate) fn load(paths: &[PathBuf], options: &RuleOptions) -> Result<LoadedRules> {
    let texts = read(paths)?;
    let (rules, problems) = compile(&texts, options);
    Ok(LoadedRules { rules, problems, texts })
}

/// Reads texts of all kinds.
pub(crate) fn parse(texts: &[Text], options: &ParseOptions) -> Parsed {
    let (yara, sigma): (Vec<Text>, Vec<Text>) = texts.iter().cloned().partition(|text| is_yara(&text.file));
    let mut parsed = cf_sigma::parse_with(&sigma, options);
    if !yara.is_empty() {
        include_yara(&mut parsed, &yara);
        // Of rules with one id the first stays, and the hash of the set follows the order of the texts.
        parsed = parsed.in_order_of(texts);
    }
    parsed
}

#[cfg(feature = "yara")]
fn include_yara(parsed: &mut Parsed, texts: &[Text]) {
    let read = cf_yara::read(texts, &cf_yara::Limits::default());
    parsed.include(texts, read.rules, read.problems);
}

#[cfg(not(feature = "yara"))]
fn include_yara(parsed: &mut Parsed, texts: &[Text]) {
    let problems = texts.iter().map(|text| Problem {
        code: "yara_absent",
        severity: Severity::Error,
        file: Arc::clone(&text.file),
        line: 1,
        column: 1,
        rule: None,
        message: "this program was built without YARA".to_owned(),
        hint: Some("build it with the feature `yara`".to_owned()),
    });
    let problems = problems.collect();
    parsed.include(texts, Vec::new(), problems);
}

/// Whether a file of this name is read as YARA.
pub(crate) fn is_yara(file: &str) -> bool {
    let extension = Path::new(file).extension();
    extension.is_some_and(|extension| extension.eq_ignore_ascii_case("yar") || extension.eq_ignore_ascii_case("yara"))
}

/// Whether a file of this name is a rule file.
pub(crate) fn is_rule_file(file: &Path) -> bool {
    let known = |extension: &std::ffi::OsStr| extension == "yml" || extension == "yaml";
    file.extension().is_some_and(known) || is_yara(&file.to_string_lossy())
}

/// Compiles texts that were read before.
pub(crate) fn compile(texts: &[Text], options: &RuleOptions) -> (Arc<RuleSet>, Vec<Problem>) {
    compile_parsed(parse(texts, &options.parse), &options.compile)
}

/// Compiles what was read.
pub(crate) fn compile_parsed(parsed: Parsed, options: &Options) -> (Arc<RuleSet>, Vec<Problem>) {
    checked(RuleSet::compile(parsed, options))
}

/// The set after some texts changed or went.
pub(crate) fn changed(rules: &RuleSet, upsert: Vec<Text>, removed: &[Arc<str>]) -> (Arc<RuleSet>, Vec<Problem>) {
    checked(rules.changed_to(parse(&upsert, rules.parse_options()), removed))
}

/// Adds what only the graph knows to be wrong.
fn checked((rules, mut problems): (RuleSet, Vec<Problem>)) -> (Arc<RuleSet>, Vec<Problem>) {
    problems.extend(cf_dataflows::too_deep(rules.episode_rules()).into_iter().map(|id| {
        let info = rules.rules().iter().find(|rule| rule.id == id);
        Problem {
            code: "correlation-depth",
            severity: Severity::Error,
            file: info.map_or_else(|| Arc::from(""), |rule| Arc::clone(&rule.file)),
            line: info.map_or(0, |rule| rule.line),
            column: 1,
            message: "correlations are chained deeper than four levels, so this one never alerts".to_owned(),
            hint: Some("refer to the lower rules directly".to_owned()),
            rule: Some(id),
        }
    }));
    problems.extend(rules.rules().iter().filter(|rule| cf_dataflows::is_builtin(&rule.id)).map(|rule| Problem {
        code: "reserved_id",
        severity: Severity::Error,
        file: Arc::clone(&rule.file),
        line: rule.line,
        column: 1,
        message: format!("the id {:?} is that of the engine's own alerts, so this rule never alerts", rule.id),
        hint: Some("give it another id, best a UUID".to_owned()),
        rule: Some(Arc::clone(&rule.id)),
    }));
    problems.extend(hunts::check::problems(&rules));
    (Arc::new(rules), problems)
}

/// Reads the texts of files and folders.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Vec<Text>> {
    list(paths)?.iter().map(|file| read_one(file)).collect()
}

/// The rule files under these paths, in the order of loading; a file under two of them is there once.
pub(crate) fn list(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        let meta = fs::metadata(path).with_context(|| format!("could not read rules {}", path.display()))?;
        if meta.is_dir() {
            walk(path, &mut files)?;
        } else {
            files.push(path.clone());
        }
    }
    let mut seen = HashSet::new();
    files.retain(|file| seen.insert(file.clone()));
    if files.len() > RULE_FILES_MAX {
        bail!("there are {} rule files; at most {RULE_FILES_MAX} are read", files.len());
    }
    Ok(files)
}

/// How a file's text is called in problems and in the rule set.
pub(crate) fn name_of(path: &Path) -> Arc<str> {
    Arc::from(path.display().to_string())
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let listing = fs::read_dir(folder).with_context(|| format!("could not list rules folder {}", folder.display()))?;
    let mut entries = listing
        .collect::<Result<Vec<_>, _>>()
        .with_context(|| format!("could not list rules folder {}", folder.display()))?;
    entries.sort_by_key(fs::DirEntry::path);
    for entry in entries {
        let kind = entry.file_type().with_context(|| format!("could not look at {}", entry.path().display()))?;
        let path = entry.path();
        // Links are not followed into folders: a loop of links would never end.
        if kind.is_dir() {
            walk(&path, files)?;
        } else if is_rule_file(&path) {
            files.push(path);
        }
    }
    Ok(())
}

/// Reads one file.
pub(crate) fn read_one(path: &Path) -> Result<Text> {
    let size = fs::metadata(path).with_context(|| format!("could not read rule file {}", path.display()))?.len();
    if size > RULE_FILE_BYTES_MAX {
        bail!("rule file {} has {size} bytes; at most {RULE_FILE_BYTES_MAX} are read", path.display());
    }
    let bytes = fs::read(path).with_context(|| format!("could not read rule file {}", path.display()))?;
    // A file that is no UTF-8 becomes a problem of that file alone: its text no longer parses as a rule.
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok(Text { file: name_of(path), text })
}
