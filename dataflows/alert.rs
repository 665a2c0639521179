//! Alerts: the episodes of rules that tell people, with the rule's words added.
//!
//! In: changes of episodes, episodes born final, what became of ids, rules, and how far events are in. Out: changes of
//! alerts, and of the ids' lineage what concerns alerts. Key: alert id. Output appears when the epoch is complete.
//!
//! An alert of a rule whose hits later events can undo (`<`, an average, absence), or that stands on such a rule, is
//! provisional until the watermark has passed its first hit: what comes in order cannot undo it any more, and what comes
//! late corrects it as it corrects any other. All others are open at once.
//!
//! A sealed alert is final: neither its episode nor its rule's new title changes it, and it stays when its rule goes.
//! Memory: one entry per alert, until it leaves: a sealed alert is taken out of the graph once the limit is so far ahead
//! of it that it weighs nothing in any risk any more. That is no withdrawal: whoever tells people passes over it
//! ([`leaves`]), and incidents keep it until they close.
//!
//! After a restart the sealed alerts of before are recalled as they were. What the facts log's detections give again of
//! them is passed over, since the log may hold parts of an episode only.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use cf_types::{
    Alert, AlertId, AlertState, Cell, EntityRisk, Episode, EpisodeRule, Epoch, Lineage, Score,
    risk::{Hour, hour_of},
};
use serde::{Deserialize, Serialize};
use timely::dataflow::{StreamVec, channels::pact::Exchange};

use crate::{
    detect::Rules,
    epochs::{per_epoch_with, spread},
    waits::Waits,
};

/// What alerts are made of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Change {
    /// An episode came or went.
    Episode(Episode, isize),
    /// An episode that is final at birth.
    Born(Episode),
    /// What became of an id.
    Lineage(Lineage),
    /// An alert that was sealed before a restart.
    Recalled(Alert),
}

/// What every worker is told alike.
#[derive(Clone)]
pub(crate) enum Beside {
    /// The rules from this epoch on.
    Rules(Arc<dyn Rules>),
    /// The limit after this epoch.
    Limit(Cell),
    /// All events before this cell are in, but for late ones.
    Decided(Cell),
    /// In this epoch stands what was before a restart.
    Recalling,
}

/// Whether a change of an alert is its end as state, not its withdrawal: what is sealed is final.
pub(crate) fn leaves(alert: &Alert, diff: isize) -> bool {
    diff < 0 && alert.state == AlertState::Sealed
}

impl Change {
    fn id(&self) -> AlertId {
        match self {
            Change::Recalled(alert) => alert.id,
            Change::Episode(episode, _) | Change::Born(episode) => episode.id(),
            Change::Lineage(lineage) => subject(lineage),
        }
    }
}

/// What this operator gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Alert(Alert, isize),
    Lineage(Lineage),
    /// Something happens when the watermark reaches this cell.
    Waits(Cell, isize),
}

/// Makes alerts of episodes.
pub(crate) fn alerts<'s>(
    changes: StreamVec<'s, Epoch, Change>,
    beside: StreamVec<'s, Epoch, Beside>,
) -> StreamVec<'s, Epoch, Told> {
    let by_id = Exchange::new(|change: &Change| spread(&change.id().0));
    let mut state = Alerts::default();
    per_epoch_with(changes, by_id, beside, "Alerts", move |_epoch, changes, beside, out| {
        let (mut rules, mut limit, mut recalling) = (None, None, false);
        for beside in beside {
            match beside {
                Beside::Rules(new) => rules = Some(new),
                Beside::Limit(cell) => limit = limit.max(Some(cell)),
                Beside::Decided(cell) => state.decided = state.decided.max(Some(cell)),
                Beside::Recalling => recalling = true,
            }
        }
        // Before what comes: whoever comes with this epoch stays for it.
        if let Some(limit) = limit {
            state.leave(limit, out);
        }
        state.recalling = recalling;
        state.epoch(changes, rules.as_ref().map(|rules| rules.episode_rules()), out);
        let decided = state.waiting.first().map(|(hit, _)| hit.saturating_add(1));
        out.extend(state.waits.until(decided).map(|(cell, diff)| Told::Waits(cell, diff)));
    })
}

/// The state of one worker: pure.
#[derive(Default)]
struct Alerts {
    rules: BTreeMap<Arc<str>, Arc<EpisodeRule>>,
    /// Those whose hits later events can undo.
    tentative: BTreeSet<Arc<str>>,
    /// All events before it are in.
    decided: Option<Cell>,
    /// Provisional alerts by their first hit.
    waiting: BTreeSet<(Cell, AlertId)>,
    waits: Waits,
    entries: BTreeMap<AlertId, Entry>,
    /// The sealed alerts by the hour of their anchor.
    sealed: BTreeMap<Hour, Vec<AlertId>>,
    recalling: bool,
}

#[derive(Default)]
struct Entry {
    episodes: BTreeMap<Episode, isize>,
    /// Nothing changes it any more.
    sealed: bool,
    /// It is among those that leave when their time has come.
    leaving: bool,
    /// Its first hit, while it is provisional.
    waiting: Option<Cell>,
    told: Option<Alert>,
}

impl Alerts {
    fn epoch(&mut self, changes: Vec<Change>, rules: Option<&[Arc<EpisodeRule>]>, out: &mut Vec<Told>) {
        let mut touched = BTreeSet::new();
        if let Some(rules) = rules {
            self.rules = rules.iter().map(|rule| (Arc::clone(&rule.id), Arc::clone(rule))).collect();
            self.tentative = tentative(rules);
            touched.extend(self.entries.keys().copied());
        }
        let decided = self.waiting.iter().take_while(|(hit, _)| Some(*hit) < self.decided);
        touched.extend(decided.map(|(_, id)| *id));
        let (mut born, mut lineages, mut sealed) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let mut recalled = BTreeMap::new();
        for change in changes {
            let id = change.id();
            touched.insert(id);
            match change {
                Change::Episode(episode, diff) => {
                    let entry = self.entries.entry(id).or_default();
                    *entry.episodes.entry(episode).or_default() += diff;
                }
                Change::Born(episode) => {
                    born.insert(episode);
                }
                Change::Lineage(lineage) => {
                    if let Lineage::Sealed(id) = lineage {
                        sealed.insert(id);
                    }
                    lineages.insert(lineage);
                }
                Change::Recalled(alert) => {
                    recalled.insert(id, alert);
                }
            }
        }
        for episode in born {
            self.give_birth(episode);
        }
        let mut alerting: BTreeSet<AlertId> = touched
            .iter()
            .filter(|id| self.entries.get(id).is_some_and(|entry| entry.told.is_some()))
            .copied()
            .collect();
        for id in touched {
            match recalled.remove(&id) {
                Some(alert) => self.recall(alert, out),
                None => self.tell(id, sealed.contains(&id), out),
            }
            if self.entries.get(&id).is_some_and(|entry| entry.told.is_some()) {
                alerting.insert(id);
            }
        }
        let lineages = lineages.into_iter().filter(|lineage| alerting.contains(&subject(lineage)));
        out.extend(lineages.map(Told::Lineage));
    }

    /// An episode that is final at birth counts unless there already is one of its id.
    fn give_birth(&mut self, episode: Episode) {
        let entry = self.entries.entry(episode.id()).or_default();
        if entry.told.is_none() && entry.episodes.values().all(|times| *times <= 0) {
            entry.episodes.insert(episode, 1);
            entry.sealed = true;
        }
    }

    /// Tells how the alert changed, if it did.
    fn tell(&mut self, id: AlertId, seal: bool, out: &mut Vec<Told>) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.episodes.retain(|_, times| *times != 0);
        let final_before = entry.told.as_ref().is_some_and(|alert| alert.state == AlertState::Sealed);
        entry.sealed |= seal;
        let now = if final_before { entry.told.clone() } else { entry.content(id, &self.rules) };
        let now = now.map(|alert| entry.stated(alert, &self.tentative, self.decided));
        // What was sealed before a restart is what is recalled, and nothing else.
        let now = now.filter(|alert| !self.recalling || alert.state != AlertState::Sealed);
        if let Some(hit) = entry.waiting.take() {
            self.waiting.remove(&(hit, id));
        }
        entry.waiting = now.as_ref().filter(|alert| alert.state == AlertState::Provisional).and(entry.first_hit());
        self.waiting.extend(entry.waiting.map(|hit| (hit, id)));
        if now != entry.told {
            out.extend(entry.told.take().map(|alert| Told::Alert(alert, -1)));
            out.extend(now.clone().map(|alert| Told::Alert(alert, 1)));
            entry.told = now;
        }
        if entry.told.is_none() && (entry.episodes.is_empty() || (entry.sealed && self.recalling)) {
            self.entries.remove(&id);
        } else if entry.sealed && !entry.leaving {
            entry.leaving = true;
            let anchor = entry.episodes.keys().next().map(|episode| episode.anchor);
            self.sealed.entry(hour_of(anchor.unwrap_or(Cell::MIN))).or_default().push(id);
        }
    }

    /// Takes a sealed alert in as it was.
    fn recall(&mut self, alert: Alert, out: &mut Vec<Told>) {
        self.sealed.entry(hour_of(alert.anchor)).or_default().push(alert.id);
        let entry = Entry { sealed: true, leaving: true, told: Some(alert.clone()), ..Entry::default() };
        if let Some(Entry { told, waiting, .. }) = self.entries.insert(alert.id, entry) {
            out.extend(told.map(|told| Told::Alert(told, -1)));
            waiting.map(|hit| self.waiting.remove(&(hit, alert.id)));
        }
        out.push(Told::Alert(alert, 1));
    }

    /// Takes the sealed alerts out that weigh nothing any more.
    fn leave(&mut self, limit: Cell, out: &mut Vec<Told>) {
        let first = hour_of(limit).saturating_sub(EntityRisk::SPAN_HOURS).saturating_add(1);
        while let Some(hour) = self.sealed.first_entry().filter(|hour| *hour.key() < first) {
            let mut ids = hour.remove();
            ids.sort_unstable();
            let told = ids.into_iter().filter_map(|id| self.entries.remove(&id)?.told);
            out.extend(told.map(|alert| Told::Alert(alert, -1)));
        }
    }
}

impl Entry {
    fn first_hit(&self) -> Option<Cell> {
        self.episodes.iter().find(|(_, times)| **times > 0).map(|(episode, _)| episode.first_hit)
    }

    /// The alert in the state that it is in now.
    fn stated(&self, alert: Alert, tentative: &BTreeSet<Arc<str>>, decided: Option<Cell>) -> Alert {
        let waits = alert.state == AlertState::Open
            && tentative.contains(&alert.rule)
            && self.first_hit().is_some_and(|hit| decided.is_none_or(|decided| hit >= decided));
        if waits { Alert { state: AlertState::Provisional, ..alert } } else { alert }
    }

    fn content(&self, id: AlertId, rules: &BTreeMap<Arc<str>, Arc<EpisodeRule>>) -> Option<Alert> {
        // There is one at the most at the end of an epoch: a rule's episodes in a group have different anchors.
        let (episode, _) = self.episodes.iter().find(|(_, times)| **times > 0)?;
        let rule = rules.get(&episode.key.rule).filter(|rule| rule.alerts)?;
        Some(Alert {
            tenant: episode.key.tenant.clone(),
            id,
            rule: Arc::clone(&rule.id),
            title: Arc::clone(&rule.title),
            level: rule.level,
            group: episode.key.group.clone(),
            state: if self.sealed { AlertState::Sealed } else { AlertState::Open },
            anchor: episode.anchor,
            last_cell: episode.last_cell,
            count: episode.count,
            reference_counts: episode.reference_counts.clone(),
            peak: episode.peak,
            score: Score::of_level(rule.level),
            entities: episode.key.group.entities(),
            tags: Arc::clone(&rule.tags),
        })
    }
}

/// The rules whose hits later events can undo, and those that stand on them.
fn tentative(rules: &[Arc<EpisodeRule>]) -> BTreeSet<Arc<str>> {
    let mut found: BTreeSet<Arc<str>> = BTreeSet::new();
    loop {
        let unsure = |rule: &EpisodeRule| {
            !rule.predicate.is_monotone() || rule.references.iter().any(|below| found.contains(below))
        };
        let all: BTreeSet<Arc<str>> =
            rules.iter().filter(|rule| unsure(rule)).map(|rule| Arc::clone(&rule.id)).collect();
        if all.len() == found.len() {
            return found;
        }
        found = all;
    }
}

/// The id that something became of.
fn subject(lineage: &Lineage) -> AlertId {
    match lineage {
        Lineage::SupersededBy { old, .. } | Lineage::SplitFrom { old, .. } => *old,
        Lineage::Sealed(id) | Lineage::Suppressed { alert: id, .. } => *id,
    }
}
