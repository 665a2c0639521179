//! The operator under timely: after every epoch the collection is what the definitions give, for any number of
//! workers, any spread of the items over them, and any number of epochs in flight.

// Helpers of tests are tests: what fails here fails the run.
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout, clippy::as_conversions, clippy::string_slice)]
#![allow(clippy::clone_on_ref_ptr, clippy::too_many_arguments, clippy::needless_lifetimes, clippy::indexing_slicing)]

#[path = "../episode/oracle.rs"]
mod oracle;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use cf_dataflows::correlate::{CellItem, Correlated, Limit, Refused, correlate};
use cf_types::{
    AlertId, Cell, Condition, Episode, EpisodeKey, EpisodeRule, Epoch, Group, Level, Lineage, Predicate, Tenant,
    random::Random,
};
use differential_dataflow::input::InputSession;
use oracle::{KINDS, OracleItem, VALUES, kind_of, oracle, some_predicate};
use timely::dataflow::{
    InputHandle, ProbeHandle, StreamVec,
    channels::pact::Pipeline,
    operators::{Input as _, Probe, generic::Operator},
};

/// What happens in one epoch.
#[derive(Clone, Debug, Default)]
struct Step {
    rules: Option<Arc<Vec<Arc<EpisodeRule>>>>,
    items: Vec<(CellItem, isize)>,
    limit: Option<Cell>,
}

/// What comes out, consolidated and sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Got {
    episodes: BTreeMap<Epoch, BTreeMap<Episode, isize>>,
    lineage: BTreeSet<(Epoch, Lineage)>,
    refused: BTreeSet<(Epoch, CellItem)>,
}

impl Got {
    /// The collection as it stands after an epoch.
    fn at(&self, epoch: Epoch) -> BTreeSet<Episode> {
        let mut at: BTreeMap<&Episode, isize> = BTreeMap::new();
        for (episode, diff) in self.episodes.range(..=epoch).flat_map(|(_, changes)| changes) {
            *at.entry(episode).or_default() += diff;
        }
        at.retain(|_, count| *count != 0);
        assert!(at.values().all(|count| *count == 1), "an episode stands once or not at all");
        at.into_keys().cloned().collect()
    }

    fn sealed_until(&self, epoch: Epoch) -> BTreeSet<AlertId> {
        let until = self.lineage.iter().filter(|(at, _)| *at <= epoch);
        until.filter_map(|(_, row)| if let Lineage::Sealed(id) = row { Some(*id) } else { None }).collect()
    }

    fn refused_at(&self, epoch: Epoch) -> Vec<Cell> {
        self.refused.iter().filter(|(at, _)| *at == epoch).map(|(_, item)| item.cell).collect()
    }
}

/// Runs the steps as epochs 1, 2, ...; `in_flight` epochs are fed before the workers look at them.
fn run(steps: &[Step], workers: usize, in_flight: u64) -> Got {
    let got = Arc::new(Mutex::new(Got::default()));
    let steps: Arc<[Step]> = steps.into();
    let (outer, config) = (Arc::clone(&got), timely::Config::process(workers));
    let guards = timely::execute(config, move |worker| {
        let probe = ProbeHandle::new();
        let mut items = InputSession::<Epoch, CellItem, isize>::new();
        let (mut rules, mut limits) = worker.dataflow::<Epoch, _, _>(|scope| {
            let (rules, rule_sets) = scope.new_input();
            let (limits, limit_stream) = scope.new_input();
            let Correlated { episodes, lineage, refused, .. } =
                correlate(items.to_collection(scope), rule_sets, limit_stream);
            let sink = Arc::clone(&outer);
            record(episodes.inner, move |_, (episode, epoch, diff)| {
                let mut sink = sink.lock().unwrap();
                *sink.episodes.entry(epoch).or_default().entry(episode).or_default() += diff;
            })
            .probe_with(&probe);
            let sink = Arc::clone(&outer);
            record(lineage, move |epoch, row| assert!(sink.lock().unwrap().lineage.insert((epoch, row))))
                .probe_with(&probe);
            let sink = Arc::clone(&outer);
            record(refused, move |epoch, refused| {
                let Refused::BelowLimit(item) = refused else { panic!("{refused:?}") };
                assert!(sink.lock().unwrap().refused.insert((epoch, item)));
            })
            .probe_with(&probe);
            (rules, limits)
        });
        for (epoch, step) in (1..).zip(steps.iter()) {
            items.advance_to(epoch);
            rules.advance_to(epoch);
            limits.advance_to(epoch);
            rules.send_batch(&mut step.rules.iter().cloned().collect());
            limits.send_batch(&mut step.limit.into_iter().map(Limit).collect());
            let mine = step.items.iter().enumerate().filter(|(index, _)| index % worker.peers() == worker.index());
            mine.for_each(|(_, (item, diff))| items.update(item.clone(), *diff));
            items.flush();
            while probe.less_than(&epoch.saturating_sub(in_flight)) {
                worker.step_or_park(None);
            }
        }
    });
    guards.unwrap().join().into_iter().for_each(|result| result.unwrap());
    let mut got = Arc::try_unwrap(got).unwrap().into_inner().unwrap();
    got.episodes.values_mut().for_each(|changes| changes.retain(|_, diff| *diff != 0));
    got.episodes.retain(|_, changes| !changes.is_empty());
    got
}

/// Hands each record and its epoch to `sink`.
fn record<'scope, D: Clone + 'static>(
    stream: StreamVec<'scope, Epoch, D>,
    mut sink: impl FnMut(Epoch, D) + 'static,
) -> StreamVec<'scope, Epoch, D> {
    stream.unary(Pipeline, "Record", move |_, _| {
        move |input, output| {
            input.for_each_stamp(|stamp, batches| {
                let epoch = *stamp.least().unwrap();
                for batch in batches {
                    batch.iter().for_each(|record| sink(epoch, record.clone()));
                    output.session(&stamp).give_container(batch);
                }
            });
        }
    })
}

/// What the definitions give for the items that were not refused.
fn want(
    rules: &[Arc<EpisodeRule>],
    items: &BTreeMap<CellItem, isize>,
    limit: Cell,
) -> (BTreeSet<Episode>, BTreeSet<AlertId>) {
    let mut keys: BTreeMap<&EpisodeKey, Vec<(OracleItem, u64)>> = BTreeMap::new();
    for (item, count) in items {
        let CellItem { cell, reference, value, .. } = item.clone();
        keys.entry(&item.key)
            .or_default()
            .push((OracleItem { cell, reference, value }, u64::try_from(*count).unwrap()));
    }
    let mut episodes = BTreeSet::new();
    let mut sealed = BTreeSet::new();
    for (key, items) in keys {
        let rule = rules.iter().find(|rule| rule.id == key.rule).unwrap();
        for found in oracle(key, rule, rule.cut(), Cell::MIN, &items) {
            if found.final_above < limit {
                sealed.insert(found.episode.id());
            }
            episodes.insert(found.episode);
        }
    }
    (episodes, sealed)
}

/// Runs with 1, 2 and 4 workers and compares with the definitions after every epoch.
#[track_caller]
fn check(name: &str, rules: &[Arc<EpisodeRule>], steps: &[Step]) -> Got {
    let got = run(steps, 1, 0);
    for (workers, in_flight) in [(1, 100), (2, 3), (4, 0)] {
        assert_eq!(run(steps, workers, in_flight), got, "{name}: {workers} workers");
    }
    let mut items: BTreeMap<CellItem, isize> = BTreeMap::new();
    let mut limit = Cell::MIN;
    for (epoch, step) in (1..).zip(steps) {
        let (kept, late): (Vec<_>, Vec<_>) = step.items.iter().partition(|(item, _)| item.cell >= limit);
        kept.into_iter().for_each(|(item, diff)| *items.entry(item.clone()).or_default() += diff);
        let late: BTreeSet<_> = late.into_iter().map(|(item, _)| (epoch, item.clone())).collect();
        let refused: BTreeSet<_> = got.refused.iter().filter(|(at, _)| *at == epoch).cloned().collect();
        assert_eq!(refused, late, "{name}: epoch {epoch}");
        limit = limit.max(step.limit.unwrap_or(Cell::MIN));
        let (episodes, sealed) = want(rules, &items, limit);
        assert_eq!(got.at(epoch), episodes, "{name}: epoch {epoch}");
        assert_eq!(got.sealed_until(epoch), sealed, "{name}: epoch {epoch}");
    }
    got
}

fn rule(id: &str, predicate: Predicate, references: usize, timespan: Cell) -> Arc<EpisodeRule> {
    Arc::new(EpisodeRule {
        id: Arc::from(id),
        title: Arc::from("Rule"),
        level: Level::High,
        tags: Arc::from([]),
        references: (0..references).map(|n| Arc::from(format!("reference {n}"))).collect(),
        timespan,
        predicate,
        alerts: true,
        chained: Vec::new(),
    })
}

fn item(rule: &str, host: &str, cell: Cell) -> CellItem {
    let group = Group::new([(Arc::from("host"), Arc::from(host))]);
    let key = EpisodeKey { tenant: Tenant::default(), rule: Arc::from(rule), group };
    CellItem { key, cell, reference: 0, value: None }
}

fn at_least(n: u64) -> Predicate {
    Predicate::EventCount(Condition::at_least(n))
}

fn four_rules() -> Vec<Arc<EpisodeRule>> {
    let few = Condition { lt: Some(4), ..Condition::default() };
    vec![
        rule("count", at_least(3), 1, 5),
        rule("values", Predicate::ValueCount(few), 1, 8),
        rule("ordered", Predicate::TemporalOrdered, 3, 10),
        rule("together", Predicate::Temporal, 2, 3),
    ]
}

/// A rule of each kind, with random bounds and windows.
fn all_kinds(random: &mut Random) -> Vec<Arc<EpisodeRule>> {
    let mut rules = BTreeMap::new();
    while rules.len() < KINDS.len() {
        let predicate = some_predicate(&mut |n| random.number(n));
        let kind = kind_of(&predicate);
        let references = if matches!(predicate, Predicate::Absence) { 2 } else { 3 };
        rules.entry(kind).or_insert_with(|| rule(kind, predicate, references, random.within(0, 11)));
    }
    rules.into_values().collect()
}

fn random_item(random: &mut Random, rules: &[Arc<EpisodeRule>], cell: Cell) -> CellItem {
    let rule = &rules[random.below(rules.len())];
    let mut item = item(&rule.id, &format!("host {}", random.within(0, 5)), cell);
    item.reference = u16::try_from(random.below(rule.references.len())).unwrap();
    item.value = VALUES[random.below(7)].map(Arc::from);
    item
}

#[test]
fn random_streams_give_what_the_definitions_give_for_any_number_of_workers() {
    let cases = std::env::var("CORRELATE_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(12);
    let (mut refused, mut sealed, mut superseded) = (0, 0, 0);
    let mut kinds: BTreeMap<Arc<str>, usize> = BTreeMap::new();
    for seed in 0..cases {
        let mut random = Random(seed);
        // Half of the cases with a few rules, so that their items are dense.
        let rules = if seed % 2 == 0 { four_rules() } else { all_kinds(&mut random) };
        let mut steps = vec![Step { rules: Some(Arc::new(rules.clone())), ..Step::default() }];
        let mut items: BTreeMap<CellItem, isize> = BTreeMap::new();
        let mut limit = Cell::MIN;
        for epoch in 0..12 {
            let mut step = Step::default();
            let newest = epoch * 8;
            for _ in 0..random.within(0, 119) {
                let cell = newest + 8 - random.within(0, 44);
                let item = random_item(&mut random, &rules, cell);
                let diff = if random.within(0, 9) == 0 { 2 } else { 1 };
                if item.cell >= limit {
                    *items.entry(item.clone()).or_default() += diff;
                }
                step.items.push((item, diff));
            }
            for (item, count) in items.iter_mut().filter(|(item, count)| item.cell >= limit && **count > 0) {
                if random.within(0, 29) == 0 {
                    step.items.push((item.clone(), -*count));
                    *count = 0;
                }
            }
            if seed % 3 > 0 && random.within(0, 2) > 0 {
                let next = newest - 10 - random.within(0, 19); // may be lower than before
                step.limit = Some(next);
                limit = limit.max(next);
            }
            steps.push(step);
        }
        steps.push(Step { limit: (seed % 3 == 2).then_some(1_000), ..Step::default() });
        let got = check(&format!("seed {seed}"), &rules, &steps);
        refused += got.refused.len();
        sealed += got.sealed_until(Epoch::MAX).len();
        superseded += got.lineage.iter().filter(|(_, row)| matches!(row, Lineage::SupersededBy { .. })).count();
        got.at(Epoch::MAX).into_iter().for_each(|episode| *kinds.entry(episode.key.rule).or_default() += 1);
    }
    for kind in KINDS {
        assert!(kinds.contains_key(kind), "no episode of {kind}: {kinds:?}");
    }
    assert!(refused > 20 && sealed > 300 && superseded > 100, "{refused} {sealed} {superseded}");
}

#[test]
fn the_same_items_in_any_order_and_epochs_give_the_same_episodes() {
    let rules = four_rules();
    let mut random = Random(7);
    let items: Vec<_> = (0..1_500).map(|_| random.within(0, 399)).collect();
    let mut items: Vec<_> = items.into_iter().map(|cell| (random_item(&mut random, &rules, cell), 1)).collect();
    let mut results = BTreeSet::new();
    for epochs in [1, 7, 40] {
        for at in (1..items.len()).rev() {
            items.swap(at, random.below(at + 1));
        }
        let mut steps: Vec<Step> = items
            .chunks(items.len().div_ceil(epochs))
            .map(|items| Step { items: items.to_vec(), ..Step::default() })
            .collect();
        steps[0].rules = Some(Arc::new(rules.clone()));
        results.insert(check(&format!("{epochs} epochs"), &rules, &steps).at(Epoch::MAX));
    }
    assert_eq!(results.len(), 1);
    assert!(results.first().unwrap().len() > 50);
}

#[test]
fn long_runs_are_cut_alike_in_any_order() {
    // A day and a half between cuts of 120,000 s, hits every 8,000 s on average, and a key of 3,000 seconds in a row.
    let rules = vec![rule("slow", at_least(2), 1, 30_000), rule("dense", at_least(3), 1, 100)];
    let mut random = Random(3);
    let mut items: Vec<_> = (0..80).map(|_| (item("slow", "a", random.within(0, 639_999)), 1)).collect();
    items.extend((0..3_000).map(|cell| (item("dense", "a", cell + i64::from(cell > 2_000) * 150), 1)));
    for at in (1..items.len()).rev() {
        items.swap(at, random.below(at + 1));
    }
    let mut steps: Vec<Step> =
        items.chunks(400).map(|items| Step { items: items.to_vec(), ..Step::default() }).collect();
    steps[0].rules = Some(Arc::new(rules.clone()));
    steps.push(Step { items: vec![(item("dense", "a", 2_050), 1), (item("dense", "a", 2_100), 1)], ..Step::default() });
    let got = check("cuts", &rules, &steps);
    let of = |rule: &str| got.at(Epoch::MAX).into_iter().filter(|episode| &*episode.key.rule == rule).count();
    assert!(of("slow") > 3, "{}", of("slow"));
    assert_eq!(of("dense"), 1); // the last two joined both parts
    assert!(got.lineage.iter().any(|(epoch, row)| {
        *epoch == Epoch::try_from(steps.len()).unwrap() && matches!(row, Lineage::SupersededBy { .. })
    }));
}

#[test]
fn a_limit_holds_from_the_next_epoch_on() {
    let rules = vec![rule("count", at_least(2), 1, 10)];
    let steps = [
        Step { rules: Some(Arc::new(rules.clone())), items: vec![(item("count", "a", 100), 1)], limit: None },
        // In the epoch of the limit the item below it is still taken; the episode is sealed at once.
        Step { rules: None, items: vec![(item("count", "a", 95), 1)], limit: Some(200) },
        Step { rules: None, items: vec![(item("count", "a", 199), 1), (item("count", "a", 200), 1)], limit: Some(150) },
        Step { rules: None, items: vec![(item("count", "a", 180), 1)], limit: None },
    ];
    let got = check("limit", &rules, &steps);
    assert_eq!(got.at(2).len(), 1);
    assert_eq!(got.sealed_until(2).len(), 1);
    assert_eq!((got.refused_at(2), got.refused_at(3), got.refused_at(4)), (vec![], vec![199], vec![180]));
}

#[test]
fn rules_come_change_and_go() {
    let set = |rules: &[Arc<EpisodeRule>]| Some(Arc::new(rules.to_vec()));
    let pair = |host: &str, cell| vec![(item("count", host, cell), 1), (item("count", host, cell + 4), 1)];
    let steps = [
        Step { items: pair("a", 10), ..Step::default() }, // no rule yet: dropped
        Step { rules: set(&[rule("count", at_least(2), 1, 5)]), items: pair("a", 20), limit: None },
        Step { items: pair("a", 50), limit: Some(40), ..Step::default() }, // seals the first
        Step { rules: set(&[rule("count", at_least(3), 1, 5)]), ..Step::default() }, // takes back the second
        Step { rules: set(&[rule("count", at_least(2), 1, 4)]), items: pair("b", 60), ..Step::default() },
        Step { rules: set(&[rule("count", at_least(2), 2, 4)]), items: pair("c", 70), ..Step::default() }, // begins empty
        Step { rules: set(&[]), items: pair("d", 80), ..Step::default() },
    ];
    let got = run(&steps, 1, 0);
    assert_eq!(run(&steps, 4, 2), got);
    let anchors = |epoch| got.at(epoch).iter().map(|episode| episode.anchor).collect::<Vec<_>>();
    let all: Vec<Vec<Cell>> = (1..=7).map(anchors).collect();
    let want: [&[Cell]; 7] = [&[], &[20], &[20, 50], &[20], &[20, 50, 60], &[20, 70], &[20]];
    assert_eq!(all, want);
    assert_eq!(got.sealed_until(Epoch::MAX).len(), 1);
}

#[test]
fn nothing_is_told_before_all_inputs_have_passed_the_epoch() {
    timely::execute_directly(|worker| {
        let probe = ProbeHandle::new();
        let seen = std::rc::Rc::new(std::cell::Cell::new(0));
        let mut items = InputSession::<Epoch, CellItem, isize>::new();
        let (mut rules, mut limits): (InputHandle<_, _>, InputHandle<_, _>) = worker.dataflow::<Epoch, _, _>(|scope| {
            let (rules, rule_sets) = scope.new_input();
            let (limits, limit_stream) = scope.new_input();
            let correlated = correlate(items.to_collection(scope), rule_sets, limit_stream);
            let count = std::rc::Rc::clone(&seen);
            record(correlated.episodes.inner, move |_, _| count.set(count.get() + 1)).probe_with(&probe);
            (rules, limits)
        });
        rules.send(Arc::new(vec![rule("count", at_least(1), 1, 5)]));
        limits.send(Limit(0));
        items.update(item("count", "a", 10), 1);
        let step = |worker: &mut timely::worker::Worker| {
            (0..20).for_each(|_| {
                worker.step();
            });
            (seen.get(), probe.less_than(&1))
        };
        items.advance_to(1);
        items.flush();
        assert_eq!(step(worker), (0, true));
        rules.advance_to(1);
        assert_eq!(step(worker), (0, true));
        limits.advance_to(1);
        assert_eq!(step(worker), (1, false));
    });
}
