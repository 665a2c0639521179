//! History on disk, read back: what commits hold, that each epoch is there exactly once after crashes, that older tables
//! open, and that what is kept, moved and erased is what should be.

// Helpers of tests are tests: what fails here fails the run.
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout, clippy::as_conversions, clippy::string_slice)]
#![allow(clippy::clone_on_ref_ptr, clippy::too_many_arguments, clippy::needless_lifetimes, clippy::indexing_slicing)]

mod bad;
mod compact;
mod crash;
mod import;
mod made;
mod migrate;
mod readers;
mod retain;
mod store;
mod support;
mod tools;
