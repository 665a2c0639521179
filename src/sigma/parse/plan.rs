//! The plan's own rule format (formats.md 5.2, DET-06): conditions on fields, one of which may count.
//!
//! With a `count` condition it becomes two rules: a plain one that does not alert, and an `event_count` over it, grouped
//! by the counted field, which bears the id. Without one it is a plain rule. Its field names are the event's own.

use std::sync::Arc;

use cf_types::{Condition, Level, Predicate};

use crate::{
    parse::{LEVELS, Parsed, Text, detection::test, place_of, refuse_repeated_keys, timespan, value},
    problem::{Problems, Refused, did_you_mean, shown},
    rule::{Comparison, Correlation, Expr, LogSourcePattern, Matcher, Number, Reference, Rule, Shape},
    yaml::Node,
};

const OPERATORS: [&str; 16] = [
    "equals",
    "not_equals",
    "contains",
    "startswith",
    "starts_with",
    "endswith",
    "ends_with",
    "regex",
    "in",
    "gt",
    "gte",
    "lt",
    "lte",
    "exists",
    "count",
    "not_in",
];

/// Reads one.
pub(super) fn read(node: &Node, text: &Text, problems: &mut Problems, parsed: &mut Parsed) -> Result<(), Refused> {
    refuse_repeated_keys(node.map().unwrap_or_default(), problems)?;
    let optional =
        |key: &str| node.get(key).and_then(Node::text).filter(|text| !text.trim().is_empty()).map(Arc::<str>::from);
    let Some(title) = optional("name").or_else(|| optional("title")) else {
        return Err(problems.error("no_title", node.at, "the rule has no `name`".to_owned(), None));
    };
    problems.rule = Some(Arc::from(shown(&title)));
    let Some(id) = optional("id") else {
        return Err(problems.error("no_id", node.at, "the rule has no `id`".to_owned(), None));
    };
    let level = level(node, problems)?;
    let (tests, counts) = conditions(node, problems)?;
    actions(node, problems);

    let base = Rule {
        id: Arc::clone(&id),
        name: None,
        title,
        description: optional("description").unwrap_or_default(),
        level,
        status: None,
        tags: node
            .get("tags")
            .map(Node::each)
            .unwrap_or_default()
            .iter()
            .filter_map(Node::text)
            .map(Arc::from)
            .collect(),
        file: Arc::clone(&text.file),
        line: node.at.line,
        log_source: LogSourcePattern::default(),
        condition: Expr::All(tests),
    };
    let Some(count) = counts else {
        parsed.rules.push(base);
        return Ok(());
    };
    let matched: Arc<str> = Arc::from(format!("{id}#conditions"));
    let Rule { name, title, description, status, tags, file, line, .. } = base.clone();
    let Count { field, threshold, timespan_s, line: count_line, column } = count;
    let references = vec![Reference { to: Arc::clone(&matched), line: count_line, column }];
    let predicate = Predicate::EventCount(Condition::at_least(threshold));
    parsed.correlations.push(Correlation {
        id,
        name,
        title,
        description,
        level,
        status,
        tags,
        file,
        line,
        references,
        group_by: vec![field],
        aliases: Vec::new(),
        timespan_s,
        predicate,
        value_field: None,
        generate: false,
    });
    parsed.rules.push(Rule { id: matched, ..base });
    Ok(())
}

fn level(node: &Node, problems: &mut Problems) -> Result<Level, Refused> {
    let Some(severity) = node.get("severity") else { return Ok(Level::default()) };
    let text = severity.text().unwrap_or_default();
    if text == "info" {
        return Ok(Level::Informational); // the plan's word (event schema)
    }
    LEVELS.into_iter().find(|level| level.as_str() == text).ok_or_else(|| {
        let hint = did_you_mean(text, LEVELS.map(Level::as_str).into_iter().chain(["info"]));
        problems.error("unknown_level", severity.at, format!("unknown severity \"{}\"", shown(text)), hint)
    })
}

struct Count {
    field: Arc<str>,
    threshold: u64,
    timespan_s: i64,
    line: u32,
    column: u32,
}

fn conditions(node: &Node, problems: &mut Problems) -> Result<(Vec<Expr>, Option<Count>), Refused> {
    let list = node.get("conditions").map(Node::each).unwrap_or_default();
    let at = place_of(node.get("conditions"), node.at);
    let (mut tests, mut counts) = (Vec::new(), None);
    for condition in list {
        let Some(field) = condition.get("field").and_then(Node::text).filter(|field| !field.is_empty()) else {
            return Err(problems.error("field", condition.at, "a condition has no `field`".to_owned(), None));
        };
        refuse_repeated_keys(condition.map().unwrap_or_default(), problems)?;
        let field = Arc::from(field);
        match condition.get("operator").and_then(Node::text) {
            Some("count") if counts.is_some() => {
                return Err(problems.error("count", condition.at, "the rule counts twice".to_owned(), None));
            }
            Some("count") => counts = Some(count(field, condition, problems)?),
            Some(operator) => tests.push(comparison(&field, operator, condition, problems)?),
            None => {
                return Err(problems.error("operator", condition.at, "a condition has no `operator`".to_owned(), None));
            }
        }
    }
    if tests.is_empty() {
        let message = "the rule has no condition on an event".to_owned();
        let hint = Some("add one with `operator: equals`".to_owned());
        return Err(problems.error("no_condition", at, message, hint));
    }
    Ok((tests, counts))
}

fn count(field: Arc<str>, node: &Node, problems: &mut Problems) -> Result<Count, Refused> {
    let threshold = node.get("threshold").and_then(Node::text).and_then(|text| text.parse().ok());
    let Some(threshold) = threshold.filter(|threshold: &u64| *threshold > 0) else {
        let at = place_of(node.get("threshold"), node.at);
        return Err(problems.error("threshold", at, "`count` needs a `threshold` from 1".to_owned(), None));
    };
    let Some(window) = node.get("timewindow") else {
        return Err(problems.error("no_timespan", node.at, "`count` needs a `timewindow`".to_owned(), None));
    };
    let timespan_s = timespan(window, problems)?;
    Ok(Count { field, threshold, timespan_s, line: node.at.line, column: node.at.column })
}

fn comparison(field: &Arc<str>, operator: &str, node: &Node, problems: &mut Problems) -> Result<Expr, Refused> {
    let one = |matcher: Matcher| test(Some(field), matcher);
    if !OPERATORS.contains(&operator) {
        let at = place_of(node.get("operator"), node.at);
        let message = format!("unknown operator \"{}\"", shown(operator));
        return Err(problems.error("unknown_operator", at, message, did_you_mean(operator, OPERATORS)));
    }
    if operator == "exists" {
        return match node.get("value").and_then(Node::text) {
            None | Some("true") => Ok(one(Matcher::Exists(true))),
            Some("false") => Ok(one(Matcher::Exists(false))),
            Some(_) => Err(problems.error("value", node.at, "`exists` is neither true nor false".to_owned(), None)),
        };
    }
    let at = place_of(node.get("value"), node.at);
    let values: Option<Vec<&str>> =
        node.get("value").map(|value| value.each().iter().map(Node::text).collect()).unwrap_or_default();
    let Some(values) = values.filter(|values| !values.is_empty()) else {
        return Err(problems.error("value", at, format!("`{operator}` needs a `value`"), None));
    };
    let mut any = Vec::new();
    for text in values {
        let matcher = match operator {
            "contains" => value::plain_text(text, Shape::Contains),
            "startswith" | "starts_with" => value::plain_text(text, Shape::StartsWith),
            "endswith" | "ends_with" => value::plain_text(text, Shape::EndsWith),
            "regex" => value::plain_regex(text, at, problems)?,
            "gt" => compare(Comparison::Gt, text, node, problems)?,
            "gte" => compare(Comparison::Gte, text, node, problems)?,
            "lt" => compare(Comparison::Lt, text, node, problems)?,
            "lte" => compare(Comparison::Lte, text, node, problems)?,
            _ => value::plain_text(text, Shape::Equal),
        };
        any.push(one(matcher));
    }
    let expr = if any.len() == 1 { any.remove(0) } else { Expr::Any(any) };
    Ok(if matches!(operator, "not_equals" | "not_in") { Expr::Not(Box::new(expr)) } else { expr })
}

fn compare(comparison: Comparison, text: &str, node: &Node, problems: &mut Problems) -> Result<Matcher, Refused> {
    let number = Number::parse(text).map(|number| Matcher::Compare(comparison, number));
    number.ok_or_else(|| {
        let at = place_of(node.get("value"), node.at);
        problems.error("value", at, format!("the value \"{}\" is no number", shown(text)), None)
    })
}

/// Actions belong to playbooks, routes and policies; what of them has no effect is said.
fn actions(node: &Node, problems: &mut Problems) {
    for action in node.get("actions").map(Node::each).unwrap_or_default() {
        let kind = action.get("type").and_then(Node::text).unwrap_or_default();
        let (code, message) = match kind {
            // Every alert belongs to an incident anyway.
            "create_incident" => continue,
            "execute_playbook" => {
                let name = action.get("playbook").and_then(Node::text).unwrap_or_default();
                ("no_playbook", format!("the playbook \"{}\" is not there", shown(name)))
            }
            "notify" => {
                let channels = action.get("channels").map(Node::each).unwrap_or_default();
                let names: Vec<String> = channels.iter().filter_map(Node::text).map(shown).collect();
                ("no_channel", format!("the channels \"{}\" are not there", names.join("\", \"")))
            }
            other => {
                let hint = did_you_mean(other, ["create_incident", "execute_playbook", "notify"]);
                problems.warn("unknown_action", action.at, format!("unknown action \"{}\"", shown(other)), hint);
                continue;
            }
        };
        problems.warn(code, action.at, message, Some("the rule is loaded, this action does nothing".to_owned()));
    }
}
