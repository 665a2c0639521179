//! The loop of models, for all tasks: trains anew by schedule, takes a champion back that is wrong too often, and ends
//! comparisons.
//!
//! In: the control log, from its begin, and the registry. Out: changes of the registry, and a record of the control log for
//! each, with its reason. All that is known is read from the control log, so a restart knows the same.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use cf_ledger::{ControlEntry, ControlLog, Reader, triage::MODEL};
use cf_models::registry::Registry;
use cf_types::{
    Alert, Decision, FactBody, Group, Tenant, Time, clock,
    fact::{Judgement, Verdict},
    scored::Scored,
};
use serde::Deserialize;
use serde_json::json;

use super::{
    decide,
    precision::{Judged, Served},
    retrain::{RETRAIN, Training, is_due},
    settings::ModelsSettings,
    switch::{ModelChange, TASK},
    trial::Outcome,
};
use crate::scoring;

/// How often the clock and the verdicts are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Starts the thread, if models are used for anything; it ends with the process.
pub(super) fn start(data: &Path, settings: &ModelsSettings) -> Result<()> {
    let tasks = settings.tasks();
    if tasks.is_empty() {
        return Ok(());
    }
    let tasks = tasks.into_iter().map(|task| (task, OfTask::default())).collect();
    let mut keeper = Keeper { data: data.to_path_buf(), settings: settings.clone(), tasks, seen: 0 };
    thread::Builder::new()
        .name("retrain".to_owned())
        .spawn(move || {
            if let Err(error) = keeper.work() {
                let error = format!("{error:#}");
                tracing::error!(error, "models are neither trained anew nor taken back; a restart tries again");
            }
        })
        .context("could not start the thread that trains anew")?;
    Ok(())
}

/// What is known of one task.
#[derive(Default)]
struct OfTask {
    judged: Judged,
    /// When its last training by schedule began.
    trained: Option<Time>,
}

struct Keeper {
    data: PathBuf,
    settings: ModelsSettings,
    tasks: BTreeMap<&'static str, OfTask>,
    /// The last entry of the control log that was read.
    seen: i64,
}

/// What a record of this kind says.
#[derive(Deserialize)]
struct Said {
    task: String,
    what: String,
}

impl Keeper {
    fn work(&mut self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let reader = runtime.block_on(Reader::open(&self.data))?;
        // A task of which nothing was trained begins to count now.
        let begun = clock::now();
        let mut training: Option<Training> = None;
        loop {
            runtime.block_on(self.read(&reader))?;
            for task in self.settings.tasks() {
                for (what, said) in [self.take_back(task), self.end_trial(task)].into_iter().flatten() {
                    tracing::warn!(task, what, said, "models change by themselves");
                    runtime.block_on(self.record(task, what, &said))?;
                }
            }
            if let Some(running) = &mut training {
                if let Some(outcome) = running.outcome()? {
                    let task = running.task;
                    training = None;
                    tracing::info!(task, outcome, "a training by schedule has ended");
                    runtime.block_on(self.record(task, "trained", &outcome))?;
                }
            } else if let Some(task) = self.due(begun) {
                // Before it begins: one that ends the engine is not begun again at once.
                runtime.block_on(self.record(task, "begun", "by schedule"))?;
                tracing::info!(task, "a training by schedule begins");
                match Training::begin(&self.data, &self.settings, task) {
                    Ok(begun) => training = Some(begun),
                    Err(error) => runtime.block_on(self.record(task, "failed", &format!("{error:#}")))?,
                }
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    /// The first task whose training is due.
    fn due(&mut self, begun: Time) -> Option<&'static str> {
        let (now, settings) = (clock::now(), &self.settings);
        let waits = |of: &OfTask| is_due(settings.retrain, settings.retrain_hour, of.trained.unwrap_or(begun), now);
        let (task, of) = self.tasks.iter_mut().find(|(_, of)| waits(of))?;
        of.trained = Some(now);
        Some(*task)
    }

    async fn read(&mut self, reader: &Reader) -> Result<()> {
        loop {
            let entries = reader.control_since(self.seen).await?;
            let Some(end) = entries.last().map(|entry| entry.seq) else { return Ok(()) };
            for entry in &entries {
                self.entry(reader, entry).await?;
            }
            self.seen = end;
        }
    }

    async fn entry(&mut self, reader: &Reader, entry: &ControlEntry) -> Result<()> {
        if let Some((fact, sign)) = entry.fact()? {
            if let FactBody::Verdict(verdict) = fact.body {
                self.verdict(reader, &verdict, sign).await?;
            }
        } else if let Some(decision) = entry.decision()? {
            self.decision(&decision);
        } else if entry.kind == scoring::SCORED {
            self.scored(&scoring::read(entry)?);
        } else if entry.kind == MODEL {
            let change = ModelChange::read(entry)?;
            if let Some(of) = self.tasks.get_mut(change.task.as_str()) {
                of.judged.models(&change);
            }
        } else if entry.kind == RETRAIN {
            let said: Said = serde_json::from_str(&entry.body).with_context(|| {
                format!("what models did by themselves, {} of the control log, is damaged", entry.seq)
            })?;
            if let Some(of) = self.tasks.get_mut(said.task.as_str()).filter(|_| said.what == "begun") {
                of.trained = Some(entry.at);
            }
        }
        Ok(())
    }

    /// What triage served about an alert.
    fn decision(&mut self, decision: &Decision) {
        let Some(of) = self.tasks.get_mut(TASK) else { return };
        let served = decision.answers.iter().find_map(|answer| Served::of(answer, decide::who(decision)));
        if let Some(served) = served {
            of.judged.answered(decision.alert.to_string(), served);
        }
    }

    /// What was served about events: verdicts find it by the group of the alert that comes of it.
    fn scored(&mut self, scored: &Scored) {
        let Some(of) = self.tasks.get_mut(&*scored.task) else { return };
        for event in &scored.events {
            let who = scoring::who(&event.entities, &event.source);
            if let Some(served) = Served::of(&event.answer, who)
                && let Some(detection) = cf_dataflows::model_detection(&scored.task, event)
                && let Some(item) = detection.items.first()
            {
                of.judged.answered(key(&event.tenant, &item.group), served);
            }
        }
    }

    /// A verdict is on what triage said of the alert, and on the model that raised it, if one did.
    async fn verdict(&mut self, reader: &Reader, verdict: &Verdict, sign: i64) -> Result<()> {
        let is_attack = verdict.judgement == Judgement::TruePositive;
        if let Some(of) = self.tasks.get_mut(TASK) {
            of.judged.verdict(verdict.alert, &verdict.alert.to_string(), is_attack, sign);
        }
        let task = verdict.rule.strip_prefix("model-").unwrap_or_default();
        if let Some(of) = self.tasks.get_mut(task)
            && let Some(Alert { tenant, group, .. }) = reader.alert(verdict.alert).await?
        {
            of.judged.verdict(verdict.alert, &key(&tenant, &group), is_attack, sign);
        }
        Ok(())
    }

    /// Goes back to the version before, if the champion is wrong too often; says why.
    fn take_back(&self, task: &str) -> Option<(&'static str, String)> {
        let gate = &self.settings.rollback;
        if gate.precision_min_percent == 0 {
            return None;
        }
        let registry = Registry::new(self.settings.dir.as_deref()?);
        let state = registry.state(task).ok()?;
        let champion = state.champion.filter(|_| !state.before.is_empty())?;
        let share = self.tasks.get(task)?.judged.share(&champion);
        if !share.is_below(gate.precision_min_percent, gate.verdicts_min) {
            return None;
        }
        let worth = if task == TASK { " called worth a person" } else { " raised" };
        let why = format!(
            "of {} alerts that {champion}{worth} {} were attacks, {} % are asked for",
            share.verdicts, share.attacks, gate.precision_min_percent
        );
        // Another process may be writing just now: the next look tries again.
        let lock = registry.lock(task).ok()?;
        match registry.roll_back(&lock, task, &why) {
            Ok(version) => Some(("rolled_back", format!("{version} answers again: {why}"))),
            Err(error) => {
                tracing::error!(task, %error, why, "the champion should be taken back, and the version before cannot be used");
                None
            }
        }
    }

    /// Ends a comparison that is decided: the challenger is promoted, or challenges no more.
    fn end_trial(&self, task: &str) -> Option<(&'static str, String)> {
        let trial = self.tasks.get(task)?.judged.trial()?;
        let (outcome, why) = trial.outcome()?;
        let registry = Registry::new(self.settings.dir.as_deref()?);
        let state = registry.state(task).ok()?;
        // Somebody may have changed something since these two answered.
        let are_these = state.champion.as_ref() == Some(&trial.champion);
        if !are_these || state.challenger.as_ref() != Some(&trial.challenger) {
            return None;
        }
        let lock = registry.lock(task).ok()?;
        let (what, done) = match outcome {
            Outcome::Better => ("promoted", registry.promote(&lock, task, &trial.challenger, &why)),
            Outcome::Worse | Outcome::Alike => ("compared", registry.challenge(&lock, task, None, &why)),
        };
        match done {
            Ok(()) => Some((what, why)),
            Err(error) => {
                tracing::error!(task, %error, why, "a comparison is decided, and the registry cannot be changed");
                None
            }
        }
    }

    async fn record(&self, task: &str, what: &str, said: &str) -> Result<()> {
        let body = json!({"task": task, "what": what, "said": said}).to_string();
        let mut log = ControlLog::open(&self.data).await?;
        log.append(RETRAIN, &body, "triage", said, clock::now()).await?;
        Ok(())
    }
}

/// What is the same of an answer about an event and the alert that comes of it.
fn key(tenant: &Tenant, group: &Group) -> String {
    format!("{tenant} {}", group.to_json())
}
