//! What each rule did: counted by every scanner for itself, added up in the rule set that they share.
//!
//! A scanner counts in plain memory and adds what is new to the rule set's board now and then ([`Counting::publish`]);
//! so the hot path has no atomics, and a reader needs no scanner. The numbers are for people: nothing depends on them.

use std::sync::atomic::{AtomicU64, Ordering};

/// What one plain rule did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleStats {
    /// Events that fulfilled it; repeats of an event count each time.
    pub hits: u64,
    /// Events for which it was evaluated, because its anchor was met or it has none.
    pub candidates: u64,
    /// Nanoseconds spent in it, in those events that were timed.
    pub nanos_sampled: u64,
}

/// The sums over all scanners of a rule set.
#[derive(Debug)]
pub(crate) struct Tally {
    rules: Box<[[AtomicU64; 3]]>,
}

impl Tally {
    pub(crate) fn new(rules: usize) -> Tally {
        Tally { rules: (0..rules).map(|_| Default::default()).collect() }
    }

    pub(crate) fn read(&self) -> Vec<RuleStats> {
        let load = |[hits, candidates, nanos]: &[AtomicU64; 3]| RuleStats {
            hits: hits.load(Ordering::Relaxed),
            candidates: candidates.load(Ordering::Relaxed),
            nanos_sampled: nanos.load(Ordering::Relaxed),
        };
        self.rules.iter().map(load).collect()
    }
}

/// One scanner's counts, by rule.
#[derive(Debug, Default)]
pub(crate) struct Counting {
    pub(crate) stats: Vec<RuleStats>,
    published: Vec<RuleStats>,
}

impl Counting {
    pub(crate) fn new(rules: usize) -> Counting {
        Counting { stats: vec![RuleStats::default(); rules], published: vec![RuleStats::default(); rules] }
    }

    pub(crate) fn hit(&mut self, rule: usize) {
        if let Some(stats) = self.stats.get_mut(rule) {
            stats.hits += 1;
        }
    }

    #[inline]
    pub(crate) fn candidate(&mut self, rule: usize) {
        if let Some(stats) = self.stats.get_mut(rule) {
            stats.candidates += 1;
        }
    }

    pub(crate) fn took(&mut self, rule: usize, time: std::time::Duration) {
        if let Some(stats) = self.stats.get_mut(rule) {
            stats.nanos_sampled += u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        }
    }

    /// Adds what is new to the board.
    pub(crate) fn publish(&mut self, tally: &Tally) {
        for ((now, before), sums) in self.stats.iter().zip(&mut self.published).zip(&tally.rules) {
            if now == before {
                continue;
            }
            let [hits, candidates, nanos] = sums;
            hits.fetch_add(now.hits - before.hits, Ordering::Relaxed);
            candidates.fetch_add(now.candidates - before.candidates, Ordering::Relaxed);
            nanos.fetch_add(now.nanos_sampled - before.nanos_sampled, Ordering::Relaxed);
            *before = *now;
        }
    }
}
