//! What can go wrong with the ledger, and what to do about it.

use std::{io, path::PathBuf};

use cf_types::Epoch;

use crate::database::{self, Lost};

/// A ledger operation failed. The text says what was attempted and, where something helps, what to do.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The data folder cannot be used.
    #[error("could not use {} as data folder: {source}{}", dir.display(), hint(source))]
    Folder {
        /// Which folder.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another engine runs on the folder.
    #[error("data folder {} is in use by process {pid}; stop it first, or give another --data folder", dir.display())]
    Held {
        /// Which folder.
        dir: PathBuf,
        /// Who holds it; `?` where it did not say.
        pid: String,
    },
    /// Another engine holds the ledger in PostgreSQL.
    #[error(
        "the ledger at {url} is held by another engine ({holder}); one engine writes a ledger: stop that one first"
    )]
    HeldElsewhere {
        /// Where it is.
        url: String,
        /// Its name, machine and begin; empty where it could not be read.
        holder: String,
    },
    /// This engine held the ledger in PostgreSQL and another has taken it.
    #[error(
        "could not {attempted}: another engine has taken the ledger, which is in generation {holder}; this engine is of \
         generation {generation} and must stop, nothing of it was committed since"
    )]
    Taken {
        /// What was attempted.
        attempted: &'static str,
        /// Who wanted to.
        generation: i64,
        /// The generation that holds it.
        holder: i64,
    },
    /// Where the ledger is said to be, none can be, or not this one.
    #[error("{why}")]
    Location {
        /// Why, and what to do.
        why: String,
    },
    /// What was erased is gone for whoever asks, not from the disk.
    #[error(
        "it is erased, but what was there before is still in the ledger's files: {why}; stop what reads the ledger, and \
         erase again"
    )]
    Unswept {
        /// What kept it.
        why: String,
    },
    /// There is no ledger to read.
    #[error("there is no ledger in {}; has `counterflow run` been started with this --data folder?", dir.display())]
    Missing {
        /// Which folder.
        dir: PathBuf,
    },
    /// A newer engine wrote it.
    #[error(
        "data folder {} has format {found}, this engine ({}) knows formats up to {known}; start {writer} or a later \
         version, or give another --data folder (a backup of before, restored)",
        dir.display(),
        env!("CARGO_PKG_VERSION")
    )]
    Newer {
        /// Which folder.
        dir: PathBuf,
        /// Its format.
        found: u32,
        /// The newest that we know.
        known: u32,
        /// Who can read it.
        writer: String,
    },
    /// What states the format does not read.
    #[error(
        "{} does not state a format that this engine can read: {source}; it is one line such as \
         {{\"format\":2,\"written_by\":\"0.1.0\"}}; restore the data folder from a backup, or write the line by hand if you \
         know the format",
        file.display()
    )]
    FormatFile {
        /// The file.
        file: PathBuf,
        /// How.
        source: serde_json::Error,
    },
    /// The database refused.
    #[error("could not {attempted} in the ledger: {source}{}", store_hint(source))]
    Store {
        /// What was attempted.
        attempted: &'static str,
        /// Why it failed.
        source: sqlx::Error,
    },
    /// Compare-and-append failed: another engine took over, or an epoch was given twice or out of order.
    #[error(
        "could not apply epoch {epoch} of generation {generation}: the ledger stands before epoch {upper} \
         in generation {holder}; another engine has taken over or the order is broken, so this one must stop"
    )]
    Fenced {
        /// The epoch that was to be applied.
        epoch: Epoch,
        /// Who wanted to.
        generation: u64,
        /// The epoch that the ledger waits for.
        upper: Epoch,
        /// The generation that holds it.
        holder: u64,
    },
    /// Something stored does not parse: damaged, or written by hand.
    #[error("{what} in the ledger does not parse: {source}; run `counterflow audit verify`")]
    Damaged {
        /// What.
        what: &'static str,
        /// How.
        source: serde_json::Error,
    },
    /// A fact cannot be recorded.
    #[error("this fact cannot hold: {why}")]
    Fact {
        /// Why.
        why: String,
    },
    /// An intent is not in the state that the step needs (done already, or replaced).
    #[error("intent {intent} cannot be {step}: it is not {wanted}")]
    Intent {
        /// Which.
        intent: i64,
        /// What was attempted.
        step: &'static str,
        /// In which state it would have to be.
        wanted: &'static str,
    },
}

impl LedgerError {
    /// Makes the mapper for an SQLite error of one attempt.
    pub(crate) fn store(attempted: &'static str) -> impl Fn(sqlx::Error) -> LedgerError {
        move |source| {
            if let sqlx::Error::Io(error) = &source
                && let Some(lost) = error.get_ref().and_then(|inner| inner.downcast_ref::<Lost>())
            {
                return LedgerError::Taken { attempted, generation: lost.own, holder: lost.found };
            }
            // SQLite goes on after it as if the file were whole; we do not.
            if let Some(error) = sync_error(&source) {
                cf_fail::lost("ledger.sync", &error);
            }
            LedgerError::Store { attempted, source }
        }
    }

    /// Makes the mapper for stored text that does not parse.
    pub(crate) fn damaged(what: &'static str) -> impl Fn(serde_json::Error) -> LedgerError {
        move |source| LedgerError::Damaged { what, source }
    }

    /// Whether another engine has taken the ledger: this one must end.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        matches!(self, LedgerError::Fenced { .. } | LedgerError::Taken { .. })
    }

    /// Whether PostgreSQL, or the connection to it, was lost: nothing was committed.
    pub(crate) fn is_connection_lost(&self) -> bool {
        matches!(self, LedgerError::Store { source, .. } if database::is_lost(source))
    }

    /// Whether the disk is full: free space and go on; nothing was half written.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        match self {
            LedgerError::Store { source, .. } => code(source).is_some_and(is_full),
            LedgerError::Folder { source, .. } => source.kind() == io::ErrorKind::StorageFull,
            _ => false,
        }
    }
}

const SQLITE_BUSY: i64 = 5;
const SQLITE_READONLY: i64 = 8;
const SQLITE_IOERR: i64 = 10;
const SQLITE_IOERR_SHMSIZE: i64 = 4_874;
const SQLITE_IOERR_FSYNC: i64 = 1_034;
const SQLITE_IOERR_DIR_FSYNC: i64 = 1_290;
const SQLITE_CORRUPT: i64 = 11;
const SQLITE_FULL: i64 = 13;
const SQLITE_CANTOPEN: i64 = 14;
const SQLITE_NOTADB: i64 = 26;

/// The second: the index of the WAL could not grow.
fn is_full(code: i64) -> bool {
    code & 0xff == SQLITE_FULL || code == SQLITE_IOERR_SHMSIZE
}

/// PostgreSQL's word for a full disk.
const POSTGRES_FULL: &str = "53100";

/// SQLite's number of an error; PostgreSQL's codes have five characters.
fn code(error: &sqlx::Error) -> Option<i64> {
    let code = error.as_database_error()?.code()?;
    if code.len() == 5 { (code == POSTGRES_FULL).then_some(SQLITE_FULL) } else { code.parse().ok() }
}

/// A sync that SQLite could not do.
fn sync_error(error: &sqlx::Error) -> Option<io::Error> {
    let is_sync = |code: i64| matches!(code, SQLITE_IOERR_FSYNC | SQLITE_IOERR_DIR_FSYNC);
    code(error).filter(|code| is_sync(*code)).map(|_| io::Error::other(error.to_string()))
}

fn store_hint(error: &sqlx::Error) -> &'static str {
    match code(error).map(|code| code & 0xff) {
        Some(SQLITE_FULL) => "; hint: free space on the disk of the data folder, nothing was half written",
        Some(SQLITE_READONLY | SQLITE_CANTOPEN) => "; hint: the user needs read and write access to the data folder",
        Some(SQLITE_BUSY) => "; hint: another process holds the ledger for longer than the busy timeout",
        Some(SQLITE_IOERR) => "; hint: the disk failed or is full; look at the kernel log",
        Some(SQLITE_CORRUPT | SQLITE_NOTADB) => "; hint: the file is damaged; restore it from a copy",
        _ => "",
    }
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "; hint: the user needs read and write access to it",
        io::ErrorKind::StorageFull => "; hint: free space on its disk",
        io::ErrorKind::ReadOnlyFilesystem => "; hint: its file system is mounted read-only",
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => "; hint: it, or a part of its path, is a file",
        _ => "",
    }
}
