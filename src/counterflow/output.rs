//! What people and pipes see: tables on a terminal, JSON lines in a pipe; errors once, with their causes.

use std::{
    fmt,
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use cf_ledger::LedgerError;
use clap::ValueEnum;
use serde_json::Value;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done, nothing to complain about.
    Ok,
    /// Done, and problems were found.
    Problems,
    /// Wrong use, or nothing could be done.
    Wrong,
    /// Another engine has taken the ledger: this one must not go on, and need not be started again.
    Fenced,
}

impl Exit {
    /// What an error that ended the command means: work that failed on the way is 1, a start that could not be is 2.
    pub(crate) fn of(error: &anyhow::Error) -> Exit {
        let ledger =
            |cause: &(dyn std::error::Error + 'static)| cause.downcast_ref::<LedgerError>().map(LedgerError::is_fenced);
        if error.chain().any(|cause| ledger(cause) == Some(true)) {
            return Exit::Fenced;
        }
        if error.chain().any(|cause| cause.is::<Failed>()) { Exit::Problems } else { Exit::Wrong }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(match exit {
            Exit::Ok => 0,
            Exit::Problems => 1,
            Exit::Wrong => 2,
            Exit::Fenced => 4,
        })
    }
}

/// Marks an error that came after the work had begun.
#[derive(Debug)]
pub(crate) struct Failed(pub(crate) String);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failed {}

/// Says an error with its causes, once, on standard error.
pub(crate) fn complain(error: &anyhow::Error) {
    note(&format!("error: {error:#}"));
}

/// Says a line on standard error.
#[allow(clippy::print_stderr)] // the one place
pub(crate) fn note(line: &str) {
    eprintln!("{line}");
}

/// Whether a person reads standard output.
pub(crate) fn to_terminal() -> bool {
    io::stdout().is_terminal()
}

/// What a command prints its rows as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns for people. The default on a terminal.
    Table,
    /// One JSON object a line. The default in a pipe.
    Json,
    /// Comma-separated, with a header.
    Csv,
    /// Static analysis results (SARIF 2.1.0), of `rules check` alone.
    Sarif,
}

impl Format {
    /// The format asked for, else what fits the reader.
    pub(crate) fn or_default(asked: Option<Format>) -> Format {
        asked.unwrap_or(if to_terminal() { Format::Table } else { Format::Json })
    }
}

/// Prints rows of JSON objects: as they are, or the named columns of them as a table.
pub(crate) fn rows(format: Format, columns: &[&str], rows: impl IntoIterator<Item = Value>) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    match format {
        Format::Json | Format::Sarif => {
            for row in rows {
                serde_json::to_writer(&mut out, &row)?;
                out.write_all(b"\n")?;
            }
        }
        Format::Csv => {
            writeln!(out, "{}", columns.join(","))?;
            for row in rows {
                let cells: Vec<_> = columns.iter().map(|column| csv_cell(&cell(&row, column))).collect();
                writeln!(out, "{}", cells.join(","))?;
            }
        }
        Format::Table => {
            let mut table = comfy_table::Table::new();
            table.load_preset(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
            table.set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
            table.set_header(columns.to_vec());
            let mut empty = true;
            for row in rows {
                empty = false;
                table.add_row(columns.iter().map(|column| printable(&cell(&row, column))).collect::<Vec<_>>());
            }
            if empty {
                writeln!(out, "nothing")?;
            } else {
                writeln!(out, "{table}")?;
            }
        }
    }
    out.flush()
}

fn cell(row: &Value, column: &str) -> String {
    match row.get(column) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Object(fields)) => {
            let pairs: Vec<_> = fields
                .iter()
                .map(|(key, value)| {
                    format!("{key}={}", value.as_str().map_or_else(|| value.to_string(), str::to_owned))
                })
                .collect();
            pairs.join(" ")
        }
        Some(other) => other.to_string(),
    }
}

fn csv_cell(text: &str) -> String {
    // A cell that a spreadsheet would take for a formula gets an apostrophe: log text is an attacker's.
    let text = if text.starts_with(['=', '+', '-', '@', '\t']) { format!("'{text}") } else { text.to_owned() };
    if text.contains(['"', ',', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

/// Control characters shown, not obeyed: log text must not write to the terminal as it likes.
pub(crate) fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] }).collect()
}

/// The same line by line: ends of lines stay.
pub(crate) fn printable_lines(text: &str) -> String {
    text.lines().map(|line| printable(line) + "\n").collect()
}

/// Prints a text as it is.
pub(crate) fn text(text: &str) -> io::Result<()> {
    io::stdout().lock().write_all(text.as_bytes())
}

/// A standard output that a reader closed (`| head`) is no error.
pub(crate) fn ignore_closed_pipe(result: io::Result<()>) -> anyhow::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formulas_and_escapes_are_disarmed() {
        assert_eq!(csv_cell("=1+1"), "'=1+1");
        assert_eq!(csv_cell("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(printable("\u{1b}[31mred"), "\\u{1b}[31mred");
    }
}
