//! Text to rules: which kind of document it is, what all kinds have in common, and what must be unique.

use std::{collections::HashMap, sync::Arc};

use cf_types::Level;

use crate::{
    problem::{Place, Problem, Problems, Refused, Severity, did_you_mean, shown},
    rule::{Correlation, LogSourcePattern, Rule},
    yaml::{self, Node},
};

mod condition;
mod correlation;
mod detection;
mod plan;
mod value;

/// One YAML text, read by the caller. It may hold several documents.
#[derive(Clone, Debug)]
pub struct Text {
    /// File as problems are to name it.
    pub file: Arc<str>,
    /// The text.
    pub text: String,
}

/// What texts hold: the rules that can be used, and what is wrong with the others.
#[derive(Clone, Debug, Default)]
pub struct Parsed {
    /// Plain rules, in the order of the texts.
    pub rules: Vec<Rule>,
    /// Correlations, in the order of the texts.
    pub correlations: Vec<Correlation>,
    /// Problems, in the order of the texts.
    pub problems: Vec<Problem>,
    /// BLAKE3 of each text, in order: what the rule set's hash is made of.
    pub(crate) digests: Vec<[u8; 32]>,
}

impl Parsed {
    /// Takes in rules that another reader made of these texts (YARA's, say). Ids stay unique: the first keeps its id.
    pub fn include(&mut self, texts: &[Text], rules: Vec<Rule>, problems: Vec<Problem>) {
        self.digests.extend(texts.iter().map(|text| *blake3::hash(text.text.as_bytes()).as_bytes()));
        self.rules.extend(rules);
        self.problems.extend(problems);
        refuse_repeated_ids(self);
    }
}

/// Reads rules. A bad document never takes a good one down.
#[must_use]
pub fn parse(texts: &[Text]) -> Parsed {
    let mut parsed = Parsed::default();
    for text in texts {
        parsed.digests.push(*blake3::hash(text.text.as_bytes()).as_bytes());
        let (documents, error) = yaml::documents(&text.text);
        for document in &documents {
            let mut problems = Problems::new(&text.file);
            // Refused documents have said why.
            let _refused = read_document(document, text, &mut problems, &mut parsed);
            parsed.problems.append(&mut problems.list);
        }
        if let Some(error) = error {
            let mut problems = Problems::new(&text.file);
            let message = format!("could not read the text as YAML: {}", error.message);
            let _refused = problems.error("yaml", error.at, message, None);
            parsed.problems.append(&mut problems.list);
        }
    }
    refuse_repeated_ids(&mut parsed);
    parsed
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
    if let Some(action) = document.get("action") {
        let message = "rule collections with `action` are not read".to_owned();
        let hint = Some("write each rule out as a document of its own".to_owned());
        return Err(problems.error("collection_action", action.at, message, hint));
    }
    if let Some(filter) = document.get("filter") {
        let message = "Sigma filters are not yet evaluated".to_owned();
        let hint = Some("write the filter into the rules' conditions".to_owned());
        return Err(problems.error("filter", filter.at, message, hint));
    }
    let Some(found) = document.get("detection") else {
        let keys = entries.iter().filter_map(|(key, _)| key.text());
        let near =
            keys.filter_map(|key| did_you_mean(key, ["detection", "correlation"]).map(|hint| (key, hint))).next();
        let hint = near.map(|(key, hint)| format!("there is `{}`; {hint}", shown(key)));
        return Err(problems.error("no_detection", document.at, "the document has no `detection`".to_owned(), hint));
    };
    let head = Head::read(document, text, problems)?;
    let log_source = log_source(document, problems)?;
    let condition = detection::read(found, problems)?;
    let Head { id, name, title, description, level, status, tags, file, line } = head;
    parsed.rules.push(Rule { id, name, title, description, level, status, tags, file, line, log_source, condition });
    Ok(())
}

/// What plain rules and correlations have in common.
struct Head {
    id: Arc<str>,
    name: Option<Arc<str>>,
    title: Arc<str>,
    description: Arc<str>,
    level: Level,
    status: Option<Arc<str>>,
    tags: Arc<[Arc<str>]>,
    file: Arc<str>,
    line: u32,
}

impl Head {
    fn read(document: &Node, text: &Text, problems: &mut Problems) -> Result<Head, Refused> {
        let optional = |key: &str| document.get(key).and_then(Node::text).map(Arc::<str>::from);
        let Some(title) = optional("title").filter(|title| !title.trim().is_empty()) else {
            return Err(problems.error("no_title", document.at, "the rule has no `title`".to_owned(), None));
        };
        let name = optional("name").filter(|name| !name.is_empty());
        let tags = document.get("tags").map(Node::each).unwrap_or_default();
        let status = document.get("status").and_then(|status| known_status(status, problems));
        Ok(Head {
            id: rule_id(document, name.as_ref(), text, problems),
            name,
            title,
            description: optional("description").unwrap_or_default(),
            level: document.get("level").map_or(Ok(Level::default()), |level| read_level(level, problems))?,
            status,
            tags: tags.iter().filter_map(Node::text).map(Arc::from).collect(),
            file: Arc::clone(&text.file),
            line: document.at.line,
        })
    }
}

/// The id in the text, else one that is the same whenever the same text is read.
fn rule_id(document: &Node, name: Option<&Arc<str>>, text: &Text, problems: &mut Problems) -> Arc<str> {
    if let Some(id) = document.get("id").and_then(Node::text).filter(|id| !id.trim().is_empty()) {
        return Arc::from(id.trim());
    }
    let id = name.map_or_else(
        || {
            let line = document.at.line.to_string();
            let parts = [text.file.as_bytes(), text.text.as_bytes(), line.as_bytes()];
            let digest = cf_types::id::digest128("counterflow 2026 rule id", &parts);
            Arc::from(cf_types::EventId(digest).to_string())
        },
        Arc::clone,
    );
    problems.warn(
        "no_id",
        document.at,
        format!("the rule has no `id`; \"{id}\" is used"),
        Some("give it a UUID, so that its alerts keep their ids when the text changes".to_owned()),
    );
    id
}

const LEVELS: [Level; 5] = [Level::Informational, Level::Low, Level::Medium, Level::High, Level::Critical];

fn read_level(node: &Node, problems: &mut Problems) -> Result<Level, Refused> {
    let text = node.text().unwrap_or_default();
    let found = LEVELS.into_iter().find(|level| level.as_str().eq_ignore_ascii_case(text));
    found.ok_or_else(|| {
        let hint = did_you_mean(text, LEVELS.map(Level::as_str));
        problems.error("unknown_level", node.at, format!("unknown level \"{}\"", shown(text)), hint)
    })
}

fn known_status(node: &Node, problems: &mut Problems) -> Option<Arc<str>> {
    const STATUSES: [&str; 5] = ["stable", "test", "experimental", "deprecated", "unsupported"];
    let text = node.text()?;
    if !STATUSES.contains(&text) {
        let hint = did_you_mean(text, STATUSES);
        problems.warn("unknown_status", node.at, format!("unknown status \"{}\"", shown(text)), hint);
    }
    Some(Arc::from(text))
}

fn log_source(document: &Node, problems: &mut Problems) -> Result<LogSourcePattern, Refused> {
    let Some(node) = document.get("logsource") else {
        return Err(problems.error("no_logsource", document.at, "the rule has no `logsource`".to_owned(), None));
    };
    let Some(entries) = node.map() else {
        return Err(problems.error("logsource", node.at, format!("`logsource` is {}, not a map", node.word()), None));
    };
    refuse_repeated_keys(entries, problems)?;
    let mut pattern = LogSourcePattern::default();
    for (key, value) in entries {
        let part = match key.text().unwrap_or_default() {
            "product" => &mut pattern.product,
            "category" => &mut pattern.category,
            "service" => &mut pattern.service,
            "definition" => continue,
            other => {
                let hint = did_you_mean(other, ["product", "category", "service", "definition"]);
                problems.warn(
                    "unknown_logsource_part",
                    key.at,
                    format!("unknown part of `logsource`: \"{}\"", shown(other)),
                    hint,
                );
                continue;
            }
        };
        match value.text() {
            Some(text) if !text.trim().is_empty() => *part = Some(Arc::from(text.trim().to_lowercase())),
            _ => {
                let message = format!(
                    "`logsource` part \"{}\" is {}, not a word",
                    shown(key.text().unwrap_or_default()),
                    value.word()
                );
                return Err(problems.error("logsource", value.at, message, None));
            }
        }
    }
    if pattern == LogSourcePattern::default() {
        let hint = Some("give product, category or service".to_owned());
        return Err(problems.error("logsource", node.at, "`logsource` says nothing".to_owned(), hint));
    }
    Ok(pattern)
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
    let mut first: HashMap<Arc<str>, (Arc<str>, u32)> = HashMap::new();
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

/// Reads `5m` and the like as seconds.
fn timespan(node: &Node, problems: &mut Problems) -> Result<i64, Refused> {
    let text = node.text().unwrap_or_default().trim();
    let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
    let unit = text.get(digits.len()..).unwrap_or_default();
    let seconds: Option<i64> = match unit {
        "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3_600),
        "d" => Some(86_400),
        "w" => Some(7 * 86_400),
        _ => None,
    };
    let span = seconds.zip(digits.parse::<i64>().ok()).and_then(|(unit, number)| unit.checked_mul(number));
    // A window must fit into the horizon's order of magnitude; a year of cells is beyond what is kept anyway.
    match span {
        Some(span) if (1..=366 * 86_400).contains(&span) => Ok(span),
        _ => {
            let hint = match unit {
                "M" | "y" | "Y" => "months and years have no fixed length; give days, as `30d`",
                _ => "give a number and s, m, h, d or w, as `5m`; at most 366d",
            };
            Err(problems.error(
                "timespan",
                node.at,
                format!("\"{}\" is no time span", shown(text)),
                Some(hint.to_owned()),
            ))
        }
    }
}

fn place_of(node: Option<&Node>, otherwise: Place) -> Place {
    node.map_or(otherwise, |node| node.at)
}
