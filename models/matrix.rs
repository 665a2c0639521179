//! Encoded features: one row of 32-bit floats per input row, and the same in bins for growing trees.
//!
//! A column is ordered (numbers; NaN is missing) or a category (codes from 0; the code after the last is "any other").
//! Trees split an ordered column by a threshold and a category by one value against the rest, which is what one-hot
//! columns would do, at a fraction of the cost; linear members see categories as one-hot columns.

use serde::{Deserialize, Serialize};

/// Bins of a column at most, without the one for missing values.
const BINS_MAX: usize = 254;

/// What a column of a matrix is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ColumnKind {
    /// Greater and smaller mean something.
    Ordered,
    /// Codes `0..values`; `values` itself stands for any other.
    Category {
        /// Known values.
        values: u16,
    },
}

/// Rows of encoded features.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// Per column.
    pub kinds: Vec<ColumnKind>,
    /// Row by row.
    pub values: Vec<f32>,
    /// Rows.
    pub rows: usize,
}

impl Matrix {
    /// Columns.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.kinds.len()
    }

    /// A row.
    #[must_use]
    pub fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.columns()..(row + 1) * self.columns()]
    }

    /// The given rows.
    #[must_use]
    pub fn take(&self, rows: &[usize]) -> Matrix {
        let values = rows.iter().flat_map(|&row| self.row(row)).copied().collect();
        Matrix { kinds: self.kinds.clone(), values, rows: rows.len() }
    }
}

/// A column in bins.
pub(crate) struct Binned {
    /// Bin of each row; 0 is missing.
    pub(crate) bins: Vec<u8>,
    /// `uppers[b]` is the largest value of bin `b + 1` (ordered), or the code itself (category).
    pub(crate) uppers: Vec<f32>,
    /// Whether a split takes one bin against the rest.
    pub(crate) category: bool,
}

impl Binned {
    /// Bins, with the one for missing values.
    pub(crate) fn count(&self) -> usize {
        self.uppers.len() + 1
    }
}

/// All columns in bins, whose borders are quantiles of these rows.
pub(crate) fn bin(matrix: &Matrix) -> Vec<Binned> {
    (0..matrix.columns()).map(|column| bin_column(matrix, column)).collect()
}

fn bin_column(matrix: &Matrix, column: usize) -> Binned {
    let cells = || matrix.values.iter().skip(column).step_by(matrix.columns()).copied();
    if let ColumnKind::Category { values } = matrix.kinds[column] {
        // Codes beyond the bins fall together into the last one.
        let count = (usize::from(values) + 1).min(BINS_MAX);
        let bins =
            cells().map(|cell| if cell.is_nan() { 0 } else { (cell as usize).min(count - 1) as u8 + 1 }).collect();
        return Binned { bins, uppers: (0..count).map(|code| code as f32).collect(), category: true };
    }
    let uppers = borders(cells().filter(|cell| !cell.is_nan()).collect());
    let place = |cell: f32| {
        if cell.is_nan() { 0 } else { uppers.partition_point(|&upper| upper < cell).min(uppers.len() - 1) as u8 + 1 }
    };
    Binned { bins: cells().map(place).collect(), uppers, category: false }
}

/// Upper borders of bins: every value its own if there are few, else about equally many rows in each.
fn borders(mut cells: Vec<f32>) -> Vec<f32> {
    cells.sort_unstable_by(f32::total_cmp);
    let mut distinct: Vec<(f32, usize)> = Vec::new();
    for &cell in &cells {
        match distinct.last_mut() {
            Some((value, count)) if *value == cell => *count += 1,
            _ => distinct.push((cell, 1)),
        }
    }
    if distinct.is_empty() {
        return vec![0.0];
    }
    if distinct.len() <= BINS_MAX {
        // Halfway to the next value: rows to come fall on the nearer side.
        let next = distinct.iter().skip(1).map(|(value, _)| *value).chain([f32::INFINITY]);
        return distinct.iter().zip(next).map(|((value, _), next)| middle(*value, next)).collect();
    }
    let mut uppers = Vec::new();
    let (mut left, mut filled) = (cells.len(), 0);
    for (at, (value, count)) in distinct.iter().enumerate() {
        filled += count;
        let bins_left = BINS_MAX - uppers.len();
        if bins_left > 1 && filled * bins_left >= left {
            let next = distinct.get(at + 1).map_or(f32::INFINITY, |(next, _)| *next);
            uppers.push(middle(*value, next));
            left -= filled;
            filled = 0;
        }
    }
    if uppers.last().is_none_or(|last| last.is_finite()) {
        uppers.push(f32::INFINITY);
    }
    uppers
}

fn middle(value: f32, next: f32) -> f32 {
    if next.is_infinite() {
        return f32::INFINITY;
    }
    let middle = value + (next - value) / 2.0;
    // Neighbouring floats have nothing between them.
    if middle < next { middle } else { value }
}
