//! Golden vectors of the formula, each worked by hand from the table in the module's documentation, and the rules of
//! precision and hours.

use std::sync::Arc;

use super::*;
use crate::{
    alert::{AlertState, Group},
    entity::{Entity, EntityKind},
    fact::Pattern,
    rule::Level,
    time::Time,
};

/// An alert and what facts say of it, by words.
fn read(input: &str) -> (Alert, Context) {
    let mut words = input.split(' ');
    let level: Level = serde_json::from_value(words.next().unwrap().into()).unwrap();
    let mut context = Context::default();
    let mut alert = Alert {
        tenant: Tenant::default(),
        id: AlertId::default(),
        rule: "a".into(),
        title: "a".into(),
        level,
        group: Group::default(),
        state: AlertState::Open,
        anchor: 0,
        last_cell: 0,
        count: 1,
        reference_counts: vec![1],
        peak: 1,
        score: Score::of_level(level),
        entities: Vec::new(),
        tags: Arc::from([]),
    };
    let mut tags: Vec<Arc<str>> = Vec::new();
    let host = |name: &str| Entity::of(EntityKind::Host, name).unwrap();
    let asset = |name: &str, criticality, exposure| Asset {
        entity: host(name),
        criticality,
        owner: None,
        exposure,
        tags: Vec::new(),
    };
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        match key {
            "address" => alert.entities.extend(Entity::of(EntityKind::Address, value)),
            "rule" => alert.rule = value.into(),
            "references" => alert.reference_counts = vec![1; value.parse().unwrap()],
            "criticality" => context.assets.push(asset(word, value.parse().unwrap(), None)),
            "external" => context.assets.push(asset(word, 3, Some(Exposure::External))),
            "internal" => context.assets.push(asset(word, 3, Some(Exposure::Internal))),
            "privileged" => context.identities.push(Identity {
                user: Entity::of(EntityKind::User, "root").unwrap(),
                aliases: Vec::new(),
                privileged: true,
                department: None,
            }),
            "indicator" => context.indicators.push(Indicator {
                pattern: Pattern::read("evil.example").unwrap(),
                confidence: value.parse().unwrap(),
                from: None,
                until: None,
                source: "feed".into(),
                tags: Vec::new(),
            }),
            "precision" => context.precision = Some(Precision { percent: value.parse().unwrap() }),
            // 1970-01-01 00:00 was on a Thursday, and nobody was at work.
            "off" => {
                context.office_hours =
                    Some(OfficeHours { from_hour: 8, until_hour: 18, days: 0b001_1111, offset_minutes: 0 });
            }
            tag => tags.push(format!("attack.{tag}").into()),
        }
    }
    alert.tags = tags.into();
    (alert, context)
}

/// Score, and confidence in percent.
#[track_caller]
fn check(input: &str, expect: &str) {
    let (alert, context) = read(input);
    let got = assess(&alert, &context);
    assert_eq!(format!("{} {}", got.score, got.confidence_percent), expect, "{input}: {:#?}", got.factors);
    assert_eq!(got.factors.len(), 9, "every factor is shown");
}

/// RSK-01.
#[test]
fn golden_vectors() {
    // 1.0 = 1; confidence 1 - 0.3
    check("informational", "1.0 70");
    // 3.0 = 3; confidence 1 - 0.3
    check("low", "3.0 70");
    // 5.0 = 5; confidence 1 - 0.3
    check("medium", "5.0 70");
    // 7.5 = 7.5; confidence 1 - 0.3
    check("high", "7.5 70");
    // 9.5 = 9.5; confidence 1 - 0.3
    check("critical", "9.5 70");
    // 7.5 × 1.000 (network) = 7.5; confidence 1 - 0.3
    check("high t1190", "7.5 70");
    // 7.5 × 0.964 (local) = 7.23; confidence 1 - 0.3
    check("high t1059.001", "7.2 70");
    // 7.5 × 0.923 (physical) = 6.9225; confidence 1 - 0.3
    check("high t1200", "6.9 70");
    // 7.5 × 1.000 (network) = 7.5; confidence 1 - 0.3
    check("high address=203.0.113.9", "7.5 70");
    // 7.5 × 0.972 (adjacent) = 7.29; confidence 1 - 0.3
    check("high address=10.0.0.1", "7.3 70");
    // 7.5 × 1.000 (network wins over local) = 7.5; confidence 1 - 0.3
    check("high t1059 t1021", "7.5 70");
    // 5.0 × 0.900 (tactic) = 4.5; confidence 1 - 0.3
    check("medium reconnaissance", "4.5 70");
    // 5.0 × 1.100 (tactic) = 5.5; confidence 1 - 0.3
    check("medium impact", "5.5 70");
    // 5.0 × 1.050 (the furthest) = 5.25; confidence 1 - 0.3
    check("medium lateral_movement discovery", "5.3 70");
    // 9.5 × 0.964 (local) × 1.100 (tactic) × 1.150 (technique) = 11.5849; confidence 1 - 0.3
    check("critical impact t1486", "10.0 70");
    // 7.5 × 0.964 (local) × 1.100 (technique) = 7.953; confidence 1 - 0.3
    check("high credential-access t1003.001", "8.0 70");
    // 7.5 × 0.750 (criticality) = 5.625; confidence 1 - 0.3
    check("high criticality=1", "5.6 70");
    // 7.5 × 0.880 (criticality) = 6.6; confidence 1 - 0.3
    check("high criticality=2", "6.6 70");
    // 7.5 × 1.000 (criticality) = 7.5; confidence 1 - 0.3
    check("high criticality=3", "7.5 70");
    // 7.5 × 1.150 (criticality) = 8.625; confidence 1 - 0.3
    check("high criticality=4", "8.6 70");
    // 5.0 × 1.300 (the highest) = 6.5; confidence 1 - 0.3
    check("medium criticality=5 criticality=1", "6.5 70");
    // 5.0 × 1.300 (criticality) × 1.100 (external) = 7.15; confidence 1 - 0.3
    check("medium criticality=5 external internal", "7.2 70");
    // 5.0 × 0.950 (internal) = 4.75; confidence 1 - 0.3
    check("medium internal", "4.8 70");
    // 5.0 × 1.150 (privileged) = 5.75; confidence 1 - 0.3
    check("medium privileged", "5.8 70");
    // 5.0 × 1.180 (indicator) = 5.9; confidence 1 - 0.3 × (1 - 0.72)
    check("medium indicator=90", "5.9 91");
    // 7.5 × 1.160 (indicator) = 8.7; confidence the indicator's own
    check("high rule=indicator indicator=90", "8.7 90");
    // 7.5 × 0.800 (indicator) = 6; confidence the indicator's own
    check("high rule=indicator indicator=0", "6.0 0");
    // 7.5 × 0.600 (precision) = 4.5; confidence the precision
    check("high precision=20", "4.5 20");
    // 7.5 × 0.975 (precision) = 7.3125; confidence the precision
    check("high precision=95 references=2", "7.3 95");
    // 5.0 = 5; confidence 1 - 0.3 × 0.7
    check("medium references=2", "5.0 79");
    // 5.0 × 1.200 (indicator) = 6; confidence 1 - 0.3 × 0.7 × 0.2
    check("medium references=2 indicator=100", "6.0 95");
    // 5.0 × 1.050 (time) = 5.25; confidence 1 - 0.3
    check("medium off", "5.3 70");
    // 3.0 × 1.000 (network) × 1.300 (criticality) × 1.100 (external) × 1.150 (privileged) × 1.100 (indicator) × 0.800 (precision) × 1.050 (time) = 4.55855; confidence the precision
    check(
        "low t1110 credential-access address=203.0.113.9 criticality=5 external privileged indicator=50 precision=60 off",
        "4.6 60",
    );
}

/// RSK-10: nothing but the input counts.
#[test]
fn the_order_of_facts_does_not_matter() {
    let (alert, context) =
        read("high criticality=5 criticality=2 external internal privileged indicator=40 indicator=90");
    let mut turned = context.clone();
    turned.assets.reverse();
    turned.indicators.reverse();
    assert_eq!(assess(&alert, &context), assess(&alert, &turned));
}

/// RSK-05, RSK-07.
#[test]
fn bands_vectors_and_what_they_were_made_of() {
    let of = |input: &str| {
        let (alert, context) = read(input);
        let got = assess(&alert, &context);
        let json = serde_json::to_value(&got).unwrap();
        assert_eq!(serde_json::from_value::<Assessment>(json.clone()).unwrap(), got);
        let show = |key: &str| json[key].to_string();
        ["level", "confidence", "vector", "techniques", "tactics"].map(show).join(" ")
    };
    assert_eq!(
        of("critical t1059.001 T1110 lateral_movement nonsense g0016"),
        r#""critical" "MODERATE" "network" ["T1059.001","T1110"] ["lateral-movement"]"#
    );
    assert_eq!(of("medium references=2 indicator=100"), r#""medium" "CERTAIN" "unknown" [] []"#);
    assert_eq!(of("low address=fd00::1 precision=10"), r#""low" "LOW" "adjacent" [] []"#);
    assert_eq!(of("informational command-and-control"), r#""low" "MODERATE" "network" [] ["command-and-control"]"#);
}

/// `+` an attack, `-` none, in the order in which they were said; after each the precision.
#[track_caller]
fn check_precision(verdicts: &str, expect: &str) {
    let said: Vec<Verdict> = verdicts
        .chars()
        .zip(0..)
        .map(|(sign, at)| Verdict {
            alert: AlertId::default(),
            judgement: if sign == '+' { Judgement::TruePositive } else { Judgement::FalsePositive },
            rule: "a".into(),
            at: Time::from_seconds(at),
        })
        .collect();
    let after = |n: usize| Precision::of(said.iter().take(n)).map_or("-".into(), |p| p.percent.to_string());
    let got: Vec<String> = (1..=said.len()).map(after).collect();
    assert_eq!(got.join(" "), expect, "{verdicts}");
    // As a set: the time says the order, not the place in the list.
    assert_eq!(Precision::of(said.iter().rev()), Precision::of(&said));
}

#[test]
fn precision_needs_five_verdicts_and_keeps_its_step() {
    check_precision("+++++", "- - - - 100");
    check_precision("++-+-", "- - - - 60");
    check_precision("-----+", "- - - - 0 15"); // 1 of 6 is 16.7, nearest 15
    // 10 of 20 is 50; 10 of 21 is 47.6, less than 3 points away: still 50; 10 of 22 is 45.5: 45.
    let verdicts = format!("{}{}--", "+".repeat(10), "-".repeat(10));
    let (alert, _) = read("low");
    let of = |n: usize| {
        let said: Vec<Verdict> = verdicts
            .chars()
            .take(n)
            .zip(0..)
            .map(|(sign, at)| Verdict {
                alert: alert.id,
                judgement: if sign == '+' { Judgement::TruePositive } else { Judgement::Benign },
                rule: "a".into(),
                at: Time::from_seconds(at),
            })
            .collect();
        Precision::of(&said).unwrap().percent
    };
    assert_eq!((of(20), of(21), of(22)), (50, 50, 45));
}

#[test]
fn office_hours_are_local_and_know_the_days() {
    let hours = OfficeHours { from_hour: 8, until_hour: 18, days: 0b001_1111, offset_minutes: 120 };
    let at = |text: &str| hours.contains(text.parse::<Time>().unwrap().cell());
    // 2026-01-05 was a Monday; 06:00 UTC is 08:00 there.
    assert!(at("2026-01-05T06:00:00Z") && at("2026-01-09T15:59:59Z"));
    assert!(!at("2026-01-05T05:59:59Z") && !at("2026-01-09T16:00:00Z") && !at("2026-01-10T10:00:00Z"));
}

/// A model moves confidence and place in the queue, never the score; without an answer nothing is different.
#[test]
fn a_model_moves_the_confidence_and_no_score() {
    let (alert, mut context) = read("high precision=20");
    let without = assess(&alert, &context);
    let mut of = |probability_ppm, verdict| {
        let role = crate::triage::Role::Champion;
        context.triage = Some(Triage { probability_ppm, verdict, model: "ab".into(), role });
        let with = assess(&alert, &context);
        let shown = with.factors.last().map(|factor| (factor.factor, factor.weight_permille));
        assert_eq!((with.factors.len(), shown), (10, Some((FactorKind::Triage, 1_000))));
        assert_eq!((with.score, with.level, &with.factors[..9]), (without.score, without.level, &without.factors[..]));
        (with.confidence_percent, with.priority())
    };
    assert_eq!(of(912_345, Worth::True), (91, 409));
    assert_eq!(of(1_000, Worth::False), (0, 0));
    // What no class supports goes to a person as before.
    assert_eq!(of(1_000, Worth::Unknown), (20, 90));
    assert_eq!((without.confidence_percent, without.priority()), (20, 90));
    // What was stored before models were used is read as it is.
    let mut stored = serde_json::to_value(&without).unwrap();
    stored.as_object_mut().unwrap().remove("triage");
    assert_eq!(serde_json::from_value::<Assessment>(stored).unwrap(), without);
}
