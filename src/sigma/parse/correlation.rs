//! `correlation` documents (Sigma correlation rules specification 2.1), and three types of our own: `absence`,
//! `first_seen`, `rate` (`docs/correlations.md`).

use std::sync::Arc;

use cf_types::{Condition, Fixed, NotFixed};

use crate::{
    parse::{condition, head::Head, place_of, refuse_repeated_keys, timespan},
    problem::{Place, Problems, Refused, did_you_mean, shown},
    rule::{Aggregate, Correlation, CorrelationKind, Formula, Reference, TemporalCondition, TimeUnit, Timespan},
    yaml::Node,
};

const TYPES: [&str; 11] = [
    "event_count",
    "value_count",
    "temporal",
    "temporal_ordered",
    "value_sum",
    "value_avg",
    "value_median",
    "value_percentile",
    "absence",
    "first_seen",
    "rate",
];
const KEYS: [&str; 7] = ["type", "rules", "group-by", "timespan", "condition", "aliases", "generate"];
const BOUNDS: [&str; 6] = ["gte", "gt", "lte", "lt", "eq", "neq"];
/// What the condition of `first_seen` and of `rate` may say besides.
const FIRST_SEEN: [&str; 2] = ["within", "known"];
const RATE: [&str; 3] = ["within", "history", "count"];
/// Events that a window of `rate` must have at least, unless the rule says otherwise: five times nothing much is nothing.
const RATE_COUNT_MIN: u64 = 10;
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
    check_memory(&kind, timespan, place_of(node.get("condition"), node.at), problems)?;
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
            let limits = Limits::read(node, &[], problems)?;
            limits.refuse_field(kind, problems)?;
            return Ok(CorrelationKind::EventCount(limits.counts(problems)?));
        }
        "value_count" => {
            let limits = Limits::read(node, &[], problems)?;
            let fields = limits.fields(kind, problems)?;
            return Ok(CorrelationKind::ValueCount { fields, condition: limits.counts(problems)? });
        }
        "temporal" | "temporal_ordered" => {
            let condition = temporal(node, references, problems)?;
            return Ok(CorrelationKind::Temporal { ordered: kind == "temporal_ordered", condition });
        }
        "absence" => return absence(node, references, problems),
        "first_seen" => return first_seen(node, problems),
        "rate" => return rate(node, problems),
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
    let limits = Limits::read(node, &["percentile"], problems)?;
    let mut fields = limits.fields(kind, problems)?;
    if fields.len() > 1 {
        let message = format!("`{kind}` is of one field");
        return Err(problems.error("field", limits.at, message, None));
    }
    let percentile = limits.percentile.filter(|_| aggregate == Aggregate::Percentile);
    Ok(CorrelationKind::Value { aggregate, field: fields.remove(0), percentile, condition: limits.figures()? })
}

fn absence(node: &Node, references: &[Reference], problems: &mut Problems) -> Result<CorrelationKind, Refused> {
    if references.len() != 2 {
        let at = place_of(node.get("rules"), node.at);
        let message = "`absence` is of two rules: what happened, and what was to follow".to_owned();
        return Err(problems.error("absence", at, message, None));
    }
    if let Some(condition) = node.get("condition") {
        let message = "`absence` has no `condition`: the second rule is not met within `timespan`".to_owned();
        return Err(problems.error("absence", condition.at, message, Some("take it out".to_owned())));
    }
    Ok(CorrelationKind::Absence)
}

fn first_seen(node: &Node, problems: &mut Problems) -> Result<CorrelationKind, Refused> {
    let limits = Limits::read(node, &FIRST_SEEN, problems)?;
    if let Some((word, _)) = limits.bounds.first() {
        let message = format!("`first_seen` has no bound \"{word}\"");
        let hint = Some("as `condition: {field: country, within: 30d}`".to_owned());
        return Err(problems.error("memory", limits.at, message, hint));
    }
    let fields = limits.fields("first_seen", problems)?;
    let within = limits.within("first_seen", problems)?;
    Ok(CorrelationKind::FirstSeen { fields, within, known_min: limits.number("known").unwrap_or(1) })
}

fn rate(node: &Node, problems: &mut Problems) -> Result<CorrelationKind, Refused> {
    let limits = Limits::read(node, &RATE, problems)?;
    limits.refuse_field("rate", problems)?;
    let within = limits.within("rate", problems)?;
    let history = limits.span("history").unwrap_or(Timespan { count: 1, unit: TimeUnit::Day });
    let count_min = limits.number("count").unwrap_or(RATE_COUNT_MIN);
    let times = limits.figures()?;
    if times == Condition::default() {
        let message = "`rate` needs a bound: how many times the mean".to_owned();
        let hint = Some("as `condition: {gte: 5, within: 7d}`".to_owned());
        return Err(problems.error("no_condition", limits.at, message, hint));
    }
    Ok(CorrelationKind::Rate { within, history, count_min, times })
}

/// A memory must reach further than the window, and a history must fit into it.
fn check_memory(kind: &CorrelationKind, timespan: Timespan, at: Place, problems: &mut Problems) -> Result<(), Refused> {
    let seconds = |span: Timespan| span.seconds().unwrap_or(i64::MAX);
    let wrong = match kind {
        CorrelationKind::FirstSeen { within, .. } | CorrelationKind::Rate { within, .. }
            if seconds(*within) <= seconds(timespan) =>
        {
            "`within` is no longer than `timespan`: there is no time before"
        }
        CorrelationKind::Rate { within, history, .. } if seconds(*history) > seconds(*within) => {
            "`history` is longer than `within`: it would never be known for so long"
        }
        _ => return Ok(()),
    };
    Err(problems.error("memory", at, wrong.to_owned(), None))
}

/// `condition` as a map: bounds, the field that they are about, and what a type has besides.
struct Limits {
    at: Place,
    bounds: Vec<(&'static str, Fixed)>,
    fields: Vec<Arc<str>>,
    percentile: Option<u8>,
    spans: Vec<(&'static str, Timespan)>,
    numbers: Vec<(&'static str, u64)>,
}

impl Limits {
    /// Reads it; `besides` are the further keys that the type has.
    fn read(node: &Node, besides: &[&'static str], problems: &mut Problems) -> Result<Limits, Refused> {
        let condition = node.get("condition");
        let Some((found, entries)) = condition.and_then(|found| found.map().map(|entries| (found, entries))) else {
            let message = "the correlation has no `condition` map".to_owned();
            return Err(problems.error("no_condition", place_of(condition, node.at), message, bound_hint()));
        };
        refuse_repeated_keys(entries, problems)?;
        let mut limits = Limits {
            at: found.at,
            bounds: Vec::new(),
            fields: Vec::new(),
            percentile: None,
            spans: Vec::new(),
            numbers: Vec::new(),
        };
        for (key, value) in entries {
            limits.read_entry(key, value, besides, problems)?;
        }
        if limits.bounds.is_empty() && !besides.contains(&"within") {
            let message = "the correlation's `condition` has no bound".to_owned();
            return Err(problems.error("no_condition", found.at, message, bound_hint()));
        }
        Ok(limits)
    }

    fn read_entry(
        &mut self,
        key: &Node,
        value: &Node,
        besides: &[&'static str],
        problems: &mut Problems,
    ) -> Result<(), Refused> {
        let word = key.text().unwrap_or_default();
        let known = BOUNDS.into_iter().chain(["field", "percentile"]).chain(besides.iter().copied());
        match known.clone().find(|known| *known == word) {
            Some("field") => {
                self.fields = value.each().iter().filter_map(Node::text).map(Arc::from).collect();
                if self.fields.len() != value.each().len() || self.fields.len() > REFERENCES_MAX {
                    let message = "`field` is no name of a field, nor a list of them".to_owned();
                    return Err(problems.error("field", value.at, message, None));
                }
            }
            Some("percentile") => {
                let number = value.text().and_then(|text| text.parse().ok()).filter(|number| *number <= 100);
                let Some(number) = number else {
                    let message = "`percentile` is no whole number from 0 to 100".to_owned();
                    return Err(problems.error("bound", value.at, message, None));
                };
                self.percentile = Some(number);
            }
            Some(word @ ("within" | "history")) => self.spans.push((word, timespan::read(value, problems)?)),
            Some(word @ ("known" | "count")) => {
                let Some(number) = value.text().and_then(|text| text.parse().ok()) else {
                    let message = format!("`{word}` is no whole number from 0");
                    return Err(problems.error("bound", value.at, message, None));
                };
                self.numbers.push((word, number));
            }
            Some(word) => {
                let number = value.text().map(Fixed::parse);
                let Some(Ok(number)) = number else {
                    let why = number.and_then(Result::err).filter(|why| *why == NotFixed::OutOfRange);
                    let why = why.map_or_else(|| "no number".to_owned(), |why| why.to_string());
                    let message = format!("the bound \"{word}\" is {why}");
                    return Err(problems.error("bound", value.at, message, None));
                };
                self.bounds.push((word, number));
            }
            None => {
                let message = format!("unknown key of `condition`: \"{}\"", shown(word));
                return Err(problems.error("unknown_key", key.at, message, did_you_mean(word, known)));
            }
        }
        Ok(())
    }

    fn span(&self, word: &str) -> Option<Timespan> {
        self.spans.iter().find(|(known, _)| *known == word).map(|(_, span)| *span)
    }

    fn number(&self, word: &str) -> Option<u64> {
        self.numbers.iter().find(|(known, _)| *known == word).map(|(_, number)| *number)
    }

    /// How far the memory of a type reaches.
    fn within(&self, kind: &str, problems: &mut Problems) -> Result<Timespan, Refused> {
        self.span("within").ok_or_else(|| {
            let message = format!("`{kind}` needs `within`: how far it remembers");
            problems.error("memory", self.at, message, Some("add `within: 30d` to `condition`".to_owned()))
        })
    }

    fn bounded<N>(&self, mut of: impl FnMut(Fixed) -> Result<N, Refused>) -> Result<Condition<N>, Refused>
    where
        Condition<N>: Default,
    {
        let mut condition = Condition::default();
        for (bound, number) in &self.bounds {
            let number = Some(of(*number)?);
            match *bound {
                "gte" => condition.gte = number,
                "gt" => condition.gt = number,
                "lte" => condition.lte = number,
                "lt" => condition.lt = number,
                "eq" => condition.eq = number,
                _ => condition.neq = number,
            }
        }
        Ok(condition)
    }

    /// The bounds on a number of things.
    fn counts(&self, problems: &mut Problems) -> Result<Condition, Refused> {
        self.bounded(|number| {
            let whole = Some(number.raw()).filter(|raw| raw % Fixed::SCALE == 0).map(|raw| raw / Fixed::SCALE);
            whole.and_then(|whole| u64::try_from(whole).ok()).ok_or_else(|| {
                let message = "a bound on a count is no whole number from 0".to_owned();
                problems.error("bound", self.at, message, None)
            })
        })
    }

    /// The bounds on a figure.
    fn figures(&self) -> Result<Condition<Fixed>, Refused> {
        self.bounded(Ok)
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

fn bound_hint() -> Option<String> {
    Some("as `condition: {gte: 10}`".to_owned())
}

/// Which rules must be met: all, so many, or as a formula over them says.
fn temporal(node: &Node, references: &[Reference], problems: &mut Problems) -> Result<TemporalCondition, Refused> {
    let Some(found) = node.get("condition") else { return Ok(TemporalCondition::All) };
    if found.map().is_some() {
        let limits = Limits::read(node, &[], problems)?;
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
