//! Durable operational state: epochs, control log, alerts, incidents, outbox, receipts, audit chain, facts log.
//!
//! One SQLite file, `DIR/ledger.db`, WAL with `synchronous=FULL`: one fsync per transaction, one transaction per epoch.
//! Or the same tables in PostgreSQL, where `DIR/ledger.location` says so.
//! The graph gives *desired* state ([`cf_types::EpochOutput`]); the ledger turns it into threads, revisions, numbers and
//! intents, and holds what was really done. It never asks the clock: times come with epochs and with the callers.
//!
//! The `mod` list is in the order in which data flows.

mod database;
mod error;
pub mod format;
mod location;
mod lock;
mod schema;
mod server;

mod again;
pub mod audit;
pub mod control;
mod held;
pub mod hunts;
pub mod retries;
pub mod triage;

mod apply;
mod engine;
pub mod members;
pub mod present;
pub mod restored;
pub mod routes;
pub mod sinks;

pub mod facts_log;
pub mod outbox;
pub mod provenance;
pub mod read;
pub mod recall;

pub use apply::{AlertChange, AlertEvent, Applied, IncidentChange};
pub use audit::{AuditFault, AuditRecord};
pub use control::{ControlEntry, ControlLog, NewFact};
pub use engine::{Engine, Ledger};
pub use error::LedgerError;
pub use hunts::{HuntFound, HuntRow, HuntRun, HuntState};
pub use location::Location;
pub use lock::DirLock;
pub use members::{MemberRef, MemberSummary, MembersOf};
pub use outbox::{ActionInForce, Intent, IntentKind, Operation, Outcome, Try};
pub use present::{Difference, Present};
pub use read::Reader;
pub use recall::Sealed;
pub use retries::Retry;
pub use routes::{Route, Routes};
pub use sinks::{Change, ChangeKind, Changes, Cursor, SinkReject};

#[cfg(test)]
mod postgres_server;
#[cfg(test)]
mod tests;
