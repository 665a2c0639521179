//! Tests of the crate over its public face; one binary.

// Helpers of tests are tests: what fails here fails the run.
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::as_conversions, clippy::cast_lossless)]

mod data;
mod drift;
mod honest;
mod input;
mod oracle;
mod peers;
mod served;
mod stored;
mod support;
mod tune;
