//! The present set of alerts and its digest, and what differs from the ledger when the two digests do.
//!
//! On restart the epochs below the ledger's upper are computed again but not applied: [`Present`] takes them in. At the
//! upper its digest must equal the ledger's.

use std::collections::{BTreeMap, BTreeSet};

use cf_types::{
    ActionId, Alert, AlertId, AlertState, DesiredAction, Entity, EntityRisk, EpochOutput, Incident, IncidentId,
    Lineage, Row, Tenant,
};
use serde::Serialize;

/// The alerts that can still change, incidents, risk and desired actions, built from epoch outputs without a database.
#[derive(Clone, Debug, Default)]
pub struct Present {
    alerts: BTreeMap<AlertId, Alert>,
    desired: BTreeMap<(ActionId, AlertId), DesiredAction>,
    incidents: BTreeMap<IncidentId, Incident>,
    risk: BTreeMap<(Tenant, Entity), EntityRisk>,
    digest: u128,
}

impl Present {
    /// Takes in one epoch's changes; epochs must come in order.
    pub fn apply(&mut self, output: &EpochOutput) {
        for change in alert_changes(output).into_values() {
            if let Some(old) = self.alerts.remove(&change.id) {
                self.digest = self.digest.wrapping_sub(digest_of(&old));
            }
            if let Some(alert) = change.came.filter(|alert| !change.sealed && alert.state != AlertState::Sealed) {
                self.digest = self.digest.wrapping_add(digest_of(alert));
                self.alerts.insert(change.id, alert.clone());
            }
        }
        // Rows are sorted, so a +1 may come before the -1 that it replaces: what is removed must be what is there.
        for (row, diff) in &output.rows {
            match row {
                // What is not told is no part of what must be equal.
                Row::Alert(_) | Row::Suppressed(_) | Row::Assessment(_) | Row::RiskLevel(_) => {}
                Row::Blast(_) | Row::BlastLeftOut(_) => {}
                Row::Desired(row) => change(&mut self.desired, (row.id, row.alert), row, *diff),
                Row::Incident(row) => change(&mut self.incidents, row.id, row, *diff),
                Row::Risk(row) => change(&mut self.risk, (row.tenant.clone(), row.entity.clone()), row, *diff),
            }
        }
    }

    /// Sum of the content hashes of the alerts that are not sealed, wrapping.
    #[must_use]
    pub fn digest(&self) -> u128 {
        self.digest
    }

    /// The alerts that are not sealed, by id.
    pub fn alerts(&self) -> impl Iterator<Item = &Alert> {
        self.alerts.values()
    }

    /// One of them.
    #[must_use]
    pub fn alert(&self, id: AlertId) -> Option<&Alert> {
        self.alerts.get(&id)
    }

    /// The incidents, by id.
    pub fn incidents(&self) -> impl Iterator<Item = &Incident> {
        self.incidents.values()
    }

    /// The risk of entities, by tenant and entity.
    pub fn risk(&self) -> impl Iterator<Item = &EntityRisk> {
        self.risk.values()
    }

    /// The desired actions, by action and alert.
    pub fn desired(&self) -> impl Iterator<Item = &DesiredAction> {
        self.desired.values()
    }
}

fn change<K: Ord, V: Clone + PartialEq>(view: &mut BTreeMap<K, V>, key: K, row: &V, diff: i64) {
    if diff > 0 {
        view.insert(key, row.clone());
    } else if view.get(&key) == Some(row) {
        view.remove(&key);
    }
}

/// How ledger and graph differ about one alert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "difference", rename_all = "snake_case")]
pub enum Difference {
    /// The ledger has it open, the graph does not have it.
    OnlyInLedger {
        /// Which.
        alert: AlertId,
        /// Its rule.
        rule: String,
    },
    /// The graph has it, the ledger does not have it open.
    OnlyInGraph {
        /// Which.
        alert: AlertId,
        /// Its rule.
        rule: String,
    },
    /// Both have it, and only its score differs: another version of the formula, or facts that were taken in at once.
    Score {
        /// Which.
        alert: AlertId,
        /// Its rule.
        rule: String,
    },
    /// Both have it, with other content.
    Content {
        /// Which.
        alert: AlertId,
        /// Its rule.
        rule: String,
    },
}

/// The part of the digest that is one alert's.
#[must_use]
pub fn digest_of(alert: &Alert) -> u128 {
    // Struct fields in order, sorted groups, no floats but tenths: the same content is the same text everywhere.
    let text = serde_json::to_vec(alert).expect("an alert has no maps with other keys than text");
    let hash = blake3::hash(&text);
    u128::from_le_bytes(*hash.as_bytes().first_chunk::<16>().expect("a hash of 32 bytes has 16"))
}

/// What an epoch says of one alert id, from rows and lineage together.
#[derive(Debug)]
pub(crate) struct Change<'a> {
    pub(crate) id: AlertId,
    /// Its content after the epoch, if it is there.
    pub(crate) came: Option<&'a Alert>,
    /// Whether it is sealed with this epoch.
    pub(crate) sealed: bool,
}

/// Changed alerts of an epoch by id. One function for ledger and [`Present`], so that the two cannot differ.
pub(crate) fn alert_changes(output: &EpochOutput) -> BTreeMap<AlertId, Change<'_>> {
    let sealed: BTreeSet<AlertId> = output
        .lineage
        .iter()
        .filter_map(|lineage| if let Lineage::Sealed(id) = lineage { Some(*id) } else { None })
        .collect();
    let mut changes = BTreeMap::new();
    for id in &sealed {
        changes.insert(*id, Change { id: *id, came: None, sealed: true });
    }
    for (row, diff) in &output.rows {
        if let Row::Alert(alert) = row {
            let change = changes.entry(alert.id).or_insert_with(|| Change { id: alert.id, came: None, sealed: false });
            if *diff > 0 {
                change.came = Some(alert);
            }
        }
    }
    changes
}
