//! `counterflow sinks`: how the sinks stand, trying them out, what they could not take, beginning again.

use std::path::Path;

use anyhow::{Context, Result, bail};
use cf_ledger::{ControlLog, Reader};
use cf_types::clock;
use serde_json::{Value, json};

use crate::{
    cli::{Cli, sinks::SinksCommand},
    config::{self, Settings},
    output::{self, Exit, Format},
    sinks::FILE,
};

/// Runs one of them.
pub(crate) fn run(cli: &Cli, command: &SinksCommand) -> Result<Exit> {
    match command {
        SinksCommand::List { data } => list(cli, data),
        SinksCommand::Check { names } => check(cli, &config::load(cli, None)?.settings, names),
        SinksCommand::Rejects { name, data } => rejects(cli, name.as_deref(), data),
        SinksCommand::Resend { name, data } => resend(name, data),
        SinksCommand::Forget { name, data } => forget(name, data),
    }
}

fn block_on<T>(work: impl Future<Output = Result<T, cf_ledger::LedgerError>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("could not start")?;
    Ok(runtime.block_on(work)?)
}

/// What the engine left, and of sinks that it does not run what the ledger knows.
fn list(cli: &Cli, data: &Path) -> Result<Exit> {
    let behind = block_on(async { Reader::open(data).await?.sinks().await })?;
    let left = std::fs::read_to_string(data.join(FILE)).unwrap_or_default();
    let left: Value = serde_json::from_str(&left).unwrap_or_default();
    let runs = left["pid"].as_u64().is_some_and(|pid| Path::new(&format!("/proc/{pid}")).exists());
    if let (false, Some(at)) = (runs, left["at"].as_str()) {
        output::note(&format!("the engine is not running; states are those of {at}"));
    }
    let told = left["sinks"].as_array().cloned().unwrap_or_default();
    let row = |(name, behind): (String, i64)| {
        let known = told.iter().find(|row| row["sink"] == name.as_str()).cloned();
        let mut row = known.unwrap_or_else(|| json!({"sink": name, "state": "not in the settings of the last run"}));
        row["behind"] = json!(behind);
        row
    };
    let rows = behind.into_iter().map(row).collect();
    print(cli, &["sink", "kind", "topics", "state", "behind", "sent", "rejects", "last_error"], rows)?;
    Ok(Exit::Ok)
}

fn check(cli: &Cli, settings: &Settings, names: &[String]) -> Result<Exit> {
    let mut rows = Vec::new();
    let wanted = |name: &String| names.is_empty() || names.contains(name);
    for (name, sink) in settings.sinks.iter().filter(|(name, _)| wanted(name)) {
        for finding in sink.kafka.iter().flat_map(|kafka| cf_kafka::check_sink(name, kafka)) {
            rows.push(json!({"sink": name, "what": finding.what, "ok": finding.ok, "says": finding.says}));
        }
    }
    if let Some(unknown) = names.iter().find(|name| !settings.sinks.contains_key(*name)) {
        bail!("the settings have no sink {unknown:?}; name the settings file with --config");
    }
    let good = rows.iter().all(|row| row["ok"] == true);
    print(cli, &["sink", "what", "ok", "says"], rows)?;
    Ok(if good { Exit::Ok } else { Exit::Problems })
}

fn rejects(cli: &Cli, name: Option<&str>, data: &Path) -> Result<Exit> {
    let rejects = block_on(async { Reader::open(data).await?.sink_rejects(name).await })?;
    let rows = rejects.into_iter().map(|reject| json!(reject)).collect();
    print(cli, &["sink", "kind", "id", "revision", "bytes", "code", "reason", "at"], rows)?;
    Ok(Exit::Ok)
}

fn resend(name: &str, data: &Path) -> Result<Exit> {
    if !block_on(async { ControlLog::open(data).await?.sink_resend(name, clock::now()).await })? {
        bail!("no sink {name:?} was ever registered in {}", data.display());
    }
    output::note(&format!("sink {name} is told everything again, as it stands"));
    Ok(Exit::Ok)
}

fn forget(name: &str, data: &Path) -> Result<Exit> {
    if !block_on(async { ControlLog::open(data).await?.sink_forget(name).await })? {
        bail!("no sink {name:?} was ever registered in {}", data.display());
    }
    output::note(&format!("sink {name} is forgotten; if the settings still name it, it begins anew"));
    Ok(Exit::Ok)
}

fn print(cli: &Cli, columns: &[&str], rows: Vec<Value>) -> Result<()> {
    output::ignore_closed_pipe(output::rows(Format::or_default(cli.output), columns, rows))
}
