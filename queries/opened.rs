//! Tables as a session opened them last: a query reads what the log has since then, not all of it.
//!
//! Opening a table of a hundred commits reads them all, which costs more than many a query. Memory: of each table its newest
//! snapshot and the list of its files, until the session ends.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use cf_history::{HistoryError, Opened, Place, Table};

use crate::scan::Files;

/// The tables that were opened.
#[derive(Debug, Default)]
pub(crate) struct Tables(Mutex<BTreeMap<Table, Held>>);

/// A table as it was opened.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) opened: Arc<Opened>,
    /// Its files, unless it takes more than reading them.
    pub(crate) files: Option<Arc<Files>>,
}

impl Tables {
    /// A table as it is now; nothing if it was never made.
    pub(crate) async fn open(&self, place: &Place, table: Table) -> Result<Option<Held>, HistoryError> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&table).cloned();
        if let Some(held) = known {
            let mut opened = (*held.opened).clone();
            match opened.update(table).await {
                Ok(false) => return Ok(Some(held)),
                Ok(true) => return self.put(table, opened).map(Some),
                // Whether it is gone, or cut, or away: opening it says.
                Err(error) => tracing::debug!(table = table.name(), %error, "a table is opened anew"),
            }
        }
        match cf_history::open(place, table).await? {
            Some(opened) => self.put(table, opened).map(Some),
            None => Ok(None),
        }
    }

    fn put(&self, table: Table, opened: Opened) -> Result<Held, HistoryError> {
        // What cannot be read so, because of a name that we would not give, say, is left to the library.
        let files = opened.plain(table)?.and_then(|plain| Files::new(&plain, table).ok()).map(Arc::new);
        let held = Held { opened: Arc::new(opened), files };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(table, held.clone());
        Ok(held)
    }
}
