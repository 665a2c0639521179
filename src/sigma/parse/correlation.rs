//! `correlation` documents (Sigma correlation rules specification 2.1).

use std::sync::Arc;

use cf_types::{Condition, Predicate};

use crate::{
    parse::{Head, place_of, refuse_repeated_keys, timespan},
    problem::{Problems, Refused, did_you_mean, shown},
    rule::{Correlation, Reference},
    yaml::Node,
};

const EVALUATED: [&str; 4] = ["event_count", "value_count", "temporal", "temporal_ordered"];
const NOT_YET: [&str; 5] = ["value_sum", "value_avg", "value_percentile", "value_median", "temporal_absent"];
const KEYS: [&str; 7] = ["type", "rules", "group-by", "timespan", "condition", "aliases", "generate"];
/// References of one correlation.
const REFERENCES_MAX: usize = 1_000;

/// Reads one.
pub(super) fn read(head: Head, node: &Node, problems: &mut Problems) -> Result<Correlation, Refused> {
    let Some(entries) = node.map() else {
        return Err(problems.error(
            "correlation",
            node.at,
            format!("`correlation` is {}, not a map", node.word()),
            None,
        ));
    };
    refuse_repeated_keys(entries, problems)?;
    for (key, _) in entries {
        let word = key.text().unwrap_or_default();
        if !KEYS.contains(&word) {
            let message = format!("unknown key of `correlation`: \"{}\"", shown(word));
            return Err(problems.error("unknown_key", key.at, message, did_you_mean(word, KEYS)));
        }
    }
    let references = references(node, problems)?;
    let timespan_s = match node.get("timespan") {
        Some(span) => timespan(span, problems)?,
        None => {
            return Err(problems.error("no_timespan", node.at, "the correlation has no `timespan`".to_owned(), None));
        }
    };
    let (predicate, value_field) = predicate(node, references.len(), problems)?;
    let generate = match node.get("generate").map(|generate| (generate, generate.text())) {
        None | Some((_, Some("false"))) => false,
        Some((_, Some("true"))) => true,
        Some((generate, _)) => {
            return Err(problems.error(
                "generate",
                generate.at,
                "`generate` is neither true nor false".to_owned(),
                None,
            ));
        }
    };
    let Head { id, name, title, description, level, status, tags, file, line } = head;
    let (group_by, aliases) = (words(node.get("group-by")), aliases(node, problems)?);
    Ok(Correlation {
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
        group_by,
        aliases,
        timespan_s,
        predicate,
        value_field,
        generate,
    })
}

fn words(node: Option<&Node>) -> Vec<Arc<str>> {
    let mut words: Vec<Arc<str>> = Vec::new();
    for word in node.map(Node::each).unwrap_or_default().iter().filter_map(Node::text) {
        if !words.iter().any(|known| &**known == word) {
            words.push(Arc::from(word));
        }
    }
    words
}

fn references(node: &Node, problems: &mut Problems) -> Result<Vec<Reference>, Refused> {
    let list = node.get("rules").map(Node::each).unwrap_or_default();
    let mut references = Vec::new();
    for reference in list {
        let Some(text) = reference.text() else {
            let message = format!("a reference in `rules` is {}, not an id or name", reference.word());
            return Err(problems.error("reference", reference.at, message, None));
        };
        references.push(Reference { to: Arc::from(text), line: reference.at.line, column: reference.at.column });
    }
    let at = place_of(node.get("rules"), node.at);
    if references.is_empty() {
        return Err(problems.error("no_references", at, "the correlation refers to no `rules`".to_owned(), None));
    }
    if references.len() > REFERENCES_MAX {
        let message = format!("the correlation refers to more than {REFERENCES_MAX} rules");
        return Err(problems.error("reference", at, message, None));
    }
    Ok(references)
}

fn predicate(
    node: &Node,
    references: usize,
    problems: &mut Problems,
) -> Result<(Predicate, Option<Arc<str>>), Refused> {
    let at = place_of(node.get("type"), node.at);
    let kind = node.get("type").and_then(Node::text).unwrap_or_default();
    let bounds = node.get("condition");
    match kind {
        "event_count" => Ok((Predicate::EventCount(condition(node, problems)?.0), None)),
        "value_count" => {
            let (bounds, field) = condition(node, problems)?;
            let Some(field) = field else {
                let at = place_of(node.get("condition"), node.at);
                let message = "`value_count` needs the field whose values are counted".to_owned();
                return Err(problems.error("no_field", at, message, Some("add `field:` to `condition`".to_owned())));
            };
            Ok((Predicate::ValueCount(bounds), Some(field)))
        }
        "temporal" | "temporal_ordered" => {
            if let Some(bounds) = bounds {
                all_of(bounds, references, problems)?;
            }
            let ordered = kind == "temporal_ordered";
            Ok((if ordered { Predicate::TemporalOrdered } else { Predicate::Temporal }, None))
        }
        "" => Err(problems.error("no_type", at, "the correlation has no `type`".to_owned(), None)),
        other if NOT_YET.contains(&other) => {
            let message = format!("correlations of type \"{other}\" are not yet evaluated");
            Err(problems.error("not_yet_evaluated", at, message, None))
        }
        other => {
            let hint = did_you_mean(other, EVALUATED.into_iter().chain(NOT_YET));
            Err(problems.error("unknown_type", at, format!("unknown correlation type \"{}\"", shown(other)), hint))
        }
    }
}

/// A temporal correlation's `condition` may only say what it says anyway: all of its rules.
fn all_of(node: &Node, references: usize, problems: &mut Problems) -> Result<(), Refused> {
    let number = |key: &str| node.get(key).and_then(Node::text).and_then(|text| text.parse::<usize>().ok());
    let all = match node.map() {
        Some([(key, _)]) => match key.text() {
            Some("gte" | "eq") => number("gte").or_else(|| number("eq")) == Some(references),
            Some(_) | None => false,
        },
        Some(_) | None => false,
    };
    if all {
        return Ok(());
    }
    let message = "conditions on temporal correlations are not yet evaluated".to_owned();
    let hint = Some("leave `condition` out: then all of its rules must be met".to_owned());
    Err(problems.error("not_yet_evaluated", node.at, message, hint))
}

fn condition(node: &Node, problems: &mut Problems) -> Result<(Condition, Option<Arc<str>>), Refused> {
    let Some((found, entries)) = node.get("condition").and_then(|found| found.map().map(|entries| (found, entries)))
    else {
        let at = place_of(node.get("condition"), node.at);
        let hint = Some("as `condition: {gte: 10}`".to_owned());
        return Err(problems.error("no_condition", at, "the correlation has no `condition` map".to_owned(), hint));
    };
    refuse_repeated_keys(entries, problems)?;
    let mut bounds = Condition::default();
    let mut field = None;
    for (key, value) in entries {
        let word = key.text().unwrap_or_default();
        let slot = match word {
            "gte" => &mut bounds.gte,
            "gt" => &mut bounds.gt,
            "lte" => &mut bounds.lte,
            "lt" => &mut bounds.lt,
            "eq" => &mut bounds.eq,
            "neq" => &mut bounds.neq,
            "field" => {
                let [one] = value.each() else {
                    let message = "`field` of several fields is not yet evaluated".to_owned();
                    return Err(problems.error("not_yet_evaluated", value.at, message, None));
                };
                field = one.text().map(Arc::from);
                continue;
            }
            _ => {
                let hint = did_you_mean(word, ["gte", "gt", "lte", "lt", "eq", "neq", "field"]);
                let message = format!("unknown key of `condition`: \"{}\"", shown(word));
                return Err(problems.error("unknown_key", key.at, message, hint));
            }
        };
        let Some(number) = value.text().and_then(|text| text.parse().ok()) else {
            let message = format!("the bound \"{word}\" is no whole number from 0");
            return Err(problems.error("bound", value.at, message, None));
        };
        *slot = Some(number);
    }
    if bounds == Condition::default() {
        let hint = Some("as `condition: {gte: 10}`".to_owned());
        return Err(problems.error(
            "no_condition",
            found.at,
            "the correlation's `condition` has no bound".to_owned(),
            hint,
        ));
    }
    Ok((bounds, field))
}

type Aliases = Vec<(Arc<str>, Vec<(Arc<str>, Arc<str>)>)>;

fn aliases(node: &Node, problems: &mut Problems) -> Result<Aliases, Refused> {
    let Some(node) = node.get("aliases") else { return Ok(Vec::new()) };
    let mut aliases = Vec::new();
    for (alias, fields) in node.map().unwrap_or_default() {
        let Some((alias, fields)) = alias.text().zip(fields.map()) else {
            let hint = Some("as `aliases: {address: {rule_a: source_ip, rule_b: IpAddress}}`".to_owned());
            return Err(problems.error("aliases", alias.at, "an alias maps rules to fields".to_owned(), hint));
        };
        let pairs = fields.iter().filter_map(|(rule, field)| Some((Arc::from(rule.text()?), Arc::from(field.text()?))));
        aliases.push((Arc::from(alias), pairs.collect()));
    }
    Ok(aliases)
}
