//! One Delta table: made, opened, migrated forward, appended to with an application transaction.

use std::{collections::HashSet, fs::File};

use cf_fail as fail;
use cf_types::Epoch;
use deltalake::{
    DeltaTable, DeltaTableError, StructType, TableProperty,
    kernel::{
        Action, Add, MetadataExt as _, StructField, Transaction,
        transaction::{CommitBuilder, CommitProperties},
    },
    operations::create::CreateBuilder,
    protocol::{DeltaOperation, SaveMode},
};
use futures::TryStreamExt as _;
use tokio::runtime::Handle;

use crate::{
    error::HistoryError,
    file::is_orphan,
    files::{Files, MERGED, sync_folder},
    place::Place,
    schema::{Kind, Table, VERSION, field_column},
    stored::{Plain, Stored, plain, stored},
};

/// Commits between two checkpoints of a table's log: opening reads at most so many small files.
const CHECKPOINT_COMMITS: u32 = 100;

/// The key of a table's metadata that says which version of the schema it has.
const VERSION_KEY: &str = "counterflow.schemaVersion";

/// A table as it was when it was opened.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The snapshot.
    pub delta: DeltaTable,
    /// The last epoch whose rows it holds; 0 before the first.
    pub last_epoch: Epoch,
}

impl Opened {
    /// Reads what was committed since. Whether there was something.
    ///
    /// # Errors
    ///
    /// When the log cannot be read.
    pub async fn update(&mut self, table: Table) -> Result<bool, HistoryError> {
        let before = self.delta.version();
        self.delta.update_state().await.map_err(HistoryError::delta("open", table))?;
        if self.delta.version() == before {
            return Ok(false);
        }
        self.last_epoch = last_epoch(&self.delta, table).await?;
        Ok(true)
    }

    /// The data files of the snapshot.
    ///
    /// # Errors
    ///
    /// When the snapshot is not loaded.
    pub fn files(&self, table: Table) -> Result<Vec<Stored>, HistoryError> {
        stored(&self.delta, table)
    }

    /// The same with what it takes to read them, unless that takes more: then somebody else has changed the table.
    ///
    /// # Errors
    ///
    /// When the snapshot is not loaded.
    pub fn plain(&self, table: Table) -> Result<Option<Plain>, HistoryError> {
        plain(&self.delta, table)
    }

    /// The columns that the table has, in its order.
    ///
    /// # Errors
    ///
    /// When the snapshot is not loaded.
    pub fn columns(&self, table: Table) -> Result<Vec<String>, HistoryError> {
        let state = self.delta.snapshot().map_err(HistoryError::delta("open", table))?;
        Ok(state.schema().fields().map(|field| field.name().to_owned()).collect())
    }
}

/// Opens a table of history for reading; `None` if it was never made.
///
/// # Errors
///
/// When there is a table and its log cannot be read.
pub async fn open(place: impl Into<Place>, table: Table) -> Result<Option<Opened>, HistoryError> {
    let place = place.into();
    if place.folder(table).is_some_and(|folder| !folder.join("_delta_log").is_dir()) {
        return Ok(None);
    }
    let delta = place.locate(table)?;
    let exists = delta.verify_deltatable_existence().await.map_err(HistoryError::delta("open", table))?;
    if !exists {
        return Ok(None);
    }
    load(delta, table).await.map(Some)
}

/// The same as it was at a version.
///
/// # Errors
///
/// When there is no such version any more, or its log cannot be read.
pub async fn open_version(place: impl Into<Place>, table: Table, version: u64) -> Result<Opened, HistoryError> {
    let failed = |error| HistoryError::delta("open", table)(error);
    let mut delta = place.into().locate(table)?;
    delta.load_version(version).await.map_err(failed)?;
    Ok(Opened { last_epoch: last_epoch(&delta, table).await?, delta })
}

/// Files that take the place of others.
#[derive(Debug)]
pub struct Replacement {
    /// Of which table.
    pub(crate) table: Table,
    /// Paths of files that go.
    pub(crate) removes: Vec<String>,
    /// Files that come.
    pub(crate) adds: Vec<Add>,
    /// Whether the rows are the same as before, in other files.
    pub(crate) same_rows: bool,
}

impl Replacement {
    /// Files that go, without anything in their place.
    pub(crate) fn removing(table: Table, path: &str) -> Replacement {
        Replacement { table, removes: vec![path.to_owned()], adds: Vec::new(), same_rows: false }
    }

    /// Of which table.
    #[must_use]
    pub fn table(&self) -> Table {
        self.table
    }

    /// How many files go, and how many come.
    #[must_use]
    pub fn files(&self) -> (usize, usize) {
        (self.removes.len(), self.adds.len())
    }
}

/// A table open for appending, by the one writer. It blocks: never used from within the runtime.
#[derive(Debug)]
pub(crate) struct Appender {
    table: Table,
    place: Place,
    runtime: Handle,
    pub(crate) files: Files,
    opened: Opened,
}

impl Appender {
    /// Opens a table, makes it if it is not there, adds the columns that it lacks, and removes files that were written
    /// but never committed.
    pub(crate) fn open(place: &Place, table: Table, runtime: &Handle) -> Result<Appender, HistoryError> {
        let opened = runtime.block_on(Box::pin(async {
            match open(place, table).await? {
                Some(opened) => Ok(opened),
                None => create(place, table).await,
            }
        }))?;
        let store = opened.delta.log_store().object_store(None);
        let files = Files::new(table, place.folder(table), store, runtime.clone());
        let mut appender = Appender { table, place: place.clone(), runtime: runtime.clone(), files, opened };
        appender.migrate()?;
        appender.remove_orphans()?;
        Ok(appender)
    }

    pub(crate) fn last_epoch(&self) -> Epoch {
        self.opened.last_epoch
    }

    pub(crate) fn opened(&self) -> &Opened {
        &self.opened
    }

    /// Columns by rules' fields that the table has.
    pub(crate) fn field_columns(&self) -> Result<Vec<String>, HistoryError> {
        let known = |name: &String| self.table.columns().iter().all(|c| c.kind == Kind::Field || c.name != name);
        Ok(self.opened.columns(self.table)?.into_iter().filter(known).collect())
    }

    /// Reads the log anew: after a failed commit nobody knows whether it took place.
    pub(crate) fn reload(&mut self) -> Result<(), HistoryError> {
        self.opened = self.runtime.block_on(Box::pin(load(self.place.locate(self.table)?, self.table)))?;
        Ok(())
    }

    /// Adds files that hold all rows up to and with `epoch`, and the columns that they bring. Durable when it returns.
    pub(crate) fn append(&mut self, adds: Vec<Add>, epoch: Epoch, columns: &[String]) -> Result<u64, HistoryError> {
        let present: HashSet<String> = self.opened.columns(self.table)?.into_iter().collect();
        let new = columns.iter().filter(|column| !present.contains(*column));
        let mut actions = self.with_columns(new.map(|column| field_column(column)).collect())?;
        actions.extend(adds.into_iter().map(Action::Add));
        let operation =
            DeltaOperation::Write { mode: SaveMode::Append, partition_by: Some(vec!["day".into()]), predicate: None };
        let transaction = Transaction::new(self.table.name(), i64::try_from(epoch).unwrap_or(i64::MAX));
        let version = self.commit(actions, operation, Some(transaction))?;
        self.opened.last_epoch = epoch;
        Ok(version)
    }

    /// Whether the table has what is told by this key.
    pub(crate) fn has(&self, key: &str) -> Result<bool, HistoryError> {
        let failed = |error| HistoryError::delta("open", self.table)(error);
        let state = self.opened.delta.snapshot().map_err(failed)?;
        let log_store = self.opened.delta.log_store();
        let version = self.runtime.block_on(state.transaction_version(log_store.as_ref(), key)).map_err(failed)?;
        Ok(version.is_some())
    }

    /// Adds files under a key, with the columns that they bring.
    pub(crate) fn add_under(&mut self, key: &str, adds: Vec<Add>, columns: &[String]) -> Result<(), HistoryError> {
        let present: HashSet<String> = self.opened.columns(self.table)?.into_iter().collect();
        let new = columns.iter().filter(|column| !present.contains(*column));
        let mut actions = self.with_columns(new.map(|column| field_column(column)).collect())?;
        actions.extend(adds.into_iter().map(Action::Add));
        let operation =
            DeltaOperation::Write { mode: SaveMode::Append, partition_by: Some(vec!["day".into()]), predicate: None };
        self.commit(actions, operation, Some(Transaction::new(key, 1))).map(drop)
    }

    /// Puts files in the place of others, durably; `None` if some of those are not there any more.
    pub(crate) fn replace(&mut self, replacement: Replacement) -> Result<Option<u64>, HistoryError> {
        let Replacement { removes, adds, same_rows, .. } = replacement;
        let state = self.opened.delta.snapshot().map_err(HistoryError::delta("open", self.table))?;
        let wanted: HashSet<&str> = removes.iter().map(String::as_str).collect();
        let views = state.log_data();
        let found = views.iter().filter(|view| wanted.contains(&*view.path()));
        let mut actions: Vec<Action> = found.map(|view| Action::Remove(view.remove_action(!same_rows))).collect();
        if actions.len() != wanted.len() {
            return Ok(None);
        }
        actions.extend(adds.into_iter().map(|add| Action::Add(Add { data_change: !same_rows, ..add })));
        let operation = if same_rows {
            DeltaOperation::Optimize { predicate: None, target_size: 0 }
        } else {
            DeltaOperation::Delete { predicate: None }
        };
        self.commit(actions, operation, None).map(Some)
    }

    fn commit(
        &mut self,
        actions: Vec<Action>,
        operation: DeltaOperation,
        transaction: Option<Transaction>,
    ) -> Result<u64, HistoryError> {
        let failed = |error| HistoryError::delta("commit to", self.table)(error);
        let state = self.opened.delta.snapshot().map_err(failed)?;
        let checkpoint = (state.version() + 2).is_multiple_of(CHECKPOINT_COMMITS.into()); // its version is the next
        // No retries: there is one writer, so a version that is taken means that what we believe of the table is wrong.
        let mut properties =
            CommitProperties::default().with_cleanup_expired_logs(Some(checkpoint)).with_max_retries(0);
        if let Some(transaction) = transaction {
            properties = properties.with_application_transaction(transaction);
        }
        let commit = self
            .runtime
            .block_on(Box::pin(
                CommitBuilder::from(properties)
                    .with_actions(actions)
                    .build(Some(state), self.opened.delta.log_store(), operation)
                    .into_future(),
            ))
            .map_err(failed)?;
        fail::point("history.logged");
        self.sync_log(commit.version())?;
        self.opened.delta.state = Some(commit.snapshot());
        Ok(commit.version())
    }

    fn sync_log(&self, version: u64) -> Result<(), HistoryError> {
        let Some(folder) = &self.files.folder else { return Ok(()) }; // a store's answer is its promise
        let log = folder.join("_delta_log");
        let entry = log.join(format!("{version:020}.json"));
        let file = File::open(&entry).map_err(HistoryError::file("write", &entry))?;
        fail::sync("history.sync", || file.sync_all()).map_err(HistoryError::file("write", &entry))?;
        sync_folder(&log)
    }

    /// What adds columns to the table; nothing for none.
    fn with_columns(&self, columns: Vec<StructField>) -> Result<Vec<Action>, HistoryError> {
        if columns.is_empty() {
            return Ok(Vec::new());
        }
        let failed = |error| HistoryError::delta("add columns to", self.table)(error);
        let state = self.opened.delta.snapshot().map_err(failed)?;
        let fields = state.schema().fields().cloned().chain(columns).collect::<Vec<_>>();
        let metadata = StructType::try_new(fields)
            .map_err(DeltaTableError::from)
            .and_then(|schema| Ok(state.metadata().clone().with_schema(&schema)?))
            .and_then(|metadata| Ok(metadata.add_config_key(VERSION_KEY.to_owned(), VERSION.to_string())?))
            .map_err(failed)?;
        Ok(vec![Action::Metadata(metadata)])
    }

    /// Brings an older table to the schema of this engine.
    fn migrate(&mut self) -> Result<(), HistoryError> {
        let failed = |error| HistoryError::delta("open", self.table)(error);
        let refused =
            |difference| HistoryError::Schema { table: self.table, place: self.place.to_string(), difference };
        let state = self.opened.delta.snapshot().map_err(failed)?;
        let version = state.metadata().configuration().get(VERSION_KEY).and_then(|text| text.parse::<u32>().ok());
        if let Some(newer) = version.filter(|version| *version > VERSION) {
            return Err(refused(format!("its schema has version {newer}, this engine knows {VERSION}")));
        }
        let schema = state.schema();
        let mut missing = Vec::new();
        for wanted in self.table.delta() {
            match schema.field(wanted.name()) {
                Some(found) if found.data_type() == wanted.data_type() => {}
                Some(found) => {
                    return Err(refused(format!("{} is {}", found.name(), found.data_type())));
                }
                None if wanted.is_nullable() => missing.push(wanted),
                None => return Err(refused(format!("{} is missing", wanted.name()))),
            }
        }
        let ours: HashSet<_> = self.table.columns().iter().map(|column| column.name).collect();
        let foreign = schema.fields().find(|field| !ours.contains(field.name().as_str()) && !field.is_nullable());
        if let Some(field) = foreign {
            return Err(refused(format!("{} is unknown", field.name())));
        }
        if missing.is_empty() {
            return Ok(());
        }
        tracing::info!(table = self.table.name(), columns = missing.len(), "history table gets the columns it lacks");
        let operation = DeltaOperation::AddColumn { fields: missing.clone() };
        let actions = self.with_columns(missing)?;
        self.commit(actions, operation, None).map(drop)
    }

    /// Removes files that no commit ever named: an engine that died between writing and committing left them.
    fn remove_orphans(&self) -> Result<(), HistoryError> {
        let listed = self.files.list()?;
        let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
        let merged = listed.iter().any(|file| name(&file.path).starts_with(MERGED));
        let known = if merged { self.named()? } else { HashSet::new() };
        for file in listed {
            let is_merged = name(&file.path).starts_with(MERGED);
            let orphan =
                if is_merged { !known.contains(&file.path) } else { is_orphan(&name(&file.path), self.last_epoch()) };
            if orphan {
                self.files.remove(&file.path)?;
                tracing::debug!(path = file.path, "uncommitted file removed");
            }
        }
        Ok(())
    }

    /// Files that the snapshot has, or had until lately.
    fn named(&self) -> Result<HashSet<String>, HistoryError> {
        let mut known: HashSet<String> = self.opened.files(self.table)?.into_iter().map(|file| file.path).collect();
        known.extend(gone(&self.opened, self.table, &self.runtime)?.into_iter().map(|(path, _)| path));
        Ok(known)
    }
}

/// Files that are gone from a table, and when (milliseconds since 1970), as far back as the log says.
pub(crate) fn gone(opened: &Opened, table: Table, runtime: &Handle) -> Result<Vec<(String, i64)>, HistoryError> {
    let failed = |error| HistoryError::delta("open", table)(error);
    let state = opened.delta.snapshot().map_err(failed)?;
    let log_store = opened.delta.log_store();
    // Made within the runtime: it asks for one as soon as it is made.
    let found = runtime
        .block_on(async { state.all_tombstones(log_store.as_ref()).try_collect::<Vec<_>>().await })
        .map_err(failed)?;
    Ok(found.iter().map(|gone| (gone.path().to_string(), gone.deletion_timestamp().unwrap_or(i64::MAX))).collect())
}

async fn load(mut delta: DeltaTable, table: Table) -> Result<Opened, HistoryError> {
    delta.load().await.map_err(HistoryError::delta("open", table))?;
    Ok(Opened { last_epoch: last_epoch(&delta, table).await?, delta })
}

async fn last_epoch(delta: &DeltaTable, table: Table) -> Result<Epoch, HistoryError> {
    let failed = |error| HistoryError::delta("open", table)(error);
    let state = delta.snapshot().map_err(failed)?;
    let version = state.transaction_version(delta.log_store().as_ref(), table.name()).await.map_err(failed)?;
    Ok(version.and_then(|version| Epoch::try_from(version).ok()).unwrap_or(0))
}

async fn create(place: &Place, table: Table) -> Result<Opened, HistoryError> {
    if let Some(folder) = place.folder(table) {
        std::fs::create_dir_all(&folder).map_err(HistoryError::file("create", &folder))?;
    }
    let own = [
        (VERSION_KEY.to_owned(), Some(VERSION.to_string())),
        (TableProperty::CheckpointInterval.as_ref().to_owned(), Some(CHECKPOINT_COMMITS.to_string())),
        // A commit every 5 to 30 s: a day of small log files are some ten thousand, and each commit lists them.
        (TableProperty::LogRetentionDuration.as_ref().to_owned(), Some("interval 1 days".to_owned())),
        // What compaction replaced is kept so long for readers; see `Housekeeper::vacuum`.
        (TableProperty::DeletedFileRetentionDuration.as_ref().to_owned(), Some("interval 2 days".to_owned())),
    ];
    let delta = CreateBuilder::new()
        .with_log_store(place.locate(table)?.log_store())
        .with_table_name(table.name())
        .with_comment(table.meaning())
        .with_columns(table.delta())
        .with_partition_columns(["day"])
        .with_raise_if_key_not_exists(false)
        .with_configuration(own)
        .await
        .map_err(HistoryError::delta("create", table))?;
    Ok(Opened { delta, last_epoch: 0 })
}
