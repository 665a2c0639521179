//! Statements with their parameters.

use std::{borrow::Cow, marker::PhantomData};

use sqlx::{PgConnection, Postgres, Sqlite, SqliteConnection, query::Query as SqlxQuery};

use super::{
    Connection, On, Pool, Raw, Rows,
    row::{Column, Columns, DbRow},
};

/// A parameter.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Integer(Option<i64>),
    Text(Option<String>),
    Bytes(Vec<u8>),
    Bool(bool),
}

macro_rules! value {
    ($($from:ty => |$value:ident| $made:expr;)+) => {
        $(impl From<$from> for Value {
            fn from($value: $from) -> Value {
                $made
            }
        })+
    };
}

value! {
    i64 => |value| Value::Integer(Some(value));
    u32 => |value| Value::Integer(Some(i64::from(value)));
    Option<i64> => |value| Value::Integer(value);
    &str => |value| Value::Text(Some(value.to_owned()));
    &&str => |value| Value::Text(Some((*value).to_owned()));
    &String => |value| Value::Text(Some(value.clone()));
    String => |value| Value::Text(Some(value));
    Option<String> => |value| Value::Text(value);
    Option<&str> => |value| Value::Text(value.map(str::to_owned));
    &Option<String> => |value| Value::Text(value.clone());
    Vec<u8> => |value| Value::Bytes(value);
    bool => |value| Value::Bool(value);
}

/// A statement.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    sql: &'static str,
    values: Vec<Value>,
}

/// What a statement did.
pub(crate) struct Done {
    rows: u64,
}

impl Done {
    pub(crate) fn rows_affected(&self) -> u64 {
        self.rows
    }
}

/// A statement whose rows are wanted as they are.
pub(crate) fn query(sql: &'static str) -> Query {
    Query { sql, values: Vec::new() }
}

/// A statement whose rows are tuples.
pub(crate) fn query_as<T>(sql: &'static str) -> Typed<T> {
    Typed { query: query(sql), _rows: PhantomData }
}

/// A statement of whose rows the first column is wanted.
pub(crate) fn query_scalar<T>(sql: &'static str) -> Scalar<T> {
    Scalar { query: query(sql), _rows: PhantomData }
}

impl Query {
    pub(crate) fn bind(mut self, value: impl Into<Value>) -> Query {
        self.values.push(value.into());
        self
    }

    pub(crate) async fn execute<'a, 'c: 'a>(self, on: impl Into<On<'a, 'c>>) -> Result<Done, sqlx::Error> {
        match on.into() {
            On::Connection(connection) => connection.execute(&self).await,
            On::Pool(pool) => pool.acquire().await?.execute(&self).await,
        }
    }

    pub(crate) async fn fetch_all<'a, 'c: 'a>(self, on: impl Into<On<'a, 'c>>) -> Result<Vec<DbRow>, sqlx::Error> {
        self.fetch(on.into(), false).await
    }

    pub(crate) async fn fetch_optional<'a, 'c: 'a>(
        self,
        on: impl Into<On<'a, 'c>>,
    ) -> Result<Option<DbRow>, sqlx::Error> {
        Ok(self.fetch(on.into(), true).await?.pop())
    }

    pub(crate) async fn fetch_one<'a, 'c: 'a>(self, on: impl Into<On<'a, 'c>>) -> Result<DbRow, sqlx::Error> {
        self.fetch_optional(on).await?.ok_or(sqlx::Error::RowNotFound)
    }

    async fn fetch(&self, on: On<'_, '_>, first: bool) -> Result<Vec<DbRow>, sqlx::Error> {
        let rows = match on {
            On::Connection(connection) => connection.rows(self, first).await?,
            On::Pool(pool) => pool.rows(self, first).await?,
        };
        Ok(match rows {
            Rows::Sqlite(rows) => rows.into_iter().map(DbRow::Sqlite).collect(),
            Rows::Postgres(rows) => rows.into_iter().map(DbRow::Postgres).collect(),
        })
    }

    /// Whether running it twice is running it once.
    pub(super) fn only_reads(&self) -> bool {
        self.sql.trim_start().starts_with("SELECT")
    }

    fn for_sqlite(&self) -> SqlxQuery<'_, Sqlite, <Sqlite as sqlx::Database>::Arguments> {
        self.values.iter().fold(sqlx::query(self.sql), |query, value| match value {
            Value::Integer(value) => query.bind(*value),
            Value::Text(value) => query.bind(value.as_deref()),
            Value::Bytes(value) => query.bind(value.as_slice()),
            Value::Bool(value) => query.bind(*value),
        })
    }

    fn for_postgres(&self) -> SqlxQuery<'_, Postgres, <Postgres as sqlx::Database>::Arguments> {
        self.values.iter().fold(sqlx::query(self.sql), |query, value| match value {
            Value::Integer(value) => query.bind(*value),
            Value::Text(value) => query.bind(value.as_deref().map(without_nul)),
            Value::Bytes(value) => query.bind(value.as_slice()),
            Value::Bool(value) => query.bind(*value),
        })
    }

    pub(super) async fn execute_postgres(&self, connection: &mut PgConnection) -> Result<u64, sqlx::Error> {
        Ok(self.for_postgres().execute(connection).await?.rows_affected())
    }

    pub(super) async fn rows_postgres(&self, connection: &mut PgConnection, first: bool) -> Result<Rows, sqlx::Error> {
        let query = self.for_postgres();
        Ok(Rows::Postgres(if first {
            query.fetch_optional(connection).await?.into_iter().collect()
        } else {
            query.fetch_all(connection).await?
        }))
    }

    async fn rows_sqlite(&self, connection: &mut SqliteConnection, first: bool) -> Result<Rows, sqlx::Error> {
        let query = self.for_sqlite();
        Ok(Rows::Sqlite(if first {
            query.fetch_optional(connection).await?.into_iter().collect()
        } else {
            query.fetch_all(connection).await?
        }))
    }
}

/// PostgreSQL has no U+0000 in texts, and who attacks chooses what stands in events: it is stored as U+FFFD. In JSON it is
/// escaped and stays.
fn without_nul(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}

impl Connection<'_> {
    async fn execute(&mut self, query: &Query) -> Result<Done, sqlx::Error> {
        if let Connection::Postgres(session) = self {
            return Ok(Done { rows: session.execute(query).await? });
        }
        let done = match self.raw() {
            Raw::Sqlite(connection) => Ok(query.for_sqlite().execute(connection).await?.rows_affected()),
            Raw::Postgres(connection) => query.execute_postgres(connection).await,
        };
        let rows = self.after(done).await?;
        Ok(Done { rows })
    }

    async fn rows(&mut self, query: &Query, first: bool) -> Result<Rows, sqlx::Error> {
        if let Connection::Postgres(session) = self {
            return session.rows(query, first).await;
        }
        let rows = match self.raw() {
            Raw::Sqlite(connection) => query.rows_sqlite(connection, first).await,
            Raw::Postgres(connection) => query.rows_postgres(connection, first).await,
        };
        self.after(rows).await
    }

    /// Lets go of the write lock where a statement of a transaction failed: nothing of it can be committed any more.
    async fn after<T>(&mut self, done: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        if let (Err(error), Connection::PostgresTransaction(transaction, rest)) = (&done, self) {
            let lost = super::is_lost(error) || sqlx::raw_sql("ROLLBACK").execute(&mut **transaction).await.is_err();
            if let Some(rest) = rest {
                rest.lost |= lost;
            }
        }
        done
    }
}

impl Pool {
    /// On any connection; once more on another where the first was lost meanwhile.
    async fn rows(&self, query: &Query, first: bool) -> Result<Rows, sqlx::Error> {
        match self.acquire().await?.rows(query, first).await {
            Err(error) if query.only_reads() && super::is_lost(&error) => {
                self.acquire().await?.rows(query, first).await
            }
            done => done,
        }
    }
}

/// A statement whose rows are tuples.
pub(crate) struct Typed<T> {
    query: Query,
    _rows: PhantomData<fn() -> T>,
}

impl<T: Columns> Typed<T> {
    pub(crate) fn bind(self, value: impl Into<Value>) -> Typed<T> {
        Typed { query: self.query.bind(value), ..self }
    }

    pub(crate) async fn fetch_all<'a, 'c: 'a>(self, on: impl Into<On<'a, 'c>>) -> Result<Vec<T>, sqlx::Error> {
        self.query.fetch_all(on).await?.iter().map(T::of).collect()
    }

    pub(crate) async fn fetch_optional<'a, 'c: 'a>(self, on: impl Into<On<'a, 'c>>) -> Result<Option<T>, sqlx::Error> {
        self.query.fetch_optional(on).await?.as_ref().map(T::of).transpose()
    }
}

/// A statement of whose rows the first column is wanted.
pub(crate) struct Scalar<T> {
    query: Query,
    _rows: PhantomData<fn() -> T>,
}

impl<T: Column> Scalar<T> {
    pub(crate) fn bind(self, value: impl Into<Value>) -> Scalar<T> {
        Scalar { query: self.query.bind(value), ..self }
    }

    pub(crate) async fn fetch_all<'a, 'c: 'a>(self, on: impl Into<On<'a, 'c>>) -> Result<Vec<T>, sqlx::Error> {
        self.query.fetch_all(on).await?.iter().map(|row| row.try_get(0)).collect()
    }

    pub(crate) async fn fetch_optional<'a, 'c: 'a>(self, on: impl Into<On<'a, 'c>>) -> Result<Option<T>, sqlx::Error> {
        self.query.fetch_optional(on).await?.map(|row| row.try_get(0)).transpose()
    }

    pub(crate) async fn fetch_one<'a, 'c: 'a>(self, on: impl Into<On<'a, 'c>>) -> Result<T, sqlx::Error> {
        self.query.fetch_one(on).await?.try_get(0)
    }
}
