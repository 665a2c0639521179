//! Conditions as they are evaluated: fields as slots, tests shared between rules, children in the order of their worth.

use std::{net::IpAddr, sync::Arc};

use cf_types::Name;
use ipnet::IpNet;
use memchr::memmem::Finder;
use regex::Regex;
use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    anchor::{Kind, Literal, Required, required_of_regex},
    grams::{Contained, GRAM_BYTES},
    profile::Profile,
};
use crate::{
    fold::{escaped, folded, unit_len},
    rule::{Comparison, Expr, Matcher, Number, Part, Pattern, Shape, Test, TimePart, ValueTest},
    scan::View,
};

/// Equal values of one field from which a set is made; and ends of values.
const SET_MIN: usize = 4;
const ENDS_MIN: usize = 3;
/// Contained texts of one field that are sought together: below, searching each is as fast.
const TOGETHER_MIN: usize = 5;

/// The fields that rules speak of, numbered.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    by_field: FxHashMap<Arc<str>, u32>,
    fields: Vec<Arc<str>>,
    by_name: Vec<u32>,
}

impl Slots {
    /// A field that no rule speaks of.
    pub(crate) const NONE: u32 = u32::MAX;
    /// Not a field: any value of the event.
    pub(crate) const ANY: u32 = u32::MAX - 1;

    fn slot(&mut self, field: &Arc<str>) -> u32 {
        if let Some(slot) = self.by_field.get(field) {
            return *slot;
        }
        let slot = u32::try_from(self.fields.len()).unwrap_or(Self::NONE); // bounded by the rules' text
        self.fields.push(Arc::clone(field));
        self.by_field.insert(Arc::clone(field), slot);
        slot
    }

    pub(crate) fn len(&self) -> usize {
        self.fields.len()
    }

    /// What a slot is of.
    pub(crate) fn field(&self, slot: u32) -> Option<&Arc<str>> {
        self.fields.get(usize::try_from(slot).ok()?)
    }

    /// Interns all names, so that decoders know them and slots can be found by number.
    pub(crate) fn seal(&mut self) {
        let names = Name::intern_all(self.fields.iter().map(|field| &**field));
        let len = names.iter().map(|name| name.index() + 1).max().unwrap_or(0);
        self.by_name = vec![Self::NONE; len];
        for (slot, name) in (0..).zip(names) {
            if let Some(entry) = self.by_name.get_mut(name.index()) {
                *entry = slot;
            }
        }
    }

    pub(crate) fn of_name(&self, name: Name) -> u32 {
        self.by_name.get(name.index()).copied().unwrap_or(Self::NONE)
    }
}

/// All tests of a rule set; equal ones are one.
#[derive(Debug, Default)]
pub(crate) struct Tests {
    list: Vec<CompiledTest>,
    /// What only building needs, by test.
    expected: Vec<Expected>,
    by_key: FxHashMap<String, u32>,
}

impl Tests {
    pub(crate) fn get(&self, number: u32) -> Option<&CompiledTest> {
        self.list.get(usize::try_from(number).ok()?)
    }

    /// What is expected of a test; only until [`Tests::seal`].
    pub(crate) fn expected(&self, number: u32) -> Option<&Expected> {
        self.expected.get(usize::try_from(number).ok()?)
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// Forgets what only building needs.
    pub(crate) fn seal(&mut self) {
        self.by_key = FxHashMap::default();
        self.expected = Vec::new();
        self.list.shrink_to_fit();
    }

    fn add(&mut self, key: Option<String>, make: impl FnOnce() -> (CompiledTest, Expected)) -> u32 {
        if let Some(known) = key.as_ref().and_then(|key| self.by_key.get(key)) {
            return *known;
        }
        let number = u32::try_from(self.list.len()).unwrap_or(u32::MAX); // bounded by the rules' text
        let (test, expected) = make();
        self.list.push(test);
        self.expected.push(expected);
        if let Some(key) = key {
            self.by_key.insert(key, number);
        }
        number
    }
}

/// One test on one slot.
#[derive(Debug)]
pub(crate) struct CompiledTest {
    pub(crate) slot: u32,
    pub(crate) op: Op,
}

/// What is expected of a test.
#[derive(Debug)]
pub(crate) struct Expected {
    /// If the test holds, one of these is met by a folded value; `None` if it can hold without any value. Each with the
    /// share of events in which it is expected.
    pub(crate) necessary: Option<Vec<(Literal, f32)>>,
    /// It holds whenever one of them is met.
    pub(crate) exact: bool,
    /// How often it is expected to hold.
    probability: f32,
}

impl CompiledTest {
    /// What asking it costs, against comparing one short text.
    fn price(&self) -> f32 {
        let price = match &self.op {
            Op::Null | Op::Exists(_) => 0.5,
            Op::Text { op: TextOp::Equal(_) | TextOp::StartsWith(_) | TextOp::EndsWith(_), cased: false } => 1.0,
            Op::Text { op: TextOp::Anything, .. } => 1.0,
            Op::OneOf(_) | Op::EndsWithOneOf(_) => 2.0,
            Op::Compare(..) | Op::Time(..) | Op::InNetworks(_) => 3.0,
            Op::Text { op: TextOp::Contains(_), .. } | Op::Field { .. } => 4.0,
            Op::Text { .. } => 6.0,
            Op::ContainsOneOf(_) => 6.0,
            Op::Regex(..) => 30.0,
            Op::External(_) => 100.0,
        };
        // Any value of the event may hold a keyword.
        if self.slot == Slots::ANY { price * 30.0 } else { price }
    }
}

/// What a value must be like.
#[derive(Debug)]
pub(crate) enum Op {
    /// A text; on the escaped value, folded unless cased.
    Text {
        op: TextOp,
        cased: bool,
    },
    /// One of these, folded and escaped.
    OneOf(FxHashSet<Box<str>>),
    /// Contains one of these, folded and escaped.
    ContainsOneOf(Box<OneOfTexts>),
    /// Ends with one of these, folded and escaped.
    EndsWithOneOf(Box<OneOfEnds>),
    /// What it finds has so many bytes at least.
    Regex(Regex, usize),
    /// An address in one of these networks.
    InNetworks(Box<[IpNet]>),
    Compare(Comparison, Number),
    Field {
        other: u32,
        shape: Shape,
        cased: bool,
    },
    Time(TimePart, i64),
    Null,
    Exists(bool),
    External(Arc<dyn ValueTest>),
}

/// How a text must fit.
#[derive(Debug)]
pub(crate) enum TextOp {
    Equal(Box<str>),
    StartsWith(Box<str>),
    EndsWith(Box<str>),
    Contains(Box<Finder<'static>>),
    Anything,
    Glob(Glob),
}

/// A condition.
#[derive(Debug)]
pub(crate) enum Node {
    All(Box<[Node]>),
    Any(Box<[Node]>),
    Not(Box<Node>),
    Test(u32),
    Const(bool),
}

impl Node {
    pub(crate) fn build(expr: &Expr, slots: &mut Slots, tests: &mut Tests, profile: &Profile) -> Node {
        match expr {
            Expr::All(list) => {
                let mut flat = Vec::new();
                for expr in list {
                    match Node::build(expr, slots, tests, profile) {
                        Node::All(inner) => flat.extend(inner),
                        Node::Const(true) => {}
                        Node::Const(false) => return Node::Const(false),
                        node => flat.push(node),
                    }
                }
                Node::all(in_order(flat, tests, |worth| worth.price / (1.0 - worth.probability).max(0.001)))
            }
            Expr::Any(list) => {
                let mut flat = Vec::new();
                let (networks, rest) = networks_of(list);
                flat.extend(networks.into_iter().map(|(field, nets)| {
                    let slot = slots.slot(field);
                    Node::Test(add_networks(slot, field, nets, tests, profile))
                }));
                let (sets, rest) = grouped(&rest);
                flat.extend(sets.into_iter().map(|set| Node::Test(add_set(set, slots, tests, profile))));
                for expr in rest {
                    match Node::build(expr, slots, tests, profile) {
                        Node::Any(inner) => flat.extend(inner),
                        Node::Const(false) => {}
                        Node::Const(true) => return Node::Const(true),
                        node => flat.push(node),
                    }
                }
                let flat = in_order(flat, tests, |worth| worth.price / worth.probability.max(0.001));
                joined(flat, Node::Any, false)
            }
            Expr::Not(expr) => match Node::build(expr, slots, tests, profile) {
                Node::Const(value) => Node::Const(!value),
                Node::Not(inner) => *inner,
                node => Node::Not(Box::new(node)),
            },
            Expr::Test(test) => Node::Test(add_test(test, slots, tests, profile)),
        }
    }

    pub(crate) fn holds(&self, view: &mut View<'_, '_>) -> bool {
        match self {
            Node::All(list) => list.iter().all(|node| node.holds(view)),
            Node::Any(list) => list.iter().any(|node| node.holds(view)),
            Node::Not(node) => !node.holds(view),
            Node::Test(number) => view.test(*number),
            Node::Const(value) => *value,
        }
    }

    /// All of these.
    pub(crate) fn all(list: Vec<Node>) -> Node {
        joined(list, Node::All, true)
    }

    /// What it is expected to cost and to be.
    fn worth(&self, tests: &Tests) -> Worth {
        match self {
            Node::All(list) => {
                let mut sum = Worth { price: 0.0, probability: 1.0 };
                let mut asked = 1.0;
                for worth in list.iter().map(|node| node.worth(tests)) {
                    sum.price += asked * worth.price;
                    asked *= worth.probability;
                    sum.probability = sum.probability.min(worth.probability);
                }
                sum
            }
            Node::Any(list) => {
                let mut sum = Worth { price: 0.0, probability: 0.0 };
                for worth in list.iter().map(|node| node.worth(tests)) {
                    sum.price += (1.0 - sum.probability) * worth.price;
                    sum.probability = (sum.probability + worth.probability).min(1.0);
                }
                sum
            }
            Node::Not(node) => {
                let Worth { price, probability } = node.worth(tests);
                Worth { price, probability: 1.0 - probability }
            }
            Node::Test(number) => {
                let price = tests.get(*number).map_or(1.0, CompiledTest::price);
                Worth { price, probability: tests.expected(*number).map_or(1.0, |expected| expected.probability) }
            }
            Node::Const(value) => Worth { price: 0.0, probability: f32::from(u8::from(*value)) },
        }
    }
}

/// What a condition is expected to cost, and in which share of events it is expected to hold.
#[derive(Clone, Copy, Debug)]
struct Worth {
    price: f32,
    probability: f32,
}

/// Conditions in the order in which deciding all of them is expected to cost least: by what an answer that ends it costs.
fn in_order(list: Vec<Node>, tests: &Tests, rank: impl Fn(Worth) -> f32) -> Vec<Node> {
    let mut ranked: Vec<(f32, Node)> = list.into_iter().map(|node| (rank(node.worth(tests)), node)).collect();
    ranked.sort_by(|(left, _), (right, _)| left.total_cmp(right));
    ranked.into_iter().map(|(_, node)| node).collect()
}

fn joined(mut list: Vec<Node>, join: fn(Box<[Node]>) -> Node, empty: bool) -> Node {
    match list.len() {
        0 => Node::Const(empty),
        1 => list.remove(0),
        _ => join(list.into()),
    }
}

/// Many texts of one field and kind.
struct Set<'a> {
    field: &'a Arc<str>,
    kind: Kind,
    texts: Vec<String>,
}

/// Parts the networks of which an address must be in one, by field, from the other children of an `Any`: an address is
/// read once for all of them.
fn networks_of(list: &[Expr]) -> (Vec<(&Arc<str>, Vec<IpNet>)>, Vec<&Expr>) {
    let (mut networks, mut rest): (Vec<(&Arc<str>, Vec<IpNet>)>, Vec<&Expr>) = (Vec::new(), Vec::new());
    for expr in list {
        let Expr::Test(Test { field: Some(field), matcher: Matcher::Cidr(net) }) = expr else {
            rest.push(expr);
            continue;
        };
        match networks.iter_mut().find(|(known, _)| *known == field) {
            Some((_, nets)) => nets.push(*net),
            None => networks.push((field, vec![*net])),
        }
    }
    (networks, rest)
}

fn add_networks(slot: u32, field: &str, mut nets: Vec<IpNet>, tests: &mut Tests, profile: &Profile) -> u32 {
    nets.sort();
    nets.dedup();
    tests.add(Some(format!("{slot} in {nets:?}")), || {
        let present = Literal { kind: Kind::Present, text: "".into() };
        let (necessary, probability) = profile.expected(field, vec![present]);
        let expected = Expected { necessary: Some(necessary), exact: false, probability };
        (CompiledTest { slot, op: Op::InNetworks(nets.into()) }, expected)
    })
}

/// Parts the children of an `Any` that can become sets from the others.
fn grouped<'a>(list: &[&'a Expr]) -> (Vec<Set<'a>>, Vec<&'a Expr>) {
    let mut sets: Vec<Set<'a>> = Vec::new();
    let kind_of = |expr: &'a Expr| -> Option<Kind> {
        let Expr::Test(Test { field: Some(_), matcher: Matcher::Text { pattern, cased: false } }) = expr else {
            return None;
        };
        match pattern.parts.as_slice() {
            [Part::Text(_)] => Some(Kind::Equal),
            [Part::Any, Part::Text(_), Part::Any] => Some(Kind::Contains),
            [Part::Any, Part::Text(_)] => Some(Kind::EndsWith),
            _ => None,
        }
    };
    let mut rest = Vec::new();
    let mut sizes: FxHashMap<(&str, Kind), usize> = FxHashMap::default();
    for expr in list.iter().copied() {
        if let (Some(kind), Expr::Test(Test { field: Some(field), .. })) = (kind_of(expr), expr) {
            *sizes.entry((field, kind)).or_default() += 1;
        }
    }
    for expr in list.iter().copied() {
        let Expr::Test(Test { field: Some(field), matcher: Matcher::Text { pattern, .. } }) = expr else {
            rest.push(expr);
            continue;
        };
        let Some(kind) = kind_of(expr) else {
            rest.push(expr);
            continue;
        };
        let least = match kind {
            Kind::Equal => SET_MIN,
            Kind::EndsWith => ENDS_MIN,
            _ => TOGETHER_MIN,
        };
        if sizes.get(&(&**field, kind)).copied().unwrap_or(0) < least {
            rest.push(expr);
            continue;
        }
        let text =
            pattern.parts.iter().find_map(|part| if let Part::Text(text) = part { Some(folded(text)) } else { None });
        let text = text.unwrap_or_default();
        match sets.iter_mut().find(|set| set.field == field && set.kind == kind) {
            Some(set) => set.texts.push(text),
            None => sets.push(Set { field, kind, texts: vec![text] }),
        }
    }
    (sets, rest)
}

fn add_set(set: Set<'_>, slots: &mut Slots, tests: &mut Tests, profile: &Profile) -> u32 {
    let slot = slots.slot(set.field);
    let mut texts = set.texts;
    texts.sort();
    texts.dedup();
    let key = format!("{slot} {:?} of {}", set.kind, texts.join("\u{0}"));
    tests.add(Some(key), || {
        let literals = texts.iter().map(|text| Literal { kind: set.kind, text: text.as_str().into() });
        let (necessary, probability) = profile.expected(set.field, literals.collect());
        let texts: Vec<String> = texts.iter().map(|text| escaped(text)).collect();
        let op = match set.kind {
            Kind::Contains => Op::ContainsOneOf(Box::new(OneOfTexts::build(texts, profile))),
            Kind::EndsWith => Op::EndsWithOneOf(Box::new(OneOfEnds::build(texts))),
            _ => Op::OneOf(texts.iter().map(|text| text.as_str().into()).collect()),
        };
        (CompiledTest { slot, op }, Expected { necessary: Some(necessary), exact: true, probability })
    })
}

/// Texts of which a value must contain one.
#[derive(Debug)]
pub(crate) struct OneOfTexts {
    long: Contained,
    short: Box<[Finder<'static>]>,
}

impl OneOfTexts {
    fn build(texts: Vec<String>, profile: &Profile) -> OneOfTexts {
        let (long, short): (Vec<_>, Vec<_>) = texts.into_iter().partition(|text| text.len() >= GRAM_BYTES);
        let long = long.into_iter().map(|text| (text.into(), Vec::new())).collect();
        let short = short.iter().map(|text| Finder::new(text).into_owned()).collect();
        OneOfTexts { long: Contained::build(long, profile), short }
    }

    pub(crate) fn any_in(&self, value: &str) -> bool {
        let bytes = value.as_bytes();
        self.long.any_in(bytes) || self.short.iter().any(|finder| finder.find(bytes).is_some())
    }
}

/// Texts of which a value must end with one. The last eight bytes of each lie in a row: they rule out nearly all.
#[derive(Debug)]
pub(crate) struct OneOfEnds {
    /// The last bytes, and which of the eight count.
    ends: Box<[(u64, u64)]>,
    texts: Box<[Box<str>]>,
}

impl OneOfEnds {
    fn build(texts: Vec<String>) -> OneOfEnds {
        let counts = |text: &String| u64::MAX.checked_shl(64 - 8 * u32::try_from(text.len().min(8)).unwrap_or(8));
        let ends = texts.iter().map(|text| (last_eight(text), counts(text).unwrap_or(0)));
        OneOfEnds { ends: ends.collect(), texts: texts.iter().map(|text| text.as_str().into()).collect() }
    }

    pub(crate) fn any_fits(&self, value: &str) -> bool {
        let last = last_eight(value);
        let mut near = self.ends.iter().zip(&self.texts).filter(|((end, counts), _)| (last ^ end) & counts == 0);
        near.any(|(_, text)| value.as_bytes().ends_with(text.as_bytes()))
    }
}

/// The last eight bytes of a text, zeros before a shorter one.
fn last_eight(text: &str) -> u64 {
    let bytes = text.as_bytes();
    let short = || bytes.iter().fold(0, |sum, byte| sum >> 8 | u64::from(*byte) << 56);
    bytes.last_chunk::<8>().map_or_else(short, |last| u64::from_le_bytes(*last))
}

fn add_test(test: &Test, slots: &mut Slots, tests: &mut Tests, profile: &Profile) -> u32 {
    let slot = test.field.as_ref().map_or(Slots::ANY, |field| slots.slot(field));
    let field = test.field.as_deref().unwrap_or_default();
    let other = match &test.matcher {
        Matcher::Field { other, .. } => slots.slot(other),
        _ => Slots::NONE,
    };
    // A regular expression does not show its flags, so no two are taken for equal.
    let key = match &test.matcher {
        Matcher::Regex(_) => None,
        Matcher::External(test) => Some(format!("{slot} external {}", test.key())),
        matcher => Some(format!("{slot} {matcher:?}")),
    };
    tests.add(key, || {
        let present = || Some(vec![Literal { kind: Kind::Present, text: "".into() }]);
        let (op, necessary) = match &test.matcher {
            Matcher::Text { pattern, cased } => {
                let pattern = if *cased { pattern.clone() } else { folded_pattern(pattern) };
                let necessary = vec![literal_of(&folded_pattern(&pattern))];
                (Op::Text { op: text_op(&pattern), cased: *cased }, Some(necessary))
            }
            Matcher::Regex(regex) => {
                let Required { texts, bytes_min } = required_of_regex(regex.as_str());
                (Op::Regex(regex.clone(), bytes_min), texts.or_else(present))
            }
            Matcher::Cidr(net) => (Op::InNetworks([*net].into()), present()),
            Matcher::Compare(comparison, number) => (Op::Compare(*comparison, *number), present()),
            Matcher::Field { shape, cased, .. } => (Op::Field { other, shape: *shape, cased: *cased }, present()),
            Matcher::Time(part, number) => (Op::Time(*part, *number), present()),
            Matcher::Null => (Op::Null, None),
            // An explicit null exists, but has no value that a plan would see.
            Matcher::Exists(exists) => (Op::Exists(*exists), None),
            Matcher::External(test) => (Op::External(Arc::clone(test)), literals_of(&**test).or_else(present)),
        };
        let (necessary, probability) = match necessary.map(|literals| profile.expected(field, literals)) {
            Some((literals, probability)) => (Some(literals), probability),
            None => (None, 0.5),
        };
        let glob = matches!(op, Op::Text { op: TextOp::Glob(_), .. });
        let exact = !glob && matches!(op, Op::Text { cased: false, .. });
        (CompiledTest { slot, op }, Expected { necessary, exact, probability })
    })
}

/// What another crate's test needs to be there; an empty text is always there and says nothing.
fn literals_of(test: &dyn ValueTest) -> Option<Vec<Literal>> {
    let texts = test.necessary().filter(|texts| texts.iter().all(|text| !text.is_empty()))?;
    Some(texts.iter().map(|text| Literal { kind: Kind::Contains, text: folded(text).into() }).collect())
}

fn folded_pattern(pattern: &Pattern) -> Pattern {
    let parts = pattern.parts.iter().map(|part| match part {
        Part::Text(text) => Part::Text(folded(text)),
        Part::Any => Part::Any,
        Part::One => Part::One,
    });
    Pattern { parts: parts.collect() }
}

/// How a value (escaped) must fit a pattern.
fn text_op(pattern: &Pattern) -> TextOp {
    let parts = pattern.parts.iter().map(|part| match part {
        Part::Text(text) => Part::Text(escaped(text)),
        Part::Any => Part::Any,
        Part::One => Part::One,
    });
    let pattern = Pattern { parts: parts.collect() };
    match pattern.parts.as_slice() {
        [] => TextOp::Equal("".into()),
        [Part::Text(text)] => TextOp::Equal(text.as_str().into()),
        [Part::Text(text), Part::Any] => TextOp::StartsWith(text.as_str().into()),
        [Part::Any, Part::Text(text)] => TextOp::EndsWith(text.as_str().into()),
        [Part::Any, Part::Text(text), Part::Any] => TextOp::Contains(Box::new(Finder::new(text).into_owned())),
        [Part::Any] => TextOp::Anything,
        parts => TextOp::Glob(Glob::new(parts)),
    }
}

/// The longest text that a folded value must have somewhere.
fn literal_of(pattern: &Pattern) -> Literal {
    let parts = pattern.parts.as_slice();
    let only = |kind: Kind, text: &str| Literal { kind, text: text.into() };
    match parts {
        [] => only(Kind::Equal, ""),
        [Part::Text(text)] => only(Kind::Equal, text),
        [Part::Text(text), Part::Any] => only(Kind::StartsWith, text),
        [Part::Any, Part::Text(text)] => only(Kind::EndsWith, text),
        _ => {
            let texts = parts.iter().filter_map(|part| if let Part::Text(text) = part { Some(text) } else { None });
            texts
                .max_by_key(|text| text.len())
                .map_or_else(|| only(Kind::Present, ""), |text| only(Kind::Contains, text))
        }
    }
}

/// A text with wildcards in general: pieces that must follow each other.
#[derive(Debug)]
pub(crate) struct Glob {
    /// Between two pieces anything may stand. The first is bound to the begin, the last to the end.
    pieces: Vec<Piece>,
}

/// Texts and single characters in a row.
#[derive(Debug)]
struct Piece {
    parts: Vec<Part>,
    /// Of the text that it begins with.
    finder: Option<Finder<'static>>,
}

impl Glob {
    fn new(parts: &[Part]) -> Glob {
        Glob { pieces: parts.split(|part| *part == Part::Any).map(Piece::new).collect() }
    }

    fn fits(&self, text: &str) -> bool {
        let Some((first, rest)) = self.pieces.split_first() else { return text.is_empty() };
        let Some(mut left) = strip(&first.parts, text) else { return false };
        let Some((last, middle)) = rest.split_last() else { return left.is_empty() };
        for piece in middle {
            // The first place that fits leaves most for the others.
            match piece.find(left) {
                Some(behind) => left = behind,
                None => return false,
            }
        }
        last.is_at_end(left)
    }
}

impl Piece {
    fn new(parts: &[Part]) -> Piece {
        let finder = match parts.first() {
            Some(Part::Text(text)) if !text.is_empty() => Some(Finder::new(text).into_owned()),
            _ => None,
        };
        Piece { parts: parts.to_vec(), finder }
    }

    /// What is behind the first place of an escaped text where the piece stands.
    fn find<'t>(&self, text: &'t str) -> Option<&'t str> {
        let Some(finder) = &self.finder else {
            return places(text).find_map(|from| strip(&self.parts, from));
        };
        let mut left = text;
        loop {
            let at = finder.find(left.as_bytes())?;
            if is_within_unit(left, at) {
                // The second half of an escape: a backslash or a quote.
                left = left.get(at + 1..)?;
                continue;
            }
            let from = left.get(at..)?;
            if let Some(behind) = strip(&self.parts, from) {
                return Some(behind);
            }
            left = from.get(unit_len(from)..)?;
        }
    }

    /// Whether an escaped text ends with it.
    fn is_at_end(&self, text: &str) -> bool {
        match self.parts.as_slice() {
            [] => true,
            [Part::Text(wanted)] => {
                let front = text.strip_suffix(wanted.as_str());
                front.is_some_and(|front| !is_within_unit(text, front.len()))
            }
            parts => places(text).any(|from| strip(parts, from).is_some_and(str::is_empty)),
        }
    }
}

/// Whether a place of an escaped text is between a backslash and what it escapes.
fn is_within_unit(text: &str, at: usize) -> bool {
    let before = text.as_bytes().get(..at).unwrap_or_default();
    before.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

/// All ends of an escaped text that begin with a character, from the whole to the empty one.
fn places(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let this = rest?;
        rest = this.get(unit_len(this)..).filter(|_| !this.is_empty());
        Some(this)
    })
}

/// What is left of an escaped text that begins with the piece.
fn strip<'t>(piece: &[Part], text: &'t str) -> Option<&'t str> {
    piece.iter().try_fold(text, |text, part| match part {
        Part::Text(wanted) => text.strip_prefix(wanted.as_str()),
        Part::One => text.get(unit_len(text)..).filter(|_| !text.is_empty()),
        Part::Any => Some(text),
    })
}

impl TextOp {
    pub(crate) fn fits(&self, text: &str) -> bool {
        match self {
            TextOp::Equal(wanted) => text == &**wanted,
            TextOp::StartsWith(wanted) => text.as_bytes().starts_with(wanted.as_bytes()),
            TextOp::EndsWith(wanted) => text.as_bytes().ends_with(wanted.as_bytes()),
            TextOp::Contains(finder) => finder.find(text.as_bytes()).is_some(),
            TextOp::Anything => true,
            TextOp::Glob(glob) => glob.fits(text),
        }
    }
}

/// Whether a value is an address in one of these networks; brackets and zone of IPv6 do not matter.
pub(crate) fn in_networks(nets: &[IpNet], text: &str) -> bool {
    let text = text.trim().trim_start_matches('[').trim_end_matches(']');
    let text = text.split_once('%').map_or(text, |(address, _)| address);
    let Ok(address) = text.parse::<IpAddr>() else { return false };
    let canonical = address.to_canonical();
    nets.iter().any(|net| net.contains(&address) || net.contains(&canonical))
}

/// Whether two values agree.
pub(crate) fn agree(shape: Shape, left: &str, right: &str) -> bool {
    match shape {
        Shape::Equal => left == right,
        Shape::Contains => left.contains(right),
        Shape::StartsWith => left.starts_with(right),
        Shape::EndsWith => left.ends_with(right),
    }
}

/// The part of a time as `YYYY-MM-DD[ T]HH:MM[...]` writes it.
pub(crate) fn time_part(part: TimePart, text: &str) -> Option<i64> {
    let number = |from: usize, to: usize| -> Option<i64> {
        text.get(from..to).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok()
    };
    let sign = |at: usize, signs: &[u8]| text.as_bytes().get(at).is_some_and(|byte| signs.contains(byte));
    if !(sign(4, b"-/") && sign(7, b"-/")) {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    match part {
        TimePart::Year => Some(year),
        TimePart::Month => Some(month),
        TimePart::Day => Some(day),
        TimePart::Week => Some(iso_week(year, month, day)),
        TimePart::Hour => sign(10, b" Tt").then(|| number(11, 13)).flatten(),
        TimePart::Minute => (sign(10, b" Tt") && sign(13, b":")).then(|| number(14, 16)).flatten(),
    }
}

/// ISO 8601: week 1 has the year's first Thursday.
fn iso_week(year: i64, month: i64, day: i64) -> i64 {
    let days = |year: i64, month: i64, day: i64| -> i64 {
        // Days of the civil calendar since 0000-03-01 (Hinnant, chrono-compatible date algorithms).
        let shifted = if month <= 2 { year - 1 } else { year };
        let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
        365 * shifted + shifted.div_euclid(4) - shifted.div_euclid(100) + shifted.div_euclid(400) + of_year
    };
    let date = days(year, month, day);
    let weekday = (date + 2).rem_euclid(7); // 0 is Monday: 0000-03-01 was a Wednesday
    let thursday = date - weekday + 3;
    let of = [year - 1, year, year + 1].into_iter().rfind(|year| days(*year, 1, 1) <= thursday).unwrap_or(year);
    (thursday - days(of, 1, 1)) / 7 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_fit_as_a_whole() {
        for (pattern, text, fits) in [
            ("a*b", "ab", true),
            ("a*b", "axxb", true),
            ("a*b", "abc", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b*", "ba", false),
            ("?a", "ba", true),
            ("?a", "a", false),
            ("*?.exe", ".exe", false),
            ("*a?c*a", "abcabxa", true),
            ("a*?", "a", false),
            ("a*?", "aä", true),
            ("*ab*ab", "ab", false),
            (r"a?b", r"a\b", true),
            (r"a?b", r"a\\b", false),
            (r"a??b", r"a\\b", true),
            (r"*?b", r"\b", true),
            (r"?", "\"", true),
            (r"*\\*c", r"a\bc", true),
            (r"*\\?*\\", r"\\\", true),
            (r"*\\?*\\", r"\\", false),
            (r"*\\a?*b", r"\\a\axb", true),
            (r"a*\\*\\b*", r"a\\b", true),
            (r"a*\\*\\b*", r"a\b", false),
            (r"?*a?c*", r"xabxac", false),
            (r"?*a?c*", r"xabxaac", true),
            (r"a*\\", r"a\", true),
            ("a*\"", "a\"", true),
            ("a*\"b*\"", "a\\\"b\"", true),
        ] {
            assert_eq!(text_op(&Pattern::parse(pattern)).fits(&escaped(text)), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn ends_of_values_are_those_of_the_texts() {
        let texts = ["", "a", "\\cmd.exe", "x\\cmd.exe", "12345678", "ä", "e.exe"];
        let values =
            ["", "a", "b", "cmd.exe", "c:\\cmd.exe", "x\\cmd.exe", "012345678", "2345678", "ä", "bä", "\0\0a", "e.exe"];
        for (value, text) in values.iter().flat_map(|value| texts.map(|text| (value, text))) {
            let ends = OneOfEnds::build(vec!["nothing else".to_owned(), text.to_owned()]);
            assert_eq!(ends.any_fits(value), value.ends_with(text), "{value} {text}");
        }
    }

    #[test]
    fn weeks_are_those_of_iso_8601() {
        for (text, week) in [
            ("2021-01-03", 53),
            ("2021-01-04", 1),
            ("2024-12-30T01:02:03Z", 1),
            ("2026-11-22 05:16:00", 47),
            ("2016-01-03", 53),
            ("2000-02-29", 9),
        ] {
            assert_eq!(time_part(TimePart::Week, text), Some(week), "{text}");
        }
        assert_eq!(time_part(TimePart::Hour, "2026-11-22 05:16:00"), Some(5));
        assert_eq!(time_part(TimePart::Minute, "2026-11-22T05:16:00Z"), Some(16));
        assert_eq!(time_part(TimePart::Hour, "2026-11-22"), None);
        assert_eq!(time_part(TimePart::Hour, "yesterday"), None);
    }
}
