//! What a restart needs of the sealed alerts: they are final, so the ledger has them as the graph would.

use cf_types::{Alert, Cell, Epoch, Hub, Incident, Tenant};

use crate::{Ledger, LedgerError, apply::number, database};

/// What was sealed, and still counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sealed {
    /// Sealed alerts, by id.
    pub alerts: Vec<Alert>,
    /// The hubs of the incidents that were not closed.
    pub hubs: Vec<(Tenant, Hub)>,
}

impl Ledger {
    /// The alerts that were sealed in epochs up to and with `last` and begin at `anchor_min` or later, or belong to an
    /// incident that was open after `last`; and the hubs of such incidents.
    ///
    /// # Errors
    /// The ledger cannot be read, or what is stored is damaged.
    pub async fn sealed_upto(&self, last: Epoch, anchor_min: Cell) -> Result<Sealed, LedgerError> {
        let store = LedgerError::store("read the sealed alerts");
        let mut writer = self.writer().await;
        let alerts: Vec<String> = database::query_scalar(
            "SELECT a.content FROM alerts a
             LEFT JOIN incident_alerts i ON i.alert_id = a.alert_id LEFT JOIN incidents n ON n.number = i.number
             WHERE a.state = 'sealed' AND a.changed_epoch <= $1
               AND (a.anchor >= $2 OR n.state = 'open' OR n.changed_epoch > $1)
             ORDER BY a.alert_id",
        )
        .bind(number(last))
        .bind(anchor_min)
        .fetch_all(&mut *writer)
        .await
        .map_err(&store)?;
        let contents: Vec<String> = database::query_scalar(
            "SELECT c.content FROM incident_contents c JOIN incidents n ON n.number = c.number
             WHERE n.state = 'open' OR n.changed_epoch > $1",
        )
        .bind(number(last))
        .fetch_all(&mut *writer)
        .await
        .map_err(&store)?;
        let alert = |text: &String| serde_json::from_str(text).map_err(LedgerError::damaged("an alert's content"));
        let mut hubs = Vec::new();
        for text in &contents {
            let incident: Incident =
                serde_json::from_str(text).map_err(LedgerError::damaged("an incident's content"))?;
            hubs.extend(incident.hubs.into_iter().map(|hub| (incident.tenant.clone(), hub)));
        }
        hubs.sort();
        hubs.dedup();
        Ok(Sealed { alerts: alerts.iter().map(alert).collect::<Result<_, _>>()?, hubs })
    }
}
