//! Records by key into topics: a batch is one transaction of an idempotent producer.
//!
//! In: records in order. Out: all of them in their topics, or an answer why not; a batch that failed is given again as a
//! whole. The producer of a sink has one transactional id: opening it anew ends what an earlier one left under way, so a
//! request that a dead engine sent can never be written behind a newer one's. Memory: one batch.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext,
    admin::{AdminClient, AdminOptions, ResourceSpecifier},
    client::DefaultClientContext,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext},
};

use crate::{
    ClientError, Finding,
    check::check,
    client::{Connection, Context, Shared, said},
    sink_settings::KafkaSinkSettings,
};

/// How long one step may take before it is looked whether we shall stop.
const STEP: Duration = Duration::from_secs(1);
/// How long reports are waited for in one go.
const REPORTS: Duration = Duration::from_millis(20);
/// How long trying a sink out may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long brokers may be silent before that is said. The client itself says nothing while it looks for a coordinator.
const SILENCE: Duration = Duration::from_secs(3);
/// How often an idle sink asks after brokers that were gone.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// A record on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Its topic.
    pub topic: Arc<str>,
    /// Its key: decides its partition, and what a compacted topic keeps.
    pub key: String,
    /// Its value; `None`: what was under this key is no more.
    pub value: Option<Vec<u8>>,
}

/// Why a batch is not in its topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotDelivered {
    /// We shall stop.
    Stopped,
    /// The brokers do not take these because of their length: places in the batch.
    TooLarge(Vec<usize>),
    /// A topic is not there, or we may not write it.
    Topic(String),
    /// Something else, in words; the same again may work.
    Failed(String),
}

/// A sink.
pub struct Sink {
    name: String,
    settings: KafkaSinkSettings,
    shared: Arc<Shared>,
    producer: Option<BaseProducer<Reports>>,
    asked: Instant,
}

/// The connection of a sink, seen from beside it.
#[derive(Clone)]
pub struct SinkWatch(Arc<Shared>);

impl SinkWatch {
    /// What is wrong with it, if something is: `unreachable` or `refused`, and what the client says.
    #[must_use]
    pub fn trouble(&self) -> Option<(&'static str, String)> {
        match self.0.connection() {
            Connection::Unreachable(why) => Some(("unreachable", why)),
            Connection::Refused(why) => Some(("refused", why)),
            Connection::Connecting | Connection::Connected => None,
        }
    }
}

/// What became of the records of a batch.
struct Reports {
    context: Context,
    done: Mutex<Vec<(usize, Option<KafkaError>)>>,
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.context.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.context.error(error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, place: usize) {
        let error = result.as_ref().err().map(|(error, _)| error.clone());
        self.done.lock().unwrap_or_else(PoisonError::into_inner).push((place, error));
    }
}

impl Reports {
    fn take(&self) -> Vec<(usize, Option<KafkaError>)> {
        std::mem::take(&mut *self.done.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Sink {
    /// For these settings; nothing is connected yet.
    ///
    /// # Errors
    /// The settings make no client.
    pub fn open(name: &str, settings: &KafkaSinkSettings) -> Result<Sink, ClientError> {
        let shared = Arc::default();
        let sink =
            Sink { name: name.to_owned(), settings: settings.clone(), shared, producer: None, asked: Instant::now() };
        // To see whether it can be made; it is opened when there is something to send.
        drop(sink.client()?);
        Ok(sink)
    }

    fn client(&self) -> Result<BaseProducer<Reports>, ClientError> {
        let context = Context { source: self.name.clone(), shared: Arc::clone(&self.shared) };
        let reports = Reports { context, done: Mutex::default() };
        let made = self.settings.client(&self.name).create_with_context(reports);
        made.map_err(|error: KafkaError| ClientError { source_name: self.name.clone(), says: said(&error) })
    }

    /// How its connection is, for others to look at.
    #[must_use]
    pub fn watch(&self) -> SinkWatch {
        SinkWatch(Arc::clone(&self.shared))
    }

    /// Hears what the client says while there is nothing to send.
    pub fn tend(&mut self) {
        let Some(producer) = &self.producer else { return };
        producer.poll(Duration::ZERO);
        if self.watch().trouble().is_some() && self.asked.elapsed() >= ASK_EVERY {
            self.asked = Instant::now();
            if producer.client().fetch_metadata(None, STEP).is_ok() {
                self.shared.connect(Connection::Connected);
            }
        }
    }

    /// Writes a batch, in order; returns when the brokers have all of it, or it is known that they have not.
    ///
    /// # Errors
    /// Why not. Nothing of the batch counts then for who reads committed records, and the same may be given again.
    pub fn deliver(&mut self, batch: &[Outgoing], is_over: &dyn Fn() -> bool) -> Result<(), NotDelivered> {
        let delivered = self.try_deliver(batch, is_over);
        match delivered {
            Ok(()) => {
                self.shared.connect(Connection::Connected);
            }
            // The next one ends what this one left open.
            Err(_) => self.producer = None,
        }
        delivered
    }

    fn try_deliver(&mut self, batch: &[Outgoing], is_over: &dyn Fn() -> bool) -> Result<(), NotDelivered> {
        let producer = match self.producer.take() {
            Some(producer) => producer,
            None => self.ready(is_over)?,
        };
        producer.begin_transaction().map_err(failed)?;
        let sent = send(&producer, batch, is_over)?;
        wait(&producer, sent, is_over)?;
        commit(&producer, is_over)?;
        self.producer = Some(producer);
        Ok(())
    }

    /// A producer that has fenced off the one before.
    fn ready(&self, is_over: &dyn Fn() -> bool) -> Result<BaseProducer<Reports>, NotDelivered> {
        let producer = self.client().map_err(|error| NotDelivered::Failed(error.says))?;
        let began = Instant::now();
        while let Err(error) = producer.init_transactions(STEP) {
            producer.poll(REPORTS);
            self.shared.silent_since(began);
            if is_over() {
                return Err(NotDelivered::Stopped);
            }
            if !may_go_on(&error) {
                return Err(failed(error));
            }
        }
        self.shared.connect(Connection::Connected);
        for topic in self.settings.topics.names() {
            let there = producer.client().fetch_metadata(Some(&topic), PATIENCE).map_err(failed)?;
            let found = there.topics().iter().find(|found| found.name() == topic);
            match found.and_then(|found| found.error()).map(RDKafkaErrorCode::from) {
                None | Some(RDKafkaErrorCode::NoError | RDKafkaErrorCode::LeaderNotAvailable) if found.is_some() => {}
                Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
                    return Err(NotDelivered::Topic(format!("topic {topic}: we may not write it")));
                }
                _ => return Err(NotDelivered::Topic(format!("topic {topic}: there is no such topic"))),
            }
        }
        Ok(producer)
    }
}

/// Gives the batch to the client; gives how many records it has taken.
fn send(
    producer: &BaseProducer<Reports>,
    batch: &[Outgoing],
    is_over: &dyn Fn() -> bool,
) -> Result<usize, NotDelivered> {
    let mut too_large = Vec::new();
    for (place, outgoing) in batch.iter().enumerate() {
        let mut record =
            BaseRecord::<str, [u8], usize>::with_opaque_to(&outgoing.topic, place).key(outgoing.key.as_str());
        record.payload = outgoing.value.as_deref();
        while let Err((error, again)) = producer.send(record) {
            match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::QueueFull) if is_over() => return Err(NotDelivered::Stopped),
                Some(RDKafkaErrorCode::QueueFull) => producer.poll(REPORTS),
                Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
                    too_large.push(place);
                    break;
                }
                _ => return Err(failed(error)),
            }
            record = again;
        }
    }
    if too_large.is_empty() { Ok(batch.len()) } else { Err(NotDelivered::TooLarge(too_large)) }
}

/// Waits until it is known of every record what became of it.
fn wait(producer: &BaseProducer<Reports>, count: usize, is_over: &dyn Fn() -> bool) -> Result<(), NotDelivered> {
    let mut reports: Vec<(usize, Option<KafkaError>)> = Vec::new();
    let mut heard = Instant::now();
    while reports.len() < count {
        producer.poll(REPORTS);
        let new = producer.context().take();
        if new.is_empty() {
            producer.context().context.shared.silent_since(heard);
        } else {
            heard = Instant::now();
        }
        reports.extend(new);
        if let Some((code, why)) = producer.client().fatal_error() {
            return Err(NotDelivered::Failed(format!("{code}: {why}")));
        }
        if is_over() {
            return Err(NotDelivered::Stopped);
        }
    }
    let is_large = |error: &KafkaError| error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge);
    let errors = || reports.iter().filter_map(|(place, error)| Some((*place, error.as_ref()?)));
    let mut too_large: Vec<usize> = errors().filter(|(_, error)| is_large(error)).map(|(place, _)| place).collect();
    if !too_large.is_empty() {
        too_large.sort_unstable();
        return Err(NotDelivered::TooLarge(too_large));
    }
    errors().next().map_or(Ok(()), |(_, error)| Err(failed(error.clone())))
}

fn commit(producer: &BaseProducer<Reports>, is_over: &dyn Fn() -> bool) -> Result<(), NotDelivered> {
    let began = Instant::now();
    while let Err(error) = producer.commit_transaction(STEP) {
        producer.poll(REPORTS);
        producer.context().context.shared.silent_since(began);
        if is_over() {
            return Err(NotDelivered::Stopped);
        }
        if !may_go_on(&error) {
            return Err(failed(error));
        }
    }
    Ok(())
}

impl Shared {
    /// Says that nobody answers, when that is so for long enough; what is said already says more.
    fn silent_since(&self, since: Instant) {
        if since.elapsed() < SILENCE || !matches!(self.connection(), Connection::Connecting | Connection::Connected) {
            return;
        }
        let why =
            self.last_error().unwrap_or_else(|| "no broker, or no coordinator for transactions, answers".to_owned());
        self.connect(Connection::Unreachable(why));
    }
}

/// Whether the same call may be repeated: it has only taken too long.
fn may_go_on(error: &KafkaError) -> bool {
    matches!(error, KafkaError::Transaction(error) if error.is_retriable())
}

fn failed(error: KafkaError) -> NotDelivered {
    match error.rdkafka_error_code() {
        Some(
            RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownPartition
            | RDKafkaErrorCode::TopicAuthorizationFailed,
        ) => NotDelivered::Topic(said(&error)),
        _ => NotDelivered::Failed(match &error {
            KafkaError::Transaction(error) => error.to_string(),
            other => said(other),
        }),
    }
}

/// Tries a sink out: what a source's check tries, and whether topics are compacted and transactions are to be had.
#[must_use]
pub fn check_sink(name: &str, settings: &KafkaSinkSettings) -> Vec<Finding> {
    let mut findings = check(name, &settings.as_source());
    if findings.iter().any(|finding| !finding.ok && finding.what == "brokers") {
        return findings;
    }
    let policies = policies(settings);
    for finding in &mut findings {
        let Some(topic) = finding.what.strip_prefix("topic ").filter(|_| finding.ok) else { continue };
        let policy = policies.iter().find(|(name, _)| name == topic).map_or("unknown", |(_, policy)| policy.as_str());
        let hint = if policy.contains("compact") { "" } else { "; only a compacted topic holds the current state" };
        finding.says.push_str(&format!(", cleanup.policy {policy}{hint}"));
    }
    let mut tried = |ok: bool, says: String| findings.push(Finding { what: "transactions".to_owned(), ok, says });
    // Under a name of its own: trying it must not fence off a running engine.
    match Sink::open(&format!("{name}-check"), settings) {
        Err(error) => tried(false, error.says),
        Ok(sink) => {
            let began = Instant::now();
            match sink.ready(&|| began.elapsed() >= PATIENCE || sink.watch().trouble().is_some()) {
                Ok(_) | Err(NotDelivered::Topic(_)) => tried(true, "a transactional id was given".to_owned()),
                Err(NotDelivered::Failed(why)) => tried(false, why),
                Err(_) => tried(
                    false,
                    sink.watch().trouble().map_or_else(
                        || {
                            "no coordinator answers; has the cluster brokers enough for \
                            transaction.state.log.replication.factor?"
                                .to_owned()
                        },
                        |(_, why)| why,
                    ),
                ),
            }
        }
    }
    findings
}

/// `cleanup.policy` of each topic, as far as we may know it.
fn policies(settings: &KafkaSinkSettings) -> Vec<(String, String)> {
    let mut config = settings.client("policies");
    for of_producers in ["enable.idempotence", "transactional.id", "transaction.timeout.ms"] {
        config.remove(of_producers);
    }
    let Ok(admin) = config.create::<AdminClient<DefaultClientContext>>() else { return Vec::new() };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return Vec::new() };
    let topics = settings.topics.names();
    let asked: Vec<ResourceSpecifier<'_>> = topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
    let options = AdminOptions::new().request_timeout(Some(PATIENCE));
    let answers = runtime.block_on(admin.describe_configs(&asked, &options)).unwrap_or_default();
    let policy = |answer: rdkafka::admin::ConfigResourceResult| {
        let answer = answer.ok()?;
        answer.get("cleanup.policy")?.value.clone()
    };
    topics.into_iter().zip(answers).filter_map(|(topic, answer)| Some((topic, policy(answer)?))).collect()
}
