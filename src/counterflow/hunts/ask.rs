//! One run of a hunt: which time is looked at, the question, the rows, the record.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result};
use cf_ledger::{ControlLog, HuntRow, HuntRun, HuntState};
use cf_queries::{Options, QueryError, Session};
use cf_types::{Epoch, Time, clock};
use serde_json::{Map, Value};

use super::{Subject, rows};
use crate::sql;

/// Rows of one answer.
pub(crate) const ROWS_MAX: u64 = 10_000;
/// Bytes of one answer, as JSON.
pub(crate) const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Microseconds of a second.
const MICROS: i64 = 1_000_000;

/// Where hunts ask.
#[derive(Clone)]
pub(crate) struct Asker {
    pub(crate) data: PathBuf,
    pub(crate) session: Session,
    /// How far back alerts are corrected; `None` where nothing is ever final.
    pub(crate) horizon_s: Option<i64>,
    /// How far ahead of the clock an event may be dated.
    pub(crate) max_ahead_s: i64,
}

/// What is asked beside the hunt.
#[derive(Clone, Debug, Default)]
pub(crate) struct How {
    /// Who asks.
    pub(crate) by: String,
    /// The time that is looked at instead of what the hunt would look at.
    pub(crate) from: Option<Time>,
    pub(crate) to: Option<Time>,
    /// Nothing is recorded.
    pub(crate) dry: bool,
}

/// What came of a run.
pub(crate) struct Ran {
    pub(crate) run: HuntRun,
    /// All rows of the answer, as they were recorded or would be.
    pub(crate) rows: Vec<HuntRow>,
    /// Those that were not known; of a dry run none.
    pub(crate) new: Vec<HuntRow>,
}

/// Why a run came to nothing.
pub(crate) struct Failed {
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

impl From<QueryError> for Failed {
    fn from(error: QueryError) -> Failed {
        Failed { code: sql::code(&error), message: error.to_string() }
    }
}

impl Asker {
    /// Over a data folder, by the limits of SQL but for the rows.
    pub(crate) fn new(data: &Path, options: Options, horizon_s: Option<i64>, max_ahead_s: i64) -> Result<Asker> {
        let options = Options { rows_max: Some(ROWS_MAX), ..options };
        let session = Session::open(cf_history::Place::of_data(data)?, options)?;
        Ok(Asker { data: data.to_path_buf(), session, horizon_s, max_ahead_s })
    }

    /// With the live tables.
    pub(crate) fn with_live(mut self, reader: cf_ledger::Reader) -> Asker {
        self.session = self.session.with_live(std::sync::Arc::new(sql::now::Now::new(reader)));
        self
    }

    /// Runs a hunt and records what came of it, also that it came to nothing. An error is only that the ledger cannot be
    /// read or written: then nothing happened.
    pub(crate) async fn run(&self, subject: &Subject, how: &How) -> Result<Ran> {
        let (at, began) = (clock::now(), Instant::now());
        let mut log = ControlLog::open(&self.data).await?;
        let id = subject.info.id.to_string();
        let state = log.hunt_state(&id).await?.unwrap_or_default();
        let mut run = HuntRun { version: subject.version(), hunt: id, by: how.by.clone(), at, ..HuntRun::default() };
        let asked = Box::pin(self.ask(subject, how, &state, &mut run)).await;
        let rows = asked.unwrap_or_else(|failed| {
            (run.code, run.error) = (Some(failed.code.to_owned()), Some(failed.message));
            Vec::new()
        });
        run.took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        run.rows = u64::try_from(rows.len()).unwrap_or(u64::MAX);
        if how.dry {
            return Ok(Ran { run, rows, new: Vec::new() });
        }
        let horizon = self.horizon_of(run.to.into_iter().chain(state.done.and_then(|done| done.to)).max());
        let recorded = log.hunt_ran(run, rows.clone(), horizon).await;
        let (run, new) = recorded.context("what a hunt found could not be recorded")?;
        Ok(Ran { run, rows, new })
    }

    async fn ask(
        &self,
        subject: &Subject,
        how: &How,
        state: &HuntState,
        run: &mut HuntRun,
    ) -> Result<Vec<HuntRow>, Failed> {
        // A question that is new has seen nothing yet.
        let done = state.done.as_ref().filter(|done| done.version == run.version);
        let came = self.came(done).await?;
        let look = Look { window_s: subject.hunt.window_s, horizon_s: self.horizon_s };
        let before = done.and_then(|done| done.to);
        let (from, to) = look.span(&came, before, run.at);
        // Without any event nothing says what time it is there: the clock bounds this look, and is not remembered.
        let is_known = came.newest.is_some() || before.is_some();
        (run.from, run.to, run.epoch) = (Some(from), is_known.then_some(to), came.upto);
        let (from, to) = (how.from.unwrap_or(from), how.to.unwrap_or(to));
        let times = BTreeMap::from([("from", from), ("to", to)]);
        let mut answer = self.session.query_with_times(&subject.hunt.query, &times).await?;
        let mut lines = Lines::default();
        let written = cf_queries::write_json_lines(&mut answer, &mut lines).await;
        if lines.cut {
            let message = format!("the answer has more than {ANSWER_BYTES_MAX} bytes; select fewer columns");
            return Err(Failed { code: "answer_limit", message });
        }
        written?;
        let wrong = |message| Failed { code: "row", message };
        let each = lines.bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        each.map(|line| {
            let row: Map<String, Value> = serde_json::from_slice(line).map_err(|error| wrong(error.to_string()))?;
            rows::detection(subject, &row).map_err(wrong)
        })
        .collect()
    }

    /// What history got since a run.
    async fn came(&self, done: Option<&HuntRun>) -> Result<Came, Failed> {
        let seen = done.map_or(0, |done| done.epoch);
        // A source whose clock is wrong must not move the time that is looked at.
        let until = back(clock::now(), self.max_ahead_s.saturating_neg());
        let statement = format!(
            "SELECT (SELECT max(epoch) FROM epochs) AS upto, CAST(min(time) AS BIGINT) AS oldest,
                    CAST(max(time) AS BIGINT) AS newest
             FROM events WHERE epoch > {seen} AND time <= $until"
        );
        let mut rows = self.session.query_with_times(&statement, &BTreeMap::from([("until", until)])).await?;
        let mut lines = Lines::default();
        cf_queries::write_json_lines(&mut rows, &mut lines).await?;
        let row: Value = serde_json::from_slice(&lines.bytes)
            .map_err(|error| Failed { code: "history", message: error.to_string() })?;
        let time = |column: &str| row.get(column).and_then(Value::as_i64).map(Time::from_micros);
        let upto = row.get("upto").and_then(Value::as_u64).unwrap_or(seen);
        Ok(Came { upto, oldest: time("oldest"), newest: time("newest") })
    }

    fn horizon_of(&self, to: Option<Time>) -> Option<Time> {
        Some(back(to?, self.horizon_s?))
    }
}

/// What history got since the last run.
#[derive(Clone, Copy, Debug, Default)]
struct Came {
    /// The last epoch that it holds.
    upto: Epoch,
    oldest: Option<Time>,
    newest: Option<Time>,
}

/// How far is looked.
#[derive(Clone, Copy, Debug)]
struct Look {
    window_s: u32,
    horizon_s: Option<i64>,
}

impl Look {
    /// Begin and end of the event time that is looked at. `before` is where the last look ended.
    fn span(self, came: &Came, before: Option<Time>, now: Time) -> (Time, Time) {
        let newest = came.newest.map(|newest| Time::from_micros(newest.micros().saturating_add(1)));
        let to = newest.into_iter().chain(before).max().unwrap_or(now);
        let window_s = i64::from(self.window_s);
        let oldest = came.oldest.into_iter().chain([to]).min().unwrap_or(to);
        let from = back(oldest, window_s);
        let floor = self.horizon_s.map(|horizon_s| back(to, horizon_s.saturating_add(window_s)));
        (floor.map_or(from, |floor| from.max(floor)), to)
    }
}

fn back(time: Time, seconds: i64) -> Time {
    Time::from_micros(time.micros().saturating_sub(seconds.saturating_mul(MICROS)))
}

/// Takes an answer up to its limit.
#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
    cut: bool,
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > ANSWER_BYTES_MAX {
            self.cut = true;
            return Err(io::Error::other("the answer is too long"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds: window, horizon, oldest and newest of what came, end of the last look; the look.
    #[track_caller]
    fn check(window: u32, horizon: Option<i64>, came: Option<(i64, i64)>, before: Option<i64>, expect: (i64, i64)) {
        let look = Look { window_s: window, horizon_s: horizon };
        let (oldest, newest) = (came.map(|came| came.0), came.map(|came| came.1));
        let came = Came { upto: 9, oldest: oldest.map(Time::from_seconds), newest: newest.map(Time::from_seconds) };
        let (from, to) = look.span(&came, before.map(Time::from_seconds), Time::from_seconds(1_000_000));
        let whole = |time: Time| time.micros().div_euclid(MICROS);
        assert_eq!((whole(from), whole(to)), expect);
    }

    #[test]
    fn a_look_ends_behind_the_newest_event_and_reaches_a_window_behind_what_is_new() {
        check(100, Some(10_000), Some((50_000, 50_060)), Some(50_000), (49_900, 50_060));
    }

    #[test]
    fn a_late_event_widens_the_next_look_as_far_as_the_horizon() {
        check(100, Some(10_000), Some((45_000, 50_060)), Some(50_000), (44_900, 50_060));
        check(100, Some(10_000), Some((3, 50_060)), Some(50_000), (50_060 - 10_000 - 100, 50_060));
        check(100, None, Some((3, 50_060)), Some(50_000), (-97, 50_060));
    }

    #[test]
    fn without_new_events_the_same_window_is_looked_at_again() {
        check(100, Some(10_000), None, Some(50_000), (49_900, 50_000));
    }

    #[test]
    fn late_events_alone_do_not_move_the_end() {
        check(100, Some(10_000), Some((48_000, 49_000)), Some(50_000), (47_900, 50_000));
    }

    #[test]
    fn an_empty_history_is_looked_at_up_to_now() {
        check(100, Some(10_000), None, None, (999_900, 1_000_000));
    }
}
