//! Blast radius: what can be reached from the entities of open alerts, maintained as alerts, edges and assets come and go
//! (RSK-03).
//!
//! In: changes of alerts, and facts. Out: changes of one row per root, and of how many roots are left out. The layers are
//! unrolled: L0 = roots, L(i+1) = (L(i) ⋈ edges ∪ L(i)) without repeats; an entity's hop is the first layer that has it.
//! No `iterate`: time stays a number, a deletion is right by construction and a cycle cannot hold itself up.
//!
//! Edges are many and change often, and most lead nowhere near a root: they come by an input of their own, and all steps share
//! one arrangement of them, so that such a change costs one update of what is known and one of what is followed.
//!
//! Memory: edges, and per root what it reaches: at most [`ROOTS_MAX`] roots, [`HOPS_MAX`] steps and [`FANOUT_MAX`] edges
//! of an entity. What is cut is counted in the row. Output appears when the epoch is complete.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use cf_types::{
    Alert, AlertState, BlastRadius, Entity, Epoch, Fact, FactBody, Tenant,
    blast::{FANOUT_MAX, HOPS_MAX, NAMED_MAX, ROOTS_MAX, Reached},
};
use differential_dataflow::{
    VecCollection,
    operators::arrange::{Arranged, TraceAgent},
    trace::implementations::{ValBuilder, ValSpine},
};
use serde::{Deserialize, Serialize};
use timely::dataflow::{
    StreamVec,
    channels::pact::Exchange,
    operators::{Concat, vec::Map},
};

use crate::epochs::{at_epoch, changes, per_epoch, spread};

/// Whose entity.
pub(crate) type Node = (Tenant, Entity);

/// What is known of entities, by entity.
type Known<'s, V> = Arranged<'s, TraceAgent<ValSpine<Node, V, Epoch, isize>>>;

/// What this operator gives.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Blast {
    Radius(BlastRadius),
    /// So many roots are not followed.
    LeftOut(u64),
}

/// Follows what can be reached. Several edges of the same ends are one; `facts` need not have them.
pub(crate) fn blast<'s>(
    alerts: VecCollection<'s, Epoch, Alert, isize>,
    facts: VecCollection<'s, Epoch, Fact, isize>,
    edges: VecCollection<'s, Epoch, (Node, Node), isize>,
) -> StreamVec<'s, Epoch, (Blast, isize)> {
    let found = roots(alerts);
    let roots = at_epoch(found.clone().flat_map(|(found, diff)| match found {
        Root::Followed(node) => Some((node, diff)),
        Root::LeftOut(_) => None,
    }));
    let left_out = found.flat_map(|(found, diff)| match found {
        Root::LeftOut(number) => Some((Blast::LeftOut(number), diff)),
        Root::Followed(_) => None,
    });
    let followed = followed(edges);
    let mut layers = vec![roots.clone().map(|root| (root.clone(), root))];
    let mut reached = roots.map(|root| (root.clone(), (root, 0u8)));
    for hop in 1..=HOPS_MAX {
        let Some(layer) = layers.last().cloned() else { break };
        let next = layer.clone().join_core(followed.clone(), |_, root: &Node, leads: &Leads| match leads {
            Leads::To(to) => Some((to.clone(), root.clone())),
            Leads::More(_) => None,
        });
        let next = next.concat(layer.clone()).distinct();
        let hop = u8::try_from(hop).unwrap_or(u8::MAX);
        // A layer holds the one before it, so the difference is what is reached first here.
        let first = next.clone().concat(layer.negate());
        reached = reached.concat(first.map(move |(node, root)| (node, (root, hop))));
        layers.push(next);
    }
    let by_node = reached.clone().arrange_by_key_named("Reached");
    let critical = by_node.clone().join_core(criticality(facts), |node, (root, hop), criticality| {
        Some(Change { root: root.clone(), part: Part::Critical(*criticality, *hop, node.1.clone()) })
    });
    let cut = by_node.join_core(followed, |node, (root, hop), leads| match leads {
        Leads::More(more) => {
            let followed = usize::from(*hop) < HOPS_MAX;
            Some(Change { root: root.clone(), part: Part::More(node.1.clone(), if followed { *more } else { 0 }) })
        }
        Leads::To(_) => None,
    });
    let reached = reached.map(|(node, (root, hop))| Change { root, part: Part::Reached(hop, node.1) });
    let parts = changes(reached).concat(changes(critical)).concat(changes(cut));
    let by_root = Exchange::new(|(change, _): &(Change, isize)| route(&change.root));
    let mut state = Radii::default();
    per_epoch(parts, by_root, "BlastRadius", move |_epoch, changes, out| {
        out.extend(state.epoch(changes).into_iter().map(|(radius, diff)| (Blast::Radius(radius), diff)));
    })
    .concat(left_out)
}

/// Where an entity leads, the first so many; and how many more there are.
fn followed<'s>(edges: VecCollection<'s, Epoch, (Node, Node), isize>) -> Known<'s, Leads> {
    edges.arrange_by_key_named("Edges").reduce_abelian::<_, ValBuilder<_, _, _, _>, ValSpine<Node, Leads, _, _>, _, _>(
        "Followed",
        |_, targets: &[(&Node, isize)], out| {
            // Several ways to the same place are one edge; what was taken back more often than given is none.
            let there = || targets.iter().filter(|(_, times)| *times > 0);
            out.extend(there().take(FANOUT_MAX).map(|(to, _)| (Leads::To((*to).clone()), 1isize)));
            let more = there().count().saturating_sub(FANOUT_MAX);
            if more > 0 {
                out.push((Leads::More(u64::try_from(more).unwrap_or(u64::MAX)), 1));
            }
        },
        |rows, from, updates| {
            rows.clear();
            rows.extend(updates.drain(..).map(|(leads, epoch, diff)| ((from.clone(), leads), epoch, diff)));
        },
    )
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Leads {
    To(Node),
    More(u64),
}

/// How much entities matter; of several facts the highest.
fn criticality<'s>(facts: VecCollection<'s, Epoch, Fact, isize>) -> Known<'s, u8> {
    let said = facts.flat_map(|Fact { tenant, body }| match body {
        FactBody::Asset(asset) => Some(((tenant, asset.entity), asset.criticality)),
        _ => None,
    });
    said.reduce_abelian::<_, ValBuilder<_, _, _, _>, ValSpine<Node, u8, _, _>>(
        "Criticality",
        |_, said: &[(&u8, isize)], out| out.extend(said.last().map(|(criticality, _)| (**criticality, 1isize))),
    )
}

/// Entities with an open alert: those of the highest scores, and how many there are beside.
fn roots<'s>(alerts: VecCollection<'s, Epoch, Alert, isize>) -> StreamVec<'s, Epoch, (Root, isize)> {
    let open = changes(alerts).flat_map(|(alert, diff)| {
        let Alert { tenant, state, entities, score, .. } = alert;
        let entities = if state == AlertState::Open { entities } else { Vec::new() };
        let of = move |entity| (((tenant.clone(), entity), score.tenths()), diff);
        entities.into_iter().map(of).collect::<Vec<_>>()
    });
    let mut state = Roots::default();
    // One worker: which are the first is a matter of all.
    per_epoch(open, Exchange::new(|_: &((Node, u16), isize)| 1), "Roots", move |_epoch, changes, out| {
        out.extend(state.epoch(changes, ROOTS_MAX));
    })
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Root {
    Followed(Node),
    LeftOut(u64),
}

/// The entities with open alerts: pure.
#[derive(Default)]
struct Roots {
    scores: BTreeMap<Node, BTreeMap<u16, isize>>,
    /// By highest score, then by name.
    order: BTreeSet<(Reverse<u16>, Node)>,
    told: BTreeSet<Root>,
}

impl Roots {
    fn epoch(&mut self, changes: Vec<((Node, u16), isize)>, roots_max: usize) -> Vec<(Root, isize)> {
        for ((node, tenths), diff) in changes {
            let scores = self.scores.entry(node.clone()).or_default();
            let before = scores.keys().next_back().copied();
            let times = scores.entry(tenths).or_default();
            *times += diff;
            if *times == 0 {
                scores.remove(&tenths);
            }
            let after = scores.keys().next_back().copied();
            if scores.is_empty() {
                self.scores.remove(&node);
            }
            if before != after {
                before.map(|tenths| self.order.remove(&(Reverse(tenths), node.clone())));
                after.map(|tenths| self.order.insert((Reverse(tenths), node)));
            }
        }
        let followed = self.order.iter().take(roots_max).map(|(_, node)| Root::Followed(node.clone()));
        let mut now: BTreeSet<Root> = followed.collect();
        let left_out = self.order.len().saturating_sub(roots_max);
        if left_out > 0 {
            now.insert(Root::LeftOut(u64::try_from(left_out).unwrap_or(u64::MAX)));
        }
        let mut out: Vec<(Root, isize)> = self.told.difference(&now).map(|root| (root.clone(), -1)).collect();
        out.extend(now.difference(&self.told).map(|root| (root.clone(), 1)));
        self.told = now;
        out
    }
}

/// Something about what one root reaches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Change {
    root: Node,
    part: Part,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum Part {
    Reached(u8, Entity),
    Critical(u8, u8, Entity),
    More(Entity, u64),
}

fn route((tenant, entity): &Node) -> u64 {
    let id = cf_types::id::digest128(
        "counterflow 2026 entity, worker",
        &[tenant.as_str().as_bytes(), entity.kind.as_str().as_bytes(), entity.value.as_bytes()],
    );
    spread(&id)
}

/// The state of one worker: pure.
#[derive(Default)]
struct Radii {
    entries: BTreeMap<Node, Entry>,
}

#[derive(Default)]
struct Entry {
    reached: BTreeMap<(u8, Entity), isize>,
    /// Most critical first.
    critical: BTreeMap<(Reverse<u8>, u8, Entity), isize>,
    more: BTreeMap<(Entity, u64), isize>,
    told: Option<BlastRadius>,
}

impl Radii {
    fn epoch(&mut self, changes: Vec<(Change, isize)>) -> Vec<(BlastRadius, isize)> {
        let mut touched = BTreeSet::new();
        for (Change { root, part }, diff) in changes {
            let entry = self.entries.entry(root.clone()).or_default();
            match part {
                Part::Reached(hop, entity) => add(&mut entry.reached, (hop, entity), diff),
                Part::Critical(criticality, hop, entity) => {
                    add(&mut entry.critical, (Reverse(criticality), hop, entity), diff);
                }
                Part::More(entity, more) => add(&mut entry.more, (entity, more), diff),
            }
            touched.insert(root);
        }
        let mut out = Vec::new();
        for root in touched {
            let Some(entry) = self.entries.get_mut(&root) else { continue };
            let now = entry.radius(&root);
            if now != entry.told {
                out.extend(entry.told.take().map(|radius| (radius, -1)));
                out.extend(now.clone().map(|radius| (radius, 1)));
                entry.told = now;
            }
            if entry.told.is_none() {
                self.entries.remove(&root);
            }
        }
        out
    }
}

fn add<K: Ord + Clone>(held: &mut BTreeMap<K, isize>, key: K, diff: isize) {
    let times = held.entry(key.clone()).or_default();
    *times += diff;
    if *times == 0 {
        held.remove(&key);
    }
}

impl Entry {
    /// `None` when the root is none any more, or leads nowhere.
    fn radius(&self, (tenant, root): &Node) -> Option<BlastRadius> {
        let mut hops = vec![0; HOPS_MAX];
        for (hop, _) in self.reached.keys() {
            if let Some(count) = usize::from(*hop).checked_sub(1).and_then(|place| hops.get_mut(place)) {
                *count += 1;
            }
        }
        if hops.iter().sum::<u64>() == 0 {
            return None;
        }
        let mut by_criticality = vec![0; 5];
        // The root itself is not reached.
        let critical = || self.critical.keys().filter(|(_, hop, _)| *hop > 0);
        for (Reverse(criticality), ..) in critical() {
            let place = usize::from(*criticality).clamp(1, 5) - 1;
            by_criticality.get_mut(place).into_iter().for_each(|count: &mut u64| *count += 1);
        }
        let named = critical().map(|(Reverse(criticality), hop, entity)| Reached {
            entity: entity.clone(),
            hop: *hop,
            criticality: Some(*criticality),
        });
        let known: BTreeSet<&Entity> = critical().map(|(_, _, entity)| entity).collect();
        let others = self.reached.keys().filter(|(hop, entity)| *hop > 0 && !known.contains(entity));
        let others = others.map(|(hop, entity)| Reached { entity: entity.clone(), hop: *hop, criticality: None });
        let and_more = self.more.keys().filter(|(_, more)| *more > 0).take(NAMED_MAX).cloned().collect();
        Some(BlastRadius {
            tenant: tenant.clone(),
            root: root.clone(),
            hops,
            by_criticality,
            named: named.chain(others).take(NAMED_MAX).collect(),
            and_more,
        })
    }
}

#[cfg(test)]
mod tests {
    use cf_types::EntityKind;

    use super::*;

    /// `+a50` an alert of 5.0 on a came, `-a50` went; epochs parted by `|`. Two are followed; shown is what is told.
    #[track_caller]
    fn check(input: &str, expect: &str) {
        let mut state = Roots::default();
        let mut told = BTreeSet::new();
        let got: Vec<String> = input
            .split('|')
            .map(|epoch| {
                let changes = epoch.split_whitespace().map(|word| {
                    let (sign, rest) = word.split_at(1);
                    let (name, tenths) = rest.split_at(1);
                    let entity = Entity::of(EntityKind::Host, name).unwrap();
                    (((Tenant::default(), entity), tenths.parse().unwrap()), if sign == "+" { 1 } else { -1 })
                });
                for (root, diff) in state.epoch(changes.collect(), 2) {
                    assert!(if diff > 0 { told.insert(root) } else { told.remove(&root) });
                }
                let show = |root: &Root| match root {
                    Root::Followed((_, entity)) => entity.value.to_string(),
                    Root::LeftOut(number) => format!("and {number} more"),
                };
                told.iter().map(show).collect::<Vec<_>>().join(" ")
            })
            .collect();
        assert_eq!(got.join(" | "), expect, "{input}");
    }

    #[test]
    fn the_roots_of_the_highest_scores_are_followed_and_the_others_counted() {
        check("+a50 +b50 | +c75 +d30 | -b50 -c75", "a b | a c and 2 more | a d");
        check("+a50 +a75 +b60 +c60 | -a75 | +b60 -b60", "a b and 1 more | b c and 1 more | b c and 1 more");
        check("+a50 | -a50", "a | ");
    }
}
