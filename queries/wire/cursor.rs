//! Cursors of one connection: queries whose rows are fetched in parts by `DECLARE`, `FETCH` and `CLOSE`.
//!
//! In: queries that were begun. Key: the cursor's name. Memory: of each cursor the rest of one batch, and what its query uses of
//! the session's pool. An entry leaves by `CLOSE`, by the end of its transaction unless it was declared `WITH HOLD`, and with the
//! connection. Each holds a place among the queries and has the time of one, so a connection has few.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use datafusion::{
    arrow::{array::RecordBatch, datatypes::SchemaRef},
    sql::sqlparser::ast::{Declare, DeclareType, FetchDirection, Ident, Value, ValueWithSpan},
};

use crate::{Rows, error::QueryError};

/// Cursors of a connection. Places among the queries are few, too: 4 by default.
const CURSORS_MAX: usize = 2;

/// What `DECLARE` says beside its query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Declared {
    pub(super) name: String,
    /// Whether it outlives its transaction.
    pub(super) hold: bool,
}

/// The cursors that are open.
#[derive(Default)]
pub(super) struct Cursors(Mutex<BTreeMap<String, Cursor>>);

/// One that is open.
#[derive(Clone)]
pub(super) struct Cursor {
    pub(super) schema: SchemaRef,
    pub(super) left: Arc<tokio::sync::Mutex<Left>>,
    hold: bool,
}

/// The rows that were not fetched yet.
pub(super) struct Left {
    rows: Rows,
    batch: Option<RecordBatch>,
}

/// Why something cannot be done with a cursor.
#[derive(Debug, thiserror::Error)]
pub(super) enum CursorError {
    #[error("cursor \"{0}\" does not exist")]
    Unknown(String),
    #[error("cursor \"{0}\" already exists")]
    Known(String),
    #[error("a connection has at most {CURSORS_MAX} cursors; hint: CLOSE one")]
    TooMany,
}

impl Cursors {
    /// Whether one of this name could be opened.
    pub(super) fn check(&self, name: &str) -> Result<(), CursorError> {
        let open = self.open();
        if open.contains_key(name) {
            return Err(CursorError::Known(name.to_owned()));
        }
        if open.len() >= CURSORS_MAX { Err(CursorError::TooMany) } else { Ok(()) }
    }

    /// Opens a cursor over the rows of a query.
    pub(super) fn put(&self, declared: &Declared, rows: Rows) {
        let schema = rows.schema();
        let left = Arc::new(tokio::sync::Mutex::new(Left { batch: None, rows }));
        self.open().insert(declared.name.clone(), Cursor { schema, left, hold: declared.hold });
    }

    /// The cursor of a name.
    pub(super) fn get(&self, name: &str) -> Result<Cursor, CursorError> {
        self.open().get(name).cloned().ok_or_else(|| CursorError::Unknown(name.to_owned()))
    }

    /// Closes one, or all.
    pub(super) fn close(&self, name: Option<&str>) -> Result<(), CursorError> {
        match name {
            None => self.open().clear(),
            Some(name) => drop(self.open().remove(name).ok_or_else(|| CursorError::Unknown(name.to_owned()))?),
        }
        Ok(())
    }

    /// Closes those that their transaction takes along; all of them when it failed.
    pub(super) fn end_transaction(&self, committed: bool) {
        self.open().retain(|_, cursor| committed && cursor.hold);
    }

    /// Whether there is one: a place among the queries is held.
    pub(super) fn any(&self) -> bool {
        !self.open().is_empty()
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<String, Cursor>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Left {
    /// The next rows, at most so many; nothing at the end.
    pub(super) async fn next(&mut self, rows_max: usize) -> Result<Option<RecordBatch>, QueryError> {
        loop {
            let batch = match self.batch.take() {
                Some(batch) => Some(batch),
                None => self.rows.next().await?,
            };
            let Some(batch) = batch else { return Ok(None) };
            let taken = batch.num_rows().min(rows_max);
            if taken < batch.num_rows() {
                self.batch = Some(batch.slice(taken, batch.num_rows() - taken));
            }
            if taken > 0 || rows_max == 0 {
                return Ok(Some(batch.slice(0, taken)));
            }
        }
    }
}

/// A name as PostgreSQL reads it: in lower case unless quoted.
pub(super) fn name(identifier: &Ident) -> String {
    match identifier.quote_style {
        Some(_) => identifier.value.clone(),
        None => identifier.value.to_lowercase(),
    }
}

/// What is declared; an error in words for cursors that there are not.
pub(super) fn declared(declare: &Declare) -> Result<Declared, String> {
    let [identifier] = declare.names.as_slice() else { return Err("DECLARE names one cursor".to_owned()) };
    if !matches!(declare.declare_type, Some(DeclareType::Cursor)) {
        return Err("DECLARE is for cursors".to_owned());
    }
    if declare.scroll == Some(true) {
        return Err("cursors go forward only: SCROLL is not supported".to_owned());
    }
    Ok(Declared { name: name(identifier), hold: declare.hold == Some(true) })
}

/// How many rows a `FETCH` wants; nothing: all that are left.
pub(super) fn rows_wanted(direction: &FetchDirection) -> Result<Option<usize>, String> {
    let count = |limit: &ValueWithSpan| match &limit.value {
        Value::Number(text, _) => text.parse().ok().filter(|rows| *rows > 0),
        _ => None,
    };
    let forward = "cursors go forward only: FETCH NEXT, FETCH n, FETCH FORWARD n and FETCH ALL are there";
    match direction {
        FetchDirection::Next | FetchDirection::Forward { limit: None } => Ok(Some(1)),
        FetchDirection::Count { limit } | FetchDirection::Forward { limit: Some(limit) } => {
            count(limit).map(Some).ok_or_else(|| forward.to_owned())
        }
        FetchDirection::All | FetchDirection::ForwardAll => Ok(None),
        FetchDirection::Prior
        | FetchDirection::First
        | FetchDirection::Last
        | FetchDirection::Absolute { .. }
        | FetchDirection::Relative { .. }
        | FetchDirection::Backward { .. }
        | FetchDirection::BackwardAll => Err(forward.to_owned()),
    }
}
