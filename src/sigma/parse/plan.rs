//! The plan's own rule format (formats.md 5.2, DET-06, DET-07): conditions on fields, one of which may count.
//!
//! With a `count` condition it becomes two rules: a plain one that does not alert, and an `event_count` over it, grouped
//! by the counted field, which bears the id. With `distinct_count` the second is a `value_count`. Without either it is a
//! plain rule. Its field names are the event's own.
//!
//! The plan shows `equals` and `count` and says that there are others: [`OPERATORS`] has what a reader would expect.
//! Instead of a field a condition may have `any`, `all` or `not` with conditions within.

use std::sync::Arc;

use cf_types::{Condition, Level};

use crate::{
    outline::Outline,
    parse::{
        Parsed, Text,
        detection::test,
        head::{self, LEVELS},
        place_of, refuse_repeated_keys, timespan, value,
    },
    problem::{Problems, Refused, did_you_mean, shown},
    rule::{
        Comparison, Correlation, CorrelationKind, Expr, LogSourcePattern, Matcher, Meta, Number, Reference, Rule,
        Shape, Timespan, Value,
    },
    yaml::Node,
};

/// Behind the id of the plain rule that a counting rule becomes.
pub(crate) const CONDITIONS: &str = "#conditions";
/// Keys of a rule that have a meaning of their own here; others are those of Sigma, or custom fields.
const KEYS: [&str; 4] = ["conditions", "actions", "severity", "rule"];
/// Keys of one condition.
const CONDITION_KEYS: [&str; 7] = ["field", "operator", "value", "threshold", "timewindow", "timeframe", "group_by"];

#[derive(Clone, Copy, Debug)]
enum Operator {
    Text(Shape),
    Regex,
    Cidr,
    Compare(Comparison),
    Between,
    Exists,
    Count,
    DistinctCount,
}

/// Names of operators: what each means, and whether it is negated. The first of a meaning is the one to use.
const OPERATORS: &[(&str, Operator, bool)] = &[
    ("equals", Operator::Text(Shape::Equal), false),
    ("not_equals", Operator::Text(Shape::Equal), true),
    ("in", Operator::Text(Shape::Equal), false),
    ("not_in", Operator::Text(Shape::Equal), true),
    ("contains", Operator::Text(Shape::Contains), false),
    ("not_contains", Operator::Text(Shape::Contains), true),
    ("starts_with", Operator::Text(Shape::StartsWith), false),
    ("not_starts_with", Operator::Text(Shape::StartsWith), true),
    ("ends_with", Operator::Text(Shape::EndsWith), false),
    ("not_ends_with", Operator::Text(Shape::EndsWith), true),
    ("regex", Operator::Regex, false),
    ("not_regex", Operator::Regex, true),
    ("cidr", Operator::Cidr, false),
    ("not_cidr", Operator::Cidr, true),
    ("gt", Operator::Compare(Comparison::Gt), false),
    ("gte", Operator::Compare(Comparison::Gte), false),
    ("lt", Operator::Compare(Comparison::Lt), false),
    ("lte", Operator::Compare(Comparison::Lte), false),
    ("between", Operator::Between, false),
    ("exists", Operator::Exists, false),
    ("not_exists", Operator::Exists, true),
    ("count", Operator::Count, false),
    ("distinct_count", Operator::DistinctCount, false),
    // Other words for the same.
    ("startswith", Operator::Text(Shape::StartsWith), false),
    ("endswith", Operator::Text(Shape::EndsWith), false),
    ("matches", Operator::Regex, false),
    ("greater_than", Operator::Compare(Comparison::Gt), false),
    ("greater_than_or_equal", Operator::Compare(Comparison::Gte), false),
    ("less_than", Operator::Compare(Comparison::Lt), false),
    ("less_than_or_equal", Operator::Compare(Comparison::Lte), false),
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
    let level = level(node, problems);
    let (tests, counts) = conditions(node, problems)?;
    let meta = meta(node, problems)?;
    let log_source = match node.get("logsource") {
        Some(_) => head::log_source(node, problems)?,
        None => LogSourcePattern::default(),
    };
    let tags = node.get("tags").map(Node::each).unwrap_or_default();
    let condition = Expr::All(tests);
    let base = Rule {
        id: Arc::clone(&id),
        name: None,
        title,
        description: optional("description").unwrap_or_default(),
        level,
        status: None,
        tags: tags.iter().filter_map(Node::text).map(Arc::from).collect(),
        file: Arc::clone(&text.file),
        line: node.at.line,
        log_source,
        outline: Arc::new(Outline::of(&condition)),
        condition,
        hunt: None,
        meta: Arc::new(meta),
    };
    let Some(count) = counts else {
        parsed.rules.push(Arc::new(base));
        return Ok(());
    };
    let matched: Arc<str> = Arc::from(format!("{id}{CONDITIONS}"));
    let Rule { name, title, description, status, tags, file, line, meta, .. } = base.clone();
    let Count { group_by, kind, timespan, line: count_line, column } = count;
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
        references: vec![Reference { to: Arc::clone(&matched), line: count_line, column }],
        group_by,
        aliases: Vec::new(),
        timespan,
        kind,
        generate: false,
        meta,
    });
    parsed.rules.push(Arc::new(Rule { id: matched, ..base }));
    Ok(())
}

fn level(node: &Node, problems: &mut Problems) -> Level {
    let Some(severity) = node.get("severity") else { return Level::default() };
    let text = severity.text().unwrap_or_default();
    if text == "info" {
        return Level::Informational; // the plan's word (event schema)
    }
    let found = LEVELS.into_iter().find(|level| level.as_str().eq_ignore_ascii_case(text));
    found.unwrap_or_else(|| {
        let hint = did_you_mean(text, LEVELS.map(Level::as_str).into_iter().chain(["info"]));
        let message = format!("unknown severity \"{}\"; \"{}\" is used", shown(text), Level::default().as_str());
        problems.warn("unknown_level", severity.at, message, hint);
        Level::default()
    })
}

fn meta(node: &Node, problems: &mut Problems) -> Result<Meta, Refused> {
    let mut meta = head::meta(node, problems)?;
    meta.custom.retain(|(key, _)| !KEYS.contains(&&**key));
    if let Some(playbook) = actions(node, problems).filter(|_| meta.playbook().is_none()) {
        meta.custom.push((Arc::from("playbook"), Value::Text(playbook)));
    }
    Ok(meta)
}

struct Count {
    group_by: Vec<Arc<str>>,
    kind: CorrelationKind,
    timespan: Timespan,
    line: u32,
    column: u32,
}

fn conditions(node: &Node, problems: &mut Problems) -> Result<(Vec<Expr>, Option<Count>), Refused> {
    let list = node.get("conditions").map(Node::each).unwrap_or_default();
    let at = place_of(node.get("conditions"), node.at);
    let (mut tests, mut counts) = (Vec::new(), None);
    for node in list {
        match condition(node, problems)? {
            Said::Test(expr) => tests.push(expr),
            Said::Count(_) if counts.is_some() => {
                return Err(problems.error("count", node.at, "the rule counts twice".to_owned(), None));
            }
            Said::Count(count) => counts = Some(count),
        }
    }
    if tests.is_empty() {
        let message = "the rule has no condition on an event".to_owned();
        let hint = Some("add one with `operator: equals`".to_owned());
        return Err(problems.error("no_condition", at, message, hint));
    }
    Ok((tests, counts))
}

#[allow(clippy::large_enum_variant)] // it lives for one condition
enum Said {
    Test(Expr),
    Count(Count),
}

fn condition(node: &Node, problems: &mut Problems) -> Result<Said, Refused> {
    refuse_repeated_keys(node.map().unwrap_or_default(), problems)?;
    if let Some([(key, inner)]) = node.map()
        && let Some(word @ ("any" | "all" | "not")) = key.text()
    {
        let list = inner.each().iter().map(|node| test_only(node, problems)).collect::<Result<Vec<Expr>, Refused>>()?;
        if list.is_empty() {
            return Err(problems.error("no_condition", inner.at, format!("`{word}` has no conditions"), None));
        }
        return Ok(Said::Test(match word {
            "any" => Expr::Any(list),
            "all" => Expr::All(list),
            _ => Expr::Not(Box::new(Expr::Any(list))),
        }));
    }
    for (key, _) in node.map().unwrap_or_default() {
        let word = key.text().unwrap_or_default();
        if !CONDITION_KEYS.contains(&word) {
            let message = format!("unknown key of a condition: \"{}\"", shown(word));
            return Err(problems.error("unknown_key", key.at, message, did_you_mean(word, CONDITION_KEYS)));
        }
    }
    let Some(field) = node.get("field").and_then(Node::text).filter(|field| !field.is_empty()) else {
        return Err(problems.error("field", node.at, "a condition has no `field`".to_owned(), None));
    };
    let Some(word) = node.get("operator").and_then(Node::text) else {
        return Err(problems.error("operator", node.at, "a condition has no `operator`".to_owned(), None));
    };
    let Some((word, operator, negated)) = OPERATORS.iter().find(|(name, ..)| name.eq_ignore_ascii_case(word)) else {
        let at = place_of(node.get("operator"), node.at);
        let message = format!("unknown operator \"{}\"", shown(word));
        let hint = did_you_mean(word, OPERATORS.iter().map(|(name, ..)| *name));
        return Err(problems.error("unknown_operator", at, message, hint));
    };
    let field = Arc::from(field);
    match operator {
        Operator::Count | Operator::DistinctCount => {
            let distinct = matches!(operator, Operator::DistinctCount);
            count(field, distinct, node, problems).map(Said::Count)
        }
        operator => {
            let expr = comparison(&field, word, *operator, node, problems)?;
            Ok(Said::Test(if *negated { Expr::Not(Box::new(expr)) } else { expr }))
        }
    }
}

/// A condition within `any`, `all` or `not`.
fn test_only(node: &Node, problems: &mut Problems) -> Result<Expr, Refused> {
    match condition(node, problems)? {
        Said::Test(expr) => Ok(expr),
        Said::Count(_) => {
            let message = "a count cannot stand within `any`, `all` or `not`".to_owned();
            Err(problems.error("count", node.at, message, Some("put it beside them".to_owned())))
        }
    }
}

fn count(field: Arc<str>, distinct: bool, node: &Node, problems: &mut Problems) -> Result<Count, Refused> {
    // The other operators have a `value`, Sigma 1 a `timeframe`: both are what people write here as well.
    let limit = node.get("threshold").or_else(|| node.get("value"));
    let threshold = limit.and_then(Node::text).and_then(|text| text.parse().ok());
    let Some(threshold) = threshold.filter(|threshold: &u64| *threshold > 0) else {
        let at = place_of(limit, node.at);
        return Err(problems.error("threshold", at, "a count needs a `threshold` from 1".to_owned(), None));
    };
    let Some(window) = node.get("timewindow").or_else(|| node.get("timeframe")) else {
        return Err(problems.error("no_timespan", node.at, "a count needs a `timewindow`".to_owned(), None));
    };
    let timespan = timespan::read(window, problems)?;
    let groups = node.get("group_by").map(Node::each).unwrap_or_default();
    let mut group_by: Vec<Arc<str>> = groups.iter().filter_map(Node::text).map(Arc::from).collect();
    let condition = Condition::at_least(threshold);
    let kind = if distinct {
        CorrelationKind::ValueCount { fields: vec![field], condition }
    } else {
        // Five failures from one address: the counted field is what they have in common.
        group_by.insert(0, field);
        CorrelationKind::EventCount(condition)
    };
    Ok(Count { group_by, kind, timespan, line: node.at.line, column: node.at.column })
}

fn comparison(
    field: &Arc<str>,
    word: &str,
    operator: Operator,
    node: &Node,
    problems: &mut Problems,
) -> Result<Expr, Refused> {
    let one = |matcher: Matcher| test(Some(field), matcher);
    let at = place_of(node.get("value"), node.at);
    if let Operator::Exists = operator {
        return match node.get("value").and_then(Node::text) {
            None | Some("true") => Ok(one(Matcher::Exists(true))),
            Some("false") => Ok(one(Matcher::Exists(false))),
            Some(_) => Err(problems.error("value", at, format!("`{word}` is neither true nor false"), None)),
        };
    }
    let values: Option<Vec<&str>> =
        node.get("value").map(|value| value.each().iter().map(Node::text).collect()).unwrap_or_default();
    let Some(values) = values.filter(|values| !values.is_empty()) else {
        return Err(problems.error("value", at, format!("`{word}` needs a `value`"), None));
    };
    problems.tests += values.len();
    if problems.tests > value::TESTS_MAX {
        let message = format!("the rule has more than {} values", value::TESTS_MAX);
        return Err(problems.error("too_many_tests", at, message, None));
    }
    if let Operator::Between = operator {
        let [from, to] = values.as_slice() else {
            let hint = Some("as `value: [1, 10]`; both belong to it".to_owned());
            return Err(problems.error("value", at, "`between` needs two numbers".to_owned(), hint));
        };
        let from = compare(Comparison::Gte, from, node, problems)?;
        let to = compare(Comparison::Lte, to, node, problems)?;
        return Ok(Expr::All(vec![one(from), one(to)]));
    }
    let mut any = Vec::new();
    for text in values {
        let matcher = match operator {
            Operator::Text(shape) => value::plain_text(text, shape),
            Operator::Regex => value::plain_regex(text, at, problems)?,
            Operator::Compare(comparison) => compare(comparison, text, node, problems)?,
            Operator::Cidr => value::plain_network(text).ok_or_else(|| {
                let message = format!("the value \"{}\" is no network (`10.0.0.0/8`)", shown(text));
                problems.error("value", at, message, None)
            })?,
            Operator::Between | Operator::Exists | Operator::Count | Operator::DistinctCount => continue,
        };
        any.push(one(matcher));
    }
    Ok(if any.len() == 1 { any.remove(0) } else { Expr::Any(any) })
}

fn compare(comparison: Comparison, text: &str, node: &Node, problems: &mut Problems) -> Result<Matcher, Refused> {
    let number = Number::parse(text).map(|number| Matcher::Compare(comparison, number));
    number.ok_or_else(|| {
        let at = place_of(node.get("value"), node.at);
        problems.error("value", at, format!("the value \"{}\" is no number", shown(text)), None)
    })
}

/// Actions belong to playbooks, routes and policies; what of them has no effect is said. Gives the playbook they name.
fn actions(node: &Node, problems: &mut Problems) -> Option<Arc<str>> {
    let mut playbook = None;
    for action in node.get("actions").map(Node::each).unwrap_or_default() {
        let kind = action.get("type").and_then(Node::text).unwrap_or_default();
        match kind {
            // Every alert belongs to an incident anyway.
            "create_incident" => {}
            "execute_playbook" => {
                let name = action.get("playbook").and_then(Node::text).unwrap_or_default();
                head::suggest_playbook(name, action.at, problems);
                playbook = playbook.or_else(|| Some(Arc::from(name)));
            }
            "notify" => {
                let channels = action.get("channels").map(Node::each).unwrap_or_default();
                let names: Vec<String> = channels.iter().filter_map(Node::text).map(shown).collect();
                let message = format!("the channels \"{}\" are not there", names.join("\", \""));
                let hint = Some("the rule is loaded, this action does nothing".to_owned());
                problems.warn("no_channel", action.at, message, hint);
            }
            other => {
                let hint = did_you_mean(other, ["create_incident", "execute_playbook", "notify"]);
                problems.warn("unknown_action", action.at, format!("unknown action \"{}\"", shown(other)), hint);
            }
        }
    }
    playbook
}
