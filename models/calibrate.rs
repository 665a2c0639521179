//! From a score to a probability, and to a set of classes that holds the true one as often as promised.
//!
//! Probabilities: isotonic regression by pool-adjacent-violators (Ayer et al. 1955), joined by straight lines, or a beta
//! curve ([`beta`]), whichever gives rows of groups that it has not seen the greater likelihood; tilted a little, so that
//! rows that differ in score still differ in probability. Steps follow any shape and need thousands of rows, three
//! numbers follow few shapes and need few: neither is best everywhere. Sets: split conformal prediction per class
//! (Vovk et al. 2005). All of it holds for rows like those it is fitted on, which the members must not have seen.

mod beta;

use serde::{Deserialize, Serialize};

use crate::{split, table::Texts};

/// Parts in which curves are tried on rows that they have not seen.
const PARTS: usize = 5;
/// Rows among which a curve is chosen at most: more would cost time and choose the same.
const CHOICE_ROWS_MAX: usize = 20_000;
/// A probability nearer to 0 or 1 than this is not punished more if it was wrong.
const SURE: f64 = 1e-6;
/// How much of the score is mixed in: keeps order where the regression is flat.
const TILT: f64 = 1e-3;
/// Corners kept at most.
const CORNERS_MAX: usize = 1 << 16;

/// A rising line from score to probability.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Score and probability, both rising.
    corners: Vec<(f64, f64)>,
}

/// How the line is fitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Curve {
    /// Three numbers.
    Beta,
    /// As many steps as the rows want.
    Isotonic,
}

impl Calibration {
    /// The curve under which rows are most likely whose groups it has not seen, then fitted on all.
    #[must_use]
    pub fn chosen(scores: &[f64], positive: &[bool], groups: &[u64], seed: u64) -> (Curve, Calibration) {
        let some: Vec<usize> = (0..scores.len()).step_by(scores.len().div_ceil(CHOICE_ROWS_MAX).max(1)).collect();
        let classes = Texts {
            codes: some.iter().map(|&row| u32::from(positive[row])).collect(),
            values: vec!["negative".to_owned(), "positive".to_owned()],
        };
        let groups: Vec<u64> = some.iter().map(|&row| groups[row]).collect();
        let parts = split::folds(&groups, &classes, PARTS, seed ^ 0xC0DE);
        let loss = |curve: Curve| -> f64 {
            let of = |part: usize| {
                let rows = some.iter().copied().zip(&parts);
                let (inside, outside): (Vec<_>, Vec<_>) = rows.partition(|(_, is)| **is == part);
                let known: Vec<f64> = outside.iter().map(|&(row, _)| scores[row]).collect();
                let truth: Vec<bool> = outside.iter().map(|&(row, _)| positive[row]).collect();
                let line = Calibration::of(curve, &known, &truth);
                let surprise = |&(row, _): &(usize, &usize)| {
                    let p = line.probability(scores[row]).clamp(SURE, 1.0 - SURE);
                    if positive[row] { -p.ln() } else { -(-p).ln_1p() }
                };
                inside.iter().map(surprise).sum::<f64>()
            };
            (0..PARTS).map(of).sum()
        };
        let curve = if loss(Curve::Isotonic) < loss(Curve::Beta) { Curve::Isotonic } else { Curve::Beta };
        (curve, Calibration::of(curve, scores, positive))
    }

    /// Fits a curve on rows that no member has seen.
    #[must_use]
    pub fn of(curve: Curve, scores: &[f64], positive: &[bool]) -> Calibration {
        match curve {
            Curve::Isotonic => Calibration::fit(scores, positive),
            Curve::Beta => {
                let mut corners = beta::corners(scores, positive);
                corners.dedup_by(|next, corner| next.0 <= corner.0);
                Calibration { corners }
            }
        }
    }

    /// Isotonic regression on rows that no member has seen.
    #[must_use]
    pub fn fit(scores: &[f64], positive: &[bool]) -> Calibration {
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
        // Blocks of (least score, greatest score, positives, rows).
        let mut blocks: Vec<(f64, f64, f64, f64)> = Vec::new();
        for tied in order.chunk_by(|&a, &b| scores[a] == scores[b]) {
            let is = tied.iter().filter(|&&row| positive[row]).count() as f64;
            blocks.push((scores[tied[0]], scores[tied[0]], is, tied.len() as f64));
            while let [.., (_, _, p, n), (_, _, q, m)] = blocks.as_slice()
                && p * m >= q * n
                && let Some(last) = blocks.pop()
                && let Some(block) = blocks.last_mut()
            {
                block.1 = last.1;
                block.2 += last.2;
                block.3 += last.3;
            }
        }
        // Flat within a block, a line from one to the next; rows of one score are in one block.
        let ends = |(least, greatest, is, rows): (f64, f64, f64, f64)| [(least, is / rows), (greatest, is / rows)];
        let mut corners: Vec<(f64, f64)> = blocks.into_iter().flat_map(ends).collect();
        corners.dedup_by(|next, corner| next.0 <= corner.0);
        corners.truncate(CORNERS_MAX);
        Calibration { corners }
    }

    /// The probability of a score in `0..=1`.
    #[must_use]
    pub fn probability(&self, score: f64) -> f64 {
        let after = self.corners.partition_point(|corner| corner.0 <= score);
        let line = match (after.checked_sub(1).and_then(|before| self.corners.get(before)), self.corners.get(after)) {
            (Some(a), Some(b)) => a.1 + (b.1 - a.1) * (score - a.0) / (b.0 - a.0),
            (Some(a), None) => a.1,
            (None, Some(b)) => b.1,
            (None, None) => score,
        };
        (1.0 - TILT) * line + TILT * score
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        let rising = self.corners.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
        let within = self.corners.iter().all(|(score, p)| score.is_finite() && (0.0..=1.0).contains(p));
        if rising && within && self.corners.len() <= CORNERS_MAX {
            Ok(())
        } else {
            Err("a calibration that does not rise".to_owned())
        }
    }
}

/// Which classes are possible at a level of confidence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conformal {
    /// The share of rows whose set is to hold the true class.
    pub confidence: f64,
    /// Negative is possible up to this score.
    negative_max: f64,
    /// Positive is possible from this score.
    positive_min: f64,
}

/// A set of classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Possible {
    /// Negative is in it.
    pub negative: bool,
    /// Positive is in it.
    pub positive: bool,
}

impl Conformal {
    /// Fits on rows that no member has seen.
    #[must_use]
    pub fn fit(scores: &[f64], positive: &[bool], confidence: f64) -> Conformal {
        let of = |class: bool| {
            let mut of: Vec<f64> =
                scores.iter().zip(positive).filter(|(_, is)| **is == class).map(|(s, _)| *s).collect();
            of.sort_unstable_by(f64::total_cmp);
            of
        };
        let (negatives, positives) = (of(false), of(true));
        // Rows of a class that may fall outside: with n rows, (n + 1) * (1 - confidence), rounded down, minus one.
        let outside = |n: usize| ((n as f64 + 1.0) * (1.0 - confidence) + 1e-9).floor() as usize;
        let out = outside(negatives.len());
        let negative_max = if out == 0 { f64::INFINITY } else { negatives[negatives.len() - out] };
        let out = outside(positives.len());
        let positive_min = if out == 0 { f64::NEG_INFINITY } else { positives[out - 1] };
        Conformal { confidence, negative_max, positive_min }
    }

    /// The set of a score.
    #[must_use]
    pub fn set(&self, score: f64) -> Possible {
        Possible { negative: score <= self.negative_max, positive: score >= self.positive_min }
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        let fits = (0.0..1.0).contains(&self.confidence) && !self.negative_max.is_nan() && !self.positive_min.is_nan();
        if fits { Ok(()) } else { Err("conformal sets without borders".to_owned()) }
    }
}
