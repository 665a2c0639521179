//! When a step is applied: conditions on the rule, on an item of it, on a field's name.

use std::{cmp::Ordering, sync::Arc};

use cf_types::Level;
use regex::Regex;

use super::{Conditions, Joined, State, Step};
use crate::{
    outline::Item,
    rule::{Formula, LogSourcePattern, Matcher, Meta, Number, Part, Pattern, Value},
};

/// A condition on the whole rule.
#[derive(Clone, Debug)]
pub(super) enum RuleCondition {
    LogSource(LogSourcePattern),
    ContainsItem(Arc<str>, Value),
    ContainsField(Arc<str>),
    IsRule,
    IsCorrelation,
    Attribute(Arc<str>, Relation, Value),
    Tag(Arc<str>),
    Applied(Arc<str>),
    State(Arc<str>, Relation, Value),
}

/// A condition on one item.
#[derive(Clone, Debug)]
pub(super) enum ItemCondition {
    MatchString { regex: Regex, all: bool, negated: bool },
    MatchValue { value: Value, all: bool },
    ContainsWildcard { all: bool },
    IsNull { all: bool },
    Applied(Arc<str>),
    State(Arc<str>, Relation, Value),
}

/// A condition on a field's name.
#[derive(Clone, Debug)]
pub(super) enum FieldCondition {
    /// One of these names, or what one of these expressions finds at its beginning.
    Include(Vec<Arc<str>>, Vec<Regex>),
    Exclude(Vec<Arc<str>>, Vec<Regex>),
    Applied(Arc<str>),
    State(Arc<str>, Relation, Value),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relation {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    NotIn,
}

/// What conditions ask of a rule or correlation.
pub(super) struct Subject<'s> {
    pub(super) correlation: bool,
    /// Of a correlation: those of the rules it refers to.
    pub(super) log_sources: &'s [LogSourcePattern],
    pub(super) items: Vec<&'s Item>,
    pub(super) id: &'s str,
    pub(super) name: Option<&'s str>,
    pub(super) title: &'s str,
    pub(super) description: &'s str,
    pub(super) status: Option<&'s str>,
    pub(super) level: Level,
    pub(super) tags: &'s [Arc<str>],
    pub(super) meta: &'s Meta,
}

impl<C> Conditions<C> {
    /// Whether they hold; none hold always.
    fn hold(&self, mut holds: impl FnMut(&C) -> bool) -> bool {
        if self.list.is_empty() {
            return true;
        }
        let results: Vec<(&str, bool)> =
            self.list.iter().map(|(name, condition)| (&**name, holds(condition))).collect();
        let result = match &self.joined {
            Joined::All => results.iter().all(|(_, holds)| *holds),
            Joined::Any => results.iter().any(|(_, holds)| *holds),
            Joined::By(formula) => by(formula, &results),
        };
        result != self.negated
    }
}

fn by(formula: &Formula, results: &[(&str, bool)]) -> bool {
    match formula {
        Formula::Any(list) => list.iter().any(|part| by(part, results)),
        Formula::All(list) => list.iter().all(|part| by(part, results)),
        Formula::Not(part) => !by(part, results),
        Formula::Name(name) => results.iter().any(|(known, holds)| *known == &**name && *holds),
        Formula::Of(..) => false, // refused when it was read
    }
}

impl Step {
    pub(super) fn fits_rule(&self, subject: &Subject<'_>, state: &State) -> bool {
        self.rule.hold(|condition| condition.holds(subject, state))
    }

    /// Conditions on the item and those on its field's name.
    pub(super) fn fits_item(&self, item: &Item, state: &State) -> bool {
        self.item.hold(|condition| condition.holds(item, state))
            && self.field.hold(|condition| match condition {
                FieldCondition::Applied(id) => item.applied.contains(id),
                condition => condition.holds(item.field.as_deref(), state),
            })
    }

    pub(super) fn fits_field(&self, field: &str, state: &State) -> bool {
        self.field.hold(|condition| condition.holds(Some(field), state))
    }
}

impl RuleCondition {
    fn holds(&self, subject: &Subject<'_>, state: &State) -> bool {
        match self {
            RuleCondition::LogSource(wanted) => subject.log_sources.iter().any(|source| {
                let fits = |wanted: &Option<Arc<str>>, part: &Option<Arc<str>>| wanted.is_none() || wanted == part;
                fits(&wanted.product, &source.product)
                    && fits(&wanted.category, &source.category)
                    && fits(&wanted.service, &source.service)
            }),
            RuleCondition::ContainsItem(field, value) => subject.items.iter().any(|item| {
                let values = item.values.iter().flat_map(|wanted| &wanted.matchers);
                item.field.as_ref() == Some(field) && values.into_iter().any(|matcher| is_value(matcher, value))
            }),
            RuleCondition::ContainsField(field) => subject.items.iter().any(|item| item.field.as_ref() == Some(field)),
            RuleCondition::IsRule => !subject.correlation,
            RuleCondition::IsCorrelation => subject.correlation,
            RuleCondition::Attribute(name, relation, value) => subject.attribute(name, *relation, value),
            RuleCondition::Tag(tag) => subject.tags.iter().any(|known| known.eq_ignore_ascii_case(tag)),
            RuleCondition::Applied(id) => state.applied.contains(id),
            RuleCondition::State(key, relation, value) => state.is(key, *relation, value),
        }
    }
}

impl ItemCondition {
    fn holds(&self, item: &Item, state: &State) -> bool {
        let values = || item.values.iter().flat_map(|wanted| &wanted.matchers);
        let of = |all: bool, holds: &dyn Fn(&Matcher) -> bool| {
            if all { values().all(holds) } else { values().any(holds) }
        };
        match self {
            ItemCondition::MatchString { regex, all, negated } => of(*all, &|matcher| match matcher {
                Matcher::Text { pattern, .. } => at_begin(regex, &plain(pattern)) != *negated,
                _ => *negated,
            }),
            ItemCondition::MatchValue { value, all } => of(*all, &|matcher| is_value(matcher, value)),
            ItemCondition::ContainsWildcard { all } => of(*all, &|matcher| match matcher {
                Matcher::Text { pattern, .. } => pattern.as_literal().is_none(),
                _ => false,
            }),
            ItemCondition::IsNull { all } => of(*all, &|matcher| matches!(matcher, Matcher::Null)),
            ItemCondition::Applied(id) => item.applied.contains(id),
            ItemCondition::State(key, relation, value) => state.is(key, *relation, value),
        }
    }
}

impl FieldCondition {
    fn holds(&self, field: Option<&str>, state: &State) -> bool {
        let among = |names: &[Arc<str>], regexes: &[Regex]| {
            field.is_some_and(|field| {
                names.iter().any(|name| &**name == field) || regexes.iter().any(|regex| at_begin(regex, field))
            })
        };
        match self {
            FieldCondition::Include(names, regexes) => among(names, regexes),
            FieldCondition::Exclude(names, regexes) => !among(names, regexes),
            FieldCondition::Applied(id) => {
                field.and_then(|field| state.fields.get(field)).is_some_and(|ids| ids.contains(id))
            }
            FieldCondition::State(key, relation, value) => state.is(key, *relation, value),
        }
    }
}

/// pySigma's `match`: what is found must begin where the text begins.
fn at_begin(regex: &Regex, text: &str) -> bool {
    regex.find(text).is_some_and(|found| found.start() == 0)
}

/// A pattern as plain text, wildcards as they are written.
pub(super) fn plain(pattern: &Pattern) -> String {
    let piece = |part: &Part| match part {
        Part::Text(text) => text.clone(),
        Part::Any => "*".to_owned(),
        Part::One => "?".to_owned(),
    };
    pattern.parts.iter().map(piece).collect()
}

fn is_value(matcher: &Matcher, value: &Value) -> bool {
    match (matcher, value) {
        (Matcher::Null, Value::Null) => true,
        (Matcher::Text { pattern, .. }, value) => text_of(value).is_some_and(|text| Pattern::parse(&text) == *pattern),
        _ => false,
    }
}

/// A scalar's text.
pub(super) fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::Truth(truth) => Some(truth.to_string()),
        Value::Whole(number) => Some(number.to_string()),
        Value::Text(text) => Some(text.to_string()),
        Value::Null | Value::List(_) | Value::Map(_) => None,
    }
}

impl State {
    fn is(&self, key: &str, relation: Relation, value: &Value) -> bool {
        self.values.get(key).is_some_and(|known| relation.holds(known, value))
    }
}

impl Relation {
    pub(super) fn of(word: &str) -> Option<Relation> {
        Some(match word {
            "eq" => Relation::Equal,
            "ne" => Relation::NotEqual,
            "lt" => Relation::Less,
            "lte" => Relation::LessOrEqual,
            "gt" => Relation::Greater,
            "gte" => Relation::GreaterOrEqual,
            "in" => Relation::In,
            "not_in" => Relation::NotIn,
            _ => return None,
        })
    }

    /// Numbers compare as numbers, all else as texts. A list is only asked what is in it.
    fn holds(self, known: &Value, wanted: &Value) -> bool {
        if let Value::List(list) = known {
            let within = list.contains(wanted);
            return match self {
                Relation::In => within,
                Relation::NotIn => !within,
                Relation::NotEqual => true,
                _ => false,
            };
        }
        let (known, wanted) = (text_of(known), text_of(wanted));
        let (Some(known), Some(wanted)) = (known, wanted) else { return self == Relation::NotEqual };
        let numbers = Number::parse(&known).zip(Number::parse(&wanted));
        let order = numbers.and_then(|(left, right)| left.compare(right)).unwrap_or_else(|| known.cmp(&wanted));
        self.of_order(order)
    }

    const fn of_order(self, order: Ordering) -> bool {
        match self {
            Relation::Equal | Relation::In => order.is_eq(),
            Relation::NotEqual | Relation::NotIn => order.is_ne(),
            Relation::Less => order.is_lt(),
            Relation::LessOrEqual => order.is_le(),
            Relation::Greater => order.is_gt(),
            Relation::GreaterOrEqual => order.is_ge(),
        }
    }
}

impl Subject<'_> {
    fn attribute(&self, name: &str, relation: Relation, wanted: &Value) -> bool {
        const LEVELS: [&str; 5] = ["informational", "low", "medium", "high", "critical"];
        const STATUSES: [&str; 5] = ["unsupported", "deprecated", "experimental", "test", "stable"];
        let text = |text: &str| Value::Text(Arc::from(text));
        let list = |list: &[Arc<str>]| Value::List(list.iter().map(|word| text(word)).collect());
        let ranked = |known: &str, ranks: &[&str]| {
            let rank = |word: &str| ranks.iter().position(|rank| rank.eq_ignore_ascii_case(word));
            let wanted = text_of(wanted).and_then(|word| rank(&word));
            rank(known).zip(wanted).is_some_and(|(known, wanted)| relation.of_order(known.cmp(&wanted)))
        };
        let meta = self.meta;
        let known = match name {
            "level" => return ranked(self.level.as_str(), &LEVELS),
            "status" => return self.status.is_some_and(|status| ranked(status, &STATUSES)),
            "title" => Some(text(self.title)),
            "id" => Some(text(self.id)),
            "name" => self.name.map(text),
            "description" => Some(text(self.description)),
            "author" => meta.author.as_deref().map(text),
            "license" => meta.license.as_deref().map(text),
            "taxonomy" => Some(text(meta.taxonomy.as_deref().unwrap_or("sigma"))),
            // Dates were written with slashes once; both forms sort by themselves.
            "date" => meta.date.as_deref().map(|date| text(&date.replace('/', "-"))),
            "modified" => meta.modified.as_deref().map(|date| text(&date.replace('/', "-"))),
            "tags" => Some(list(self.tags)),
            "references" => Some(list(&meta.references)),
            "falsepositives" => Some(list(&meta.falsepositives)),
            "fields" => Some(list(&meta.fields)),
            "scope" => Some(list(&meta.scope)),
            custom => meta.custom(custom).cloned(),
        };
        known.is_some_and(|known| relation.holds(&known, wanted))
    }
}
