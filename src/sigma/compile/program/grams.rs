//! Many texts sought in a value at once, by grams: four bytes in a row.
//!
//! A bitmap says which grams some text is known by; what it lets through is compared in full, so a gram (or an attacker's
//! value) can cost time but never makes a match. A text of seven bytes or more is known by four neighbouring grams:
//! wherever it stands, one of them begins at a multiple of four, and only these places are looked at. Few texts are
//! sought by the vector instructions of `aho-corasick`'s packed search instead.
//!
//! A value may repeat a text, or nearly that text, a million times, and to compare at each place all texts that have its
//! gram would cost their number each time. So what is compared has a budget by the value's length; beyond it all texts
//! are sought by one Aho-Corasick automaton, which costs the same for each byte whatever the value is.

use std::{ops::ControlFlow, sync::OnceLock};

use aho_corasick::{Anchored, Span, automaton::Automaton, nfa::contiguous::NFA, packed};
use memchr::memmem;
use rustc_hash::{FxHashMap, FxHashSet};

use super::profile::Profile;

/// Bytes of a gram.
pub(crate) const GRAM_BYTES: usize = 4;
/// Texts sought by vector instructions, at most; and bytes of a value from which that pays.
const VECTOR_TEXTS_MAX: usize = 32;
const VECTOR_BYTES_MIN: usize = 64;
/// Bytes of a text that are sought so.
const VECTOR_TEXT_BYTES: usize = 12;
/// Texts that are compared in one value before it goes through the automaton: so many, and one for so many bytes.
const COMPARED_FREELY: usize = 256;
const BYTES_PER_COMPARED: usize = 8;
/// Bits of the bitmap: at least so many for each gram, within these bounds.
const BITS_PER_GRAM: usize = 64;
const BITMAP_BITS: std::ops::RangeInclusive<u32> = 9..=20;

/// The texts of one field that a value may contain, each of four bytes or more, with what they stand for.
#[derive(Debug)]
pub(crate) struct Contained {
    long: Option<Grams>,
    short: Option<Grams>,
}

/// Texts that are known by grams at every `stride`th place.
#[derive(Debug)]
struct Grams {
    stride: usize,
    /// All texts, if they are few.
    searcher: Option<packed::Searcher>,
    bitmap: Box<[u64]>,
    shift: u32,
    texts: Vec<(Box<str>, Vec<u32>)>,
    /// Sorted: those of one gram lie beside each other.
    known: Box<[Known]>,
    /// By gram, the first of them.
    by_gram: FxHashMap<u32, u32>,
    /// All texts, for values that repeat them: made when the first such value comes. `None` if there is no such automaton.
    automaton: OnceLock<Option<NFA>>,
}

/// A text that has a gram at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Known {
    gram: u32,
    text: u32,
    at: u32,
}

impl Contained {
    pub(crate) fn build(texts: Vec<(Box<str>, Vec<u32>)>, profile: &Profile) -> Contained {
        let (long, short): (Vec<_>, Vec<_>) = texts.into_iter().partition(|(text, _)| text.len() >= GRAM_BYTES + 3);
        let grams = |texts: Vec<_>, stride| (!texts.is_empty()).then(|| Grams::build(texts, stride, profile));
        Contained { long: grams(long, GRAM_BYTES), short: grams(short, 1) }
    }

    /// Whether a value contains one of them.
    pub(crate) fn any_in(&self, bytes: &[u8]) -> bool {
        let mut found = |_: &[u32]| ControlFlow::Break(());
        [&self.long, &self.short].into_iter().flatten().any(|grams| grams.scan(bytes, &mut found).is_break())
    }

    /// Gives what the texts stand for that a value contains; some more than once.
    pub(crate) fn scan(&self, bytes: &[u8], met: &mut impl FnMut(&[u32])) {
        let mut met = |variants: &[u32]| {
            met(variants);
            ControlFlow::Continue(())
        };
        // It never breaks off.
        let _whole = [&self.long, &self.short].into_iter().flatten().try_for_each(|grams| grams.scan(bytes, &mut met));
    }
}

/// Why a scan ends before its value does.
enum End {
    /// Whoever asked has enough.
    Enough,
    /// So many texts were compared that one way through the value with an automaton costs less.
    TooMany,
}

impl Grams {
    fn build(texts: Vec<(Box<str>, Vec<u32>)>, stride: usize, profile: &Profile) -> Grams {
        let mut known = Vec::new();
        let mut starts = Vec::new();
        for (text, (bytes, _)) in (0..).zip(&texts) {
            let bytes = bytes.as_bytes();
            let start = profile.rarest_grams(bytes, stride);
            starts.push(start);
            for at in start..start + stride {
                let gram = gram_at(bytes, at);
                known.extend(u32::try_from(at).map(|at| Known { gram, text, at }));
            }
        }
        known.sort_unstable();
        let mut by_gram = FxHashMap::default();
        for (first, Known { gram, .. }) in (0..).zip(&known) {
            by_gram.entry(*gram).or_insert(first);
        }
        let wanted = (by_gram.len() * BITS_PER_GRAM).next_power_of_two().trailing_zeros();
        let bits = wanted.clamp(*BITMAP_BITS.start(), *BITMAP_BITS.end());
        let shift = u32::BITS - bits;
        let mut bitmap = vec![0_u64; 1 << (bits - 6)].into_boxed_slice();
        for gram in by_gram.keys() {
            let (word, bit) = place(*gram, shift);
            if let Some(word) = bitmap.get_mut(word) {
                *word |= bit;
            }
        }
        let searcher = vector_searcher(&texts, &starts);
        let automaton = OnceLock::new();
        Grams { stride, searcher, bitmap, shift, texts, known: known.into(), by_gram, automaton }
    }

    fn scan(&self, bytes: &[u8], met: &mut impl FnMut(&[u32]) -> ControlFlow<()>) -> ControlFlow<()> {
        let mut budget = COMPARED_FREELY + bytes.len() / BYTES_PER_COMPARED;
        let mut check = |at: usize| self.check(bytes, at, &mut budget, met);
        let walked = match &self.searcher {
            Some(searcher) if bytes.len() >= VECTOR_BYTES_MIN => scan_by_vectors(searcher, bytes, &mut check),
            _ if self.stride == 1 => self.scan_each(bytes, &mut check),
            _ => self.scan_every_fourth(bytes, &mut check),
        };
        match walked {
            ControlFlow::Continue(()) => ControlFlow::Continue(()),
            ControlFlow::Break(End::Enough) => ControlFlow::Break(()),
            ControlFlow::Break(End::TooMany) => self.scan_by_automaton(bytes, met),
        }
    }

    /// Four grams at a time: nearly always none of them is a text's.
    fn scan_every_fourth(&self, bytes: &[u8], check: &mut impl FnMut(usize) -> ControlFlow<End>) -> ControlFlow<End> {
        let (blocks, rest) = bytes.as_chunks::<16>();
        for (number, block) in blocks.iter().enumerate() {
            let (grams, _) = block.as_chunks::<GRAM_BYTES>();
            let known = grams.iter().fold(false, |any, gram| any | self.knows(u32::from_le_bytes(*gram)));
            if known {
                (0..4).try_for_each(|gram| self.check_known(bytes, number * 16 + gram * GRAM_BYTES, check))?;
            }
        }
        let begin = bytes.len() - rest.len();
        let (grams, _) = rest.as_chunks::<GRAM_BYTES>();
        for (number, gram) in grams.iter().enumerate() {
            if self.knows(u32::from_le_bytes(*gram)) {
                check(begin + number * GRAM_BYTES)?;
            }
        }
        ControlFlow::Continue(())
    }

    fn scan_each(&self, bytes: &[u8], check: &mut impl FnMut(usize) -> ControlFlow<End>) -> ControlFlow<End> {
        let mut at = 0;
        while let Some(eight) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
            let eight = u64::from_le_bytes(*eight);
            if (0..4).fold(false, |any, from: u32| any | self.knows(low(eight >> (8 * from)))) {
                (at..at + 4).try_for_each(|at| self.check_known(bytes, at, check))?;
            }
            at += 4;
        }
        (at..bytes.len().saturating_sub(GRAM_BYTES - 1)).try_for_each(|at| self.check_known(bytes, at, check))
    }

    #[inline]
    fn knows(&self, gram: u32) -> bool {
        let (word, bit) = place(gram, self.shift);
        self.bitmap.get(word).is_some_and(|word| word & bit != 0)
    }

    #[inline]
    fn check_known(
        &self,
        bytes: &[u8],
        at: usize,
        check: &mut impl FnMut(usize) -> ControlFlow<End>,
    ) -> ControlFlow<End> {
        if self.knows(gram_at(bytes, at)) { check(at) } else { ControlFlow::Continue(()) }
    }

    /// Gives what the texts stand for that have the gram at a place and stand there.
    #[cold]
    fn check(
        &self,
        bytes: &[u8],
        at: usize,
        budget: &mut usize,
        met: &mut impl FnMut(&[u32]) -> ControlFlow<()>,
    ) -> ControlFlow<End> {
        let gram = gram_at(bytes, at);
        let Some(first) = self.by_gram.get(&gram) else { return ControlFlow::Continue(()) };
        let known = self.known.get(index(*first)..).unwrap_or_default();
        for known in known.iter().take_while(|known| known.gram == gram) {
            let Some(left) = budget.checked_sub(1) else { return ControlFlow::Break(End::TooMany) };
            *budget = left;
            let Some((text, variants)) = self.texts.get(index(known.text)) else { continue };
            let from = at.checked_sub(index(known.at)).and_then(|begin| bytes.get(begin..));
            if from.is_some_and(|from| from.starts_with(text.as_bytes())) && met(variants).is_break() {
                return ControlFlow::Break(End::Enough);
            }
        }
        ControlFlow::Continue(())
    }

    /// The same for the whole value, by one step for each byte. What a state of the automaton says is said once.
    #[cold]
    fn scan_by_automaton(&self, bytes: &[u8], met: &mut impl FnMut(&[u32]) -> ControlFlow<()>) -> ControlFlow<()> {
        let automaton =
            self.automaton.get_or_init(|| NFA::new(self.texts.iter().map(|(text, _)| text.as_bytes())).ok());
        let begin = automaton.as_ref().and_then(|nfa| Some((nfa, nfa.start_state(Anchored::No).ok()?)));
        let Some((automaton, mut state)) = begin else { return self.scan_one_by_one(bytes, met) };
        let mut said = FxHashSet::default();
        for byte in bytes {
            state = automaton.next_state(Anchored::No, state, *byte);
            if automaton.is_match(state) && said.insert(state) {
                let texts = (0..automaton.match_len(state)).map(|nth| automaton.match_pattern(state, nth));
                texts.filter_map(|text| self.texts.get(text.as_usize())).try_for_each(|(_, variants)| met(variants))?;
            }
        }
        ControlFlow::Continue(())
    }

    /// For more texts than an automaton takes.
    fn scan_one_by_one(&self, bytes: &[u8], met: &mut impl FnMut(&[u32]) -> ControlFlow<()>) -> ControlFlow<()> {
        let mut texts = self.texts.iter().filter(|(text, _)| memmem::find(bytes, text.as_bytes()).is_some());
        texts.try_for_each(|(_, variants)| met(variants))
    }
}

fn scan_by_vectors(
    searcher: &packed::Searcher,
    bytes: &[u8],
    check: &mut impl FnMut(usize) -> ControlFlow<End>,
) -> ControlFlow<End> {
    let mut span = Span { start: 0, end: bytes.len() };
    while let Some(found) = searcher.find_in(bytes, span) {
        check(found.start())?;
        span.start = found.start() + 1;
    }
    ControlFlow::Continue(())
}

/// From its first gram on, a few bytes of each text: what they rule out costs no step out of the search.
fn vector_searcher(texts: &[(Box<str>, Vec<u32>)], starts: &[usize]) -> Option<packed::Searcher> {
    let parts = texts.iter().zip(starts).filter_map(|((text, _), start)| text.as_bytes().get(*start..));
    let mut parts: Vec<&[u8]> = parts.map(|part| part.get(..VECTOR_TEXT_BYTES).unwrap_or(part)).collect();
    parts.sort_unstable();
    parts.dedup();
    if parts.len() > VECTOR_TEXTS_MAX {
        return None;
    }
    let mut config = packed::Config::new();
    config.match_kind(packed::MatchKind::LeftmostFirst).builder().extend(parts).build()
}

#[allow(clippy::as_conversions, clippy::cast_possible_truncation)] // the lower half is what is wanted
const fn low(eight: u64) -> u32 {
    eight as u32
}

#[allow(clippy::as_conversions)] // u32 fits usize on every machine we run on
const fn index(number: u32) -> usize {
    number as usize
}

pub(crate) fn gram(window: &[u8]) -> u32 {
    window.first_chunk::<GRAM_BYTES>().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn gram_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).map_or(0, gram)
}

/// Word and bit of a gram in the bitmap (multiplicative hashing, Knuth 6.4).
#[allow(clippy::as_conversions)] // a few bits, on every machine we run on
const fn place(gram: u32, shift: u32) -> (usize, u64) {
    let hash = gram.wrapping_mul(0x9e37_79b1) >> shift;
    ((hash >> 6) as usize, 1 << (hash & 63))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::{super::profile::BUILT_IN, *};

    proptest! {
        /// Few letters, so that texts overlap, repeat and share their grams.
        #[test]
        fn finds_what_a_plain_search_finds(
            texts in proptest::collection::btree_set("[ab]{4,14}", 1..60),
            value in "[abc]{0,200}",
            repeat in 1_usize..60,
            few in any::<bool>(),
        ) {
            let value = value.repeat(repeat);
            let texts: Vec<String> = texts.into_iter().take(if few { 5 } else { 60 }).collect();
            let list = (0..).zip(&texts).map(|(number, text)| (text.as_str().into(), vec![number])).collect();
            let mut found = BTreeSet::new();
            Contained::build(list, &BUILT_IN).scan(value.as_bytes(), &mut |numbers: &[u32]| found.extend(numbers.to_vec()));
            let plain = (0..).zip(&texts).filter(|(_, text)| value.contains(text.as_str())).map(|(number, _)| number);
            prop_assert_eq!(found, plain.collect::<BTreeSet<u32>>());
        }
    }
}
