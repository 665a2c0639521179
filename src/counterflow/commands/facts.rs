//! `counterflow facts`: append to the control log, beside a running or a stopped engine.

use std::{
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

use anyhow::{Context, Result, anyhow, bail};
use cf_ledger::ControlLog;
use cf_types::{Fact, FactBody, Tenant, clock};
use serde::Deserialize;
use serde_json::json;

use crate::{
    cli::{Cli, FactArguments, FactsCommand},
    output::{self, Exit, Failed, Format},
};

/// The longest line of an imported file, in bytes.
const LINE_BYTES_MAX: u64 = 65_536;

/// Runs one of them.
pub(crate) fn run(cli: &Cli, command: &FactsCommand) -> Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("could not start")?;
    runtime.block_on(async {
        match command {
            FactsCommand::Add(arguments) => change(arguments, true).await,
            FactsCommand::Remove(arguments) => change(arguments, false).await,
            FactsCommand::List { data } => list(cli, data).await,
            FactsCommand::Import { data, kind, file } => import(data, kind, file).await,
        }
    })
}

/// A fact out of the words for it.
pub(crate) fn fact(kind: &str, value: &str) -> Result<Fact> {
    let body = match kind {
        "allow" => FactBody::Allow { network: network(value)? },
        other => bail!("unknown kind of fact {other:?}; known: allow"),
    };
    Ok(Fact { tenant: Tenant::default(), body })
}

fn network(value: &str) -> Result<ipnet::IpNet> {
    let value = value.trim();
    let network = match value.parse::<std::net::IpAddr>() {
        Ok(address) => ipnet::IpNet::from(address.to_canonical()),
        Err(_) => value.parse().map_err(|_| anyhow!("{value:?} is neither an address nor a network"))?,
    };
    Ok(network.trunc())
}

fn author() -> String {
    std::env::var("SUDO_USER").or_else(|_| std::env::var("USER")).unwrap_or_else(|_| "cli".to_owned())
}

async fn change(arguments: &FactArguments, add: bool) -> Result<Exit> {
    let fact = fact(&arguments.kind, &arguments.value)?;
    let mut log = ControlLog::open(&arguments.data).await?;
    let now = clock::now();
    let changed = if add {
        log.fact_add(&fact, &author(), &arguments.reason, now).await?
    } else {
        log.fact_remove(&fact, &author(), &arguments.reason, now).await?
    };
    match (changed, add) {
        (Some(seq), _) => output::note(&format!("recorded as {seq} in the control log")),
        (None, true) => output::note("this fact holds already; nothing changed"),
        (None, false) => {
            output::note("no such fact holds; nothing changed");
            return Ok(Exit::Problems);
        }
    }
    Ok(Exit::Ok)
}

async fn list(cli: &Cli, data: &Path) -> Result<Exit> {
    let facts = ControlLog::open(data).await?.facts().await?;
    let rows = facts.iter().map(|(fact, entry)| {
        json!({
            "seq": entry.seq, "kind": fact.body.kind(), "fact": fact.body, "author": entry.author, "reason": entry.reason,
            "at": entry.at, "tenant": fact.tenant,
        })
    });
    let columns = ["seq", "kind", "fact", "author", "reason", "at"];
    output::ignore_closed_pipe(output::rows(Format::or_default(cli.output), &columns, rows))?;
    Ok(Exit::Ok)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    value: String,
    #[serde(default)]
    reason: String,
}

async fn import(data: &Path, kind: &str, file: &Path) -> Result<Exit> {
    let reader: Box<dyn Read> = if file == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(std::fs::File::open(file).with_context(|| format!("could not open facts {}", file.display()))?)
    };
    let mut reader = BufReader::new(reader);
    let mut log = ControlLog::open(data).await?;
    let (mut added, mut held, mut refused) = (0, 0, 0);
    let mut text = String::new();
    for number in 1u64.. {
        text.clear();
        let read = reader.by_ref().take(LINE_BYTES_MAX).read_line(&mut text);
        if read.map_err(|error| Failed(format!("{}:{number}: {error}", file.display())))? == 0 {
            break;
        }
        if text.trim().is_empty() {
            continue;
        }
        let parsed = serde_json::from_str::<Line>(&text).map_err(anyhow::Error::from);
        match parsed.and_then(|line| Ok((fact(kind, &line.value)?, line.reason))) {
            Ok((fact, reason)) => match log.fact_add(&fact, &author(), &reason, clock::now()).await? {
                Some(_) => added += 1,
                None => held += 1,
            },
            Err(error) => {
                refused += 1;
                output::note(&format!("error: {}:{number}: {error:#}", file.display()));
            }
        }
    }
    output::note(&format!("{added} facts added, {held} held already, {refused} refused"));
    Ok(if refused == 0 { Exit::Ok } else { Exit::Problems })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_network_of_one() {
        let of = |value| fact("allow", value).map(|fact| serde_json::to_string(&fact.body).unwrap_or_default()).ok();
        assert_eq!(of("10.0.0.7").as_deref(), Some(r#"{"allow":{"network":"10.0.0.7/32"}}"#));
        assert_eq!(of("10.0.0.7/24").as_deref(), Some(r#"{"allow":{"network":"10.0.0.0/24"}}"#));
        assert_eq!(of("::ffff:10.0.0.7").as_deref(), Some(r#"{"allow":{"network":"10.0.0.7/32"}}"#));
        assert!(of("host").is_none());
    }
}
