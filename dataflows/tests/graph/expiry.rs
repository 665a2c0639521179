//! Expiry never changes an alert: a month of events gives the same set with a horizon of a day and with none.
//!
//! Days are quiet but for some bursts, and one address drips all month, so that an endless run is cut; one event in six
//! comes up to twenty hours late, some twice. `EXPIRY_CASES=200` (and `EXPIRY_BURSTS=20` a day) for a campaign.

use std::{collections::BTreeSet, sync::Arc};

use cf_dataflows::GraphOptions;
use cf_types::{Alert, AlertState, Condition, EpochOutput, Event, Fixed, Level, Lineage, Predicate, Row};

use crate::site::{Input, KINDS, Random, TestRules, accumulate, bounded, event, received, run};

const DAYS: i64 = 30;
pub const DAY: i64 = 86_400;
/// Months of every day: some seconds.
const CASES: u64 = 2;
/// Dense minutes of a day.
const BURSTS: u64 = 3;
/// How long an epoch gathers, in seconds: half a day's worth is in none.
const EPOCH: i64 = 3 * 3_600;

fn number_of(name: &str, of_every_day: u64) -> u64 {
    std::env::var(name).ok().and_then(|number| number.parse().ok()).unwrap_or(of_every_day)
}

/// The site's rules, and some that look back for days or whose runs do not end.
pub fn rules() -> TestRules {
    let mut rules = TestRules::new();
    let twice = Predicate::EventCount(Condition::at_least(2));
    rules.add("drip", Level::Low, &["scan"], DAY / 2, twice, &["address"], None);
    rules.add("unanswered", Level::Low, &["fail", "ok"], 600, Predicate::Absence, &["address"], None);
    let memory = 3 * DAY;
    let new = Predicate::FirstSeen { memory, known_min: 1 };
    rules.add("new user", Level::Medium, &["ok"], 3_600, new, &["address"], Some("user"));
    let more = Condition { gte: Fixed::whole(3), ..Condition::default() };
    let rate = Predicate::Rate { memory, grid: memory / 168, age_min: DAY, count_min: 2, times: more };
    rules.add("rate", Level::Medium, &["sudo"], 1_800, rate, &["host"], None);
    let few = Predicate::EventCount(Condition { lt: Some(3), ..Condition::default() });
    rules.add("few", Level::Low, &["sudo"], 60, few, &["user"], None);
    rules
}

/// Events with the second of their arrival, in the order in which they arrive.
fn month(random: &mut Random) -> Vec<(i64, Event)> {
    let mut times: Vec<(i64, String)> = Vec::new();
    for day in 0..DAYS {
        for _ in 0..number_of("EXPIRY_BURSTS", BURSTS) {
            let begin = day * DAY + random.within(0, DAY - 1);
            for _ in 0..random.within(4, 24) {
                let kind = KINDS[[0, 0, 0, 1, 2, 3][random.below(6)]];
                let (host, user, address) = (random.below(4), random.below(5), random.below(5));
                let text = format!("{kind} h{host} u{user} 10.0.0.{address} {}", random.below(400));
                times.push((begin + random.within(0, 200), text));
            }
        }
        for quarter in 0..4 {
            let at = day * DAY + quarter * DAY / 4 + random.within(0, 3_600);
            times.push((at, "scan h9 u9 10.0.0.9 1".to_owned()));
        }
    }
    let mut arrivals = Vec::new();
    for (id, (at, text)) in (0u64..).zip(times) {
        for _ in 0..if random.below(20) == 0 { 2 } else { 1 } {
            let late = if random.below(6) == 0 { random.within(0, 20 * 3_600) } else { random.within(0, 9) };
            arrivals.push((at + late, received("s", id, at, at + late, &text)));
        }
    }
    arrivals.sort_by_key(|(arrival, event)| (*arrival, event.position.clone()));
    arrivals
}

pub fn alerts(outputs: &[EpochOutput]) -> BTreeSet<Alert> {
    let rows = accumulate(outputs).into_iter();
    let alerts = rows.filter_map(|row| if let Row::Alert(alert) = row { Some(alert) } else { None });
    // Whether it is final is the one thing that the horizon is to say.
    alerts.map(|alert| Alert { state: AlertState::Open, ..alert }).collect()
}

#[test]
fn a_month_gives_the_same_alerts_with_a_horizon_and_without() {
    let rules = Arc::new(rules());
    let (mut compared, mut kinds) = (0, BTreeSet::new());
    for seed in 0..number_of("EXPIRY_CASES", CASES) {
        let mut random = Random(seed);
        let month = month(&mut random);
        let mut inputs: Vec<Input> = month
            .chunk_by(|(one, _), (other, _)| one / EPOCH == other / EPOCH)
            .map(|epoch| Input { events: epoch.iter().map(|(_, event)| event.clone()).collect(), ..Input::default() })
            .collect();
        inputs[0].rules = Some(Arc::clone(&rules));
        // After it, all that waits is decided: in steps, since what is decided more than a week late weighs nothing.
        for hour in (6_i64..=72).step_by(6) {
            let quiet = event("s", 9_000_000 + hour.unsigned_abs(), DAYS * DAY + DAY + hour * 3_600, "none h u -");
            inputs.push(Input { events: vec![quiet], ended: hour == 72, ..Input::default() });
        }
        let expiring = GraphOptions { horizon_s: Some(DAY), disorder_s: 10, ..bounded() };
        let whole = run(1, &bounded(), &inputs);
        let expired = run(1, &expiring, &inputs);
        let (all, got) = (alerts(&whole), alerts(&expired));
        let (missing, extra): (Vec<_>, Vec<_>) = (all.difference(&got).collect(), got.difference(&all).collect());
        assert!(missing.is_empty() && extra.is_empty(), "seed {seed}: missing {missing:#?}, extra {extra:#?}");
        let sealed = expired.iter().flat_map(|output| &output.lineage).filter(|one| matches!(one, Lineage::Sealed(_)));
        assert!(sealed.count() > 100 && expired.iter().all(|output| output.rejects.is_empty()), "seed {seed}");
        compared += all.len();
        kinds.extend(all.into_iter().map(|alert| alert.rule));
    }
    println!("{compared} alerts of {} rules are the same with and without a horizon", kinds.len());
    assert!(kinds.len() >= 12 && compared > 200, "{compared} alerts of {kinds:?}");
}
