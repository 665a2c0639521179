//! How far event time has come: the watermark, computed from the records themselves.
//!
//! In: per source the newest time of its events that is not too far ahead of receipt; which sources were idle by the
//! epoch's record; a watermark restored at a restart. Out: W whenever it rose, at the epoch after which it holds: what
//! it rules are the epochs after. Key: none, one worker. Memory: one time per source name. W never goes back.
//!
//! W = min over sources that are not idle of (newest time - disorder). A source is known from its first event on.
//!
//! While all sources are idle, event time goes on as the clock does, and W with it: an epoch's record says how much time
//! has passed. So W stands as far behind the clock as the sources were when they fell silent, whatever year their events
//! are of; and where there is no W, none begins.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use cf_types::{Epoch, Time};
use serde::{Deserialize, Serialize};
use timely::dataflow::{StreamVec, channels::pact::Exchange};

use crate::epochs::per_epoch;

/// What the watermark is made of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Signal {
    /// A source's events reach to this time.
    Seen(Arc<str>, Time),
    /// This source does not hold others back in this epoch.
    Idle(Arc<str>),
    /// The watermark was already here before a restart.
    Restored(Time),
    /// All sources were idle while so many microseconds passed.
    Passed(i64),
    /// The input was bounded, and this was all of it. It moves no watermark: nothing expires by it.
    Ended,
}

/// Follows the watermark on one worker.
pub(crate) fn watermark<'s>(signals: StreamVec<'s, Epoch, Signal>, disorder_us: i64) -> StreamVec<'s, Epoch, Time> {
    let mut state = Watermark::default();
    per_epoch(signals, Exchange::new(|_: &Signal| 0), "Watermark", move |_epoch, signals, out| {
        out.extend(state.rise(signals, disorder_us));
    })
}

/// The state: pure.
#[derive(Default)]
struct Watermark {
    newest: BTreeMap<Arc<str>, Time>,
    now: Option<Time>,
}

impl Watermark {
    /// Takes one epoch's signals in; gives the watermark if it rose.
    fn rise(&mut self, signals: Vec<Signal>, disorder_us: i64) -> Option<Time> {
        let mut idle = BTreeSet::new();
        let (mut restored, mut passed) = (None, 0);
        for signal in signals {
            match signal {
                Signal::Seen(source, time) => {
                    let newest = self.newest.entry(source).or_insert(time);
                    *newest = time.max(*newest);
                }
                Signal::Idle(source) => {
                    idle.insert(source);
                }
                Signal::Restored(time) => restored = restored.max(Some(time)),
                Signal::Passed(micros) => passed = passed.max(micros),
                Signal::Ended => {}
            }
        }
        let reached = self
            .newest
            .iter()
            .filter(|(source, _)| !idle.contains(*source))
            .map(|(_, time)| time.plus_micros(disorder_us.saturating_neg()))
            .min();
        let before = self.now;
        self.now = before.max(reached).max(restored).map(|now| now.plus_micros(passed));
        self.now.filter(|_| self.now > before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `a10` = source a seen at 10 s, `-a` = a idle, `=10` = restored, `+3` = so long all were idle; epochs parted by `|`;
    /// disorder 2 s.
    #[track_caller]
    fn check(input: &str, expect: &str) {
        let mut state = Watermark::default();
        let seconds = |text: &str| Time::from_seconds(text.parse().unwrap());
        let got: Vec<String> = input
            .split('|')
            .map(|epoch| {
                let signals = epoch.split_whitespace().map(|word| match word.split_at(1) {
                    ("-", source) => Signal::Idle(source.into()),
                    ("=", time) => Signal::Restored(seconds(time)),
                    ("+", passed) => Signal::Passed(passed.parse::<i64>().unwrap() * 1_000_000),
                    (source, time) => Signal::Seen(source.into(), seconds(time)),
                });
                state.rise(signals.collect(), 2_000_000).map_or("-".into(), |time| time.cell().to_string())
            })
            .collect();
        assert_eq!(got.join(" "), expect, "{input}");
    }

    #[test]
    fn the_slowest_source_rules() {
        check("a10 b5 | a20 | b30", "3 - 18");
    }

    #[test]
    fn it_never_goes_back() {
        check("a10 | b5 | b6", "8 - -");
        check("a10 | a5", "8 -");
    }

    #[test]
    fn idle_sources_do_not_hold_others_back_while_they_are_idle() {
        check("a10 b5 | a20 -b | a30 | a40 b39", "3 18 - 37");
        check("a10 -a", "-");
    }

    #[test]
    fn time_goes_on_while_all_are_idle() {
        check("a10 b5 | a20 -b | -a -b +7 | -a -b | -a -b +1 | a24 -b | b99", "3 18 25 - 26 - -");
        check("-a +7 | a10 -a +7 | a10", "- - 8");
    }

    #[test]
    fn a_restored_watermark_holds_until_the_sources_are_past_it() {
        check("=50 | a10 | a60", "50 - 58");
    }
}
