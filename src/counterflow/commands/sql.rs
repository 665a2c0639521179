//! `counterflow sql`: one statement, a named one, a file of them, or a shell.

use std::{
    fs,
    io::{self, IsTerminal, Read as _, Write},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use cf_queries::{AsOf, Options, QueryError, Session, named};

use crate::{
    cli::{Cli, SqlArguments},
    output::{Exit, Format},
    sql,
};

mod line;
mod shell;
mod split;
mod terminal;

/// Bytes of a file of statements.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Runs what was asked for.
pub(crate) fn run(cli: &Cli, arguments: &SqlArguments) -> Result<Exit> {
    let options = Options::default();
    let runtime = sql::runtime(options.threads, 0)?;
    let as_of = arguments
        .as_of
        .as_deref()
        .map(str::parse::<AsOf>)
        .transpose()
        .map_err(|why| anyhow::anyhow!("--as-of: {why}"))?;
    let session = runtime.block_on(sql::open(&arguments.data, options))?;
    let asked = statements(arguments)?;
    let mut asker = Asker { session, as_of, format: Format::or_default(cli.output), width: width() };
    let Some(asked) = asked else { return shell::run(&runtime, &mut asker, &arguments.data) };
    let several = asked.len() > 1;
    for statement in asked {
        let done = runtime.block_on(asker.ask(&statement));
        if several && let Err(error) = &done {
            let begin: String = statement.chars().take(80).collect();
            bail!("{error}, in the statement that begins {begin:?}");
        }
        done?;
    }
    // What still runs has nobody to tell.
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(Exit::Ok)
}

/// What was asked for; `None`: a person wants to talk.
fn statements(arguments: &SqlArguments) -> Result<Option<Vec<String>>> {
    if let Some(name) = &arguments.named {
        let Some(query) = named::find(name) else {
            let names: Vec<&str> = named::QUERIES.iter().map(|query| query.name).collect();
            bail!("there is no query named {name:?}; there are {}", names.join(", "));
        };
        return Ok(Some(vec![query.sql.to_owned()]));
    }
    let text = match (&arguments.file, &arguments.statement) {
        (Some(file), _) => read(file)?,
        (None, Some(statement)) if statement != "-" => return Ok(Some(vec![statement.clone()])),
        (None, None) if io::stdin().is_terminal() => return Ok(None),
        (None, _) => {
            let mut text = String::new();
            io::stdin().take(FILE_BYTES_MAX).read_to_string(&mut text).context("could not read standard input")?;
            text
        }
    };
    Ok(Some(split::statements(&text)))
}

fn read(file: &Path) -> Result<String> {
    let context = || format!("could not read {}", file.display());
    let length = fs::metadata(file).with_context(context)?.len();
    if length > FILE_BYTES_MAX {
        bail!("{} has {length} bytes; a file of statements may have {FILE_BYTES_MAX}", file.display());
    }
    fs::read_to_string(file).with_context(context)
}

/// Who asks, and how the answers are shown.
struct Asker {
    session: Session,
    as_of: Option<AsOf>,
    format: Format,
    width: usize,
}

impl Asker {
    /// Asks one statement and prints the answer.
    async fn ask(&self, statement: &str) -> Result<(), QueryError> {
        // Collected by the one who writes: a lock on standard output cannot cross the runtime's threads.
        let mut out = io::BufWriter::new(io::stdout());
        let mut rows = self.session.query_as_of(statement, self.as_of).await?;
        match self.format {
            Format::Table => cf_queries::write_table(&mut rows, &mut out, self.width).await,
            Format::Json | Format::Sarif => cf_queries::write_json_lines(&mut rows, &mut out).await,
            Format::Csv => cf_queries::write_csv(&mut rows, &mut out).await,
        }?;
        match out.flush() {
            // Who reads has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => Ok(other?),
        }
    }
}

fn width() -> usize {
    let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    columns.unwrap_or(if io::stdout().is_terminal() { 160 } else { 240 })
}
