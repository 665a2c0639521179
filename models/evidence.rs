//! Whether a version has shown that it may answer by itself: better than chance, and no worse than the champion.
//!
//! Chance is a model that knows nothing but the share of positive rows: it ranks at an area of 0.5, and its best
//! probability is that share. So a version must rank above 0.5 by a margin and by more than luck, and its probabilities
//! must be nearer to the truth than the share alone (Brier's skill score, 1950): that fails for scores which are badly
//! calibrated as well as for those that say nothing. Both are of rows that were not learned from, calibrated on the other
//! half of them.

use crate::metrics::Ranking;

/// Area under the ROC curve beyond 0.5 that is worth something.
const AUC_MARGIN: f64 = 0.02;
/// Standard deviations of luck: one in a hundred models that know nothing is above.
const LUCK: f64 = 2.326;
/// Share of chance's mean square error that must be gone.
const SKILL_MIN: f64 = 0.02;
/// How much worse in ROC-AUC than the champion a version may be: noise of a hold-out.
const AUC_WORSE_MAX: f64 = 0.001;
/// The same in mean square error.
const BRIER_WORSE_MAX: f64 = 0.001;

/// Whether a version ranks and says probabilities better than one that knows nothing, of `positives` in `rows`; with what
/// was found.
pub(crate) fn beats_chance(ranking: &Ranking, rows: usize, positives: usize) -> (bool, String) {
    let (n, p) = (rows as f64, positives as f64);
    let pairs = p * (n - p);
    if pairs <= 0.0 {
        return (false, format!("{positives} of {rows} rows that judge are positive: nothing is shown"));
    }
    // The spread of the area if scores say nothing (Mann and Whitney, 1947).
    let luck = LUCK * ((n + 1.0) / (12.0 * pairs)).sqrt();
    let area_min = 0.5 + AUC_MARGIN + luck;
    let share = p / n;
    let skill = 1.0 - ranking.brier / (share * (1.0 - share));
    let ranks = ranking.roc_auc >= area_min;
    let knows = skill >= SKILL_MIN;
    let said = format!(
        "ROC-AUC {:.4} where {area_min:.4} shows more than chance, {:.1} % of chance's square error is gone where {:.0} % must be",
        ranking.roc_auc,
        skill * 100.0,
        SKILL_MIN * 100.0
    );
    (ranks && knows, said)
}

/// Whether a version is as good as the champion on the same rows, in order and in probabilities; with what was found.
pub(crate) fn holds_against(ours: &Ranking, theirs: &Ranking) -> (bool, String) {
    let ranks = ours.roc_auc + AUC_WORSE_MAX >= theirs.roc_auc;
    let knows = ours.brier <= theirs.brier + BRIER_WORSE_MAX;
    let said = format!(
        "ROC-AUC {:.4} and square error {:.4} on the rows that judge, where the champion has {:.4} and {:.4}",
        ours.roc_auc, ours.brier, theirs.roc_auc, theirs.brier
    );
    (ranks && knows, said)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{calibrate::Calibration, metrics, random::mix};

    /// Scores of which a share `signal` follows the truth, in thousandths.
    fn ranking(rows: usize, positives: usize, signal: u64, seed: u64) -> Ranking {
        let positive: Vec<bool> = (0..rows).map(|row| row < positives).collect();
        let score = |(row, &is): (usize, &bool)| {
            let noise = mix(seed ^ ((row as u64) << 20));
            let follows = noise % 1_000 < signal;
            if follows { f64::from(u8::from(is)) } else { ((noise >> 20) % 1_000) as f64 / 1_000.0 }
        };
        let scores: Vec<f64> = positive.iter().enumerate().map(score).collect();
        // Calibrated on one half, judged on the other, as a training does.
        let side = |row: usize| mix(row as u64).is_multiple_of(2);
        let part = |wanted: bool| (0..rows).filter(move |&row| side(row) == wanted);
        let mut probabilities = vec![0.0; rows];
        for half in [true, false] {
            let known: Vec<f64> = part(half).map(|row| scores[row]).collect();
            let truth: Vec<bool> = part(half).map(|row| positive[row]).collect();
            let calibration = Calibration::fit(&known, &truth);
            part(!half).for_each(|row| probabilities[row] = calibration.probability(scores[row]));
        }
        let ranking = metrics::ranking(&probabilities, &positive);
        Ranking { roc_auc: metrics::roc_auc(&scores, &positive), ..ranking }
    }

    #[test]
    fn models_that_know_nothing_do_not_pass_and_those_that_know_do() {
        for (rows, positives) in [(50, 10), (200, 20), (2_000, 1_000)] {
            let passed = |signal| {
                (1..=200)
                    .filter(|seed| beats_chance(&ranking(rows, positives, signal, *seed), rows, positives).0)
                    .count()
            };
            assert!(passed(0) <= 2, "{rows} rows: {} of 200 that know nothing", passed(0));
            assert!(passed(900) >= 190, "{rows} rows: {} of 200 that know nearly all", passed(900));
        }
    }

    /// The case that was seen: an area of 0.5 answered.
    #[test]
    fn an_area_of_one_half_is_refused_however_many_rows_judge() {
        let ranking = Ranking { roc_auc: 0.5, pr_auc: 0.5, brier: 0.25, calibration_error: 0.0 };
        assert!(!beats_chance(&ranking, 1_000_000, 500_000).0);
        // Good order alone does not do, nor do good probabilities in name.
        let badly_calibrated = Ranking { roc_auc: 0.9, brier: 0.3, ..ranking };
        assert!(!beats_chance(&badly_calibrated, 1_000, 500).0);
        assert!(beats_chance(&Ranking { roc_auc: 0.9, brier: 0.15, ..ranking }, 1_000, 500).0);
        // Two rows show nothing, and one class nothing at all.
        let perfect = Ranking { roc_auc: 1.0, brier: 0.0, ..ranking };
        assert!(!beats_chance(&perfect, 2, 1).0 && !beats_chance(&perfect, 1_000, 0).0);
        assert!(!beats_chance(&perfect, 1_000, 1_000).0 && !beats_chance(&perfect, 0, 0).0);
    }

    #[test]
    fn a_challenger_is_compared_in_order_and_in_probabilities() {
        let ranking = |roc_auc, brier| Ranking { roc_auc, brier, ..Ranking::default() };
        let champion = ranking(0.9, 0.1);
        assert!(holds_against(&ranking(0.9, 0.1), &champion).0);
        assert!(holds_against(&ranking(0.8995, 0.1005), &champion).0, "noise");
        assert!(!holds_against(&ranking(0.89, 0.05), &champion).0);
        assert!(!holds_against(&ranking(0.95, 0.12), &champion).0);
    }
}
