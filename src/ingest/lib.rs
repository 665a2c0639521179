//! The edge in: from bytes of files, syslog and HTTP to normalised events.
//!
//! Three steps, each usable alone: something cuts [`Record`](cf_types::Record)s out of what comes ([`file`], [`body`],
//! the receivers), a [`Decoder`] makes [`Event`](cf_types::Event)s of each, and what cannot become one is a
//! [`Reject`](cf_types::Reject) with its reason. Decoding is a pure function of the record: no clock, no I/O, no state
//! that a result could depend on, so that a replay decodes the same.

pub mod body;
pub mod decode;
pub mod file;
pub mod mapping;
pub mod options;
pub mod receive;

pub use body::{BodyKind, BodyLimits, split_body};
pub use decode::{Decoded, Decoder, Want};
pub use file::{FileError, FileOptions, FileReader};
pub use mapping::{Mapping, MappingError};
pub use options::{OptionsError, SourceOptions, SourceTable};
