//! Desired actions: what policies want done because of alerts.
//!
//! In: changes of the alerts that remain, and facts. Out: changes of one row per (action, target, alert); when several
//! policies want the same because of the same alert, the longest time counts. Key: alert id; policies go to every
//! worker. Memory: the alerts with an address, and the policies. Output appears when the epoch is complete. What is
//! done about it is the reconciler's.
//!
//! A sealed alert's wishes stay as they were: a new policy does not reach back behind the horizon, and an alert that is
//! sealed at birth wants nothing done. They go when the alert is withdrawn; when a sealed one leaves the graph, they stay
//! as they are, and what was done for it lasts as long as it was meant to.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use cf_types::{
    ActionId, ActionKind, Alert, AlertId, AlertState, DesiredAction, Entity, EntityKind, Epoch, Fact, FactBody, Tenant,
    fact::Policy,
};
use differential_dataflow::VecCollection;
use timely::dataflow::{
    channels::pact::Exchange,
    operators::vec::{Broadcast, Map},
};

use crate::{
    alert::leaves,
    epochs::{at_epoch, changes, per_epoch_with, spread},
};

/// Meets alerts with policies.
pub(crate) fn desire<'s>(
    alerts: VecCollection<'s, Epoch, Alert, isize>,
    facts: VecCollection<'s, Epoch, Fact, isize>,
) -> VecCollection<'s, Epoch, DesiredAction, isize> {
    let policies = changes(facts).flat_map(|(fact, diff)| match fact.body {
        FactBody::Policy(policy) => Some(((fact.tenant, policy), diff)),
        _ => None,
    });
    let by_id = Exchange::new(|(alert, _): &(Alert, isize)| spread(&alert.id.0));
    let mut state = Desire::default();
    at_epoch(per_epoch_with(
        changes(alerts),
        by_id,
        policies.broadcast(),
        "Desire",
        move |_epoch, alerts, policies, out| {
            out.extend(state.epoch(alerts, policies));
        },
    ))
}

/// The state of one worker: pure.
#[derive(Default)]
struct Desire {
    policies: BTreeMap<(Tenant, Policy), isize>,
    entries: BTreeMap<AlertId, Entry>,
}

#[derive(Default)]
struct Entry {
    alerts: BTreeMap<Alert, isize>,
    told: BTreeSet<DesiredAction>,
}

impl Desire {
    /// Takes one epoch's changes in; gives what changed, sorted.
    fn epoch(
        &mut self,
        alerts: Vec<(Alert, isize)>,
        policies: Vec<((Tenant, Policy), isize)>,
    ) -> Vec<(DesiredAction, isize)> {
        let mut touched: BTreeSet<AlertId> = BTreeSet::new();
        for (alert, _) in alerts.iter().filter(|(alert, diff)| leaves(alert, *diff)) {
            self.entries.remove(&alert.id);
        }
        if !policies.is_empty() {
            touched.extend(self.entries.keys());
        }
        for (policy, diff) in policies {
            *self.policies.entry(policy).or_default() += diff;
        }
        self.policies.retain(|_, times| *times != 0);
        let wanting = |(alert, diff): &(Alert, isize)| targets(alert).next().is_some() && !leaves(alert, *diff);
        for (alert, diff) in alerts.into_iter().filter(wanting) {
            touched.insert(alert.id);
            *self.entries.entry(alert.id).or_default().alerts.entry(alert).or_default() += diff;
        }
        let mut out = Vec::new();
        for id in touched {
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            entry.alerts.retain(|_, times| *times != 0);
            let now = match entry.alerts.keys().next() {
                Some(alert) if alert.state == AlertState::Sealed => continue,
                Some(alert) => wishes(alert, self.policies.keys()),
                None => BTreeSet::new(),
            };
            out.extend(entry.told.difference(&now).map(|wish| (wish.clone(), -1)));
            out.extend(now.difference(&entry.told).map(|wish| (wish.clone(), 1)));
            entry.told = now;
            if entry.alerts.is_empty() {
                self.entries.remove(&id);
            }
        }
        out.sort_unstable();
        out
    }
}

/// What all policies together want done because of an alert.
fn wishes<'a>(alert: &Alert, policies: impl Iterator<Item = &'a (Tenant, Policy)>) -> BTreeSet<DesiredAction> {
    let mut longest: BTreeMap<(ActionKind, &Entity), u32> = BTreeMap::new();
    for (_, policy) in policies.filter(|(tenant, policy)| *tenant == alert.tenant && fits(policy, alert)) {
        for target in targets(alert) {
            let ttl_s = longest.entry((policy.action, target)).or_default();
            *ttl_s = policy.ttl_s.max(*ttl_s);
        }
    }
    let wish = |((kind, target), ttl_s): ((ActionKind, &Entity), u32)| DesiredAction {
        tenant: alert.tenant.clone(),
        id: ActionId::of(&alert.tenant, kind.as_str(), &target.value),
        kind,
        target: Arc::clone(&target.value),
        ttl_s,
        alert: alert.id,
        anchor: alert.anchor,
    };
    longest.into_iter().map(wish).collect()
}

/// Whether all conditions of a policy hold.
fn fits(policy: &Policy, alert: &Alert) -> bool {
    alert.level >= policy.level_min
        && (policy.rules.is_empty() || policy.rules.contains(&alert.rule))
        && (policy.tags.is_empty() || policy.tags.iter().any(|tag| alert.tags.contains(tag)))
}

/// The entities that actions apply to.
fn targets(alert: &Alert) -> impl Iterator<Item = &Entity> {
    alert.entities.iter().filter(|entity| entity.kind == EntityKind::Address)
}
