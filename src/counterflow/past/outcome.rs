//! What a run of the graph comes to: the rows that stand at its end, and what its rules met.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use cf_types::{Alert, AlertId, AlertState, Detection, EpochOutput, Lineage, Row};

/// Values that are counted of one rule; beyond it the rare ones are not told apart.
const VALUES_MAX: usize = 10_000;

/// The sum of all epochs' changes.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// What stands: alerts, incidents, levels of risk, desired actions, what is suppressed.
    rows: BTreeMap<Row, i64>,
    sealed: BTreeSet<AlertId>,
    /// By rule, what it met or counts.
    pub(crate) hits: BTreeMap<Arc<str>, RuleHits>,
}

/// What one rule met.
#[derive(Debug, Default)]
pub(crate) struct RuleHits {
    /// Events, each once.
    pub(crate) events: u64,
    /// By entity, as `kind:value`.
    pub(crate) by_entity: BTreeMap<String, u64>,
}

impl RuleHits {
    fn add(&mut self, detection: &Detection) {
        self.events += 1;
        for entity in &detection.entities {
            let name = entity.to_string();
            if self.by_entity.len() < VALUES_MAX || self.by_entity.contains_key(&name) {
                *self.by_entity.entry(name).or_default() += 1;
            }
        }
    }
}

impl Outcome {
    /// Takes in an epoch.
    pub(crate) fn apply(&mut self, output: &EpochOutput) {
        for (row, diff) in output.rows.iter().filter(|(row, _)| is_told(row)) {
            let count = self.rows.entry(row.clone()).or_default();
            *count += diff;
            if *count == 0 {
                self.rows.remove(row);
            }
        }
        for lineage in &output.lineage {
            if let Lineage::Sealed(id) = lineage {
                self.sealed.insert(*id);
            }
        }
        for detection in &output.detections {
            // The rule that met it, and the correlations that count it.
            let counting = detection.items.iter().map(|item| &item.rule);
            let rules: BTreeSet<&Arc<str>> = counting.chain([&detection.rule]).collect();
            for rule in rules {
                self.hits.entry(Arc::clone(rule)).or_default().add(detection);
            }
        }
    }

    /// What stands.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|(_, count)| **count > 0).map(|(row, _)| row)
    }

    /// The alerts that stand, each in the state that it has at the end.
    pub(crate) fn alerts(&self) -> BTreeMap<AlertId, Alert> {
        let alerts = self.rows().filter_map(|row| match row {
            Row::Alert(alert) => Some(alert),
            _ => None,
        });
        let state = |alert: &Alert| if self.sealed.contains(&alert.id) { AlertState::Sealed } else { alert.state };
        alerts.map(|alert| (alert.id, Alert { state: state(alert), ..alert.clone() })).collect()
    }
}

fn is_told(row: &Row) -> bool {
    matches!(row, Row::Alert(_) | Row::Incident(_) | Row::RiskLevel(_) | Row::Desired(_) | Row::Suppressed(_))
}
