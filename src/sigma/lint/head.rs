//! What a rule says of itself.

use crate::{
    log_source::LogSources,
    parse::head::KEYS,
    problem::{Problems, did_you_mean, shown},
    rule::{LogSourcePattern, Number},
    yaml::Node,
};

/// Longest title (specification 2.1, *Title*).
const TITLE_CHARS_MAX: usize = 256;
/// Longest description (specification 2.1, *Description*).
const DESCRIPTION_CHARS_MAX: usize = 65_535;
/// Namespaces of tags (specification 2.1, *Sigma Tags*).
const NAMESPACES: [&str; 7] = ["attack", "car", "cve", "d3fend", "detection", "stp", "tlp"];
/// Tactics of ATT&CK, those of version 19 included, which split defense-evasion.
const TACTICS: [&str; 16] = [
    "reconnaissance",
    "resource-development",
    "initial-access",
    "execution",
    "persistence",
    "privilege-escalation",
    "defense-evasion",
    "stealth",
    "defense-impairment",
    "credential-access",
    "discovery",
    "lateral-movement",
    "collection",
    "command-and-control",
    "exfiltration",
    "impact",
];

/// Attributes of plain rules and correlations.
pub(super) fn check(document: &Node, problems: &mut Problems) {
    for (key, code, hint) in [
        ("description", "no_description", "say what it finds and why that matters"),
        ("level", "no_level", "give it informational, low, medium, high or critical"),
        ("status", "no_status", "write test or experimental, later stable"),
        ("author", "no_author", "say whom to ask"),
        ("date", "no_date", "say when it was written, as YYYY-MM-DD"),
        ("tags", "no_tags", "name the tactic and technique, as `attack.t1059.001`"),
        ("falsepositives", "no_falsepositives", "say what else may meet it, or `Unknown`"),
    ] {
        if document.get(key).is_none_or(|node| node.each().iter().all(|node| node.text().is_none_or(str::is_empty))) {
            problems.warn(code, document.at, format!("the rule has no `{key}`"), Some(hint.to_owned()));
        }
    }
    misspelt(document, problems);
    lengths(document, problems);
    id_form(document, problems);
    tags(document, problems);
    references(document, problems);
    dates(document, problems);
    if document.get("status").and_then(Node::text) == Some("deprecated") && document.get("related").is_none() {
        let message = "the rule is deprecated and does not say what replaces it".to_owned();
        problems.warn("deprecated_alone", document.at, message, Some("name it in `related`".to_owned()));
    }
}

/// Any key may be a custom field, so a misspelt one is silently one.
fn misspelt(document: &Node, problems: &mut Problems) {
    for (key, _) in document.map().unwrap_or_default() {
        let Some(word) = key.text().filter(|word| !KEYS.contains(word)) else { continue };
        if let Some(hint) = did_you_mean(word, KEYS) {
            let message = format!("`{}` is a custom field and near to an attribute", shown(word));
            problems.warn("attribute_name", key.at, message, Some(hint));
        }
    }
}

fn lengths(document: &Node, problems: &mut Problems) {
    for (key, code, most) in
        [("title", "title_length", TITLE_CHARS_MAX), ("description", "description_length", DESCRIPTION_CHARS_MAX)]
    {
        if let Some(node) = document.get(key)
            && node.text().is_some_and(|text| text.chars().count() > most)
        {
            problems.warn(code, node.at, format!("the {key} has more than {most} characters"), None);
        }
    }
}

fn id_form(document: &Node, problems: &mut Problems) {
    let Some((node, id)) = document.get("id").and_then(|node| Some((node, node.text()?))) else { return };
    let parts: Vec<usize> = id.split('-').map(str::len).collect();
    if parts != [8, 4, 4, 4, 12] || !id.chars().all(|c| c == '-' || c.is_ascii_hexdigit()) {
        let message = format!("the id \"{}\" is no UUID", shown(id));
        problems.warn("id_form", node.at, message, Some("make a random one (version 4)".to_owned()));
    }
}

fn tags(document: &Node, problems: &mut Problems) {
    let mut seen = std::collections::HashSet::new();
    for node in document.get("tags").map(Node::each).unwrap_or_default() {
        let Some(tag) = node.text() else { continue };
        if !seen.insert(tag) {
            problems.warn("tag_repeated", node.at, format!("the tag \"{}\" is there twice", shown(tag)), None);
        }
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-' | '.');
        // Artifacts of D3FEND have capital letters by the specification.
        let lower = tag.starts_with("d3fend.") || tag.chars().all(fits);
        let Some((namespace, rest)) = tag.split_once('.').filter(|(_, rest)| lower && !rest.is_empty()) else {
            let message = format!("the tag \"{}\" is not of the form `namespace.name`", shown(tag));
            let hint = Some("small letters, digits, `_` and `-`, with a dot between".to_owned());
            problems.warn("tag_form", node.at, message, hint);
            continue;
        };
        if !NAMESPACES.contains(&namespace) {
            let message = format!("the tag \"{}\" has an unknown namespace", shown(tag));
            problems.warn("tag_namespace", node.at, message, did_you_mean(namespace, NAMESPACES));
        } else if !is_known(namespace, rest) {
            let hint = if namespace == "attack" { did_you_mean(rest, TACTICS) } else { None };
            problems.warn("tag_value", node.at, format!("the tag \"{}\" is none of `{namespace}`", shown(tag)), hint);
        }
    }
}

fn is_known(namespace: &str, rest: &str) -> bool {
    let digits = |text: &str, from: usize| text.len() >= from && text.bytes().all(|byte| byte.is_ascii_digit());
    match namespace {
        "attack" => {
            let number = |prefix: &str| rest.strip_prefix(prefix).is_some_and(|rest| digits(rest, 4));
            let technique = rest.strip_prefix('t').is_some_and(|rest| match rest.split_once('.') {
                Some((technique, sub)) => digits(technique, 4) && digits(sub, 3),
                None => digits(rest, 4),
            });
            // Sigma 1 wrote underscores.
            let tactic = TACTICS.contains(&rest.replace('_', "-").as_str());
            technique || tactic || ["ta", "g", "s", "ds", "m", "a", "c"].into_iter().any(number)
        }
        "car" => rest.split('-').all(|part| digits(part, 2)),
        "cve" => rest.split(['.', '-']).count() >= 2 && rest.split(['.', '-']).all(|part| digits(part, 4)),
        "detection" => ["dfir", "emerging-threats", "threat-hunting"].contains(&rest),
        "tlp" => ["red", "amber", "amber-strict", "green", "clear", "white"].contains(&rest),
        "stp" => {
            let (level, kind) = rest.split_at_checked(1).unwrap_or_default();
            matches!(level, "1" | "2" | "3" | "4" | "5") && matches!(kind, "" | "a" | "u" | "k")
        }
        _ => true,
    }
}

fn references(document: &Node, problems: &mut Problems) {
    for node in document.get("references").map(Node::each).unwrap_or_default() {
        let Some(text) = node.text() else { continue };
        if !["https://", "http://"].iter().any(|scheme| text.starts_with(scheme)) {
            let message = format!("the reference \"{}\" is no URL", shown(text));
            problems.warn("reference_form", node.at, message, Some("write where it can be read".to_owned()));
        }
    }
}

fn dates(document: &Node, problems: &mut Problems) {
    let date = |key: &str| document.get(key).and_then(Node::text).map(|text| text.replace('/', "-"));
    if let (Some(date), Some(modified)) = (date("date"), date("modified"))
        && date.len() == modified.len()
        && modified < date
    {
        let at = document.get("modified").map_or(document.at, |node| node.at);
        problems.warn("date_order", at, "the rule was changed before it was written".to_owned(), None);
    }
}

/// Whether anything can feed the rule, and the form of its log source.
pub(super) fn log_source(document: &Node, problems: &mut Problems) {
    let Some(node) = document.get("logsource") else { return };
    let mut pattern = LogSourcePattern::default();
    for (key, slot) in
        [("product", &mut pattern.product), ("category", &mut pattern.category), ("service", &mut pattern.service)]
    {
        let Some(part) = node.get(key) else { continue };
        let Some(text) = part.text() else { continue };
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-' | '.');
        if !text.chars().all(fits) {
            let message = format!("the {key} \"{}\" is not written as log sources are", shown(text));
            let hint = Some("small letters, digits, `_`, `-` and `.`; `_` for a blank".to_owned());
            problems.warn("logsource_form", part.at, message, hint);
        }
        *slot = Some(text.trim().to_lowercase().into());
    }
    if pattern != LogSourcePattern::default() && LogSources::built_in().known(&pattern).is_nothing() {
        let message = "no source that is known by the table feeds this log source".to_owned();
        let hint = Some("look for a misspelling, or add the log source to the table".to_owned());
        problems.warn("unknown_logsource", node.at, message, hint);
    }
}

/// Correlations: what they group by, and bounds.
pub(super) fn correlation(node: &Node, problems: &mut Problems) {
    if node.map().is_some() && node.get("group-by").is_none_or(|node| node.each().is_empty()) {
        let message = "the correlation has no `group-by`: whatever happens anywhere counts together".to_owned();
        problems.warn("no_group_by", node.at, message, Some("say what the events must have in common".to_owned()));
    }
    let Some(condition) = node.get("condition").filter(|condition| condition.map().is_some()) else { return };
    let bound = |key: &str| condition.get(key).and_then(Node::text).and_then(Number::parse);
    let equal = bound("eq").is_some() || bound("neq").is_some();
    let lower = bound("gt").or_else(|| bound("gte"));
    let upper = bound("lt").or_else(|| bound("lte"));
    match (lower, upper) {
        (None, Some(_)) if !equal && node.get("type").and_then(Node::text) == Some("event_count") => {
            let message = "the condition has no lower bound: one event fulfils it".to_owned();
            problems.warn("no_lower_bound", condition.at, message, Some("add `gte`".to_owned()));
        }
        (Some(lower), Some(upper)) if lower.compare(upper).is_some_and(std::cmp::Ordering::is_gt) => {
            let message = "the condition's bounds leave nothing between them".to_owned();
            problems.warn("always_false", condition.at, message, None);
        }
        _ => {}
    }
}
