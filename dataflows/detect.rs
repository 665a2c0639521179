//! Meets every event with the rules and the indicators bound to its epoch.
//!
//! In: this worker's events, and rule sets and indicators in between: they come before the first event of their epoch, on
//! every worker alike. Out: detections, and per batch the newest plausible event time of each source, for the watermark.
//! Key: none, events stay on their worker. Memory: the rule set's scanner and the indicators. Output appears at once; nothing
//! waits for the epoch to end.

mod sigma;

use std::{collections::BTreeMap, sync::Arc};

use cf_types::{
    Detection, EpisodeRule, Epoch, Event, Fact, Origin, Time,
    record::{Framing, stream},
};
use serde::{Deserialize, Serialize};
use timely::{
    container::CapacityContainerBuilder,
    dataflow::{StreamVec, channels::pact::Pipeline, operators::generic::Operator},
};

use crate::indicator::Table;

/// A compiled rule set, as the graph sees it.
pub trait Rules: Send + Sync {
    /// What is found in its detections.
    fn episode_rules(&self) -> &[Arc<EpisodeRule>];

    /// Makes a matcher for one worker.
    fn matcher(self: Arc<Self>) -> Box<dyn Matcher>;
}

/// Finds the rules that an event meets; one per worker, so it may keep buffers.
pub trait Matcher {
    /// Adds the event's detections to `out`.
    fn detect(&mut self, event: &Event, out: &mut Vec<Detection>);

    /// Called after each batch of events: the time for what is too dear per event.
    fn rest(&mut self) {}
}

/// What a worker is given in an epoch, in this order.
#[derive(Clone)]
#[allow(clippy::large_enum_variant)] // nearly all are events; a box for each would cost more than the few bytes
pub(crate) enum Given {
    /// From here on events meet these.
    Rules(Arc<dyn Rules>),
    /// An event of before met an indicator that is said only now.
    Found(Detection),
    /// An indicator came or went.
    Indicator(Fact, i64),
    /// One event.
    Event(Event),
}

/// A detection on its way to [`crate::dedup`].
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Matched {
    pub(crate) detection: Detection,
    /// Its record's, for the reject if it is refused; `None` when it was recalled from the facts log.
    pub(crate) origin: Option<Arc<Origin>>,
    /// Whether its time lies too far ahead of its receipt.
    pub(crate) ahead: bool,
}

/// What this operator gives.
#[derive(Clone)]
pub(crate) enum Detected {
    Matched(Matched),
    /// The newest time of a source's events that is not too far ahead of receipt.
    Seen(Arc<str>, Time),
}

/// Meets events with rules. With `max_ahead_us` set, events further ahead of their receipt are marked, and do not
/// move the watermark.
pub(crate) fn detect<'s>(
    given: StreamVec<'s, Epoch, Given>,
    max_ahead_us: Option<i64>,
) -> StreamVec<'s, Epoch, Detected> {
    given.unary::<CapacityContainerBuilder<Vec<Detected>>, _, _, _>(Pipeline, "Detect", move |_capability, _info| {
        let mut matcher: Option<Box<dyn Matcher>> = None;
        let mut indicators = Table::default();
        let mut found = Vec::new();
        move |input, output| {
            // Not `for_each_stamp`: it may reorder batches, and a rule set must come before the events that it meets.
            input.for_each(|stamp, batch| {
                let mut session = output.session(&stamp);
                let mut newest: BTreeMap<Arc<str>, Time> = BTreeMap::new();
                for given in batch.drain(..) {
                    let event = match given {
                        Given::Rules(rules) => {
                            matcher = Some(rules.matcher());
                            continue;
                        }
                        Given::Found(detection) => {
                            let origin = Some(unknown_origin(&detection));
                            session.give(Detected::Matched(Matched { detection, origin, ahead: false }));
                            continue;
                        }
                        Given::Indicator(fact, diff) => {
                            indicators.change(&fact, diff);
                            continue;
                        }
                        Given::Event(event) => event,
                    };
                    let ahead = max_ahead_us.is_some_and(|max| event.time > event.origin.received_at.plus_micros(max));
                    if !ahead {
                        note(&mut newest, &event);
                    }
                    if let Some(matcher) = &mut matcher {
                        matcher.detect(&event, &mut found);
                    }
                    indicators.detect(&event, &mut found);
                    session.give_iterator(found.drain(..).map(|detection| {
                        let origin = Some(Arc::clone(&event.origin));
                        Detected::Matched(Matched { detection, origin, ahead })
                    }));
                }
                session.give_iterator(newest.into_iter().map(|(source, time)| Detected::Seen(source, time)));
                if let Some(matcher) = &mut matcher {
                    matcher.rest();
                }
            });
        }
    })
}

/// A detection that comes without its record does not say how that came.
pub(crate) fn unknown_origin(detection: &Detection) -> Arc<Origin> {
    Arc::new(Origin {
        tenant: detection.tenant.clone(),
        source: Arc::clone(&detection.source),
        received_at: detection.member.time,
        year: None,
        framing: Framing::Record,
    })
}

fn note(newest: &mut BTreeMap<Arc<str>, Time>, event: &Event) {
    let stream = stream(&event.origin, &event.position);
    match newest.get_mut(stream) {
        Some(time) => *time = event.time.max(*time),
        None => {
            newest.insert(Arc::clone(stream), event.time);
        }
    }
}
