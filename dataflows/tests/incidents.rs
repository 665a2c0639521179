//! Incidents against a from-scratch oracle after every epoch: random alerts that come, go, change and are sealed, hubs,
//! merges, splits, limits; 1, 2 and 4 workers.

// Helpers of tests are tests: what fails here fails the run.
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout, clippy::as_conversions, clippy::string_slice)]
#![allow(clippy::clone_on_ref_ptr, clippy::too_many_arguments, clippy::needless_lifetimes, clippy::indexing_slicing)]
#![allow(unreachable_pub)] // modules of a test

#[path = "../incident/oracle.rs"]
mod oracle;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use cf_dataflows::{
    IncidentOptions,
    incident::{Beside, incidents},
};
use cf_types::{
    Alert, AlertId, AlertState, Cell, Entity, EntityKind, Epoch, Group, Incident, Level, Score, Tenant,
    incident::{Day, day_of},
    random::Random,
};
use differential_dataflow::input::InputSession;
use timely::dataflow::{
    InputHandle, ProbeHandle,
    operators::{Input as _, vec::Broadcast},
};

const REACH: Cell = 600;

/// What happens in one epoch.
#[derive(Clone, Debug, Default)]
struct Step {
    changes: Vec<(Alert, isize)>,
    limit: Option<Cell>,
}

/// The incidents after each epoch.
fn run(steps: &[Step], options: &IncidentOptions, workers: usize) -> Vec<Vec<Incident>> {
    let changes = Arc::new(Mutex::new(BTreeMap::<Epoch, BTreeMap<Incident, isize>>::new()));
    let (steps, sink, options): (Arc<[Step]>, _, _) = (steps.into(), Arc::clone(&changes), options.clone());
    let count = steps.len();
    let guards = timely::execute(timely::Config::process(workers), move |worker| {
        let probe = ProbeHandle::new();
        let mut alerts = InputSession::<Epoch, Alert, isize>::new();
        let mut beside: InputHandle<Epoch, _> = worker.dataflow::<Epoch, _, _>(|scope| {
            let (beside, stream) = scope.new_input::<Vec<Beside>>();
            let sink = Arc::clone(&sink);
            incidents(alerts.to_collection(scope), stream.broadcast(), options.clone())
                .incidents
                .inspect(move |(incident, epoch, diff)| {
                    let mut sink = sink.lock().unwrap();
                    *sink.entry(*epoch).or_default().entry(incident.clone()).or_default() += diff;
                })
                .probe_with(&probe);
            beside
        });
        let (index, peers) = (worker.index(), worker.peers());
        for (epoch, step) in (1..).zip(steps.iter()) {
            alerts.advance_to(epoch);
            beside.advance_to(epoch);
            if index == 0 {
                if epoch == 1 {
                    beside.send(Beside::Reach(REACH));
                }
                step.limit.into_iter().for_each(|cell| beside.send(Beside::Limit(cell)));
            }
            let mine = step.changes.iter().enumerate().filter(|(at, _)| at % peers == index);
            mine.for_each(|(_, (alert, diff))| alerts.update(alert.clone(), *diff));
            alerts.flush();
            while probe.less_than(&epoch.saturating_sub(2)) {
                worker.step_or_park(None);
            }
        }
    });
    guards.unwrap().join().into_iter().for_each(|result| result.unwrap());
    let changes = changes.lock().unwrap();
    let mut present: BTreeMap<Incident, isize> = BTreeMap::new();
    let after = (1..=Epoch::try_from(count).unwrap()).map(|epoch| {
        for (incident, diff) in changes.get(&epoch).into_iter().flatten() {
            *present.entry(incident.clone()).or_default() += diff;
        }
        present.retain(|_, times| *times != 0);
        assert!(present.values().all(|times| *times == 1), "an incident is there once or not at all");
        present.keys().cloned().collect()
    });
    after.collect()
}

/// The same from scratch.
struct Expected {
    options: IncidentOptions,
    alerts: BTreeMap<AlertId, Alert>,
    closed: BTreeSet<AlertId>,
    limit: Cell,
    settled: BTreeMap<Day, BTreeMap<Entity, usize>>,
}

impl Expected {
    fn after(&mut self, step: &Step) -> Vec<Incident> {
        self.close();
        for (alert, diff) in step.changes.iter().filter(|(alert, diff)| *diff < 0 && alert.state == AlertState::Open) {
            assert!(self.alerts.remove(&alert.id).is_some(), "{diff}");
        }
        for (alert, _) in step.changes.iter().filter(|(_, diff)| *diff > 0) {
            self.alerts.insert(alert.id, alert.clone());
        }
        let now = self.now();
        self.limit = self.limit.max(step.limit.unwrap_or(Cell::MIN));
        now
    }

    fn now(&self) -> Vec<Incident> {
        let all: Vec<Alert> = self.alerts.values().cloned().collect();
        let degrees = oracle::neighbours(&all, &self.options);
        let degree = |entity: &Entity, day: Day| match self.settled.get(&day) {
            Some(settled) => settled.get(entity).copied().unwrap_or(0),
            None => degrees.get(&(entity.clone(), day)).copied().unwrap_or(0),
        };
        let there: Vec<Alert> = all.iter().filter(|alert| !self.closed.contains(&alert.id)).cloned().collect();
        oracle::incidents(&there, &self.options, &degree)
    }

    fn close(&mut self) {
        if self.limit == Cell::MIN {
            return;
        }
        for incident in self.now() {
            let sealed = incident.alerts.iter().all(|(_, id)| self.alerts[id].state == AlertState::Sealed);
            let last = incident.alerts.last().unwrap().0;
            if sealed && last + self.options.window < self.limit - REACH {
                self.closed.extend(incident.alerts.iter().map(|(_, id)| *id));
            }
        }
        let all: Vec<Alert> = self.alerts.values().cloned().collect();
        let degrees = oracle::neighbours(&all, &self.options);
        let over = day_of(self.limit - REACH);
        if self.settled.contains_key(&(over - 1)) {
            return;
        }
        for day in -1..over {
            let of = degrees.iter().filter(|((_, at), _)| *at == day);
            let degrees = of.map(|((entity, _), degree)| (entity.clone(), *degree)).collect();
            self.settled.entry(day).or_insert(degrees);
        }
        // Hubs of the day after that nobody asks for are forgotten once that day is over, too.
        let there: Vec<&Alert> = all.iter().filter(|alert| !self.closed.contains(&alert.id)).collect();
        for (day, degrees) in &mut self.settled {
            let after = *day + 1;
            degrees.retain(|entity, _| {
                let asks = |alert: &&Alert| day_of(alert.anchor) == after && alert.entities.contains(entity);
                after >= over || there.iter().any(asks)
            });
        }
    }
}

const TAGS: [&str; 6] =
    ["attack.initial-access", "attack.t1110", "attack.exfiltration", "attack.t1566.001", "incident.malware", "x.y"];

fn alert(random: &mut Random, number: u64, anchor: Cell) -> Alert {
    let mut entities = BTreeSet::new();
    for _ in 0..=random.number(3) {
        // A few names stand in many alerts: they become hubs, are bridges, end as such.
        let name = if random.number(2) == 0 { random.number(3) } else { 3 + random.number(12) };
        let kind =
            [EntityKind::Host, EntityKind::User, EntityKind::Process][usize::try_from(random.number(3)).unwrap()];
        entities.extend(Entity::of(kind, &format!("n{name}")));
    }
    let tags: Vec<Arc<str>> = TAGS.iter().filter(|_| random.number(4) == 0).map(|tag| Arc::from(*tag)).collect();
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.wrapping_mul(0x1234_5678_9abc_def1).to_le_bytes());
    Alert {
        tenant: Tenant::default(),
        id: AlertId(id),
        rule: "r".into(),
        title: "r".into(),
        level: Level::Medium,
        group: Group::default(),
        state: AlertState::Open,
        anchor,
        last_cell: anchor,
        count: 1,
        reference_counts: vec![1],
        peak: 1,
        score: Score::from_tenths(u16::try_from(random.number(101)).unwrap()),
        entities: entities.into_iter().collect(),
        tags: tags.into(),
    }
}

/// Alerts along some days; each may change, go or, once the limit is past it, be sealed and leave. With `limits`, what
/// comes lies at most [`REACH`] below the limit, but for a few born sealed.
fn steps(random: &mut Random, limits: bool) -> Vec<Step> {
    let (mut there, mut leaving): (Vec<Alert>, Vec<Alert>) = (Vec::new(), Vec::new());
    let (mut now, mut limit, mut number) = (40_000, Cell::MIN, 0);
    let mut steps = Vec::new();
    for _ in 0..40 {
        let mut step = Step::default();
        let (mut kept, mut sealing) = (Vec::new(), Vec::new());
        // They leave the graph, not their incidents.
        step.changes.extend(leaving.drain(..).map(|alert| (alert, -1)));
        for alert in there {
            match random.number(12) {
                0 => step.changes.push((alert, -1)),
                1 => {
                    let grown = Alert { count: alert.count + 1, ..alert.clone() };
                    step.changes.extend([(alert, -1), (grown.clone(), 1)]);
                    kept.push(grown);
                }
                2 => {
                    let scored = Alert { score: Score::from_tenths(99), ..alert.clone() };
                    step.changes.extend([(alert, -1), (scored.clone(), 1)]);
                    kept.push(scored);
                }
                _ if limits && alert.anchor < limit => {
                    let sealed = Alert { state: AlertState::Sealed, ..alert.clone() };
                    step.changes.extend([(alert, -1), (sealed.clone(), 1)]);
                    sealing.push(sealed);
                }
                _ => kept.push(alert),
            }
        }
        for _ in 0..1 + random.number(6) {
            let late = i64::try_from(random.number(90_000)).unwrap();
            let anchor = (now - late).max(if limits { limit.saturating_sub(REACH) } else { 0 });
            number += 1;
            let alert = alert(random, number, anchor);
            step.changes.push((alert.clone(), 1));
            kept.push(alert);
        }
        if limits && random.number(8) == 0 {
            number += 1;
            let late = Alert { state: AlertState::Sealed, ..alert(random, number, (now - 150_000).max(0)) };
            step.changes.push((late, 1));
        }
        now += i64::try_from(random.number(20_000)).unwrap();
        if limits {
            limit = limit.max(now - 30_000);
            step.limit = Some(limit);
        }
        there = kept;
        leaving = sealing;
        steps.push(step);
    }
    steps
}

fn check(seeds: std::ops::Range<u64>, limits: bool) {
    let (mut hubs, mut merged, mut split, mut closed) = (0, 0, 0, 0);
    for seed in seeds {
        let mut random = Random(seed);
        let host = |name| Entity::of(EntityKind::Host, name).unwrap();
        let options = IncidentOptions {
            window: [300, 4_000, 90_000][usize::try_from(random.number(3)).unwrap()],
            hub_neighbours_max: 2 + u32::try_from(random.number(4)).unwrap(),
            unlinked: Arc::new(BTreeSet::from([host("n9")])),
            ..IncidentOptions::default()
        };
        let steps = steps(&mut random, limits);
        let mut expected = Expected {
            options: options.clone(),
            alerts: BTreeMap::new(),
            closed: BTreeSet::new(),
            limit: Cell::MIN,
            settled: BTreeMap::new(),
        };
        let expect: Vec<_> = steps.iter().map(|step| expected.after(step)).collect();
        for workers in [1, 2, 4] {
            let got = run(&steps, &options, workers);
            for (epoch, (got, expect)) in (1..).zip(got.iter().zip(&expect)) {
                assert_eq!(got, expect, "seed {seed}, {workers} workers, epoch {epoch}");
            }
        }
        closed += expected.closed.len();
        for (before, after) in expect.iter().zip(&expect[1..]) {
            let of = |incident: &Incident| incident.alerts.iter().map(|(_, id)| *id).collect::<BTreeSet<_>>();
            let shares = |one: &Incident, other: &Incident| !of(one).is_disjoint(&of(other));
            merged += after.iter().filter(|now| before.iter().filter(|was| shares(now, was)).count() > 1).count();
            split += before.iter().filter(|was| after.iter().filter(|now| shares(now, was)).count() > 1).count();
            hubs += after.iter().filter(|incident| !incident.hubs.is_empty()).count();
        }
    }
    // Else the comparison would be of nothing with nothing.
    assert!(hubs > 50 && merged > 20 && split > 5, "{hubs} hubs, {merged} merged, {split} split");
    assert_eq!(limits, closed > 20, "{closed} alerts of closed incidents");
}

#[test]
fn incidents_equal_the_oracle_after_every_epoch() {
    check(0..20, false);
}

#[test]
fn incidents_close_as_a_whole_and_hubs_settle() {
    check(1_000..1_020, true);
}
