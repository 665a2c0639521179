//! The ledger as the engine holds it: one writer, fenced by generation.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use cf_fail as fail;
use cf_types::{Epoch, EpochOutput, EpochRecord, Fact, Time};
use serde::Serialize;
use serde_json::json;
use tokio::sync::{Mutex, MutexGuard, Notify};

use crate::{
    Applied, AuditFault, ControlEntry, Difference, LedgerError, MembersOf, Present, Reader, Routes, apply,
    audit::{self, Entry},
    control,
    database::{self, Connection, DbRow},
    format,
    location::Location,
    lock::DirLock,
    retries, schema, server,
};

/// Where the engine stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Engine {
    /// Which start of the engine holds the ledger.
    pub generation: u64,
    /// The next epoch: all below are applied.
    pub upper: Epoch,
    /// Digest of the alerts that are not sealed, as [`Present::digest`].
    #[serde(skip)]
    pub digest: u128,
    /// Number of the last audit record.
    pub audit_seq: i64,
    /// Its hash.
    pub audit_head: String,
}

impl Engine {
    pub(crate) async fn load(connection: &mut Connection<'_>) -> Result<Engine, LedgerError> {
        let of_row = |row: DbRow| {
            let digest: String = row.try_get("digest")?;
            Ok(Engine {
                generation: row.try_get::<i64, _>("generation")?.try_into().unwrap_or_default(),
                upper: row.try_get::<i64, _>("upper")?.try_into().unwrap_or_default(),
                digest: u128::from_str_radix(&digest, 16).map_err(|error| sqlx::Error::Decode(error.into()))?,
                audit_seq: row.try_get("audit_seq")?,
                audit_head: row.try_get("audit_head")?,
            })
        };
        database::query("SELECT * FROM engine")
            .fetch_one(connection)
            .await
            .and_then(of_row)
            .map_err(LedgerError::store("read the engine's state"))
    }
}

/// How often an epoch is applied again whose connection was lost on the way; each time it is made again for a minute.
const TRIES: u32 = 3;

/// The ledger of a data folder, held by this process alone. Clones share it; the folder is free when the last is gone.
#[derive(Clone, Debug)]
pub struct Ledger {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    /// All writes of this process go through one connection: SQLite has one writer anyway, and a queue here is fairer
    /// than its busy loop.
    writer: Mutex<Connection<'static>>,
    changed: Arc<Notify>,
    _lock: DirLock,
}

impl Ledger {
    /// Takes the folder (made if it is not there) and opens its ledger.
    ///
    /// # Errors
    /// Another process holds the folder (named by its pid), the folder cannot be used, the disk is full, or a newer
    /// engine wrote it. A folder of an older format is migrated ([`format`]).
    pub async fn open(dir: &Path) -> Result<Ledger, LedgerError> {
        fs::create_dir_all(dir).map_err(|source| LedgerError::Folder { dir: dir.to_path_buf(), source })?;
        format::check(dir)?;
        let lock = DirLock::take(dir)?;
        let connection = match Location::of(dir)? {
            Some(location) => server::engine(&location, dir).await?,
            None => Self::open_file(dir).await?,
        };
        fail::point("start.ledger_migrated");
        format::state(dir)?;
        let inner = Inner {
            dir: dir.to_path_buf(),
            writer: Mutex::new(connection),
            changed: Arc::new(Notify::new()),
            _lock: lock,
        };
        Ok(Ledger { inner: Arc::new(inner) })
    }

    /// Opens the file of a folder, migrated if it is older.
    async fn open_file(dir: &Path) -> Result<Connection<'static>, LedgerError> {
        let mut connection = schema::connect(dir, true).await.map_err(LedgerError::store("open the file"))?;
        let migrated = format::copy_older(&mut connection, dir).await?;
        schema::prepare(&mut connection, dir).await?;
        if migrated.is_some() {
            schema::migrate(&mut connection).await?;
        }
        Ok(connection)
    }

    /// The data folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// Woken (all waiters) after every change that may have made intents. Enable the `notified` future before looking at
    /// what is pending, else a change in between is missed.
    #[must_use]
    pub fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.inner.changed)
    }

    /// A reader beside this writer.
    ///
    /// # Errors
    /// The file cannot be opened for reading.
    pub async fn reader(&self) -> Result<Reader, LedgerError> {
        Reader::open(&self.inner.dir).await
    }

    /// Where the engine stands.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn engine(&self) -> Result<Engine, LedgerError> {
        Engine::load(&mut *self.writer().await).await
    }

    /// Starts a new generation: fences every older engine, and marks the intents that a dead one was trying as *verify
    /// first*.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub async fn begin_generation(&self, at: Time) -> Result<u64, LedgerError> {
        let store = LedgerError::store("begin a generation");
        let mut writer = self.writer().await;
        let mut transaction = writer.begin().await.map_err(&store)?;
        let generation: i64 =
            database::query_scalar("UPDATE engine SET generation = generation + 1 RETURNING generation")
                .fetch_one(&mut *transaction)
                .await
                .map_err(&store)?;
        let interrupted =
            database::query("UPDATE intents SET state = 'planned', verify_first = 1, due = 0 WHERE state = 'trying'")
                .execute(&mut *transaction)
                .await
                .map_err(&store)?
                .rows_affected();
        let entry = Entry::engine(
            "engine_started",
            format!("generation {generation}"),
            json!({"pid": std::process::id(), "version": env!("CARGO_PKG_VERSION"), "verify_first": interrupted}),
        );
        audit::append(&mut transaction, at, &[entry]).await?;
        transaction.commit().await.map_err(&store)?;
        if let Connection::Postgres(session) = &mut *writer {
            session.set_generation(generation);
        }
        fail::point("start.generation_begun");
        Ok(u64::try_from(generation).unwrap_or_default())
    }

    /// Notes an orderly stop in the audit chain.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub async fn stopped(&self, at: Time) -> Result<(), LedgerError> {
        let store = LedgerError::store("note the stop");
        let mut writer = self.writer().await;
        let mut transaction = writer.begin().await.map_err(&store)?;
        let entry = Entry::engine("engine_stopped", "engine", json!({"pid": std::process::id()}));
        audit::append(&mut transaction, at, &[entry]).await?;
        transaction.commit().await.map_err(&store)
    }

    /// Applies one epoch: its record, its rows, the intents that follow, the audit, in one transaction.
    ///
    /// # Errors
    /// [`LedgerError::Fenced`] when the ledger does not wait for exactly this epoch of this generation; then the engine
    /// must stop. Otherwise the ledger cannot be written, and nothing was: the same call may be repeated.
    pub async fn apply(
        &self,
        record: &EpochRecord,
        output: &EpochOutput,
        routes: &Routes,
        members: &MembersOf<'_>,
    ) -> Result<Applied, LedgerError> {
        let mut tries = 0;
        let applied = loop {
            match apply::apply(&mut *self.writer().await, record, output, routes, members).await {
                // Nothing of it was committed, or the commit would have said so: the same epoch again.
                Err(error) if error.is_connection_lost() && tries < TRIES => tries += 1,
                done => break done?,
            }
        };
        if applied.intents > 0 {
            self.inner.changed.notify_waiters();
        }
        Ok(applied)
    }

    /// What differs between the ledger and what the graph has at the ledger's upper; empty when the digests are equal
    /// (then nothing is read).
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn reconcile(&self, present: &Present) -> Result<Vec<Difference>, LedgerError> {
        let mut writer = self.writer().await;
        if Engine::load(&mut writer).await?.digest == present.digest() {
            return Ok(Vec::new());
        }
        apply::differences(&mut writer, present).await
    }

    /// Makes the ledger what the graph has, as one epoch: alerts that the graph does not have are withdrawn with reason
    /// `engine_changed`, what it has more is opened, incidents, risk and desired actions follow.
    ///
    /// The record is that of the ledger's next epoch, with the positions of the one before: nothing is read in it, and
    /// the graph must be given the same empty epoch. Look at [`Ledger::reconcile`] first, and let a person decide when
    /// there is much of it.
    ///
    /// # Errors
    /// As for [`Ledger::apply`].
    pub async fn adopt(
        &self,
        record: &EpochRecord,
        present: &Present,
        routes: &Routes,
        members: &MembersOf<'_>,
    ) -> Result<Applied, LedgerError> {
        let applied = apply::adopt(&mut *self.writer().await, record, present, routes, members).await?;
        self.inner.changed.notify_waiters();
        Ok(applied)
    }

    /// Digest of the alerts that are not sealed.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn digest(&self) -> Result<u128, LedgerError> {
        Ok(self.engine().await?.digest)
    }

    /// Number and hash of the last audit record.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn audit_head(&self) -> Result<(i64, String), LedgerError> {
        let engine = self.engine().await?;
        Ok((engine.audit_seq, engine.audit_head))
    }

    /// Checks the whole audit chain: `None` when it holds.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn audit_verify(&self) -> Result<Option<AuditFault>, LedgerError> {
        audit::verify(&mut *self.writer().await).await
    }

    /// Appends to the control log and gives the position.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub async fn control_append(
        &self,
        kind: &str,
        body: &str,
        author: &str,
        reason: &str,
        at: Time,
    ) -> Result<i64, LedgerError> {
        control::append(&mut *self.writer().await, kind, body, author, reason, at).await
    }

    /// Puts other bodies in the places of entries of [`control::FOUND`] that `change` gives one for; gives how many. For
    /// erasure alone: entries are else never changed.
    ///
    /// # Errors
    /// The ledger cannot be read or written.
    pub async fn control_erase(
        &self,
        change: &mut (dyn FnMut(&ControlEntry) -> Option<String> + Send),
    ) -> Result<usize, LedgerError> {
        control::erase(&mut *self.writer().await, change).await
    }

    /// Entries of the control log after `seq`, in order, at most 10,000.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn control_since(&self, seq: i64) -> Result<Vec<ControlEntry>, LedgerError> {
        control::since(&mut *self.writer().await, seq, 10_000).await
    }

    /// All entries of one kind in the control log, in order.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn control_of_kind(&self, kind: &str) -> Result<Vec<ControlEntry>, LedgerError> {
        control::of_kind_between(&mut *self.writer().await, kind, 0, i64::MAX).await
    }

    /// The entries of one kind behind `after`, up to and with `upto`, in order.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn control_of_kind_between(
        &self,
        kind: &str,
        after: i64,
        upto: i64,
    ) -> Result<Vec<ControlEntry>, LedgerError> {
        control::of_kind_between(&mut *self.writer().await, kind, after, upto).await
    }

    /// The last entry of one kind in the control log.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn control_last_of_kind(&self, kind: &str) -> Result<Option<ControlEntry>, LedgerError> {
        control::last_of_kind(&mut *self.writer().await, kind).await
    }

    /// The facts that hold at a position of the control log, sorted.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn facts_at(&self, seq: i64) -> Result<Vec<Fact>, LedgerError> {
        let facts = control::facts_at(&mut *self.writer().await, seq).await?;
        Ok(facts.into_iter().map(|(fact, _)| fact).collect())
    }

    /// Keeps a rule set's text under its hash, compressed; the same hash again changes nothing.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub async fn rule_set_put(&self, hash: &str, text: &[u8], at: Time) -> Result<(), LedgerError> {
        self.rule_sets_put(&[(hash, text)], at).await
    }

    /// Keeps several texts (of rule sets, or of rules) under their hashes, in one transaction.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub async fn rule_sets_put(&self, texts: &[(&str, &[u8])], at: Time) -> Result<(), LedgerError> {
        let store = LedgerError::store("keep a rule set");
        // Before the writer is taken: compressing must not hold up an epoch.
        let bodies = texts.iter().map(|(hash, text)| Ok((*hash, zstd::encode_all(*text, 3)?)));
        let bodies: Vec<_> =
            bodies.collect::<Result<_, _>>().map_err(|error: std::io::Error| store(sqlx::Error::Io(error)))?;
        let mut writer = self.writer().await;
        let mut transaction = writer.begin().await.map_err(&store)?;
        for (hash, body) in bodies {
            database::query("INSERT INTO rule_sets VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
                .bind(hash)
                .bind(body)
                .bind(at.micros())
                .execute(&mut *transaction)
                .await
                .map_err(&store)?;
        }
        transaction.commit().await.map_err(&store)
    }

    /// Hashes under which something is kept, of those that begin with `prefix`.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn rule_set_hashes(&self, prefix: &str) -> Result<BTreeSet<String>, LedgerError> {
        let hashes: Vec<String> =
            database::query_scalar("SELECT hash FROM rule_sets WHERE substr(hash, 1, CAST($1 AS INTEGER)) = $2")
                .bind(i64::try_from(prefix.len()).unwrap_or(i64::MAX))
                .bind(prefix)
                .fetch_all(&mut *self.writer().await)
                .await
                .map_err(LedgerError::store("read rule sets"))?;
        Ok(hashes.into_iter().collect())
    }

    /// Per rule that once began empty, the epoch of the last time it did (see [`EpochRecord::begun`]).
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn rules_since(&self) -> Result<BTreeMap<String, Epoch>, LedgerError> {
        let store = LedgerError::store("read when rules began");
        let rows: Vec<(String, i64)> = database::query_as("SELECT rule, epoch FROM rule_since")
            .fetch_all(&mut *self.writer().await)
            .await
            .map_err(store)?;
        Ok(rows.into_iter().map(|(rule, epoch)| (rule, u64::try_from(epoch).unwrap_or_default())).collect())
    }

    /// A rule set's text by its hash.
    ///
    /// # Errors
    /// The ledger cannot be read, or what is stored is damaged.
    pub async fn rule_set_get(&self, hash: &str) -> Result<Option<Vec<u8>>, LedgerError> {
        let store = LedgerError::store("read a rule set");
        let body: Option<Vec<u8>> = database::query_scalar("SELECT body FROM rule_sets WHERE hash = $1")
            .bind(hash)
            .fetch_optional(&mut *self.writer().await)
            .await
            .map_err(&store)?;
        body.map(|body| zstd::decode_all(body.as_slice())).transpose().map_err(|error| store(sqlx::Error::Io(error)))
    }

    /// The records of epochs from `epoch` on, in order, at most 10,000: call again from the last one's successor.
    ///
    /// # Errors
    /// The ledger cannot be read, or a record is damaged.
    pub async fn epochs_from(&self, epoch: Epoch) -> Result<Vec<EpochRecord>, LedgerError> {
        let texts: Vec<String> =
            database::query_scalar("SELECT record FROM epochs WHERE epoch >= $1 ORDER BY epoch LIMIT 10000")
                .bind(apply::number(epoch))
                .fetch_all(&mut *self.writer().await)
                .await
                .map_err(LedgerError::store("read epoch records"))?;
        texts.iter().map(|text| serde_json::from_str(text).map_err(LedgerError::damaged("an epoch record"))).collect()
    }

    /// Forgets the records of epochs before `epoch`: those that the facts log makes needless.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub async fn epochs_trim(&self, epoch: Epoch) -> Result<u64, LedgerError> {
        let mut writer = self.writer().await;
        retries::trim(&mut writer, epoch).await?;
        database::query("DELETE FROM epochs WHERE epoch < $1")
            .bind(apply::number(epoch))
            .execute(&mut *writer)
            .await
            .map(|done| done.rows_affected())
            .map_err(LedgerError::store("trim epoch records"))
    }

    /// The one writer; other tasks wait meanwhile.
    pub(crate) async fn writer(&self) -> MutexGuard<'_, Connection<'static>> {
        self.inner.writer.lock().await
    }
}
