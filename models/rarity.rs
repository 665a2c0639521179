//! How rare a score is among negative rows: the scale on which members of different kinds are compared.

use serde::{Deserialize, Serialize};

use crate::members::logit;

/// Corners kept at most: few where scores are common, all where they are rare.
const CORNERS_MAX: usize = 512;
/// Logits beyond the rarest negative for one more unit of rarity: what lies there is ranked, with care.
const BEYOND: f64 = 2.0;
/// Logits beyond it that count.
const BEYOND_MAX: f64 = 12.0;
/// Below the logit of any score.
const LEAST: f64 = -21.0;

/// Minus the logarithm of the share of negative rows at or above a score, as a line over the score's logit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rarity {
    /// Logit and rarity, both rising.
    corners: Vec<(f64, f64)>,
}

impl Rarity {
    /// Divides the sum of rarities before it is brought into `0..1`, so that floats keep the order of large ones.
    pub const SCALE: f64 = 4.0;

    /// Fits on rows that the member has not seen.
    #[must_use]
    pub fn fit(scores: &[f64], positive: &[bool]) -> Rarity {
        let negative = scores.iter().zip(positive).filter(|(_, is)| !**is);
        let mut logits: Vec<f64> = negative.map(|(score, _)| logit(*score)).collect();
        logits.sort_unstable_by(f64::total_cmp);
        let all = logits.len() as f64 + 1.0;
        let mut corners = vec![(LEAST, 0.0)];
        let step = 2.0 * all.ln() / CORNERS_MAX as f64;
        for (at, &logit) in logits.iter().enumerate() {
            let rarity = (all / (logits.len() - at) as f64).ln();
            let wanted = corners.last().is_none_or(|last| rarity >= last.1 + step) || at + 1 == logits.len();
            if wanted && corners.last().is_none_or(|last| logit > last.0) {
                corners.push((logit, rarity));
            }
        }
        Rarity { corners }
    }

    /// The rarity of a score.
    #[must_use]
    pub fn of(&self, score: f64) -> f64 {
        let at = logit(score);
        let after = self.corners.partition_point(|corner| corner.0 <= at);
        match (after.checked_sub(1).and_then(|before| self.corners.get(before)), self.corners.get(after)) {
            (Some(low), Some(high)) => low.1 + (high.1 - low.1) * (at - low.0) / (high.0 - low.0),
            (Some(last), None) => last.1 + (at - last.0).min(BEYOND_MAX) / BEYOND,
            (None, _) => 0.0,
        }
    }

    pub(crate) fn is_sound(&self) -> bool {
        let rising = self.corners.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
        let finite = self.corners.iter().all(|(logit, rarity)| logit.is_finite() && rarity.is_finite());
        rising && finite && !self.corners.is_empty() && self.corners.len() <= 2 * CORNERS_MAX
    }
}
