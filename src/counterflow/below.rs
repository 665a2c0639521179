//! The episodes that an alert of a chained correlation stands on: found anew from the items of the rules below it, by the
//! operator that found them in the graph.
//!
//! The graph hands on that an episode began, not which: its alert's count is that of episodes. Whoever wants the events
//! comes here. Cost: once through the items of the rules below, near the alert.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use cf_dataflows::{
    chain::LEVELS,
    episode::{Diff, Episodes, Update},
};
use cf_types::{Cell, Episode, EpisodeKey, EpisodeRule, Group, Tenant};

/// One item of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Counted {
    pub(crate) cell: Cell,
    pub(crate) reference: u16,
    pub(crate) value: Option<Arc<str>>,
}

/// Items of one rule by group.
pub(crate) type Items = BTreeMap<Group, Vec<Counted>>;

/// The correlations of a rule set, and which stands on which.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chains {
    rules: BTreeMap<Arc<str>, Arc<EpisodeRule>>,
    /// Those that others refer to.
    below: BTreeSet<Arc<str>>,
}

/// Where items are looked up: rule, first and last cell.
pub(crate) type Lookup<'a> = dyn Fn(&str, Cell, Cell) -> Items + 'a;

impl Chains {
    /// Of a rule set's episode rules.
    pub(crate) fn new(rules: &[Arc<EpisodeRule>]) -> Chains {
        let is_plain = |rule: &EpisodeRule| matches!(&*rule.references, [only] if *only == rule.id);
        let rules = rules.iter().filter(|rule| !is_plain(rule));
        let rules: BTreeMap<_, _> = rules.map(|rule| (Arc::clone(&rule.id), Arc::clone(rule))).collect();
        let referred = rules.values().flat_map(|rule| &rule.references);
        let below = referred.filter(|id| rules.contains_key(*id)).cloned().collect();
        Chains { rules, below }
    }

    /// Whether another correlation counts this rule's episodes.
    pub(crate) fn is_below(&self, rule: &str) -> bool {
        self.below.contains(rule)
    }

    /// A correlation by its id.
    pub(crate) fn rule(&self, id: &str) -> Option<&Arc<EpisodeRule>> {
        self.rules.get(id)
    }

    /// The correlations that a rule refers to, with their places in its list.
    fn lower(&self, rule: &str) -> Vec<(u16, &Arc<EpisodeRule>)> {
        let references = self.rules.get(rule).map(|rule| rule.references.as_slice()).unwrap_or_default();
        (0..).zip(references).filter_map(|(place, id)| Some((place, self.rules.get(id)?))).collect()
    }

    /// All correlations below a rule, at any depth.
    pub(crate) fn all_below(&self, rule: &str) -> BTreeSet<Arc<str>> {
        let (mut found, mut open) = (BTreeSet::new(), vec![rule.to_owned()]);
        while let Some(rule) = open.pop() {
            for (_, lower) in self.lower(&rule) {
                if found.insert(Arc::clone(&lower.id)) {
                    open.push(lower.id.to_string());
                }
            }
        }
        found
    }

    /// How far before and after an alert the items must be known for its episodes below to be right.
    pub(crate) fn reach(&self, rule: &str) -> Cell {
        let below = self.all_below(rule);
        let reach = |id: &Arc<str>| self.rules.get(id).map_or(0, |rule| rule.cut() * 2 + rule.reach());
        below.iter().map(reach).fold(0, Cell::saturating_add)
    }

    /// The episodes that an alert stands on, at every depth, sorted.
    pub(crate) fn below(
        &self,
        tenant: &Tenant,
        rule: &str,
        group: &Group,
        (anchor, last): (Cell, Cell),
        items: &Lookup<'_>,
    ) -> Vec<Episode> {
        let mut found = BTreeSet::new();
        let mut open = vec![(Arc::<str>::from(rule), group.clone(), anchor, last, 0)];
        while let Some((rule, group, anchor, last, depth)) = open.pop() {
            if depth >= LEVELS {
                continue; // such rules are not evaluated
            }
            let Some(upper) = self.rules.get(&rule) else { continue };
            for (reference, lower) in self.lower(&rule) {
                let reach = lower.cut() * 2 + lower.reach();
                let (from, to) = (anchor.saturating_sub(reach), last.saturating_add(reach));
                for episode in self.episodes(tenant, lower, from, to, depth + 1, items) {
                    let taken = upper.taken(reference, &episode.key.group);
                    if taken.is_some_and(|(taken, _)| taken == group) && (anchor..=last).contains(&episode.first_hit) {
                        let key = &episode.key;
                        let (begin, end) = (episode.anchor, episode.last_cell);
                        open.push((Arc::clone(&key.rule), key.group.clone(), begin, end, depth + 1));
                        found.insert(episode);
                    }
                }
            }
        }
        found.into_iter().collect()
    }

    /// The episodes of a correlation between two cells.
    pub(crate) fn episodes(
        &self,
        tenant: &Tenant,
        rule: &Arc<EpisodeRule>,
        from: Cell,
        to: Cell,
        depth: usize,
        items: &Lookup<'_>,
    ) -> Vec<Episode> {
        let mut by_group = items(&rule.id, from, to);
        if depth < LEVELS {
            for (reference, lower) in self.lower(&rule.id) {
                for episode in self.episodes(tenant, lower, from, to, depth + 1, items) {
                    let Some((group, value)) = rule.taken(reference, &episode.key.group) else { continue };
                    let item = Counted { cell: episode.first_hit, reference, value };
                    by_group.entry(group).or_default().push(item);
                }
            }
        }
        by_group.into_iter().flat_map(|(group, items)| of_items(tenant, rule, group, items)).collect()
    }
}

/// The episodes that items of one group give.
fn of_items(tenant: &Tenant, rule: &Arc<EpisodeRule>, group: Group, items: Vec<Counted>) -> Vec<Episode> {
    let key = EpisodeKey { tenant: tenant.clone(), rule: Arc::clone(&rule.id), group };
    let mut state = Episodes::new(key, Arc::clone(rule), Cell::MIN);
    let update = |Counted { cell, reference, value }| Update { cell, reference, value, diff: 1 };
    let (mut updates, mut diff) = (items.into_iter().map(update).collect(), Diff::default());
    state.apply(&mut updates, &mut diff);
    diff.added
}

#[cfg(test)]
mod tests {
    use cf_types::{Condition, Level, Predicate};

    use super::*;

    fn rule(id: &str, references: &[&str], n: u64) -> Arc<EpisodeRule> {
        Arc::new(EpisodeRule {
            id: id.into(),
            title: id.into(),
            level: Level::Low,
            tags: Arc::from([]),
            references: references.iter().map(|id| Arc::from(*id)).collect(),
            timespan: 10,
            predicate: Predicate::EventCount(Condition::at_least(n)),
            alerts: true,
            chained: Vec::new(),
        })
    }

    #[test]
    fn episodes_below_are_found_at_every_depth() {
        // `low` twice in ten seconds, `mid` of one `low`, `top` of two `mid`.
        let rules = [rule("x", &["x"], 1), rule("low", &["x"], 2), rule("mid", &["low"], 1), rule("top", &["mid"], 2)];
        let chains = Chains::new(&rules);
        let at = |cells: &[Cell]| cells.iter().map(|cell| Counted { cell: *cell, reference: 0, value: None }).collect();
        let items = |rule: &str, from: Cell, to: Cell| {
            let all: Vec<Counted> = at(&[1_000, 1_005, 1_012, 1_022, 1_500, 1_503]);
            let near = all.into_iter().filter(|item| (from..=to).contains(&item.cell)).collect();
            if rule == "low" { Items::from([(Group::default(), near)]) } else { Items::new() }
        };
        let below = chains.below(&Tenant::default(), "top", &Group::default(), (1_005, 1_015), &items);
        let shown = |e: &Episode| format!("{} {}-{} x{}", e.key.rule, e.anchor, e.last_cell, e.count);
        let shown: Vec<_> = below.iter().map(shown).collect();
        assert_eq!(shown.join(", "), "low 1000-1022 x4, mid 1005-1005 x1");
        assert!(chains.below(&Tenant::default(), "low", &Group::default(), (0, 9_999), &items).is_empty());
        assert_eq!(chains.all_below("top").len(), 2);
    }
}
