//! What sinks are told: which alerts, incidents and actions changed since a sink was told last.
//!
//! Triggers note each change of a row as `(kind, id)` under a new number, in the transaction that makes it, whoever makes
//! it: an epoch, a receipt, an end by the clock. Each id has one row, the newest, so what is noted for a sink that is
//! away grows with the ids and not with the time. A sink reads from its cursor on: the revisions that it may not have,
//! then the record as it stands, from one snapshot. The cursor moves when the sink has it all, so each revision is told at
//! least once, in order for each id. Without a sink nothing is noted.

use std::collections::BTreeSet;

use cf_types::{Epoch, Incident, Time};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    ControlLog, Ledger, LedgerError, Reader,
    apply::number,
    database::{self, Connection, DbRow},
    schema,
};

// The row of an id that some sink was not told yet keeps its epoch under its new number: from there on its revisions are
// told. It is written under another id first, since it is made from the row that it takes the place of.
macro_rules! noted {
    ($name:literal, $when:literal, $($kind:literal, $id:literal, $gone:literal);+) => {
        concat!(
            "DROP TRIGGER IF EXISTS ", $name, ";\n",
            "CREATE TRIGGER IF NOT EXISTS note_", $name, " AFTER ", $when,
            " WHEN EXISTS (SELECT 1 FROM sinks) BEGIN\n",
            $(
                "INSERT INTO changes(kind, id, epoch, gone) VALUES ('", $kind, "', '+' || ", $id, ", coalesce(
                     (SELECT epoch FROM changes WHERE kind = '", $kind, "' AND id = ", $id, "
                      AND seq > (SELECT min(cursor) FROM sinks)),
                     (SELECT upper - 1 FROM engine)), ", $gone, ");\n",
                "DELETE FROM changes WHERE kind = '", $kind, "' AND id = ", $id, ";\n",
                "UPDATE changes SET id = ", $id, " WHERE kind = '", $kind, "' AND id = '+' || ", $id, ";\n",
            )+
            "END;\n"
        )
    };
}

/// The tables. They came later than the others: made in older files too.
pub(crate) const TABLES: &str = "
     CREATE TABLE IF NOT EXISTS sinks(
         name TEXT PRIMARY KEY,
         topics TEXT NOT NULL,
         cursor INTEGER NOT NULL,
         epoch INTEGER NOT NULL,
         changed_at INTEGER NOT NULL
     ) STRICT, WITHOUT ROWID;
     CREATE TABLE IF NOT EXISTS changes(
         seq INTEGER PRIMARY KEY AUTOINCREMENT,
         kind TEXT NOT NULL,
         id TEXT NOT NULL,
         epoch INTEGER NOT NULL,
         gone INTEGER NOT NULL
     ) STRICT;
     CREATE UNIQUE INDEX IF NOT EXISTS changes_by_id ON changes(kind, id);
     CREATE INDEX IF NOT EXISTS changes_gone ON changes(seq) WHERE gone = 1;
     CREATE TABLE IF NOT EXISTS sink_rejects(
         sink TEXT NOT NULL,
         kind TEXT NOT NULL,
         id TEXT NOT NULL,
         revision INTEGER NOT NULL,
         bytes INTEGER NOT NULL,
         code TEXT NOT NULL,
         reason TEXT NOT NULL,
         at INTEGER NOT NULL,
         PRIMARY KEY (sink, kind, id)
     ) STRICT, WITHOUT ROWID;
";

/// What notes changes, in SQLite; PostgreSQL's is in `schema/postgres.rs`.
pub(crate) const TRIGGERS: &str = concat!(
    noted!("alerts_came", "INSERT ON alerts", "alert", "NEW.alert_id", "0"),
    noted!("alerts_changed", "UPDATE ON alerts", "alert", "NEW.alert_id", "0"),
    noted!("alerts_went", "DELETE ON alerts", "alert", "OLD.alert_id", "1"),
    noted!("incidents_came", "INSERT ON incidents", "incident", "CAST(NEW.number AS TEXT)", "0"),
    noted!("incidents_changed", "UPDATE ON incidents", "incident", "CAST(NEW.number AS TEXT)", "0"),
    noted!("incidents_went", "DELETE ON incidents", "incident", "CAST(OLD.number AS TEXT)", "1"),
    noted!("incident_alerts_came", "INSERT ON incident_alerts",
        "alert", "NEW.alert_id", "0"; "incident", "CAST(NEW.number AS TEXT)", "0"),
    noted!("incident_alerts_changed", "UPDATE ON incident_alerts",
        "alert", "NEW.alert_id", "0"; "incident", "CAST(OLD.number AS TEXT)", "0";
        "incident", "CAST(NEW.number AS TEXT)", "0"),
    noted!("actions_came", "INSERT ON actions", "action", "CAST(NEW.id AS TEXT)", "0"),
    noted!("actions_changed", "UPDATE ON actions", "action", "CAST(NEW.id AS TEXT)", "0"),
    noted!("actions_went", "DELETE ON actions", "action", "CAST(OLD.id AS TEXT)", "1"),
);

/// Notes what was there before the first sink, so that it is told as it stands.
const NOTE_ALL: &str = "
INSERT INTO changes(kind, id, epoch, gone)
SELECT kind, id, (SELECT upper FROM engine), 0 FROM (
    SELECT 'alert' AS kind, alert_id AS id, changed_epoch AS at FROM alerts
    UNION ALL SELECT 'incident', CAST(number AS TEXT), changed_epoch FROM incidents
    UNION ALL SELECT 'action', CAST(id AS TEXT), 0 FROM actions) AS known
WHERE NOT EXISTS (SELECT 1 FROM changes AS c WHERE c.kind = known.kind AND c.id = known.id)
ORDER BY at, kind, id";

/// What a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// An alert; its key is its id.
    Alert,
    /// An incident; its key is its number, which stays.
    Incident,
    /// An application of an action; its key is its number.
    Action,
}

impl ChangeKind {
    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            ChangeKind::Alert => "alert",
            ChangeKind::Incident => "incident",
            ChangeKind::Action => "action",
        }
    }

    fn parse(word: &str) -> Option<ChangeKind> {
        [ChangeKind::Alert, ChangeKind::Incident, ChangeKind::Action].into_iter().find(|kind| kind.as_str() == word)
    }
}

/// How far a sink has been told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// All changes up to this number.
    pub seq: i64,
    /// The epoch of the last of them, or of its registration.
    pub epoch: Epoch,
}

/// One id that changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Its number.
    pub seq: i64,
    /// What it is.
    pub kind: ChangeKind,
    /// The key of its records.
    pub id: String,
    /// What to tell, in order, the last as it stands; `None`: it is gone.
    pub records: Vec<Option<Value>>,
}

/// What changed behind a cursor.
#[derive(Clone, Debug, PartialEq)]
pub struct Changes {
    /// In order.
    pub changes: Vec<Change>,
    /// Where the cursor stands when all of it is told.
    pub upto: Cursor,
}

/// A record that a sink could not take whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SinkReject {
    /// The sink's name.
    pub sink: String,
    /// `alert`, `incident` or `action`.
    pub kind: String,
    /// The record's key.
    pub id: String,
    /// Its revision.
    pub revision: i64,
    /// Its length.
    pub bytes: i64,
    /// `too_large`.
    pub code: String,
    /// Why, in words.
    pub reason: String,
    /// When.
    pub at: Time,
}

impl Ledger {
    /// Gives the sink's place. One that is new, or writes to other topics than before, begins with everything as it
    /// stands; revisions count from now on.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub async fn sink_register(&self, name: &str, topics: &str, at: Time) -> Result<Cursor, LedgerError> {
        let store = LedgerError::store("register a sink");
        let mut writer = self.writer().await;
        let mut transaction = writer.begin().await.map_err(&store)?;
        database::query(
            "INSERT INTO sinks VALUES ($1, $2, 0, (SELECT upper FROM engine), $3)
             ON CONFLICT (name) DO UPDATE SET topics = excluded.topics, cursor = 0, epoch = excluded.epoch,
                 changed_at = excluded.changed_at WHERE sinks.topics <> excluded.topics",
        )
        .bind(name)
        .bind(topics)
        .bind(at.micros())
        .execute(&mut *transaction)
        .await
        .map_err(&store)?;
        // Nothing when another sink is there already: then all is noted.
        database::query(NOTE_ALL).execute(&mut *transaction).await.map_err(&store)?;
        let cursor = cursor_of(&mut transaction, name).await?;
        transaction.commit().await.map_err(&store)?;
        Ok(cursor.unwrap_or(Cursor { seq: 0, epoch: 0 }))
    }

    /// Moves a sink's cursor; `false` when it was moved by somebody else meanwhile (see [`ControlLog::sink_resend`]).
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub async fn sink_advance(&self, name: &str, from: Cursor, upto: Cursor, at: Time) -> Result<bool, LedgerError> {
        let store = LedgerError::store("move a sink's cursor");
        let mut writer = self.writer().await;
        let mut transaction = writer.begin().await.map_err(&store)?;
        let moved = database::query(
            "UPDATE sinks SET cursor = $1, epoch = $2, changed_at = $3 WHERE name = $4 AND cursor = $5",
        )
        .bind(upto.seq)
        .bind(number(upto.epoch))
        .bind(at.micros())
        .bind(name)
        .bind(from.seq)
        .execute(&mut *transaction)
        .await
        .map_err(&store)?;
        // What is gone and told to everybody need not be remembered.
        database::query("DELETE FROM changes WHERE gone = 1 AND seq <= (SELECT min(cursor) FROM sinks)")
            .execute(&mut *transaction)
            .await
            .map_err(&store)?;
        transaction.commit().await.map_err(&store)?;
        Ok(moved.rows_affected() == 1)
    }

    /// Notes the records of a batch that a sink could not take whole, and forgets what was noted of the others.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub async fn sink_rejects_put(
        &self,
        sink: &str,
        told: &[(ChangeKind, String)],
        rejects: &[SinkReject],
    ) -> Result<(), LedgerError> {
        let store = LedgerError::store("note what a sink could not take");
        let mut writer = self.writer().await;
        let mut transaction = writer.begin().await.map_err(&store)?;
        let told: Vec<Value> = told.iter().map(|(kind, id)| json!([kind, id])).collect();
        database::query(
            "DELETE FROM sink_rejects WHERE sink = $1 AND (kind, id) IN (SELECT value->>0, value->>1 FROM json_each($2))",
        )
        .bind(sink)
        .bind(Value::Array(told).to_string())
        .execute(&mut *transaction)
        .await
        .map_err(&store)?;
        for reject in rejects {
            database::query(
                "INSERT INTO sink_rejects VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
                 ON CONFLICT (sink, kind, id) DO UPDATE SET revision = excluded.revision, bytes = excluded.bytes,
                     code = excluded.code, reason = excluded.reason, at = excluded.at",
            )
            .bind(sink)
            .bind(&reject.kind)
            .bind(&reject.id)
            .bind(reject.revision)
            .bind(reject.bytes)
            .bind(&reject.code)
            .bind(&reject.reason)
            .bind(reject.at.micros())
            .execute(&mut *transaction)
            .await
            .map_err(&store)?;
        }
        transaction.commit().await.map_err(&store)
    }
}

impl ControlLog {
    /// Lets a sink begin again with everything as it stands; `false` when no sink of that name was ever registered.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub async fn sink_resend(&mut self, name: &str, at: Time) -> Result<bool, LedgerError> {
        let asked = "UPDATE sinks SET cursor = 0, epoch = (SELECT upper FROM engine), changed_at = $2 WHERE name = $1";
        database::query(asked)
            .bind(name)
            .bind(at.micros())
            .execute(self.connection())
            .await
            .map(|done| done.rows_affected() == 1)
            .map_err(LedgerError::store("let a sink begin again"))
    }

    /// Forgets a sink: nothing is noted for it any more. `false` when there is none of that name.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub async fn sink_forget(&mut self, name: &str) -> Result<bool, LedgerError> {
        let store = LedgerError::store("forget a sink");
        let mut transaction = self.connection().begin().await.map_err(&store)?;
        let gone = database::query("DELETE FROM sinks WHERE name = $1")
            .bind(name)
            .execute(&mut *transaction)
            .await
            .map_err(&store)?
            .rows_affected();
        database::query("DELETE FROM sink_rejects WHERE sink = $1")
            .bind(name)
            .execute(&mut *transaction)
            .await
            .map_err(&store)?;
        database::query("DELETE FROM changes WHERE NOT EXISTS (SELECT 1 FROM sinks)")
            .execute(&mut *transaction)
            .await
            .map_err(&store)?;
        transaction.commit().await.map_err(&store)?;
        Ok(gone == 1)
    }
}

impl Reader {
    /// The sinks that were ever registered and not forgotten: name, and changes that each has not been told.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn sinks(&self) -> Result<Vec<(String, i64)>, LedgerError> {
        let store = LedgerError::store("read the sinks");
        let mut connection = self.pool.acquire().await.map_err(&store)?;
        if !schema::has_table(&mut connection, "sinks").await? {
            return Ok(Vec::new());
        }
        database::query_as(
            "SELECT name, (SELECT count(*) FROM changes WHERE seq > sinks.cursor) FROM sinks ORDER BY name",
        )
        .fetch_all(&mut connection)
        .await
        .map_err(&store)
    }

    /// What a sink could not take whole, by sink, kind and id; at most 1,000.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn sink_rejects(&self, sink: Option<&str>) -> Result<Vec<SinkReject>, LedgerError> {
        let store = LedgerError::store("read what sinks could not take");
        let mut connection = self.pool.acquire().await.map_err(&store)?;
        if !schema::has_table(&mut connection, "sink_rejects").await? {
            return Ok(Vec::new());
        }
        let rows = database::query(
            "SELECT * FROM sink_rejects WHERE $1 IS NULL OR sink = $1 ORDER BY sink, kind, id LIMIT 1000",
        )
        .bind(sink)
        .fetch_all(&mut connection)
        .await
        .map_err(&store)?;
        let read = |row: &DbRow| {
            Ok(SinkReject {
                sink: row.try_get("sink")?,
                kind: row.try_get("kind")?,
                id: row.try_get("id")?,
                revision: row.try_get("revision")?,
                bytes: row.try_get("bytes")?,
                code: row.try_get("code")?,
                reason: row.try_get("reason")?,
                at: Time::from_micros(row.try_get("at")?),
            })
        };
        rows.iter().map(read).collect::<Result<_, sqlx::Error>>().map_err(&store)
    }

    /// Where a sink's cursor stands; `None` if there is no such sink.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn sink_cursor(&self, name: &str) -> Result<Option<Cursor>, LedgerError> {
        let mut connection = self.pool.acquire().await.map_err(LedgerError::store("read a sink's cursor"))?;
        cursor_of(&mut connection, name).await
    }

    /// What changed behind a cursor, of some kinds: at most `ids_max` ids, and no more when the records have
    /// `bytes_max`. The revisions of one id are there together, so one id may go beyond it.
    ///
    /// # Errors
    /// The ledger cannot be read, or what is stored is damaged.
    pub async fn changes(
        &self,
        after: Cursor,
        kinds: &BTreeSet<ChangeKind>,
        ids_max: u32,
        bytes_max: usize,
    ) -> Result<Changes, LedgerError> {
        let store = LedgerError::store("read what changed");
        let mut connection = self.pool.acquire().await.map_err(&store)?;
        // One snapshot: a record is never older than the number that it is told under.
        let mut transaction = connection.snapshot().await.map_err(&store)?;
        let rows: Vec<(i64, String, String, i64)> =
            database::query_as("SELECT seq, kind, id, epoch FROM changes WHERE seq > $1 ORDER BY seq LIMIT $2")
                .bind(after.seq)
                .bind(ids_max)
                .fetch_all(&mut *transaction)
                .await
                .map_err(&store)?;
        let mut found = Changes { changes: Vec::new(), upto: after };
        let mut bytes = 0;
        for (seq, kind, id, epoch) in rows {
            if bytes >= bytes_max {
                break;
            }
            found.upto = Cursor { seq, epoch: u64::try_from(epoch).unwrap_or(0).max(found.upto.epoch) };
            let Some(kind) = ChangeKind::parse(&kind).filter(|kind| kinds.contains(kind)) else { continue };
            let (records, read) = records(&mut transaction, kind, &id, seq, u64::try_from(epoch).unwrap_or(0)).await?;
            bytes += read;
            found.changes.push(Change { seq, kind, id, records });
        }
        transaction.commit().await.map_err(&store)?;
        Ok(found)
    }
}

/// Lets all sinks begin again with everything as it stands: what they were told may be newer than what a restored ledger has.
pub(crate) async fn begin_again(connection: &mut Connection<'_>) -> Result<(), LedgerError> {
    if !schema::has_table(connection, "sinks").await? {
        return Ok(());
    }
    database::query("UPDATE sinks SET cursor = 0, epoch = (SELECT upper FROM engine)")
        .execute(connection)
        .await
        .map(drop)
        .map_err(LedgerError::store("let sinks begin again"))
}

async fn cursor_of(connection: &mut Connection<'_>, name: &str) -> Result<Option<Cursor>, LedgerError> {
    let row: Option<(i64, i64)> = database::query_as("SELECT cursor, epoch FROM sinks WHERE name = $1")
        .bind(name)
        .fetch_optional(connection)
        .await
        .map_err(LedgerError::store("read a sink's cursor"))?;
    Ok(row.map(|(seq, epoch)| Cursor { seq, epoch: u64::try_from(epoch).unwrap_or(0) }))
}

/// The records of an id, and about how many bytes they are.
async fn records(
    connection: &mut Connection<'_>,
    kind: ChangeKind,
    id: &str,
    seq: i64,
    since: Epoch,
) -> Result<(Vec<Option<Value>>, usize), LedgerError> {
    let now = match kind {
        ChangeKind::Alert => return alert(connection, id, since).await,
        ChangeKind::Incident => incident(connection, id, seq).await?,
        ChangeKind::Action => action(connection, id, seq).await?,
    };
    let bytes = now.as_ref().map_or(0, |(_, bytes)| *bytes);
    Ok((vec![now.map(|(record, _)| record)], bytes))
}

/// An alert: its revisions since an epoch, and the row as it stands.
async fn alert(
    connection: &mut Connection<'_>,
    id: &str,
    since: Epoch,
) -> Result<(Vec<Option<Value>>, usize), LedgerError> {
    let store = LedgerError::store("read an alert that changed");
    let now = database::query(
        "SELECT a.tenant, a.thread, a.revision, a.changed_epoch AS epoch, a.changed_at AS at, a.state, a.reason,
                a.superseded_by, a.content, i.number AS incident
         FROM alerts a LEFT JOIN incident_alerts i ON i.alert_id = a.alert_id WHERE a.alert_id = $1",
    )
    .bind(id)
    .fetch_optional(&mut *connection)
    .await
    .map_err(&store)?;
    let Some(now) = now else { return Ok((vec![None], 0)) };
    let stands: (i64, i64) = (now.try_get("epoch").map_err(&store)?, now.try_get("revision").map_err(&store)?);
    let before = database::query(
        "SELECT $2 AS tenant, thread, revision, epoch, at, state, reason, NULL AS superseded_by, content,
                NULL AS incident
         FROM alert_revisions WHERE alert_id = $1 AND epoch >= $3 AND (epoch, revision) <> ($4, $5)
         ORDER BY epoch, revision",
    )
    .bind(id)
    .bind(now.try_get::<String, _>("tenant").map_err(&store)?)
    .bind(number(since))
    .bind(stands.0)
    .bind(stands.1)
    .fetch_all(connection)
    .await
    .map_err(&store)?;
    let (mut records, mut bytes) = (Vec::new(), 0);
    for row in before.iter().chain([&now]) {
        let (record, length) = alert_record(row, id)?;
        bytes += length;
        records.push(Some(record));
    }
    Ok((records, bytes))
}

fn alert_record(row: &DbRow, id: &str) -> Result<(Value, usize), LedgerError> {
    let store = LedgerError::store("read an alert that changed");
    let content: String = row.try_get("content").map_err(&store)?;
    let length = content.len() + 512;
    let content: Value = serde_json::from_str(&content).map_err(LedgerError::damaged("an alert's content"))?;
    let state: String = row.try_get("state").map_err(&store)?;
    let state = if state == "open" && content["state"] == "provisional" { "provisional".to_owned() } else { state };
    let record = json!({
        "record": ChangeKind::Alert, "id": id,
        "tenant": row.try_get::<String, _>("tenant").map_err(&store)?,
        "thread": row.try_get::<String, _>("thread").map_err(&store)?,
        "revision": row.try_get::<i64, _>("revision").map_err(&store)?,
        "epoch": row.try_get::<i64, _>("epoch").map_err(&store)?,
        "at": Time::from_micros(row.try_get("at").map_err(&store)?),
        "state": state,
        "reason": row.try_get::<Option<String>, _>("reason").map_err(&store)?,
        "superseded_by": row.try_get::<Option<String>, _>("superseded_by").map_err(&store)?,
        "incident": row.try_get::<Option<i64>, _>("incident").map_err(&store)?,
        "content": content,
    });
    Ok((record, length))
}

/// An incident as it stands. The ledger counts no revisions of incidents: the number of the change is one.
async fn incident(connection: &mut Connection<'_>, id: &str, seq: i64) -> Result<Option<(Value, usize)>, LedgerError> {
    let store = LedgerError::store("read an incident that changed");
    let row = database::query(
        "SELECT n.*, c.content,
                (SELECT json_group_array(alert_id) FROM
                    (SELECT alert_id FROM incident_alerts WHERE number = n.number ORDER BY alert_id) AS members) AS alerts
         FROM incidents n LEFT JOIN incident_contents c ON c.number = n.number WHERE n.number = CAST($1 AS BIGINT)",
    )
    .bind(id)
    .fetch_optional(connection)
    .await
    .map_err(&store)?;
    let Some(row) = row else { return Ok(None) };
    let text = |column: &str| row.try_get::<String, _>(column).map_err(&store);
    let (entities, alerts) = (text("entities")?, text("alerts")?);
    let content: Option<String> = row.try_get("content").map_err(&store)?;
    let content: Option<Incident> = content
        .map(|content| serde_json::from_str(&content))
        .transpose()
        .map_err(LedgerError::damaged("an incident's content"))?;
    let mut record = json!({
        "record": ChangeKind::Incident, "id": id,
        "number": row.try_get::<i64, _>("number").map_err(&store)?,
        "incident_id": text("incident_id")?, "tenant": text("tenant")?,
        "revision": seq,
        "epoch": row.try_get::<i64, _>("changed_epoch").map_err(&store)?,
        "at": Time::from_micros(row.try_get("changed_at").map_err(&store)?),
        "opened_at": Time::from_micros(row.try_get("opened_at").map_err(&store)?),
        "state": text("state")?,
        "redirect": row.try_get::<Option<i64>, _>("redirect").map_err(&store)?,
        "entities": serde_json::from_str::<Value>(&entities).map_err(LedgerError::damaged("entities"))?,
        "alerts": serde_json::from_str::<Value>(&alerts).map_err(LedgerError::damaged("an incident's alerts"))?,
    });
    if let (Some(record), Some(content)) = (record.as_object_mut(), content) {
        record.insert("type".to_owned(), json!(content.kind));
        record.insert("severity".to_owned(), json!(content.severity));
        record.insert("tactics".to_owned(), json!(content.tactics));
        record.insert("hubs".to_owned(), json!(content.hubs));
    }
    Ok(Some((record, entities.len() + alerts.len() + 1_024)))
}

/// An application of an action as it stands; its epoch is that of the last intent for it.
async fn action(connection: &mut Connection<'_>, id: &str, seq: i64) -> Result<Option<(Value, usize)>, LedgerError> {
    let store = LedgerError::store("read an action that changed");
    let row = database::query(
        "SELECT a.*, (SELECT max(epoch) FROM intents WHERE action = a.id) AS epoch
         FROM actions a WHERE id = CAST($1 AS BIGINT)",
    )
    .bind(id)
    .fetch_optional(connection)
    .await
    .map_err(&store)?;
    let Some(row) = row else { return Ok(None) };
    let text = |column: &str| row.try_get::<String, _>(column).map_err(&store);
    let maybe =
        |column: &str| row.try_get::<Option<i64>, _>(column).map(|at| at.map(Time::from_micros)).map_err(&store);
    let alerts = text("alerts")?;
    let record = json!({
        "record": ChangeKind::Action, "id": id,
        "number": row.try_get::<i64, _>("id").map_err(&store)?,
        "action_id": text("action_id")?, "tenant": text("tenant")?, "action": text("kind")?, "target": text("target")?,
        "ttl_s": row.try_get::<i64, _>("ttl_s").map_err(&store)?,
        "revision": seq,
        "epoch": row.try_get::<Option<i64>, _>("epoch").map_err(&store)?,
        "at": Time::from_micros(row.try_get("changed_at").map_err(&store)?),
        "state": text("state")?,
        "reason": row.try_get::<Option<String>, _>("reason").map_err(&store)?,
        "alerts": serde_json::from_str::<Value>(&alerts).map_err(LedgerError::damaged("an action's alerts"))?,
        "planned_at": maybe("planned_at")?, "applied_at": maybe("applied_at")?, "until": maybe("until_at")?,
        "ended_at": maybe("ended_at")?,
    });
    Ok(Some((record, alerts.len() + 1_024)))
}
