//! All partitions of a source: found, begun where the ledger says, read in turn.
//!
//! Memory: per partition what the client fetched ahead (`ahead_bytes_max`, and one fetch), and one record. A partition
//! that nobody takes from is not fetched for: that is the whole of the back-pressure.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{CommitMode, Consumer as _},
};
use serde::Serialize;

use crate::{
    ClientError, Condition, Message,
    client::{self, Connection, Consumer, Shared, said},
    partition::{Partition, Seen, State},
    scout::{Asked, News, Scout},
    settings::{Class, KafkaSettings, Start},
};

/// Records taken from one partition before the next one has its turn.
const TURN: usize = 128;
/// How often a broker must say that its log ends before us until that is believed: one that has just come back may not
/// know its end yet.
const SHORT_TIMES: u32 = 4;

/// An offset that is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The next offset to read.
    pub next: u64,
    /// What the record before it was, if one was read: tells a topic that was made anew.
    pub mark: Option<u64>,
}

/// The name of a partition among all sources.
#[must_use]
pub fn stream(source: &str, topic: &str, partition: i32) -> String {
    format!("kafka:{source}:{topic}/{partition}")
}

/// Source, topic and partition of such a name.
#[must_use]
pub fn parse_stream(stream: &str) -> Option<(&str, &str, i32)> {
    let (source, rest) = stream.strip_prefix("kafka:")?.split_once(':')?;
    let (topic, partition) = rest.rsplit_once('/')?;
    Some((source, topic, partition.parse().ok()?))
}

/// Why records that an epoch has cannot be read again.
#[derive(Debug, thiserror::Error)]
pub enum NotThere {
    /// The broker has them no more.
    #[error("{stream} has the records up to offset {end} no more: {condition}")]
    Gone {
        /// The partition.
        stream: String,
        /// Up to where they are wanted.
        end: u64,
        /// What is there instead.
        condition: Condition,
    },
    /// Somebody told us to stop waiting.
    #[error("stopped while waiting for {stream}")]
    Cancelled {
        /// The partition.
        stream: String,
    },
}

/// How a partition (or a topic that is not there) is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PartitionState {
    /// `kafka:SOURCE:TOPIC/PARTITION`; for a topic that is not there without a partition.
    pub stream: String,
    /// `reading`, `paused`, `waiting`, `stopped`, `topic_missing`, `unreachable` or `refused`.
    pub state: &'static str,
    /// The next offset to read.
    pub next: Option<u64>,
    /// The end of its log, as last heard.
    pub end: Option<u64>,
    /// Records between the two; gaps count.
    pub lag: Option<u64>,
    /// Records read in this run.
    pub records: u64,
    /// Bytes of their values.
    pub bytes: u64,
    /// Times that it began to wait for others in this run, because it was far ahead in event time.
    pub pauses: u64,
    /// Why it is stopped, or what went wrong last.
    pub says: Option<String>,
    /// Who goes first when we are behind.
    pub class: Class,
}

/// A partition that may have records which we did not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// Its name.
    pub stream: Arc<str>,
    /// Its class.
    pub class: Class,
    /// Whether it did not come to its end since the last time somebody asked.
    pub behind: bool,
    /// Whether records of it are here and were not taken.
    pub waiting: bool,
}

/// A source.
pub struct Source {
    name: String,
    settings: KafkaSettings,
    consumer: Arc<Consumer>,
    shared: Arc<Shared>,
    asked: Asked,
    stop: Arc<AtomicBool>,
    news: mpsc::Receiver<News>,
    scout: Option<thread::JoinHandle<()>>,
    partitions: BTreeMap<(String, i32), Partition>,
    /// Found, and not begun: nobody reads them yet.
    found: BTreeMap<(String, i32), (u64, u64)>,
    missing: BTreeSet<String>,
    /// Topics that were not there at some time of this run: all that they have came since.
    came_late: BTreeSet<String>,
    /// Partitions that began since somebody asked.
    begun: Vec<(Arc<str>, u64)>,
    /// Where partitions go on of which it is not known yet whether they are stopped.
    pending: BTreeMap<Arc<str>, u64>,
    live: bool,
    /// Who has the next turn.
    turn: usize,
    value_bytes_max: usize,
}

impl Source {
    /// Begins with what is bound. Values are cut after `value_bytes_max`.
    ///
    /// # Errors
    /// The settings make no client (a certificate that cannot be read, ...), or no thread can be started.
    pub fn open(
        name: &str,
        settings: &KafkaSettings,
        bound: &BTreeMap<String, Bound>,
        value_bytes_max: usize,
    ) -> Result<Source, ClientError> {
        let (consumer, shared) = client::consumer(name, settings)?;
        let consumer = Arc::new(consumer);
        let (sender, news) = mpsc::channel();
        let (asked, stop) = (Asked::default(), Arc::<AtomicBool>::default());
        let scout = Scout {
            name: name.to_owned(),
            settings: settings.clone(),
            consumer: Arc::clone(&consumer),
            shared: Arc::clone(&shared),
            asked: Arc::clone(&asked),
            stop: Arc::clone(&stop),
            news: sender,
        };
        let no_thread = |error: std::io::Error| ClientError { source_name: name.to_owned(), says: error.to_string() };
        let scout = Some(scout.start().map_err(no_thread)?);
        let mut source = Source {
            name: name.to_owned(),
            settings: settings.clone(),
            consumer,
            shared,
            asked,
            stop,
            news,
            scout,
            partitions: BTreeMap::new(),
            found: BTreeMap::new(),
            missing: BTreeSet::new(),
            came_late: BTreeSet::new(),
            begun: Vec::new(),
            pending: BTreeMap::new(),
            live: false,
            turn: 0,
            value_bytes_max,
        };
        for (stream, bound) in bound {
            source.bind(stream, *bound);
        }
        Ok(source)
    }

    /// Its name in the settings.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its settings.
    #[must_use]
    pub fn settings(&self) -> &KafkaSettings {
        &self.settings
    }

    /// Whether a partition of this class may have records that we did not read, and may be read.
    #[must_use]
    pub fn is_behind(&self, class: Class) -> bool {
        let is_behind = |partition: &Partition| {
            let is_read = matches!(partition.state, State::Reading | State::Verifying) && !partition.paused;
            is_read && partition.class == class && !partition.caught_up
        };
        self.partitions.values().any(is_behind)
    }

    /// Whether partitions of this class are read.
    #[must_use]
    pub fn has_class(&self, class: Class) -> bool {
        self.partitions.values().any(|partition| partition.class == class)
    }

    /// Says where a partition goes on; it is read from there once the broker has answered. Names of other sources, and
    /// of topics that are not read any more, are passed over.
    pub fn bind(&mut self, stream: &str, bound: Bound) {
        let Some((name, topic, number)) = parse_stream(stream) else { return };
        if name != self.name || !self.settings.topics.iter().any(|known| known == topic) {
            return;
        }
        let key = (topic.to_owned(), number);
        self.leave(&key);
        // What was found before is bound now, and is not new.
        self.found.remove(&key);
        let max = self.value_bytes_max;
        let partition = self
            .partitions
            .entry(key)
            .or_insert_with(|| Partition::new(Arc::from(stream), topic, number, bound.next, max));
        partition.class = self.settings.class_of(topic, number);
        partition.bind(bound.next, bound.mark);
        partition.state = State::Waiting;
        partition.short = 0;
        partition.missed = 0;
        self.ask(topic, number);
    }

    /// From here on partitions that are found begin.
    pub fn go_live(&mut self) {
        self.live = true;
    }

    /// Takes in what was found.
    pub fn tend(&mut self) {
        while let Ok(news) = self.news.try_recv() {
            match news {
                News::Found { topic, partition, low, high } => {
                    self.missing.remove(&topic);
                    let key = (topic, partition);
                    if self.partitions.contains_key(&key) {
                        self.enter(&key, low, high);
                    } else {
                        self.found.insert(key, (low, high));
                    }
                }
                News::Missing { topic } => self.miss(&topic),
            }
        }
        if !self.live {
            return;
        }
        for (stream, next) in std::mem::take(&mut self.pending) {
            self.resume(&stream, next);
        }
        // A topic of which a partition is bound was read before: what it has more is new, and read from its beginning.
        let known: BTreeSet<String> = self.partitions.keys().map(|(topic, _)| topic.clone()).collect();
        for ((topic, number), (low, high)) in std::mem::take(&mut self.found) {
            let is_new = known.contains(&topic) || self.came_late.contains(&topic);
            let is_new = is_new || self.settings.start == Start::Earliest;
            let next = if is_new { low } else { high };
            let name: Arc<str> = Arc::from(stream(&self.name, &topic, number));
            let mut partition = Partition::new(Arc::clone(&name), &topic, number, next, self.value_bytes_max);
            partition.class = self.settings.class_of(&topic, number);
            let key = (topic, number);
            self.partitions.insert(key.clone(), partition);
            tracing::info!(stream = &*name, next, "a partition is read");
            self.begun.push((name, next));
            self.enter(&key, low, high);
        }
    }

    /// Partitions that began since the last call, with their first offset: to be bound before any of their records.
    pub fn begun(&mut self) -> Vec<(Arc<str>, u64)> {
        std::mem::take(&mut self.begun)
    }

    /// Goes on at another offset with a partition that is stopped; others, and streams of other sources, are passed over.
    pub fn resume(&mut self, stream: &str, next: u64) {
        let Some(partition) = self.partitions.values().find(|partition| &*partition.stream == stream) else { return };
        let stream = Arc::clone(&partition.stream);
        match partition.state {
            State::Stopped(_) => {}
            // The broker was not asked yet: said again when it is known to be stopped.
            State::Waiting | State::Missing => {
                self.pending.insert(stream, next);
                return;
            }
            State::Verifying | State::Reading => return,
        }
        tracing::warn!(stream = &*stream, next, "a stopped partition goes on where somebody said");
        self.bind(&stream, Bound { next, mark: None });
        self.begun.push((stream, next));
    }

    /// Whether it reads the topic of this stream.
    #[must_use]
    pub fn reads(&self, stream: &str) -> bool {
        parse_stream(stream).is_some_and(|(name, topic, _)| {
            name == self.name && self.settings.topics.iter().any(|known| known == topic)
        })
    }

    /// Whether some wait to be bound.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        !self.begun.is_empty()
    }

    /// The offsets that are taken next, of all partitions that were begun.
    pub fn bounds(&self) -> impl Iterator<Item = (&Arc<str>, Bound)> {
        self.partitions.values().map(|p| (&p.stream, Bound { next: p.next, mark: p.mark() }))
    }

    fn ask(&self, topic: &str, number: i32) {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).insert((topic.to_owned(), number));
    }

    fn miss(&mut self, topic: &str) {
        self.came_late.insert(topic.to_owned());
        if self.missing.insert(topic.to_owned()) {
            tracing::error!(source = self.name, topic, "the topic is not there");
        }
        self.found.retain(|(name, _), _| name != topic);
        let keys: Vec<_> = self.partitions.keys().filter(|(name, _)| name == topic).cloned().collect();
        for key in keys {
            self.leave(&key);
            if let Some(partition) = self.partitions.get_mut(&key) {
                partition.missed += 1;
                if !matches!(partition.state, State::Stopped(_)) {
                    partition.state = State::Missing;
                }
            }
        }
    }

    /// Begins to read a partition, or says why not.
    fn enter(&mut self, key: &(String, i32), low: u64, high: u64) {
        let Some(partition) = self.partitions.get_mut(key) else { return };
        if !matches!(partition.state, State::Waiting | State::Missing) {
            return;
        }
        let next = partition.next;
        if next < low {
            return self.halt(key, Condition::LogBeginsAfter { bound: next, first: low });
        }
        if next > high {
            partition.short += 1;
            if partition.short >= SHORT_TIMES && partition.missed > 0 {
                return self.halt(key, Condition::MadeAnew { bound: next });
            }
            if partition.short >= SHORT_TIMES {
                return self.halt(key, Condition::LogEndsBefore { bound: next, end: high });
            }
            partition.state = State::Waiting;
            return self.ask(&key.0, key.1);
        }
        partition.short = 0;
        // A record that was read ahead is read again.
        partition.ahead = None;
        partition.caught_up = false;
        let verify = partition.mark().is_some() && next > low;
        partition.state = if verify { State::Verifying } else { State::Reading };
        let from = if verify { next - 1 } else { next };
        if let Err(why) = self.assign(key, from) {
            self.shared.failed(why);
            if let Some(partition) = self.partitions.get_mut(key) {
                partition.state = State::Waiting;
            }
            self.ask(&key.0, key.1);
        }
    }

    fn halt(&mut self, key: &(String, i32), condition: Condition) {
        let Some(partition) = self.partitions.get_mut(key) else { return };
        let (stream, source) = (Arc::clone(&partition.stream), &self.name);
        tracing::error!(
            stream = &*stream,
            %condition,
            "a partition is stopped; what was accepted stays; say where to go on: \
             counterflow sources resume {source} --from earliest|latest|offset=N"
        );
        partition.state = State::Stopped(condition);
        partition.queue = None;
        self.leave(key);
    }

    fn assign(&mut self, key: &(String, i32), from: u64) -> Result<(), String> {
        self.leave(key);
        let Some(partition) = self.partitions.get_mut(key) else { return Ok(()) };
        if partition.queue.is_none() {
            // Before it is assigned: so no record of it ever goes to the common queue.
            let mut queue = self.consumer.split_partition_queue(&key.0, key.1).ok_or("the client has no such queue")?;
            let ready = Arc::clone(&partition.ready);
            queue.set_nonempty_callback(move || ready.store(true, Ordering::Release));
            partition.queue = Some(queue);
        }
        partition.ready.store(true, Ordering::Release);
        let mut list = TopicPartitionList::new();
        let from = i64::try_from(from).map_err(|_| "an offset beyond what Kafka has".to_owned())?;
        list.add_partition_offset(&key.0, key.1, Offset::Offset(from)).map_err(|error| said(&error))?;
        self.consumer.incremental_assign(&list).map_err(|error| said(&error))
    }

    /// Reads a partition no more.
    fn leave(&self, key: &(String, i32)) {
        let mut list = TopicPartitionList::new();
        list.add_partition(&key.0, key.1);
        // One that is not assigned is no matter.
        if let Err(error) = self.consumer.incremental_unassign(&list) {
            tracing::trace!(%error, topic = key.0, partition = key.1, "was not assigned");
        }
    }

    /// Looks whether partitions have a first record, and keeps it for [`Source::firsts`]. Gives those of which it is not
    /// known; a topic whose partitions are not found is named with a slash at its end. Of a cluster that refuses us
    /// nothing is expected.
    pub fn peek(&mut self) -> Vec<String> {
        let (mut unknown, mut asked) = (Vec::new(), Vec::new());
        for partition in self.partitions.values_mut() {
            match partition.state {
                State::Stopped(_) | State::Missing => continue,
                State::Waiting => {}
                State::Verifying | State::Reading => {
                    if partition.ahead.is_none() && !partition.caught_up {
                        match partition.look(Duration::ZERO) {
                            Seen::Record(message) => partition.ahead = Some(message),
                            Seen::Ask => asked.push((partition.topic.clone(), partition.number)),
                            Seen::Nothing => {}
                        }
                    }
                    if partition.ahead.is_some() || partition.caught_up {
                        continue;
                    }
                }
            }
            unknown.push(partition.stream.to_string());
        }
        self.after(asked);
        if matches!(self.shared.connection(), Connection::Refused(_)) {
            return Vec::new();
        }
        let is_found =
            |topic: &&String| self.missing.contains(*topic) || self.partitions.keys().any(|(name, _)| name == *topic);
        let topics = self.settings.topics.iter().filter(|topic| !is_found(topic));
        unknown.extend(topics.map(|topic| format!("kafka:{}:{topic}/", self.name)));
        unknown
    }

    /// Takes the records that [`Source::peek`] found, one of each partition.
    pub fn firsts(&mut self, out: &mut Vec<Message>) {
        for partition in self.partitions.values_mut() {
            if let Some(message) = partition.ahead.take() {
                partition.take(&message);
                partition.ready.store(true, Ordering::Release);
                out.push(message);
            }
        }
    }

    /// Partitions that may have records which we did not read.
    pub fn unread(&mut self) -> Vec<Unread> {
        let mut unread = Vec::new();
        for partition in self.partitions.values_mut() {
            let reached_end = std::mem::take(&mut partition.reached_end);
            if matches!(partition.state, State::Reading | State::Verifying) {
                let behind = !reached_end && !partition.caught_up;
                let waiting = partition.ahead.is_some() || partition.ready.load(Ordering::Acquire);
                if behind || waiting {
                    let (stream, class) = (Arc::clone(&partition.stream), partition.class);
                    unread.push(Unread { stream, class, behind, waiting });
                }
            }
        }
        unread
    }

    /// Says which partitions nothing is taken from, until it is said anew.
    pub fn pause(&mut self, is_ahead: &dyn Fn(&str, Class) -> bool) {
        for partition in self.partitions.values_mut() {
            let ahead = is_ahead(&partition.stream, partition.class);
            partition.pauses += u64::from(ahead && !partition.paused);
            partition.paused = ahead;
        }
    }

    /// Takes at most `records` of a class, in turn from all partitions of it that have some; stops after `bytes` of values.
    pub fn take(&mut self, class: Class, records: usize, bytes: &mut usize, out: &mut Vec<Message>) {
        let keys = self.partitions.len();
        let mut left = records;
        let mut asked = Vec::new();
        let turn = self.turn.checked_rem(keys).unwrap_or(0);
        // Twice around: who comes before the one whose turn it is comes after the last.
        for partition in self.partitions.values_mut().cycle_from(turn, keys) {
            if left == 0 || *bytes == 0 {
                break;
            }
            self.turn = self.turn.wrapping_add(1);
            if partition.class != class || partition.paused || !partition.is_ready() {
                continue;
            }
            let mut taken = 0;
            loop {
                if taken == TURN.min(left) || *bytes == 0 {
                    // There may be more.
                    partition.ready.store(true, Ordering::Release);
                    break;
                }
                match partition.look(Duration::ZERO) {
                    Seen::Record(message) => {
                        partition.take(&message);
                        *bytes = bytes.saturating_sub(message.value.as_ref().map_or(0, bytes::Bytes::len));
                        out.push(message);
                        taken += 1;
                    }
                    Seen::Nothing => break,
                    Seen::Ask => {
                        asked.push((partition.topic.clone(), partition.number));
                        break;
                    }
                }
            }
            left -= taken;
        }
        self.after(asked);
    }

    /// Partitions that found out something on the way.
    fn after(&mut self, asked: Vec<(String, i32)>) {
        for key in asked {
            self.leave(&key);
            self.ask(&key.0, key.1);
        }
        let stopped: Vec<_> = self
            .partitions
            .iter()
            .filter_map(|(key, partition)| match &partition.state {
                State::Stopped(condition) if partition.queue.is_some() => Some((key.clone(), condition.clone())),
                _ => None,
            })
            .collect();
        for (key, condition) in stopped {
            self.halt(&key, condition);
        }
    }

    /// Reads exactly up to an offset, however long the broker lets us wait: what an epoch of before had.
    ///
    /// # Errors
    /// The broker has these records no more, or `cancelled` says so.
    pub fn read_upto(
        &mut self,
        stream: &str,
        bound: Bound,
        cancelled: &dyn Fn() -> bool,
        out: &mut Vec<Message>,
    ) -> Result<(), NotThere> {
        let Some((name, topic, number)) = parse_stream(stream) else { return Ok(()) };
        let key = (topic.to_owned(), number);
        if name != self.name || !self.partitions.contains_key(&key) {
            return Ok(());
        }
        let end = bound.next;
        loop {
            self.tend();
            let high = self.shared.end(topic, number).unwrap_or(0);
            let Some(partition) = self.partitions.get_mut(&key) else { return Ok(()) };
            if partition.next >= end {
                return Ok(());
            }
            if let State::Stopped(condition) = &partition.state {
                let (stream, condition) = (stream.to_owned(), condition.clone());
                return Err(NotThere::Gone { stream, end, condition });
            }
            if partition.state == State::Missing && partition.missed >= SHORT_TIMES {
                let condition = Condition::TopicMissing { bound: partition.next };
                return Err(NotThere::Gone { stream: stream.to_owned(), end, condition });
            }
            if cancelled() {
                return Err(NotThere::Cancelled { stream: stream.to_owned() });
            }
            match partition.look(Duration::from_millis(50)) {
                Seen::Record(message) if message.offset >= end => {
                    partition.bind(end, bound.mark);
                    partition.ahead = Some(message);
                }
                Seen::Record(message) => {
                    partition.take(&message);
                    out.push(message);
                }
                Seen::Nothing if partition.caught_up && high >= end => partition.bind(end, bound.mark),
                Seen::Nothing => {
                    if !matches!(partition.state, State::Reading | State::Verifying) {
                        thread::sleep(Duration::from_millis(20));
                    } else if partition.caught_up {
                        // Its log ends before: the scout is asked until that is sure.
                        partition.state = State::Waiting;
                        partition.short += 1;
                        if partition.short > SHORT_TIMES {
                            let condition = Condition::LogEndsBefore { bound: end, end: high };
                            self.halt(&key, condition);
                        } else {
                            self.after(vec![key.clone()]);
                        }
                    }
                    self.after(Vec::new());
                }
                Seen::Ask => self.after(vec![key.clone()]),
            }
        }
    }

    /// Commits what is bound, if a group is named.
    pub fn commit(&self) {
        if self.settings.group.is_none() {
            return;
        }
        let mut list = TopicPartitionList::new();
        for partition in self.partitions.values().filter(|partition| partition.state == State::Reading) {
            let Ok(next) = i64::try_from(partition.next) else { continue };
            if let Err(error) = list.add_partition_offset(&partition.topic, partition.number, Offset::Offset(next)) {
                tracing::debug!(%error, "an offset could not be committed");
            }
        }
        if list.count() > 0
            && let Err(error) = self.consumer.commit(&list, CommitMode::Async)
        {
            self.shared.failed(format!("offsets could not be committed: {}", said(&error)));
        }
    }

    /// How everything stands.
    #[must_use]
    pub fn states(&self) -> Vec<PartitionState> {
        let connection = self.shared.connection();
        let broken = match &connection {
            Connection::Connecting => Some(("waiting", None)),
            Connection::Connected => None,
            Connection::Unreachable(why) => Some(("unreachable", Some(why.clone()))),
            Connection::Refused(why) => Some(("refused", Some(why.clone()))),
        };
        let mut states: Vec<_> = self.partitions.values().map(|p| self.state_of(p, broken.as_ref())).collect();
        let has_some = |topic: &str| self.partitions.keys().any(|(name, _)| name == topic);
        for topic in self.settings.topics.iter().filter(|topic| !has_some(topic)) {
            let (state, says) = match &broken {
                Some((state, says)) => (*state, says.clone()),
                None if self.missing.contains(topic) => ("topic_missing", Some("the topic is not there".to_owned())),
                None => ("waiting", self.shared.last_error()),
            };
            states.push(PartitionState {
                stream: format!("kafka:{}:{topic}", self.name),
                state,
                next: None,
                end: None,
                lag: None,
                records: 0,
                bytes: 0,
                pauses: 0,
                says,
                class: self.settings.class,
            });
        }
        states
    }

    fn state_of(&self, partition: &Partition, broken: Option<&(&'static str, Option<String>)>) -> PartitionState {
        let end = self.shared.end(&partition.topic, partition.number);
        let (state, says) = match (&partition.state, broken) {
            (State::Stopped(condition), _) => ("stopped", Some(condition.to_string())),
            (State::Missing, _) => ("topic_missing", Some("the topic is not there".to_owned())),
            (_, Some((state, says))) => (*state, says.clone()),
            (State::Waiting | State::Verifying, None) => ("waiting", self.shared.last_error()),
            (State::Reading, None) if partition.paused => {
                ("paused", Some("it is far ahead in event time, and waits for partitions that are behind".to_owned()))
            }
            (State::Reading, None) => ("reading", None),
        };
        PartitionState {
            stream: partition.stream.to_string(),
            state,
            next: Some(partition.next),
            end,
            lag: end.map(|end| end.saturating_sub(partition.next)),
            records: partition.records,
            bytes: partition.bytes,
            pauses: partition.pauses,
            says,
            class: partition.class,
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Queues first: they belong to the client.
        self.partitions.clear();
        if let Some(scout) = self.scout.take() {
            drop(scout.join());
        }
    }
}

/// All of them once, beginning at one.
trait CycleFrom<'a> {
    fn cycle_from(self, from: usize, count: usize) -> impl Iterator<Item = &'a mut Partition>;
}

impl<'a, I: Iterator<Item = &'a mut Partition>> CycleFrom<'a> for I {
    fn cycle_from(self, from: usize, _count: usize) -> impl Iterator<Item = &'a mut Partition> {
        let mut all: Vec<_> = self.collect();
        all.rotate_left(from);
        all.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        let name = stream("edge", "a.b-c_d", 12);
        assert_eq!(name, "kafka:edge:a.b-c_d/12");
        assert_eq!(parse_stream(&name), Some(("edge", "a.b-c_d", 12)));
        assert_eq!(parse_stream("file:x"), None);
        assert_eq!(parse_stream("kafka:edge:topic"), None);
    }
}
