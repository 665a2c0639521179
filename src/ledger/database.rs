//! The one way to the tables: a connection that is SQLite's or PostgreSQL's, and queries that either answers.
//!
//! There is one text of each statement, in what the two have in common: `$1`, `ON CONFLICT`, `RETURNING`, `CAST(.. AS
//! BIGINT)` where a number comes out of JSON. What else the statements use of SQLite (`json_each`, `->>` on text,
//! `json_group_array`) PostgreSQL gets as functions beside the tables ([`crate::schema`]).
//!
//! Why not sqlx's `Any`: it passes statements through as well, but knows neither booleans of SQLite's expressions nor its
//! open options, and could not tell a lost connection from a refused statement where we must (see [`session`]).

use sqlx::{
    Connection as _, PgConnection, Postgres, Sqlite, SqliteConnection,
    pool::PoolConnection,
    postgres::{PgPool, PgRow},
    sqlite::{SqlitePool, SqliteRow},
};

pub(crate) use query::{query, query_as, query_scalar};
pub(crate) use row::DbRow;
use session::Rest;
pub(crate) use session::{Lost, Session, is_lost};

mod query;
mod row;
mod session;

/// A connection to the tables, or a transaction on one.
#[derive(Debug)]
pub(crate) enum Connection<'c> {
    Sqlite(Box<SqliteConnection>),
    SqlitePooled(PoolConnection<Sqlite>),
    SqliteTransaction(sqlx::Transaction<'c, Sqlite>),
    Postgres(Box<Session>),
    PostgresPooled(PoolConnection<Postgres>),
    /// With what a commit needs to know, on a session.
    PostgresTransaction(sqlx::Transaction<'c, Postgres>, Option<&'c mut Rest>),
}

/// What runs statements now.
pub(crate) enum Raw<'r> {
    Sqlite(&'r mut SqliteConnection),
    Postgres(&'r mut PgConnection),
}

impl<'c> Connection<'c> {
    pub(crate) fn sqlite(connection: SqliteConnection) -> Connection<'static> {
        Connection::Sqlite(Box::new(connection))
    }

    pub(crate) fn postgres(session: Session) -> Connection<'static> {
        Connection::Postgres(Box::new(session))
    }

    /// Whether the tables are PostgreSQL's.
    pub(crate) fn is_postgres(&self) -> bool {
        matches!(self, Connection::Postgres(_) | Connection::PostgresPooled(_) | Connection::PostgresTransaction(..))
    }

    fn raw(&mut self) -> Raw<'_> {
        match self {
            Connection::Sqlite(connection) => Raw::Sqlite(connection),
            Connection::SqlitePooled(connection) => Raw::Sqlite(connection),
            Connection::SqliteTransaction(transaction) => Raw::Sqlite(transaction),
            Connection::Postgres(session) => Raw::Postgres(session.raw()),
            Connection::PostgresPooled(connection) => Raw::Postgres(connection),
            Connection::PostgresTransaction(transaction, _) => Raw::Postgres(transaction),
        }
    }

    /// Begins a transaction that writes: it holds the write lock of the ledger, as `BEGIN IMMEDIATE` does.
    pub(crate) async fn begin(&mut self) -> Result<Transaction<'_>, sqlx::Error> {
        let connection = match self {
            Connection::Sqlite(connection) => {
                Connection::SqliteTransaction(connection.begin_with("BEGIN IMMEDIATE").await?)
            }
            Connection::Postgres(session) => {
                let (transaction, rest) = session.begin().await?;
                Connection::PostgresTransaction(transaction, Some(rest))
            }
            // Readers do not write, and there is nothing to begin within a transaction.
            Connection::SqlitePooled(_)
            | Connection::SqliteTransaction(_)
            | Connection::PostgresPooled(_)
            | Connection::PostgresTransaction(..) => return Err(sqlx::Error::BeginFailed),
        };
        Ok(Transaction { connection })
    }

    /// Begins a transaction that only reads, all of it from one snapshot.
    pub(crate) async fn snapshot(&mut self) -> Result<Transaction<'_>, sqlx::Error> {
        const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        let connection = match self.raw() {
            Raw::Sqlite(connection) => Connection::SqliteTransaction(connection.begin().await?),
            Raw::Postgres(connection) => Connection::PostgresTransaction(connection.begin_with(SNAPSHOT).await?, None),
        };
        Ok(Transaction { connection })
    }

    /// Runs several statements without parameters.
    pub(crate) async fn run(&mut self, sql: impl sqlx::SqlSafeStr) -> Result<(), sqlx::Error> {
        let sql = sqlx::raw_sql(sql);
        match self.raw() {
            Raw::Sqlite(connection) => sql.execute(connection).await.map(drop),
            Raw::Postgres(connection) => sql.execute(connection).await.map(drop),
        }
    }

    /// Ends the connection in order.
    pub(crate) async fn close(self) -> Result<(), sqlx::Error> {
        match self {
            Connection::Sqlite(connection) => connection.close().await,
            Connection::Postgres(session) => session.close().await,
            // These go back to where they are from.
            _ => Ok(()),
        }
    }
}

/// A transaction; one that is not committed is rolled back.
#[derive(Debug)]
pub(crate) struct Transaction<'c> {
    connection: Connection<'c>,
}

impl<'c> std::ops::Deref for Transaction<'c> {
    type Target = Connection<'c>;

    fn deref(&self) -> &Connection<'c> {
        &self.connection
    }
}

impl<'c> std::ops::DerefMut for Transaction<'c> {
    fn deref_mut(&mut self) -> &mut Connection<'c> {
        &mut self.connection
    }
}

impl Transaction<'_> {
    /// Makes it durable. Of PostgreSQL whose connection is lost meanwhile it is found out whether it was.
    pub(crate) async fn commit(self) -> Result<(), sqlx::Error> {
        match self.connection {
            Connection::SqliteTransaction(transaction) => transaction.commit().await,
            Connection::PostgresTransaction(transaction, None) => transaction.commit().await,
            Connection::PostgresTransaction(transaction, Some(rest)) => rest.commit(transaction).await,
            // No transaction is made of these.
            _ => Ok(()),
        }
    }

    /// Takes it back now. Dropping does it too, but with PostgreSQL only when the connection is used next: until then the
    /// write lock is held.
    pub(crate) async fn rollback(self) -> Result<(), sqlx::Error> {
        match self.connection {
            Connection::SqliteTransaction(transaction) => transaction.rollback().await,
            Connection::PostgresTransaction(transaction, _) => transaction.rollback().await,
            _ => Ok(()),
        }
    }
}

/// A few connections for readers.
#[derive(Clone, Debug)]
pub(crate) enum Pool {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

impl Pool {
    pub(crate) async fn acquire(&self) -> Result<Connection<'static>, sqlx::Error> {
        Ok(match self {
            Pool::Sqlite(pool) => Connection::SqlitePooled(pool.acquire().await?),
            Pool::Postgres(pool) => Connection::PostgresPooled(pool.acquire().await?),
        })
    }
}

/// Where a query runs: on a connection, or on any of a pool.
pub(crate) enum On<'a, 'c> {
    Connection(&'a mut Connection<'c>),
    Pool(&'a Pool),
}

impl<'a, 'c> From<&'a mut Connection<'c>> for On<'a, 'c> {
    fn from(connection: &'a mut Connection<'c>) -> Self {
        On::Connection(connection)
    }
}

impl<'a> From<&'a Pool> for On<'a, 'static> {
    fn from(pool: &'a Pool) -> Self {
        On::Pool(pool)
    }
}

/// Rows of either.
enum Rows {
    Sqlite(Vec<SqliteRow>),
    Postgres(Vec<PgRow>),
}
