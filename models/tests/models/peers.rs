//! Ours against an implementation of somebody else: linfa's, on the same rows. The long form is `scripts/campaign models peers`.

#[path = "../../bin/peers/compare.rs"]
mod compare;
#[path = "../../bin/peers/peer.rs"]
mod peer;

use self::{
    compare::{compare, made_up},
    peer::Forest,
};

/// ML: forest and logistic regression rank rows that they have not seen as linfa's do, or better.
#[test]
fn forest_and_logistic_regression_rank_as_those_of_linfa() {
    let forest = Forest { trees: 40, depth: 12, rows_share: 1.0, columns_share: 0.6 };
    for seed in 1..=3 {
        let compared = compare(&made_up(1_500, seed), &[made_up(3_000, seed + 100)], forest, seed).unwrap();
        assert_eq!(compared.len(), 2);
        for compared in &compared {
            eprintln!("{}", compared.line());
            // Both have learned something: a comparison of two that know nothing would hold as well.
            assert!(compared.theirs.roc_auc[0] > 0.8, "{}", compared.line());
            assert!(compared.holds(), "{}", compared.line());
        }
    }
}
