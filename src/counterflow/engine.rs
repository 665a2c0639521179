//! The graph on its worker threads: epochs go in by channel, [`EpochOutput`]s come out in order.
//!
//! Each worker decodes its share of an epoch's records and feeds it; timely has no back-pressure of its own, so the
//! caller keeps few epochs in flight. A worker without work parks; a command unparks it.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, Sender, TryRecvError},
    },
    thread::Thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use cf_dataflows::{Batch, Graph, GraphOptions};
use cf_ingest::{Decoded, Decoder, SourceTable};
use cf_sigma::RuleSet;
use cf_types::{Detection, Epoch, EpochOutput, Event, Fact, Record, Reject, Time};
use timely::{WorkerConfig, communication::WorkerGuards};

/// What one epoch is made of.
#[derive(Default)]
pub(crate) struct EpochInput {
    /// Its number; one more than the one before.
    pub(crate) epoch: Epoch,
    /// Its records.
    pub(crate) records: Vec<Record>,
    /// The rule set from this epoch on, if it changes.
    pub(crate) rules: Option<Arc<RuleSet>>,
    /// Facts that came (+1) and went (-1).
    pub(crate) facts: Vec<(Fact, i64)>,
    /// Detections of before, read back from the facts log.
    pub(crate) recalled: Vec<Detection>,
    /// Sources that do not hold the watermark back.
    pub(crate) idle: Vec<Arc<str>>,
    /// The watermark as it was, when its records are not read again.
    pub(crate) watermark: Option<Time>,
    /// How far each source's events reached, when they are not read again.
    pub(crate) newest: Vec<(Arc<str>, Time)>,
}

/// What wants to see the decoded events of each epoch (history, counters). Called on the workers' threads, before the
/// epoch can complete.
pub(crate) trait Tap: Send + Sync {
    /// The events and rejects of one worker's share.
    fn decoded(&self, epoch: Epoch, worker: usize, events: &[Event], rejects: &[Reject]);
}

struct Share {
    input: EpochInput,
}

/// The running graph.
pub(crate) struct Engine {
    workers: Vec<(Sender<Share>, Thread)>,
    outputs: Receiver<EpochOutput>,
    guards: Option<WorkerGuards<()>>,
    fed: Epoch,
}

/// How the graph is run.
pub(crate) struct EngineOptions {
    /// Worker threads, at least 1.
    pub(crate) workers: usize,
    /// The graph's own options.
    pub(crate) graph: GraphOptions,
    /// How each source decodes.
    pub(crate) sources: Arc<SourceTable>,
    /// Who sees the decoded events.
    pub(crate) tap: Arc<dyn Tap>,
}

impl Engine {
    /// Starts the workers.
    pub(crate) fn start(options: EngineOptions) -> Result<Engine> {
        let workers = options.workers.max(1);
        let (output, outputs) = mpsc::channel();
        let (ready, readies) = mpsc::channel();
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..workers).map(|_| mpsc::channel::<Share>()).unzip();
        // The closure given to timely is shared by all workers: each takes its own receiver out of the list.
        let receivers = Mutex::new(receivers.into_iter().map(Some).collect::<Vec<_>>());
        let ends = Mutex::new((output, ready));
        let config = timely::Config {
            communication: if workers == 1 {
                timely::CommunicationConfig::Thread
            } else {
                timely::CommunicationConfig::Process(workers)
            },
            worker: WorkerConfig::default(),
        };
        let guards = timely::execute(config, move |worker| {
            let index = worker.index();
            let shares = lock(&receivers).get_mut(index).and_then(Option::take).expect("one receiver per worker");
            let (output, ready) = lock(&ends).clone();
            let graph = Graph::build(worker, &options.graph, (index == 0).then_some(output));
            // The send fails only if the starter is gone; then the channel of shares is closed, too.
            drop(ready.send((index, std::thread::current())));
            drop(ready);
            // A worker that is gone would hold the others' frontier for ever: the process ends, as after SIGKILL, and the
            // next start recovers. The panic has been said by then.
            let work = std::panic::AssertUnwindSafe(|| work(worker, graph, &shares, &options));
            if std::panic::catch_unwind(work).is_err() {
                std::process::abort();
            }
        })
        .map_err(|error| anyhow!("could not start the workers: {error}"))?;
        let mut threads: Vec<_> = readies.iter().take(workers).collect();
        threads.sort_by_key(|(index, _)| *index);
        let workers = senders.into_iter().zip(threads.into_iter().map(|(_, thread)| thread)).collect();
        Ok(Engine { workers, outputs, guards: Some(guards), fed: 0 })
    }

    /// Feeds the next epoch: its records are dealt out to the workers in runs of neighbours.
    pub(crate) fn feed(&mut self, mut input: EpochInput) -> Result<()> {
        self.fed = input.epoch;
        let count = self.workers.len();
        let per_worker = input.records.len().div_ceil(count);
        for (index, (sender, thread)) in self.workers.iter().enumerate() {
            let rest = input.records.split_off(per_worker.min(input.records.len()));
            let records = std::mem::replace(&mut input.records, rest);
            let share = EpochInput {
                epoch: input.epoch,
                records,
                rules: input.rules.clone(),
                facts: if index == 0 { std::mem::take(&mut input.facts) } else { Vec::new() },
                recalled: if index == 0 { std::mem::take(&mut input.recalled) } else { Vec::new() },
                idle: if index == 0 { std::mem::take(&mut input.idle) } else { Vec::new() },
                watermark: input.watermark.filter(|_| index == 0),
                newest: if index == 0 { std::mem::take(&mut input.newest) } else { Vec::new() },
            };
            sender.send(Share { input: share }).map_err(|_| anyhow!("a worker of the graph has died"))?;
            thread.unpark();
        }
        Ok(())
    }

    /// Waits for the next epoch's output; `None` if none came within `timeout`.
    pub(crate) fn output(&self, timeout: Duration) -> Result<Option<EpochOutput>> {
        match self.outputs.recv_timeout(timeout) {
            Ok(output) => Ok(Some(output)),
            Err(mpsc::RecvTimeoutError::Timeout) => Ok(None),
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(anyhow!("the graph has died")),
        }
    }

    /// Ends the workers after everything fed is through.
    pub(crate) fn stop(&mut self) -> Result<()> {
        for (sender, thread) in self.workers.drain(..) {
            drop(sender);
            thread.unpark();
        }
        let Some(guards) = self.guards.take() else { return Ok(()) };
        guards
            .join()
            .into_iter()
            .try_for_each(|result| result.map_err(|error| anyhow!("{error}")))
            .context("a worker of the graph has died")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A worker's loop: decode, feed, step; park when there is nothing.
fn work(worker: &mut timely::worker::Worker, mut graph: Graph, shares: &Receiver<Share>, options: &EngineOptions) {
    let mut decoder = Decoder::new(Arc::clone(&options.sources));
    let mut decoded = Decoded::default();
    loop {
        match shares.try_recv() {
            Ok(Share { input }) => {
                decoded.clear();
                for record in &input.records {
                    decoder.decode(record, &mut decoded);
                }
                drop(input.records);
                options.tap.decoded(input.epoch, worker.index(), &decoded.events, &decoded.rejects);
                graph.feed(Batch {
                    epoch: input.epoch,
                    rules: input.rules.map(|rules| -> Arc<dyn cf_dataflows::Rules> { rules }),
                    facts: input.facts,
                    events: std::mem::take(&mut decoded.events),
                    recalled: input.recalled,
                    idle: input.idle,
                    limit: input.watermark,
                    newest: input.newest,
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
    drop(graph);
    while worker.has_dataflows() {
        worker.step_or_park(None);
    }
}
