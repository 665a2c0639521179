//! Where an alert is from: its revisions, the rules of its epochs, the facts that touched it.

use cf_types::{Epoch, Fact, Time};
use serde::Serialize;
use serde_json::Value;

use crate::{ControlEntry, LedgerError, Reader, apply::number, control, database};

/// One revision of a thread.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RevisionView {
    /// Counts from 1.
    pub revision: i64,
    /// The id that the thread had then.
    pub alert_id: String,
    /// `opened`, `amended`, `moved` or `withdrawn`.
    pub event: String,
    /// The state after it.
    pub state: String,
    /// Why.
    pub reason: Option<String>,
    /// In which epoch.
    pub epoch: i64,
    /// When, wall clock.
    pub at: Time,
    /// The alert's members then.
    pub count: Option<u64>,
}

impl Reader {
    /// The revisions of a thread, in order.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn revisions_of(&self, thread: &str) -> Result<Vec<RevisionView>, LedgerError> {
        let store = LedgerError::store("read an alert's revisions");
        let rows = database::query(
            "SELECT revision, alert_id, event, state, reason, epoch, at, CAST(content->>'count' AS BIGINT) AS count
             FROM alert_revisions WHERE thread = $1 ORDER BY revision, epoch",
        )
        .bind(thread)
        .fetch_all(&self.pool)
        .await
        .map_err(&store)?;
        rows.iter()
            .map(|row| {
                Ok(RevisionView {
                    revision: row.try_get("revision")?,
                    alert_id: row.try_get("alert_id")?,
                    event: row.try_get("event")?,
                    state: row.try_get("state")?,
                    reason: row.try_get("reason")?,
                    epoch: row.try_get("epoch")?,
                    at: row.try_get("at").map(Time::from_micros)?,
                    count: row.try_get::<Option<i64>, _>("count")?.and_then(|count| u64::try_from(count).ok()),
                })
            })
            .collect::<Result<_, sqlx::Error>>()
            .map_err(&store)
    }

    /// The epochs in which an alert was opened and changed last.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn epochs_of(&self, alert: &str) -> Result<Option<(Epoch, Epoch)>, LedgerError> {
        let row: Option<(i64, i64)> =
            database::query_as("SELECT opened_epoch, changed_epoch FROM alerts WHERE alert_id = $1")
                .bind(alert)
                .fetch_optional(&self.pool)
                .await
                .map_err(LedgerError::store("read an alert's epochs"))?;
        let epoch = |number: i64| Epoch::try_from(number).unwrap_or_default();
        Ok(row.map(|(opened, changed)| (epoch(opened), epoch(changed))))
    }

    /// A rule set's text by its hash.
    ///
    /// # Errors
    /// The ledger cannot be read, or what is stored is damaged.
    pub async fn rule_set_get(&self, hash: &str) -> Result<Option<Vec<u8>>, LedgerError> {
        let store = LedgerError::store("read a rule set");
        let body: Option<Vec<u8>> = database::query_scalar("SELECT body FROM rule_sets WHERE hash = $1")
            .bind(hash)
            .fetch_optional(&self.pool)
            .await
            .map_err(&store)?;
        body.map(|body| zstd::decode_all(body.as_slice())).transpose().map_err(|error| store(sqlx::Error::Io(error)))
    }

    /// The epoch since which a rule counts, if it began while the engine ran.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn rule_since(&self, rule: &str) -> Result<Option<Epoch>, LedgerError> {
        let epoch: Option<i64> = database::query_scalar("SELECT epoch FROM rule_since WHERE rule = $1")
            .bind(rule)
            .fetch_optional(&self.pool)
            .await
            .map_err(LedgerError::store("read since when a rule counts"))?;
        Ok(epoch.and_then(|epoch| Epoch::try_from(epoch).ok()))
    }

    /// The watermark before the epoch that a rule began with. The outer is `None` if that was not kept (it began otherwise,
    /// or long ago), the inner if there was no watermark yet.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn rule_watermark(&self, rule: &str, epoch: Epoch) -> Result<Option<Option<Time>>, LedgerError> {
        let watermark: Option<Option<i64>> =
            database::query_scalar("SELECT watermark FROM rule_watermarks WHERE rule = $1 AND epoch = $2")
                .bind(rule)
                .bind(number(epoch))
                .fetch_optional(&self.pool)
                .await
                .map_err(LedgerError::store("read the watermark at which a rule began"))?;
        Ok(watermark.map(|watermark| watermark.map(Time::from_micros)))
    }

    /// What the graph wants done because of an alert: kind and target.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn wishes_of(&self, alert: &str) -> Result<Vec<(String, String)>, LedgerError> {
        database::query_as("SELECT kind, target FROM desired WHERE alert_id = $1 ORDER BY kind, target")
            .bind(alert)
            .fetch_all(&self.pool)
            .await
            .map_err(LedgerError::store("read what an alert wants done"))
    }

    /// All entries of the control log that brought (`true`) or removed a fact, in order.
    ///
    /// # Errors
    /// The ledger cannot be read, or an entry is damaged.
    pub async fn facts_said(&self) -> Result<Vec<(ControlEntry, Fact, bool)>, LedgerError> {
        let mut connection = self.pool.acquire().await.map_err(LedgerError::store("read the control log"))?;
        let (mut said, mut last) = (Vec::new(), 0);
        loop {
            let page = control::since(&mut connection, last, 10_000).await?;
            let Some(end) = page.last().map(|entry| entry.seq) else { return Ok(said) };
            for entry in page {
                if let Some((fact, diff)) = entry.fact()? {
                    said.push((entry, fact, diff > 0));
                }
            }
            last = end;
        }
    }

    /// The ids of alerts of a rule that overlap a span of cells, with state, reason and content, the oldest first.
    ///
    /// # Errors
    /// The ledger cannot be read, or what is stored is damaged.
    pub async fn alerts_between(
        &self,
        rule: &str,
        from: i64,
        to: i64,
        limit: u64,
    ) -> Result<Vec<(String, String, Option<String>, Value)>, LedgerError> {
        let rows: Vec<(String, String, Option<String>, String)> = database::query_as(
            "SELECT alert_id, state, reason, content FROM alerts
             WHERE rule = $1 AND anchor <= $2 AND last_cell >= $3 ORDER BY anchor, alert_id LIMIT $4",
        )
        .bind(rule)
        .bind(to)
        .bind(from)
        .bind(number(limit))
        .fetch_all(&self.pool)
        .await
        .map_err(LedgerError::store("read the alerts of a rule"))?;
        rows.into_iter()
            .map(|(id, state, reason, content)| {
                let content = serde_json::from_str(&content).map_err(LedgerError::damaged("an alert's content"))?;
                Ok((id, state, reason, content))
            })
            .collect()
    }
}
