//! The settings of a Kafka sink, checked once.

use rdkafka::ClientConfig;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::settings::{KafkaSettings, SecuritySettings, is_topic, wrong_brokers};

/// Topics of one cluster as a sink.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaSinkSettings {
    /// Brokers to begin with, each HOST:PORT; the others are learned from them.
    pub brokers: Vec<String>,
    /// Where what goes.
    pub topics: SinkTopics,
    /// How records are compressed: none, gzip, snappy, lz4 or zstd.
    pub compression: Compression,
    /// Bytes of the longest record. Of a longer one only what identifies it is sent, and a reject is noted. At most what
    /// the topics take (`max.message.bytes`).
    pub record_bytes_max: u32,
    /// How to reach the brokers.
    pub security: SecuritySettings,
}

impl Default for KafkaSinkSettings {
    fn default() -> KafkaSinkSettings {
        KafkaSinkSettings {
            brokers: Vec::new(),
            topics: SinkTopics::default(),
            compression: Compression::Zstd,
            record_bytes_max: 1_000_000, // a broker's default takes 1 MiB with its framing
            security: SecuritySettings::default(),
        }
    }
}

/// Topics of a sink. They are not made by us; compacted ones (`cleanup.policy=compact`) hold the current state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SinkTopics {
    /// For alerts; key is the alert's id. Default: they are not sent.
    pub alerts: Option<String>,
    /// For incidents; key is the incident's number.
    pub incidents: Option<String>,
    /// For actions; key is the number of the application.
    pub actions: Option<String>,
}

impl SinkTopics {
    /// Those that are named, each once, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            [&self.alerts, &self.incidents, &self.actions].into_iter().flatten().cloned().collect();
        names.sort();
        names.dedup();
        names
    }
}

/// How records are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// Not at all.
    None,
    /// By gzip.
    Gzip,
    /// By snappy.
    Snappy,
    /// By lz4.
    Lz4,
    /// By zstd.
    #[default]
    Zstd,
}

impl KafkaSinkSettings {
    /// What is wrong with them, in a sentence each.
    #[must_use]
    pub fn problems(&self, name: &str) -> Vec<String> {
        let mut wrong = wrong_brokers(&self.brokers);
        let topics = [&self.topics.alerts, &self.topics.incidents, &self.topics.actions];
        let named: Vec<&String> = topics.into_iter().flatten().collect();
        if named.is_empty() {
            wrong.push("topics is empty; name one for alerts, incidents or actions".to_owned());
        }
        for topic in named.iter().filter(|topic| !is_topic(topic)) {
            wrong.push(format!("topics: {topic:?} is no topic's name (1 to 249 letters, digits, `.`, `_`, `-`)"));
        }
        if self.topics.names().len() < named.len() {
            wrong.push(
                "topics: each kind wants a topic of its own, for incidents and actions have the same keys".to_owned(),
            );
        }
        if !(512..=64 << 20).contains(&self.record_bytes_max) {
            wrong.push("record_bytes_max must lie between 512 and 67108864".to_owned());
        }
        wrong.extend(self.security.wrong());
        wrong.into_iter().map(|problem| format!("sinks.{name}.kafka.{problem}")).collect()
    }

    /// As a source of the same topics: for trying them out.
    pub(crate) fn as_source(&self) -> KafkaSettings {
        KafkaSettings {
            brokers: self.brokers.clone(),
            topics: self.topics.names(),
            security: self.security.clone(),
            ..KafkaSettings::default()
        }
    }

    /// The client's configuration.
    pub(crate) fn client(&self, name: &str) -> ClientConfig {
        let mut config = ClientConfig::new();
        let mut set = |key: &str, value: &str| {
            config.set(key, value);
        };
        set("bootstrap.servers", &self.brokers.join(","));
        set("client.id", "counterflow");
        set("enable.idempotence", "true");
        // Fences off what an earlier run of this sink has under way. With the topics in it, two engines that name their
        // sinks alike and write elsewhere do not fence off each other.
        set("transactional.id", &format!("counterflow-{name}-{}", self.topics.names().join("-")));
        set("transaction.timeout.ms", "60000");
        set("message.timeout.ms", "60000");
        // As the clients in Java do: others who write by the same keys meet the same partitions.
        set("partitioner", "murmur2_random");
        set(
            "compression.type",
            match self.compression {
                Compression::None => "none",
                Compression::Gzip => "gzip",
                Compression::Snappy => "snappy",
                Compression::Lz4 => "lz4",
                Compression::Zstd => "zstd",
            },
        );
        // What a message may weigh is looked at before; the client counts its framing, too.
        set("message.max.bytes", &(self.record_bytes_max.saturating_add(64 << 10)).to_string());
        set("queue.buffering.max.messages", "20000");
        set("queue.buffering.max.kbytes", "262144");
        set("topic.metadata.propagation.max.ms", "5000");
        set("reconnect.backoff.max.ms", "2000");
        set("socket.keepalive.enable", "true");
        self.security.set(&mut set);
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> KafkaSinkSettings {
        let topics = SinkTopics { alerts: Some("alerts".into()), ..SinkTopics::default() };
        KafkaSinkSettings { brokers: vec!["127.0.0.1:9092".into()], topics, ..KafkaSinkSettings::default() }
    }

    #[track_caller]
    fn check(settings: &KafkaSinkSettings, says: &str) {
        let problems = settings.problems("out");
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with("sinks.out.kafka.") && problems[0].contains(says), "{problems:?}");
    }

    #[test]
    fn what_cannot_be_is_said() {
        let topics = |alerts: &str, incidents: &str| SinkTopics {
            alerts: Some(alerts.into()),
            incidents: Some(incidents.into()),
            actions: None,
        };
        assert_eq!(good().problems("out"), Vec::<String>::new());
        check(&KafkaSinkSettings { topics: SinkTopics::default(), ..good() }, "topics is empty");
        check(&KafkaSinkSettings { topics: topics("a b", "c"), ..good() }, "\"a b\"");
        check(&KafkaSinkSettings { topics: topics("same", "same"), ..good() }, "of its own");
        check(&KafkaSinkSettings { record_bytes_max: 1, ..good() }, "512");
        check(&KafkaSinkSettings { brokers: vec!["host".into()], ..good() }, "HOST:PORT");
    }
}
