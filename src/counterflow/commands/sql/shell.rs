//! The shell of `counterflow sql`: lines with history and completion, statements over several lines, `\d` and friends.
//!
//! Ctrl-C stops the query that runs, or throws away what was typed; Ctrl-D or `\q` ends the shell.

use std::{
    io::{self, Write as _},
    path::Path,
    time::Instant,
};

use anyhow::{Context as _, Result};
use cf_queries::{FUNCTIONS, catalogue::TableEntry, named};
use tokio::runtime::Runtime;

use super::{
    Asker, split,
    terminal::{Said, Terminal},
};
use crate::output::{Exit, Format, note};

/// Bytes of a statement by hand; more is pasted by mistake.
const STATEMENT_BYTES_MAX: usize = 1 << 20;

const HELP: &str = "\
Statements end with a semicolon and may have several lines.
  \\d [TABLE]      tables, or the columns of one
  \\dt             tables
  \\df             functions besides those of every SQL
  \\dq             named queries; \\i NAME runs one
  \\asof [WHEN]    ask as of an epoch or a time (120, 2026-01-05T14:00:00Z); without it: as of now
  \\timing         say how long each statement took, or no longer
  \\format NAME    table, json or csv
  \\?              this
  \\q              end (also Ctrl-D); Ctrl-C stops a query";

/// Words of SQL that are completed.
const WORDS: &str = "SELECT FROM WHERE GROUP ORDER HAVING LIMIT JOIN LEFT ON AND OR NOT IN IS NULL LIKE ILIKE BETWEEN \
                     DISTINCT count WITH UNION EXPLAIN DESCRIBE SHOW TABLES INTERVAL DESC";

/// Talks until there is no more to say.
pub(super) fn run(runtime: &Runtime, asker: &mut Asker, data: &Path) -> Result<Exit> {
    let tables = asker.session.catalogue();
    let mut terminal = Terminal::new(words(&tables));
    note(&format!("SQL over {}. \\? for help, \\q to end.", data.display()));
    let mut shell = Shell { runtime, asker, tables, timing: false };
    let mut text = String::new();
    loop {
        let prompt = if text.is_empty() { "counterflow> " } else { "        ...> " };
        let line = match terminal.read(prompt).context("could not read the terminal")? {
            Said::Closed => break,
            Said::Interrupted => {
                text.clear();
                continue;
            }
            Said::Line(line) => line,
        };
        if text.is_empty() && line.trim_start().starts_with('\\') {
            if !shell.command(line.trim()) {
                break;
            }
            continue;
        }
        text.push_str(&line);
        text.push('\n');
        if text.len() > STATEMENT_BYTES_MAX {
            note(&format!("error: a statement may have {STATEMENT_BYTES_MAX} bytes"));
            text.clear();
        }
        if split::is_complete(&text) {
            split::statements(&text).iter().for_each(|statement| shell.ask(statement));
            text.clear();
        }
    }
    Ok(Exit::Ok)
}

/// What is completed: tables, columns, functions, named queries, words.
fn words(tables: &[TableEntry]) -> Vec<String> {
    let columns = tables.iter().flat_map(|table| table.columns.iter().map(|column| column.name.to_owned()));
    let mut words: Vec<String> = tables.iter().map(|table| table.name.to_owned()).chain(columns).collect();
    words.extend(FUNCTIONS.iter().map(|function| format!("{}(", function.name)));
    words.extend(named::QUERIES.iter().map(|query| query.name.to_owned()));
    words.extend(WORDS.split_whitespace().map(str::to_owned));
    words.sort_unstable();
    words.dedup();
    words
}

struct Shell<'a> {
    runtime: &'a Runtime,
    asker: &'a mut Asker,
    tables: Vec<TableEntry>,
    timing: bool,
}

impl Shell<'_> {
    fn ask(&self, statement: &str) {
        #[allow(clippy::disallowed_methods)] // for a person who waits
        let begun = Instant::now();
        let asker = &*self.asker;
        let done = self.runtime.block_on(async {
            tokio::select! {
                done = asker.ask(statement) => Some(done),
                _ = tokio::signal::ctrl_c() => None,
            }
        });
        match done {
            None => note("stopped"),
            Some(Err(error)) => note(&format!("error: {error}")),
            Some(Ok(())) => {}
        }
        if self.timing {
            note(&format!("{:.3} s", begun.elapsed().as_secs_f64()));
        }
    }

    /// Does a command of the shell itself; false at the end.
    fn command(&mut self, text: &str) -> bool {
        let (command, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let rest = rest.trim().trim_end_matches(';').trim();
        match command.trim_end_matches(';') {
            "\\q" => return false,
            "\\?" | "\\h" => say(HELP),
            "\\d" if !rest.is_empty() => self.describe(rest),
            "\\d" | "\\dt" => self.list(),
            "\\df" => {
                FUNCTIONS.iter().for_each(|one| say(&format!("{}({})\n    {}", one.name, one.arguments, one.meaning)))
            }
            "\\dq" => named::QUERIES.iter().for_each(|one| {
                let what = one.sql.lines().next().unwrap_or_default().trim_start_matches("-- ");
                say(&format!("{:<22}{what}", one.name));
            }),
            "\\i" => match named::find(rest) {
                Some(query) => self.ask(query.sql),
                None => note(&format!("there is no query named {rest:?}; \\dq shows them")),
            },
            "\\timing" => {
                self.timing = !self.timing;
                note(if self.timing { "timing is on" } else { "timing is off" });
            }
            "\\asof" => self.as_of(rest),
            "\\format" => match rest {
                "table" => self.asker.format = Format::Table,
                "json" => self.asker.format = Format::Json,
                "csv" => self.asker.format = Format::Csv,
                _ => note("formats are table, json and csv"),
            },
            other => note(&format!("{other} is no command; \\? shows them")),
        }
        true
    }

    fn as_of(&mut self, when: &str) {
        if when.is_empty() || when == "now" {
            self.asker.as_of = None;
            return note("as of now");
        }
        match when.trim_matches('\'').parse() {
            Ok(as_of) => self.asker.as_of = Some(as_of),
            Err(why) => note(&format!("error: {why}")),
        }
    }

    fn list(&self) {
        for table in &self.tables {
            say(&format!("{:<17} {:<8} {}", table.name, table.kind, table.meaning));
        }
    }

    fn describe(&self, name: &str) {
        let Some(table) = self.tables.iter().find(|table| table.name == name) else {
            return note(&format!("there is no table {name:?}; \\d shows them"));
        };
        say(&format!("{} ({}): {}", table.name, table.kind, table.meaning));
        for column in &table.columns {
            let null = if column.nullable { "" } else { "not null" };
            say(&format!("  {:<15} {:<10} {null:<9} {}", column.name, column.kind, column.meaning));
        }
    }
}

/// Prints a line of the shell's own.
fn say(line: &str) {
    // A terminal that is gone ends the shell with its next line.
    drop(writeln!(io::stdout(), "{line}"));
}
