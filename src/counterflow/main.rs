//! The `counterflow` binary: subcommands, settings, wiring, telemetry. No domain logic lives here.

mod again;
mod backtest;
mod backup;
mod below;
mod bundle;
mod cli;
mod commands;
mod commit;
mod conduct;
mod config;
mod edge;
mod input;
mod keep;
mod live;
mod lookup;
mod members;
mod output;
mod passage;
mod past;
mod provenance;
mod rejects;
mod reload;
mod room;
mod rulebook;
mod rules;
mod sql;
mod status;
mod telemetry;
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
