//! Rules that the matcher cannot reject by a text: it must look at every event of their log source.

use super::{Parsed, Problem, of_rule};
use crate::rule::{Expr, Matcher, Part, Pattern, Shape, Test};

/// A text of so many bytes is worth looking for.
const ANCHOR_BYTES_MIN: usize = 3;

/// Warns of rules without an anchor.
pub(super) fn anchors(parsed: &Parsed, list: &mut Vec<Problem>) {
    for rule in parsed.rules.iter().filter(|rule| rule.hunt.is_none() && !is_anchored(&rule.condition)) {
        let message =
            "no text must be present for the rule to be met: every event of its log source is looked at".to_owned();
        let hint = "ask for a value that must be there";
        list.push(of_rule("no_anchor", &rule.title, &rule.file, rule.line, message, hint));
    }
}

/// Whether an event that fulfils it must have one of some texts.
fn is_anchored(expr: &Expr) -> bool {
    match expr {
        Expr::All(list) => list.iter().any(is_anchored),
        Expr::Any(list) => !list.is_empty() && list.iter().all(is_anchored),
        Expr::Not(_) => false,
        Expr::Test(Test { matcher, .. }) => match matcher {
            Matcher::Text { pattern, .. } => has_text(pattern),
            Matcher::Regex(regex) => regex_has_text(regex.as_str()),
            Matcher::Field { shape, .. } => *shape == Shape::Equal,
            Matcher::External(test) => test.necessary().is_some(),
            Matcher::Cidr(_) | Matcher::Compare(..) | Matcher::Time(..) | Matcher::Null | Matcher::Exists(_) => false,
        },
    }
}

/// A whole value is enough however short, like the number of an event.
fn has_text(pattern: &Pattern) -> bool {
    pattern.as_literal().is_some_and(|text| !text.is_empty())
        || pattern.parts.iter().any(|part| matches!(part, Part::Text(text) if text.len() >= ANCHOR_BYTES_MIN))
}

fn regex_has_text(pattern: &str) -> bool {
    use regex_syntax::hir::{Hir, HirKind};
    fn necessary(hir: &Hir) -> bool {
        match hir.kind() {
            HirKind::Literal(literal) => literal.0.len() >= ANCHOR_BYTES_MIN,
            HirKind::Concat(list) => list.iter().any(necessary),
            HirKind::Alternation(list) => list.iter().all(necessary),
            HirKind::Capture(capture) => necessary(&capture.sub),
            HirKind::Repetition(repetition) => repetition.min > 0 && necessary(&repetition.sub),
            HirKind::Empty | HirKind::Class(_) | HirKind::Look(_) => false,
        }
    }
    regex_syntax::parse(pattern.trim_start_matches("(?i)")).is_ok_and(|hir| necessary(&hir))
}
