//! Trying a source out: its address, login, certificate, topics; and where its partitions would go on.

use std::time::{Duration, Instant};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::Consumer as _,
    error::{KafkaError, RDKafkaErrorCode},
};
use serde::Serialize;

use crate::{
    client::{self, Connection, Consumer, said},
    settings::KafkaSettings,
    source::stream,
};

/// How long a broker is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// What was tried, and how it went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was tried: `certificates`, `brokers`, `topic NAME`.
    pub what: String,
    /// Whether it is as it should be.
    pub ok: bool,
    /// What was found.
    pub says: String,
}

/// Where to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At the oldest record that is there.
    Earliest,
    /// At the end.
    Latest,
    /// At this offset.
    Offset(u64),
    /// At the first record of this time (in milliseconds since 1970) or later.
    TimeMs(i64),
}

/// A partition and where it goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Resolved {
    /// `kafka:SOURCE:TOPIC/PARTITION`.
    pub stream: String,
    /// The next offset to read.
    pub next: u64,
}

/// Tries a source out.
#[must_use]
pub fn check(name: &str, settings: &KafkaSettings) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut found = |what: &str, ok: bool, says: String| findings.push(Finding { what: what.to_owned(), ok, says });
    let security = &settings.security;
    for file in [&security.ca, &security.certificate, &security.key].into_iter().flatten() {
        if let Err(error) = std::fs::read(file) {
            found("certificates", false, format!("could not read {}: {error}", file.display()));
        }
    }
    let (consumer, shared) = match client::consumer(name, settings) {
        Ok(made) => made,
        Err(error) => {
            found("settings", false, error.says);
            return findings;
        }
    };
    let asked = ask(&consumer, settings);
    match asked {
        Err(error) => {
            let why = match shared.connection() {
                Connection::Refused(why) => format!("refused: {why}"),
                Connection::Unreachable(why) => format!("not reachable: {why}"),
                _ => shared.last_error().unwrap_or_else(|| said(&error)),
            };
            found("brokers", false, why);
        }
        Ok(topics) => {
            found("brokers", true, format!("{} answered", settings.brokers.join(", ")));
            for (topic, (ok, says)) in topics {
                found(&format!("topic {topic}"), ok, says);
            }
        }
    }
    findings
}

/// Asks after every topic; the client's errors are served meanwhile.
fn ask(consumer: &Consumer, settings: &KafkaSettings) -> Result<Vec<(String, (bool, String))>, KafkaError> {
    let mut topics = Vec::new();
    for topic in &settings.topics {
        let metadata = patiently(consumer, || consumer.fetch_metadata(Some(topic), Duration::from_secs(1)))?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let code = found.and_then(|found| found.error()).map(RDKafkaErrorCode::from);
        let answer = match (found, code) {
            (Some(found), None | Some(RDKafkaErrorCode::NoError)) => {
                let leaderless = found.partitions().iter().filter(|partition| partition.leader() < 0).count();
                let count = found.partitions().len();
                (leaderless == 0, format!("{count} partitions, {leaderless} without a leader"))
            }
            (_, Some(RDKafkaErrorCode::UnknownTopicOrPartition)) | (None, _) => {
                (false, "there is no such topic".to_owned())
            }
            (_, Some(RDKafkaErrorCode::TopicAuthorizationFailed)) => (false, "we may not read it".to_owned()),
            (_, Some(code)) => (false, code.to_string()),
        };
        topics.push((topic.clone(), answer));
    }
    Ok(topics)
}

/// Tries again until it works, or it has taken too long.
fn patiently<T>(consumer: &Consumer, mut attempt: impl FnMut() -> Result<T, KafkaError>) -> Result<T, KafkaError> {
    let began = Instant::now();
    loop {
        let error = match attempt() {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        // The client says here what is wrong with the connection.
        while consumer.poll(Duration::from_millis(20)).is_some() {}
        let refused = matches!(consumer.context().shared.connection(), Connection::Refused(_));
        if refused || began.elapsed() >= PATIENCE {
            return Err(error);
        }
    }
}

/// Where all partitions of a source would go on from.
///
/// # Errors
/// The brokers do not answer, refuse us, or have no such topic: in words.
pub fn resolve(name: &str, settings: &KafkaSettings, place: Place) -> Result<Vec<Resolved>, String> {
    let (consumer, shared) = client::consumer(name, settings).map_err(|error| error.to_string())?;
    let explain = |error: KafkaError| match shared.connection() {
        Connection::Refused(why) | Connection::Unreachable(why) => why,
        _ => said(&error),
    };
    let mut resolved = Vec::new();
    for topic in &settings.topics {
        let attempt = || consumer.fetch_metadata(Some(topic), Duration::from_secs(1));
        let metadata = patiently(&consumer, attempt).map_err(explain)?;
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { continue };
        for partition in found.partitions() {
            let number = partition.id();
            let attempt = || consumer.fetch_watermarks(topic, number, Duration::from_secs(1));
            let (low, high) = patiently(&consumer, attempt).map_err(explain)?;
            let (low, high) = (u64::try_from(low).unwrap_or(0), u64::try_from(high).unwrap_or(0));
            let next = match place {
                Place::Earliest => low,
                Place::Latest => high,
                Place::Offset(offset) if (low..=high).contains(&offset) => offset,
                Place::Offset(offset) => {
                    let has = format!("it has {low} up to {high}");
                    return Err(format!("{topic}/{number} has no offset {offset}: {has}"));
                }
                Place::TimeMs(time_ms) => at_time(&consumer, topic, number, time_ms).map_err(explain)?.unwrap_or(high),
            };
            resolved.push(Resolved { stream: stream(name, topic, number), next });
        }
    }
    Ok(resolved)
}

/// The first offset of a time or later; `None` if there is none.
fn at_time(consumer: &Consumer, topic: &str, number: i32, time_ms: i64) -> Result<Option<u64>, KafkaError> {
    let mut times = TopicPartitionList::new();
    times.add_partition_offset(topic, number, Offset::Offset(time_ms))?;
    let found = consumer.offsets_for_times(times, PATIENCE)?;
    let offset = found.elements().first().map(rdkafka::topic_partition_list::TopicPartitionListElem::offset);
    Ok(match offset {
        Some(Offset::Offset(offset)) => u64::try_from(offset).ok(),
        _ => None,
    })
}
