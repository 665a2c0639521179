//! Assessments: one row per alert and epoch in which it was assessed otherwise than before. The last one holds; none is
//! taken back when its alert goes, so what was known when stays readable (RSK-11).

use std::collections::BTreeMap;

use cf_types::{EpochOutput, Row};
use serde_json::json;

use super::{Step, batch, number};
use crate::{LedgerError, database::Connection};

/// Writes the assessments of an epoch.
pub(super) async fn write(
    connection: &mut Connection<'_>,
    step: &Step<'_>,
    output: &EpochOutput,
) -> Result<(), LedgerError> {
    // One row per alert: no statement may change a row twice.
    let mut rows = BTreeMap::new();
    for (row, diff) in &output.rows {
        if let (Row::Assessment(assessment), 1..) = (row, diff) {
            let text = serde_json::to_string(assessment).map_err(LedgerError::damaged("an assessment"))?;
            let (epoch, at) = (number(step.record.epoch), step.at.micros());
            let row = json!([assessment.alert, epoch, at, assessment.tenant, assessment.score.tenths(), text]);
            rows.insert(assessment.alert, row);
        }
    }
    batch(
        connection,
        "INSERT INTO assessments
         SELECT value->>0, CAST(value->>1 AS BIGINT), CAST(value->>2 AS BIGINT), value->>3, CAST(value->>4 AS BIGINT),
                value->>5
         FROM json_each($1) WHERE true
         ON CONFLICT (alert_id, epoch) DO UPDATE SET at = excluded.at, tenant = excluded.tenant,
             score = excluded.score, content = excluded.content",
        rows.into_values().collect(),
    )
    .await
}
