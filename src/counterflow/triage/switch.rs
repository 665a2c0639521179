//! Which models answer: follows the registry while the engine runs.
//!
//! A promotion or a rollback is seen within seconds. The version is loaded and its probe predicted bit by bit before it
//! answers; one that is damaged, too large or of other features is told, and the one before it stays. Every change is a
//! record of the control log, so that an epoch's record names the versions of its time.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use cf_models::{
    registry::{Registry, State},
    served::Serving,
};
use cf_types::{Tenant, triage::Role};
use serde::{Deserialize, Serialize};

use super::settings::{ChallengerMode, TaskMode};

/// The task.
pub(crate) const TASK: &str = "triage";
/// How often the registry is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After how long a version that could not be used is tried again: somebody may have mended it.
const AGAIN_AFTER: Duration = Duration::from_secs(30);

/// What the control log says of models.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ModelChange {
    /// Of which task.
    pub(crate) task: String,
    /// The version that is promoted.
    pub(crate) champion: Option<String>,
    /// The version that is compared with it.
    pub(crate) challenger: Option<String>,
    /// Why, as the registry has it.
    pub(crate) why: String,
}

/// The models of a task that answer.
pub(crate) struct Models {
    task: &'static str,
    registry: Registry,
    mode: TaskMode,
    challenging: ChallengerMode,
    pub(crate) champion: Option<Serving>,
    pub(crate) challenger: Option<Serving>,
    /// What the control log has.
    said: ModelChange,
    looked: Option<Instant>,
    /// A version that cannot be used, and when that was found.
    broken: Vec<(String, Instant)>,
    /// Whether what is promoted cannot be used.
    is_broken: bool,
}

impl Models {
    /// Nothing is loaded yet. `said` is the last change of the control log.
    pub(crate) fn new(
        task: &'static str,
        registry: &Path,
        mode: TaskMode,
        challenging: ChallengerMode,
        said: ModelChange,
    ) -> Models {
        Models {
            task,
            registry: Registry::new(registry),
            mode,
            challenging,
            champion: None,
            challenger: None,
            said,
            looked: None,
            broken: Vec::new(),
            is_broken: false,
        }
    }

    /// Looks at the registry, at most once a second; what is to be recorded if the models that answer are others now.
    pub(crate) fn look(&mut self) -> Option<ModelChange> {
        if self.looked.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
            return None;
        }
        let is_first = self.looked.is_none();
        self.looked = Some(Instant::now());
        self.broken.retain(|(_, at)| at.elapsed() < AGAIN_AFTER);
        let state = match self.registry.state(self.task) {
            Ok(state) => state,
            Err(error) => {
                self.tell_once("state", &error.to_string());
                self.is_broken = true;
                return None;
            }
        };
        self.follow(&state);
        if is_first && self.champion.is_none() {
            self.fall_back(&state);
        }
        self.is_broken = state.champion.is_some() && state.champion != version(self.champion.as_ref());
        let (champion, challenger) = (version(self.champion.as_ref()), version(self.challenger.as_ref()));
        if (&champion, &challenger) == (&self.said.champion, &self.said.challenger) {
            return None;
        }
        let why = state.happened.last().map(|last| format!("{}: {}", last.what, last.why)).unwrap_or_default();
        let change = ModelChange { task: self.task.to_owned(), champion, challenger, why };
        let named = |version: &'_ Option<String>| version.clone().unwrap_or_else(|| "none".to_owned());
        let (champion, challenger) = (named(&change.champion), named(&change.challenger));
        tracing::info!(task = self.task, champion, challenger, why = change.why, "models change");
        self.said = change.clone();
        Some(change)
    }

    /// Whether what is promoted cannot be used; then what answered before it does.
    pub(crate) fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// The version that answers.
    pub(crate) fn champion_version(&self) -> Option<String> {
        version(self.champion.as_ref())
    }

    /// In what parts champion and challenger answer about `who`. In a comparison each serves half of all, always the same
    /// half: one entity meets one model.
    pub(crate) fn roles(&self, tenant: &Tenant, who: &str) -> (Role, Role) {
        let splits = self.challenging == ChallengerMode::Ab && self.challenger.is_some() && self.champion.is_some();
        match (self.mode, splits) {
            (TaskMode::Shadow | TaskMode::Off, _) => (Role::Shadow, Role::Shadow),
            (TaskMode::On, false) => (Role::Champion, Role::Shadow),
            (TaskMode::On, true) if is_for_challenger(tenant, who) => (Role::Shadow, Role::B),
            (TaskMode::On, true) => (Role::A, Role::Shadow),
        }
    }

    fn follow(&mut self, state: &State) {
        // A registry that has lost its champion says nothing of who should answer.
        if let Some(version) = &state.champion
            && self.champion.as_ref().is_none_or(|now| *now.version != **version)
            && let Some(serving) = self.load(version)
        {
            self.champion = Some(serving);
        }
        let challenger = state
            .challenger
            .as_ref()
            .filter(|version| self.challenging != ChallengerMode::Off && state.champion.as_ref() != Some(*version));
        match challenger {
            None => self.challenger = None,
            Some(version) if self.challenger.as_ref().is_some_and(|now| *now.version == **version) => {}
            Some(version) => self.challenger = self.load(version),
        }
    }

    /// At a start the champion cannot be used: the one that answered before the end does, or one from before it.
    fn fall_back(&mut self, state: &State) {
        if state.champion.is_none() {
            return;
        }
        let before = self.said.champion.iter().chain(state.before.iter().rev()).cloned().collect::<Vec<_>>();
        for version in before.iter().filter(|version| state.champion.as_ref() != Some(version)) {
            if let Some(serving) = self.load(version) {
                tracing::warn!(version, "a version from before answers instead");
                self.champion = Some(serving);
                return;
            }
        }
    }

    fn load(&mut self, version: &str) -> Option<Serving> {
        if self.broken.iter().any(|(broken, _)| broken == version) {
            return None;
        }
        match Serving::load(&self.registry, self.task, version) {
            Ok(serving) => Some(serving),
            Err(error) => {
                self.tell_once(version, &error.to_string());
                None
            }
        }
    }

    fn tell_once(&mut self, what: &str, error: &str) {
        if !self.broken.iter().any(|(broken, _)| broken == what) {
            tracing::error!(
                task = self.task,
                version = what,
                error,
                "a model cannot be used; what answered before goes on"
            );
            self.broken.push((what.to_owned(), Instant::now()));
        }
    }
}

fn version(serving: Option<&Serving>) -> Option<String> {
    serving.map(|serving| serving.version.to_string())
}

/// Which half an entity is in, the same for all tasks.
fn is_for_challenger(tenant: &Tenant, who: &str) -> bool {
    let hash = cf_types::id::digest128("cf.triage.ab.1", &[tenant.as_str().as_bytes(), who.as_bytes()]);
    hash.first().is_some_and(|byte| byte & 1 == 1)
}

/// The last change of a task that the control log holds.
pub(crate) fn last_said(task: &str, entries: &[cf_ledger::ControlEntry]) -> Result<ModelChange> {
    let mut last = ModelChange::default();
    for entry in entries {
        let change = ModelChange::read(entry)?;
        if change.task == task {
            last = change;
        }
    }
    Ok(last)
}

impl ModelChange {
    /// What an entry of the control log says.
    pub(crate) fn read(entry: &cf_ledger::ControlEntry) -> Result<ModelChange> {
        serde_json::from_str(&entry.body)
            .with_context(|| format!("change of models {} in the control log is damaged", entry.seq))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ML-09: the split is by who it is about alone, near to halves, and the same on every run and for every task.
    #[test]
    fn one_entity_meets_one_model() {
        let tenant = Tenant::default();
        let of = |number: u32| is_for_challenger(&tenant, &format!("host:web{number}"));
        let challengers = (0..10_000).filter(|number| of(*number)).count();
        assert!((4_800..5_200).contains(&challengers), "{challengers}");
        assert_eq!((0..8).map(of).collect::<Vec<_>>(), (0..8).map(of).collect::<Vec<_>>());
    }
}
