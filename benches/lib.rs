//! Benchmarks: generators, ratios, peers; results with command and commit in `runs/`.

pub mod input;
pub mod matching;
pub mod spread;

pub use matching::{MatchReport, bench_match};
