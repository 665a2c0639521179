//! Who learns and who judges: folds that keep groups whole and labels in proportion, and splits in order of time.

use std::collections::BTreeMap;

use crate::{
    random::{hash, mix},
    table::{Cells, MISSING, Table, Texts},
};

/// The fold of a group, by its hash alone.
#[must_use]
pub fn fold_of(group: u64, folds: usize, seed: u64) -> usize {
    (mix(group ^ seed.wrapping_mul(0x9E37_79B9_7F4A_7C15)) % folds.max(1) as u64) as usize
}

/// The fold of each row: groups stay whole, and each fold gets its share of each label.
///
/// Large groups are placed first, each where its label has the fewest rows so far; what a group is called does not
/// matter, only its hash.
#[must_use]
pub fn folds(groups: &[u64], classes: &Texts, folds: usize, seed: u64) -> Vec<usize> {
    let folds = folds.max(1);
    // Per group: rows, and rows of each label.
    let mut by_group: BTreeMap<u64, BTreeMap<u32, usize>> = BTreeMap::new();
    for (&group, &class) in groups.iter().zip(&classes.codes) {
        *by_group.entry(group).or_default().entry(class).or_default() += 1;
    }
    let mut order: Vec<(usize, u64, u64)> =
        by_group.iter().map(|(&group, counts)| (counts.values().sum(), mix(group ^ seed), group)).collect();
    order.sort_unstable_by_key(|&(rows, scrambled, group)| (std::cmp::Reverse(rows), scrambled, group));
    let mut filled = vec![vec![0_usize; classes.values.len()]; folds];
    let mut totals = vec![0_usize; folds];
    let mut fold_by_group: BTreeMap<u64, usize> = BTreeMap::new();
    for (rows, _, group) in order {
        let Some(counts) = by_group.get(&group) else { continue };
        let Some(main) = counts.iter().max_by_key(|(class, count)| (**count, std::cmp::Reverse(**class))) else {
            continue;
        };
        let class = *main.0 as usize;
        let fold = (0..folds).min_by_key(|&fold| (filled[fold][class], totals[fold], fold)).unwrap_or(0);
        for (&class, count) in counts {
            filled[fold][class as usize] += count;
        }
        totals[fold] += rows;
        fold_by_group.insert(group, fold);
    }
    groups.iter().map(|group| fold_by_group.get(group).copied().unwrap_or(0)).collect()
}

/// The last share of rows by time; rows of one moment stay together, and rows without a time come first.
#[must_use]
pub fn latest(times: &[f64], share: f64) -> Vec<bool> {
    let mut sorted: Vec<f64> = times.iter().copied().filter(|time| !time.is_nan()).collect();
    sorted.sort_unstable_by(f64::total_cmp);
    let at = ((sorted.len() as f64) * (1.0 - share)) as usize;
    let Some(&border) = sorted.get(at.min(sorted.len().saturating_sub(1))) else { return vec![false; times.len()] };
    times.iter().map(|&time| time >= border).collect()
}

/// A hash of each row over the named columns: equal rows, equal hash.
#[must_use]
pub fn row_hashes(table: &Table, columns: &[&str]) -> Vec<u64> {
    let mut hashes = vec![0x5EED_u64; table.rows];
    for name in columns {
        let Some(column) = table.column(name) else { continue };
        match &column.cells {
            Cells::Numbers(numbers) => {
                for (hash, number) in hashes.iter_mut().zip(numbers) {
                    *hash = mix(hash.rotate_left(5) ^ (number + 0.0).to_bits());
                }
            }
            Cells::Texts(texts) => {
                let values: Vec<u64> = texts.values.iter().map(|value| hash(value.as_bytes())).collect();
                for (hash, &code) in hashes.iter_mut().zip(&texts.codes) {
                    *hash = mix(hash.rotate_left(5) ^ if code == MISSING { 1 } else { values[code as usize] });
                }
            }
        }
    }
    hashes
}

/// A hash of each row's value, for grouping; rows without one are groups of their own.
#[must_use]
pub fn group_hashes(cells: &Cells, name_of: impl Fn(&str) -> String) -> Vec<u64> {
    let classes = cells.classes();
    let values: Vec<u64> = classes.values.iter().map(|value| hash(name_of(value).as_bytes())).collect();
    let group = |(row, &code): (usize, &u32)| if code == MISSING { mix(row as u64) } else { values[code as usize] };
    classes.codes.iter().enumerate().map(group).collect()
}
