//! How good scores and verdicts are.

use serde::{Deserialize, Serialize};

/// Bins of the calibration error.
const BINS: usize = 15;

/// What scores are worth without any threshold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ranking {
    /// Area under the curve of true against false positives: how often a positive row is above a negative one.
    pub roc_auc: f64,
    /// Area under the curve of precision against recall (average precision).
    pub pr_auc: f64,
    /// Mean square of score minus truth.
    pub brier: f64,
    /// Mean difference of score and share of positives, over bins of equal width.
    pub calibration_error: f64,
}

/// What verdicts are worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// Rows that got the right verdict, as a share.
    pub accuracy: f64,
    /// Mean of the F1 of both classes.
    pub macro_f1: f64,
    /// Found positives, as a share of the positives.
    pub recall: f64,
    /// Right positives, as a share of the found.
    pub precision: f64,
    /// Negatives taken for positive, as a share of the negatives.
    pub false_positive_rate: f64,
}

/// Places in descending order of score; equal scores in order of rows.
fn descending(scores: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    order
}

/// Calls with (true positives, false positives) after each distinct score, from the highest.
fn sweep(scores: &[f64], positive: &[bool], mut at: impl FnMut(f64, f64, f64)) {
    let order = descending(scores);
    let (mut found, mut wrong) = (0.0, 0.0);
    for (place, &row) in order.iter().enumerate() {
        if positive[row] {
            found += 1.0;
        } else {
            wrong += 1.0;
        }
        let next = order.get(place + 1).map(|&next| scores[next]);
        if next != Some(scores[row]) {
            at(scores[row], found, wrong);
        }
    }
}

/// Area under the ROC curve; ties count half. 0.5 if there is only one class.
#[must_use]
pub fn roc_auc(scores: &[f64], positive: &[bool]) -> f64 {
    let (mut area, mut last) = (0.0, (0.0, 0.0));
    sweep(scores, positive, |_, found, wrong| {
        area += (wrong - last.1) * (found + last.0) / 2.0;
        last = (found, wrong);
    });
    if last.0 == 0.0 || last.1 == 0.0 { 0.5 } else { area / (last.0 * last.1) }
}

/// Average precision.
#[must_use]
pub fn pr_auc(scores: &[f64], positive: &[bool]) -> f64 {
    let (mut area, mut before) = (0.0, 0.0);
    sweep(scores, positive, |_, found, wrong| {
        area += (found - before) * found / (found + wrong);
        before = found;
    });
    if before == 0.0 { 0.0 } else { area / before }
}

/// Points of a curve from the highest score down: (score, recall, precision, false positive rate), thinned to `most`.
#[must_use]
pub fn curve(scores: &[f64], positive: &[bool], most: usize) -> Vec<[f64; 4]> {
    let positives = positive.iter().filter(|is| **is).count().max(1) as f64;
    let negatives = positive.iter().filter(|is| !**is).count().max(1) as f64;
    let mut points = Vec::new();
    sweep(scores, positive, |score, found, wrong| {
        points.push([score, found / positives, found / (found + wrong), wrong / negatives]);
    });
    let step = points.len().div_ceil(most.max(2)).max(1);
    let last = points.last().copied();
    let mut thin: Vec<[f64; 4]> = points.into_iter().step_by(step).collect();
    if thin.last() != last.as_ref() {
        thin.extend(last);
    }
    thin
}

/// Per bin of scores: (mean score, share of positives, rows).
#[must_use]
pub fn reliability(scores: &[f64], positive: &[bool]) -> Vec<(f64, f64, usize)> {
    let mut bins = vec![(0.0, 0.0, 0_usize); BINS];
    for (&score, &is) in scores.iter().zip(positive) {
        let bin = &mut bins[((score * BINS as f64) as usize).min(BINS - 1)];
        bin.0 += score;
        bin.1 += f64::from(u8::from(is));
        bin.2 += 1;
    }
    bins.retain(|bin| bin.2 > 0);
    bins.into_iter().map(|(score, is, rows)| (score / rows as f64, is / rows as f64, rows)).collect()
}

/// All of [`Ranking`].
#[must_use]
pub fn ranking(scores: &[f64], positive: &[bool]) -> Ranking {
    let rows = scores.len().max(1) as f64;
    let square = |(score, &is): (&f64, &bool)| (score - f64::from(u8::from(is))).powi(2);
    let off = |&(score, is, count): &(f64, f64, usize)| (score - is).abs() * count as f64;
    Ranking {
        roc_auc: roc_auc(scores, positive),
        pr_auc: pr_auc(scores, positive),
        brier: scores.iter().zip(positive).map(square).sum::<f64>() / rows,
        calibration_error: reliability(scores, positive).iter().map(off).sum::<f64>() / rows,
    }
}

/// All of [`Decision`] for "positive if above the threshold".
#[must_use]
pub fn decision(scores: &[f64], positive: &[bool], threshold: f64) -> Decision {
    let said: Vec<bool> = scores.iter().map(|score| *score > threshold).collect();
    decided(&said, positive)
}

/// All of [`Decision`] for what was said.
#[must_use]
pub fn decided(said: &[bool], positive: &[bool]) -> Decision {
    let (mut tp, mut fp, mut tn, mut fn_) = (0.0, 0.0, 0.0, 0.0);
    for (&said, &is) in said.iter().zip(positive) {
        *match (said, is) {
            (true, true) => &mut tp,
            (true, false) => &mut fp,
            (false, false) => &mut tn,
            (false, true) => &mut fn_,
        } += 1.0;
    }
    let share = |part: f64, all: f64| if all == 0.0 { 0.0 } else { part / all };
    let f1 = |right: f64, wrong: f64| share(2.0 * right, 2.0 * right + wrong);
    Decision {
        accuracy: share(tp + tn, tp + tn + fp + fn_),
        macro_f1: (f1(tp, fp + fn_) + f1(tn, fp + fn_)) / 2.0,
        recall: share(tp, tp + fn_),
        precision: share(tp, tp + fp),
        false_positive_rate: share(fp, fp + tn),
    }
}

/// The score above which at most a share of the negatives lies: the operating point of a false-positive budget.
#[must_use]
pub fn budget_threshold(scores: &[f64], positive: &[bool], budget: f64) -> f64 {
    let mut negative: Vec<f64> = scores.iter().zip(positive).filter(|(_, is)| !**is).map(|(score, _)| *score).collect();
    negative.sort_unstable_by(|a, b| b.total_cmp(a));
    let allowed = (budget * negative.len() as f64).floor() as usize;
    negative.get(allowed).copied().unwrap_or(0.0)
}

/// The score above which "positive" is right most often.
#[must_use]
pub fn accurate_threshold(scores: &[f64], positive: &[bool]) -> f64 {
    let order = descending(scores);
    let positives = positive.iter().filter(|is| **is).count() as f64;
    let mut best = (scores.len() as f64 - positives, order.first().map_or(0.5, |&row| scores[row]));
    let negatives = scores.len() as f64 - positives;
    let mut points = Vec::new();
    sweep(scores, positive, |score, found, wrong| points.push((score, found + negatives - wrong)));
    for (at, &(score, right)) in points.iter().enumerate() {
        if right > best.0 {
            // Halfway to the next score: that is below the threshold.
            best = (right, points.get(at + 1).map_or(score - 1e-9, |next| (score + next.0) / 2.0));
        }
    }
    best.1
}
