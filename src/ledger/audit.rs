//! The audit chain: every decision and effect, each record hashed together with the one before.
//!
//! The head (number and hash of the last record) is kept in the `engine` row too, in the same transaction, so that a
//! chain whose end was cut does not verify. Who can write the file can forge chain and head together: print
//! [`crate::Ledger::audit_head`] to a place that this machine cannot change where that matters.

use serde::Serialize;
use serde_json::Value;

use cf_types::Time;

use crate::{
    LedgerError,
    database::{self, Connection, DbRow},
};

/// What is to be recorded.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) actor: &'static str,
    pub(crate) action: &'static str,
    pub(crate) subject: String,
    pub(crate) detail: Value,
}

impl Entry {
    /// An entry of the engine itself.
    pub(crate) fn engine(action: &'static str, subject: impl Into<String>, detail: Value) -> Entry {
        Entry { actor: "engine", action, subject: subject.into(), detail }
    }

    /// An entry of the response side.
    pub(crate) fn response(action: &'static str, subject: impl Into<String>, detail: Value) -> Entry {
        Entry { actor: "response", action, subject: subject.into(), detail }
    }
}

/// One record of the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditRecord {
    /// Its number, from 1, without gaps.
    pub seq: i64,
    /// When.
    pub at: Time,
    /// Who: `engine`, `response`, or the author of a control entry.
    pub actor: String,
    /// What was done.
    pub action: String,
    /// To what: an alert's thread, an intent, a fact.
    pub subject: String,
    /// The rest, as JSON text.
    pub detail: String,
    /// Hash of the record before; empty for the first.
    pub prev_hash: String,
    /// Hash over all of the above.
    pub hash: String,
}

impl AuditRecord {
    fn of_row(row: &DbRow) -> Result<AuditRecord, sqlx::Error> {
        Ok(AuditRecord {
            seq: row.try_get("seq")?,
            at: Time::from_micros(row.try_get("at")?),
            actor: row.try_get("actor")?,
            action: row.try_get("action")?,
            subject: row.try_get("subject")?,
            detail: row.try_get("detail")?,
            prev_hash: row.try_get("prev_hash")?,
            hash: row.try_get("hash")?,
        })
    }

    /// The hash that the record must have.
    fn computed(&self) -> String {
        let mut hasher = blake3::Hasher::new_derive_key("counterflow 2026 audit chain");
        hasher.update(&self.seq.to_le_bytes());
        hasher.update(&self.at.micros().to_le_bytes());
        for part in [&self.actor, &self.action, &self.subject, &self.detail, &self.prev_hash] {
            // With its length before it: no two lists of texts hash alike.
            hasher.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }
}

/// The first place where the chain does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditFault {
    /// At this record.
    pub seq: i64,
    /// What is wrong.
    pub what: &'static str,
}

/// Appends entries inside the caller's transaction (which holds the write lock, so the head cannot move).
pub(crate) async fn append(connection: &mut Connection<'_>, at: Time, entries: &[Entry]) -> Result<(), LedgerError> {
    if entries.is_empty() {
        return Ok(());
    }
    let store = LedgerError::store("append to the audit chain");
    let row = database::query("SELECT audit_seq, audit_head FROM engine")
        .fetch_one(&mut *connection)
        .await
        .map_err(&store)?;
    let (mut seq, mut head): (i64, String) = (row.try_get(0).map_err(&store)?, row.try_get(1).map_err(&store)?);
    let mut rows = Vec::with_capacity(entries.len());
    for entry in entries {
        seq += 1;
        let mut record = AuditRecord {
            seq,
            at,
            actor: entry.actor.to_owned(),
            action: entry.action.to_owned(),
            // PostgreSQL could not keep it, and the hash is of what is kept.
            subject: entry.subject.replace('\0', "\u{fffd}"),
            detail: entry.detail.to_string(),
            prev_hash: head,
            hash: String::new(),
        };
        record.hash = record.computed();
        head = record.hash.clone();
        rows.push(serde_json::json!([
            record.seq,
            at.micros(),
            record.actor,
            record.action,
            record.subject,
            record.detail,
            record.prev_hash,
            record.hash
        ]));
    }
    database::query(
        "INSERT INTO audit
         SELECT CAST(value->>0 AS BIGINT), CAST(value->>1 AS BIGINT), value->>2, value->>3, value->>4, value->>5, value->>6,
                value->>7
         FROM json_each($1)",
    )
    .bind(Value::Array(rows).to_string())
    .execute(&mut *connection)
    .await
    .map_err(&store)?;
    database::query("UPDATE engine SET audit_seq = $1, audit_head = $2")
        .bind(seq)
        .bind(head)
        .execute(&mut *connection)
        .await
        .map_err(&store)?;
    Ok(())
}

/// Checks the whole chain against the head, in pages: `None` when it holds.
pub(crate) async fn verify(connection: &mut Connection<'_>) -> Result<Option<AuditFault>, LedgerError> {
    const PAGE: i64 = 4_096;
    let store = LedgerError::store("read the audit chain");
    // One read transaction would be held for the whole pass; instead the head is read first and what is appended
    // meanwhile is left for the next time.
    let row = database::query("SELECT audit_seq, audit_head FROM engine")
        .fetch_one(&mut *connection)
        .await
        .map_err(&store)?;
    let (last, head): (i64, String) = (row.try_get(0).map_err(&store)?, row.try_get(1).map_err(&store)?);
    let (mut seq, mut hash) = (0, String::new());
    while seq < last {
        let records = page(connection, seq, PAGE).await?;
        if records.is_empty() {
            return Ok(Some(AuditFault { seq: seq + 1, what: "missing: the chain was cut here" }));
        }
        for record in records.iter().take_while(|record| record.seq <= last) {
            if record.seq != seq + 1 {
                return Ok(Some(AuditFault { seq: seq + 1, what: "missing or out of order" }));
            }
            if record.prev_hash != hash {
                return Ok(Some(AuditFault { seq: record.seq, what: "does not follow from the record before" }));
            }
            if record.hash != record.computed() {
                return Ok(Some(AuditFault { seq: record.seq, what: "was edited" }));
            }
            seq = record.seq;
            hash.clone_from(&record.hash);
        }
        if records.last().is_some_and(|record| record.seq > last) && seq < last {
            return Ok(Some(AuditFault { seq: seq + 1, what: "missing or out of order" }));
        }
    }
    if hash != head {
        return Ok(Some(AuditFault { seq: last, what: "is not the head that the engine noted" }));
    }
    let beyond: i64 =
        database::query_scalar("SELECT count(*) FROM audit WHERE seq < 1 OR seq > (SELECT audit_seq FROM engine)")
            .fetch_one(&mut *connection)
            .await
            .map_err(&store)?;
    Ok((beyond > 0).then_some(AuditFault { seq: last, what: "is not the last: records were added outside the chain" }))
}

/// Records after `seq`, in order.
pub(crate) async fn page(
    connection: &mut Connection<'_>,
    seq: i64,
    limit: i64,
) -> Result<Vec<AuditRecord>, LedgerError> {
    let store = LedgerError::store("read the audit chain");
    database::query("SELECT * FROM audit WHERE seq > $1 ORDER BY seq LIMIT $2")
        .bind(seq)
        .bind(limit)
        .fetch_all(connection)
        .await
        .and_then(|rows| rows.iter().map(AuditRecord::of_row).collect())
        .map_err(store)
}
