//! Desired against actual actions: what becomes desired and is not in force is planned, what nobody wants any more is
//! undone.
//!
//! One row of `actions` is one application. Which alerts an application was for is part of it: when its time is up (or it
//! failed, was refused, or was a dry run) those alerts have had their effect, and only an alert of another thread brings
//! a new one. After an undoing because of withdrawal, the same alert may bring it again.

use std::collections::{BTreeMap, BTreeSet};

use cf_types::{ActionId, DesiredAction, EpochOutput, Row};
use serde_json::json;

use super::{Step, batch, id_list};
use crate::{
    LedgerError, Operation,
    audit::Entry,
    database::{self, Connection, DbRow},
    outbox::{self, NewIntent},
};

/// Writes the wishes of an epoch and plans what follows; gives how many intents were made.
pub(super) async fn apply(
    connection: &mut Connection<'_>,
    step: &mut Step<'_>,
    output: &EpochOutput,
) -> Result<usize, LedgerError> {
    let touched = write_desired(connection, output).await?;
    if touched.is_empty() {
        return Ok(0);
    }
    let wishes = load_wishes(connection, &touched).await?;
    let applications = load_applications(connection, &touched).await?;
    let mut intents = Vec::new();
    for (id, desired) in touched {
        let wish = wishes.get(&id);
        let past: &[Application] = applications.get(&id).map_or(&[], Vec::as_slice);
        match decide(wish, past) {
            Plan::Nothing => {}
            Plan::Apply(alerts) => {
                let ttl_s = wish.map_or(desired.ttl_s, |wish| wish.ttl_s);
                intents.push(plan(connection, step, desired, ttl_s, &alerts).await?);
            }
            Plan::Extend(row, alerts) => {
                let ttl_s = wish.map_or(desired.ttl_s, |wish| wish.ttl_s);
                note_alerts(connection, row, &alerts).await?;
                intents.push(intent(step, desired, row, ttl_s, Operation::Block, "extended"));
            }
            Plan::Cancel(row) => cancel(connection, step, desired, row).await?,
            Plan::Undo(row) => {
                undo(connection, step, row).await?;
                intents.push(intent(step, desired, row, 0, Operation::Unblock, "withdrawn"));
            }
        }
    }
    outbox::insert(connection, &mut step.audit, intents).await
}

/// Who wants an action: alert to thread, and for how long.
#[derive(Default)]
struct Wish {
    /// (alert, its thread).
    alerts: Vec<(String, String)>,
    ttl_s: u32,
}

/// One past or present application of an action.
struct Application {
    row: i64,
    state: String,
    reason: Option<String>,
    /// Threads of the alerts that it was for.
    threads: BTreeSet<String>,
}

#[derive(Debug, PartialEq, Eq)]
enum Plan {
    Nothing,
    /// Apply it for these alerts.
    Apply(Vec<String>),
    /// It is in force (or on the way); another alert wants it too: begin its time anew.
    Extend(i64, Vec<String>),
    /// Nobody wants it and nobody has tried it.
    Cancel(i64),
    /// Nobody wants it any more.
    Undo(i64),
}

/// What is to be done about one action. Pure.
fn decide(wish: Option<&Wish>, past: &[Application]) -> Plan {
    let current = past.last();
    let Some(wish) = wish.filter(|wish| !wish.alerts.is_empty()) else {
        return match current {
            Some(current) if current.state == "planned" => Plan::Cancel(current.row),
            Some(current) if matches!(current.state.as_str(), "applying" | "in_force") => Plan::Undo(current.row),
            _ => Plan::Nothing,
        };
    };
    let had_effect: BTreeSet<&String> = past
        .iter()
        .filter(|past| {
            matches!(past.state.as_str(), "failed" | "refused" | "dry_run")
                || past.reason.as_deref() == Some("expired")
                || matches!(past.state.as_str(), "planned" | "applying" | "in_force")
        })
        .flat_map(|past| &past.threads)
        .collect();
    let new: Vec<String> =
        wish.alerts.iter().filter(|(_, thread)| !had_effect.contains(thread)).map(|(alert, _)| alert.clone()).collect();
    match current {
        _ if new.is_empty() => Plan::Nothing,
        Some(current) if matches!(current.state.as_str(), "planned" | "applying" | "in_force") => {
            Plan::Extend(current.row, new)
        }
        _ => Plan::Apply(wish.alerts.iter().map(|(alert, _)| alert.clone()).collect()),
    }
}

async fn plan(
    connection: &mut Connection<'_>,
    step: &mut Step<'_>,
    desired: &DesiredAction,
    ttl_s: u32,
    alerts: &[String],
) -> Result<NewIntent, LedgerError> {
    let row: i64 = database::query_scalar(
        "INSERT INTO actions(action_id, tenant, kind, target, ttl_s, state, alerts, planned_at, changed_at)
         VALUES ($1, $2, $3, $4, $5, 'planned', $6, $7, $8) RETURNING id",
    )
    .bind(desired.id.to_string())
    .bind(desired.tenant.as_str())
    .bind(desired.kind.as_str())
    .bind(&*desired.target)
    .bind(ttl_s)
    .bind(json!(alerts).to_string())
    .bind(step.at.micros())
    .bind(step.at.micros())
    .fetch_one(connection)
    .await
    .map_err(LedgerError::store("plan an action"))?;
    step.audit.push(Entry::engine(
        "action_planned",
        format!("action {row}"),
        json!({"kind": desired.kind, "target": desired.target, "ttl_s": ttl_s, "alerts": alerts}),
    ));
    Ok(intent(step, desired, row, ttl_s, Operation::Block, "desired"))
}

fn intent(
    step: &Step<'_>,
    desired: &DesiredAction,
    row: i64,
    ttl_s: u32,
    operation: Operation,
    reason: &str,
) -> NewIntent {
    NewIntent::action(
        operation,
        desired.kind.as_str(),
        &desired.id.to_string(),
        &desired.target,
        row,
        ttl_s,
        reason,
        step.record.generation,
        step.record.epoch,
        step.at,
    )
}

async fn note_alerts(connection: &mut Connection<'_>, row: i64, new: &[String]) -> Result<(), LedgerError> {
    database::query(
        "UPDATE actions SET alerts = (SELECT json_group_array(atom) FROM
             (SELECT atom FROM json_each(alerts) UNION SELECT atom FROM json_each($1) ORDER BY atom) AS wanted)
         WHERE id = $2",
    )
    .bind(json!(new).to_string())
    .bind(row)
    .execute(connection)
    .await
    .map_err(LedgerError::store("note an action's alerts"))?;
    Ok(())
}

/// Takes back what nobody has tried yet: no effect, no message.
async fn cancel(
    connection: &mut Connection<'_>,
    step: &mut Step<'_>,
    desired: &DesiredAction,
    row: i64,
) -> Result<(), LedgerError> {
    let store = LedgerError::store("cancel an action");
    database::query(
        "UPDATE actions SET state = 'undone', reason = 'withdrawn', ended_at = $1, changed_at = $2 WHERE id = $3",
    )
    .bind(step.at.micros())
    .bind(step.at.micros())
    .bind(row)
    .execute(&mut *connection)
    .await
    .map_err(&store)?;
    database::query("UPDATE intents SET state = 'superseded', done_at = $1 WHERE action = $2 AND state = 'planned'")
        .bind(step.at.micros())
        .bind(row)
        .execute(connection)
        .await
        .map_err(&store)?;
    let detail = json!({"kind": desired.kind, "target": desired.target, "reason": "withdrawn before it was tried"});
    step.audit.push(Entry::engine("action_cancelled", format!("action {row}"), detail));
    Ok(())
}

async fn undo(connection: &mut Connection<'_>, step: &Step<'_>, row: i64) -> Result<(), LedgerError> {
    let store = LedgerError::store("undo an action");
    database::query("UPDATE actions SET state = 'undoing', reason = 'withdrawn', changed_at = $1 WHERE id = $2")
        .bind(step.at.micros())
        .bind(row)
        .execute(&mut *connection)
        .await
        .map_err(&store)?;
    // A try that waits to be repeated, or an extension, would only come before the undoing; the undoing verifies that
    // nothing of them is left.
    database::query("UPDATE intents SET state = 'superseded', done_at = $1 WHERE action = $2 AND state = 'planned'")
        .bind(step.at.micros())
        .bind(row)
        .execute(connection)
        .await
        .map_err(&store)?;
    Ok(())
}

/// Writes the changed wishes; gives one wish per touched action, for its kind and target.
async fn write_desired<'a>(
    connection: &mut Connection<'_>,
    output: &'a EpochOutput,
) -> Result<BTreeMap<ActionId, &'a DesiredAction>, LedgerError> {
    let mut touched = BTreeMap::new();
    // One row per key: no statement may change a row twice.
    let (mut went, mut came) = (Vec::new(), BTreeMap::new());
    for (row, diff) in &output.rows {
        let Row::Desired(desired) = row else { continue };
        touched.insert(desired.id, desired);
        if *diff < 0 {
            went.push(json!([desired.id, desired.alert]));
        } else {
            let row = json!([
                desired.id,
                desired.alert,
                desired.tenant,
                desired.kind.as_str(),
                desired.target,
                desired.ttl_s,
                desired.anchor
            ]);
            came.insert((desired.id, desired.alert), row);
        }
    }
    batch(
        connection,
        "DELETE FROM desired WHERE (action_id, alert_id) IN (SELECT value->>0, value->>1 FROM json_each($1))",
        went,
    )
    .await?;
    batch(
        connection,
        "INSERT INTO desired
         SELECT value->>0, value->>1, value->>2, value->>3, value->>4, CAST(value->>5 AS BIGINT), CAST(value->>6 AS BIGINT)
         FROM json_each($1) WHERE true
         ON CONFLICT (action_id, alert_id) DO UPDATE SET tenant = excluded.tenant, kind = excluded.kind,
             target = excluded.target, ttl_s = excluded.ttl_s, anchor = excluded.anchor",
        came.into_values().collect(),
    )
    .await?;
    Ok(touched)
}

async fn load_wishes(
    connection: &mut Connection<'_>,
    touched: &BTreeMap<ActionId, &DesiredAction>,
) -> Result<BTreeMap<ActionId, Wish>, LedgerError> {
    let store = LedgerError::store("read the desired actions");
    let rows = database::query(
        "SELECT d.action_id, d.alert_id, coalesce(a.thread, d.alert_id), d.ttl_s
         FROM desired d LEFT JOIN alerts a ON a.alert_id = d.alert_id
         WHERE d.action_id IN (SELECT atom FROM json_each($1))
           AND NOT EXISTS (SELECT 1 FROM backfilled b WHERE b.thread = a.thread) ORDER BY d.action_id, d.anchor, d.alert_id",
    )
    .bind(id_list(touched.keys()))
    .fetch_all(connection)
    .await
    .map_err(&store)?;
    let mut wishes: BTreeMap<ActionId, Wish> = BTreeMap::new();
    for row in &rows {
        let Some(id) = action_id(row) else { continue };
        let wish = wishes.entry(id).or_default();
        wish.alerts.push((row.try_get(1).map_err(&store)?, row.try_get(2).map_err(&store)?));
        // The longest wish holds.
        wish.ttl_s = wish.ttl_s.max(row.try_get(3).map_err(&store)?);
    }
    Ok(wishes)
}

async fn load_applications(
    connection: &mut Connection<'_>,
    touched: &BTreeMap<ActionId, &DesiredAction>,
) -> Result<BTreeMap<ActionId, Vec<Application>>, LedgerError> {
    let store = LedgerError::store("read the actions so far");
    let rows = database::query(
        "SELECT action_id, id, state, reason,
                (SELECT json_group_array(coalesce(a.thread, j.atom))
                 FROM json_each(actions.alerts) j LEFT JOIN alerts a ON a.alert_id = j.atom) AS threads
         FROM actions WHERE action_id IN (SELECT atom FROM json_each($1)) ORDER BY action_id, id",
    )
    .bind(id_list(touched.keys()))
    .fetch_all(connection)
    .await
    .map_err(&store)?;
    let mut applications: BTreeMap<ActionId, Vec<Application>> = BTreeMap::new();
    for row in &rows {
        let Some(id) = action_id(row) else { continue };
        let threads: String = row.try_get(4).map_err(&store)?;
        applications.entry(id).or_default().push(Application {
            row: row.try_get(1).map_err(&store)?,
            state: row.try_get(2).map_err(&store)?,
            reason: row.try_get(3).map_err(&store)?,
            threads: serde_json::from_str(&threads).map_err(LedgerError::damaged("an action's alerts"))?,
        });
    }
    Ok(applications)
}

fn action_id(row: &DbRow) -> Option<ActionId> {
    row.try_get::<String, _>(0).ok()?.parse().ok()
}
