//! The models that are asked about events: follow the registry, and answer about the events of an epoch.
//!
//! A challenger is asked about the same events as the champion. In shadow its answers are recorded beside; in a comparison
//! it serves the events of half of the entities, and then the champion's are recorded beside.

use std::{collections::BTreeMap, sync::Arc, sync::atomic::Ordering};

use anyhow::Result;
use cf_ledger::ControlEntry;
use cf_models::{
    ModelError,
    served::{self, Serving},
};
use cf_types::{
    Epoch,
    scored::{Cells, Scored, ScoredEvent},
    triage::{Answer, Role, Worth},
};

use super::{Counts, POSITIVE_MAX, TASKS, gather::Candidate, who};
use crate::triage::{
    settings::{EventMode, ModelsSettings},
    switch::{ModelChange, Models, last_said},
};

/// Of this many answers that are not positive one is recorded: what is common, for trainings and for drift.
const SAMPLE: u64 = 1_000;

/// One task's models.
struct Followed {
    task: &'static str,
    mode: EventMode,
    models: Models,
}

/// All tasks' models.
pub(super) struct Asker {
    tasks: Vec<Followed>,
}

/// What champion and challenger answered about one event.
#[derive(Clone, Debug)]
struct Said {
    /// What serves the event; in shadow, what the champion said.
    answer: Answer,
    others: Vec<Answer>,
}

impl Asker {
    /// Nothing is loaded yet. `said` are the changes of models in the control log.
    pub(super) fn new(settings: &ModelsSettings, said: &[ControlEntry]) -> Result<Asker> {
        let mut tasks = Vec::new();
        for (task, mode) in TASKS.into_iter().zip(settings.event_modes()) {
            let registry = settings.dir.as_deref().unwrap_or_else(|| std::path::Path::new(""));
            let models = Models::new(task, registry, mode.into(), settings.challenger, last_said(task, said)?);
            tasks.push(Followed { task, mode, models });
        }
        Ok(Asker { tasks })
    }

    /// Looks at the registry, which models do at most once a second; gives what is to be recorded of models that answer from now on.
    pub(super) fn look(&mut self, counts: &Counts) -> Vec<ModelChange> {
        let mut changes = Vec::new();
        let mut is_broken = false;
        for followed in self.tasks.iter_mut().filter(|followed| followed.mode != EventMode::Off) {
            let change = followed.models.look();
            is_broken |= followed.models.is_broken();
            if let Some(version) = change.as_ref().and_then(|change| change.champion.as_deref()) {
                tracing::info!(task = followed.task, version, "a model answers about events");
            }
            changes.extend(change);
        }
        counts.broken.store(is_broken, Ordering::Relaxed);
        changes
    }

    /// Answers about the events of an epoch, in their order: what is to be recorded.
    pub(super) fn ask(&self, epoch: Epoch, candidates: &[Candidate], counts: &Counts) -> Vec<Scored> {
        let mut all = Vec::new();
        for (at, followed) in self.tasks.iter().enumerate() {
            let of: Vec<&Candidate> = candidates.iter().filter(|candidate| candidate.task == at).collect();
            if of.is_empty() || followed.models.champion.is_none() {
                continue;
            }
            match followed.answers(&of) {
                Ok(said) => {
                    Counts::add(&counts.answered, said.len());
                    let scored = recorded(followed.task, epoch, &of, said);
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
    /// What the models say of events, in order; the one that serves an event first.
    fn answers(&self, of: &[&Candidate]) -> Result<Vec<Said>, ModelError> {
        let Some(champion) = &self.models.champion else { return Ok(Vec::new()) };
        let champions = answers(self.task, champion, of)?;
        // A challenger that cannot answer takes nothing from the champion.
        let challengers = self.models.challenger.as_ref().and_then(|challenger| {
            let said = answers(self.task, challenger, of);
            said.inspect_err(|error| tracing::error!(task = self.task, %error, "a challenger could not answer")).ok()
        });
        let mut said = Vec::with_capacity(of.len());
        for (at, (candidate, champion)) in of.iter().zip(champions).enumerate() {
            let (one, other) = self.models.roles(&candidate.tenant, &who(&candidate.entities, &candidate.source));
            let challenger = challengers.as_ref().and_then(|answers| answers.get(at)).cloned();
            said.push(match challenger {
                Some(challenger) => {
                    let (champion, challenger) =
                        (Answer { role: one, ..champion }, Answer { role: other, ..challenger });
                    let (answer, other) =
                        if other.is_served() { (challenger, champion) } else { (champion, challenger) };
                    Said { answer, others: vec![other] }
                }
                None if one == Role::Shadow && self.mode == EventMode::On => {
                    Said { answer: Answer { role: Role::Champion, ..champion }, others: Vec::new() }
                }
                None => Said { answer: Answer { role: one, ..champion }, others: Vec::new() },
            });
        }
        Ok(said)
    }
}

/// One answer per event; events with the same cells are asked about once.
fn answers(task: &str, serving: &Serving, of: &[&Candidate]) -> Result<Vec<Answer>, ModelError> {
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
    let answers = serving.answer_rows(&served::event_table(task, &distinct), Role::Shadow)?;
    Ok(at.into_iter().filter_map(|place| answers.get(place).cloned()).collect())
}

/// What is recorded of an epoch: what serves as a detection, what the other model would have made one, and a sample.
fn recorded(task: &str, epoch: Epoch, of: &[&Candidate], said: Vec<Said>) -> Scored {
    let mut scored = Scored {
        task: Arc::from(task),
        epoch,
        recipe: Arc::from(served::event_recipe(task)),
        asked: u64::try_from(said.len()).unwrap_or(u64::MAX),
        cut: 0,
        events: Vec::new(),
    };
    let (mut positive, mut positive_besides) = (0, 0);
    for (candidate, Said { answer, others }) in of.iter().zip(said) {
        let Candidate { tenant, source, member, entities, cells, .. } = (*candidate).clone();
        let sampled = is_sampled(&member.id.to_string());
        let besides = others.iter().any(|answer| answer.verdict == Worth::True);
        let event = ScoredEvent { tenant, source, member, entities, cells, answer, others };
        if event.answer.verdict == Worth::True {
            if positive >= POSITIVE_MAX {
                scored.cut += 1;
                continue;
            }
            positive += 1;
            scored.events.push(event);
        } else if besides && positive_besides < POSITIVE_MAX {
            positive_besides += 1;
            scored.events.push(event);
        } else if sampled {
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
