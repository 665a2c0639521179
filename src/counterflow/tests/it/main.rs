//! The binary as a user has it, and the shape of the workspace. One test binary: each would link everything again.

// Helpers of tests are tests: what fails here fails the run.
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout, clippy::as_conversions, clippy::string_slice)]
#![allow(clippy::clone_on_ref_ptr, clippy::too_many_arguments, clippy::needless_lifetimes, clippy::indexing_slicing)]

mod align;
mod arrows;
mod backtest;
mod backup;
mod broker;
mod cases;
mod cli;
mod cluster;
mod cluster_run;
mod explain;
mod facts;
mod faults;
mod files;
mod folders;
mod history;
mod hunts;
mod kafka;
mod kill;
mod ledger_postgres;
mod models;
mod points;
#[path = "../../../ledger/postgres_server.rs"]
mod postgres_server;
mod rejects;
mod reload;
mod remember;
mod rescore;
mod rules;
mod run;
mod scoring;
mod served;
mod silence;
mod sinks;
mod sql;
mod sql_oracle;
mod support;
mod triage;
