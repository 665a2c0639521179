//! Incidents: alerts that are connected by shared entities.
//!
//! In: changes of alerts as nodes: id, anchor, entities; never their contents, so that a growing count moves nothing.
//! Out: changes of incidents. Key: none, one worker: alerts are few. Memory: the alerts. Output appears when the epoch
//! is complete.
//!
//! On an entity, alerts sorted by anchor are linked from one to the next where the gap is at most `window`; an entity
//! with n alerts gives at most n - 1 links. An incident is a connected component; its id is that of its smallest
//! (anchor, alert). Hosts, users and addresses connect; processes, file hashes and domains do not, because `cmd.exe` is
//! everywhere and would connect all there is. All entities are listed.
//!
//! After a change the touched components are searched anew, so removal is right by construction. A component of more
//! than [`ALERTS_MAX`] alerts is cut on a grid of event time of length `window`, and a piece that is still larger into
//! runs of [`ALERTS_MAX`] in order of (anchor, alert): like an episode that does not end.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use cf_types::{Alert, AlertId, Cell, Entity, EntityKind, Epoch, Incident, IncidentId, Tenant};
use differential_dataflow::VecCollection;
use serde::{Deserialize, Serialize};
use timely::dataflow::{channels::pact::Exchange, operators::vec::Map};

use crate::epochs::{at_epoch, changes, per_epoch};

/// The most alerts of one incident.
pub const ALERTS_MAX: usize = 10_000;

/// Connects alerts. `window` is the longest gap, in cells.
pub(crate) fn incidents<'s>(
    alerts: VecCollection<'s, Epoch, Alert, isize>,
    window: Cell,
) -> VecCollection<'s, Epoch, Incident, isize> {
    let nodes = changes(alerts).map(|(alert, diff)| {
        let Alert { tenant, id, anchor, entities, .. } = alert;
        (Node { tenant, anchor, id, entities }, diff)
    });
    let mut state = Incidents { window, alerts_max: ALERTS_MAX, ..Incidents::default() };
    // Not worker 0: it has the sink.
    at_epoch(per_epoch(nodes, Exchange::new(|_: &(Node, isize)| 1), "Incidents", move |_epoch, nodes, out| {
        out.extend(state.epoch(nodes));
    }))
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Node {
    tenant: Tenant,
    anchor: Cell,
    id: AlertId,
    entities: Vec<Entity>,
}

impl Node {
    fn connecting(&self) -> impl Iterator<Item = (Tenant, Entity)> + '_ {
        let connects = |kind| matches!(kind, EntityKind::Host | EntityKind::User | EntityKind::Address);
        self.entities
            .iter()
            .filter(move |entity| connects(entity.kind))
            .map(|entity| (self.tenant.clone(), entity.clone()))
    }
}

/// An alert's place in the order of time.
type Place = (Cell, AlertId);

/// The state: pure.
#[derive(Default)]
struct Incidents {
    window: Cell,
    alerts_max: usize,
    nodes: BTreeMap<Place, Node>,
    /// The alerts of each entity that connects.
    chains: BTreeMap<(Tenant, Entity), BTreeSet<Place>>,
    /// Which component an alert is in, by the component's first place.
    component: BTreeMap<Place, Place>,
    /// What was told of each component.
    told: BTreeMap<Place, Vec<Incident>>,
}

impl Incidents {
    /// Takes one epoch's changes in; gives what changed, sorted.
    fn epoch(&mut self, changes: Vec<(Node, isize)>) -> Vec<(Incident, isize)> {
        let mut net: BTreeMap<Node, isize> = BTreeMap::new();
        for (node, diff) in changes {
            *net.entry(node).or_default() += diff;
        }
        // Links inside untouched components stay as they are: a link changes only between neighbours on a chain where
        // an alert came or went, and neighbours of one that went were in its component.
        let mut touched = BTreeSet::new();
        let mut loose = BTreeSet::new();
        for (node, _) in net.iter().filter(|(_, diff)| **diff < 0) {
            touched.extend(self.remove(node));
        }
        for (node, _) in net.into_iter().filter(|(_, diff)| *diff > 0) {
            let place = (node.anchor, node.id);
            loose.insert(place);
            self.insert(place, node);
        }
        for place in &loose {
            touched.extend(self.neighbours(*place).iter().filter_map(|place| self.component.get(place)));
        }
        self.search_anew(touched, loose)
    }

    fn insert(&mut self, place: Place, node: Node) {
        for entity in node.connecting() {
            self.chains.entry(entity).or_default().insert(place);
        }
        self.nodes.insert(place, node);
    }

    /// Removes an alert; gives the component that it was in.
    fn remove(&mut self, node: &Node) -> Option<Place> {
        let place = (node.anchor, node.id);
        for entity in node.connecting() {
            if let Some(chain) = self.chains.get_mut(&entity) {
                chain.remove(&place);
                if chain.is_empty() {
                    self.chains.remove(&entity);
                }
            }
        }
        self.nodes.remove(&place);
        self.component.remove(&place)
    }

    /// The alerts that are linked with this one.
    fn neighbours(&self, place: Place) -> Vec<Place> {
        let Some(node) = self.nodes.get(&place) else { return Vec::new() };
        let near = |other: &Place| (other.0.saturating_sub(place.0)).saturating_abs() <= self.window;
        let chains = node.connecting().filter_map(|entity| self.chains.get(&entity));
        let neighbours = chains.flat_map(|chain| {
            let before = chain.range(..place).next_back();
            let after = chain.range((Bound::Excluded(place), Bound::Unbounded)).next();
            before.into_iter().chain(after).copied()
        });
        neighbours.filter(near).collect()
    }

    /// Dissolves components and finds those of their alerts, and of the loose ones.
    fn search_anew(&mut self, touched: BTreeSet<Place>, mut loose: BTreeSet<Place>) -> Vec<(Incident, isize)> {
        let mut rows: BTreeMap<Incident, isize> = BTreeMap::new();
        for component in touched {
            for incident in self.told.remove(&component).into_iter().flatten() {
                loose.extend(incident.alerts.iter().filter(|place| self.nodes.contains_key(place)));
                *rows.entry(incident).or_default() -= 1;
            }
        }
        while let Some(first) = loose.pop_first() {
            let members = self.connected(first);
            for place in &members {
                loose.remove(place);
                self.component.insert(*place, first);
            }
            let incidents = self.cut(&members);
            for incident in &incidents {
                *rows.entry(incident.clone()).or_default() += 1;
            }
            self.told.insert(first, incidents);
        }
        rows.into_iter().filter(|(_, diff)| *diff != 0).collect()
    }

    /// All alerts that links lead to, this one among them.
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
        let nodes: Vec<&Node> = members.iter().filter_map(|place| self.nodes.get(place)).collect();
        if nodes.len() <= self.alerts_max {
            return incident(&nodes).into_iter().collect();
        }
        let grid = self.window.max(1);
        nodes
            .chunk_by(|a, b| a.anchor.div_euclid(grid) == b.anchor.div_euclid(grid))
            .flat_map(|piece| piece.chunks(self.alerts_max.max(1)))
            .filter_map(incident)
            .collect()
    }
}

/// The incident of these alerts, given in order of time; `None` of none.
fn incident(nodes: &[&Node]) -> Option<Incident> {
    let first = nodes.first()?;
    let entities: BTreeSet<&Entity> = nodes.iter().flat_map(|node| &node.entities).collect();
    Some(Incident {
        tenant: first.tenant.clone(),
        id: IncidentId::of(&first.tenant, first.anchor, first.id),
        alerts: nodes.iter().map(|node| (node.anchor, node.id)).collect(),
        entities: entities.into_iter().cloned().collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `a10 x y` = an alert named `a` at 10 s with entities x and y, `-a10 x y` = it goes; epochs parted by `|`. The
    /// window is 100 s, an incident has three alerts at the most. Shown are the incidents after each epoch.
    #[track_caller]
    fn check(input: &str, expect: &str) {
        let mut state = Incidents { window: 100, alerts_max: 3, ..Incidents::default() };
        let mut present: BTreeMap<Incident, isize> = BTreeMap::new();
        let shown = input.split('|').map(|epoch| {
            let changes = epoch.split(',').map(str::trim).filter(|text| !text.is_empty()).map(change).collect();
            for (incident, diff) in state.epoch(changes) {
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

    fn change(text: &str) -> (Node, isize) {
        let (text, diff) = text.strip_prefix('-').map_or((text, 1), |text| (text, -1));
        let (alert, entities) = text.split_once(' ').unwrap_or((text, ""));
        let kind = |name: &str| if name.starts_with('p') { EntityKind::Process } else { EntityKind::Host };
        let node = Node {
            tenant: Tenant::default(),
            anchor: alert.get(1..).unwrap().parse().unwrap(),
            id: AlertId([alert.as_bytes()[0]; 16]),
            entities: entities.split_whitespace().filter_map(|name| Entity::of(kind(name), name)).collect(),
        };
        (node, diff)
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
}
