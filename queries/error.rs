//! Why a query has no answer.

use cf_history::HistoryError;
use datafusion::error::DataFusionError;

/// A query that failed, in words for the person who wrote it.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The statement would change something.
    #[error("{word} is not allowed: history is read-only; hint: SELECT, EXPLAIN, SHOW and DESCRIBE are")]
    NotReadOnly {
        /// Its first word.
        word: String,
    },
    /// Not one statement.
    #[error("one statement is wanted, there are {found}")]
    NotOneStatement {
        /// How many there are.
        found: usize,
    },
    /// The text is too long to be written by a person.
    #[error("the statement has {bytes} bytes; at most {max} are allowed")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// It names a table that there is not.
    #[error("there is no table {name:?}{}; tables: {tables}", hint.map(|hint| format!("; did you mean {hint:?}?")).unwrap_or_default())]
    NoTable {
        /// The name in the statement.
        name: String,
        /// The nearest that there is.
        hint: Option<&'static str>,
        /// All that there are.
        tables: String,
    },
    /// The statement is wrong, or it failed while running.
    #[error("{0}")]
    Sql(String),
    /// It needs more memory than a query may have.
    #[error(
        "the query needs more memory than is allowed ({mib} MiB): {reason}; hint: narrow it by time or select fewer columns"
    )]
    Memory {
        /// The limit.
        mib: usize,
        /// What wanted more.
        reason: String,
    },
    /// It took too long.
    #[error("the query was stopped after {seconds} s, which is the limit; hint: narrow it by time")]
    TooSlow {
        /// The limit.
        seconds: u64,
    },
    /// Too many run already.
    #[error("too many queries run at once; try again when some have ended")]
    Busy,
    /// The answer is too long.
    #[error("the answer has more than {max} rows, which is the limit; hint: add a LIMIT, a condition or a GROUP BY")]
    TooManyRows {
        /// The limit.
        max: u64,
    },
    /// A live table was asked for its past.
    #[error("{table} says what is now, it has no past; hint: ask the tables of history, e.g. alerts")]
    NoPast {
        /// Which.
        table: &'static str,
    },
    /// A live table could not be read.
    #[error("could not read the live table {table}: {why}")]
    Live {
        /// Which.
        table: &'static str,
        /// Why.
        why: String,
    },
    /// More than a person or a program of good will writes.
    #[error("the statement has {found} {what}; at most {max} are allowed")]
    TooComplex {
        /// Words and operators, tables, ...
        what: &'static str,
        /// How many.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// A table could not be opened.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The answer could not be written.
    #[error("could not write the answer")]
    Write(#[from] std::io::Error),
}

impl QueryError {
    pub(crate) fn no_table(name: &str, tables: impl Iterator<Item = &'static str>) -> QueryError {
        let tables: Vec<_> = tables.collect();
        let name: String = name.chars().take(64).collect();
        let near = tables.iter().map(|table| (strsim::damerau_levenshtein(&name, table), *table)).min();
        let hint = near.filter(|(edits, table)| edits * 3 <= table.len()).map(|(_, table)| table);
        QueryError::NoTable { name, hint, tables: tables.join(", ") }
    }

    pub(crate) fn new(error: &DataFusionError, memory_bytes: usize) -> QueryError {
        match error.find_root() {
            DataFusionError::ResourcesExhausted(reason) => {
                let reason = reason.lines().next().unwrap_or_default().to_owned();
                QueryError::Memory { mib: memory_bytes >> 20, reason }
            }
            root => QueryError::Sql(readable(&root.strip_backtrace())),
        }
    }
}

/// Without the layers of the library's names, on one line.
fn readable(text: &str) -> String {
    let mut text = text.trim();
    const LAYERS: &[&str] = &[
        "Error during planning: ",
        "Schema error: ",
        "SQL error: ",
        "Execution error: ",
        "Arrow error: ",
        "Parser error: ",
    ];
    while let Some(rest) = LAYERS.iter().find_map(|layer| text.strip_prefix(layer)) {
        text = rest;
    }
    if text.starts_with("RecursionLimitExceeded") {
        return "the statement is nested too deep".to_owned();
    }
    let parser = text.strip_prefix("ParserError(\"").and_then(|rest| rest.strip_suffix("\")"));
    parser.map_or_else(|| text.replace('\n', " "), |rest| rest.replace("\\\"", "\"").replace("\\'", "'"))
}
