//! What people and programs may read: beside a running and beside a stopped engine.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use cf_types::{Entity, Epoch, EpochRecord, Fact, Hub, Incident, IncidentKind, IncidentSeverity, Tactic, Time};
use serde::Serialize;
use serde_json::Value;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};

use crate::{
    AuditFault, AuditRecord, ControlEntry, Engine, LedgerError, Location, MemberSummary, audit, control,
    database::{self, DbRow, Pool},
    format, schema, server,
};

mod progress;
mod risk;
mod triage;

pub use triage::{Standing, TriageView};

pub use risk::{AssessedEntity, AssessmentStory, AssessmentView, ContributionView, LevelChange, RiskStory, RiskView};

/// A reader of a data folder's ledger; clones share its few connections.
#[derive(Clone, Debug)]
pub struct Reader {
    pub(crate) pool: Pool,
}

/// An alert with what the ledger knows of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AlertView {
    /// Its id.
    pub alert_id: String,
    /// The first id of its lineage.
    pub thread: String,
    /// The thread's revision when it changed last.
    pub revision: i64,
    /// `open`, `sealed`, `withdrawn` or `superseded`.
    pub state: String,
    /// Why it was withdrawn.
    pub reason: Option<String>,
    /// The id that stands for it.
    pub superseded_by: Option<String>,
    /// Number of its incident.
    pub incident: Option<i64>,
    /// Whether it was found in history by a rule that is new: nobody was told of it.
    pub backfilled: bool,
    /// When it was opened, wall clock.
    pub opened_at: Time,
    /// When it changed last, wall clock.
    pub changed_at: Time,
    /// Its pure content, as [`cf_types::Alert`].
    pub content: Value,
    /// Its members, as far as they are kept inline.
    pub members: Option<MemberSummary>,
    /// How it is assessed now.
    #[serde(flatten)]
    pub standing: Standing,
}

/// An alert that is not told.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SuppressedView {
    /// Its id.
    pub alert_id: String,
    /// Why it is not told.
    pub reason: String,
    /// The fact that forbids it.
    pub fact: Fact,
    /// When it or the fact changed last, wall clock.
    pub changed_at: Time,
    /// What it would say, as [`cf_types::Alert`].
    pub content: Value,
}

/// Which alerts.
#[derive(Clone, Debug, Default)]
pub struct AlertFilter {
    /// In this state; none: in any.
    pub state: Option<String>,
    /// Of this rule.
    pub rule: Option<String>,
    /// Of this incident.
    pub incident: Option<i64>,
    /// This id or thread.
    pub id: Option<String>,
    /// At most so many, the last changed first; 0: 1,000.
    pub limit: u32,
}

/// An incident in a list.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct IncidentView {
    /// Its number.
    pub number: i64,
    /// Whose.
    pub tenant: String,
    /// `open`, `closed`, `withdrawn` or `merged`.
    pub state: String,
    /// The number that stands for it after a merge.
    pub redirect: Option<i64>,
    /// Title of its alert of the highest level (then the first).
    pub title: Option<String>,
    /// That alert's level.
    pub level: Option<String>,
    /// The highest score of its alerts, 0.0 to 10.0.
    pub score: f64,
    /// How many alerts it has that were not withdrawn or superseded.
    pub alerts: i64,
    /// Its entities.
    pub entities: Vec<Entity>,
    /// What kind of attack it is, how urgent, how far along the kill chain, and which of its entities did not connect.
    #[serde(flatten)]
    pub content: IncidentContent,
    /// Begin of its first alert, event time.
    pub first: Option<Time>,
    /// End of its last alert, event time.
    pub last: Option<Time>,
    /// When it was opened, wall clock.
    pub opened_at: Time,
    /// When its membership changed last, wall clock.
    pub changed_at: Time,
}

/// What an incident's alerts say of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct IncidentContent {
    /// `phishing`, `malware`, `brute_force`, ...
    #[serde(rename = "type")]
    pub kind: IncidentKind,
    /// `SEV1` (most urgent) to `SEV4`.
    pub severity: IncidentSeverity,
    /// Tactics of its alerts in the order of the kill chain.
    pub tactics: Vec<Tactic>,
    /// Entities that were hubs on the day before, so that they did not connect on their own.
    pub hubs: Vec<Hub>,
}

/// A step of the kill chain, with the alerts that show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KillChainStep {
    /// Which tactic.
    pub tactic: Tactic,
    /// Begin of its first alert, event time.
    pub first: Option<Time>,
    /// Titles of its alerts, each once, by first event.
    pub titles: Vec<String>,
    /// How many alerts.
    pub alerts: usize,
}

/// An incident with its story.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct IncidentStory {
    /// The incident.
    #[serde(flatten)]
    pub incident: IncidentView,
    /// What was done in the order of ATT&CK's tactics; withdrawn and superseded alerts do not count.
    pub kill_chain: Vec<KillChainStep>,
    /// Its alerts by first event.
    pub alert_list: Vec<AlertView>,
    /// What happened, in time order.
    pub timeline: Vec<TimelineEntry>,
}

/// One line of an incident's timeline.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TimelineEntry {
    /// When: event time for what the events show, wall clock for what we did.
    pub at: Time,
    /// `alert` (begins), `alert_opened`, `alert_amended`, `alert_moved`, `alert_withdrawn`, `notify`, `action`.
    pub kind: String,
    /// What, in a sentence.
    pub text: String,
    /// Thread, intent or action.
    pub subject: String,
    /// The receipt of a message or an action.
    pub receipt: Option<Value>,
}

/// One application of an action.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ActionView {
    /// Its number.
    pub id: i64,
    /// Kind and target as one id.
    pub action_id: String,
    /// `block_address`.
    pub kind: String,
    /// To whom.
    pub target: String,
    /// How long it lasts.
    pub ttl_s: u32,
    /// `planned`, `applying`, `in_force`, `undoing`, `undone`, `failed`, `refused` or `dry_run`.
    pub state: String,
    /// Why it ended: `expired`, `withdrawn`, `protected`.
    pub reason: Option<String>,
    /// The alerts that it was for.
    pub alerts: Vec<String>,
    /// When it was decided.
    pub planned_at: Time,
    /// When its effect was verified.
    pub applied_at: Option<Time>,
    /// Until when it is in force.
    pub until: Option<Time>,
    /// When it ended.
    pub ended_at: Option<Time>,
}

/// An intent with its outcome.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct IntentView {
    /// Its number.
    pub id: i64,
    /// `notify` or `action`.
    pub kind: String,
    /// What was to be done.
    pub operation: String,
    /// Channel or action.
    pub receiver: String,
    /// Its thread.
    pub thread: Option<String>,
    /// Its revision.
    pub revision: Option<i64>,
    /// The application that it belongs to.
    pub action: Option<i64>,
    /// `planned`, `trying`, `confirmed`, `failed`, `refused`, `dry_run` or `superseded`.
    pub state: String,
    /// Idempotency key.
    pub key: String,
    /// How often it was tried.
    pub tries: u32,
    /// When it was decided.
    pub made_at: Time,
    /// When it ended.
    pub done_at: Option<Time>,
    /// What was received for it.
    pub receipt: Option<Value>,
}

/// What waits and what failed, for health and metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Alerts by state.
    pub alerts: Vec<(String, i64)>,
    /// Incidents by state.
    pub incidents: Vec<(String, i64)>,
    /// Actions by state.
    pub actions: Vec<(String, i64)>,
    /// Intents by receiver and state.
    pub intents: Vec<(String, String, i64)>,
    /// When the oldest unfinished intent was made.
    pub oldest_unfinished: Option<Time>,
}

/// The alerts of a filter, with how it is known whether they are backfilled.
macro_rules! alerts_sql {
    ($backfilled:literal) => {
        concat!(
            "SELECT a.*, i.number AS incident, ",
            $backfilled,
            " AS backfilled
             FROM alerts a LEFT JOIN incident_alerts i ON i.alert_id = a.alert_id
             WHERE ($1 IS NULL OR $1 = CASE WHEN a.state = 'open' AND a.content->>'state' = 'provisional'
                                       THEN 'provisional' ELSE a.state END) AND ($2 IS NULL OR a.rule = $2) AND ($3 IS NULL OR i.number = $3)
               AND ($4 IS NULL OR a.alert_id = $4 OR a.thread = $4)
             ORDER BY a.changed_at DESC, a.alert_id LIMIT $5"
        )
    };
}

/// Opens a pool and looks at the format: some of what is wrong shows only then.
async fn connect(dir: &Path, options: SqliteConnectOptions) -> Result<Reader, LedgerError> {
    let store = LedgerError::store("open the file for reading");
    let pool = SqlitePoolOptions::new().max_connections(4).min_connections(0).acquire_timeout(Duration::from_secs(10));
    let pool = Pool::Sqlite(pool.connect_with(options).await.map_err(&store)?);
    let mut connection = pool.acquire().await.map_err(&store)?;
    schema::check(&mut connection, dir).await?;
    drop(connection);
    Ok(Reader { pool })
}

impl Reader {
    /// Opens the ledger of a folder for reading.
    ///
    /// # Errors
    /// There is none, it is of a newer format, or it cannot be read.
    pub async fn open(dir: &Path) -> Result<Reader, LedgerError> {
        format::check(dir)?;
        if let Some(location) = Location::of(dir)? {
            let pool = server::readers(&location).await?;
            let mut connection = pool.acquire().await.map_err(LedgerError::store("open the ledger for reading"))?;
            schema::check(&mut connection, dir).await?;
            drop(connection);
            return Ok(Reader { pool });
        }
        if !dir.join(schema::FILE).is_file() {
            return Err(LedgerError::Missing { dir: dir.to_path_buf() });
        }
        match connect(dir, schema::reading(dir)).await {
            Err(error @ LedgerError::Newer { .. }) => Err(error),
            // In a folder that we may not write, SQLite cannot make the WAL's index. Without a WAL nobody is writing
            // either, and the file alone is all.
            Err(_) if !dir.join(format!("{}-wal", schema::FILE)).exists() => {
                connect(dir, schema::reading(dir).immutable(true)).await
            }
            opened => opened,
        }
    }

    /// Where the engine stands.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn engine(&self) -> Result<Engine, LedgerError> {
        let mut connection = self.pool.acquire().await.map_err(LedgerError::store("read the engine's state"))?;
        Engine::load(&mut connection).await
    }

    /// Alerts, the last changed first.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn alerts(&self, filter: &AlertFilter) -> Result<Vec<AlertView>, LedgerError> {
        let limit = if filter.limit == 0 { 1_000 } else { filter.limit };
        // A folder of before that no engine of this version has taken yet lacks the table.
        let mut connection = self.pool.acquire().await.map_err(LedgerError::store("read alerts"))?;
        let rows = if schema::has_table(&mut connection, "backfilled").await? {
            database::query(alerts_sql!("EXISTS (SELECT 1 FROM backfilled b WHERE b.thread = a.thread)"))
        } else {
            database::query(alerts_sql!("false"))
        }
        .bind(&filter.state)
        .bind(&filter.rule)
        .bind(filter.incident)
        .bind(&filter.id)
        .bind(limit)
        .fetch_all(&mut connection)
        .await
        .map_err(LedgerError::store("read alerts"))?;
        let mut alerts = rows.iter().map(alert_view).collect::<Result<Vec<_>, _>>()?;
        self.stand(&mut alerts).await?;
        Ok(alerts)
    }

    /// Incidents, the newest number first; merged ones only with `merged`.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn incidents(&self, merged: bool, limit: u32) -> Result<Vec<IncidentView>, LedgerError> {
        self.incidents_where(None, merged, limit).await
    }

    /// One incident by number, with its story; the number of a merged one gives the one that stands for it.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn incident(&self, number: i64) -> Result<Option<IncidentStory>, LedgerError> {
        let Some(mut incident) = self.incidents_where(Some(number), true, 1).await?.pop() else { return Ok(None) };
        if let Some(stays) = incident.redirect {
            match self.incidents_where(Some(stays), true, 1).await?.pop() {
                Some(other) => incident = other,
                None => return Ok(None),
            }
        }
        let filter = AlertFilter { incident: Some(incident.number), limit: 10_000, ..AlertFilter::default() };
        let mut alert_list = self.alerts(&filter).await?;
        alert_list.sort_by_key(|alert| (first_of(alert), alert.alert_id.clone()));
        let timeline = self.timeline(incident.number, &alert_list).await?;
        let kill_chain = kill_chain(&alert_list);
        Ok(Some(IncidentStory { incident, kill_chain, alert_list, timeline }))
    }

    async fn incidents_where(
        &self,
        number: Option<i64>,
        merged: bool,
        limit: u32,
    ) -> Result<Vec<IncidentView>, LedgerError> {
        let store = LedgerError::store("read incidents");
        let rows = database::query(
            "WITH best AS (
                 -- An alert on risk speaks of other alerts, by the hour: it gives an incident neither its name nor its time.
                 SELECT i.number, a.title, a.level, a.score, a.anchor, a.last_cell, a.state, a.rule = 'risk' AS of_risk,
                        row_number() OVER (PARTITION BY i.number ORDER BY a.state IN ('withdrawn', 'superseded'),
                                           a.rule = 'risk', a.score DESC, a.anchor, a.alert_id) AS place
                 FROM incident_alerts i JOIN alerts a ON a.alert_id = i.alert_id
                 WHERE $1 IS NULL OR i.number = $1)
             SELECT n.*, max(CASE WHEN place = 1 THEN b.title END) AS title,
                    max(CASE WHEN place = 1 THEN b.level END) AS level,
                    max(CASE WHEN place = 1 THEN b.score END) AS score,
                    coalesce(min(CASE WHEN NOT b.of_risk THEN b.anchor END), min(b.anchor)) AS first,
                    coalesce(max(CASE WHEN NOT b.of_risk THEN b.last_cell END), max(b.last_cell)) AS last,
                    count(CASE WHEN b.state NOT IN ('withdrawn', 'superseded') THEN 1 END) AS alerts
             FROM incidents n LEFT JOIN best b ON b.number = n.number
             WHERE ($1 IS NULL OR n.number = $1) AND ($2 OR n.state <> 'merged')
             GROUP BY n.number ORDER BY n.number DESC LIMIT $3",
        )
        .bind(number)
        .bind(merged)
        .bind(limit)
        .fetch_all(&self.pool)
        .await
        .map_err(&store)?;
        let mut contents = self.incident_contents(number).await?;
        rows.iter()
            .map(|row| {
                let entities: String = row.try_get("entities").map_err(&store)?;
                let number = row.try_get("number").map_err(&store)?;
                Ok(IncidentView {
                    number,
                    content: contents.remove(&number).unwrap_or_default(),
                    tenant: row.try_get("tenant").map_err(&store)?,
                    state: row.try_get("state").map_err(&store)?,
                    redirect: row.try_get("redirect").map_err(&store)?,
                    title: row.try_get("title").map_err(&store)?,
                    level: row.try_get("level").map_err(&store)?,
                    score: tenths(row.try_get("score").map_err(&store)?),
                    alerts: row.try_get("alerts").map_err(&store)?,
                    entities: serde_json::from_str(&entities).map_err(LedgerError::damaged("entities"))?,
                    first: cell(row, "first").map_err(&store)?,
                    last: cell(row, "last").map_err(&store)?,
                    opened_at: time(row, "opened_at").map_err(&store)?,
                    changed_at: time(row, "changed_at").map_err(&store)?,
                })
            })
            .collect()
    }

    async fn incident_contents(&self, number: Option<i64>) -> Result<BTreeMap<i64, IncidentContent>, LedgerError> {
        let store = LedgerError::store("read what incidents are");
        let mut connection = self.pool.acquire().await.map_err(&store)?;
        if !schema::has_table(&mut connection, "incident_contents").await? {
            return Ok(BTreeMap::new());
        }
        let rows: Vec<(i64, String)> =
            database::query_as("SELECT number, content FROM incident_contents WHERE $1 IS NULL OR number = $1")
                .bind(number)
                .fetch_all(&mut connection)
                .await
                .map_err(&store)?;
        rows.into_iter()
            .map(|(number, content)| {
                let content: Incident =
                    serde_json::from_str(&content).map_err(LedgerError::damaged("an incident's content"))?;
                let Incident { kind, severity, tactics, hubs, .. } = content;
                Ok((number, IncidentContent { kind, severity, tactics, hubs }))
            })
            .collect()
    }

    async fn timeline(&self, number: i64, alerts: &[AlertView]) -> Result<Vec<TimelineEntry>, LedgerError> {
        let mut timeline: Vec<TimelineEntry> = alerts.iter().filter_map(began).collect();
        timeline.extend(self.revisions(number).await?);
        let threads = Value::from(alerts.iter().map(|alert| alert.thread.clone()).collect::<Vec<_>>()).to_string();
        let ids = Value::from(alerts.iter().map(|alert| alert.alert_id.clone()).collect::<Vec<_>>()).to_string();
        let rows = database::query(
            "SELECT i.*, act.target, act.kind AS action_kind, act.reason AS action_reason
             FROM intents i LEFT JOIN actions act ON act.id = i.action
             WHERE i.state <> 'superseded' AND (i.thread IN (SELECT atom FROM json_each($1)) OR i.action IN (
                 SELECT x.id FROM actions x, json_each(x.alerts) j
                 WHERE j.atom IN (SELECT atom FROM json_each($2))))
             ORDER BY i.id",
        )
        .bind(threads)
        .bind(ids)
        .fetch_all(&self.pool)
        .await
        .map_err(LedgerError::store("read an incident's messages and actions"))?;
        for row in &rows {
            timeline.push(done(row)?);
        }
        timeline.sort_by_key(|entry| entry.at);
        Ok(timeline)
    }

    async fn revisions(&self, number: i64) -> Result<Vec<TimelineEntry>, LedgerError> {
        let store = LedgerError::store("read an incident's revisions");
        let rows = database::query(
            "SELECT r.thread, r.revision, r.at, r.event, r.reason, a.title FROM alert_revisions r
             JOIN incident_alerts i ON i.alert_id = r.alert_id JOIN alerts a ON a.alert_id = r.alert_id
             WHERE i.number = $1 ORDER BY r.at, r.thread, r.revision",
        )
        .bind(number)
        .fetch_all(&self.pool)
        .await
        .map_err(&store)?;
        rows.iter()
            .map(|row| {
                let event: String = row.try_get("event")?;
                let title: String = row.try_get("title")?;
                let reason: Option<String> = row.try_get("reason")?;
                let why = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
                Ok(TimelineEntry {
                    at: time(row, "at")?,
                    text: format!("{title} {event} (revision {}){why}", row.try_get::<i64, _>("revision")?),
                    kind: format!("alert_{event}"),
                    subject: row.try_get("thread")?,
                    receipt: None,
                })
            })
            .collect::<Result<_, sqlx::Error>>()
            .map_err(&store)
    }

    /// Actions, the newest first.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn actions(&self, limit: u32) -> Result<Vec<ActionView>, LedgerError> {
        let store = LedgerError::store("read actions");
        let rows = database::query("SELECT * FROM actions ORDER BY id DESC LIMIT $1")
            .bind(limit)
            .fetch_all(&self.pool)
            .await
            .map_err(&store)?;
        rows.iter()
            .map(|row| {
                let alerts: String = row.try_get("alerts").map_err(&store)?;
                let alerts = serde_json::from_str(&alerts).map_err(LedgerError::damaged("an action's alerts"))?;
                action_view(row, alerts).map_err(&store)
            })
            .collect()
    }

    /// Intents, the newest first.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn intents(&self, limit: u32) -> Result<Vec<IntentView>, LedgerError> {
        let store = LedgerError::store("read intents");
        let rows = database::query("SELECT * FROM intents ORDER BY id DESC LIMIT $1")
            .bind(limit)
            .fetch_all(&self.pool)
            .await
            .map_err(&store)?;
        rows.iter().map(|row| intent_view(row).map_err(&store)).collect()
    }

    /// Audit records after `seq`, in order.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn audit(&self, seq: i64, limit: u32) -> Result<Vec<AuditRecord>, LedgerError> {
        let mut connection = self.pool.acquire().await.map_err(LedgerError::store("read the audit chain"))?;
        audit::page(&mut connection, seq, i64::from(limit)).await
    }

    /// Checks the whole audit chain: `None` when it holds.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn audit_verify(&self) -> Result<Option<AuditFault>, LedgerError> {
        let mut connection = self.pool.acquire().await.map_err(LedgerError::store("read the audit chain"))?;
        audit::verify(&mut connection).await
    }

    /// The facts that hold now, sorted, each with the entry that said so.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn facts(&self) -> Result<Vec<(Fact, ControlEntry)>, LedgerError> {
        let mut connection = self.pool.acquire().await.map_err(LedgerError::store("read the facts"))?;
        control::facts_at(&mut connection, i64::MAX).await
    }

    /// Entries of the control log after `seq`, in order, at most 10,000.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn control_since(&self, seq: i64) -> Result<Vec<ControlEntry>, LedgerError> {
        let mut connection = self.pool.acquire().await.map_err(LedgerError::store("read the control log"))?;
        control::since(&mut connection, seq, 10_000).await
    }

    /// Alerts that a fact keeps from being told, the last changed first.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn suppressed(&self, limit: u32) -> Result<Vec<SuppressedView>, LedgerError> {
        let store = LedgerError::store("read suppressed alerts");
        let rows = database::query("SELECT * FROM suppressed ORDER BY changed_at DESC, alert_id LIMIT $1")
            .bind(limit)
            .fetch_all(&self.pool)
            .await
            .map_err(&store)?;
        rows.iter()
            .map(|row| {
                let text = |column: &str| row.try_get::<String, _>(column).map_err(&store);
                Ok(SuppressedView {
                    alert_id: text("alert_id")?,
                    reason: text("reason")?,
                    fact: serde_json::from_str(&text("fact")?).map_err(LedgerError::damaged("a fact"))?,
                    changed_at: time(row, "changed_at").map_err(&store)?,
                    content: serde_json::from_str(&text("content")?)
                        .map_err(LedgerError::damaged("an alert's content"))?,
                })
            })
            .collect()
    }

    /// The last epochs, the newest first: record and watermark.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn epochs(&self, limit: u32) -> Result<Vec<(EpochRecord, Option<Time>)>, LedgerError> {
        let rows: Vec<(String, Option<i64>)> =
            database::query_as("SELECT record, watermark FROM epochs ORDER BY epoch DESC LIMIT $1")
                .bind(limit)
                .fetch_all(&self.pool)
                .await
                .map_err(LedgerError::store("read epochs"))?;
        rows.into_iter()
            .map(|(record, watermark)| {
                let record = serde_json::from_str(&record).map_err(LedgerError::damaged("an epoch record"))?;
                Ok((record, watermark.map(Time::from_micros)))
            })
            .collect()
    }

    /// The record and watermark of one epoch.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn epoch(&self, epoch: Epoch) -> Result<Option<(EpochRecord, Option<Time>)>, LedgerError> {
        let row: Option<(String, Option<i64>)> =
            database::query_as("SELECT record, watermark FROM epochs WHERE epoch = $1")
                .bind(crate::apply::number(epoch))
                .fetch_optional(&self.pool)
                .await
                .map_err(LedgerError::store("read an epoch"))?;
        row.map(|(record, watermark)| {
            let record = serde_json::from_str(&record).map_err(LedgerError::damaged("an epoch record"))?;
            Ok((record, watermark.map(Time::from_micros)))
        })
        .transpose()
    }

    /// Counts for health and metrics.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn counts(&self) -> Result<Counts, LedgerError> {
        let store = LedgerError::store("count");
        Ok(Counts {
            alerts: database::query_as(
                "SELECT CASE WHEN state = 'open' AND content->>'state' = 'provisional' THEN 'provisional'
                        ELSE state END AS shown, count(*) FROM alerts GROUP BY shown ORDER BY shown",
            )
            .fetch_all(&self.pool)
            .await
            .map_err(&store)?,
            incidents: database::query_as("SELECT state, count(*) FROM incidents GROUP BY state ORDER BY state")
                .fetch_all(&self.pool)
                .await
                .map_err(&store)?,
            actions: database::query_as("SELECT state, count(*) FROM actions GROUP BY state ORDER BY state")
                .fetch_all(&self.pool)
                .await
                .map_err(&store)?,
            intents: database::query_as(
                "SELECT receiver, state, count(*) FROM intents GROUP BY receiver, state ORDER BY receiver, state",
            )
            .fetch_all(&self.pool)
            .await
            .map_err(&store)?,
            oldest_unfinished: database::query_scalar::<Option<i64>>(
                "SELECT min(made_at) FROM intents WHERE state IN ('planned', 'trying')",
            )
            .fetch_one(&self.pool)
            .await
            .map_err(&store)?
            .map(Time::from_micros),
        })
    }
}

fn alert_view(row: &DbRow) -> Result<AlertView, LedgerError> {
    let store = LedgerError::store("read an alert");
    let content: String = row.try_get("content").map_err(&store)?;
    let content: Value = serde_json::from_str(&content).map_err(LedgerError::damaged("an alert's content"))?;
    let state: String = row.try_get("state").map_err(&store)?;
    let provisional = state == "open" && content["state"] == "provisional";
    let members: Option<String> = row.try_get("members").map_err(&store)?;
    Ok(AlertView {
        alert_id: row.try_get("alert_id").map_err(&store)?,
        thread: row.try_get("thread").map_err(&store)?,
        revision: row.try_get("revision").map_err(&store)?,
        state: if provisional { "provisional".to_owned() } else { state },
        reason: row.try_get("reason").map_err(&store)?,
        superseded_by: row.try_get("superseded_by").map_err(&store)?,
        incident: row.try_get("incident").map_err(&store)?,
        backfilled: row.try_get("backfilled").map_err(&store)?,
        opened_at: time(row, "opened_at").map_err(&store)?,
        changed_at: time(row, "changed_at").map_err(&store)?,
        content,
        members: members
            .map(|members| serde_json::from_str(&members))
            .transpose()
            .map_err(LedgerError::damaged("an alert's members"))?,
        standing: Standing::default(),
    })
}

fn action_view(row: &DbRow, alerts: Vec<String>) -> Result<ActionView, sqlx::Error> {
    let maybe = |column: &str| row.try_get::<Option<i64>, _>(column).map(|at| at.map(Time::from_micros));
    Ok(ActionView {
        id: row.try_get("id")?,
        action_id: row.try_get("action_id")?,
        kind: row.try_get("kind")?,
        target: row.try_get("target")?,
        ttl_s: row.try_get("ttl_s")?,
        state: row.try_get("state")?,
        reason: row.try_get("reason")?,
        alerts,
        planned_at: time(row, "planned_at")?,
        applied_at: maybe("applied_at")?,
        until: maybe("until_at")?,
        ended_at: maybe("ended_at")?,
    })
}

fn intent_view(row: &DbRow) -> Result<IntentView, sqlx::Error> {
    Ok(IntentView {
        id: row.try_get("id")?,
        kind: row.try_get("kind")?,
        operation: row.try_get("operation")?,
        receiver: row.try_get("receiver")?,
        thread: row.try_get("thread")?,
        revision: row.try_get("revision")?,
        action: row.try_get("action")?,
        state: row.try_get("state")?,
        key: row.try_get("key")?,
        tries: row.try_get("tries")?,
        made_at: time(row, "made_at")?,
        done_at: row.try_get::<Option<i64>, _>("done_at")?.map(Time::from_micros),
        receipt: receipt(row)?,
    })
}

fn receipt(row: &DbRow) -> Result<Option<Value>, sqlx::Error> {
    let text: Option<String> = row.try_get("receipt")?;
    Ok(text.map(|text| serde_json::from_str(&text).unwrap_or(Value::String(text))))
}

/// What the alerts show of each tactic, in the order of the kill chain. An alert may show several.
fn kill_chain(alerts: &[AlertView]) -> Vec<KillChainStep> {
    let mut steps: BTreeMap<Tactic, KillChainStep> = BTreeMap::new();
    for alert in alerts.iter().filter(|alert| matches!(alert.state.as_str(), "open" | "sealed")) {
        let tags = alert.content.get("tags").and_then(Value::as_array).into_iter().flatten();
        let tactics: BTreeSet<Tactic> = tags.filter_map(|tag| Tactic::of_tag(tag.as_str()?)).collect();
        for tactic in tactics {
            let step = steps.entry(tactic).or_insert_with(|| KillChainStep {
                tactic,
                first: first_of(alert),
                titles: Vec::new(),
                alerts: 0,
            });
            step.alerts += 1;
            let title = alert.content.get("title").and_then(Value::as_str).unwrap_or_default();
            if !step.titles.iter().any(|known| known == title) {
                step.titles.push(title.to_owned());
            }
        }
    }
    steps.into_values().collect()
}

/// The begin of an alert, as the events show it.
fn began(alert: &AlertView) -> Option<TimelineEntry> {
    if matches!(alert.state.as_str(), "superseded") {
        return None;
    }
    let title = alert.content.get("title")?.as_str()?;
    let count = alert.content.get("count")?;
    Some(TimelineEntry {
        at: first_of(alert)?,
        kind: "alert".to_owned(),
        text: format!("{title} begins ({count} events, {})", alert.state),
        subject: alert.thread.clone(),
        receipt: None,
    })
}

/// A message or an action, as it went.
fn done(row: &DbRow) -> Result<TimelineEntry, LedgerError> {
    let store = LedgerError::store("read a message or an action");
    let view = intent_view(row).map_err(&store)?;
    let target: Option<String> = row.try_get("target").map_err(&store)?;
    let kind: Option<String> = row.try_get("action_kind").map_err(&store)?;
    let text = match (&target, &kind) {
        (Some(target), Some(kind)) => {
            let verb = if view.operation == "unblock" { "undo of " } else { "" };
            format!("{verb}{kind} {target}: {}", view.state)
        }
        _ => format!("{} told {}: {}", view.receiver, view.operation, view.state),
    };
    Ok(TimelineEntry {
        at: view.done_at.unwrap_or(view.made_at),
        kind: view.kind,
        text,
        subject: format!("intent {}", view.id),
        receipt: view.receipt,
    })
}

fn first_of(alert: &AlertView) -> Option<Time> {
    alert
        .members
        .as_ref()
        .map(|members| members.first)
        .or_else(|| alert.content.get("anchor")?.as_i64().map(Time::from_seconds))
}

fn tenths(score: Option<i64>) -> f64 {
    score.and_then(|score| i32::try_from(score).ok()).map_or(0.0, f64::from) / 10.0
}

fn time(row: &DbRow, column: &str) -> Result<Time, sqlx::Error> {
    row.try_get(column).map(Time::from_micros)
}

fn cell(row: &DbRow, column: &str) -> Result<Option<Time>, sqlx::Error> {
    row.try_get::<Option<i64>, _>(column).map(|cell| cell.map(Time::from_seconds))
}
