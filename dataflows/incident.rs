//! Incidents: alerts that are connected by shared entities (`streaming.md`, *Risk, incidents, blast radius*).
//!
//! In: changes of alerts as nodes (id, anchor, entities, and what their incident is told by: score, tags, whether they
//! are final), never their counts, so that a growing alert moves nothing; limits; the hubs that were settled before a
//! restart. Out: changes of incidents. Key: none, one worker: alerts are few. Output appears when the epoch is complete.
//! Memory: the alerts of incidents that are not closed. An incident closes as a whole: when all its alerts are sealed
//! and its last one lies so far below the limit that no alert can connect any more. That a sealed alert leaves the
//! graph earlier changes nothing here.
//!
//! Two alerts share a *link* if both have an entity that is no hub on its day, or two entities, hubs or not. On a link,
//! alerts sorted by anchor are connected from one to the next where the gap is at most `window`; so a link with n alerts
//! gives at most n - 1 connections. An incident is a connected component; its id is that of its smallest (anchor, alert).
//! Hosts, users and addresses link; processes, file hashes and domains do not, because `cmd.exe` is everywhere, nor do
//! the entities that are listed as `unlinked`. All entities are shown.
//!
//! An entity is a hub on a day if alerts of the day before named it together with more than `hub_neighbours_max` others
//! ([`hubs`]). What happens on a day never disconnects what that day connects.
//!
//! After a change the touched components are searched anew, so removal is right by construction. A component of more
//! than `alerts_max` alerts is cut on a grid of event time of length `window`, and a piece that is still larger into
//! runs of `alerts_max` in order of (anchor, alert): like an episode that does not end.

mod hubs;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
};

use cf_types::{
    Alert, AlertId, AlertState, Cell, Entity, EntityKind, Epoch, Incident, IncidentId, IncidentKind, IncidentSeverity,
    Score, Tactic, Tenant,
    incident::{Day, Hub, day_of},
};
use differential_dataflow::VecCollection;
use serde::{Deserialize, Serialize};
use timely::dataflow::{StreamVec, channels::pact::Exchange, operators::vec::Map};

use self::hubs::Hubs;
use crate::{
    epochs::{at_epoch, changes, per_epoch_with},
    waits::Waits,
};

/// Of an alert's entities so many at the most make pairs.
const PAIRED_MAX: usize = 16;

/// What connects alerts, and what does not.
#[derive(Clone, Debug)]
pub struct IncidentOptions {
    /// The longest gap between two alerts of one link that still connects them, in cells.
    pub window: Cell,
    /// More distinct neighbours than these on one day of event time make an entity a hub on the next.
    pub hub_neighbours_max: u32,
    /// Entities that never link.
    pub unlinked: Arc<BTreeSet<Entity>>,
    /// The most alerts of one incident.
    pub alerts_max: usize,
}

impl Default for IncidentOptions {
    /// A day without an alert ends an incident. Behind an address or a host that alerts of one day name with more than
    /// fifty others stands a gateway, a scanner or a shared service, not one attack. Ten thousand alerts are more than
    /// anybody reads.
    fn default() -> IncidentOptions {
        IncidentOptions { window: 86_400, hub_neighbours_max: 50, unlinked: Arc::default(), alerts_max: 10_000 }
    }
}

/// What comes beside the alerts, alike to every worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Beside {
    /// In all epochs after the one it comes in, alerts begin at most `reach` before this cell.
    Limit(Cell),
    /// The longest timespan of the rules.
    Reach(Cell),
    /// A hub that was settled before a restart.
    Hub(Tenant, Hub),
}

/// What [`incidents`] gives.
pub struct Connected<'s> {
    /// All incidents that are not closed.
    pub incidents: VecCollection<'s, Epoch, Incident, isize>,
    /// The limit at which the next one closes.
    pub waits: StreamVec<'s, Epoch, (Cell, isize)>,
}

/// Connects alerts.
pub fn incidents<'s>(
    alerts: VecCollection<'s, Epoch, Alert, isize>,
    beside: StreamVec<'s, Epoch, Beside>,
    options: IncidentOptions,
) -> Connected<'s> {
    let nodes = changes(alerts).map(|(alert, diff)| (Node::of(alert), diff));
    let mut state = Incidents::new(options);
    // Not worker 0: it has the sink.
    let one = Exchange::new(|_: &(Node, isize)| 1);
    let told = per_epoch_with(nodes, one, beside, "Incidents", move |_epoch, nodes, beside, out| {
        out.extend(state.epoch(nodes, beside).into_iter().map(|(incident, diff)| Told::Incident(incident, diff)));
        let closes = state.closes_at();
        out.extend(state.waits.until(closes).map(|(limit, diff)| Told::Waits(limit, diff)));
    });
    let incidents = at_epoch(told.clone().flat_map(|told| match told {
        Told::Incident(incident, diff) => Some((incident, diff)),
        Told::Waits(..) => None,
    }));
    let waits = told.flat_map(|told| match told {
        Told::Waits(limit, diff) => Some((limit, diff)),
        Told::Incident(..) => None,
    });
    Connected { incidents, waits }
}

/// The same on its way.
#[derive(Clone)]
enum Told {
    Incident(Incident, isize),
    Waits(Cell, isize),
}

/// What matters of an alert here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Node {
    tenant: Tenant,
    anchor: Cell,
    id: AlertId,
    entities: Vec<Entity>,
    score: Score,
    kind: IncidentKind,
    tactics: Vec<Tactic>,
    sealed: bool,
}

impl Node {
    fn of(alert: Alert) -> Node {
        let tags = || alert.tags.iter().map(|tag| &**tag);
        let tactics: BTreeSet<Tactic> = tags().filter_map(Tactic::of_tag).collect();
        Node {
            kind: IncidentKind::of_tags(tags()),
            tactics: tactics.into_iter().collect(),
            sealed: alert.state == AlertState::Sealed,
            tenant: alert.tenant,
            anchor: alert.anchor,
            id: alert.id,
            entities: alert.entities,
            score: alert.score,
        }
    }

    fn place(&self) -> Place {
        (self.anchor, self.id)
    }

    fn day(&self) -> Day {
        day_of(self.anchor)
    }

    /// Those of its entities that may link.
    fn linking<'a>(&'a self, unlinked: &'a BTreeSet<Entity>) -> impl Iterator<Item = &'a Entity> + Clone {
        let links = |kind| matches!(kind, EntityKind::Host | EntityKind::User | EntityKind::Address);
        self.entities.iter().filter(move |entity| links(entity.kind) && !unlinked.contains(*entity))
    }
}

/// An alert's place in the order of time.
type Place = (Cell, AlertId);

/// What alerts may share.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Link {
    One(Tenant, Entity),
    Two(Tenant, Entity, Entity),
}

/// An alert with the links that it has at present.
struct Linked {
    node: Node,
    links: Vec<Link>,
}

/// A connected component, by its first place.
struct Component {
    /// What was told of it.
    incidents: Vec<Incident>,
    last: Cell,
    /// How many of its alerts are not sealed.
    open: usize,
}

/// What a change leads to.
#[derive(Default)]
struct Touched {
    /// Components to be searched anew.
    components: BTreeSet<Place>,
    /// Alerts that came, or whose links changed.
    loose: BTreeSet<Place>,
    /// Entities that became or ceased to be hubs of a day, or whose neighbours as a hub changed in number.
    hubs: BTreeSet<(Tenant, Entity, Day)>,
}

/// The state: pure.
#[derive(Default)]
struct Incidents {
    options: IncidentOptions,
    limit: Option<Cell>,
    reach: Cell,
    /// The limit up to which incidents were closed.
    closed: Option<Cell>,
    alerts: BTreeMap<Place, Linked>,
    /// The alerts of each link.
    chains: BTreeMap<Link, BTreeSet<Place>>,
    /// The alerts of a day that name an entity.
    days: BTreeMap<(Tenant, Entity, Day), BTreeSet<Place>>,
    hubs: Hubs,
    /// Which component an alert is in, by the component's first place.
    component: BTreeMap<Place, Place>,
    components: BTreeMap<Place, Component>,
    /// Components of which all alerts are sealed: (last anchor, first place).
    closing: BTreeSet<(Cell, Place)>,
    waits: Waits,
}

/// Changed incidents.
type Rows = BTreeMap<Incident, isize>;

impl Incidents {
    fn new(options: IncidentOptions) -> Incidents {
        let hubs = Hubs::new(options.hub_neighbours_max);
        Incidents { options, hubs, ..Incidents::default() }
    }

    /// Takes one epoch's changes in; gives what changed, sorted.
    fn epoch(&mut self, changes: Vec<(Node, isize)>, beside: Vec<Beside>) -> Vec<(Incident, isize)> {
        let mut rows = Rows::new();
        // The limit of earlier epochs: what an epoch brings is met with what that epoch found.
        self.close(&mut rows);
        let mut limit = self.limit;
        for beside in beside {
            match beside {
                Beside::Limit(cell) => limit = limit.max(Some(cell)),
                Beside::Reach(cells) => self.reach = cells,
                Beside::Hub(tenant, hub) => self.hubs.recall(tenant, hub),
            }
        }
        let touched = self.take(changes);
        self.search_anew(touched, &mut rows);
        self.limit = limit;
        rows.into_iter().filter(|(_, diff)| *diff != 0).collect()
    }

    /// Takes changes of alerts in. Connections inside untouched components stay as they are: one changes only between
    /// neighbours on a chain where an alert came or went, and neighbours of one that went were in its component.
    fn take(&mut self, changes: Vec<(Node, isize)>) -> Touched {
        let mut net: BTreeMap<Node, isize> = BTreeMap::new();
        for (node, diff) in changes {
            *net.entry(node).or_default() += diff;
        }
        let mut by_place: BTreeMap<Place, (Option<Node>, Option<Node>)> = BTreeMap::new();
        for (node, diff) in net.into_iter().filter(|(_, diff)| *diff != 0) {
            let (went, came) = by_place.entry(node.place()).or_default();
            *(if diff < 0 { went } else { came }) = Some(node);
        }
        let mut touched = Touched::default();
        for (place, change) in by_place {
            match change {
                // Final is final: it leaves the graph, its incident keeps it until it closes.
                (Some(Node { sealed: true, .. }), None) | (None, None) => {}
                (Some(_), None) => self.remove(place, &mut touched),
                (_, Some(node)) => self.put(place, node, &mut touched),
            }
        }
        self.link_anew(&mut touched);
        for place in &touched.loose {
            let near = self.neighbours(*place);
            touched.components.extend(near.iter().filter_map(|place| self.component.get(place)));
        }
        touched
    }

    fn put(&mut self, place: Place, node: Node, touched: &mut Touched) {
        let Some(known) = self.alerts.get_mut(&place) else { return self.insert(place, node, touched) };
        if known.node.entities != node.entities {
            self.remove(place, touched);
            return self.insert(place, node, touched);
        }
        let first = self.component.get(&place).copied();
        let was_open = !known.node.sealed;
        known.node.sealed |= node.sealed;
        if known.node != node && was_open {
            known.node = node;
            touched.components.extend(first);
        } else if was_open && known.node.sealed {
            self.seal_one(first);
        }
    }

    /// One more of the component's alerts is sealed: nothing that is told changes.
    fn seal_one(&mut self, first: Option<Place>) {
        let Some((first, component)) = first.and_then(|first| Some((first, self.components.get_mut(&first)?))) else {
            return;
        };
        component.open = component.open.saturating_sub(1);
        if component.open == 0 {
            self.closing.insert((component.last, first));
        }
    }

    fn insert(&mut self, place: Place, node: Node, touched: &mut Touched) {
        for entity in node.linking(&self.options.unlinked) {
            let day = (node.tenant.clone(), entity.clone(), node.day());
            self.days.entry(day).or_default().insert(place);
        }
        self.count(&node, true, touched);
        let links = self.links(&node);
        for link in &links {
            self.chains.entry(link.clone()).or_default().insert(place);
        }
        self.alerts.insert(place, Linked { node, links });
        touched.loose.insert(place);
    }

    fn remove(&mut self, place: Place, touched: &mut Touched) {
        let Some(node) = self.forget(place) else { return };
        self.count(&node, false, touched);
        touched.components.extend(self.component.remove(&place));
        touched.loose.remove(&place);
    }

    /// Takes an alert out of all that finds it but its component.
    fn forget(&mut self, place: Place) -> Option<Node> {
        self.unlink(place);
        let Linked { node, .. } = self.alerts.remove(&place)?;
        for entity in node.linking(&self.options.unlinked) {
            let day = (node.tenant.clone(), entity.clone(), node.day());
            if let Some(places) = self.days.get_mut(&day) {
                places.remove(&place);
                if places.is_empty() {
                    self.days.remove(&day);
                }
            }
        }
        Some(node)
    }

    fn unlink(&mut self, place: Place) {
        let Some(linked) = self.alerts.get_mut(&place) else { return };
        for link in std::mem::take(&mut linked.links) {
            if let Some(chain) = self.chains.get_mut(&link) {
                chain.remove(&place);
                if chain.is_empty() {
                    self.chains.remove(&link);
                }
            }
        }
    }

    /// Counts the alert's entities as neighbours of each other.
    fn count(&mut self, node: &Node, came: bool, touched: &mut Touched) {
        let linking = node.linking(&self.options.unlinked);
        for entity in linking.clone() {
            let others = linking.clone().filter(|other| *other != entity);
            if self.hubs.count((&node.tenant, entity, node.day()), others, came) {
                touched.hubs.insert((node.tenant.clone(), entity.clone(), node.day() + 1));
            }
        }
    }

    /// The links that an alert has by the hubs of its day.
    fn links(&self, node: &Node) -> Vec<Link> {
        let linking = node.linking(&self.options.unlinked);
        let is_hub = |entity: &Entity| self.hubs.neighbours(&node.tenant, entity, node.day()).is_some();
        let alone = linking.clone().filter(|entity| !is_hub(entity));
        let mut links: Vec<Link> = alone.map(|entity| Link::One(node.tenant.clone(), entity.clone())).collect();
        let paired: Vec<&Entity> = linking.take(PAIRED_MAX).collect();
        for (at, one) in paired.iter().enumerate() {
            let others = paired.iter().skip(at + 1);
            links.extend(others.map(|two| Link::Two(node.tenant.clone(), (*one).clone(), (*two).clone())));
        }
        links
    }

    /// Gives the alerts of the days on which hubs changed their new links.
    fn link_anew(&mut self, touched: &mut Touched) {
        let days = std::mem::take(&mut touched.hubs);
        let places: BTreeSet<Place> = days.iter().filter_map(|day| self.days.get(day)).flatten().copied().collect();
        for place in places {
            self.unlink(place);
            let Some(links) = self.alerts.get(&place).map(|linked| self.links(&linked.node)) else { continue };
            for link in &links {
                self.chains.entry(link.clone()).or_default().insert(place);
            }
            if let Some(linked) = self.alerts.get_mut(&place) {
                linked.links = links;
            }
            touched.components.extend(self.component.get(&place));
            touched.loose.insert(place);
        }
    }

    /// The alerts that are connected with this one.
    fn neighbours(&self, place: Place) -> Vec<Place> {
        let Some(linked) = self.alerts.get(&place) else { return Vec::new() };
        let near = |other: &Place| (other.0.saturating_sub(place.0)).saturating_abs() <= self.options.window;
        let chains = linked.links.iter().filter_map(|link| self.chains.get(link));
        let neighbours = chains.flat_map(|chain| {
            let before = chain.range(..place).next_back();
            let after = chain.range((Bound::Excluded(place), Bound::Unbounded)).next();
            before.into_iter().chain(after).copied()
        });
        neighbours.filter(near).collect()
    }

    /// Dissolves components and finds those of their alerts, and of the loose ones.
    fn search_anew(&mut self, touched: Touched, rows: &mut Rows) {
        let mut loose = touched.loose;
        for first in touched.components {
            let Some(component) = self.components.remove(&first) else { continue };
            self.closing.remove(&(component.last, first));
            for incident in component.incidents {
                loose.extend(incident.alerts.iter().filter(|place| self.alerts.contains_key(place)));
                *rows.entry(incident).or_default() -= 1;
            }
        }
        while let Some(first) = loose.pop_first() {
            let members = self.connected(first);
            let last = members.last().map_or(first.0, |(anchor, _)| *anchor);
            let mut component = Component { incidents: self.cut(&members), last, open: 0 };
            for place in &members {
                loose.remove(place);
                self.component.insert(*place, first);
                component.open += usize::from(self.alerts.get(place).is_some_and(|alert| !alert.node.sealed));
            }
            for incident in &component.incidents {
                *rows.entry(incident.clone()).or_default() += 1;
            }
            if component.open == 0 {
                self.closing.insert((component.last, first));
            }
            self.components.insert(first, component);
        }
    }

    /// All alerts that connections lead to, this one among them.
    fn connected(&self, first: Place) -> BTreeSet<Place> {
        let mut members = BTreeSet::from([first]);
        let mut open = vec![first];
        while let Some(place) = open.pop() {
            open.extend(self.neighbours(place).into_iter().filter(|place| members.insert(*place)));
        }
        members
    }

    /// A component as incidents: one, unless it has too many alerts.
    fn cut(&self, members: &BTreeSet<Place>) -> Vec<Incident> {
        let nodes: Vec<&Node> =
            members.iter().filter_map(|place| self.alerts.get(place)).map(|linked| &linked.node).collect();
        if nodes.len() <= self.options.alerts_max {
            return self.incident(&nodes).into_iter().collect();
        }
        let grid = self.options.window.max(1);
        nodes
            .chunk_by(|a, b| a.anchor.div_euclid(grid) == b.anchor.div_euclid(grid))
            .flat_map(|piece| piece.chunks(self.options.alerts_max.max(1)))
            .filter_map(|nodes| self.incident(nodes))
            .collect()
    }

    /// The incident of these alerts, given in order of time; `None` of none.
    fn incident(&self, nodes: &[&Node]) -> Option<Incident> {
        let first = nodes.first()?;
        let entities: BTreeSet<&Entity> = nodes.iter().flat_map(|node| &node.entities).collect();
        let tactics: BTreeSet<Tactic> = nodes.iter().flat_map(|node| node.tactics.iter().copied()).collect();
        let tactics: Vec<Tactic> = tactics.into_iter().collect();
        let highest = nodes.iter().map(|node| node.score).max().unwrap_or_default();
        let strongest = nodes.iter().map(|node| (node.kind != IncidentKind::Other, node.score, node.kind)).max();
        let hubs: BTreeSet<Hub> = nodes
            .iter()
            .flat_map(|node| {
                node.linking(&self.options.unlinked).filter_map(|entity| {
                    let neighbours = self.hubs.neighbours(&node.tenant, entity, node.day())?;
                    Some(Hub { entity: entity.clone(), day: node.day(), neighbours })
                })
            })
            .collect();
        Some(Incident {
            tenant: first.tenant.clone(),
            id: IncidentId::of(&first.tenant, first.anchor, first.id),
            alerts: nodes.iter().map(|node| node.place()).collect(),
            entities: entities.into_iter().cloned().collect(),
            kind: strongest.map_or(IncidentKind::Other, |(_, _, kind)| kind),
            severity: IncidentSeverity::of(highest, nodes.len(), &tactics),
            tactics,
            hubs: hubs.into_iter().collect(),
        })
    }

    /// The limit at which the next incident closes: one beyond which it may, and later than the present one, which is
    /// acted upon when it is raised.
    fn closes_at(&self) -> Option<Cell> {
        let (last, _) = self.closing.first()?;
        let over = last.saturating_add(self.options.window).saturating_add(self.reach).saturating_add(1);
        Some(self.limit.map_or(over, |limit| over.max(limit.saturating_add(1))))
    }

    /// Closes the incidents that nothing can join any more, and settles the hubs of the days that are over.
    fn close(&mut self, rows: &mut Rows) {
        let Some(limit) = self.limit.filter(|_| self.limit > self.closed) else { return };
        self.closed = self.limit;
        let earliest = limit.saturating_sub(self.reach); // no alert begins before it any more
        let over = (earliest.saturating_sub(self.options.window), (Cell::MIN, AlertId::default()));
        let later = self.closing.split_off(&over);
        for (_, first) in std::mem::replace(&mut self.closing, later) {
            let Some(component) = self.components.remove(&first) else { continue };
            for incident in component.incidents {
                for place in &incident.alerts {
                    self.forget(*place);
                    self.component.remove(place);
                }
                *rows.entry(incident).or_default() -= 1;
            }
        }
        let days = &self.days;
        self.hubs
            .settle(day_of(earliest), |tenant, entity, day| days.contains_key(&(tenant.clone(), entity.clone(), day)));
    }
}
