//! Risk against a from-scratch computation over all alerts known by then, and the falling of levels by event time alone.

use cf_types::random::Random;

use super::*;

fn entity(name: u64) -> Key {
    (Tenant::default(), Entity::of(EntityKind::Host, &format!("h{name}")).unwrap())
}

/// Risk and level of an entity by their definitions; risk alerts as (day, hours, peak, sealed).
fn expect(held: &BTreeSet<Contribution>, key: &Key, now: Option<Hour>, options: RiskOptions) -> String {
    let mine: Vec<&Contribution> = held.iter().filter(|one| one.entity == *key).collect();
    let factor = |age: i64| (0..age).fold(1u128 << 32, |factor, _| (factor * 4_172_692_580) >> 32);
    let sum = |at: Hour, span: i64| {
        let inside = mine.iter().filter(|one| (0..span).contains(&(at - one.hour)));
        let mut by_hour: BTreeMap<Hour, u128> = BTreeMap::new();
        inside.for_each(|one| *by_hour.entry(one.hour).or_default() += u128::from(one.tenths));
        by_hour.iter().map(|(hour, tenths)| tenths * factor(at - hour)).sum::<u128>() >> 32
    };
    let Some(newest) = mine.iter().map(|one| one.hour).max() else { return String::new() };
    let at = now.map_or(newest, |now| now.max(newest));
    let level = match sum(at, 168) {
        0 => "none",
        1..=39 => "low",
        40..=69 => "medium",
        70..=89 => "high",
        _ => "critical",
    };
    let hours: BTreeSet<Hour> = mine.iter().map(|one| one.hour).collect();
    let mut days: BTreeMap<i64, Vec<u128>> = BTreeMap::new();
    for hour in hours {
        let tenths = sum(hour, 24);
        if tenths >= u128::from(options.alert_tenths) {
            days.entry(hour.div_euclid(24)).or_default().push(tenths);
        }
    }
    let days: Vec<String> =
        days.iter().map(|(day, sums)| format!("{day} x{} {}", sums.len(), sums.iter().max().unwrap())).collect();
    format!("{level} [{}]", days.join(", "))
}

fn shown(rows: &BTreeSet<Risked>, key: &Key) -> String {
    let level = rows.iter().find_map(|row| match row {
        Risked::Level(level) if (&level.tenant, &level.entity) == (&key.0, &key.1) => Some(level.level.as_str()),
        _ => None,
    });
    let mut days: Vec<(i64, String)> = rows
        .iter()
        .filter_map(|row| match row {
            Risked::Alert(alert) if alert.entities == [key.1.clone()] => {
                let day = hour_of(alert.anchor).div_euclid(24);
                Some((day, format!("{day} x{} {}", alert.count, alert.peak)))
            }
            _ => None,
        })
        .collect();
    days.sort();
    let is_there = rows.iter().any(|row| matches!(row, Risked::Risk(risk) if risk.entity == key.1));
    let days: Vec<String> = days.into_iter().map(|(_, text)| text).collect();
    if is_there { format!("{} [{}]", level.unwrap_or("none"), days.join(", ")) } else { String::new() }
}

#[test]
fn every_epoch_equals_the_oracle() {
    let (mut falls, mut alerts) = (0, 0);
    for seed in 0..40 {
        let mut random = Random(seed);
        // Nothing is sealed in the first half of the seeds: then risk alerts, too, are a function of what is held.
        let options = RiskOptions { horizon_s: (seed >= 20).then_some(9 * 86_400), alert_tenths: 150 };
        let (mut state, mut held, mut rows) = (Risk::new(options), BTreeSet::new(), BTreeMap::new());
        let mut now = None;
        for _ in 0..30 {
            let mut changes = Vec::new();
            for _ in 0..random.number(6) {
                let base = now.unwrap_or(500_000);
                let contribution = Contribution {
                    entity: entity(random.number(3)),
                    hour: base - 20 + i64::try_from(random.number(30)).unwrap(),
                    alert: AlertId([u8::try_from(random.number(4)).unwrap(); 16]),
                    tenths: u16::try_from(random.number(96)).unwrap() + 1,
                };
                let gone = held.iter().nth(random.number(7).try_into().unwrap()).cloned();
                match gone {
                    Some(gone) if random.number(3) == 0 => {
                        held.remove(&gone);
                        changes.push(Change::Weight(gone, -1));
                    }
                    _ if held.insert(contribution.clone()) => changes.push(Change::Weight(contribution, 1)),
                    _ => {}
                }
            }
            if seed % 2 == 0 {
                now = Some(now.unwrap_or(500_000) + i64::try_from(random.number(9)).unwrap());
            }
            for (row, diff) in state.epoch(changes, now.map(|now| Time::from_seconds(now * 3_600 + 5))) {
                falls += i32::from(matches!(row, Risked::Level(_)) && diff < 0);
                *rows.entry(row).or_insert(0) += diff;
            }
            rows.retain(|_, times| *times != 0);
            assert!(rows.values().all(|times| *times == 1));
            let present: BTreeSet<Risked> = rows.keys().cloned().collect();
            alerts += present.iter().filter(|row| matches!(row, Risked::Alert(_))).count();
            for name in 0..3 {
                let got = shown(&present, &entity(name));
                assert_eq!(got, expect(&held, &entity(name), now, options), "seed {seed}, now {now:?}");
            }
        }
    }
    assert!(falls > 100 && alerts > 500, "{falls} falls, {alerts} alerts");
}

/// `80@0` an alert of 8.0 in hour 0, `w48` the watermark in hour 48; epochs parted by `|`.
#[track_caller]
fn check(options: RiskOptions, input: &str, expect: &str) {
    let mut state = Risk::new(options);
    let mut rows: BTreeMap<Risked, isize> = BTreeMap::new();
    let mut serial = 0;
    let got: Vec<String> = input
        .split('|')
        .map(|epoch| {
            let (mut changes, mut watermark) = (Vec::new(), None);
            for word in epoch.split_whitespace() {
                if let Some(hour) = word.strip_prefix('w') {
                    watermark = Some(Time::from_seconds(hour.parse::<i64>().unwrap() * 3_600));
                } else {
                    let (tenths, hour) = word.split_once('@').unwrap();
                    serial += 1;
                    let (tenths, hour) = (tenths.parse().unwrap(), hour.parse().unwrap());
                    let contribution = Contribution { entity: entity(1), hour, alert: AlertId([serial; 16]), tenths };
                    changes.push(Change::Weight(contribution, 1));
                }
            }
            for (row, diff) in state.epoch(changes, watermark) {
                *rows.entry(row).or_default() += diff;
            }
            rows.retain(|_, times| *times != 0);
            let show = |row: &Risked| match row {
                Risked::Risk(_) => None,
                Risked::Level(level) => Some(level.level.as_str().to_owned()),
                Risked::Waits(_) => None,
                Risked::Alert(alert) => Some(format!("{:?}", alert.state)),
            };
            rows.keys().filter_map(show).collect::<Vec<_>>().join(" ")
        })
        .collect();
    assert_eq!(got.join(" | "), expect, "{input}");
    if expect.ends_with("| ") {
        assert!(state.entries.is_empty() && state.timers.is_empty(), "nothing stays behind");
    }
}

#[test]
fn levels_fall_as_event_time_passes() {
    let options = RiskOptions { horizon_s: Some(86_400), alert_tenths: 0 };
    // 8.0 is high until it is below 7.0: after log2(80/70) days, 4.6 hours; medium until 4.0, one day.
    check(options, "80@0 | w4 | w5 | w23 | w24 | w167 | w168", "high | high | medium | medium | low |  | ");
    check(options, "80@0 | w24 | 95@30 | w31", "high | low | critical | critical");
}

#[test]
fn a_risk_alert_is_one_a_day_and_is_sealed_behind_the_horizon() {
    let options = RiskOptions { horizon_s: Some(86_400), alert_tenths: 150 };
    check(
        options,
        "80@1 | 75@2 | 90@3 | w47 | w48",
        "high | critical Open | critical Open | medium Open | medium Sealed",
    );
    // Behind seven days nothing of it is held: it leaves the graph, and stays told.
    check(options, "80@1 80@1 | w48 | w300", "critical Open | medium Sealed | ");
}

/// What a restart recalls is as it was: the day's last word while it is kept, and afterwards a row that comes and never
/// goes, for the incident that holds it.
#[test]
fn a_sealed_risk_alert_is_recalled_also_when_its_weights_are_forgotten() {
    let options = RiskOptions { horizon_s: Some(86_400), alert_tenths: 150 };
    let key = entity(1);
    let weight = |tenths| {
        Change::Weight(
            Contribution { entity: key.clone(), hour: 1, alert: AlertId([tenths; 16]), tenths: tenths.into() },
            1,
        )
    };
    let at = |hour: i64| Some(Time::from_seconds(hour * 3_600));
    let mut before = Risk::new(options);
    before.epoch(vec![weight(80), weight(90)], at(2));
    let sealed = before.epoch(Vec::new(), at(48)).into_iter().find_map(|(row, diff)| match row {
        Risked::Alert(alert) if diff > 0 => Some(alert),
        _ => None,
    });
    let sealed = sealed.unwrap();
    assert_eq!(sealed.state, AlertState::Sealed);
    // Of what made it, one score is not known any more: what was told stays.
    let mut again = Risk::new(options);
    let rows = again.epoch(vec![weight(80), Change::Recalled(key.clone(), sealed.clone())], at(60));
    let alerts: Vec<_> = rows.iter().filter(|(row, _)| matches!(row, Risked::Alert(_))).collect();
    assert_eq!(alerts, [&(Risked::Alert(sealed.clone()), 1)]);
    // Later than anything is kept.
    let mut again = Risk::new(options);
    let recalled = vec![Change::Recalled(key.clone(), sealed.clone())];
    assert_eq!(again.epoch(recalled, at(1_000)), [(Risked::Alert(sealed), 1)]);
    assert_eq!(again.epoch(Vec::new(), at(2_000)), []);
    assert!(again.entries.is_empty() && again.timers.is_empty());
}
