//! The facts that hold, by subject: a table that follows the control log, so that adding one fact does not read all.
//!
//! It is derived, never the truth: whoever uses it first takes in what the control log has gained since, also from an
//! engine that does not know the table. Ends: a fact leaves with its removal; how many of a kind may be is bounded.

use std::collections::BTreeMap;

use cf_types::{Fact, FactBody, Time};

use crate::{
    LedgerError, control,
    database::{self, Connection},
};

/// How far the table has followed the control log.
const UPTO: &str = "facts_held_upto";
/// Entries taken in at once.
const PAGE: i64 = 4_096;

/// The most facts of a kind. Silences are met with every alert; the others are looked up.
fn facts_max(kind: &str) -> i64 {
    match kind {
        "silence" | "policy" => 1_000,
        "allow" => 100_000,
        _ => 1_000_000,
    }
}

/// Takes in what the control log has gained.
pub(crate) async fn catch_up(connection: &mut Connection<'_>) -> Result<(), LedgerError> {
    let store = LedgerError::store("follow the control log");
    let upto: Option<String> = database::query_scalar("SELECT value FROM meta WHERE key = $1")
        .bind(UPTO)
        .fetch_optional(&mut *connection)
        .await
        .map_err(&store)?;
    let first = upto.and_then(|upto| upto.parse().ok()).unwrap_or(0);
    let mut last = first;
    loop {
        let entries = control::since(connection, last, PAGE).await?;
        for entry in &entries {
            if let Some((fact, sign)) = entry.fact()? {
                take(connection, &fact, sign, entry.seq).await?;
            }
        }
        let Some(end) = entries.last() else { break };
        last = end.seq;
    }
    if last > first {
        database::query("INSERT INTO meta VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value")
            .bind(UPTO)
            .bind(last.to_string())
            .execute(connection)
            .await
            .map_err(&store)?;
    }
    Ok(())
}

async fn take(connection: &mut Connection<'_>, fact: &Fact, sign: i64, seq: i64) -> Result<(), LedgerError> {
    let text = serde_json::to_string(fact).map_err(LedgerError::damaged("a fact"))?;
    let query = if sign > 0 {
        database::query(
            "INSERT INTO facts_held VALUES ($1, $2, $3, $4) ON CONFLICT (fact)
             DO UPDATE SET subject = excluded.subject, kind = excluded.kind, seq = excluded.seq",
        )
        .bind(text)
        .bind(subject(fact)?)
        .bind(fact.body.kind())
        .bind(seq)
    } else {
        database::query("DELETE FROM facts_held WHERE fact = $1").bind(text)
    };
    query.execute(connection).await.map_err(LedgerError::store("follow the control log"))?;
    Ok(())
}

/// What the table knows a fact by: its subject, or itself where it has none.
fn subject(fact: &Fact) -> Result<String, LedgerError> {
    let text = match fact.body.subject() {
        Some(subject) => serde_json::to_string(&(fact.tenant.as_str(), subject)),
        None => serde_json::to_string(fact),
    };
    text.map_err(LedgerError::damaged("a fact"))
}

/// The facts that hold about the same subject.
pub(crate) async fn about(connection: &mut Connection<'_>, fact: &Fact) -> Result<Vec<Fact>, LedgerError> {
    let texts: Vec<String> = database::query_scalar("SELECT fact FROM facts_held WHERE subject = $1 ORDER BY seq")
        .bind(subject(fact)?)
        .fetch_all(connection)
        .await
        .map_err(LedgerError::store("read the facts"))?;
    texts.iter().map(|text| serde_json::from_str(text).map_err(LedgerError::damaged("a fact"))).collect()
}

/// How many facts of each kind may still be added, counted once per transaction.
#[derive(Default)]
pub(crate) struct Room(BTreeMap<&'static str, i64>);

impl Room {
    /// Takes a place for a fact, or refuses it.
    pub(crate) async fn take(&mut self, connection: &mut Connection<'_>, fact: &Fact) -> Result<(), LedgerError> {
        let kind = fact.body.kind();
        let left = match self.0.get(kind) {
            Some(left) => *left,
            None => {
                let held: i64 = database::query_scalar("SELECT count(*) FROM facts_held WHERE kind = $1")
                    .bind(kind)
                    .fetch_one(connection)
                    .await
                    .map_err(LedgerError::store("count the facts"))?;
                facts_max(kind) - held
            }
        };
        if left <= 0 {
            let why = format!("{} facts of kind {kind} hold, more may not; remove some first", facts_max(kind));
            return Err(LedgerError::Fact { why });
        }
        self.0.insert(kind, left - 1);
        Ok(())
    }
}

/// The fact with what is looked up when it is recorded: a verdict gets its alert's rule and its time.
pub(crate) async fn resolved(connection: &mut Connection<'_>, fact: &Fact, at: Time) -> Result<Fact, LedgerError> {
    let mut fact = fact.clone();
    if let FactBody::Verdict(verdict) = &mut fact.body
        && verdict.rule.is_empty()
    {
        let rule: Option<String> = database::query_scalar("SELECT rule FROM alerts WHERE alert_id = $1")
            .bind(verdict.alert.to_string())
            .fetch_optional(connection)
            .await
            .map_err(LedgerError::store("look up an alert"))?;
        let why = || format!("there is no alert {}", verdict.alert);
        verdict.rule = rule.ok_or_else(|| LedgerError::Fact { why: why() })?.into();
        verdict.at = at;
    }
    Ok(fact)
}
