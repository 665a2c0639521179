//! History: Delta tables on local disk, written once per epoch.
//!
//! What a row is made of is said once, in [`schema`]. Worker threads fill a [`BatchBuilder`] and hand over [`Batch`]es; one
//! committer thread owns the [`Writer`], which appends whole epochs to each table with an application transaction, the
//! table `epochs` last: what it holds is complete (`streaming.md`, *Durability and recovery*).
//! The `mod` list is in the order in which data flows.

pub mod schema;

mod batch;
mod row;

mod file;
mod table;
mod writer;

mod deliveries;

mod error;

pub use batch::{Batch, BatchBuilder, EventBatch, Row, Rows};
pub use deliveries::{DataFile, Deliveries, Delivery, Known, RECORD_COLUMNS, Reading, RowBatch, Span, WantedLogSource};
pub use error::HistoryError;
pub use row::{ActionStep, AlertRevision, EpochEntry, IncidentRevision};
pub use schema::{PASSED_MS, Table};
pub use table::{Opened, open};
pub use writer::{Committed, Options, TableCommit, Writer};
