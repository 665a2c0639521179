//! `correlation` documents (Sigma correlation rules specification 2.1).

use std::sync::Arc;

use cf_types::Condition;

use crate::{
    parse::{condition, head::Head, place_of, refuse_repeated_keys, timespan},
    problem::{Place, Problems, Refused, did_you_mean, shown},
    rule::{
        Aggregate, Bound, Bounds, Comparison, Correlation, CorrelationKind, Formula, Number, Reference,
        TemporalCondition,
    },
    yaml::Node,
};

const TYPES: [&str; 8] = [
    "event_count",
    "value_count",
    "temporal",
    "temporal_ordered",
    "value_sum",
    "value_avg",
    "value_median",
    "value_percentile",
];
const KEYS: [&str; 7] = ["type", "rules", "group-by", "timespan", "condition", "aliases", "generate"];
const BOUNDS: [&str; 6] = ["gte", "gt", "lte", "lt", "eq", "neq"];
/// References of one correlation.
const REFERENCES_MAX: usize = 1_000;

/// Reads one.
pub(super) fn read(head: Head, node: &Node, problems: &mut Problems) -> Result<Correlation, Refused> {
    let Some(entries) = node.map() else {
        let message = format!("`correlation` is {}, not a map", node.word());
        return Err(problems.error("correlation", node.at, message, None));
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
    let timespan = match node.get("timespan") {
        Some(span) => timespan::read(span, problems)?,
        None => {
            return Err(problems.error("no_timespan", node.at, "the correlation has no `timespan`".to_owned(), None));
        }
    };
    let kind = kind(node, &references, problems)?;
    let generate = match node.get("generate").map(|generate| (generate, generate.text())) {
        None | Some((_, Some("false"))) => false,
        Some((_, Some("true"))) => true,
        Some((generate, _)) => {
            let message = "`generate` is neither true nor false".to_owned();
            return Err(problems.error("generate", generate.at, message, None));
        }
    };
    let (group_by, aliases) = (group_by(node, problems)?, aliases(node, problems)?);
    let Head { id, name, title, description, level, status, tags, file, line, meta } = head;
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
        timespan,
        kind,
        generate,
        meta,
    })
}

fn group_by(node: &Node, problems: &mut Problems) -> Result<Vec<Arc<str>>, Refused> {
    let mut fields: Vec<Arc<str>> = Vec::new();
    for node in node.get("group-by").map(Node::each).unwrap_or_default() {
        let Some(field) = node.text().filter(|field| !field.is_empty()) else {
            let message = format!("a field of `group-by` is {}", node.word());
            return Err(problems.error("field", node.at, message, None));
        };
        if !fields.iter().any(|known| &**known == field) {
            fields.push(Arc::from(field));
        }
        if fields.len() > REFERENCES_MAX {
            let message = format!("the correlation groups by more than {REFERENCES_MAX} fields");
            return Err(problems.error("field", node.at, message, None));
        }
    }
    Ok(fields)
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

fn kind(node: &Node, references: &[Reference], problems: &mut Problems) -> Result<CorrelationKind, Refused> {
    let at = place_of(node.get("type"), node.at);
    let kind = node.get("type").and_then(Node::text).unwrap_or_default();
    let aggregate = match kind {
        "event_count" => {
            let limits = Limits::read(node, problems)?;
            limits.refuse_field(kind, problems)?;
            return Ok(CorrelationKind::EventCount(limits.counts(problems)?));
        }
        "value_count" => {
            let limits = Limits::read(node, problems)?;
            let fields = limits.fields(kind, problems)?;
            return Ok(CorrelationKind::ValueCount { fields, condition: limits.counts(problems)? });
        }
        "temporal" | "temporal_ordered" => {
            let condition = temporal(node, references, problems)?;
            return Ok(CorrelationKind::Temporal { ordered: kind == "temporal_ordered", condition });
        }
        "value_sum" => Aggregate::Sum,
        "value_avg" => Aggregate::Average,
        "value_median" => Aggregate::Median,
        "value_percentile" => Aggregate::Percentile,
        "" => return Err(problems.error("no_type", at, "the correlation has no `type`".to_owned(), None)),
        other => {
            let message = format!("unknown correlation type \"{}\"", shown(other));
            return Err(problems.error("unknown_type", at, message, did_you_mean(other, TYPES)));
        }
    };
    let limits = Limits::read(node, problems)?;
    let mut fields = limits.fields(kind, problems)?;
    if fields.len() > 1 {
        let message = format!("`{kind}` is of one field");
        return Err(problems.error("field", limits.at, message, None));
    }
    let percentile = limits.percentile.filter(|_| aggregate == Aggregate::Percentile);
    Ok(CorrelationKind::Value { aggregate, field: fields.remove(0), percentile, bounds: Bounds(limits.bounds) })
}

/// `condition` as a map: bounds, and the field that they are about.
struct Limits {
    at: Place,
    bounds: Vec<(Bound, Number)>,
    fields: Vec<Arc<str>>,
    percentile: Option<u8>,
}

impl Limits {
    fn read(node: &Node, problems: &mut Problems) -> Result<Limits, Refused> {
        let hint = || Some("as `condition: {gte: 10}`".to_owned());
        let condition = node.get("condition");
        let Some((found, entries)) = condition.and_then(|found| found.map().map(|entries| (found, entries))) else {
            let message = "the correlation has no `condition` map".to_owned();
            return Err(problems.error("no_condition", place_of(condition, node.at), message, hint()));
        };
        refuse_repeated_keys(entries, problems)?;
        let mut limits = Limits { at: found.at, bounds: Vec::new(), fields: Vec::new(), percentile: None };
        for (key, value) in entries {
            let word = key.text().unwrap_or_default();
            let bound = match word {
                "gte" => Bound::Compare(Comparison::Gte),
                "gt" => Bound::Compare(Comparison::Gt),
                "lte" => Bound::Compare(Comparison::Lte),
                "lt" => Bound::Compare(Comparison::Lt),
                "eq" => Bound::Equal,
                "neq" => Bound::NotEqual,
                "field" => {
                    limits.fields = value.each().iter().filter_map(Node::text).map(Arc::from).collect();
                    if limits.fields.len() != value.each().len() || limits.fields.len() > REFERENCES_MAX {
                        let message = "`field` is no name of a field, nor a list of them".to_owned();
                        return Err(problems.error("field", value.at, message, None));
                    }
                    continue;
                }
                "percentile" => {
                    let number = value.text().and_then(|text| text.parse().ok()).filter(|number| *number <= 100);
                    let Some(number) = number else {
                        let message = "`percentile` is no whole number from 0 to 100".to_owned();
                        return Err(problems.error("bound", value.at, message, None));
                    };
                    limits.percentile = Some(number);
                    continue;
                }
                _ => {
                    let hint = did_you_mean(word, BOUNDS.into_iter().chain(["field", "percentile"]));
                    let message = format!("unknown key of `condition`: \"{}\"", shown(word));
                    return Err(problems.error("unknown_key", key.at, message, hint));
                }
            };
            let Some(number) = value.text().and_then(Number::parse) else {
                let message = format!("the bound \"{word}\" is no number");
                return Err(problems.error("bound", value.at, message, None));
            };
            limits.bounds.push((bound, number));
        }
        if limits.bounds.is_empty() {
            let message = "the correlation's `condition` has no bound".to_owned();
            return Err(problems.error("no_condition", found.at, message, hint()));
        }
        Ok(limits)
    }

    /// The bounds on a number of things.
    fn counts(&self, problems: &mut Problems) -> Result<Condition, Refused> {
        let mut counts = Condition::default();
        for (bound, number) in &self.bounds {
            let slot = match bound {
                Bound::Compare(Comparison::Gte) => &mut counts.gte,
                Bound::Compare(Comparison::Gt) => &mut counts.gt,
                Bound::Compare(Comparison::Lte) => &mut counts.lte,
                Bound::Compare(Comparison::Lt) => &mut counts.lt,
                Bound::Equal => &mut counts.eq,
                Bound::NotEqual => &mut counts.neq,
            };
            let count = match number {
                Number::Whole(whole) => u64::try_from(*whole).ok(),
                Number::Fraction(_) => None,
            };
            let Some(count) = count else {
                let message = "a bound on a count is no whole number from 0".to_owned();
                return Err(problems.error("bound", self.at, message, None));
            };
            *slot = Some(count);
        }
        Ok(counts)
    }

    fn fields(&self, kind: &str, problems: &mut Problems) -> Result<Vec<Arc<str>>, Refused> {
        if self.fields.is_empty() {
            let message = format!("`{kind}` needs the field whose values are counted");
            let hint = Some("add `field:` to `condition`".to_owned());
            return Err(problems.error("no_field", self.at, message, hint));
        }
        Ok(self.fields.clone())
    }

    fn refuse_field(&self, kind: &str, problems: &mut Problems) -> Result<(), Refused> {
        if self.fields.is_empty() {
            return Ok(());
        }
        let message = format!("`{kind}` counts events and has no `field`");
        Err(problems.error("field", self.at, message, Some("use `value_count` to count values".to_owned())))
    }
}

/// Which rules must be met: all, so many, or as a formula over them says.
fn temporal(node: &Node, references: &[Reference], problems: &mut Problems) -> Result<TemporalCondition, Refused> {
    let Some(found) = node.get("condition") else { return Ok(TemporalCondition::All) };
    if found.map().is_some() {
        let limits = Limits::read(node, problems)?;
        limits.refuse_field("temporal", problems)?;
        return Ok(TemporalCondition::Count(limits.counts(problems)?));
    }
    let Some(text) = found.text() else {
        let message = format!("`condition` is {}, neither bounds nor a formula", found.word());
        return Err(problems.error("condition", found.at, message, None));
    };
    let written = condition::read(text)
        .map_err(|condition::Wrong { code, message, hint }| problems.error(code, found.at, message, hint))?;
    if written.aggregation.is_some() {
        let message = "a correlation's condition has no aggregation".to_owned();
        return Err(problems.error("condition", found.at, message, None));
    }
    check_names(&written.formula, found.at, references, problems)?;
    Ok(TemporalCondition::Formula(written.formula))
}

fn check_names(formula: &Formula, at: Place, references: &[Reference], problems: &mut Problems) -> Result<(), Refused> {
    let names = || references.iter().map(|reference| &*reference.to);
    let (word, known) = match formula {
        Formula::Any(list) | Formula::All(list) => {
            return list.iter().try_for_each(|formula| check_names(formula, at, references, problems));
        }
        Formula::Not(inner) => return check_names(inner, at, references, problems),
        Formula::Name(name) => (name, names().any(|known| known == &**name)),
        Formula::Of(_, which) => (which, names().any(|known| condition::is_meant(which, known))),
    };
    if known {
        return Ok(());
    }
    let message = format!("the condition names the rule \"{}\", which is not among `rules`", shown(word));
    Err(problems.error("unknown_selection", at, message, did_you_mean(word, names())))
}

type Aliases = Vec<(Arc<str>, Vec<(Arc<str>, Arc<str>)>)>;

fn aliases(node: &Node, problems: &mut Problems) -> Result<Aliases, Refused> {
    let Some(node) = node.get("aliases") else { return Ok(Vec::new()) };
    let hint = || Some("as `aliases: {address: {rule_a: source_ip, rule_b: IpAddress}}`".to_owned());
    let Some(entries) = node.map() else {
        let message = format!("`aliases` is {}, not a map", node.word());
        return Err(problems.error("aliases", node.at, message, hint()));
    };
    refuse_repeated_keys(entries, problems)?;
    let mut aliases = Vec::new();
    for (alias, fields) in entries {
        let Some((alias, fields)) = alias.text().zip(fields.map()) else {
            return Err(problems.error("aliases", alias.at, "an alias maps rules to fields".to_owned(), hint()));
        };
        refuse_repeated_keys(fields, problems)?;
        let mut pairs = Vec::new();
        for (rule, field) in fields {
            let Some((rule, field)) = rule.text().zip(field.text()) else {
                let message = format!("the alias \"{}\" does not map rules to fields", shown(alias));
                return Err(problems.error("aliases", rule.at, message, hint()));
            };
            pairs.push((Arc::from(rule), Arc::from(field)));
        }
        aliases.push((Arc::from(alias), pairs));
    }
    Ok(aliases)
}
