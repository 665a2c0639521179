//! How often literals are met in ordinary traffic: decides which of a rule's necessary literals is its anchor.
//!
//! A wrong guess costs time, never a match, so a small sample does: for the fields that rules use most, the values that
//! background traffic has most and a sample of the others, with their share of the events that have the field.

use std::sync::LazyLock;

use memchr::memmem::Finder;
use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    anchor::{Kind, Literal},
    grams::{GRAM_BYTES, gram},
};
use crate::fold::folded;

/// The sample in `profile.tsv`, read once.
pub(crate) static BUILT_IN: LazyLock<Profile> = LazyLock::new(Profile::built_in);

/// A sample of values.
#[derive(Clone, Debug, Default)]
pub(crate) struct Profile {
    /// By field: folded value and its share of the events that have the field.
    fields: FxHashMap<Box<str>, Vec<(String, f32)>>,
    grams: FxHashMap<u32, f32>,
    /// By byte, how many of it an event has.
    bytes: Vec<f32>,
}

impl Profile {
    /// The sample in `profile.tsv`: field, events with it per 100,000 that have the field, value.
    fn built_in() -> Profile {
        let lines = include_str!("profile.tsv").lines().filter(|line| !line.starts_with('#'));
        let rows = lines.filter_map(|line| {
            let mut columns = line.splitn(3, '\t');
            let (field, share, value) = (columns.next()?, columns.next()?, columns.next()?);
            Some((field, share.parse::<f32>().ok()? / 100_000.0, value))
        });
        Profile::of(rows)
    }

    /// The same with other values for the fields that these rows are of.
    pub(crate) fn renewed<'a>(&'a self, rows: impl Iterator<Item = (&'a str, f32, &'a str)>) -> Profile {
        let mut rows: Vec<_> = rows.collect();
        let named: FxHashSet<&str> = rows.iter().map(|(field, ..)| *field).collect();
        let old = self.fields.iter().filter(|(field, _)| !named.contains(&***field));
        rows.extend(old.flat_map(|(field, values)| values.iter().map(|(value, share)| (&**field, *share, &**value))));
        Profile::of(rows)
    }

    /// A sample of these rows: field, share of events, value.
    pub(crate) fn of<'a>(rows: impl IntoIterator<Item = (&'a str, f32, &'a str)>) -> Profile {
        let mut profile = Profile { bytes: vec![0.0; 256], ..Profile::default() };
        for (field, share, value) in rows {
            let value = folded(value);
            for window in value.as_bytes().windows(GRAM_BYTES) {
                *profile.grams.entry(gram(window)).or_default() += share;
            }
            for byte in value.bytes() {
                if let Some(sum) = profile.bytes.get_mut(usize::from(byte)) {
                    *sum += share;
                }
            }
            profile.fields.entry(field.into()).or_default().push((value, share));
        }
        profile
    }

    /// Literals with their expected shares, and the share in which one of them is met, at most.
    pub(crate) fn expected(&self, field: &str, literals: Vec<Literal>) -> (Vec<(Literal, f32)>, f32) {
        let share = |literal: Literal| {
            let share = self.probability(field, &literal);
            (literal, share)
        };
        let literals: Vec<_> = literals.into_iter().map(share).collect();
        let sum = literals.iter().map(|(_, share)| share).sum::<f32>().min(1.0);
        (literals, sum)
    }

    /// Expected share of events in which a literal is met. For fields that are not in the sample, and texts that are in
    /// no sampled value, a guess by length.
    pub(crate) fn probability(&self, field: &str, literal: &Literal) -> f32 {
        let text = &*literal.text;
        let guess = match (literal.kind, text.len()) {
            (Kind::Present, _) => 1.0,
            (Kind::Equal, 0 | 1) => 0.05,
            (Kind::Equal, _) => 0.001,
            (_, 0..=2) => 0.3,
            (_, 3) => 0.05,
            (_, 4) => 0.01,
            (_, 5..=7) => 0.004,
            (_, 8..=15) => 0.001,
            (_, _) => 0.0005,
        };
        let Some(values) = self.fields.get(field) else { return guess };
        let finder = Finder::new(text);
        let met = values.iter().filter(|(value, _)| match literal.kind {
            Kind::Present => false,
            Kind::Equal => value == text,
            Kind::StartsWith => value.starts_with(text),
            Kind::EndsWith => value.ends_with(text),
            Kind::Contains => finder.find(value.as_bytes()).is_some(),
        });
        let share: f32 = met.map(|(_, share)| share).sum();
        share + guess
    }

    /// Where so many grams beside each other begin of which one is met most rarely; 0 if the text is shorter.
    pub(crate) fn rarest_grams(&self, bytes: &[u8], count: usize) -> usize {
        if bytes.len() < GRAM_BYTES + count {
            return 0; // there is no choice
        }
        // Most grams are in no value of the sample; of these the one with the rarest bytes.
        let of_byte = |byte: &u8| self.bytes.get(usize::from(*byte)).copied().unwrap_or(0.0) * 1e-6;
        let share = |window: &[u8]| {
            self.grams.get(&gram(window)).copied().unwrap_or(0.0) + window.iter().map(of_byte).sum::<f32>()
        };
        let shares: Vec<f32> = bytes.windows(GRAM_BYTES).map(share).collect();
        let sums = shares.windows(count).map(|shares| shares.iter().sum::<f32>()).enumerate();
        sums.min_by(|(_, left), (_, right)| left.total_cmp(right)).map_or(0, |(at, _)| at)
    }
}
