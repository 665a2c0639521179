//! Rejected records that enter an epoch again, by an entry of the control log (`cf_ledger::retries`).

use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use cf_ledger::{ControlEntry, retries::RETRY};
use cf_types::{Epoch, Record, Reject};

/// Epochs behind the newest whose marks are kept: more than can be on their way through the graph.
const EPOCHS_KEPT: u64 = 64;

/// Where a record was.
type Place = (Arc<str>, Arc<str>, u64, u32);

/// Which records of which epochs are there again, for those who write down what is rejected.
#[derive(Debug, Default)]
pub(crate) struct Again(Mutex<BTreeMap<Epoch, BTreeMap<Place, i64>>>);

impl Again {
    /// Notes the records that an entry brings into an epoch.
    pub(crate) fn note(&self, epoch: Epoch, entry: i64, records: &[Record]) {
        let mut epochs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *epochs = epochs.split_off(&epoch.saturating_sub(EPOCHS_KEPT));
        let place = |record: &Record| {
            let (source, position) = (Arc::clone(&record.origin.source), &record.position);
            (source, Arc::clone(&position.origin), position.offset, position.index)
        };
        epochs.entry(epoch).or_default().extend(records.iter().map(|record| (place(record), entry)));
    }

    /// The rejects of an epoch as they are written down: what failed again says so.
    pub(crate) fn said<'a>(&self, epoch: Epoch, rejects: &'a [Reject]) -> Cow<'a, [Reject]> {
        let epochs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(places) = epochs.get(&epoch) else { return Cow::Borrowed(rejects) };
        let said = rejects.iter().map(|reject| {
            let (source, position) = (Arc::clone(&reject.origin.source), &reject.position);
            let entry = places.get(&(source, Arc::clone(&position.origin), position.offset, position.index));
            match entry {
                Some(entry) => Reject {
                    reason: format!("again, asked for by control {entry}: {}", reject.reason),
                    ..reject.clone()
                },
                None => reject.clone(),
            }
        });
        Cow::Owned(said.collect())
    }
}

/// Cuts what waits in the control log behind the first entry that brings records: one epoch takes the records of one.
pub(crate) fn one_at_a_time(mut waiting: Vec<ControlEntry>) -> Vec<ControlEntry> {
    if let Some(first) = waiting.iter().position(|entry| entry.kind == RETRY) {
        waiting.truncate(first + 1);
    }
    waiting
}

#[cfg(test)]
mod tests {
    use cf_types::{Origin, Position, RejectCode, Tenant, Time};

    use super::*;

    fn record(offset: u64) -> Record {
        let origin = Origin {
            tenant: Tenant::default(),
            source: Arc::from("http"),
            received_at: Time::from_seconds(1),
            year: None,
            framing: cf_types::Framing::Http,
        };
        let position = Position { origin: Arc::from("spool"), offset, line: 0, index: 0 };
        Record { origin: Arc::new(origin), position, bytes: "x".into() }
    }

    #[test]
    fn what_fails_again_says_so_and_nothing_else_does() {
        let again = Again::default();
        again.note(5, 12, &[record(3)]);
        let reject = |offset| {
            let Record { origin, position, bytes } = record(offset);
            Reject { origin, position, code: RejectCode::InvalidJson, reason: "bad".to_owned(), time: None, raw: bytes }
        };
        let said = |epoch| {
            let rejects = [reject(3), reject(4)];
            again.said(epoch, &rejects).iter().map(|reject| reject.reason.clone()).collect::<Vec<_>>()
        };
        assert_eq!(said(5), ["again, asked for by control 12: bad", "bad"]);
        assert_eq!(said(6), ["bad", "bad"]);
        again.note(5 + EPOCHS_KEPT + 1, 13, &[]);
        assert_eq!(said(5), ["bad", "bad"], "long applied");
    }
}
