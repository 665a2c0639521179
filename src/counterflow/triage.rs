//! Asking models about alerts: a thread beside the conductor, as [`crate::lookup`] is one.
//!
//! In: alerts that an applied epoch opened or changed materially. Out: one record of the control log per decision, with
//! the features as they were, and the answers of the champion and, if there is one, the challenger. From there it enters
//! a later epoch as a fact ([`served`]), so a replay asks no model. Without a model the features are recorded all the
//! same: verdicts can come, and a training can learn from them.
//!
//! What an alert is asked with is a function of the records before it in the control log; a start reads them again. The
//! queue is bounded: when the thread falls behind, alerts go out without an answer, and that is counted. What was not
//! answered at an end is asked at the next start, while it is open; what was raised before there was a model is asked
//! about when one begins to answer, the oldest first. Nobody waits for this thread.

mod decide;
pub(crate) mod judged;
mod keeper;
mod precision;
mod retrain;
pub(crate) mod rows;
pub(crate) mod served;
pub(crate) mod settings;
pub(crate) mod switch;
mod trial;

use std::{
    collections::VecDeque,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{self, RecvTimeoutError, SyncSender, TrySendError},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use cf_ledger::{AlertEvent, Applied};
use cf_types::{Alert, AlertId, AlertState};

use self::{decide::Decider, settings::ModelsSettings};

/// Alerts that wait for an answer at most.
const QUEUE_MAX: usize = 4_096;
/// Alerts decided about at once: one wait for the disk.
const BATCH_MAX: usize = 256;
/// How often the registry is looked at while nothing is asked.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// An alert to be decided about.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) alert: Alert,
    /// The first id of its lineage.
    pub(crate) thread: AlertId,
}

/// How it goes, for health and metrics.
#[derive(Default)]
pub(crate) struct Counts {
    asked: AtomicU64,
    decided: AtomicU64,
    unscored: AtomicU64,
    answers: AtomicU64,
    /// A version that was promoted cannot be used.
    broken: AtomicBool,
    /// The thread has ended before its time.
    dead: AtomicBool,
    /// The version that answers.
    champion: std::sync::Mutex<String>,
}

impl Counts {
    fn add(of: &AtomicU64, more: usize) {
        of.fetch_add(u64::try_from(more).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn set_champion(&self, version: Option<&str>) {
        let mut champion = self.champion.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        version.unwrap_or_default().clone_into(&mut champion);
    }

    /// Metrics: name, help, value, and whether it only rises.
    pub(crate) fn metrics(&self) -> [(&'static str, &'static str, u64, bool); 5] {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let waiting = of(&self.asked).saturating_sub(of(&self.decided));
        [
            ("counterflow_triage_decisions_total", "Alerts decided about.", of(&self.decided), true),
            ("counterflow_triage_answers_total", "Answers of models.", of(&self.answers), true),
            ("counterflow_triage_unscored_total", "Alerts that no model was asked about.", of(&self.unscored), true),
            ("counterflow_triage_waiting", "Alerts that wait for a decision.", waiting, false),
            (
                "counterflow_triage_broken",
                "1 if a promoted model cannot be used and the one before it answers.",
                u64::from(self.broken.load(Ordering::Relaxed)),
                false,
            ),
        ]
    }

    /// Whether all is well, and a line for health.
    pub(crate) fn summary(&self) -> (bool, String) {
        let champion = self.champion.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let unscored = self.unscored.load(Ordering::Relaxed);
        let broken = self.broken.load(Ordering::Relaxed);
        let dead = self.dead.load(Ordering::Relaxed);
        let model = if champion.is_empty() {
            "no model is promoted, features are recorded".to_owned()
        } else {
            format!("model {champion} answers")
        };
        let mut says = model;
        if broken {
            says.push_str("; what was promoted since cannot be used, see the log");
        }
        if unscored > 0 {
            says.push_str(&format!("; {unscored} alerts went out without an answer"));
        }
        if dead {
            "the thread has ended, see the log; alerts go out without answers until a restart".clone_into(&mut says);
        }
        (!broken && !dead && unscored == 0, says)
    }
}

/// Where the conductor asks.
#[derive(Default)]
pub(crate) struct Triage {
    questions: Option<SyncSender<Question>>,
    counts: Arc<Counts>,
}

impl Triage {
    /// Starts the thread over a data folder, if the settings want one, and the one that keeps the models of all tasks. It
    /// ends with the one who asks.
    pub(crate) fn start(data: &Path, settings: &ModelsSettings) -> Result<Triage> {
        let counts = Arc::<Counts>::default();
        keeper::start(data, settings)?;
        if settings.triage_registry().is_none() {
            return Ok(Triage { questions: None, counts });
        }
        let (questions, waiting) = mpsc::sync_channel(QUEUE_MAX);
        let (folder, wanted, seen) = (data.to_path_buf(), settings.clone(), Arc::clone(&counts));
        // Detached: what it has not written is asked again at a start.
        thread::Builder::new()
            .name("triage".to_owned())
            .spawn(move || {
                if let Err(error) = work(&folder, &wanted, &waiting, &seen) {
                    let error = format!("{error:#}");
                    tracing::error!(error, "alerts are not triaged any more; a restart tries again");
                    seen.dead.store(true, Ordering::Relaxed);
                }
            })
            .context("could not start the triage thread")?;
        Ok(Triage { questions: Some(questions), counts })
    }

    /// Whether models are asked at all.
    pub(crate) fn is_on(&self) -> bool {
        self.questions.is_some()
    }

    pub(crate) fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    /// Asks about the alerts that an epoch opened or changed; never waits.
    pub(crate) fn ask(&self, applied: &Applied) {
        let Some(questions) = &self.questions else { return };
        let told = |event| matches!(event, AlertEvent::Opened | AlertEvent::Amended | AlertEvent::Moved);
        for change in applied.alerts.iter().filter(|change| told(change.event)) {
            // What was sealed at birth is told, and nobody's queue.
            if change.alert.state != AlertState::Open {
                continue;
            }
            let question = Question { alert: change.alert.clone(), thread: change.thread };
            match questions.try_send(question) {
                Ok(()) => Counts::add(&self.counts.asked, 1),
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => Counts::add(&self.counts.unscored, 1),
            }
        }
    }
}

fn work(data: &Path, settings: &ModelsSettings, waiting: &mpsc::Receiver<Question>, counts: &Counts) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut decider = runtime.block_on(Decider::open(data, settings))?;
    // Open alerts of before: what an end left, and later what came before there was a model.
    let mut left = look(&runtime, &mut decider, counts, true)?;
    loop {
        let wait = if left.is_empty() { LOOK_EVERY } else { Duration::ZERO };
        let mut batch = match waiting.recv_timeout(wait) {
            Ok(first) => vec![first],
            Err(RecvTimeoutError::Timeout) => Vec::new(),
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        batch.extend(waiting.try_iter().take(BATCH_MAX - 1));
        left.extend(look(&runtime, &mut decider, counts, false)?);
        decide(&runtime, &mut decider, &batch, counts)?;
        // By turns: a pile of old ones holds up nobody.
        let some: Vec<Question> = left.drain(..left.len().min(BATCH_MAX)).collect();
        decide(&runtime, &mut decider, &some, counts)?;
    }
}

/// Looks at the registry. Gives the open alerts that are to be asked about now: at a start, and when a model begins to
/// answer where there was none.
fn look(
    runtime: &tokio::runtime::Runtime,
    decider: &mut Decider,
    counts: &Counts,
    is_start: bool,
) -> Result<VecDeque<Question>> {
    let had_champion = decider.has_champion();
    if let Some(change) = decider.look(counts) {
        write(|| runtime.block_on(decider.record(Some(&change), &[])))?;
    }
    if !is_start && (had_champion || !decider.has_champion()) {
        return Ok(VecDeque::new());
    }
    let left = runtime.block_on(decider.unanswered())?;
    if !left.is_empty() {
        tracing::info!(alerts = left.len(), "open alerts of before are asked about");
    }
    Counts::add(&counts.asked, left.len());
    Ok(left)
}

/// Decides, and tries until what was decided is durable.
fn decide(runtime: &tokio::runtime::Runtime, decider: &mut Decider, batch: &[Question], counts: &Counts) -> Result<()> {
    if batch.is_empty() {
        return Ok(());
    }
    let (decisions, answers) = runtime.block_on(decider.decide(batch))?;
    write(|| runtime.block_on(decider.record(None, &decisions)))?;
    Counts::add(&counts.decided, batch.len());
    Counts::add(&counts.answers, answers);
    Ok(())
}

/// Tries to write until it is done, or there is no hope.
fn write(mut attempt: impl FnMut() -> Result<()>) -> Result<()> {
    const TRIES: u32 = 10;
    let mut tried = 1;
    loop {
        match attempt() {
            Err(error) if tried < TRIES => {
                tracing::warn!(error = %format!("{error:#}"), "decisions could not be written; trying again");
                thread::sleep(Duration::from_millis(200));
                tried += 1;
            }
            done => return done,
        }
    }
}
