//! Operators that act once per complete epoch: the shape that all stateful operators of this crate share.
//!
//! What arrives is kept until the input's frontier has passed its epoch, then given whole to a plain function, epoch
//! after epoch in order. So an operator's logic is a struct without timely in it, and nothing it does can depend on
//! the order of arrival inside an epoch as long as it sorts before it chooses.
//!
//! Memory: one epoch's input per epoch in flight. Output appears with the epoch, under its own capability.

use std::collections::BTreeMap;

use cf_types::Epoch;
use differential_dataflow::{AsCollection, VecCollection};
use timely::{
    container::CapacityContainerBuilder,
    dataflow::{
        StreamVec,
        channels::{pact::ParallelizationContract, pact::Pipeline},
        operators::{Capability, generic::Operator},
    },
};

/// Calls `logic(epoch, input, output)` once for each complete epoch that brought anything.
pub(crate) fn per_epoch<'s, D, O, P, L>(
    stream: StreamVec<'s, Epoch, D>,
    pact: P,
    name: &str,
    mut logic: L,
) -> StreamVec<'s, Epoch, O>
where
    D: Clone + 'static,
    O: Clone + 'static,
    P: ParallelizationContract<Epoch, Vec<D>>,
    L: FnMut(Epoch, Vec<D>, &mut Vec<O>) + 'static,
{
    stream.unary_frontier::<CapacityContainerBuilder<Vec<O>>, _, _, _>(pact, name, move |_capability, _info| {
        let mut waiting: BTreeMap<Epoch, (Capability<Epoch>, Vec<D>)> = BTreeMap::new();
        let mut out = Vec::new();
        move |(input, frontier), output| {
            input.for_each_stamp(|stamp, batches| {
                let Some(capability) = stamp.retain_least(0) else { return };
                let (_, data) = waiting.entry(*capability.time()).or_insert((capability, Vec::new()));
                batches.for_each(|batch| data.append(batch));
            });
            while let Some(entry) = waiting.first_entry().filter(|entry| !frontier.less_equal(entry.key())) {
                let (epoch, (capability, data)) = entry.remove_entry();
                logic(epoch, data, &mut out);
                output.session(&capability).give_iterator(out.drain(..));
            }
        }
    })
}

/// The same with a second input that stays on its worker: what every worker is given alike (rules, limits).
pub(crate) fn per_epoch_with<'s, D, B, O, P, L>(
    stream: StreamVec<'s, Epoch, D>,
    pact: P,
    beside: StreamVec<'s, Epoch, B>,
    name: &str,
    mut logic: L,
) -> StreamVec<'s, Epoch, O>
where
    D: Clone + 'static,
    B: Clone + 'static,
    O: Clone + 'static,
    P: ParallelizationContract<Epoch, Vec<D>>,
    L: FnMut(Epoch, Vec<D>, Vec<B>, &mut Vec<O>) + 'static,
{
    stream.binary_frontier::<_, CapacityContainerBuilder<Vec<O>>, _, _, _, _>(
        beside,
        pact,
        Pipeline,
        name,
        move |_capability, _info| {
            let mut waiting: BTreeMap<Epoch, (Capability<Epoch>, Vec<D>, Vec<B>)> = BTreeMap::new();
            let mut out = Vec::new();
            move |(input, frontier), (beside, beside_frontier), output| {
                input.for_each_stamp(|stamp, batches| {
                    let Some(capability) = stamp.retain_least(0) else { return };
                    let entry = waiting.entry(*capability.time()).or_insert((capability, Vec::new(), Vec::new()));
                    batches.for_each(|batch| entry.1.append(batch));
                });
                beside.for_each_stamp(|stamp, batches| {
                    let Some(capability) = stamp.retain_least(0) else { return };
                    let entry = waiting.entry(*capability.time()).or_insert((capability, Vec::new(), Vec::new()));
                    batches.for_each(|batch| entry.2.append(batch));
                });
                while let Some(entry) = waiting
                    .first_entry()
                    .filter(|entry| !frontier.less_equal(entry.key()) && !beside_frontier.less_equal(entry.key()))
                {
                    let (epoch, (capability, data, beside)) = entry.remove_entry();
                    logic(epoch, data, beside, &mut out);
                    output.session(&capability).give_iterator(out.drain(..));
                }
            }
        },
    )
}

/// A collection's updates, each travelling in its own epoch.
///
/// Differential may send an update under the capability of an earlier epoch (a join or a reduce that did several at
/// once does); what acts per epoch must not take it for one of that epoch.
pub(crate) fn changes<'s, D: Clone + 'static>(
    collection: VecCollection<'s, Epoch, D, isize>,
) -> StreamVec<'s, Epoch, (D, isize)> {
    collection.inner.unary::<CapacityContainerBuilder<Vec<_>>, _, _, _>(Pipeline, "Changes", |_capability, _info| {
        |input, output| {
            input.for_each_stamp(|stamp, batches| {
                let mut by_epoch: BTreeMap<Epoch, Vec<(D, isize)>> = BTreeMap::new();
                for (data, epoch, diff) in batches.flat_map(|batch| batch.drain(..)) {
                    by_epoch.entry(epoch).or_default().push((data, diff));
                }
                for (epoch, mut changes) in by_epoch {
                    output.session(&stamp.delayed(&epoch, 0)).give_iterator(changes.drain(..));
                }
            });
        }
    })
}

/// The other way round: changes as a collection, each at the epoch that it travels in.
pub(crate) fn at_epoch<'s, D: Clone + 'static>(
    changes: StreamVec<'s, Epoch, (D, isize)>,
) -> VecCollection<'s, Epoch, D, isize> {
    changes
        .unary::<CapacityContainerBuilder<Vec<_>>, _, _, _>(Pipeline, "AtEpoch", |_capability, _info| {
            |input, output| {
                input.for_each_stamp(|stamp, batches| {
                    let Some(capability) = stamp.retain_least(0) else { return };
                    let epoch = *capability.time();
                    let changes = batches.flat_map(|batch| batch.drain(..));
                    output.session(&capability).give_iterator(changes.map(|(data, diff)| (data, epoch, diff)));
                });
            }
        })
        .as_collection()
}

/// The first eight bytes of an id as a number to spread work by. Ids are BLAKE3, so nobody can aim at one worker.
pub(crate) fn spread(id: &[u8; 16]) -> u64 {
    u64::from_le_bytes(*id.first_chunk::<8>().expect("sixteen bytes begin with eight"))
}
