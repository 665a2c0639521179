//! What is fitted on rows that judge: how members count, the calibration, the operating point, the conformal sets.
//!
//! It learns from these rows as members learn from theirs, so no row may judge what it was fitted with. The model gets
//! what all of them say; what is reported of a row comes from the other nine of ten parts, in which groups are whole.

use std::collections::BTreeSet;

use super::{Judged, Prepared, Request};
use crate::{
    calibrate::{Calibration, Conformal, Curve},
    ensemble::{Ensemble, Weighing},
    metrics,
    model::{Decide, Verdict},
    split,
    table::Texts,
};

/// Parts of the rows that judge, each of which is judged by what the others say.
const PARTS: usize = 10;

/// All that is fitted on rows with scores.
pub(super) struct Finish {
    pub(super) weighing: Weighing,
    pub(super) curve: Curve,
    pub(super) calibration: Calibration,
    pub(super) decide: Decide,
    /// Of each member alone, on its own score.
    pub(super) member_thresholds: Vec<f64>,
}

/// What is said of one row by a finish that has not seen it.
#[derive(Clone, Debug, Default)]
pub(super) struct Said {
    pub(super) probability: f64,
    /// Whether the probability is above the operating point.
    pub(super) above: bool,
    pub(super) unknown: bool,
    /// Whether the conformal set holds the truth.
    pub(super) covered: bool,
    /// Of each member alone, whether its score is above its threshold.
    pub(super) members_above: Vec<bool>,
}

/// The operating point of scores: of a budget, or the most accurate.
fn operating_point(request: &Request, scores: &[f64], positive: &[bool]) -> f64 {
    match request.budget {
        Some(budget) => metrics::budget_threshold(scores, positive, budget),
        None => metrics::accurate_threshold(scores, positive),
    }
}

impl Finish {
    /// Fits on some of the rows that judge.
    pub(super) fn fit(request: &Request, ensemble: &Ensemble, judged: &Judged, groups: &[u64], at: &[usize]) -> Finish {
        let take = |scores: &Vec<f64>| at.iter().map(|&at| scores[at]).collect::<Vec<f64>>();
        let member_scores: Vec<Vec<f64>> = judged.member_scores.iter().map(take).collect();
        let positive: Vec<bool> = at.iter().map(|&at| judged.positive[at]).collect();
        let groups: Vec<u64> = at.iter().map(|&at| groups[at]).collect();
        let weighing = ensemble.weighing(request.recipe.blend, &member_scores, &positive);
        let blended = weighing.blended(&member_scores);
        let (curve, calibration) = Calibration::chosen(&blended, &positive, &groups, request.recipe.seed);
        let probabilities: Vec<f64> = blended.iter().map(|&score| calibration.probability(score)).collect();
        let decide = Decide {
            threshold: operating_point(request, &probabilities, &positive),
            conformal: Conformal::fit(&probabilities, &positive, request.confidence),
        };
        let alone = |scores: &Vec<f64>| operating_point(request, scores, &positive);
        let member_thresholds = member_scores.iter().map(alone).collect();
        Finish { weighing, curve, calibration, decide, member_thresholds }
    }

    fn say(&self, judged: &Judged, at: usize) -> Said {
        let scores: Vec<f64> = judged.member_scores.iter().map(|scores| scores[at]).collect();
        let blended = self.weighing.blend(scores.iter().copied());
        let probability = self.calibration.probability(blended);
        let set = self.decide.conformal.set(probability);
        Said {
            probability,
            above: probability > self.decide.threshold,
            unknown: self.decide.verdict(probability) == Verdict::Unknown,
            covered: if judged.positive[at] { set.positive } else { set.negative },
            members_above: scores.iter().zip(&self.member_thresholds).map(|(score, least)| score > least).collect(),
        }
    }
}

/// Rows that stay together where judged rows are parted: groups, or equal rows where there are too few groups for that.
pub(super) fn groups(prepared: &Prepared, judged: &Judged) -> Vec<u64> {
    let groups: Vec<u64> = judged.rows.iter().map(|&row| prepared.groups[row]).collect();
    let distinct: BTreeSet<u64> = groups.iter().copied().collect();
    if distinct.len() >= 2 * PARTS {
        return groups;
    }
    judged.rows.iter().map(|&row| prepared.hashes[row]).collect()
}

/// What is said of each row that judges, by what the rows of other parts say.
pub(super) fn crossed(request: &Request, ensemble: &Ensemble, judged: &Judged, groups: &[u64]) -> Vec<Said> {
    let classes = Texts {
        codes: judged.positive.iter().map(|is| u32::from(*is)).collect(),
        values: vec!["negative".to_owned(), "positive".to_owned()],
    };
    let parts = split::folds(groups, &classes, PARTS, request.recipe.seed ^ 0xCA11);
    let mut said = vec![Said::default(); judged.rows.len()];
    for part in 0..PARTS {
        let (inside, outside): (Vec<usize>, Vec<usize>) = (0..parts.len()).partition(|&at| parts[at] == part);
        if inside.is_empty() {
            continue;
        }
        let finish = Finish::fit(request, ensemble, judged, groups, &outside);
        for at in inside {
            said[at] = finish.say(judged, at);
        }
    }
    said
}
