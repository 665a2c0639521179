//! The format of a data folder: a small file that is read before anything else is opened.
//!
//! | format | written by | what is new |
//! |---|---|---|
//! | 1 | 0.1 until November 2026 | no file states it |
//! | 2 | 0.1 | the folder states its format; rejects that go through again are entries of the control log |
//!
//! `DIR/format` is one line of JSON, `{"format":2,"written_by":"0.1.0"}`. A folder with a ledger and without the file has the
//! format that its ledger states. An older folder is migrated when an engine takes it ([`crate::Ledger::open`]): first its
//! ledger is copied beside (`ledger.format-1.db`), then the ledger changes in one transaction, then the file is written;
//! a crash in between is found by what the ledger says and goes on from there. A newer folder is refused, by readers too.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use cf_fail as fail;
use serde::{Deserialize, Serialize};

use crate::{
    LedgerError,
    database::{self, Connection},
    schema,
};

/// The format that this engine writes.
pub const FORMAT: u32 = 2;

/// Name of the file that states it.
const FILE: &str = "format";

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stated {
    /// The folder's format.
    pub format: u32,
    /// Version of the engine that wrote the file.
    pub written_by: String,
}

impl Stated {
    /// What this engine states.
    #[must_use]
    pub fn ours() -> Stated {
        Stated { format: FORMAT, written_by: env!("CARGO_PKG_VERSION").to_owned() }
    }
}

/// What a folder states of itself; `None` where no file does: it is new, or older than the file.
///
/// # Errors
/// The file cannot be read, or does not read as one of ours.
pub fn stated(dir: &Path) -> Result<Option<Stated>, LedgerError> {
    let path = dir.join(FILE);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        // Said by who opens the folder, with a hint.
        Err(source) => return Err(LedgerError::Folder { dir: dir.to_path_buf(), source }),
    };
    serde_json::from_slice(&text).map(Some).map_err(|source| LedgerError::FormatFile { file: path, source })
}

/// Refuses a folder of a format that this engine does not know, before anything in it is opened.
///
/// # Errors
/// It is newer, or what states it does not read.
pub fn check(dir: &Path) -> Result<(), LedgerError> {
    match stated(dir)? {
        Some(Stated { format, written_by }) if format > FORMAT => Err(newer(dir, format, Some(written_by))),
        Some(_) | None => Ok(()),
    }
}

/// The refusal of a newer format.
pub fn newer(dir: &Path, found: u32, writer: Option<String>) -> LedgerError {
    let writer =
        writer.map_or_else(|| "the newer Counterflow that wrote it".to_owned(), |v| format!("Counterflow {v}"));
    LedgerError::Newer { dir: dir.to_path_buf(), found, known: FORMAT, writer }
}

/// States the format of a folder whose ledger has it, durably and at once: no reader ever sees half of the file.
pub(crate) fn state(dir: &Path) -> Result<(), LedgerError> {
    if stated(dir)?.is_some_and(|stated| stated.format == FORMAT) {
        return Ok(());
    }
    write(dir, &Stated::ours()).map_err(|source| LedgerError::Folder { dir: dir.to_path_buf(), source })
}

fn write(dir: &Path, stated: &Stated) -> io::Result<()> {
    let (path, new) = (dir.join(FILE), dir.join("format.new"));
    let mut file = File::create(&new)?;
    writeln!(file, "{}", serde_json::to_string(stated)?)?;
    file.sync_all()?;
    fs::rename(&new, &path)?;
    File::open(dir)?.sync_all()
}

/// Copies the ledger of an older folder beside it; gives the format that it had. To be called before its tables change.
pub(crate) async fn copy_older(connection: &mut Connection<'_>, dir: &Path) -> Result<Option<u32>, LedgerError> {
    let Some(found) = schema::format_of(connection).await? else { return Ok(None) };
    if found >= FORMAT {
        return Ok(None);
    }
    let kept = kept(dir, found);
    let half = kept.with_extension("new");
    let folder = |source| LedgerError::Folder { dir: dir.to_path_buf(), source };
    // Of a start that was interrupted.
    fs::remove_file(&half).or_else(not_there).map_err(folder)?;
    let copied = match copy(connection, &half).await {
        Ok(()) => fs::rename(&half, &kept).and_then(|()| File::open(dir)?.sync_all()).map_err(folder),
        Err(error) => Err(error),
    };
    if copied.is_err() {
        // What is half would only take room away.
        fs::remove_file(&half).or_else(not_there).map_err(folder)?;
    }
    copied?;
    fail::point("start.ledger_copied");
    tracing::info!(from = found, to = FORMAT, copy = %kept.display(), "the data folder is migrated; its old ledger is kept");
    Ok(Some(found))
}

/// Where the ledger of an older format is kept.
fn kept(dir: &Path, format: u32) -> PathBuf {
    dir.join(format!("ledger.format-{format}.db"))
}

fn not_there(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// Writes a consistent copy of an open ledger, durable when it returns. `to` must not be there. Readers and the writer of
/// the ledger go on meanwhile.
pub(crate) async fn copy(connection: &mut Connection<'_>, to: &Path) -> Result<(), LedgerError> {
    let store = LedgerError::store("copy the ledger");
    database::query("VACUUM INTO ?")
        .bind(to.to_string_lossy().into_owned())
        .execute(connection)
        .await
        .map_err(store)?;
    let synced = File::open(to).and_then(|file| file.sync_all());
    synced.map_err(|source| LedgerError::Folder { dir: to.to_path_buf(), source })
}
