//! Alerts that are not told: what they would be, and because of which fact.

use std::collections::BTreeMap;

use cf_types::{AlertId, EpochOutput, Row, Suppressed};
use serde_json::json;

use super::{Step, alerts::why, batch, id_list, number};
use crate::{
    LedgerError,
    audit::Entry,
    database::{self, Connection},
};

/// Writes the suppressed alerts of an epoch. One that was not there is audited: it is not lost (ALR-05).
pub(super) async fn write(
    connection: &mut Connection<'_>,
    step: &mut Step<'_>,
    output: &EpochOutput,
) -> Result<(), LedgerError> {
    let mut after: BTreeMap<AlertId, Option<&Suppressed>> = BTreeMap::new();
    let mut before = BTreeMap::new();
    for (row, diff) in &output.rows {
        if let Row::Suppressed(suppressed) = row {
            let slot = after.entry(suppressed.alert.id).or_default();
            if *diff > 0 {
                *slot = Some(suppressed);
            } else {
                before.insert(suppressed.alert.id, &suppressed.fact);
            }
        }
    }
    let gone = id_list(after.iter().filter(|(_, now)| now.is_none()).map(|(id, _)| *id));
    database::query("DELETE FROM suppressed WHERE alert_id IN (SELECT atom FROM json_each($1))")
        .bind(gone)
        .execute(&mut *connection)
        .await
        .map_err(LedgerError::store("write suppressed alerts"))?;
    let mut rows = Vec::new();
    for (id, Suppressed { alert, fact }) in after.iter().filter_map(|(id, now)| Some((id, (*now)?))) {
        let reason = why(fact);
        if before.get(id) != Some(&fact) {
            let detail =
                json!({"rule": alert.rule, "level": alert.level, "group": alert.group.to_json(), "reason": reason});
            step.audit.push(Entry::engine("alert_suppressed", id.to_string(), detail));
        }
        let text = serde_json::to_string(alert).map_err(LedgerError::damaged("an alert"))?;
        let fact = serde_json::to_string(fact).map_err(LedgerError::damaged("a fact"))?;
        let epoch = number(step.record.epoch);
        rows.push(json!([id, alert.tenant, alert.rule, text, fact, reason, epoch, step.at.micros()]));
    }
    batch(
        connection,
        "INSERT INTO suppressed
         SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, CAST(value->>6 AS BIGINT),
                CAST(value->>7 AS BIGINT)
         FROM json_each($1) WHERE true
         ON CONFLICT (alert_id) DO UPDATE SET tenant = excluded.tenant, rule = excluded.rule,
             content = excluded.content, fact = excluded.fact, reason = excluded.reason,
             changed_epoch = excluded.changed_epoch, changed_at = excluded.changed_at",
        rows,
    )
    .await
}
