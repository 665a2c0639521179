//! Rules as they are meant, before anything is compiled: small trees of tests on fields.

use std::{fmt, sync::Arc};

use cf_types::{Condition, Fixed, Level};
use ipnet::IpNet;
use regex::Regex;
use serde::{Serialize, Serializer, ser::SerializeMap};

use crate::{hunt::Hunt, outline::Outline};

/// A plain rule: one event fulfils it or not.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    /// Its id; made from name or content if the text has none.
    pub id: Arc<str>,
    /// Its `name`, by which correlations may refer to it.
    pub name: Option<Arc<str>>,
    /// Its title.
    pub title: Arc<str>,
    /// Its description.
    pub description: Arc<str>,
    /// Its level.
    pub level: Level,
    /// Its status, as published.
    pub status: Option<Arc<str>>,
    /// ATT&CK and other tags.
    pub tags: Arc<[Arc<str>]>,
    /// File it is from.
    pub file: Arc<str>,
    /// Line where its document begins.
    pub line: u32,
    /// What kind of log it is about.
    pub log_source: LogSourcePattern,
    /// What an event must fulfil.
    pub condition: Expr,
    /// The same as the text says it.
    pub outline: Arc<Outline>,
    /// What it asks of history, if it is a hunt: then no event meets it.
    pub hunt: Option<Arc<Hunt>>,
    /// What people may read of it beside.
    pub meta: Arc<Meta>,
}

/// What people may read of a rule, beside what it matches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Meta {
    /// The taxonomy of its fields and log sources; `sigma` if not given.
    pub taxonomy: Option<Arc<str>>,
    /// License by SPDX.
    pub license: Option<Arc<str>>,
    /// Who wrote it.
    pub author: Option<Arc<str>>,
    /// When it was written, as the text says.
    pub date: Option<Arc<str>>,
    /// When it was changed last, as the text says.
    pub modified: Option<Arc<str>>,
    /// How its log source must be set up (`logsource.definition`).
    pub definition: Option<Arc<str>>,
    /// Where it is from.
    pub references: Vec<Arc<str>>,
    /// What else may meet it.
    pub falsepositives: Vec<Arc<str>>,
    /// Fields worth showing with its alerts.
    pub fields: Vec<Arc<str>>,
    /// What kind of machine it is meant for.
    pub scope: Vec<Arc<str>>,
    /// Other rules that it has to do with.
    pub related: Vec<Related>,
    /// All other keys of its document, in their order.
    #[serde(serialize_with = "as_map")]
    pub custom: Vec<(Arc<str>, Value)>,
}

impl Meta {
    /// A custom field.
    #[must_use]
    pub fn custom(&self, key: &str) -> Option<&Value> {
        self.custom.iter().find(|(name, _)| &**name == key).map(|(_, value)| value)
    }

    /// The playbook that the rule suggests (custom field `playbook`).
    #[must_use]
    pub fn playbook(&self) -> Option<&str> {
        match self.custom("playbook") {
            Some(Value::Text(name)) => Some(name),
            _ => None,
        }
    }
}

/// A rule that another has to do with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Related {
    /// Its id.
    pub id: Arc<str>,
    /// `derived`, `obsolete`, `merged`, `renamed`, `similar`, `correlation`.
    #[serde(rename = "type")]
    pub kind: Arc<str>,
}

/// A value of a custom field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Nothing.
    Null,
    /// True or false.
    Truth(bool),
    /// A whole number.
    Whole(i64),
    /// A text, and any number that is not whole, as it is written.
    Text(Arc<str>),
    /// A list.
    List(Vec<Value>),
    /// A map, in its order.
    Map(Vec<(Arc<str>, Value)>),
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Null => serializer.serialize_unit(),
            Value::Truth(truth) => serializer.serialize_bool(*truth),
            Value::Whole(number) => serializer.serialize_i64(*number),
            Value::Text(text) => serializer.serialize_str(text),
            Value::List(list) => list.serialize(serializer),
            Value::Map(entries) => as_map(entries, serializer),
        }
    }
}

fn as_map<S: Serializer>(entries: &[(Arc<str>, Value)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(entries.len()))?;
    for (key, value) in entries {
        map.serialize_entry(&**key, value)?;
    }
    map.end()
}

/// The parts of a rule's `logsource`; a part that is not given fits everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogSourcePattern {
    /// `windows`, `linux`, ... in lower case.
    pub product: Option<Arc<str>>,
    /// `process_creation`, ... in lower case.
    pub category: Option<Arc<str>>,
    /// `sysmon`, ... in lower case.
    pub service: Option<Arc<str>>,
}

/// A condition on one event.
#[derive(Clone, Debug)]
pub enum Expr {
    /// All hold; true if empty.
    All(Vec<Expr>),
    /// At least one holds; false if empty.
    Any(Vec<Expr>),
    /// It does not hold.
    Not(Box<Expr>),
    /// One test.
    Test(Test),
}

impl Default for Expr {
    /// Nothing is asked: it holds.
    fn default() -> Expr {
        Expr::All(Vec::new())
    }
}

/// One value of one field of a rule.
#[derive(Clone, Debug)]
pub struct Test {
    /// The field; `None` for a keyword, which any value of the event may fulfil.
    pub field: Option<Arc<str>>,
    /// What a value must be like. A field of several values fulfils it if any of them does.
    pub matcher: Matcher,
}

/// What a value must be like.
#[derive(Clone, Debug)]
pub enum Matcher {
    /// A text with wildcards; without case unless `cased`.
    Text {
        /// The text.
        pattern: Pattern,
        /// Whether case counts.
        cased: bool,
    },
    /// A regular expression, found anywhere.
    Regex(Regex),
    /// An address in a network.
    Cidr(IpNet),
    /// A number compared.
    Compare(Comparison, Number),
    /// Another field's value.
    Field {
        /// The other field.
        other: Arc<str>,
        /// How the two must agree.
        shape: Shape,
        /// Whether case counts.
        cased: bool,
    },
    /// A part of a time.
    Time(TimePart, i64),
    /// No value: the field is absent or null.
    Null,
    /// The field is there (`true`) or not, whatever its value.
    Exists(bool),
    /// A test that another crate brings (YARA does): this one knows only when to ask.
    External(Arc<dyn ValueTest>),
}

/// A test of one value that this crate does not know from within.
///
/// It must be a pure function of the value: its result is shared between rules with equal [`ValueTest::key`].
pub trait ValueTest: fmt::Debug + Send + Sync {
    /// Whether the value fulfils it.
    fn fits(&self, value: &str) -> bool;

    /// What it is, for people and for knowing equal tests.
    fn key(&self) -> &str;

    /// Texts of which a value that fits contains at least one, in whatever case; `None` if that is not known. What is
    /// given here becomes the rule's anchor: `fits` is then asked only of values that contain one of them.
    fn necessary(&self) -> Option<Vec<String>> {
        None
    }
}

/// How a number must compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Comparison {
    /// Less.
    Lt,
    /// Less or equal.
    Lte,
    /// Greater.
    Gt,
    /// Greater or equal.
    Gte,
}

/// A number as rules and events write it. Whole numbers compare exactly, others as binary floating point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// A whole number.
    Whole(i64),
    /// Any other.
    Fraction(f64),
}

impl Number {
    /// Reads a decimal number.
    #[must_use]
    pub fn parse(text: &str) -> Option<Number> {
        let text = text.trim();
        if let Ok(whole) = text.parse() {
            return Some(Number::Whole(whole));
        }
        let numeric =
            text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'+' | b'e' | b'E'));
        text.parse().ok().filter(|number: &f64| numeric && number.is_finite()).map(Number::Fraction)
    }

    /// How it compares; `None` never happens for numbers that were parsed.
    #[must_use]
    pub fn compare(self, other: Number) -> Option<std::cmp::Ordering> {
        match (self, other) {
            (Number::Whole(left), Number::Whole(right)) => Some(left.cmp(&right)),
            (left, right) => left.float().partial_cmp(&right.float()),
        }
    }

    #[allow(clippy::as_conversions, clippy::cast_precision_loss)] // a comparison with a fraction is not exact anyway
    const fn float(self) -> f64 {
        match self {
            Number::Whole(whole) => whole as f64,
            Number::Fraction(fraction) => fraction,
        }
    }
}

impl Comparison {
    /// Whether `left` compares so with `right`.
    #[must_use]
    pub fn holds(self, left: Number, right: Number) -> bool {
        left.compare(right).is_some_and(|order| match self {
            Comparison::Lt => order.is_lt(),
            Comparison::Lte => order.is_le(),
            Comparison::Gt => order.is_gt(),
            Comparison::Gte => order.is_ge(),
        })
    }
}

/// How two texts must agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Shape {
    /// Equal.
    Equal,
    /// The other is within.
    Contains,
    /// It begins with the other.
    StartsWith,
    /// It ends with the other.
    EndsWith,
}

/// A part of a time (in UTC, as the value writes it).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TimePart {
    /// 0 to 59.
    Minute,
    /// 0 to 23.
    Hour,
    /// Day of the month.
    Day,
    /// ISO 8601 week.
    Week,
    /// 1 to 12.
    Month,
    /// The year.
    Year,
}

/// A text with wildcards.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern {
    /// Its parts; no two texts and no two `Any` stand beside each other.
    pub parts: Vec<Part>,
}

/// A piece of a [`Pattern`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// These characters.
    Text(String),
    /// `*`: any characters, or none.
    Any,
    /// `?`: one character.
    One,
}

impl Pattern {
    /// Reads a Sigma text: `*` and `?` are wildcards, `\` before `*`, `?` or `\` takes their meaning away.
    #[must_use]
    pub fn parse(text: &str) -> Pattern {
        let mut pattern = Pattern::default();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '\\' if matches!(chars.peek(), Some('*' | '?' | '\\')) => {
                    pattern.push_char(chars.next().unwrap_or('\\'));
                }
                '*' => pattern.push_any(),
                '?' => pattern.parts.push(Part::One),
                other => pattern.push_char(other),
            }
        }
        pattern
    }

    /// A text without wildcards.
    #[must_use]
    pub fn literal(text: &str) -> Pattern {
        let parts = if text.is_empty() { Vec::new() } else { vec![Part::Text(text.to_owned())] };
        Pattern { parts }
    }

    /// The text, if there are no wildcards.
    #[must_use]
    pub fn as_literal(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// With `*` before and behind as asked.
    #[must_use]
    pub fn within(mut self, before: bool, behind: bool) -> Pattern {
        if before && self.parts.first() != Some(&Part::Any) {
            self.parts.insert(0, Part::Any);
        }
        if behind && self.parts.last() != Some(&Part::Any) {
            self.parts.push(Part::Any);
        }
        self
    }

    pub(crate) fn push_any(&mut self) {
        if self.parts.last() != Some(&Part::Any) {
            self.parts.push(Part::Any);
        }
    }

    pub(crate) fn push_char(&mut self, c: char) {
        if let Some(Part::Text(text)) = self.parts.last_mut() {
            text.push(c);
        } else {
            self.parts.push(Part::Text(c.to_string()));
        }
    }
}

/// A correlation: a rule over the detections of others.
#[derive(Clone, Debug)]
pub struct Correlation {
    /// Its id.
    pub id: Arc<str>,
    /// Its `name`.
    pub name: Option<Arc<str>>,
    /// Its title.
    pub title: Arc<str>,
    /// Its description.
    pub description: Arc<str>,
    /// Its level.
    pub level: Level,
    /// Its status.
    pub status: Option<Arc<str>>,
    /// ATT&CK and other tags.
    pub tags: Arc<[Arc<str>]>,
    /// File it is from.
    pub file: Arc<str>,
    /// Line where its document begins.
    pub line: u32,
    /// Ids or names of the rules it refers to, as written, with line and column.
    pub references: Vec<Reference>,
    /// Fields or aliases to group by, in its order.
    pub group_by: Vec<Arc<str>>,
    /// Alias -> (reference as written -> field).
    pub aliases: Vec<(Arc<str>, Vec<(Arc<str>, Arc<str>)>)>,
    /// Window.
    pub timespan: Timespan,
    /// What makes a window a hit.
    pub kind: CorrelationKind,
    /// Whether the rules it refers to alert by themselves as well.
    pub generate: bool,
    /// What people may read of it beside.
    pub meta: Arc<Meta>,
}

/// What makes a window of a correlation a hit.
#[derive(Clone, Debug, PartialEq)]
pub enum CorrelationKind {
    /// The number of events.
    EventCount(Condition),
    /// The number of distinct values of a field; of several, of their combinations.
    ValueCount {
        /// The fields, at least one.
        fields: Vec<Arc<str>>,
        /// What the number must be.
        condition: Condition,
    },
    /// A figure over the values of a field.
    Value {
        /// Which figure.
        aggregate: Aggregate,
        /// The field.
        field: Arc<str>,
        /// Which percentile, where it is given beside the bounds.
        percentile: Option<u8>,
        /// What the figure must be.
        condition: Condition<Fixed>,
    },
    /// Several rules within the window.
    Temporal {
        /// Whether in the order of the references.
        ordered: bool,
        /// Which of them.
        condition: TemporalCondition,
    },
    /// The first rule, not followed by the second within the window. Ours.
    Absence,
    /// A value of a field that the time before does not have. Ours.
    FirstSeen {
        /// The fields, at least one.
        fields: Vec<Arc<str>>,
        /// The time before.
        within: Timespan,
        /// How many distinct values it must have.
        known_min: u64,
    },
    /// The number of events against the mean of the time before. Ours.
    Rate {
        /// The time before.
        within: Timespan,
        /// How long events must have been known.
        history: Timespan,
        /// The least number of events in the window.
        count_min: u64,
        /// What the number must be, as a multiple of the mean.
        times: Condition<Fixed>,
    },
}

/// A figure over values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Aggregate {
    /// `value_sum`.
    Sum,
    /// `value_avg`.
    Average,
    /// `value_median`.
    Median,
    /// `value_percentile`.
    Percentile,
}

/// Which rules of a temporal correlation must be met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemporalCondition {
    /// All.
    All,
    /// So many different ones.
    Count(Condition),
    /// As a formula over their ids or names says.
    Formula(Formula),
}

/// A condition as it is written: names joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Formula {
    /// At least one holds.
    Any(Vec<Formula>),
    /// All hold.
    All(Vec<Formula>),
    /// It does not hold.
    Not(Box<Formula>),
    /// A selection, or a rule.
    Name(Arc<str>),
    /// Some of those that a pattern (or `them`) names.
    Of(Quantity, Arc<str>),
}

/// How many of a pattern's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// All.
    All,
    /// At least so many, from 1.
    AtLeast(usize),
}

impl Formula {
    /// Whether it can only hold by what is absent: `not selection`, `not a and not b`.
    #[must_use]
    pub fn is_negative(&self) -> bool {
        match self {
            Formula::Any(list) | Formula::All(list) => list.iter().all(Formula::is_negative),
            Formula::Not(inner) => !inner.is_negative(),
            Formula::Name(_) | Formula::Of(..) => false,
        }
    }
}

/// A length of time, as rules write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timespan {
    /// How many, from 1.
    pub count: u32,
    /// Of which unit.
    pub unit: TimeUnit,
}

/// A unit of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    /// `s`
    Second,
    /// `m`
    Minute,
    /// `h`
    Hour,
    /// `d`
    Day,
    /// `w`
    Week,
    /// `M`: of no fixed length.
    Month,
    /// `y`: of no fixed length.
    Year,
}

impl Timespan {
    /// Its seconds; `None` if its unit has no fixed length.
    #[must_use]
    pub fn seconds(self) -> Option<i64> {
        let unit: i64 = match self.unit {
            TimeUnit::Second => 1,
            TimeUnit::Minute => 60,
            TimeUnit::Hour => 3_600,
            TimeUnit::Day => 86_400,
            TimeUnit::Week => 7 * 86_400,
            TimeUnit::Month | TimeUnit::Year => return None,
        };
        Some(i64::from(self.count) * unit)
    }
}

/// A Sigma filter: what it suppresses in the rules it names.
#[derive(Clone, Debug)]
pub struct Filter {
    /// Its id, if it has one.
    pub id: Option<Arc<str>>,
    /// Its title.
    pub title: Arc<str>,
    /// File it is from.
    pub file: Arc<str>,
    /// Line where its document begins.
    pub line: u32,
    /// It concerns only rules whose log source has all of these parts.
    pub log_source: LogSourcePattern,
    /// The rules; `None` for all (`rules: any`).
    pub rules: Option<Vec<Reference>>,
    /// Its condition.
    pub condition: Expr,
    /// The same as the text says it.
    pub outline: Arc<Outline>,
    /// Whether events that fulfil the condition are suppressed; else only those that fulfil it remain.
    pub suppresses: bool,
    /// What people may read of it beside.
    pub meta: Arc<Meta>,
}

/// A reference to a rule by id or name.
#[derive(Clone, Debug)]
pub struct Reference {
    /// Id or name.
    pub to: Arc<str>,
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
}
