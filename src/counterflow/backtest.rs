//! Backtest: the rules in force and changed ones over the same past, and the exact difference between what the two come to.
//!
//! `known`: each file of history is met once, by all rules of both sets; what is found is kept by (meaning of the rule,
//! file), so that after another edit only the rules that changed are met again. The detections then go through two graphs,
//! one with each rule set. `lived`: two runs, epoch by epoch, since what is late differs by rule.
//! Nothing is written but the kept detections (`DIR/backtest`), and nobody is told.

mod cache;
mod difference;
mod matching;
pub(crate) mod rule_sets;
mod summary;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use cf_engine::EpochInput;
use cf_history::{Deliveries, Span};
use cf_sigma::{Problem, RuleSet, Text};
use cf_types::{Detection, EpochOutput, Fact, Time};

use crate::past::{Drive, Lived, Outcome, Past, Point};

pub(crate) use difference::Change;
pub(crate) use rule_sets::RuleSets;
pub(crate) use summary::{Filter, RuleSummary};

/// Where detections are kept from backtest to backtest, under the data folder.
pub(crate) const KEPT: &str = "backtest";

/// Detections of one epoch.
const EPOCH_DETECTIONS: usize = 16_384;

/// What is asked.
pub(crate) struct Question {
    /// The texts that are tried.
    pub(crate) texts: Vec<Text>,
    pub(crate) from: Option<Time>,
    pub(crate) to: Option<Time>,
    pub(crate) point: Point,
    pub(crate) workers: u16,
    /// Bytes of kept detections at most; 0: nothing is kept, and nothing that was kept is used.
    pub(crate) cache_bytes: u64,
}

/// What a backtest came to.
#[derive(Default)]
pub(crate) struct Report {
    /// By kind, then rule, then id.
    pub(crate) changes: Vec<Change>,
    /// Of the rules that differ, and those whose alerts do.
    pub(crate) rules: Vec<RuleSummary>,
    pub(crate) effort: Effort,
}

/// What it took.
#[derive(Clone, Debug, Default)]
pub(crate) struct Effort {
    /// Events that were decoded.
    pub(crate) events: u64,
    /// Events that no rule in question could meet, and that were passed over.
    pub(crate) passed_over: u64,
    /// Events of files whose detections were all kept.
    pub(crate) kept: u64,
    /// Events that do not decode any more.
    pub(crate) lost: u64,
    pub(crate) files: usize,
    pub(crate) files_read: usize,
    /// Reading and matching, and then, the graphs.
    pub(crate) matching: Duration,
    pub(crate) whole: Duration,
}

/// Why a backtest is not made.
pub(crate) enum Refused {
    /// What is tried does not load.
    Rules(Vec<Problem>),
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for Refused {
    fn from(error: anyhow::Error) -> Refused {
        Refused::Failed(error)
    }
}

/// Both rule sets over all that is known.
pub(crate) fn known(past: &Past, question: Question, told: &dyn Fn(u64, u64)) -> Result<Report, Refused> {
    let began = std::time::Instant::now();
    let sets = rule_sets_of(past, &question)?;
    let span = Span { from: question.from, to: question.to, upto: question.point.epoch };
    let opened = past.runtime.block_on(Box::pin(Deliveries::open(&past.history()?, span)));
    let deliveries = opened.context("history cannot be read")?;
    let facts = past.facts_at(question.point.control)?;
    let (mut before, mut after) = (Outcome::default(), Outcome::default());
    let mut graphs = Both::start(past, &question, &sets, &facts)?;
    // Hunts are not asked again: of those that both sets have, what they found is known. One that is new has found nothing.
    let hunts = past.hunts_found(question.point.control, question.from, question.to)?;
    graphs.feed(Found { before: of(&sets.before, &hunts), after: of(&sets.after, &hunts) }, &mut before, &mut after)?;
    let job = matching::Job { past, sets: &sets, facts: &facts, deliveries: &deliveries };
    let threads = usize::from(question.workers);
    let effort = matching::run(&job, threads, question.cache_bytes, told, &mut |found| {
        graphs.feed(found, &mut before, &mut after)
    })?;
    let matching = began.elapsed();
    graphs.finish(&mut before, &mut after)?;
    let effort = Effort { matching, whole: began.elapsed(), ..effort };
    Ok(report(&sets, &before, &after, &facts, effort))
}

/// Both rule sets, epoch by epoch.
pub(crate) fn lived(past: &Past, question: Question, told: &dyn Fn(u64, u64)) -> Result<Report, Refused> {
    let began = std::time::Instant::now();
    let sets = rule_sets_of(past, &question)?;
    if question.from.is_some() || question.to.is_some() {
        let why = "--from and --to cut events out, and --mode lived meets all that came; use --as-of, or --mode known";
        return Err(anyhow::anyhow!(why).into());
    }
    let instead = |then: &crate::past::RulesThen| rule_sets::instead(past, then, &question.texts).map(|(set, _)| set);
    let (mut before, mut after) = (Outcome::default(), Outcome::default());
    let mut effort = Effort::default();
    #[allow(clippy::as_conversions)] // a closure as what it is asked as
    for (number, (outcome, instead)) in
        [(&mut before, None), (&mut after, Some(&instead as &_))].into_iter().enumerate()
    {
        let mut lived = Lived::open(past, question.point, usize::from(question.workers), instead)?;
        let mut drive = Drive::start(question.workers, past.lived_graph()?, None)?;
        let mut take = |output: EpochOutput| {
            outcome.apply(&output);
            Ok(())
        };
        while let Some(step) = lived.next()? {
            effort.events += u64::try_from(step.input.events.len()).unwrap_or(0);
            told(
                step.record.epoch + u64::try_from(number).unwrap_or(0) * question.point.epoch,
                question.point.epoch * 2,
            );
            drive.feed(step.input, &mut take)?;
        }
        drive.finish(&mut take)?;
        effort.lost += lived.decoding.lost;
    }
    effort.whole = began.elapsed();
    let facts = past.facts_at(question.point.control)?;
    Ok(report(&sets, &before, &after, &facts, effort))
}

/// Those of rules that a set has and that are evaluated.
fn of(set: &RuleSet, found: &[Detection]) -> Vec<Detection> {
    let on: BTreeSet<&Arc<str>> = set.rules().iter().filter(|info| info.enabled).map(|info| &info.id).collect();
    found.iter().filter(|detection| on.contains(&detection.rule)).cloned().collect()
}

fn rule_sets_of(past: &Past, question: &Question) -> Result<RuleSets, Refused> {
    let then = past.rules_of(question.point.epoch)?;
    let (after, problems) = rule_sets::instead(past, &then, &question.texts)?;
    if !problems.is_empty() {
        return Err(Refused::Rules(problems));
    }
    Ok(RuleSets::new(then.set, after))
}

fn report(sets: &RuleSets, before: &Outcome, after: &Outcome, facts: &[Fact], effort: Effort) -> Report {
    let changes = difference::between(before, after);
    let rules = summary::of(sets, before, after, facts, &changes);
    Report { changes, rules, effort }
}

/// What a file gave, by rule.
pub(crate) struct Found {
    pub(crate) before: Vec<Detection>,
    pub(crate) after: Vec<Detection>,
}

/// Two graphs, one with each rule set.
struct Both {
    before: Side,
    after: Side,
}

/// One graph, fed with detections.
struct Side {
    drive: Drive,
    next: EpochInput,
}

impl Both {
    fn start(past: &Past, question: &Question, sets: &RuleSets, facts: &[Fact]) -> Result<Both> {
        let side = |rules: &Arc<RuleSet>| -> Result<Side> {
            let drive = Drive::start(question.workers, past.bounded_graph()?, None)?;
            let facts = facts.iter().map(|fact| (fact.clone(), 1)).collect();
            let next = EpochInput { epoch: 1, rules: Some(Arc::clone(rules)), facts, ..EpochInput::default() };
            Ok(Side { drive, next })
        };
        Ok(Both { before: side(&sets.before)?, after: side(&sets.after)? })
    }

    fn feed(&mut self, found: Found, before: &mut Outcome, after: &mut Outcome) -> Result<()> {
        self.before.feed(found.before, before)?;
        self.after.feed(found.after, after)
    }

    fn finish(self, before: &mut Outcome, after: &mut Outcome) -> Result<()> {
        self.before.finish(before)?;
        self.after.finish(after)
    }
}

impl Side {
    fn feed(&mut self, found: Vec<Detection>, outcome: &mut Outcome) -> Result<()> {
        self.next.found.extend(found);
        while self.next.found.len() >= EPOCH_DETECTIONS {
            let rest = self.next.found.split_off(EPOCH_DETECTIONS);
            let next = EpochInput { epoch: self.next.epoch + 1, found: rest, ..EpochInput::default() };
            let input = std::mem::replace(&mut self.next, next);
            self.drive.feed(input, &mut |output| {
                outcome.apply(&output);
                Ok(())
            })?;
        }
        Ok(())
    }

    fn finish(mut self, outcome: &mut Outcome) -> Result<()> {
        let mut take = |output: EpochOutput| {
            outcome.apply(&output);
            Ok(())
        };
        self.next.ended = true;
        self.drive.feed(self.next, &mut take)?;
        self.drive.finish(&mut take)
    }
}

/// Reads the texts that are tried.
pub(crate) fn read(paths: &[std::path::PathBuf]) -> Result<Vec<Text>> {
    let texts = crate::rules::read(paths)?;
    if texts.is_empty() {
        bail!(
            "there is no rule file under {}",
            paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
        );
    }
    Ok(texts)
}
