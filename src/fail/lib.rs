//! Named points between durable steps, at which a campaign lets the process die, and named syncs that it lets fail.
//!
//! They are compiled in and do nothing, unless the environment says `COUNTERFLOW_KILL_AT=NAME` or `NAME:N` when the
//! process starts: then it sends itself SIGKILL when it comes by that point for the first, or the N-th, time. What that
//! costs otherwise is one load of a pointer. `scripts/campaign points` kills at each of [`POINTS`].

//! A sync that fails is no error like others: the kernel may have dropped what it could not write, and the next sync of the
//! same file succeeds all the same. So an engine that acknowledges by what a disk holds must not go on after one: it says
//! by [`on_lost`] how it ends, and every [`sync`] that fails, but for a full disk, ends it. `COUNTERFLOW_FAIL_AT=NAME` or
//! `NAME:N` lets the sync of this name ([`SYNCS`]) fail once, the first or the N-th time.

use std::{
    io,
    sync::{
        LazyLock, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

/// All points, in the order in which a record passes them.
pub const POINTS: &[&str] = &[
    "start.ledger_copied",
    "start.ledger_migrated",
    "start.generation_begun",
    "start.recovered",
    "spool.segment_made",
    "spool.written",
    "spool.synced",
    "spool.published",
    "api.durable",
    "control.before_commit",
    "control.committed",
    "hunt.before_commit",
    "hunt.committed",
    "epoch.cut",
    "epoch.computed",
    "ledger.before_commit",
    "ledger.committed",
    "epoch.applied",
    "outbox.trying",
    "channel.written",
    "outbox.done",
    "outbox.noted",
    "sink.delivered",
    "sink.advanced",
    "history.file_written",
    "history.files_written",
    "history.logged",
    "history.table_committed",
    "history.committed",
    "facts.hours_written",
    "facts.hours_synced",
    "facts.head_written",
    "facts.flushed",
    "facts.hours_expired",
    "epochs.trimmed",
    "spool.segment_removed",
    "stop.drained",
    "backup.copied",
    "restore.filled",
];

struct Armed {
    name: String,
    /// How often it is still passed.
    left: AtomicU64,
}

/// All syncs that can be made to fail.
pub const SYNCS: &[&str] = &["ledger.sync", "history.sync", "facts.sync"];

impl Armed {
    fn by(variable: &str) -> Option<Armed> {
        let said = std::env::var(variable).ok()?;
        let (name, nth) = said.split_once(':').unwrap_or((&said, "1"));
        Some(Armed { name: name.to_owned(), left: AtomicU64::new(nth.parse().unwrap_or(1)) })
    }

    /// Whether it is this one's turn.
    fn is_due(&self, name: &str) -> bool {
        self.name == name && self.left.fetch_sub(1, Ordering::AcqRel) == 1
    }
}

static ARMED: LazyLock<Option<Armed>> = LazyLock::new(|| Armed::by("COUNTERFLOW_KILL_AT"));
static FAILING: LazyLock<Option<Armed>> = LazyLock::new(|| Armed::by("COUNTERFLOW_FAIL_AT"));
static LOST: OnceLock<fn(&'static str, &io::Error)> = OnceLock::new();

/// A point between two durable steps. Its name is one of [`POINTS`].
#[inline]
pub fn point(name: &'static str) {
    debug_assert!(POINTS.contains(&name), "{name} is not in the list");
    if ARMED.as_ref().is_some_and(|armed| armed.is_due(name)) {
        die();
    }
}

/// Says how this process ends when a sync has failed. Without it nothing ends: the error goes to who asked. The first
/// word counts.
pub fn on_lost(end: fn(&'static str, &io::Error)) {
    let _first = LOST.set(end);
}

/// Makes something durable, under one of the names in [`SYNCS`].
///
/// # Errors
/// It could not be made durable; in a process that said so by [`on_lost`] only a full disk comes back as an error.
pub fn sync(name: &'static str, work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    debug_assert!(SYNCS.contains(&name), "{name} is not in the list");
    let done = match &*FAILING {
        Some(armed) if armed.is_due(name) => Err(io::Error::from(rustix::io::Errno::IO)),
        _ => work(),
    };
    if let Err(error) = &done
        && !matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    {
        lost(name, error);
    }
    done
}

/// A sync has failed: what the disk holds is not known any more.
pub fn lost(name: &'static str, error: &io::Error) {
    if let Some(end) = LOST.get() {
        end(name, error);
    }
}

/// Ends the process as a power cut would: nothing unwinds, nothing is flushed.
fn die() {
    let _sent = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    // The signal is on its way; this thread must not take one more step.
    loop {
        std::thread::park();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_word_on_how_to_end_an_error_goes_to_who_asked() {
        assert!(sync("facts.sync", || Ok(())).is_ok());
        let failed = sync("facts.sync", || Err(io::Error::other("broken")));
        assert_eq!(failed.unwrap_err().to_string(), "broken");
    }
}
