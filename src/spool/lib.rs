//! The spool: what was pushed to us is answered only after it lies here (`streaming.md`, *Durability and recovery*, S).
//!
//! [`Log`] is a segmented, checksummed, append-only log of rows with group commit; [`Spool`] is a log of
//! [`cf_types::Record`]s. [`frame`] is the framing that other logs of ours use too.
//!
//! What holds: an append resolves only after `fdatasync`; a failed `fdatasync` poisons the log for good, because the
//! kernel may have dropped the pages and a second call would lie; a row keeps its number for ever, also when damage
//! before it is skipped or its segment's neighbours are gone; nothing that lies on the disk can make opening panic.

pub mod frame;
pub mod log;
mod reader;
pub mod record;
mod segment;
mod slot;
pub mod spool;

pub use log::{AppendError, Damage, Log, LogError, LogOptions, Recovery};
pub use reader::LogReader;
pub use slot::Appended;
pub use spool::{ReadError, Spool, SpoolReader};

/// A length as the number that files hold.
pub(crate) fn wide(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// Takes a lock also after a panic elsewhere: what our locks guard is valid between any two statements.
pub(crate) fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
