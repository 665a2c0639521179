//! `counterflow history`: what the tables hold and take, and what is done to them while the engine is stopped.

mod erase;
mod export;
mod import;

use std::path::Path;

use anyhow::{Context, Result, bail};
use cf_history::{Housekeeper, Place, Replacement, Table, Writer};
use cf_ledger::Ledger;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::{
    cli::{Cli, CompactArguments, HistoryArguments, HistoryCommand},
    config, housekeeping,
    output::{self, Exit, Format},
};

/// Runs the subcommand that was asked for.
pub(crate) fn run(cli: &Cli, command: &HistoryCommand) -> Result<Exit> {
    match command {
        HistoryCommand::Status(arguments) => status(cli, arguments),
        HistoryCommand::Compact(arguments) => compact(cli, arguments),
        HistoryCommand::Import(arguments) => import::run(arguments),
        HistoryCommand::Export(arguments) => export::run(arguments),
        HistoryCommand::Erase(arguments) => erase::run(arguments),
    }
}

/// A data folder that this process holds, and its history open for writing.
struct Held {
    runtime: Runtime,
    ledger: Ledger,
    place: Place,
    writer: Writer,
}

/// Takes a data folder for this process; one whose engine runs is refused.
fn hold(data: &Path) -> Result<Held> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let ledger = runtime.block_on(Ledger::open(data)).context("the engine of this folder must be stopped for that")?;
    let place = Place::of_data(data)?;
    let writer = Writer::open(&place, cf_history::Options::default())
        .with_context(|| format!("could not open history {place}"))?;
    Ok(Held { runtime, ledger, place, writer })
}

fn existing(data: &Path) -> Result<Place> {
    let place = Place::of_data(data)?;
    if !place.may_exist() {
        bail!("there is no history in {}; give the folder of an engine or of `replay --data`", data.display());
    }
    Ok(place)
}

fn status(cli: &Cli, arguments: &HistoryArguments) -> Result<Exit> {
    let place = existing(&arguments.data)?;
    let tables = Housekeeper::new(&place)?.status()?;
    let rows: Vec<Value> = tables
        .iter()
        .map(|status| {
            json!({
                "table": status.table.name(), "rows": status.rows, "files": status.files, "bytes": status.bytes,
                "replaced_files": status.replaced.0, "replaced_bytes": status.replaced.1,
                "oldest": status.oldest, "newest": status.newest, "last_epoch": status.last_epoch,
                "version": status.version,
            })
        })
        .collect();
    let columns = ["table", "rows", "files", "bytes", "replaced_bytes", "oldest", "newest", "last_epoch", "version"];
    output::ignore_closed_pipe(output::rows(Format::or_default(cli.output), &columns, rows))?;
    let complete = tables.iter().find(|status| status.table == Table::Epochs).map_or(0, |status| status.last_epoch);
    let bytes: u64 = tables.iter().map(|status| status.bytes + status.replaced.1).sum();
    output::note(&format!("{place}: complete up to epoch {complete}; {bytes} bytes"));
    Ok(Exit::Ok)
}

fn compact(cli: &Cli, arguments: &CompactArguments) -> Result<Exit> {
    let settings = config::load(cli, None)?.settings.history;
    let Held { ledger: _ledger, place, mut writer, .. } = hold(&arguments.data)?;
    let mut keeper = Housekeeper::new(&place)?;
    let mut replace = |replacement: Replacement| Ok(writer.replace(replacement)?);
    let (went, came) = housekeeping::compact(&mut keeper, true, &mut replace)?;
    let keep_ms = if arguments.drop_versions { 0 } else { i64::from(settings.versions_h) * 3_600_000 };
    let (removed, bytes) = keeper.vacuum(keep_ms)?;
    output::note(&format!("{went} files became {came}, {removed} that no version needs were removed ({bytes} bytes)"));
    if settings.lets_go() {
        // What an alert of a chained correlation rests on, the rules say, and they are not compiled here.
        output::note(
            "retention and budget were not looked at: a running engine does that, which knows what incidents rest on",
        );
    }
    Ok(Exit::Ok)
}
