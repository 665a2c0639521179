//! Partitions of Kafka beside each other in event time: who is far ahead of one that is behind waits for it.
//!
//! The watermark is the least over the sources that the graph knows and that are not idle. So two things could make a
//! backlog late that would not be late in order: a partition whose first record comes after others have moved the
//! watermark on, and one that counts as idle only because we had no time for it. Hence the first epoch of a run waits for
//! the first record of every partition that the graph has not met, and who has records that we did not take is not idle. And a
//! partition that is more than the drift ahead of the slowest one that is behind is not taken from: what it has would only be
//! state that waits. It waits for those of its class and of higher ones; what is of a higher class never waits for what
//! was put behind it. All of this is about when records enter epochs; what they mean then is in the epochs' records alone.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use cf_kafka::{Class, Unread};
use cf_types::{Record, Time};

use crate::{kafka::Kafka, status::Status};

/// How often it is looked who is ahead.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Who waits for whom.
pub(crate) struct Alignment {
    drift_us: i64,
    /// Since when first records are waited for.
    began: Option<Instant>,
    has_begun: bool,
    looked: Option<Instant>,
    /// Somebody is about to be paused, or it is not known yet: then little may be under way.
    is_tight: bool,
    /// Streams with records that we did not take: silent only to us.
    waiting: BTreeSet<Arc<str>>,
}

impl Alignment {
    /// With a drift in seconds; 0: nobody waits.
    pub(crate) fn new(max_drift_s: u32) -> Alignment {
        Alignment {
            drift_us: i64::from(max_drift_s).saturating_mul(1_000_000),
            began: None,
            has_begun: false,
            looked: None,
            is_tight: max_drift_s > 0,
            waiting: BTreeSet::new(),
        }
    }

    /// Waits, at most so long, until every partition that nobody has heard of has a first record or none; then takes these
    /// records. `false` while it waits: then no epoch may have records.
    pub(crate) fn begin(
        &mut self,
        kafka: &mut Kafka,
        heard: &HashMap<Arc<str>, Instant>,
        patience: Duration,
        out: &mut Vec<Record>,
    ) -> bool {
        if self.has_begun {
            return true;
        }
        let began = *self.began.get_or_insert_with(Instant::now);
        let unknown = kafka.peek().into_iter().filter(|stream| !is_known(stream, heard)).min();
        if let Some(stream) = unknown {
            if began.elapsed() < patience {
                return false;
            }
            tracing::warn!(stream, "gives no first record; going on without it, what it has from before may be late");
        }
        self.has_begun = true;
        kafka.firsts(out);
        true
    }

    /// Says who waits from now on.
    pub(crate) fn look(
        &mut self,
        kafka: &mut Kafka,
        status: &Status,
        heard: &HashMap<Arc<str>, Instant>,
        idle_after: Duration,
    ) {
        if self.looked.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
            return;
        }
        self.looked = Some(Instant::now());
        let unread = kafka.unread();
        let is_fresh = |stream: &str| heard.get(stream).is_some_and(|at| at.elapsed() < idle_after);
        // One that gives nothing, although it should have some, is waited for no longer than a silent one.
        let behind = unread.iter().filter(|one| one.behind && (one.waiting || is_fresh(&one.stream)));
        let behind: Vec<(&str, Class)> = behind.map(|one| (&*one.stream, one.class)).collect();
        let newest = status.newest_decoded();
        let limits = Class::ALL.map(|class| (class, limit(&newest, &behind, class, self.drift_us)));
        kafka.pause(&|stream, class| {
            let limit = limits.iter().find_map(|(of, limit)| limit.filter(|_| *of == class));
            limit.is_some_and(|limit| newest.get(stream).is_some_and(|time| *time > limit))
        });
        let half = Class::ALL.map(|class| limit(&newest, &behind, class, self.drift_us / 2));
        let soonest = half.into_iter().flatten().min();
        let is_near =
            |stream: &str| newest.get(stream).is_none_or(|time| soonest.is_some_and(|soonest| *time > soonest));
        self.is_tight = self.drift_us > 0 && behind.len() > 1 && unread.iter().any(|one| is_near(&one.stream));
        self.waiting = unread.into_iter().filter(|one| one.waiting).map(|one: Unread| one.stream).collect();
    }

    /// Whether little may be under way: what is taken and not decoded yet says nothing of its times.
    pub(crate) fn is_tight(&self) -> bool {
        self.is_tight
    }

    /// Whether a stream has records that we did not take.
    pub(crate) fn is_waiting(&self, stream: &str) -> bool {
        self.waiting.contains(stream)
    }
}

/// Whether the graph knows this stream; of a topic whose partitions are not found yet, one of them.
fn is_known(stream: &str, heard: &HashMap<Arc<str>, Instant>) -> bool {
    heard.contains_key(stream) || (stream.ends_with('/') && heard.keys().any(|known| known.starts_with(stream)))
}

/// The time beyond which a stream of a class waits: the drift after the slowest that is behind, of this class or a higher
/// one.
fn limit(newest: &BTreeMap<String, Time>, behind: &[(&str, Class)], class: Class, drift_us: i64) -> Option<Time> {
    let counts = behind.iter().filter(|(_, of)| *of <= class);
    let slowest = counts.filter_map(|(stream, _)| newest.get(*stream)).min()?;
    (drift_us > 0).then(|| slowest.plus_micros(drift_us))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Streams with their newest second, `!` where one is behind, in capitals where they are of class high (else normal);
    /// who waits with a drift of ten seconds.
    #[track_caller]
    fn check(streams: &str, waits: &str) {
        let class = |name: &str| if name.chars().all(char::is_uppercase) { Class::High } else { Class::Normal };
        let of = |word: &str| {
            let (name, second) = word.trim_end_matches('!').split_at(1);
            (name.to_owned(), Time::from_seconds(second.parse().unwrap()))
        };
        let newest: BTreeMap<String, Time> = streams.split_whitespace().map(of).collect();
        let behind: Vec<String> =
            streams.split_whitespace().filter(|word| word.ends_with('!')).map(|word| of(word).0).collect();
        let behind: Vec<(&str, Class)> = behind.iter().map(|name| (name.as_str(), class(name))).collect();
        let is_ahead =
            |name: &str, time: Time| limit(&newest, &behind, class(name), 10_000_000).is_some_and(|limit| time > limit);
        let ahead = newest.iter().filter(|(name, time)| is_ahead(name, **time));
        assert_eq!(ahead.map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(" "), waits, "{streams}");
    }

    #[test]
    fn who_is_more_than_the_drift_ahead_of_the_slowest_that_is_behind_waits() {
        check("a5! b15! c16! d99", "c d");
        check("a5 b15! c16! d99", "d");
        check("a5! b6!", "");
        // Nobody is behind: nobody waits, however far apart they are.
        check("a5 b99", "");
        // The slowest never waits.
        check("a99!", "");
    }

    #[test]
    fn a_higher_class_does_not_wait_for_a_lower_one() {
        check("A99! b5!", "");
        check("A5! b99!", "b");
        check("A5! B99! b50!", "B b");
    }

    #[test]
    fn a_topic_is_known_by_any_of_its_partitions() {
        let heard = HashMap::from([(Arc::from("kafka:edge:logs/3"), Instant::now())]);
        assert!(is_known("kafka:edge:logs/3", &heard) && is_known("kafka:edge:logs/", &heard));
        assert!(!is_known("kafka:edge:logs/1", &heard) && !is_known("kafka:edge:other/", &heard));
    }
}
