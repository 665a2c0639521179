//! Alerts as they are assessed now: what a list shows beside them, and the queue of those that wait for a person.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
};

use cf_types::{Assessment, Triage};
use serde::Serialize;

use super::{AlertFilter, AlertView, Reader};
use crate::{LedgerError, database, schema};

/// Alerts whose assessments are read at once.
const PAGE: usize = 1_000;

/// How an alert is assessed, in a list.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Standing {
    /// The chance that it is an attack, in percent.
    pub confidence_percent: Option<u8>,
    /// Its place in the queue: score × confidence, 0 to 1,000.
    pub priority: Option<u16>,
    /// What a model says of it.
    pub triage: Option<TriageView>,
}

/// What a model says of an alert.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TriageView {
    /// The chance that it is worth a person's time, 0.0 to 1.0.
    pub probability: f64,
    /// What follows from it: true, false or "unknown".
    pub verdict: cf_types::triage::Worth,
    /// Version of the model.
    pub model: String,
    /// Its part: `champion`, or `a` and `b` where two are compared.
    pub role: cf_types::triage::Role,
}

impl TriageView {
    fn of(triage: &Triage) -> TriageView {
        TriageView {
            probability: f64::from(triage.probability_ppm) / 1e6,
            verdict: triage.verdict,
            model: triage.model.to_string(),
            role: triage.role,
        }
    }
}

impl Standing {
    fn of(assessment: &Assessment) -> Standing {
        Standing {
            confidence_percent: Some(assessment.confidence_percent),
            priority: Some(assessment.priority()),
            triage: assessment.triage.as_ref().map(TriageView::of),
        }
    }
}

impl Reader {
    /// Open alerts by what is bad and likely first: every one of them, also those of which a model thinks nothing.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn queue(&self, filter: &AlertFilter) -> Result<Vec<AlertView>, LedgerError> {
        let states = filter.state.as_deref().map_or(vec!["open", "provisional"], |state| vec![state]);
        let mut alerts = Vec::new();
        for state in states {
            let asked = AlertFilter { state: Some(state.to_owned()), limit: u32::MAX, ..filter.clone() };
            alerts.extend(self.alerts(&asked).await?);
        }
        let first = |alert: &AlertView| alert.content["anchor"].as_i64().unwrap_or(0);
        alerts.sort_by_cached_key(|alert| {
            // One that is not assessed yet goes before those that are worth nothing.
            (Reverse(alert.standing.priority.unwrap_or(1_000)), Reverse(first(alert)), alert.alert_id.clone())
        });
        alerts.truncate(usize::try_from(if filter.limit == 0 { 1_000 } else { filter.limit }).unwrap_or(usize::MAX));
        Ok(alerts)
    }

    /// Adds to alerts how they are assessed now.
    pub(super) async fn stand(&self, alerts: &mut [AlertView]) -> Result<(), LedgerError> {
        let store = LedgerError::store("read assessments");
        let mut connection = self.pool.acquire().await.map_err(&store)?;
        if !schema::has_table(&mut connection, "assessments").await? {
            return Ok(());
        }
        for page in alerts.chunks_mut(PAGE) {
            let ids: Vec<&str> = page.iter().map(|alert| alert.alert_id.as_str()).collect();
            let ids = serde_json::to_string(&ids).map_err(LedgerError::damaged("ids of alerts"))?;
            let rows: Vec<(String, i64, String)> = database::query_as(
                "SELECT alert_id, epoch, content FROM assessments WHERE alert_id IN (SELECT atom FROM json_each($1))",
            )
            .bind(ids)
            .fetch_all(&mut connection)
            .await
            .map_err(&store)?;
            let mut newest: BTreeMap<String, (i64, String)> = BTreeMap::new();
            for (alert, epoch, content) in rows {
                let kept = newest.entry(alert).or_insert((epoch, String::new()));
                if epoch >= kept.0 {
                    *kept = (epoch, content);
                }
            }
            let mut standing = HashMap::with_capacity(newest.len());
            for (alert, (_, content)) in newest {
                let assessment: Assessment =
                    serde_json::from_str(&content).map_err(LedgerError::damaged("an assessment"))?;
                standing.insert(alert, Standing::of(&assessment));
            }
            for alert in page {
                alert.standing = standing.remove(&alert.alert_id).unwrap_or_default();
            }
        }
        Ok(())
    }
}
