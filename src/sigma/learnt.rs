//! What came until now: the fields that any event had, and a sample of values from which anchors are planned anew.
//!
//! A scanner gathers for itself and adds to the board when it rests; rule sets that follow each other share one board. A
//! plan decides on cost alone: with every plan the same rules meet the same events.

use std::{
    cmp::Reverse,
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError},
};

use rustc_hash::FxHashMap;

use crate::compile::program::profile::{BUILT_IN, Profile};

/// Values of one field that are kept.
const VALUES_MAX: usize = 256;
/// Bytes of a value that are kept.
const VALUE_BYTES_MAX: usize = 1_024;
/// Bytes of all values of a sample; when they are more, new values are not taken in.
const BYTES_MAX: usize = 4 << 20;
/// Events with a field from which its values say more than the sample we ship.
const FIELD_EVENTS_MIN: u64 = 100;
/// Events of a sample from which plans are made, and again whenever it is so many times as large.
const PLAN_EVENTS_MIN: u64 = 1_000;
const AGAIN: u64 = 8;

/// Values of events.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    events: u64,
    bytes: usize,
    fields: FxHashMap<Arc<str>, Values>,
}

#[derive(Clone, Debug, Default)]
struct Values {
    events: u64,
    by_value: FxHashMap<Box<str>, u64>,
}

impl Sample {
    /// Another event, whose values follow.
    pub(crate) fn begin(&mut self) {
        self.events += 1;
    }

    /// A value of the event.
    pub(crate) fn add(&mut self, field: &Arc<str>, value: &str) {
        let value = value.get(..value.floor_char_boundary(VALUE_BYTES_MAX)).unwrap_or(value);
        let values = self.fields.entry(Arc::clone(field)).or_default();
        values.events += 1;
        values.count(value, 1, &mut self.bytes);
    }

    fn merge(&mut self, other: Sample) {
        self.events += other.events;
        for (field, from) in other.fields {
            let values = self.fields.entry(field).or_default();
            values.events += from.events;
            for (value, count) in from.by_value {
                values.count(&value, count, &mut self.bytes);
            }
        }
    }

    /// Field, share of the events that have the field, value.
    fn rows(&self) -> impl Iterator<Item = (&str, f32, &str)> {
        let fields = self.fields.iter().filter(|(_, values)| values.events >= FIELD_EVENTS_MIN);
        fields.flat_map(|(field, values)| values.shares().map(|(value, share)| (&**field, share, value)))
    }
}

impl Values {
    fn count(&mut self, value: &str, count: u64, bytes: &mut usize) {
        if let Some(known) = self.by_value.get_mut(value) {
            *known += count;
            return;
        }
        if *bytes + value.len() > BYTES_MAX {
            return;
        }
        if self.by_value.len() >= VALUES_MAX {
            self.forget(bytes);
        }
        *bytes += value.len();
        self.by_value.insert(value.into(), count);
    }

    /// Keeps the half that was met most, and of the others every third: they stand for all that is met rarely.
    fn forget(&mut self, bytes: &mut usize) {
        let mut values: Vec<(Box<str>, u64)> = self.by_value.drain().collect();
        values.sort_unstable_by(|(one, left), (other, right)| (Reverse(left), one).cmp(&(Reverse(right), other)));
        for (place, (value, count)) in values.into_iter().enumerate() {
            if place < VALUES_MAX / 2 || place % 3 == 0 {
                self.by_value.insert(value, count);
            } else {
                *bytes = bytes.saturating_sub(value.len());
            }
        }
    }

    /// Values met once stand for all events that none of the others was in.
    #[allow(clippy::as_conversions, clippy::cast_precision_loss)] // shares decide on cost alone
    fn shares(&self) -> impl Iterator<Item = (&str, f32)> {
        let events = self.events.max(1) as f32;
        let often: u64 = self.by_value.values().filter(|count| **count > 1).sum();
        let once = self.by_value.values().filter(|count| **count == 1).count().max(1) as f32;
        let rare = (1.0 - often as f32 / events).clamp(0.0, 1.0) / once;
        let share = move |count: u64| if count > 1 { count as f32 / events } else { rare };
        self.by_value.iter().map(move |(value, count)| (&**value, share(*count)))
    }
}

/// The board: what scanners of all rule sets of one line gathered.
#[derive(Debug, Default)]
pub(crate) struct Learnt {
    sample: Mutex<Sample>,
    fields: Mutex<BTreeSet<Arc<str>>>,
    plan: Mutex<Plan>,
}

/// What anchors are chosen by.
#[derive(Debug, Default)]
struct Plan {
    /// Events of the sample that it was made of.
    events: u64,
    profile: Option<Arc<Profile>>,
}

impl Learnt {
    /// Takes a scanner's sample in, unless another does just now: then it keeps it for the next time.
    pub(crate) fn gather(&self, sample: &mut Sample) {
        if sample.events == 0 {
            return;
        }
        let mut ours = match self.sample.try_lock() {
            Ok(ours) => ours,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        ours.merge(std::mem::take(sample));
    }

    /// Fields that events had.
    pub(crate) fn have(&self, fields: impl IntoIterator<Item = Arc<str>>) {
        lock(&self.fields).extend(fields);
    }

    /// The fields that events had until now.
    pub(crate) fn fields(&self) -> BTreeSet<Arc<str>> {
        lock(&self.fields).clone()
    }

    /// Makes a new profile if enough came since the last.
    pub(crate) fn renew(&self) -> bool {
        let mut plan = lock(&self.plan);
        let sample = lock(&self.sample);
        if sample.events < PLAN_EVENTS_MIN.max(plan.events.saturating_mul(AGAIN)) {
            return false;
        }
        *plan = Plan { events: sample.events, profile: Some(Arc::new(BUILT_IN.renewed(sample.rows()))) };
        true
    }

    /// What anchors are to be chosen by.
    pub(crate) fn profile(&self) -> Option<Arc<Profile>> {
        lock(&self.plan).profile.clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Events of a scanner that are sampled closely, so that the values of a small stream are known soon.
const CLOSELY: u32 = 1_024;
const CLOSELY_EVERY: u32 = 64;
const EVERY: u32 = 1_024;

/// What one scanner gathered and did not add to the board yet.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    pub(crate) sample: Sample,
    sampled: u32,
    until_next: u32,
}

impl Gathered {
    /// Where the values of this event go, if it is one that is sampled.
    #[inline]
    pub(crate) fn due(&mut self) -> Option<&mut Sample> {
        if self.until_next > 0 {
            self.until_next -= 1;
            return None;
        }
        self.until_next = if self.sampled < CLOSELY { CLOSELY_EVERY } else { EVERY } - 1;
        self.sampled = self.sampled.saturating_add(1);
        Some(&mut self.sample)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(values: &[(&str, u64)], events: u64) -> Vec<(String, f32)> {
        let mut all = Values { events, ..Values::default() };
        values.iter().for_each(|(value, count)| all.count(value, *count, &mut 0));
        let mut shares: Vec<_> = all.shares().map(|(value, share)| (value.to_owned(), share)).collect();
        shares.sort_by(|left, right| left.0.cmp(&right.0));
        shares
    }

    #[test]
    fn values_met_once_stand_for_what_is_left() {
        let found = shares(&[("a", 50), ("b", 1), ("c", 1)], 100);
        assert_eq!(found, [("a".to_owned(), 0.5), ("b".to_owned(), 0.25), ("c".to_owned(), 0.25)]);
    }

    #[test]
    fn a_sample_is_bounded_and_keeps_what_is_met_often() {
        let mut sample = Sample::default();
        let field: Arc<str> = Arc::from("F");
        let long = "x".repeat(10 * VALUE_BYTES_MAX);
        for i in 0..50_000 {
            sample.begin();
            sample.add(&field, &if i % 2 == 0 { "often".to_owned() } else { format!("{i} {long}") });
        }
        let values = &sample.fields["F"];
        assert!(values.by_value.len() <= VALUES_MAX && sample.bytes <= BYTES_MAX, "{}", sample.bytes);
        assert_eq!(values.by_value["often"], 25_000);
        assert_eq!(sample.bytes, values.by_value.keys().map(|value| value.len()).sum::<usize>());
        let share: f32 = values.shares().map(|(_, share)| share).sum();
        assert!((share - 1.0).abs() < 0.01, "{share}");
    }

    #[test]
    fn a_plan_is_made_once_enough_came_and_again_when_much_more_did() {
        let learnt = Learnt::default();
        let come = |events: u64| {
            let mut sample = Sample { events, ..Sample::default() };
            learnt.gather(&mut sample);
            learnt.renew()
        };
        assert_eq!([come(999), come(1), come(6_999), come(1), come(0)], [false, true, false, true, false]);
    }
}
