//! The language of `condition`: names, `and`, `or`, `not`, parentheses, `1 of` and `all of`; and what it means over
//! selections.

use std::sync::Arc;

use crate::{
    parse::value::TESTS_MAX,
    problem::{Place, Problems, Refused, did_you_mean, shown},
    rule::{Expr, Formula, Quantity},
};

/// Deeper nesting than anybody writes; each level is a call.
const DEPTH_MAX: usize = 64;
/// Selections named, and tests in them: `them` repeated must not grow a rule without bound.
const SELECTIONS_MAX: usize = 4_096;

/// A condition as it is written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Written {
    pub(crate) formula: Formula,
    /// What stands behind `|`: an aggregation of Sigma 1.
    pub(crate) aggregation: Option<String>,
}

/// What is wrong with a condition.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wrong {
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

fn wrong<T>(code: &'static str, message: String, hint: Option<String>) -> Result<T, Wrong> {
    Err(Wrong { code, message, hint })
}

/// Reads a condition; what its names stand for is not asked.
pub(crate) fn read(text: &str) -> Result<Written, Wrong> {
    let words = words(text);
    let mut reader = Reader { words: &words, next: 0, depth: 0 };
    let formula = reader.any()?;
    match reader.take() {
        None => Ok(Written { formula, aggregation: None }),
        Some("|") => {
            let rest = words.get(reader.next..).unwrap_or_default();
            Ok(Written { formula, aggregation: Some(rest.join(" ")) })
        }
        Some(word) => wrong("condition", format!("the condition has \"{}\" where it could end", shown(word)), None),
    }
}

fn words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    for chunk in text.split_whitespace() {
        let mut rest = chunk;
        while let Some(c) = rest.chars().next() {
            let len = if matches!(c, '(' | ')' | '|') {
                c.len_utf8()
            } else {
                rest.find(['(', ')', '|']).unwrap_or(rest.len())
            };
            let (word, behind) = rest.split_at(len);
            words.push(word);
            rest = behind;
        }
    }
    words
}

struct Reader<'a> {
    words: &'a [&'a str],
    next: usize,
    depth: usize,
}

impl<'a> Reader<'a> {
    fn any(&mut self) -> Result<Formula, Wrong> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return wrong("condition", format!("the condition is nested deeper than {DEPTH_MAX} levels"), None);
        }
        let mut list = vec![self.all()?];
        while self.accept("or") {
            list.push(self.all()?);
        }
        self.depth -= 1;
        Ok(if list.len() == 1 { list.remove(0) } else { Formula::Any(list) })
    }

    fn all(&mut self) -> Result<Formula, Wrong> {
        let mut list = vec![self.not()?];
        while self.accept("and") {
            list.push(self.not()?);
        }
        Ok(if list.len() == 1 { list.remove(0) } else { Formula::All(list) })
    }

    fn not(&mut self) -> Result<Formula, Wrong> {
        let mut negated = false;
        while self.accept("not") {
            negated = !negated;
        }
        let formula = self.one()?;
        Ok(if negated { Formula::Not(Box::new(formula)) } else { formula })
    }

    fn one(&mut self) -> Result<Formula, Wrong> {
        let Some(word) = self.take() else {
            return wrong("condition", "the condition ends too early".to_owned(), None);
        };
        if word == "(" {
            let formula = self.any()?;
            if !self.accept(")") {
                return wrong("condition", "the condition lacks a closing parenthesis".to_owned(), None);
            }
            return Ok(formula);
        }
        if self.peek().is_some_and(|next| next.eq_ignore_ascii_case("of")) {
            self.next += 1;
            return self.quantified(word);
        }
        if matches!(word, ")" | "|") || ["and", "or"].iter().any(|key| word.eq_ignore_ascii_case(key)) {
            let message = format!("the condition has \"{word}\" where a selection is wanted");
            return wrong("condition", message, None);
        }
        Ok(Formula::Name(Arc::from(word)))
    }

    fn quantified(&mut self, quantity: &str) -> Result<Formula, Wrong> {
        let quantity = match quantity.to_ascii_lowercase().as_str() {
            "all" => Quantity::All,
            "any" => Quantity::AtLeast(1),
            number => match number.parse() {
                Ok(number) if number > 0 => Quantity::AtLeast(number),
                _ => {
                    let message = format!("\"{} of\" is not understood", shown(quantity));
                    return wrong("quantifier", message, Some("write `1 of` or `all of`".to_owned()));
                }
            },
        };
        match self.take() {
            Some(which) if !matches!(which, "(" | ")" | "|") => Ok(Formula::Of(quantity, Arc::from(which))),
            Some(_) => {
                let hint = Some("name selections by a pattern, as `1 of selection*`".to_owned());
                wrong("condition", "the condition has no name or pattern after `of`".to_owned(), hint)
            }
            None => wrong("condition", "the condition ends after `of`".to_owned(), None),
        }
    }

    fn peek(&self) -> Option<&'a str> {
        self.words.get(self.next).copied()
    }

    fn take(&mut self) -> Option<&'a str> {
        let word = self.peek()?;
        self.next += 1;
        Some(word)
    }

    fn accept(&mut self, wanted: &str) -> bool {
        let there = self.peek().is_some_and(|word| word.eq_ignore_ascii_case(wanted));
        self.next += usize::from(there);
        there
    }
}

/// Puts selections in the place of their names.
pub(super) fn resolve(
    formula: &Formula,
    at: Place,
    selections: &[(Arc<str>, Expr)],
    problems: &mut Problems,
) -> Result<Expr, Refused> {
    let mut resolver = Resolver { used: 0, tests: 0, selections };
    resolver.resolve(formula).map_err(|Wrong { code, message, hint }| problems.error(code, at, message, hint))
}

struct Resolver<'a> {
    used: usize,
    tests: usize,
    selections: &'a [(Arc<str>, Expr)],
}

impl Resolver<'_> {
    fn resolve(&mut self, formula: &Formula) -> Result<Expr, Wrong> {
        Ok(match formula {
            Formula::Any(list) => {
                Expr::Any(list.iter().map(|formula| self.resolve(formula)).collect::<Result<_, _>>()?)
            }
            Formula::All(list) => {
                Expr::All(list.iter().map(|formula| self.resolve(formula)).collect::<Result<_, _>>()?)
            }
            Formula::Not(inner) => Expr::Not(Box::new(self.resolve(inner)?)),
            Formula::Name(name) => self.named(name)?,
            Formula::Of(quantity, which) => self.quantified(*quantity, which)?,
        })
    }

    fn named(&mut self, word: &str) -> Result<Expr, Wrong> {
        match self.selections.iter().find(|(name, _)| &**name == word) {
            Some((_, expr)) => {
                self.spend([expr])?;
                Ok(expr.clone())
            }
            None => {
                let hint = did_you_mean(word, self.names());
                let message = format!("the condition names the selection \"{}\", which is not there", shown(word));
                wrong("unknown_selection", message, hint)
            }
        }
    }

    fn quantified(&mut self, quantity: Quantity, which: &str) -> Result<Expr, Wrong> {
        let list: Vec<&Expr> =
            self.selections.iter().filter(|(name, _)| is_meant(which, name)).map(|(_, expr)| expr).collect();
        if list.is_empty() {
            let hint = did_you_mean(which.trim_end_matches('*'), self.names());
            let message = format!("the condition asks for \"{}\", which no selection is called", shown(which));
            return wrong("unknown_selection", message, hint);
        }
        match quantity {
            Quantity::AtLeast(number) if number > list.len() => {
                let message = format!("the condition wants {number} of \"{}\", which are {}", shown(which), list.len());
                wrong("quantifier", message, Some("write `1 of` or `all of`".to_owned()))
            }
            Quantity::AtLeast(1) => {
                self.spend(list.iter().copied())?;
                Ok(Expr::Any(list.into_iter().cloned().collect()))
            }
            Quantity::AtLeast(number) if number < list.len() => self.at_least(number, &list),
            Quantity::All | Quantity::AtLeast(_) => {
                self.spend(list.iter().copied())?;
                Ok(Expr::All(list.into_iter().cloned().collect()))
            }
        }
    }

    /// Any choice of so many: written out, because the matcher knows only *and*, *or* and *not*.
    fn at_least(&mut self, number: usize, list: &[&Expr]) -> Result<Expr, Wrong> {
        if number == 0 {
            return Ok(Expr::All(Vec::new()));
        }
        let mut any = Vec::new();
        for (place, first) in list.iter().enumerate() {
            let rest = list.get(place + 1..).unwrap_or_default();
            if rest.len() + 1 < number {
                break;
            }
            self.spend([*first])?;
            any.push(match self.at_least(number - 1, rest)? {
                Expr::All(none) if none.is_empty() => (*first).clone(),
                others => Expr::All(vec![(*first).clone(), others]),
            });
        }
        Ok(Expr::Any(any))
    }

    fn spend<'e>(&mut self, selections: impl IntoIterator<Item = &'e Expr>) -> Result<(), Wrong> {
        for selection in selections {
            self.used += 1;
            self.tests += size(selection);
        }
        if self.used > SELECTIONS_MAX || self.tests > TESTS_MAX {
            let message = format!("the condition uses more than {SELECTIONS_MAX} selections or {TESTS_MAX} values");
            return wrong("too_many_tests", message, None);
        }
        Ok(())
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.selections.iter().map(|(name, _)| &**name)
    }
}

/// Whether a pattern, or `them`, means a selection of this name.
///
/// `them` leaves out names that begin with an underscore (specification 2.1, *Condition*).
pub(crate) fn is_meant(which: &str, name: &str) -> bool {
    if which.eq_ignore_ascii_case("them") { !name.starts_with('_') } else { fits_name(which, name) }
}

/// Tests in a tree.
pub(crate) fn size(expr: &Expr) -> usize {
    match expr {
        Expr::All(list) | Expr::Any(list) => list.iter().map(size).sum(),
        Expr::Not(expr) => size(expr),
        Expr::Test(_) => 1,
    }
}

/// `*` stands for any characters.
fn fits_name(pattern: &str, name: &str) -> bool {
    let mut pieces = pattern.split('*');
    let Some(mut rest) = pieces.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let mut pieces: Vec<&str> = pieces.collect();
    let Some(last) = pieces.pop() else { return rest.is_empty() };
    for piece in pieces {
        match rest.split_once(piece) {
            Some((_, behind)) => rest = behind,
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// The correlation that says what an aggregation of Sigma 1 said, to be shown to its author.
///
/// `count(field) by group > 5`, `sum(field) by group >= 5`, `near a and b` (specification 1.0.2, *Condition*).
pub(super) fn as_correlation(aggregation: &str, rule: &str, timeframe: Option<&str>) -> Option<String> {
    let spaced = aggregation.replace('<', " <").replace('>', " >").replace('=', " =");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let timespan = timeframe.unwrap_or("5m");
    if let Some((_, names)) = words.split_first().filter(|(first, _)| first.eq_ignore_ascii_case("near")) {
        let names: Vec<&str> = names.iter().copied().filter(|word| !word.eq_ignore_ascii_case("and")).collect();
        if names.is_empty() || names.iter().any(|name| ["not", "or", "(", ")"].contains(&name.to_lowercase().as_str()))
        {
            return None;
        }
        return Some(format!(
            "make a rule of each search and write `correlation: {{type: temporal, rules: [{rule}, {}], group-by: [...], timespan: {timespan}}}`",
            names.join(", ")
        ));
    }
    // Words are split at parentheses: function ( field ) by group > 5
    let open = words.iter().position(|word| *word == "(")?;
    let close = words.iter().position(|word| *word == ")")?;
    let function = words.get(..open)?.first()?.to_ascii_lowercase();
    let field = words.get(open + 1..close)?.join(" ");
    let rest = words.get(close + 1..)?;
    let (group, rest) = match rest.split_first() {
        Some((by, behind)) if by.eq_ignore_ascii_case("by") => {
            let end = behind.iter().position(|word| word.starts_with(['<', '>', '=']))?;
            (Some(behind.get(..end)?.join(" ")), behind.get(end..)?)
        }
        _ => (None, rest),
    };
    let comparison = rest.concat();
    let number = comparison.trim_start_matches(['<', '>', '=']);
    let bound = match comparison.strip_suffix(number)? {
        ">" => "gt",
        ">=" => "gte",
        "<" => "lt",
        "<=" => "lte",
        "=" | "==" => "eq",
        _ => return None,
    };
    number.parse::<u64>().ok()?;
    let kind = match (function.as_str(), field.is_empty()) {
        ("count", true) => "event_count",
        ("count", false) => "value_count",
        ("sum", false) => "value_sum",
        ("avg", false) => "value_avg",
        _ => return None, // there are no `min` and `max`
    };
    let group = group.map(|group| format!(", group-by: [{group}]")).unwrap_or_default();
    let field = if field.is_empty() { String::new() } else { format!("field: {field}, ") };
    Some(format!(
        "write `correlation: {{type: {kind}, rules: [{rule}]{group}, timespan: {timespan}, condition: {{{field}{bound}: {number}}}}}`"
    ))
}
