//! `counterflow sources`: how the sources stand, trying them out, letting a stopped one go on.

use std::{net::SocketAddr, path::Path};

use anyhow::{Context, Result, bail};
use cf_ledger::ControlLog;
use cf_types::clock;
use serde_json::{Value, json};

use crate::{
    cli::{Cli, SourcesCommand},
    config::{self, Settings},
    kafka::RESUME,
    output::{self, Exit, Format},
    sources::{FILE, resolved},
};

/// Runs one of them.
pub(crate) fn run(cli: &Cli, command: &SourcesCommand) -> Result<Exit> {
    match command {
        SourcesCommand::List { data } => list(cli, data),
        SourcesCommand::Check { names } => check(cli, &config::load(cli, None)?.settings, names),
        SourcesCommand::Resume { name, from, data } => resume(&config::load(cli, None)?.settings, name, from, data),
    }
}

fn list(cli: &Cli, data: &Path) -> Result<Exit> {
    let file = data.join(FILE);
    let text = std::fs::read_to_string(&file)
        .with_context(|| format!("no engine has left how its sources stand in {}", file.display()))?;
    let left: Value = serde_json::from_str(&text).with_context(|| format!("{} is damaged", file.display()))?;
    let runs = left["pid"].as_u64().is_some_and(|pid| Path::new(&format!("/proc/{pid}")).exists());
    if !runs {
        let at = left["at"].as_str().unwrap_or("an unknown time");
        output::note(&format!("the engine is not running; this is how the sources stood at {at}"));
    }
    let rows = left["sources"].as_array().cloned().unwrap_or_default();
    let columns = [
        "stream",
        "class",
        "state",
        "rate",
        "events",
        "lag",
        "watermark",
        "complete_upto",
        "late_share",
        "rejects",
        "last_error",
    ];
    output::ignore_closed_pipe(output::rows(Format::or_default(cli.output), &columns, rows))?;
    Ok(Exit::Ok)
}

fn check(cli: &Cli, settings: &Settings, names: &[String]) -> Result<Exit> {
    let wanted = |name: &str| names.is_empty() || names.iter().any(|asked| asked == name);
    let mut rows = Vec::new();
    let mut row = |source: &str, what: &str, ok: bool, says: String| {
        rows.push(json!({"source": source, "what": what, "ok": ok, "says": says}));
    };
    for (name, source) in settings.sources.iter().filter(|(name, _)| wanted(name)) {
        for finding in source.kafka.iter().flat_map(|kafka| cf_kafka::check(name, kafka)) {
            row(name, &finding.what, finding.ok, finding.says);
        }
    }
    let listen = &settings.listen;
    for (name, what, address) in
        [("http", "tcp", listen.http), ("syslog", "udp", listen.syslog_udp), ("syslog", "tcp", listen.syslog_tcp)]
    {
        if let Some(address) = address.filter(|_| wanted(name)) {
            let (ok, says) = free(address, what == "udp");
            row(name, what, ok, says);
        }
    }
    if let Some(unknown) = names.iter().find(|name| !rows.iter().any(|row| row["source"] == name.as_str())) {
        bail!("the settings have no source {unknown:?} that can be tried");
    }
    let good = rows.iter().all(|row| row["ok"] == true);
    output::ignore_closed_pipe(output::rows(Format::or_default(cli.output), &["source", "what", "ok", "says"], rows))?;
    Ok(if good { Exit::Ok } else { Exit::Problems })
}

/// Whether an address is to be had. A running engine has it, of course: that is said, and is no fault.
fn free(address: SocketAddr, udp: bool) -> (bool, String) {
    let bound =
        if udp { std::net::UdpSocket::bind(address).map(drop) } else { std::net::TcpListener::bind(address).map(drop) };
    match bound {
        Ok(()) => (true, format!("{address} is free")),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => (true, format!("{address} is in use")),
        Err(error) => (false, format!("could not listen on {address}: {error}")),
    }
}

fn resume(settings: &Settings, name: &str, from: &str, data: &Path) -> Result<Exit> {
    let Some(kafka) = settings.sources.get(name).and_then(|source| source.kafka.as_ref()) else {
        bail!("the settings have no source {name:?} of Kafka; name the settings file with --config");
    };
    let resume = resolved(name, kafka, from)?;
    let body = serde_json::to_string(&resume)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("could not start")?;
    let seq = runtime.block_on(async {
        let mut log = ControlLog::open(data).await?;
        log.append(RESUME, &body, "cli", from, clock::now()).await
    })?;
    for (stream, next) in &resume.offsets {
        output::note(&format!("{stream} goes on at {next}, if it is stopped"));
    }
    output::note(&format!("recorded as {seq} in the control log"));
    Ok(Exit::Ok)
}
