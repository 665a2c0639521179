//! What the graph knows of entities: their buckets of risk, its level and how it changed, what can be reached from them.

use std::collections::BTreeMap;

use cf_types::{Entity, EpochOutput, RiskLevel, Row, Tenant};
use serde_json::{Value, json};

use super::{Step, batch, number};
use crate::{LedgerError, database::Connection};

/// Changes of a level that are kept, per epoch at the most: more than anybody reads; the levels themselves are all kept.
const CHANGES_MAX: usize = 10_000;

/// Writes what an epoch changed.
pub(super) async fn write(
    connection: &mut Connection<'_>,
    step: &Step<'_>,
    output: &EpochOutput,
) -> Result<(), LedgerError> {
    let (mut risk, mut levels, mut blast) = (Views::default(), Views::default(), Views::default());
    for (row, diff) in &output.rows {
        match row {
            Row::Risk(row) => risk.take(&row.tenant, &row.entity, row, *diff),
            Row::RiskLevel(row) => levels.take(&row.tenant, &row.entity, row, *diff),
            Row::Blast(row) => blast.take(&row.tenant, &row.root, row, *diff),
            _ => {}
        }
    }
    let (epoch, at) = (number(step.record.epoch), step.at.micros());
    batch(connection, RISK_GONE, risk.gone()).await?;
    batch(connection, RISK_STAYS, risk.stays(|risk| vec![text(&risk.buckets)])?).await?;

    batch(connection, LEVELS_GONE, levels.gone()).await?;
    let rows = levels.stays(|row| vec![Ok(Value::from(row.level.as_str())), Ok(epoch.into()), Ok(at.into())])?;
    batch(connection, LEVELS_STAY, rows).await?;
    let word = |level: Option<RiskLevel>| level.unwrap_or_default().as_str();
    let changes = levels.0.iter().map(|((tenant, entity), (was, now))| {
        let (was, now) = (word(was.map(|row| row.level)), word(now.map(|row| row.level)));
        json!([tenant.as_str(), entity.kind.as_str(), &*entity.value, epoch, at, was, now])
    });
    batch(connection, LEVEL_CHANGES, changes.take(CHANGES_MAX).collect()).await?;

    batch(connection, BLAST_GONE, blast.gone()).await?;
    let rows = blast.stays(|radius| vec![text(radius), Ok(epoch.into()), Ok(at.into())])?;
    batch(connection, BLAST_STAYS, rows).await
}

const RISK_GONE: &str =
    "DELETE FROM risk WHERE (tenant, kind, value) IN (SELECT value->>0, value->>1, value->>2 FROM json_each($1))";
const RISK_STAYS: &str =
    "INSERT INTO risk SELECT value->>0, value->>1, value->>2, value->>3 FROM json_each($1) WHERE true
     ON CONFLICT (tenant, kind, value) DO UPDATE SET buckets = excluded.buckets";
const LEVELS_GONE: &str = "DELETE FROM risk_levels WHERE (tenant, kind, value) IN (SELECT value->>0, value->>1, value->>2 FROM json_each($1))";
const LEVELS_STAY: &str = "INSERT INTO risk_levels
    SELECT value->>0, value->>1, value->>2, value->>3, CAST(value->>4 AS BIGINT), CAST(value->>5 AS BIGINT)
    FROM json_each($1) WHERE true
    ON CONFLICT (tenant, kind, value) DO UPDATE SET level = excluded.level, changed_epoch = excluded.changed_epoch,
        changed_at = excluded.changed_at";
const LEVEL_CHANGES: &str = "INSERT INTO risk_level_changes
    SELECT value->>0, value->>1, value->>2, CAST(value->>3 AS BIGINT), CAST(value->>4 AS BIGINT), value->>5, value->>6
    FROM json_each($1) WHERE true
    ON CONFLICT (tenant, kind, value, epoch) DO UPDATE SET at = excluded.at, was = excluded.was, level = excluded.level";
const BLAST_GONE: &str =
    "DELETE FROM blast WHERE (tenant, kind, value) IN (SELECT value->>0, value->>1, value->>2 FROM json_each($1))";
const BLAST_STAYS: &str = "INSERT INTO blast
    SELECT value->>0, value->>1, value->>2, value->>3, CAST(value->>4 AS BIGINT), CAST(value->>5 AS BIGINT)
    FROM json_each($1) WHERE true
    ON CONFLICT (tenant, kind, value) DO UPDATE SET content = excluded.content, changed_epoch = excluded.changed_epoch,
        changed_at = excluded.changed_at";

/// Of each entity what went and what came.
struct Views<'a, T>(BTreeMap<(&'a Tenant, &'a Entity), (Option<&'a T>, Option<&'a T>)>);

impl<T> Default for Views<'_, T> {
    fn default() -> Self {
        Views(BTreeMap::new())
    }
}

impl<'a, T> Views<'a, T> {
    fn take(&mut self, tenant: &'a Tenant, entity: &'a Entity, row: &'a T, diff: i64) {
        let (went, came) = self.0.entry((tenant, entity)).or_default();
        *(if diff > 0 { came } else { went }) = Some(row);
    }

    fn gone(&self) -> Vec<Value> {
        let gone = self.0.iter().filter(|(_, (_, came))| came.is_none());
        gone.map(|((tenant, entity), _)| Value::Array(key(tenant, entity))).collect()
    }

    fn stays(&self, columns: impl Fn(&T) -> Vec<Result<Value, LedgerError>>) -> Result<Vec<Value>, LedgerError> {
        let stays = self.0.iter().filter_map(|(key, (_, came))| Some((key, (*came)?)));
        stays
            .map(|((tenant, entity), row)| {
                let mut values = key(tenant, entity);
                for column in columns(row) {
                    values.push(column?);
                }
                Ok(Value::Array(values))
            })
            .collect()
    }
}

fn key(tenant: &Tenant, entity: &Entity) -> Vec<Value> {
    vec![tenant.as_str().into(), entity.kind.as_str().into(), (*entity.value).into()]
}

fn text(row: &impl serde::Serialize) -> Result<Value, LedgerError> {
    serde_json::to_string(row).map(Value::from).map_err(LedgerError::damaged("a row of the graph"))
}
