//! Benchmarks: generators, ratios, peers; results with command and commit in `runs/`.

pub mod matching;

pub use matching::{MatchReport, bench_match};
