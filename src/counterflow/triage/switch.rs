//! Which models answer: follows the registry while the engine runs.
//!
//! A promotion or a rollback is seen within seconds. The version is loaded and its probe predicted bit by bit before it
//! answers; one that is damaged, too large or of other features is told, and the one before it stays. Every change is a
//! record of the control log, so that an epoch's record names the versions of its time.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Result;
use cf_models::{
    registry::{Registry, State},
    served::Serving,
};
use serde::{Deserialize, Serialize};

use super::{
    Counts,
    settings::{ChallengerMode, ModelsSettings, TaskMode},
};

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

/// The models that answer.
pub(super) struct Models {
    registry: Registry,
    pub(super) mode: TaskMode,
    pub(super) challenging: ChallengerMode,
    pub(super) champion: Option<Serving>,
    pub(super) challenger: Option<Serving>,
    /// What the control log has.
    said: ModelChange,
    looked: Option<Instant>,
    /// A version that cannot be used, and when that was found.
    broken: Vec<(String, Instant)>,
}

impl Models {
    /// Nothing is loaded yet. `said` is the last change of the control log.
    pub(super) fn new(registry: &Path, settings: &ModelsSettings, said: ModelChange) -> Models {
        Models {
            registry: Registry::new(registry),
            mode: settings.task.triage,
            challenging: settings.challenger,
            champion: None,
            challenger: None,
            said,
            looked: None,
            broken: Vec::new(),
        }
    }

    /// Looks at the registry, at most once a second; what is to be recorded if the models that answer are others now.
    pub(super) fn look(&mut self, counts: &Counts) -> Option<ModelChange> {
        if self.looked.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
            return None;
        }
        let is_first = self.looked.is_none();
        self.looked = Some(Instant::now());
        self.broken.retain(|(_, at)| at.elapsed() < AGAIN_AFTER);
        let state = match self.registry.state(TASK) {
            Ok(state) => state,
            Err(error) => {
                self.tell_once("state", &error.to_string());
                counts.broken.store(true, std::sync::atomic::Ordering::Relaxed);
                return None;
            }
        };
        self.follow(&state);
        if is_first && self.champion.is_none() {
            self.fall_back(&state);
        }
        let wanted = |version: &Option<String>, now: &Option<Serving>| {
            version.as_ref().is_some_and(|version| now.as_ref().is_none_or(|now| *now.version != **version))
        };
        let is_broken = wanted(&state.champion, &self.champion);
        counts.broken.store(is_broken, std::sync::atomic::Ordering::Relaxed);
        let version = |serving: &Option<Serving>| serving.as_ref().map(|serving| serving.version.to_string());
        let (champion, challenger) = (version(&self.champion), version(&self.challenger));
        counts.set_champion(champion.as_deref());
        if (&champion, &challenger) == (&self.said.champion, &self.said.challenger) {
            return None;
        }
        let why = state.happened.last().map(|last| format!("{}: {}", last.what, last.why)).unwrap_or_default();
        let change = ModelChange { task: TASK.to_owned(), champion, challenger, why };
        let named = |version: &'_ Option<String>| version.clone().unwrap_or_else(|| "none".to_owned());
        let (champion, challenger) = (named(&change.champion), named(&change.challenger));
        tracing::info!(champion, challenger, why = change.why, "models change");
        self.said = change.clone();
        Some(change)
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
        match Serving::load(&self.registry, TASK, version) {
            Ok(serving) => Some(serving),
            Err(error) => {
                self.tell_once(version, &error.to_string());
                None
            }
        }
    }

    fn tell_once(&mut self, what: &str, error: &str) {
        if !self.broken.iter().any(|(broken, _)| broken == what) {
            tracing::error!(version = what, error, "a model cannot be used; what answered before goes on");
            self.broken.push((what.to_owned(), Instant::now()));
        }
    }
}

/// The last change that the control log holds.
pub(super) fn last_said(entries: &[cf_ledger::ControlEntry]) -> Result<ModelChange> {
    let mut last = ModelChange::default();
    for entry in entries {
        let change: ModelChange = serde_json::from_str(&entry.body)?;
        if change.task == TASK {
            last = change;
        }
    }
    Ok(last)
}
