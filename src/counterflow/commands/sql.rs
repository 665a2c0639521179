//! `counterflow sql`.

use std::io::{self, IsTerminal, Write};

use anyhow::{Context, Result, bail};

use crate::{
    cli::{Cli, SqlArguments},
    output::{self, Exit, Format},
};

/// Runs one statement.
pub(crate) fn run(cli: &Cli, arguments: &SqlArguments) -> Result<Exit> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("could not start")?;
    let history = cf_history::Place::of_data(&arguments.data)?;
    if !history.may_exist() {
        bail!(
            "there is no history in {}; give the folder of an engine or of `replay --data`",
            arguments.data.display()
        );
    }
    // Collected by the one who writes: a lock on standard output cannot cross the runtime's threads.
    let mut out = io::BufWriter::new(io::stdout());
    runtime.block_on(async {
        let session = cf_queries::Session::open(&history, cf_queries::Options::default())?;
        let mut rows = session.query(&arguments.statement).await?;
        let written = match Format::or_default(cli.output) {
            Format::Table => cf_queries::write_table(&mut rows, &mut out, width()).await,
            Format::Json | Format::Sarif => cf_queries::write_json_lines(&mut rows, &mut out).await,
            Format::Csv => cf_queries::write_csv(&mut rows, &mut out).await,
        };
        written?;
        output::ignore_closed_pipe(out.flush())
    })?;
    Ok(Exit::Ok)
}

fn width() -> usize {
    let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    columns.unwrap_or(if io::stdout().is_terminal() { 160 } else { 240 })
}
