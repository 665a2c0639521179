//! The models that are asked about events: follows the registry, and answers about the events of an epoch.

use std::{collections::BTreeMap, path::Path, sync::Arc, sync::atomic::Ordering, time::Instant};

use cf_models::{
    registry::Registry,
    served::{self, Serving},
};
use cf_types::{
    Epoch,
    scored::{Cells, Scored, ScoredEvent},
    triage::{Answer, Role},
};

use super::{Counts, LOOK_EVERY, POSITIVE_MAX, TASKS, gather::Candidate};
use crate::triage::{settings::EventMode, switch::ModelChange};

/// Of this many answers that are not positive one is recorded: what is common, for trainings and for drift.
const SAMPLE: u64 = 1_000;

/// One task's model.
struct Followed {
    task: &'static str,
    mode: EventMode,
    serving: Option<Serving>,
    /// The version that cannot be used.
    broken: Option<String>,
    /// What the control log has.
    said: Option<String>,
}

/// All tasks' models.
pub(super) struct Asker {
    registry: Registry,
    tasks: [Followed; 2],
    looked: Option<Instant>,
}

impl Asker {
    /// Nothing is loaded yet. `said` has the versions of the control log.
    pub(super) fn new(registry: &Path, modes: [EventMode; 2], said: &BTreeMap<String, String>) -> Asker {
        let follow = |(task, mode): (&'static str, EventMode)| Followed {
            task,
            mode,
            serving: None,
            broken: None,
            said: said.get(task).cloned(),
        };
        let [urls, flows] = TASKS;
        let [of_urls, of_flows] = modes;
        let tasks = [(urls, of_urls), (flows, of_flows)].map(follow);
        Asker { registry: Registry::new(registry), tasks, looked: None }
    }

    /// Looks at the registry, at most once a second; gives what is to be recorded of models that answer from now on.
    pub(super) fn look(&mut self, counts: &Counts) -> Vec<ModelChange> {
        if self.looked.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
            return Vec::new();
        }
        self.looked = Some(Instant::now());
        let registry = &self.registry;
        let on = self.tasks.iter_mut().filter(|task| task.mode != EventMode::Off);
        let changes = on.filter_map(|task| task.look(registry)).collect();
        counts.broken.store(self.tasks.iter().any(|task| task.broken.is_some()), Ordering::Relaxed);
        changes
    }

    /// Answers about the events of an epoch, in their order: what is to be recorded.
    pub(super) fn ask(&self, epoch: Epoch, candidates: &[Candidate], counts: &Counts) -> Vec<Scored> {
        let mut all = Vec::new();
        for (at, followed) in self.tasks.iter().enumerate() {
            let of: Vec<&Candidate> = candidates.iter().filter(|candidate| candidate.task == at).collect();
            let Some(serving) = &followed.serving else { continue };
            if of.is_empty() {
                continue;
            }
            let role = if followed.mode == EventMode::Shadow { Role::Shadow } else { Role::Champion };
            match answers(followed.task, serving, &of, role) {
                Ok(answers) => {
                    Counts::add(&counts.answered, answers.len());
                    let scored = recorded(followed.task, epoch, &of, answers);
                    Counts::add(&counts.positive, scored.events.iter().filter(|event| event.is_positive()).count());
                    Counts::add(&counts.unscored, usize::try_from(scored.cut).unwrap_or(usize::MAX));
                    if !scored.events.is_empty() {
                        all.push(scored);
                    }
                }
                Err(error) => {
                    tracing::error!(task = followed.task, %error, "a model could not answer about events");
                    Counts::add(&counts.unscored, of.len());
                }
            }
        }
        all
    }
}

impl Followed {
    fn look(&mut self, registry: &Registry) -> Option<ModelChange> {
        let state = match registry.state(self.task) {
            Ok(state) => state,
            Err(error) => {
                self.tell_once("state", &error.to_string());
                return None;
            }
        };
        // A registry that has lost its champion says nothing of who should answer.
        let wanted = state.champion?;
        if self.serving.as_ref().is_some_and(|now| *now.version == *wanted) {
            self.broken = None;
            return None;
        }
        if self.broken.as_ref() == Some(&wanted) {
            return None;
        }
        match Serving::load(registry, self.task, &wanted) {
            Ok(serving) => {
                tracing::info!(task = self.task, version = wanted, "a model answers about events");
                self.serving = Some(serving);
                self.broken = None;
            }
            Err(error) => self.tell_once(&wanted, &error.to_string()),
        }
        let champion = self.serving.as_ref().map(|serving| serving.version.to_string());
        if champion == self.said {
            return None;
        }
        self.said.clone_from(&champion);
        let why = state.happened.last().map(|last| format!("{}: {}", last.what, last.why)).unwrap_or_default();
        Some(ModelChange { task: self.task.to_owned(), champion, challenger: None, why })
    }

    fn tell_once(&mut self, what: &str, error: &str) {
        if self.broken.as_deref() != Some(what) {
            tracing::error!(
                task = self.task,
                version = what,
                error,
                "a model cannot be used; what answered before goes on"
            );
            self.broken = Some(what.to_owned());
        }
    }
}

/// One answer per event; events with the same cells are asked about once.
fn answers(task: &str, serving: &Serving, of: &[&Candidate], role: Role) -> Result<Vec<Answer>, cf_models::ModelError> {
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let mut distinct: Vec<&Cells> = Vec::new();
    let mut at = Vec::with_capacity(of.len());
    for candidate in of {
        let place = *places.entry(format!("{:?}", candidate.cells)).or_insert_with(|| {
            distinct.push(&candidate.cells);
            distinct.len() - 1
        });
        at.push(place);
    }
    let answers = serving.answer_rows(&served::event_table(task, &distinct), role)?;
    Ok(at.into_iter().filter_map(|place| answers.get(place).cloned()).collect())
}

fn recorded(task: &str, epoch: Epoch, of: &[&Candidate], answers: Vec<Answer>) -> Scored {
    let mut scored = Scored {
        task: Arc::from(task),
        epoch,
        recipe: Arc::from(served::event_recipe(task)),
        asked: u64::try_from(answers.len()).unwrap_or(u64::MAX),
        cut: 0,
        events: Vec::new(),
    };
    let mut positive = 0;
    for (candidate, answer) in of.iter().zip(answers) {
        let Candidate { tenant, source, member, entities, cells, .. } = (*candidate).clone();
        let sampled = is_sampled(&member.id.to_string());
        let event = ScoredEvent { tenant, source, member, entities, cells, answer };
        let is_positive = event.answer.verdict == cf_types::triage::Worth::True;
        if is_positive && positive >= POSITIVE_MAX {
            scored.cut += 1;
            continue;
        }
        positive += usize::from(is_positive);
        if is_positive || sampled {
            scored.events.push(event);
        }
    }
    scored
}

/// By the event's id, so that the same event is in every sample or in none.
fn is_sampled(id: &str) -> bool {
    let hash = cf_types::id::digest128("cf.scored.sample.1", &[id.as_bytes()]);
    let number = hash.iter().take(8).fold(0_u64, |number, byte| (number << 8) | u64::from(*byte));
    number.is_multiple_of(SAMPLE)
}
