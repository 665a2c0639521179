//! The end of the graph: one complete, sorted account per epoch, in order.
//!
//! In: all changes, from all workers. Out: one [`EpochOutput`] for each epoch that was begun, also if nothing changed
//! in it. Key: none, everything comes to worker 0. Memory: the changes of the epochs in flight, and what waits for event
//! time. An epoch is given out when it is complete, and exactly once.

use std::{
    collections::BTreeMap,
    sync::{Arc, mpsc::Sender},
};

use cf_types::{Cell, Detection, Epoch, EpochOutput, Lineage, Origin, Position, Reject, RejectCode, Time, change::Row};
use serde::{Deserialize, Serialize};
use timely::dataflow::{StreamVec, channels::pact::Exchange};

use crate::epochs::per_epoch;

/// One change of what the graph maintains.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Change {
    /// An epoch was begun.
    Begun,
    Detection(Detection),
    Row(Row, isize),
    Lineage(Lineage),
    Refused(Refusal),
    Watermark(Time),
    /// Something happens when the watermark reaches this cell.
    Waits(Cell, isize),
    /// So many alerts wait for their new score.
    Rescoring(u64),
}

/// A refused detection on its way to become a reject.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Refusal {
    pub(crate) origin: Arc<Origin>,
    pub(crate) position: Position,
    pub(crate) code: RejectCode,
    pub(crate) reason: String,
    pub(crate) time: Time,
}

impl From<Refusal> for Reject {
    /// Without the record: it was accepted, so it is among the events.
    fn from(refusal: Refusal) -> Reject {
        let Refusal { origin, position, code, reason, time } = refusal;
        Reject { origin, position, code, reason, time: Some(time), raw: Default::default() }
    }
}

/// Gives each epoch's account to `output`, which only worker 0 has.
pub(crate) fn sink<'s>(
    changes: StreamVec<'s, Epoch, Change>,
    output: Option<Sender<EpochOutput>>,
) -> StreamVec<'s, Epoch, ()> {
    let mut standing = Standing::default();
    per_epoch(changes, Exchange::new(|_: &Change| 0), "Sink", move |epoch, changes, _out| {
        let account = account(epoch, changes, &mut standing);
        if let Some(output) = &output {
            // Nobody listens any more when the engine goes down: then nothing is to be told.
            drop(output.send(account));
        }
    })
}

/// What holds from epoch to epoch.
#[derive(Default)]
struct Standing {
    watermark: Option<Time>,
    /// How many operators wait for each cell.
    waits: BTreeMap<Cell, isize>,
    rescoring: u64,
}

/// Sums an epoch's changes up.
fn account(epoch: Epoch, changes: Vec<Change>, standing: &mut Standing) -> EpochOutput {
    let mut account = EpochOutput { epoch, ..EpochOutput::default() };
    let mut rows: BTreeMap<Row, i64> = BTreeMap::new();
    for change in changes {
        match change {
            Change::Begun => {}
            Change::Detection(detection) => account.detections.push(detection),
            Change::Row(row, diff) => *rows.entry(row).or_default() += i64::try_from(diff).unwrap_or(0),
            Change::Lineage(lineage) => account.lineage.push(lineage),
            Change::Refused(refusal) => account.rejects.push(refusal.into()),
            Change::Watermark(time) => standing.watermark = Some(time).max(standing.watermark),
            Change::Waits(cell, diff) => *standing.waits.entry(cell).or_default() += diff,
            Change::Rescoring(number) => standing.rescoring = number,
        }
    }
    account.detections.sort_unstable();
    account.rows = rows.into_iter().filter(|(_, diff)| *diff != 0).collect();
    account.lineage.sort_unstable();
    account.lineage.dedup();
    account.rejects.sort_unstable_by(|a, b| (&a.position, a.code, &a.reason).cmp(&(&b.position, b.code, &b.reason)));
    account.watermark = standing.watermark;
    standing.waits.retain(|_, operators| *operators != 0);
    account.waits = standing.waits.keys().next().copied();
    account.rescoring = standing.rescoring;
    account
}
