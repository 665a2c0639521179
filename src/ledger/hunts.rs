//! What hunts found, each row once: that a row is known, the entry of the control log by which it enters the graph, and
//! the account of the run are one transaction. Whoever runs a hunt, the engine or a person beside it, comes through here.
//!
//! A row is forgotten when its time lies behind the horizon: what it raised is final by then, and the same row at a later
//! time is something new. The entries of the control log stay, as all do.

use cf_fail as fail;
use cf_types::{Detection, Epoch, Time};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    ControlEntry, ControlLog, LedgerError, Reader, control,
    database::{self, Connection, DbRow},
};

/// Rows that a hunt found; the body is a [`HuntFound`].
pub const HUNT_FOUND: &str = "hunt_found";

/// Rows of one entry of the control log.
const SLICE: usize = 500;

/// A row that a hunt found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HuntRow {
    /// As what it enters the graph; its event id is the row's identity.
    pub detection: Detection,
    /// What the query said, for people.
    pub row: Value,
}

/// Rows that were new, as an entry of the control log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HuntFound {
    /// Id of the rule.
    pub hunt: String,
    /// Hash of its text.
    pub version: String,
    /// The rows.
    pub rows: Vec<HuntRow>,
}

/// One run of a hunt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HuntRun {
    /// Id of the rule.
    pub hunt: String,
    /// Hash of its text.
    pub version: String,
    /// Who ran it: `schedule`, or a person.
    pub by: String,
    /// When it began.
    pub at: Time,
    /// How long it took.
    pub took_ms: u64,
    /// Begin of the event time that was looked at.
    pub from: Option<Time>,
    /// Its end, exclusive.
    pub to: Option<Time>,
    /// The last epoch that history held when it began.
    pub epoch: Epoch,
    /// Rows of the answer.
    pub rows: u64,
    /// Those that were not known.
    pub new: u64,
    /// Those whose time lies behind the horizon: they raise nothing any more.
    pub behind: u64,
    /// Why it came to nothing, in one word; `None` if it did not.
    pub code: Option<String>,
    /// The same in a sentence.
    pub error: Option<String>,
    /// Runs in a row that failed, this one among them.
    pub failures: u64,
}

/// How a hunt stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HuntState {
    /// Its last run.
    pub last: HuntRun,
    /// Its last run that did not fail.
    pub done: Option<HuntRun>,
}

/// What the rows of an entry enter the graph as; nothing for entries of other kinds.
///
/// # Errors
/// The entry is damaged.
pub fn found(entry: &ControlEntry) -> Result<Vec<Detection>, LedgerError> {
    if entry.kind != HUNT_FOUND {
        return Ok(Vec::new());
    }
    Ok(read(&entry.body)?.rows.into_iter().map(|row| row.detection).collect())
}

fn read(body: &str) -> Result<HuntFound, LedgerError> {
    serde_json::from_str(body).map_err(LedgerError::damaged("what a hunt found"))
}

impl ControlLog {
    /// Records a run with what it found: rows that are known are passed over, those before `horizon` too, and known ones
    /// before it are forgotten. Gives the run as it was recorded, with the rows that were new.
    ///
    /// # Errors
    /// The ledger cannot be read or written; then nothing was recorded.
    pub async fn hunt_ran(
        &mut self,
        mut run: HuntRun,
        rows: Vec<HuntRow>,
        horizon: Option<Time>,
    ) -> Result<(HuntRun, Vec<HuntRow>), LedgerError> {
        let store = LedgerError::store("record a hunt");
        let mut transaction = self.connection().begin().await.map_err(&store)?;
        if let Some(horizon) = horizon {
            database::query("DELETE FROM hunt_rows WHERE hunt = $1 AND time < $2")
                .bind(&run.hunt)
                .bind(horizon.micros())
                .execute(&mut *transaction)
                .await
                .map_err(&store)?;
        }
        let mut new = Vec::new();
        for row in rows {
            if horizon.is_some_and(|horizon| row.detection.member.time < horizon) {
                run.behind += 1;
            } else if is_new(&mut transaction, &run.hunt, &row).await? {
                new.push(row);
            }
        }
        run.new = u64::try_from(new.len()).unwrap_or(u64::MAX);
        for rows in new.chunks(SLICE) {
            let found = HuntFound { hunt: run.hunt.clone(), version: run.version.clone(), rows: rows.to_vec() };
            let body = serde_json::to_string(&found).map_err(LedgerError::damaged("what a hunt found"))?;
            control::append_in(&mut transaction, HUNT_FOUND, &body, &run.by, "a hunt found it", run.at).await?;
        }
        let before = state(&mut transaction, &run.hunt).await?;
        let failed_before = before.as_ref().map_or(0, |before| before.last.failures);
        run.failures = if run.code.is_some() { failed_before + 1 } else { 0 };
        let done = if run.code.is_none() { Some(run.clone()) } else { before.and_then(|before| before.done) };
        let text = |run: &HuntRun| serde_json::to_string(run).map_err(LedgerError::damaged("the run of a hunt"));
        database::query(
            "INSERT INTO hunt_runs(hunt, last, done) VALUES ($1, $2, $3)
             ON CONFLICT (hunt) DO UPDATE SET last = excluded.last, done = excluded.done",
        )
        .bind(&run.hunt)
        .bind(text(&run)?)
        .bind(done.as_ref().map(text).transpose()?)
        .execute(&mut *transaction)
        .await
        .map_err(&store)?;
        fail::point("hunt.before_commit");
        transaction.commit().await.map_err(&store)?;
        fail::point("hunt.committed");
        Ok((run, new))
    }

    /// How a hunt stands; `None` if it never ran.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn hunt_state(&mut self, hunt: &str) -> Result<Option<HuntState>, LedgerError> {
        state(self.connection(), hunt).await
    }
}

impl Reader {
    /// How each hunt stands that ever ran, by id.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn hunts(&self) -> Result<Vec<HuntState>, LedgerError> {
        let mut connection = self.pool.acquire().await.map_err(LedgerError::store("read how hunts stand"))?;
        if !crate::schema::has_table(&mut connection, "hunt_runs").await? {
            return Ok(Vec::new()); // a folder that no engine of this version has opened
        }
        let rows = database::query("SELECT last, done FROM hunt_runs ORDER BY hunt").fetch_all(&mut connection).await;
        rows.map_err(LedgerError::store("read how hunts stand"))?.iter().map(state_of).collect()
    }

    /// What a hunt found last, newest entries first, at most so many rows.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn hunt_rows(&self, hunt: &str, limit: usize) -> Result<Vec<HuntRow>, LedgerError> {
        let mut connection = self.pool.acquire().await.map_err(LedgerError::store("read how hunts stand"))?;
        let bodies = database::query(
            "SELECT body FROM control WHERE kind = $1 AND body->>'hunt' = $2 ORDER BY seq DESC LIMIT $3",
        )
        .bind(HUNT_FOUND)
        .bind(hunt)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&mut connection)
        .await
        .and_then(|rows| rows.iter().map(|row| row.try_get("body")).collect::<Result<Vec<String>, _>>())
        .map_err(LedgerError::store("read what a hunt found"))?;
        let mut found = Vec::new();
        for body in bodies {
            found.extend(read(&body)?.rows);
            if found.len() >= limit {
                break;
            }
        }
        found.truncate(limit);
        Ok(found)
    }
}

/// Notes a row; whether it was not known.
async fn is_new(transaction: &mut Connection<'_>, hunt: &str, row: &HuntRow) -> Result<bool, LedgerError> {
    let member = &row.detection.member;
    let done = database::query("INSERT INTO hunt_rows(hunt, row, time) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
        .bind(hunt)
        .bind(member.id.to_string())
        .bind(member.time.micros())
        .execute(transaction)
        .await
        .map_err(LedgerError::store("record a hunt"))?;
    Ok(done.rows_affected() > 0)
}

async fn state(connection: &mut Connection<'_>, hunt: &str) -> Result<Option<HuntState>, LedgerError> {
    let row =
        database::query("SELECT last, done FROM hunt_runs WHERE hunt = $1").bind(hunt).fetch_optional(connection).await;
    row.map_err(LedgerError::store("read how a hunt stands"))?.as_ref().map(state_of).transpose()
}

fn state_of(row: &DbRow) -> Result<HuntState, LedgerError> {
    let store = LedgerError::store("read how a hunt stands");
    let (last, done): (String, Option<String>) =
        row.try_get("last").and_then(|last| Ok((last, row.try_get("done")?))).map_err(store)?;
    let run = |text: String| serde_json::from_str(&text).map_err(LedgerError::damaged("the run of a hunt"));
    Ok(HuntState { last: run(last)?, done: done.map(run).transpose()? })
}
