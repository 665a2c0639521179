//! Receivers: syslog over UDP and TCP. What they take is handed to an [`Accept`], which answers when it is durable.
//!
//! Neither protocol can acknowledge, so they promise less than HTTP: TCP stops reading while nothing is accepted, so
//! that the sender's own buffer fills; UDP leaves datagrams in the kernel's buffer, which drops (and counts) what does
//! not fit. Memory: one message and one read per connection, one batch for UDP. There is no login: that callers listen on
//! loopback or trusted networks only is their check.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use cf_spool::{AppendError, Spool};
use cf_types::{Framing, Origin, Position, Record, Tenant, clock};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::watch;

mod framer;
mod tcp;
mod udp;

pub use tcp::syslog_tcp;
pub use udp::{bind_udp, kernel_drops, syslog_udp};

/// How long a receiver waits before it asks a full spool again.
const FULL_WAIT: Duration = Duration::from_millis(50);
/// How long a receiver that is to stop tries to hand over what it has received.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// How syslog is received.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SyslogOptions {
    /// Bytes of the longest message over TCP; a longer one becomes a reject. Should be the `record_bytes_max` of the
    /// source.
    pub message_bytes_max: u32,
    /// Connections at once; one more is closed right away. Each may hold one message in memory.
    pub connections_max: u32,
    /// Seconds without a byte after which a connection is closed.
    pub idle_s: u32,
    /// Seconds that one message may take to arrive; a slower one becomes a reject and its connection is closed.
    pub message_s: u32,
    /// Bytes of the kernel's buffer for datagrams. Without privileges the kernel's own limit (`net.core.rmem_max`)
    /// holds.
    pub receive_buffer_bytes: u32,
}

impl Default for SyslogOptions {
    fn default() -> SyslogOptions {
        SyslogOptions {
            message_bytes_max: 1 << 20, // the default of a source's record_bytes_max
            connections_max: 256,       // 256 MiB at the very worst
            idle_s: 3_600,              // rsyslog keeps quiet connections for ever, and reconnects when they close
            message_s: 30,
            receive_buffer_bytes: 16 << 20, // some 30,000 messages: a second of a burst while the disk syncs
        }
    }
}

/// Why records were not accepted.
#[derive(Debug, Error)]
pub enum Refused {
    /// Not now: wait and repeat.
    #[error("the spool takes nothing now")]
    Full(#[source] AppendError),
    /// Not ever: this process should end.
    #[error("the spool takes nothing any more")]
    Failed(#[source] AppendError),
}

impl From<AppendError> for Refused {
    fn from(error: AppendError) -> Refused {
        if error.is_back_pressure() { Refused::Full(error) } else { Refused::Failed(error) }
    }
}

/// Where received records go.
pub trait Accept: Send + Sync + 'static {
    /// Takes records of a source, all or none; resolves when they are durable.
    fn accept(
        &self,
        source: &Arc<str>,
        records: &[(Framing, Bytes)],
    ) -> impl Future<Output = Result<(), Refused>> + Send;
}

/// Accepts into the spool.
#[derive(Debug)]
pub struct SpoolAccept {
    spool: Arc<Spool>,
    tenant: Tenant,
}

impl SpoolAccept {
    /// Accepts into `spool`, for `tenant`.
    #[must_use]
    pub fn new(spool: Arc<Spool>, tenant: Tenant) -> SpoolAccept {
        SpoolAccept { spool, tenant }
    }
}

impl Accept for SpoolAccept {
    async fn accept(&self, source: &Arc<str>, records: &[(Framing, Bytes)]) -> Result<(), Refused> {
        let received_at = clock::now();
        let origin = |framing| {
            let (tenant, source) = (self.tenant.clone(), Arc::clone(source));
            Arc::new(Origin { tenant, source, received_at, year: None, framing })
        };
        let mut last = origin(Framing::Record);
        let records: Vec<_> = records
            .iter()
            .map(|(framing, bytes)| {
                if last.framing != *framing {
                    last = origin(*framing);
                }
                Record { origin: Arc::clone(&last), position: Position::default(), bytes: bytes.clone() }
            })
            .collect();
        self.spool.append(&records)?.await?;
        Ok(())
    }
}

/// What a receiver has counted since it began. Shared with who shows it.
#[derive(Debug, Default)]
pub struct ReceiverCounts {
    /// Records that are durable.
    pub records: AtomicU64,
    /// Their bytes.
    pub bytes: AtomicU64,
    /// Of them, messages that were too long, too slow or cut off.
    pub unframed: AtomicU64,
    /// How often a full spool made it wait.
    pub waits: AtomicU64,
    /// Records that were received but could not be made durable before it had to stop.
    pub lost: AtomicU64,
    /// Connections open now.
    pub connections: AtomicU64,
    /// Connections refused because too many were open.
    pub connections_refused: AtomicU64,
    /// Connections closed because they were idle or too slow.
    pub timeouts: AtomicU64,
}

/// Tells receivers to stop. Dropping it tells them too.
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

/// Heard by receivers.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

impl Stopper {
    /// A stopper and what hears it.
    #[must_use]
    pub fn new() -> (Stopper, Stop) {
        let (tx, rx) = watch::channel(false);
        (Stopper(tx), Stop(rx))
    }

    /// Receivers take what has arrived, hand it over, and end.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Stop {
    /// Resolves when it is time to stop.
    pub async fn stopped(&mut self) {
        // An error says that the stopper is gone.
        drop(self.0.wait_for(|stop| *stop).await);
    }

    fn is_stopped(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }
}

/// Why a receiver ended before it was told to.
#[derive(Debug, Error)]
pub enum ReceiveError {
    /// Its socket failed.
    #[error("could not receive syslog")]
    Socket(#[from] std::io::Error),
    /// The spool takes nothing any more.
    #[error("could not hand over what was received")]
    Refused(#[source] AppendError),
}

/// What all parts of one receiver share.
struct Receiver<A> {
    source: Arc<str>,
    accept: Arc<A>,
    counts: Arc<ReceiverCounts>,
    stop: Stop,
}

impl<A> Clone for Receiver<A> {
    fn clone(&self) -> Receiver<A> {
        Receiver {
            source: Arc::clone(&self.source),
            accept: Arc::clone(&self.accept),
            counts: Arc::clone(&self.counts),
            stop: self.stop.clone(),
        }
    }
}

impl<A: Accept> Receiver<A> {
    /// Hands records over, waiting as long as the spool is full; when told to stop, no longer than the grace.
    async fn deliver(&self, records: &[(Framing, Bytes)]) -> Result<(), ReceiveError> {
        if records.is_empty() {
            return Ok(());
        }
        let mut stopped_for = Duration::ZERO;
        loop {
            match self.accept.accept(&self.source, records).await {
                Ok(()) => {
                    self.count(records);
                    return Ok(());
                }
                Err(Refused::Full(_)) => add(&self.counts.waits, 1),
                Err(Refused::Failed(error)) => {
                    self.lose(records, "the spool failed");
                    return Err(ReceiveError::Refused(error));
                }
            }
            if self.stop.is_stopped() {
                stopped_for += FULL_WAIT;
            }
            if stopped_for > STOP_GRACE {
                self.lose(records, "the spool stayed full while stopping");
                return Ok(());
            }
            tokio::time::sleep(FULL_WAIT).await;
        }
    }

    fn count(&self, records: &[(Framing, Bytes)]) {
        let unframed = records.iter().filter(|(framing, _)| *framing == Framing::Unframed).count();
        add(&self.counts.records, records.len());
        add(&self.counts.bytes, records.iter().map(|(_, bytes)| bytes.len()).sum());
        add(&self.counts.unframed, unframed);
    }

    fn lose(&self, records: &[(Framing, Bytes)], why: &'static str) {
        add(&self.counts.lost, records.len());
        tracing::error!(source = %self.source, lost = records.len(), why, "received records are lost");
    }
}

fn add(counter: &AtomicU64, more: usize) {
    counter.fetch_add(u64::try_from(more).unwrap_or(u64::MAX), Ordering::Relaxed);
}

#[cfg(test)]
mod tests;
