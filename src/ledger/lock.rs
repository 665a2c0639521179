//! One engine per data folder: a lock file held for the life of the process, with its pid for people.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    path::Path,
};

use rustix::fs::{FlockOperation, flock};

use crate::LedgerError;

/// The lock on a data folder. The kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub struct DirLock {
    file: File,
}

impl Drop for DirLock {
    /// Lets go by name, not only by closing: a child that was forked a moment ago holds a copy of the file until it runs its
    /// own program, and the lock with it.
    fn drop(&mut self) {
        let _unlocked = flock(&self.file, FlockOperation::Unlock);
    }
}

impl DirLock {
    /// Takes the folder, or says which process has it.
    ///
    /// # Errors
    /// Another process has it ([`LedgerError::Held`]), or the folder cannot be written.
    pub fn take(dir: &Path) -> Result<DirLock, LedgerError> {
        let folder = |source| LedgerError::Folder { dir: dir.to_path_buf(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(dir.join("lock"))
            .map_err(folder)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut pid = String::new();
                file.take(32).read_to_string(&mut pid).map_err(folder)?;
                let pid = if pid.trim().is_empty() { "?".to_owned() } else { pid.trim().to_owned() };
                return Err(LedgerError::Held { dir: dir.to_path_buf(), pid });
            }
            Err(errno) => return Err(folder(io::Error::from(errno))),
        }
        let written = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .and_then(|()| file.sync_all());
        written.map_err(folder)?;
        Ok(DirLock { file })
    }
}
