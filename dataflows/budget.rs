//! What is beyond a rule's budget: alerts become one that counts them, values that were not counted become rejects.
//!
//! **Alerts.** In: changes of the alerts that remain. Out: the same, but of a rule whose alerts of one hour (of their
//! anchors) are more than the budget only the first by (anchor, id); for the others there is one alert of the rule and
//! hour that counts them. It stands for no entity, so it takes part in no incident, risk or action, and neither do those
//! that it counts. Key: (tenant, rule). Memory: one entry per alert, as long as the alert is there. Output appears when
//! the epoch is complete. An alert that is sealed is final and stays told, so which of them are counted can depend on
//! when they came; how many there are does not.
//!
//! **Values.** What `correlate` refused, under the rule's name, because the records of the items are not known any more
//! where their values are kept.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use cf_types::{
    Alert, AlertId, AlertState, AnchorKind, Cell, EpisodeRule, Epoch, Group, Origin, Position, RejectCode, Tenant,
    Time, record::Framing, risk::hour_of,
};
use differential_dataflow::VecCollection;
use timely::dataflow::channels::pact::Exchange;

use crate::{
    correlate::Refused,
    episode::OverBudget,
    epochs::{at_epoch, changes, per_epoch, spread},
    sink::{Change, Refusal},
};

const HOUR_CELLS: Cell = 3_600;

/// The field of the group that an alert has which counts others; no event has it.
const COUNTED: &str = "over_budget";

/// The reject for what was not counted. What came below the limit was refused, and told, before it got there.
pub(crate) fn refusal(refused: Refused) -> Option<Change> {
    let Refused::OverBudget(OverBudget { key, cell, items }) = refused else { return None };
    let group: Vec<String> = key.group.iter().map(|(field, value)| format!("{field}={value}")).collect();
    let group: String = group.join(" ").chars().take(200).collect();
    let reason = format!(
        "{items} items of {group} were not counted: the rule holds {} values of it already",
        EpisodeRule::VALUES_MAX
    );
    let time = Time::from_seconds(cell);
    Some(Change::Refused(Refusal {
        origin: Arc::new(Origin {
            tenant: key.tenant,
            source: Arc::from("correlation"),
            received_at: time,
            year: None,
            framing: Framing::Record,
        }),
        position: Position { origin: key.rule, offset: 0, line: 0, index: 0 },
        code: RejectCode::OverBudget,
        reason,
        time,
    }))
}

/// Leaves each rule its budget of alerts an hour, and counts the others.
pub(crate) fn within_budget<'s>(
    alerts: VecCollection<'s, Epoch, Alert, isize>,
    alerts_an_hour: usize,
) -> VecCollection<'s, Epoch, Alert, isize> {
    let by_rule = Exchange::new(|(alert, _): &(Alert, isize)| {
        spread(&AlertId::of(&alert.tenant, &alert.rule, &Group::default(), AnchorKind::Item, 0).0)
    });
    let mut state = Budget { alerts_an_hour, ..Budget::default() };
    at_epoch(per_epoch(changes(alerts), by_rule, "Budget", move |_epoch, alerts, out| state.epoch(alerts, out)))
}

type Hour = (Tenant, Arc<str>, i64);

/// The state of one worker: pure.
#[derive(Default)]
struct Budget {
    alerts_an_hour: usize,
    hours: BTreeMap<Hour, OneHour>,
}

/// The alerts of one rule in one hour, by (anchor, id).
#[derive(Default)]
struct OneHour {
    told: BTreeMap<(Cell, AlertId), Alert>,
    counted: BTreeMap<(Cell, AlertId), Alert>,
    /// The alert that counts the others, as it was told.
    counter: Option<Alert>,
}

impl Budget {
    /// Takes one epoch's changes in; gives what changed, sorted.
    fn epoch(&mut self, alerts: Vec<(Alert, isize)>, out: &mut Vec<(Alert, isize)>) {
        let mut net: BTreeMap<Alert, isize> = BTreeMap::new();
        for (alert, diff) in alerts {
            *net.entry(alert).or_default() += diff;
        }
        let mut touched = BTreeSet::new();
        let mut changes: BTreeMap<Alert, isize> = BTreeMap::new();
        let (went, mut came): (Vec<_>, Vec<_>) = net.into_iter().filter(|(_, n)| *n != 0).partition(|(_, n)| *n < 0);
        let mut were_told = BTreeSet::new();
        for (alert, _) in went {
            let hour = hour(&alert);
            if is_counter(&alert) {
                self.hours.entry(hour.clone()).or_default().drop_counter(&mut changes);
                touched.insert(hour);
                continue;
            }
            if self.hours.entry(hour.clone()).or_default().remove(&alert, &mut changes) {
                were_told.insert(alert.id);
            }
            touched.insert(hour);
        }
        // Those that were told are told again before others are let in: among them may be one that is final now.
        came.sort_by_key(|(alert, _)| (!were_told.contains(&alert.id), alert.anchor, alert.id));
        for (alert, _) in came {
            let hour = hour(&alert);
            if is_counter(&alert) {
                // Recalled, hence sealed: it is the hour's last word.
                *changes.entry(alert.clone()).or_default() += 1;
                self.hours.entry(hour).or_default().counter = Some(alert);
                continue;
            }
            self.hours.entry(hour.clone()).or_default().insert(alert, self.alerts_an_hour, &mut changes);
            touched.insert(hour);
        }
        for hour in touched {
            let Some(of) = self.hours.get_mut(&hour) else { continue };
            of.fill(self.alerts_an_hour, &mut changes);
            of.count(&hour, &mut changes);
            if of.told.is_empty() && of.counted.is_empty() {
                // Its alerts have left the graph, and so does what counted them.
                if let Some(mut of) = self.hours.remove(&hour) {
                    of.drop_counter(&mut changes);
                }
            }
        }
        out.extend(changes.into_iter().filter(|(_, diff)| *diff != 0));
    }
}

impl OneHour {
    /// Takes an alert out; says whether it was told.
    fn remove(&mut self, alert: &Alert, changes: &mut BTreeMap<Alert, isize>) -> bool {
        let at = (alert.anchor, alert.id);
        self.counted.remove(&at);
        let Some(told) = self.told.remove(&at) else { return false };
        *changes.entry(told).or_default() -= 1;
        true
    }

    fn drop_counter(&mut self, changes: &mut BTreeMap<Alert, isize>) {
        if let Some(counter) = self.counter.take() {
            *changes.entry(counter).or_default() -= 1;
        }
    }

    /// An alert that is final at birth is told beyond the budget where the hour's count is final already.
    fn insert(&mut self, alert: Alert, alerts_an_hour: usize, changes: &mut BTreeMap<Alert, isize>) {
        let is_closed = self.counter.as_ref().is_some_and(|counter| counter.state == AlertState::Sealed);
        if is_closed || self.told.len() < alerts_an_hour {
            self.tell(alert, changes);
        } else {
            self.counted.insert((alert.anchor, alert.id), alert);
        }
    }

    fn tell(&mut self, alert: Alert, changes: &mut BTreeMap<Alert, isize>) {
        *changes.entry(alert.clone()).or_default() += 1;
        self.told.insert((alert.anchor, alert.id), alert);
    }

    /// Lets the first be told: fills what became free, and puts earlier ones in the place of later ones.
    fn fill(&mut self, alerts_an_hour: usize, changes: &mut BTreeMap<Alert, isize>) {
        if self.counter.as_ref().is_some_and(|counter| counter.state == AlertState::Sealed) {
            return;
        }
        while let Some((first, _)) = self.counted.first_key_value() {
            let first = *first;
            if self.told.len() >= alerts_an_hour {
                let open = |(_, alert): &(&(Cell, AlertId), &Alert)| alert.state != AlertState::Sealed;
                let Some(last) = self.told.iter().rev().find(open).map(|(at, _)| *at).filter(|last| *last > first)
                else {
                    break;
                };
                if let Some(alert) = self.told.remove(&last) {
                    *changes.entry(alert.clone()).or_default() -= 1;
                    self.counted.insert(last, alert);
                }
            }
            if let Some(alert) = self.counted.remove(&first) {
                self.tell(alert, changes);
            }
        }
    }

    /// Makes the alert that counts the others.
    fn count(&mut self, hour: &Hour, changes: &mut BTreeMap<Alert, isize>) {
        if self.counter.as_ref().is_some_and(|counter| counter.state == AlertState::Sealed) {
            return;
        }
        let counter = self.counter_of(hour);
        if counter != self.counter {
            self.drop_counter(changes);
            if let Some(now) = counter {
                *changes.entry(now.clone()).or_default() += 1;
                self.counter = Some(now);
            }
        }
    }

    fn counter_of(&self, (tenant, rule, hour): &Hour) -> Option<Alert> {
        let first = self.counted.values().next()?;
        let all = |state| self.counted.values().all(|alert| alert.state == state);
        let group = Group::new([(Arc::from(COUNTED), Arc::from("alerts an hour"))]);
        let anchor = hour.saturating_mul(HOUR_CELLS);
        let count = u64::try_from(self.counted.len()).unwrap_or(u64::MAX);
        Some(Alert {
            tenant: tenant.clone(),
            id: AlertId::of(tenant, rule, &group, AnchorKind::Item, anchor),
            rule: Arc::clone(rule),
            title: format!("{}: more alerts than its budget of an hour", first.title).into(),
            level: first.level,
            group,
            state: match () {
                () if all(AlertState::Sealed) => AlertState::Sealed,
                () if all(AlertState::Provisional) => AlertState::Provisional,
                () => AlertState::Open,
            },
            anchor,
            last_cell: anchor.saturating_add(HOUR_CELLS - 1),
            count,
            reference_counts: vec![count],
            peak: 0,
            score: first.score,
            entities: Vec::new(),
            tags: Arc::clone(&first.tags),
        })
    }
}

/// Whether an alert counts others; no event has its field.
fn is_counter(alert: &Alert) -> bool {
    alert.group.iter().any(|(field, _)| field == COUNTED)
}

fn hour(alert: &Alert) -> Hour {
    (alert.tenant.clone(), Arc::clone(&alert.rule), hour_of(alert.anchor))
}

#[cfg(test)]
mod tests {
    use cf_types::{Level, Score, random::Random};

    use super::*;

    fn alert(number: u64, anchor: Cell, state: AlertState) -> Alert {
        let group = Group::new([(Arc::from("user"), Arc::from(number.to_string()))]);
        Alert {
            tenant: Tenant::default(),
            id: AlertId::of(&Tenant::default(), "rule", &group, AnchorKind::Item, anchor),
            rule: "rule".into(),
            title: "Rule".into(),
            level: Level::High,
            entities: group.entities(),
            group,
            state,
            anchor,
            last_cell: anchor,
            count: 1,
            reference_counts: vec![1],
            peak: 1,
            score: Score::of_level(Level::High),
            tags: Arc::from([]),
        }
    }

    #[test]
    fn the_first_of_each_hour_are_told_and_the_others_are_counted() {
        for seed in 0..200 {
            let mut random = Random(seed);
            let mut state = Budget { alerts_an_hour: 3, ..Budget::default() };
            let mut there: BTreeSet<Alert> = BTreeSet::new();
            let mut told: BTreeMap<Alert, isize> = BTreeMap::new();
            for _ in 0..20 {
                let mut changes = Vec::new();
                for _ in 0..random.number(6) {
                    let anchor = i64::try_from(random.number(2) * 3_600 + random.number(40)).unwrap();
                    let one = alert(random.number(8), anchor, AlertState::Open);
                    let diff = if there.remove(&one) { -1 } else { isize::from(there.insert(one.clone())) };
                    changes.push((one, diff));
                }
                let mut out = Vec::new();
                state.epoch(changes, &mut out);
                out.into_iter().for_each(|(alert, diff)| *told.entry(alert).or_default() += diff);
                told.retain(|_, times| *times != 0);
                assert!(told.values().all(|times| *times == 1), "seed {seed}");
                // From scratch.
                let mut want: BTreeMap<i64, Vec<&Alert>> = BTreeMap::new();
                there.iter().for_each(|alert| want.entry(hour_of(alert.anchor)).or_default().push(alert));
                let mut counts: Vec<(Cell, u64)> = Vec::new();
                let mut singles: BTreeSet<&Alert> = BTreeSet::new();
                for (hour, mut alerts) in want {
                    alerts.sort_by_key(|alert| (alert.anchor, alert.id));
                    singles.extend(alerts.iter().take(3));
                    let rest = u64::try_from(alerts.len().saturating_sub(3)).unwrap();
                    counts.extend((rest > 0).then_some((hour * 3_600, rest)));
                }
                let is_counter = |alert: &&Alert| alert.entities.is_empty();
                let got: Vec<_> = told.keys().filter(is_counter).map(|alert| (alert.anchor, alert.count)).collect();
                let mut got = got;
                got.sort_unstable();
                assert_eq!(got, counts, "seed {seed}");
                assert_eq!(told.keys().filter(|alert| !is_counter(alert)).collect::<BTreeSet<_>>(), singles);
            }
        }
    }

    #[test]
    fn what_is_sealed_is_final() {
        let mut state = Budget { alerts_an_hour: 1, ..Budget::default() };
        let mut step = |changes: &[(Alert, isize)]| {
            let mut out = Vec::new();
            state.epoch(changes.to_vec(), &mut out);
            out.iter().map(|(alert, diff)| (alert.anchor, alert.state, alert.count, *diff)).collect::<BTreeSet<_>>()
        };
        let (open, sealed) = (AlertState::Open, AlertState::Sealed);
        assert_eq!(step(&[(alert(1, 10, open), 1)]), BTreeSet::from([(10, open, 1, 1)]));
        let change = [(alert(1, 10, open), -1), (alert(1, 10, sealed), 1)];
        assert_eq!(step(&change), BTreeSet::from([(10, open, 1, -1), (10, sealed, 1, 1)]));
        // An earlier one does not take the place of one that is final.
        assert_eq!(step(&[(alert(2, 5, open), 1)]), BTreeSet::from([(0, open, 1, 1)]));
        let change = [(alert(2, 5, open), -1), (alert(2, 5, sealed), 1)];
        assert_eq!(step(&change), BTreeSet::from([(0, open, 1, -1), (0, sealed, 1, 1)]));
        // The count is final now; what comes late is told by itself.
        assert_eq!(step(&[(alert(3, 6, sealed), 1)]), BTreeSet::from([(6, sealed, 1, 1)]));

        // After a restart, too: the counter is recalled with those that were told.
        let mut state = Budget { alerts_an_hour: 1, ..Budget::default() };
        let mut before = Vec::new();
        let flood = [(alert(1, 10, sealed), 1), (alert(2, 15, sealed), 1), (alert(3, 16, sealed), 1)];
        state.epoch(flood.to_vec(), &mut before);
        let mut again = Budget { alerts_an_hour: 1, ..Budget::default() };
        let mut out = Vec::new();
        again.epoch(before.clone(), &mut out);
        assert_eq!(out, before);
        out.clear();
        again.epoch(vec![(alert(4, 17, sealed), 1)], &mut out);
        assert_eq!(out, [(alert(4, 17, sealed), 1)]);
        out.clear();
        again.epoch(vec![(alert(1, 10, sealed), -1), (alert(4, 17, sealed), -1)], &mut out);
        assert_eq!(out.iter().filter(|(one, diff)| is_counter(one) && *diff == -1).count(), 1, "{out:?}");
    }
}
