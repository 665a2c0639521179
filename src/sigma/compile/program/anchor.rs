//! Anchors: for each rule a set of literals of which one must be there, and the structures that find them.
//!
//! A literal of four bytes or more is found by its outer bytes if it stands at an end of the value, else by a gram of
//! four bytes: a bitmap of grams over which the value slides. Whatever is found is compared in full, so a gram
//! (or an attacker's value) can cost time but never makes a match.

use std::sync::Arc;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind, packed};
use memchr::memmem::Finder;
use regex_syntax::hir::{Class, Hir, HirKind};
use rustc_hash::FxHashMap;

use super::{
    grams::{Contained, GRAM_BYTES},
    node::{Node, Slots, Tests},
    profile::Profile,
};
use crate::{
    fold::{escaped, folded},
    scan::set_bit,
};

/// How a literal stands in a folded value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Equal,
    StartsWith,
    EndsWith,
    Contains,
    /// There is a value at all.
    Present,
}

/// A folded text that must be there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Literal {
    pub(crate) kind: Kind,
    pub(crate) text: Box<str>,
}

/// Where to look for what.
#[derive(Debug, Default)]
pub(crate) struct Plans {
    /// Place in `plans` by slot, [`NO_PLAN`] for slots without.
    by_slot: Vec<u32>,
    plans: Vec<Plan>,
    /// For every value of the event: keywords.
    pub(crate) any: Option<Plan>,
    /// Whether a record can hold a keyword at all.
    pub(crate) keywords: Keywords,
    /// Variants without an anchor: a bit for each variant.
    pub(crate) always: Vec<u64>,
}

/// One search of a whole record for parts of all keywords: what it does not find, no value holds.
#[derive(Debug, Default)]
pub(crate) enum Keywords {
    /// Some keyword has no part that can be sought so: every value is looked at.
    #[default]
    Unknown,
    /// Few are sought by vector instructions.
    Packed(packed::Searcher),
    Grams(Box<Contained>),
    /// Where some are too short for grams.
    Automaton(AhoCorasick),
}

impl Keywords {
    fn build(plan: &FxHashMap<&Literal, Vec<u32>>, profile: &Profile) -> Keywords {
        let texts: Vec<String> = plan.keys().map(|literal| escaped(&literal.text)).collect();
        let runs = texts.iter().zip(plan.keys()).map(|(text, literal)| {
            longest_ascii(text).filter(|run| run.len() >= KEYWORD_BYTES_MIN && literal.kind != Kind::Present)
        });
        let Some(mut runs) = runs.collect::<Option<Vec<&str>>>() else { return Keywords::Unknown };
        runs.sort_unstable();
        runs.dedup();
        let parts = || runs.iter().map(|run| part_of_keyword(run, profile));
        let mut config = packed::Config::new();
        let mut builder = config.match_kind(packed::MatchKind::LeftmostFirst).builder();
        if let Some(searcher) = builder.extend(parts()).build() {
            return Keywords::Packed(searcher);
        }
        if runs.iter().all(|run| run.len() >= GRAM_BYTES) {
            let runs = runs.iter().map(|run| ((*run).into(), Vec::new())).collect();
            return Keywords::Grams(Box::new(Contained::build(runs, profile)));
        }
        let automaton = AhoCorasick::builder().match_kind(MatchKind::LeftmostFirst).build(parts());
        automaton.map_or(Keywords::Unknown, Keywords::Automaton)
    }

    /// Whether some value of a record may hold a keyword. The record is folded; it must be ASCII and have no escapes but
    /// `\\\\` and `\\"`.
    pub(crate) fn may_be_in(&self, record: &str) -> bool {
        match self {
            Keywords::Unknown => true,
            Keywords::Packed(searcher) => searcher.find(record).is_some(),
            Keywords::Grams(grams) => grams.any_in(record.as_bytes()),
            Keywords::Automaton(automaton) => automaton.is_match(record),
        }
    }
}

/// Bytes of a keyword that are sought, and from which it is worth it.
const KEYWORD_PART_BYTES: usize = 8;
const KEYWORD_BYTES_MIN: usize = 3;

/// The longest part of a text that is ASCII.
fn longest_ascii(text: &str) -> Option<&str> {
    text.split(|c: char| !c.is_ascii()).max_by_key(|run| run.len())
}

/// The rarest part of a keyword.
fn part_of_keyword<'t>(run: &'t str, profile: &Profile) -> &'t [u8] {
    let bytes = run.as_bytes();
    let from = profile.rarest_grams(bytes, 1).min(bytes.len().saturating_sub(KEYWORD_PART_BYTES));
    bytes.get(from..).map_or(bytes, |part| part.get(..KEYWORD_PART_BYTES).unwrap_or(part))
}

const NO_PLAN: u32 = u32::MAX;

/// What to look for in one field.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    equal: FxHashMap<Box<str>, Vec<u32>>,
    /// Bytes of the longest of them: longer values are not hashed.
    equal_bytes_max: usize,
    starts: Outer,
    ends: Outer,
    contained: Option<Contained>,
    /// Texts below four bytes, and the few for which a bitmap is not worth it.
    searched: Vec<(Kind, Box<str>, Finder<'static>, Vec<u32>)>,
    /// The same, when they are many: one walk for all.
    short: Option<(AhoCorasick, Vec<Vec<u32>>)>,
    present: Vec<u32>,
    needs_text: bool,
}

/// Texts at one end of a value, by the outer eight bytes, the shorter ones by the outer four. Four alone would put all
/// of `\cmd.exe` and its like into one bucket.
#[derive(Debug, Default)]
struct Outer {
    by_eight: FxHashMap<u64, Vec<Found>>,
    by_four: FxHashMap<u32, Vec<Found>>,
}

impl Outer {
    fn add(&mut self, found: Found, eight: Option<&[u8; 8]>, four: Option<&[u8; 4]>) {
        match (eight, four) {
            (Some(eight), _) => self.by_eight.entry(u64::from_le_bytes(*eight)).or_default().push(found),
            (None, Some(four)) => self.by_four.entry(u32::from_le_bytes(*four)).or_default().push(found),
            (None, None) => {}
        }
    }

    /// Texts that share the outer bytes of a value.
    fn near(&self, eight: Option<&[u8; 8]>, four: Option<&[u8; 4]>) -> impl Iterator<Item = &Found> {
        let eight = eight.filter(|_| !self.by_eight.is_empty());
        let four = four.filter(|_| !self.by_four.is_empty());
        let long = eight.and_then(|bytes| self.by_eight.get(&u64::from_le_bytes(*bytes)));
        let short = four.and_then(|bytes| self.by_four.get(&u32::from_le_bytes(*bytes)));
        long.into_iter().chain(short).flatten()
    }
}

#[derive(Debug)]
struct Found {
    text: Box<str>,
    variants: Vec<u32>,
}

/// Contained literals from which they are sought together.
const GRAMS_MIN: usize = 3;
/// Short texts from which an automaton is made.
const SHORT_MIN: usize = 6;

/// A condition, its anchor, and what is left to decide of it.
#[derive(Clone, Debug)]
pub(crate) struct Anchored {
    /// Texts of which one is met if the condition holds; `None` if there are none.
    pub(crate) anchor: Option<Arc<[Wanted]>>,
    /// Holds, if the anchor is met, exactly if the condition does.
    pub(crate) node: Arc<Node>,
}

/// A literal in a field.
#[derive(Debug)]
pub(crate) struct Wanted {
    slot: u32,
    literal: Literal,
    cost: f32,
}

impl Anchored {
    /// Chooses the anchor. Where meeting it says as much as the test that it is of, that is not asked again; else it is
    /// asked last, as it will hold.
    pub(crate) fn of(node: Node, tests: &Tests) -> Anchored {
        let Node::All(list) = node else {
            let anchor = clause(&node, tests);
            let node = if anchor.is_some() && is_exact(&node, tests) { Node::Const(true) } else { node };
            return Anchored { anchor: anchor.map(Arc::from), node: Arc::new(node) };
        };
        let Some((at, anchor)) = best_clause(&list, tests) else {
            return Anchored { anchor: None, node: Arc::new(Node::All(list)) };
        };
        let mut list = list.into_vec();
        let of = list.remove(at);
        if !is_exact(&of, tests) {
            list.push(of);
        }
        Anchored { anchor: Some(anchor.into()), node: Arc::new(Node::all(list)) }
    }
}

/// Whether a condition holds whenever one of its literals is met.
fn is_exact(node: &Node, tests: &Tests) -> bool {
    match node {
        Node::Test(number) => tests.expected(*number).is_some_and(|expected| expected.exact),
        Node::Any(list) => list.iter().all(|node| is_exact(node, tests)),
        Node::All(_) | Node::Not(_) | Node::Const(_) => false,
    }
}

impl Plans {
    /// Plans for variants by number, given their anchors.
    pub(crate) fn build(anchors: &[Option<Arc<[Wanted]>>], profile: &Profile) -> Plans {
        let mut literals: FxHashMap<u32, FxHashMap<&Literal, Vec<u32>>> = FxHashMap::default();
        let mut always = vec![0_u64; anchors.len().div_ceil(64)];
        for (number, anchor) in (0..).zip(anchors) {
            let Some(anchor) = anchor else {
                set_bit(&mut always, number);
                continue;
            };
            for Wanted { slot, literal, .. } in &**anchor {
                let variants = literals.entry(*slot).or_default().entry(literal).or_default();
                if variants.last() != Some(&number) {
                    variants.push(number);
                }
            }
        }
        let any = literals.remove(&Slots::ANY);
        let keywords = any.as_ref().map(|literals| Keywords::build(literals, profile)).unwrap_or_default();
        let any = any.map(|literals| Plan::build(literals, profile));
        let mut literals: Vec<_> = literals.into_iter().collect();
        literals.sort_by_key(|(slot, _)| *slot);
        let len = literals.last().and_then(|(slot, _)| usize::try_from(*slot).ok()).map_or(0, |slot| slot + 1);
        let mut by_slot = vec![NO_PLAN; len];
        let mut plans = Vec::new();
        for (slot, literals) in literals {
            if let Some(entry) = usize::try_from(slot).ok().and_then(|slot| by_slot.get_mut(slot)) {
                *entry = u32::try_from(plans.len()).unwrap_or(NO_PLAN); // bounded by the rules' text
                plans.push(Plan::build(literals, profile));
            }
        }
        Plans { by_slot, plans, any, keywords, always }
    }

    pub(crate) fn of(&self, slot: u32) -> Option<&Plan> {
        let number = *self.by_slot.get(usize::try_from(slot).ok()?)?;
        self.plans.get(usize::try_from(number).ok()?)
    }
}

/// The cheapest set of literals of which one must be there if the condition holds.
fn clause(node: &Node, tests: &Tests) -> Option<Vec<Wanted>> {
    match node {
        Node::All(list) => best_clause(list, tests).map(|(_, wanted)| wanted),
        Node::Any(list) => {
            let mut all = Vec::new();
            for node in list {
                all.extend(clause(node, tests)?);
            }
            Some(all)
        }
        Node::Not(_) | Node::Const(true) => None,
        Node::Const(false) => Some(Vec::new()),
        Node::Test(number) => {
            let test = tests.get(*number)?;
            let wanted = tests.expected(*number)?.necessary.as_ref()?.iter().map(|(literal, share)| Wanted {
                slot: test.slot,
                literal: literal.clone(),
                // Any value may hold a keyword: its bytes cost more than a field's.
                cost: share + if test.slot == Slots::ANY { 0.05 } else { 0.0 },
            });
            Some(wanted.collect())
        }
    }
}

/// The part of an `All` that has the cheapest, and it.
fn best_clause(list: &[Node], tests: &Tests) -> Option<(usize, Vec<Wanted>)> {
    let clauses = list.iter().enumerate().filter_map(|(at, node)| Some((at, clause(node, tests)?)));
    clauses.min_by(|(_, left), (_, right)| cost(left).total_cmp(&cost(right)))
}

fn cost(wanted: &[Wanted]) -> f32 {
    wanted.iter().map(|wanted| wanted.cost).sum()
}

impl Plan {
    fn build(literals: FxHashMap<&Literal, Vec<u32>>, profile: &Profile) -> Plan {
        let mut plan = Plan::default();
        let mut literals: Vec<_> = literals.into_iter().collect();
        literals.sort();
        let contained =
            literals.iter().filter(|(literal, _)| literal.kind == Kind::Contains && literal.text.len() >= 4).count(); // escaped, a few more
        let mut grams = Vec::new();
        for (Literal { kind, text }, variants) in literals {
            plan.needs_text |= *kind != Kind::Present;
            let text: Box<str> = escaped(text).into();
            let bytes = text.as_bytes();
            match kind {
                Kind::Present => plan.present.extend(variants),
                Kind::Equal => {
                    plan.equal_bytes_max = plan.equal_bytes_max.max(text.len());
                    plan.equal.entry(text).or_default().extend(variants);
                }
                Kind::StartsWith if bytes.len() >= 4 => {
                    let (eight, four) = (bytes.first_chunk().copied(), bytes.first_chunk().copied());
                    plan.starts.add(Found { text, variants }, eight.as_ref(), four.as_ref());
                }
                Kind::EndsWith if bytes.len() >= 4 => {
                    let (eight, four) = (bytes.last_chunk().copied(), bytes.last_chunk().copied());
                    plan.ends.add(Found { text, variants }, eight.as_ref(), four.as_ref());
                }
                Kind::Contains if bytes.len() >= 4 && contained >= GRAMS_MIN => {
                    grams.push((text, variants));
                }
                Kind::StartsWith | Kind::EndsWith | Kind::Contains => {
                    let finder = Finder::new(&*text).into_owned();
                    plan.searched.push((*kind, text, finder, variants));
                }
            }
        }
        plan.contained = (!grams.is_empty()).then(|| Contained::build(grams, profile));
        plan.join_searched();
        plan.present.sort_unstable();
        plan.present.dedup();
        plan
    }

    /// Many short texts become one automaton; bounded by what short texts there are.
    fn join_searched(&mut self) {
        let (contained, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.searched).into_iter().partition(|(kind, ..)| *kind == Kind::Contains);
        self.searched = rest;
        let texts = contained.iter().map(|(_, text, ..)| text.as_bytes());
        let automaton = (contained.len() >= SHORT_MIN)
            .then(|| AhoCorasick::builder().kind(Some(AhoCorasickKind::DFA)).build(texts).ok())
            .flatten();
        match automaton {
            Some(automaton) => {
                self.short = Some((automaton, contained.into_iter().map(|(.., variants)| variants).collect()));
            }
            None => self.searched.extend(contained),
        }
    }

    /// Whether it looks at the text, or only whether there is one.
    pub(crate) const fn needs_text(&self) -> bool {
        self.needs_text
    }

    /// Gives the variants whose anchor is met by a value (folded, escaped); some more than once.
    pub(crate) fn scan(&self, value: &str, mut met: impl FnMut(&[u32])) {
        if !self.present.is_empty() {
            met(&self.present);
        }
        if value.len() <= self.equal_bytes_max
            && !self.equal.is_empty()
            && let Some(variants) = self.equal.get(value)
        {
            met(variants);
        }
        let bytes = value.as_bytes();
        if bytes.len() >= 4 {
            let ends = self.ends.near(bytes.last_chunk(), bytes.last_chunk());
            ends.filter(|found| bytes.ends_with(found.text.as_bytes())).for_each(|found| met(&found.variants));
            let starts = self.starts.near(bytes.first_chunk(), bytes.first_chunk());
            starts.filter(|found| bytes.starts_with(found.text.as_bytes())).for_each(|found| met(&found.variants));
            if let Some(contained) = &self.contained {
                contained.scan(bytes, &mut met);
            }
        }
        if let Some((automaton, variants)) = &self.short {
            for found in automaton.find_overlapping_iter(value) {
                met(variants.get(found.pattern().as_usize()).map(Vec::as_slice).unwrap_or_default());
            }
        }
        for (kind, text, finder, variants) in &self.searched {
            let fits = match kind {
                Kind::StartsWith => bytes.starts_with(text.as_bytes()),
                Kind::EndsWith => bytes.ends_with(text.as_bytes()),
                Kind::Equal | Kind::Contains | Kind::Present => finder.find(bytes).is_some(),
            };
            if fits {
                met(variants);
            }
        }
    }
}

/// What a value must have for an expression to find something in it.
#[derive(Debug, Default)]
pub(crate) struct Required {
    /// Folded texts of which one must be in it; `None` if there are none of use.
    pub(crate) texts: Option<Vec<Literal>>,
    pub(crate) bytes_min: usize,
}

/// What an expression requires, whatever its flags are.
pub(crate) fn required_of_regex(pattern: &str) -> Required {
    let Ok(hir) = regex_syntax::ParserBuilder::new().nest_limit(64).build().parse(pattern) else {
        return Required::default();
    };
    let literals = |texts: Vec<String>| {
        texts.into_iter().map(|text| Literal { kind: Kind::Contains, text: text.into() }).collect()
    };
    // Without case, a letter beyond ASCII may stand for one of fewer bytes.
    let is_plain = pattern.is_ascii() && !["\\x", "\\u", "\\U"].iter().any(|escape| pattern.contains(escape));
    let bytes_min = hir.properties().minimum_len().filter(|_| is_plain).unwrap_or(0);
    Required { texts: required(&hir).map(literals), bytes_min }
}

/// Alternatives beyond this are no help.
const ALTERNATIVES_MAX: usize = 32;
/// Alternatives that one part of an expression may bring into a text, and characters of one class.
const RUN_ALTERNATIVES_MAX: usize = 8;
const CLASS_CHARS_MAX: usize = 4;

fn required(hir: &Hir) -> Option<Vec<String>> {
    match hir.kind() {
        HirKind::Concat(parts) => required_of_all(parts),
        HirKind::Alternation(parts) => {
            let mut all = Vec::new();
            for part in parts {
                all.extend(required(part)?);
            }
            (all.len() <= ALTERNATIVES_MAX).then_some(all)
        }
        HirKind::Repetition(repetition) if repetition.min > 0 => required(&repetition.sub),
        HirKind::Capture(capture) => required(&capture.sub),
        HirKind::Literal(_) | HirKind::Class(_) => exact(hir).filter(|texts| worth(Some(texts)) > 0),
        HirKind::Empty | HirKind::Look(_) | HirKind::Repetition(_) => None,
    }
}

/// The best of what parts one behind the other require: what stands side by side is one text.
fn required_of_all(parts: &[Hir]) -> Option<Vec<String>> {
    let mut best: Option<Vec<String>> = None;
    let mut offer = |found: Option<Vec<String>>| {
        if worth(found.as_ref()) > worth(best.as_ref()) {
            best = found;
        }
    };
    let mut run = vec![String::new()];
    for part in parts {
        // Of what repeats, the first stands beside what is before, the last beside what follows.
        let (texts, repeats) = match part.kind() {
            HirKind::Repetition(repetition) if repetition.min > 0 => (exact(&repetition.sub), true),
            HirKind::Look(_) => (Some(vec![String::new()]), false),
            _ => (exact(part), false),
        };
        match texts {
            Some(texts) => {
                let longer = joined(&run, &texts);
                if repeats || longer.len() > RUN_ALTERNATIVES_MAX {
                    offer(Some(if longer.len() > RUN_ALTERNATIVES_MAX { run } else { longer }));
                    run = texts;
                } else {
                    run = longer;
                }
            }
            None => {
                offer(Some(std::mem::replace(&mut run, vec![String::new()])));
                offer(required(part));
            }
        }
    }
    offer(Some(run));
    best
}

/// Each text of the left with each of the right behind it.
fn joined(left: &[String], right: &[String]) -> Vec<String> {
    left.iter().flat_map(|left| right.iter().map(move |right| format!("{left}{right}"))).collect()
}

/// The shortest text decides.
fn worth(texts: Option<&Vec<String>>) -> usize {
    texts.and_then(|texts| texts.iter().map(String::len).min()).unwrap_or(0)
}

/// All folded texts that it finds, if they are few.
fn exact(hir: &Hir) -> Option<Vec<String>> {
    let texts = match hir.kind() {
        HirKind::Literal(literal) => vec![folded(std::str::from_utf8(&literal.0).ok()?)],
        HirKind::Class(Class::Unicode(class)) => {
            let chars = class.iter().flat_map(|range| range.start()..=range.end()).take(2 * CLASS_CHARS_MAX + 1);
            let mut texts: Vec<String> = chars.map(|c| folded(&c.to_string())).collect();
            if texts.len() > 2 * CLASS_CHARS_MAX {
                return None;
            }
            texts.sort();
            texts.dedup();
            texts
        }
        HirKind::Capture(capture) => exact(&capture.sub)?,
        HirKind::Concat(parts) => {
            let mut texts = vec![String::new()];
            for part in parts {
                texts = joined(&texts, &exact(part)?);
                if texts.len() > RUN_ALTERNATIVES_MAX {
                    return None;
                }
            }
            texts
        }
        HirKind::Alternation(parts) => {
            let mut texts = Vec::new();
            for part in parts {
                texts.extend(exact(part)?);
            }
            texts
        }
        HirKind::Empty | HirKind::Class(Class::Bytes(_)) | HirKind::Look(_) | HirKind::Repetition(_) => return None,
    };
    (!texts.is_empty() && texts.len() <= RUN_ALTERNATIVES_MAX).then_some(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regular_expressions_give_what_they_need() {
        let texts = |pattern: &str| {
            required_of_regex(pattern)
                .texts
                .map(|list| list.iter().map(|literal| literal.text.to_string()).collect::<Vec<_>>())
        };
        let some = |list: &[&str]| Some(list.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(texts(r"(?i)PowerShell\s+-enc"), some(&["powershell"]));
        assert_eq!(texts(r"ab(c|d)efgh"), some(&["abcefgh", "abdefgh"]));
        assert_eq!(texts(r"ab([a-z]|d)efgh"), some(&["efgh"]));
        assert_eq!(texts(r#"\\[a-z]{1,32}\.[a-z]{1,6}\.[ "']{1}"#), some(&[". ", ".\"", ".'"]));
        assert_eq!(texts(r#"x?"(?:\{\d\})+""#), some(&["\""]));
        assert_eq!(texts(r"(?:ab)+cd"), some(&["abcd"]));
        assert_eq!(texts(r"xy(?:ab)+c"), some(&["xyab"]));
        assert_eq!(texts(r"(?i)K[oO]"), some(&["ko"]));
        assert_eq!(texts(r"^\bab\b$"), some(&["ab"]));
        assert_eq!(texts(r"(foo|barbaz)x?"), some(&["foo", "barbaz"]));
        assert_eq!(texts(r"\d+.*"), None);
        assert_eq!(texts(r"(abc)*"), None);
        assert_eq!(texts(r"(abc){2,}"), some(&["abc"]));
        assert_eq!(required_of_regex(r"\s[a-f]{64}\s").bytes_min, 66);
        assert_eq!(required_of_regex("(?i)ſſ").bytes_min, 0);
        assert_eq!(required_of_regex(r"\x{17f}").bytes_min, 0);
    }
}
