//! `counterflow rules check | list | test`.

use std::path::PathBuf;

use anyhow::Result;
use cf_sigma::{Options, Severity};
use serde_json::json;

use crate::{
    cli::{Cli, RuleArguments, RulesCommand},
    output::{self, Exit, Format},
    rules::{self, LoadedRules},
};

/// Runs one of them.
pub(crate) fn run(cli: &Cli, command: &RulesCommand) -> Result<Exit> {
    match command {
        RulesCommand::Check { paths, warnings } => check(cli, paths, *warnings),
        RulesCommand::List { paths } => list(cli, paths),
        RulesCommand::Test { paths } => super::rules_test::run(cli, paths),
    }
}

/// Loads rules for another subcommand and says, in few lines, what did not load.
pub(crate) fn load(arguments: &RuleArguments, options: &Options) -> Result<LoadedRules> {
    let loaded = rules::load(&arguments.rules, options)?;
    report(&loaded);
    Ok(loaded)
}

/// Says what did not load: all errors, warnings only as a number.
pub(crate) fn report(loaded: &LoadedRules) {
    let (errors, warnings): (Vec<_>, Vec<_>) =
        loaded.problems.iter().partition(|problem| problem.severity == Severity::Error);
    for problem in &errors {
        output::note(&format!("error: {problem}"));
    }
    let rules = loaded.rules.rules().len();
    output::note(&format!("{rules} rules loaded, {} problems, {} warnings", errors.len(), warnings.len()));
}

fn check(cli: &Cli, paths: &[PathBuf], warnings: bool) -> Result<Exit> {
    let loaded = rules::load(paths, &Options::default())?;
    let shown = loaded.problems.iter().filter(|problem| warnings || problem.severity == Severity::Error);
    let rows = shown.map(|problem| {
        json!({
            "severity": if problem.severity == Severity::Error { "error" } else { "warning" },
            "code": problem.code, "file": problem.file, "line": problem.line, "column": problem.column,
            "rule": problem.rule, "message": problem.message, "hint": problem.hint,
        })
    });
    let format = Format::or_default(cli.output);
    let rows: Vec<_> = rows.collect();
    if format != Format::Table || !rows.is_empty() {
        let columns = ["severity", "code", "file", "line", "column", "message", "hint"];
        output::ignore_closed_pipe(output::rows(format, &columns, rows))?;
    }
    output::note(&format!(
        "{} rules load, {} problems, {} warnings",
        loaded.rules.rules().len(),
        loaded.errors(),
        loaded.problems.len() - loaded.errors()
    ));
    Ok(if loaded.errors() == 0 { Exit::Ok } else { Exit::Problems })
}

fn list(cli: &Cli, paths: &[PathBuf]) -> Result<Exit> {
    let loaded = rules::load(paths, &Options::default())?;
    let rows = loaded.rules.rules().iter().map(|rule| {
        json!({
            "rule_id": rule.id, "title": rule.title, "level": rule.level, "alerts": rule.alerts, "tags": rule.tags,
            "file": rule.file, "line": rule.line,
        })
    });
    let columns = ["rule_id", "title", "level", "alerts", "file", "line"];
    output::ignore_closed_pipe(output::rows(Format::or_default(cli.output), &columns, rows))?;
    report(&loaded);
    Ok(if loaded.errors() == 0 { Exit::Ok } else { Exit::Problems })
}
