//! Opening a ledger in PostgreSQL: what the server must be, and who may have the ledger.

use std::{path::Path, time::Duration};

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::{
    LedgerError,
    database::{self, Connection, Pool, Session},
    location::Location,
    schema,
};

/// How long a start waits for a hold whose connection is ending.
const HOLD_WAIT: Duration = Duration::from_secs(10);
const HOLD_PAUSE: Duration = Duration::from_millis(200);

/// Connections of a reader.
const READERS: u32 = 4;

/// The oldest server that has all we use (`gen_random_uuid`).
const VERSION_MIN: i64 = 130_000;

/// Takes the ledger for an engine and makes its tables.
pub(crate) async fn engine(location: &Location, dir: &Path) -> Result<Connection<'static>, LedgerError> {
    let store = LedgerError::store("take the engine's lock");
    let mut session = Session::connect(location.options()?).await.map_err(unreached(location))?;
    let held = tokio::time::timeout(HOLD_WAIT, async {
        while !session.hold().await? {
            tokio::time::sleep(HOLD_PAUSE).await;
        }
        Ok(())
    });
    let held = held.await;
    let mut connection = Connection::postgres(session);
    match held {
        Ok(held) => held.map_err(&store)?,
        Err(_elapsed) => {
            let holder = holder(&mut connection).await.unwrap_or_default();
            return Err(LedgerError::HeldElsewhere { url: location.url.clone(), holder });
        }
    }
    fit(&mut connection, location).await?;
    schema::prepare(&mut connection, dir).await?;
    let (id, upper, generation) = identity(&mut connection).await?;
    location.belongs(dir, &id, upper)?;
    if let Connection::Postgres(session) = &mut connection {
        session.set_generation(generation);
    }
    Ok(connection)
}

/// Connects beside the engine, to write.
pub(crate) async fn beside(location: &Location) -> Result<Connection<'static>, LedgerError> {
    let session = Session::connect(location.options()?).await.map_err(unreached(location))?;
    let mut connection = Connection::postgres(session);
    mine(&mut connection, location).await?;
    Ok(connection)
}

/// Connects to read.
pub(crate) async fn readers(location: &Location) -> Result<Pool, LedgerError> {
    let options: PgConnectOptions = location.options()?;
    let pool = PgPoolOptions::new().max_connections(READERS).min_connections(0).acquire_timeout(HOLD_WAIT);
    let pool = Pool::Postgres(pool.connect_with(options).await.map_err(unreached(location))?);
    mine(&mut pool.acquire().await.map_err(unreached(location))?, location).await?;
    Ok(pool)
}

/// The server does not answer, or does not let us in.
fn unreached(location: &Location) -> impl Fn(sqlx::Error) -> LedgerError {
    move |error| LedgerError::Location { why: format!("could not connect to the ledger at {}: {error}", location.url) }
}

/// Refuses a ledger that is not the folder's.
async fn mine(connection: &mut Connection<'_>, location: &Location) -> Result<(), LedgerError> {
    if !schema::has_table(connection, "engine").await? {
        return Err(LedgerError::Location {
            why: format!("there is no ledger at {}; start `counterflow run` on the data folder once", location.url),
        });
    }
    let (id, ..) = identity(connection).await?;
    match &location.ledger {
        Some(known) if *known != id => Err(LedgerError::Location {
            why: format!("the data folder belongs to ledger {known}, at {} is ledger {id}", location.url),
        }),
        _ => Ok(()),
    }
}

/// The ledger's id, upper and generation.
async fn identity(connection: &mut Connection<'_>) -> Result<(String, i64, i64), LedgerError> {
    let sql = "SELECT value, upper, generation FROM meta, engine WHERE key = 'ledger_id'";
    let found = database::query_as(sql).fetch_optional(connection).await.map_err(LedgerError::store("read its id"))?;
    found
        .ok_or_else(|| LedgerError::Location { why: "the ledger has no id; it was not made by this engine".to_owned() })
}

/// Refuses a server that would not keep what we promise.
async fn fit(connection: &mut Connection<'_>, location: &Location) -> Result<(), LedgerError> {
    let sql = "SELECT CAST(current_setting('server_version_num') AS BIGINT), current_setting('server_encoding'),
                      pg_is_in_recovery(), current_setting('fsync'), current_schema()";
    let found: Option<(i64, String, bool, String, Option<String>)> =
        database::query_as(sql).fetch_optional(connection).await.map_err(LedgerError::store("look at the server"))?;
    let refuse = |why: &str| Err(LedgerError::Location { why: format!("{} {why}", location.url) });
    match found {
        Some((version, ..)) if version < VERSION_MIN => refuse("is older than PostgreSQL 13"),
        Some((_, encoding, ..)) if encoding != "UTF8" => refuse("is a database whose encoding is not UTF8"),
        Some((_, _, true, ..)) => refuse("is a standby, which cannot be written; give the primary"),
        Some((.., None)) => refuse("has no schema to make tables in; give one by ?options[search_path]=NAME"),
        Some((_, _, _, fsync, _)) if fsync != "on" => {
            tracing::warn!("PostgreSQL runs with fsync = {fsync}: what is committed is lost when its machine fails");
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Who has the ledger, for people.
async fn holder(connection: &mut Connection<'_>) -> Option<String> {
    let sql = "SELECT concat_ws(' ', a.application_name, 'at', coalesce(host(a.client_addr), 'this machine'), 'since',
                      date_trunc('second', a.backend_start))
               FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
               WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
                 AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                 AND l.classid::bigint = (hashtextextended('counterflow engine ' || current_schema(), 0) >> 32) & 4294967295
                 AND l.objid::bigint = hashtextextended('counterflow engine ' || current_schema(), 0) & 4294967295";
    database::query_scalar(sql).fetch_optional(connection).await.ok()?
}
