//! Hunts: rules whose question is put to history in SQL, by time, and not to each event as it comes.
//!
//! A hunt is a document like a rule (title, id, level, tags, ...) with `hunt` in the place of `detection`. This crate reads
//! what it says; who asks, and when, is the engine's. No event meets a hunt: its condition is that of nothing.

use std::sync::Arc;

/// Seconds that a hunt looks back, if it does not say.
pub const WINDOW_S: u32 = 3_600;
/// Bytes of a query.
pub const QUERY_BYTES_MAX: usize = 64 << 10;

/// What a hunt asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hunt {
    /// Its `name`, by which people call it.
    pub name: Option<Arc<str>>,
    /// One reading SQL statement; `$from` and `$to` in it are the ends of the event time that is looked at.
    pub query: Arc<str>,
    /// Line of the text where it begins.
    pub query_line: u32,
    /// Seconds from one begin to the next; `None`: as the settings say.
    pub every_s: Option<u32>,
    /// Seconds that one look reaches back from the newest event.
    pub window_s: u32,
    /// The columns that make a row the same row; empty: the event's `id`.
    pub key: Vec<Arc<str>>,
}
