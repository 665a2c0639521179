//! What rules remember of the time before they were there: the same alerts as if they had been there.

use std::{collections::BTreeSet, sync::Arc};

use cf_dataflows::{GraphOptions, Remembered};
use cf_types::{Alert, EpisodeKey, Event};

use crate::{
    expiry::{DAY, alerts, rules},
    site::{BEGIN, Input, Random, TestRules, bounded, event, run},
};

const RULES: [&str; 2] = ["new user", "rate"];
/// When the rules begin, in seconds after [`BEGIN`].
const BEGAN: i64 = 3 * DAY;
/// Nothing happens for so long before: longer than the rules' windows.
const PAUSE: i64 = 7_200;

/// Logins and uses of sudo between two seconds.
fn events(random: &mut Random, first_id: u64, count: u64, (from, to): (i64, i64)) -> Vec<Event> {
    let one = |id| {
        let at = random.within(from, to);
        let (kind, host) = (random.one_of(&["ok", "sudo"]), random.below(3));
        let (user, address) = (random.below(8), random.below(3));
        event("s", first_id + id, at, &format!("{kind} h{host} u{user} 10.0.0.{address} 1"))
    };
    (0..count).map(one).collect()
}

/// What a look-up finds, item by item.
fn remembered(rules: &TestRules, events: &[Event]) -> Vec<Remembered> {
    let items = events.iter().flat_map(|event| rules.detections(event)).flat_map(|detection| {
        let (tenant, cell) = (detection.tenant.clone(), detection.member.time.cell());
        detection.items.into_iter().map(move |item| Remembered {
            key: EpisodeKey { tenant: tenant.clone(), rule: item.rule, group: item.group },
            value: item.value,
            cell,
            count: 1,
        })
    });
    items.collect()
}

fn of_the_rules(alerts: BTreeSet<Alert>) -> BTreeSet<Alert> {
    alerts.into_iter().filter(|alert| RULES.contains(&&*alert.rule) && alert.anchor >= BEGIN + BEGAN).collect()
}

#[test]
fn what_was_before_a_rule_is_known_as_if_it_had_been_there() {
    let rules = Arc::new(rules());
    let (mut compared, mut otherwise, mut found) = (0, 0, BTreeSet::new());
    for seed in 0..12 {
        let mut random = Random(seed);
        let before = events(&mut random, 0, 150, (0, BEGAN - PAUSE));
        let mut after = events(&mut random, 1_000, 60, (BEGAN, BEGAN + 4 * 3_600));
        random.shuffle(&mut after);
        let whole =
            Input { rules: Some(Arc::clone(&rules)), events: [&before[..], &after].concat(), ..Input::default() };
        let want = of_the_rules(alerts(&run(1, &bounded(), &[whole])));

        // The horizon has left all of it behind.
        let mut inputs = vec![Input::default(); 7];
        inputs[0].rules = Some(Arc::clone(&rules));
        inputs[0].events = vec![event("s", 9_000, BEGAN, "none h u - 1")];
        for event in after {
            inputs[1 + random.below(6)].events.push(event);
        }
        let options = GraphOptions { horizon_s: Some(DAY), disorder_s: 10, ..bounded() };
        otherwise += usize::from(of_the_rules(alerts(&run(1, &options, &inputs))) != want);
        let mut rows = remembered(&rules, &before);
        random.shuffle(&mut rows);
        for row in rows {
            inputs[2 + random.below(5)].remembered.push(row);
        }
        for workers in [1, 2, 4] {
            let outputs = run(workers, &options, &inputs);
            assert_eq!(of_the_rules(alerts(&outputs)), want, "seed {seed}, {workers} workers");
            assert!(outputs.iter().all(|output| output.rejects.is_empty()), "seed {seed}");
            let early = alerts(&outputs).into_iter().filter(|alert| alert.anchor < BEGIN + BEGAN).count();
            assert_eq!(early, 0, "seed {seed}: what was before makes no alert");
        }
        compared += want.len();
        found.extend(want.into_iter().map(|alert| alert.rule));
    }
    assert!(
        compared > 30 && found.len() == RULES.len() && otherwise > 8,
        "{compared} alerts of {found:?}, {otherwise}"
    );
}
