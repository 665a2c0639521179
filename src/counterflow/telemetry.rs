//! Logs: JSON lines on standard error for machines, short lines for a terminal.

use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, fmt, prelude::*};

/// Of the Delta library only what somebody must look at, unless the filter names it.
const QUIET: &str = "buoyant_kernel=warn,buoyant_kernel_engine=warn,delta_kernel=warn,deltalake_core=warn";

/// Starts logging. `COUNTERFLOW_LOG` sets the filter (`info`, `cf_ledger=debug`, ...).
pub(crate) fn start() {
    let filter =
        EnvFilter::new(format!("{QUIET},{}", std::env::var("COUNTERFLOW_LOG").unwrap_or_else(|_| "info".to_owned())));
    let registry = tracing_subscriber::registry().with(filter);
    let started = if io::stderr().is_terminal() {
        registry.with(fmt::layer().with_writer(io::stderr).with_target(false).compact()).try_init()
    } else {
        registry.with(fmt::layer().json().flatten_event(true).with_writer(io::stderr)).try_init()
    };
    // Only a second start in one process (tests) can fail, and then logging is on already.
    drop(started);
}
