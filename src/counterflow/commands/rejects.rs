//! `counterflow rejects`: what was refused, beside a running or a stopped engine, and how it goes through again.

use anyhow::{Context, Result};
use cf_api::RejectFilter;
use cf_types::fact;
use serde_json::Value;

use crate::{
    cli::{Cli, RejectFilterArguments, RejectsCommand},
    output::{self, Exit, Failed, Format},
    rejects::{self, Rejects},
};

/// Runs one of them.
pub(crate) fn run(cli: &Cli, command: &RejectsCommand) -> Result<Exit> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("could not start")?;
    runtime.block_on(async {
        match command {
            RejectsCommand::List { data, counts, filter } => {
                let (rejects, filter) = (Rejects::open(data).await?, asked(filter));
                if *counts {
                    return print(cli, &["source", "code", "count"], rejects.counts(&filter).await?);
                }
                let columns = ["id", "received_at", "source", "code", "reason", "retried", "raw"];
                print(cli, &columns, rejects.list(&filter).await?)
            }
            RejectsCommand::Show { data, raw, id } => {
                let shown = Rejects::open(data).await?.show(id).await?;
                let shown = shown.with_context(|| Failed(format!("there is no reject {id} in history")))?;
                if *raw {
                    output::ignore_closed_pipe(output::text(shown["raw"].as_str().unwrap_or_default()))?;
                    return Ok(Exit::Ok);
                }
                let columns = ["id", "received_at", "source", "code", "reason", "origin", "offset", "retried", "raw"];
                print(cli, &columns, vec![shown])
            }
            RejectsCommand::Retry { data, all, author, why, filter, ids } => {
                let filter = asked(filter);
                rejects::check(ids, &filter, *all).map_err(|wrong| anyhow::anyhow!(wrong.0))?;
                let author = fact::author(author.as_deref().unwrap_or("cli"));
                let rejects = Rejects::open(data).await?;
                let done = rejects.retry(data, ids, &filter, (&author, &fact::text(why))).await?;
                let nothing = done["retried"] == 0 && done["unknown"].as_array().is_some_and(|ids| !ids.is_empty());
                print(cli, &["retried", "retried_before", "cannot", "unknown", "control"], vec![done])?;
                Ok(if nothing { Exit::Problems } else { Exit::Ok })
            }
        }
    })
}

fn asked(filter: &RejectFilterArguments) -> RejectFilter {
    let RejectFilterArguments { source, code, reason, from, to, limit } = filter.clone();
    RejectFilter { source, code, reason, from, to, limit }
}

fn print(cli: &Cli, columns: &[&str], rows: Vec<Value>) -> Result<Exit> {
    output::ignore_closed_pipe(output::rows(Format::or_default(cli.output), columns, rows))?;
    Ok(Exit::Ok)
}
