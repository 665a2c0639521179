//! One partition: where it is read, what it may give, why it does not.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use rdkafka::{
    Message as _,
    consumer::base_consumer::PartitionQueue,
    error::{KafkaError, RDKafkaErrorCode},
    message::BorrowedMessage,
};

use crate::{Condition, client::Context, settings::Class};

/// Bytes of a value that its mark is made of.
const MARK_BYTES: usize = 4_096;

/// One record of a partition.
#[derive(Clone, Debug)]
pub struct Message {
    /// The partition's name: `kafka:SOURCE:TOPIC/PARTITION`.
    pub stream: Arc<str>,
    /// Its offset.
    pub offset: u64,
    /// The time that the broker keeps with it, in milliseconds since 1970 (by the topic's settings the broker's own or
    /// the producer's); `None` if the record has none.
    pub timestamp_ms: Option<i64>,
    /// Its value, cut after the bytes that were asked for; `None` for a null value.
    pub value: Option<Bytes>,
}

impl Message {
    /// What tells this record from another one at the same offset.
    pub(crate) fn mark(&self) -> u64 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.offset.to_le_bytes());
        hasher.update(&self.timestamp_ms.unwrap_or(-1).to_le_bytes());
        hasher.update(&[u8::from(self.value.is_some())]);
        if let Some(value) = &self.value {
            hasher.update(value.get(..MARK_BYTES).unwrap_or(value));
        }
        let mut mark = [0; 8];
        hasher.finalize_xof().fill(&mut mark);
        u64::from_le_bytes(mark)
    }
}

/// How a partition stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The broker was not asked yet where its log begins and ends.
    Waiting,
    /// The record before the bound offset is read again first: it must be the same.
    Verifying,
    /// It is read.
    Reading,
    /// Its topic is not there.
    Missing,
    /// Somebody must say where to go on.
    Stopped(Condition),
}

/// What a look into the queue gave.
pub(crate) enum Seen {
    /// A record.
    Record(Message),
    /// Nothing at the moment.
    Nothing,
    /// The broker must be asked again what there is.
    Ask,
}

pub(crate) struct Partition {
    pub(crate) topic: String,
    pub(crate) number: i32,
    pub(crate) stream: Arc<str>,
    pub(crate) state: State,
    /// The offset that is taken next.
    pub(crate) next: u64,
    /// What the record before it was.
    before: Option<Before>,
    pub(crate) queue: Option<PartitionQueue<Context>>,
    /// Set by the client when its queue has something.
    pub(crate) ready: Arc<AtomicBool>,
    /// A record that was read too early.
    pub(crate) ahead: Option<Message>,
    /// All that is there was read.
    pub(crate) caught_up: bool,
    /// How often in a row the broker said that its log ends before us.
    pub(crate) short: u32,
    /// How often its topic was missing in this run.
    pub(crate) missed: u32,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    /// Who goes first when we are behind.
    pub(crate) class: Class,
    /// It is far ahead of others: nothing is taken from it meanwhile.
    pub(crate) paused: bool,
    /// Times that it began to be.
    pub(crate) pauses: u64,
    /// It came to its end since somebody asked.
    pub(crate) reached_end: bool,
    value_bytes_max: usize,
}

enum Before {
    Mark(u64),
    Record(Message),
}

impl Partition {
    pub(crate) fn new(stream: Arc<str>, topic: &str, number: i32, next: u64, value_bytes_max: usize) -> Partition {
        Partition {
            topic: topic.to_owned(),
            number,
            stream,
            state: State::Waiting,
            next,
            before: None,
            queue: None,
            ready: Arc::default(),
            ahead: None,
            caught_up: false,
            short: 0,
            missed: 0,
            records: 0,
            bytes: 0,
            class: Class::default(),
            paused: false,
            pauses: 0,
            reached_end: false,
            value_bytes_max,
        }
    }

    /// What the record before the next one was, if one was read.
    pub(crate) fn mark(&self) -> Option<u64> {
        match self.before.as_ref()? {
            Before::Mark(mark) => Some(*mark),
            Before::Record(message) => Some(message.mark()),
        }
    }

    pub(crate) fn bind(&mut self, next: u64, mark: Option<u64>) {
        self.next = next;
        self.before = mark.map(Before::Mark);
        self.ahead = None;
        self.caught_up = false;
    }

    /// Takes a record: it belongs to who asked now.
    pub(crate) fn take(&mut self, message: &Message) {
        self.next = message.offset + 1;
        self.records += 1;
        self.bytes += u64::try_from(message.value.as_ref().map_or(0, Bytes::len)).unwrap_or(0);
        self.before = Some(Before::Record(message.clone()));
    }

    /// The next record, if it is there or comes in time.
    pub(crate) fn look(&mut self, patience: std::time::Duration) -> Seen {
        if let Some(message) = self.ahead.take() {
            return Seen::Record(message);
        }
        loop {
            if !matches!(self.state, State::Reading | State::Verifying) {
                return Seen::Nothing;
            }
            let polled = match self.queue.as_ref().map(|queue| queue.poll(patience)) {
                None | Some(None) => return Seen::Nothing,
                Some(Some(Ok(message))) => Ok(self.copy(&message)),
                Some(Some(Err(error))) => Err(error),
            };
            match polled {
                Ok(message) => {
                    self.caught_up = false;
                    if let Some(message) = self.accept(message) {
                        return Seen::Record(message);
                    }
                }
                Err(error) => {
                    if self.failed(&error) {
                        return Seen::Ask;
                    }
                    if self.caught_up {
                        return Seen::Nothing;
                    }
                }
            }
        }
    }

    fn copy(&self, message: &BorrowedMessage<'_>) -> Message {
        let value = message.payload().map(|value| value.get(..self.value_bytes_max).unwrap_or(value));
        Message {
            stream: Arc::clone(&self.stream),
            offset: u64::try_from(message.offset()).unwrap_or(0),
            timestamp_ms: message.timestamp().to_millis(),
            value: value.map(Bytes::copy_from_slice),
        }
    }

    /// What of the client's records is ours: none before the next offset, and before all the proof that it is the same log.
    fn accept(&mut self, message: Message) -> Option<Message> {
        if self.state == State::Verifying {
            if message.offset + 1 == self.next {
                self.state = match self.mark() {
                    Some(mark) if mark != message.mark() => State::Stopped(Condition::MadeAnew { bound: self.next }),
                    _ => State::Reading,
                };
                return None;
            }
            if message.offset >= self.next {
                // The record before is gone (retention, compaction): then nothing can be compared.
                self.state = State::Reading;
            }
        }
        (message.offset >= self.next).then_some(message)
    }

    /// Whether the broker must be asked before it can go on.
    fn failed(&mut self, error: &KafkaError) -> bool {
        if matches!(error, KafkaError::PartitionEOF(_)) {
            self.caught_up = true;
            self.reached_end = true;
            // The record before is gone, and nothing came after it: nothing can be compared.
            if self.state == State::Verifying {
                self.state = State::Reading;
            }
            return false;
        }
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::OffsetOutOfRange | RDKafkaErrorCode::AutoOffsetReset) => {
                self.state = State::Waiting;
                true
            }
            Some(
                RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopicId
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition,
            ) => {
                self.state = State::Waiting;
                true
            }
            _ => {
                tracing::debug!(stream = &*self.stream, %error, "a partition could not be read; trying on");
                false
            }
        }
    }

    /// Whether its queue may have something; asked once, until it is said again.
    pub(crate) fn is_ready(&self) -> bool {
        self.ahead.is_some() || self.ready.swap(false, Ordering::AcqRel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(next: u64, mark: Option<u64>) -> Partition {
        let mut partition = Partition::new(Arc::from("kafka:a:t/0"), "t", 0, next, 100);
        partition.bind(next, mark);
        partition.state = if mark.is_some() { State::Verifying } else { State::Reading };
        partition
    }

    fn message(offset: u64, value: &'static str) -> Message {
        let value = Some(Bytes::from_static(value.as_bytes()));
        Message { stream: Arc::from("kafka:a:t/0"), offset, timestamp_ms: Some(7), value }
    }

    #[test]
    fn the_record_before_must_be_the_one_that_was_read() {
        let mark = message(4, "four").mark();
        let mut same = partition(5, Some(mark));
        assert!(same.accept(message(4, "four")).is_none());
        assert_eq!(same.state, State::Reading);
        assert_eq!(same.accept(message(5, "five")).map(|message| message.offset), Some(5));

        let mut other = partition(5, Some(mark));
        assert!(other.accept(message(4, "4")).is_none());
        assert_eq!(other.state, State::Stopped(Condition::MadeAnew { bound: 5 }));
        assert!(other.mark().is_some());

        // Gone by retention or compaction: nothing can be compared, and what follows is taken.
        let mut gone = partition(5, Some(mark));
        assert_eq!(gone.accept(message(9, "nine")).map(|message| message.offset), Some(9));
        assert_eq!(gone.state, State::Reading);
    }

    #[test]
    fn offsets_below_the_next_are_nobodys_and_gaps_are_nothing() {
        let mut partition = partition(5, None);
        assert!(partition.accept(message(3, "x")).is_none());
        let taken = partition.accept(message(8, "x")).unwrap();
        partition.take(&taken);
        assert_eq!((partition.next, partition.mark()), (9, Some(taken.mark())));
        assert!(partition.accept(message(8, "x")).is_none());
    }

    #[test]
    fn a_mark_tells_offset_time_and_value() {
        let one = message(4, "four");
        assert_ne!(one.mark(), message(5, "four").mark());
        assert_ne!(one.mark(), message(4, "five").mark());
        assert_ne!(one.mark(), Message { timestamp_ms: Some(8), ..one.clone() }.mark());
        assert_ne!(one.mark(), Message { value: None, ..one.clone() }.mark());
        assert_eq!(one.mark(), one.clone().mark());
    }
}
