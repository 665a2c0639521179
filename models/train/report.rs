//! How a training did, on rows that were not learned from.

use serde::{Deserialize, Serialize};

use super::{
    Judged, Prepared, Request,
    finish::{Finish, Said},
};
use crate::{
    calibrate::Curve,
    metrics::{self, Decision, Ranking},
    model::Model,
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

/// All of it. What is said of a row comes from the others: no row judges a calibration, an operating point or sets that it
/// was part of.
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
    /// How scores became probabilities; not said by versions from before there was a choice.
    #[serde(default)]
    pub curve: Option<Curve>,
    /// What the scores are worth.
    pub ranking: Ranking,
    /// What the verdicts are worth at the operating point.
    pub decision: Decision,
    /// Share of rows whose conformal set holds the truth.
    pub coverage: f64,
    /// Share of verdicts that are "unknown".
    pub unknown: f64,
    /// Members alone.
    pub members: Vec<MemberEvaluation>,
    /// By label, in order of the labels.
    pub labels: Vec<LabelRecall>,
}

pub(super) fn evaluate(
    request: &Request,
    prepared: &Prepared,
    model: &Model,
    finish: &Finish,
    judged: &Judged,
    said: &[Said],
) -> Evaluation {
    let rows = judged.rows.len();
    let share = |is: fn(&Said) -> bool| said.iter().filter(|said| is(said)).count() as f64 / rows.max(1) as f64;
    let mut ranking = metrics::ranking(&judged.probabilities, &judged.positive);
    // Order does not come from calibration: of the model as it is, without the seams between parts.
    ranking.roc_auc = metrics::roc_auc(&judged.blended, &judged.positive);
    ranking.pr_auc = metrics::pr_auc(&judged.blended, &judged.positive);
    let above: Vec<bool> = said.iter().map(|said| said.above).collect();
    Evaluation {
        protocol: protocol(request, prepared, rows),
        rows,
        positives: judged.positive.iter().filter(|is| **is).count(),
        budget: request.budget,
        threshold: model.threshold,
        curve: Some(finish.curve),
        ranking,
        decision: metrics::decided(&above, &judged.positive),
        coverage: share(|said| said.covered),
        unknown: share(|said| said.unknown),
        members: members(model, finish, judged, said),
        labels: labels(prepared, judged, &above),
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

fn members(model: &Model, finish: &Finish, judged: &Judged, said: &[Said]) -> Vec<MemberEvaluation> {
    let ensemble = &model.ensemble;
    let members = ensemble.members.iter().zip(&ensemble.weights).zip(&finish.member_thresholds);
    let evaluate = |(at, ((member, &weight), &threshold)): (usize, ((&crate::members::Member, &f64), &f64))| {
        let above: Vec<bool> = said.iter().map(|said| said.members_above.get(at) == Some(&true)).collect();
        let roc_auc = judged.member_scores.get(at).map_or(0.5, |scores| metrics::roc_auc(scores, &judged.positive));
        let decision = metrics::decided(&above, &judged.positive);
        MemberEvaluation { member: member.kind().name().to_owned(), weight, roc_auc, threshold, decision }
    };
    members.enumerate().map(evaluate).collect()
}

fn labels(prepared: &Prepared, judged: &Judged, above: &[bool]) -> Vec<LabelRecall> {
    let classes = &prepared.labels.classes;
    let mut counts = vec![(0_usize, 0_usize, false); classes.values.len()];
    for ((&row, &above), &positive) in judged.rows.iter().zip(above).zip(&judged.positive) {
        let count = &mut counts[classes.codes[row] as usize];
        count.0 += 1;
        count.1 += usize::from(above == positive);
        count.2 = positive;
    }
    let of = |(label, (rows, right, positive)): (&String, (usize, usize, bool))| {
        (rows > 0).then(|| LabelRecall { label: label.clone(), positive, rows, right: right as f64 / rows as f64 })
    };
    classes.values.iter().zip(counts).filter_map(of).collect()
}
