//! A session of PostgreSQL that outlives its connection, and the engine's hold on a ledger there.
//!
//! A connection that is lost is made again for a minute at most, then the error is given. Outside of a transaction a
//! statement that only reads is repeated. A transaction is never repeated here: what was lost before its commit was not
//! committed. Whether a commit was done whose answer was lost is read from the tables: each transaction of the holder
//! writes a token of its own.
//!
//! **The hold.** Who holds the ledger has a lock of its session, so it ends with the connection, by the server. Made
//! again, the session takes the lock again and looks whether the generation is still its own: if another engine was there
//! meanwhile, this one gets [`Lost`] for ever. That the lock could be taken says, too, that the old connection has ended,
//! so nothing of it can still be committed.

use std::{io, time::Duration};

use sqlx::{ConnectOptions as _, Connection as _, PgConnection, Postgres, postgres::PgConnectOptions};

use super::{Rows, query::Query};

/// How long a lost connection is made again before the error is given.
const AGAIN: Duration = Duration::from_secs(60);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(250);
/// How long a statement may take: who answers later is taken for gone. Locks wait ten seconds at most.
const ANSWER: Duration = Duration::from_secs(60);

/// The hold on the ledger is gone: another engine has taken it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("another engine has taken the ledger: it is in generation {found}, this engine is of generation {own}")]
pub(crate) struct Lost {
    pub(crate) own: i64,
    pub(crate) found: i64,
}

/// A session.
#[derive(Debug)]
pub(crate) struct Session {
    connection: PgConnection,
    rest: Rest,
}

/// All of a session but its connection.
#[derive(Debug)]
pub(crate) struct Rest {
    options: PgConnectOptions,
    hold: Option<Hold>,
    /// The connection is gone.
    pub(super) lost: bool,
    /// The one in its place.
    next: Option<PgConnection>,
}

/// The hold of an engine.
#[derive(Debug)]
struct Hold {
    /// The generation that the ledger must be in; `None` before there is a table to read it from.
    generation: Option<i64>,
    /// Of this session and no other.
    name: String,
    /// Transactions so far.
    begun: u64,
}

impl Hold {
    fn token(&self) -> String {
        format!("{} {}", self.name, self.begun)
    }
}

/// Whether an error means that the connection is gone, or the server.
pub(crate) fn is_lost(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(error) => !error.get_ref().is_some_and(|inner| inner.is::<Lost>()),
        // TLS: it went in the midst of a handshake; a certificate that is refused for good is told when the time is over.
        sqlx::Error::Protocol(_) | sqlx::Error::Tls(_) | sqlx::Error::WorkerCrashed | sqlx::Error::PoolTimedOut => true,
        // Shut down, crashed, starts up, or ended this connection by name; and "connection" errors.
        sqlx::Error::Database(error) => {
            error.code().is_some_and(|code| code.starts_with("57P") || code.starts_with("08"))
        }
        _ => false,
    }
}

impl Session {
    /// Connects.
    pub(crate) async fn connect(options: PgConnectOptions) -> Result<Session, sqlx::Error> {
        let connection = options.connect().await?;
        Ok(Session { connection, rest: Rest { options, hold: None, lost: false, next: None } })
    }

    /// Takes the ledger for this session; `false` when another has it.
    pub(crate) async fn hold(&mut self) -> Result<bool, sqlx::Error> {
        if !lock(&mut self.connection).await? {
            return Ok(false);
        }
        let name = sqlx::query_scalar("SELECT CAST(gen_random_uuid() AS TEXT)").fetch_one(&mut self.connection).await?;
        self.rest.hold = Some(Hold { generation: None, name, begun: 0 });
        Ok(true)
    }

    /// The generation that is this session's from now on.
    pub(crate) fn set_generation(&mut self, generation: i64) {
        if let Some(hold) = &mut self.rest.hold {
            hold.generation = Some(generation);
        }
    }

    pub(super) fn raw(&mut self) -> &mut PgConnection {
        if let Some(next) = self.rest.next.take() {
            self.connection = next;
        }
        &mut self.connection
    }

    pub(super) async fn execute(&mut self, query: &Query) -> Result<u64, sqlx::Error> {
        self.ready().await?;
        let done = answered(query.execute_postgres(self.raw())).await;
        self.note(&done);
        done
    }

    pub(super) async fn rows(&mut self, query: &Query, first: bool) -> Result<Rows, sqlx::Error> {
        self.ready().await?;
        let rows = answered(query.rows_postgres(self.raw(), first)).await;
        self.note(&rows);
        if !(self.rest.lost && query.only_reads()) {
            return rows;
        }
        self.ready().await?;
        let rows = answered(query.rows_postgres(self.raw(), first)).await;
        self.note(&rows);
        rows
    }

    /// Begins a transaction under the write lock.
    pub(super) async fn begin(&mut self) -> Result<(sqlx::Transaction<'_, Postgres>, &mut Rest), sqlx::Error> {
        self.ready().await?;
        // What was lost since the last statement shows here, where nothing is lost with it.
        let alive = answered(self.raw().ping()).await;
        self.note(&alive);
        self.ready().await?;
        let _connection = self.raw();
        let Session { connection, rest } = self;
        let begun = answered(connection.begin()).await;
        rest.lost |= begun.as_ref().is_err_and(is_lost);
        let mut transaction = begun?;
        let prepared = answered(rest.prepare(&mut transaction)).await;
        rest.lost |= prepared.as_ref().is_err_and(is_lost);
        prepared?;
        Ok((transaction, rest))
    }

    pub(super) async fn close(self) -> Result<(), sqlx::Error> {
        self.connection.close().await
    }

    async fn ready(&mut self) -> Result<(), sqlx::Error> {
        if self.rest.lost { self.rest.connect_again().await } else { Ok(()) }
    }

    fn note<T>(&mut self, done: &Result<T, sqlx::Error>) {
        self.rest.lost |= done.as_ref().is_err_and(is_lost);
    }
}

impl Rest {
    /// The write lock; and for the holder, that the ledger is still its own and that this transaction is known again.
    async fn prepare(&mut self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        const WRITE: &str =
            "SELECT pg_advisory_xact_lock(hashtextextended('counterflow writer ' || current_schema(), 0))";
        sqlx::query(WRITE).execute(&mut *connection).await?;
        let Some(hold) = &mut self.hold else { return Ok(()) };
        let Some(generation) = hold.generation else { return Ok(()) };
        hold.begun += 1;
        let noted = sqlx::query(
            "INSERT INTO meta SELECT 'writer_commit', $1 FROM engine WHERE generation = $2
             ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        )
        .bind(hold.token())
        .bind(generation)
        .execute(&mut *connection)
        .await?;
        if noted.rows_affected() == 1 { Ok(()) } else { Err(gone(generation, connection).await) }
    }

    pub(super) async fn commit(&mut self, transaction: sqlx::Transaction<'_, Postgres>) -> Result<(), sqlx::Error> {
        let done = answered(transaction.commit()).await;
        let Err(error) = &done else { return done };
        if !is_lost(error) {
            return done;
        }
        self.lost = true;
        let Some(token) = self.hold.as_ref().filter(|hold| hold.generation.is_some()).map(Hold::token) else {
            return done;
        };
        self.connect_again().await?;
        let Some(connection) = &mut self.next else { return done };
        let last: Option<String> =
            sqlx::query_scalar("SELECT value FROM meta WHERE key = 'writer_commit'").fetch_optional(connection).await?;
        let was_done = last.as_ref() == Some(&token);
        tracing::info!(was_done, "the connection to the ledger was lost in a commit");
        if was_done { Ok(()) } else { done }
    }

    /// Makes the connection again, with the hold; gives up after [`AGAIN`].
    async fn connect_again(&mut self) -> Result<(), sqlx::Error> {
        tracing::warn!("the connection to the ledger was lost, it is made again");
        let mut last = None;
        let made = tokio::time::timeout(AGAIN, async {
            loop {
                match self.connect_once().await {
                    Ok(Some(connection)) => return Ok(connection),
                    // The server has not yet noticed that the old connection is gone.
                    Ok(None) => {}
                    Err(error) if is_lost(&error) => last = Some(error),
                    Err(error) => return Err(error),
                }
                tokio::time::sleep(PAUSE).await;
            }
        });
        let made = made.await;
        let connection = match made {
            Ok(made) => made?,
            Err(_elapsed) => return Err(gave_up(&last.unwrap_or_else(late))),
        };
        self.next = Some(connection);
        self.lost = false;
        tracing::info!("the connection to the ledger is there again");
        Ok(())
    }

    async fn connect_once(&self) -> Result<Option<PgConnection>, sqlx::Error> {
        let mut connection = self.options.connect().await?;
        let Some(hold) = &self.hold else { return Ok(Some(connection)) };
        if !lock(&mut connection).await? {
            // It may be the old connection, or another engine.
            return match hold.generation {
                Some(generation) => still(generation, &mut connection).await.map(|()| None),
                None => Ok(None),
            };
        }
        if let Some(generation) = hold.generation {
            still(generation, &mut connection).await?;
        }
        Ok(Some(connection))
    }
}

async fn lock(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    const LOCK: &str = "SELECT pg_try_advisory_lock(hashtextextended('counterflow engine ' || current_schema(), 0))";
    sqlx::query_scalar(LOCK).fetch_one(connection).await
}

async fn still(own: i64, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let found: i64 = sqlx::query_scalar("SELECT generation FROM engine").fetch_one(connection).await?;
    if found == own { Ok(()) } else { Err(sqlx::Error::Io(io::Error::other(Lost { own, found }))) }
}

async fn gone(own: i64, connection: &mut PgConnection) -> sqlx::Error {
    still(own, connection).await.err().unwrap_or(sqlx::Error::BeginFailed)
}

async fn answered<T>(answer: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    tokio::time::timeout(ANSWER, answer).await.unwrap_or_else(|_elapsed| Err(late()))
}

/// Whoever sees it need not try again.
fn gave_up(last: &sqlx::Error) -> sqlx::Error {
    let why = format!("the connection was lost and could not be made again for {} s: {last}", AGAIN.as_secs());
    sqlx::Error::Configuration(why.into())
}

fn late() -> sqlx::Error {
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, "the server did not answer"))
}
