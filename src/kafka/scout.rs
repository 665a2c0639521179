//! A thread per cluster that asks what there is: partitions, where their logs begin and end. It also serves the client's
//! own messages (errors, statistics), so that a broker that does not answer stops nobody who reads.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    consumer::Consumer as _,
    error::{KafkaError, RDKafkaErrorCode},
};

use crate::{
    client::{Connection, Consumer, Shared, said},
    settings::KafkaSettings,
};

/// How long one answer of a broker is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often partitions are asked for that wait for an answer.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// What it found.
#[derive(Clone, Debug)]
pub(crate) enum News {
    /// A partition's log has records from `low` up to, without, `high`.
    Found { topic: String, partition: i32, low: u64, high: u64 },
    /// There is no such topic.
    Missing { topic: String },
}

/// Partitions that somebody wants to know of again.
pub(crate) type Asked = Arc<Mutex<BTreeSet<(String, i32)>>>;

pub(crate) struct Scout {
    pub(crate) name: String,
    pub(crate) settings: KafkaSettings,
    pub(crate) consumer: Arc<Consumer>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) asked: Asked,
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) news: mpsc::Sender<News>,
}

impl Scout {
    pub(crate) fn start(self) -> std::io::Result<thread::JoinHandle<()>> {
        thread::Builder::new().name(format!("kafka {}", self.name)).spawn(move || self.run())
    }

    fn run(self) {
        let every = Duration::from_secs(u64::from(self.settings.discover_every_s));
        let mut known: BTreeSet<(String, i32)> = BTreeSet::new();
        let mut looked: Option<Instant> = None;
        while !self.stop.load(Ordering::Acquire) {
            // Partitions have queues of their own: what comes here are the client's words.
            if let Some(Ok(message)) = self.consumer.poll(Duration::from_millis(100)) {
                use rdkafka::Message as _;
                let (topic, partition, offset) = (message.topic(), message.partition(), message.offset());
                tracing::error!(topic, partition, offset, "a record came where none may; its partition is read anew");
                self.ask(topic, partition);
            }
            let asked = std::mem::take(&mut *self.asked.lock().unwrap_or_else(PoisonError::into_inner));
            for key in &asked {
                known.remove(key);
            }
            let due = looked.is_none_or(|at| at.elapsed() >= every)
                || (!asked.is_empty() && looked.is_none_or(|at| at.elapsed() >= ASK_EVERY))
                || (known.is_empty() && looked.is_none_or(|at| at.elapsed() >= ASK_EVERY));
            if !due {
                // Not forgotten: asked again with the next look.
                self.asked.lock().unwrap_or_else(PoisonError::into_inner).extend(asked);
                continue;
            }
            looked = Some(Instant::now());
            for topic in &self.settings.topics {
                if let Err(error) = self.look(topic, &mut known) {
                    self.say(&error);
                    break;
                }
            }
        }
    }

    fn ask(&self, topic: &str, partition: i32) {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).insert((topic.to_owned(), partition));
    }

    /// Looks after one topic.
    fn look(&self, topic: &str, known: &mut BTreeSet<(String, i32)>) -> Result<(), KafkaError> {
        let metadata = self.consumer.fetch_metadata(Some(topic), PATIENCE)?;
        if self.shared.connect(Connection::Connected) {
            tracing::info!(source = self.name, "connected to the cluster");
        }
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(()) };
        match found.error().map(RDKafkaErrorCode::from) {
            None | Some(RDKafkaErrorCode::NoError) => {}
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                known.retain(|(name, _)| name != topic);
                self.tell(News::Missing { topic: topic.to_owned() });
                return Ok(());
            }
            Some(code) => {
                self.shared.failed(format!("topic {topic}: {code}"));
                return Ok(());
            }
        }
        let partitions: Vec<i32> = found.partitions().iter().map(|partition| partition.id()).collect();
        for partition in partitions {
            if known.contains(&(topic.to_owned(), partition)) {
                continue;
            }
            match self.consumer.fetch_watermarks(topic, partition, PATIENCE) {
                Ok((low, high)) => {
                    let (low, high) = (u64::try_from(low).unwrap_or(0), u64::try_from(high).unwrap_or(0));
                    self.shared.ends_at(topic, partition, high);
                    known.insert((topic.to_owned(), partition));
                    self.tell(News::Found { topic: topic.to_owned(), partition, low, high });
                }
                // Without a leader at the moment, made this moment: the next look finds it.
                Err(error) => {
                    self.shared.failed(format!("partition {topic}/{partition}: {}", said(&error)));
                    self.ask(topic, partition);
                }
            }
        }
        Ok(())
    }

    fn tell(&self, news: News) {
        // Whoever listens may be gone; then the stop comes.
        drop(self.news.send(news));
    }

    fn say(&self, error: &KafkaError) {
        let why = said(error);
        if matches!(self.shared.connection(), Connection::Refused(_)) {
            return; // that says more
        }
        if self.shared.connect(Connection::Unreachable(why.clone())) {
            tracing::warn!(source = self.name, why, "the cluster does not answer; trying on");
        }
    }
}
