//! Asking models about events: URLs and flows, by a thread beside the conductor, as [`crate::triage`] asks about alerts.
//!
//! In: the events of an epoch that carry a URL, a domain or a flow, picked out on the workers' threads ([`gather`]) and
//! handed over when their epoch is applied. Out: one record of the control log per epoch and task that has something to
//! say, from which a later epoch takes detections of a built-in rule; an epoch that is lived again asks no model.
//!
//! The facts log never runs ahead of what is answered, so after a kill unanswered epochs are read again from the spool
//! and asked about then; those that have a record are passed over. So each event is scored once, whatever is killed.
//!
//! Bounds: [`QUEUE_MAX`] epochs wait, [`EVENTS_MAX`] events of an epoch and task are asked about, [`POSITIVE_MAX`]
//! positive answers of them are recorded; what is beyond is counted. Nobody waits for this thread.

mod ask;
mod gather;
mod record;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{self, SyncSender, TrySendError},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use cf_engine::Tap;
use cf_ledger::{Ledger, triage::MODEL};
use cf_types::{Entity, Epoch};

use self::{ask::Asker, gather::Gather};
pub(crate) use self::{
    gather::{Candidate, Gathered},
    record::{found, read, rows},
};
use crate::triage::settings::{EventMode, ModelsSettings};

/// What the control log calls the answers about the events of one epoch.
pub(crate) const SCORED: &str = "event_score";
/// Epochs that wait at most.
const QUEUE_MAX: usize = 256;
/// Events of one epoch and task that a model is asked about.
const EVENTS_MAX: usize = 8_192;
/// Positive answers of one epoch and task that are recorded.
const POSITIVE_MAX: usize = 500;
/// How often the registry is looked at while nothing is asked.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The tasks.
pub(crate) const TASKS: [&str; 2] = ["urls", "flows"];

/// Who an event is about, for the halves of a comparison: the first it speaks of, else its source.
pub(crate) fn who(entities: &[Entity], source: &str) -> String {
    entities.first().map_or_else(|| source.to_owned(), ToString::to_string)
}

/// How it goes, for health and metrics.
#[derive(Default)]
pub(crate) struct Counts {
    answered: AtomicU64,
    positive: AtomicU64,
    unscored: AtomicU64,
    /// A version that was promoted cannot be used.
    broken: AtomicBool,
    dead: AtomicBool,
    /// Epochs up to this one are answered, or were passed over.
    done: AtomicU64,
}

impl Counts {
    fn add(of: &AtomicU64, more: usize) {
        of.fetch_add(u64::try_from(more).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Metrics: name, help, value, and whether it only rises.
    pub(crate) fn metrics(&self) -> [(&'static str, &'static str, u64, bool); 3] {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        [
            (
                "counterflow_events_scored_total",
                "URLs and flows that a model answered about.",
                of(&self.answered),
                true,
            ),
            ("counterflow_events_positive_total", "Of these, called positive.", of(&self.positive), true),
            (
                "counterflow_events_unscored_total",
                "URLs and flows that no model was asked about, and positive answers that were not recorded.",
                of(&self.unscored),
                true,
            ),
        ]
    }

    /// Whether all is well, and a line for health.
    pub(crate) fn summary(&self) -> (bool, String) {
        let unscored = self.unscored.load(Ordering::Relaxed);
        if self.dead.load(Ordering::Relaxed) {
            return (false, "the thread has ended, see the log; events are not scored until a restart".to_owned());
        }
        if self.broken.load(Ordering::Relaxed) {
            return (false, "a promoted model cannot be used, see the log".to_owned());
        }
        (unscored == 0, format!("{} events scored, {unscored} left out", self.answered.load(Ordering::Relaxed)))
    }
}

/// The events of an epoch.
struct Question {
    epoch: Epoch,
    candidates: Vec<Candidate>,
}

/// Where the conductor asks.
#[derive(Default)]
pub(crate) struct Scoring {
    questions: Option<SyncSender<Question>>,
    gathered: Arc<Gathered>,
    counts: Arc<Counts>,
    /// The last epoch of which answers are recorded.
    recorded: Epoch,
}

impl Scoring {
    /// Starts the thread over a data folder, if the settings want one. It ends with the one who asks.
    pub(crate) async fn start(data: &Path, settings: &ModelsSettings, ledger: &Ledger) -> Result<Scoring> {
        let modes = settings.event_modes();
        if settings.dir.is_none() || modes.iter().all(|mode| *mode == EventMode::Off) {
            return Ok(Scoring::default());
        }
        let counts = Arc::<Counts>::default();
        let recorded = record::last(ledger).await?;
        let asker = Asker::new(settings, &ledger.control_of_kind(MODEL).await?)?;
        let (questions, waiting) = mpsc::sync_channel(QUEUE_MAX);
        let (folder, seen) = (data.to_path_buf(), Arc::clone(&counts));
        // Detached: what it has not written is asked again at a start.
        thread::Builder::new()
            .name("scoring".to_owned())
            .spawn(move || {
                if let Err(error) = work(&folder, asker, &waiting, &seen) {
                    let error = format!("{error:#}");
                    tracing::error!(error, "events are not scored any more; a restart tries again");
                    seen.dead.store(true, Ordering::Release);
                }
            })
            .context("could not start the thread that scores events")?;
        let gathered = Arc::new(Gathered::new(modes));
        Ok(Scoring { questions: Some(questions), gathered, counts, recorded })
    }

    /// What picks events out in a process that asks nobody, for one that does; `None` if the settings want no asking.
    pub(crate) fn picker(settings: &ModelsSettings) -> Option<Gathered> {
        let modes = settings.event_modes();
        let is_on = settings.dir.is_some() && modes.iter().any(|mode| *mode != EventMode::Off);
        is_on.then(|| Gathered::new(modes))
    }

    /// Where candidates wait for their epoch.
    pub(crate) fn gathered(&self) -> Arc<Gathered> {
        Arc::clone(&self.gathered)
    }

    /// Sees the decoded events for `inner`, which it goes on to.
    pub(crate) fn tap(&self, inner: Arc<dyn Tap>) -> Arc<dyn Tap> {
        if self.questions.is_none() {
            return inner;
        }
        Arc::new(Gather { inner, gathered: Arc::clone(&self.gathered) })
    }

    /// Asks about the events of an epoch that is applied; never waits.
    pub(crate) fn ask(&self, epoch: Epoch) {
        let Some(questions) = &self.questions else { return };
        let (mut candidates, left_out) = self.gathered.take(epoch);
        if epoch <= self.recorded {
            candidates.clear();
        } else {
            Counts::add(&self.counts.unscored, left_out);
        }
        match questions.try_send(Question { epoch, candidates }) {
            Ok(()) => {}
            Err(TrySendError::Full(question) | TrySendError::Disconnected(question)) => {
                Counts::add(&self.counts.unscored, question.candidates.len());
            }
        }
    }

    /// Epochs up to here may be forgotten by the spool.
    pub(crate) fn done(&self) -> Epoch {
        let is_needed = self.questions.is_some() && !self.counts.dead.load(Ordering::Acquire);
        if is_needed { self.counts.done.load(Ordering::Acquire) } else { Epoch::MAX }
    }

    /// Its counts, if it is on.
    pub(crate) fn counts(&self) -> Option<Arc<Counts>> {
        self.questions.as_ref().map(|_| Arc::clone(&self.counts))
    }
}

fn work(data: &Path, mut asker: Asker, waiting: &mpsc::Receiver<Question>, counts: &Counts) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut recorder = runtime.block_on(record::Recorder::open(data))?;
    loop {
        let question = match waiting.recv_timeout(LOOK_EVERY) {
            Ok(question) => Some(question),
            Err(mpsc::RecvTimeoutError::Timeout) => None,
            Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(()),
        };
        let changes = asker.look(counts);
        runtime.block_on(recorder.changes(&changes))?;
        let Some(Question { epoch, candidates }) = question else { continue };
        let scored = asker.ask(epoch, &candidates, counts);
        runtime.block_on(recorder.scored(&scored))?;
        counts.done.store(epoch, Ordering::Release);
    }
}
