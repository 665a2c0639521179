//! What was refused, asked of history, and how it goes through again (ING-05).
//!
//! History has rejects some seconds after they were made. Each has an id made of where its record was, why and in which
//! epoch it was refused. What the decoder refused may go through again; of what was refused only for a correlation the event
//! itself is in already, and of a record that was cut for its length the rest is gone.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result};
use bytes::Bytes;
use cf_api::{RejectFilter, RejectsAnswer, RejectsError, RetryRequest};
use cf_ledger::{
    ControlLog, LedgerError, Reader, Retry,
    retries::{RECORDS_MAX, RejectKey},
};
use cf_queries::Session;
use cf_types::{Framing, Origin, Position, Record, Reject, Tenant, Time, clock, id::digest128};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, oneshot},
};

use crate::{
    output::Failed,
    provenance::events::{for_each_row, quoted},
};

/// Rows of a list where nothing is said.
const LIST: u32 = 100;
/// Rejects of one call that go through again at most; the rest waits for the next call.
const RETRY_MAX: usize = 10_000;
/// Bytes of a record that a list shows.
const SHOWN_CHARS: usize = 200;
/// Codes of what the decoder refused: nothing of the record became an event.
const UNDECODED: &[&str] = &[
    "invalid_utf8",
    "invalid_json",
    "not_an_object",
    "too_long",
    "too_deep",
    "too_many_fields",
    "empty",
    "invalid_time",
    "invalid_type",
    "damaged",
];

const COLUMNS: &str = "tenant, epoch, cast(received_at as bigint) as received_us, cast(time as bigint) as time_us, source, \
    origin, line, record_offset, record_index, code, reason, raw, encode(raw_bytes, 'hex') as raw_hex";

/// History and ledger of a data folder, to be asked.
pub(crate) struct Rejects {
    reader: Reader,
    history: Session,
}

/// A row of history.
#[derive(Clone, Debug, Deserialize)]
struct Row {
    tenant: String,
    epoch: u64,
    received_us: i64,
    time_us: Option<i64>,
    source: String,
    origin: String,
    line: u64,
    record_offset: u64,
    record_index: u32,
    code: String,
    reason: String,
    raw: String,
    raw_hex: Option<String>,
}

impl Rejects {
    /// Opens both.
    pub(crate) async fn open(data: &Path) -> Result<Rejects> {
        let reader = Reader::open(data).await?;
        let history = Session::open(&data.join("history"), cf_queries::Options::default())?;
        Ok(Rejects { reader, history })
    }

    /// The newest rejects of a filter.
    pub(crate) async fn list(&self, filter: &RejectFilter) -> Result<Vec<Value>> {
        let limit = filter.limit.unwrap_or(LIST);
        let order =
            format!("ORDER BY received_at DESC, epoch DESC, source, origin, record_offset, record_index LIMIT {limit}");
        let rows = self.rows(filter, &order).await?;
        self.shown(&rows, Some(SHOWN_CHARS)).await
    }

    /// How many there are of a filter, by source and code.
    pub(crate) async fn counts(&self, filter: &RejectFilter) -> Result<Vec<Value>> {
        let statement = format!(
            "SELECT source, code, count(*) AS count FROM rejects WHERE {} GROUP BY source, code ORDER BY source, code",
            condition(filter)
        );
        all(&self.history, &statement).await
    }

    /// One reject with its whole record.
    pub(crate) async fn show(&self, id: &str) -> Result<Option<Value>> {
        let rows = self.of_ids(&[id.to_owned()]).await?;
        Ok(self.shown(&rows, None).await?.pop())
    }

    /// Lets rejects go through again: those named, or those of a filter. Says how many, and what does not.
    pub(crate) async fn retry(
        &self,
        data: &Path,
        ids: &[String],
        filter: &RejectFilter,
        (author, reason): (&str, &str),
    ) -> Result<Value> {
        let mut log = ControlLog::open(data).await?;
        let mut done = Done::default();
        if ids.is_empty() {
            self.retry_filtered(&mut log, filter, (author, reason), &mut done).await?;
        } else {
            let rows = self.of_ids(ids).await?;
            done.unknown = ids.iter().filter(|id| !rows.iter().any(|row| row.id() == **id)).cloned().collect();
            for some in rows.chunks(RECORDS_MAX) {
                done.retry(&mut log, some, (author, reason)).await?;
            }
        }
        Ok(serde_json::to_value(done)?)
    }

    /// What waits longest first; what cannot go through, or did so before, does not count for the limit.
    async fn retry_filtered(
        &self,
        log: &mut ControlLog,
        filter: &RejectFilter,
        who: (&str, &str),
        done: &mut Done,
    ) -> Result<()> {
        let mut left =
            filter.limit.map_or(RETRY_MAX, |limit| usize::try_from(limit).unwrap_or(RETRY_MAX)).min(RETRY_MAX);
        // What fails again meanwhile is for the next call.
        let newest: Vec<Value> = all(&self.history, "SELECT max(epoch) AS epoch FROM rejects").await?;
        let newest = newest.first().and_then(|row| row["epoch"].as_u64()).unwrap_or(0);
        let order = "ORDER BY epoch, source, origin, record_offset, record_index, code, reason";
        for page in 0.. {
            let from = page * RECORDS_MAX;
            let rows =
                self.rows(filter, &format!("AND epoch <= {newest} {order} LIMIT {RECORDS_MAX} OFFSET {from}")).await?;
            let last = rows.len() < RECORDS_MAX;
            let known = self.known(&rows).await?;
            let open = |row: &Row| row.way().is_ok() && !known.contains(&row.key());
            let some: Vec<Row> = rows.into_iter().filter(open).take(left).collect();
            left -= some.len();
            done.retry(log, &some, who).await?;
            if last || left == 0 {
                break;
            }
        }
        Ok(())
    }

    async fn rows(&self, filter: &RejectFilter, order: &str) -> Result<Vec<Row>> {
        all(&self.history, &format!("SELECT {COLUMNS} FROM rejects WHERE {} {order}", condition(filter))).await
    }

    /// An id begins with its epoch, so few rows are read.
    async fn of_ids(&self, ids: &[String]) -> Result<Vec<Row>> {
        let epochs: BTreeSet<u64> = ids.iter().filter_map(|id| id.split_once('-')?.0.parse().ok()).collect();
        if epochs.is_empty() {
            return Ok(Vec::new());
        }
        let epochs: Vec<String> = epochs.iter().map(ToString::to_string).collect();
        let statement = format!("SELECT {COLUMNS} FROM rejects WHERE epoch IN ({})", epochs.join(", "));
        let mut rows: Vec<Row> = all(&self.history, &statement).await?;
        rows.retain(|row| ids.contains(&row.id()));
        Ok(rows)
    }

    async fn known(&self, rows: &[Row]) -> Result<BTreeSet<RejectKey>> {
        let keys: Vec<_> = rows.iter().map(Row::key).collect();
        Ok(self.reader.retries(&keys).await?.into_keys().collect())
    }

    /// Rows as they are shown, with what is known of them.
    async fn shown(&self, rows: &[Row], chars: Option<usize>) -> Result<Vec<Value>> {
        let keys: Vec<_> = rows.iter().map(Row::key).collect();
        let known = self.reader.retries(&keys).await?;
        let shown = rows.iter().map(|row| {
            let raw: String = row.raw.chars().take(chars.unwrap_or(usize::MAX)).collect();
            let again = known.get(&row.key());
            json!({
                "id": row.id(), "received_at": Time::from_micros(row.received_us), "source": row.source, "code": row.code,
                "reason": row.reason, "time": row.time_us.map(Time::from_micros), "origin": row.origin, "line": row.line,
                "offset": row.record_offset, "index": row.record_index, "epoch": row.epoch,
                "retried": again.map(|(control, at)| json!({"control": control, "at": at})),
                "cannot_be_retried": row.way().err(), "raw": raw, "raw_hex": row.raw_hex,
            })
        });
        Ok(shown.collect())
    }
}

/// What a call did.
#[derive(Debug, Default, Serialize)]
struct Done {
    /// Records that go through again.
    retried: usize,
    /// Those that were asked for before.
    retried_before: usize,
    /// Entries of the control log.
    control: Vec<i64>,
    /// What cannot go through again.
    cannot: Vec<Value>,
    /// Ids that history does not have, or not yet.
    unknown: Vec<String>,
}

impl Done {
    async fn retry(&mut self, log: &mut ControlLog, rows: &[Row], (author, reason): (&str, &str)) -> Result<()> {
        let mut retries = Vec::new();
        for row in rows {
            match row.way() {
                Ok(()) => retries.push(row.retry()?),
                Err(why) => self.cannot.push(json!({"id": row.id(), "why": why})),
            }
        }
        let asked = retries.len();
        let made = log.retry(&retries, author, reason, clock::now()).await?;
        let new = made.map_or(0, |(_, new)| new);
        self.control.extend(made.map(|(entry, _)| entry));
        self.retried += new;
        self.retried_before += asked - new;
        Ok(())
    }
}

/// All rows of a statement.
async fn all<T: serde::de::DeserializeOwned + Send>(history: &Session, statement: &str) -> Result<Vec<T>> {
    let mut rows = Vec::new();
    let mut take = |row: Value| {
        rows.push(serde_json::from_value(row).context("a reject in history does not read")?);
        Ok(())
    };
    for_each_row(history, statement, &mut take).await?;
    Ok(rows)
}

/// What a filter means in SQL.
fn condition(filter: &RejectFilter) -> String {
    let mut conditions = vec!["true".to_owned()];
    conditions.extend(filter.source.as_ref().map(|source| format!("source = {}", quoted(source))));
    conditions.extend(filter.code.as_ref().map(|code| format!("code = {}", quoted(code))));
    conditions.extend(filter.reason.as_ref().map(|text| format!("strpos(reason, {}) > 0", quoted(text))));
    let at = |time: Time| format!("cast({} as timestamp)", quoted(&time.to_string()));
    conditions.extend(filter.from.map(|from| format!("received_at >= {}", at(from))));
    conditions.extend(filter.to.map(|to| format!("received_at < {}", at(to))));
    conditions.join(" AND ")
}

impl Row {
    /// Its name: the epoch, then a hash of the rest.
    fn id(&self) -> String {
        let parts = [
            self.tenant.as_bytes(),
            self.source.as_bytes(),
            self.origin.as_bytes(),
            &self.record_offset.to_le_bytes(),
            &self.record_index.to_le_bytes(),
            self.code.as_bytes(),
            self.reason.as_bytes(),
        ];
        let hash = u128::from_be_bytes(digest128("counterflow 2026 reject", &parts));
        format!("{}-{:016x}", self.epoch, hash >> 64)
    }

    fn key(&self) -> RejectKey {
        let (tenant, source, origin) = (self.tenant.clone(), self.source.clone(), self.origin.clone());
        (tenant, source, origin, self.record_offset, self.record_index, self.epoch)
    }

    fn raw(&self) -> Result<Bytes> {
        let Some(hex) = &self.raw_hex else { return Ok(Bytes::from(self.raw.clone().into_bytes())) };
        let byte = |at: usize| hex.get(at..at + 2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let bytes: Option<Vec<u8>> = (0..hex.len()).step_by(2).map(byte).collect();
        bytes.map(Bytes::from).context("the bytes of a reject in history are damaged")
    }

    /// Whether it can go through again, or why not.
    fn way(&self) -> Result<(), &'static str> {
        let length = self.raw_hex.as_ref().map_or(self.raw.len(), |hex| hex.len() / 2);
        if !UNDECODED.contains(&self.code.as_str()) {
            Err("its event was taken in; only a correlation refused it")
        } else if length >= Reject::RAW_BYTES_MAX {
            Err("it is longer than what is kept of a reject: send it again")
        } else {
            Ok(())
        }
    }

    /// The record as it came, as far as history knows: how it was framed follows from its source, and a year that only the
    /// file knew is that of its receipt.
    fn retry(&self) -> Result<Retry> {
        let origin = Origin {
            tenant: Tenant::new(&self.tenant),
            source: Arc::from(self.source.as_str()),
            received_at: Time::from_micros(self.received_us),
            year: None,
            framing: match self.source.as_str() {
                "http" => Framing::Http,
                "syslog" => Framing::Syslog,
                _ if self.origin.contains(".evtx") => Framing::Evtx,
                _ => Framing::Record,
            },
        };
        let position = Position {
            origin: Arc::from(self.origin.as_str()),
            offset: self.record_offset,
            line: self.line,
            index: self.record_index,
        };
        Ok(Retry { epoch: self.epoch, record: Record { origin: Arc::new(origin), position, bytes: self.raw()? } })
    }
}

/// For the API: asked on the runtime, few at a time, because each answer may read much of history.
pub(crate) struct Asked {
    data: PathBuf,
    turns: Arc<Semaphore>,
    runtime: Handle,
}

/// Questions about rejects that are worked on at once; others wait.
const ASKED_MAX: usize = 2;

impl Asked {
    pub(crate) fn new(data: PathBuf, runtime: Handle) -> Arc<Asked> {
        Arc::new(Asked { data, turns: Arc::new(Semaphore::new(ASKED_MAX)), runtime })
    }

    /// Does the work when it is its turn.
    fn answer<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, RejectsError>> + Send + 'static,
    ) -> RejectsAnswer<T> {
        let (answer, answered) = oneshot::channel();
        let turns = Arc::clone(&self.turns);
        self.runtime.spawn(async move {
            let Ok(_turn) = turns.acquire().await else { return };
            // Whoever asked may be gone.
            drop(answer.send(work.await));
        });
        answered
    }
}

fn failed(error: anyhow::Error) -> RejectsError {
    match error.downcast_ref::<LedgerError>() {
        Some(LedgerError::Fact { .. }) => RejectsError::Invalid(format!("{error:#}")),
        _ => RejectsError::Failed(format!("{error:#}")),
    }
}

impl cf_api::Rejects for Asked {
    fn list(&self, filter: RejectFilter) -> RejectsAnswer<Value> {
        let data = self.data.clone();
        self.answer(async move {
            let rejects = Rejects::open(&data).await.map_err(failed)?;
            let list = rejects.list(&filter).await.map_err(failed)?;
            Ok(json!({"rejects": list, "counts": rejects.counts(&filter).await.map_err(failed)?}))
        })
    }

    fn show(&self, id: String) -> RejectsAnswer<Option<Value>> {
        let data = self.data.clone();
        self.answer(async move { Rejects::open(&data).await.map_err(failed)?.show(&id).await.map_err(failed) })
    }

    fn retry(&self, request: RetryRequest) -> RejectsAnswer<Value> {
        let data = self.data.clone();
        self.answer(async move {
            let filter = request.filter();
            check(&request.ids, &filter, request.all).map_err(|why| RejectsError::Invalid(why.to_string()))?;
            let rejects = Rejects::open(&data).await.map_err(failed)?;
            let who = (request.author.as_deref().unwrap_or("api"), request.reason.as_str());
            rejects.retry(&data, &request.ids, &filter, who).await.map_err(failed)
        })
    }
}

/// Refuses what would let everything go through without anybody having said so.
pub(crate) fn check(ids: &[String], filter: &RejectFilter, all: bool) -> Result<(), Failed> {
    let filtered = filter.source.is_some()
        || filter.code.is_some()
        || filter.reason.is_some()
        || filter.from.is_some()
        || filter.to.is_some();
    match (ids.is_empty(), filtered, all) {
        (true, false, false) => {
            Err(Failed("name rejects by id, give a filter, or say that all shall go through".to_owned()))
        }
        (false, true, _) | (false, _, true) => Err(Failed("give ids or a filter, not both".to_owned())),
        _ => Ok(()),
    }
}
