//! Balances classes of training rows: by weights, by drawing more of the rare or fewer of the common. Rows that judge are
//! never touched.

use serde::{Deserialize, Serialize};

use crate::{random::Random, table::Texts};

/// How training rows are balanced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Balance {
    /// As they are.
    None,
    /// Both classes weigh the same.
    Classes,
    /// Each label weighs as the square root of its rows: a kind of attack that is rare is not drowned by a common one.
    #[default]
    Labels,
    /// Rows of the rarer class are repeated until it is as large.
    Over,
    /// Rows of the larger class are left out until it is as small.
    Under,
}

impl Balance {
    /// All, with their names.
    pub const ALL: [(&'static str, Balance); 5] = [
        ("none", Balance::None),
        ("classes", Balance::Classes),
        ("labels", Balance::Labels),
        ("over", Balance::Over),
        ("under", Balance::Under),
    ];

    /// Rows to train on, with their weights (mean 1).
    #[must_use]
    pub fn apply(self, rows: &[usize], positive: &[bool], labels: &Texts, seed: u64) -> (Vec<usize>, Vec<f32>) {
        let (of, others): (Vec<usize>, Vec<usize>) = rows.iter().partition(|&&row| positive[row]);
        let (rare, common) = if of.len() <= others.len() { (of, others) } else { (others, of) };
        let mut random = Random::new(seed, 0xBA1A);
        let mut drawn = match self {
            Balance::None | Balance::Classes | Balance::Labels => rows.to_vec(),
            Balance::Over => {
                let repeats =
                    (0..common.len() - rare.len()).filter_map(|_| rare.get(random.below(rare.len())).copied());
                rows.iter().copied().chain(repeats).collect()
            }
            Balance::Under => {
                let kept = random.choose(common.len(), rare.len());
                rare.iter().copied().chain(kept.into_iter().map(|at| common[at])).collect()
            }
        };
        drawn.sort_unstable();
        let mut weights = match self {
            Balance::None | Balance::Over | Balance::Under => vec![1.0; drawn.len()],
            Balance::Classes => {
                let weight = |row: &usize| {
                    1.0 / if positive[*row] == positive[rare[0]] { rare.len() } else { common.len() } as f64
                };
                drawn.iter().map(weight).collect()
            }
            Balance::Labels => {
                let mut counts = vec![0.0_f64; labels.values.len()];
                drawn.iter().for_each(|&row| counts[labels.codes[row] as usize] += 1.0);
                drawn.iter().map(|&row| 1.0 / counts[labels.codes[row] as usize].sqrt()).collect()
            }
        };
        let mean = weights.iter().sum::<f64>() / weights.len().max(1) as f64;
        weights.iter_mut().for_each(|weight| *weight /= mean);
        (drawn, weights.into_iter().map(|weight| weight as f32).collect())
    }
}
