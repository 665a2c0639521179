//! Features of alerts: against a slow count over all that went before, over a restart at any place, and from served
//! decisions to a model that answers.

use std::collections::{BTreeMap, BTreeSet};

use cf_models::{
    ensemble::Recipe,
    features::alert::{AlertPast, Asked, RECIPE, feature_names, material},
    members::Kind,
    publish::{self, Gate},
    registry::Registry,
    served::{self, Labelled, Serving},
    task::Task,
    train::{self, Prepared},
};
use cf_types::{
    Alert, AlertId, AlertState, Decision, Entity, EntityKind, Group, Level, Score, Tenant,
    triage::{Role, Worth},
};

use crate::support::{Dice, request};

/// An alert of few rules, hosts, users and addresses, so that much repeats itself.
fn alert(dice: &mut Dice, number: u64, at: i64) -> Alert {
    let fields = [("host", EntityKind::Host), ("user", EntityKind::User), ("source_ip", EntityKind::Address)];
    let mut group = Vec::new();
    for (field, kind) in fields {
        if dice.roll(4) > 0 {
            let value = match kind {
                EntityKind::Address => ["10.0.0.1", "203.0.113.9", "fe80::1"][dice.roll(3) as usize].to_owned(),
                _ => format!("{field}{}", dice.roll(3)),
            };
            group.push((field.into(), value.into()));
        }
    }
    let group = Group::new(group);
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_le_bytes());
    Alert {
        tenant: Tenant::default(),
        id: AlertId(id),
        rule: format!("rule-{}", dice.roll(3)).into(),
        title: "a".into(),
        level: [Level::Low, Level::High][dice.roll(2) as usize],
        entities: group.entities(),
        group,
        state: AlertState::Open,
        anchor: at - dice.roll(50) as i64,
        last_cell: at,
        count: 1 + dice.roll(100),
        reference_counts: vec![dice.roll(2), 1],
        peak: 3,
        score: Score::of_level(Level::High),
        tags: [["attack.t1110", "attack.impact"][dice.roll(2) as usize].into()].into(),
    }
}

/// What happens: an alert is decided about (again), or judged (or that is taken back).
enum Step {
    Alert(Alert, AlertId),
    Verdict(AlertId, String, bool, i64),
}

fn steps(seed: u64, count: u64) -> Vec<Step> {
    let mut dice = Dice::new(seed);
    let (mut steps, mut now) = (Vec::new(), 1_700_000_000_i64);
    let mut alerts: Vec<(Alert, AlertId)> = Vec::new();
    for number in 1..=count {
        // Hours and days pass; now and then an alert is late.
        now += [1, 60, 3_600, 40_000, 200_000, -3_000][dice.roll(6) as usize];
        let known =
            if alerts.is_empty() { None } else { Some(alerts[dice.roll(alerts.len() as u64) as usize].clone()) };
        match (dice.roll(5), known) {
            (0, Some((alert, _))) => {
                let sign = if dice.roll(4) == 0 { -1 } else { 1 };
                steps.push(Step::Verdict(alert.id, alert.rule.to_string(), dice.roll(2) == 0, sign));
            }
            (1, Some((old, thread))) => {
                // The same thread under another id.
                let new = Alert { id: AlertId([number as u8; 16]), level: Level::Critical, ..old };
                alerts.push((new.clone(), thread));
                steps.push(Step::Alert(new, thread));
            }
            _ => {
                let alert = alert(&mut dice, number, now);
                alerts.push((alert.clone(), alert.id));
                steps.push(Step::Alert(alert.clone(), alert.id));
            }
        }
    }
    steps
}

fn lived(steps: &[Step]) -> Vec<Decision> {
    let mut past = AlertPast::default();
    let mut decisions = Vec::new();
    for (upto, step) in (0..).zip(steps) {
        match step {
            Step::Alert(alert, thread) => decisions.push(past.decide(&Asked { alert, thread: *thread, upto })),
            Step::Verdict(alert, rule, is_attack, sign) => past.verdict(*alert, rule, *is_attack, *sign),
        }
    }
    decisions
}

fn named(decision: &Decision) -> BTreeMap<String, Option<i64>> {
    let names = feature_names();
    assert_eq!(names.len(), decision.features.len());
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "each name once");
    names.into_iter().zip(decision.features.iter().copied()).collect()
}

/// First decisions of threads before this one, with the time that counts for each.
fn before(decisions: &[Decision], at: usize) -> Vec<(&Decision, i64)> {
    let mut now = i64::MIN;
    let mut seen = Vec::new();
    for decision in decisions[..at].iter().filter(|decision| decision.first) {
        now = now.max(decision.cell);
        seen.push((decision, now));
    }
    seen
}

fn of(decision: &Decision, kind: EntityKind) -> Option<&str> {
    decision.entities.iter().find(|entity| entity.kind == kind).map(|entity| &*entity.value)
}

/// The slow and obvious count.
#[test]
fn what_went_before_is_what_a_scan_over_all_finds() {
    for seed in 0..6 {
        let steps = steps(seed, 160);
        let decisions = lived(&steps);
        for (at, decision) in decisions.iter().enumerate() {
            let got = named(decision);
            let first = decisions.iter().position(|other| other.thread == decision.thread).unwrap();
            assert_eq!(decision.first, first == at);
            let earlier = before(&decisions, first);
            let now = earlier.last().map_or(i64::MIN, |last| last.1).max(decisions[first].cell);
            let of_first = &decisions[first];
            let keys: [(&str, Box<dyn Fn(&Decision) -> bool>); 5] = [
                ("all", Box::new(|_| true)),
                ("rule", Box::new(|other| other.rule == of_first.rule)),
                ("host", Box::new(|other| of(other, EntityKind::Host) == of(of_first, EntityKind::Host))),
                ("user", Box::new(|other| of(other, EntityKind::User) == of(of_first, EntityKind::User))),
                (
                    "address with rule",
                    Box::new(|other| {
                        other.rule == of_first.rule
                            && of(other, EntityKind::Address) == of(of_first, EntityKind::Address)
                    }),
                ),
            ];
            for (key, same) in &keys {
                let times: Vec<i64> = earlier.iter().filter(|(other, _)| same(other)).map(|(_, time)| *time).collect();
                for window in [3_600, 86_400, 604_800] {
                    let count = times.iter().filter(|time| now - **time <= window).count() as i64;
                    assert_eq!(got[&format!("{key} in {window} s")], Some(count), "{key} {window} at {at}");
                }
                assert_eq!(got[&format!("{key} since last")], times.last().map(|time| now - time), "{key} at {at}");
                assert_eq!(got[&format!("{key} so far")], Some(times.len() as i64), "{key} at {at}");
            }
            let rules: BTreeSet<&str> =
                earlier.iter().filter(|(_, time)| now - time <= 604_800).map(|(other, _)| &*other.rule).collect();
            assert_eq!(got["signatures in 604800 s, anywhere"], Some(rules.len() as i64));
            assert_eq!(got["neighbours in 86400 s"], Some(neighbours(&earlier, of_first, now)), "at {at}");
        }
    }
}

fn neighbours(earlier: &[(&Decision, i64)], decision: &Decision, now: i64) -> i64 {
    let of_one = |entity: &Entity| {
        let recent = earlier.iter().filter(|(other, time)| now - time <= 86_400 && other.entities.contains(entity));
        recent.flat_map(|(other, _)| &other.entities).filter(|other| *other != entity).collect::<BTreeSet<_>>().len()
    };
    decision.entities.iter().map(of_one).max().unwrap_or(0) as i64
}

/// Verdicts count from when they were said: a rule's and a group's share of attacks.
#[test]
fn verdicts_count_for_decisions_behind_them_only() {
    for seed in 0..6 {
        let steps = steps(seed, 160);
        let decisions = lived(&steps);
        let signatures: BTreeMap<AlertId, u64> =
            decisions.iter().map(|decision| (decision.alert, decision.signature)).collect();
        for decision in &decisions {
            let upto = usize::try_from(decision.upto).unwrap();
            let share = |fits: &dyn Fn(&AlertId, &str) -> bool| {
                let (mut all, mut attacks) = (0, 0);
                for step in &steps[..upto] {
                    if let Step::Verdict(alert, rule, is_attack, sign) = step
                        && fits(alert, rule)
                    {
                        all += sign;
                        attacks += if *is_attack { *sign } else { 0 };
                    }
                }
                (Some(all), (all > 0).then(|| attacks * 1_000 / all))
            };
            let got = named(decision);
            let of_rule = share(&|_, rule| *rule == *decision.rule);
            assert_eq!((got["rule verdicts"], got["rule true permille"]), of_rule);
            let of_group = share(&|alert, _| signatures.get(alert) == Some(&decision.signature));
            assert_eq!((got["group verdicts"], got["group true permille"]), of_group);
        }
    }
}

/// A restart reads the decisions of before as JSON; what is decided after it is what would have been without it.
#[test]
fn a_restart_at_any_place_changes_no_bit() {
    let steps = steps(11, 120);
    let decisions = lived(&steps);
    let stored: Vec<String> = decisions.iter().map(|decision| serde_json::to_string(decision).unwrap()).collect();
    for cut in (0..steps.len()).step_by(7) {
        let mut past = AlertPast::default();
        let mut got = Vec::new();
        for (upto, step) in (0..).zip(&steps) {
            match step {
                Step::Verdict(alert, rule, is_attack, sign) => past.verdict(*alert, rule, *is_attack, *sign),
                Step::Alert(..) if (upto as usize) < cut => {
                    let recalled: Decision = serde_json::from_str(&stored[got.len()]).unwrap();
                    past.recall(&recalled);
                    got.push(recalled);
                }
                Step::Alert(alert, thread) => got.push(past.decide(&Asked { alert, thread: *thread, upto })),
            }
        }
        assert_eq!(got, decisions, "cut at {cut}");
    }
}

/// An answer changes the score, and events the counts: neither is another question.
#[test]
fn only_what_matters_is_asked_about_again() {
    let mut dice = Dice::new(5);
    let alert = alert(&mut dice, 1, 1_000);
    let same = Alert { count: 999, peak: 77, last_cell: 5_000, score: Score::MAX, ..alert.clone() };
    assert_eq!(material(&same), material(&alert));
    let graver = Alert { level: Level::Critical, ..alert.clone() };
    let more = Alert { reference_counts: vec![1, 1, 1], ..alert.clone() };
    let tagged = Alert { tags: ["attack.exfiltration".into()].into(), ..alert.clone() };
    for other in [graver, more, tagged] {
        assert_ne!(material(&other), material(&alert));
    }
}

/// Rows that were served, judged by a pattern that the features show.
fn labelled(count: u64) -> Vec<Labelled> {
    let mut dice = Dice::new(3);
    let decisions: Vec<Decision> = lived(&steps(3, count)).into_iter().filter(|decision| decision.first).collect();
    let level = feature_names().iter().position(|name| name == "level").unwrap();
    let row = |decision: &Decision| {
        let is_attack = decision.features[level] == Some(3) && dice.roll(10) > 0;
        Labelled {
            alert: decision.alert.to_string(),
            cell: decision.cell,
            group: decision.thread.to_string(),
            label: if is_attack { "true_positive" } else { "benign" }.to_owned(),
            features: decision.features.clone(),
        }
    };
    decisions.iter().map(row).collect()
}

/// What is learned from is what was served: the table holds the same bits, and a model that was trained on it answers.
#[test]
fn from_served_decisions_to_answers() {
    let rows = labelled(700);
    let table = served::training_table(&rows);
    let again: Vec<Labelled> = rows
        .iter()
        .map(|row| {
            let text = serde_json::to_string(&row.features).unwrap();
            Labelled { features: serde_json::from_str(&text).unwrap(), ..row.clone() }
        })
        .collect();
    assert_eq!(served::training_table(&again).sha256, table.sha256);
    let mut other = rows.clone();
    other[3].features[0] = Some(99);
    assert_ne!(served::training_table(&other).sha256, table.sha256);

    let mut asked = request(&[Kind::Boost]);
    asked.task = Task::new("triage").unwrap();
    asked.label = served::LABEL.to_owned();
    asked.group = Some(served::GROUP.to_owned());
    asked.recipe = Recipe { spec: Default::default(), ..asked.recipe };
    asked.recipe.spec.leave_out = vec![served::TIME.to_owned()];
    let prepared = Prepared::new(&asked, table.clone()).unwrap();
    let trained = train::train(&asked, &prepared, &mut |_, _, _| {}).unwrap();
    assert!(trained.evaluation.ranking.roc_auc > 0.8, "{:?}", trained.evaluation.ranking);
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::new(folder.path());
    let version = publish::publish(&registry, &asked, &prepared, &trained, Gate::Evidence).unwrap().version;

    let serving = Serving::load(&registry, "triage", &version).unwrap();
    let features: Vec<&[Option<i64>]> = rows.iter().map(|row| row.features.as_slice()).collect();
    let answers = serving.answer(&features, Role::Champion).unwrap();
    let offline = trained.model.probabilities(&trained.model.encode(&table).unwrap(), 1);
    for (row, (answer, probability)) in answers.iter().zip(&offline).enumerate() {
        assert_eq!(f64::from(answer.probability_ppm), (probability * 1e6).round(), "row {row}");
        // One at a time is the same as all at once.
        assert_eq!(serving.answer(&features[row..=row], Role::Champion).unwrap()[0], *answer);
    }
    assert!(answers.iter().any(|answer| answer.verdict == Worth::True && !answer.reasons.is_empty()));
    assert_eq!(answers[0].model.len(), 12);
    assert_eq!(RECIPE, "alert-1");
}
