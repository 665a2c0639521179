//! SQL as the binary gives it: over the folder of an engine, with the live tables of its ledger; for others over HTTP and the
//! Postgres wire, on threads of their own at the lowest priority.

use std::{path::Path, sync::Arc, thread, time::Duration};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use cf_api::sql::{Answer, Question, Refusal};
use cf_ledger::Reader;
use cf_queries::{AsOf, Encoder, Encoding, Options, QueryError, Rows, Session, SqlSettings, wire};
use tokio::{
    net::TcpListener,
    runtime::{Builder, Handle, Runtime},
    sync::{mpsc, oneshot, watch},
};

pub(crate) mod now;

/// Stack of a thread that plans: plans are trees, and those of long statements are deep.
const STACK_BYTES: usize = 16 << 20;

/// Parts of an answer that wait for who reads it.
const CHUNKS_MAX: usize = 4;

/// A runtime for queries. `nice` is how much others go before.
pub(crate) fn runtime(threads: usize, nice: i32) -> Result<Runtime> {
    let lower = move || {
        // On Linux this is of the thread alone. Who may not is as fast as others, which harms less than no SQL.
        let _told = rustix::process::nice(nice);
    };
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(threads.max(1)).thread_name("sql").thread_stack_size(STACK_BYTES).enable_all();
    if nice != 0 {
        builder.on_thread_start(lower);
    }
    builder.build().context("could not start the threads of SQL")
}

/// A session over a data folder, with live tables if it has a ledger.
pub(crate) async fn open(data: &Path, options: Options) -> Result<Session> {
    let history = cf_history::Place::of_data(data)?;
    if !history.may_exist() {
        bail!("there is no history in {}; give the folder of an engine or of `replay --data`", data.display());
    }
    let session = Session::open(&history, options)?;
    match Reader::open(data).await {
        Ok(reader) => Ok(session.with_live(Arc::new(now::Now::new(reader)))),
        Err(cf_ledger::LedgerError::Missing { .. }) => Ok(session),
        Err(error) => Err(error.into()),
    }
}

/// SQL for others, beside a running engine.
pub(crate) struct Service {
    session: Session,
    handle: Handle,
    /// Dropped with the service: its threads end without being waited for.
    end: watch::Sender<bool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Service {
    /// Starts the threads, and serves the Postgres wire if there is a listener for it.
    pub(crate) fn start(
        data: &Path,
        settings: &SqlSettings,
        reader: Reader,
        listener: Option<TcpListener>,
    ) -> Result<Arc<Service>> {
        let runtime = runtime(settings.thread_count(), 10)?;
        let handle = runtime.handle().clone();
        let session = Session::open(cf_history::Place::of_data(data)?, settings.options())?
            .with_live(Arc::new(now::Now::new(reader)));
        let (end, mut ending) = watch::channel(false);
        if let Some(listener) = listener {
            let server = wire::Server::new(&session, settings.clone())?;
            let mut stop = end.subscribe();
            // Its sockets belong to the runtime on which they are used.
            let listener = listener.into_std().context("could not take over the SQL listener")?;
            handle.spawn(async move {
                match TcpListener::from_std(listener) {
                    Ok(listener) => server.serve(listener, async move { drop(stop.wait_for(|end| *end).await) }).await,
                    Err(error) => tracing::error!(%error, "the SQL listener cannot be used"),
                }
            });
        }
        let thread = thread::Builder::new().name("sql".to_owned()).spawn(move || {
            runtime.block_on(async { drop(ending.wait_for(|end| *end).await) });
            // Queries are cut off: they only read.
            runtime.shutdown_timeout(Duration::from_secs(2));
        });
        let thread = Some(thread.context("could not start the thread of SQL")?);
        Ok(Arc::new(Service { session, handle, end, thread }))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.end.send_replace(true);
        if let Some(Err(_)) = self.thread.take().map(thread::JoinHandle::join) {
            tracing::error!("the thread of SQL has died");
        }
    }
}

impl cf_api::Sql for Service {
    fn ask(&self, question: Question) -> oneshot::Receiver<Result<Answer, Refusal>> {
        let (answer, answered) = oneshot::channel();
        let session = self.session.clone();
        self.handle.spawn(async move {
            let mut answer = answer;
            let begun = tokio::select! {
                begun = Box::pin(begin(&session, question)) => begun,
                // Nobody waits for it any more.
                () = answer.closed() => return,
            };
            match begun {
                Err(refusal) => drop(answer.send(Err(refusal))),
                Ok((encoding, encoder, first, rows)) => {
                    let (sender, chunks) = mpsc::channel(CHUNKS_MAX);
                    if answer.send(Ok(Answer { media_type: encoding.media_type(), chunks })).is_ok() {
                        Box::pin(send(sender, encoder, first, rows)).await;
                    }
                }
            }
        });
        answered
    }
}

type Begun = (Encoding, Encoder, Vec<u8>, Rows);

/// Runs a question up to its first rows.
async fn begin(session: &Session, question: Question) -> Result<Begun, Refusal> {
    let bad = |message: String| Refusal { status: 400, code: "bad_request", message };
    let encoding = match (&question.format, &question.accept) {
        (Some(name), _) => {
            Encoding::named(name).ok_or_else(|| bad(format!("{name:?} is no format; arrow, json and csv are")))?
        }
        (None, Some(accept)) => Encoding::accepted(accept).ok_or_else(|| Refusal {
            status: 406,
            code: "not_acceptable",
            message: "answers are application/vnd.apache.arrow.stream, application/x-ndjson or text/csv".to_owned(),
        })?,
        (None, None) => Encoding::JsonLines,
    };
    let as_of = question.as_of.map(|text| text.parse::<AsOf>()).transpose().map_err(bad)?;
    let mut rows = session.query_as_of(&question.sql, as_of).await.map_err(|error| refusal(&error))?;
    let mut encoder = Encoder::new(encoding, &rows.schema()).map_err(|error| refusal(&error))?;
    let first = match rows.next().await.map_err(|error| refusal(&error))? {
        Some(batch) => encoder.batch(&batch).map_err(|error| refusal(&error))?,
        None => Vec::new(),
    };
    Ok((encoding, encoder, first, rows))
}

async fn send(sender: mpsc::Sender<Result<Bytes, String>>, mut encoder: Encoder, first: Vec<u8>, mut rows: Rows) {
    let mut chunk = first;
    loop {
        if !chunk.is_empty() && sender.send(Ok(Bytes::from(chunk))).await.is_err() {
            return;
        }
        let next = tokio::select! {
            next = rows.next() => next,
            () = sender.closed() => return,
        };
        let encoded = match next {
            Ok(Some(batch)) => encoder.batch(&batch),
            Ok(None) => break,
            Err(error) => Err(error),
        };
        match encoded {
            Ok(bytes) => chunk = bytes,
            Err(error) => {
                tracing::warn!(%error, "an SQL answer was cut off");
                drop(sender.send(Err(error.to_string())).await);
                return;
            }
        }
    }
    let end = encoder.finish().map(Bytes::from).map_err(|error| error.to_string());
    if !end.as_ref().is_ok_and(Bytes::is_empty) {
        drop(sender.send(end).await);
    }
}

/// Why there is no answer, in one word.
pub(crate) const fn code(error: &QueryError) -> &'static str {
    match error {
        QueryError::NotReadOnly { .. } => "read_only",
        QueryError::NoTable { .. } => "no_table",
        QueryError::TooLong { .. } | QueryError::TooComplex { .. } => "too_complex",
        QueryError::NotOneStatement { .. } | QueryError::Sql(_) | QueryError::NoPast { .. } => "invalid_sql",
        QueryError::Memory { .. } => "memory_limit",
        QueryError::TooManyRows { .. } => "row_limit",
        QueryError::TooSlow { .. } => "time_limit",
        QueryError::Busy => "busy",
        QueryError::Live { .. } | QueryError::History(_) | QueryError::Write(_) => "history",
    }
}

/// Whose fault it is.
fn refusal(error: &QueryError) -> Refusal {
    let code = code(error);
    let status = match code {
        "read_only" => 403,
        "busy" => 429,
        "history" => 503,
        _ => 422,
    };
    let message = if status == 503 {
        tracing::error!(%error, "an SQL query could not read its tables");
        "history or ledger could not be read; the log says why".to_owned()
    } else {
        error.to_string()
    };
    Refusal { status, code, message }
}
