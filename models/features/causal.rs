//! What went before a row: how often its signature, host and address were seen, how long ago, what is new.
//!
//! In: rows with a time, in any order. Out: columns of numbers, in the order of the rows. Each row sees what has a time
//! up to its own, and of the same time what comes before it in the file; groups do not see each other. Memory: times
//! within the longest window per value, and a counter per value ever seen.

use std::collections::{BTreeMap, HashMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::{
    ModelError,
    random::mix,
    table::{Cells, Column, MISSING, Table, Texts},
};

/// Seconds looked back.
const WINDOWS: [f64; 3] = [60.0, 600.0, 3_600.0];
/// Names that columns of signatures go by.
const SIGNATURES: [&str; 6] = ["short", "signature", "rule_id", "rule", "signature_id", "name"];
/// Names that columns of hosts and addresses go by.
const PLACES: [&str; 6] = ["host", "hostname", "ip", "source_ip", "src_ip", "user"];

/// Which columns are looked back on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Causal {
    /// Column of times, in seconds.
    pub time: String,
    /// Column of groups that do not see each other; where it is not there, all rows are one group.
    pub group: Option<String>,
    /// Column of what is said.
    pub signature: String,
    /// Columns of where or by whom.
    pub places: Vec<String>,
}

/// Times of one value within the longest window, and all there ever were.
#[derive(Default)]
struct Track {
    times: VecDeque<f64>,
    /// How many at the front are out of each window, less what has been dropped.
    heads: [usize; WINDOWS.len()],
    all: usize,
    last: Option<f64>,
}

/// Distinct values within a window.
#[derive(Default)]
struct Distinct {
    entries: VecDeque<(f64, u64)>,
    counts: HashMap<u64, usize>,
}

/// Everything that one group has seen.
#[derive(Default)]
struct Past {
    tracks: HashMap<(u8, u64), Track>,
    distinct: HashMap<(u8, u64), Distinct>,
    begun: Option<f64>,
}

impl Track {
    /// Rows in each window before this one.
    fn counts(&mut self, now: f64) -> [f64; WINDOWS.len()] {
        let mut counts = [0.0; WINDOWS.len()];
        for ((window, head), count) in WINDOWS.iter().zip(&mut self.heads).zip(&mut counts) {
            while self.times.get(*head).is_some_and(|time| now - time > *window) {
                *head += 1;
            }
            *count = (self.times.len() - *head) as f64;
        }
        let gone = self.heads.iter().copied().min().unwrap_or(0);
        self.times.drain(..gone);
        self.heads.iter_mut().for_each(|head| *head -= gone);
        counts
    }

    fn add(&mut self, now: f64) {
        self.times.push_back(now);
        self.all += 1;
        self.last = Some(now);
    }
}

impl Distinct {
    fn count(&mut self, now: f64, window: f64) -> f64 {
        while let Some(&(time, value)) = self.entries.front()
            && now - time > window
        {
            self.entries.pop_front();
            if let Some(count) = self.counts.get_mut(&value) {
                *count -= 1;
                if *count == 0 {
                    self.counts.remove(&value);
                }
            }
        }
        self.counts.len() as f64
    }

    fn add(&mut self, now: f64, value: u64) {
        self.entries.push_back((now, value));
        *self.counts.entry(value).or_default() += 1;
    }
}

impl Causal {
    /// What can be looked back on in a table, if it has a column of signatures.
    #[must_use]
    pub fn of(table: &Table, time: &str, group: Option<&str>) -> Option<Causal> {
        let text = |name: &&&str| table.column(name).is_some_and(|column| matches!(column.cells, Cells::Texts(_)));
        Some(Causal {
            time: time.to_owned(),
            group: group.map(str::to_owned),
            signature: (*SIGNATURES.iter().find(text)?).to_owned(),
            places: PLACES.iter().filter(text).map(|name| (*name).to_owned()).collect(),
        })
    }

    /// The names of the columns that are made.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        for key in self.keys() {
            names.extend(WINDOWS.iter().map(|window| format!("{key} in {window} s")));
            names.extend([format!("{key} since last"), format!("{key} so far"), format!("{key} against usual")]);
        }
        for place in ["anywhere"].into_iter().chain(self.places.iter().map(String::as_str)) {
            for window in &WINDOWS[1..] {
                names.push(format!("signatures in {window} s, {place}"));
                names.push(format!("new signatures in {window} s, {place}"));
            }
        }
        names
    }

    /// What is counted: all, the signature, each place, each place with the signature.
    fn keys(&self) -> Vec<String> {
        let with = self.places.iter().map(|place| format!("{place} with {}", self.signature));
        let all = ["all".to_owned(), self.signature.clone()];
        all.into_iter().chain(self.places.iter().cloned()).chain(with).collect()
    }

    /// Columns that describe what went before each row.
    ///
    /// # Errors
    /// A column is missing or of the wrong kind.
    pub fn columns(&self, table: &Table) -> Result<Vec<Column>, ModelError> {
        let times = match &table.need(&self.time, "the time")?.cells {
            Cells::Numbers(times) => times,
            cells @ Cells::Texts(_) => {
                return Err(ModelError::ColumnKind {
                    name: self.time.clone(),
                    is: cells.kind().to_owned(),
                    role: "the time of alerts",
                    wanted: "seconds or timestamps",
                });
            }
        };
        let hashed = |name: &str| -> Result<Vec<u64>, ModelError> {
            let classes: Texts = table.need(name, "a column to look back on")?.cells.classes();
            let values: Vec<u64> = classes.values.iter().map(|value| crate::random::hash(value.as_bytes())).collect();
            Ok(classes.codes.iter().map(|&code| if code == MISSING { 0 } else { values[code as usize] }).collect())
        };
        let signatures = hashed(&self.signature)?;
        let places = self.places.iter().map(|place| hashed(place)).collect::<Result<Vec<_>, _>>()?;
        let groups = match &self.group {
            Some(group) if table.column(group).is_some() => hashed(group)?,
            _ => vec![0; table.rows],
        };
        let mut order: Vec<usize> = (0..table.rows).collect();
        order.sort_by(|&a, &b| times[a].total_cmp(&times[b]));
        let names = self.names();
        let mut columns = vec![vec![f64::NAN; table.rows]; names.len()];
        let mut pasts: BTreeMap<u64, Past> = BTreeMap::new();
        let mut row_places = Vec::new();
        for row in order.into_iter().filter(|&row| !times[row].is_nan()) {
            row_places.clear();
            row_places.extend(places.iter().map(|place| place[row]));
            let past = pasts.entry(groups[row]).or_default();
            for (column, value) in columns.iter_mut().zip(past.row(times[row], signatures[row], &row_places)) {
                column[row] = value;
            }
        }
        Ok(names.into_iter().zip(columns).map(|(name, cells)| Column { name, cells: Cells::Numbers(cells) }).collect())
    }
}

impl Past {
    /// What went before a row; then the row is part of the past.
    fn row(&mut self, now: f64, signature: u64, places: &[u64]) -> Vec<f64> {
        let mut values = Vec::new();
        let elapsed = (now - *self.begun.get_or_insert(now)).max(1.0);
        let with = places.iter().map(|place| mix(place ^ signature.rotate_left(17)));
        let keys: Vec<u64> = [0, signature].into_iter().chain(places.iter().copied()).chain(with).collect();
        let mut is_new = false;
        for (at, &key) in keys.iter().enumerate() {
            let track = self.tracks.entry((at as u8, key)).or_default();
            let counts = track.counts(now);
            values.extend(counts);
            values.push(track.last.map_or(f64::NAN, |last| now - last));
            values.push(track.all as f64);
            // Rows of the last ten minutes against what ten minutes have had on average.
            let usual = track.all as f64 * (WINDOWS[1] / elapsed.max(WINDOWS[1]));
            values.push((counts[1] + 1.0) / (usual + 1.0));
            // New is what nobody, or nobody at this first place, has said before.
            is_new |= track.all == 0 && (at == 1 || at == 2 + places.len());
            track.add(now);
        }
        for (at, &place) in [0].iter().chain(places).enumerate() {
            for (number, window) in WINDOWS[1..].iter().enumerate() {
                for (kind, adds, value) in [(0, true, signature), (1, is_new, mix(signature ^ keys[keys.len() - 1]))] {
                    let name = (at * 4 + number * 2 + kind) as u8;
                    let distinct = self.distinct.entry((name, place)).or_default();
                    values.push(distinct.count(now, *window));
                    if adds {
                        distinct.add(now, value);
                    }
                }
            }
        }
        values
    }
}
