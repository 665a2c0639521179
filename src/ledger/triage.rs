//! What models said of alerts, in the control log: one record a decision, and one when another model begins to answer.

use cf_types::{Alert, AlertId, Decision, Time};

use crate::{
    ControlEntry, ControlLog, Ledger, LedgerError, control,
    database::{self, Connection},
    read::Reader,
};

/// A model's decision about an alert; the body is a [`Decision`] as JSON.
pub const SCORE: &str = "score";
/// Which models answer from here on; the body is JSON, its meaning the engine's.
pub const MODEL: &str = "model";

/// Decisions read at once.
const PAGE: i64 = 1_000;

impl ControlEntry {
    /// The decision that it holds; `None` for other kinds.
    ///
    /// # Errors
    /// The body is no decision.
    pub fn decision(&self) -> Result<Option<Decision>, LedgerError> {
        if self.kind != SCORE {
            return Ok(None);
        }
        serde_json::from_str(&self.body).map(Some).map_err(LedgerError::damaged("a decision of the control log"))
    }
}

impl ControlLog {
    /// Appends decisions in one transaction: a burst of alerts is one wait for the disk. Gives the last position.
    ///
    /// # Errors
    /// The ledger cannot be written; then none was appended.
    pub async fn append_decisions(&mut self, decisions: &[Decision], at: Time) -> Result<Option<i64>, LedgerError> {
        let store = LedgerError::store("append decisions to the control log");
        let mut transaction = self.connection.begin().await.map_err(&store)?;
        let mut last = None;
        for decision in decisions {
            let body = serde_json::to_string(decision).map_err(LedgerError::damaged("a decision"))?;
            last = Some(control::append_in(&mut transaction, SCORE, &body, "triage", "served", at).await?);
        }
        transaction.commit().await.map_err(&store)?;
        Ok(last)
    }
}

impl ControlLog {
    /// Appends entries of one kind, all of them or none.
    ///
    /// # Errors
    /// The ledger cannot be written; then none was appended.
    pub async fn append_all(
        &mut self,
        kind: &str,
        bodies: &[String],
        author: &str,
        reason: &str,
        at: Time,
    ) -> Result<(), LedgerError> {
        let store = LedgerError::store("append to the control log");
        let mut transaction = self.connection.begin().await.map_err(&store)?;
        for body in bodies {
            control::append_in(&mut transaction, kind, body, author, reason, at).await?;
        }
        transaction.commit().await.map_err(&store)
    }
}

impl Reader {
    /// The next decisions after `seq`, with their positions, in order; none at the end.
    ///
    /// # Errors
    /// The ledger cannot be read, or a decision is damaged.
    pub async fn decisions_after(&self, seq: i64) -> Result<Vec<(i64, Decision)>, LedgerError> {
        let mut connection = self.pool.acquire().await.map_err(LedgerError::store("read decisions"))?;
        page(&mut connection, seq, i64::MAX).await
    }

    /// The position of the last but `count` decisions, 0 if there are not so many: where the newest begin.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn decisions_begin(&self, count: i64) -> Result<i64, LedgerError> {
        let seq: Option<i64> =
            database::query_scalar("SELECT seq FROM control WHERE kind = 'score' ORDER BY seq DESC LIMIT 1 OFFSET $1")
                .bind(count)
                .fetch_optional(&self.pool)
                .await
                .map_err(LedgerError::store("read decisions"))?;
        Ok(seq.unwrap_or(0))
    }
}

impl Reader {
    /// The alert of an id, as it is or was last; `None` if there is none.
    ///
    /// # Errors
    /// The ledger cannot be read, or the alert is damaged.
    pub async fn alert(&self, id: AlertId) -> Result<Option<Alert>, LedgerError> {
        let content: Option<String> = database::query_scalar("SELECT content FROM alerts WHERE alert_id = $1")
            .bind(id.to_string())
            .fetch_optional(&self.pool)
            .await
            .map_err(LedgerError::store("read an alert"))?;
        content
            .map(|content| serde_json::from_str(&content).map_err(LedgerError::damaged("an alert's content")))
            .transpose()
    }
}

/// Where a reading of open alerts goes on: behind the one that was opened then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenedAfter {
    at: i64,
    anchor: i64,
    alert: String,
}

impl Reader {
    /// The next open alerts that are not provisional, the oldest first, each with the first id of its lineage; none at the
    /// end. Moves `after` on.
    ///
    /// # Errors
    /// The ledger cannot be read, or an alert is damaged.
    pub async fn open_alerts_after(&self, after: &mut OpenedAfter) -> Result<Vec<(Alert, AlertId)>, LedgerError> {
        let rows: Vec<(i64, i64, String, String, String)> = database::query_as(
            "SELECT opened_at, anchor, alert_id, thread, content FROM alerts
             WHERE state = 'open' AND content->>'state' IS DISTINCT FROM 'provisional' AND (opened_at, anchor, alert_id) > ($1, $2, $3)
             ORDER BY opened_at, anchor, alert_id LIMIT $4",
        )
        .bind(after.at)
        .bind(after.anchor)
        .bind(&after.alert)
        .bind(PAGE)
        .fetch_all(&self.pool)
        .await
        .map_err(LedgerError::store("read open alerts"))?;
        if let Some((at, anchor, alert, ..)) = rows.last() {
            *after = OpenedAfter { at: *at, anchor: *anchor, alert: alert.clone() };
        }
        let alert = |(.., thread, content): (i64, i64, String, String, String)| {
            let alert = serde_json::from_str(&content).map_err(LedgerError::damaged("an alert's content"))?;
            let thread = serde_json::from_value(serde_json::Value::String(thread));
            Ok((alert, thread.map_err(LedgerError::damaged("the thread of an alert"))?))
        };
        rows.into_iter().map(alert).collect()
    }
}

impl Ledger {
    /// Tells all decisions up to and with a position of the control log, in order, to `tell`.
    ///
    /// # Errors
    /// The ledger cannot be read, or a decision is damaged.
    pub async fn decisions_upto(&self, upto: i64, mut tell: impl FnMut(Decision)) -> Result<(), LedgerError> {
        let mut last = 0;
        loop {
            let page = page(&mut *self.writer().await, last, upto).await?;
            let Some((seq, _)) = page.last() else { return Ok(()) };
            last = *seq;
            page.into_iter().for_each(|(_, decision)| tell(decision));
        }
    }
}

async fn page(connection: &mut Connection<'_>, seq: i64, upto: i64) -> Result<Vec<(i64, Decision)>, LedgerError> {
    let rows: Vec<(i64, String)> = database::query_as(
        "SELECT seq, body FROM control WHERE kind = 'score' AND seq > $1 AND seq <= $2 ORDER BY seq LIMIT $3",
    )
    .bind(seq)
    .bind(upto)
    .bind(PAGE)
    .fetch_all(connection)
    .await
    .map_err(LedgerError::store("read decisions"))?;
    let decision = |(seq, body): (i64, String)| {
        let decision = serde_json::from_str(&body).map_err(LedgerError::damaged("a decision of the control log"))?;
        Ok((seq, decision))
    };
    rows.into_iter().map(decision).collect()
}
