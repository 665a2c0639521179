//! Named points between durable steps, at which a campaign lets the process die.
//!
//! They are compiled in and do nothing, unless the environment says `COUNTERFLOW_KILL_AT=NAME` or `NAME:N` when the
//! process starts: then it sends itself SIGKILL when it comes by that point for the first, or the N-th, time. What that
//! costs otherwise is one load of a pointer. `scripts/campaign points` kills at each of [`POINTS`].

use std::sync::{
    LazyLock,
    atomic::{AtomicU64, Ordering},
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

static ARMED: LazyLock<Option<Armed>> = LazyLock::new(|| {
    let said = std::env::var("COUNTERFLOW_KILL_AT").ok()?;
    let (name, nth) = said.split_once(':').unwrap_or((&said, "1"));
    Some(Armed { name: name.to_owned(), left: AtomicU64::new(nth.parse().unwrap_or(1)) })
});

/// A point between two durable steps. Its name is one of [`POINTS`].
#[inline]
pub fn point(name: &'static str) {
    debug_assert!(POINTS.contains(&name), "{name} is not in the list");
    if let Some(armed) = &*ARMED
        && armed.name == name
        && armed.left.fetch_sub(1, Ordering::AcqRel) == 1
    {
        die();
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
