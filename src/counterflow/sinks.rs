//! Alerts, incidents and actions into topics of Kafka: each sink a thread of its own, fed from what the ledger notes.
//!
//! In: changes behind the sink's cursor. Out: records by key, a batch at a time; then the cursor moves. Key: the id. Memory:
//! one batch ([`BATCH_BYTES`]), however long the brokers are away. A sink never holds up an epoch.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use cf_fail as fail;
use cf_kafka::{KafkaSinkSettings, NotDelivered, Outgoing, Sink, SinkWatch};
use cf_ledger::{Change, ChangeKind, Cursor, Ledger, LedgerError, Reader, SinkReject};
use cf_types::clock;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// What is left in the data folder for `sinks list`.
pub(crate) const FILE: &str = "sinks.json";
/// Ids of one batch at most.
const BATCH_IDS: u32 = 500;
/// Bytes of one batch, about: the revisions of one id may go beyond it.
const BATCH_BYTES: usize = 4 << 20;
/// How often the ledger is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often it is looked whether somebody wants everything again, and how the sinks stand is told.
const NOTE_EVERY: Duration = Duration::from_secs(1);
/// How long an end waits for what is left to be taken.
const END: Duration = Duration::from_secs(5);
/// The longest pause between two tries of a batch.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// What a record keeps that is too long to be sent whole.
const KEPT: &[&str] = &[
    "record",
    "id",
    "number",
    "incident_id",
    "action_id",
    "tenant",
    "thread",
    "revision",
    "epoch",
    "at",
    "state",
    "superseded_by",
    "incident",
    "redirect",
];

/// One sink of the settings.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SinkSettings {
    /// Topics of a Kafka cluster.
    pub(crate) kafka: Option<KafkaSinkSettings>,
}

impl SinkSettings {
    /// What is wrong with it, in a sentence each.
    pub(crate) fn problems(&self, name: &str) -> Vec<String> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let mut problems = Vec::new();
        if !(1..=64).contains(&name.len()) || !name.chars().all(fits) {
            problems.push(format!("sinks.{name}: a name has 1 to 64 letters, digits, `.`, `_`, `-`"));
        }
        match &self.kafka {
            Some(kafka) => problems.extend(kafka.problems(name)),
            None => problems.push(format!("sinks.{name} says nowhere to; name a cluster under kafka")),
        }
        problems
    }
}

/// How the sinks stand.
#[derive(Default)]
pub(crate) struct Board {
    inner: Mutex<BTreeMap<String, Standing>>,
}

struct Standing {
    settings: KafkaSinkSettings,
    watch: SinkWatch,
    /// Changes that are not told yet.
    behind: i64,
    sent: u64,
    rejects: usize,
    /// Why the last batch did not go: a state and words.
    failing: Option<(&'static str, String)>,
}

impl Standing {
    /// One word for how it is, and what is wrong.
    fn state(&self) -> (&'static str, Option<String>) {
        match (self.watch.trouble(), &self.failing) {
            (Some((state, why)), _) => (state, Some(why)),
            (None, Some((state, why))) => (state, Some(why.clone())),
            (None, None) => (if self.behind > 0 { "sending" } else { "current" }, None),
        }
    }
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Standing>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with(&self, name: &str, change: impl FnOnce(&mut Standing)) {
        if let Some(standing) = self.lock().get_mut(name) {
            change(standing);
        }
    }

    /// One row for each sink.
    pub(crate) fn rows(&self) -> Vec<Value> {
        let row = |(name, standing): (&String, &Standing)| {
            let (state, says) = standing.state();
            json!({
                "sink": name, "kind": "kafka", "topics": standing.settings.topics, "state": state,
                "behind": standing.behind, "sent": standing.sent, "rejects": standing.rejects, "last_error": says,
            })
        };
        self.lock().iter().map(row).collect()
    }

    /// One line for health, and whether all is well.
    pub(crate) fn summary(&self) -> (bool, String) {
        let sinks = self.lock();
        let troubled = sinks.iter().find_map(|(name, standing)| match standing.state() {
            (state, Some(why)) => Some(format!("{name}: {state}, {} changes wait: {why}", standing.behind)),
            (_, None) => None,
        });
        let behind: i64 = sinks.values().map(|standing| standing.behind).sum();
        (troubled.is_none(), troubled.unwrap_or_else(|| format!("{} sinks, {behind} changes wait", sinks.len())))
    }

    /// Changes that each sink was not told yet, for metrics.
    pub(crate) fn behind(&self) -> Vec<(String, u64)> {
        let count = |behind: i64| u64::try_from(behind).unwrap_or(0);
        self.lock().iter().map(|(name, standing)| (name.clone(), count(standing.behind))).collect()
    }

    fn leave(&self, file: &Path) {
        let told = json!({"at": clock::now(), "pid": std::process::id(), "sinks": self.rows()});
        let fresh = file.with_extension("json.new");
        let left = std::fs::write(&fresh, told.to_string()).and_then(|()| std::fs::rename(&fresh, file));
        if let Err(error) = left {
            tracing::debug!(%error, "how the sinks stand could not be left in the data folder");
        }
    }
}

/// All sinks of a running engine.
pub(crate) struct Sinks {
    board: Arc<Board>,
    ending: Arc<Ending>,
    threads: Vec<thread::JoinHandle<()>>,
    noting: Option<thread::JoinHandle<()>>,
}

/// Whether and since when it shall end.
#[derive(Default)]
struct Ending {
    asked: AtomicBool,
    since: Mutex<Option<Instant>>,
    noted: AtomicBool,
}

impl Ending {
    fn ask(&self) {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.asked.store(true, Ordering::Release);
    }

    fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    /// Whether the time for what is left is over, too.
    fn is_over(&self) -> bool {
        let since = *self.since.lock().unwrap_or_else(PoisonError::into_inner);
        since.is_some_and(|since| since.elapsed() >= END)
    }
}

impl Sinks {
    /// Starts a thread for each sink of the settings.
    pub(crate) fn start(
        settings: &BTreeMap<String, SinkSettings>,
        data: &Path,
        ledger: &Ledger,
        runtime: &Arc<Runtime>,
    ) -> Result<Sinks> {
        let (board, ending) = (Arc::<Board>::default(), Arc::<Ending>::default());
        let mut sinks = Sinks { board, ending, threads: Vec::new(), noting: None };
        let reader = runtime.block_on(ledger.reader())?;
        for (name, kafka) in settings.iter().filter_map(|(name, sink)| Some((name, sink.kafka.clone()?))) {
            let sink = Sink::open(name, &kafka)?;
            let topics = serde_json::to_string(&kafka.topics).context("could not write down topics")?;
            let cursor = runtime.block_on(ledger.sink_register(name, &topics, clock::now()))?;
            let rejects = runtime.block_on(reader.sink_rejects(Some(name)))?.len();
            let standing =
                Standing { settings: kafka.clone(), watch: sink.watch(), behind: 0, sent: 0, rejects, failing: None };
            sinks.board.lock().insert(name.clone(), standing);
            let feed = Feed {
                routes: routes(&kafka),
                name: name.clone(),
                settings: kafka,
                sink,
                cursor,
                ledger: ledger.clone(),
                reader: reader.clone(),
                runtime: Arc::clone(runtime),
                board: Arc::clone(&sinks.board),
                ending: Arc::clone(&sinks.ending),
            };
            let thread = thread::Builder::new().name(format!("sink {name}")).spawn(move || feed.run());
            sinks.threads.push(thread.context("could not start the thread of a sink")?);
        }
        if !sinks.is_empty() {
            sinks.note(data, reader, runtime)?;
        }
        Ok(sinks)
    }

    /// Counts and tells once a second how the sinks stand, also while one waits for its brokers.
    fn note(&mut self, data: &Path, reader: Reader, runtime: &Arc<Runtime>) -> Result<()> {
        let file: PathBuf = data.join(FILE);
        let (board, ending, runtime) = (Arc::clone(&self.board), Arc::clone(&self.ending), Arc::clone(runtime));
        let noting = thread::Builder::new().name("sinks".to_owned()).spawn(move || {
            let mut last: Option<Instant> = None;
            loop {
                let ends = ending.noted.load(Ordering::Acquire);
                if ends || last.is_none_or(|at| at.elapsed() >= NOTE_EVERY) {
                    last = Some(Instant::now());
                    match runtime.block_on(reader.sinks()) {
                        Ok(sinks) => {
                            sinks.iter().for_each(|(name, behind)| board.with(name, |s| s.behind = *behind));
                        }
                        Err(error) => tracing::debug!(%error, "the changes that wait could not be counted"),
                    }
                    board.leave(&file);
                }
                if ends {
                    return;
                }
                thread::sleep(LOOK_EVERY);
            }
        });
        self.noting = Some(noting.context("could not start the thread that notes how sinks stand")?);
        Ok(())
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.threads.is_empty()
    }

    /// How they stand.
    pub(crate) fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// Ends them: what is noted is told if the brokers take it in time, the rest waits in the ledger for the next start.
    pub(crate) fn end(self) {
        self.ending.ask();
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("the thread of a sink has died");
            }
        }
        self.ending.noted.store(true, Ordering::Release);
        if let Some(noting) = self.noting {
            drop(noting.join());
        }
    }
}

fn routes(settings: &KafkaSinkSettings) -> BTreeMap<ChangeKind, Arc<str>> {
    let topics = &settings.topics;
    let of = [
        (ChangeKind::Alert, &topics.alerts),
        (ChangeKind::Incident, &topics.incidents),
        (ChangeKind::Action, &topics.actions),
    ];
    of.into_iter().filter_map(|(kind, topic)| Some((kind, Arc::from(topic.as_deref()?)))).collect()
}

/// One sink's work.
struct Feed {
    name: String,
    settings: KafkaSinkSettings,
    routes: BTreeMap<ChangeKind, Arc<str>>,
    sink: Sink,
    cursor: Cursor,
    ledger: Ledger,
    reader: Reader,
    runtime: Arc<Runtime>,
    board: Arc<Board>,
    ending: Arc<Ending>,
}

impl Feed {
    fn run(mut self) {
        let mut looked = Instant::now();
        let mut pause = LOOK_EVERY;
        while !self.ending.is_over() {
            let ends = self.ending.is_asked();
            let told = self.step(&mut looked);
            match &told {
                Ok(true) => pause = LOOK_EVERY,
                Ok(false) if ends => return,
                Ok(false) => self.wait(LOOK_EVERY),
                // What is left waits in the ledger.
                Err(_) if ends => return,
                Err(why) => {
                    let (state, says) = why.state();
                    if self.fails(state, &says) {
                        tracing::warn!(
                            sink = self.name,
                            state,
                            says,
                            "a sink cannot be told; trying on, nothing is lost"
                        );
                    }
                    self.wait(pause);
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    /// Notes that it fails; says whether that is new.
    fn fails(&self, state: &'static str, says: &str) -> bool {
        let mut is_new = false;
        self.board.with(&self.name, |standing| {
            is_new = standing.failing.as_ref().is_none_or(|(before, _)| *before != state);
            standing.failing = Some((state, says.to_owned()));
        });
        is_new
    }

    /// Waits, but not once it shall end.
    fn wait(&mut self, pause: Duration) {
        let until = Instant::now() + pause;
        while Instant::now() < until && !self.ending.is_asked() {
            thread::sleep(LOOK_EVERY.min(pause));
            self.sink.tend();
        }
    }

    /// Tells one batch; `false` when there is nothing to tell.
    fn step(&mut self, looked: &mut Instant) -> Result<bool, Failure> {
        if looked.elapsed() >= NOTE_EVERY {
            *looked = Instant::now();
            // Somebody may want everything again, or have had the sink forgotten: then it is a new one.
            self.cursor = match self.runtime.block_on(self.reader.sink_cursor(&self.name))? {
                Some(cursor) => cursor,
                None => self.register()?,
            };
        }
        let kinds: BTreeSet<ChangeKind> = self.routes.keys().copied().collect();
        let found = self.runtime.block_on(self.reader.changes(self.cursor, &kinds, BATCH_IDS, BATCH_BYTES))?;
        if found.upto == self.cursor {
            return Ok(false);
        }
        self.deliver(&found.changes)?;
        fail::point("sink.delivered");
        let moved = self.ledger.sink_advance(&self.name, self.cursor, found.upto, clock::now());
        if self.runtime.block_on(moved)? {
            self.cursor = found.upto;
        } else {
            *looked = Instant::now().checked_sub(NOTE_EVERY).unwrap_or(*looked);
        }
        fail::point("sink.advanced");
        self.board.with(&self.name, |standing| standing.failing = None);
        Ok(true)
    }

    fn register(&self) -> Result<Cursor, Failure> {
        let topics = serde_json::to_string(&self.settings.topics)
            .map_err(|error| Failure::Sink("failing", error.to_string()))?;
        Ok(self.runtime.block_on(self.ledger.sink_register(&self.name, &topics, clock::now()))?)
    }

    /// Delivers all records; what the brokers do not take whole goes as much as it may.
    fn deliver(&mut self, changes: &[Change]) -> Result<(), Failure> {
        let mut refused: BTreeSet<usize> = BTreeSet::new();
        loop {
            let Prepared { batch, rejects } = self.prepare(changes, &refused);
            if batch.is_empty() {
                return Ok(());
            }
            let ending = Arc::clone(&self.ending);
            match self.sink.deliver(&batch, &move || ending.is_over()) {
                Ok(()) => {
                    self.board.with(&self.name, |s| s.sent += u64::try_from(batch.len()).unwrap_or(0));
                    return self.note(changes, &rejects);
                }
                Err(NotDelivered::TooLarge(places)) if places.iter().any(|place| !refused.contains(place)) => {
                    refused.extend(places);
                }
                Err(NotDelivered::TooLarge(_)) => {
                    let why = "a topic takes not even records without content: its max.message.bytes is too small";
                    return Err(Failure::Sink("failing", why.to_owned()));
                }
                Err(NotDelivered::Stopped) => return Err(Failure::Sink("failing", "stopped".to_owned())),
                Err(NotDelivered::Topic(why)) => return Err(Failure::Sink("topic_missing", why)),
                Err(NotDelivered::Failed(why)) => return Err(Failure::Sink("failing", why)),
            }
        }
    }

    /// Notes what went without its content, and that what went whole is well.
    fn note(&self, changes: &[Change], rejects: &[SinkReject]) -> Result<(), Failure> {
        let mut known = 0;
        self.board.with(&self.name, |standing| known = standing.rejects);
        if rejects.is_empty() && known == 0 {
            return Ok(());
        }
        let told: Vec<_> = changes.iter().map(|change| (change.kind, change.id.clone())).collect();
        self.runtime.block_on(self.ledger.sink_rejects_put(&self.name, &told, rejects))?;
        let count = self.runtime.block_on(self.reader.sink_rejects(Some(&self.name)))?.len();
        self.board.with(&self.name, |standing| standing.rejects = count);
        Ok(())
    }

    fn prepare(&self, changes: &[Change], refused: &BTreeSet<usize>) -> Prepared {
        let max = usize::try_from(self.settings.record_bytes_max).unwrap_or(usize::MAX);
        let mut prepared = Prepared::default();
        for change in changes {
            let Some(topic) = self.routes.get(&change.kind) else { continue };
            let records = change.records.len();
            for (index, record) in change.records.iter().enumerate() {
                let mut value = record.as_ref().map(|record| record.to_string().into_bytes());
                let length = value.as_ref().map_or(0, Vec::len);
                let is_refused = refused.contains(&prepared.batch.len());
                if let Some(record) = record.as_ref().filter(|_| length > max || is_refused) {
                    value = Some(cut(record, length).to_string().into_bytes());
                    // Of an id the last one says how it stands.
                    if index + 1 == records {
                        prepared.rejects.push(self.reject(change, record, length, is_refused));
                    }
                }
                prepared.batch.push(Outgoing { topic: Arc::clone(topic), key: change.id.clone(), value });
            }
        }
        prepared
    }

    fn reject(&self, change: &Change, record: &Value, length: usize, by_broker: bool) -> SinkReject {
        let max = self.settings.record_bytes_max;
        let limit =
            if by_broker { "the topic's max.message.bytes".to_owned() } else { format!("record_bytes_max {max}") };
        tracing::warn!(sink = self.name, kind = change.kind.as_str(), id = change.id, length, "a record is too large");
        SinkReject {
            sink: self.name.clone(),
            kind: change.kind.as_str().to_owned(),
            id: change.id.clone(),
            revision: record["revision"].as_i64().unwrap_or(0),
            bytes: i64::try_from(length).unwrap_or(i64::MAX),
            code: "too_large".to_owned(),
            reason: format!("{length} bytes are more than {limit}; sent without its content"),
            at: clock::now(),
        }
    }
}

#[derive(Default)]
struct Prepared {
    batch: Vec<Outgoing>,
    rejects: Vec<SinkReject>,
}

/// A record without what may be long; it says so.
fn cut(record: &Value, length: usize) -> Value {
    let mut short: serde_json::Map<String, Value> =
        KEPT.iter().filter_map(|key| Some(((*key).to_owned(), record.get(*key)?.clone()))).collect();
    short.insert("left_out_bytes".to_owned(), json!(length));
    Value::Object(short)
}

/// Why a batch was not told.
enum Failure {
    Ledger(LedgerError),
    Sink(&'static str, String),
}

impl Failure {
    fn state(&self) -> (&'static str, String) {
        match self {
            Failure::Ledger(error) => ("failing", error.to_string()),
            Failure::Sink(state, why) => (state, why.clone()),
        }
    }
}

impl From<LedgerError> for Failure {
    fn from(error: LedgerError) -> Failure {
        Failure::Ledger(error)
    }
}

/// The sinks as the API sees them.
impl cf_api::sinks::Sinks for Board {
    fn list(&self) -> Vec<Value> {
        self.rows()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_keeps_what_identifies_it() {
        let record = json!({"record": "alert", "id": "a", "revision": 3, "state": "open", "content": {"x": "y"}});
        let wanted = json!({"record": "alert", "id": "a", "revision": 3, "state": "open", "left_out_bytes": 7});
        assert_eq!(cut(&record, 7), wanted);
    }

    #[test]
    fn a_sink_goes_somewhere() {
        let problems = SinkSettings::default().problems("out");
        assert!(problems[0].contains("says nowhere to"), "{problems:?}");
        assert!(SinkSettings::default().problems("a/b").len() == 2);
    }
}
