//! `counterflow facts`: append to the control log, beside a running or a stopped engine.

use std::{
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

use anyhow::{Context, Result};
use cf_ledger::{ControlLog, NewFact};
use cf_types::{
    Fact, Said, Tenant, clock,
    fact::{self, FACT_BYTES_MAX},
};
use serde_json::json;

use crate::{
    cli::{Cli, FactArguments, FactsCommand},
    output::{self, Exit, Failed, Format},
};

/// Lines of an import that are one transaction.
const LINES_AT_ONCE: usize = 500;

/// Runs one of them.
pub(crate) fn run(cli: &Cli, command: &FactsCommand) -> Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("could not start")?;
    runtime.block_on(async {
        match command {
            FactsCommand::Add(arguments) => change(arguments, true).await,
            FactsCommand::Remove(arguments) => change(arguments, false).await,
            FactsCommand::List { data, kind } => list(cli, data, kind.as_deref()).await,
            FactsCommand::Import { data, kind, file } => import(data, kind, file).await,
        }
    })
}

fn author(said: Option<&String>) -> String {
    let user = || std::env::var("SUDO_USER").or_else(|_| std::env::var("USER")).unwrap_or_else(|_| "cli".to_owned());
    said.map_or_else(user, |name| fact::author(name))
}

async fn change(arguments: &FactArguments, add: bool) -> Result<Exit> {
    let said = Said::words(&arguments.kind, &arguments.value, &arguments.says, !add)?;
    let fact = Fact { tenant: Tenant::default(), body: said.body };
    let mut log = ControlLog::open(&arguments.data).await?;
    let now = clock::now();
    let (author, reason) = (author(arguments.author.as_ref().or(said.author.as_ref())), fact::text(&arguments.reason));
    let changed = if add {
        log.fact_add(&fact, &author, &reason, now).await?
    } else {
        log.fact_remove(&fact, &author, &reason, now).await?
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

async fn list(cli: &Cli, data: &Path, kind: Option<&str>) -> Result<Exit> {
    let facts = ControlLog::open(data).await?.facts().await?;
    let rows = facts.iter().filter(|(fact, _)| kind.is_none_or(|kind| fact.body.kind() == kind)).map(|(fact, entry)| {
        json!({
            "seq": entry.seq, "kind": fact.body.kind(), "fact": fact.body, "author": entry.author, "reason": entry.reason,
            "at": entry.at, "tenant": fact.tenant,
        })
    });
    let columns = ["seq", "kind", "fact", "author", "reason", "at"];
    output::ignore_closed_pipe(output::rows(Format::or_default(cli.output), &columns, rows))?;
    Ok(Exit::Ok)
}

async fn import(data: &Path, kind: &str, file: &Path) -> Result<Exit> {
    let reader: Box<dyn Read> = if file == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(std::fs::File::open(file).with_context(|| format!("could not open facts {}", file.display()))?)
    };
    let mut lines = Lines { reader: BufReader::new(reader), line: Vec::new() };
    let log = ControlLog::open(data).await?;
    let mut import = Import { log, file, waiting: Vec::new(), added: 0, held: 0, refused: 0 };
    for number in 1u64.. {
        let Some(line) = lines.next().map_err(|error| Failed(format!("{}:{number}: {error}", file.display())))? else {
            break;
        };
        if line.is_empty() {
            continue;
        }
        match Said::read(kind, line) {
            Ok(said) => {
                let fact = Fact { tenant: Tenant::default(), body: said.body };
                let new = NewFact { fact, author: author(said.author.as_ref()), reason: said.reason };
                import.waiting.push((number, new));
            }
            Err(error) => import.refuse(number, &error),
        }
        if import.waiting.len() >= LINES_AT_ONCE {
            import.write().await?;
        }
    }
    import.write().await?;
    let Import { added, held, refused, .. } = import;
    output::note(&format!("{added} facts added, {held} held already, {refused} refused"));
    Ok(if refused == 0 { Exit::Ok } else { Exit::Problems })
}

/// Lines of a file, none longer in memory than a fact may be.
struct Lines<R> {
    reader: BufReader<R>,
    line: Vec<u8>,
}

impl<R: Read> Lines<R> {
    /// The next line, trimmed; of one that is too long enough that it is refused.
    fn next(&mut self) -> io::Result<Option<&[u8]>> {
        self.line.clear();
        let max = FACT_BYTES_MAX.saturating_add(1);
        let read =
            self.reader.by_ref().take(u64::try_from(max).unwrap_or(u64::MAX)).read_until(b'\n', &mut self.line)?;
        if read == max && !self.line.ends_with(b"\n") {
            // Its rest is not a line of its own.
            let _skipped = self.reader.skip_until(b'\n')?;
            return Ok(Some(&self.line));
        }
        Ok((read > 0).then(|| self.line.trim_ascii()))
    }
}

/// An import on its way.
struct Import<'a> {
    log: ControlLog,
    file: &'a Path,
    /// What is read and not yet written, with its line.
    waiting: Vec<(u64, NewFact)>,
    added: u64,
    held: u64,
    refused: u64,
}

impl Import<'_> {
    fn refuse(&mut self, number: u64, why: &dyn std::fmt::Display) {
        self.refused += 1;
        output::note(&format!("error: {}:{number}: {why}", self.file.display()));
    }

    async fn write(&mut self) -> Result<()> {
        let (numbers, facts): (Vec<u64>, Vec<NewFact>) = self.waiting.drain(..).unzip();
        for (number, done) in numbers.into_iter().zip(self.log.facts_add(&facts, clock::now()).await?) {
            match done {
                Ok(Some(_)) => self.added += 1,
                Ok(None) => self.held += 1,
                Err(error) => self.refuse(number, &error),
            }
        }
        Ok(())
    }
}
