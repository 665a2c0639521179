//! Says when alerts are scored anew because of facts: at once, or in slices where one fact concerns very many (RSK-06).
//!
//! A rule's precision, or the criticality of a network, may move the scores of more alerts than an epoch should carry; then
//! everything else of that epoch, and of those behind it, would wait for them. So of an epoch whose facts concern more than
//! [`Rescore::at_once`] alerts all wait, and each epoch from it on scores the first of those that wait, in the order of
//! epoch and id. An alert that changes by itself is scored at once, with all facts, and waits no more: nothing new is held
//! up. When none waits, everything is as the facts say.
//!
//! In: which alerts were touched, by what; that an epoch was begun. Out: the alerts that are due, and how many wait. Key: none,
//! ids alone come to one worker, so the slices do not depend on the number of workers. Memory: the ids that wait; they leave
//! with their slice. Output appears when the epoch is complete.

use std::collections::{BTreeMap, BTreeSet};

use cf_types::{AlertId, Epoch};
use serde::{Deserialize, Serialize};
use timely::dataflow::{StreamVec, channels::pact::Exchange};

use crate::epochs::per_epoch_with;

/// An epoch scores this part of what may be scored at once.
const SLICES: usize = 10;

/// Why an alert may have another score.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Touched {
    /// It changed, or what was said names it alone.
    Itself(AlertId),
    /// A fact that it shares with others came or went.
    ByFact(AlertId),
}

/// What every worker is told alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beside {
    /// An epoch was begun.
    Begun,
    /// Nothing may wait beyond this epoch: the input ends with it, or it stands for what was before a restart.
    Everything,
}

/// What this operator gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Paced {
    /// An alert is to be scored.
    Due(AlertId),
    /// So many wait after this epoch.
    Waiting(u64),
}

/// Cuts what facts touch into slices.
pub(crate) fn rescore<'s>(
    touched: StreamVec<'s, Epoch, Touched>,
    beside: StreamVec<'s, Epoch, Beside>,
    at_once: usize,
) -> StreamVec<'s, Epoch, Paced> {
    let mut state = Rescore { at_once, ..Rescore::default() };
    let to_one = Exchange::new(|_: &Touched| 2);
    per_epoch_with(touched, to_one, beside, "Rescore", move |epoch, touched, beside, out| {
        let everything = beside.contains(&Beside::Everything);
        state.epoch(epoch, touched, everything, out);
    })
}

/// The ids that wait: pure.
#[derive(Default)]
struct Rescore {
    /// Alerts that facts of one epoch may touch without that they wait.
    at_once: usize,
    waiting: BTreeSet<(Epoch, AlertId)>,
    since: BTreeMap<AlertId, Epoch>,
    told: usize,
}

impl Rescore {
    fn epoch(&mut self, epoch: Epoch, touched: Vec<Touched>, everything: bool, out: &mut Vec<Paced>) {
        let (mut due, mut by_fact) = (BTreeSet::new(), BTreeSet::new());
        for touched in touched {
            match touched {
                Touched::Itself(id) => due.insert(id),
                Touched::ByFact(id) => by_fact.insert(id),
            };
        }
        by_fact.retain(|id| !due.contains(id));
        if by_fact.len() <= self.at_once || everything {
            due.append(&mut by_fact);
        }
        for id in &due {
            if let Some(since) = self.since.remove(id) {
                self.waiting.remove(&(since, *id));
            }
        }
        for id in by_fact {
            let since = *self.since.entry(id).or_insert(epoch);
            self.waiting.insert((since, id));
        }
        let slice = if everything { usize::MAX } else { self.at_once.div_ceil(SLICES).max(1) };
        for _ in 0..slice.min(self.waiting.len()) {
            let Some((_, id)) = self.waiting.pop_first() else { break };
            self.since.remove(&id);
            due.insert(id);
        }
        out.extend(due.into_iter().map(Paced::Due));
        if self.told != self.waiting.len() {
            self.told = self.waiting.len();
            out.push(Paced::Waiting(u64::try_from(self.told).unwrap_or(u64::MAX)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `f1-5` facts touch alerts 1 to 5, `i3` alert 3 changes, `!` nothing may wait; epochs parted by `|`. Ten at once, so one
    /// by one in slices. Shown is what is due and, in brackets, how many wait when that changed.
    #[track_caller]
    fn check(input: &str, expect: &str) {
        let mut state = Rescore { at_once: 10, ..Rescore::default() };
        let id = |number: u8| AlertId([number; 16]);
        let shown = input.split('|').zip(1..).map(|(epoch, at)| {
            let mut touched = Vec::new();
            for word in epoch.split_whitespace().filter(|word| *word != "!") {
                let (kind, numbers) = word.split_at(1);
                let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
                let numbers = first.parse::<u8>().unwrap()..=last.parse().unwrap();
                let of = if kind == "f" { Touched::ByFact } else { Touched::Itself };
                touched.extend(numbers.rev().map(|number| of(id(number))));
            }
            let mut out = Vec::new();
            state.epoch(at, touched, epoch.contains('!'), &mut out);
            let show = |paced: &Paced| match paced {
                Paced::Due(id) => id.0[0].to_string(),
                Paced::Waiting(number) => format!("({number})"),
            };
            out.iter().map(show).collect::<Vec<_>>().join(" ")
        });
        assert_eq!(shown.collect::<Vec<_>>().join(" | "), expect, "{input}");
    }

    #[test]
    fn what_concerns_few_is_scored_at_once_and_what_concerns_many_in_slices() {
        check("f1-3 | f4", "1 2 3 | 4");
        check("f1-10", "1 2 3 4 5 6 7 8 9 10");
        check("f1-12 | | i20 | f11-12 |", "1 (11) | 2 (10) | 3 20 (9) | 4 11 12 (6) | 5 (5)");
    }

    #[test]
    fn an_alert_that_changes_by_itself_waits_no_more() {
        check("f1-11 i1 | i5 i9", "1 2 3 4 5 6 7 8 9 10 11 | 5 9");
        check("f1-13 i1 | i5 i9 | ", "1 2 (11) | 3 5 9 (8) | 4 (7)");
    }

    #[test]
    fn those_that_wait_longest_are_next_and_at_the_end_none_waits() {
        check("f50-60 | f1-11 | f55-60 ", "50 (10) | 51 (20) | 52 55 56 57 58 59 60 (13)");
        check("f1-12 | f20-31 !", "1 (11) | 2 3 4 5 6 7 8 9 10 11 12 20 21 22 23 24 25 26 27 28 29 30 31 (0)");
        check("! f1-12 | f1", "1 2 3 4 5 6 7 8 9 10 11 12 | 1");
    }
}
