//! One file per subcommand.

mod backtest;
mod backup;
mod bench;
mod completions;
mod config;
mod detect;
mod explain;
mod facts;
mod history;
mod hunts;
mod incidents;
mod models;
mod predict;
mod rejects;
mod replay;
mod replay_past;
mod risk;
mod rules;
mod rules_enable;
mod rules_explain;
mod rules_import;
mod rules_test;
mod run;
mod sarif;
mod sinks;
mod sources;
mod sql;
mod train;
mod train_served;
#[cfg(feature = "yara")]
mod yara;

use anyhow::{Result, bail};

use crate::{
    cli::{Cli, Command, RulesCommand},
    output::{Exit, Format},
};

/// Runs the subcommand that was asked for.
pub(crate) fn dispatch(cli: &Cli) -> Result<Exit> {
    let takes_sarif = matches!(&cli.command, Command::Rules(command) if matches!(**command, RulesCommand::Check(_)));
    if cli.output == Some(Format::Sarif) && !takes_sarif {
        bail!("--output sarif is for `rules check`; others print table, json or csv");
    }
    match &cli.command {
        Command::Detect(arguments) => detect::run(cli, arguments),
        Command::Replay(arguments) => replay::run(cli, arguments),
        Command::Run(arguments) => run::run(cli, arguments),
        Command::Rules(arguments) => rules::run(cli, arguments),
        #[cfg(feature = "yara")]
        Command::Yara(arguments) => yara::run(cli, arguments),
        Command::Sources(command) => sources::run(cli, command),
        Command::Sinks(command) => sinks::run(cli, command),
        Command::Sql(arguments) => sql::run(cli, arguments),
        Command::History(command) => history::run(cli, command),
        Command::Hunts(command) => hunts::run(cli, command),
        Command::Incidents(arguments) => incidents::run(cli, arguments),
        Command::Alerts(arguments) => incidents::alerts(cli, arguments),
        Command::Risk(arguments) => risk::run(cli, arguments),
        Command::Assess(arguments) => risk::assess(cli, arguments),
        Command::Actions(arguments) => incidents::actions(cli, arguments),
        Command::Explain(arguments) => explain::run(cli, arguments),
        Command::Facts(arguments) => facts::run(cli, arguments),
        Command::Config(arguments) => config::run(cli, arguments),
        Command::Train(arguments) => train::run(cli, arguments),
        Command::Predict(arguments) => predict::run(arguments),
        Command::Models(command) => models::run(cli, command),
        Command::Bench(arguments) => bench::run(cli, arguments),
        Command::Audit(arguments) => incidents::audit(cli, arguments),
        Command::Rejects(arguments) => rejects::run(cli, arguments),
        Command::Backup(arguments) => backup::make(arguments),
        Command::Restore(arguments) => backup::restore(arguments),
        Command::Completions(arguments) => completions::run(arguments),
    }
}
