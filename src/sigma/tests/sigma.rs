//! Tests of the crate from outside: semantics as tables, an obvious oracle, the public rules and their own cases.

// Helpers of tests are tests: what fails here fails the run.
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout, clippy::as_conversions, clippy::string_slice)]
#![allow(clippy::clone_on_ref_ptr, clippy::too_many_arguments, clippy::needless_lifetimes, clippy::indexing_slicing)]

#[path = "sigma/arbitrary.rs"]
mod arbitrary;
#[path = "sigma/corpus.rs"]
mod corpus;
#[path = "sigma/correlations.rs"]
mod correlations;
#[path = "sigma/explain.rs"]
mod explain;
#[path = "sigma/external.rs"]
mod external;
#[path = "sigma/hostile.rs"]
mod hostile;
#[path = "sigma/hunts.rs"]
mod hunts;
#[path = "sigma/learnt.rs"]
mod learnt;
#[path = "sigma/lint.rs"]
mod lint;
#[path = "sigma/log_sources.rs"]
mod log_sources;
#[path = "sigma/pairs.rs"]
mod pairs;
#[path = "sigma/pipelines.rs"]
mod pipelines;
#[path = "sigma/problems.rs"]
mod problems;
#[path = "sigma/products.rs"]
mod products;
#[path = "sigma/random.rs"]
mod random;
#[path = "sigma/reload.rs"]
mod reload;
#[path = "sigma/semantics.rs"]
mod semantics;
#[path = "sigma/specification.rs"]
mod specification;
#[path = "sigma/text_logs.rs"]
mod text_logs;
#[path = "sigma/world.rs"]
mod world;
#[path = "sigma/written_out.rs"]
mod written_out;
