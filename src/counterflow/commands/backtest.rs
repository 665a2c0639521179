//! `counterflow rules backtest`: what rules that are not in force yet would change, exactly.

use std::path::Path;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::replay_past;
use crate::{
    backtest::{self, Effort, Question, Refused, Report},
    cli::{BacktestArguments, Cli, PastMode},
    output::{self, Exit, Format},
    past::Past,
};

/// Runs it.
pub(crate) fn run(cli: &Cli, arguments: &BacktestArguments) -> Result<Exit> {
    if cli.output == Some(Format::Csv) {
        bail!("what a backtest says has no columns in common; use --output json or table");
    }
    let past = Past::open(cli, &arguments.data)?;
    let question = Question {
        texts: backtest::read(&arguments.paths)?,
        from: arguments.from,
        to: arguments.to,
        point: past.point(arguments.as_of.as_deref())?,
        workers: arguments.workers.unwrap_or_else(cores),
        cache_bytes: arguments.cache_bytes,
    };
    let progress = replay_past::progress(0);
    let told = |done: u64, of: u64| {
        progress.set_length(of);
        progress.set_position(done);
    };
    let done = match arguments.mode {
        PastMode::Known => backtest::known(&past, question, &told),
        PastMode::Lived => backtest::lived(&past, question, &told),
    };
    progress.finish_and_clear();
    let report = match done {
        Ok(report) => report,
        Err(Refused::Failed(error)) => return Err(error),
        Err(Refused::Rules(problems)) => {
            for problem in problems {
                output::note(&format!("error: {problem}"));
            }
            bail!("what is to be tried does not load; nothing was compared");
        }
    };
    print(cli, &report)?;
    say(&report.effort, &arguments.data);
    let added = report.changes.iter().filter(|change| (change.what, change.kind) == ("alert", "added")).count();
    let too_many = arguments.added_max.filter(|max| added > *max);
    if let Some(max) = too_many {
        output::note(&format!("{added} alerts more, at most {max} are allowed"));
    }
    Ok(if too_many.is_some() || report.effort.lost > 0 { Exit::Problems } else { Exit::Ok })
}

fn cores() -> u16 {
    std::thread::available_parallelism().ok().and_then(|cores| u16::try_from(cores.get()).ok()).unwrap_or(1)
}

fn print(cli: &Cli, report: &Report) -> Result<()> {
    let changes = report.changes.iter().map(backtest::Change::to_json);
    let rules = report.rules.iter().map(backtest::RuleSummary::to_json);
    let summary = summary(report);
    let printed = match Format::or_default(cli.output) {
        Format::Table => {
            output::ignore_closed_pipe(output::rows(
                Format::Table,
                &["kind", "what", "rule_id", "alert_id", "before", "after"],
                changes.map(for_people),
            ))?;
            let columns =
                ["rule_id", "title", "kind", "hits", "alerts", "alerts_per_day", "top_values", "suggested_filters"];
            output::ignore_closed_pipe(output::rows(Format::Table, &columns, rows_of_rules(report)))?;
            output::rows(Format::Table, &["alerts", "incidents", "risk", "actions"], [summary])
        }
        format => output::rows(format, &[], changes.chain(rules).chain([summary])),
    };
    output::ignore_closed_pipe(printed)
}

/// A change with one column for whatever it is about.
fn for_people(mut row: Value) -> Value {
    for key in ["incident_id", "entity", "action"] {
        if let Some(id) = row.get(key).cloned() {
            row["alert_id"] = id;
        }
    }
    row
}

fn rows_of_rules(report: &Report) -> Vec<Value> {
    let row = |rule: &backtest::RuleSummary| {
        let mut row = rule.to_json();
        let pair = |value: &Value| format!("{} -> {}", value["before"], value["after"]);
        let (hits, alerts) = (pair(&row["hits"]), pair(&row["alerts"]));
        let top: Vec<String> = rule.top.iter().map(|(value, events)| format!("{value} ({events})")).collect();
        let filter = |filter: &backtest::Filter| {
            let backtest::Filter { field, value, covers, of, removes } = filter;
            format!("{field}={value} ({covers} of {of} false positives, {removes} alerts)")
        };
        let filters: Vec<String> = rule.filters.iter().map(filter).collect();
        row["hits"] = hits.into();
        row["alerts"] = alerts.into();
        row["top_values"] = top.join(", ").into();
        row["suggested_filters"] = filters.join(", ").into();
        row
    };
    report.rules.iter().map(row).collect()
}

/// How much differs of each.
fn summary(report: &Report) -> Value {
    let count = |what: &str| {
        let of = |kind: &str| report.changes.iter().filter(|change| change.what == what && change.kind == kind).count();
        json!({ "added": of("added"), "removed": of("removed"), "amended": of("amended") })
    };
    json!({
        "what": "summary", "alerts": count("alert"), "incidents": count("incident"), "risk": count("risk"),
        "actions": count("action"),
    })
}

fn say(effort: &Effort, data: &Path) {
    let Effort { events, passed_over, kept, lost, files, files_read, matching, whole } = effort;
    let rate = u128::from(*events) * 1_000 / whole.as_millis().max(1);
    output::note(&format!(
        "{events} events met, {passed_over} passed over, {kept} known from before, {files_read} of {files} files read, \
         {}.{:03} s ({}.{:03} s of it matching), {rate} events/s",
        whole.as_secs(),
        whole.subsec_millis(),
        matching.as_secs(),
        matching.subsec_millis(),
    ));
    if *lost > 0 {
        output::note(&format!("warning: {lost} events of {} do not decode any more and were left out", data.display()));
    }
}
