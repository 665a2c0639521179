//! Operators that act once per complete epoch: the shape that all stateful operators of this crate share.
//!
//! What arrives is kept until the input's frontier has passed its epoch, then given whole to a plain function, epoch
//! after epoch in order. So an operator's logic is a struct without timely in it, and nothing it does can depend on
//! the order of arrival inside an epoch as long as it sorts before it chooses.
//!
//! Memory: one epoch's input per epoch in flight. Output appears with the epoch, under its own capability.

use std::collections::BTreeMap;

use cf_types::Epoch;
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

/// The first eight bytes of an id as a number to spread work by. Ids are BLAKE3, so nobody can aim at one worker.
pub(crate) fn spread(id: &[u8; 16]) -> u64 {
    u64::from_le_bytes(*id.first_chunk::<8>().expect("sixteen bytes begin with eight"))
}
