//! The oracle: every rule on every event, straight from the parsed text, in the most obvious way.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use cf_sigma::{
    LogSources, log_source,
    rule::{Comparison, Expr, LogSourcePattern, Matcher, Number, Part, Pattern, Rule, Shape, Test, TimePart},
};
use cf_types::{Event, Name, Scalar};
use regex::{Regex, RegexBuilder};

use crate::world::name;

/// Rules with ASCII texts in small letters, so that this need not be done for each event.
pub(crate) struct Naive(Vec<Rule>);

/// An event with its values in small letters.
struct Seen<'e> {
    values: Vec<(Name, &'e str, String, Scalar)>,
}

impl Naive {
    pub(crate) fn new(rules: &[Rule]) -> Naive {
        Naive(rules.iter().map(|rule| Rule { condition: small(&rule.condition), ..rule.clone() }).collect())
    }

    /// Ids of the rules that an event fulfils, in their order.
    pub(crate) fn hits(&self, event: &Event) -> Vec<String> {
        let mut values: Vec<_> =
            event.fields.iter().map(|(name, text, scalar)| (name, text, text.to_ascii_lowercase(), scalar)).collect();
        // Keywords are sought in the whole of text lines too.
        if !matches!(event.raw.first(), Some(b'{' | b'[')) {
            let raw = std::str::from_utf8(&event.raw).unwrap();
            values.push((Name::UNKNOWN, raw, raw.to_ascii_lowercase(), Scalar::Text));
        }
        let seen = Seen { values };
        let mut sources: BTreeMap<&LogSourcePattern, Vec<Renamed>> = BTreeMap::new();
        let mut hits = Vec::new();
        for rule in &self.0 {
            let ways = sources.entry(&rule.log_source).or_insert_with(|| ways(&rule.log_source, event));
            if ways.iter().any(|fields| holds(&rule.condition, &seen, fields)) {
                hits.push(rule.id.to_string());
            }
        }
        hits
    }
}

fn small(expr: &Expr) -> Expr {
    match expr {
        Expr::All(list) => Expr::All(list.iter().map(small).collect()),
        Expr::Any(list) => Expr::Any(list.iter().map(small).collect()),
        Expr::Not(expr) => Expr::Not(Box::new(small(expr))),
        Expr::Test(Test { field, matcher: Matcher::Text { pattern, cased: false } }) => {
            let parts = pattern.parts.iter().map(|part| match part {
                Part::Text(text) => Part::Text(text.to_ascii_lowercase()),
                part => part.clone(),
            });
            let pattern = Pattern { parts: parts.collect() };
            Expr::Test(Test { field: field.clone(), matcher: Matcher::Text { pattern, cased: false } })
        }
        Expr::Test(test) => Expr::Test(test.clone()),
    }
}

type Renamed = &'static [(Arc<str>, Arc<str>)];

/// The ways by which the event belongs to the rule's log source, each with its names of fields.
fn ways(pattern: &LogSourcePattern, event: &Event) -> Vec<Renamed> {
    let table: &'static LogSources = LogSources::built_in();
    let mut ways: Vec<Renamed> = Vec::new();
    if table.fits_declared(pattern, &event.log_source) {
        ways.push(&[]);
    }
    let value = |field: &str| event.fields.first(name(field)).map(str::to_lowercase).unwrap_or_default();
    let mut channel = value("Channel");
    if channel.is_empty() {
        channel = table.channel_of_provider(&value("Provider_Name")).unwrap_or_default().to_lowercase();
    }
    let Some(product) = table.product_of_channel(&channel) else { return ways };
    if event.log_source.product.as_deref().is_some_and(|declared| declared != &**product) {
        return ways;
    }
    if log_source::is_product_only(pattern) && pattern.product.as_ref() == Some(product) {
        ways.push(&[]);
    }
    for entry in table.entries(pattern) {
        if entry.channel.to_lowercase() != channel {
            continue;
        }
        let Some(row) = entry.category else {
            ways.push(&[]);
            continue;
        };
        let any = |field: &str, wanted: &dyn Fn(&str) -> bool| {
            event.fields.all(name(field)).any(|(text, scalar)| scalar != Scalar::Null && wanted(&text.to_lowercase()))
        };
        let id = any("EventID", &|text| row.event_ids.iter().any(|id| id.to_string() == text));
        let when = row
            .when
            .iter()
            .all(|(field, values)| any(field, &|text| values.iter().any(|value| value.to_lowercase() == text)));
        if id && when {
            ways.push(&row.fields);
        }
    }
    ways
}

fn holds(expr: &Expr, seen: &Seen<'_>, fields: Renamed) -> bool {
    match expr {
        Expr::All(list) => list.iter().all(|expr| holds(expr, seen, fields)),
        Expr::Any(list) => list.iter().any(|expr| holds(expr, seen, fields)),
        Expr::Not(expr) => !holds(expr, seen, fields),
        Expr::Test(Test { field: None, matcher }) => seen
            .values
            .iter()
            .any(|(_, text, small, scalar)| *scalar != Scalar::Null && fits(matcher, text, small, &[])),
        Expr::Test(Test { field: Some(field), matcher }) => {
            let real =
                |field: &str| name(fields.iter().find(|(rule, _)| &**rule == field).map_or(field, |(_, event)| event));
            let of = |wanted: Name| seen.values.iter().filter(move |(name, ..)| *name == wanted);
            let values = || of(real(field));
            match matcher {
                Matcher::Null => values().count() == 0 || values().any(|(_, _, _, scalar)| *scalar == Scalar::Null),
                Matcher::Exists(wanted) => (values().count() > 0) == *wanted,
                matcher => {
                    let others: Vec<&str> = match matcher {
                        Matcher::Field { other, .. } => of(real(other))
                            .filter(|(_, _, _, scalar)| *scalar != Scalar::Null)
                            .map(|(_, text, ..)| *text)
                            .collect(),
                        _ => Vec::new(),
                    };
                    values()
                        .any(|(_, text, small, scalar)| *scalar != Scalar::Null && fits(matcher, text, small, &others))
                }
            }
        }
    }
}

fn fits(matcher: &Matcher, text: &str, small: &str, others: &[&str]) -> bool {
    match matcher {
        Matcher::Text { pattern, cased: true } => glob(&pattern.parts, text),
        Matcher::Text { pattern, cased: false } => fits_pattern(pattern, text, small),
        Matcher::Regex(regex) => regex.is_match(text),
        Matcher::Cidr(net) => {
            let bare = text.trim().trim_matches(['[', ']']).split('%').next().unwrap_or_default();
            bare.parse::<IpAddr>().is_ok_and(|address| net.contains(&address) || net.contains(&address.to_canonical()))
        }
        Matcher::Compare(comparison, wanted) => Number::parse(text).is_some_and(|number| match comparison {
            Comparison::Lt => number.compare(*wanted).unwrap().is_lt(),
            Comparison::Lte => number.compare(*wanted).unwrap().is_le(),
            Comparison::Gt => number.compare(*wanted).unwrap().is_gt(),
            Comparison::Gte => number.compare(*wanted).unwrap().is_ge(),
        }),
        Matcher::Field { shape, cased, .. } => others.iter().any(|other| {
            let other = if *cased { (*other).to_owned() } else { other.to_ascii_lowercase() };
            let around = |before, behind| Pattern::literal(&other).within(before, behind);
            let pattern = match shape {
                Shape::Equal => around(false, false),
                Shape::Contains => around(true, true),
                Shape::StartsWith => around(false, true),
                Shape::EndsWith => around(true, false),
            };
            if *cased { glob(&pattern.parts, text) } else { fits_pattern(&pattern, text, small) }
        }),
        Matcher::Time(part, wanted) => {
            let digits: Vec<i64> =
                text.split(|c: char| !c.is_ascii_digit()).map_while(|digits| digits.parse().ok()).collect();
            let at = match part {
                TimePart::Year => 0,
                TimePart::Month => 1,
                TimePart::Day => 2,
                TimePart::Hour => 3,
                TimePart::Minute => 4,
                TimePart::Week => return false, // tested beside its definition
            };
            digits.get(at) == Some(wanted)
        }
        Matcher::External(test) => test.fits(text),
        Matcher::Null | Matcher::Exists(_) => unreachable!("asked before"),
    }
}

/// The pattern is in small letters already, as far as they are ASCII.
fn fits_pattern(pattern: &Pattern, text: &str, small: &str) -> bool {
    if text.is_ascii() && pattern.parts.iter().all(|part| !matches!(part, Part::Text(text) if !text.is_ascii())) {
        return glob(&pattern.parts, small);
    }
    REGEXES
        .with_borrow_mut(|regexes| regexes.entry(pattern.clone()).or_insert_with(|| regex_of(pattern)).is_match(text))
}

thread_local! {
    static REGEXES: RefCell<HashMap<Pattern, Regex>> = RefCell::default();
}

fn regex_of(pattern: &Pattern) -> Regex {
    let pieces = pattern.parts.iter().map(|part| match part {
        Part::Text(text) => regex::escape(text),
        Part::Any => ".*".to_owned(),
        Part::One => ".".to_owned(),
    });
    let pattern = format!("(?is)^{}$", pieces.collect::<String>());
    RegexBuilder::new(&pattern).size_limit(1 << 28).build().unwrap()
}

/// Tries every length for every `*`.
fn glob(parts: &[Part], text: &str) -> bool {
    match parts {
        [] => text.is_empty(),
        [Part::Any] => true,
        [Part::Any, Part::Text(wanted), Part::Any] => text.contains(wanted.as_str()),
        [Part::Any, Part::Text(wanted)] => text.ends_with(wanted.as_str()),
        [Part::Text(wanted), rest @ ..] => text.strip_prefix(wanted.as_str()).is_some_and(|text| glob(rest, text)),
        [Part::One, rest @ ..] => {
            let mut chars = text.chars();
            chars.next().is_some() && glob(rest, chars.as_str())
        }
        [Part::Any, rest @ ..] => {
            let ends = text.char_indices().map(|(at, _)| at).chain([text.len()]);
            ends.into_iter().any(|at| glob(rest, text.get(at..).unwrap()))
        }
    }
}
