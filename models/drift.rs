//! Whether rows still look like those that judged the model.
//!
//! In: rows and their probabilities, in order. Out: an alarm with what drifted, at most one a window. Shares of values per
//! column and of probabilities are compared with stored ones by the population stability index, over windows of
//! [`WINDOW`] rows; besides, the mean of probabilities is watched by an adaptive window (Bifet and Gavalda 2007), which
//! also sees what moves slowly. Memory: the counts of one window.

use serde::{Deserialize, Serialize};

use crate::matrix::{ColumnKind, Matrix};

/// Rows of a window.
pub const WINDOW: usize = 500;
/// Stability index from which a share of values is another (the usual rule: below 0.1 none, above 0.25 a large shift).
const INDEX_MAX: f64 = 0.25;
/// Bins of a column at most.
const BINS: usize = 10;
/// Chance of a false alarm of the adaptive window.
const CHANCE: f64 = 1e-4;

/// Shares of one column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Shares {
    /// Upper borders of bins; the codes of a category are values.
    uppers: Vec<f32>,
    /// Share of rows: missing, each bin, above all.
    shares: Vec<f32>,
}

/// A probability in hundredths, as shares of probabilities are taken.
///
/// Of few rows, those that judge were scored by members of folds. The final members learned from all and are surer: what was
/// 0.002 becomes 0.001. Where most rows lie that close to 0 and 1, as many bins do, and a difference that nobody could see
/// emptied them: trainings of up to 30,000 rows raised an alarm on rows like their own.
fn hundredths(probability: f64) -> f32 {
    ((probability * 100.0).round() / 100.0) as f32
}

/// What rows looked like.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    columns: Vec<Shares>,
    probability: Option<Shares>,
}

/// Something is not as it was.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Alarm {
    /// Rows seen when it was raised.
    pub rows: usize,
    /// Columns with their index, the largest first; `probability` is the model's answer.
    pub columns: Vec<(String, f64)>,
    /// Whether the mean probability moved.
    pub mean_moved: bool,
}

impl Shares {
    fn of(cells: impl Iterator<Item = f32> + Clone, kind: ColumnKind) -> Shares {
        let mut sorted: Vec<f32> = cells.clone().filter(|cell| !cell.is_nan()).collect();
        sorted.sort_unstable_by(f32::total_cmp);
        let mut uppers: Vec<f32> = match kind {
            ColumnKind::Category { .. } => sorted.clone(),
            ColumnKind::Ordered => (1..BINS).filter_map(|bin| sorted.get(sorted.len() * bin / BINS).copied()).collect(),
        };
        uppers.dedup();
        uppers.truncate(256);
        let mut shares = Shares { shares: vec![0.0; uppers.len() + 2], uppers };
        let mut counts = vec![0_usize; shares.shares.len()];
        let mut all = 0;
        for cell in cells {
            counts[shares.place(cell)] += 1;
            all += 1;
        }
        shares.shares = counts.iter().map(|&count| (count as f64 / f64::from(all.max(1))) as f32).collect();
        shares
    }

    fn place(&self, cell: f32) -> usize {
        if cell.is_nan() { 0 } else { 1 + self.uppers.partition_point(|upper| *upper < cell) }
    }

    /// Whether all borders are hundredths. Those of models from before are not, and are compared with probabilities as they are.
    fn is_of_hundredths(&self) -> bool {
        self.uppers.iter().all(|upper| hundredths(f64::from(*upper)) == *upper)
    }

    /// The population stability index of counts.
    fn index(&self, counts: &[usize]) -> f64 {
        let all = counts.iter().sum::<usize>().max(1) as f64;
        // An empty bin counts as half a row of a window: the index stays finite.
        let least = 0.5 / WINDOW as f64;
        let part = |(share, count): (&f32, &usize)| {
            let (was, is) = (f64::from(*share).max(least), (*count as f64 / all).max(least));
            (is - was) * (is / was).ln()
        };
        self.shares.iter().zip(counts).map(part).sum()
    }

    fn check(&self) -> bool {
        self.uppers.len() <= 256
            && self.shares.len() == self.uppers.len() + 2
            && self.uppers.windows(2).all(|pair| pair[0] < pair[1])
            && self.shares.iter().all(|share| (0.0..=1.0).contains(share))
    }
}

impl Reference {
    /// Of training rows as the members see them.
    #[must_use]
    pub fn of(matrix: &Matrix) -> Reference {
        let cells = |column: usize| matrix.values.iter().skip(column).step_by(matrix.columns()).copied();
        let columns = matrix.kinds.iter().enumerate().map(|(column, kind)| Shares::of(cells(column), *kind));
        Reference { columns: columns.collect(), probability: None }
    }

    /// Adds the answers for rows that the members have not learned from.
    pub fn answered(&mut self, probabilities: &[f64]) {
        self.probability = Some(Shares::of(probabilities.iter().map(|p| hundredths(*p)), ColumnKind::Ordered));
    }

    pub(crate) fn check(&self, columns: usize) -> Result<(), String> {
        let sound = self.columns.len() == columns && self.columns.iter().chain(&self.probability).all(Shares::check);
        if sound { Ok(()) } else { Err("shares for drift that do not fit".to_owned()) }
    }
}

/// Watches rows go by.
#[derive(Clone, Debug)]
pub struct Watch<'a> {
    reference: &'a Reference,
    names: Vec<String>,
    counts: Vec<Vec<usize>>,
    in_window: usize,
    rows: usize,
    mean: Adaptive,
    moved: bool,
    /// Whether shares of probabilities are those of hundredths.
    rounds: bool,
}

impl<'a> Watch<'a> {
    /// Begins to watch; `names` are those of the columns.
    #[must_use]
    pub fn new(reference: &'a Reference, names: Vec<String>) -> Watch<'a> {
        let counts = reference.columns.iter().chain(&reference.probability).map(|shares| vec![0; shares.shares.len()]);
        Watch {
            counts: counts.collect(),
            reference,
            names,
            in_window: 0,
            rows: 0,
            mean: Adaptive::default(),
            moved: false,
            rounds: reference.probability.as_ref().is_some_and(Shares::is_of_hundredths),
        }
    }

    /// One more row; an alarm at the end of a window that is not like the reference.
    pub fn row(&mut self, row: &[f32], probability: f64) -> Option<Alarm> {
        let answer = if self.rounds { hundredths(probability) } else { probability as f32 };
        let cells = row.iter().copied().chain([answer]);
        let shares = self.reference.columns.iter().chain(&self.reference.probability);
        for ((shares, counts), cell) in shares.zip(&mut self.counts).zip(cells) {
            counts[shares.place(cell)] += 1;
        }
        self.moved |= self.mean.add(probability);
        self.rows += 1;
        self.in_window += 1;
        if self.in_window < WINDOW { None } else { self.close() }
    }

    fn close(&mut self) -> Option<Alarm> {
        let shares = self.reference.columns.iter().chain(&self.reference.probability);
        let names = self.names.iter().map(String::as_str).chain(["probability"]);
        let index = |((shares, counts), name): ((&Shares, &Vec<usize>), &str)| (name.to_owned(), shares.index(counts));
        let mut columns: Vec<(String, f64)> =
            shares.zip(&self.counts).zip(names).map(index).filter(|(_, index)| *index > INDEX_MAX).collect();
        columns.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let alarm = Alarm { rows: self.rows, columns, mean_moved: self.moved };
        self.counts.iter_mut().for_each(|counts| counts.fill(0));
        self.in_window = 0;
        self.moved = false;
        (alarm.mean_moved || !alarm.columns.is_empty()).then_some(alarm)
    }
}

/// A window over numbers in `0..=1` that forgets its past when its mean has changed.
#[derive(Clone, Debug, Default)]
pub struct Adaptive {
    /// Sums over runs of numbers, oldest first; `(sum, count)`, counts are powers of two.
    runs: Vec<(f64, usize)>,
}

impl Adaptive {
    /// Runs of one length before two are joined.
    const RUNS: usize = 5;

    /// One more number; whether the window was cut.
    pub fn add(&mut self, number: f64) -> bool {
        self.runs.push((number, 1));
        self.join();
        self.cut()
    }

    /// Numbers that are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.runs.iter().map(|run| run.1).sum()
    }

    /// Whether nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Joins the two oldest of too many runs of one length, from the shortest up.
    fn join(&mut self) {
        let mut length = 1;
        loop {
            let of: Vec<usize> = (0..self.runs.len()).filter(|&at| self.runs[at].1 == length).collect();
            let [first, second, ..] = of.as_slice() else { return };
            if of.len() <= Self::RUNS {
                return;
            }
            self.runs[*first].0 += self.runs[*second].0;
            self.runs[*first].1 *= 2;
            self.runs.remove(*second);
            length *= 2;
        }
    }

    /// Drops the oldest runs while some cut in two has means further apart than chance allows.
    fn cut(&mut self) -> bool {
        let mut was_cut = false;
        while self.differs() {
            self.runs.remove(0);
            was_cut = true;
        }
        was_cut
    }

    fn differs(&self) -> bool {
        let (all, count) = self.runs.iter().fold((0.0, 0), |sum, run| (sum.0 + run.0, sum.1 + run.1));
        if count < 64 {
            return false;
        }
        let mean = all / count as f64;
        // Numbers in 0..=1 vary at most so much.
        let variance = mean * (1.0 - mean);
        let confidence = (2.0 * (count as f64).ln() / CHANCE).ln();
        let (mut sum, mut n) = (0.0, 0_usize);
        for run in &self.runs {
            sum += run.0;
            n += run.1;
            let rest = count - n;
            if n < 16 || rest < 16 {
                continue;
            }
            let harmonic = 1.0 / (1.0 / n as f64 + 1.0 / rest as f64);
            let reach = (2.0 / harmonic * variance * confidence).sqrt() + 2.0 / (3.0 * harmonic) * confidence;
            if (sum / n as f64 - (all - sum) / rest as f64).abs() > reach {
                return true;
            }
        }
        false
    }
}
