//! Looking back: events of before that meet an indicator which is said only now (DET-04).
//!
//! The graph meets events with the indicators of their epoch; a thread here meets what history holds of the epochs before
//! with the new ones. It waits until history has those epochs, reads them once for all indicators that are new, and
//! writes what it found into the control log, in slices, as any other fact: so it enters the graph with a later epoch,
//! and a replay does not look again. The last slice says up to which entry of the control log all is answered; each
//! slice before it says where the next goes on. So a look-up that is interrupted, be it by a kill, goes on behind its
//! last slice, and what is not answered at a start is looked up then.
//!
//! Bounds: events of the last [`DAYS_MAX`] days; so many found in one reading of history ([`SLICES_READ`] slices), the
//! oldest first, and then the next reading. Rows of before history had URLs (version 1 of its schema) are found by their
//! entities alone.

use std::{
    collections::VecDeque,
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
/// Slices that are found with one reading of history.
const SLICES_READ: usize = 10;
/// How long the slices of a look-up lie apart: longer than an epoch gathers, so that each enters with an epoch of its own.
const SLICE_EVERY: Duration = Duration::from_millis(100);
/// How long to wait after a failure.
const RETRY_AFTER: Duration = Duration::from_secs(10);
/// Values that are asked for by name; with more, all events with entities are read and sifted.
const NAMED_MAX: usize = 500;

/// Indicators that came with an epoch.
pub(crate) struct Question {
    /// All indicators up to this entry of the control log were answered before.
    since: i64,
    /// The last entry of the control log among them.
    upto: i64,
    /// The first epoch that met them: those before did not.
    epoch: Epoch,
    /// The indicators.
    pub(crate) facts: Vec<Fact>,
    /// Events up to this place are looked up.
    after: Option<Place>,
}

impl Question {
    fn join(&mut self, more: Question) {
        self.since = self.since.min(more.since);
        self.upto = self.upto.max(more.upto);
        self.epoch = self.epoch.max(more.epoch);
        self.facts.extend(more.facts);
    }
}

/// Where an event stands in the order in which events are looked up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Place {
    micros: i64,
    origin: String,
    offset: u64,
    index: u32,
}

/// How far a look-up has come that is not at its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    since: i64,
    upto: i64,
    epoch: Epoch,
    after: Place,
}

/// An entry of the control log.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    /// All indicators up to this entry are answered; 0 while more slices come.
    upto: i64,
    /// What was found.
    found: Vec<Detection>,
    /// Where the next slice begins, if there is one. Answers of before have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    progress: Option<Progress>,
}

/// The thread that looks back.
pub(crate) struct Lookup {
    questions: Sender<Question>,
}

impl Lookup {
    /// Starts it over a data folder. `durable` is the last epoch that history holds, `slice` how many detections enter
    /// with one epoch. It ends with the one who asks.
    pub(crate) fn start(data: &Path, durable: Arc<AtomicU64>, slice: usize) -> Result<Lookup> {
        let (questions, waiting) = mpsc::channel();
        let data = data.to_path_buf();
        // Detached: it holds nothing that must be given back, and what it has not answered is asked again at a start.
        thread::Builder::new()
            .name("lookup".to_owned())
            .spawn(move || answer_all(&data, &waiting, &durable, slice.max(1)))
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
    let since = entries.first().map_or(0, |entry| entry.seq.saturating_sub(1));
    let mut question = Question { since, upto: 0, epoch, facts: Vec::new(), after: None };
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

/// What is not answered to its end, of the entries behind [`Unanswered::since`].
pub(crate) fn questions_again(
    entries: &[ControlEntry],
    unanswered: &Unanswered,
    epoch: Epoch,
) -> Result<Vec<Question>> {
    let Some(Progress { since, upto, epoch: began, after }) = unanswered.begun.clone() else {
        return Ok(vec![question(entries, epoch)?]);
    };
    let (begun, rest) = entries.split_at(entries.partition_point(|entry| entry.seq <= upto));
    let begun = Question { since, upto, after: Some(after), ..question(begun, began)? };
    Ok(vec![begun, question(rest, epoch)?])
}

/// Where the answers end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unanswered {
    /// All indicators up to this entry of the control log are answered.
    pub(crate) since: i64,
    /// A look-up that was interrupted.
    begun: Option<Progress>,
}

/// Where the answers end, from the last of them; `None` if that one does not say it.
pub(crate) fn unanswered(last: Option<&ControlEntry>) -> Result<Option<Unanswered>> {
    let Some(last) = last else { return Ok(Some(Unanswered { since: 0, begun: None })) };
    let answer = read(last)?;
    Ok(match answer.progress {
        Some(begun) => Some(Unanswered { since: begun.since, begun: Some(begun) }),
        None => (answer.upto > 0).then_some(Unanswered { since: answer.upto, begun: None }),
    })
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

/// The same from all answers, as they were before each said it.
pub(crate) fn unanswered_of_all(entries: &[ControlEntry]) -> Result<Unanswered> {
    let upto = entries.iter().map(|entry| Ok(read(entry)?.upto)).collect::<Result<Vec<_>>>()?;
    Ok(Unanswered { since: upto.into_iter().max().unwrap_or(0), begun: None })
}

fn read(entry: &ControlEntry) -> Result<Answer> {
    serde_json::from_str(&entry.body).with_context(|| format!("look-up {} of the control log is damaged", entry.seq))
}

fn answer_all(data: &Path, waiting: &Receiver<Question>, durable: &AtomicU64, slice: usize) {
    let mut later = VecDeque::new();
    while let Some(mut question) = later.pop_front().or_else(|| waiting.recv().ok()) {
        // What comes meanwhile is read with it: one pass over history for all. One that has begun goes on as it was.
        while question.after.is_none() && durable.load(Ordering::Acquire).saturating_add(1) < question.epoch {
            let more = later.pop_front().map_or_else(|| waiting.recv_timeout(Duration::from_millis(50)), Ok);
            match more {
                Ok(more) => question.join(more),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
        while let Err(error) = answer(data, &mut question, slice) {
            tracing::error!(error = %format!("{error:#}"), "events of before were not all looked up; tried again soon");
            match waiting.recv_timeout(RETRY_AFTER) {
                Ok(more) => later.push_back(more),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }
}

/// Answers to the end; after an error it goes on where it was.
fn answer(data: &Path, question: &mut Question, slice: usize) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let (mut log, mut found) = (ControlLog::open(data).await?, 0);
        loop {
            let Sift { found: mut page, full, .. } = sift(data, question, slice.saturating_mul(SLICES_READ)).await?;
            found += page.len();
            while full || page.len() > slice {
                let first = first_slice(&mut page, slice);
                let Some(after) = first.last().map(|(place, _)| place.clone()) else { break };
                let Question { since, upto, epoch, .. } = *question;
                let progress = Some(Progress { since, upto, epoch, after: after.clone() });
                let found = first.into_iter().map(|(_, detection)| detection).collect();
                append(&mut log, &Answer { upto: 0, found, progress }).await?;
                question.after = Some(after);
                tokio::time::sleep(SLICE_EVERY).await;
            }
            if !full {
                tracing::info!(indicators = question.facts.len(), found, "events of before were looked up");
                let found = page.into_iter().map(|(_, detection)| detection).collect();
                return append(&mut log, &Answer { upto: question.upto, found, progress: None }).await;
            }
        }
    })
}

/// Reads history from where the question stands, until so much is found.
async fn sift(data: &Path, question: &Question, found_max: usize) -> Result<Sift> {
    let mut sift = Sift::new(&question.facts, found_max);
    let session = cf_queries::Session::open(cf_history::Place::of_data(data)?, cf_queries::Options::default())?;
    let mut rows = session.query(&statement(question)).await?;
    let written = cf_queries::write_json_lines(&mut rows, &mut sift).await;
    // Full, it wanted no more rows; that is no failure.
    if !sift.full {
        let _rows = written?;
    }
    Ok(sift)
}

/// Takes the first `slice` detections off, and those of the last one's event.
fn first_slice(page: &mut Vec<(Place, Detection)>, slice: usize) -> Vec<(Place, Detection)> {
    let last = page.get(slice.min(page.len()).saturating_sub(1)).map(|(place, _)| place.clone());
    let end = page.partition_point(|(place, _)| Some(place) <= last.as_ref());
    let rest = page.split_off(end);
    std::mem::replace(page, rest)
}

async fn append(log: &mut ControlLog, answer: &Answer) -> Result<()> {
    log.append(ANSWER, &serde_json::to_string(answer)?, "engine", "events before an indicator", clock::now()).await?;
    Ok(())
}

/// What is read of history: as little as the indicators allow.
fn statement(question: &Question) -> String {
    let Question { epoch, facts, after, .. } = question;
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
    let behind = after.as_ref().map_or_else(String::new, |Place { micros, origin, offset, index }| {
        let (time, origin) = (Time::from_micros(*micros), origin.replace('\'', "''"));
        format!(
            " AND time >= CAST('{time}' AS timestamp)
              AND (CAST(time AS BIGINT) > {micros} OR (CAST(time AS BIGINT) = {micros}
                   AND (origin > '{origin}' OR (origin = '{origin}'
                        AND (record_offset > {offset} OR (record_offset = {offset} AND record_index > {index}))))))"
        )
    });
    format!(
        "SELECT tenant, source, event_id, event_identity(tenant, source, event_id, id, raw) AS id, id IS NULL AS declared,
                CAST(time AS BIGINT) AS micros, origin, line, record_offset, record_index, entities, urls
         FROM events
         WHERE epoch < {epoch} AND ({wanted})
           AND time > (SELECT max(time) FROM events) - INTERVAL '{DAYS_MAX} days'{behind}
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

/// Takes rows as JSON lines, in their order, and keeps what meets an indicator.
struct Sift {
    table: IndicatorTable,
    line: Vec<u8>,
    found: Vec<(Place, Detection)>,
    found_max: usize,
    /// So much is found that no more rows are taken.
    full: bool,
}

impl Sift {
    fn new(facts: &[Fact], found_max: usize) -> Sift {
        let mut table = IndicatorTable::default();
        facts.iter().for_each(|fact| table.change(fact, 1));
        Sift { table, line: Vec::new(), found: Vec::new(), found_max, full: false }
    }

    fn take(&mut self, line: &[u8]) -> io::Result<()> {
        if self.found.len() >= self.found_max {
            self.full = true;
            return Err(io::Error::other("enough is found for one reading"));
        }
        let row: Row = serde_json::from_slice(line)?;
        let entities = row.entities.iter().filter_map(|text| text.parse().ok()).collect();
        let place = Place {
            micros: row.micros,
            origin: row.origin.clone(),
            offset: row.record_offset,
            index: row.record_index,
        };
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
        let mut met = Vec::new();
        self.table.find((&tenant, &source), &member, entities, urls, &mut met);
        self.found.extend(met.into_iter().map(|detection| (place.clone(), detection)));
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

#[cfg(test)]
mod tests {
    use cf_types::Said;

    use super::*;

    fn entry(seq: i64, kind: &str, body: String) -> ControlEntry {
        let (author, reason) = ("tester".to_owned(), String::new());
        ControlEntry { seq, kind: kind.to_owned(), body, author, reason, at: Time::from_seconds(seq) }
    }

    fn indicator(seq: i64) -> ControlEntry {
        let said = Said::read("indicator", format!(r#"{{"value":"10.0.0.{seq}"}}"#).as_bytes()).unwrap();
        let fact = Fact { tenant: Tenant::default(), body: said.body };
        entry(seq, cf_ledger::control::FACT_ADD, serde_json::to_string(&fact).unwrap())
    }

    fn place(offset: u64) -> Place {
        Place { micros: 5, origin: "spool".to_owned(), offset, index: 0 }
    }

    fn detection(offset: u64) -> (Place, Detection) {
        let position = Position { origin: "spool".into(), offset, line: 0, index: 0 };
        let id = EventId([u8::try_from(offset).unwrap(); 16]);
        let member = Member { time: Time::from_micros(5), id, declared_id: None, position };
        let (tenant, rule, source) = (Tenant::default(), "indicator".into(), "http".into());
        (place(offset), Detection { tenant, rule, member, source, entities: Vec::new(), items: Vec::new() })
    }

    #[test]
    fn a_slice_ends_with_an_event() {
        let mut page: Vec<_> = [1, 2, 2, 2, 3, 4].map(detection).into();
        let mut slices = Vec::new();
        while !page.is_empty() {
            let slice = first_slice(&mut page, 2);
            slices.push(slice.iter().map(|(place, _)| place.offset).collect::<Vec<_>>());
        }
        assert_eq!(slices, [vec![1, 2, 2, 2], vec![3, 4]]);
        assert_eq!(first_slice(&mut page, 2), []);
    }

    #[test]
    fn what_was_interrupted_goes_on_and_what_came_after_it_is_asked() {
        let upto = |answer: &Answer| entry(90, ANSWER, serde_json::to_string(answer).unwrap());
        let seqs = |question: &Question| (question.facts.len(), question.upto, question.epoch, question.after.clone());
        let entries = [indicator(3), indicator(4), entry(5, "silence", "{}".to_owned()), indicator(6)];

        // Nothing was answered yet.
        let none = unanswered(None).unwrap().unwrap();
        assert_eq!(none.since, 0);
        let again = questions_again(&entries, &none, 50).unwrap();
        assert_eq!(again.iter().map(seqs).collect::<Vec<_>>(), [(3, 6, 50, None)]);

        // The first two were being looked up.
        let progress = Some(Progress { since: 2, upto: 4, epoch: 40, after: place(7) });
        let begun = unanswered(Some(&upto(&Answer { upto: 0, found: Vec::new(), progress }))).unwrap().unwrap();
        assert_eq!(begun.since, 2);
        let again = questions_again(&entries, &begun, 50).unwrap();
        assert_eq!(again.iter().map(seqs).collect::<Vec<_>>(), [(2, 4, 40, Some(place(7))), (1, 6, 50, None)]);

        // All were, up to an entry.
        let whole = upto(&Answer { upto: 4, found: Vec::new(), progress: None });
        assert_eq!(unanswered(Some(&whole)).unwrap(), Some(Unanswered { since: 4, begun: None }));
        // A slice of before did not say where it stood; then all answers say it together.
        let old = entry(91, ANSWER, r#"{"upto":0,"found":[],"cut":false}"#.to_owned());
        assert_eq!(unanswered(Some(&old)).unwrap(), None);
        assert_eq!(unanswered_of_all(&[whole, old]).unwrap(), Unanswered { since: 4, begun: None });
    }
}
