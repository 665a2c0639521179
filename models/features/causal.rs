//! What went before a row: how often its signature, host and address were seen, how long ago, what is new.
//!
//! In: rows with a time, in any order. Out: columns of numbers, in the order of the rows. Each row sees what has a time
//! up to its own, and of the same time what comes before it in the file; groups do not see each other. Memory: times
//! within the longest window per value, and a counter per value ever seen. What is computed online ([`super::alert`])
//! goes through the same [`Past`], with longer windows and bounds.

use std::collections::{BTreeMap, HashMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::{
    ModelError,
    random::{Seeded, mix},
    table::{Cells, Column, MISSING, Table, Texts},
};

/// Windows in seconds, the shortest first.
pub(super) type Windows = [f64; 3];
/// Seconds looked back on rows of a file.
const WINDOWS: Windows = [60.0, 600.0, 3_600.0];
/// Seconds after which it is known what is usual.
const LEARNT_S: f64 = 86_400.0;
/// The column that says how much of that has passed: new is what is said for the first time, and at the begin all is.
const LEARNT: &str = "seconds looked back on, at most 86400";
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
    heads: [usize; 3],
    all: usize,
    last: Option<f64>,
}

/// Distinct values within a window.
#[derive(Default)]
struct Distinct {
    entries: VecDeque<(f64, u64)>,
    counts: HashMap<u64, usize, Seeded>,
}

/// Everything that one group has seen.
pub(super) struct Past {
    windows: Windows,
    limits: Limits,
    tracks: HashMap<(u8, u64), Track, Seeded>,
    distinct: HashMap<(u8, u64), Distinct, Seeded>,
    begun: Option<f64>,
}

/// What a past may hold; files are bounded by themselves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Times of one value: beyond it the oldest go, and counts stay at it.
    pub(super) times: usize,
    /// Values: beyond it those that were seen last the longest ago go, a tenth at once.
    pub(super) values: usize,
}

impl Limits {
    const NONE: Limits = Limits { times: usize::MAX, values: usize::MAX };
}

impl Track {
    /// Rows in each window before this one.
    fn counts(&mut self, now: f64, windows: &Windows) -> Windows {
        let mut counts = Windows::default();
        for ((window, head), count) in windows.iter().zip(&mut self.heads).zip(&mut counts) {
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

    fn add(&mut self, now: f64, most: usize) {
        self.times.push_back(now);
        if self.times.len() > most {
            self.times.pop_front();
            self.heads.iter_mut().for_each(|head| *head = head.saturating_sub(1));
        }
        self.all += 1;
        self.last = Some(now);
    }
}

impl Distinct {
    fn count(&mut self, now: f64, window: f64) -> f64 {
        while self.entries.front().is_some_and(|(time, _)| now - time > window) {
            self.drop_first();
        }
        self.counts.len() as f64
    }

    fn add(&mut self, now: f64, value: u64, most: usize) {
        self.entries.push_back((now, value));
        *self.counts.entry(value).or_default() += 1;
        if self.entries.len() > most {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        if let Some((_, value)) = self.entries.pop_front()
            && let Some(count) = self.counts.get_mut(&value)
        {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&value);
            }
        }
    }
}

/// The names of what [`Past::row`] gives.
pub(super) fn names(signature: &str, places: &[&str], windows: &Windows) -> Vec<String> {
    // What is counted: all, the signature, each place, each place with the signature.
    let with = places.iter().map(|place| format!("{place} with {signature}"));
    let one = ["all".to_owned(), signature.to_owned()];
    let keys = one.into_iter().chain(places.iter().map(|place| (*place).to_owned())).chain(with);
    let mut names = Vec::new();
    for key in keys {
        names.extend(windows.iter().map(|window| format!("{key} in {window} s")));
        names.extend([format!("{key} since last"), format!("{key} so far"), format!("{key} against usual")]);
    }
    for place in ["anywhere"].iter().chain(places) {
        for window in &windows[1..] {
            names.push(format!("signatures in {window} s, {place}"));
            names.push(format!("new signatures in {window} s, {place}"));
        }
    }
    names
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
        let places: Vec<&str> = self.places.iter().map(String::as_str).collect();
        let mut names = names(&self.signature, &places, &WINDOWS);
        names.push(LEARNT.to_owned());
        names
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
            let past = pasts.entry(groups[row]).or_insert_with(|| Past::new(WINDOWS, Limits::NONE));
            let before =
                past.row(times[row], signatures[row], &row_places).into_iter().chain([past.learnt(times[row])]);
            for (column, value) in columns.iter_mut().zip(before) {
                column[row] = value;
            }
        }
        Ok(names.into_iter().zip(columns).map(|(name, cells)| Column { name, cells: Cells::Numbers(cells) }).collect())
    }
}

impl Past {
    pub(super) fn new(windows: Windows, limits: Limits) -> Past {
        Past { windows, limits, tracks: HashMap::default(), distinct: HashMap::default(), begun: None }
    }

    /// What went before a row; then the row is part of the past. Times must not fall.
    pub(super) fn row(&mut self, now: f64, signature: u64, places: &[u64]) -> Vec<f64> {
        let (windows, limits) = (self.windows, self.limits);
        let mut values = Vec::with_capacity((2 + 2 * places.len()) * 6 + (1 + places.len()) * 4);
        let elapsed = (now - *self.begun.get_or_insert(now)).max(1.0);
        let with = places.iter().map(|place| mix(place ^ signature.rotate_left(17)));
        let keys: Vec<u64> = [0, signature].into_iter().chain(places.iter().copied()).chain(with).collect();
        let mut is_new = false;
        for (at, &key) in keys.iter().enumerate() {
            let track = self.tracks.entry((at as u8, key)).or_default();
            let counts = track.counts(now, &windows);
            values.extend(counts);
            values.push(track.last.map_or(f64::NAN, |last| now - last));
            values.push(track.all as f64);
            // Rows of the middle window against what such a window has had on average.
            let usual = track.all as f64 * (windows[1] / elapsed.max(windows[1]));
            values.push((counts[1] + 1.0) / (usual + 1.0));
            // New is what nobody, or nobody at this first place, has said before.
            is_new |= track.all == 0 && (at == 1 || at == 2 + places.len());
            track.add(now, limits.times);
        }
        for (at, &place) in [0].iter().chain(places).enumerate() {
            for (number, window) in windows[1..].iter().enumerate() {
                for (kind, adds, value) in [(0, true, signature), (1, is_new, mix(signature ^ keys[keys.len() - 1]))] {
                    let name = (at * 4 + number * 2 + kind) as u8;
                    let distinct = self.distinct.entry((name, place)).or_default();
                    values.push(distinct.count(now, *window));
                    if adds {
                        distinct.add(now, value, limits.times);
                    }
                }
            }
        }
        self.forget();
        values
    }

    /// Seconds since the first row, as far as they matter.
    fn learnt(&self, now: f64) -> f64 {
        self.begun.map_or(0.0, |begun| (now - begun).min(LEARNT_S))
    }

    /// Keeps the number of values within its limit. What goes is the same on every run: by when it was seen last.
    fn forget(&mut self) {
        if self.tracks.len() > self.limits.values {
            let last = |track: &Track| track.last.unwrap_or(f64::NEG_INFINITY);
            let mut order: Vec<(f64, (u8, u64))> = self.tracks.iter().map(|(key, track)| (last(track), *key)).collect();
            order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            for (_, key) in order.into_iter().take(self.limits.values.div_ceil(10)) {
                self.tracks.remove(&key);
            }
        }
        if self.distinct.len() > self.limits.values {
            let last = |distinct: &Distinct| distinct.entries.back().map_or(f64::NEG_INFINITY, |(time, _)| *time);
            let mut order: Vec<(f64, (u8, u64))> = self.distinct.iter().map(|(key, it)| (last(it), *key)).collect();
            order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            for (_, key) in order.into_iter().take(self.limits.values.div_ceil(10)) {
                self.distinct.remove(&key);
            }
        }
    }
}
