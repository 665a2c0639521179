use super::*;

fn incidents() -> Incidents {
    let options = IncidentOptions { window: 100, alerts_max: 3, hub_neighbours_max: 2, ..IncidentOptions::default() };
    Incidents::new(options)
}

/// `a10 x y` = an alert named `a` at 10 s with entities x and y, `-a10 x y` = it goes, `!a10 x y` = it is sealed, `=10` =
/// the limit is 10 s; epochs parted by `|`. The window is 100 s, an incident has three alerts at the most, more than two
/// neighbours make a hub. Shown are the incidents after each epoch.
#[track_caller]
fn check(input: &str, expect: &str) {
    let mut state = incidents();
    let mut present: BTreeMap<Incident, isize> = BTreeMap::new();
    let shown = input.split('|').map(|epoch| {
        let (limits, changes): (Vec<&str>, Vec<&str>) =
            epoch.split(',').map(str::trim).filter(|text| !text.is_empty()).partition(|text| text.starts_with('='));
        let limits = limits.iter().map(|text| Beside::Limit(text.trim_start_matches('=').parse().unwrap())).collect();
        for (incident, diff) in state.epoch(changes.into_iter().flat_map(change).collect(), limits) {
            *present.entry(incident).or_default() += diff;
        }
        present.retain(|_, times| *times != 0);
        assert!(present.values().all(|times| *times == 1));
        let name = |(_, id): &Place| char::from(id.0[0]);
        let mut incidents: Vec<String> =
            present.keys().map(|incident| incident.alerts.iter().map(name).collect()).collect();
        incidents.sort();
        incidents.join(" ")
    });
    assert_eq!(shown.collect::<Vec<_>>().join(" | "), expect, "{input}");
}

fn change(text: &str) -> Vec<(Node, isize)> {
    let node = |text: &str, sealed| {
        let (alert, entities) = text.split_once(' ').unwrap_or((text, ""));
        let kind = |name: &str| if name.starts_with('p') { EntityKind::Process } else { EntityKind::Host };
        let mut entities: Vec<Entity> =
            entities.split_whitespace().filter_map(|name| Entity::of(kind(name), name)).collect();
        entities.sort();
        Node {
            tenant: Tenant::default(),
            anchor: alert.get(1..).unwrap().parse().unwrap(),
            id: AlertId([alert.as_bytes()[0]; 16]),
            entities,
            score: Score::default(),
            kind: IncidentKind::Other,
            tactics: Vec::new(),
            sealed,
        }
    };
    match text.split_at(1) {
        ("-", text) => vec![(node(text, false), -1)],
        ("!", text) => vec![(node(text, false), -1), (node(text, true), 1)],
        _ => vec![(node(text, false), 1)],
    }
}

#[test]
fn shared_entities_connect_within_the_window() {
    check("a0 x, b100 x, c201 x", "ab c");
    check("a0 x, b50 y, c60 x y", "abc");
    check("a0, b0, c0 p1, d0 p1", "a b c d");
}

#[test]
fn a_bridge_merges_and_its_end_parts() {
    check("a0 x, c200 x | b100 x | -b100 x", "a c | abc | a c");
    check("a0 x, b10 x y, c20 y | -b10 x y | b10 x y", "abc | a c | abc");
}

#[test]
fn others_are_not_touched() {
    check("a0 x, b0 y | c10 x | -a0 x", "a b | ac b | b c");
}

#[test]
fn going_and_coming_in_one_epoch_is_no_change() {
    check("a0 x, b10 x | -a0 x, a0 x | -a0 x, a0 y", "ab | ab | a b");
}

#[test]
fn too_large_ones_are_cut_on_the_grid_and_then_by_number() {
    // At most three: the grid of 100 s cuts at 100 and 200; the second piece still has four.
    check("a0 x, b90 x, c110 x, d120 x, e130 x, f140 x, g210 x", "ab cde f g");
    check("a0 x, b90 x, c110 x | d120 x | -b90 x", "abc | ab cd | a cd");
}

#[test]
fn a_hub_of_the_day_before_does_not_connect() {
    // x has three neighbours on day 0: on day 1 it connects nothing, on day 0 it goes on connecting.
    check("a0 x u, b9000 x v, c18000 x w, d86400 x, e86410 x", "a b c d e");
    check("a0 x u, b50 x v, c100 x w, d86400 x, e86410 x", "abc d e");
    // One neighbour less, and it does again.
    check("a0 x u, b50 x v, d86400 x, e86410 x | c90 x w | -c90 x w", "ab de | abc d e | ab de");
    // The day after that it had no neighbours: it is none any more.
    check("a0 x u v w, d172800 x, e172810 x", "a de");
}

#[test]
fn two_shared_entities_connect_hubs_or_not() {
    check("a0 x u v w, b9000 y u v w, d86400 x y, e86410 x y, f86420 x", "a b de f");
}

#[test]
fn an_incident_closes_as_a_whole_when_nothing_can_join_it() {
    // The window is 100 s: at a limit of 151 nothing can begin within it of b. Limits act on the epochs after.
    check("a0 x, b50 x | !a0 x | =151 | !b50 x | =152 | c60 x", "ab | ab | ab | ab | ab | c");
    check("b50 x, !b50 x | =150 | c140 x | =500 | d130 x", "b | b | bc | bc | bdc");
}

#[test]
fn what_is_settled_stays_settled() {
    // Day 0 is over at the limit of 86,400: an alert of it that goes later leaves the hubs of day 1 as they are.
    check(
        "a0 x u, b50 x v, c90 x w, d86400 x, e86410 x | =86400 | f86420 y | -c90 x w",
        "abc d e | abc d e | abc d e f | ab d e f",
    );
    let mut state = incidents();
    let hub = Hub { entity: Entity::of(EntityKind::Host, "x").unwrap(), day: 1, neighbours: 9 };
    let changes = ["d86400 x", "e86410 x"].into_iter().flat_map(change).collect();
    let rows = state.epoch(changes, vec![Beside::Hub(Tenant::default(), hub.clone())]);
    assert_eq!(rows.len(), 2, "a hub that was settled before a restart");
    assert!(rows.iter().all(|(incident, diff)| *diff == 1 && incident.hubs == [hub.clone()]));
}

#[test]
fn nothing_is_kept_of_what_is_closed() {
    let mut state = incidents();
    let all: Vec<_> = (0..50).map(|n| format!("{}{} x y{n}", char::from(b'A' + n), u32::from(n) * 10_000)).collect();
    state.epoch(all.iter().flat_map(|text| change(text)).collect(), Vec::new());
    assert!(!state.alerts.is_empty() && !state.chains.is_empty() && !state.days.is_empty());
    state.epoch(all.iter().flat_map(|text| change(&format!("!{text}"))).collect(), Vec::new());
    state.epoch(Vec::new(), vec![Beside::Limit(1_000_000)]);
    state.epoch(Vec::new(), vec![Beside::Limit(1_000_001)]);
    assert!(state.alerts.is_empty() && state.chains.is_empty() && state.days.is_empty());
    assert!(state.component.is_empty() && state.components.is_empty() && state.closing.is_empty());
}

#[test]
fn what_is_told_follows_score_and_tags_and_not_who_is_final() {
    let mut state = incidents();
    let [(node, _)] = &change("a0 x")[..] else { panic!("one change") };
    let tactics = vec![Tactic::InitialAccess, Tactic::Discovery, Tactic::Exfiltration];
    let worse = Node { score: Score::from_tenths(75), kind: IncidentKind::Exfiltration, tactics, ..node.clone() };
    state.epoch(vec![(node.clone(), 1)], Vec::new());
    let rows = state.epoch(vec![(node.clone(), -1), (worse.clone(), 1)], Vec::new());
    let now = rows.iter().find(|(_, diff)| *diff > 0).map(|(incident, _)| incident).unwrap();
    assert_eq!((now.kind, now.severity), (IncidentKind::Exfiltration, IncidentSeverity::Sev1));
    let sealed = Node { sealed: true, ..worse.clone() };
    assert_eq!(state.epoch(vec![(worse, -1), (sealed, 1)], Vec::new()), []);
}
