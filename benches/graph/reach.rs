//! Risk and blast radius of a large site while facts change: the same as a search from scratch, for how much less work.
//!
//! `graph-reach [--entities 1000000] [--edges 2000000] [--roots 1000] [--changes 10000] [--epochs 20] [--check 5]`: edges are
//! uniform; each epoch takes half of `changes` edges away and adds as many, and re-scores with some assets. Every
//! `check`-th epoch the radii are searched from scratch and the risks are summed up anew. Work is counted: updates that
//! arrangements of the graph take, and records that its operators are given, against entities and edges visited by the
//! search and alerts summed. Recomputation is what has to be done for each change, if the result is to be right at each: an
//! epoch holds many changes, and a search for each epoch alone visits less than there are changes in it. So the ratio is
//! given for each change, for each epoch, and against looking at all entities and edges once an epoch. Then the same at
//! hubs, with a hundredth of the changes: edges of the entities with the most of them come and go. `--by-operator 1` lists
//! where the updates and the records were.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, mpsc},
};

use anyhow::Result;
use cf_dataflows::{Batch, Graph, GraphOptions, Rules};
use cf_graph_benches::{BEGIN, Events, Given, OneRule, cpu_s, float, numbers, say};
use cf_types::{
    Alert, Condition, Entity, EntityKind, EpochOutput, Fact, FactBody, Level, Predicate, Row, Tenant,
    blast::{FANOUT_MAX, HOPS_MAX},
    fact::{Asset, Edge},
    random::Random,
    risk::hour_of,
};
use serde_json::json;
use timely::worker::Worker;

/// Changes of one epoch that are assets, of a hundred.
const ASSETS_PERCENT: u64 = 1;

struct Asked {
    entities: u64,
    edges: u64,
    roots: u64,
    changes: u64,
    epochs: u64,
    check: u64,
    by_operator: bool,
}

fn main() -> Result<()> {
    let known = [
        ("entities", 1_000_000),
        ("edges", 2_000_000),
        ("roots", 1_000),
        ("changes", 10_000),
        ("epochs", 20),
        ("check", 5),
        ("by-operator", 0),
    ];
    let [entities, edges, roots, changes, epochs, check, by_operator] = numbers(known, std::env::args().skip(1))?;
    let by_operator = by_operator > 0;
    let asked = Asked { entities, edges, roots, changes, epochs, check: check.max(1), by_operator };
    timely::execute_directly(move |worker| run(worker, &asked))
}

fn run(worker: &mut Worker, asked: &Asked) -> Result<()> {
    let given = Given::of(worker);
    let (output, outputs) = mpsc::channel();
    let options = GraphOptions { horizon_s: None, risk_alert_tenths: 0, ..GraphOptions::default() };
    let graph = Graph::build(worker, &options, Some(output));
    let mut site = Site::new(asked, graph, outputs);
    site.load(worker, asked);
    for at_hubs in [false, true] {
        let changes = if at_hubs { asked.changes.div_ceil(100) } else { asked.changes };
        let before = Work::of(&given);
        let cpu = cpu_s();
        let mut cpu_checking = 0.0;
        let (mut visited, mut checked, mut exact) = (0, 0, true);
        for epoch in 1..=asked.epochs {
            site.change(worker, changes, at_hubs);
            if epoch.is_multiple_of(asked.check) {
                let began = cpu_s();
                let (same, work) = site.check();
                (visited, checked, exact) = (visited + work, checked + 1, exact && same);
                cpu_checking += cpu_s() - began;
            }
        }
        let work = Work::of(&given);
        let records = float(sum(&work.records) - sum(&before.records)) / float(asked.epochs);
        let updates = float(sum(&work.updates) - sum(&before.updates)) / float(asked.epochs);
        let search = float(visited) / float(checked.max(1));
        let all = float(asked.entities + asked.edges);
        say(&json!({
            "bench": if at_hubs { "reach, at hubs" } else { "reach" }, "entities": asked.entities, "edges": asked.edges,
            "roots": site.roots.len(), "changes_an_epoch": changes, "epochs": asked.epochs,
            "epochs_checked": checked, "exact": exact, "records_an_epoch": records,
            "records_a_change": records / float(changes), "updates_an_epoch": updates,
            "updates_a_change": updates / float(changes), "visited_by_a_search": search,
            "fewer_updates_than_a_search_for_each_change": search * float(changes) / updates,
            "fewer_updates_than_all_for_each_change": all * float(changes) / updates,
            "fewer_updates_than_all_for_each_epoch": all / updates,
            "fewer_updates_than_a_search_for_each_epoch": search / updates,
            "fewer_records_than_a_search_for_each_change": search * float(changes) / records,
            "cpu_s_an_epoch": (cpu_s() - cpu - cpu_checking) / float(asked.epochs),
            "cpu_s_of_a_search": cpu_checking / float(checked.max(1)),
        }))?;
        if asked.by_operator {
            say(
                &json!({ "updates": more(&work.updates, &before.updates), "records": more(&work.records, &before.records) }),
            )?;
        }
    }
    site.close(worker);
    Ok(())
}

/// What was done so far, by operator.
struct Work {
    records: BTreeMap<String, u64>,
    updates: BTreeMap<String, u64>,
}

impl Work {
    fn of(given: &Given) -> Work {
        Work { records: given.records(), updates: given.updates() }
    }
}

fn sum(of: &BTreeMap<String, u64>) -> u64 {
    of.values().sum()
}

/// What came since before, where something did.
fn more(now: &BTreeMap<String, u64>, before: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let more = now.iter().map(|(name, number)| (name.clone(), number - before.get(name).copied().unwrap_or(0)));
    more.filter(|(_, number)| *number > 0).collect()
}

struct Site {
    graph: Option<Graph>,
    outputs: mpsc::Receiver<EpochOutput>,
    epoch: u64,
    random: Random,
    entities: u64,
    roots: BTreeSet<u64>,
    edges: Vec<(u64, u64)>,
    held: BTreeSet<(u64, u64)>,
    assets: BTreeMap<u64, u8>,
    /// What the graph says: hops by root, buckets by entity, alerts.
    radii: HashMap<Entity, Vec<u64>>,
    risks: HashMap<Entity, BTreeMap<i64, u64>>,
    alerts: BTreeMap<cf_types::AlertId, Alert>,
}

fn host(number: u64) -> Entity {
    Entity { kind: EntityKind::Host, value: format!("n{number}").into() }
}

fn edge((from, to): (u64, u64)) -> Fact {
    let edge = Edge { from: host(from), to: host(to), access: "access".into() };
    Fact { tenant: Tenant::default(), body: FactBody::Edge(edge) }
}

fn asset(number: u64, criticality: u8) -> Fact {
    let asset = Asset { entity: host(number), criticality, owner: None, exposure: None, tags: Vec::new() };
    Fact { tenant: Tenant::default(), body: FactBody::Asset(asset) }
}

impl Site {
    fn new(asked: &Asked, graph: Graph, outputs: mpsc::Receiver<EpochOutput>) -> Site {
        Site {
            graph: Some(graph),
            outputs,
            epoch: 0,
            random: Random(5),
            entities: asked.entities.max(2),
            roots: BTreeSet::new(),
            edges: Vec::new(),
            held: BTreeSet::new(),
            assets: BTreeMap::new(),
            radii: HashMap::new(),
            risks: HashMap::new(),
            alerts: BTreeMap::new(),
        }
    }

    /// Edges, and one alert for each root.
    fn load(&mut self, worker: &mut Worker, asked: &Asked) {
        let mut facts = Vec::new();
        for _ in 0..asked.edges {
            facts.extend(self.new_edge(None));
        }
        let (mut made, mut events) = (Events::default(), Vec::new());
        while u64::try_from(self.roots.len()).unwrap_or(u64::MAX) < asked.roots.min(self.entities) {
            let root = self.random.number(self.entities);
            if self.roots.insert(root) {
                events.push(made.event(BEGIN + i64::try_from(root % 3_600).unwrap_or(0), &format!("n{root}")));
            }
        }
        let rule = OneRule::new("seen", "host", 60, Predicate::EventCount(Condition::at_least(1)), Level::High);
        let rules: Arc<dyn Rules> = Arc::new(rule);
        self.feed(worker, Batch { rules: Some(rules), facts, events, ..Batch::default() });
    }

    fn new_edge(&mut self, from: Option<u64>) -> Option<(Fact, i64)> {
        let from = from.unwrap_or_else(|| self.random.number(self.entities));
        let new = (from, self.random.number(self.entities));
        if new.0 == new.1 || !self.held.insert(new) {
            return None;
        }
        self.edges.push(new);
        Some((edge(new), 1))
    }

    fn change(&mut self, worker: &mut Worker, changes: u64, at_hubs: bool) {
        let mut facts: Vec<(Fact, i64)> = Vec::new();
        let assets = changes * ASSETS_PERCENT / 100;
        let hubs = if at_hubs { self.hubs() } else { Vec::new() };
        for _ in 0..(changes - assets) / 2 {
            let hub = (!hubs.is_empty()).then(|| self.random.one_of(&hubs));
            let of_hub = hub.and_then(|hub| self.edges.iter().position(|(from, _)| *from == hub));
            let gone = of_hub.unwrap_or_else(|| self.random.below(self.edges.len()));
            if gone < self.edges.len() {
                let gone = self.edges.swap_remove(gone);
                self.held.remove(&gone);
                facts.push((edge(gone), -1));
            }
            facts.extend(self.new_edge(hub));
        }
        for _ in 0..assets {
            let (number, criticality) = (self.random.number(self.entities), self.random.number(5));
            let criticality = u8::try_from(criticality).unwrap_or(0) + 1;
            if let Some(before) = self.assets.insert(number, criticality) {
                facts.push((asset(number, before), -1));
            }
            facts.push((asset(number, criticality), 1));
        }
        self.feed(worker, Batch { facts, ..Batch::default() });
    }

    /// Where the most edges are.
    fn hubs(&self) -> Vec<u64> {
        let mut degree: HashMap<u64, u64> = HashMap::new();
        for (from, to) in &self.edges {
            *degree.entry(*from).or_default() += 1;
            *degree.entry(*to).or_default() += 1;
        }
        let mut degree: Vec<(u64, u64)> = degree.into_iter().map(|(node, degree)| (degree, node)).collect();
        degree.sort_unstable_by(|one, other| other.cmp(one));
        degree.into_iter().take(100).map(|(_, node)| node).collect()
    }

    fn feed(&mut self, worker: &mut Worker, batch: Batch) {
        self.epoch += 1;
        let Some(graph) = &mut self.graph else { return };
        graph.feed(Batch { epoch: self.epoch, ..batch });
        graph.advance_to(self.epoch + 1);
        while !graph.done(self.epoch) {
            worker.step_or_park(None);
        }
        while let Ok(output) = self.outputs.try_recv() {
            self.take(output);
        }
    }

    /// What went first: a row that changed goes and comes in one epoch.
    fn take(&mut self, output: EpochOutput) {
        let (went, came): (Vec<_>, Vec<_>) = output.rows.into_iter().partition(|(_, diff)| *diff < 0);
        for (row, diff) in went.into_iter().chain(came) {
            match (row, diff > 0) {
                (Row::Blast(radius), true) => drop(self.radii.insert(radius.root, radius.hops)),
                (Row::Blast(radius), false) => drop(self.radii.remove(&radius.root)),
                (Row::Risk(risk), true) => drop(self.risks.insert(risk.entity, risk.buckets.into_iter().collect())),
                (Row::Risk(risk), false) => drop(self.risks.remove(&risk.entity)),
                (Row::Alert(alert), true) => drop(self.alerts.insert(alert.id, alert)),
                (Row::Alert(alert), false) => drop(self.alerts.remove(&alert.id)),
                _ => {}
            }
        }
    }

    /// Whether everything is as a search from scratch says, and how much that visited.
    fn check(&self) -> (bool, u64) {
        // The first so many, in the order in which names stand.
        let mut edges: HashMap<u64, Vec<(String, u64)>> = HashMap::new();
        for (from, to) in &self.edges {
            edges.entry(*from).or_default().push((format!("n{to}"), *to));
        }
        edges.values_mut().for_each(|to| to.sort_unstable());
        let (mut visited, mut same, mut radii) = (0, true, 0);
        for root in &self.roots {
            let (hops, work) = search(*root, &edges);
            visited += work;
            let is_none = hops.iter().all(|number| *number == 0);
            radii += usize::from(!is_none);
            same &= is_none || self.radii.get(&host(*root)) == Some(&hops);
        }
        let mut risks: HashMap<Entity, BTreeMap<i64, u64>> = HashMap::new();
        for alert in self.alerts.values() {
            visited += 1;
            for entity in &alert.entities {
                let buckets = risks.entry(entity.clone()).or_default();
                *buckets.entry(hour_of(alert.anchor)).or_default() += u64::from(alert.score.tenths());
            }
        }
        (same && radii == self.radii.len() && risks == self.risks && self.alerts.len() == self.roots.len(), visited)
    }

    fn close(mut self, worker: &mut Worker) {
        self.graph = None;
        while worker.has_dataflows() {
            worker.step_or_park(None);
        }
    }
}

/// How many are reached first in each hop, and how many entities and edges were looked at.
fn search(root: u64, edges: &HashMap<u64, Vec<(String, u64)>>) -> (Vec<u64>, u64) {
    let (mut seen, mut layer) = (BTreeSet::from([root]), vec![root]);
    let (mut hops, mut visited) = (Vec::new(), 0);
    for _ in 0..HOPS_MAX {
        let mut next = Vec::new();
        for from in layer {
            visited += 1;
            for (_, to) in edges.get(&from).into_iter().flatten().take(FANOUT_MAX) {
                visited += 1;
                if seen.insert(*to) {
                    next.push(*to);
                }
            }
        }
        hops.push(u64::try_from(next.len()).unwrap_or(0));
        layer = next;
    }
    (hops, visited)
}
