//! `counterflow bench match`.

use anyhow::{Result, bail};

use super::rules;
use crate::{
    cli::{BenchCommand, Cli},
    input::{BATCH_RECORDS, Input},
    output::{self, Exit, Failed, Format},
};

/// Bytes of records held in memory at most: the measurement reads none while it runs.
const BYTES_MAX: u64 = 2 << 30;

/// Measures.
pub(crate) fn run(cli: &Cli, command: &BenchCommand) -> Result<Exit> {
    let BenchCommand::Match { rules: arguments, file } = command;
    let loaded = rules::load(arguments)?;
    let mut input = Input::new(std::slice::from_ref(file), None);
    let mut lines = Vec::new();
    loop {
        let batch = input.batch(BATCH_RECORDS);
        if batch.is_empty() || input.bytes > BYTES_MAX {
            break;
        }
        for record in batch {
            lines.extend_from_slice(&record.bytes);
            lines.push(b'\n');
        }
    }
    if input.unreadable > 0 {
        bail!(Failed(format!("could not read {} to its end", file.display())));
    }
    let report = cf_benches::bench_match(loaded.rules, &lines);
    let row = serde_json::to_value(&report)?;
    let columns = ["events", "bytes", "rules", "tape_ns_per_event", "match_ns_per_event", "ratio"];
    output::ignore_closed_pipe(output::rows(Format::or_default(cli.output), &columns, [row]))?;
    Ok(Exit::Ok)
}
