//! How a backup asks a running engine to take nothing away: a lock on `DIR/keep`.
//!
//! The engine holds it alone for the moments in which it trims the spool, forgets epoch records and drops hours of the facts
//! log; a backup shares it while it copies. The kernel lets go of it when a process ends, however it ends, so a backup that
//! was killed holds nothing up.

use std::{
    fs::{File, OpenOptions},
    path::Path,
};

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};

/// The lock's file, open.
#[derive(Debug)]
pub(crate) struct Keep(File);

/// While it lives, this process has the lock.
#[derive(Debug)]
pub(crate) struct Held<'a>(&'a File);

impl Keep {
    /// Opens it in a data folder.
    pub(crate) fn open(data: &Path) -> Result<Keep> {
        let path = data.join("keep");
        let open = || OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        // Who may only read the folder can still share the lock.
        let file = open().or_else(|error| File::open(&path).map_err(|_| error));
        file.map(Keep).with_context(|| format!("could not open {}", path.display()))
    }

    /// For the engine, before it takes something away: `None` while a backup is being made.
    pub(crate) fn alone(&self) -> Option<Held<'_>> {
        flock(&self.0, FlockOperation::NonBlockingLockExclusive).ok().map(|()| Held(&self.0))
    }

    /// For a backup: waits until the engine has ended what it takes away.
    pub(crate) fn shared(&self) -> Result<Held<'_>> {
        flock(&self.0, FlockOperation::LockShared).context("could not lock the data folder's keep")?;
        Ok(Held(&self.0))
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let _unlocked = flock(self.0, FlockOperation::Unlock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_taken_away_while_a_backup_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let (engine, first, second) = (
            Keep::open(folder.path()).unwrap(),
            Keep::open(folder.path()).unwrap(),
            Keep::open(folder.path()).unwrap(),
        );
        assert!(engine.alone().is_some());
        let one = first.shared().unwrap();
        let two = second.shared().unwrap();
        assert!(engine.alone().is_none());
        drop(one);
        assert!(engine.alone().is_none());
        drop(two);
        assert!(engine.alone().is_some());
    }
}
