//! Makes columns comparable for members that multiply and add: ordered columns by the logarithm of their size and their
//! spread, categories as one-hot columns, missing values as the mean.

use serde::{Deserialize, Serialize};

use crate::matrix::{ColumnKind, Matrix};

/// How far from the mean a value counts, in standard deviations: what was never seen must not run away.
const REACH: f32 = 4.0;
/// Quantiles of a column at most.
const KNOTS: usize = 65;
/// Columns of one-hot features at most.
pub(super) const WIDTH_MAX: usize = 1 << 14;

/// How one column is scaled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Scaling {
    /// `(log1p|x| with sign or x) - mean) * factor`, and whether the value is missing.
    Ordered { log: bool, mean: f32, factor: f32 },
    /// Place among quantiles of training rows, from -1 to 1: blind to how far away something is.
    Ranked { knots: Vec<f32> },
    /// One column for each known value.
    Category { values: u16 },
}

/// Scaling of all columns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scale {
    columns: Vec<Scaling>,
    width: usize,
}

impl Scale {
    /// By spread.
    pub(crate) fn fit(matrix: &Matrix) -> Scale {
        Scale::by(matrix, fit_column)
    }

    /// By rank.
    pub(crate) fn ranked(matrix: &Matrix) -> Scale {
        Scale::by(matrix, rank_column)
    }

    fn by(matrix: &Matrix, fit: fn(&Matrix, usize) -> Scaling) -> Scale {
        let columns: Vec<Scaling> = (0..matrix.columns()).map(|column| fit(matrix, column)).collect();
        let width = columns.iter().map(Scaling::width).sum();
        Scale { columns, width }
    }

    /// Cells of a scaled row.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// Scales a row into `out`, which is as wide as it must be.
    pub(crate) fn row(&self, row: &[f32], out: &mut [f32]) {
        out.fill(0.0);
        let mut at = 0;
        for (scaling, &cell) in self.columns.iter().zip(row) {
            match scaling {
                Scaling::Ordered { log, mean, factor } => {
                    if !cell.is_nan() {
                        let cell = if *log { signed_log(cell) } else { cell };
                        out[at] = ((cell - mean) * factor).clamp(-REACH, REACH);
                    }
                }
                Scaling::Ranked { knots } => {
                    if !cell.is_nan() {
                        out[at] = rank(knots, cell);
                    }
                }
                Scaling::Category { values } => {
                    if !cell.is_nan() && cell >= 0.0 && cell < f32::from(*values) {
                        out[at + cell as usize] = 1.0;
                    }
                }
            }
            at += scaling.width();
        }
    }

    /// Which column each scaled cell comes from.
    pub(crate) fn sources(&self) -> impl Iterator<Item = usize> + '_ {
        self.columns.iter().enumerate().flat_map(|(column, scaling)| std::iter::repeat_n(column, scaling.width()))
    }

    pub(crate) fn check(&self, columns: usize) -> Result<(), String> {
        let width: usize = self.columns.iter().map(Scaling::width).sum();
        if self.columns.len() != columns || width != self.width || width > WIDTH_MAX {
            return Err(format!("a scale of {} columns and width {}", self.columns.len(), self.width));
        }
        let finite = |scaling: &Scaling| match scaling {
            Scaling::Ordered { mean, factor, .. } => mean.is_finite() && factor.is_finite(),
            Scaling::Ranked { knots } => {
                knots.len() <= KNOTS
                    && knots.windows(2).all(|pair| pair[0] < pair[1])
                    && knots.iter().all(|k| k.is_finite())
            }
            Scaling::Category { .. } => true,
        };
        if self.columns.iter().all(finite) { Ok(()) } else { Err("a scale that is not a number".to_owned()) }
    }
}

impl Scaling {
    fn width(&self) -> usize {
        match self {
            Scaling::Ordered { .. } | Scaling::Ranked { .. } => 1,
            Scaling::Category { values } => usize::from(*values),
        }
    }
}

fn fit_column(matrix: &Matrix, column: usize) -> Scaling {
    if let ColumnKind::Category { values } = matrix.kinds[column] {
        return Scaling::Category { values };
    }
    let cells: Vec<f32> = matrix.values.iter().skip(column).step_by(matrix.columns()).copied().collect();
    let (mean, deviation) = moments(cells.iter().copied());
    let largest = cells.iter().filter(|cell| !cell.is_nan()).fold(0.0_f32, |most, cell| most.max(cell.abs()));
    // Counts and bytes have long tails; what stays within a few deviations does not.
    let log = f64::from(largest) > 10.0 && f64::from(largest) > mean.abs() + 8.0 * deviation;
    let (mean, deviation) = if log { moments(cells.iter().map(|&cell| signed_log(cell))) } else { (mean, deviation) };
    let factor = if deviation > 1e-9 { 1.0 / deviation } else { 0.0 };
    Scaling::Ordered { log, mean: mean as f32, factor: factor as f32 }
}

fn rank_column(matrix: &Matrix, column: usize) -> Scaling {
    if let ColumnKind::Category { values } = matrix.kinds[column] {
        return Scaling::Category { values };
    }
    let cells = matrix.values.iter().skip(column).step_by(matrix.columns()).copied();
    let mut sorted: Vec<f32> = cells.filter(|cell| cell.is_finite()).collect();
    sorted.sort_unstable_by(f32::total_cmp);
    let at = |knot: usize| sorted.get((sorted.len().saturating_sub(1)) * knot / (KNOTS - 1)).copied();
    let mut knots: Vec<f32> = (0..KNOTS).filter_map(at).collect();
    knots.dedup();
    Scaling::Ranked { knots }
}

/// Where a cell lies among knots, from -1 to 1.
fn rank(knots: &[f32], cell: f32) -> f32 {
    let after = knots.partition_point(|knot| *knot <= cell);
    let place = match (after.checked_sub(1).and_then(|before| knots.get(before)), knots.get(after)) {
        (Some(low), Some(high)) => (after - 1) as f32 + (cell - low) / (high - low),
        (Some(_), None) => knots.len().saturating_sub(1) as f32,
        (None, _) => 0.0,
    };
    2.0 * place / (knots.len().max(2) - 1) as f32 - 1.0
}

fn moments(cells: impl Iterator<Item = f32>) -> (f64, f64) {
    let (mut count, mut sum, mut squares) = (0.0, 0.0, 0.0);
    for cell in cells.filter(|cell| !cell.is_nan()).map(f64::from) {
        count += 1.0;
        sum += cell;
        squares += cell * cell;
    }
    if count == 0.0 {
        return (0.0, 0.0);
    }
    let mean = sum / count;
    (mean, (squares / count - mean * mean).max(0.0).sqrt())
}

fn signed_log(cell: f32) -> f32 {
    cell.abs().ln_1p().copysign(cell)
}
