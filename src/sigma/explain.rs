//! Why a rule did or did not match an event: each part true or false with the value it saw, and the nearest miss.
//!
//! This is a second, slow and plain evaluation, from the outline of the rule's text, and shares with the matcher only what
//! a value is compared with; a test holds both to the same verdicts. It evaluates every part, also those that the
//! matcher would never ask, because who wonders about a rule wants to see all of it.

use std::{fmt, sync::Arc};

use cf_types::Event;
use serde::Serialize;

use crate::{
    compile::{RuleIndex, RuleSet},
    outline::Outline,
    rule::LogSourcePattern,
};

mod condition;
mod log_source;
mod miss;
mod value;

use condition::Evaluated;
pub use log_source::{LogSourceFit, Way};
pub use miss::Miss;

/// What is kept of a rule to explain it.
#[derive(Clone, Debug)]
pub(crate) struct Explained {
    pub(crate) log_source: LogSourcePattern,
    pub(crate) outline: Arc<Outline>,
}

/// Why a rule did or did not match an event.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// The rule's id.
    pub rule: Arc<str>,
    /// Its title.
    pub title: Arc<str>,
    /// File it is from.
    pub file: Arc<str>,
    /// Line where it begins.
    pub line: u32,
    /// Whether the event fulfils it. Of a correlation: whether it fulfils one of the rules it refers to and can be
    /// counted; whether the correlation is met no single event tells.
    pub matched: bool,
    /// Whether the rule is switched off; then it never matches, whatever its parts say.
    pub disabled: bool,
    /// Whether the event belongs to the rule's log source. A correlation has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_source: Option<LogSourceFit>,
    /// The condition, part by part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub condition: Option<Part>,
    /// The smallest set of parts which, had they been different, would have made it match. Only of a rule that did not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nearest_miss: Vec<Miss>,
    /// Of a correlation: the rules that it refers to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Referenced>,
}

/// A part of a condition.
#[derive(Clone, Debug, Serialize)]
pub struct Part {
    /// What kind of part it is.
    pub what: What,
    /// As the text says it: a selection's name, a field with its modifiers, `1 of filter_*`.
    pub text: Arc<str>,
    /// Whether it holds; `None` if the condition does not ask it.
    pub holds: Option<bool>,
    /// Values that it wants, as written.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub wanted: Vec<Arc<str>>,
    /// Those of them that are met.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub met: Vec<Arc<str>>,
    /// Values that it saw; empty if the event does not have the field.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub saw: Vec<String>,
    /// The event's field, where the log names it otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<Arc<str>>,
    /// Its parts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
}

/// Kinds of parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// All must hold.
    All,
    /// One must hold.
    Any,
    /// So many must hold.
    Of,
    /// It must not hold.
    Not,
    /// A selection.
    Selection,
    /// A filter that was put on the rule.
    Filter,
    /// A field with its values.
    Field,
    /// A keyword.
    Keyword,
}

/// A rule that a correlation refers to.
#[derive(Clone, Debug, Serialize)]
pub struct Referenced {
    /// Why it did or did not match.
    pub explanation: Explanation,
    /// Whether the event counts for the correlation: it matches and has all fields.
    pub counts: bool,
    /// Fields that the correlation groups by or counts, as it calls them, with the event's value.
    pub fields: Vec<(Arc<str>, Option<String>)>,
}

impl RuleSet {
    /// Says why a rule did or did not match an event.
    ///
    /// # Panics
    ///
    /// If the index is of another rule set.
    #[must_use]
    pub fn explain(&self, rule: RuleIndex, event: &Event) -> Explanation {
        let info = self.rule(rule).expect("a rule index is used with the rule set that gave it");
        let mut explanation = Explanation {
            rule: Arc::clone(&info.id),
            title: Arc::clone(&info.title),
            file: Arc::clone(&info.file),
            line: info.line,
            matched: false,
            disabled: !info.enabled,
            log_source: None,
            condition: None,
            nearest_miss: Vec::new(),
            rules: Vec::new(),
        };
        match self.explained(rule) {
            Some(explained) => self.explain_plain(explained, event, &mut explanation),
            None => {
                explanation.rules = self.referenced(rule, event);
                explanation.matched = explanation.rules.iter().any(|rule| rule.counts);
            }
        }
        explanation
    }

    fn explain_plain(&self, explained: &Explained, event: &Event, explanation: &mut Explanation) {
        let seen = value::Seen::new(event);
        let mut fit = log_source::fit(self.log_sources(), &explained.log_source, event);
        // The way by which it matches, else the one that comes nearest; without any the rule's own names of fields.
        let ways = fit.ways.iter().filter(|way| way.fits);
        let mut best: Option<(Evaluated, Option<Arc<str>>)> = None;
        for way in ways {
            let evaluated = condition::evaluate(&explained.outline, &seen, &way.fields);
            let better = best.as_ref().is_none_or(|(known, _)| evaluated.worth() > known.worth());
            if better {
                best = Some((evaluated, Some(Arc::clone(&way.by))));
            }
        }
        let (evaluated, by) = best.unwrap_or_else(|| (condition::evaluate(&explained.outline, &seen, &[]), None));
        explanation.matched = fit.fits && evaluated.part.holds == Some(true) && !explanation.disabled;
        if !explanation.matched && !explanation.disabled {
            explanation.nearest_miss = evaluated.miss();
            if !fit.fits {
                explanation.nearest_miss.insert(0, Miss::of_log_source(&explained.log_source, &fit));
            }
        }
        fit.by = by;
        explanation.log_source = Some(fit);
        explanation.condition = Some(evaluated.part);
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, 0)
    }
}

/// Two spaces for each level.
fn indent(f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
    (0..depth).try_for_each(|_| f.write_str("  "))
}

const fn mark(holds: Option<bool>) -> char {
    match holds {
        Some(true) => '✓',
        Some(false) => '✗',
        None => '·',
    }
}

impl Explanation {
    fn write(&self, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
        indent(f, depth)?;
        let verdict = match (self.matched, self.disabled) {
            (true, _) => "matches",
            (false, true) => "is disabled",
            (false, false) => "does not match",
        };
        writeln!(f, "rule \"{}\" ({}) {verdict}", self.title, self.rule)?;
        if let Some(fit) = &self.log_source {
            fit.write(f, depth)?;
        }
        if let Some(part) = &self.condition {
            part.write(f, depth)?;
        }
        if !self.nearest_miss.is_empty() {
            indent(f, depth)?;
            let parts = if self.nearest_miss.len() == 1 { "part" } else { "parts" };
            writeln!(f, "nearest miss, {} {parts}:", self.nearest_miss.len())?;
            for miss in &self.nearest_miss {
                indent(f, depth + 1)?;
                writeln!(f, "{miss}")?;
            }
        }
        for rule in &self.rules {
            rule.write(f, depth)?;
        }
        Ok(())
    }
}

impl Referenced {
    fn write(&self, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
        indent(f, depth)?;
        write!(f, "{} ", mark(Some(self.counts)))?;
        f.write_str(if self.counts { "counts for the correlation" } else { "does not count" })?;
        for (at, (field, value)) in self.fields.iter().enumerate() {
            f.write_str(if at == 0 { "; grouped by or counting " } else { ", " })?;
            match value {
                Some(value) => write!(f, "{field} \"{value}\"")?,
                None => write!(f, "{field}, which the event does not have")?,
            }
        }
        writeln!(f)?;
        self.explanation.write(f, depth + 1)
    }
}

/// Values that a line shows; the JSON has all.
const SHOWN_MAX: usize = 5;

impl Part {
    fn write(&self, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
        indent(f, depth)?;
        write!(f, "{} {}", mark(self.holds), self.text)?;
        if matches!(self.what, What::Field | What::Keyword) {
            let values = if self.met.is_empty() { &self.wanted } else { &self.met };
            f.write_str(if self.met.is_empty() { " wants " } else { " has " })?;
            write_some(f, values)?;
            if let Some(field) = &self.field {
                write!(f, " (here {field})")?;
            }
            if self.what == What::Field {
                f.write_str(if self.saw.is_empty() { ": no such field" } else { ": saw " })?;
                write_some(f, &self.saw)?;
            }
        }
        writeln!(f)?;
        self.parts.iter().try_for_each(|part| part.write(f, depth + 1))
    }
}

fn write_some<T: AsRef<str>>(f: &mut fmt::Formatter<'_>, values: &[T]) -> fmt::Result {
    for (at, value) in values.iter().take(SHOWN_MAX).enumerate() {
        f.write_str(if at == 0 { "" } else { ", " })?;
        write!(f, "\"{}\"", value.as_ref())?;
    }
    if values.len() > SHOWN_MAX {
        write!(f, " and {} more", values.len() - SHOWN_MAX)?;
    }
    Ok(())
}
