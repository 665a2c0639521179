//! Who is told what: at most one message per thread, revision and channel. What was never sent is not taken back, and
//! amendments that nobody has seen yet are folded into one message.

use std::collections::BTreeMap;

use cf_types::{AlertId, Time};
use serde_json::{Value, json};
use sqlx::{Row as _, SqliteConnection};

use super::{AlertChange, AlertEvent, Step, id_list};
use crate::{
    LedgerError, Operation, Routes,
    outbox::{self, NewIntent},
};

/// Makes the messages of an epoch; gives how many.
pub(super) async fn apply(
    connection: &mut SqliteConnection,
    step: &mut Step<'_>,
    changes: &[AlertChange],
    routes: &Routes,
) -> Result<usize, LedgerError> {
    let telling: Vec<&AlertChange> = changes
        .iter()
        .filter(|change| {
            matches!(change.event, AlertEvent::Opened | AlertEvent::Amended | AlertEvent::Withdrawn)
        })
        .collect();
    if telling.is_empty() || routes.routes.is_empty() {
        return Ok(0);
    }
    let sent = load_sent(connection, &telling).await?;
    let (mut intents, mut stale) = (Vec::new(), Vec::new());
    for change in telling {
        for route in &routes.routes {
            let before = sent.get(&(change.thread.to_string(), route.channel.to_string()));
            let told = before.is_some_and(|sent| sent.told);
            if before.is_some_and(|sent| sent.untried) {
                stale.push((change.thread, &route.channel));
            }
            let Some(operation) = operation(change.event, told) else { continue };
            if !told && change.alert.level < route.level_min {
                continue;
            }
            let not_before = before.filter(|_| told).and_then(|sent| sent.last_at).unwrap_or(0);
            let due = step.at.micros().max(not_before.saturating_add(routes.amend_interval_us));
            // The first message never waits.
            let due = if told && operation == Operation::Amended { due } else { step.at.micros() };
            intents.push(NewIntent::notice(
                operation,
                &route.channel,
                &change.thread.to_string(),
                change.revision,
                body(step, change, operation),
                step.record.generation,
                step.record.epoch,
                Time::from_micros(due),
                step.at,
            ));
        }
    }
    for (thread, channel) in stale {
        supersede(connection, step.at, thread, channel).await?;
    }
    outbox::insert(connection, &mut step.audit, intents).await
}

/// What a channel is told, given whether it was told anything of the thread before.
fn operation(event: AlertEvent, told: bool) -> Option<Operation> {
    match event {
        AlertEvent::Opened => Some(Operation::Opened),
        AlertEvent::Amended => Some(if told { Operation::Amended } else { Operation::Opened }),
        AlertEvent::Withdrawn => told.then_some(Operation::Withdrawn),
        AlertEvent::Moved | AlertEvent::Gauge | AlertEvent::Sealed | AlertEvent::Superseded => None,
    }
}

/// What a channel knows of a thread.
struct Sent {
    /// A message was sent, or may have been.
    told: bool,
    /// A message waits that nobody has tried.
    untried: bool,
    /// When the last was sent or tried.
    last_at: Option<i64>,
}

async fn load_sent(
    connection: &mut SqliteConnection,
    telling: &[&AlertChange],
) -> Result<BTreeMap<(String, String), Sent>, LedgerError> {
    let store = LedgerError::store("read what channels were told");
    let rows = sqlx::query(
        "SELECT thread, receiver,
                max(state IN ('trying', 'confirmed') OR (state = 'planned' AND (tries > 0 OR verify_first))),
                max(state = 'planned' AND tries = 0 AND NOT verify_first),
                max(CASE WHEN state <> 'superseded' THEN coalesce(done_at, tried_at) END)
         FROM intents WHERE thread IN (SELECT value FROM json_each(?)) GROUP BY thread, receiver",
    )
    .bind(id_list(telling.iter().map(|change| change.thread)))
    .fetch_all(connection)
    .await
    .map_err(&store)?;
    rows.iter()
        .map(|row| {
            let sent = Sent {
                told: row.try_get::<i64, _>(2)? != 0,
                untried: row.try_get::<i64, _>(3)? != 0,
                last_at: row.try_get(4)?,
            };
            Ok(((row.try_get(0)?, row.try_get(1)?), sent))
        })
        .collect::<Result<_, sqlx::Error>>()
        .map_err(&store)
}

async fn supersede(
    connection: &mut SqliteConnection,
    at: Time,
    thread: AlertId,
    channel: &str,
) -> Result<(), LedgerError> {
    sqlx::query(
        "UPDATE intents SET state = 'superseded', done_at = ?
         WHERE thread = ? AND receiver = ? AND state = 'planned' AND tries = 0 AND NOT verify_first",
    )
    .bind(at.micros())
    .bind(thread.to_string())
    .bind(channel)
    .execute(connection)
    .await
    .map_err(LedgerError::store("fold a message into a newer one"))?;
    Ok(())
}

/// The message, as it is sent: content at this revision, for ever.
fn body(step: &Step<'_>, change: &AlertChange, operation: Operation) -> Value {
    let alert = &change.alert;
    let members = step.members.get(&alert.id);
    let end_of = |cell: i64| Time::from_seconds(cell);
    json!({
        "event": operation.as_str(),
        "tenant": alert.tenant,
        "thread": change.thread,
        "alert_id": alert.id,
        "revision": change.revision,
        "state": change.state,
        "rule_id": alert.rule,
        "title": alert.title,
        "level": alert.level,
        "score": alert.score,
        "group": alert.group.to_json(),
        "entities": alert.entities,
        "tags": alert.tags,
        "count": alert.count,
        "first": members.map_or_else(|| alert.first(), |members| members.first),
        "last": members.map_or_else(|| end_of(alert.last_cell), |members| members.last),
        "incident": change.incident,
        "reason": change.reason,
        "first_events": members.map(|members| &members.first_members),
        "last_events": members.map(|members| &members.last_members),
    })
}
