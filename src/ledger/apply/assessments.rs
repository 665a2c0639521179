//! Assessments: one row per alert and epoch in which it was assessed otherwise than before. The last one holds; none is
//! taken back when its alert goes, so what was known when stays readable (RSK-11).

use cf_types::{EpochOutput, Row};
use serde_json::json;
use sqlx::SqliteConnection;

use super::{Step, batch, number};
use crate::LedgerError;

/// Writes the assessments of an epoch.
pub(super) async fn write(
    connection: &mut SqliteConnection,
    step: &Step<'_>,
    output: &EpochOutput,
) -> Result<(), LedgerError> {
    let mut rows = Vec::new();
    for (row, diff) in &output.rows {
        if let (Row::Assessment(assessment), 1..) = (row, diff) {
            let text = serde_json::to_string(assessment).map_err(LedgerError::damaged("an assessment"))?;
            let (epoch, at) = (number(step.record.epoch), step.at.micros());
            rows.push(json!([assessment.alert, epoch, at, assessment.tenant, assessment.score.tenths(), text]));
        }
    }
    batch(
        connection,
        "INSERT OR REPLACE INTO assessments
         SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5 FROM json_each(?)",
        rows,
    )
    .await
}
