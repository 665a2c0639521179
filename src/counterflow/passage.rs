//! How event time goes on while all sources are silent.
//!
//! The watermark comes from events; without any it would stand still, and what waits for it would wait for ever: an
//! alert that is provisional, an incident that could be closed, a risk that falls. So while every source is idle the
//! engine's clock stands for them, and each epoch's record says how much of it passed: that is all that is decided here,
//! and a replay of the records is the same.
//!
//! An epoch is cut for it only when something happens by it (the graph says what it waits for), and at most one a second.
//! Time in which the engine did not run does not count: senders may have what they could not deliver meanwhile.

use std::time::{Duration, Instant};

use cf_types::{Cell, EpochOutput, Time};

/// The least time between two epochs that are cut for nothing but time.
const TIMER_EVERY: Duration = Duration::from_secs(1);

/// How much time has passed, and what waits for it.
#[derive(Debug)]
pub(crate) struct Passage {
    /// Up to here it is in an epoch's record, or sources were heard.
    since: Instant,
    watermark: Option<Time>,
    waits: Option<Cell>,
}

impl Passage {
    /// All sources count as just heard.
    pub(crate) fn new(now: Instant) -> Passage {
        Passage { since: now, watermark: None, waits: None }
    }

    /// A source was heard.
    pub(crate) fn heard(&mut self, now: Instant) {
        self.since = now;
    }

    /// An epoch is through.
    pub(crate) fn through(&mut self, output: &EpochOutput) {
        self.watermark = output.watermark;
        self.waits = output.waits;
    }

    /// Whether something would happen if an epoch said how much time has passed; all sources are idle.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.since);
        let (Some(watermark), Some(waits)) = (self.watermark, self.waits) else { return false };
        let reached = watermark.plus_micros(micros(passed)).cell();
        // What it has reached already does not come true by more of it.
        passed >= TIMER_EVERY && watermark.cell() < waits && waits <= reached
    }

    /// The milliseconds that passed, for an epoch's record; all sources are idle.
    pub(crate) fn take(&mut self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.since).as_millis();
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        self.since += Duration::from_millis(passed);
        passed
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_due_when_what_waits_is_reached_and_a_second_is_over() {
        let begin = Instant::now();
        let after = |ms: u64| begin + Duration::from_millis(ms);
        let mut passage = Passage::new(begin);
        let through = |passage: &mut Passage, watermark, waits| {
            let watermark = Some(Time::from_seconds(watermark));
            passage.through(&EpochOutput { watermark, waits, ..EpochOutput::default() });
        };
        assert!(!passage.is_due(after(1_000_000)), "nothing waits");
        through(&mut passage, 100, Some(105));
        assert_eq!([4_999, 5_000].map(|ms| passage.is_due(after(ms))), [false, true]);
        passage.heard(after(3_000));
        assert_eq!([7_999, 8_000].map(|ms| passage.is_due(after(ms))), [false, true]);
        // No fraction is lost, and none is counted twice.
        assert_eq!(passage.take(begin + Duration::from_micros(8_000_900)), 5_000);
        through(&mut passage, 105, Some(106));
        assert_eq!([8_999, 9_000].map(|ms| passage.is_due(after(ms))), [false, true]);
        assert_eq!(passage.take(after(9_500)), 1_500);
        // At most once a second, and never for what is reached already.
        through(&mut passage, 106, Some(106));
        assert!(!passage.is_due(after(99_000)));
        through(&mut passage, 106, None);
        assert!(!passage.is_due(after(99_000)));
    }
}
