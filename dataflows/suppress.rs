//! Withdraws alerts that a fact forbids, and brings them back when it goes (ALR-05).
//!
//! In: changes of alerts and facts. Out: changes of the alerts that remain, of those that are suppressed, and which went
//! because of which fact. Which allow facts touch which alerts is a join: an alert's addresses are masked to every prefix
//! length in use and met with the networks. Silences are few and look at anything: each worker has them all and meets
//! its alerts with them. What follows is kept by alert id, because a sealed alert is final: no fact changes it.
//! Memory: the alerts and the facts. Output appears when the epoch is complete.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use cf_types::{Alert, AlertId, AlertState, EntityKind, Epoch, Fact, FactBody, Lineage, Suppressed};
use differential_dataflow::VecCollection;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use timely::dataflow::{
    StreamVec,
    channels::pact::Exchange,
    operators::{
        Concat,
        vec::{Broadcast, Filter, Map},
    },
};

use crate::epochs::{changes, per_epoch_with, spread};

/// What this operator gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// An alert that remains.
    Alert(Alert, isize),
    /// One that does not.
    Suppressed(Suppressed, isize),
    /// One that was told went because of a fact.
    Lineage(Lineage),
}

/// Withdraws what allow facts and silences forbid. `recalled` names the alerts that were sealed before a restart: they were
/// told, and no fact that came after that changes it.
pub(crate) fn suppress<'s>(
    alerts: VecCollection<'s, Epoch, Alert, isize>,
    facts: VecCollection<'s, Epoch, Fact, isize>,
    recalled: StreamVec<'s, Epoch, AlertId>,
) -> StreamVec<'s, Epoch, Kept> {
    let forbidden = forbidden(alerts.clone(), facts.clone());
    let alerts = changes(alerts).map(|(alert, diff)| Change::Alert(alert, diff));
    let forbidden = changes(forbidden).map(|((id, fact), diff)| Change::Forbidden(id, fact, diff));
    let alerts = alerts.concat(recalled.map(Change::Recalled));
    let silences = changes(facts).filter(|(fact, _)| matches!(fact.body, FactBody::Silence(_))).broadcast();
    let by_id = Exchange::new(|change: &Change| spread(&change.id().0));
    let mut state = Suppress::default();
    per_epoch_with(alerts.concat(forbidden), by_id, silences, "Suppress", move |_epoch, changes, silences, out| {
        state.epoch(changes, silences, out);
    })
}

/// Which alerts have an address in an allowed network.
fn forbidden<'s>(
    alerts: VecCollection<'s, Epoch, Alert, isize>,
    facts: VecCollection<'s, Epoch, Fact, isize>,
) -> VecCollection<'s, Epoch, (AlertId, Fact), isize> {
    let networks = facts.flat_map(|fact| match fact.body {
        FactBody::Allow { network } => Some(((fact.tenant.clone(), masked(network)), fact)),
        _ => None,
    });
    let lengths = networks
        .clone()
        .map(|((tenant, network), _)| ((tenant, network.addr().is_ipv4()), network.prefix_len()))
        .distinct();
    let addresses = alerts.flat_map(|alert| {
        let addresses: Vec<_> = addresses(&alert).collect();
        addresses.into_iter().map(move |address| ((alert.tenant.clone(), address.is_ipv4()), (address, alert.id)))
    });
    addresses
        .join_map(lengths, |(tenant, _), (address, id), length| ((tenant.clone(), prefix(*address, *length)), *id))
        .join_map(networks, |_, id, fact| (*id, fact.clone()))
        .distinct()
}

/// The addresses among an alert's entities.
pub(crate) fn addresses(alert: &Alert) -> impl Iterator<Item = IpAddr> {
    let entities = alert.entities.iter().filter(|entity| entity.kind == EntityKind::Address);
    entities.filter_map(|entity| entity.value.parse().ok())
}

/// The network of `length` bits that an address lies in.
pub(crate) fn prefix(address: IpAddr, length: u8) -> IpNet {
    IpNet::new(address, length).unwrap_or_else(|_| IpNet::from(address)).trunc()
}

/// A network without its host bits, v4-mapped v6 as v4, as entities write addresses.
fn masked(network: IpNet) -> IpNet {
    if let IpNet::V6(v6) = network
        && let (Some(v4), Some(length)) = (v6.addr().to_ipv4_mapped(), v6.prefix_len().checked_sub(96))
    {
        return prefix(IpAddr::V4(v4), length);
    }
    network.trunc()
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Change {
    Alert(Alert, isize),
    Forbidden(AlertId, Fact, isize),
    Recalled(AlertId),
}

impl Change {
    fn id(&self) -> AlertId {
        match self {
            Change::Alert(alert, _) => alert.id,
            Change::Forbidden(id, ..) | Change::Recalled(id) => *id,
        }
    }
}

/// The state of one worker: pure.
#[derive(Default)]
struct Suppress {
    silences: BTreeMap<Fact, isize>,
    entries: BTreeMap<AlertId, Entry>,
}

#[derive(Default)]
struct Entry {
    alerts: BTreeMap<Alert, isize>,
    facts: BTreeMap<Fact, isize>,
    told: Told,
    /// It is sealed: what was told stays, until the alert leaves the graph.
    decided: bool,
    /// It was told before a restart.
    recalled: bool,
}

/// What was told of an alert.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Told {
    #[default]
    Nothing,
    Alert(Alert),
    Suppressed(Suppressed),
}

impl Told {
    fn change(self, diff: isize) -> Option<Kept> {
        match self {
            Told::Nothing => None,
            Told::Alert(alert) => Some(Kept::Alert(alert, diff)),
            Told::Suppressed(suppressed) => Some(Kept::Suppressed(suppressed, diff)),
        }
    }
}

impl Suppress {
    fn epoch(&mut self, changes: Vec<Change>, silences: Vec<(Fact, isize)>, out: &mut Vec<Kept>) {
        let mut touched = BTreeSet::new();
        if !silences.is_empty() {
            touched.extend(self.entries.keys().copied());
        }
        for (silence, diff) in silences {
            *self.silences.entry(silence).or_default() += diff;
        }
        self.silences.retain(|_, times| *times != 0);
        for change in changes {
            touched.insert(change.id());
            let entry = self.entries.entry(change.id()).or_default();
            match change {
                Change::Alert(alert, diff) => *entry.alerts.entry(alert).or_default() += diff,
                Change::Forbidden(_, fact, diff) => *entry.facts.entry(fact).or_default() += diff,
                Change::Recalled(_) => entry.recalled = true,
            }
        }
        for id in touched {
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            entry.tell(&self.silences, out);
            if entry.told == Told::Nothing && entry.alerts.is_empty() && entry.facts.is_empty() {
                self.entries.remove(&id);
            }
        }
    }
}

impl Entry {
    fn tell(&mut self, silences: &BTreeMap<Fact, isize>, out: &mut Vec<Kept>) {
        self.alerts.retain(|_, times| *times != 0);
        self.facts.retain(|_, times| *times != 0);
        let alert = self.alerts.keys().next();
        if self.decided && alert.is_some() {
            return;
        }
        let now = match alert {
            None => Told::Nothing,
            Some(alert) => {
                self.decided = alert.state == AlertState::Sealed;
                let silencing = silences.keys().find(|fact| silences_it(fact, alert));
                // The least of both, so that which one is named does not depend on what came first.
                match self.facts.keys().next().into_iter().chain(silencing).min().filter(|_| !self.recalled) {
                    Some(fact) => Told::Suppressed(Suppressed { alert: alert.clone(), fact: fact.clone() }),
                    None => Told::Alert(alert.clone()),
                }
            }
        };
        if now == self.told {
            return;
        }
        if let (Told::Alert(_), Told::Suppressed(Suppressed { alert, fact })) = (&self.told, &now) {
            out.push(Kept::Lineage(Lineage::Suppressed { alert: alert.id, fact: fact.clone() }));
        }
        out.extend(std::mem::take(&mut self.told).change(-1));
        out.extend(now.clone().change(1));
        self.told = now;
    }
}

/// Whether a silence holds for an alert.
fn silences_it(fact: &Fact, alert: &Alert) -> bool {
    let FactBody::Silence(silence) = &fact.body else { return false };
    fact.tenant == alert.tenant && silence.holds(alert)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_masked_as_addresses_are_written() {
        for (given, expect) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("::ffff:10.1.2.3/104", "10.0.0.0/8"),
            ("::ffff:10.1.2.3/128", "10.1.2.3/32"),
            ("2001:db8::1/32", "2001:db8::/32"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(masked(given.parse().unwrap()), expect.parse::<IpNet>().unwrap(), "{given}");
        }
    }
}
