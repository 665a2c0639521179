//! The outbox: intents, written with their epoch, tried and confirmed by the response side.
//!
//! An intent goes `planned` -> `trying` -> `confirmed` | `failed` | `refused` | `dry_run`, or back to `planned` with a
//! later time. Who dies while trying leaves `trying`: the next generation gets it back as *verify first*. Intents of one
//! subject (a thread on a channel, an action) go one after the other; different subjects never wait for each other.

use std::{collections::BTreeSet, fmt};

use cf_types::{Epoch, Time};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    Ledger, LedgerError,
    apply::number,
    audit::{self, Entry},
    database::{self, Connection, DbRow},
};

/// What an intent is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IntentKind {
    /// Tell a channel.
    Notify,
    /// Do something to the world.
    Action,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Tell of a new alert.
    Opened,
    /// Tell that its content changed.
    Amended,
    /// Tell that it does not hold any more.
    Withdrawn,
    /// Apply an action.
    Block,
    /// Undo it.
    Unblock,
}

impl Operation {
    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Operation::Opened => "opened",
            Operation::Amended => "amended",
            Operation::Withdrawn => "withdrawn",
            Operation::Block => "block",
            Operation::Unblock => "unblock",
        }
    }

    fn parse(word: &str) -> Option<Operation> {
        [Operation::Opened, Operation::Amended, Operation::Withdrawn, Operation::Block, Operation::Unblock]
            .into_iter()
            .find(|operation| operation.as_str() == word)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Receiver of the intents that block addresses, as [`Ledger::pending`] takes it.
pub const BLOCK_ADDRESS: &str = "action:block_address";

/// One intent that is due.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Intent {
    /// Its number, the ledger's sequence.
    pub id: i64,
    /// Notify or act.
    pub kind: IntentKind,
    /// What to do.
    pub operation: Operation,
    /// The channel's name, or [`BLOCK_ADDRESS`].
    pub receiver: String,
    /// The alert's thread, for messages.
    pub thread: Option<String>,
    /// The thread's revision, for messages.
    pub revision: Option<i64>,
    /// The application's number (`actions.id`), for actions.
    pub action: Option<i64>,
    /// The message; for actions `target`, `ttl_s`, `reason`.
    pub body: Value,
    /// Idempotency key: the same for every try of this intent and of no other.
    pub key: String,
    /// How often it was tried before.
    pub tries: u32,
    /// Whether an earlier try may have had its effect: look before doing it again.
    pub verify_first: bool,
    /// When it was decided.
    pub made_at: Time,
}

impl Intent {
    /// An action's target.
    #[must_use]
    pub fn target(&self) -> Option<&str> {
        self.body.get("target")?.as_str()
    }

    /// An action's time to live, in seconds.
    #[must_use]
    pub fn ttl_s(&self) -> Option<u32> {
        u32::try_from(self.body.get("ttl_s")?.as_u64()?).ok()
    }

    fn of_row(row: &DbRow) -> Result<Intent, LedgerError> {
        let store = LedgerError::store("read an intent");
        let body: String = row.try_get("body").map_err(&store)?;
        let operation: String = row.try_get("operation").map_err(&store)?;
        let kind: String = row.try_get("kind").map_err(&store)?;
        let operation = Operation::parse(&operation)
            .ok_or_else(|| store(sqlx::Error::Decode(format!("no operation: {operation}").into())))?;
        Ok(Intent {
            id: row.try_get("id").map_err(&store)?,
            kind: if kind == "action" { IntentKind::Action } else { IntentKind::Notify },
            operation,
            receiver: row.try_get("receiver").map_err(&store)?,
            thread: row.try_get("thread").map_err(&store)?,
            revision: row.try_get("revision").map_err(&store)?,
            action: row.try_get("action").map_err(&store)?,
            body: serde_json::from_str(&body).map_err(LedgerError::damaged("an intent's body"))?,
            key: row.try_get("key").map_err(&store)?,
            tries: row.try_get("tries").map_err(&store)?,
            verify_first: row.try_get("verify_first").map_err(&store)?,
            made_at: Time::from_micros(row.try_get("made_at").map_err(&store)?),
        })
    }
}

/// A try that has begun: the intent is `trying`, its effect may happen now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Try {
    /// The intent as it was when the try began.
    pub intent: Intent,
}

/// How a try ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The effect is there, verified as far as the receiver allows.
    Confirmed,
    /// An action's effect was there already, until then.
    ConfirmedUntil {
        /// When it ends.
        until: Time,
    },
    /// The effect is not there. `retry_at`: try again then; `None`: never (dead letter).
    Failed {
        /// When to try again.
        retry_at: Option<Time>,
    },
    /// Nobody knows (time-out, connection lost): verify first, not before `retry_at`; `None`: never (dead letter).
    Unknown {
        /// When to look again.
        retry_at: Option<Time>,
    },
    /// It must not be done (protected target).
    Refused,
    /// It would be done; nothing was touched.
    DryRun,
}

/// An action whose effect is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ActionInForce {
    /// Number of the application.
    pub id: i64,
    /// `block_address`.
    pub kind: String,
    /// To whom.
    pub target: String,
    /// Until when.
    pub until: Time,
}

impl Ledger {
    /// Intents of a receiver that are due, oldest first: of each subject only the oldest unfinished one, and none while
    /// one is being tried.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn pending(&self, receiver: &str, now: Time, limit: u32) -> Result<Vec<Intent>, LedgerError> {
        let rows = database::query(
            "SELECT * FROM intents AS i WHERE receiver = $1 AND state = 'planned' AND due <= $2 AND NOT EXISTS (
                 SELECT 1 FROM intents AS j
                 WHERE j.subject = i.subject AND j.state IN ('planned', 'trying') AND j.id < i.id)
             ORDER BY id LIMIT $3",
        )
        .bind(receiver)
        .bind(now.micros())
        .bind(limit)
        .fetch_all(&mut *self.writer().await)
        .await
        .map_err(LedgerError::store("read pending intents"))?;
        rows.iter().map(Intent::of_row).collect()
    }

    /// When the next intent of a receiver is due; `None` when it has none.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn next_due(&self, receiver: &str) -> Result<Option<Time>, LedgerError> {
        let due: Option<i64> =
            database::query_scalar("SELECT min(due) FROM intents WHERE receiver = $1 AND state = 'planned'")
                .bind(receiver)
                .fetch_one(&mut *self.writer().await)
                .await
                .map_err(LedgerError::store("read when the next intent is due"))?;
        Ok(due.map(Time::from_micros))
    }

    /// Receivers with unfinished intents, sorted: to find those that the settings know no longer.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn receivers(&self) -> Result<Vec<String>, LedgerError> {
        database::query_scalar(
            "SELECT DISTINCT receiver FROM intents WHERE state IN ('planned', 'trying') ORDER BY receiver",
        )
        .fetch_all(&mut *self.writer().await)
        .await
        .map_err(LedgerError::store("read the receivers"))
    }

    /// Notes, durably, that the effect may happen from now on.
    ///
    /// # Errors
    /// [`LedgerError::Intent`] when the intent is not `planned` any more (replaced by a newer one, or tried by
    /// another): then it must not be tried.
    pub async fn begin_try(&self, intent: &Intent, now: Time) -> Result<Try, LedgerError> {
        let store = LedgerError::store("begin a try");
        let mut writer = self.writer().await;
        let mut transaction = writer.begin().await.map_err(&store)?;
        let row = database::query(
            "UPDATE intents SET state = 'trying', tried_at = $2, tries = tries + 1
             WHERE id = $1 AND state = 'planned' AND generation <= (SELECT generation FROM engine) RETURNING *",
        )
        .bind(intent.id)
        .bind(now.micros())
        .fetch_optional(&mut *transaction)
        .await
        .map_err(&store)?;
        let Some(row) = row else {
            transaction.rollback().await.map_err(&store)?;
            return Err(LedgerError::Intent { intent: intent.id, step: "tried", wanted: "planned" });
        };
        let begun = Try { intent: Intent::of_row(&row)? };
        if let (Some(action), Operation::Block) = (intent.action, intent.operation) {
            database::query(
                "UPDATE actions SET state = 'applying', changed_at = $1 WHERE id = $2 AND state = 'planned'",
            )
            .bind(now.micros())
            .bind(action)
            .execute(&mut *transaction)
            .await
            .map_err(&store)?;
        }
        let detail = json!({
            "operation": intent.operation, "receiver": intent.receiver, "try": begun.intent.tries,
            "verify_first": intent.verify_first, "key": intent.key,
        });
        audit::append(&mut transaction, now, &[Entry::response("intent_tried", subject(intent.id), detail)]).await?;
        transaction.commit().await.map_err(&store)?;
        Ok(begun)
    }

    /// Notes how a try ended, with its receipt.
    ///
    /// # Errors
    /// [`LedgerError::Intent`] when it is not being tried; or the ledger cannot be written: then the effect happened
    /// but is not noted, and the same call may be repeated.
    pub async fn finish(&self, begun: &Try, outcome: &Outcome, receipt: &Value, now: Time) -> Result<(), LedgerError> {
        let store = LedgerError::store("note an outcome");
        let intent = &begun.intent;
        let (state, due, verify) = match outcome {
            Outcome::Confirmed | Outcome::ConfirmedUntil { .. } => ("confirmed", None, false),
            Outcome::Failed { retry_at: Some(at) } => ("planned", Some(at.micros()), false),
            Outcome::Unknown { retry_at: Some(at) } => ("planned", Some(at.micros()), true),
            Outcome::Failed { retry_at: None } | Outcome::Unknown { retry_at: None } => ("failed", None, false),
            Outcome::Refused => ("refused", None, false),
            Outcome::DryRun => ("dry_run", None, false),
        };
        let until = match outcome {
            Outcome::ConfirmedUntil { until } => *until,
            _ => now.plus_micros(i64::from(intent.ttl_s().unwrap_or(0)).saturating_mul(1_000_000)),
        };
        let mut writer = self.writer().await;
        let mut transaction = writer.begin().await.map_err(&store)?;
        let done = database::query(
            "UPDATE intents SET state = $2, due = coalesce($3, due), verify_first = $4, receipt = $5,
                 done_at = CASE WHEN $3 IS NULL THEN $6 END
             WHERE id = $1 AND state = 'trying'",
        )
        .bind(intent.id)
        .bind(state)
        .bind(due)
        .bind(i64::from(verify))
        .bind(receipt.to_string())
        .bind(now.micros())
        .execute(&mut *transaction)
        .await
        .map_err(&store)?;
        if done.rows_affected() != 1 {
            transaction.rollback().await.map_err(&store)?;
            return Err(LedgerError::Intent { intent: intent.id, step: "finished", wanted: "being tried" });
        }
        let action = match intent.action {
            Some(action) => finish_action(&mut transaction, intent, action, state, until, now).await?,
            None => None,
        };
        if intent.action.is_some() && state != "planned" {
            receipt_to_control(&mut transaction, intent, state, receipt, now).await?;
        }
        let name = match (state, outcome) {
            ("planned", Outcome::Unknown { .. }) => "intent_unknown",
            ("planned", _) => "intent_retried",
            ("confirmed", _) => "intent_confirmed",
            ("failed", _) => "intent_dead",
            ("refused", _) => "intent_refused",
            _ => "intent_dry_run",
        };
        let detail = json!({
            "operation": intent.operation, "receiver": intent.receiver, "try": intent.tries, "action": action,
            "receipt": receipt,
        });
        audit::append(&mut transaction, now, &[Entry::response(name, subject(intent.id), detail)]).await?;
        transaction.commit().await.map_err(&store)
    }

    /// Plans the undoing of the actions whose time is up; gives how many.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub async fn expire_actions(&self, now: Time) -> Result<usize, LedgerError> {
        let store = LedgerError::store("expire actions");
        let mut writer = self.writer().await;
        let mut transaction = writer.begin().await.map_err(&store)?;
        let rows = database::query(
            "UPDATE actions SET state = 'undoing', reason = 'expired', changed_at = $1
             WHERE state = 'in_force' AND until_at <= $1
             RETURNING id, action_id, kind, target, (SELECT generation FROM engine), (SELECT upper FROM engine)",
        )
        .bind(now.micros())
        .fetch_all(&mut *transaction)
        .await
        .map_err(&store)?;
        let mut intents = Vec::new();
        for row in &rows {
            let text = |index: usize| row.try_get::<String, _>(index).map_err(&store);
            let unsigned = |index: usize| {
                row.try_get::<i64, _>(index).map(|number| u64::try_from(number).unwrap_or_default()).map_err(&store)
            };
            let id: i64 = row.try_get(0).map_err(&store)?;
            intents.push(NewIntent::action(
                Operation::Unblock,
                &text(2)?,
                &text(1)?,
                &text(3)?,
                id,
                0,
                "expired",
                unsigned(4)?,
                unsigned(5)?,
                now,
            ));
        }
        let mut entries = Vec::new();
        let made = insert(&mut transaction, &mut entries, intents).await?;
        audit::append(&mut transaction, now, &entries).await?;
        transaction.commit().await.map_err(&store)?;
        Ok(made)
    }

    /// The actions whose effect is there, by number.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn actions_in_force(&self) -> Result<Vec<ActionInForce>, LedgerError> {
        let store = LedgerError::store("read the actions in force");
        database::query("SELECT id, kind, target, until_at FROM actions WHERE state = 'in_force' ORDER BY id")
            .fetch_all(&mut *self.writer().await)
            .await
            .and_then(|rows| {
                rows.iter()
                    .map(|row| {
                        Ok(ActionInForce {
                            id: row.try_get(0)?,
                            kind: row.try_get(1)?,
                            target: row.try_get(2)?,
                            until: Time::from_micros(row.try_get(3)?),
                        })
                    })
                    .collect()
            })
            .map_err(store)
    }
}

/// Appends how an action stands to the control log: an outcome is a fact like any other, so it has an epoch, and history
/// can tell each step exactly once.
async fn receipt_to_control(
    connection: &mut Connection<'_>,
    intent: &Intent,
    outcome: &str,
    receipt: &Value,
    now: Time,
) -> Result<(), LedgerError> {
    let store = LedgerError::store("note a receipt in the control log");
    let row = database::query("SELECT * FROM actions WHERE id = $1")
        .bind(intent.action)
        .fetch_optional(&mut *connection)
        .await
        .map_err(&store)?;
    let Some(row) = row else { return Ok(()) };
    let text = |column: &str| row.try_get::<String, _>(column).map_err(&store);
    let maybe = |column: &str| row.try_get::<Option<i64>, _>(column).map_err(&store);
    let alerts: Value = serde_json::from_str(&text("alerts")?).map_err(LedgerError::damaged("an action's alerts"))?;
    let body = json!({
        "tenant": text("tenant")?, "number": maybe("id")?, "action_id": text("action_id")?, "kind": text("kind")?,
        "target": text("target")?, "state": text("state")?,
        "reason": row.try_get::<Option<String>, _>("reason").map_err(&store)?,
        "alerts": alerts, "ttl_s": maybe("ttl_s")?, "until_us": maybe("until_at")?,
        "operation": intent.operation.as_str(), "outcome": outcome, "receipt": receipt, "at_us": now.micros(),
    });
    database::query("INSERT INTO control(kind, body, author, reason, at) VALUES ('receipt', $1, 'response', '', $2)")
        .bind(body.to_string())
        .bind(now.micros())
        .execute(connection)
        .await
        .map(drop)
        .map_err(&store)
}

/// Moves an action on after a try of one of its intents; gives its new state, if it has one.
async fn finish_action(
    connection: &mut Connection<'_>,
    intent: &Intent,
    action: i64,
    intent_state: &str,
    until: Time,
    now: Time,
) -> Result<Option<&'static str>, LedgerError> {
    let store = LedgerError::store("note an action's state");
    let (sql, state) = match (intent.operation, intent_state) {
        // Meanwhile nobody may want it any more (`undoing`): then only the times are noted, its undoing waits behind.
        (Operation::Block, "confirmed") => (
            "UPDATE actions SET state = CASE state WHEN 'applying' THEN 'in_force' ELSE state END,
                 applied_at = coalesce(applied_at, $2), until_at = $3, changed_at = $2 WHERE id = $1",
            "in_force",
        ),
        (Operation::Block, "failed") => (
            "UPDATE actions SET state = 'failed', ended_at = $2, changed_at = $2
             WHERE id = $1 AND state = 'applying' AND $3 IS NOT NULL",
            "failed",
        ),
        (Operation::Block, "refused") => (
            "UPDATE actions SET state = 'refused', reason = 'protected', ended_at = $2, changed_at = $2
             WHERE id = $1 AND state = 'applying' AND $3 IS NOT NULL",
            "refused",
        ),
        (Operation::Block, "dry_run") => (
            "UPDATE actions SET state = 'dry_run', ended_at = $2, changed_at = $2
             WHERE id = $1 AND state = 'applying' AND $3 IS NOT NULL",
            "dry_run",
        ),
        (Operation::Unblock, "planned") | (Operation::Block, "planned") => return Ok(None),
        (Operation::Unblock, "confirmed" | "dry_run") => (
            "UPDATE actions SET state = 'undone', ended_at = $2, changed_at = $2 WHERE id = $1 AND $3 IS NOT NULL",
            "undone",
        ),
        (Operation::Unblock, _) => (
            "UPDATE actions SET state = 'failed', ended_at = $2, changed_at = $2 WHERE id = $1 AND $3 IS NOT NULL",
            "failed",
        ),
        _ => return Ok(None),
    };
    database::query(sql)
        .bind(action)
        .bind(now.micros())
        .bind(until.micros())
        .execute(connection)
        .await
        .map_err(&store)?;
    Ok(Some(state))
}

fn subject(intent: i64) -> String {
    format!("intent {intent}")
}

/// An intent to be written.
pub(crate) struct NewIntent {
    kind: &'static str,
    operation: Operation,
    receiver: String,
    subject: String,
    thread: Option<String>,
    revision: Option<i64>,
    action: Option<i64>,
    body: Value,
    /// What the key is made of, besides the content.
    key: (String, String),
    generation: u64,
    epoch: Epoch,
    due: Time,
    made_at: Time,
}

impl NewIntent {
    #[allow(clippy::too_many_arguments)] // two callers in this crate, each argument a column
    pub(crate) fn notice(
        operation: Operation,
        channel: &str,
        thread: &str,
        revision: i64,
        body: Value,
        generation: u64,
        epoch: Epoch,
        due: Time,
        made_at: Time,
    ) -> NewIntent {
        NewIntent {
            kind: "notify",
            operation,
            receiver: channel.to_owned(),
            subject: format!("notify {channel} {thread}"),
            thread: Some(thread.to_owned()),
            revision: Some(revision),
            action: None,
            body,
            key: (thread.to_owned(), channel.to_owned()),
            generation,
            epoch,
            due,
            made_at,
        }
    }

    #[allow(clippy::too_many_arguments)] // as above
    pub(crate) fn action(
        operation: Operation,
        kind: &str,
        action_id: &str,
        target: &str,
        row: i64,
        ttl_s: u32,
        reason: &str,
        generation: u64,
        epoch: Epoch,
        at: Time,
    ) -> NewIntent {
        NewIntent {
            kind: "action",
            operation,
            receiver: format!("action:{kind}"),
            subject: format!("action {action_id}"),
            thread: None,
            revision: None,
            action: Some(row),
            body: json!({"action": kind, "target": target, "ttl_s": ttl_s, "reason": reason}),
            key: (action_id.to_owned(), target.to_owned()),
            generation,
            epoch,
            due: at,
            made_at: at,
        }
    }
}

/// What of a message makes it another one for who receives it: all but counts and times, which grow.
const CONTENT: &[&str] =
    &["event", "state", "title", "level", "score", "group", "entities", "tags", "reason", "target", "action"];

/// An idempotency key: of receiver and subject, of what is said or done, and of how often the same was said before.
///
/// Not of the ledger's sequence: a restored ledger that meets the same alerts in other epochs, and in another order, gives
/// the same message the same key, so that who received it knows it again.
async fn key_of(
    connection: &mut Connection<'_>,
    intent: &NewIntent,
    taken: &BTreeSet<String>,
) -> Result<String, LedgerError> {
    let content: Vec<_> = CONTENT.iter().map(|name| intent.body.get(*name)).collect();
    let content = json!([intent.operation, content]).to_string();
    let key = |nth: u64| {
        let parts = [intent.key.0.as_bytes(), intent.key.1.as_bytes(), content.as_bytes(), &nth.to_le_bytes()];
        let key = u128::from_be_bytes(cf_types::id::digest128("counterflow 2026-11 idempotency key", &parts));
        format!("{key:032x}")
    };
    // Intents are never deleted, so the keys that are taken are the first ones without a gap. What flaps all night is said
    // thousands of times: the first free number is halved in on, not counted up to.
    let (mut said, mut free) = (0, 1);
    while is_taken(connection, &key(free), taken).await? {
        (said, free) = (free, free * 2);
    }
    while free - said > 1 {
        let middle = said + (free - said) / 2;
        if is_taken(connection, &key(middle), taken).await? {
            said = middle;
        } else {
            free = middle;
        }
    }
    Ok(key(free))
}

async fn is_taken(connection: &mut Connection<'_>, key: &str, taken: &BTreeSet<String>) -> Result<bool, LedgerError> {
    if taken.contains(key) {
        return Ok(true);
    }
    database::query_scalar("SELECT EXISTS (SELECT 1 FROM intents WHERE key = $1)")
        .bind(key)
        .fetch_one(connection)
        .await
        .map_err(LedgerError::store("look for a key"))
}

/// Writes intents with the next numbers, and an audit entry each; gives how many.
pub(crate) async fn insert(
    connection: &mut Connection<'_>,
    entries: &mut Vec<Entry>,
    intents: Vec<NewIntent>,
) -> Result<usize, LedgerError> {
    if intents.is_empty() {
        return Ok(0);
    }
    let store = LedgerError::store("write intents");
    let mut keys = BTreeSet::new();
    // The caller holds the write lock, so the sequence cannot move between reading it and writing.
    let mut id: i64 = database::query_scalar("SELECT coalesce(max(id), 0) FROM intents")
        .fetch_one(&mut *connection)
        .await
        .map_err(&store)?;
    let mut rows = Vec::with_capacity(intents.len());
    let made = intents.len();
    for intent in intents {
        id += 1;
        let key = key_of(connection, &intent, &keys).await?;
        keys.insert(key.clone());
        entries.push(Entry::engine(
            "intent_made",
            subject(id),
            json!({
                "operation": intent.operation, "receiver": intent.receiver, "thread": intent.thread,
                "revision": intent.revision, "action": intent.action, "key": key,
            }),
        ));
        rows.push(json!([
            id,
            intent.kind,
            intent.operation.as_str(),
            intent.receiver,
            intent.subject,
            intent.thread,
            intent.revision,
            intent.action,
            intent.body.to_string(),
            key,
            number(intent.generation),
            number(intent.epoch),
            intent.due.micros(),
            intent.made_at.micros()
        ]));
    }
    database::query(
        "INSERT INTO intents(id, kind, operation, receiver, subject, thread, revision, action, body, key, generation,
                             epoch, state, due, made_at)
         SELECT CAST(value->>0 AS BIGINT), value->>1, value->>2, value->>3, value->>4, value->>5,
                CAST(value->>6 AS BIGINT), CAST(value->>7 AS BIGINT), value->>8, value->>9, CAST(value->>10 AS BIGINT),
                CAST(value->>11 AS BIGINT), 'planned', CAST(value->>12 AS BIGINT), CAST(value->>13 AS BIGINT)
         FROM json_each($1)",
    )
    .bind(Value::Array(rows).to_string())
    .execute(connection)
    .await
    .map_err(&store)?;
    Ok(made)
}
