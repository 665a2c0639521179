//! A ledger that was restored from a backup: what its engine did after the backup was made is not in it.
//!
//! So whatever waits, and whatever is made of records that it may have met as well - those that the restored spool holds, those
//! that senders repeat - may have been done: each is verified before it is tried, for a day.

use std::path::Path;

use cf_types::{EpochRecord, Time};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::ConnectOptions as _;

use crate::{
    Engine, LedgerError, Location,
    apply::number,
    audit::{self, Entry},
    database::{self, Connection},
    format, schema, server, sinks,
};

/// Where the ledger keeps it.
const KEY: &str = "restored";
/// For how long after the restore everything is verified first.
const VERIFY_US: i64 = 24 * 3_600 * 1_000_000;

#[derive(Debug, Serialize, Deserialize)]
struct Restored {
    /// Until when.
    until: Time,
}

/// Copies the ledger of a folder, consistent and durable, beside a running or a stopped engine; gives where it stands.
///
/// # Errors
/// There is none, it is of a newer format, or the copy cannot be written (disk full: nothing is left of it).
pub async fn copy(dir: &Path, to: &Path) -> Result<Engine, LedgerError> {
    format::check(dir)?;
    in_folder(dir)?;
    if !dir.join(schema::FILE).is_file() {
        return Err(LedgerError::Missing { dir: dir.to_path_buf() });
    }
    let open = |options: sqlx::sqlite::SqliteConnectOptions| async move {
        options.connect().await.map(Connection::sqlite).map_err(LedgerError::store("open the ledger"))
    };
    let mut connection = open(schema::reading(dir)).await?;
    schema::check(&mut connection, dir).await?;
    format::copy(&mut connection, to).await?;
    // What the copy says, not what the original says by now.
    let mut copied = open(schema::reading_file(to)).await?;
    Engine::load(&mut copied).await
}

/// Refuses a ledger in PostgreSQL: it is not copied from here, its own tools do that, with what else is in that server.
///
/// # Errors
/// The ledger is in PostgreSQL, or the folder cannot be read.
pub fn in_folder(dir: &Path) -> Result<(), LedgerError> {
    match Location::of(dir)? {
        None => Ok(()),
        Some(location) => Err(LedgerError::Location {
            why: format!(
                "the ledger of {} is in PostgreSQL ({}), where `counterflow backup` and `restore` do not reach; stop the \
                 engine, then copy the data folder and dump the ledger by pg_dump (docs/operations.md)",
                dir.display(),
                location.url
            ),
        }),
    }
}

/// Marks a ledger that has just been restored, before any engine takes it. `backup` says which backup, for the audit.
///
/// # Errors
/// The ledger cannot be written.
pub async fn mark(dir: &Path, backup: Value, at: Time) -> Result<(), LedgerError> {
    let store = LedgerError::store("mark a restored ledger");
    let mut connection = match Location::of(dir)? {
        Some(location) => server::beside(&location).await?,
        None => schema::connect(dir, false).await.map_err(&store)?,
    };
    let mut transaction = connection.begin().await.map_err(&store)?;
    let verify = database::query("UPDATE intents SET verify_first = 1 WHERE state IN ('planned', 'trying')")
        .execute(&mut *transaction)
        .await
        .map_err(&store)?
        .rows_affected();
    let value = serde_json::to_string(&Restored { until: at.plus_micros(VERIFY_US) })
        .map_err(LedgerError::damaged("the mark of a restored ledger"))?;
    database::query("INSERT INTO meta VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value")
        .bind(KEY)
        .bind(value)
        .execute(&mut *transaction)
        .await
        .map_err(&store)?;
    sinks::begin_again(&mut transaction).await?;
    let detail = json!({"backup": backup, "verify_first": verify});
    audit::append(&mut transaction, at, &[Entry::engine("restored", "data folder", detail)]).await?;
    transaction.commit().await.map_err(&store)?;
    connection.close().await.map_err(&store)
}

/// Lets an epoch's intents be verified first in the time after a restore.
pub(crate) async fn verify_first(connection: &mut Connection<'_>, record: &EpochRecord) -> Result<(), LedgerError> {
    let store = LedgerError::store("look for the mark of a restored ledger");
    let found: Option<String> = database::query_scalar("SELECT value FROM meta WHERE key = $1")
        .bind(KEY)
        .fetch_optional(&mut *connection)
        .await
        .map_err(&store)?;
    let Some(found) = found else { return Ok(()) };
    let Restored { until } =
        serde_json::from_str(&found).map_err(LedgerError::damaged("the mark of a restored ledger"))?;
    let verified = database::query("UPDATE intents SET verify_first = 1 WHERE epoch = $1 AND state = 'planned'");
    verified.bind(number(record.epoch)).execute(&mut *connection).await.map_err(&store)?;
    if record.wall > until {
        database::query("DELETE FROM meta WHERE key = $1").bind(KEY).execute(connection).await.map_err(&store)?;
    }
    Ok(())
}
