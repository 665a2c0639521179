//! The graph: correlate, dedup, score, connect, desire.

pub mod episode;
pub mod correlate;
