//! SQL over history: read-only, streaming, a fresh snapshot for each query, whole epochs only.
//!
//! In: SQL text. Out: record batches as they come, or written as a table, JSON lines or CSV. Memory: a pool of fixed
//! size, beyond which sorts and joins spill to a temporary folder.
//! The `mod` list is in the order in which data flows.

mod statement;

mod as_of;
mod limits;
mod live;
mod opened;
mod scan;
mod session;

mod functions;
mod json_path;

mod encode;
mod output;

pub mod catalogue;
pub mod named;
mod settings;
pub mod wire;

mod error;

pub use as_of::AsOf;
pub use encode::{Encoder, Encoding};
pub use error::QueryError;
pub use functions::{FUNCTIONS, Function};
pub use live::{Live, LiveRows, LiveTable};
pub use output::{write_csv, write_json_lines, write_table};
pub use session::{Options, Rows, Session};
pub use settings::SqlSettings;
