//! What rules that compare with the time before (`first_seen`, `rate`) find there when they are new: a look-up over
//! `detections` in history, further back than the horizon.
//!
//! The graph remembers what comes while a rule is there. When one begins, a thread here meets the events that its plain
//! rules found in epochs before with it, adds up what the rule would remember of them, and writes that into the control
//! log, in slices, from where it enters the graph with later epochs: as known, never as a hit. So a replay does not look
//! again. The entries are the only copy: a restart recalls them from the control log, while detections that come from
//! the rule's epoch on are recalled from the facts log. A look-up that is interrupted goes on behind its last slice.
//!
//! A rule on other correlations begins with an empty memory: of their episodes history has only what was told.
//! Bounds: as far back as the rule remembers; [`ROWS_MAX`] rows of a rule, the newest; what is left out is said. Memory:
//! these rows, and the positions of one day's events.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use cf_dataflows::Remembered;
use cf_history::Known;
use cf_ingest::SourceTable;
use cf_ledger::{ControlEntry, ControlLog};
use cf_queries::Session;
use cf_sigma::{RuleSet, Scanner};
use cf_types::{Cell, Detection, EpisodeKey, EpisodeRule, Epoch, Predicate, Time, clock};
use serde::{Deserialize, Serialize};

use crate::{
    backtest::rule_sets,
    past::One,
    provenance::events::{in_cells, quoted},
};

/// What the control log calls an answer.
pub(crate) const ANSWER: &str = "rule_memory";

/// Rows that are remembered of one rule: of a value or of a step of a rate, in one group.
const ROWS_MAX: usize = 200_000;
/// How long the slices of an answer lie apart: longer than an epoch gathers.
const SLICE_EVERY: Duration = Duration::from_millis(100);
const DAY_CELLS: Cell = 86_400;

/// A rule that begins.
pub(crate) struct Question {
    rule: Arc<EpisodeRule>,
    set: Arc<RuleSet>,
    /// The epoch that it begins with: what comes from it on, the graph remembers by itself.
    since: Epoch,
    /// Where the horizon begins: below it no hit lies any more.
    floor: Cell,
    /// The last row that the control log has.
    after: Option<Remembered>,
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
}

/// The epoch that each rule began with, of those that were not there from the first.
pub(crate) type Began = BTreeMap<String, Epoch>;

/// Where questions go, and how slices are cut.
pub(crate) struct Remember {
    questions: Sender<Question>,
}

/// What the thread needs.
pub(crate) struct Options {
    pub(crate) sources: Arc<SourceTable>,
    /// How far an event's time may lie ahead of its receipt, in seconds: others never count.
    pub(crate) max_ahead_s: u32,
    /// Rows that enter with one epoch.
    pub(crate) slice: usize,
}

impl Remember {
    /// Starts the thread over a data folder. `durable` is the last epoch that history holds. It ends with the one who asks.
    pub(crate) fn start(data: &Path, durable: Arc<AtomicU64>, options: Options) -> Result<Remember> {
        let (questions, waiting) = mpsc::channel();
        let data = data.to_path_buf();
        // Detached: it holds nothing that must be given back, and what it has not answered is asked again at a start.
        thread::Builder::new()
            .name("remember".to_owned())
            .spawn(move || answer_all(&data, &waiting, &durable, &options))
            .context("could not start the thread that looks up what rules remember")?;
        Ok(Remember { questions })
    }

    /// Asks; the answer comes through the control log.
    pub(crate) fn ask(&self, questions: Vec<Question>) {
        for question in questions {
            if self.questions.send(question).is_err() {
                tracing::error!("the thread that looks up what rules remember has died: a restart asks again");
            }
        }
    }
}

/// The questions of rules that begin with an epoch.
pub(crate) fn questions(begun: &[String], since: Epoch, set: &Arc<RuleSet>, floor: Option<Time>) -> Vec<Question> {
    let floor = floor.map_or(Cell::MIN, |floor| floor.cell());
    let of_rule = |id: &String| {
        let rule = set.episode_rules().iter().find(|rule| *rule.id == **id)?;
        looks_back(rule, set).then(|| Question {
            rule: Arc::clone(rule),
            set: Arc::clone(set),
            since,
            floor,
            after: None,
        })
    };
    begun.iter().filter_map(of_rule).collect()
}

/// The questions that the entries do not answer to the end.
pub(crate) fn questions_again(
    answers: &[ControlEntry],
    began: &Began,
    set: &Arc<RuleSet>,
    floor: Option<Time>,
) -> Result<Vec<Question>> {
    let mut last = BTreeMap::new();
    for entry in answers {
        let answer = read(entry)?;
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
        let mut questions = questions(std::slice::from_ref(rule), *since, set, floor);
        for question in &mut questions {
            question.after = answered.as_ref().and_then(|answer| answer.found.last().cloned());
        }
        again.extend(questions);
    }
    Ok(again)
}

/// Whether a rule remembers, and all that it stands on are rules on events.
fn looks_back(rule: &EpisodeRule, set: &RuleSet) -> bool {
    let correlation = |id: &Arc<str>| set.rules().iter().any(|info| info.correlation && *info.id == **id);
    rule.remembers() && !rule.references.iter().any(correlation)
}

/// What entries of the control log say for the rules as they began last.
pub(crate) fn found(entries: &[ControlEntry], began: &Began) -> Result<Vec<Remembered>> {
    let mut found = Vec::new();
    for entry in entries.iter().filter(|entry| entry.kind == ANSWER) {
        let answer = read(entry)?;
        if began.get(&answer.rule) == Some(&answer.since) {
            found.extend(answer.found);
        }
    }
    Ok(found)
}

fn read(entry: &ControlEntry) -> Result<Answer> {
    serde_json::from_str(&entry.body).with_context(|| format!("answer {} of the control log is damaged", entry.seq))
}

fn answer_all(data: &Path, waiting: &Receiver<Question>, durable: &AtomicU64, options: &Options) {
    while let Ok(question) = waiting.recv() {
        // Then the ledger has it, too: the rule began with this epoch and no other.
        while durable.load(Ordering::Acquire) < question.since {
            thread::sleep(Duration::from_millis(50));
        }
        if let Err(error) = answer(data, &question, options) {
            let (error, rule) = (format!("{error:#}"), &question.rule.id);
            tracing::error!(error, %rule, "the time before a rule was not looked up; a restart tries again");
        }
    }
}

fn answer(data: &Path, question: &Question, options: &Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let Gathered { rows, cut, .. } = gather(data, question, options).await?;
        let rows = rows.into_rows();
        // What history holds no more moves no place: rows are skipped by what they are of, not by their number.
        let is_told = |row: &Remembered, after: &Remembered| {
            (&row.key, &row.value, row.cell) <= (&after.key, &after.value, after.cell)
        };
        let first = question.after.as_ref().map_or(0, |after| rows.partition_point(|row| is_told(row, after)));
        let rest = rows.get(first..).unwrap_or_default();
        tracing::info!(rule = %question.rule.id, rows = rows.len(), new = rest.len(), cut, "the time before a rule was looked up");
        let mut log = ControlLog::open(data).await?;
        let mut slices: Vec<&[Remembered]> = rest.chunks(options.slice.max(1)).collect();
        let last = slices.pop().unwrap_or_default();
        for slice in slices {
            append(&mut log, question, slice, false, cut).await?;
            tokio::time::sleep(SLICE_EVERY).await;
        }
        append(&mut log, question, last, true, cut).await
    })
}

async fn append(log: &mut ControlLog, question: &Question, found: &[Remembered], done: bool, cut: bool) -> Result<()> {
    let answer = Answer { rule: question.rule.id.to_string(), since: question.since, found: found.to_vec(), done, cut };
    let body = serde_json::to_string(&answer)?;
    log.append(ANSWER, &body, "engine", "the time before a rule", clock::now()).await?;
    Ok(())
}

/// What a rule would remember of the detections, day by day, the newest first.
async fn gather(data: &Path, question: &Question, options: &Options) -> Result<Gathered> {
    let session = Session::open(cf_history::Place::of_data(data)?, cf_queries::Options::default())?;
    let plain: BTreeSet<&str> = question.rule.references.iter().map(|id| &**id).collect();
    let set = rule_sets::only_ids(&question.set, &plain);
    let (mut one, mut scanner, mut hits) = (One::new(&options.sources), Scanner::new(Arc::clone(&set)), Vec::new());
    let (mut known, mut gathered) = (Known::default(), Gathered::default());
    let from = question.floor.saturating_sub(question.rule.reach());
    let wanted = Wanted { question, plain, max_ahead_s: options.max_ahead_s };
    for day in wanted.days(&session, from).await? {
        let mut seen = HashSet::new();
        let mut rows = session.query(&wanted.events(day.max(from), day.saturating_add(DAY_CELLS - 1))).await?;
        while let Some(batch) = rows.next().await? {
            let mut deliveries = known.deliveries(&batch).context("events of history are damaged")?;
            deliveries.retain(|delivery| {
                let at = &delivery.record.position;
                seen.insert((Arc::clone(&at.origin), at.offset, at.index))
            });
            let _lost = one.events(&deliveries, |event| {
                hits.clear();
                scanner.scan(&event, &mut hits);
                for detection in hits.iter().map(|hit| set.detection(*hit, &event)) {
                    gathered.take(question, &detection);
                }
            });
        }
    }
    Ok(gathered)
}

/// What is read of history for a question.
struct Wanted<'a> {
    question: &'a Question,
    plain: BTreeSet<&'a str>,
    max_ahead_s: u32,
}

impl Wanted<'_> {
    /// The condition that a detection is one of the rule's, before it began.
    fn detections(&self) -> String {
        let rules: Vec<String> = self.plain.iter().map(|id| quoted(id)).collect();
        format!("epoch < {} and rule_id in ({})", self.question.since, rules.join(", "))
    }

    /// The first cells of the days that have any, the newest first.
    async fn days(&self, session: &Session, from: Cell) -> Result<Vec<Cell>> {
        #[derive(Deserialize)]
        struct Day {
            micros: i64,
        }
        let since = if from > 0 {
            format!(" and time >= cast({} as timestamp)", quoted(&Time::from_seconds(from).to_string()))
        } else {
            String::new()
        };
        let statement = format!(
            "select distinct cast(date_trunc('day', time) as bigint) as micros from detections where {}{since} order by micros desc",
            self.detections()
        );
        let (mut lines, mut days) = (Vec::new(), Vec::new());
        let mut rows = session.query(&statement).await?;
        cf_queries::write_json_lines(&mut rows, &mut lines).await?;
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let Day { micros } = serde_json::from_slice(line)?;
            days.push(Time::from_micros(micros).cell());
        }
        Ok(days)
    }

    /// The events of the rule's detections between two cells.
    fn events(&self, from: Cell, to: Cell) -> String {
        let cells = in_cells(from, to);
        let columns: Vec<String> = cf_history::RECORD_COLUMNS.iter().map(|column| format!("e.{column}")).collect();
        format!(
            "select {columns} from events e join (
                 select distinct origin as o, record_offset as f, record_index as i from detections where {detections} and {cells}
             ) d on e.origin = d.o and e.record_offset = d.f and e.record_index = d.i
             where e.epoch < {since} and {cells} and e.time <= e.received_at + interval '{ahead} seconds'",
            columns = columns.join(", "),
            detections = self.detections(),
            since = self.question.since,
            ahead = self.max_ahead_s,
        )
    }
}

/// What is added up.
#[derive(Default)]
struct Gathered {
    rows: Rows,
    cut: bool,
}

/// By group and value, how many items each cell has.
#[derive(Default)]
struct Rows {
    cells: BTreeMap<(EpisodeKey, Option<Arc<str>>), BTreeMap<Cell, u64>>,
    count: usize,
}

impl Gathered {
    fn take(&mut self, question: &Question, detection: &Detection) {
        let rule = &question.rule;
        for item in detection.items.iter().filter(|item| item.rule == rule.id) {
            let cell = detection.member.time.cell();
            let (value, cell) = match &rule.predicate {
                // Only whole steps are asked for.
                Predicate::Rate { grid, .. } => (None, cell.div_euclid((*grid).max(1)).saturating_mul((*grid).max(1))),
                _ if item.value.is_none() => continue,
                _ => (item.value.clone(), cell),
            };
            let key =
                EpisodeKey { tenant: detection.tenant.clone(), rule: Arc::clone(&rule.id), group: item.group.clone() };
            let is_rate = matches!(rule.predicate, Predicate::Rate { .. });
            let floor = if is_rate { Cell::MIN } else { question.floor };
            self.cut |= !self.rows.add((key, value), cell, floor);
        }
    }
}

impl Rows {
    /// Adds an item; of those below the floor only the latest is kept. Whether there was room.
    fn add(&mut self, key: (EpisodeKey, Option<Arc<str>>), cell: Cell, floor: Cell) -> bool {
        let is_full = self.count >= ROWS_MAX;
        if is_full && !self.cells.get(&key).is_some_and(|cells| cells.contains_key(&cell)) {
            return false;
        }
        let cells = self.cells.entry(key).or_default();
        let before = cells.len();
        let latest = cells.range(..floor).next_back().map(|(cell, _)| *cell);
        if cell < floor && latest.is_some_and(|latest| cell < latest) {
            return true;
        }
        if let Some(latest) = latest.filter(|latest| cell < floor && *latest < cell) {
            cells.remove(&latest);
        }
        *cells.entry(cell).or_default() += 1;
        self.count = (self.count + cells.len()).saturating_sub(before);
        true
    }

    /// Sorted.
    fn into_rows(self) -> Vec<Remembered> {
        let rows = self.cells.into_iter().flat_map(|((key, value), cells)| {
            cells.into_iter().map(move |(cell, count)| Remembered {
                key: key.clone(),
                value: value.clone(),
                cell,
                count,
            })
        });
        rows.collect()
    }
}
