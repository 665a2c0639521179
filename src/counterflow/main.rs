//! The `counterflow` binary: subcommands, settings, wiring, telemetry. No domain logic lives here.

mod again;
mod align;
mod answering;
mod backtest;
mod backup;
mod below;
mod bundle;
mod cli;
mod cluster;
mod commands;
mod commit;
mod conduct;
mod config;
mod edge;
mod history_settings;
mod housekeeping;
mod hunts;
mod input;
mod kafka;
mod keep;
mod ledger_settings;
mod live;
mod lookup;
mod members;
mod output;
mod passage;
mod past;
mod provenance;
mod rejects;
mod reload;
mod remember;
mod room;
mod rulebook;
mod rules;
mod rules_work;
mod scoring;
mod shares;
mod sinks;
mod sources;
mod sql;
mod standing;
mod status;
mod telemetry;
mod triage;
mod warm;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    match commands::dispatch(&cli) {
        Ok(code) => code.into(),
        Err(error) => {
            output::complain(&error);
            output::Exit::of(&error).into()
        }
    }
}
