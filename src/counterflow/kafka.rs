//! Kafka partitions as inputs of the conductor: their records, and the offsets that an epoch binds.
//!
//! Nothing is copied to the spool. An epoch's record has each partition's next offset; it is written in the transaction
//! of the epoch's outputs, and after a restart the epochs that the facts log has not are read from the broker again,
//! exactly up to their ends.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use cf_kafka::{Bound, Class, Format, Message, NotThere, PartitionState, Source, Unread};
use cf_types::{EpochRecord, Framing, Origin, Position, Record, Tenant, Time, record::KAFKA_PREFIX};

use crate::config::Settings;

/// The control log's entry by which a stopped source goes on; its body is a [`Resume`] as JSON.
pub(crate) const RESUME: &str = "source_resume";

/// How long one look for records of before may take, so that others are heard meanwhile.
const LOOK: Duration = Duration::from_secs(1);

/// Where a stopped source goes on: resolved by who said so, so that it is the same in every replay.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Resume {
    /// The source's name in the settings.
    pub(crate) source: String,
    /// What was said.
    pub(crate) from: String,
    /// The next offset of each stream.
    pub(crate) offsets: BTreeMap<String, u64>,
}

/// All Kafka sources of the settings.
pub(crate) struct Kafka {
    wanted: Vec<Wanted>,
    sources: Vec<Reading>,
    /// Bound, and read by no source of these settings: they keep their place.
    kept: BTreeMap<String, Bound>,
}

/// A source of the settings.
#[derive(Clone)]
pub(crate) struct Wanted {
    name: String,
    settings: cf_kafka::KafkaSettings,
    record_bytes_max: usize,
}

struct Reading {
    source: Source,
    shape: Shape,
    messages: Vec<Message>,
}

/// How a source's messages become records.
struct Shape {
    name: Arc<str>,
    format: Format,
    /// The last record's: neighbours share their time of receipt.
    origin: Option<Arc<Origin>>,
}

/// Why an epoch of before cannot be read again yet.
pub(crate) enum Again {
    /// All of it is there.
    Read,
    /// Not yet.
    Later,
}

impl Kafka {
    /// Those of the settings, not yet opened.
    pub(crate) fn new(settings: &Settings) -> Kafka {
        let wanted = settings.sources.iter().filter_map(|(name, source)| {
            let kafka = source.kafka.clone()?;
            let record_bytes_max = usize::try_from(source.options.record_bytes_max).unwrap_or(usize::MAX);
            Some(Wanted { name: name.clone(), settings: kafka, record_bytes_max })
        });
        Kafka { wanted: wanted.collect(), sources: Vec::new(), kept: BTreeMap::new() }
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    /// Begins at what an epoch has bound.
    pub(crate) fn open(&mut self, record: Option<&EpochRecord>) -> Result<()> {
        let bounds = record.map(bounds).unwrap_or_default();
        for Wanted { name, settings, record_bytes_max } in self.wanted.clone() {
            // One byte more: so that who decodes sees that it is too long.
            let source = Source::open(&name, &settings, &bounds, record_bytes_max.saturating_add(1))?;
            let shape = Shape { name: Arc::from(name.as_str()), format: settings.format, origin: None };
            self.sources.push(Reading { source, shape, messages: Vec::new() });
        }
        self.kept = bounds.into_iter().filter(|(stream, _)| !self.is_read(stream)).collect();
        Ok(())
    }

    fn is_read(&self, stream: &str) -> bool {
        self.sources.iter().any(|reading| reading.source.reads(stream))
    }

    /// Reads the records of an epoch of before, behind those that are there already. With `accept_missing` what the broker
    /// has no more is left out.
    pub(crate) fn read_again(
        &mut self,
        record: &EpochRecord,
        accept_missing: bool,
        records: &mut Vec<Record>,
    ) -> Result<Again> {
        let deadline = Instant::now() + LOOK;
        let late = || Instant::now() >= deadline;
        for (stream, bound) in bounds(record) {
            if !self.is_read(&stream) {
                if self.kept.get(&stream).is_some_and(|kept| kept.next < bound.next) {
                    bail!(
                        "epoch {} has records of {stream}, which no source of the settings reads; start once with the \
                         settings of before and stop in order",
                        record.epoch
                    );
                }
                self.kept.insert(stream, bound);
                continue;
            }
            for reading in self.sources.iter_mut().filter(|reading| reading.source.reads(&stream)) {
                match reading.source.read_upto(&stream, bound, &late, &mut reading.messages) {
                    Ok(()) => {}
                    Err(NotThere::Cancelled { .. }) => {
                        reading.drain(records);
                        return Ok(Again::Later);
                    }
                    Err(error) if accept_missing => {
                        tracing::error!(%error, "records of an epoch are lost; going on without them, as was asked");
                    }
                    Err(error) => {
                        return Err(error).with_context(|| {
                            format!(
                                "epoch {} cannot be rebuilt; nothing was changed. Bring the topic back, or start with \
                                 --accept-differences to go on without these records",
                                record.epoch
                            )
                        });
                    }
                }
                reading.drain(records);
            }
        }
        Ok(Again::Read)
    }

    /// Partitions begin where an epoch of before says.
    pub(crate) fn begin_again(&mut self, record: &EpochRecord) {
        for (stream, next) in &record.starts {
            let bound = Bound { next: *next, mark: None };
            if self.is_read(stream) {
                self.sources.iter_mut().for_each(|reading| reading.source.bind(stream, bound));
            } else {
                self.kept.insert(stream.clone(), bound);
            }
        }
    }

    /// What was rebuilt is the present: from here on new partitions begin. What could not be read again is passed.
    pub(crate) fn go_live(&mut self, last: Option<&EpochRecord>) {
        let bound = last.map(bounds).unwrap_or_default();
        for reading in &mut self.sources {
            let behind: Vec<_> = reading
                .source
                .bounds()
                .filter_map(|(stream, now)| Some((stream.to_string(), now.next, *bound.get(&**stream)?)))
                .filter(|(_, now, bound)| *now < bound.next)
                .collect();
            for (stream, _, bound) in behind {
                reading.source.bind(&stream, bound);
            }
            reading.source.go_live();
        }
    }

    /// Takes in what was found out; says whether partitions began, which an epoch must bind.
    pub(crate) fn tend(&mut self) -> bool {
        self.sources.iter_mut().fold(false, |begun, reading| {
            reading.source.tend();
            reading.source.has_begun() || begun
        })
    }

    /// Takes at most so many records of a class. Gives how many.
    pub(crate) fn take(&mut self, class: Class, records: usize, bytes: &mut usize, out: &mut Vec<Record>) -> usize {
        let before = out.len();
        let count = self.sources.iter().filter(|reading| reading.source.has_class(class)).count();
        for reading in self.sources.iter_mut().filter(|reading| reading.source.has_class(class)) {
            let left = records.saturating_sub(out.len() - before);
            // A share for each, and the first ones do not take all.
            let share = records.div_ceil(count.max(1)).min(left);
            reading.source.take(class, share, bytes, &mut reading.messages);
            reading.drain(out);
        }
        out.len() - before
    }

    /// Whether some go before others: partitions are of more classes than that of what is sent to us.
    pub(crate) fn has_classes(&self) -> bool {
        let has = |class| self.sources.iter().any(|reading| reading.source.has_class(class));
        has(Class::High) || has(Class::Low)
    }

    /// The first class that is behind and has others after it.
    pub(crate) fn leading(&self) -> Option<Class> {
        let is_behind = |class: &Class| self.sources.iter().any(|reading| reading.source.is_behind(*class));
        [Class::High, Class::Normal].into_iter().find(is_behind).filter(|_| self.has_classes())
    }

    /// Looks for first records; gives the streams of which it is not known whether they have one.
    pub(crate) fn peek(&mut self) -> Vec<String> {
        self.sources.iter_mut().flat_map(|reading| reading.source.peek()).collect()
    }

    /// Takes the first records that were found.
    pub(crate) fn firsts(&mut self, out: &mut Vec<Record>) {
        for reading in &mut self.sources {
            reading.source.firsts(&mut reading.messages);
            reading.drain(out);
        }
    }

    /// Partitions that may have records which we did not read.
    pub(crate) fn unread(&mut self) -> Vec<Unread> {
        self.sources.iter_mut().flat_map(|reading| reading.source.unread()).collect()
    }

    /// Says which partitions nothing is taken from.
    pub(crate) fn pause(&mut self, is_ahead: &dyn Fn(&str, Class) -> bool) {
        self.sources.iter_mut().for_each(|reading| reading.source.pause(is_ahead));
    }

    /// What an epoch that is cut now binds.
    pub(crate) fn bind(&mut self, record: &mut EpochRecord) {
        let mut note = |stream: &str, bound: Bound| {
            record.ends.insert(stream.to_owned(), bound.next);
            if let Some(mark) = bound.mark {
                record.marks.insert(stream.to_owned(), mark);
            }
        };
        self.kept.iter().for_each(|(stream, bound)| note(stream, *bound));
        for reading in &mut self.sources {
            reading.source.bounds().for_each(|(stream, bound)| note(stream, bound));
            for (stream, next) in reading.source.begun() {
                record.starts.insert(stream.to_string(), next);
            }
        }
    }

    /// Somebody says where stopped partitions go on.
    pub(crate) fn resume(&mut self, body: &str) -> Result<()> {
        let resume: Resume = serde_json::from_str(body).context("a resumption in the control log is damaged")?;
        for reading in self.sources.iter_mut().filter(|reading| reading.source.name() == resume.source) {
            resume.offsets.iter().for_each(|(stream, next)| reading.source.resume(stream, *next));
        }
        Ok(())
    }

    /// Tells the clusters what is bound, where a group is named for that.
    pub(crate) fn commit(&self) {
        self.sources.iter().for_each(|reading| reading.source.commit());
    }

    /// How all partitions stand, each with its source and class.
    pub(crate) fn states(&self) -> Vec<(Arc<str>, Class, PartitionState)> {
        let of = |reading: &Reading| {
            let name = Arc::clone(&reading.shape.name);
            let states = reading.source.states().into_iter();
            states.map(move |state| (Arc::clone(&name), state.class, state)).collect::<Vec<_>>()
        };
        self.sources.iter().flat_map(of).collect()
    }
}

/// Whether some partition may have records that we cannot have: nothing follows from its silence. A topic that is not
/// there has none.
pub(crate) fn is_cut_off(states: &[(Arc<str>, Class, PartitionState)]) -> bool {
    states.iter().any(|(_, _, state)| ["waiting", "unreachable", "refused", "stopped"].contains(&state.state))
}

/// What an epoch's record binds of Kafka.
fn bounds(record: &EpochRecord) -> BTreeMap<String, Bound> {
    let of_kafka = record.ends.iter().filter(|(name, _)| name.starts_with(KAFKA_PREFIX));
    of_kafka.map(|(name, next)| (name.clone(), Bound { next: *next, mark: record.marks.get(name).copied() })).collect()
}

impl Reading {
    fn drain(&mut self, out: &mut Vec<Record>) {
        out.extend(self.messages.drain(..).map(|message| self.shape.record(message)));
    }
}

impl Shape {
    /// A message as a record: what it means is the decoder's matter, and the broker's time is its receipt, so that it is
    /// part of the record.
    fn record(&mut self, message: Message) -> Record {
        let framing = match (&message.value, self.format) {
            (None, _) => Framing::Unframed,
            // A schema registry's header: no text and no JSON begins with a zero.
            (Some(value), _) if value.first() == Some(&0) => Framing::Unframed,
            (Some(_), Format::Json) => Framing::Http,
            (Some(_), Format::Syslog) => Framing::Syslog,
            (Some(_), Format::Auto | Format::Text) => Framing::Record,
        };
        let received_at = Time::from_micros(message.timestamp_ms.unwrap_or(0).saturating_mul(1_000));
        let fits = |origin: &&Arc<Origin>| origin.received_at == received_at && origin.framing == framing;
        let origin = match self.origin.as_ref().filter(fits) {
            Some(origin) => Arc::clone(origin),
            None => {
                let (tenant, source) = (Tenant::default(), Arc::clone(&self.name));
                let origin = Arc::new(Origin { tenant, source, received_at, year: None, framing });
                self.origin = Some(Arc::clone(&origin));
                origin
            }
        };
        Record {
            origin,
            position: Position { origin: message.stream, offset: message.offset, line: 0, index: 0 },
            bytes: message.value.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn framing(value: Option<&'static [u8]>, format: Format) -> Framing {
        let mut shape = Shape { name: Arc::from("edge"), format, origin: None };
        let value = value.map(Bytes::from_static);
        let message = Message { stream: Arc::from("kafka:edge:t/0"), offset: 7, timestamp_ms: Some(1_500), value };
        let record = shape.record(message);
        assert_eq!((record.position.offset, record.origin.received_at), (7, Time::from_micros(1_500_000)));
        record.origin.framing
    }

    #[test]
    fn what_no_decoder_can_read_is_marked() {
        assert_eq!(framing(Some(b"{}"), Format::Json), Framing::Http);
        assert_eq!(framing(Some(b"<13>x"), Format::Syslog), Framing::Syslog);
        assert_eq!(framing(Some(b"x"), Format::Text), Framing::Record);
        assert_eq!(framing(None, Format::Json), Framing::Unframed);
        assert_eq!(framing(Some(b"\0\0\0\0\x01abc"), Format::Auto), Framing::Unframed);
    }

    #[test]
    fn silence_of_what_cannot_be_read_says_nothing() {
        let cut_off = |state| {
            let stream = "kafka:edge:t/0".to_owned();
            let (next, end, lag, says) = (None, None, None, None);
            let one = PartitionState {
                stream,
                state,
                next,
                end,
                lag,
                records: 0,
                bytes: 0,
                pauses: 0,
                says,
                class: Class::High,
            };
            is_cut_off(&[(Arc::from("edge"), Class::High, one)])
        };
        assert!(["waiting", "unreachable", "refused", "stopped"].into_iter().all(cut_off));
        assert!(!["reading", "topic_missing"].into_iter().any(cut_off) && !is_cut_off(&[]));
    }

    #[test]
    fn an_epoch_binds_partitions_and_their_marks() {
        let record: EpochRecord = serde_json::from_value(serde_json::json!({
            "epoch": 1, "wall": Time::from_micros(0), "generation": 1, "idle": [], "control": 0, "rules": "", "engine": "",
            "ends": {"spool": 3, "kafka:a:t/0": 5, "kafka:a:t/1": 0}, "marks": {"kafka:a:t/0": 9},
        }))
        .unwrap();
        let bounds = bounds(&record);
        assert_eq!(bounds.len(), 2);
        assert_eq!(bounds["kafka:a:t/0"], Bound { next: 5, mark: Some(9) });
        assert_eq!(bounds["kafka:a:t/1"], Bound { next: 0, mark: None });
    }
}
