//! Answers about events in the control log: written, and read again as detections and as rows of history.

use std::path::Path;

use anyhow::{Context, Result};
use cf_history::{FeatureEntry, PredictionEntry, Subject};
use cf_ledger::{ControlEntry, ControlLog, Ledger, triage::MODEL};
use cf_types::{Detection, Epoch, clock, scored::Scored};

use super::SCORED;
use crate::triage::switch::ModelChange;

/// Who writes.
pub(super) struct Recorder {
    log: ControlLog,
}

impl Recorder {
    pub(super) async fn open(data: &Path) -> Result<Recorder> {
        Ok(Recorder { log: ControlLog::open(data).await? })
    }

    /// Makes durable which models answer.
    pub(super) async fn changes(&mut self, changes: &[ModelChange]) -> Result<()> {
        for change in changes {
            let body = serde_json::to_string(change)?;
            self.log.append(MODEL, &body, "scoring", &change.why, clock::now()).await?;
        }
        Ok(())
    }

    /// Makes durable what was answered about one epoch, all of it or nothing.
    pub(super) async fn scored(&mut self, scored: &[Scored]) -> Result<()> {
        let bodies: Vec<String> = scored.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
        if !bodies.is_empty() {
            self.log.append_all(SCORED, &bodies, "scoring", "served", clock::now()).await?;
        }
        Ok(())
    }
}

/// The last epoch of which answers are recorded; they are recorded in order.
pub(super) async fn last(ledger: &Ledger) -> Result<Epoch> {
    let entry = ledger.control_last_of_kind(SCORED).await?;
    entry.as_ref().map_or(Ok(0), |entry| Ok(read(entry)?.epoch))
}

/// What an entry of this kind holds.
pub(crate) fn read(entry: &ControlEntry) -> Result<Scored> {
    serde_json::from_str(&entry.body).with_context(|| format!("answers {} of the control log are damaged", entry.seq))
}

/// The detections that answers among control-log entries are.
pub(crate) fn found(entries: &[ControlEntry]) -> Result<Vec<Detection>> {
    let mut found = Vec::new();
    for entry in entries.iter().filter(|entry| entry.kind == SCORED) {
        let scored = read(entry)?;
        found.extend(scored.events.iter().filter_map(|event| cf_dataflows::model_detection(&scored.task, event)));
    }
    Ok(found)
}

/// The same entries as rows of `features`, one an event, and `predictions`, one an answer.
pub(crate) fn rows(entries: &[ControlEntry]) -> Result<(Vec<FeatureEntry>, Vec<PredictionEntry>)> {
    let (mut features, mut predictions) = (Vec::new(), Vec::new());
    for entry in entries.iter().filter(|entry| entry.kind == SCORED) {
        let scored = read(entry)?;
        for event in scored.events {
            let subject = Subject {
                tenant: event.tenant,
                id: event.member.id.to_string(),
                kind: "event",
                time: event.member.time,
                seq: entry.seq,
            };
            features.push(FeatureEntry {
                subject: subject.clone(),
                recipe: scored.recipe.to_string(),
                rule: None,
                signature: None,
                features: event.cells.into_iter().map(|(name, cell)| (name.to_string(), cell)).collect(),
            });
            for answer in [event.answer].into_iter().chain(event.others) {
                predictions.push(PredictionEntry { subject: subject.clone(), model: scored.task.to_string(), answer });
            }
        }
    }
    Ok((features, predictions))
}
