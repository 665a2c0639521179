//! `run` in several processes (ARC-07): one leader, and followers that decode, match and keep their share of the graph's state.
//!
//! The leader has all that there is one of: sources, spool, control log, the cutter, the ledger's writer, history's writer,
//! the API. For every epoch it sends each follower what its workers are fed ([`wire::Order`]): their share of the records as
//! bytes, the facts, the rules' names. Workers exchange what belongs together over timely's own connections, and all changes
//! come to the leader's first worker. What followers alone see, they report ([`wire::Report`]): numbers, rejects, files of
//! events for history, events that models are asked about. An epoch is through when its output is there and every worker of
//! every follower has reported it; nothing is applied before. Rows of events stay with the follower until history is committed:
//! it makes files of them, which the leader puts into the table with its own ([`rows`]).
//!
//! So a follower keeps nothing over its end: no folder, no rules of its own. A start, a restart after a kill and a start with
//! another number of processes are one operation: the leader rebuilds the state from its facts log and feeds it the same way.
//!
//! Whoever finds another gone, or silent for too long, ends at once with code 3 ([`cf_engine::cluster::end`]), as after
//! SIGKILL; a supervisor starts all again. A leader that sleeps meanwhile finds its connections closed when it wakes, and
//! before that the ledger refuses what is of an older generation.

mod alike;
mod follow;
mod lead;
mod link;
mod links;
mod rows;
mod stall;
mod wire;

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use cf_engine::{Cluster, cluster::Runs};

pub(crate) use self::{
    follow::follow,
    lead::{Landing, Lead},
    links::Links,
};
use crate::{cli::ClusterArguments, config::Settings};

/// A secret that cannot be guessed by trying.
const SECRET_BYTES_MIN: usize = 16;

/// The cluster whose processes a file names, each of which runs this.
pub(crate) fn named(list: &Path, arguments: &ClusterArguments, runs: Runs) -> Result<Cluster> {
    let text = std::fs::read_to_string(list).with_context(|| format!("could not read processes {}", list.display()))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let addresses: Vec<String> = lines.map(str::to_owned).collect();
    let process = arguments.process;
    if process >= addresses.len() {
        bail!("there is no process {process}: {} lists {}, numbered from 0", list.display(), addresses.len());
    }
    let secret = arguments.cluster_secret.as_deref().map(secret).transpose()?;
    let wait = Duration::from_secs(u64::try_from(arguments.wait_for_peers).unwrap_or_default());
    let runs = Runs { processes: addresses.len(), ..runs };
    Ok(Cluster { addresses, process, secret, wait, dealt: false, runs })
}

/// The cluster of `run`, if it is to be one.
pub(crate) fn of_run(settings: &Settings, arguments: &ClusterArguments) -> Result<Option<Cluster>> {
    let Some(list) = &arguments.processes else { return Ok(None) };
    let runs = Runs {
        engine: crate::commit::ENGINE.to_owned(),
        workers: usize::from(settings.detection.workers),
        options: "run".to_owned(),
        settings: alike::alike(settings)?,
        ..Runs::default()
    };
    Ok(Some(Cluster { dealt: true, ..named(list, arguments, runs)? }))
}

/// The shared secret of a file.
fn secret(file: &Path) -> Result<Vec<u8>> {
    let secret = std::fs::read_to_string(file).with_context(|| format!("could not read secret {}", file.display()))?;
    let secret = secret.trim();
    if secret.len() < SECRET_BYTES_MIN {
        bail!("the secret in {} has {} bytes; at least {SECRET_BYTES_MIN} are needed", file.display(), secret.len());
    }
    Ok(secret.as_bytes().to_vec())
}
