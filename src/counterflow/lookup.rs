//! Looking back: events of before that meet an indicator which is said only now (DET-04).
//!
//! The graph meets events with the indicators of their epoch; a thread here meets what history holds of the epochs before
//! with the new ones. It waits until history has those epochs, reads them once for all indicators that are new, and
//! writes what it found into the control log, in slices, as any other fact: so it enters the graph with a later epoch,
//! and a replay does not look again. The last slice says up to which entry of the control log all is answered; what is
//! not answered at a start is looked up then.
//!
//! Bounds: events of the last [`DAYS_MAX`] days and at most [`FOUND_MAX`] found at once, the oldest first; what is left
//! out is said. Rows of before history had URLs (version 1 of its schema) are found by their entities alone.

use std::{
    io::{self, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use cf_dataflows::IndicatorTable;
use cf_ledger::{ControlEntry, ControlLog};
use cf_types::{Detection, Epoch, EventId, Fact, FactBody, Member, Position, Tenant, Time, clock, fact::Pattern};
use serde::{Deserialize, Serialize};

/// What the control log calls an answer.
pub(crate) const ANSWER: &str = "indicator_lookup";

/// How far back events are looked at, in days before the newest.
const DAYS_MAX: i64 = 30;
/// Events found by one look-up.
const FOUND_MAX: usize = 10_000;
/// Detections of one entry of the control log, so that no epoch gets all at once.
const SLICE: usize = 200;
/// Values that are asked for by name; with more, all events with entities are read and sifted.
const NAMED_MAX: usize = 500;

/// Indicators that came with an epoch.
pub(crate) struct Question {
    /// The last entry of the control log among them.
    pub(crate) upto: i64,
    /// The first epoch that met them: those before did not.
    pub(crate) epoch: Epoch,
    /// The indicators.
    pub(crate) facts: Vec<Fact>,
}

impl Question {
    fn join(&mut self, more: Question) {
        self.upto = self.upto.max(more.upto);
        self.epoch = self.epoch.max(more.epoch);
        self.facts.extend(more.facts);
    }
}

/// An entry of the control log.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Answer {
    /// All indicators up to this entry are answered; 0 while more slices come.
    upto: i64,
    /// What was found.
    found: Vec<Detection>,
    /// Whether there was more than may be found at once.
    cut: bool,
}

/// The thread that looks back.
pub(crate) struct Lookup {
    questions: Sender<Question>,
}

impl Lookup {
    /// Starts it over a data folder. `durable` is the last epoch that history holds. It ends with the
    /// one who asks.
    pub(crate) fn start(data: &Path, durable: Arc<AtomicU64>) -> Result<Lookup> {
        let (questions, waiting) = mpsc::channel();
        let data = data.to_path_buf();
        // Detached: it holds nothing that must be given back, and what it has not answered is asked again at a start.
        thread::Builder::new()
            .name("lookup".to_owned())
            .spawn(move || answer_all(&data, &waiting, &durable))
            .context("could not start the look-up thread")?;
        Ok(Lookup { questions })
    }

    /// Asks; the answer comes through the control log.
    pub(crate) fn ask(&self, question: Question) {
        if !question.facts.is_empty() && self.questions.send(question).is_err() {
            tracing::error!("the look-up thread has died: new indicators find only new events until a restart");
        }
    }
}

/// The indicators among control-log entries that begin to hold, as a question.
pub(crate) fn question(entries: &[ControlEntry], epoch: Epoch) -> Result<Question> {
    let mut question = Question { upto: 0, epoch, facts: Vec::new() };
    for entry in entries {
        if let Some((fact, 1)) = entry.fact()?
            && matches!(fact.body, FactBody::Indicator(_))
        {
            question.upto = entry.seq;
            question.facts.push(fact);
        }
    }
    Ok(question)
}

/// What answers among control-log entries found: for indicators, for rules that are warmed, and what hunts found.
pub(crate) fn found(entries: &[ControlEntry]) -> Result<Vec<Detection>> {
    let mut found = Vec::new();
    for entry in entries.iter().filter(|entry| entry.kind == ANSWER) {
        found.extend(read(entry)?.found);
    }
    found.extend(crate::warm::found(entries)?);
    found.extend(crate::hunts::found(entries)?);
    Ok(found)
}

/// Up to which entry of the control log all is answered.
pub(crate) fn answered(entries: &[ControlEntry]) -> Result<i64> {
    let upto = entries.iter().map(|entry| Ok(read(entry)?.upto)).collect::<Result<Vec<_>>>()?;
    Ok(upto.into_iter().max().unwrap_or(0))
}

fn read(entry: &ControlEntry) -> Result<Answer> {
    serde_json::from_str(&entry.body).with_context(|| format!("look-up {} of the control log is damaged", entry.seq))
}

fn answer_all(data: &Path, waiting: &Receiver<Question>, durable: &AtomicU64) {
    while let Ok(mut question) = waiting.recv() {
        // What comes meanwhile is read with it: one pass over history for all.
        while durable.load(Ordering::Acquire).saturating_add(1) < question.epoch {
            match waiting.recv_timeout(Duration::from_millis(50)) {
                Ok(more) => question.join(more),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
        if let Err(error) = answer(data, &question) {
            tracing::error!(error = %format!("{error:#}"), "events of before were not looked up; a restart tries again");
        }
    }
}

fn answer(data: &Path, question: &Question) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let mut sift = Sift::new(&question.facts);
        let session = cf_queries::Session::open(cf_history::Place::of_data(data)?, cf_queries::Options::default())?;
        let mut rows = session.query(&statement(question)).await?;
        cf_queries::write_json_lines(&mut rows, &mut sift).await?;
        let Sift { found, cut, .. } = sift;
        tracing::info!(indicators = question.facts.len(), found = found.len(), cut, "events of before were looked up");
        record(data, question, found, cut).await
    })
}

/// Writes an answer in slices; the last one says that it is whole.
async fn record(data: &Path, question: &Question, found: Vec<Detection>, cut: bool) -> Result<()> {
    let mut log = ControlLog::open(data).await?;
    let mut slices: Vec<Vec<Detection>> = found.chunks(SLICE).map(<[_]>::to_vec).collect();
    let last = slices.pop().unwrap_or_default();
    for found in slices {
        append(&mut log, &Answer { found, ..Answer::default() }).await?;
        // Longer than an epoch gathers: the next slice enters with another.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    append(&mut log, &Answer { upto: question.upto, found: last, cut }).await
}

async fn append(log: &mut ControlLog, answer: &Answer) -> Result<()> {
    log.append(ANSWER, &serde_json::to_string(answer)?, "engine", "events before an indicator", clock::now()).await?;
    Ok(())
}

/// What is read of history: as little as the indicators allow.
fn statement(question: &Question) -> String {
    let Question { epoch, facts, .. } = question;
    let wanted = match named(facts).filter(|named| named.entities.len() + named.urls.len() <= NAMED_MAX) {
        Some(Named { entities, urls, hosts }) => {
            let by_entity = (!entities.is_empty()).then(|| any_of("entities", &entities));
            let by_url = (!urls.is_empty() && !hosts).then(|| any_of("urls", &urls));
            let by_host = hosts.then(|| "cardinality(urls) > 0".to_owned());
            let by: Vec<String> = [by_entity, by_url, by_host].into_iter().flatten().collect();
            if by.is_empty() { "false".to_owned() } else { by.join(" OR ") }
        }
        None => "cardinality(entities) > 0 OR cardinality(urls) > 0".to_owned(),
    };
    format!(
        "SELECT tenant, source, event_id, event_identity(tenant, source, event_id, id, raw) AS id, id IS NULL AS declared,
                CAST(time AS BIGINT) AS micros, origin, line, record_offset, record_index, entities, urls
         FROM events
         WHERE epoch < {epoch} AND ({wanted})
           AND time > (SELECT max(time) FROM events) - INTERVAL '{DAYS_MAX} days'
         ORDER BY time, origin, record_offset, record_index"
    )
}

/// By what events can be asked for.
#[derive(Default)]
struct Named {
    entities: Vec<String>,
    urls: Vec<String>,
    /// Whether some are hosts, which may stand in any URL: which one, only reading tells.
    hosts: bool,
}

/// The same of indicators, if all of them name what they mean.
fn named(facts: &[Fact]) -> Option<Named> {
    let mut named = Named::default();
    for fact in facts {
        let FactBody::Indicator(indicator) = &fact.body else { continue };
        match &indicator.pattern {
            Pattern::Hash(hash) => named.entities.push(format!("file_hash:{hash}")),
            Pattern::Url(url) => named.urls.push(url.to_string()),
            Pattern::Address(network) if network.prefix_len() == network.max_prefix_len() => {
                named.entities.push(format!("address:{}", network.addr()));
                named.hosts = true;
            }
            Pattern::Domain(name) if !name.starts_with("*.") => {
                named.entities.push(format!("domain:{name}"));
                named.hosts = true;
            }
            Pattern::Address(_) | Pattern::Domain(_) => return None,
        }
    }
    Some(named)
}

fn any_of(column: &str, texts: &[String]) -> String {
    let quoted: Vec<String> = texts.iter().map(|text| format!("'{}'", text.replace('\'', "''"))).collect();
    format!("array_has_any({column}, make_array({}))", quoted.join(", "))
}

/// A row of history.
#[derive(Deserialize)]
struct Row {
    tenant: String,
    source: String,
    event_id: String,
    id: EventId,
    declared: bool,
    micros: i64,
    origin: String,
    line: u64,
    record_offset: u64,
    record_index: u32,
    entities: Vec<String>,
    urls: Option<Vec<String>>,
}

/// Takes rows as JSON lines and keeps what meets an indicator.
struct Sift {
    table: IndicatorTable,
    line: Vec<u8>,
    found: Vec<Detection>,
    cut: bool,
}

impl Sift {
    fn new(facts: &[Fact]) -> Sift {
        let mut table = IndicatorTable::default();
        facts.iter().for_each(|fact| table.change(fact, 1));
        Sift { table, line: Vec::new(), found: Vec::new(), cut: false }
    }

    fn take(&mut self, line: &[u8]) -> io::Result<()> {
        let row: Row = serde_json::from_slice(line)?;
        if self.found.len() >= FOUND_MAX {
            self.cut = true;
            return Ok(());
        }
        let entities = row.entities.iter().filter_map(|text| text.parse().ok()).collect();
        let member = Member {
            time: Time::from_micros(row.micros),
            id: row.id,
            declared_id: row.declared.then(|| row.event_id.into()),
            position: Position {
                origin: row.origin.into(),
                offset: row.record_offset,
                line: row.line,
                index: row.record_index,
            },
        };
        let (tenant, source) = (Tenant::new(&row.tenant), row.source.into());
        let urls = row.urls.iter().flatten().map(String::as_str);
        self.table.find((&tenant, &source), &member, entities, urls, &mut self.found);
        Ok(())
    }
}

impl Write for Sift {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if self.line.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                self.take(&line)?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
