//! Who is told what: at most one message per thread, revision and channel. What was never sent is not taken back, and
//! amendments that nobody has seen yet are folded into one message.

use std::collections::BTreeMap;

use cf_types::{AlertId, Time};
use serde_json::{Value, json};

use super::{AlertChange, AlertEvent, Step, id_list};
use crate::{
    LedgerError, Operation, Routes,
    database::{self, Connection},
    outbox::{self, NewIntent},
};

/// Makes the messages of an epoch; gives how many.
pub(super) async fn apply(
    connection: &mut Connection<'_>,
    step: &mut Step<'_>,
    changes: &[AlertChange],
    routes: &Routes,
) -> Result<usize, LedgerError> {
    let telling: Vec<&AlertChange> = changes
        .iter()
        .filter(|change| matches!(change.event, AlertEvent::Opened | AlertEvent::Amended | AlertEvent::Withdrawn))
        .collect();
    if telling.is_empty() || routes.routes.is_empty() {
        return Ok(0);
    }
    let sent = load_sent(connection, &telling).await?;
    let (mut intents, mut stale) = (Vec::new(), Vec::new());
    for change in telling {
        for route in &routes.routes {
            let before = sent.get(&(change.thread.to_string(), route.channel.to_string()));
            let holds = before.is_some_and(|sent| sent.holds);
            if before.is_some_and(|sent| sent.untried) {
                stale.push((change.thread, &route.channel));
            }
            let Some(operation) = operation(change.event, holds) else { continue };
            if !holds && change.alert.level < route.level_min {
                continue;
            }
            let mut due = step.at.micros();
            // Only amendments wait; the first message and the last never do.
            if operation == Operation::Amended {
                let last_at = before.and_then(|sent| sent.last_at).unwrap_or(0);
                due = due.max(last_at.saturating_add(routes.amend_interval_us));
            }
            intents.push(NewIntent::notice(
                operation,
                &route.channel,
                &change.thread.to_string(),
                change.revision,
                body(step, change, operation, before.map_or(&[], |sent| &sent.merged)),
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

/// What a channel is told, given whether the last thing that it was told is that the alert holds. A withdrawal that was
/// not sent when the alert came back never was; nor is an alert opened that came and went meanwhile.
fn operation(event: AlertEvent, holds: bool) -> Option<Operation> {
    match event {
        AlertEvent::Opened | AlertEvent::Amended => Some(if holds { Operation::Amended } else { Operation::Opened }),
        AlertEvent::Withdrawn => holds.then_some(Operation::Withdrawn),
        AlertEvent::Provisional
        | AlertEvent::Moved
        | AlertEvent::Gauge
        | AlertEvent::Sealed
        | AlertEvent::Superseded => None,
    }
}

/// What a channel knows of a thread.
#[derive(Default)]
struct Sent {
    /// The last message that was sent, or may have been, says that the alert holds.
    holds: bool,
    /// A message waits that nobody has tried.
    untried: bool,
    /// When the last was sent or tried.
    last_at: Option<i64>,
    /// Threads that it was told of and that are this one now.
    merged: Vec<String>,
}

/// A thread's id is that of its first alert, so a message of a thread that was merged away is found by that alert.
async fn load_sent(
    connection: &mut Connection<'_>,
    telling: &[&AlertChange],
) -> Result<BTreeMap<(String, String), Sent>, LedgerError> {
    let store = LedgerError::store("read what channels were told");
    let rows = database::query(
        "SELECT a.thread, i.receiver, i.thread,
                max(CASE WHEN i.state IN ('trying', 'confirmed')
                           OR (i.state = 'planned' AND (i.tries > 0 OR i.verify_first <> 0))
                    THEN i.id * 2 + CASE WHEN i.operation = 'withdrawn' THEN 0 ELSE 1 END END) % 2,
                max(CASE WHEN i.state = 'planned' AND i.tries = 0 AND i.verify_first = 0 THEN 1 ELSE 0 END),
                max(CASE WHEN i.state <> 'superseded' THEN coalesce(i.done_at, i.tried_at) END)
         FROM alerts a JOIN intents i ON i.thread = a.alert_id
         WHERE a.thread IN (SELECT atom FROM json_each($1)) GROUP BY a.thread, i.receiver, i.thread",
    )
    .bind(id_list(telling.iter().map(|change| change.thread)))
    .fetch_all(connection)
    .await
    .map_err(&store)?;
    let mut all: BTreeMap<(String, String), Sent> = BTreeMap::new();
    for row in &rows {
        let text = |index: usize| row.try_get::<String, _>(index).map_err(&store);
        let (thread, told_as) = (text(0)?, text(2)?);
        let holds = row.try_get::<Option<i64>, _>(3).map_err(&store)? == Some(1);
        let sent = all.entry((thread.clone(), text(1)?)).or_default();
        // Threads that became one may have been left differently: what any of them says holds must be taken back.
        sent.holds |= holds;
        sent.untried |= row.try_get::<i64, _>(4).map_err(&store)? != 0;
        sent.last_at = sent.last_at.max(row.try_get(5).map_err(&store)?);
        if holds && told_as != thread {
            sent.merged.push(told_as);
        }
    }
    Ok(all)
}

async fn supersede(
    connection: &mut Connection<'_>,
    at: Time,
    thread: AlertId,
    channel: &str,
) -> Result<(), LedgerError> {
    database::query(
        "UPDATE intents SET state = 'superseded', done_at = $1
         WHERE thread IN (SELECT alert_id FROM alerts WHERE thread = $2) AND receiver = $3 AND state = 'planned' AND tries = 0 AND verify_first = 0",
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
fn body(step: &Step<'_>, change: &AlertChange, operation: Operation, merged: &[String]) -> Value {
    let alert = &change.alert;
    let members = step.members.get(&alert.id);
    let end_of = |cell: i64| Time::from_seconds(cell);
    json!({
        "event": operation.as_str(),
        "tenant": alert.tenant,
        "thread": change.thread,
        "merged_threads": merged,
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
