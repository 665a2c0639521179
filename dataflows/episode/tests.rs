//! Random streams against the oracle, and the named examples.

use std::collections::{BTreeMap, BTreeSet};

use cf_types::{Condition, Group, Level, Presence, Tenant, random::Random};

use super::{
    oracle::{KINDS, Known, OracleEpisode, OracleItem, VALUES, kind_of, oracle_remembering, some_predicate},
    *,
};

/// Cases of the random test: enough for every day; `EPISODE_CASES=1000000` for a change of the algorithm.
const CASES: u64 = 20_000;

#[test]
fn any_stream_gives_what_the_definitions_give_after_every_step() {
    let cases = std::env::var("EPISODE_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(CASES);
    let mut seen = Seen::default();
    for seed in 0..cases {
        Case::new(seed).run(&mut seen);
    }
    // A test of nothing would pass as well: what is to be tested has to have come up.
    for (what, count) in &seen.0 {
        assert!(*count >= cases / 200, "{what} came up {count} times in {cases} cases");
    }
    assert_eq!(seen.0.len(), 8 + KINDS.len(), "{seen:?}");
}

/// How often the cases of interest came up.
#[derive(Debug, Default)]
struct Seen(BTreeMap<&'static str, u64>);

impl Seen {
    fn note(&mut self, what: &'static str, yes: bool) {
        *self.0.entry(what).or_default() += u64::from(yes);
    }
}

/// One random stream: the state under test, and all items that it took.
struct Case {
    seed: u64,
    random: Random,
    rule: Arc<EpisodeRule>,
    cut: Cell,
    episodes: Episodes,
    items: BTreeMap<OracleItem, u64>,
    /// What was before the rule, and the limit when that was said.
    known: Vec<Known>,
    told: BTreeMap<AlertId, Episode>,
    sealed: BTreeSet<AlertId>,
    limit: Cell,
    newest: Cell,
    horizon: Option<Cell>,
    hits_from: Cell,
    sealed_by_old_rules: Vec<Episode>,
}

impl Case {
    fn new(seed: u64) -> Case {
        let mut random = Random(seed);
        let references = random.within(1, 3);
        let rule = rule(random_predicate(&mut random), references, random.one_of(&[0, 1, 2, 3, 5]));
        let cut = (rule.timespan * random.one_of(&[2, 4])).max(2);
        let horizon = random.one_of(&[None, Some(1), Some(4), Some(10), Some(25)]);
        let limit = horizon.map_or(Cell::MIN, |_| 0);
        let rule = Arc::new(rule);
        Case {
            seed,
            episodes: Episodes::new(key(), Arc::clone(&rule), limit).with_cut(cut),
            rule,
            cut,
            random,
            items: BTreeMap::new(),
            known: Vec::new(),
            told: BTreeMap::new(),
            sealed: BTreeSet::new(),
            limit,
            newest: 0,
            horizon,
            hits_from: Cell::MIN,
            sealed_by_old_rules: Vec::new(),
        }
    }

    fn run(&mut self, seen: &mut Seen) {
        for _ in 0..self.random.within(5, 30) {
            let late = self.random.within(0, 19) == 0;
            if late && self.random.within(0, 3) == 0 {
                self.change_rule();
                seen.note("rule changed", true);
            }
            let mut updates = self.insert(late);
            updates.extend(self.take_back());
            if self.random.within(0, 5) == 0 {
                self.remember(seen);
            }
            self.apply(updates, seen);
            if let Some(horizon) = self.horizon {
                self.advance(self.newest - horizon, seen);
            }
        }
        if self.horizon.is_some() {
            self.advance(self.newest + 1_000, seen);
            assert!(self.episodes.is_empty(), "seed {}: something is kept for ever", self.seed);
            assert_eq!(self.episodes.due(), None);
        }
    }

    /// Some items around the present, or anywhere above the limit.
    fn insert(&mut self, anywhere: bool) -> Vec<Update> {
        let mut updates = Vec::new();
        for _ in 0..self.random.within(0, if anywhere { 8 } else { 4 }) {
            let back = if anywhere { 60 } else { self.horizon.unwrap_or(12) };
            let cell = self.random.within(self.newest - back, self.newest + 2);
            if cell < self.limit {
                continue;
            }
            let item = OracleItem {
                cell,
                reference: u16::try_from(self.random.within(0, 3)).unwrap(), // one that the rule does not have, too
                value: self.random.one_of(&VALUES).map(Arc::from),
            };
            let diff = self.random.within(1, 2);
            *self.items.entry(item.clone()).or_default() += diff.unsigned_abs();
            updates.push(update(item, diff));
            self.newest = self.newest.max(cell);
        }
        updates
    }

    /// What a look-up found: anywhere, below the limit too.
    fn remember(&mut self, seen: &mut Seen) {
        for _ in 0..self.random.within(1, 4) {
            let cell = self.random.within(self.newest - 40, self.newest + 2);
            let value = self.random.one_of(&VALUES).map(Arc::from);
            let count = self.random.within(1, 3).unsigned_abs();
            assert_eq!(self.episodes.remember(cell, value.as_ref(), count), 0);
            seen.note("remembered below the limit", self.rule.remembers() && cell < self.limit);
            if self.rule.remembers() {
                self.known.push((OracleItem { cell, reference: 0, value }, count, self.limit));
            }
        }
    }

    /// Some of the items above the limit, those of this epoch too.
    fn take_back(&mut self) -> Vec<Update> {
        let mut updates = Vec::new();
        let often = self.random.one_of(&[4, 25, 1_000]);
        for (item, count) in self.items.iter_mut().filter(|(item, count)| item.cell >= self.limit && **count > 0) {
            if self.random.within(0, often) == 0 {
                *count -= 1;
                updates.push(update(item.clone(), -1));
            }
        }
        updates
    }

    fn apply(&mut self, mut updates: Vec<Update>, seen: &mut Seen) {
        let before = self.told.clone();
        let mut diff = Diff::default();
        self.episodes.apply(&mut updates, &mut diff);
        assert_eq!(diff.sealed, [], "seed {}", self.seed);
        for episode in &diff.removed {
            assert_eq!(self.told.remove(&episode.id()).as_ref(), Some(episode), "seed {}", self.seed);
            assert!(!self.sealed.contains(&episode.id()), "seed {}: what is final went", self.seed);
        }
        for episode in &diff.added {
            assert_eq!(self.told.insert(episode.id(), episode.clone()), None, "seed {}", self.seed);
        }
        // What is sealed takes no part. It can overlap with others only where it went by an old rule.
        let open = |told: &BTreeMap<AlertId, Episode>| -> BTreeMap<AlertId, Episode> {
            told.iter().filter(|(id, _)| !self.sealed.contains(*id)).map(|(id, told)| (*id, told.clone())).collect()
        };
        check_lineage(self.seed, &open(&before), &open(&self.told), &diff.lineage, seen);
        self.compare(seen);
    }

    fn advance(&mut self, limit: Cell, seen: &mut Seen) {
        self.limit = self.limit.max(limit);
        let mut diff = Diff::default();
        self.episodes.advance(limit, &mut diff);
        assert_eq!((diff.removed, diff.added, diff.lineage), Default::default(), "seed {}", self.seed);
        for id in diff.sealed {
            assert!(self.sealed.insert(id), "seed {}: sealed twice", self.seed);
        }
        assert!(self.episodes.due().is_none_or(|due| due > self.limit), "seed {}", self.seed);
        self.compare(seen);
    }

    /// What was told so far is what the definitions give, and what is final is said to be.
    fn compare(&self, seen: &mut Seen) {
        let want = self.want();
        let told: Vec<&Episode> = self.told.values().collect();
        let mut episodes: Vec<&Episode> =
            want.iter().map(|want| &want.episode).chain(&self.sealed_by_old_rules).collect();
        episodes.sort_by_key(|episode| episode.id());
        assert_eq!(told, episodes, "seed {}", self.seed);
        let is_final = want.iter().filter(|want| want.final_above < self.limit).map(|want| want.episode.id());
        let is_final: BTreeSet<AlertId> = is_final.chain(self.sealed_by_old_rules.iter().map(Episode::id)).collect();
        assert_eq!(self.sealed, is_final, "seed {}", self.seed);
        let last = want.last().map(|want| &want.episode);
        seen.note("cut", last.is_some_and(|last| last.kind == cf_types::AnchorKind::Cut));
        seen.note("long", last.is_some_and(|last| last.last_cell - last.anchor > 4 * self.rule.timespan));
        let open = last.filter(|last| !self.sealed.contains(&last.id()));
        seen.note("prefix", open.is_some_and(|open| open.anchor < self.limit.saturating_sub(self.rule.timespan)));
        seen.note("many", want.len() > 3);
        seen.note(kind_of(&self.rule.predicate), !want.is_empty());
    }

    fn want(&self) -> Vec<OracleEpisode> {
        let items: Vec<_> = self.items.iter().map(|(item, count)| (item.clone(), *count)).collect();
        oracle_remembering(&key(), &self.rule, self.cut, self.hits_from, &items, &self.known)
    }

    /// The items that the new rule sees are those the old one needed; what was sealed by the old one stays.
    fn change_rule(&mut self) {
        let references = i64::try_from(self.rule.references.len()).unwrap();
        let timespan = self.random.one_of(&[0, 1, 2, 3, 5]);
        let changed = rule(random_predicate(&mut self.random), references, timespan);
        if !self.rule.can_serve(&changed) {
            return;
        }
        self.episodes.set_rule(Arc::new(changed.clone()));
        if (changed.timespan, &changed.predicate) != (self.rule.timespan, &self.rule.predicate) {
            self.sealed_by_old_rules =
                self.told.values().filter(|told| self.sealed.contains(&told.id())).cloned().collect();
            self.hits_from = self.limit;
            let seen_from = self.limit.saturating_sub(self.rule.reach());
            self.items.retain(|item, _| item.cell >= seen_from);
            self.cut = changed.timespan * 4 + 1;
            self.episodes.cut = self.cut;
        }
        self.rule = Arc::new(changed);
    }
}

fn check_lineage(
    seed: u64,
    before: &BTreeMap<AlertId, Episode>,
    after: &BTreeMap<AlertId, Episode>,
    lineage: &[Lineage],
    seen: &mut Seen,
) {
    let overlap = |a: &Episode, b: &Episode| a.anchor <= b.last_cell && b.anchor <= a.last_cell;
    let mut said: BTreeMap<AlertId, AlertId> = BTreeMap::new(); // by the id that changed
    let mut targets = BTreeSet::new();
    for row in lineage {
        let (changed, old, new) = match row {
            Lineage::SupersededBy { old, new } => (*old, *old, *new),
            Lineage::SplitFrom { old, new } => (*new, *old, *new),
            other => panic!("seed {seed}: {other:?}"),
        };
        assert!(overlap(&before[&old], &after[&new]), "seed {seed}: {row:?}");
        assert_eq!(said.insert(changed, old), None, "seed {seed}: said twice: {row:?}");
        if changed == old {
            assert!(!after.contains_key(&old), "seed {seed}: {row:?}");
            targets.insert(new);
        } else {
            assert!(!before.contains_key(&new) && !targets.contains(&new), "seed {seed}: {row:?}");
        }
        seen.note("superseded", changed == old);
        seen.note("split", changed != old);
    }
    for (id, went) in before.iter().filter(|(id, _)| !after.contains_key(*id)) {
        assert_eq!(said.contains_key(id), after.values().any(|now| overlap(went, now)), "seed {seed}: {went:?}");
    }
    for (id, came) in after.iter().filter(|(id, _)| !before.contains_key(*id) && !targets.contains(*id)) {
        assert_eq!(said.contains_key(id), before.values().any(|was| overlap(came, was)), "seed {seed}: {came:?}");
    }
}

fn random_predicate(random: &mut Random) -> Predicate {
    some_predicate(&mut |n| random.draw() % n)
}

fn rule(predicate: Predicate, references: i64, timespan: Cell) -> EpisodeRule {
    EpisodeRule {
        id: Arc::from("rule"),
        title: Arc::from("Rule"),
        level: Level::High,
        tags: Arc::from([]),
        references: (0..references).map(|n| Arc::from(format!("reference {n}"))).collect(),
        timespan,
        predicate,
        alerts: true,
        chained: Vec::new(),
    }
}

fn key() -> EpisodeKey {
    EpisodeKey { tenant: Tenant::default(), rule: Arc::from("rule"), group: Group::new([]) }
}

fn update(item: OracleItem, diff: i64) -> Update {
    Update { cell: item.cell, reference: item.reference, value: item.value, diff }
}

/// `60F` is a failure (reference 0) at second 60, `S` a success (reference 1), any small letter a value of reference 0.
/// One word is one epoch. Gives `anchor-last xcount` for each episode.
#[track_caller]
fn check(predicate: Predicate, references: i64, events: &str, want: &str) {
    let mut episodes = Episodes::new(key(), Arc::new(rule(predicate, references, 300)), Cell::MIN);
    let mut told = BTreeSet::new();
    for event in events.split_whitespace() {
        let (cell, letter) = event.split_at(event.len() - 1);
        let item = OracleItem {
            cell: cell.parse().unwrap(),
            reference: u16::from(letter == "S"),
            value: Some(Arc::from(letter)),
        };
        let mut diff = Diff::default();
        episodes.apply(&mut vec![update(item, 1)], &mut diff);
        diff.removed.iter().for_each(|episode| assert!(told.remove(episode)));
        told.extend(diff.added);
    }
    let mut lines: Vec<_> =
        told.iter().map(|e| (e.anchor, format!("{}-{} x{}", e.anchor, e.last_cell, e.count))).collect();
    lines.sort();
    let got: Vec<String> = lines.into_iter().map(|(_, line)| line).collect();
    assert_eq!(got.join(", "), want);
}

#[test]
fn three_failures_count_by_event_time() {
    let check = |events, want| check(Predicate::EventCount(Condition::at_least(3)), 1, events, want);
    check("120F 400F 60F", ""); // 60 and 400 are not within five minutes
    check("300F 590F 10F", "");
    check("0F 10F 400F 20F", "0-20 x3"); // the late one completes
    check("0F 60F 86460F 120F", "0-120 x3"); // one a day ahead hinders nothing
    check("0F 150F 300F", "0-300 x3"); // exactly five minutes apart is together
    check("0F 150F 301F", "");
    check("0F 1F 2F 300F 600F", "0-300 x4"); // the chain goes on while the window is a hit
}

#[test]
fn a_failure_then_a_success_is_in_order_by_event_time() {
    let check = |events, want| check(Predicate::TemporalOrdered, 2, events, want);
    check("400S 0F", ""); // more than five minutes
    check("200S 0F", "0-200 x2"); // the failure arrives late
    check("0S 100F", "");
    check("7F 7S", "7-7 x2"); // the same second counts as in order
    check("0F 10S 20F 30S", "0-30 x4"); // one episode, not three alerts
}

#[test]
fn both_in_any_order_is_temporal() {
    check(Predicate::Temporal, 2, "0S 100F", "0-100 x2");
    check(Predicate::Temporal, 2, "0S 301F", "");
}

#[test]
fn three_distinct_values_count_once_each() {
    let check = |events, want| check(Predicate::ValueCount(Condition::at_least(3)), 1, events, want);
    check("0a 10b 20a 30b", "");
    check("0a 10b 20a 30c", "0-30 x4");
    check("0a 10b 301c", "");
    check("0a 10b 300c", "0-300 x3");
}

#[test]
fn an_endless_run_is_cut_and_a_short_one_over_midnight_is_not() {
    let day = 86_400;
    let mut episodes =
        Episodes::new(key(), Arc::new(rule(Predicate::EventCount(Condition::at_least(1)), 1, 300)), Cell::MIN);
    let mut told = BTreeSet::new();
    for cell in (day - 200..4 * day).step_by(200) {
        let mut diff = Diff::default();
        let item = OracleItem { cell, reference: 0, value: None };
        episodes.apply(&mut vec![update(item, 1)], &mut diff);
        diff.removed.iter().for_each(|episode| assert!(told.remove(episode)));
        told.extend(diff.added);
    }
    let mut extents: Vec<_> = told.iter().map(|episode| (episode.anchor, episode.last_cell, episode.count)).collect();
    extents.sort_unstable();
    assert_eq!(extents, [(day - 200, 2 * day - 1, 433), (2 * day, 3 * day - 1, 432), (3 * day, 4 * day - 200, 432)]);
}

#[test]
fn a_rule_that_sees_other_items_is_not_served() {
    let at_least = |n| Predicate::EventCount(Condition::at_least(n));
    let can = |predicate, references| rule(at_least(1), 1, 300).can_serve(&rule(predicate, references, 60));
    assert!(can(at_least(5), 1));
    assert!(!can(at_least(1), 2));
    assert!(!can(Predicate::ValueCount(Condition::at_least(1)), 1));
    let seen = |memory, known_min| rule(Predicate::FirstSeen { memory, known_min }, 1, 60);
    assert!(seen(90, 1).can_serve(&seen(90, 5)));
    assert!(!seen(90, 1).can_serve(&seen(91, 1)), "what was forgotten does not come back");
}

fn fixed(text: &str) -> Fixed {
    Fixed::parse(text).unwrap()
}

/// `10=2.5` is an item of value 2.5 at second 10; the rest is as in [`check`].
#[track_caller]
fn check_values(predicate: Predicate, events: &str, want: &str) {
    let mut episodes = Episodes::new(key(), Arc::new(rule(predicate, 1, 300)), Cell::MIN);
    let mut told = BTreeSet::new();
    for event in events.split_whitespace() {
        let (cell, value) = event.split_once('=').unwrap();
        let item = OracleItem { cell: cell.parse().unwrap(), reference: 0, value: Some(Arc::from(value)) };
        let mut diff = Diff::default();
        episodes.apply(&mut vec![update(item, 1)], &mut diff);
        diff.removed.iter().for_each(|episode| assert!(told.remove(episode)));
        told.extend(diff.added);
    }
    let got: Vec<_> = told.iter().map(|e| format!("{}-{} x{} ^{}", e.anchor, e.last_cell, e.count, e.peak)).collect();
    assert_eq!(got.join(", "), want);
}

#[test]
fn sums_and_averages_are_exact() {
    let more = |bound| Condition { gt: Some(fixed(bound)), ..Condition::default() };
    check_values(Predicate::Sum(more("0.3")), "0=0.1 1=0.2", ""); // a float would say 0.30000000000000004
    check_values(Predicate::Sum(more("0.3")), "0=0.1 1=0.2 2=0.000000001", "0-2 x3 ^0");
    check_values(Predicate::Sum(more("10")), "0=8 301=8", "");
    check_values(Predicate::Sum(more("10")), "0=8 300=8 5=x 6=1e1", "0-300 x3 ^26");
    check_values(Predicate::Average(more("2")), "0=1 1=3", "");
    check_values(Predicate::Average(more("2")), "0=1 1=3 2=2.000000001", "0-2 x3 ^2");
    let third = Condition { eq: Some(fixed("0.333333333")), ..Condition::default() };
    check_values(Predicate::Average(third), "0=1 1=0 2=0", "");
}

#[test]
fn a_percentile_is_the_value_of_the_nearest_rank() {
    let at = |percent, gte| Predicate::Percentile {
        percent,
        condition: Condition { gte: Some(fixed(gte)), ..Condition::default() },
    };
    check_values(at(50, "2"), "0=1 1=2", ""); // of two, the first
    check_values(at(50, "2"), "0=1 1=2 2=3", "0-2 x3 ^2");
    check_values(at(0, "2"), "0=2 1=1", "0-0 x1 ^2");
    check_values(at(100, "9"), "0=1 1=9", "0-1 x2 ^9");
    let nineteen: String = (0..19).map(|n| format!("{n}=1 ")).collect();
    check_values(at(95, "5"), &format!("{nineteen}19=7"), ""); // rank 19 of 20
    check_values(at(95, "5"), &format!("{nineteen}19=7 20=7"), "0-20 x21 ^7"); // rank 20 of 21
}

#[test]
fn what_does_not_follow_in_time_is_absent() {
    let check = |events, want| check(Predicate::Absence, 2, events, want);
    check("0F", "0-300 x1"); // told where the time is over
    check("0F 300S", "");
    check("0F 301S", "0-300 x1");
    check("7S 7F", ""); // the same second counts as after
    check("6S 7F", "7-307 x1");
    check("0F 100F 250S", "");
    check("0F 100F 350S", "0-300 x2"); // the first is not answered, the second is
    check("0F 100F", "0-400 x2");
}

#[test]
fn formulas_say_which_rules_are_there() {
    let (first, second) = (Presence::Reference(0), Presence::Reference(1));
    let without = Presence::All(vec![first, Presence::Not(Box::new(second))]);
    check(Predicate::Presence(without.clone()), 2, "0S 300F 301F", "300-301 x2");
    check(Predicate::Presence(without), 2, "0S 300F", "");
}

#[test]
fn a_new_value_is_one_that_the_memory_does_not_have() {
    let seen = |known_min| Predicate::FirstSeen { memory: 1_000, known_min };
    check_values(seen(1), "0=de 10=fr", "10-10 x1 ^1"); // nothing is known before the first
    check_values(seen(0), "0=de", "0-0 x1 ^1");
    check_values(seen(1), "0=de 1000=de 2001=de", "");
    check_values(seen(1), "0=de 500=fr 1001=de", "500-500 x1 ^1, 1001-1001 x1 ^1");
    check_values(seen(2), "0=de 10=fr 20=it", "20-20 x1 ^1");
    check_values(seen(1), "0=de 400=fr 300=fr", "300-300 x1 ^1"); // it was seen earlier, as it turns out
}

#[test]
fn a_rate_is_told_against_the_time_before() {
    let rate = Predicate::Rate {
        memory: 6_000,
        grid: 100,
        age_min: 3_000,
        count_min: 3,
        times: Condition { gte: Some(fixed("2")), ..Condition::default() },
    };
    // One every 300 s for 6,000 s: a window of 301 s has one. Two more within a minute are three times the mean.
    let quiet: String = (0..=20).map(|n| format!("{}=- ", n * 300)).collect();
    check_values(rate.clone(), &quiet, "");
    check_values(rate.clone(), &format!("{quiet}6010=- 6020=-"), "6000-6020 x3 ^3");
    // Known for too short a time.
    check_values(rate, "0=- 1000=- 1010=- 1020=- 1030=-", "");
}

#[test]
fn items_without_room_for_their_values_are_refused_and_told() {
    let distinct = Predicate::ValueCount(Condition::at_least(3));
    let new = || Episodes::new(key(), Arc::new(rule(distinct.clone(), 1, 10)), 0).with_values_max(4);
    let item = |cell, value: &str| update(OracleItem { cell, reference: 0, value: Some(Arc::from(value)) }, 1);
    let mut episodes = new();
    let mut diff = Diff::default();
    let mut updates: Vec<_> = "abcdef".chars().map(|c| item(5, &c.to_string())).collect();
    updates.push(item(5, "a"));
    episodes.apply(&mut updates, &mut diff);
    assert_eq!(diff.over_budget, [OverBudget { key: key(), cell: 5, items: 2 }]);
    assert_eq!((diff.added.len(), diff.added[0].count, diff.added[0].peak), (1, 5, 4));
    // Room comes back with the limit.
    let mut diff = Diff::default();
    episodes.advance(100, &mut diff);
    episodes.apply(&mut vec![item(101, "g")], &mut diff);
    assert_eq!(diff.over_budget, []);
}
