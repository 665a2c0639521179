//! Alerts that a rule found when it was met with history: visible and marked, but nobody is told of them and nothing is
//! done for them.
//!
//! What a rule finds so enters through the control log ([`BACKFILL`]). An alert that is opened in the epoch of such an
//! entry, of its rule, and that was over an hour before, is born backfilled, with its whole thread. The mark goes when an
//! epoch without such an entry changes the thread materially and its last event is not an hour old: then it is an alert
//! like any other.

use std::collections::{BTreeMap, BTreeSet};

use cf_types::AlertId;
use serde_json::json;

use super::{AlertChange, AlertEvent, Step, batch, id_list, number};
use crate::{
    LedgerError,
    control::BACKFILL,
    database::{self, Connection},
};

/// Seconds after which what was found is no news.
const NEWS_S: i64 = 3_600;

/// Marks what is born backfilled in this epoch, and gives all threads among the changes that are.
pub(super) async fn note(
    connection: &mut Connection<'_>,
    step: &Step<'_>,
    changes: &[AlertChange],
) -> Result<BTreeSet<AlertId>, LedgerError> {
    if changes.is_empty() {
        return Ok(BTreeSet::new());
    }
    let told = |change: &&AlertChange| matches!(change.event, AlertEvent::Opened | AlertEvent::Amended);
    let rules = rules_of(connection, step).await?;
    let since = step.at.cell().saturating_sub(NEWS_S);
    let (mut born, mut news) = (BTreeMap::new(), Vec::new());
    for change in changes.iter().filter(told) {
        let is_old = change.alert.last_cell < since;
        if rules.contains(&*change.alert.rule) {
            if is_old && change.event == AlertEvent::Opened {
                born.insert(change.thread, &change.alert.rule);
            }
        } else if !is_old {
            news.push(change.thread);
        }
    }
    let rows = born.iter().map(|(thread, rule)| json!([thread, rule, number(step.record.epoch)])).collect();
    let insert =
        "INSERT INTO backfilled SELECT value->>0, value->>1, CAST(value->>2 AS BIGINT) FROM json_each($1) WHERE true
                  ON CONFLICT DO NOTHING";
    batch(connection, insert, rows).await?;
    let news = news.iter().map(|thread| json!([thread])).collect();
    let delete = "DELETE FROM backfilled WHERE thread IN (SELECT value->>0 FROM json_each($1))";
    batch(connection, delete, news).await?;
    among(connection, changes).await
}

/// The rules whose finds entered with this epoch.
async fn rules_of(connection: &mut Connection<'_>, step: &Step<'_>) -> Result<BTreeSet<String>, LedgerError> {
    let rules: Vec<Option<String>> = database::query_scalar(
        "SELECT DISTINCT atom FROM control, json_each(control.body, '$.rules')
         WHERE seq > coalesce((SELECT CAST(record->>'control' AS BIGINT) FROM epochs WHERE epoch = $1), 0) AND seq <= $2 AND kind = $3",
    )
    .bind(number(step.record.epoch.saturating_sub(1)))
    .bind(step.record.control)
    .bind(BACKFILL)
    .fetch_all(connection)
    .await
    .map_err(LedgerError::store("read what entered with an epoch"))?;
    Ok(rules.into_iter().flatten().collect())
}

async fn among(connection: &mut Connection<'_>, changes: &[AlertChange]) -> Result<BTreeSet<AlertId>, LedgerError> {
    let threads: Vec<String> =
        database::query_scalar("SELECT thread FROM backfilled WHERE thread IN (SELECT atom FROM json_each($1))")
            .bind(id_list(changes.iter().map(|change| change.thread)))
            .fetch_all(connection)
            .await
            .map_err(LedgerError::store("read which alerts are backfilled"))?;
    threads.iter().map(|thread| super::parse_id(thread)).collect()
}
