//! The `counterflow` binary: subcommands, settings, wiring, telemetry. No domain logic lives here.

mod backtest;
mod below;
mod cli;
mod commands;
mod commit;
mod conduct;
mod config;
mod edge;
mod history_settings;
mod housekeeping;
mod input;
mod live;
mod lookup;
mod members;
mod output;
mod past;
mod provenance;
mod reload;
mod rulebook;
mod rules;
mod standing;
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
