//! The control log: what people and programs say while the engine runs. Every entry has a position and enters the
//! graph as a timed input.
//!
//! [`ControlLog`] is a plain connection beside the engine's: SQLite's write lock orders the two, so `facts add` works
//! while `run` is on and while it is stopped. A running engine sees the entry with its next cut.

use std::{collections::BTreeMap, path::Path};

use cf_fail as fail;
use cf_types::{Fact, Time};
use serde::Serialize;
use serde_json::json;

use crate::{
    LedgerError,
    audit::{self, Entry},
    database::{self, Connection, DbRow},
    format, held,
    location::Location,
    schema, server,
};

/// A fact begins to hold; the body is a [`Fact`] as JSON.
pub const FACT_ADD: &str = "fact_add";
/// A fact ceases to hold; the body is the same [`Fact`].
pub const FACT_REMOVE: &str = "fact_remove";
/// A rule made, changed, removed or disabled by hand; the body is JSON, its meaning the engine's.
pub const RULE: &str = "rule";
/// What rules found when they were met with history; the body is JSON with `rules`, their ids, its meaning else the
/// engine's.
pub const BACKFILL: &str = "rule_backfill";
/// From here on another rule set holds; the body is its hash as a JSON text.
pub const RULES: &str = "rules";

/// Kinds whose bodies repeat what events said, and of whom: what hunts, look-ups and warm starts found. The audit chain has the
/// hash of such a body in its place, so that a person's data can be erased from the control log and the chain holds.
pub const FOUND: [&str; 4] = [crate::hunts::HUNT_FOUND, BACKFILL, "indicator_lookup", "rule_memory"];

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ControlEntry {
    /// Its position, from 1, rising.
    pub seq: i64,
    /// What it is: [`FACT_ADD`], [`FACT_REMOVE`], [`RULES`], ...
    pub kind: String,
    /// JSON text, by kind.
    pub body: String,
    /// Who said so.
    pub author: String,
    /// Why.
    pub reason: String,
    /// When, by the wall clock of who wrote it.
    pub at: Time,
}

impl ControlEntry {
    /// The change of a fact that it makes: the fact, and +1 or -1; `None` for other kinds.
    ///
    /// # Errors
    /// The body is no fact.
    pub fn fact(&self) -> Result<Option<(Fact, i64)>, LedgerError> {
        let sign = match self.kind.as_str() {
            FACT_ADD => 1,
            FACT_REMOVE => -1,
            _ => return Ok(None),
        };
        let fact = serde_json::from_str(&self.body).map_err(LedgerError::damaged("a fact of the control log"))?;
        Ok(Some((fact, sign)))
    }
}

/// A connection to the control log of a data folder, beside a running or a stopped engine.
#[derive(Debug)]
pub struct ControlLog {
    pub(crate) connection: Connection<'static>,
}

impl ControlLog {
    /// Opens the control log.
    ///
    /// # Errors
    /// There is no ledger in the folder, it is of a newer format, or it cannot be read and written.
    pub async fn open(dir: &Path) -> Result<ControlLog, LedgerError> {
        format::check(dir)?;
        if let Some(location) = Location::of(dir)? {
            let mut connection = server::beside(&location).await?;
            schema::check(&mut connection, dir).await?;
            return Ok(ControlLog { connection });
        }
        if !dir.join(schema::FILE).is_file() {
            return Err(LedgerError::Missing { dir: dir.to_path_buf() });
        }
        let mut connection = schema::connect(dir, false).await.map_err(LedgerError::store("open the control log"))?;
        // A folder of an older engine has not all tables yet.
        schema::prepare(&mut connection, dir).await?;
        Ok(ControlLog { connection })
    }

    pub(crate) fn connection(&mut self) -> &mut Connection<'static> {
        &mut self.connection
    }

    /// Appends an entry and gives its position.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub async fn append(
        &mut self,
        kind: &str,
        body: &str,
        author: &str,
        reason: &str,
        at: Time,
    ) -> Result<i64, LedgerError> {
        append(&mut self.connection, kind, body, author, reason, at).await
    }

    /// Says that a fact holds from now on, in the place of what was said about its subject. `None` when it holds
    /// already: then nothing is appended.
    ///
    /// # Errors
    /// It is refused (a verdict on an alert that is not known, more facts of its kind than may be), or the ledger cannot
    /// be read or written.
    pub async fn fact_add(
        &mut self,
        fact: &Fact,
        author: &str,
        reason: &str,
        at: Time,
    ) -> Result<Option<i64>, LedgerError> {
        let new = NewFact { fact: fact.clone(), author: author.to_owned(), reason: reason.to_owned() };
        self.facts_add(&[new], at).await?.pop().unwrap_or(Ok(None))
    }

    /// Says that a fact holds no longer. Where facts of its kind have a subject, the one about that subject goes,
    /// whatever it says. `None` when there is none: then nothing is appended.
    ///
    /// # Errors
    /// The ledger cannot be read or written.
    pub async fn fact_remove(
        &mut self,
        fact: &Fact,
        author: &str,
        reason: &str,
        at: Time,
    ) -> Result<Option<i64>, LedgerError> {
        let store = LedgerError::store("append to the control log");
        let mut transaction = self.connection.begin().await.map_err(&store)?;
        held::catch_up(&mut transaction).await?;
        let mut last = None;
        for held in held::about(&mut transaction, fact).await? {
            let body = serde_json::to_string(&held).map_err(LedgerError::damaged("a fact"))?;
            last = Some(append_in(&mut transaction, FACT_REMOVE, &body, author, reason, at).await?);
        }
        transaction.commit().await.map_err(&store)?;
        Ok(last)
    }

    /// Says that all of these hold from now on, in one transaction: a list of a thousand is one wait for the disk.
    /// Gives for each its position, `None` when it held already, or why it was refused.
    ///
    /// # Errors
    /// The ledger cannot be read or written; then none was added.
    pub async fn facts_add(
        &mut self,
        facts: &[NewFact],
        at: Time,
    ) -> Result<Vec<Result<Option<i64>, LedgerError>>, LedgerError> {
        let store = LedgerError::store("append to the control log");
        // Looked at and appended in one transaction: two who say the same at once must not be two facts.
        let mut transaction = self.connection.begin().await.map_err(&store)?;
        held::catch_up(&mut transaction).await?;
        let mut room = held::Room::default();
        let mut done = Vec::with_capacity(facts.len());
        for new in facts {
            match add_in(&mut transaction, &mut room, new, at).await {
                Err(error @ LedgerError::Fact { .. }) => done.push(Err(error)),
                other => done.push(Ok(other?)),
            }
        }
        transaction.commit().await.map_err(&store)?;
        Ok(done)
    }

    /// The facts that hold now, each with the entry that said so.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn facts(&mut self) -> Result<Vec<(Fact, ControlEntry)>, LedgerError> {
        facts_at(&mut self.connection, i64::MAX).await
    }
}

/// A fact that is to be added.
#[derive(Clone, Debug)]
pub struct NewFact {
    /// What it says.
    pub fact: Fact,
    /// Who says so.
    pub author: String,
    /// Why.
    pub reason: String,
}

/// Adds one fact within a transaction that has caught up.
async fn add_in(
    transaction: &mut Connection<'_>,
    room: &mut held::Room,
    new: &NewFact,
    at: Time,
) -> Result<Option<i64>, LedgerError> {
    let fact = held::resolved(transaction, &new.fact, at).await?;
    let about = held::about(transaction, &fact).await?;
    if about.iter().any(|held| held.body.same_as(&fact.body)) {
        return Ok(None);
    }
    if about.is_empty() {
        room.take(transaction, &fact).await?;
    }
    let text = |fact: &Fact| serde_json::to_string(fact).map_err(LedgerError::damaged("a fact"));
    for held in about {
        append_in(transaction, FACT_REMOVE, &text(&held)?, &new.author, "another takes its place", at).await?;
    }
    let seq = append_in(transaction, FACT_ADD, &text(&fact)?, &new.author, &new.reason, at).await?;
    held::catch_up(transaction).await?;
    Ok(Some(seq))
}

/// Appends an entry and its audit record in one transaction.
pub(crate) async fn append(
    connection: &mut Connection<'_>,
    kind: &str,
    body: &str,
    author: &str,
    reason: &str,
    at: Time,
) -> Result<i64, LedgerError> {
    let store = LedgerError::store("append to the control log");
    let mut transaction = connection.begin().await.map_err(&store)?;
    let seq = append_in(&mut transaction, kind, body, author, reason, at).await?;
    fail::point("control.before_commit");
    transaction.commit().await.map_err(&store)?;
    fail::point("control.committed");
    Ok(seq)
}

/// The same within a transaction.
pub(crate) async fn append_in(
    transaction: &mut Connection<'_>,
    kind: &str,
    body: &str,
    author: &str,
    reason: &str,
    at: Time,
) -> Result<i64, LedgerError> {
    let store = LedgerError::store("append to the control log");
    let sql = "INSERT INTO control(kind, body, author, reason, at) VALUES ($1, $2, $3, $4, $5) RETURNING seq";
    let seq: i64 = database::query_scalar(sql)
        .bind(kind)
        .bind(body)
        .bind(author)
        .bind(reason)
        .bind(at.micros())
        .fetch_one(&mut *transaction)
        .await
        .map_err(store)?;
    let entry = Entry {
        actor: "control",
        action: "control_appended",
        subject: format!("control {seq}"),
        detail: if FOUND.contains(&kind) {
            let hash = blake3::hash(body.as_bytes()).to_hex();
            json!({"kind": kind, "body_blake3": hash.as_str(), "author": author, "reason": reason})
        } else {
            json!({"kind": kind, "body": body, "author": author, "reason": reason})
        },
    };
    audit::append(transaction, at, &[entry]).await?;
    Ok(seq)
}

/// Puts other bodies in the places of those of [`FOUND`] that `change` gives one for; all or none. Gives how many.
///
/// This is for erasure alone: entries are else never changed.
pub(crate) async fn erase(
    connection: &mut Connection<'_>,
    change: &mut (dyn FnMut(&ControlEntry) -> Option<String> + Send),
) -> Result<usize, LedgerError> {
    let store = LedgerError::store("erase from the control log");
    if !connection.is_postgres() {
        // What goes is overwritten on disk.
        connection.run("PRAGMA secure_delete = ON").await.map_err(&store)?;
    }
    let mut transaction = connection.begin().await.map_err(&store)?;
    let mut changed = 0;
    for kind in FOUND {
        for entry in of_kind_between(&mut transaction, kind, 0, i64::MAX).await? {
            let Some(body) = change(&entry) else { continue };
            let update = database::query("UPDATE control SET body = $1 WHERE seq = $2").bind(body).bind(entry.seq);
            update.execute(&mut *transaction).await.map_err(&store)?;
            changed += 1;
        }
    }
    transaction.commit().await.map_err(&store)?;
    sweep(connection).await?;
    Ok(changed)
}

/// Takes the rows of before out of the log beside the file, or out of the table.
async fn sweep(connection: &mut Connection<'_>) -> Result<(), LedgerError> {
    let unswept = |why: String| LedgerError::Unswept { why };
    if connection.is_postgres() {
        return connection.run("VACUUM control").await.map_err(|error| unswept(error.to_string()));
    }
    let checkpoint = database::query_scalar("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(connection).await;
    let busy: i64 = checkpoint.map_err(|error| unswept(error.to_string()))?;
    if busy == 0 { Ok(()) } else { Err(unswept("somebody reads it".to_owned())) }
}

/// Entries after `seq`, in order, at most `limit`.
pub(crate) async fn since(
    connection: &mut Connection<'_>,
    seq: i64,
    limit: i64,
) -> Result<Vec<ControlEntry>, LedgerError> {
    let store = LedgerError::store("read the control log");
    database::query("SELECT * FROM control WHERE seq > $1 ORDER BY seq LIMIT $2")
        .bind(seq)
        .bind(limit)
        .fetch_all(connection)
        .await
        .and_then(|rows| rows.iter().map(entry).collect())
        .map_err(store)
}

/// The entries of one kind behind `after`, up to and with `upto`, in order.
pub(crate) async fn of_kind_between(
    connection: &mut Connection<'_>,
    kind: &str,
    after: i64,
    upto: i64,
) -> Result<Vec<ControlEntry>, LedgerError> {
    database::query("SELECT * FROM control WHERE kind = $1 AND seq > $2 AND seq <= $3 ORDER BY seq")
        .bind(kind)
        .bind(after)
        .bind(upto)
        .fetch_all(connection)
        .await
        .and_then(|rows| rows.iter().map(entry).collect())
        .map_err(LedgerError::store("read the control log"))
}

/// The last entry of one kind.
pub(crate) async fn last_of_kind(
    connection: &mut Connection<'_>,
    kind: &str,
) -> Result<Option<ControlEntry>, LedgerError> {
    database::query("SELECT * FROM control WHERE kind = $1 ORDER BY seq DESC LIMIT 1")
        .bind(kind)
        .fetch_optional(connection)
        .await
        .and_then(|row| row.as_ref().map(entry).transpose())
        .map_err(LedgerError::store("read the control log"))
}

fn entry(row: &DbRow) -> Result<ControlEntry, sqlx::Error> {
    Ok(ControlEntry {
        seq: row.try_get("seq")?,
        kind: row.try_get("kind")?,
        body: row.try_get("body")?,
        author: row.try_get("author")?,
        reason: row.try_get("reason")?,
        at: Time::from_micros(row.try_get("at")?),
    })
}

/// The facts that hold at a position of the control log, sorted, each with the entry that said so last.
pub(crate) async fn facts_at(
    connection: &mut Connection<'_>,
    seq: i64,
) -> Result<Vec<(Fact, ControlEntry)>, LedgerError> {
    const PAGE: i64 = 4_096;
    let mut facts = BTreeMap::new();
    let mut from = 0;
    loop {
        let entries = since(connection, from, PAGE).await?;
        let Some(last) = entries.last() else { break };
        from = last.seq;
        for entry in entries {
            if entry.seq > seq {
                return Ok(facts.into_iter().collect());
            }
            match entry.fact()? {
                Some((fact, 1)) => drop(facts.insert(fact, entry)),
                Some((fact, _)) => drop(facts.remove(&fact)),
                None => {}
            }
        }
    }
    Ok(facts.into_iter().collect())
}
