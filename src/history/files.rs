//! The data files of a table: put durably, read, removed, listed; on a local disk or in an object store.
//!
//! Our files are told by their names from what others put into the folder: those are never read, moved or removed.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use cf_fail as fail;
use deltalake::logstore::object_store::{
    Error as StoreError, ObjectStore, ObjectStoreExt as _, PutPayload, path::Path as StorePath,
};
use futures::TryStreamExt as _;
use tokio::runtime::Handle;

use crate::{error::HistoryError, schema::Table};

/// What the name of a file begins with that a commit of epochs wrote.
pub(crate) const EPOCHS: &str = "epoch-";
/// What the name of a file begins with that was made of others: by compaction, retention or erasure.
pub(crate) const MERGED: &str = "merged-";

/// The files of one table.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    table: Table,
    /// On a local disk.
    pub(crate) folder: Option<PathBuf>,
    store: Arc<dyn ObjectStore>,
    runtime: Handle,
}

/// Where files are put.
pub(crate) trait Put: Sync {
    /// Puts a file there; its path is relative to the table.
    fn put(&self, path: &str, content: Vec<u8>) -> Result<(), HistoryError>;
}

/// A file that is there.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    /// Relative to the table, as the Delta log has it.
    pub(crate) path: String,
    /// Milliseconds since 1970.
    pub(crate) modified_ms: i64,
    /// Its size.
    pub(crate) bytes: u64,
}

impl Files {
    pub(crate) fn new(table: Table, folder: Option<PathBuf>, store: Arc<dyn ObjectStore>, runtime: Handle) -> Files {
        Files { table, folder, store, runtime }
    }

    /// Reads a file whole.
    pub(crate) fn get(&self, path: &str) -> Result<Bytes, HistoryError> {
        let Some(folder) = &self.folder else {
            let get = async { self.store.get(&StorePath::from(path)).await?.bytes().await };
            return self.runtime.block_on(get).map_err(self.failed("read", path));
        };
        let place = folder.join(path);
        fs::read(&place).map(Bytes::from).map_err(HistoryError::file("read", &place))
    }

    /// Removes a file; one that is gone already is no error.
    pub(crate) fn remove(&self, path: &str) -> Result<(), HistoryError> {
        let Some(folder) = &self.folder else {
            return match self.runtime.block_on(self.store.delete(&StorePath::from(path))) {
                Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
                Err(error) => Err(self.failed("remove", path)(error)),
            };
        };
        let place = folder.join(path);
        match fs::remove_file(&place) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(HistoryError::file("remove", &place)(error))
            }
            _ => {
                // The day's folder goes with its last file; it is not empty as long as there is any other.
                let _kept = place.parent().map(fs::remove_dir);
                Ok(())
            }
        }
    }

    /// All files that have a name of ours.
    pub(crate) fn list(&self) -> Result<Vec<Listed>, HistoryError> {
        let Some(folder) = &self.folder else {
            let list = self.store.list(None).try_collect::<Vec<_>>();
            let found = self.runtime.block_on(list).map_err(self.failed("list", ""))?;
            return Ok(found
                .into_iter()
                .map(|meta| Listed {
                    path: meta.location.to_string(),
                    modified_ms: meta.last_modified.timestamp_millis(),
                    bytes: meta.size,
                })
                .filter(|file| is_ours(&file.path))
                .collect());
        };
        let mut found = Vec::new();
        let read = |path: &Path| fs::read_dir(path).map_err(HistoryError::file("read", path));
        for part in read(folder)?.flatten().filter(|part| part.file_name().to_string_lossy().starts_with("day=")) {
            if !part.path().is_dir() {
                continue;
            }
            for file in read(&part.path())?.flatten() {
                let path = format!("{}/{}", part.file_name().to_string_lossy(), file.file_name().to_string_lossy());
                let Ok(metadata) = file.metadata() else { continue }; // gone meanwhile
                let modified = metadata.modified().ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
                let modified_ms = modified.and_then(|age| i64::try_from(age.as_millis()).ok()).unwrap_or(0);
                if is_ours(&path) {
                    found.push(Listed { path, modified_ms, bytes: metadata.len() });
                }
            }
        }
        Ok(found)
    }

    fn failed(&self, attempt: &'static str, path: &str) -> impl FnOnce(StoreError) -> HistoryError {
        let (table, path) = (self.table, path.to_owned());
        move |source| HistoryError::Store { attempt, table, path, source: Box::new(source) }
    }
}

impl Put for Files {
    /// Durable when it returns.
    fn put(&self, path: &str, content: Vec<u8>) -> Result<(), HistoryError> {
        let Some(folder) = &self.folder else {
            let place = StorePath::from(path);
            let put = self.store.put(&place, PutPayload::from(content));
            return self.runtime.block_on(put).map(drop).map_err(self.failed("write", path));
        };
        let place = folder.join(path);
        let part = place.parent().unwrap_or(folder);
        make_folder(folder, part)?;
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&place)?;
            file.write_all(&content)?;
            fail::point("history.file_written");
            fail::sync("history.sync", || file.sync_all())
        };
        write().map_err(HistoryError::file("write", &place))?;
        sync_folder(part)
    }
}

/// Whether a path has the form of a data file's.
pub(crate) fn is_ours(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    path.starts_with("day=") && (name.starts_with(EPOCHS) || name.starts_with(MERGED)) && name.ends_with(".parquet")
}

/// Makes names in a folder durable.
pub(crate) fn sync_folder(path: &Path) -> Result<(), HistoryError> {
    let folder = File::open(path).map_err(HistoryError::file("write", path))?;
    fail::sync("history.sync", || folder.sync_all()).map_err(HistoryError::file("write", path))
}

fn make_folder(parent: &Path, path: &Path) -> Result<(), HistoryError> {
    match fs::create_dir(path) {
        Ok(()) => sync_folder(parent),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(HistoryError::file("create", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_our_names_is_ours() {
        for (path, ours) in [
            ("day=2026-01-05/epoch-00000000000000000005-00000000000000000007-00000.zstd.parquet", true),
            ("day=2026-01-05/merged-1-2-00000.zstd.parquet", true),
            ("day=2026-01-05/note.txt", false),
            ("day=2026-01-05/part-00000.parquet", false),
            ("_delta_log/epoch-1.parquet", false),
        ] {
            assert_eq!(is_ours(path), ours, "{path}");
        }
    }
}
