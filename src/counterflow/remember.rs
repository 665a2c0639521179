//! What rules that compare with the time before (`first_seen`, `rate`) find there when they are new: a look-up over
//! `detections` in history, further back than the horizon.
//!
//! The graph remembers what comes while a rule is there. When one begins, a thread here meets the events that its plain
//! rules found in epochs before with it, adds up what the rule would remember of them, and writes that into the control
//! log, in slices, from where it enters the graph with later epochs: as known, never as a hit. So a replay does not look
//! again. The entries are the only copy: a restart recalls them from the control log, while detections that come from
//! the rule's epoch on are recalled from the facts log. A look-up that is interrupted goes on behind its last slice.
//!
//! The episodes of correlations that a rule refers to are found anew from the detections of the rules below them
//! (`remember/tower.rs`), and those that the graph still has are not remembered: it counts them itself. Where that begins,
//! the rule's **floor**, is the limit before its epoch; it stands in the answer, since what a restart rebuilds of these
//! episodes may lie below it and must not count twice ([`floors`]).
//! Bounds: as far back as the rule remembers; so many rows of a rule, the newest (`remember/gather.rs`); what is left out
//! is said. Memory: these rows, the positions of one day's events, and what the episodes below keep of their windows.

mod gather;
mod tower;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use anyhow::Result;
use cf_dataflows::Remembered;
use cf_ingest::SourceTable;
use cf_ledger::{ControlEntry, ControlLog, Reader};
use cf_sigma::RuleSet;
use cf_types::{Cell, EpisodeRule, Epoch, Time};
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

use self::gather::Gathered;
use crate::{
    answering::{self, Answering, Slices, read},
    below::Chains,
};

/// What the control log calls an answer.
pub(crate) const ANSWER: &str = "rule_memory";

/// How long the slices of an answer lie apart: longer than an epoch gathers.
const SLICE_EVERY: Duration = Duration::from_millis(100);

/// A rule that begins.
pub(crate) struct Question {
    rule: Arc<EpisodeRule>,
    set: Arc<RuleSet>,
    /// The epoch that it begins with: what comes from it on, the graph remembers by itself.
    since: Epoch,
    /// Where the horizon begins: below it no hit lies any more.
    horizon: Cell,
    /// Of the correlations below it, the epochs that those began with that were not there from the first.
    began: Began,
    /// The last row that the control log has.
    after: Option<Remembered>,
    /// The rule's floor, if the control log has it.
    floor: Option<Cell>,
}

/// A slice of an answer, as an entry of the control log.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    rule: String,
    /// The epoch that the rule began with.
    since: Epoch,
    found: Vec<Remembered>,
    /// Whether this is the last slice.
    done: bool,
    /// Whether there was more than may be remembered.
    cut: bool,
    /// From which cell on the graph itself counts the episodes that the rule refers to. `None` if it refers to none, or to
    /// none that the graph had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    floor: Option<Cell>,
}

/// The epoch that each rule began with, of those that were not there from the first.
pub(crate) type Began = BTreeMap<String, Epoch>;

/// The thread that looks up what rules remember.
pub(crate) type Remember = Answering<Question>;

/// What the thread needs.
pub(crate) struct Options {
    pub(crate) sources: Arc<SourceTable>,
    /// How far an event's time may lie ahead of its receipt, in seconds: others never count.
    pub(crate) max_ahead_s: u32,
    /// Rows that enter with one epoch.
    pub(crate) slice: usize,
    /// How far behind the watermark the limit lies, in seconds.
    pub(crate) horizon_s: i64,
}

impl answering::Question for Question {
    fn epoch(&self) -> Epoch {
        self.since
    }

    fn rules(&self) -> String {
        self.rule.id.to_string()
    }
}

/// Starts the thread over a data folder. `durable` is the last epoch that history holds.
pub(crate) fn start(data: &Path, durable: Arc<AtomicU64>, options: Options) -> Result<Remember> {
    let data = data.to_path_buf();
    Answering::start("remember", durable, move |question, runtime| answer(&data, question, &options, runtime))
}

/// The questions of rules that begin with an epoch.
pub(crate) fn questions(
    begun: &[String],
    since: Epoch,
    began: &Began,
    set: &Arc<RuleSet>,
    horizon: Option<Time>,
) -> Vec<Question> {
    let chains = Chains::new(set.episode_rules());
    let of_rule = |id: &String| {
        let rule = set.episode_rules().iter().find(|rule| *rule.id == **id && rule.remembers())?;
        let below = chains.all_below(&rule.id);
        Some(Question {
            rule: Arc::clone(rule),
            set: Arc::clone(set),
            since,
            horizon: horizon.map_or(Cell::MIN, |horizon| horizon.cell()),
            began: began.iter().filter(|(id, _)| below.contains(id.as_str())).map(|(id, e)| (id.clone(), *e)).collect(),
            after: None,
            floor: None,
        })
    };
    begun.iter().filter_map(of_rule).collect()
}

/// The questions that the entries do not answer to the end.
pub(crate) fn questions_again(
    answers: &[ControlEntry],
    began: &Began,
    set: &Arc<RuleSet>,
    horizon: Option<Time>,
) -> Result<Vec<Question>> {
    let mut last = BTreeMap::new();
    for entry in answers {
        let answer: Answer = read(entry)?;
        if began.get(&answer.rule) == Some(&answer.since) {
            last.insert(answer.rule.clone(), answer);
        }
    }
    let mut again = Vec::new();
    for (rule, since) in began {
        let answered = last.remove(rule);
        if answered.as_ref().is_some_and(|answer| answer.done) {
            continue;
        }
        for question in questions(std::slice::from_ref(rule), *since, began, set, horizon) {
            let after = answered.as_ref().and_then(|answer| answer.found.last().cloned());
            again.push(Question { after, floor: answered.as_ref().and_then(|answer| answer.floor), ..question });
        }
    }
    Ok(again)
}

/// What entries of the control log say for the rules as they began last.
pub(crate) fn found(entries: &[ControlEntry], began: &Began) -> Result<Vec<Remembered>> {
    let mut found = Vec::new();
    for entry in entries.iter().filter(|entry| entry.kind == ANSWER) {
        let answer: Answer = read(entry)?;
        if began.get(&answer.rule) == Some(&answer.since) {
            found.extend(answer.found);
        }
    }
    Ok(found)
}

/// The floors of the rules of a set that began up to an epoch: as the answers have them, else from the watermarks of then.
pub(crate) async fn floors(
    answers: &[ControlEntry],
    began: &Began,
    set: &RuleSet,
    last: Epoch,
    reader: &Reader,
    horizon_s: i64,
) -> Result<Vec<(Arc<str>, Cell)>> {
    let mut answered = BTreeMap::new();
    for entry in answers {
        let Answer { rule, since, floor, .. } = read(entry)?;
        answered.insert((rule, since), floor);
    }
    let chains = Chains::new(set.episode_rules());
    let remember = set.episode_rules().iter().filter(|rule| rule.remembers() && !chains.all_below(&rule.id).is_empty());
    let mut floors = Vec::new();
    for rule in remember {
        let Some((rule, since)) = began.get_key_value(&*rule.id).filter(|(_, since)| **since <= last) else { continue };
        let floor = match answered.get(&(rule.clone(), *since)) {
            Some(floor) => *floor,
            None => reader.rule_watermark(rule, *since).await?.flatten().map(|watermark| limit(watermark, horizon_s)),
        };
        floors.extend(floor.map(|floor| (Arc::from(rule.as_str()), floor)));
    }
    Ok(floors)
}

fn limit(watermark: Time, horizon_s: i64) -> Cell {
    watermark.cell().saturating_sub(horizon_s)
}

fn answer(data: &Path, question: &Question, options: &Options, runtime: &Runtime) -> Result<()> {
    runtime.block_on(async {
        let is_chained = !Chains::new(question.set.episode_rules()).all_below(&question.rule.id).is_empty();
        let watermark = Reader::open(data).await?.rule_watermark(&question.rule.id, question.since).await?;
        // Without a watermark the graph had no limit, and counts all episodes that it has.
        let floor = question.floor.or(watermark.flatten().map(|before| limit(before, options.horizon_s)));
        let floor = floor.filter(|_| is_chained);
        // One that began when floors were not kept yet goes on as it began.
        let known = !is_chained || question.floor.is_some() || watermark.is_some();
        let gathered =
            if known { Box::pin(gather::gather(data, question, floor, options)).await? } else { Gathered::default() };
        let (rows, cut) = gathered.into_rows();
        // What history holds no more moves no place: rows are skipped by what they are of, not by their number.
        let place = |row: &Remembered| (row.key.clone(), row.value.clone(), row.cell);
        let first = question.after.as_ref().map_or(0, |after| rows.partition_point(|row| place(row) <= place(after)));
        let rest = rows.get(first..).unwrap_or_default();
        let (rule, rows, new) = (&question.rule.id, rows.len(), rest.len());
        tracing::info!(%rule, rows, new, cut, "the time before a rule was looked up");
        if cut {
            tracing::warn!(%rule, rows, "a rule remembers only the newest of what was before it");
        }
        let answer = |found: &[Remembered], done| Answer {
            rule: question.rule.id.to_string(),
            since: question.since,
            found: found.to_vec(),
            done,
            cut,
            floor,
        };
        let slices = Slices { kind: ANSWER, reason: "the time before a rule", rows: options.slice, every: SLICE_EVERY };
        slices.write(&mut ControlLog::open(data).await?, rest, answer).await
    })
}
