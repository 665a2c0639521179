//! Unbounded input: the watermark, what is refused behind and ahead of it, what is sealed, and restarts.

use std::{collections::BTreeSet, sync::Arc};

use cf_dataflows::{GraphOptions, Recalled};
use cf_types::{AlertState, Condition, EpochOutput, Lineage, Predicate, RejectCode, Row};

use crate::{
    assert_same,
    site::{BEGIN, Input, Random, TestRules, accumulate, allow, bounded, event, policy, random_events, received, run},
    text,
};

fn options() -> GraphOptions {
    GraphOptions { horizon_s: Some(1_000), max_ahead_s: 300, disorder_s: 10, ..bounded() }
}

/// One epoch per list of events.
fn epochs(events: &[&[(i64, i64, &str)]]) -> Vec<Input> {
    let mut id = 0;
    let mut inputs: Vec<Input> = Vec::new();
    for epoch in events {
        let mut input = Input::default();
        for (at, at_receipt, text) in *epoch {
            id += 1;
            input.events.push(received("s", id, *at, *at_receipt, text));
        }
        inputs.push(input);
    }
    inputs[0].rules = Some(Arc::new(TestRules::new()));
    inputs
}

/// `+scan 10 open x1` an alert came, `-...` it went, `sealed` an id was, `late`/`ahead` a reject, `W10` the watermark
/// is there; epochs parted by ` | `.
fn show(outputs: &[EpochOutput]) -> String {
    let mut watermark = None;
    let epochs = outputs.iter().map(|output| {
        let mut words = Vec::new();
        for (row, diff) in &output.rows {
            if let Row::Alert(alert) = row {
                let state = match alert.state {
                    AlertState::Provisional => "provisional",
                    AlertState::Open => "open",
                    AlertState::Sealed => "sealed",
                };
                let sign = if *diff > 0 { '+' } else { '-' };
                words.push(format!("{sign}{} {} {state} x{}", alert.rule, alert.anchor - BEGIN, alert.count));
            }
        }
        words.extend(output.lineage.iter().map(|lineage| match lineage {
            Lineage::Sealed(_) => "sealed".to_owned(),
            Lineage::Suppressed { .. } => "suppressed".to_owned(),
            Lineage::SupersededBy { .. } => "superseded".to_owned(),
            Lineage::SplitFrom { .. } => "split".to_owned(),
        }));
        words.extend(output.rejects.iter().map(|reject| match reject.code {
            RejectCode::TooLate => format!("late at {}", reject.position.line),
            RejectCode::TooFarAhead => format!("ahead at {}", reject.position.line),
            RejectCode::NotANumber => reject.reason.clone(),
            other => format!("{other:?}"),
        }));
        if output.watermark != watermark {
            watermark = output.watermark;
            words.extend(watermark.map(|time| format!("W{}", time.cell() - BEGIN)));
        }
        words.join(", ")
    });
    epochs.collect::<Vec<_>>().join(" | ")
}

#[track_caller]
fn check(inputs: &[Input], expect: &str) {
    for workers in [1, 2] {
        assert_eq!(show(&run(workers, &options(), inputs)), expect, "{workers} workers");
    }
}

#[test]
fn what_lies_behind_the_horizon_is_sealed_and_stays() {
    check(
        &epochs(&[
            &[(0, 0, "scan h u 10.0.0.1")],
            &[(2_000, 2_000, "none h u 10.0.0.1")],
            &[(2_001, 2_001, "ok h u -")],
        ]),
        "+scan 0 open x1, W-10 | -scan 0 open x1, +scan 0 sealed x1, sealed, W1990 | W1991",
    );
}

#[test]
fn what_comes_too_late_is_refused_for_correlation_but_alerts_by_itself() {
    check(
        &epochs(&[
            &[(2_000, 2_000, "ok h u -")],
            // Limit 990. The scan's rule alerts by itself; failed logins only count in others.
            &[(500, 2_000, "scan h u 10.0.0.1"), (989, 2_000, "fail h u 10.0.0.1"), (990, 2_000, "fail h u 10.0.0.1")],
            &[(500, 2_000, "scan h v 10.0.0.1")],
        ]),
        "W1990 | +scan 500 sealed x1, late at 3 | ",
    );
}

#[test]
fn the_limit_of_an_epoch_rules_the_epochs_after_it() {
    check(
        &epochs(&[&[(2_000, 2_000, "ok h u -"), (500, 2_000, "scan h u 10.0.0.1")], &[(3_000, 3_000, "ok h u -")]]),
        "+scan 500 sealed x1, sealed, W1990 | W2990",
    );
}

#[test]
fn what_is_ahead_of_its_receipt_neither_counts_nor_moves_the_watermark() {
    check(
        &epochs(&[&[(300, 0, "ok h u -"), (301, 0, "scan h u 10.0.0.1"), (301, 0, "fail h u 10.0.0.1")]]),
        "+scan 301 sealed x1, ahead at 3, W290",
    );
}

#[test]
fn an_idle_source_does_not_hold_the_watermark() {
    let mut inputs = vec![Input::default(); 3];
    inputs[0].events = vec![event("a", 1, 100, "ok h u -"), event("b", 2, 50, "ok h u -")];
    inputs[1].events = vec![event("a", 3, 200, "ok h u -")];
    inputs[2].events = vec![event("a", 4, 300, "ok h u -")];
    inputs[2].idle = vec!["b".into()];
    check(&inputs, "W40 |  | W290");
}

/// `taken` is told when a failure is not followed by a login within 300 s.
fn absence(rules: TestRules) -> TestRules {
    rules.with("taken", |rule| {
        rule.predicate = Predicate::Absence;
        rule.references = vec!["fail".into(), "ok".into()];
    })
}

#[test]
fn what_events_on_their_way_could_undo_is_provisional_until_the_watermark_has_passed_it() {
    let mut inputs = epochs(&[
        &[(0, 0, "fail h u 10.0.0.1")],
        &[(250, 250, "ok h u 10.0.0.1")], // in time
        &[(1_000, 1_000, "fail h u 10.0.0.1")],
        &[(1_310, 1_310, "none h u -")], // the watermark is at the hit, not past it
        &[(1_311, 1_311, "none h u -")],
        &[(1_200, 1_400, "ok h u 10.0.0.1")], // late, within the horizon
    ]);
    inputs[0].rules = Some(Arc::new(absence(TestRules::new())));
    check(
        &inputs,
        "+taken 0 provisional x1, W-10 | -taken 0 provisional x1, W240 | +taken 1000 provisional x1, W990 | W1300 | \
         -taken 1000 provisional x1, +taken 1000 open x1, W1301 | -taken 1000 open x1",
    );
}

#[test]
fn what_stands_on_the_provisional_is_provisional_too() {
    let mut inputs =
        epochs(&[&[(0, 0, "fail h u 10.0.0.1")], &[(311, 311, "none h u -")], &[(3_000, 3_000, "none h u -")]]);
    let once = |rule: &mut cf_types::EpisodeRule| rule.predicate = Predicate::EventCount(Condition::at_least(1));
    inputs[0].rules = Some(Arc::new(absence(TestRules::new()).with("again", once)));
    check(
        &inputs,
        // Open, the two are enough for an alert on the risk of their entities.
        "+taken 0 provisional x1, +again 300 provisional x1, W-10 | \
         +risk 0 open x1, -taken 0 provisional x1, +taken 0 open x1, -again 300 provisional x1, +again 300 open x1, W301 | \
         -taken 0 open x1, +taken 0 sealed x1, sealed, W2990",
    );
}

/// Appends epochs in which nothing happens but that time passes, each as much as the graph waits for, until it waits for
/// nothing more.
fn be_silent(inputs: &mut Vec<Input>) -> Vec<EpochOutput> {
    for _ in 0..100 {
        let outputs = run(1, &options(), inputs);
        let last = outputs.last().unwrap();
        let (Some(waits), Some(watermark)) = (last.waits, last.watermark) else { return outputs };
        let seconds = u64::try_from(waits - watermark.cell()).unwrap();
        assert!(seconds > 0, "it waits for what has come true: {}", show(&outputs));
        inputs.push(Input { idle: vec!["s".into()], passed_ms: seconds * 1_000, ..Input::default() });
    }
    panic!("it waits for ever");
}

#[test]
fn while_all_are_silent_everything_comes_to_its_end_by_time_alone() {
    let mut inputs = epochs(&[&[(0, 0, "fail h u 10.0.0.1")]]);
    inputs[0].rules = Some(Arc::new(absence(TestRules::new())));
    let outputs = be_silent(&mut inputs);
    let begin = "+taken 0 provisional x1, W-10 | -taken 0 provisional x1, +taken 0 open x1, W301 | ";
    assert!(show(&outputs).starts_with(begin), "{}", show(&outputs));
    assert!(show(&outputs).contains("-taken 0 open x1, +taken 0 sealed x1, sealed"), "{}", show(&outputs));
    // Neither an incident nor a level remains, and few epochs were enough for a week.
    let standing = accumulate(&outputs);
    let left = standing.iter().filter(|row| matches!(row, Row::Incident(_) | Row::Risk(_) | Row::RiskLevel(_)));
    assert_eq!(left.count(), 0, "{standing:#?}");
    let levels = outputs.iter().flat_map(|output| &output.rows).filter(|(row, _)| matches!(row, Row::RiskLevel(_)));
    assert!(levels.count() >= 4 && outputs.len() < 30, "{} epochs", outputs.len());
    // The same epochs, the same again.
    for workers in [1, 2, 4] {
        assert_eq!(text(&run(workers, &options(), &inputs)), text(&outputs), "{workers} workers");
    }
}

#[test]
fn time_passes_for_nobody_before_there_is_a_watermark() {
    let mut inputs = vec![Input { passed_ms: 9_000, idle: vec!["s".into()], ..Input::default() }; 2];
    inputs[0].rules = Some(Arc::new(TestRules::new()));
    inputs.extend(epochs(&[&[(100, 100, "ok h u -")]]).into_iter().map(|input| Input { rules: None, ..input }));
    check(&inputs, " |  | W90");
}

#[test]
fn a_bounded_input_is_decided_at_its_end() {
    let mut inputs = vec![Input::default(); 3];
    inputs[0].rules = Some(Arc::new(absence(TestRules::new())));
    inputs[0].events = vec![event("s", 1, 0, "fail h u 10.0.0.1"), event("s", 2, 5_000, "ok h u 10.0.0.1")];
    inputs[1].events = vec![event("s", 3, 9_000, "fail h u 10.0.0.1")];
    inputs[2].ended = true;
    for workers in [1, 2] {
        let outputs = run(workers, &GraphOptions { horizon_s: None, ..options() }, &inputs);
        assert_eq!(
            show(&outputs),
            "+taken 0 provisional x1 | +taken 9000 provisional x1 | \
             -taken 9000 provisional x1, +taken 9000 open x1, -taken 0 provisional x1, +taken 0 open x1",
            "{workers} workers"
        );
    }
}

#[test]
fn a_provisional_alert_does_nothing() {
    let mut inputs = epochs(&[&[(0, 0, "fail h u 10.0.0.1")], &[(311, 311, "none h u -")]]);
    inputs[0].rules = Some(Arc::new(absence(TestRules::new())));
    inputs[0].facts = vec![(policy("block", cf_types::Level::Low, &[], 60), 1)];
    let outputs = run(1, &options(), &inputs);
    let kinds = |output: &EpochOutput| {
        let kind = |row: &Row| match row {
            Row::Alert(_) => Some("alert"),
            Row::Incident(_) => Some("incident"),
            Row::Risk(_) => Some("risk"),
            Row::Desired(_) => Some("desired"),
            _ => None,
        };
        output.rows.iter().filter_map(|(row, _)| kind(row)).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>()
    };
    assert_eq!(kinds(&outputs[0]), ["alert"]);
    assert_eq!(kinds(&outputs[1]), ["alert", "desired", "incident", "risk"]);
}

#[test]
fn more_alerts_than_a_rule_may_have_in_an_hour_are_one_that_counts_them() {
    let scans: Vec<(i64, i64, String)> = (0..5).map(|n| (n, n, format!("scan h u 10.0.0.{n}"))).collect();
    let scans: Vec<(i64, i64, &str)> = scans.iter().map(|(at, received, text)| (*at, *received, &**text)).collect();
    let inputs = epochs(&[&scans[2..], &scans[..2]]);
    let few = GraphOptions { alerts_an_hour: 2, ..options() };
    let mut shown = BTreeSet::new();
    for workers in [1, 2, 4] {
        let outputs = run(workers, &few, &inputs);
        let rows = accumulate(&outputs);
        let alerts = rows.iter().filter_map(|row| if let Row::Alert(alert) = row { Some(alert) } else { None });
        let mut alerts: Vec<_> =
            alerts.map(|alert| (alert.anchor - BEGIN, alert.count, alert.entities.len())).collect();
        alerts.sort_unstable();
        assert_eq!(alerts, [(0, 1, 1), (0, 3, 0), (1, 1, 1)]);
        let entities = rows.iter().filter(|row| matches!(row, Row::Risk(_))).count();
        assert_eq!(entities, 2, "what is counted has no part in risk");
        shown.insert(text(&outputs));
    }
    assert_eq!(shown.len(), 1);
}

#[test]
fn a_value_that_is_no_number_is_refused_with_its_reason() {
    let mut inputs = epochs(&[&[(0, 0, "sudo h1 u 10.0.0.1")]]);
    let summed = |rule: &mut cf_types::EpisodeRule| rule.alerts = true;
    let mut rules = TestRules::new().with("volume", summed);
    rules.fields.insert("volume".into(), (vec!["address"], Some("host")));
    inputs[0].rules = Some(Arc::new(rules));
    check(&inputs, r#"+sudo 0 open x1, "h1" is no decimal number: not counted by volume, W-10"#);
}

#[test]
fn no_fact_changes_what_is_sealed() {
    let mut inputs = epochs(&[&[(0, 0, "scan h u 10.0.0.1")], &[(2_000, 2_000, "ok h u -")], &[], &[]]);
    inputs[0].facts = vec![(policy("block", cf_types::Level::Low, &[], 60), 1)];
    inputs[2].facts = vec![(allow("10.0.0.0/8"), 1), (policy("longer", cf_types::Level::Low, &[], 600), 1)];
    inputs[3].rules = Some(Arc::new(TestRules::new().without("scan")));
    let outputs = run(1, &options(), &inputs);
    assert_eq!(accumulate(&outputs), accumulate(&outputs[..2]));
    let desired = accumulate(&outputs).into_iter().filter_map(|row| match row {
        Row::Desired(action) => Some(action.ttl_s),
        _ => None,
    });
    assert_eq!(desired.collect::<Vec<_>>(), [60]);
}

#[test]
fn the_same_epochs_give_the_same_outputs_on_any_number_of_workers() {
    for seed in 200..203 {
        let mut random = Random(seed);
        let mut events = random_events(&mut random, 240);
        events.sort_by_key(|event| event.time);
        // A tenth comes late, some far behind the horizon; some are given twice.
        for _ in 0..24 {
            let late = events.remove(random.below(150));
            events.insert(150 + random.below(80), late);
        }
        let repeats: Vec<_> = events.iter().filter(|_| random.below(10) == 0).cloned().collect();
        events.extend(repeats);
        let mut inputs: Vec<Input> =
            events.chunks(20).map(|events| Input { events: events.to_vec(), ..Input::default() }).collect();
        inputs[0].rules = Some(Arc::new(TestRules::new()));
        inputs[3].facts = vec![(allow("10.0.0.0/24"), 1)];
        inputs[9].facts = vec![(allow("10.0.0.0/24"), -1)];
        let base = run(1, &options(), &inputs);
        let sealed = base.iter().flat_map(|output| &output.lineage).filter(|one| matches!(one, Lineage::Sealed(_)));
        let (sealed, rejects) = (sealed.count(), base.iter().map(|output| output.rejects.len()).sum::<usize>());
        assert!(sealed > 10 && rejects > 5, "{sealed} sealed, {rejects} rejects");
        for workers in [2, 4] {
            let other = run(workers, &options(), &inputs);
            for (got, expect) in other.iter().zip(&base) {
                assert_same(&got.rows, &expect.rows, &format!("seed {seed}, {workers} workers, epoch {}", got.epoch));
            }
            assert_eq!(text(&other), text(&base), "seed {seed}, {workers} workers");
        }
    }
}

#[test]
fn recalled_detections_bring_the_open_alerts_back() {
    for workers in [1, 2] {
        let mut random = Random(7);
        let mut events = random_events(&mut random, 240);
        events.sort_by_key(|event| event.time);
        let mut inputs: Vec<Input> =
            events.chunks(30).map(|events| Input { events: events.to_vec(), ..Input::default() }).collect();
        inputs[0].rules = Some(Arc::new(TestRules::new()));
        let whole = run(workers, &options(), &inputs);
        let cut = 5;
        // The facts log has the detections, the ledger the watermark; what follows comes as it came. One repeat, too.
        let mut restarted = vec![Input {
            rules: inputs[0].rules.clone(),
            recalled: whole[..cut].iter().flat_map(|output| output.detections.clone()).collect(),
            limit: whole[cut - 1].watermark,
            ..Input::default()
        }];
        restarted.extend(inputs[cut..].iter().cloned());
        restarted[1].events.extend(inputs[cut - 1].events.first().cloned());
        let again = run(workers, &options(), &restarted);
        let open = |outputs: &[EpochOutput]| {
            let rows = accumulate(outputs).into_iter();
            rows.filter(|row| matches!(row, Row::Alert(alert) if alert.state == AlertState::Open))
                .collect::<BTreeSet<_>>()
        };
        assert!(open(&whole).len() > 10);
        assert_eq!(open(&again), open(&whole), "{workers} workers");
        let detections = |outputs: &[EpochOutput]| outputs.iter().flat_map(|o| o.detections.clone()).count();
        assert_eq!(detections(&again), detections(&whole[cut..]), "recalled ones are not given out again");
    }
}

#[test]
fn a_sealed_alert_leaves_the_graph_when_it_weighs_nothing_and_its_incident_closes() {
    let week = 7 * 86_400;
    let mut inputs = epochs(&[
        &[(0, 0, "scan h u 10.0.0.1")],
        &[(2_000, 2_000, "ok h u -")],
        // Below the limit: sealed at birth, at the same second and a week after.
        &[(0, 2_000, "scan h u 10.0.0.1"), (week, week, "ok h u -")],
        &[(week + 4_000, week + 4_000, "ok h u -")],
        &[(week + 8_000, week + 8_000, "ok h u -"), (0, week + 8_000, "scan h u 10.0.0.2")],
        &[(week + 9_000, week + 9_000, "ok h u -")],
    ]);
    inputs[0].facts = vec![(policy("block", cf_types::Level::Low, &[], 60), 1)];
    for workers in [1, 2, 4] {
        let outputs = run(workers, &options(), &inputs);
        let kinds = |upto: usize| {
            let rows = accumulate(&outputs[..upto]);
            let of = |is: fn(&Row) -> bool| rows.iter().filter(|row| is(row)).count();
            let alerts = of(|row| matches!(row, Row::Alert(alert) if alert.state == AlertState::Sealed));
            let risks = of(|row| matches!(row, Row::Risk(_)));
            (alerts, risks, of(|row| matches!(row, Row::Incident(_))), of(|row| matches!(row, Row::Desired(_))))
        };
        assert_eq!(kinds(2), (1, 1, 1, 1), "sealed");
        assert_eq!(kinds(3), (1, 1, 1, 1), "its incident could still grow by what the limit before let in");
        assert_eq!(kinds(4), (1, 0, 0, 1), "it has left; the alert and what was done for it stay");
        assert_eq!(kinds(5), (2, 0, 1, 1), "what is sealed at birth is there for an epoch, and weighs nothing");
        assert_eq!(kinds(6), (2, 0, 0, 1));
    }
}

#[test]
fn what_was_sealed_before_a_restart_counts_on_in_risk_and_incidents() {
    for (workers, seed) in [(1, 31), (2, 32), (4, 33)] {
        let mut random = Random(seed);
        let mut events = random_events(&mut random, 300);
        events.sort_by_key(|event| event.time);
        let mut inputs: Vec<Input> =
            events.chunks(20).map(|events| Input { events: events.to_vec(), ..Input::default() }).collect();
        inputs[0].rules = Some(Arc::new(TestRules::new()));
        let whole = run(workers, &options(), &inputs);
        let cut = 11;
        let before = accumulate(&whole[..cut]);
        // The facts log has the detections, but of the oldest minutes; the ledger has the sealed alerts.
        let open = before.iter().filter_map(|row| match row {
            Row::Alert(alert) if alert.state == AlertState::Open => Some(alert.anchor),
            _ => None,
        });
        let floor = open.min().unwrap() - 300;
        let detections = whole[..cut].iter().flat_map(|output| output.detections.clone());
        let sealed = before.iter().filter_map(|row| match row {
            Row::Alert(alert) if alert.state == AlertState::Sealed => Some(alert.clone()),
            _ => None,
        });
        let sealed = Recalled { alerts: sealed.collect(), ..Recalled::default() };
        assert!(sealed.alerts.len() > 5);
        let mut restarted = vec![Input {
            rules: inputs[0].rules.clone(),
            // A fact that came after they were sealed changes nothing of them; it goes with the next epoch.
            facts: vec![(allow("0.0.0.0/0"), 1)],
            recalled: detections.filter(|detection| detection.member.time.cell() >= floor).collect(),
            limit: whole[cut - 1].watermark,
            sealed: Some(sealed),
            ..Input::default()
        }];
        restarted.extend(inputs[cut..].iter().cloned());
        restarted[1].facts = vec![(allow("0.0.0.0/0"), -1)];
        let again = run(workers, &options(), &restarted);
        let rows = |outputs: &[EpochOutput]| -> Vec<Row> {
            accumulate(outputs).into_iter().filter(|row| !matches!(row, Row::Desired(_))).collect()
        };
        for more in 1..=inputs.len() - cut {
            let what = format!("{workers} workers, {more} epochs after the restart");
            assert_same(&rows(&again[..=more]), &rows(&whole[..cut + more]), &what);
        }
    }
}
