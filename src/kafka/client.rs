//! The client: what it says of its connection, kept for who asks.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rdkafka::{
    ClientConfig, ClientContext,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
};
use serde::Deserialize;

use crate::{ClientError, settings::KafkaSettings};

/// A consumer of ours.
pub(crate) type Consumer = BaseConsumer<Context>;

/// How the connection to the cluster is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Connection {
    #[default]
    Connecting,
    Connected,
    /// No broker answers; it is tried for ever.
    Unreachable(String),
    /// Login or certificate is not taken; it is tried for ever, for that may change.
    Refused(String),
}

/// What the client's threads say, for the source and who asks after it.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    connection: Connection,
    last_error: Option<String>,
    /// Ends of the partitions' logs, as fetches told them.
    ends: BTreeMap<(String, i32), u64>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn connection(&self) -> Connection {
        self.lock().connection.clone()
    }

    /// Notes how the connection is; says whether that is new.
    pub(crate) fn connect(&self, connection: Connection) -> bool {
        let mut inner = self.lock();
        let is_new = inner.connection != connection;
        inner.connection = connection;
        is_new
    }

    pub(crate) fn last_error(&self) -> Option<String> {
        self.lock().last_error.clone()
    }

    pub(crate) fn failed(&self, why: impl Into<String>) {
        self.lock().last_error = Some(why.into());
    }

    pub(crate) fn end(&self, topic: &str, partition: i32) -> Option<u64> {
        self.lock().ends.get(&(topic.to_owned(), partition)).copied()
    }

    pub(crate) fn ends_at(&self, topic: &str, partition: i32, end: u64) {
        self.lock().ends.insert((topic.to_owned(), partition), end);
    }
}

/// Receives what the client says.
pub(crate) struct Context {
    pub(crate) source: String,
    pub(crate) shared: Arc<Shared>,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // Errors come by `error` as well, once; the client repeats itself here.
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(source = self.source, facility, message, "kafka client");
            }
            _ => tracing::debug!(source = self.source, facility, message, "kafka client"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code();
        if code == Some(RDKafkaErrorCode::PartitionEOF) {
            return; // no error
        }
        self.shared.failed(reason);
        let connection = match code {
            Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed) => {
                Connection::Refused(reason.to_owned())
            }
            Some(RDKafkaErrorCode::SSL) => Connection::Refused(reason.to_owned()),
            Some(RDKafkaErrorCode::AllBrokersDown) => match self.shared.connection() {
                // What was said before says more.
                refused @ Connection::Refused(_) => refused,
                _ => Connection::Unreachable(reason.to_owned()),
            },
            _ => {
                tracing::debug!(source = self.source, reason, "kafka client");
                return;
            }
        };
        if self.shared.connect(connection.clone()) {
            match connection {
                Connection::Refused(_) => tracing::error!(source = self.source, reason, "a cluster refuses us"),
                _ => tracing::warn!(source = self.source, reason, "no broker can be reached; trying on"),
            }
        }
    }

    fn stats_raw(&self, statistics: &[u8]) {
        let Ok(Statistics { topics }) = serde_json::from_slice(statistics) else { return };
        let mut inner = self.shared.lock();
        for (topic, Topic { partitions }) in topics {
            for partition in partitions.into_values().filter(|partition| partition.partition >= 0) {
                if let Ok(end) = u64::try_from(partition.hi_offset) {
                    inner.ends.insert((topic.clone(), partition.partition), end);
                }
            }
        }
    }
}

impl ConsumerContext for Context {}

/// What we want of the client's statistics.
#[derive(Deserialize)]
struct Statistics {
    #[serde(default)]
    topics: BTreeMap<String, Topic>,
}

#[derive(Deserialize)]
struct Topic {
    #[serde(default)]
    partitions: BTreeMap<String, Ends>,
}

#[derive(Deserialize)]
struct Ends {
    partition: i32,
    #[serde(default)]
    hi_offset: i64,
}

/// Makes a consumer. It does not connect before it is asked something.
pub(crate) fn consumer(name: &str, settings: &KafkaSettings) -> Result<(Consumer, Arc<Shared>), ClientError> {
    let shared = Arc::<Shared>::default();
    let context = Context { source: name.to_owned(), shared: Arc::clone(&shared) };
    let config: ClientConfig = settings.client();
    let consumer = config
        .create_with_context(context)
        .map_err(|error: KafkaError| ClientError { source_name: name.to_owned(), says: said(&error) })?;
    Ok((consumer, shared))
}

/// An error in the client's words, without its wrapping.
pub(crate) fn said(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientCreation(text) => text.clone(),
        KafkaError::ClientConfig(_, text, key, _) => format!("{key}: {text}"),
        other => other.rdkafka_error_code().map_or_else(|| other.to_string(), |code| code.to_string()),
    }
}
