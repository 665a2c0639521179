//! Values of an event against the values that a rule wants, in the most obvious way.

use std::sync::Arc;

use cf_types::{
    Event, Scalar,
    field::{Name, Names},
};

use crate::{
    compile::program::node::{agree, in_networks, time_part},
    fold::folded,
    outline::{Item, Wanted},
    rule::{Matcher, Number, Part, Pattern},
};

/// Characters of a value that are shown.
const VALUE_CHARS_MAX: usize = 300;
/// Values of one field that are shown.
const VALUES_MAX: usize = 20;

/// A rule's field, and the event's field that holds it.
pub(super) type Renamed = [(Arc<str>, Arc<str>)];

/// An event with its names looked up.
pub(super) struct Seen<'e> {
    names: Names,
    values: Vec<(Name, &'e str, bool)>,
    /// The whole of a text line, in which keywords are sought too.
    line: Option<&'e str>,
}

/// What became of one item.
pub(super) struct Outcome {
    pub(super) holds: bool,
    /// Places of the values that are met.
    pub(super) met: Vec<usize>,
    pub(super) saw: Vec<String>,
}

impl<'e> Seen<'e> {
    pub(super) fn new(event: &'e Event) -> Seen<'e> {
        let values = event.fields.iter().map(|(name, text, scalar)| (name, text, scalar == Scalar::Null)).collect();
        let structured = matches!(event.raw.first(), Some(b'{' | b'['));
        let line = std::str::from_utf8(&event.raw).ok().filter(|_| !structured);
        Seen { names: Names::current(), values, line }
    }

    /// All values of a field; a null is `None`.
    fn of(&self, field: &str) -> Vec<Option<&'e str>> {
        let Some(wanted) = self.names.get(field.as_bytes()) else { return Vec::new() };
        let own = self.values.iter().filter(|(name, ..)| *name == wanted);
        own.map(|(_, text, null)| (!null).then_some(*text)).collect()
    }

    fn anywhere(&self) -> Vec<Option<&'e str>> {
        let texts = self.values.iter().filter(|(_, _, null)| !null).map(|(_, text, _)| Some(*text));
        texts.chain(self.line.map(Some)).collect()
    }

    pub(super) fn ask(&self, item: &Item, fields: &Renamed) -> Outcome {
        let values = match &item.field {
            Some(field) => self.of(real(field, fields)),
            None => self.anywhere(),
        };
        let fits = |wanted: &Wanted| wanted.matchers.iter().any(|matcher| self.fits(matcher, &values, fields));
        let met: Vec<usize> =
            item.values.iter().enumerate().filter(|(_, wanted)| fits(wanted)).map(|(place, _)| place).collect();
        let holds = if item.all { met.len() == item.values.len() } else { !met.is_empty() };
        let saw = match &item.field {
            Some(_) => values.iter().take(VALUES_MAX).map(|value| value.map_or("null".to_owned(), cut)).collect(),
            None => Vec::new(),
        };
        Outcome { holds: holds != item.negated, met, saw }
    }

    fn fits(&self, matcher: &Matcher, values: &[Option<&str>], fields: &Renamed) -> bool {
        let any = |holds: &dyn Fn(&str) -> bool| values.iter().flatten().any(|text| holds(text));
        match matcher {
            Matcher::Null => values.is_empty() || values.contains(&None),
            Matcher::Exists(wanted) => values.is_empty() != *wanted,
            Matcher::Text { pattern, cased: true } => any(&|text| glob(&pattern.parts, text)),
            Matcher::Text { pattern, cased: false } => {
                let pattern = small(pattern);
                any(&|text| glob(&pattern.parts, &folded(text)))
            }
            Matcher::Regex(regex) => any(&|text| regex.is_match(text)),
            Matcher::Cidr(net) => any(&|text| in_networks(std::slice::from_ref(net), text)),
            Matcher::Compare(comparison, wanted) => {
                any(&|text| Number::parse(text).is_some_and(|number| comparison.holds(number, *wanted)))
            }
            Matcher::External(test) => any(&|text| test.fits(text)),
            Matcher::Time(part, wanted) => any(&|text| time_part(*part, text) == Some(*wanted)),
            Matcher::Field { other, shape, cased } => {
                let others = self.of(real(other, fields));
                let form = |text: &str| if *cased { text.to_owned() } else { folded(text) };
                let agrees = |text: &str, other: &str| agree(*shape, &form(text), &form(other));
                any(&|text| others.iter().flatten().any(|other| agrees(text, other)))
            }
        }
    }
}

/// The name by which the event's log calls a rule's field.
pub(super) fn real<'n>(field: &'n Arc<str>, fields: &'n Renamed) -> &'n Arc<str> {
    fields.iter().find(|(rule, _)| rule == field).map_or(field, |(_, event)| event)
}

/// A value, cut to what a reader can take in.
pub(super) fn cut(text: &str) -> String {
    let mut shown: String = text.chars().take(VALUE_CHARS_MAX).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

fn small(pattern: &Pattern) -> Pattern {
    let parts = pattern.parts.iter().map(|part| match part {
        Part::Text(text) => Part::Text(folded(text)),
        Part::Any => Part::Any,
        Part::One => Part::One,
    });
    Pattern { parts: parts.collect() }
}

/// Whether a text has the form of a pattern.
///
/// Each `*` first takes nothing and, when what follows fails, one character more: only the last `*` need ever be
/// tried again, so the work is bounded by the product of both lengths.
fn glob(parts: &[Part], text: &str) -> bool {
    let (mut at, mut rest) = (0, text);
    let mut again: Option<(usize, &str)> = None;
    loop {
        let next = match parts.get(at) {
            Some(Part::Any) => {
                again = Some((at + 1, rest));
                at += 1;
                continue;
            }
            Some(Part::Text(wanted)) => rest.strip_prefix(wanted.as_str()),
            Some(Part::One) => skip_one(rest),
            None if rest.is_empty() => return true,
            None => None,
        };
        if let Some(behind) = next {
            (at, rest) = (at + 1, behind);
            continue;
        }
        let Some((place, from)) = again else { return false };
        let Some(from) = skip_one(from) else { return false };
        again = Some((place, from));
        (at, rest) = (place, from);
    }
}

fn skip_one(text: &str) -> Option<&str> {
    let mut chars = text.chars();
    chars.next()?;
    Some(chars.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glob_fits_as_its_wildcards_say() {
        for (pattern, text, fits) in [
            ("", "", true),
            ("*", "", true),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("*b*", "abc", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("*ab", "aab", true),
            ("*a?b", "aaxb", true),
            ("abc", "abcd", false),
            ("?", "é", true),
            ("??", "é", false),
        ] {
            assert_eq!(glob(&Pattern::parse(pattern).parts, text), fits, "{pattern} {text}");
        }
    }
}
