//! Room on the disk that is kept for the ledger, and with it for the audit: what was accepted can be evaluated and written
//! down although nothing more is taken in.
//!
//! `DIR/reserve` is a file of 16 MiB that holds nothing. When the ledger cannot be written because the disk is full, the file
//! is removed, the spool takes nothing in ([`cf_spool::Log::hold`]), and the ledger tries again. When there is space once
//! more, the file is made anew and the spool goes on. Nobody has to restart anything.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use cf_spool::Spool;
use rustix::fs::{FallocateFlags, fallocate, statvfs};

/// How much is kept: thousands of epochs with their alerts and audit records.
const BYTES: u64 = 16 << 20;
/// With less than this free, a write of the ledger may be the next to fail.
const LOW_BYTES: u64 = 4 << 20;

/// The room of one data folder.
pub(crate) struct Room {
    data: PathBuf,
    spool: Arc<Spool>,
    kept: AtomicBool,
    stop: OnceLock<Arc<AtomicBool>>,
}

impl Room {
    /// Keeps room from now on, or as soon as there is some.
    pub(crate) fn keep(data: &Path, spool: Arc<Spool>) -> Room {
        let room = Room { data: data.to_owned(), spool, kept: AtomicBool::new(false), stop: OnceLock::new() };
        match room.allocate() {
            Ok(()) => room.kept.store(true, Ordering::Release),
            Err(error) => tracing::warn!(%error, bytes = BYTES, "no room can be kept for the ledger"),
        }
        room
    }

    /// By this flag the engine is told to stop: then it does not wait for space.
    pub(crate) fn ends_with(&self, stop: Arc<AtomicBool>) {
        let _set_before = self.stop.set(stop);
    }

    /// For who found the disk full: gives the room away, if it is not yet. Whether to try again: an engine that is to stop
    /// ends instead, and what is not written comes again at the next start.
    pub(crate) fn give(&self) -> bool {
        self.spool.log().hold(true);
        if self.kept.swap(false, Ordering::AcqRel) {
            tracing::error!(
                "the disk is full: nothing more is taken in; what was accepted is written into the room kept for it"
            );
            if let Err(error) = fs::remove_file(self.path()) {
                tracing::error!(%error, "the room kept for the ledger could not be given away");
            }
        }
        !self.stop.get().is_some_and(|stop| stop.load(Ordering::Acquire))
    }

    /// Looks at the disk. To be called every few seconds: others beside the engine write to the ledger, too, and cannot ask.
    pub(crate) fn look(&self) {
        let Ok(disk) = statvfs(&self.data) else { return };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if self.kept.load(Ordering::Acquire) {
            if free < LOW_BYTES {
                let _again = self.give();
            }
        } else if free >= BYTES.saturating_mul(2) {
            if self.allocate().is_ok() {
                self.kept.store(true, Ordering::Release);
                tracing::info!("there is space on the disk: room is kept for the ledger again");
            }
            // Also where no room can be kept at all (a file system without fallocate): there is space.
            self.spool.log().hold(false);
        }
    }

    fn path(&self) -> PathBuf {
        self.data.join("reserve")
    }

    fn allocate(&self) -> std::io::Result<()> {
        let file = File::options().create(true).truncate(false).write(true).open(self.path())?;
        if file.metadata()?.len() >= BYTES {
            return Ok(());
        }
        let allocated = fallocate(&file, FallocateFlags::empty(), 0, BYTES).map_err(std::io::Error::from);
        if allocated.is_err() {
            fs::remove_file(self.path())?;
        }
        allocated
    }
}

/// Whether an error is a full disk, wherever it was found.
pub(crate) fn is_full(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let io = cause.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == std::io::ErrorKind::StorageFull);
        io || cause.downcast_ref::<cf_ledger::LedgerError>().is_some_and(cf_ledger::LedgerError::is_disk_full)
    })
}
