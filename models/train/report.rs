//! How a training did, on rows that were not learned from.

use serde::{Deserialize, Serialize};

use super::{Judged, Prepared, Request};
use crate::{
    calibrate::{Calibration, Conformal},
    ensemble::at_budget,
    metrics::{self, Decision, Ranking},
    model::Model,
    split,
};

/// One member alone, at its own threshold for the same budget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemberEvaluation {
    /// Its name.
    pub member: String,
    /// How much it counts in the ensemble.
    pub weight: f64,
    /// Area under the ROC curve.
    pub roc_auc: f64,
    /// Its threshold, on its own score.
    pub threshold: f64,
    /// Its decisions there.
    pub decision: Decision,
}

/// Found rows of one label.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LabelRecall {
    /// The label.
    pub label: String,
    /// Whether it counts as positive.
    pub positive: bool,
    /// Rows that judged.
    pub rows: usize,
    /// Share that got the right side of the threshold.
    pub right: f64,
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// How rows were split.
    pub protocol: String,
    /// Rows that judged.
    pub rows: usize,
    /// Of these, positive.
    pub positives: usize,
    /// Share of false positives that was allowed; none takes the most accurate point.
    pub budget: Option<f64>,
    /// The operating point, a probability.
    pub threshold: f64,
    /// What the scores are worth; calibrated on one half and judged on the other, both ways.
    pub ranking: Ranking,
    /// What the verdicts are worth at the operating point.
    pub decision: Decision,
    /// Share of rows whose conformal set holds the truth, fitted on one half and judged on the other, both ways.
    pub coverage: f64,
    /// Share of verdicts that are "unknown".
    pub unknown: f64,
    /// Members alone.
    pub members: Vec<MemberEvaluation>,
    /// By label, in order of the labels.
    pub labels: Vec<LabelRecall>,
}

pub(super) fn evaluate(request: &Request, prepared: &Prepared, model: &Model, judged: &Judged) -> Evaluation {
    let (crossed, coverage) = crossed(request, prepared, judged);
    let mut ranking = metrics::ranking(&crossed, &judged.positive);
    // Order does not come from calibration: of the model as it is, without the seam between the halves.
    ranking.roc_auc = metrics::roc_auc(&judged.probabilities, &judged.positive);
    ranking.pr_auc = metrics::pr_auc(&judged.probabilities, &judged.positive);
    let rows = judged.rows.len();
    Evaluation {
        protocol: protocol(request, prepared, rows),
        rows,
        positives: judged.positive.iter().filter(|is| **is).count(),
        budget: request.budget,
        threshold: model.threshold,
        ranking,
        decision: metrics::decision(&judged.probabilities, &judged.positive, model.threshold),
        coverage,
        unknown: model.unknown_share(&judged.probabilities),
        members: members(request, model, judged),
        labels: labels(prepared, model, judged),
    }
}

fn protocol(request: &Request, prepared: &Prepared, judged: usize) -> String {
    let all = prepared.table.rows;
    if prepared.times.is_some() && request.group.is_none() {
        format!("the latest {judged} of {all} rows judge; the others were learned from")
    } else if judged == all {
        "every row is judged by members that learned from other folds; the final members learned from all".to_owned()
    } else {
        format!("{judged} of {all} rows were held out and judge")
    }
}

/// Probabilities and coverage, each row's from a calibration that has not seen it.
fn crossed(request: &Request, prepared: &Prepared, judged: &Judged) -> (Vec<f64>, f64) {
    let half: Vec<bool> = judged
        .rows
        .iter()
        .map(|&row| split::fold_of(prepared.groups[row], 2, request.recipe.seed ^ 0xCA11) == 0)
        .collect();
    let mut probabilities = vec![0.0; judged.rows.len()];
    let mut covered = 0_usize;
    for side in [true, false] {
        let known: Vec<usize> = (0..half.len()).filter(|&at| half[at] == side).collect();
        let scores: Vec<f64> = known.iter().map(|&at| judged.blended[at]).collect();
        let positive: Vec<bool> = known.iter().map(|&at| judged.positive[at]).collect();
        let calibration = Calibration::fit(&scores, &positive);
        let scores: Vec<f64> = scores.into_iter().map(|score| calibration.probability(score)).collect();
        let conformal = Conformal::fit(&scores, &positive, request.confidence);
        for at in (0..half.len()).filter(|&at| half[at] != side) {
            probabilities[at] = calibration.probability(judged.blended[at]);
            let set = conformal.set(probabilities[at]);
            covered += usize::from(if judged.positive[at] { set.positive } else { set.negative });
        }
    }
    (probabilities, covered as f64 / half.len().max(1) as f64)
}

fn members(request: &Request, model: &Model, judged: &Judged) -> Vec<MemberEvaluation> {
    let ensemble = &model.ensemble;
    let members = ensemble.members.iter().zip(&ensemble.weights).zip(&judged.member_scores);
    let evaluate = |((member, &weight), scores): ((&crate::members::Member, &f64), &Vec<f64>)| {
        let (threshold, decision) = at_budget(scores, &judged.positive, request.budget);
        let roc_auc = metrics::roc_auc(scores, &judged.positive);
        MemberEvaluation { member: member.kind().name().to_owned(), weight, roc_auc, threshold, decision }
    };
    members.map(evaluate).collect()
}

fn labels(prepared: &Prepared, model: &Model, judged: &Judged) -> Vec<LabelRecall> {
    let classes = &prepared.labels.classes;
    let mut counts = vec![(0_usize, 0_usize, false); classes.values.len()];
    for ((&row, &probability), &positive) in judged.rows.iter().zip(&judged.probabilities).zip(&judged.positive) {
        let count = &mut counts[classes.codes[row] as usize];
        count.0 += 1;
        count.1 += usize::from((probability > model.threshold) == positive);
        count.2 = positive;
    }
    let of = |(label, (rows, right, positive)): (&String, (usize, usize, bool))| {
        (rows > 0).then(|| LabelRecall { label: label.clone(), positive, rows, right: right as f64 / rows as f64 })
    };
    classes.values.iter().zip(counts).filter_map(of).collect()
}
