//! What an epoch changed, read back: for history, when it lacks an epoch that the ledger has.

use cf_types::{Alert, AlertId, Epoch, Incident, IncidentId};

use crate::{AlertChange, AlertEvent, Applied, IncidentChange, Ledger, LedgerError, apply::incidents, database};

impl Ledger {
    /// The revisions that an epoch made, as [`Ledger::apply`] gave them. An incident that later epochs changed again is
    /// given with the last of them only.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn applied_at(&self, epoch: Epoch) -> Result<Applied, LedgerError> {
        let store = LedgerError::store("read an epoch's changes");
        let number = i64::try_from(epoch).unwrap_or(i64::MAX);
        let mut writer = self.writer().await;
        let rows = database::query(
            "SELECT r.event, r.content, r.thread, r.revision, r.state, r.reason, a.superseded_by, i.number
             FROM alert_revisions r
             LEFT JOIN alerts a ON a.alert_id = r.alert_id
             LEFT JOIN incident_alerts i ON i.alert_id = r.alert_id
             WHERE r.epoch = $1 ORDER BY r.thread, r.revision",
        )
        .bind(number)
        .fetch_all(&mut *writer)
        .await
        .map_err(&store)?;
        let mut applied = Applied { upper: epoch + 1, ..Applied::default() };
        for row in &rows {
            let text = |index: usize| row.try_get::<String, _>(index).map_err(&store);
            let optional = |index: usize| row.try_get::<Option<String>, _>(index).map_err(&store);
            let alert: Alert = serde_json::from_str(&text(1)?).map_err(LedgerError::damaged("an alert"))?;
            applied.alerts.push(AlertChange {
                event: event(&text(0)?),
                thread: id(&text(2)?).unwrap_or(alert.id),
                alert,
                revision: row.try_get(3).map_err(&store)?,
                state: state(&text(4)?),
                reason: optional(5)?,
                superseded_by: optional(6)?.as_deref().and_then(id),
                incident: row.try_get(7).map_err(&store)?,
            });
        }
        let rows = database::query(
            "SELECT number, tenant, incident_id, state, redirect, entities FROM incidents WHERE changed_epoch = $1 ORDER BY number",
        )
        .bind(number)
        .fetch_all(&mut *writer)
        .await
        .map_err(&store)?;
        for row in &rows {
            let text = |index: usize| row.try_get::<String, _>(index).map_err(&store);
            let number: i64 = row.try_get(0).map_err(&store)?;
            let members = database::query(
                "SELECT a.anchor, a.alert_id FROM incident_alerts i JOIN alerts a USING (alert_id)
                 WHERE i.number = $1 ORDER BY a.anchor, a.alert_id",
            )
            .bind(number)
            .fetch_all(&mut *writer)
            .await
            .map_err(&store)?;
            let alerts = members
                .iter()
                .filter_map(|row| Some((row.try_get(0).ok()?, id(&row.try_get::<String, _>(1).ok()?)?)))
                .collect();
            let content: Option<String> =
                database::query_scalar("SELECT content FROM incident_contents WHERE number = $1")
                    .bind(number)
                    .fetch_optional(&mut *writer)
                    .await
                    .map_err(&store)?;
            let content: Option<Incident> = content
                .map(|content| serde_json::from_str(&content).map_err(LedgerError::damaged("an incident")))
                .transpose()?;
            let incident = Incident {
                tenant: cf_types::Tenant::new(&text(1)?),
                id: text(2)?.parse::<IncidentId>().unwrap_or_default(),
                alerts,
                entities: serde_json::from_str(&text(5)?).map_err(LedgerError::damaged("an incident's entities"))?,
                ..content.unwrap_or_default()
            };
            applied.incidents.push(IncidentChange {
                number,
                incident,
                state: incident_state(&text(3)?),
                redirect: row.try_get(4).map_err(&store)?,
                title: None,
                score: None,
            });
        }
        applied.incidents = incidents::named(&mut writer, applied.incidents).await?;
        Ok(applied)
    }
}

fn id(text: &str) -> Option<AlertId> {
    text.parse().ok()
}

fn event(word: &str) -> AlertEvent {
    [
        AlertEvent::Provisional,
        AlertEvent::Opened,
        AlertEvent::Amended,
        AlertEvent::Moved,
        AlertEvent::Sealed,
        AlertEvent::Withdrawn,
        AlertEvent::Superseded,
    ]
    .into_iter()
    .find(|event| event.as_str() == word)
    .unwrap_or(AlertEvent::Gauge)
}

fn state(word: &str) -> &'static str {
    ["provisional", "open", "sealed", "withdrawn", "superseded"]
        .into_iter()
        .find(|state| *state == word)
        .unwrap_or("open")
}

fn incident_state(word: &str) -> &'static str {
    ["open", "closed", "withdrawn", "merged"].into_iter().find(|state| *state == word).unwrap_or("open")
}
