//! The tables, and how a connection to them is made.
//!
//! Times are microseconds since 1970 (columns in `_at`, `wall`, `due`), event-time cells are seconds. Ids are
//! hexadecimal text: a person with `sqlite3` can read all of it.

use std::{path::Path, time::Duration};

use sqlx::{
    AssertSqlSafe, ConnectOptions as _,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

use crate::{
    LedgerError,
    database::{self, Connection},
    format::{self, FORMAT},
    sinks,
};

mod postgres;

/// The ledger's file in a data folder.
pub(crate) const FILE: &str = "ledger.db";

const TABLES: &str = "
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE engine(
    id INTEGER PRIMARY KEY CHECK (id = 1),
    generation INTEGER NOT NULL,
    upper INTEGER NOT NULL,
    digest TEXT NOT NULL,
    incident_next INTEGER NOT NULL,
    audit_seq INTEGER NOT NULL,
    audit_head TEXT NOT NULL
) STRICT;
CREATE TABLE epochs(
    epoch INTEGER PRIMARY KEY,
    wall INTEGER NOT NULL,
    watermark INTEGER,
    record TEXT NOT NULL
) STRICT;
CREATE TABLE control(
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    body TEXT NOT NULL,
    author TEXT NOT NULL,
    reason TEXT NOT NULL,
    at INTEGER NOT NULL
) STRICT;
CREATE TABLE rule_sets(hash TEXT PRIMARY KEY, body BLOB NOT NULL, at INTEGER NOT NULL) STRICT;
CREATE TABLE threads(
    thread TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    first_epoch INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    material TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE alerts(
    alert_id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    thread TEXT NOT NULL,
    revision INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'sealed', 'withdrawn', 'superseded')),
    reason TEXT,
    superseded_by TEXT,
    rule TEXT NOT NULL,
    title TEXT NOT NULL,
    level TEXT NOT NULL,
    score INTEGER NOT NULL,
    anchor INTEGER NOT NULL,
    last_cell INTEGER NOT NULL,
    count INTEGER NOT NULL,
    content TEXT NOT NULL,
    digest TEXT NOT NULL,
    members TEXT,
    opened_epoch INTEGER NOT NULL,
    opened_at INTEGER NOT NULL,
    changed_epoch INTEGER NOT NULL,
    changed_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX alerts_by_thread ON alerts(thread);
CREATE INDEX alerts_by_change ON alerts(changed_at);
CREATE INDEX alerts_open ON alerts(state) WHERE state = 'open';
CREATE TABLE alert_revisions(
    thread TEXT NOT NULL,
    revision INTEGER NOT NULL,
    alert_id TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    at INTEGER NOT NULL,
    event TEXT NOT NULL,
    state TEXT NOT NULL,
    reason TEXT,
    content TEXT NOT NULL,
    PRIMARY KEY (thread, revision)
) STRICT, WITHOUT ROWID;
CREATE INDEX alert_revisions_by_alert ON alert_revisions(alert_id);
CREATE TABLE incidents(
    number INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    incident_id TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'closed', 'withdrawn', 'merged')),
    redirect INTEGER,
    entities TEXT NOT NULL,
    opened_at INTEGER NOT NULL,
    changed_epoch INTEGER NOT NULL,
    changed_at INTEGER NOT NULL
) STRICT;
CREATE INDEX incidents_by_id ON incidents(incident_id) WHERE state = 'open';
CREATE TABLE incident_alerts(alert_id TEXT PRIMARY KEY, number INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX incident_alerts_by_number ON incident_alerts(number);
CREATE TABLE risk(
    tenant TEXT NOT NULL,
    kind TEXT NOT NULL,
    value TEXT NOT NULL,
    buckets TEXT NOT NULL,
    PRIMARY KEY (tenant, kind, value)
) STRICT, WITHOUT ROWID;
CREATE TABLE desired(
    action_id TEXT NOT NULL,
    alert_id TEXT NOT NULL,
    tenant TEXT NOT NULL,
    kind TEXT NOT NULL,
    target TEXT NOT NULL,
    ttl_s INTEGER NOT NULL,
    anchor INTEGER NOT NULL,
    PRIMARY KEY (action_id, alert_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE actions(
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    action_id TEXT NOT NULL,
    tenant TEXT NOT NULL,
    kind TEXT NOT NULL,
    target TEXT NOT NULL,
    ttl_s INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN
        ('planned', 'applying', 'in_force', 'undoing', 'undone', 'failed', 'refused', 'dry_run')),
    reason TEXT,
    alerts TEXT NOT NULL,
    planned_at INTEGER NOT NULL,
    applied_at INTEGER,
    until_at INTEGER,
    ended_at INTEGER,
    changed_at INTEGER NOT NULL
) STRICT;
CREATE INDEX actions_by_id ON actions(action_id, id);
CREATE INDEX actions_in_force ON actions(until_at) WHERE state = 'in_force';
CREATE TABLE intents(
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL CHECK (kind IN ('notify', 'action')),
    operation TEXT NOT NULL CHECK (operation IN ('opened', 'amended', 'withdrawn', 'block', 'unblock')),
    receiver TEXT NOT NULL,
    subject TEXT NOT NULL,
    thread TEXT,
    revision INTEGER,
    action INTEGER,
    body TEXT NOT NULL,
    key TEXT NOT NULL UNIQUE,
    generation INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN
        ('planned', 'trying', 'confirmed', 'failed', 'refused', 'dry_run', 'superseded')),
    verify_first INTEGER NOT NULL DEFAULT 0,
    tries INTEGER NOT NULL DEFAULT 0,
    due INTEGER NOT NULL,
    made_at INTEGER NOT NULL,
    tried_at INTEGER,
    done_at INTEGER,
    receipt TEXT
) STRICT;
CREATE INDEX intents_unfinished ON intents(subject, id) WHERE state IN ('planned', 'trying');
CREATE INDEX intents_due ON intents(receiver, due) WHERE state = 'planned';
CREATE INDEX intents_by_thread ON intents(thread);
CREATE INDEX intents_by_action ON intents(action);
CREATE TABLE audit(
    seq INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail TEXT NOT NULL,
    prev_hash TEXT NOT NULL,
    hash TEXT NOT NULL
) STRICT;
INSERT INTO meta VALUES ('format_version', '2');
INSERT INTO engine VALUES (1, 0, 1, '00000000000000000000000000000000', 1, 0, '');
";

/// Tables that came later: made in older files too. Who does not know them is not disturbed.
const TABLES_SINCE: &str = "
CREATE TABLE IF NOT EXISTS hunt_rows(
    hunt TEXT NOT NULL,
    row TEXT NOT NULL,
    time INTEGER NOT NULL,
    PRIMARY KEY (hunt, row)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS hunt_runs(hunt TEXT PRIMARY KEY, last TEXT NOT NULL, done TEXT) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS incident_contents(number INTEGER PRIMARY KEY, content TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS rule_since(rule TEXT PRIMARY KEY, epoch INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rule_watermarks(rule TEXT PRIMARY KEY, epoch INTEGER NOT NULL, watermark INTEGER) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS backfilled(thread TEXT PRIMARY KEY, rule TEXT NOT NULL, epoch INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS facts_held(
    fact TEXT PRIMARY KEY,
    subject TEXT NOT NULL,
    kind TEXT NOT NULL,
    seq INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS facts_held_by_subject ON facts_held(subject);
CREATE INDEX IF NOT EXISTS facts_held_by_kind ON facts_held(kind);
CREATE TABLE IF NOT EXISTS assessments(
    alert_id TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    at INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    score INTEGER NOT NULL,
    content TEXT NOT NULL,
    PRIMARY KEY (alert_id, epoch)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS risk_levels(
    tenant TEXT NOT NULL,
    kind TEXT NOT NULL,
    value TEXT NOT NULL,
    level TEXT NOT NULL,
    changed_epoch INTEGER NOT NULL,
    changed_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, kind, value)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS risk_level_changes(
    tenant TEXT NOT NULL,
    kind TEXT NOT NULL,
    value TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    at INTEGER NOT NULL,
    was TEXT NOT NULL,
    level TEXT NOT NULL,
    PRIMARY KEY (tenant, kind, value, epoch)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS blast(
    tenant TEXT NOT NULL,
    kind TEXT NOT NULL,
    value TEXT NOT NULL,
    content TEXT NOT NULL,
    changed_epoch INTEGER NOT NULL,
    changed_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, kind, value)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS control_scores ON control(seq) WHERE kind = 'score';
CREATE TABLE IF NOT EXISTS retries(
    tenant TEXT NOT NULL,
    source TEXT NOT NULL,
    origin TEXT NOT NULL,
    record_offset INTEGER NOT NULL,
    record_index INTEGER NOT NULL,
    reject_epoch INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    at INTEGER NOT NULL,
    record BLOB,
    PRIMARY KEY (tenant, source, origin, record_offset, record_index, reject_epoch)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS retries_by_seq ON retries(seq);
CREATE TABLE IF NOT EXISTS suppressed(
    alert_id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    rule TEXT NOT NULL,
    content TEXT NOT NULL,
    fact TEXT NOT NULL,
    reason TEXT NOT NULL,
    changed_epoch INTEGER NOT NULL,
    changed_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
";

/// What an incident's alerts say of it, as it is kept beside its number: the pure content without alerts and entities,
/// which have columns of their own.
pub(crate) fn bare(incident: &cf_types::Incident) -> cf_types::Incident {
    cf_types::Incident { alerts: Vec::new(), entities: Vec::new(), ..incident.clone() }
}

/// Whether a table is there: a file that only readers of this version have opened lacks those that came later.
pub(crate) async fn has_table(connection: &mut Connection<'_>, name: &str) -> Result<bool, LedgerError> {
    let sql = if connection.is_postgres() {
        "SELECT EXISTS (SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                        WHERE n.nspname = current_schema() AND c.relname = $1)"
    } else {
        "SELECT count(*) > 0 FROM sqlite_schema WHERE type = 'table' AND name = $1"
    };
    database::query_scalar(sql).bind(name).fetch_one(connection).await.map_err(LedgerError::store("look for a table"))
}

/// Options of a connection that writes. `create` is for the engine only.
pub(crate) fn writing(dir: &Path, create: bool) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(dir.join(FILE))
        .create_if_missing(create)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(10))
        .disable_statement_logging()
}

/// Options of a connection that only reads.
pub(crate) fn reading(dir: &Path) -> SqliteConnectOptions {
    reading_file(&dir.join(FILE))
}

/// The same for a ledger that is not in its folder.
pub(crate) fn reading_file(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        .busy_timeout(Duration::from_secs(10))
        .disable_statement_logging()
}

/// Opens the file of a folder to write. `create` is for the engine only.
pub(crate) async fn connect(dir: &Path, create: bool) -> Result<Connection<'static>, sqlx::Error> {
    writing(dir, create).connect().await.map(Connection::sqlite)
}

/// Makes the tables in an empty ledger, or checks that we know the format of what is there.
pub(crate) async fn prepare(connection: &mut Connection<'_>, dir: &Path) -> Result<(), LedgerError> {
    let store = LedgerError::store("create the tables");
    let is_postgres = connection.is_postgres();
    let mut transaction = connection.begin().await.map_err(&store)?;
    let empty = if is_postgres {
        !has_table(&mut transaction, "meta").await?
    } else {
        database::query_scalar("SELECT count(*) = 0 FROM sqlite_schema WHERE type = 'table'")
            .fetch_one(&mut *transaction)
            .await
            .map_err(&store)?
    };
    if !empty {
        check(&mut transaction, dir).await?;
    }
    if is_postgres {
        transaction.run(AssertSqlSafe(postgres::tables(empty))).await.map_err(&store)?;
    } else {
        if empty {
            transaction.run(TABLES).await.map_err(&store)?;
        }
        transaction.run(TABLES_SINCE).await.map_err(&store)?;
        transaction.run(sinks::TABLES).await.map_err(&store)?;
        transaction.run(sinks::TRIGGERS).await.map_err(&store)?;
    }
    transaction.commit().await.map_err(&store)
}

/// Refuses a file of a format that we do not know.
pub(crate) async fn check(connection: &mut Connection<'_>, dir: &Path) -> Result<(), LedgerError> {
    match format_of(connection).await? {
        Some(found) if found > FORMAT => Err(format::newer(dir, found, None)),
        Some(_) | None => Ok(()),
    }
}

/// The format that the ledger states; `None` where there are no tables yet.
pub(crate) async fn format_of(connection: &mut Connection<'_>) -> Result<Option<u32>, LedgerError> {
    if !has_table(connection, "meta").await? {
        return Ok(None);
    }
    let found: Option<String> = database::query_scalar("SELECT value FROM meta WHERE key = 'format_version'")
        .fetch_optional(connection)
        .await
        .map_err(LedgerError::store("read the format version"))?;
    // A format that is no number is nothing that we wrote: treated as from the far future.
    Ok(Some(found.and_then(|text| text.parse().ok()).unwrap_or(u32::MAX)))
}

/// Makes an older ledger one of our format; what of it was copied before is the caller's matter.
pub(crate) async fn migrate(connection: &mut Connection<'_>) -> Result<(), LedgerError> {
    // From 1 to 2 only tables came, which `prepare` makes.
    database::query("UPDATE meta SET value = $1 WHERE key = 'format_version'")
        .bind(FORMAT.to_string())
        .execute(connection)
        .await
        .map(drop)
        .map_err(LedgerError::store("migrate to this format"))
}
