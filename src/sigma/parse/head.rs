//! What all kinds of documents say of themselves: title, id, level and the rest that people read.

use std::sync::Arc;

use cf_types::Level;

use crate::{
    parse::{Text, refuse_repeated_keys},
    problem::{Place, Problems, Refused, did_you_mean, shown},
    rule::{LogSourcePattern, Meta, Related, Value},
    yaml::{Kind, Node},
};

/// Keys of a rule's document that the specification gives a meaning; all others are custom fields.
pub(crate) const KEYS: [&str; 23] = [
    "title",
    "id",
    "name",
    "related",
    "taxonomy",
    "status",
    "description",
    "license",
    "author",
    "references",
    "date",
    "modified",
    "logsource",
    "detection",
    "fields",
    "falsepositives",
    "level",
    "tags",
    "scope",
    "correlation",
    "filter",
    "hunt",
    "action",
];
/// Statuses of the specification.
pub(crate) const STATUSES: [&str; 5] = ["stable", "test", "experimental", "deprecated", "unsupported"];
/// Kinds of relation between rules; `correlation` is what published correlations write.
const RELATIONS: [&str; 6] = ["derived", "obsolete", "merged", "renamed", "similar", "correlation"];
/// Levels, lowest first.
pub(super) const LEVELS: [Level; 5] = [Level::Informational, Level::Low, Level::Medium, Level::High, Level::Critical];

/// What plain rules and correlations have in common.
pub(super) struct Head {
    pub(super) id: Arc<str>,
    pub(super) name: Option<Arc<str>>,
    pub(super) title: Arc<str>,
    pub(super) description: Arc<str>,
    pub(super) level: Level,
    pub(super) status: Option<Arc<str>>,
    pub(super) tags: Arc<[Arc<str>]>,
    pub(super) file: Arc<str>,
    pub(super) line: u32,
    pub(super) meta: Arc<Meta>,
}

impl Head {
    pub(super) fn read(document: &Node, text: &Text, problems: &mut Problems) -> Result<Head, Refused> {
        let title = title(document, problems)?;
        let name = words::one(document, "name", problems);
        let meta = meta(document, problems)?;
        Ok(Head {
            id: rule_id(document, name.as_ref(), text, problems),
            name,
            title,
            description: words::one(document, "description", problems).unwrap_or_default(),
            level: document.get("level").map_or_else(Level::default, |level| known_level(level, problems)),
            status: words::one(document, "status", problems).inspect(|status| known_status(document, status, problems)),
            tags: words::list(document, "tags", problems).into(),
            file: Arc::clone(&text.file),
            line: document.at.line,
            meta: Arc::new(meta),
        })
    }
}

/// The title, which every document must have.
pub(super) fn title(document: &Node, problems: &mut Problems) -> Result<Arc<str>, Refused> {
    let title = words::one(document, "title", problems).filter(|title| !title.trim().is_empty());
    title.ok_or_else(|| problems.error("no_title", document.at, "the rule has no `title`".to_owned(), None))
}

/// What people may read of the document beside what it matches.
pub(super) fn meta(document: &Node, problems: &mut Problems) -> Result<Meta, Refused> {
    let custom = document.map().unwrap_or_default().iter().filter_map(|(key, value)| {
        let key = key.text().filter(|key| !KEYS.contains(key))?;
        Some((Arc::from(key), custom_value(value)))
    });
    let meta = Meta {
        taxonomy: words::one(document, "taxonomy", problems),
        license: words::one(document, "license", problems),
        author: words::one(document, "author", problems),
        date: words::date(document, "date", problems),
        modified: words::date(document, "modified", problems),
        definition: document.get("logsource").and_then(|source| words::one(source, "definition", problems)),
        references: words::list(document, "references", problems),
        falsepositives: words::list(document, "falsepositives", problems),
        fields: words::list(document, "fields", problems),
        scope: words::list(document, "scope", problems),
        related: related(document, problems),
        custom: custom.collect(),
    };
    check_taxonomy(document, &meta, problems)?;
    check_playbook(document, &meta, problems);
    Ok(meta)
}

/// A custom taxonomy must be handled or transformed (specification, *Taxonomy*): its names would silently match nothing.
fn check_taxonomy(document: &Node, meta: &Meta, problems: &mut Problems) -> Result<(), Refused> {
    let Some(taxonomy) = meta.taxonomy.as_deref().filter(|taxonomy| !taxonomy.eq_ignore_ascii_case("sigma")) else {
        return Ok(());
    };
    if problems.options.taxonomies.contains(taxonomy) {
        return Ok(());
    }
    let at = document.get("taxonomy").map_or(document.at, |node| node.at);
    let hint = did_you_mean(taxonomy, ["sigma"])
        .unwrap_or_else(|| "write it with the names of the taxonomy \"sigma\", which is the default".to_owned());
    Err(problems.error("taxonomy", at, format!("unknown taxonomy \"{}\"", shown(taxonomy)), Some(hint)))
}

fn check_playbook(document: &Node, meta: &Meta, problems: &mut Problems) {
    let Some(node) = document.get("playbook") else { return };
    match meta.playbook() {
        Some(name) => suggest_playbook(name, node.at, problems),
        None => {
            let message = format!("`playbook` is {}, not a name", node.word());
            problems.warn("attribute", node.at, message, None);
        }
    }
}

/// Says that a playbook which a rule suggests is not there.
pub(super) fn suggest_playbook(name: &str, at: Place, problems: &mut Problems) {
    if !problems.options.playbooks.contains(name) {
        let hint = did_you_mean(name, problems.options.playbooks.iter().map(String::as_str))
            .unwrap_or_else(|| "the rule is loaded, the suggestion does nothing".to_owned());
        problems.warn("unknown_playbook", at, format!("the playbook \"{}\" is not there", shown(name)), Some(hint));
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

fn known_level(node: &Node, problems: &mut Problems) -> Level {
    let text = node.text().unwrap_or_default();
    let found = LEVELS.into_iter().find(|level| level.as_str().eq_ignore_ascii_case(text));
    found.unwrap_or_else(|| {
        let message = format!("unknown level \"{}\"; \"{}\" is used", shown(text), Level::default().as_str());
        problems.warn("unknown_level", node.at, message, did_you_mean(text, LEVELS.map(Level::as_str)));
        Level::default()
    })
}

fn known_status(document: &Node, status: &str, problems: &mut Problems) {
    if !STATUSES.contains(&status) {
        let at = document.get("status").map_or(document.at, |node| node.at);
        let hint = did_you_mean(status, STATUSES);
        problems.warn("unknown_status", at, format!("unknown status \"{}\"", shown(status)), hint);
    }
}

fn related(document: &Node, problems: &mut Problems) -> Vec<Related> {
    let mut related = Vec::new();
    for node in document.get("related").map(Node::each).unwrap_or_default() {
        let part = |key: &str| node.get(key).and_then(Node::text).map(Arc::<str>::from);
        let Some((id, kind)) = part("id").zip(part("type")) else {
            let hint = Some("as `related: [{id: ..., type: derived}]`".to_owned());
            problems.warn("related", node.at, "a related rule needs `id` and `type`".to_owned(), hint);
            continue;
        };
        // Sigma 1 wrote `obsoletes`.
        if !RELATIONS.contains(&&*kind) && &*kind != "obsoletes" {
            let hint = did_you_mean(&kind, RELATIONS);
            problems.warn("related", node.at, format!("unknown kind of relation \"{}\"", shown(&kind)), hint);
        }
        related.push(Related { id, kind });
    }
    related
}

fn custom_value(node: &Node) -> Value {
    match &node.kind {
        Kind::Null => Value::Null,
        Kind::Scalar(text) => match text.as_str() {
            "true" | "True" | "TRUE" if node.plain => Value::Truth(true),
            "false" | "False" | "FALSE" if node.plain => Value::Truth(false),
            text => match text.parse() {
                Ok(number) if node.plain => Value::Whole(number),
                _ => Value::Text(Arc::from(text)),
            },
        },
        Kind::List(elements) => Value::List(elements.iter().map(custom_value).collect()),
        Kind::Map(entries) => {
            let entries = entries.iter().filter_map(|(key, value)| Some((Arc::from(key.text()?), custom_value(value))));
            Value::Map(entries.collect())
        }
    }
}

/// Values of attributes; what is of the wrong kind is left out and said.
mod words {
    use super::{Arc, Kind, Node, Problems, shown};

    /// A text, `None` if it is missing, null or empty.
    pub(super) fn one(map: &Node, key: &str, problems: &mut Problems) -> Option<Arc<str>> {
        let node = map.get(key)?;
        match &node.kind {
            Kind::Null => None,
            Kind::Scalar(text) => (!text.is_empty()).then(|| Arc::from(text.as_str())),
            Kind::List(_) | Kind::Map(_) => {
                let message = format!("`{key}` is {}, not a text; it is left out", node.word());
                problems.warn("attribute", node.at, message, None);
                None
            }
        }
    }

    /// Texts; one text counts as a list of one.
    pub(super) fn list(map: &Node, key: &str, problems: &mut Problems) -> Vec<Arc<str>> {
        let mut list = Vec::new();
        for node in map.get(key).map(Node::each).unwrap_or_default() {
            match node.text() {
                Some(text) => list.push(Arc::from(text)),
                None => {
                    let message = format!("`{key}` holds {}, which is left out; it is a list of texts", node.word());
                    problems.warn("attribute", node.at, message, None);
                }
            }
        }
        list
    }

    /// A day as `YYYY-MM-DD`; Sigma 1 wrote slashes.
    pub(super) fn date(map: &Node, key: &str, problems: &mut Problems) -> Option<Arc<str>> {
        let text = one(map, key, problems)?;
        if !is_date(&text) {
            let at = map.get(key).map_or(map.at, |node| node.at);
            let hint = Some("write it as YYYY-MM-DD".to_owned());
            problems.warn("date", at, format!("`{key}` is no date: \"{}\"", shown(&text)), hint);
        }
        Some(text)
    }

    fn is_date(text: &str) -> bool {
        let parts: Vec<&str> = text.split(if text.contains('/') { '/' } else { '-' }).collect();
        let [year, month, day] = parts.as_slice() else { return false };
        let number = |text: &str, digits: usize, from: u32, to: u32| {
            text.len() == digits
                && text.bytes().all(|byte| byte.is_ascii_digit())
                && text.parse().is_ok_and(|number: u32| (from..=to).contains(&number))
        };
        let days = match *month {
            "04" | "06" | "09" | "11" => 30,
            "02" => 29,
            _ => 31,
        };
        number(year, 4, 1, 9999) && number(month, 2, 1, 12) && number(day, 2, 1, days)
    }
}

/// The parts of `logsource`.
pub(super) fn log_source(document: &Node, problems: &mut Problems) -> Result<LogSourcePattern, Refused> {
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
