//! Kafka: partitions as sources, topics as sinks.
//!
//! A [`Source`] reads all partitions of some topics of one cluster, each by an assignment of our own: no group, no
//! rebalancing, no offsets that anybody else keeps. Where each begins is said by who binds offsets (the engine's
//! ledger); what cannot be read from there is a stated [`Condition`], never a jump to the end. What the bytes of a record
//! mean is not known here.
//!
//! A [`Sink`] writes records by key, a batch at a time, each batch in a transaction: what an earlier run of the same sink
//! has still under way is fenced off before anything is written, so no older record ever follows a newer one.

mod check;
mod client;
mod condition;
mod partition;
mod scout;
pub mod settings;
mod sink;
pub mod sink_settings;
mod source;

pub use check::{Finding, Place, Resolved, check, resolve};
pub use condition::Condition;
pub use partition::Message;
pub use settings::{Class, Format, KafkaSettings, Mechanism, SaslSettings, SecuritySettings, Start};
pub use sink::{NotDelivered, Outgoing, Sink, SinkWatch, check_sink};
pub use sink_settings::{Compression, KafkaSinkSettings, SinkTopics};
pub use source::{Bound, NotThere, PartitionState, Source, Unread, parse_stream, stream};

/// What keeps a client from being made: a setting that librdkafka does not take.
#[derive(Debug, thiserror::Error)]
#[error("the Kafka client of {source_name:?} could not be made: {says}")]
pub struct ClientError {
    /// The source or sink.
    pub source_name: String,
    /// What the client says.
    pub says: String,
}
