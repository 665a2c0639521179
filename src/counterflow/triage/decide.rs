//! Decisions: what went before, the models, and the two together.

use std::{
    collections::{BTreeMap, VecDeque},
    path::Path,
};

use anyhow::{Context, Result};
use cf_ledger::{
    ControlEntry, ControlLog, Reader,
    triage::{MODEL, OpenedAfter},
};
use cf_models::features::alert::{AlertPast, Asked, material};
use cf_types::{
    Alert, AlertId, Decision, FactBody, clock,
    fact::Judgement,
    triage::{Answer, Role},
};

use super::{
    Counts, Question,
    settings::ModelsSettings,
    switch::{self, ModelChange, Models, TASK},
};

/// Decisions of before that are read at a start: what lies further back is not remembered.
const RECALLED_MAX: i64 = 200_000;
/// Alerts of which is known what they were decided for.
const KNOWN_MAX: usize = 50_000;
/// Open alerts that are asked about at a start and when a model arrives, the oldest.
const LEFT_MAX: usize = 10_000;

/// A verdict that is not counted yet.
struct Verdict {
    seq: i64,
    alert: AlertId,
    rule: std::sync::Arc<str>,
    is_attack: bool,
    sign: i64,
}

/// What is known of an alert that was decided about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    material: u64,
    answered: bool,
}

impl Known {
    fn of(decision: &Decision) -> Known {
        Known { material: decision.material, answered: !decision.answers.is_empty() }
    }
}

/// What decides.
pub(super) struct Decider {
    reader: Reader,
    log: ControlLog,
    past: AlertPast,
    models: Models,
    verdicts: VecDeque<Verdict>,
    /// The last entry of the control log that was read.
    seen: i64,
    /// What each alert was decided for, and whether a model answered; the oldest first in `order`.
    known: BTreeMap<AlertId, Known>,
    order: VecDeque<AlertId>,
}

impl Decider {
    /// Reads what went before.
    pub(super) async fn open(data: &Path, settings: &ModelsSettings) -> Result<Decider> {
        let registry = settings.triage_registry().context("triage is off")?;
        let reader = Reader::open(data).await?;
        let mut decider = Decider {
            log: ControlLog::open(data).await?,
            past: AlertPast::default(),
            models: Decider::models(registry, settings, ModelChange::default()),
            verdicts: VecDeque::new(),
            seen: 0,
            known: BTreeMap::new(),
            order: VecDeque::new(),
            reader,
        };
        let begin = decider.reader.decisions_begin(RECALLED_MAX).await?;
        let mut said = Vec::new();
        decider.follow(begin, &mut said).await?;
        decider.models = Decider::models(registry, settings, switch::last_said(TASK, &said)?);
        Ok(decider)
    }

    fn models(registry: &Path, settings: &ModelsSettings, said: ModelChange) -> Models {
        Models::new(TASK, registry, settings.task.triage, settings.challenger, said)
    }

    /// Reads on in the control log: verdicts wait for the next decision, decisions behind `begin` are recalled.
    async fn follow(&mut self, begin: i64, said: &mut Vec<ControlEntry>) -> Result<()> {
        loop {
            let entries = self.reader.control_since(self.seen).await?;
            let Some(last) = entries.last().map(|entry| entry.seq) else { return Ok(()) };
            for entry in entries {
                if let Some((fact, sign)) = entry.fact()? {
                    if let FactBody::Verdict(verdict) = fact.body {
                        let is_attack = verdict.judgement == Judgement::TruePositive;
                        let (seq, alert, rule) = (entry.seq, verdict.alert, verdict.rule);
                        self.verdicts.push_back(Verdict { seq, alert, rule, is_attack, sign });
                    }
                } else if entry.kind == MODEL {
                    said.push(entry);
                } else if entry.seq > begin
                    && let Some(decision) = entry.decision()?
                {
                    self.count_verdicts(decision.upto);
                    self.past.recall(&decision);
                    self.know(&decision);
                }
            }
            self.seen = last;
        }
    }

    /// Counts the verdicts up to an entry of the control log.
    fn count_verdicts(&mut self, upto: i64) {
        while let Some(verdict) = self.verdicts.pop_front_if(|verdict| verdict.seq <= upto) {
            self.past.verdict(verdict.alert, &verdict.rule, verdict.is_attack, verdict.sign);
        }
    }

    fn know(&mut self, decision: &Decision) {
        if self.known.insert(decision.alert, Known::of(decision)).is_none() {
            self.order.push_back(decision.alert);
        }
        while self.order.len() > KNOWN_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }

    /// Open alerts that nothing was decided about, or that no model has answered about while there is one; the oldest
    /// first. What lies beyond [`LEFT_MAX`] is told in the log and asked about when it changes, or at the next start.
    pub(super) async fn unanswered(&self) -> Result<VecDeque<Question>> {
        let mut questions = VecDeque::new();
        let mut after = OpenedAfter::default();
        loop {
            let page = self.reader.open_alerts_after(&mut after).await?;
            if page.is_empty() {
                return Ok(questions);
            }
            for (alert, thread) in page.into_iter().filter(|(alert, _)| self.is_open_question(alert)) {
                if questions.len() == LEFT_MAX {
                    tracing::warn!(
                        asked = LEFT_MAX,
                        "more open alerts wait for an answer than are asked about at once"
                    );
                    return Ok(questions);
                }
                questions.push_back(Question { alert, thread });
            }
        }
    }

    /// Whether a decision about the alert would say something new.
    fn is_open_question(&self, alert: &Alert) -> bool {
        let is_known = |known: &Known| known.material == material(alert) && (known.answered || !self.has_champion());
        !self.known.get(&alert.id).is_some_and(is_known)
    }

    /// Whether a model answers.
    pub(super) fn has_champion(&self) -> bool {
        self.models.champion.is_some()
    }

    /// Looks which models are to answer.
    pub(super) fn look(&mut self, counts: &Counts) -> Option<ModelChange> {
        let change = self.models.look();
        counts.broken.store(self.models.is_broken(), std::sync::atomic::Ordering::Relaxed);
        counts.set_champion(self.models.champion_version().as_deref());
        change
    }

    /// Decides about alerts, in order; those that are known already are left out. Gives also how many answers there are.
    pub(super) async fn decide(&mut self, batch: &[Question]) -> Result<(Vec<Decision>, usize)> {
        if batch.is_empty() {
            return Ok((Vec::new(), 0));
        }
        // Own decisions are in the past already: none is recalled again.
        self.follow(i64::MAX, &mut Vec::new()).await?;
        let upto = self.seen;
        self.count_verdicts(upto);
        let mut decisions: Vec<Decision> = Vec::new();
        for Question { alert, thread } in batch {
            let is_new =
                decisions.iter().all(|decision| decision.alert != alert.id || decision.material != material(alert));
            if is_new && self.is_open_question(alert) {
                decisions.push(self.past.decide(&Asked { alert, thread: *thread, upto }));
            }
        }
        if let Err(error) = self.answer(&mut decisions) {
            // The features stay: they are what can be learned from.
            tracing::error!(error = %format!("{error:#}"), "models could not answer");
        }
        decisions.iter().for_each(|decision| self.know(decision));
        let answers = decisions.iter().map(|decision| decision.answers.len()).sum();
        Ok((decisions, answers))
    }

    fn answer(&self, decisions: &mut [Decision]) -> Result<()> {
        let Models { champion, challenger, .. } = &self.models;
        let features: Vec<Vec<Option<i64>>> = decisions.iter().map(|decision| decision.features.clone()).collect();
        let features: Vec<&[Option<i64>]> = features.iter().map(Vec::as_slice).collect();
        let of = |serving: &Option<_>| -> Result<Vec<Option<Answer>>> {
            let Some(serving): &Option<cf_models::served::Serving> = serving else {
                return Ok(vec![None; features.len()]);
            };
            Ok(serving.answer(&features, Role::Shadow)?.into_iter().map(Some).collect())
        };
        let (champions, challengers) = (of(champion)?, of(challenger)?);
        for ((decision, champion), challenger) in decisions.iter_mut().zip(champions).zip(challengers) {
            let (one, other) = self.models.roles(&decision.tenant, &who(decision));
            let parts = [(champion, one), (challenger, other)];
            decision.answers =
                parts.into_iter().filter_map(|(answer, role)| Some(Answer { role, ..answer? })).collect();
        }
        Ok(())
    }

    /// Makes durable which models answer and what was decided.
    pub(super) async fn record(&mut self, change: Option<&ModelChange>, decisions: &[Decision]) -> Result<()> {
        if let Some(change) = change {
            let body = serde_json::to_string(change)?;
            self.log.append(MODEL, &body, "triage", &change.why, clock::now()).await?;
        }
        if !decisions.is_empty() {
            self.log.append_decisions(decisions, clock::now()).await?;
        }
        Ok(())
    }
}

/// Who an alert is about, for the halves of a comparison.
pub(super) fn who(decision: &Decision) -> String {
    decision.entities.first().map_or_else(|| decision.rule.to_string(), ToString::to_string)
}
