//! One learner of ours and its peer on the same rows: how each ranks what it has not seen, and what it cost.

use cf_models::{
    matrix::{ColumnKind, Matrix},
    members::{Kind, Lesson, Member, Settings},
    metrics,
};

use super::peer::{self, Forest, Plain};

/// How much worse than its peer in ROC-AUC a learner of ours may be.
pub(crate) const WORSE_MAX: f64 = 0.01;

/// Rows with their class.
pub(crate) struct Labelled {
    pub(crate) matrix: Matrix,
    pub(crate) positive: Vec<bool>,
}

/// What one side did.
#[derive(Clone, Debug)]
pub(crate) struct Side {
    /// Of each set of rows that was asked about.
    pub(crate) roc_auc: Vec<f64>,
    /// Processor seconds of learning and answering.
    pub(crate) cpu_s: f64,
}

/// Both sides of one learner.
#[derive(Clone, Debug)]
pub(crate) struct Compared {
    pub(crate) learner: &'static str,
    pub(crate) ours: Side,
    pub(crate) theirs: Side,
}

impl Compared {
    /// Whether ours is as good on all rows that were asked about.
    pub(crate) fn holds(&self) -> bool {
        self.ours.roc_auc.iter().zip(&self.theirs.roc_auc).all(|(ours, theirs)| ours + WORSE_MAX >= *theirs)
    }

    pub(crate) fn line(&self) -> String {
        let side = |name: &str, side: &Side| {
            let areas: Vec<String> = side.roc_auc.iter().map(|area| format!("{area:.4}")).collect();
            format!("{name} ROC-AUC {} in {:.2} CPU s", areas.join(", "), side.cpu_s)
        };
        let verdict = if self.holds() { "" } else { "  WORSE" };
        format!("{:9} {}; {}{verdict}", self.learner, side("ours", &self.ours), side("linfa", &self.theirs))
    }
}

/// Forest and logistic regression, ours with as many trees as the peer's.
pub(crate) fn compare(
    learn: &Labelled,
    asked: &[Labelled],
    forest: Forest,
    seed: u64,
) -> Result<Vec<Compared>, String> {
    let mut settings = Settings::default();
    settings.forest.trees = forest.trees;
    let plain = Plain::fit(&learn.matrix);
    let rows = plain.apply(&learn.matrix);
    let plain_asked: Vec<_> = asked.iter().map(|asked| plain.apply(&asked.matrix)).collect();
    let areas = |scores: Vec<Vec<f64>>| -> Vec<f64> {
        scores.iter().zip(asked).map(|(scores, asked)| metrics::roc_auc(scores, &asked.positive)).collect()
    };
    let ours = |kind: Kind| {
        let begun = cpu_s();
        let weights = vec![1.0; learn.matrix.rows];
        let lesson = Lesson { matrix: &learn.matrix, positive: &learn.positive, weights: &weights, seed, threads: 1 };
        let member = Member::train(kind, &lesson, &settings);
        let of = |asked: &Labelled| (0..asked.matrix.rows).map(|row| member.score(asked.matrix.row(row))).collect();
        Side { roc_auc: areas(asked.iter().map(of).collect()), cpu_s: cpu_s() - begun }
    };
    // The penalty of ours is per row, linfa's is of the sum.
    let alpha = settings.logistic.ridge * learn.matrix.rows as f64;
    let theirs = |kind: Kind| -> Result<Side, String> {
        let begun = cpu_s();
        let scores = match kind {
            Kind::Forest => forest.scores(&rows, &learn.positive, &plain_asked)?,
            _ => peer::logistic(&rows, &learn.positive, &plain_asked, alpha)?,
        };
        Ok(Side { roc_auc: areas(scores), cpu_s: cpu_s() - begun })
    };
    [Kind::Forest, Kind::Logistic]
        .into_iter()
        .map(|kind| Ok(Compared { learner: kind.name(), ours: ours(kind), theirs: theirs(kind)? }))
        .collect()
}

/// Rows with a pattern that both learners can find in part: numbers that add up, one that counts only with another, a
/// category, noise, and cells that are missing.
pub(crate) fn made_up(rows: usize, seed: u64) -> Labelled {
    const VALUES: u16 = 5;
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut unit = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as f64 / (1_u64 << 31) as f64
    };
    let mut kinds = vec![ColumnKind::Ordered; 8];
    kinds.push(ColumnKind::Category { values: VALUES });
    let (mut values, mut positive) = (Vec::with_capacity(rows * kinds.len()), Vec::with_capacity(rows));
    for _ in 0..rows {
        let numbers: Vec<f64> = (0..8).map(|_| unit() * 2.0 - 1.0).collect();
        let code = (unit() * f64::from(VALUES)).floor().min(f64::from(VALUES) - 1.0);
        let together = if numbers[2] > 0.0 { numbers[3] } else { 0.0 };
        let says = 2.0 * numbers[0] - numbers[1] + 2.0 * together + if code < 2.0 { 1.0 } else { 0.0 };
        positive.push(says + 2.0 * (unit() - 0.5) > 0.6);
        // A twentieth of one column is missing.
        let missing = unit() < 0.05;
        let cell = |(at, number): (usize, &f64)| if at == 1 && missing { f32::NAN } else { *number as f32 };
        values.extend(numbers.iter().enumerate().map(cell));
        values.push(code as f32);
    }
    Labelled { matrix: Matrix { kinds, values, rows }, positive }
}

/// Processor time of this process so far, in seconds; 0 where the system does not tell.
pub(crate) fn cpu_s() -> f64 {
    // Fields 14 and 15 of proc(5), after the name, which may hold anything: ticks, of which Linux has a hundred a second.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
    let ticks = after.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok());
    ticks.sum::<f64>() / 100.0
}
