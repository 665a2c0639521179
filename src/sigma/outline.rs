//! A rule's condition as its text says it: selections by name, their fields with modifiers, their values.
//!
//! The condition that is matched ([`Expr`]) follows from it. Whoever asks why a rule did not match is answered in the
//! text's own words, and a processing pipeline changes items as they are written.

use std::sync::Arc;

use crate::{
    parse::condition,
    rule::{Comparison, Expr, Formula, Matcher, Number, Part, Pattern, Quantity, Shape, Test, TimePart},
};

/// Conditions over selections; what filters add stands beside.
#[derive(Clone, Debug, Default)]
pub struct Outline {
    /// As written; of several any.
    pub(crate) formulas: Vec<Formula>,
    pub(crate) selections: Vec<(Arc<str>, Block)>,
    /// Filters that were put on the rule: title, whether what fulfils it is suppressed, and what it says.
    pub(crate) filters: Vec<(Arc<str>, bool, Arc<Outline>)>,
}

/// A part of a selection.
#[derive(Clone, Debug)]
pub(crate) enum Block {
    /// A map: all must fit.
    All(Vec<Block>),
    /// A list: any.
    Any(Vec<Block>),
    /// One key of a map, or a keyword.
    Item(Item),
}

/// One field with its values.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    /// As written, with modifiers; empty for a keyword.
    pub(crate) key: Arc<str>,
    /// The field; `None` for a keyword.
    pub(crate) field: Option<Arc<str>>,
    pub(crate) values: Vec<Wanted>,
    /// Whether all values must be met, and not any.
    pub(crate) all: bool,
    /// Whether it holds if the values are not met.
    pub(crate) negated: bool,
    /// Ids of the steps of pipelines that made it what it is.
    pub(crate) applied: Vec<Arc<str>>,
}

/// One value of an item.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// As written.
    pub(crate) text: Arc<str>,
    /// What it became: any of these (an encoding at three offsets is three).
    pub(crate) matchers: Vec<Matcher>,
}

impl Outline {
    /// The outline of a condition whose text had no selections: one, called `condition`.
    #[must_use]
    pub fn of(expr: &Expr) -> Outline {
        let name: Arc<str> = Arc::from("condition");
        Outline {
            formulas: vec![Formula::Name(Arc::clone(&name))],
            selections: vec![(name, Block::of(expr))],
            filters: Vec::new(),
        }
    }

    /// Whether it says nothing: the default of a rule that another reader made.
    pub(crate) fn is_empty(&self) -> bool {
        self.formulas.is_empty()
    }

    /// The condition that follows; `None` if nothing is left of it.
    ///
    /// What has been taken out of a selection is not asked: a selection without items leaves its condition.
    pub(crate) fn expr(&self) -> Option<Expr> {
        let formulas: Vec<Expr> = self.formulas.iter().filter_map(|formula| self.resolved(formula)).collect();
        let own = one_or(formulas, Expr::Any);
        let filters = self.filters.iter().filter_map(|(_, suppresses, filter)| {
            let expr = filter.expr()?;
            Some(if *suppresses { Expr::Not(Box::new(expr)) } else { expr })
        });
        let all: Vec<Expr> = own.clone().into_iter().chain(filters).collect();
        own.and_then(|_| one_or(all, Expr::All))
    }

    fn resolved(&self, formula: &Formula) -> Option<Expr> {
        match formula {
            Formula::Any(list) => one_or(list.iter().filter_map(|part| self.resolved(part)).collect(), Expr::Any),
            Formula::All(list) => one_or(list.iter().filter_map(|part| self.resolved(part)).collect(), Expr::All),
            Formula::Not(part) => self.resolved(part).map(|expr| Expr::Not(Box::new(expr))),
            Formula::Name(name) => self.selections.iter().find(|(known, _)| known == name)?.1.expr(),
            Formula::Of(quantity, which) => {
                let meant = self.meant(which).filter_map(|(_, block)| block.expr()).collect();
                match quantity {
                    Quantity::All => one_or(meant, Expr::All),
                    Quantity::AtLeast(number) => at_least(*number, &meant),
                }
            }
        }
    }

    /// The selections that a pattern means.
    pub(crate) fn meant(&self, which: &str) -> impl Iterator<Item = &(Arc<str>, Block)> {
        self.selections.iter().filter(move |(name, _)| condition::is_meant(which, name))
    }

    /// All items, also those of filters' outlines left out.
    pub(crate) fn items(&self) -> Vec<&Item> {
        let mut items = Vec::new();
        for (_, block) in &self.selections {
            block.collect(&mut items);
        }
        items
    }
}

/// Any choice of so many, as the matcher knows only *and*, *or* and *not*; fewer are wanted if fewer are left.
fn at_least(number: usize, list: &[Expr]) -> Option<Expr> {
    if number <= 1 || list.is_empty() {
        return one_or(list.to_vec(), Expr::Any);
    }
    if number >= list.len() {
        return one_or(list.to_vec(), Expr::All);
    }
    let (first, rest) = list.split_first()?;
    let with = Expr::All(vec![first.clone(), at_least(number - 1, rest)?]);
    Some(Expr::Any(vec![with, at_least(number, rest)?]))
}

fn one_or(mut list: Vec<Expr>, join: impl Fn(Vec<Expr>) -> Expr) -> Option<Expr> {
    match list.len() {
        0 => None,
        1 => list.pop(),
        _ => Some(join(list)),
    }
}

impl Block {
    fn of(expr: &Expr) -> Block {
        match expr {
            Expr::All(list) => Block::All(list.iter().map(Block::of).collect()),
            Expr::Any(list) => match Item::of_any(list) {
                Some(item) => Block::Item(item),
                None => Block::Any(list.iter().map(Block::of).collect()),
            },
            Expr::Not(inner) => match Block::of(inner) {
                Block::Item(item) => Block::Item(Item { negated: !item.negated, ..item }),
                Block::All(list) => Block::Any(list.into_iter().map(Block::negated).collect()),
                Block::Any(list) => Block::All(list.into_iter().map(Block::negated).collect()),
            },
            Expr::Test(test) => Block::Item(Item::of(test)),
        }
    }

    fn negated(self) -> Block {
        match self {
            Block::Item(item) => Block::Item(Item { negated: !item.negated, ..item }),
            Block::All(list) => Block::Any(list.into_iter().map(Block::negated).collect()),
            Block::Any(list) => Block::All(list.into_iter().map(Block::negated).collect()),
        }
    }

    /// What it asks of an event; `None` if it has no items left.
    pub(crate) fn expr(&self) -> Option<Expr> {
        match self {
            Block::All(list) => one_or(list.iter().filter_map(Block::expr).collect(), Expr::All),
            Block::Any(list) => one_or(list.iter().filter_map(Block::expr).collect(), Expr::Any),
            Block::Item(item) => item.expr(),
        }
    }

    fn collect<'b>(&'b self, items: &mut Vec<&'b Item>) {
        match self {
            Block::All(list) | Block::Any(list) => list.iter().for_each(|block| block.collect(items)),
            Block::Item(item) => items.push(item),
        }
    }
}

impl Item {
    fn of(test: &Test) -> Item {
        let Test { field, matcher } = test;
        let wanted = Wanted { text: Arc::from(shown(matcher)), matchers: vec![matcher.clone()] };
        let key = match field {
            Some(field) => Arc::from(format!("{field}{}", modifiers(matcher))),
            None => Arc::from(""),
        };
        Item { key, field: field.clone(), values: vec![wanted], all: false, negated: false, applied: Vec::new() }
    }

    /// Several values of one field and one kind are one item.
    fn of_any(list: &[Expr]) -> Option<Item> {
        let mut items = list.iter().map(|expr| match expr {
            Expr::Test(test) => Some(Item::of(test)),
            Expr::All(_) | Expr::Any(_) | Expr::Not(_) => None,
        });
        let mut first = items.next()??;
        for item in items {
            let item = item.filter(|item| item.key == first.key)?;
            first.values.extend(item.values);
        }
        Some(first)
    }

    pub(crate) fn expr(&self) -> Option<Expr> {
        let test = |matcher: &Matcher| Expr::Test(Test { field: self.field.clone(), matcher: matcher.clone() });
        let mut list = Vec::with_capacity(self.values.len());
        for value in &self.values {
            let variants = value.matchers.iter().map(test);
            match value.matchers.len() {
                0 => {}
                1 => list.extend(variants),
                _ if self.all => list.push(Expr::Any(variants.collect())),
                _ => list.extend(variants),
            }
        }
        let expr = one_or(list, if self.all { Expr::All } else { Expr::Any })?;
        Some(if self.negated { Expr::Not(Box::new(expr)) } else { expr })
    }
}

/// The modifiers that a matcher would have been written with.
fn modifiers(matcher: &Matcher) -> &'static str {
    match matcher {
        Matcher::Text { cased: true, .. } => "|cased",
        Matcher::Regex(_) => "|re",
        Matcher::Cidr(_) => "|cidr",
        Matcher::Compare(Comparison::Lt, _) => "|lt",
        Matcher::Compare(Comparison::Lte, _) => "|lte",
        Matcher::Compare(Comparison::Gt, _) => "|gt",
        Matcher::Compare(Comparison::Gte, _) => "|gte",
        Matcher::Field { shape: Shape::Equal, .. } => "|fieldref",
        Matcher::Field { shape: Shape::Contains, .. } => "|fieldref|contains",
        Matcher::Field { shape: Shape::StartsWith, .. } => "|fieldref|startswith",
        Matcher::Field { shape: Shape::EndsWith, .. } => "|fieldref|endswith",
        Matcher::Time(TimePart::Minute, _) => "|minute",
        Matcher::Time(TimePart::Hour, _) => "|hour",
        Matcher::Time(TimePart::Day, _) => "|day",
        Matcher::Time(TimePart::Week, _) => "|week",
        Matcher::Time(TimePart::Month, _) => "|month",
        Matcher::Time(TimePart::Year, _) => "|year",
        Matcher::Exists(_) => "|exists",
        Matcher::Text { cased: false, .. } | Matcher::Null | Matcher::External(_) => "",
    }
}

/// A matcher's value as a rule would write it.
pub(crate) fn shown(matcher: &Matcher) -> String {
    match matcher {
        Matcher::Text { pattern, .. } => text_of(pattern),
        Matcher::Regex(regex) => regex.as_str().to_owned(),
        Matcher::Cidr(net) => net.to_string(),
        Matcher::Compare(_, Number::Whole(number)) => number.to_string(),
        Matcher::Compare(_, Number::Fraction(number)) => number.to_string(),
        Matcher::Field { other, .. } => other.to_string(),
        Matcher::Time(_, number) => number.to_string(),
        Matcher::Null => "null".to_owned(),
        Matcher::Exists(wanted) => wanted.to_string(),
        Matcher::External(test) => test.key().to_owned(),
    }
}

/// A pattern as a rule writes it: wildcards bare, what looks like one escaped.
pub(crate) fn text_of(pattern: &Pattern) -> String {
    let mut text = String::new();
    let mut parts = pattern.parts.iter().peekable();
    while let Some(part) = parts.next() {
        match part {
            Part::Any => text.push('*'),
            Part::One => text.push('?'),
            Part::Text(literal) => {
                let mut chars = literal.chars().peekable();
                while let Some(c) = chars.next() {
                    let next = chars.peek().copied();
                    // A backslash is one by itself, but before a wildcard or another one it would be read as an escape.
                    let at_wildcard = next.is_none() && parts.peek().is_some();
                    if matches!(c, '*' | '?') || c == '\\' && (at_wildcard || matches!(next, Some('*' | '?' | '\\'))) {
                        text.push('\\');
                    }
                    text.push(c);
                }
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_shown_as_it_could_be_read_again() {
        for text in [r"C:\Windows\*", r"\\\\srv\share", r"a\*b?", r"*\\*", r"\\?", "", "**a", r"a\\\*b", r"x\"] {
            let pattern = Pattern::parse(text);
            assert_eq!(Pattern::parse(&text_of(&pattern)), pattern, "{text} {}", text_of(&pattern));
        }
    }

    #[test]
    fn so_many_of_several_are_any_choice_of_them() {
        let test = |field: &str| Expr::Test(Test { field: Some(Arc::from(field)), matcher: Matcher::Null });
        fn holds(expr: &Expr, fields: &str) -> bool {
            match expr {
                Expr::All(list) => list.iter().all(|expr| holds(expr, fields)),
                Expr::Any(list) => list.iter().any(|expr| holds(expr, fields)),
                Expr::Not(expr) => !holds(expr, fields),
                Expr::Test(test) => fields.contains(test.field.as_deref().unwrap()),
            }
        }
        let list = ["a", "b", "c", "d"].map(test);
        for number in 1..=4 {
            let expr = at_least(number, &list).unwrap();
            for fields in ["", "a", "d", "ab", "bd", "abc", "bcd", "abcd"] {
                assert_eq!(holds(&expr, fields), fields.len() >= number, "{number} of {fields}");
            }
        }
        assert!(at_least(1, &[]).is_none());
    }
}
