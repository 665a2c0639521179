//! Scores alerts by what facts say of them (RSK-06); when a fact changes, they are scored anew.
//!
//! In: changes of the alerts that remain, and facts. Out: the same alerts with their scores, and one assessment each.
//! Key: alert id. Which facts concern which alerts is a join by entity, observable and rule; what follows is
//! [`cf_types::assess::assess`], a pure function. A sealed alert is final: it keeps the score that it had. What a model
//! said comes as a fact that names its alert; a later answer takes the place of an earlier one by its removal.
//! Memory: the alerts, and the facts that concern them. Output appears when the epoch is complete; of facts that concern very
//! many alerts with the next epochs, in slices (`rescore.rs`).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use cf_types::{
    Alert, AlertId, AlertState, Assessment, Entity, Epoch, Fact, FactBody, Tenant,
    assess::{self, Context, INDICATOR_RULE, OfficeHours, Precision},
    fact::{Asset, Identity, Indicator, Verdict},
    triage::{Triage, Triaged},
};
use differential_dataflow::VecCollection;
use serde::{Deserialize, Serialize};
use timely::dataflow::{
    StreamVec,
    channels::pact::Exchange,
    operators::{Concat, vec::Map},
};

use crate::{
    epochs::{changes, per_epoch, spread},
    indicator,
    rescore::{self, Paced, Touched, rescore},
    suppress::{addresses, prefix},
};

/// What this operator gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Assessed {
    Alert(Alert, isize),
    Assessment(Assessment, isize),
    /// So many alerts wait for their new score.
    Waiting(u64),
}

/// How alerts are scored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AssessOptions {
    pub(crate) office_hours: Option<OfficeHours>,
    /// Alerts that facts of one epoch may concern without that they are scored in slices.
    pub(crate) rescored_at_once: usize,
}

/// Scores alerts. `recalled` names those that were sealed before a restart: they come with their scores and keep them.
pub(crate) fn assess<'s>(
    alerts: VecCollection<'s, Epoch, Alert, isize>,
    facts: VecCollection<'s, Epoch, Fact, isize>,
    recalled: StreamVec<'s, Epoch, AlertId>,
    pace: StreamVec<'s, Epoch, rescore::Beside>,
    options: AssessOptions,
) -> StreamVec<'s, Epoch, Assessed> {
    let concerns = of_entities(alerts.clone(), facts.clone())
        .concat(of_networks(alerts.clone(), facts.clone()))
        .concat(of_rules(alerts.clone(), facts.clone()));
    let concerns = concerns.concat(
        indicator::of_alerts(alerts.clone(), facts.clone()).map(|(id, indicator)| (id, Concern::Indicator(indicator))),
    );
    let triaged = changes(facts).flat_map(|(fact, diff)| match fact.body {
        // It names its alert: nothing is to be joined.
        FactBody::Triage(Triaged { alert, triage }) => Some(Change::Concern(alert, Concern::Triage(triage), diff)),
        _ => None,
    });
    let alerts = changes(alerts).map(|(alert, diff)| Change::Alert(alert, diff)).concat(triaged);
    let concerns = changes(concerns).map(|((id, concern), diff)| Change::Concern(id, concern, diff));
    let alerts = alerts.concat(recalled.map(Change::Recalled));
    let itself = alerts.clone().map(|change| Touched::Itself(change.id()));
    let touched = itself.concat(concerns.clone().map(|change| Touched::ByFact(change.id())));
    let paced = rescore(touched, pace, options.rescored_at_once);
    let waiting = paced.clone().flat_map(|paced| match paced {
        Paced::Waiting(number) => Some(Assessed::Waiting(number)),
        Paced::Due(_) => None,
    });
    let due = paced.flat_map(|paced| match paced {
        Paced::Due(id) => Some(Change::Due(id)),
        Paced::Waiting(_) => None,
    });
    let by_id = Exchange::new(|change: &Change| spread(&change.id().0));
    let mut state = Assess { office_hours: options.office_hours, entries: BTreeMap::new() };
    let changes = alerts.concat(concerns).concat(due);
    per_epoch(changes, by_id, "Assess", move |_epoch, changes, out| state.epoch(changes, out)).concat(waiting)
}

/// What a fact, or several, say of an alert.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum Concern {
    Asset(Asset),
    Identity(Identity),
    Indicator(Indicator),
    Precision(Precision),
    Triage(Triage),
}

/// Assets and identities of an alert's entities.
fn of_entities<'s>(
    alerts: VecCollection<'s, Epoch, Alert, isize>,
    facts: VecCollection<'s, Epoch, Fact, isize>,
) -> VecCollection<'s, Epoch, (AlertId, Concern), isize> {
    let said = facts.flat_map(|Fact { tenant, body }| {
        let of = |entity: Entity, concern: Concern| ((tenant.clone(), entity), concern);
        match body {
            FactBody::Asset(asset) if asset.network().is_none() => {
                vec![of(asset.entity.clone(), Concern::Asset(asset))]
            }
            FactBody::Identity(identity) => {
                let names = identity.aliases.iter().chain([&identity.user]).cloned().collect::<BTreeSet<_>>();
                names.into_iter().map(|name| of(name, Concern::Identity(identity.clone()))).collect()
            }
            _ => Vec::new(),
        }
    });
    let entities = alerts.flat_map(|Alert { tenant, id, entities, .. }| {
        entities.into_iter().map(move |entity| ((tenant.clone(), entity), id))
    });
    entities.join_map(said, |_, id, concern| (*id, concern.clone())).distinct()
}

/// Assets that are networks, of an alert's addresses: met at every prefix length in use, as allow facts are.
fn of_networks<'s>(
    alerts: VecCollection<'s, Epoch, Alert, isize>,
    facts: VecCollection<'s, Epoch, Fact, isize>,
) -> VecCollection<'s, Epoch, (AlertId, Concern), isize> {
    let networks = facts.flat_map(|Fact { tenant, body }| match body {
        FactBody::Asset(asset) => asset.network().map(|network| ((tenant, network), asset)),
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
        .join_map(networks, |_, id, asset| (*id, Concern::Asset(asset.clone())))
        .distinct()
}

/// The precision of an alert's rule.
fn of_rules<'s>(
    alerts: VecCollection<'s, Epoch, Alert, isize>,
    facts: VecCollection<'s, Epoch, Fact, isize>,
) -> VecCollection<'s, Epoch, (AlertId, Concern), isize> {
    let verdicts = facts.flat_map(|Fact { tenant, body }| match body {
        FactBody::Verdict(verdict) => Some(((tenant, Arc::clone(&verdict.rule)), verdict)),
        _ => None,
    });
    let precisions = verdicts.reduce(|_, verdicts: &[(&Verdict, isize)], out| {
        let precision = Precision::of(verdicts.iter().map(|(verdict, _)| *verdict));
        out.extend(precision.map(|precision| (precision, 1isize)));
    });
    let rules = alerts.map(|Alert { tenant, id, rule, .. }| ((tenant, rule), id));
    rules.join_map(precisions, |_: &(Tenant, _), id, precision| (*id, Concern::Precision(*precision))).distinct()
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Change {
    Alert(Alert, isize),
    Concern(AlertId, Concern, isize),
    Recalled(AlertId),
    /// It is to be scored now: what concerns it is only noted before.
    Due(AlertId),
}

impl Change {
    fn id(&self) -> AlertId {
        match self {
            Change::Alert(alert, _) => alert.id,
            Change::Concern(id, ..) | Change::Recalled(id) | Change::Due(id) => *id,
        }
    }
}

/// The state of one worker: pure.
struct Assess {
    office_hours: Option<OfficeHours>,
    entries: BTreeMap<AlertId, Entry>,
}

#[derive(Default)]
struct Entry {
    alerts: BTreeMap<Alert, isize>,
    concerns: BTreeMap<Concern, isize>,
    told: Option<(Alert, Assessment)>,
    recalled: bool,
}

impl Assess {
    fn epoch(&mut self, changes: Vec<Change>, out: &mut Vec<Assessed>) {
        let mut due = BTreeSet::new();
        for change in changes {
            let entry = self.entries.entry(change.id()).or_default();
            match change {
                Change::Alert(alert, diff) => *entry.alerts.entry(alert).or_default() += diff,
                Change::Concern(_, concern, diff) => *entry.concerns.entry(concern).or_default() += diff,
                Change::Recalled(_) => entry.recalled = true,
                Change::Due(id) => drop(due.insert(id)),
            }
        }
        for id in due {
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            entry.tell(self.office_hours, out);
            if entry.told.is_none() && entry.alerts.is_empty() && entry.concerns.is_empty() {
                self.entries.remove(&id);
            }
        }
    }
}

impl Entry {
    fn tell(&mut self, office_hours: Option<OfficeHours>, out: &mut Vec<Assessed>) {
        self.alerts.retain(|_, times| *times != 0);
        self.concerns.retain(|_, times| *times != 0);
        let is_final = |(alert, _): &(Alert, Assessment)| alert.state == AlertState::Sealed;
        let now = match self.alerts.keys().next() {
            Some(_) if self.told.as_ref().is_some_and(is_final) => return,
            Some(alert) => {
                let (scored, assessment) = scored(alert, &context(self.concerns.keys(), office_hours));
                Some((if self.recalled { alert.clone() } else { scored }, assessment))
            }
            None => None,
        };
        if now == self.told {
            return;
        }
        let change = |(alert, assessment): (Alert, Assessment), diff| {
            [Assessed::Alert(alert, diff), Assessed::Assessment(assessment, diff)]
        };
        out.extend(self.told.take().into_iter().flat_map(|told| change(told, -1)));
        out.extend(now.clone().into_iter().flat_map(|now| change(now, 1)));
        self.told = now;
    }
}

fn context<'a>(concerns: impl Iterator<Item = &'a Concern>, office_hours: Option<OfficeHours>) -> Context {
    let mut context = Context { office_hours, ..Context::default() };
    for concern in concerns {
        match concern.clone() {
            Concern::Asset(asset) => context.assets.push(asset),
            Concern::Identity(identity) => context.identities.push(identity),
            Concern::Indicator(indicator) => context.indicators.push(indicator),
            Concern::Precision(precision) => context.precision = Some(precision),
            Concern::Triage(triage) => context.triage = Some(triage),
        }
    }
    context
}

/// The alert with its score, and its assessment. An alert that an indicator was seen gets its words here.
fn scored(alert: &Alert, context: &Context) -> (Alert, Assessment) {
    let mut alert = alert.clone();
    if &*alert.rule == INDICATOR_RULE {
        let seen = alert.group.iter().find(|(field, _)| *field == "indicator").map(|(_, key)| key.to_owned());
        alert.title = format!("{}: {}", alert.title, seen.unwrap_or_default()).into();
        let tags: BTreeSet<_> = context.indicators.iter().flat_map(|indicator| &indicator.tags).cloned().collect();
        alert.tags = tags.into_iter().collect();
    }
    let assessment = assess::assess(&alert, context);
    alert.score = assessment.score;
    (alert, assessment)
}
