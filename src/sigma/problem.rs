//! What is wrong with a rule text, where, and what to do about it.

use std::{fmt, sync::Arc};

use serde::Serialize;

use crate::parse::ParseOptions;

/// Whether a rule is refused for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The rule (or file) is not loaded.
    Error,
    /// The rule is loaded; something in it has no effect or is doubtful.
    Warning,
}

/// One problem of one rule text.
///
/// ```
/// use cf_sigma::{Text, parse};
/// let text = "title: Mimikatz\nlogsource: {product: windows}\ndetection:\n  s:\n    Image|contain: x\n  condition: s\n";
/// let parsed = parse(&[Text { file: "rules/x.yml".into(), text: text.into() }]);
/// assert_eq!(
///     parsed.problems.iter().find(|problem| problem.code == "unknown_modifier").unwrap().to_string(),
///     "rule \"Mimikatz\" (rules/x.yml:5): unknown modifier \"contain\"; did you mean \"contains\"?"
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Stable word for the kind of problem.
    pub code: &'static str,
    /// Refused or only doubtful.
    pub severity: Severity,
    /// File as the caller named it.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
    /// Title of the rule, if it was read.
    pub rule: Option<Arc<str>>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.rule {
            Some(rule) => write!(f, "rule \"{rule}\" ({}:{}): {}", self.file, self.line, self.message)?,
            None => write!(f, "{}:{}: {}", self.file, self.line, self.message)?,
        }
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

/// A place in a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) line: u32,
    pub(crate) column: u32,
}

/// Collects the problems of one document.
#[derive(Debug)]
pub(crate) struct Problems {
    pub(crate) file: Arc<str>,
    pub(crate) rule: Option<Arc<str>>,
    pub(crate) list: Vec<Problem>,
    /// What the caller knows.
    pub(crate) options: Arc<ParseOptions>,
    /// Tests and regular expressions that the document has become so far: both are bounded.
    pub(crate) tests: usize,
    pub(crate) regexes: usize,
}

/// A rule cannot be loaded; why is in the list of problems.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refused;

impl Problems {
    pub(crate) fn new(file: &Arc<str>) -> Problems {
        Problems::with(file, &Arc::default())
    }

    pub(crate) fn with(file: &Arc<str>, options: &Arc<ParseOptions>) -> Problems {
        let (file, options) = (Arc::clone(file), Arc::clone(options));
        Problems { file, rule: None, list: Vec::new(), options, tests: 0, regexes: 0 }
    }

    pub(crate) fn error(&mut self, code: &'static str, at: Place, message: String, hint: Option<String>) -> Refused {
        self.push(code, Severity::Error, at, message, hint);
        Refused
    }

    pub(crate) fn warn(&mut self, code: &'static str, at: Place, message: String, hint: Option<String>) {
        self.push(code, Severity::Warning, at, message, hint);
    }

    fn push(&mut self, code: &'static str, severity: Severity, at: Place, message: String, hint: Option<String>) {
        debug_assert!(crate::codes::about(code).is_some(), "the code {code} is not in the table of codes");
        let (file, rule) = (Arc::clone(&self.file), self.rule.clone());
        self.list.push(Problem { code, severity, file, line: at.line, column: at.column, rule, message, hint });
    }
}

/// `did you mean "x"?` if one of the words is near.
pub(crate) fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let lower = word.to_lowercase();
    let lower: String = lower.chars().take(64).collect();
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| {
            let len = candidate.chars().count();
            *distance < len && *distance <= 1 + len / 4
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| format!("did you mean \"{candidate}\"?"))
}

/// Text from outside, cut for a message.
pub(crate) fn shown(text: &str) -> String {
    let mut cut: String = text.chars().take(80).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    cut
}
