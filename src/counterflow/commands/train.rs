//! `counterflow train`.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use anyhow::{Result, bail};
use cf_models::{
    balance::Balance,
    ensemble::{Blend, Recipe},
    features::Spec,
    members::Kind,
    publish::{self, Gate, Published},
    registry::Registry,
    table::Table,
    task::Task,
    train::{self, Prepared, Request, Trained},
    tune::Limits,
};
use serde_json::json;

use super::train_served;
use crate::{
    cli::{Cli, TrainArguments},
    output::{self, Exit, Format},
};

/// Trains, judges, stores.
pub(crate) fn run(cli: &Cli, arguments: &TrainArguments) -> Result<Exit> {
    let (mut request, table) = match (&arguments.data, &arguments.input) {
        (Some(data), _) => {
            let table = train_served::table(&arguments.task, data)?;
            let mut request = request(arguments, &table)?;
            train_served::complete(&mut request, &table, data)?;
            (request, table)
        }
        (None, Some(input)) => {
            let table = Table::read(input)?;
            (request(arguments, &table)?, table)
        }
        (None, None) => bail!("what to learn from is not said; give --input FILE or --data DIR"),
    };
    let prepared = Prepared::new(&request, table)?;
    for line in &prepared.notes {
        output::note(&format!("note: {line}"));
    }
    let bar = bar();
    let mut progress = |what: &str, done: usize, all: usize| {
        bar.set_length(u64::try_from(all).unwrap_or(0));
        bar.set_position(u64::try_from(done).unwrap_or(0));
        bar.set_message(what.to_owned());
    };
    if arguments.trials > 0 {
        let limits = Limits {
            trials: usize::from(arguments.trials),
            time_max: Duration::from_secs(u64::try_from(arguments.trials_time).unwrap_or(0)),
        };
        train::tune(&mut request, &prepared, limits, &mut progress)?;
    }
    let trained = train::train(&request, &prepared, &mut progress)?;
    bar.finish_and_clear();
    let gate = match arguments.promote.as_str() {
        "always" => Gate::Always,
        "never" => Gate::Never,
        _ if arguments.data.is_some() => train_served::gate(&arguments.task, &prepared.table),
        _ => Gate::Evidence,
    };
    let published = publish::publish(&Registry::new(&arguments.models), &request, &prepared, &trained, gate)?;
    print(cli, &request, &trained, &published)?;
    Ok(Exit::Ok)
}

fn request(arguments: &TrainArguments, table: &Table) -> Result<Request> {
    let task = Task::new(&arguments.task)?;
    let mut members = Vec::new();
    for name in &arguments.members {
        let Some(kind) = Kind::parse(name.trim()) else {
            bail!("there is no member {name:?}; there are {}", Kind::ALL.map(Kind::name).join(", "));
        };
        members.push(kind);
    }
    members.sort();
    members.dedup();
    let spec = arguments.features.as_deref().map(Spec::read).transpose()?.unwrap_or_default().for_task(
        &task,
        table,
        arguments.time.as_deref(),
        arguments.group.as_deref(),
    );
    let balance =
        Balance::ALL.iter().find(|(name, _)| *name == arguments.balance).map_or(Balance::None, |(_, how)| *how);
    let budget = arguments.budget.map_or(task.budget(), |budget| budget.0);
    let mut recipe = Recipe { spec, members, balance, ..Recipe::usual(budget, table.rows, arguments.seed) };
    match arguments.blend.as_deref() {
        Some("vote") => recipe.blend = Blend::Vote,
        Some("stack") => recipe.blend = Blend::Stack,
        Some(_) => recipe.blend = Blend::Rarity,
        None => {}
    }
    Ok(Request {
        budget,
        task,
        input: arguments.input.clone().unwrap_or_default(),
        label: arguments.label.clone().unwrap_or_default(),
        positive: arguments.positive.clone(),
        group: arguments.group.clone(),
        time: arguments.time.clone(),
        allow_leak: arguments.allow_leak.clone(),
        recipe,
        confidence: arguments.confidence,
        threads: usize::from(arguments.threads),
    })
}

fn bar() -> indicatif::ProgressBar {
    if !io::stderr().is_terminal() {
        return indicatif::ProgressBar::hidden();
    }
    let style = indicatif::ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} {elapsed}");
    indicatif::ProgressBar::new(1).with_style(style.unwrap_or_else(|_| indicatif::ProgressStyle::default_bar()))
}

fn print(cli: &Cli, request: &Request, trained: &Trained, published: &Published) -> Result<()> {
    let evaluation = &trained.evaluation;
    let state = if published.promoted { "promoted" } else { "not promoted" };
    output::note(&format!("version {} {state}: {}", published.version, published.why));
    let row = json!({
        "task": request.task.name,
        "version": published.version,
        "promoted": published.promoted,
        "rows": evaluation.rows,
        "roc_auc": evaluation.ranking.roc_auc,
        "pr_auc": evaluation.ranking.pr_auc,
        "accuracy": evaluation.decision.accuracy,
        "macro_f1": evaluation.decision.macro_f1,
        "recall": evaluation.decision.recall,
        "false_positive_rate": evaluation.decision.false_positive_rate,
        "calibration_error": evaluation.ranking.calibration_error,
        "coverage": evaluation.coverage,
        "unknown": evaluation.unknown,
        "threshold": evaluation.threshold,
        "protocol": evaluation.protocol,
    });
    let columns = ["task", "version", "promoted", "roc_auc", "pr_auc", "accuracy", "recall", "false_positive_rate"];
    output::ignore_closed_pipe(output::rows(Format::or_default(cli.output), &columns, [row]))
}
