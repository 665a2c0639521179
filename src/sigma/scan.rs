//! Events met with a rule set: all rules that fit, exactly.

use std::sync::Arc;

use cf_types::{Event, LogSource, Scalar};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use crate::{
    compile::{
        RuleIndex, RuleSet,
        program::{
            Matcher, Program,
            node::{CompiledTest, Op, Slots, agree, in_network, time_part},
        },
    },
    fold::push_folded,
    rule::Number,
    tally::{Counting, RuleStats},
};

/// Log sources whose rules are remembered; decoders declare a handful.
const DECLARED_MAX: usize = 1_024;

/// Meets events with a rule set. Cheap to make; one per thread. It keeps buffers, so nothing is allocated per event.
#[derive(Debug)]
pub struct Scanner {
    rules: Arc<RuleSet>,
    declared: Declared,
    channel: LastChannel,
    scratch: Scratch,
    counting: Counting,
}

/// By what a decoder declares: numbers in [`Matcher::declared`].
#[derive(Debug, Default)]
struct Declared {
    known: FxHashMap<Arc<LogSource>, Arc<[usize]>>,
    last: Option<(Arc<LogSource>, Arc<[usize]>)>,
}

/// The channel of the event before: most events of a stream have the same.
#[derive(Debug, Default)]
struct LastChannel {
    text: String,
    folded: String,
    /// Its place in [`Matcher::channels`].
    place: Option<usize>,
}

/// Buffers that live from event to event. A mark is valid if it bears the present stamp.
#[derive(Debug, Default)]
struct Scratch {
    stamp: u32,
    /// By slot: stamp and the last value of that field.
    heads: Vec<(u32, u32)>,
    /// By test: stamp and result.
    memo: Vec<(u32, bool)>,
    /// By variant.
    seen: Vec<u32>,
    /// Folded values.
    arena: String,
    candidates: Vec<u32>,
}

const NO_VALUE: u32 = u32::MAX;

/// One event while it is scanned.
pub(crate) struct View<'s, 'e> {
    matcher: &'s Matcher,
    scratch: &'s mut Scratch,
    values: SmallVec<[Value<'e>; 48]>,
}

#[derive(Clone, Copy)]
struct Value<'e> {
    text: &'e str,
    slot: u32,
    /// Another value of the same field.
    next: u32,
    null: bool,
    /// Where it stands folded in the arena, once somebody asked.
    folded: Option<(usize, usize)>,
}

impl Scanner {
    /// Makes one for a rule set.
    #[must_use]
    pub fn new(rules: Arc<RuleSet>) -> Scanner {
        let matcher = &rules.matcher;
        let scratch = Scratch {
            heads: vec![(0, NO_VALUE); matcher.slots.len()],
            memo: vec![(0, false); matcher.tests.len()],
            seen: vec![0; matcher.variants],
            ..Scratch::default()
        };
        let counting = Counting::new(rules.rules().len());
        Scanner { declared: Declared::default(), channel: LastChannel::default(), scratch, counting, rules }
    }

    /// What each rule did in this scanner, by [`RuleIndex::index`].
    #[must_use]
    pub fn stats(&self) -> &[RuleStats] {
        &self.counting.stats
    }

    /// Adds what is new in [`Scanner::stats`] to [`RuleSet::stats`]. It goes through all rules: call it per batch, not per
    /// event.
    pub fn publish(&mut self) {
        self.counting.publish(&self.rules.tally);
    }

    /// The rule set it scans with.
    #[must_use]
    pub fn rules(&self) -> &Arc<RuleSet> {
        &self.rules
    }

    /// Appends all plain rules that the event fulfils, sorted, each once.
    pub fn scan(&mut self, event: &Event, hits: &mut Vec<RuleIndex>) {
        let begin = hits.len();
        let Scanner { rules, declared, channel, scratch, counting } = self;
        let matcher = &rules.matcher;
        let mut route = Route::default();
        let mut view = View::new(matcher, scratch, event, &mut route);
        let mut covers = None;
        if let Some(program) = channel.program(matcher, event, &route) {
            view.run(program, hits);
            covers = matcher.programs.get(program).map(|program| &program.covers);
        }
        for number in declared.patterns(matcher, &event.log_source) {
            if covers.is_some_and(|covers| covers.contains(number)) {
                continue;
            }
            if let Some((_, program)) = matcher.declared.get(*number) {
                view.run(*program, hits);
            }
        }
        sort_new(hits, begin);
        for rule in hits.get(begin..).unwrap_or_default() {
            counting.hit(rule.index());
        }
    }
}

impl Drop for Scanner {
    fn drop(&mut self) {
        self.publish();
    }
}

/// Sorts what was appended, each once.
fn sort_new(hits: &mut Vec<RuleIndex>, begin: usize) {
    if hits.len() < begin + 2 {
        return;
    }
    if let Some(new) = hits.get_mut(begin..) {
        new.sort_unstable();
    }
    let mut kept = begin;
    for at in begin..hits.len() {
        if at == begin || hits.get(at) != hits.get(kept - 1) {
            hits.swap(kept, at);
            kept += 1;
        }
    }
    hits.truncate(kept);
}

impl Declared {
    /// The patterns that fit what the event's decoder declared.
    fn patterns(&mut self, matcher: &Matcher, log_source: &Arc<LogSource>) -> &[usize] {
        let same = self.last.as_ref().is_some_and(|(last, _)| Arc::ptr_eq(last, log_source));
        if !same {
            let numbers = match self.known.get(log_source) {
                Some(numbers) => Arc::clone(numbers),
                None => self.find(matcher, log_source),
            };
            self.last = Some((Arc::clone(log_source), numbers));
        }
        self.last.as_ref().map_or(&[], |(_, numbers)| numbers)
    }

    fn find(&mut self, matcher: &Matcher, log_source: &Arc<LogSource>) -> Arc<[usize]> {
        let declared = matcher.declared.iter().enumerate();
        let fits = declared.filter(|(_, (pattern, _))| matcher.log_sources.fits_declared(pattern, log_source));
        let numbers: Arc<[usize]> = fits.map(|(number, _)| number).collect();
        if self.known.len() >= DECLARED_MAX {
            self.known.clear();
        }
        self.known.insert(Arc::clone(log_source), Arc::clone(&numbers));
        numbers
    }
}

/// What of an event leads to its channel's program.
#[derive(Default)]
struct Route<'e> {
    channel: Option<&'e str>,
    provider: Option<&'e str>,
    event_id: Option<&'e str>,
    event_ids: usize,
}

impl LastChannel {
    /// The program of the event's channel and event id, if the table knows the channel.
    fn program(&mut self, matcher: &Matcher, event: &Event, route: &Route<'_>) -> Option<usize> {
        let channel = route.channel.filter(|text| !text.is_empty());
        let channel =
            channel.or_else(|| route.provider.and_then(|name| matcher.log_sources.channel_of_provider(name)))?;
        if self.text != channel {
            channel.clone_into(&mut self.text);
            self.folded.clear();
            push_folded(channel, &mut self.folded);
            self.place = matcher.by_channel.get(self.folded.as_str()).copied();
        }
        let programs = matcher.channels.get(self.place?)?;
        if event.log_source.product.as_deref().is_some_and(|product| !product.eq_ignore_ascii_case(&programs.product)) {
            return None;
        }
        // Ids are folded into programs as numbers; what else stands there is compared like any text.
        let number = |id: &&str| route.event_ids == 1 && id.bytes().all(|byte| byte.is_ascii_digit());
        Some(match route.event_id.filter(number) {
            Some(id) => programs.by_event_id.get(id).copied().unwrap_or(programs.other),
            None => programs.unfolded,
        })
    }
}

impl<'s, 'e> View<'s, 'e> {
    fn new(matcher: &'s Matcher, scratch: &'s mut Scratch, event: &'e Event, route: &mut Route<'e>) -> View<'s, 'e> {
        scratch.stamp = scratch.stamp.wrapping_add(1);
        if scratch.stamp == 0 {
            // Marks of four billion events ago would look new.
            scratch.heads.fill((0, NO_VALUE));
            scratch.memo.fill((0, false));
            scratch.seen.fill(0);
            scratch.stamp = 1;
        }
        scratch.arena.clear();
        let stamp = scratch.stamp;
        let mut values: SmallVec<[Value<'e>; 48]> = SmallVec::new();
        for (name, text, scalar) in event.fields.iter() {
            if scalar != Scalar::Null {
                if name == matcher.names.channel {
                    route.channel = route.channel.or(Some(text));
                } else if name == matcher.names.event_id {
                    route.event_id = Some(text);
                    route.event_ids += 1;
                } else if name == matcher.names.provider {
                    route.provider = route.provider.or(Some(text));
                }
            }
            let slot = matcher.slots.of_name(name);
            let mut next = NO_VALUE;
            if let Some(head) = usize::try_from(slot).ok().and_then(|slot| scratch.heads.get_mut(slot)) {
                if head.0 == stamp {
                    next = head.1;
                }
                *head = (stamp, u32::try_from(values.len()).unwrap_or(NO_VALUE)); // fields are bounded far below
            }
            values.push(Value { text, slot, next, null: scalar == Scalar::Null, folded: None });
        }
        // Keywords are sought in the values of structured records and in the whole of text lines.
        let structured = matches!(event.raw.first(), Some(b'{' | b'['));
        if !structured && let Ok(text) = std::str::from_utf8(&event.raw) {
            values.push(Value { text, slot: Slots::NONE, next: NO_VALUE, null: false, folded: None });
        }
        View { matcher, scratch, values }
    }

    fn run(&mut self, program: usize, hits: &mut Vec<RuleIndex>) {
        let matcher = self.matcher;
        let Some(program) = matcher.programs.get(program) else { return };
        if program.variants.is_empty() {
            return;
        }
        let mut candidates = std::mem::take(&mut self.scratch.candidates);
        candidates.clear();
        candidates.extend_from_slice(&program.plans.always);
        self.find_candidates(program, &mut candidates);
        for number in &candidates {
            let Some(variant) = usize::try_from(*number).ok().and_then(|number| program.variants.get(number)) else {
                continue;
            };
            let stamp = self.scratch.stamp;
            if self.scratch.seen.get(variant.number) == Some(&stamp) {
                continue;
            }
            if let Some(seen) = self.scratch.seen.get_mut(variant.number) {
                *seen = stamp;
            }
            if variant.node.holds(self) {
                hits.push(RuleIndex(variant.rule));
            }
        }
        self.scratch.candidates = candidates;
    }

    fn find_candidates(&mut self, program: &Program, candidates: &mut Vec<u32>) {
        for at in 0..self.values.len() {
            let Some(value) = self.values.get(at).copied() else { continue };
            if value.null {
                continue;
            }
            let plans = [program.plans.of(value.slot), program.plans.any.as_ref()];
            for plan in plans.into_iter().flatten() {
                let text = if plan.needs_text() { self.folded(at) } else { "" };
                plan.scan(text, |variants| candidates.extend_from_slice(variants));
            }
        }
    }

    fn fold(&mut self, at: usize) -> (usize, usize) {
        let Some(value) = self.values.get_mut(at) else { return (0, 0) };
        if let Some(span) = value.folded {
            return span;
        }
        let begin = self.scratch.arena.len();
        push_folded(value.text, &mut self.scratch.arena);
        let span = (begin, self.scratch.arena.len());
        value.folded = Some(span);
        span
    }

    fn folded(&mut self, at: usize) -> &str {
        let (begin, end) = self.fold(at);
        self.scratch.arena.get(begin..end).unwrap_or_default()
    }

    /// Whether a test holds.
    pub(crate) fn test(&mut self, number: u32) -> bool {
        let stamp = self.scratch.stamp;
        let at = usize::try_from(number).unwrap_or(usize::MAX);
        if let Some((known, result)) = self.scratch.memo.get(at)
            && *known == stamp
        {
            return *result;
        }
        let matcher = self.matcher;
        let Some(test) = matcher.tests.get(number) else { return false };
        let result = self.evaluate(test);
        if let Some(memo) = self.scratch.memo.get_mut(at) {
            *memo = (stamp, result);
        }
        result
    }

    fn evaluate(&mut self, test: &CompiledTest) -> bool {
        match test.op {
            Op::Exists(wanted) => return self.first(test.slot).is_some() == wanted,
            Op::Null => return self.is_null(test.slot),
            _ => {}
        }
        if test.slot == Slots::ANY {
            return (0..self.values.len()).any(|at| self.value_fits(at, test));
        }
        let mut next = self.first(test.slot);
        while let Some(at) = next {
            if self.value_fits(at, test) {
                return true;
            }
            next = self.next(at);
        }
        false
    }

    fn first(&self, slot: u32) -> Option<usize> {
        let (stamp, at) = *self.scratch.heads.get(usize::try_from(slot).ok()?)?;
        if stamp == self.scratch.stamp { usize::try_from(at).ok() } else { None }
    }

    fn next(&self, at: usize) -> Option<usize> {
        let next = self.values.get(at)?.next;
        if next == NO_VALUE { None } else { usize::try_from(next).ok() }
    }

    /// Absent, or a null among its values.
    fn is_null(&self, slot: u32) -> bool {
        let mut next = self.first(slot);
        if next.is_none() {
            return true;
        }
        while let Some(at) = next {
            if self.values.get(at).is_some_and(|value| value.null) {
                return true;
            }
            next = self.next(at);
        }
        false
    }

    fn value_fits(&mut self, at: usize, test: &CompiledTest) -> bool {
        let Some(value) = self.values.get(at).copied() else { return false };
        if value.null {
            return false;
        }
        match &test.op {
            Op::Text { op, cased: true } => op.fits(value.text),
            Op::Text { op, cased: false } => op.fits(self.folded(at)),
            Op::OneOf(texts) => texts.contains(self.folded(at)),
            Op::ContainsOneOf(automaton) => automaton.is_match(self.folded(at)),
            Op::Regex(regex) => regex.is_match(value.text),
            Op::Cidr(net) => in_network(net, value.text),
            Op::Compare(comparison, number) => {
                Number::parse(value.text).is_some_and(|value| comparison.holds(value, *number))
            }
            Op::Time(part, number) => time_part(*part, value.text) == Some(*number),
            Op::Field { other, shape, cased } => {
                let mut next = self.first(*other);
                while let Some(with) = next {
                    if self.values_agree(at, with, *shape, *cased) {
                        return true;
                    }
                    next = self.next(with);
                }
                false
            }
            Op::External(test) => test.fits(value.text),
            Op::Null | Op::Exists(_) => false,
        }
    }

    fn values_agree(&mut self, left: usize, right: usize, shape: crate::rule::Shape, cased: bool) -> bool {
        let Some((one, other)) = self.values.get(left).zip(self.values.get(right)) else { return false };
        if other.null {
            return false;
        }
        if cased {
            return agree(shape, one.text, other.text);
        }
        let ((a, b), (c, d)) = (self.fold(left), self.fold(right));
        let arena = &self.scratch.arena;
        arena.get(a..b).zip(arena.get(c..d)).is_some_and(|(left, right)| agree(shape, left, right))
    }
}
