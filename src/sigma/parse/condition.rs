//! The language of `condition`: names, `and`, `or`, `not`, parentheses, `1 of` and `all of`.

use std::sync::Arc;

use crate::{
    parse::value::TESTS_MAX,
    problem::{Place, Problems, Refused, did_you_mean, shown},
    rule::Expr,
};

/// Deeper nesting than anybody writes; each level is a call.
const DEPTH_MAX: usize = 64;
/// Selections named, and tests in them: `them` repeated must not grow a rule without bound.
const SELECTIONS_MAX: usize = 4_096;

/// Reads a condition over these selections.
pub(super) fn read(
    text: &str,
    at: Place,
    selections: &[(Arc<str>, Expr)],
    problems: &mut Problems,
) -> Result<Expr, Refused> {
    let words = words(text);
    let mut reader = Reader { words: &words, next: 0, depth: 0, used: 0, tests: 0, at, selections, problems };
    let expr = reader.any()?;
    match reader.peek() {
        None => Ok(expr),
        Some("|") => {
            let hint = Some("write it as a correlation (`correlation:` with `type: event_count`)".to_owned());
            Err(reader.refuse("aggregation", "aggregations in conditions are of Sigma 1".to_owned(), hint))
        }
        Some(word) => {
            let message = format!("the condition has \"{}\" where it could end", shown(word));
            Err(reader.refuse("condition", message, None))
        }
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
    used: usize,
    tests: usize,
    at: Place,
    selections: &'a [(Arc<str>, Expr)],
    problems: &'a mut Problems,
}

impl<'a> Reader<'a> {
    fn any(&mut self) -> Result<Expr, Refused> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.refuse(
                "condition",
                format!("the condition is nested deeper than {DEPTH_MAX} levels"),
                None,
            ));
        }
        let mut list = vec![self.all()?];
        while self.accept("or") {
            list.push(self.all()?);
        }
        self.depth -= 1;
        Ok(if list.len() == 1 { list.remove(0) } else { Expr::Any(list) })
    }

    fn all(&mut self) -> Result<Expr, Refused> {
        let mut list = vec![self.not()?];
        while self.accept("and") {
            list.push(self.not()?);
        }
        Ok(if list.len() == 1 { list.remove(0) } else { Expr::All(list) })
    }

    fn not(&mut self) -> Result<Expr, Refused> {
        let mut negated = false;
        while self.accept("not") {
            negated = !negated;
        }
        let expr = self.one()?;
        Ok(if negated { Expr::Not(Box::new(expr)) } else { expr })
    }

    fn one(&mut self) -> Result<Expr, Refused> {
        let Some(word) = self.take() else {
            return Err(self.refuse("condition", "the condition ends too early".to_owned(), None));
        };
        if word == "(" {
            let expr = self.any()?;
            if !self.accept(")") {
                return Err(self.refuse("condition", "the condition lacks a closing parenthesis".to_owned(), None));
            }
            return Ok(expr);
        }
        if self.peek().is_some_and(|next| next.eq_ignore_ascii_case("of")) {
            self.next += 1;
            return self.quantified(word);
        }
        if matches!(word, ")" | "|") || ["and", "or"].iter().any(|key| word.eq_ignore_ascii_case(key)) {
            let message = format!("the condition has \"{word}\" where a selection is wanted");
            return Err(self.refuse("condition", message, None));
        }
        self.named(word)
    }

    fn named(&mut self, word: &str) -> Result<Expr, Refused> {
        match self.selections.iter().find(|(name, _)| &**name == word) {
            Some((_, expr)) => {
                self.spend([expr])?;
                Ok(expr.clone())
            }
            None => {
                let hint = did_you_mean(word, self.selections.iter().map(|(name, _)| &**name));
                let message = format!("the condition names the selection \"{}\", which is not there", shown(word));
                Err(self.refuse("unknown_selection", message, hint))
            }
        }
    }

    fn quantified(&mut self, quantity: &str) -> Result<Expr, Refused> {
        let all = match quantity.to_ascii_lowercase().as_str() {
            "all" => true,
            "1" | "any" => false,
            _ => {
                let message = format!("\"{} of\" is not understood", shown(quantity));
                return Err(self.refuse("quantifier", message, Some("write `1 of` or `all of`".to_owned())));
            }
        };
        let Some(which) = self.take() else {
            return Err(self.refuse("condition", "the condition ends after `of`".to_owned(), None));
        };
        // `them` leaves out selections whose name begins with an underscore (specification 2.1).
        let them = which.eq_ignore_ascii_case("them");
        let fits = |name: &str| if them { !name.starts_with('_') } else { fits_name(which, name) };
        let list: Vec<&Expr> = self.selections.iter().filter(|(name, _)| fits(name)).map(|(_, expr)| expr).collect();
        if list.is_empty() {
            let stem = which.trim_end_matches('*');
            let hint = did_you_mean(stem, self.selections.iter().map(|(name, _)| &**name));
            let message = format!("the condition asks for \"{}\", which no selection is called", shown(which));
            return Err(self.refuse("unknown_selection", message, hint));
        }
        self.spend(list.iter().copied())?;
        let list = list.into_iter().cloned().collect();
        Ok(if all { Expr::All(list) } else { Expr::Any(list) })
    }

    fn spend<'e>(&mut self, selections: impl IntoIterator<Item = &'e Expr>) -> Result<(), Refused> {
        for selection in selections {
            self.used += 1;
            self.tests += size(selection);
        }
        if self.used > SELECTIONS_MAX || self.tests > TESTS_MAX {
            let message = format!("the condition uses more than {SELECTIONS_MAX} selections or {TESTS_MAX} values");
            return Err(self.refuse("too_many_tests", message, None));
        }
        Ok(())
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

    fn refuse(&mut self, code: &'static str, message: String, hint: Option<String>) -> Refused {
        self.problems.error(code, self.at, message, hint)
    }
}

/// Tests in a tree.
fn size(expr: &Expr) -> usize {
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
