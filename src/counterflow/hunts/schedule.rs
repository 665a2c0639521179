//! Hunts beside a running engine: each in its time, at most so many at once, and when somebody asks for one.
//!
//! One thread of its own at the lowest priority, with a session of its own: a hunt cannot take the place of what a person
//! asks. State: per hunt of the rule set in force when it is due; it goes with the hunt.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use cf_api::sql::Refusal;
use cf_ledger::{HuntRun, HuntState, Reader};
use cf_types::clock;
use serde_json::{Value, json};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, oneshot, watch},
};

use super::{
    Subject,
    ask::{Asker, How},
    counts::Counts,
};
use crate::{config::Settings, reload::Reload, sql};

/// How often it is looked which hunts are due.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Rows that are shown of a hunt.
const SHOWN_ROWS: usize = 100;

/// The hunts of a running engine.
pub(crate) struct Hunts {
    shared: Arc<Shared>,
    end: watch::Sender<bool>,
    thread: Option<thread::JoinHandle<()>>,
}

struct Shared {
    asker: Asker,
    reload: Arc<Reload>,
    reader: Reader,
    every_s: u32,
    places: Semaphore,
    running: Mutex<BTreeSet<Arc<str>>>,
    /// The last run of each, for who asks how the engine is.
    last: Mutex<BTreeMap<Arc<str>, HuntRun>>,
    counts: Counts,
    handle: Handle,
}

/// When a hunt is due, by the version of its question: another question is due at once.
type Due = BTreeMap<Arc<str>, (String, Instant)>;

impl Hunts {
    /// Starts the thread.
    pub(crate) fn start(settings: &Settings, asker: Asker, reload: Arc<Reload>, reader: Reader) -> Result<Hunts> {
        let at_once = settings.detection.max_concurrent_scans.max(1);
        let runtime = sql::runtime(settings.sql.thread_count(), 10)?;
        let shared = Arc::new(Shared {
            asker,
            reload,
            reader,
            every_s: settings.detection.rule_scan_interval,
            places: Semaphore::new(usize::try_from(at_once).unwrap_or(1).min(Semaphore::MAX_PERMITS)),
            running: Mutex::default(),
            last: Mutex::default(),
            counts: Counts::default(),
            handle: runtime.handle().clone(),
        });
        let (end, mut ending) = watch::channel(false);
        let of = Arc::clone(&shared);
        let thread = thread::Builder::new().name("hunts".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = of.go_on() => (),
                    _ended = ending.wait_for(|end| *end) => (),
                }
            });
            // What was not recorded is asked again after the next start.
            runtime.shutdown_timeout(Duration::from_secs(2));
        });
        let thread = Some(thread.context("could not start the thread of hunts")?);
        Ok(Hunts { shared, end, thread })
    }

    /// For the API and for health.
    pub(crate) fn api(&self) -> Arc<HuntsApi> {
        Arc::new(HuntsApi(Arc::clone(&self.shared)))
    }
}

impl Drop for Hunts {
    fn drop(&mut self) {
        self.end.send_replace(true);
        if let Some(Err(_)) = self.thread.take().map(thread::JoinHandle::join) {
            tracing::error!("the thread of hunts has died");
        }
    }
}

impl Shared {
    async fn go_on(self: &Arc<Shared>) {
        let mut due = Due::new();
        let before = self.reader.hunts().await.unwrap_or_else(|error| {
            tracing::error!(%error, "how hunts stood is not known; all are run now");
            Vec::new()
        });
        let mut before: BTreeMap<String, HuntState> =
            before.into_iter().map(|state| (state.last.hunt.clone(), state)).collect();
        loop {
            let subjects = self.scheduled();
            due.retain(|id, _| subjects.iter().any(|subject| subject.info.id == *id));
            for subject in subjects {
                if self.is_due(&subject, &mut due, &mut before) {
                    self.begin(subject);
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The hunts that are run by themselves.
    fn scheduled(&self) -> Vec<Subject> {
        let all = Subject::all(&self.reload.rules());
        self.counts.retain(|id| all.iter().any(|subject| *subject.info.id == *id));
        all.into_iter().filter(|subject| subject.info.enabled && subject.every_s(self.every_s) > 0).collect()
    }

    /// Whether it is due now; then it is due again one interval later.
    fn is_due(&self, subject: &Subject, due: &mut Due, before: &mut BTreeMap<String, HuntState>) -> bool {
        let (now, version) = (Instant::now(), subject.version());
        let every = Duration::from_secs(u64::from(subject.every_s(self.every_s)));
        let at = match due.get(&subject.info.id) {
            Some((known, at)) if *known == version => *at,
            Some(_) => now,
            // The first time since the start: it waits for what is left of its interval.
            None => match before.remove(&*subject.info.id) {
                Some(state) if state.last.version == version => {
                    self.remember(&subject.info.id, state.last.clone());
                    let ago = clock::now().micros().saturating_sub(state.last.at.micros());
                    now + every.saturating_sub(Duration::from_micros(u64::try_from(ago).unwrap_or(0)))
                }
                _ => now,
            },
        };
        let is_due = at <= now && !self.running().contains(&subject.info.id);
        let next = if is_due { now + every } else { at };
        due.insert(Arc::clone(&subject.info.id), (version, next));
        is_due
    }

    /// Runs one beside the others.
    fn begin(self: &Arc<Shared>, subject: Subject) {
        let shared = Arc::clone(self);
        self.handle.spawn(async move {
            let how = How { by: "schedule".to_owned(), ..How::default() };
            // One that runs already is due again later.
            let _ran = shared.run(&subject, &how).await;
        });
    }

    /// Runs one, if it does not run already, when there is a place.
    async fn run(&self, subject: &Subject, how: &How) -> Result<Value, Refusal> {
        let id = &subject.info.id;
        let Some(_turn) = Turn::take(self, id) else {
            let message = format!("the hunt {:?} runs already", subject.called());
            return Err(Refusal { status: 409, code: "running", message });
        };
        let _place = self.places.acquire().await;
        match Box::pin(self.asker.run(subject, how)).await {
            Ok(ran) => {
                self.tell(subject, &ran.run);
                let shown: Vec<&Value> = ran.new.iter().take(SHOWN_ROWS).map(|row| &row.row).collect();
                let mut answer = serde_json::to_value(&ran.run).unwrap_or_default();
                if let Value::Object(answer) = &mut answer {
                    answer.insert("name".to_owned(), json!(subject.called()));
                    answer.insert("new_rows".to_owned(), json!(shown));
                }
                Ok(answer)
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(hunt = subject.called(), error, "a hunt could not be recorded; it is asked again");
                let message = "the ledger could not be read or written; the log says why".to_owned();
                Err(Refusal { status: 503, code: "ledger", message })
            }
        }
    }

    fn tell(&self, subject: &Subject, run: &HuntRun) {
        let (hunt, took_ms) = (subject.called(), run.took_ms);
        match &run.error {
            Some(error) => {
                let code = run.code.as_deref().unwrap_or_default();
                tracing::error!(hunt, code, error, took_ms, "a hunt came to nothing");
            }
            None if run.new > 0 => {
                tracing::info!(hunt, rows = run.rows, new = run.new, took_ms, "a hunt found something")
            }
            None => tracing::debug!(hunt, rows = run.rows, took_ms, "a hunt found nothing new"),
        }
        self.counts.add(&subject.info.id, run);
        self.remember(&subject.info.id, run.clone());
    }

    fn remember(&self, id: &Arc<str>, run: HuntRun) {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).insert(Arc::clone(id), run);
    }

    fn running(&self) -> MutexGuard<'_, BTreeSet<Arc<str>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// That a hunt runs; given back also when nobody waits for it any more.
struct Turn<'a>(&'a Shared, Arc<str>);

impl Turn<'_> {
    fn take<'a>(shared: &'a Shared, id: &Arc<str>) -> Option<Turn<'a>> {
        shared.running().insert(Arc::clone(id)).then(|| Turn(shared, Arc::clone(id)))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.running().remove(&self.1);
    }
}

/// The hunts as others see them.
pub(crate) struct HuntsApi(Arc<Shared>);

impl HuntsApi {
    /// Whether all that are in force came to something when they last ran, in words.
    pub(crate) fn summary(&self) -> (bool, String) {
        let subjects = Subject::all(&self.0.reload.rules());
        let last = self.0.last.lock().unwrap_or_else(PoisonError::into_inner);
        let failed: Vec<&str> = subjects
            .iter()
            .filter(|subject| last.get(&subject.info.id).is_some_and(|run| run.code.is_some()))
            .map(Subject::called)
            .collect();
        if failed.is_empty() {
            return (true, format!("{} hunts", subjects.len()));
        }
        (false, format!("{} hunts, of which these came to nothing: {}", subjects.len(), failed.join(", ")))
    }

    /// What they did since the start.
    pub(crate) fn metrics(&self, page: &mut cf_api::metrics::Page) {
        self.0.counts.write(page);
    }

    async fn rows(&self) -> Result<Vec<(Subject, Value)>, Refusal> {
        let states = self.0.reader.hunts().await.map_err(unreadable)?;
        let row = |subject: Subject| {
            let state = states.iter().find(|state| *state.last.hunt == *subject.info.id);
            let mut row = subject.row(state, self.0.every_s);
            if let Value::Object(row) = &mut row {
                row.insert("running".to_owned(), json!(self.0.running().contains(&subject.info.id)));
            }
            (subject, row)
        };
        Ok(Subject::all(&self.0.reload.rules()).into_iter().map(row).collect())
    }

    async fn story(&self, name: &str) -> Result<Value, Refusal> {
        let found = Subject::named(&self.0.reload.rules(), name).ok_or_else(|| unknown(name))?;
        let rows = self.rows().await?;
        let row = rows.into_iter().find(|(subject, _)| subject.info.id == found.info.id).map(|(_, row)| row);
        let mut row = row.ok_or_else(|| unknown(name))?;
        let last = self.0.reader.hunt_rows(&found.info.id, SHOWN_ROWS).await.map_err(unreadable)?;
        if let Value::Object(row) = &mut row {
            row.insert("query".to_owned(), json!(&*found.hunt.query));
            row.insert("found".to_owned(), last.into_iter().map(|row| row.row).collect());
        }
        Ok(row)
    }
}

impl cf_api::Hunts for HuntsApi {
    fn list(&self) -> oneshot::Receiver<Result<Value, Refusal>> {
        let (answer, answered) = oneshot::channel();
        let api = HuntsApi(Arc::clone(&self.0));
        self.0.handle.spawn(async move {
            let rows = api.rows().await.map(|rows| rows.into_iter().map(|(_, row)| row).collect::<Vec<Value>>());
            // Whoever asked may be gone.
            drop(answer.send(rows.map(|rows| json!({ "hunts": rows }))));
        });
        answered
    }

    fn show(&self, name: String) -> oneshot::Receiver<Result<Value, Refusal>> {
        let (answer, answered) = oneshot::channel();
        let api = HuntsApi(Arc::clone(&self.0));
        self.0.handle.spawn(async move { drop(answer.send(api.story(&name).await)) });
        answered
    }

    fn run(&self, name: String) -> oneshot::Receiver<Result<Value, Refusal>> {
        let (answer, answered) = oneshot::channel();
        let shared = Arc::clone(&self.0);
        self.0.handle.spawn(async move {
            let ran = match Subject::named(&shared.reload.rules(), &name) {
                None => Err(unknown(&name)),
                Some(subject) => shared.run(&subject, &How { by: "api".to_owned(), ..How::default() }).await,
            };
            drop(answer.send(ran));
        });
        answered
    }
}

fn unknown(name: &str) -> Refusal {
    let name: String = name.chars().take(80).collect();
    Refusal { status: 404, code: "not_found", message: format!("there is no hunt {name:?}") }
}

fn unreadable(error: cf_ledger::LedgerError) -> Refusal {
    tracing::error!(%error, "how hunts stand could not be read");
    Refusal { status: 503, code: "ledger", message: "the ledger could not be read; the log says why".to_owned() }
}
