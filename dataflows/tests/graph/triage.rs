//! What models said of alerts, as facts that come, change and go.

use std::{collections::BTreeSet, sync::Arc};

use cf_types::{
    Alert, AlertId, Fact, FactBody, Level, Row, Tenant, Triage,
    triage::{Role, Triaged, Worth},
};

use crate::{
    assert_same, oracle,
    site::{Input, Random, TestRules, accumulate, all_facts, bounded, policy, random_events, run},
};

fn triaged(alert: AlertId, probability_ppm: u32, verdict: Worth) -> Fact {
    let triage = Triage { probability_ppm, verdict, model: "0123456789ab".into(), role: Role::Champion };
    Fact { tenant: Tenant::default(), body: FactBody::Triage(Triaged { alert, triage }) }
}

fn random_answer(random: &mut Random, alert: AlertId) -> Fact {
    let verdict = [Worth::True, Worth::False, Worth::Unknown][random.below(3)];
    triaged(alert, u32::try_from(random.below(1_000_001)).unwrap(), verdict)
}

fn alerts(rows: &[Row]) -> Vec<&Alert> {
    rows.iter().filter_map(|row| if let Row::Alert(alert) = row { Some(alert) } else { None }).collect()
}

/// Answers about alerts that are there, that come later and that never come; a later one takes the place of an earlier.
/// Assessments are the oracle's; alerts, risk, incidents and wishes are those of a run without any model.
#[test]
fn answers_change_assessments_and_nothing_else() {
    for seed in 0..4 {
        let mut random = Random(seed);
        let rules = TestRules::new();
        let events = random_events(&mut random, 150);
        let mut facts: BTreeSet<Fact> = [policy("block", Level::High, &[], 600)].into();
        facts.extend(all_facts().into_iter().filter(|_| random.below(2) == 0));
        let window = bounded().incidents.window;
        let without = oracle::rows(&rules, &events, &facts, window);
        let ids: Vec<AlertId> =
            alerts(&without).iter().map(|alert| alert.id).chain([AlertId([7; 16]), AlertId([9; 16])]).collect();

        let mut inputs = vec![Input::default(); 6];
        inputs[0].rules = Some(Arc::new(rules.clone()));
        inputs[0].facts = facts.iter().map(|fact| (fact.clone(), 1)).collect();
        for (at, event) in events.iter().enumerate() {
            inputs[at % 4].events.push(event.clone());
        }
        let mut held: Vec<Option<Fact>> = vec![None; ids.len()];
        for input in &mut inputs {
            for (id, held) in ids.iter().zip(&mut held) {
                if random.below(3) == 0 {
                    let new = (random.below(4) > 0).then(|| random_answer(&mut random, *id));
                    input.facts.extend(new.iter().map(|fact| (fact.clone(), 1)));
                    input.facts.extend(std::mem::replace(held, new).map(|old| (old, -1)));
                }
            }
        }
        let with: BTreeSet<Fact> = facts.iter().cloned().chain(held.into_iter().flatten()).collect();
        let expect = oracle::rows(&rules, &events, &with, window);
        for workers in [1, 2, 4] {
            let got = accumulate(&run(workers, &bounded(), &inputs));
            assert_same(&got, &expect, &format!("seed {seed}, {workers} workers"));
            let others = |rows: &[Row]| -> Vec<Row> {
                rows.iter().filter(|row| !matches!(row, Row::Assessment(_))).cloned().collect()
            };
            assert_same(&others(&got), &others(&without), "without a model");
            assert_ne!(got, without);
        }
    }
}
