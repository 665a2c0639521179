//! Decisions as rows of history: what was served, for trainings and for people.
//!
//! In: entries of the control log that an epoch takes in. Out: one row of `features` per decision, one of `predictions`
//! per answer; the same for an epoch that is lived again, so that each is written once whatever is killed.

use anyhow::Result;
use cf_history::{FeatureEntry, PredictionEntry, Subject};
use cf_ledger::ControlEntry;
use cf_models::features::alert::{RECIPE, feature_names};
use cf_types::{Decision, Time};
use serde_json::Value;

use super::switch::TASK;

/// The rows of some entries; those that are no decisions give none.
pub(crate) fn rows(entries: &[ControlEntry]) -> Result<(Vec<FeatureEntry>, Vec<PredictionEntry>)> {
    let (mut features, mut predictions) = (Vec::new(), Vec::new());
    let mut names = Vec::new();
    for entry in entries {
        let Some(decision) = entry.decision()? else { continue };
        if names.is_empty() {
            names = feature_names();
        }
        let subject = Subject {
            tenant: decision.tenant.clone(),
            id: decision.alert.to_string(),
            kind: "alert",
            time: Time::from_seconds(decision.cell),
            seq: entry.seq,
        };
        for answer in &decision.answers {
            let (subject, answer) = (subject.clone(), answer.clone());
            predictions.push(PredictionEntry { subject, model: TASK.to_owned(), answer });
        }
        features.push(FeatureEntry {
            subject,
            recipe: decision.recipe.to_string(),
            rule: Some(decision.rule.to_string()),
            signature: Some(format!("{:016x}", decision.signature)),
            features: named(&decision, &names),
        });
    }
    Ok((features, predictions))
}

/// The features by their names; those of a version whose names are not known any more by their places.
fn named(decision: &Decision, names: &[String]) -> Vec<(String, Value)> {
    let is_known = &*decision.recipe == RECIPE;
    let name = |place: usize| {
        let known = names.get(place).filter(|_| is_known);
        known.cloned().unwrap_or_else(|| place.to_string())
    };
    let numbers = decision.features.iter().enumerate();
    numbers.filter_map(|(place, number)| Some((name(place), Value::from((*number)?)))).collect()
}
