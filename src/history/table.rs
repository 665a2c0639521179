//! One Delta table: made, opened, appended to with an application transaction.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use cf_fail as fail;
use cf_types::Epoch;
use deltalake::{
    DeltaTable, DeltaTableBuilder, DeltaTableError, TableProperty, ensure_table_uri,
    kernel::{
        Action, Add, Transaction,
        transaction::{CommitBuilder, CommitProperties},
    },
    operations::create::CreateBuilder,
    protocol::{DeltaOperation, SaveMode},
};

use crate::{
    error::HistoryError,
    file::{is_orphan, sync_folder},
    schema::Table,
};

/// Commits between two checkpoints of a table's log: opening reads at most so many small files.
const CHECKPOINT_COMMITS: u32 = 100;

/// A table as it was when it was opened.
#[derive(Debug)]
pub struct Opened {
    /// The snapshot.
    pub delta: DeltaTable,
    /// The last epoch whose rows it holds; 0 before the first.
    pub last_epoch: Epoch,
}

/// Opens a table under the history folder for reading; `None` if it was never made.
///
/// # Errors
///
/// When there is a table and its log cannot be read.
pub async fn open(history: &Path, table: Table) -> Result<Option<Opened>, HistoryError> {
    let folder = history.join(table.name());
    if !folder.join("_delta_log").is_dir() {
        return Ok(None);
    }
    let delta = locate(&folder, table)?;
    let exists = delta.verify_deltatable_existence().await.map_err(HistoryError::delta("open", table))?;
    if !exists {
        return Ok(None);
    }
    load(delta, table).await.map(Some)
}

/// A table open for appending, by the one writer.
#[derive(Debug)]
pub(crate) struct Appender {
    table: Table,
    pub(crate) folder: PathBuf,
    opened: Opened,
}

impl Appender {
    /// Opens a table, makes it if it is not there, and removes files that were written but never committed.
    pub(crate) async fn open(history: &Path, table: Table) -> Result<Appender, HistoryError> {
        let folder = history.join(table.name());
        let opened = match open(history, table).await? {
            Some(opened) => opened,
            None => create(&folder, table).await?,
        };
        check_schema(&opened.delta, table, &folder)?;
        remove_orphans(&folder, opened.last_epoch)?;
        Ok(Appender { table, folder, opened })
    }

    pub(crate) fn last_epoch(&self) -> Epoch {
        self.opened.last_epoch
    }

    /// Reads the log anew: after a failed commit nobody knows whether it took place.
    pub(crate) async fn reload(&mut self) -> Result<(), HistoryError> {
        self.opened = load(locate(&self.folder, self.table)?, self.table).await?;
        Ok(())
    }

    /// Adds files that hold all rows up to and with `epoch`. Durable when it returns.
    pub(crate) async fn append(&mut self, adds: Vec<Add>, epoch: Epoch) -> Result<u64, HistoryError> {
        let failed = |error| HistoryError::delta("commit to", self.table)(error);
        let version = i64::try_from(epoch).unwrap_or(i64::MAX);
        let state = self.opened.delta.snapshot().map_err(failed)?;
        let checkpoint = (state.version() + 2).is_multiple_of(CHECKPOINT_COMMITS.into()); // its version is the next
        // No retries: there is one writer, so a version that is taken means that what we believe of the table is wrong.
        let properties = CommitProperties::default()
            .with_application_transaction(Transaction::new(self.table.name(), version))
            .with_cleanup_expired_logs(Some(checkpoint))
            .with_max_retries(0);
        let operation =
            DeltaOperation::Write { mode: SaveMode::Append, partition_by: Some(vec!["day".into()]), predicate: None };
        let commit = CommitBuilder::from(properties)
            .with_actions(adds.into_iter().map(Action::Add).collect())
            .build(Some(state), self.opened.delta.log_store(), operation)
            .await
            .map_err(failed)?;
        fail::point("history.logged");
        self.sync_log(commit.version())?;
        self.opened.delta.state = Some(commit.snapshot());
        self.opened.last_epoch = epoch;
        Ok(commit.version())
    }

    fn sync_log(&self, version: u64) -> Result<(), HistoryError> {
        let log = self.folder.join("_delta_log");
        let entry = log.join(format!("{version:020}.json"));
        File::open(&entry).and_then(|file| file.sync_all()).map_err(HistoryError::file("write", &entry))?;
        sync_folder(&log)
    }
}

fn locate(folder: &Path, table: Table) -> Result<DeltaTable, HistoryError> {
    let failed = |error| HistoryError::delta("open", table)(error);
    let text = folder
        .to_str()
        .ok_or_else(|| failed(DeltaTableError::InvalidTableLocation(format!("{} is not UTF-8", folder.display()))))?;
    let url = ensure_table_uri(text).map_err(failed)?;
    DeltaTableBuilder::from_url(url).and_then(DeltaTableBuilder::build).map_err(failed)
}

async fn load(mut delta: DeltaTable, table: Table) -> Result<Opened, HistoryError> {
    let failed = |error| HistoryError::delta("open", table)(error);
    delta.load().await.map_err(failed)?;
    let state = delta.snapshot().map_err(failed)?;
    let version = state.transaction_version(delta.log_store().as_ref(), table.name()).await.map_err(failed)?;
    let last_epoch = version.and_then(|version| Epoch::try_from(version).ok()).unwrap_or(0);
    Ok(Opened { delta, last_epoch })
}

async fn create(folder: &Path, table: Table) -> Result<Opened, HistoryError> {
    fs::create_dir_all(folder).map_err(HistoryError::file("create", folder))?;
    let delta = CreateBuilder::new()
        .with_log_store(locate(folder, table)?.log_store())
        .with_table_name(table.name())
        .with_comment(table.meaning())
        .with_columns(table.delta())
        .with_partition_columns(["day"])
        .with_configuration_property(TableProperty::CheckpointInterval, Some(CHECKPOINT_COMMITS.to_string()))
        // A commit every 5 to 30 s: a day of small log files are some ten thousand, and each commit lists them.
        .with_configuration_property(TableProperty::LogRetentionDuration, Some("interval 1 days"))
        .await
        .map_err(HistoryError::delta("create", table))?;
    Ok(Opened { delta, last_epoch: 0 })
}

fn check_schema(delta: &DeltaTable, table: Table, folder: &Path) -> Result<(), HistoryError> {
    let state = delta.snapshot().map_err(HistoryError::delta("open", table))?;
    let schema = state.schema();
    let found: Vec<String> = schema.fields().map(|field| format!("{} {}", field.name(), field.data_type())).collect();
    let wanted: Vec<String> =
        table.delta().iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect();
    if found == wanted {
        return Ok(());
    }
    let missing = wanted.iter().find(|column| !found.contains(column)).map(|column| format!("{column} is missing"));
    let foreign = found.iter().find(|column| !wanted.contains(column)).map(|column| format!("{column} is unknown"));
    let difference = missing.or(foreign).unwrap_or_else(|| "the order is different".to_owned());
    Err(HistoryError::Schema { table, path: folder.to_owned(), difference })
}

fn remove_orphans(folder: &Path, last: Epoch) -> Result<(), HistoryError> {
    let read = |path: &Path| fs::read_dir(path).map_err(HistoryError::file("read", path));
    for part in read(folder)?.flatten().filter(|part| part.file_name().to_string_lossy().starts_with("day=")) {
        for file in read(&part.path())?.flatten() {
            if is_orphan(&file.file_name().to_string_lossy(), last) {
                fs::remove_file(file.path()).map_err(HistoryError::file("remove", &file.path()))?;
                tracing::debug!(path = %file.path().display(), "uncommitted file removed");
            }
        }
    }
    Ok(())
}
