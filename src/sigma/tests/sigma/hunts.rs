//! Hunts as documents: what they say, what is refused, and that no event meets one.

use std::sync::Arc;

use cf_sigma::{Options, RuleSet, Scanner, lint, parse};

use crate::world::text;

const HUNT: &str = "title: T\nid: h\nname: many\nlevel: high\ntags: [attack.t1110]\nhunt:\n  query: |\n    SELECT time, id\n    \
                    FROM events_distinct\n  window: 2h\n  every: 5m\n  key: [id]\n";

#[test]
fn a_hunt_is_a_rule_that_no_event_meets() {
    let (set, problems) = RuleSet::compile(parse(&[text("h.yml", HUNT)]), &Options::default());
    assert!(problems.is_empty(), "{problems:?}");
    let [info] = set.rules() else { panic!("one rule") };
    let hunt = info.hunt.as_ref().unwrap();
    assert_eq!(&*hunt.query, "SELECT time, id\nFROM events_distinct");
    assert_eq!((hunt.window_s, hunt.every_s, hunt.name.as_deref()), (7_200, Some(300), Some("many")));
    assert_eq!((&*hunt.key, info.alerts, info.enabled), (&[Arc::from("id")][..], true, true));
    // It alerts by itself like a plain rule, and there is nothing to scan for.
    assert_eq!(set.episode_rules().iter().map(|rule| &*rule.id).collect::<Vec<_>>(), ["h"]);
    assert!(!set.may_meet(&cf_types::LogSource::default()));
    drop(Scanner::new(Arc::new(set)));
    assert!(
        lint(&[text("a_hunt_of_ours.yml", HUNT)], &parse(&[text("a_hunt_of_ours.yml", HUNT)])).iter().all(|problem| ![
            "no_anchor",
            "no_logsource"
        ]
        .contains(&problem.code))
    );
}

#[test]
fn a_correlation_may_count_what_hunts_find() {
    let counting = "title: C\nid: c\nlevel: high\ncorrelation:\n  type: event_count\n  rules: [many]\n  group-by: [host]\n  \
                    timespan: 1h\n  condition: {gte: 2}\n";
    let texts = [text("h.yml", HUNT), text("c.yml", counting)];
    let (set, problems) = RuleSet::compile(parse(&texts), &Options::default());
    assert!(problems.iter().all(|problem| problem.severity != cf_sigma::Severity::Error), "{problems:?}");
    let of = set.episode_rules().iter().find(|rule| *rule.id == *"c").unwrap();
    assert_eq!(of.references.iter().map(|id| &**id).collect::<Vec<_>>(), ["h"]);
}

#[test]
fn another_question_is_another_rule_set() {
    let hash = |hunt: &str| RuleSet::compile(parse(&[text("h.yml", hunt)]), &Options::default()).0.hash().to_owned();
    assert_eq!(hash(HUNT), hash(HUNT));
    assert_ne!(hash(HUNT), hash(&HUNT.replace("window: 2h", "window: 3h")));
}
