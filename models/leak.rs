//! Features that are too good to be true.
//!
//! A column that alone separates the classes almost perfectly is usually the label in other clothes: a column of the
//! labelling process, an identifier given in order of class, the future.

use crate::{
    metrics::roc_auc,
    split,
    table::{Cells, Column, MISSING},
};

/// Above this ROC-AUC a single column is refused.
pub const AUC_MAX: f64 = 0.999;

/// The ROC-AUC of a column alone, either way round. Texts are scored by how positive their value is in the other half of
/// the rows, so that a column of identifiers does not look like a label.
#[must_use]
pub fn auc_alone(column: &Column, positive: &[bool], groups: &[u64]) -> f64 {
    let auc = match &column.cells {
        Cells::Numbers(numbers) => {
            let scores: Vec<f64> = numbers.iter().map(|n| if n.is_nan() { f64::NEG_INFINITY } else { *n }).collect();
            roc_auc(&scores, positive)
        }
        Cells::Texts(_) => {
            let classes = column.cells.classes();
            let half: Vec<usize> = groups.iter().map(|&group| split::fold_of(group, 2, 0x1EAC)).collect();
            let mut sums = vec![[(0.0, 0.0); 2]; classes.values.len()];
            for (row, &code) in classes.codes.iter().enumerate().filter(|(_, code)| **code != MISSING) {
                let sum = &mut sums[code as usize][half[row]];
                sum.0 += f64::from(u8::from(positive[row]));
                sum.1 += 1.0;
            }
            let score = |(row, &code): (usize, &u32)| match sums.get(code as usize).map(|halves| halves[1 - half[row]])
            {
                Some((is, all)) if all > 0.0 => is / all,
                _ => 0.5,
            };
            roc_auc(&classes.codes.iter().enumerate().map(score).collect::<Vec<f64>>(), positive)
        }
    };
    auc.max(1.0 - auc)
}

/// Whether all cells that are there are equal.
#[must_use]
pub fn is_constant(column: &Column) -> bool {
    match &column.cells {
        Cells::Numbers(numbers) => {
            let mut there = numbers.iter().filter(|n| !n.is_nan());
            let first = there.next();
            there.all(|n| Some(n) == first) && (first.is_none() || !numbers.iter().any(|n| n.is_nan()))
        }
        Cells::Texts(texts) => texts.codes.windows(2).all(|pair| pair[0] == pair[1]),
    }
}
