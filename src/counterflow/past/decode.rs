//! Deliveries of history to events: decoded as they were, by as many threads as there are workers.

use std::sync::Arc;

use cf_history::Delivery;
use cf_ingest::{Decoded, Decoder, SourceTable, Want};
use cf_types::Event;

/// Deliveries that one thread decodes without another: below it a second thread costs more than it saves.
const SHARE_MIN: usize = 1_024;

/// Decodes what history holds. The result does not depend on the number of threads.
pub(crate) struct Decoding {
    threads: Vec<One>,
    /// Deliveries that are no event any more: the decoder, or how their source is decoded, has changed since.
    pub(crate) lost: u64,
}

/// One thread's decoder.
pub(crate) struct One {
    decoder: Decoder,
    decoded: Decoded,
}

impl One {
    pub(crate) fn new(sources: &Arc<SourceTable>) -> One {
        One { decoder: Decoder::new(Arc::clone(sources)), decoded: Decoded::default() }
    }

    /// One that leaves the entities out: few events meet a rule, and only of those somebody asks whom they speak of.
    pub(crate) fn lean(sources: &Arc<SourceTable>) -> One {
        let decoder = Decoder::with(Arc::clone(sources), Want { entities: false });
        One { decoder, decoded: Decoded::default() }
    }

    /// Decodes and gives the events to `each`, and back how many deliveries are none.
    pub(crate) fn events(&mut self, deliveries: &[Delivery], mut each: impl FnMut(Event)) -> u64 {
        let mut lost = 0;
        for delivery in deliveries {
            self.decoded.clear();
            self.decoder.decode(&delivery.record, &mut self.decoded);
            let mut events = self.decoded.events.drain(..);
            match (events.next(), events.next()) {
                (Some(event), None) => {
                    // Year and zone were decided when it came.
                    each(Event { time: delivery.time, time_basis: delivery.time_basis, ..event });
                }
                _ => lost += 1,
            }
        }
        lost
    }
}

impl Decoding {
    /// With so many threads.
    pub(crate) fn new(sources: &Arc<SourceTable>, threads: usize) -> Decoding {
        Decoding { threads: (0..threads.max(1)).map(|_| One::new(sources)).collect(), lost: 0 }
    }

    /// The events of deliveries, in their order.
    pub(crate) fn events(&mut self, deliveries: &[Delivery]) -> Vec<Event> {
        let share = deliveries.len().div_ceil(self.threads.len()).max(SHARE_MIN);
        let work = |one: &mut One, share: &[Delivery]| {
            let mut events = Vec::with_capacity(share.len());
            let lost = one.events(share, |event| events.push(event));
            (events, lost)
        };
        let done: Vec<(Vec<Event>, u64)> =
            if let (Some(one), true) = (self.threads.first_mut(), deliveries.len() <= share) {
                vec![work(one, deliveries)]
            } else {
                std::thread::scope(|scope| {
                    let shares = self.threads.iter_mut().zip(deliveries.chunks(share));
                    let threads: Vec<_> = shares.map(|(one, share)| scope.spawn(move || work(one, share))).collect();
                    let joined = threads.into_iter().map(|thread| match thread.join() {
                        Ok(done) => done,
                        Err(panic) => std::panic::resume_unwind(panic),
                    });
                    joined.collect()
                })
            };
        self.lost += done.iter().map(|(_, lost)| lost).sum::<u64>();
        done.into_iter().flat_map(|(events, _)| events).collect()
    }
}
