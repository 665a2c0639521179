//! `counterflow completions`.

use anyhow::Result;
use clap::CommandFactory;

use crate::{
    cli::{Cli, CompletionsArguments},
    output::Exit,
};

/// Prints the script for a shell.
#[allow(clippy::unnecessary_wraps)] // the shape of all subcommands
pub(crate) fn run(arguments: &CompletionsArguments) -> Result<Exit> {
    clap_complete::generate(arguments.shell, &mut Cli::command(), "counterflow", &mut std::io::stdout());
    Ok(Exit::Ok)
}
