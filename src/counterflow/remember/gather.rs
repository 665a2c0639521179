//! What a rule would remember of the detections that history holds, day by day, the oldest first.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    path::Path,
    sync::Arc,
};

use anyhow::{Context, Result};
use cf_dataflows::Remembered;
use cf_history::{Delivery, Known};
use cf_queries::Session;
use cf_sigma::{RuleSet, Scanner};
use cf_types::{Cell, Detection, EpisodeKey, EpisodeRule, Predicate, Time};
use serde::Deserialize;

use super::{
    Options, Question,
    tower::{First, Towers},
};
use crate::{
    backtest::rule_sets,
    below::Chains,
    past::One,
    provenance::events::{in_cells, quoted},
};

/// Rows that are remembered of one rule: of a value or of a step of a rate, in one group.
const ROWS_MAX: usize = 200_000;
const DAY_CELLS: Cell = 86_400;

/// Gathers it. `floor` is where the graph begins to count the episodes that the rule refers to.
pub(super) async fn gather(
    data: &Path,
    question: &Question,
    floor: Option<Cell>,
    options: &Options,
) -> Result<Gathered> {
    let session = Session::open(cf_history::Place::of_data(data)?, cf_queries::Options::default())?;
    let chains = Chains::new(question.set.episode_rules());
    let plain = plain(&question.rule, &question.set, &chains);
    let plain: BTreeSet<&str> = plain.iter().map(|id| &**id).collect();
    let set = rule_sets::only_ids(&question.set, &plain);
    let mut walk = Walk::new(question, floor, &set, options);
    let from = question.horizon.saturating_sub(question.rule.reach()).saturating_sub(chains.reach(&question.rule.id));
    let wanted = Wanted { question, plain, max_ahead_s: options.max_ahead_s };
    let mut known = Known::default();
    for day in wanted.days(&session, from).await? {
        // What came before this day is complete: later days bring later events.
        walk.through(day);
        let mut rows = session.query(&wanted.events(day.max(from), day.saturating_add(DAY_CELLS - 1))).await?;
        while let Some(batch) = rows.next().await? {
            walk.take(known.deliveries(&batch).context("events of history are damaged")?);
        }
    }
    walk.through(Cell::MAX);
    Ok(walk.gathered)
}

/// The plain rules that a rule stands on, at any depth.
fn plain(rule: &EpisodeRule, set: &RuleSet, chains: &Chains) -> BTreeSet<Arc<str>> {
    let correlations: BTreeSet<&str> =
        set.rules().iter().filter(|info| info.correlation).map(|info| &*info.id).collect();
    let below = chains.all_below(&rule.id);
    let below = below.iter().filter_map(|id| chains.rule(id)).flat_map(|lower| &lower.references);
    rule.references.iter().chain(below).filter(|id| !correlations.contains(&***id)).cloned().collect()
}

/// On the way through the days: their events are met with the rules.
struct Walk<'a> {
    question: &'a Question,
    set: Arc<RuleSet>,
    one: One,
    scanner: Scanner,
    towers: Towers,
    seen: HashSet<(Arc<str>, u64, u32)>,
    gathered: Gathered,
}

impl<'a> Walk<'a> {
    fn new(question: &'a Question, floor: Option<Cell>, set: &Arc<RuleSet>, options: &Options) -> Walk<'a> {
        let towers = Towers::new(&question.rule, set.episode_rules(), &question.began, floor);
        Walk {
            question,
            set: Arc::clone(set),
            one: One::new(&options.sources),
            scanner: Scanner::new(Arc::clone(set)),
            towers,
            seen: HashSet::new(),
            gathered: Gathered::default(),
        }
    }

    /// Takes what was delivered; of repeats of one position the first.
    fn take(&mut self, mut deliveries: Vec<Delivery>) {
        deliveries.retain(|delivery| {
            let at = &delivery.record.position;
            self.seen.insert((Arc::clone(&at.origin), at.offset, at.index))
        });
        // Apart, where some rules below count from a later epoch on.
        let mut eras: BTreeMap<usize, Vec<Delivery>> = BTreeMap::new();
        for delivery in deliveries {
            eras.entry(self.towers.era(delivery.epoch)).or_default().push(delivery);
        }
        let mut hits = Vec::new();
        for of_an_era in eras.into_values() {
            let Some(epoch) = of_an_era.first().map(|delivery| delivery.epoch) else { continue };
            let Walk { one, scanner, set, towers, gathered, question, .. } = &mut *self;
            let _lost = one.events(&of_an_era, |event| {
                hits.clear();
                scanner.scan(&event, &mut hits);
                for detection in hits.iter().map(|hit| set.detection(*hit, &event)) {
                    gathered.take(question, &detection);
                    towers.take(&detection, epoch);
                }
            });
        }
    }

    /// Nothing comes any more before this cell.
    fn through(&mut self, cell: Cell) {
        self.seen.clear();
        for (first, count) in self.towers.through(cell) {
            self.gathered.take_first(self.question, first, count);
        }
    }
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

    /// The first cells of the days that have any, the oldest first.
    async fn days(&self, session: &Session, from: Cell) -> Result<Vec<Cell>> {
        #[derive(Deserialize)]
        struct Day {
            micros: i64,
        }
        if self.plain.is_empty() {
            return Ok(Vec::new());
        }
        let since = if from > 0 {
            format!(" and time >= cast({} as timestamp)", quoted(&Time::from_seconds(from).to_string()))
        } else {
            String::new()
        };
        let statement = format!(
            "select distinct cast(date_trunc('day', time) as bigint) as micros from detections where {}{since} order by micros",
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
pub(super) struct Gathered {
    rows: Rows,
}

impl Gathered {
    /// Takes the items of a detection that are the rule's own.
    fn take(&mut self, question: &Question, detection: &Detection) {
        let rule = &question.rule;
        for item in detection.items.iter().filter(|item| item.rule == rule.id) {
            let key =
                EpisodeKey { tenant: detection.tenant.clone(), rule: Arc::clone(&rule.id), group: item.group.clone() };
            let cell = detection.member.time.cell();
            self.take_first(question, First { cell, key, value: item.value.clone() }, 1);
        }
    }

    /// The same of so many items.
    fn take_first(&mut self, question: &Question, First { cell, key, value }: First, count: u64) {
        let (value, cell, floor) = match &question.rule.predicate {
            // Only whole steps are asked for.
            Predicate::Rate { grid, .. } => {
                (None, cell.div_euclid((*grid).max(1)).saturating_mul((*grid).max(1)), Cell::MIN)
            }
            _ if value.is_none() => return,
            _ => (value, cell, question.horizon),
        };
        self.rows.add((key, value), cell, count, floor);
    }

    /// The rows, sorted, and whether there were more than may be.
    pub(super) fn into_rows(self) -> (Vec<Remembered>, bool) {
        self.rows.into_rows(ROWS_MAX)
    }
}

/// By group and value, how many items each cell has.
#[derive(Default)]
struct Rows {
    cells: BTreeMap<(EpisodeKey, Option<Arc<str>>), BTreeMap<Cell, u64>>,
    count: usize,
    cut: bool,
}

impl Rows {
    /// Adds items; of those below the floor only the latest is kept.
    fn add(&mut self, key: (EpisodeKey, Option<Arc<str>>), cell: Cell, count: u64, floor: Cell) {
        let cells = self.cells.entry(key).or_default();
        let before = cells.len();
        let latest = cells.range(..floor).next_back().map(|(cell, _)| *cell);
        if cell < floor && latest.is_some_and(|latest| cell < latest) {
            return;
        }
        if let Some(latest) = latest.filter(|latest| cell < floor && *latest < cell) {
            cells.remove(&latest);
        }
        let held = cells.entry(cell).or_default();
        *held = held.saturating_add(count);
        self.count = (self.count + cells.len()).saturating_sub(before);
        // Not at every row: each time all are looked at.
        if self.count >= ROWS_MAX * 2 {
            self.keep_newest(ROWS_MAX);
        }
    }

    fn keep_newest(&mut self, rows_max: usize) {
        if self.count <= rows_max {
            return;
        }
        let mut places: Vec<_> =
            self.cells.iter().flat_map(|(key, cells)| cells.keys().map(move |cell| (*cell, key.clone()))).collect();
        // The newest first; of one cell in the order of their names.
        places.sort_unstable_by(|(one, first), (other, second)| other.cmp(one).then_with(|| first.cmp(second)));
        for (cell, key) in places.into_iter().skip(rows_max) {
            if let Some(cells) = self.cells.get_mut(&key) {
                cells.remove(&cell);
                if cells.is_empty() {
                    self.cells.remove(&key);
                }
            }
        }
        (self.count, self.cut) = (rows_max, true);
    }

    /// Sorted.
    fn into_rows(mut self, rows_max: usize) -> (Vec<Remembered>, bool) {
        self.keep_newest(rows_max);
        let rows = self.cells.into_iter().flat_map(|((key, value), cells)| {
            cells.into_iter().map(move |(cell, count)| Remembered {
                key: key.clone(),
                value: value.clone(),
                cell,
                count,
            })
        });
        (rows.collect(), self.cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_too_many_rows_the_newest_are_kept_and_that_is_said() {
        let key = |value: &str| {
            let key = EpisodeKey { tenant: Default::default(), rule: "r".into(), group: Default::default() };
            (key, Some(Arc::from(value)))
        };
        let rows = |rows_max| {
            let mut rows = Rows::default();
            // Below the floor of 100 only the latest of a value; two items of one cell are one row.
            for (value, cell) in [("a", 10), ("a", 90), ("b", 50), ("a", 120), ("c", 120), ("c", 120), ("a", 20)] {
                rows.add(key(value), cell, 1, 100);
            }
            let (rows, cut) = rows.into_rows(rows_max);
            let shown = rows.iter().map(|row| format!("{}{}x{}", row.value.as_deref().unwrap(), row.cell, row.count));
            (shown.collect::<Vec<_>>().join(" "), cut)
        };
        assert_eq!(rows(4), ("a90x1 a120x1 b50x1 c120x2".to_owned(), false));
        assert_eq!(rows(3), ("a90x1 a120x1 c120x2".to_owned(), true));
        assert_eq!(rows(1), ("a120x1".to_owned(), true));
    }
}
