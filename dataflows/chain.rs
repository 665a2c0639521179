//! Chained correlations: an episode counts as one item, at its first hit, for the rules that refer to its rule.
//!
//! Rules are data and the graph's plan is not, so the chain is unrolled: `correlate` stands in the graph once per
//! level. A rule that refers to no correlation has level 0, any other one more than the highest it refers to. Chains
//! of more than [`LEVELS`] rules, and circles, are not evaluated: [`too_deep`] lists them for whoever loads rules.
//!
//! In: changes of episodes of one level, where `correlate` left them; rules; limits. Out: changes of items of higher
//! levels. Memory: one entry per episode whose first hit lies at or after the limit: below it neither the episode's first
//! hit changes, nor would the item be counted. Output appears when the epoch is complete.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use cf_types::{Cell, Episode, EpisodeKey, EpisodeRule, Epoch};
use differential_dataflow::VecCollection;
use timely::dataflow::{StreamVec, channels::pact::Pipeline};

use crate::{
    correlate::CellItem,
    detect::Rules,
    epochs::{changes, per_epoch_with},
};

/// How many correlations may stand on one another.
pub const LEVELS: usize = 4;

/// The rules, by id, that stand on too many others, or on themselves.
#[must_use]
pub fn too_deep(rules: &[Arc<EpisodeRule>]) -> Vec<Arc<str>> {
    let levels = Levels::of(rules);
    rules.iter().filter(|rule| levels.level(&rule.id).is_none()).map(|rule| Arc::clone(&rule.id)).collect()
}

/// The rules that begin empty when `new` takes the place of `old`: they were not there, refer to others, or stand on
/// another level. What was counted for them before counts no more.
#[must_use]
pub fn begun(old: &[Arc<EpisodeRule>], new: &[Arc<EpisodeRule>]) -> Vec<Arc<str>> {
    let (old_levels, new_levels) = (Levels::of(old), Levels::of(new));
    let before: BTreeMap<&str, &EpisodeRule> = old.iter().map(|rule| (&*rule.id, &**rule)).collect();
    let goes_on = |rule: &EpisodeRule| {
        old_levels.level(&rule.id) == new_levels.level(&rule.id)
            && before.get(&*rule.id).is_some_and(|before| before.can_serve(rule))
    };
    new.iter().filter(|rule| !goes_on(rule)).map(|rule| Arc::clone(&rule.id)).collect()
}

/// The level of each rule.
#[derive(Clone, Debug, Default)]
pub(crate) struct Levels(BTreeMap<Arc<str>, usize>);

impl Levels {
    /// Finds the levels, in one pass per level: what has not settled by then is too deep or a circle.
    pub(crate) fn of(rules: &[Arc<EpisodeRule>]) -> Levels {
        let mut levels: BTreeMap<Arc<str>, usize> = rules.iter().map(|rule| (Arc::clone(&rule.id), 0)).collect();
        let chained: BTreeMap<&str, &EpisodeRule> =
            rules.iter().filter(|rule| !is_plain(rule)).map(|rule| (&*rule.id, &**rule)).collect();
        for _ in 0..LEVELS {
            let next = chained.values().map(|rule| {
                let below = rule.references.iter().filter(|below| chained.contains_key(&***below));
                let level = below.filter_map(|below| levels.get(below)).map(|level| level + 1).max().unwrap_or(0);
                (Arc::clone(&rule.id), level)
            });
            let next: Vec<_> = next.collect();
            levels.extend(next);
        }
        Levels(levels)
    }

    /// The rule's level; `None` if it is not known or too deep.
    pub(crate) fn level(&self, rule: &str) -> Option<usize> {
        self.0.get(rule).copied().filter(|level| *level < LEVELS)
    }

    /// The rules of one level.
    pub(crate) fn at(&self, level: usize, rules: &[Arc<EpisodeRule>]) -> Vec<Arc<EpisodeRule>> {
        rules.iter().filter(|rule| self.level(&rule.id) == Some(level)).cloned().collect()
    }
}

/// Whether a rule is not a correlation but counts its own detections. An id in a correlation's list that is such a
/// rule's stands for its detections, not for its alerts.
fn is_plain(rule: &EpisodeRule) -> bool {
    matches!(&*rule.references, [only] if *only == rule.id)
}

/// Makes items of episodes.
pub(crate) fn chain<'s>(
    episodes: VecCollection<'s, Epoch, Episode, isize>,
    beside: StreamVec<'s, Epoch, Beside>,
) -> StreamVec<'s, Epoch, (usize, CellItem, isize)> {
    let mut state = Chain::default();
    per_epoch_with(changes(episodes), Pipeline, beside, "Chain", move |_epoch, changes, beside, out| {
        let (mut rules, mut limit, mut floors) = (None, None, BTreeMap::new());
        for beside in beside {
            match beside {
                Beside::Rules(new) => rules = Some(new),
                Beside::Limit(cell) => limit = limit.max(Some(cell)),
                Beside::Floor(rule, cell) => drop(floors.insert(rule, cell)),
            }
        }
        state.epoch(changes, rules, floors);
        out.extend(state.changes());
        // For later epochs, as `correlate` takes it.
        state.forget_before(limit);
    })
}

/// What every worker is told alike.
#[derive(Clone)]
pub(crate) enum Beside {
    /// The rules from this epoch on.
    Rules(Arc<dyn Rules>),
    /// Items before it are refused after this epoch.
    Limit(Cell),
    /// Of what is recalled in this epoch, this rule counts what lies from the cell on.
    Floor(Arc<str>, Cell),
}

/// What of an episode matters here: its first hit, and whose it is. Its count may change without a change for others.
type First = (Cell, EpisodeKey);

/// The state of one worker: pure.
#[derive(Default)]
struct Chain {
    /// By the rule referred to: who refers to it, at what level, at which place.
    uppers: BTreeMap<Arc<str>, Vec<(Arc<EpisodeRule>, usize, u16)>>,
    /// How often each is there. Of plain rules too: whether a rule is plain can change.
    episodes: BTreeMap<First, isize>,
    limit: Option<Cell>,
    /// Rules that began later than what a restart recalls, and where their items begin.
    floors: BTreeMap<Arc<str>, Cell>,
    pending: BTreeMap<(usize, CellItem), isize>,
}

impl Chain {
    fn epoch(
        &mut self,
        changes: Vec<(Episode, isize)>,
        rules: Option<Arc<dyn Rules>>,
        floors: BTreeMap<Arc<str>, Cell>,
    ) {
        if let Some(rules) = rules {
            // A rule that moves to another level, or that what was kept for it cannot serve any more, begins empty there:
            // nothing of it is taken back, and all that is there is given to it anew.
            let levels = Levels::of(rules.episode_rules());
            let stays = |upper: &EpisodeRule, level| {
                let mut same = rules.episode_rules().iter().filter(|rule| rule.id == upper.id);
                levels.level(&upper.id) == Some(level) && same.any(|rule| upper.can_serve(rule))
            };
            for referring in self.uppers.values_mut() {
                referring.retain(|(upper, level, _)| stays(upper, *level));
            }
            let goes_on = |id: &Arc<str>| self.uppers.values().flatten().any(|(upper, ..)| upper.id == *id);
            // One that begins anew begins at the present limit.
            let begun: Vec<_> = self.floors.keys().filter(|id| !goes_on(id)).cloned().collect();
            for id in &begun {
                self.floors.remove(id);
            }
            self.count_all(-1);
            self.uppers = uppers(rules.episode_rules());
            self.count_all(1);
        }
        self.floors.extend(floors);
        for (episode, diff) in changes {
            // What lies below the limit is final, and counted nowhere any more.
            if self.limit.is_some_and(|limit| episode.first_hit < limit) {
                continue;
            }
            let first = (episode.first_hit, episode.key);
            self.count(&first, diff);
            let times = self.episodes.entry(first.clone()).or_default();
            *times += diff;
            if *times == 0 {
                self.episodes.remove(&first);
            }
        }
    }

    /// Forgets what no change, and no rule, can concern any more.
    fn forget_before(&mut self, limit: Option<Cell>) {
        self.limit = self.limit.max(limit);
        while let Some(first) = self.episodes.first_entry().filter(|first| Some(first.key().0) < self.limit) {
            first.remove();
        }
        self.floors.retain(|_, floor| Some(*floor) > self.limit);
    }

    /// The items that came or went, sorted.
    fn changes(&mut self) -> impl Iterator<Item = (usize, CellItem, isize)> + use<> {
        let pending = std::mem::take(&mut self.pending);
        pending.into_iter().filter(|(_, diff)| *diff != 0).map(|((level, item), diff)| (level, item, diff))
    }

    fn count_all(&mut self, sign: isize) {
        let episodes = std::mem::take(&mut self.episodes);
        for (first, times) in &episodes {
            self.count(first, sign * times);
        }
        self.episodes = episodes;
    }

    /// An episode has a group and no fields: what rules that refer to it group by or count is of that group.
    fn count(&mut self, (cell, key): &First, diff: isize) {
        for (upper, level, reference) in self.uppers.get(&key.rule).into_iter().flatten() {
            if self.floors.get(&upper.id).is_some_and(|floor| cell < floor) {
                continue;
            }
            let Some((group, value)) = upper.taken(*reference, &key.group) else { continue };
            let key = EpisodeKey { tenant: key.tenant.clone(), rule: Arc::clone(&upper.id), group };
            let item = CellItem { key, cell: *cell, reference: *reference, value };
            *self.pending.entry((*level, item)).or_default() += diff;
        }
    }
}

fn uppers(rules: &[Arc<EpisodeRule>]) -> BTreeMap<Arc<str>, Vec<(Arc<EpisodeRule>, usize, u16)>> {
    let levels = Levels::of(rules);
    let plain: BTreeSet<&str> = rules.iter().filter(|rule| is_plain(rule)).map(|rule| &*rule.id).collect();
    let mut uppers: BTreeMap<Arc<str>, Vec<_>> = BTreeMap::new();
    for upper in rules.iter().filter(|upper| !is_plain(upper)) {
        let Some(level) = levels.level(&upper.id) else { continue };
        for (lower, reference) in upper.references.iter().zip(0u16..) {
            if !plain.contains(&**lower) {
                uppers.entry(Arc::clone(lower)).or_default().push((Arc::clone(upper), level, reference));
            }
        }
    }
    uppers
}

#[cfg(test)]
mod tests {
    use cf_types::{Condition, Level, Predicate};

    use super::*;

    /// `b:a c` = rule b refers to a and c. Shown is each rule's level, `-` where there is none.
    #[track_caller]
    fn check(rules: &str, expect: &str) {
        let rules: Vec<_> = rules.split(", ").map(rule).collect();
        let levels = Levels::of(&rules);
        let shown = rules.iter().map(|rule| levels.level(&rule.id).map_or("-".into(), |level| level.to_string()));
        assert_eq!(shown.collect::<Vec<_>>().join(" "), expect);
        assert_eq!(too_deep(&rules).len(), expect.matches('-').count());
    }

    fn rule(text: &str) -> Arc<EpisodeRule> {
        let (id, references) = text.split_once(':').unwrap();
        Arc::new(EpisodeRule {
            id: id.into(),
            title: id.into(),
            level: Level::Low,
            tags: Arc::from([]),
            references: references.split(' ').map(Arc::from).collect(),
            timespan: 1,
            predicate: Predicate::EventCount(Condition::at_least(1)),
            alerts: true,
            chained: Vec::new(),
        })
    }

    #[test]
    fn a_level_is_one_more_than_the_highest_below() {
        check("a:a, b:x, c:b a, d:c b", "0 0 1 2");
    }

    #[test]
    fn a_rule_that_counts_its_own_detections_is_no_level_below() {
        check("a:a, b:a", "0 0");
    }

    #[test]
    fn circles_and_towers_have_none() {
        check("a:b, b:a, c:x", "- - 0");
        check("a:a b, b:x", "- 0");
        check("a:x, b:a, c:b, d:c, e:d, f:e, g:a", "0 1 2 3 - - 1");
    }

    #[test]
    fn a_rule_begins_empty_when_it_is_new_or_refers_to_others_or_moves() {
        for (old, new, expect) in [
            ("a:a", "a:a", ""),
            ("", "a:a", "a"),
            ("a:a, b:x", "a:a", ""),
            ("b:x y", "b:y x", "b"),
            ("b:x", "b:x y", "b"),
            ("b:x, c:b", "b:x, c:b, x:z", "b c x"), // x is a correlation now: b stands on it
            ("a:a, b:a", "b:a", ""),
        ] {
            let rules = |text: &str| text.split(", ").filter(|text| !text.is_empty()).map(rule).collect::<Vec<_>>();
            assert_eq!(begun(&rules(old), &rules(new)).join(" "), expect, "{old} to {new}");
        }
        let counting = |predicate| vec![Arc::new(EpisodeRule { predicate, ..(*rule("b:x")).clone() })];
        let (events, values) = (Condition::at_least(1), Condition::at_least(1));
        let changed = begun(&counting(Predicate::EventCount(events)), &counting(Predicate::ValueCount(values)));
        assert_eq!(changed, [Arc::from("b")], "values were not kept");
    }

    fn episode(rule: &str, first_hit: Cell) -> Episode {
        let key = EpisodeKey { tenant: Default::default(), rule: rule.into(), group: Default::default() };
        let kind = cf_types::AnchorKind::Item;
        let reference_counts = Vec::new();
        Episode { key, kind, anchor: 0, last_cell: 9, first_hit, count: 1, reference_counts, peak: 0 }
    }

    #[test]
    fn only_a_change_of_the_first_hit_is_a_change_above() {
        let mut state = Chain { uppers: uppers(&[rule("a:x"), rule("b:a")]), ..Chain::default() };
        let grown = Episode { count: 2, ..episode("a", 5) };
        for (changes, expect) in [
            (vec![(episode("a", 5), 1)], vec![(5, 1)]),
            (vec![(episode("a", 5), -1), (grown.clone(), 1)], vec![]),
            (vec![(grown, -1), (episode("a", 4), 1)], vec![(4, 1), (5, -1)]),
            (vec![(episode("a", 4), -1)], vec![(4, -1)]),
        ] {
            state.epoch(changes, None, BTreeMap::new());
            let got: Vec<_> = state.changes().map(|(_, item, diff)| (item.cell, diff)).collect();
            assert_eq!(got, expect);
        }
        assert!(state.episodes.is_empty());
    }

    #[test]
    fn an_episode_below_the_limit_is_forgotten() {
        let mut state = Chain { uppers: uppers(&[rule("a:x"), rule("b:a")]), ..Chain::default() };
        state.epoch(vec![(episode("a", 5), 1), (episode("a", 9), 1)], None, BTreeMap::new());
        assert_eq!(state.changes().count(), 2);
        state.forget_before(Some(9));
        assert_eq!(state.episodes.keys().map(|(cell, _)| *cell).collect::<Vec<_>>(), [9]);
        // It still grows, and may go with its rule: nobody counts it any more.
        let grown = Episode { count: 2, ..episode("a", 5) };
        state.epoch(vec![(episode("a", 5), -1), (grown, 1), (episode("a", 9), -1)], None, BTreeMap::new());
        assert_eq!(state.changes().map(|(_, item, diff)| (item.cell, diff)).collect::<Vec<_>>(), [(9, -1)]);
        assert!(state.episodes.is_empty());
    }
}
