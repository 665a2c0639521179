//! One epoch, one transaction: from the graph's changed rows to threads, revisions, numbers, intents and audit.
//!
//! Three steps: load what the changed rows touch, decide (pure), write in batches (each table's rows as one JSON array
//! through `json_each`: a statement per table, not per row).

mod actions;
mod adopt;
mod alerts;
mod assessments;
mod backfilled;
pub(crate) mod incidents;
mod notices;
mod risk;
mod suppressed;

use std::collections::{BTreeMap, BTreeSet};

use cf_fail as fail;
use cf_types::{Alert, AlertId, Epoch, EpochOutput, EpochRecord, Incident, Score, Time};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    LedgerError, MemberSummary, MembersOf, Routes,
    audit::{self, Entry},
    database::{self, Connection},
    engine::Engine,
    restored,
};

/// What an epoch changed, for those who keep history and counts.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// The next epoch.
    pub upper: Epoch,
    /// Alerts that changed, by (anchor, id).
    pub alerts: Vec<AlertChange>,
    /// Incidents that changed, by number.
    pub incidents: Vec<IncidentChange>,
    /// How many intents were made.
    pub intents: usize,
}

/// What happened to an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertEvent {
    /// It is there, but events on their way could undo it: listed, and nobody is told.
    Provisional,
    /// It came, or came back after it was withdrawn, or is provisional no longer.
    Opened,
    /// Its material content changed.
    Amended,
    /// Its episode has another id now, nothing else material changed: a revision, but no message.
    Moved,
    /// Only counts, last time or peak changed: no revision.
    Gauge,
    /// It lies behind the horizon now.
    Sealed,
    /// It went for good.
    Withdrawn,
    /// Another id stands for it.
    Superseded,
}

impl AlertEvent {
    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            AlertEvent::Provisional => "provisional",
            AlertEvent::Opened => "opened",
            AlertEvent::Amended => "amended",
            AlertEvent::Moved => "moved",
            AlertEvent::Gauge => "gauge",
            AlertEvent::Sealed => "sealed",
            AlertEvent::Withdrawn => "withdrawn",
            AlertEvent::Superseded => "superseded",
        }
    }
}

/// One alert's change in an epoch.
#[derive(Clone, Debug)]
pub struct AlertChange {
    /// What happened.
    pub event: AlertEvent,
    /// Its content now; for one that went, its last content.
    pub alert: Alert,
    /// The first id of its lineage: what messages and tickets hang on.
    pub thread: AlertId,
    /// Rises with each material change in the thread.
    pub revision: i64,
    /// `provisional`, `open`, `sealed`, `withdrawn` or `superseded`.
    pub state: &'static str,
    /// Why it was withdrawn.
    pub reason: Option<String>,
    /// The id that stands for it now.
    pub superseded_by: Option<AlertId>,
    /// The incident's number that it belongs to.
    pub incident: Option<i64>,
}

/// One incident's change in an epoch.
#[derive(Clone, Debug)]
pub struct IncidentChange {
    /// Its number.
    pub number: i64,
    /// Its content now, or its last.
    pub incident: Incident,
    /// `open`, `closed`, `withdrawn` or `merged`.
    pub state: &'static str,
    /// The number that stands for it after a merge.
    pub redirect: Option<i64>,
    /// Title of its gravest alert, once that is written; of a merged one none.
    pub title: Option<String>,
    /// That alert's score.
    pub score: Option<Score>,
}

pub(crate) use adopt::{adopt, differences};

/// Why alerts go that the graph gives no reason for.
const EVIDENCE_WITHDRAWN: &str = "evidence_withdrawn";

/// Applies one epoch in one transaction.
pub(crate) async fn apply(
    connection: &mut Connection<'_>,
    record: &EpochRecord,
    output: &EpochOutput,
    routes: &Routes,
    members: &MembersOf<'_>,
) -> Result<Applied, LedgerError> {
    apply_because(connection, record, output, routes, members, EVIDENCE_WITHDRAWN).await
}

async fn apply_because(
    connection: &mut Connection<'_>,
    record: &EpochRecord,
    output: &EpochOutput,
    routes: &Routes,
    members: &MembersOf<'_>,
    reason: &'static str,
) -> Result<Applied, LedgerError> {
    let store = LedgerError::store("apply an epoch");
    let mut transaction = connection.begin().await.map_err(&store)?;
    let engine = advance(&mut transaction, record).await?;
    let mut applied = Applied { upper: record.epoch.saturating_add(1), ..Applied::default() };
    write_epoch(&mut transaction, record, output).await?;
    if !output.rows.is_empty() || !output.lineage.is_empty() {
        let mut step = Step {
            at: record.wall,
            record,
            reason,
            audit: Vec::new(),
            members: BTreeMap::new(),
            digest: engine.digest,
        };
        let decided = alerts::apply(&mut transaction, &mut step, output, members).await?;
        applied.incidents = incidents::apply(&mut transaction, &mut step, output, &decided).await?;
        applied.alerts = incidents::numbered(&mut transaction, decided).await?;
        let quiet = backfilled::note(&mut transaction, &step, &applied.alerts).await?;
        risk::write(&mut transaction, &step, output).await?;
        suppressed::write(&mut transaction, &mut step, output).await?;
        assessments::write(&mut transaction, &step, output).await?;
        applied.intents += actions::apply(&mut transaction, &mut step, output).await?;
        let mut telling = applied.alerts.clone();
        telling.retain(|change| !quiet.contains(&change.thread));
        applied.intents += notices::apply(&mut transaction, &mut step, &telling, routes).await?;
        write_digest(&mut transaction, step.digest).await?;
        audit::append(&mut transaction, record.wall, &step.audit).await?;
    }
    restored::verify_first(&mut transaction, record).await?;
    fail::point("ledger.before_commit");
    fail::sync("ledger.sync", || Ok(())).map_err(sqlx::Error::Io).map_err(&store)?;
    transaction.commit().await.map_err(&store)?;
    fail::point("ledger.committed");
    Ok(applied)
}

/// What the parts of one application share.
struct Step<'a> {
    at: Time,
    record: &'a EpochRecord,
    reason: &'static str,
    audit: Vec<Entry>,
    members: BTreeMap<AlertId, MemberSummary>,
    digest: u128,
}

/// Compare-and-append: only exactly the next epoch of the generation that holds the ledger passes.
async fn advance(connection: &mut Connection<'_>, record: &EpochRecord) -> Result<Engine, LedgerError> {
    let store = LedgerError::store("advance the epoch");
    let engine = Engine::load(connection).await?;
    let done = database::query("UPDATE engine SET upper = upper + 1 WHERE upper = $1 AND generation = $2")
        .bind(number(record.epoch))
        .bind(number(record.generation))
        .execute(&mut *connection)
        .await
        .map_err(&store)?;
    if done.rows_affected() != 1 {
        return Err(LedgerError::Fenced {
            epoch: record.epoch,
            generation: record.generation,
            upper: engine.upper,
            holder: engine.generation,
        });
    }
    Ok(engine)
}

async fn write_epoch(
    connection: &mut Connection<'_>,
    record: &EpochRecord,
    output: &EpochOutput,
) -> Result<(), LedgerError> {
    let text = serde_json::to_string(record).map_err(LedgerError::damaged("the epoch record"))?;
    database::query("INSERT INTO epochs VALUES ($1, $2, $3, $4)")
        .bind(number(record.epoch))
        .bind(record.wall.micros())
        .bind(output.watermark.map(Time::micros))
        .bind(text)
        .execute(&mut *connection)
        .await
        .map_err(LedgerError::store("write the epoch record"))?;
    let begun: BTreeSet<_> = record.begun.iter().collect();
    let begun: Vec<Value> = begun.into_iter().map(|rule| json!([rule, record.epoch])).collect();
    let insert = "INSERT INTO rule_since SELECT value->>0, CAST(value->>1 AS BIGINT) FROM json_each($1) WHERE true
                  ON CONFLICT (rule) DO UPDATE SET epoch = excluded.epoch";
    batch(connection, insert, begun.clone()).await?;
    // The watermark that the graph had then: records of epochs are trimmed, and this is asked for at any later start.
    let insert = "INSERT INTO rule_watermarks
                  SELECT value->>0, CAST(value->>1 AS BIGINT),
                         (SELECT watermark FROM epochs WHERE epoch = CAST(value->>1 AS BIGINT) - 1)
                  FROM json_each($1) WHERE true
                  ON CONFLICT (rule) DO UPDATE SET epoch = excluded.epoch, watermark = excluded.watermark";
    batch(connection, insert, begun).await
}

async fn write_digest(connection: &mut Connection<'_>, digest: u128) -> Result<(), LedgerError> {
    database::query("UPDATE engine SET digest = $1")
        .bind(format!("{digest:032x}"))
        .execute(connection)
        .await
        .map_err(LedgerError::store("write the digest"))?;
    Ok(())
}

/// Runs a statement over rows given as JSON arrays; does nothing without rows.
async fn batch(connection: &mut Connection<'_>, sql: &'static str, rows: Vec<Value>) -> Result<(), LedgerError> {
    if rows.is_empty() {
        return Ok(());
    }
    database::query(sql)
        .bind(Value::Array(rows).to_string())
        .execute(connection)
        .await
        .map_err(LedgerError::store("write an epoch's rows"))?;
    Ok(())
}

/// A list of ids as JSON text, for `IN (SELECT atom FROM json_each($1))`.
fn id_list<I: ToString>(ids: impl IntoIterator<Item = I>) -> String {
    Value::Array(ids.into_iter().map(|id| Value::from(id.to_string())).collect()).to_string()
}

/// An alert's id from its column.
fn parse_id(text: &str) -> Result<AlertId, LedgerError> {
    text.parse()
        .map_err(|error: cf_types::id::IdError| serde::de::Error::custom(error))
        .map_err(LedgerError::damaged("an alert's id"))
}

/// An unsigned number as SQLite's signed one; what does not fit is saturated (2^63 epochs do not happen).
pub(crate) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
