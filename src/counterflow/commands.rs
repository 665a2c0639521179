//! One file per subcommand.

mod bench;
mod completions;
mod config;
mod detect;
mod facts;
mod incidents;
mod replay;
mod rules;
mod rules_test;
mod run;
mod sql;

use anyhow::Result;

use crate::{
    cli::{Cli, Command},
    output::Exit,
};

/// Runs the subcommand that was asked for.
pub(crate) fn dispatch(cli: &Cli) -> Result<Exit> {
    match &cli.command {
        Command::Detect(arguments) => detect::run(cli, arguments),
        Command::Replay(arguments) => replay::run(cli, arguments),
        Command::Run(arguments) => run::run(cli, arguments),
        Command::Rules(arguments) => rules::run(cli, arguments),
        Command::Sql(arguments) => sql::run(cli, arguments),
        Command::Incidents(arguments) => incidents::run(cli, arguments),
        Command::Alerts(arguments) => incidents::alerts(cli, arguments),
        Command::Actions(arguments) => incidents::actions(cli, arguments),
        Command::Facts(arguments) => facts::run(cli, arguments),
        Command::Config(arguments) => config::run(cli, arguments),
        Command::Bench(arguments) => bench::run(cli, arguments),
        Command::Audit(arguments) => incidents::audit(cli, arguments),
        Command::Completions(arguments) => completions::run(arguments),
    }
}
