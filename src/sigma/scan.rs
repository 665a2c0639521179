//! Events met with a rule set: all rules that fit, exactly.

use std::{sync::Arc, time::Instant};

use cf_types::{
    Event, LogSource, Name, Scalar,
    field::{Form, Part, unescape},
};
use rustc_hash::FxHashMap;

use crate::{
    compile::{
        RuleIndex, RuleSet,
        layers::Layer,
        program::{
            Matcher, Program,
            anchor::Keywords,
            node::{CompiledTest, Op, Slots, TextOp, agree, in_networks, time_part},
        },
    },
    fold::{escaped, folded, push_escaped, push_folded},
    learnt::{Gathered, Sample},
    rule::Number,
    tally::{Counting, RuleStats},
};

/// Log sources and channels whose rules are remembered; there are a handful.
const DECLARED_MAX: usize = 1_024;

/// Meets events with a rule set. Cheap to make; one per thread. It keeps buffers, so nothing is allocated per event.
#[derive(Debug)]
pub struct Scanner {
    rules: Arc<RuleSet>,
    layers: Vec<LayerScan>,
    counting: Counting,
    gathered: Gathered,
}

/// What is kept from event to event for one matcher.
#[derive(Debug)]
struct LayerScan {
    declared: Declared,
    channel: LastChannel,
    scratch: Scratch,
    /// By slot: the board knows that an event had it.
    told: Vec<bool>,
}

/// By what a decoder declares: numbers in [`Matcher::declared`].
#[derive(Debug, Default)]
struct Declared {
    known: FxHashMap<Arc<LogSource>, Arc<[usize]>>,
    last: Option<(Arc<LogSource>, Arc<[usize]>)>,
}

/// Channels as events write them.
#[derive(Debug, Default)]
struct LastChannel {
    /// Their places in [`Matcher::channels`].
    known: FxHashMap<Box<str>, Option<usize>>,
}

/// Buffers that live from event to event. A mark is valid if it bears the present stamp.
#[derive(Debug, Default)]
struct Scratch {
    stamp: u32,
    /// By slot: stamp and the last value of that field.
    heads: Vec<(u32, u32)>,
    /// By test: stamp and result.
    memo: Vec<(u32, bool)>,
    /// Values of fields that rules speak of; behind them all others, once somebody asked.
    values: Vec<Value>,
    /// By variant of the program that runs, a bit: its anchor is met, or it has none.
    met: Vec<u64>,
    /// The record, its ASCII letters folded.
    record: String,
    /// Values that are not a part of the record in the form that is wanted.
    arena: String,
    /// For making them.
    spare: [String; 2],
}

/// Of so many events one is timed, rule by rule: what a rule costs is for people to see, and no result depends on it.
const TIMED_EVERY: u32 = 1_024;

const NO_VALUE: u32 = u32::MAX;

/// One event while it is scanned.
pub(crate) struct View<'s, 'e> {
    matcher: &'s Matcher,
    scratch: &'s mut Scratch,
    event: &'e Event,
    /// All values are there, not only those of fields that rules speak of.
    complete: bool,
    /// The record is ASCII.
    ascii: bool,
    /// Some value does not stand in the folded record as it is compared.
    hides_values: bool,
    /// The part of the record in which the others stand.
    values_in: Place,
}

#[derive(Clone, Copy, Debug)]
struct Value {
    /// Its place among the event's fields; [`NO_VALUE`] for the whole line of a record that is not structured.
    field: u32,
    slot: u32,
    /// Another value of the same field.
    next: u32,
    null: bool,
    /// Where it stands folded and escaped, if that is known.
    folded: Option<Place>,
    /// Where it stands in the arena as it is meant, if that is not how it is written.
    plain: Option<Place>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    begin: u32,
    end: u32,
    in_record: bool,
}

impl Place {
    fn of(begin: usize, end: usize, in_record: bool) -> Place {
        // Records are far below 4 GiB, and so is what is made of their values.
        let place = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Place { begin: place(begin), end: place(end), in_record }
    }

    fn range(self) -> std::ops::Range<usize> {
        usize::try_from(self.begin).unwrap_or(0)..usize::try_from(self.end).unwrap_or(0)
    }
}

impl Scanner {
    /// Makes one for a rule set.
    #[must_use]
    pub fn new(rules: Arc<RuleSet>) -> Scanner {
        let layers = rules.layers.iter().map(|layer| LayerScan::new(&layer.matcher)).collect();
        let counting = Counting::new(rules.rules().len());
        Scanner { layers, counting, gathered: Gathered::default(), rules }
    }

    /// What each rule did in this scanner, by [`RuleIndex::index`].
    #[must_use]
    pub fn stats(&self) -> &[RuleStats] {
        &self.counting.stats
    }

    /// Adds what is new in [`Scanner::stats`] to [`RuleSet::stats`], and what came to what the rule set learns from. It goes through all rules: call it per batch, not per
    /// event.
    pub fn publish(&mut self) {
        self.counting.publish(&self.rules.tally);
        self.rules.learnt.gather(&mut self.gathered.sample);
        for (layer, state) in self.rules.layers.iter().zip(&mut self.layers) {
            let new = state.fields_new(&layer.matcher);
            if !new.is_empty() {
                self.rules.learnt.have(new);
            }
        }
    }

    /// The rule set it scans with.
    #[must_use]
    pub fn rules(&self) -> &Arc<RuleSet> {
        &self.rules
    }

    /// Appends all plain rules that the event fulfils, sorted, each once.
    pub fn scan(&mut self, event: &Event, hits: &mut Vec<RuleIndex>) {
        let begin = hits.len();
        let mut sample = self.gathered.due();
        for (layer, state) in self.rules.layers.iter().zip(&mut self.layers) {
            state.scan(layer, event, hits, &mut self.counting, sample.take());
        }
        sort_new(hits, begin);
        for rule in hits.get(begin..).unwrap_or_default() {
            self.counting.hit(rule.index());
        }
    }
}

impl Drop for Scanner {
    fn drop(&mut self) {
        self.publish();
    }
}

impl LayerScan {
    fn new(matcher: &Matcher) -> LayerScan {
        let scratch = Scratch {
            heads: vec![(0, NO_VALUE); matcher.slots.len()],
            memo: vec![(0, false); matcher.tests.len()],
            ..Scratch::default()
        };
        let told = vec![false; matcher.slots.len()];
        LayerScan { declared: Declared::default(), channel: LastChannel::default(), scratch, told }
    }

    /// Fields that an event had and that were not given before. A mark of any event tells.
    fn fields_new(&mut self, matcher: &Matcher) -> Vec<Arc<str>> {
        let mut new = Vec::new();
        for ((slot, (stamp, _)), told) in (0..).zip(&self.scratch.heads).zip(&mut self.told) {
            if *stamp != 0 && !std::mem::replace(told, true) {
                new.extend(matcher.slots.field(slot).cloned());
            }
        }
        new
    }

    fn scan(
        &mut self,
        layer: &Layer,
        event: &Event,
        hits: &mut Vec<RuleIndex>,
        counting: &mut Counting,
        sample: Option<&mut Sample>,
    ) {
        let LayerScan { declared, channel, scratch, .. } = self;
        let matcher = &*layer.matcher;
        let mut route = Route::default();
        let mut view = View::new(matcher, scratch, event, &mut route);
        if let Some(sample) = sample {
            view.sample(sample);
        }
        let mut covers = None;
        if let Some(program) = channel.program(matcher, event, &route) {
            view.run(program, layer, hits, counting);
            covers = matcher.programs.get(program).map(|program| &program.covers);
        }
        for number in declared.patterns(matcher, &event.log_source) {
            if covers.is_some_and(|covers| covers.contains(number)) {
                continue;
            }
            if let Some((_, program)) = matcher.declared.get(*number) {
                view.run(*program, layer, hits, counting);
            }
        }
    }
}

impl Value {
    /// `shown` is where it stands in the folded record as it is compared.
    #[inline]
    fn of(field: u32, slot: u32, next: u32, part: &Part<'_>, shown: Option<Place>) -> Value {
        Value { field, slot, next, null: part.scalar == Scalar::Null, folded: shown, plain: None }
    }

    fn is_shown(&self) -> bool {
        self.folded.is_some_and(|place| place.in_record)
    }
}

/// Where a value stands in the folded record as it is compared; nearly all do.
#[inline]
fn shown(part: &Part<'_>, ascii: bool) -> Option<Place> {
    let written_so = matches!(part.form, Form::Json | Form::Escaped) && (ascii || part.text.is_ascii());
    part.at.filter(|_| written_so).map(|begin| Place::of(begin, begin + part.text.len(), true))
}

impl Scratch {
    /// Adds a value of a field that rules speak of.
    #[inline]
    fn add(&mut self, field: u32, slot: u32, part: &Part<'_>, shown: Option<Place>) {
        let Some(head) = usize::try_from(slot).ok().and_then(|slot| self.heads.get_mut(slot)) else { return };
        let next = if head.0 == self.stamp { head.1 } else { NO_VALUE };
        *head = (self.stamp, u32::try_from(self.values.len()).unwrap_or(NO_VALUE)); // fields are bounded far below
        self.values.push(Value::of(field, slot, next, part, shown));
    }

    /// Makes a value as it is compared.
    #[cold]
    fn fold(&mut self, part: &Part<'_>) -> Place {
        let Scratch { arena, record, spare: [plain, small], .. } = self;
        let begin = arena.len();
        let folded = part.at.and_then(|at| record.get(at..at + part.text.len()));
        match (part.form, folded) {
            (Form::Json | Form::Escaped, _) => push_folded(part.text, arena),
            (Form::EscapedOddly, Some(folded)) if part.text.is_ascii() => push_with_plain_escapes(folded, arena),
            (form, _) => {
                plain.clear();
                match form {
                    Form::Escaped | Form::EscapedOddly => unescape(part.text, plain),
                    Form::Plain | Form::Json => plain.push_str(part.text),
                }
                small.clear();
                push_folded(plain, small);
                push_escaped(small, arena);
            }
        }
        Place::of(begin, arena.len(), false)
    }
}

/// Appends a folded JSON string with all escapes undone but those of backslashes and quotes.
fn push_with_plain_escapes(folded: &str, out: &mut String) {
    let mut rest = folded;
    while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
        let (before, behind) = rest.split_at(at);
        out.push_str(before);
        let len = match behind.as_bytes().get(1) {
            Some(b'\\' | b'"') => {
                out.push_str(behind.get(..2).unwrap_or(behind));
                2
            }
            Some(b'u') => {
                // One or two code units; what they mean is folded, and may need an escape itself.
                let pair = behind.get(6..8) == Some("\\u")
                    && behind.get(2..4).is_some_and(|high| matches!(high, "d8" | "d9" | "da" | "db"));
                let len = if pair { 12 } else { 6 };
                let (mut meant, mut small) = (String::new(), String::new());
                unescape(behind.get(..len).unwrap_or(behind), &mut meant);
                push_folded(&meant, &mut small);
                push_escaped(&small, out);
                len
            }
            _ => {
                let len = behind.len().min(2);
                unescape(behind.get(..len).unwrap_or(behind), out);
                len
            }
        };
        rest = behind.get(len..).unwrap_or("");
    }
    out.push_str(rest);
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

impl<'e> Route<'e> {
    fn note(&mut self, part: &Part<'e>, event: &'e Event, matcher: &Matcher) {
        let meant = || match part.form {
            Form::Plain | Form::Json => Some(part.text),
            Form::Escaped | Form::EscapedOddly => event.fields.first(part.name),
        };
        if part.name == matcher.names.channel {
            self.channel = self.channel.or_else(meant);
        } else if part.name == matcher.names.event_id {
            self.event_id = meant();
            self.event_ids += 1;
        } else if part.name == matcher.names.provider {
            self.provider = self.provider.or_else(meant);
        }
    }
}

/// The whole of a record that is not structured.
fn line_of(event: &Event) -> Option<Part<'_>> {
    let record = event.fields.record();
    let is_record = record.len() == event.raw.len() && record.as_ptr() == event.raw.as_ptr();
    let text = if is_record { record } else { std::str::from_utf8(&event.raw).ok()? };
    let (name, scalar, form, at) = (Name::UNKNOWN, Scalar::Text, Form::Plain, is_record.then_some(0));
    Some(Part { name, text, scalar, form, at })
}

/// Whether a text is the same with `\` before each backslash and quote.
fn is_bare(text: &str) -> bool {
    memchr::memchr2(b'\\', b'"', text.as_bytes()).is_none()
}

/// Sets the bit of this number.
#[inline]
pub(crate) fn set_bit(words: &mut [u64], number: u32) {
    if let Some(word) = usize::try_from(number / 64).ok().and_then(|at| words.get_mut(at)) {
        *word |= 1 << (number % 64);
    }
}

/// Whether an event was a JSON document: an object, as elements of arrays are events of their own.
fn is_structured(event: &Event) -> bool {
    event.raw.first() == Some(&b'{')
}

impl LastChannel {
    /// The program of the event's channel and event id, if the table knows the channel.
    fn program(&mut self, matcher: &Matcher, event: &Event, route: &Route<'_>) -> Option<usize> {
        let channel = route.channel.filter(|text| !text.is_empty());
        let channel =
            channel.or_else(|| route.provider.and_then(|name| matcher.log_sources.channel_of_provider(name)))?;
        let place = match self.known.get(channel) {
            Some(place) => *place,
            None => self.find(matcher, channel),
        };
        let programs = matcher.channels.get(place?)?;
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

    #[cold]
    fn find(&mut self, matcher: &Matcher, channel: &str) -> Option<usize> {
        let place = matcher.by_channel.get(folded(channel).as_str()).copied();
        if self.known.len() >= DECLARED_MAX {
            self.known.clear();
        }
        self.known.insert(channel.into(), place);
        place
    }
}

impl<'s, 'e> View<'s, 'e> {
    fn new(matcher: &'s Matcher, scratch: &'s mut Scratch, event: &'e Event, route: &mut Route<'e>) -> View<'s, 'e> {
        scratch.stamp = scratch.stamp.wrapping_add(1);
        if scratch.stamp == 0 {
            // Marks of four billion events ago would look new.
            scratch.heads.fill((0, NO_VALUE));
            scratch.memo.fill((0, false));
            scratch.stamp = 1;
        }
        scratch.arena.clear();
        scratch.record.clear();
        scratch.record.push_str(event.fields.record());
        scratch.record.make_ascii_lowercase();
        scratch.values.clear();
        let ascii = scratch.record.is_ascii();
        let mut hides_values = !is_structured(event);
        let (mut begin, mut end) = (usize::MAX, 0);
        for (field, part) in (0..).zip(event.fields.parts()) {
            let null = part.scalar == Scalar::Null;
            if let Some(at) = part.at {
                begin = begin.min(at);
                end = end.max(at + part.text.len());
            }
            let shown = shown(&part, ascii);
            hides_values |= !null && shown.is_none();
            if part.name == Name::UNKNOWN {
                continue;
            }
            if !null {
                route.note(&part, event, matcher);
            }
            let slot = matcher.slots.of_name(part.name);
            scratch.add(field, slot, &part, shown);
        }
        let values_in = Place::of(begin.min(end), end, true);
        View { matcher, scratch, event, complete: false, ascii, hides_values, values_in }
    }

    /// Adds the values of fields that rules speak of.
    #[cold]
    fn sample(&mut self, sample: &mut Sample) {
        sample.begin();
        let matcher = self.matcher;
        for at in 0..self.scratch.values.len() {
            let Some(Value { slot, null: false, .. }) = self.scratch.values.get(at).copied() else { continue };
            if let Some(field) = matcher.slots.field(slot) {
                sample.add(field, self.plain(at));
            }
        }
    }

    /// Takes in the values of fields that no rule speaks of: a keyword may be in any.
    ///
    /// Keywords are sought in the values of structured records and in the whole of text lines.
    fn complete(&mut self) {
        if std::mem::replace(&mut self.complete, true) {
            return;
        }
        for (field, part) in (0..).zip(self.event.fields.parts()) {
            if self.matcher.slots.of_name(part.name) == Slots::NONE {
                let shown = shown(&part, self.ascii);
                self.scratch.values.push(Value::of(field, Slots::NONE, NO_VALUE, &part, shown));
            }
        }
        if !is_structured(self.event)
            && let Some(line) = line_of(self.event)
        {
            self.scratch.values.push(Value::of(NO_VALUE, Slots::NONE, NO_VALUE, &line, None));
        }
    }

    fn run(&mut self, program: usize, layer: &Layer, hits: &mut Vec<RuleIndex>, counting: &mut Counting) {
        let matcher = self.matcher;
        let timed = self.scratch.stamp.is_multiple_of(TIMED_EVERY);
        let Some(program) = matcher.programs.get(program) else { return };
        if program.variants.is_empty() {
            return;
        }
        let mut met = std::mem::take(&mut self.scratch.met);
        met.clear();
        met.extend_from_slice(&program.plans.always);
        self.find_candidates(program, &mut met);
        for (word, mut bits) in met.iter().copied().enumerate() {
            while bits != 0 {
                let number = word * 64 + usize::try_from(bits.trailing_zeros()).unwrap_or(0);
                bits &= bits - 1;
                let Some(variant) = program.variants.get(number) else { continue };
                // Gone or off, in a matcher that is older than the rule set.
                let Some(rule) = layer.place(variant.rule) else { continue };
                counting.candidate(rule.index());
                let begin = timed.then(Instant::now);
                if variant.node.holds(self) {
                    hits.push(rule);
                }
                if let Some(begin) = begin {
                    counting.took(rule.index(), begin.elapsed());
                }
            }
        }
        self.scratch.met = met;
    }

    fn find_candidates(&mut self, program: &Program, met: &mut [u64]) {
        let any = program.plans.any.as_ref();
        let in_shown = any.is_some() && self.may_show_keyword(&program.plans.keywords);
        let any = any.filter(|_| in_shown || self.hides_values);
        if any.is_some() {
            self.complete();
        }
        let mut meet = |variants: &[u32]| variants.iter().for_each(|variant| set_bit(met, *variant));
        for at in 0..self.scratch.values.len() {
            let Some(value) = self.scratch.values.get(at) else { continue };
            if value.null {
                continue;
            }
            let any = any.filter(|_| in_shown || !value.is_shown());
            for plan in [program.plans.of(value.slot), any].into_iter().flatten() {
                let text = if plan.needs_text() { self.folded(at) } else { "" };
                plan.scan(text, &mut meet);
            }
        }
    }

    /// Whether to look for keywords in each of the values that stand in the folded record: one search of it says for all of
    /// them that there are none. Others are looked at in any case.
    fn may_show_keyword(&self, keywords: &Keywords) -> bool {
        let values = self.scratch.record.get(self.values_in.range()).unwrap_or(&self.scratch.record);
        !is_structured(self.event) || keywords.may_be_in(values)
    }

    /// A value as it is compared: folded and escaped.
    fn folded(&mut self, at: usize) -> &str {
        let place = self.fold(at);
        let buffer = if place.in_record { &self.scratch.record } else { &self.scratch.arena };
        buffer.get(place.range()).unwrap_or_default()
    }

    #[inline]
    fn fold(&mut self, at: usize) -> Place {
        match self.scratch.values.get(at).map(|value| value.folded) {
            Some(Some(place)) => place,
            _ => self.make_folded(at),
        }
    }

    #[cold]
    fn make_folded(&mut self, at: usize) -> Place {
        let Some(part) = self.part(at) else { return Place::of(0, 0, false) };
        let place = match part.at {
            Some(begin) if part.form == Form::Plain && (self.ascii || part.text.is_ascii()) && is_bare(part.text) => {
                Place::of(begin, begin + part.text.len(), true)
            }
            _ => self.scratch.fold(&part),
        };
        if let Some(value) = self.scratch.values.get_mut(at) {
            value.folded = Some(place);
        }
        place
    }

    /// A value as the record holds it.
    fn part(&self, at: usize) -> Option<Part<'e>> {
        let value = self.scratch.values.get(at)?;
        if value.field == NO_VALUE {
            return line_of(self.event);
        }
        self.event.fields.part(usize::try_from(value.field).ok()?)
    }

    /// A value as it is meant.
    fn plain(&mut self, at: usize) -> &str {
        let Some(part) = self.part(at) else { return "" };
        if matches!(part.form, Form::Plain | Form::Json) {
            return part.text;
        }
        let Scratch { values, arena, .. } = &mut *self.scratch;
        let Some(value) = values.get_mut(at) else { return "" };
        let place = *value.plain.get_or_insert_with(|| {
            let begin = arena.len();
            unescape(part.text, arena);
            Place::of(begin, arena.len(), false)
        });
        arena.get(place.range()).unwrap_or_default()
    }

    /// Asks a text test of a value with its case: escaped as the test's texts are.
    fn fits_cased(&mut self, at: usize, op: &TextOp) -> bool {
        let Some(part) = self.part(at) else { return false };
        match part.form {
            Form::Json | Form::Escaped => op.fits(part.text),
            Form::Plain | Form::EscapedOddly => op.fits(&escaped(self.plain(at))),
        }
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
            self.complete();
            return (0..self.scratch.values.len()).any(|at| self.value_fits(at, test));
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
        let next = self.scratch.values.get(at)?.next;
        if next == NO_VALUE { None } else { usize::try_from(next).ok() }
    }

    /// Absent, or a null among its values.
    fn is_null(&self, slot: u32) -> bool {
        let mut next = self.first(slot);
        if next.is_none() {
            return true;
        }
        while let Some(at) = next {
            if self.scratch.values.get(at).is_some_and(|value| value.null) {
                return true;
            }
            next = self.next(at);
        }
        false
    }

    fn value_fits(&mut self, at: usize, test: &CompiledTest) -> bool {
        if self.scratch.values.get(at).is_none_or(|value| value.null) {
            return false;
        }
        match &test.op {
            Op::Text { op, cased: true } => self.fits_cased(at, op),
            Op::Text { op, cased: false } => op.fits(self.folded(at)),
            Op::OneOf(texts) => texts.contains(self.folded(at)),
            Op::ContainsOneOf(texts) => texts.any_in(self.folded(at)),
            Op::EndsWithOneOf(texts) => texts.any_fits(self.folded(at)),
            Op::Regex(regex, bytes_min) => {
                let text = self.plain(at);
                text.len() >= *bytes_min && regex.is_match(text)
            }
            Op::InNetworks(nets) => in_networks(nets, self.plain(at)),
            Op::Compare(comparison, number) => {
                Number::parse(self.plain(at)).is_some_and(|value| comparison.holds(value, *number))
            }
            Op::Time(part, number) => time_part(*part, self.plain(at)) == Some(*number),
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
            Op::External(test) => test.fits(self.plain(at)),
            Op::Null | Op::Exists(_) => false,
        }
    }

    fn values_agree(&mut self, left: usize, right: usize, shape: crate::rule::Shape, cased: bool) -> bool {
        if self.scratch.values.get(right).is_none_or(|other| other.null) {
            return false;
        }
        if cased {
            let left = self.plain(left).to_owned();
            return agree(shape, &left, self.plain(right));
        }
        let left = self.folded(left).to_owned();
        agree(shape, &left, self.folded(right))
    }
}
