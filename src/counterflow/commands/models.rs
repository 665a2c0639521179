//! `counterflow models`.

use std::path::Path;

use anyhow::{Context, Result};
use cf_models::{
    metrics,
    registry::{Manifest, Registry},
    table::Table,
    task::Task,
};
use serde_json::{Value, json};

use crate::{
    cli::{Cli, ModelsCommand, VersionArguments},
    output::{self, Exit, Format},
};

/// Columns of a table of versions.
const COLUMNS: [&str; 8] =
    ["task", "version", "state", "roc_auc", "accuracy", "recall", "false_positive_rate", "added_at"];

/// Looks at versions, or changes which one predicts.
pub(crate) fn run(cli: &Cli, command: &ModelsCommand) -> Result<Exit> {
    match command {
        ModelsCommand::List { models, task } => list(cli, models, task.as_deref()),
        ModelsCommand::Show(arguments) => show(cli, arguments),
        ModelsCommand::Promote(arguments) => promote(arguments),
        ModelsCommand::Challenge(arguments) => challenge(arguments),
        ModelsCommand::Rollback { models, task, reason } => roll_back(models, task, reason),
        ModelsCommand::Compare { models, task, input, label, positive, versions } => {
            let rows = input.as_deref().zip(label.as_deref());
            compare(cli, models, task, rows, positive.as_deref(), versions)
        }
    }
}

fn list(cli: &Cli, models: &Path, task: Option<&str>) -> Result<Exit> {
    let registry = Registry::new(models);
    let mut rows = Vec::new();
    for name in registry.tasks()?.iter().filter(|name| task.is_none_or(|task| task == *name)) {
        let state = registry.state(name)?;
        for version in registry.versions(name)? {
            // A damaged version is listed as such and does not hide the others.
            let mut row = match registry.manifest(name, &version) {
                Ok(manifest) => figures(&manifest),
                Err(error) => json!({"problem": error.to_string()}),
            };
            let added = state.happened.iter().find(|happened| happened.what == "added" && happened.version == version);
            row["task"] = name.as_str().into();
            row["state"] = standing(&state, &version, &row).into();
            row["added_at"] = added.map_or(Value::Null, |added| added.at.to_string().into());
            row["compared"] = (state.challenger.as_ref() == Some(&version)).into();
            row["version"] = version.into();
            rows.push(row);
        }
    }
    rows.sort_by_key(|row| (row["task"].to_string(), row["added_at"].to_string(), row["version"].to_string()));
    output::ignore_closed_pipe(output::rows(Format::or_default(cli.output), &COLUMNS, rows))?;
    Ok(Exit::Ok)
}

fn standing(state: &cf_models::registry::State, version: &str, row: &Value) -> &'static str {
    if row.get("problem").is_some() {
        "damaged"
    } else if state.champion.as_deref() == Some(version) {
        "champion"
    } else if state.before.iter().any(|before| before == version) {
        "former"
    } else {
        "challenger"
    }
}

fn figures(manifest: &Manifest) -> Value {
    let evaluation = &manifest.evaluation;
    json!({
        "roc_auc": evaluation.ranking.roc_auc,
        "pr_auc": evaluation.ranking.pr_auc,
        "accuracy": evaluation.decision.accuracy,
        "macro_f1": evaluation.decision.macro_f1,
        "recall": evaluation.decision.recall,
        "false_positive_rate": evaluation.decision.false_positive_rate,
        "calibration_error": evaluation.ranking.calibration_error,
        "threshold": evaluation.threshold,
        "rows": manifest.data_rows,
        "data_sha256": manifest.data_sha256,
    })
}

fn show(cli: &Cli, arguments: &VersionArguments) -> Result<Exit> {
    let registry = Registry::new(&arguments.models);
    let version = registry.find(&arguments.task, &arguments.model)?;
    let shown = if Format::or_default(cli.output) == Format::Table {
        output::text(&output::printable_lines(&registry.text(&arguments.task, &version, "card.md")?))
    } else {
        let mut manifest = serde_json::to_value(registry.manifest(&arguments.task, &version)?)?;
        manifest["version"] = version.into();
        output::rows(Format::Json, &[], [manifest])
    };
    output::ignore_closed_pipe(shown)?;
    Ok(Exit::Ok)
}

fn promote(arguments: &VersionArguments) -> Result<Exit> {
    let registry = Registry::new(&arguments.models);
    let version = registry.find(&arguments.task, &arguments.model)?;
    let lock = registry.lock(&arguments.task)?;
    registry.promote(&lock, &arguments.task, &version, &arguments.reason)?;
    output::note(&format!("{} is the champion of task {:?}", version, arguments.task));
    Ok(Exit::Ok)
}

fn challenge(arguments: &VersionArguments) -> Result<Exit> {
    let registry = Registry::new(&arguments.models);
    let named = (arguments.model != "none").then(|| registry.find(&arguments.task, &arguments.model)).transpose()?;
    let lock = registry.lock(&arguments.task)?;
    registry.challenge(&lock, &arguments.task, named.as_deref(), &arguments.reason)?;
    output::note(&match named {
        Some(version) => format!("{version} is compared with the champion of task {:?}", arguments.task),
        None => format!("task {:?} has no challenger", arguments.task),
    });
    Ok(Exit::Ok)
}

fn roll_back(models: &Path, task: &str, reason: &str) -> Result<Exit> {
    let registry = Registry::new(models);
    registry.state(task)?.champion.with_context(|| format!("task {task:?} has no champion in {}", models.display()))?;
    let lock = registry.lock(task)?;
    let version = registry.roll_back(&lock, task, reason)?;
    output::note(&format!(
        "{version} is the champion of task {task:?} again; its probe is predicted bit by bit as before"
    ));
    Ok(Exit::Ok)
}

fn compare(
    cli: &Cli,
    models: &Path,
    task: &str,
    rows: Option<(&Path, &str)>,
    positive: Option<&str>,
    versions: &[String],
) -> Result<Exit> {
    let registry = Registry::new(models);
    let mut compared = Vec::new();
    let labelled = match rows {
        Some((path, label)) => {
            let table = Table::read(path)?;
            let labels = Task::new(task)?.labels(table.need(label, "the label")?, positive)?;
            Some((table, labels))
        }
        None => None,
    };
    for version in versions {
        let version = registry.find(task, version)?;
        let mut row = figures(&registry.manifest(task, &version)?);
        if let Some((table, labels)) = &labelled {
            let model = registry.model(task, &version)?;
            let scores = model.probabilities(&model.encode(table)?, 1);
            row = json!({
                "roc_auc": metrics::roc_auc(&scores, &labels.positive),
                "pr_auc": metrics::pr_auc(&scores, &labels.positive),
                "rows": table.rows,
            });
            let decision = serde_json::to_value(metrics::decision(&scores, &labels.positive, model.threshold))?;
            if let (Value::Object(row), Value::Object(decision)) = (&mut row, decision) {
                row.extend(decision);
            }
        }
        row["judged_on"] = if labelled.is_some() { "these rows" } else { "its own rows" }.into();
        row["version"] = version.into();
        compared.push(row);
    }
    let columns =
        ["version", "judged_on", "rows", "roc_auc", "pr_auc", "accuracy", "macro_f1", "recall", "false_positive_rate"];
    output::ignore_closed_pipe(output::rows(Format::or_default(cli.output), &columns, compared))?;
    Ok(Exit::Ok)
}
