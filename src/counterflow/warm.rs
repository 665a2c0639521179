//! Warm start: what a rule that is new would have found in events of before it.
//!
//! Somebody asks (`counterflow rules enable ID --backfill`, an entry of the control log). The conductor binds the question
//! to its epoch; a thread here waits until history has the epochs before, meets them with the rule, and writes what it
//! found into the control log in slices. From there it enters the graph with later epochs, like any fact: a replay does
//! not look again, and a restart asks for what was not answered. Each pair of rule and event counts once, so it matters
//! not which of the two ways an event came.
//!
//! A plain rule is met with all epochs before the question. A correlation is met through the plain rules that it refers
//! to, with the epochs before it began: since then its items count as they come; what it finds so bears its own id. What
//! lies behind the horizon is final and is not looked at.
//! Bounds: [`FOUND_MAX`] detections for one question, the oldest files first; what is left out is said.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use anyhow::{Context, Result};
use cf_history::{Deliveries, Place, Span};
use cf_ingest::SourceTable;
use cf_ledger::{ControlEntry, ControlLog, Reader, control::BACKFILL};
use cf_sigma::{RuleSet, Scanner};
use cf_types::{Detection, Epoch, EventId, Predicate, Time};
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

use crate::{
    answering::{self, Answering, Slices, read},
    backtest::rule_sets,
    past::One,
};

/// What the control log calls a question.
pub(crate) const ASKED: &str = "rule_backfill_asked";

/// Detections that one question finds at most.
const FOUND_MAX: usize = 100_000;
/// Detections of one entry of the control log.
const SLICES: Slices = Slices { kind: BACKFILL, reason: "events before a rule", rows: 1_000, every: Duration::ZERO };

/// What is asked, as an entry of the control log.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Asked {
    /// Ids of the rules.
    pub(crate) rules: Vec<String>,
    /// The first time that is looked at.
    pub(crate) from: Option<Time>,
}

/// A slice of an answer, as an entry of the control log.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Answer {
    rules: Vec<String>,
    /// The entry that asked.
    asked: i64,
    found: Vec<Detection>,
    /// Whether this is the last slice.
    done: bool,
    /// Whether there was more than may be found.
    cut: bool,
}

/// A question that an epoch has taken.
pub(crate) struct Question {
    seq: i64,
    rules: Vec<String>,
    from: Option<Time>,
    /// The epoch that took it.
    epoch: Epoch,
    set: Arc<RuleSet>,
}

impl answering::Question for Question {
    fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn rules(&self) -> String {
        self.rules.join(", ")
    }
}

/// The thread that meets history with new rules.
pub(crate) type Warm = Answering<Question>;

/// Starts it over a data folder.
pub(crate) fn start(data: &Path, sources: Arc<SourceTable>, durable: Arc<AtomicU64>) -> Result<Warm> {
    let data = data.to_path_buf();
    Answering::start("warm", durable, move |question, runtime| answer(&data, &sources, question, runtime))
}

/// The questions among control-log entries, for an epoch that has the rules of `set`. `floor` is where the horizon begins.
pub(crate) fn questions(
    entries: &[ControlEntry],
    epoch: Epoch,
    set: &Arc<RuleSet>,
    floor: Option<Time>,
) -> Result<Vec<Question>> {
    let question = |entry: &ControlEntry| {
        let asked: Asked = serde_json::from_str(&entry.body)
            .with_context(|| format!("question {} of the control log is damaged", entry.seq))?;
        Ok(Question { seq: entry.seq, rules: asked.rules, from: asked.from.max(floor), epoch, set: Arc::clone(set) })
    };
    entries.iter().filter(|entry| entry.kind == ASKED).map(question).collect()
}

/// The entries that ask and that no entry answers to the end.
pub(crate) fn unanswered(mut asked: Vec<ControlEntry>, answers: &[ControlEntry]) -> Result<Vec<ControlEntry>> {
    let mut done = BTreeSet::new();
    for entry in answers {
        let answer: Answer = read(entry)?;
        if answer.done {
            done.insert(answer.asked);
        }
    }
    asked.retain(|entry| !done.contains(&entry.seq));
    Ok(asked)
}

/// What was found, among control-log entries.
pub(crate) fn found(entries: &[ControlEntry]) -> Result<Vec<Detection>> {
    let mut found = Vec::new();
    for entry in entries.iter().filter(|entry| entry.kind == BACKFILL) {
        found.extend(read::<Answer>(entry)?.found);
    }
    Ok(found)
}

fn answer(data: &Path, sources: &Arc<SourceTable>, question: &Question, runtime: &Runtime) -> Result<()> {
    let (found, cut) = look_back(data, sources, question, runtime)?;
    tracing::info!(rules = question.rules.join(", "), found = found.len(), cut, "rules were met with history");
    runtime.block_on(async {
        let mut log = ControlLog::open(data).await?;
        let answer = |found: &[Detection], done| Answer {
            rules: question.rules.clone(),
            asked: question.seq,
            found: found.to_vec(),
            done,
            cut: done && cut,
        };
        SLICES.write(&mut log, &found, answer).await
    })
}

/// One rule that is asked for: which plain rules find its events, and up to which epoch.
struct Target {
    rule: String,
    /// Plain rules that stand for it; itself, if it is one.
    plain: BTreeSet<String>,
    /// The first epoch that is not looked at.
    end: Epoch,
}

impl Question {
    fn targets(&self, since: &BTreeMap<String, Epoch>) -> Vec<Target> {
        let correlations: BTreeSet<&str> =
            self.set.rules().iter().filter(|info| info.correlation).map(|info| &*info.id).collect();
        let target = |rule: &String| {
            if !correlations.contains(rule.as_str()) {
                return Target { rule: rule.clone(), plain: BTreeSet::from([rule.clone()]), end: Epoch::MAX };
            }
            let of = self.set.episode_rules().iter().find(|of| *of.id == **rule);
            let references = of.map(|of| of.references.as_slice()).unwrap_or_default();
            let plain =
                references.iter().filter(|id| !correlations.contains(&***id)).map(ToString::to_string).collect();
            // One that was there from the first epoch has nothing before it.
            Target { rule: rule.clone(), plain, end: since.get(rule).copied().unwrap_or(0) }
        };
        let is_rate = |rule: &&String| {
            let of = self.set.episode_rules().iter().find(|of| *of.id == ***rule);
            of.is_some_and(|of| matches!(of.predicate, Predicate::Rate { .. }))
        };
        // What a rate remembers of before is looked up when it begins (`remember.rs`), and would count twice.
        self.rules.iter().filter(|rule| !is_rate(rule)).map(target).collect()
    }
}

fn look_back(
    data: &Path,
    sources: &Arc<SourceTable>,
    question: &Question,
    runtime: &Runtime,
) -> Result<(Vec<Detection>, bool)> {
    let mut since = BTreeMap::new();
    let reader = runtime.block_on(Reader::open(data))?;
    for rule in &question.rules {
        let epoch = runtime.block_on(reader.rule_since(rule))?;
        since.extend(epoch.map(|epoch| (rule.clone(), epoch)));
    }
    let targets = question.targets(&since);
    let plain: BTreeSet<&str> = targets.iter().flat_map(|target| &target.plain).map(String::as_str).collect();
    let set = rule_sets::only_ids(&question.set, &plain);
    let span = Span { from: question.from, to: None, upto: question.epoch };
    let deliveries = runtime.block_on(Box::pin(Deliveries::open(&Place::of_data(data)?, span)))?;
    let (mut one, mut scanner, mut hits) = (One::new(sources), Scanner::new(Arc::clone(&set)), Vec::new());
    // By rule that is asked for and event: an event that meets two references of a correlation is one detection.
    let mut found: BTreeMap<(String, EventId), Detection> = BTreeMap::new();
    for file in deliveries.files() {
        for batch in deliveries.read(file)? {
            let batch = batch?;
            for target in &targets {
                let before: Vec<_> = batch.iter().filter(|delivery| delivery.epoch < target.end).cloned().collect();
                let _lost = one.events(&before, |event| {
                    hits.clear();
                    scanner.scan(&event, &mut hits);
                    for detection in hits.iter().map(|hit| set.detection(*hit, &event)) {
                        take(&mut found, target, detection);
                    }
                });
            }
            if found.len() >= FOUND_MAX {
                return Ok((found.into_values().take(FOUND_MAX).collect(), true));
            }
        }
    }
    Ok((found.into_values().collect(), false))
}

fn take(found: &mut BTreeMap<(String, EventId), Detection>, target: &Target, mut detection: Detection) {
    if !target.plain.contains(&*detection.rule) {
        return;
    }
    if *detection.rule != *target.rule {
        detection.items.retain(|item| *item.rule == *target.rule);
        if detection.items.is_empty() {
            return;
        }
        detection.rule = Arc::from(target.rule.as_str());
    }
    let key = (target.rule.clone(), detection.member.id);
    match found.get_mut(&key) {
        None => drop(found.insert(key, detection)),
        Some(known) => {
            // Of repeats of one event the smallest position counts.
            known.member.position = known.member.position.clone().min(detection.member.position);
            known.items.extend(detection.items);
            known.items.sort();
            known.items.dedup();
        }
    }
}
