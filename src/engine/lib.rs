//! The engine as a library: the graph on its worker threads. Epochs go in, [`EpochOutput`]s come out in order.
//!
//! ```
//! use cf_engine::{Engine, EngineOptions, EpochInput};
//! use cf_types::Row;
//!
//! let rules = cf_engine::rules("guessing.yml", r#"
//! rule:
//!   id: guessing
//!   name: Password guessing
//!   severity: high
//!   conditions:
//!     - {field: event_type, operator: equals, value: authentication_failed}
//!     - {field: source_ip, operator: count, threshold: 2, timewindow: 5m}
//! "#)?;
//! let mut engine = Engine::start(EngineOptions::bounded(2))?;
//! let outputs = engine.subscribe();
//! let one = r#"{"event_id":"1","timestamp":"2026-01-05T14:00:00Z","event_type":"authentication_failed","source_ip":"10.0.0.7"}"#;
//! let two = one.replace("\"1\"", "\"2\"");
//! let records = cf_engine::lines("app", &[one, two.as_str()]);
//! engine.feed(EpochInput { epoch: 1, rules: Some(rules), records, ..EpochInput::default() })?;
//! engine.stop()?;
//! // +1: it came; -1: it went, because a later record or fact corrected it.
//! let rows: Vec<(Row, i64)> = outputs.flat_map(|output| output.rows).collect();
//! assert!(rows.iter().any(|(row, diff)| matches!(row, Row::Alert(alert) if alert.count == 2) && *diff == 1));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Each worker decodes its share of an epoch's records and feeds it; timely has no back-pressure of its own, so the
//! caller keeps few epochs in flight ([`Engine::output`] tells when one is through). A worker without work parks; a
//! command unparks it.

pub mod cluster;

use std::{
    net::TcpStream,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, Sender, TryRecvError},
    },
    thread::Thread,
    time::Duration,
};

use cf_dataflows::{Batch, Graph, GraphOptions, Recalled, Remembered};
use cf_ingest::{Decoded, Decoder, SourceTable};
use cf_sigma::{Options, RuleSet, Severity, Text};
use cf_types::{Detection, Epoch, EpochOutput, Event, Fact, Framing, Origin, Position, Record, Reject, Tenant, Time};
use thiserror::Error;
use timely::{WorkerConfig, communication::WorkerGuards};

pub use cluster::Cluster;

/// Why the engine does not run.
#[derive(Debug, Error)]
pub enum EngineError {
    /// The workers could not be started.
    #[error("could not start the workers: {0}")]
    Start(String),
    /// A worker or another process is gone: what was fed and not given out must be fed again to a new engine.
    #[error("a worker of the graph has died")]
    Died,
    /// The processes did not come together.
    #[error(transparent)]
    Cluster(#[from] cluster::ClusterError),
    /// A rule text is not valid.
    #[error("{0}")]
    Rule(String),
}

/// What one epoch is made of.
#[derive(Default)]
pub struct EpochInput {
    /// Its number; one more than the one before.
    pub epoch: Epoch,
    /// Its records.
    pub records: Vec<Record>,
    /// Events that were decoded before, after those of the records.
    pub events: Vec<Event>,
    /// The rule set from this epoch on, if it changes.
    pub rules: Option<Arc<RuleSet>>,
    /// Facts that came (+1) and went (-1).
    pub facts: Vec<(Fact, i64)>,
    /// Detections of before, read back from the facts log.
    pub recalled: Vec<Detection>,
    /// What a look-up found for new indicators in events of before.
    pub found: Vec<Detection>,
    /// What rules that compare with the time before find there, by a look-up.
    pub remembered: Vec<Remembered>,
    /// Sources that do not hold the watermark back.
    pub idle: Vec<Arc<str>>,
    /// The watermark as it was, when its records are not read again.
    pub watermark: Option<Time>,
    /// How far each source's events reached, when they are not read again.
    pub newest: Vec<(Arc<str>, Time)>,
    /// How sources decode from this epoch on, if it changes.
    pub sources: Option<Arc<SourceTable>>,
    /// What was sealed before, with the detections of before.
    pub sealed: Option<Recalled>,
    /// How long all sources were idle since the epoch before, in milliseconds: event time goes on by as much.
    pub passed_ms: u64,
    /// Whether a bounded input ends with it.
    pub ended: bool,
}

/// What wants to see the decoded events of each epoch (history, counters). Called on the workers' threads, before the
/// epoch can complete.
pub trait Tap: Send + Sync {
    /// The events and rejects of one worker's share.
    fn decoded(&self, epoch: Epoch, worker: usize, events: &[Event], rejects: &[Reject]);
}

/// Who does not want to see them.
struct Nobody;

impl Tap for Nobody {
    fn decoded(&self, _: Epoch, _: usize, _: &[Event], _: &[Reject]) {}
}

/// How the graph is run.
pub struct EngineOptions {
    /// Worker threads of this process, at least 1; in a cluster the same in each.
    pub workers: usize,
    /// The graph's own options.
    pub graph: GraphOptions,
    /// How each source decodes.
    pub sources: Arc<SourceTable>,
    /// Who sees the decoded events.
    pub tap: Arc<dyn Tap>,
    /// The other processes, if there are any.
    pub cluster: Option<Cluster>,
}

impl EngineOptions {
    /// For input that ends: nothing expires, and any order gives the same.
    #[must_use]
    pub fn bounded(workers: usize) -> EngineOptions {
        EngineOptions {
            workers,
            graph: GraphOptions { horizon_s: None, ..GraphOptions::default() },
            sources: Arc::new(SourceTable::default()),
            tap: Arc::new(Nobody),
            cluster: None,
        }
    }
}

/// Compiles one text of Sigma rules.
///
/// # Errors
/// The first problem that keeps a rule out.
pub fn rules(file: &str, text: &str) -> Result<Arc<RuleSet>, EngineError> {
    let parsed = cf_sigma::parse(&[Text { file: file.into(), text: text.to_owned() }]);
    let (rules, problems) = RuleSet::compile(parsed, &Options::default());
    match problems.iter().find(|problem| problem.severity == Severity::Error) {
        Some(problem) => Err(EngineError::Rule(problem.to_string())),
        None => Ok(Arc::new(rules)),
    }
}

/// Makes records of lines, numbered from 1, received now long ago: for what has its own times.
#[must_use]
pub fn lines(source: &str, lines: &[&str]) -> Vec<Record> {
    let origin = Arc::new(Origin {
        tenant: Tenant::default(),
        source: source.into(),
        received_at: Time::MAX,
        year: None,
        framing: Framing::Record,
    });
    let name: Arc<str> = source.into();
    let record = |(number, line): (u64, &&str)| Record {
        origin: Arc::clone(&origin),
        position: Position { origin: Arc::clone(&name), offset: number - 1, line: number, index: 0 },
        bytes: bytes::Bytes::copy_from_slice(line.as_bytes()),
    };
    (1..).zip(lines).map(record).collect()
}

/// The outputs of all epochs, in order, until the engine stops.
pub struct Outputs(Receiver<EpochOutput>);

impl Iterator for Outputs {
    type Item = EpochOutput;

    fn next(&mut self) -> Option<EpochOutput> {
        self.0.recv().ok()
    }
}

/// What is dealt out to the workers in runs of neighbours.
struct Shares<T> {
    rest: Vec<T>,
    per_worker: usize,
}

impl<T> Shares<T> {
    fn new(all: &mut Vec<T>, workers: usize, first: usize) -> Shares<T> {
        let mut rest = std::mem::take(all);
        let per_worker = rest.len().div_ceil(workers);
        rest.drain(..(per_worker * first).min(rest.len()));
        Shares { rest, per_worker }
    }

    /// The next worker's share.
    fn next(&mut self) -> Vec<T> {
        let rest = self.rest.split_off(self.per_worker.min(self.rest.len()));
        std::mem::replace(&mut self.rest, rest)
    }
}

/// The running graph.
pub struct Engine {
    workers: Vec<(Sender<EpochInput>, Thread)>,
    outputs: Option<Receiver<EpochOutput>>,
    guards: Option<WorkerGuards<()>>,
    /// Workers of all processes, and which of them is our first.
    all_workers: usize,
    first_worker: usize,
    /// Whether what is fed is this process's share already.
    is_share: bool,
    links: Vec<(usize, TcpStream)>,
}

impl Engine {
    /// Starts the workers; in a cluster, waits for the other processes.
    ///
    /// # Errors
    /// Threads cannot be started, or the processes do not come together.
    pub fn start(mut options: EngineOptions) -> Result<Engine, EngineError> {
        let workers = options.workers.max(1);
        let cluster = options.cluster.take();
        let (process, processes) =
            cluster.as_ref().map_or((0, 1), |cluster| (cluster.process, cluster.addresses.len()));
        let is_share = cluster.as_ref().is_some_and(|cluster| cluster.dealt);
        let cluster::Allocators { builders, others, links } = cluster::allocators(cluster, workers)?;
        let (output, outputs) = mpsc::channel();
        let (ready, readies) = mpsc::channel();
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..workers).map(|_| mpsc::channel::<EpochInput>()).unzip();
        // The closure given to timely is shared by all workers: each takes its own receiver out of the list.
        let receivers = Mutex::new(receivers.into_iter().map(Some).collect::<Vec<_>>());
        let ends = Mutex::new((output, ready));
        let first_worker = process * workers;
        let guards = timely::execute::execute_from(builders, others, WorkerConfig::default(), move |worker| {
            let index = worker.index();
            let ours = index - first_worker;
            let shares = lock(&receivers).get_mut(ours).and_then(Option::take).expect("one receiver per worker");
            let (output, ready) = lock(&ends).clone();
            // All changes come to the first worker of all; other processes learn only that an epoch is through.
            let progress = (ours == 0 && process > 0).then(|| output.clone());
            let graph = Graph::build(worker, &options.graph, (index == 0).then_some(output));
            // The send fails only if the starter is gone; then the channel of shares is closed, too.
            drop(ready.send((ours, std::thread::current())));
            drop(ready);
            // A worker that is gone would hold the others' frontier for ever: the process ends, as after SIGKILL, and the
            // next start recovers. The panic has been said by then.
            let work = std::panic::AssertUnwindSafe(|| work(worker, graph, &shares, &options, progress));
            if std::panic::catch_unwind(work).is_err() {
                std::process::abort();
            }
        })
        .map_err(EngineError::Start)?;
        let mut threads: Vec<_> = readies.iter().take(workers).collect();
        threads.sort_by_key(|(index, _)| *index);
        let workers: Vec<_> = senders.into_iter().zip(threads.into_iter().map(|(_, thread)| thread)).collect();
        let all_workers = workers.len() * processes;
        let (outputs, guards) = (Some(outputs), Some(guards));
        Ok(Engine { workers, outputs, guards, all_workers, first_worker, is_share, links })
    }

    /// The connections of a cluster whose first process deals the input out ([`Cluster::dealt`]): there one to each other
    /// process, elsewhere one to the first. Each once.
    pub fn links(&mut self) -> Vec<(usize, TcpStream)> {
        std::mem::take(&mut self.links)
    }

    /// Feeds the next epoch: its records are dealt out to the workers in runs of neighbours. In a cluster every process
    /// must be fed the same epochs; each takes its share, or is fed its share alone ([`Cluster::dealt`]).
    ///
    /// # Errors
    /// A worker has died.
    pub fn feed(&mut self, mut input: EpochInput) -> Result<(), EngineError> {
        let (sharing, first) =
            if self.is_share { (self.workers.len(), 0) } else { (self.all_workers, self.first_worker) };
        let mut records = Shares::new(&mut input.records, sharing, first);
        let mut events = Shares::new(&mut input.events, sharing, first);
        for (index, (sender, thread)) in self.workers.iter().enumerate() {
            let is_first = self.first_worker + index == 0;
            let share = EpochInput {
                epoch: input.epoch,
                records: records.next(),
                events: events.next(),
                rules: input.rules.clone(),
                facts: input.facts.clone(),
                recalled: if is_first { std::mem::take(&mut input.recalled) } else { Vec::new() },
                found: if is_first { std::mem::take(&mut input.found) } else { Vec::new() },
                remembered: if is_first { std::mem::take(&mut input.remembered) } else { Vec::new() },
                idle: if is_first { std::mem::take(&mut input.idle) } else { Vec::new() },
                watermark: input.watermark.filter(|_| is_first),
                newest: if is_first { std::mem::take(&mut input.newest) } else { Vec::new() },
                sources: input.sources.clone(),
                sealed: input.sealed.take_if(|_| is_first),
                passed_ms: if is_first { input.passed_ms } else { 0 },
                ended: input.ended && is_first,
            };
            sender.send(share).map_err(|_| EngineError::Died)?;
            thread.unpark();
        }
        Ok(())
    }

    /// Waits for the next epoch's output; `None` if none came within `timeout`. In processes other than the first of a
    /// cluster it has the epoch's number only.
    ///
    /// # Errors
    /// The graph has died, or the outputs were subscribed.
    pub fn output(&self, timeout: Duration) -> Result<Option<EpochOutput>, EngineError> {
        let Some(outputs) = &self.outputs else { return Err(EngineError::Died) };
        match outputs.recv_timeout(timeout) {
            Ok(output) => Ok(Some(output)),
            Err(mpsc::RecvTimeoutError::Timeout) => Ok(None),
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(EngineError::Died),
        }
    }

    /// All outputs as they come, for whoever reads them elsewhere; [`Engine::output`] has none from then on.
    pub fn subscribe(&mut self) -> Outputs {
        Outputs(self.outputs.take().unwrap_or_else(|| mpsc::channel().1))
    }

    /// Ends the workers after everything fed is through.
    ///
    /// # Errors
    /// A worker has died.
    pub fn stop(&mut self) -> Result<(), EngineError> {
        for (sender, thread) in self.workers.drain(..) {
            drop(sender);
            thread.unpark();
        }
        let Some(guards) = self.guards.take() else { return Ok(()) };
        guards.join().into_iter().try_for_each(|result| result.map_err(|_| EngineError::Died))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Workers of a cluster that was not stopped in order wait for those of the others, which do not know: nobody may wait
        // for them. They end with the process, which from here on has a reason of its own to end.
        if self.all_workers > self.workers.len()
            && let Some(guards) = self.guards.take()
        {
            cluster::ending();
            std::mem::forget(guards);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A worker's loop: decode, feed, step; park when there is nothing.
fn work(
    worker: &mut timely::worker::Worker,
    mut graph: Graph,
    shares: &Receiver<EpochInput>,
    options: &EngineOptions,
    progress: Option<Sender<EpochOutput>>,
) {
    let mut decoder = Decoder::new(Arc::clone(&options.sources));
    let mut decoded = Decoded::default();
    let (mut through, mut fed): (Epoch, Epoch) = (0, 0);
    loop {
        tell_progress(&graph, &mut through, fed, progress.as_ref());
        match shares.try_recv() {
            Ok(input) => {
                decoded.clear();
                if let Some(sources) = input.sources {
                    decoder = Decoder::new(sources);
                }
                for record in &input.records {
                    decoder.decode(record, &mut decoded);
                }
                drop(input.records);
                decoded.events.extend(input.events);
                options.tap.decoded(input.epoch, worker.index(), &decoded.events, &decoded.rejects);
                fed = input.epoch;
                graph.feed(Batch {
                    epoch: input.epoch,
                    rules: input.rules.map(|rules| -> Arc<dyn cf_dataflows::Rules> { rules }),
                    facts: input.facts,
                    events: std::mem::take(&mut decoded.events),
                    recalled: input.recalled,
                    found: input.found,
                    remembered: input.remembered,
                    idle: input.idle,
                    limit: input.watermark,
                    newest: input.newest,
                    sealed: input.sealed,
                    passed_ms: input.passed_ms,
                    ended: input.ended,
                });
                graph.advance_to(input.epoch + 1);
                worker.step();
            }
            // The time-out is a belt beside the braces: a lost wake-up costs a tenth of a second, not a night.
            Err(TryRecvError::Empty) => {
                worker.step_or_park(Some(Duration::from_millis(100)));
            }
            Err(TryRecvError::Disconnected) => break,
        }
    }
    while progress.is_some() && through < fed {
        worker.step_or_park(Some(Duration::from_millis(100)));
        tell_progress(&graph, &mut through, fed, progress.as_ref());
    }
    drop(graph);
    while worker.has_dataflows() {
        worker.step_or_park(None);
    }
}

/// Tells which epochs are through, where the outputs themselves come to another process.
fn tell_progress(graph: &Graph, through: &mut Epoch, fed: Epoch, progress: Option<&Sender<EpochOutput>>) {
    while let Some(progress) = progress.filter(|_| *through < fed && graph.done(*through + 1)) {
        *through += 1;
        // Nobody listens any more when the engine goes down.
        drop(progress.send(EpochOutput { epoch: *through, ..EpochOutput::default() }));
    }
}
