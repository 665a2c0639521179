//! History: Delta tables on local disk, written once per epoch.
//!
//! What a row is made of is said once, in [`schema`]. Worker threads fill a [`BatchBuilder`] and hand over [`Batch`]es; one
//! committer thread owns the [`Writer`], which appends whole epochs to each table with an application transaction, the
//! table `epochs` last: what it holds is complete (`streaming.md`, *Durability and recovery*).
//! The `mod` list is in the order in which data flows.

pub mod schema;

mod batch;
pub mod fields;
mod row;

mod place;

mod file;
mod files;
mod stored;
mod table;
mod waiting;
mod writer;

mod made;

mod deliveries;
mod rewrite;

mod compact;
mod erase;
mod export;
mod import;
mod retain;

mod keep;

mod error;

pub use batch::{Batch, BatchBuilder, EventBatch, Row, Rows};
pub use deliveries::{DataFile, Deliveries, Delivery, Known, RECORD_COLUMNS, Reading, RowBatch, Span, WantedLogSource};
pub use erase::{Erasure, MARK};
pub use error::HistoryError;
pub use export::ParquetFile;
pub use fields::FieldColumns;
pub use import::Import;
pub use keep::{Housekeeper, TableStatus};
pub use made::{Made, Maker};
pub use place::{Place, StorePlace};
pub use retain::{Pin, Pinned, Retention};
pub use row::{
    ActionStep, AlertRevision, EpochEntry, FactEntry, FeatureEntry, IncidentRevision, PredictionEntry, RiskChange,
    Subject, VerdictEntry,
};
pub use schema::{PASSED_MS, Table};
pub use stored::{Plain, Stored};
pub use table::{Opened, Replacement, open, open_version};
pub use writer::{Committed, Options, Others, TableCommit, Writer};
