//! Withdraws alerts that a fact forbids, and brings them back when it goes.
//!
//! In: changes of alerts and facts. Out: changes of the alerts that remain, and which went because of which fact.
//! Which facts touch which alerts is a join: an alert's addresses are masked to every prefix length in use and met with
//! the networks. What follows from it is kept by alert id, because a sealed alert is final: no fact changes it.
//! Memory: the alerts and the facts. Output appears when the epoch is complete.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use cf_types::{Alert, AlertId, AlertState, EntityKind, Epoch, Fact, FactBody, Lineage};
use differential_dataflow::VecCollection;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use timely::dataflow::{
    StreamVec,
    channels::pact::Exchange,
    operators::{Concat, vec::Map},
};

use crate::{
    alert::Told,
    epochs::{changes, per_epoch, spread},
};

/// Withdraws what allow facts forbid. `recalled` names the alerts that were sealed before a restart: they were told, and
/// no fact that came after that changes it.
pub(crate) fn suppress<'s>(
    alerts: VecCollection<'s, Epoch, Alert, isize>,
    facts: VecCollection<'s, Epoch, Fact, isize>,
    recalled: StreamVec<'s, Epoch, AlertId>,
) -> StreamVec<'s, Epoch, Told> {
    let forbidden = forbidden(alerts.clone(), facts);
    let alerts = changes(alerts).map(|(alert, diff)| Change::Alert(alert, diff));
    let forbidden = changes(forbidden).map(|((id, fact), diff)| Change::Forbidden(id, fact, diff));
    let alerts = alerts.concat(recalled.map(Change::Recalled));
    let by_id = Exchange::new(|change: &Change| spread(&change.id().0));
    let mut state = Suppress::default();
    per_epoch(alerts.concat(forbidden), by_id, "Suppress", move |_epoch, changes, out| state.epoch(changes, out))
}

/// Which alerts have an address in an allowed network.
fn forbidden<'s>(
    alerts: VecCollection<'s, Epoch, Alert, isize>,
    facts: VecCollection<'s, Epoch, Fact, isize>,
) -> VecCollection<'s, Epoch, (AlertId, Fact), isize> {
    let networks = facts.flat_map(|fact| match fact.body {
        FactBody::Allow { network } => Some(((fact.tenant.clone(), masked(network)), fact)),
        FactBody::Policy(_) => None,
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
fn addresses(alert: &Alert) -> impl Iterator<Item = IpAddr> {
    let entities = alert.entities.iter().filter(|entity| entity.kind == EntityKind::Address);
    entities.filter_map(|entity| entity.value.parse().ok())
}

/// The network of `length` bits that an address lies in.
fn prefix(address: IpAddr, length: u8) -> IpNet {
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
    entries: BTreeMap<AlertId, Entry>,
}

#[derive(Default)]
struct Entry {
    alerts: BTreeMap<Alert, isize>,
    facts: BTreeMap<Fact, isize>,
    told: Option<Alert>,
    /// It is sealed: what was told stays, until the alert leaves the graph.
    decided: bool,
    /// It was told before a restart.
    recalled: bool,
}

impl Suppress {
    fn epoch(&mut self, changes: Vec<Change>, out: &mut Vec<Told>) {
        let mut touched = BTreeSet::new();
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
            entry.tell(out);
            if entry.told.is_none() && entry.alerts.is_empty() && entry.facts.is_empty() {
                self.entries.remove(&id);
            }
        }
    }
}

impl Entry {
    fn tell(&mut self, out: &mut Vec<Told>) {
        self.alerts.retain(|_, times| *times != 0);
        self.facts.retain(|_, times| *times != 0);
        let alert = self.alerts.keys().next();
        if self.decided && alert.is_some() {
            return;
        }
        let fact = self.facts.keys().next().filter(|_| !self.recalled);
        if let (Some(alert), Some(_), Some(fact)) = (alert, &self.told, fact) {
            out.push(Told::Lineage(Lineage::Suppressed { alert: alert.id, fact: fact.clone() }));
        }
        self.decided = alert.is_some_and(|alert| alert.state == AlertState::Sealed);
        let now = alert.filter(|_| fact.is_none()).cloned();
        if now != self.told {
            out.extend(self.told.take().map(|alert| Told::Alert(alert, -1)));
            out.extend(now.clone().map(|alert| Told::Alert(alert, 1)));
            self.told = now;
        }
    }
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
