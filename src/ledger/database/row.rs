//! Rows and their columns, and what is read from them.

use sqlx::{Row as _, TypeInfo as _, ValueRef as _, postgres::PgRow, sqlite::SqliteRow};

/// A row of either database.
#[derive(Debug)]
pub(crate) enum DbRow {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

/// Which column.
#[derive(Clone, Copy)]
pub(crate) enum Index<'i> {
    At(usize),
    Named(&'i str),
}

impl From<usize> for Index<'_> {
    fn from(index: usize) -> Self {
        Index::At(index)
    }
}

impl<'i> From<&'i str> for Index<'i> {
    fn from(name: &'i str) -> Self {
        Index::Named(name)
    }
}

impl DbRow {
    /// A column's value.
    pub(crate) fn try_get<'i, T: Column, I: Into<Index<'i>>>(&self, index: I) -> Result<T, sqlx::Error> {
        T::of(self, index.into())
    }
}

/// What a column can be read as. The same for both databases: what SQLite has as 0 and 1, PostgreSQL has as booleans in
/// expressions and as numbers in tables.
pub(crate) trait Column: Sized {
    fn of(row: &DbRow, index: Index<'_>) -> Result<Self, sqlx::Error>;
}

macro_rules! get {
    ($row:expr, $index:expr) => {
        match $index {
            Index::At(at) => $row.try_get(at),
            Index::Named(name) => $row.try_get(name),
        }
    };
}

macro_rules! raw {
    ($row:expr, $index:expr) => {
        match $index {
            Index::At(at) => $row.try_get_raw(at),
            Index::Named(name) => $row.try_get_raw(name),
        }
    };
}

impl Column for i64 {
    fn of(row: &DbRow, index: Index<'_>) -> Result<i64, sqlx::Error> {
        match row {
            DbRow::Sqlite(row) => get!(row, index),
            // `CASE .. THEN 1` is no BIGINT.
            DbRow::Postgres(row) => match raw!(row, index)?.type_info().name() {
                "INT4" => get!(row, index).map(|value: i32| i64::from(value)),
                _ => get!(row, index),
            },
        }
    }
}

impl Column for u32 {
    fn of(row: &DbRow, index: Index<'_>) -> Result<u32, sqlx::Error> {
        u32::try_from(i64::of(row, index)?).map_err(|error| sqlx::Error::Decode(error.into()))
    }
}

impl Column for bool {
    fn of(row: &DbRow, index: Index<'_>) -> Result<bool, sqlx::Error> {
        match row {
            DbRow::Sqlite(row) => get!(row, index),
            DbRow::Postgres(postgres) => match raw!(postgres, index)?.type_info().name() {
                "BOOL" => get!(postgres, index),
                _ => i64::of(row, index).map(|value| value != 0),
            },
        }
    }
}

impl Column for String {
    fn of(row: &DbRow, index: Index<'_>) -> Result<String, sqlx::Error> {
        match row {
            DbRow::Sqlite(row) => get!(row, index),
            DbRow::Postgres(row) => get!(row, index),
        }
    }
}

impl Column for Vec<u8> {
    fn of(row: &DbRow, index: Index<'_>) -> Result<Vec<u8>, sqlx::Error> {
        match row {
            DbRow::Sqlite(row) => get!(row, index),
            DbRow::Postgres(row) => get!(row, index),
        }
    }
}

impl<T: Column> Column for Option<T> {
    fn of(row: &DbRow, index: Index<'_>) -> Result<Option<T>, sqlx::Error> {
        let is_null = match row {
            DbRow::Sqlite(row) => raw!(row, index)?.is_null(),
            DbRow::Postgres(row) => raw!(row, index)?.is_null(),
        };
        if is_null { Ok(None) } else { T::of(row, index).map(Some) }
    }
}

/// A whole row as a tuple.
pub(crate) trait Columns: Sized {
    fn of(row: &DbRow) -> Result<Self, sqlx::Error>;
}

macro_rules! tuple {
    ($($name:ident $at:literal),+) => {
        impl<$($name: Column),+> Columns for ($($name,)+) {
            fn of(row: &DbRow) -> Result<Self, sqlx::Error> {
                Ok(($(row.try_get::<$name, _>($at)?,)+))
            }
        }
    };
}

tuple!(A 0);
tuple!(A 0, B 1);
tuple!(A 0, B 1, C 2);
tuple!(A 0, B 1, C 2, D 3);
tuple!(A 0, B 1, C 2, D 3, E 4);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5);
