//! The graph: correlate, dedup, score, connect, desire.
//!
//! The only crate that knows timely and differential. No clock, no I/O, no randomness: what comes out is a function of
//! what was fed in which epoch, the same for any number of workers. [`graph`] has the whole of it on one page; the
//! `mod` list is in the order in which data flows.

pub mod graph;

mod epochs;

mod builtin;
pub mod detect;
mod indicator;
mod model;

mod dedup;
mod watermark;

pub mod correlate;
pub mod episode;

pub mod chain;

mod alert;
mod assess;
mod budget;
mod rescore;
mod suppress;

mod blast;
mod desire;
pub mod incident;
mod risk;

mod sink;
mod waits;

pub use builtin::{builtin, is_builtin};
pub use chain::{begun, too_deep};
pub use correlate::Remembered;
pub use detect::{Matcher, Rules};
pub use graph::{Batch, Graph, GraphOptions, Recalled};
pub use incident::IncidentOptions;
pub use indicator::Table as IndicatorTable;
pub use model::model_detection;
