//! The settings of a Kafka source, checked once.

use std::{collections::BTreeMap, path::PathBuf};

use rdkafka::ClientConfig;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Topics of one cluster as a source.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaSettings {
    /// Brokers to begin with, each HOST:PORT; the others are learned from them.
    pub brokers: Vec<String>,
    /// Topics, by their names. New partitions of theirs are picked up while running, from their beginning.
    pub topics: Vec<String>,
    /// What their values are: auto (looked at one by one), json, text (one line, of any known kind), syslog.
    pub format: Format,
    /// When we are behind: high, normal or low. High gets 16 of 20 parts, normal 3, low 1, and what others leave.
    pub class: Class,
    /// Classes of topics (`TOPIC`) and partitions (`TOPIC/NUMBER`) that are not of the source's class.
    pub classes: BTreeMap<String, Class>,
    /// Where a topic begins that was never read: earliest or latest. From then on the offsets bound in the ledger hold.
    pub start: Start,
    /// How to reach the brokers.
    pub security: SecuritySettings,
    /// Offsets are also committed to this group, after the ledger has them, for tools that show lag; they are never
    /// read back. Default: nothing is committed.
    pub group: Option<String>,
    /// How often partitions and ends of the topics are looked up, in seconds.
    pub discover_every_s: u32,
    /// Bytes fetched ahead of each partition. With P partitions about P times this and one fetch more is in memory.
    pub ahead_bytes_max: u32,
}

impl Default for KafkaSettings {
    fn default() -> KafkaSettings {
        KafkaSettings {
            brokers: Vec::new(),
            topics: Vec::new(),
            format: Format::Auto,
            class: Class::Normal,
            classes: BTreeMap::new(),
            start: Start::Earliest,
            security: SecuritySettings::default(),
            group: None,
            discover_every_s: 10,
            ahead_bytes_max: 2 << 20, // some thousand records: a tenth of a second at full rate
        }
    }
}

/// What the values of a topic are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Looked at one by one, as lines of a file are.
    #[default]
    Auto,
    /// JSON; anything else is rejected.
    Json,
    /// One line of text each.
    Text,
    /// One syslog message each.
    Syslog,
}

/// Who goes first when we are behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Sixteen of twenty parts.
    High,
    /// Three of twenty.
    #[default]
    Normal,
    /// One of twenty: the five percent that nobody falls below.
    Low,
}

impl Class {
    /// All, the first one first.
    pub const ALL: [Class; 3] = [Class::High, Class::Normal, Class::Low];

    /// Its parts of twenty when every class has more than we can take.
    #[must_use]
    pub const fn parts(self) -> usize {
        match self {
            Class::High => 16,
            Class::Normal => 3,
            Class::Low => 1,
        }
    }
}

/// Where a topic begins that was never read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// With the oldest record that is there.
    #[default]
    Earliest,
    /// With what comes from now on.
    Latest,
}

/// How to reach the brokers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SecuritySettings {
    /// Whether connections are TLS. The broker's certificate and name are checked.
    pub tls: bool,
    /// File with the certificates (PEM) of the authorities that are trusted. Default: the system's.
    pub ca: Option<PathBuf>,
    /// File with our certificate (PEM), if the brokers want one.
    pub certificate: Option<PathBuf>,
    /// File with its private key (PEM).
    pub key: Option<PathBuf>,
    /// Password of the key, if it has one: `${NAME}` from the environment, `${file:PATH}` from a file.
    pub key_password: Option<String>,
    /// Login, if the brokers want one.
    pub sasl: Option<SaslSettings>,
}

/// A login.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SaslSettings {
    /// How: plain, scram_sha_256 or scram_sha_512.
    pub mechanism: Mechanism,
    /// User.
    pub user: String,
    /// Password: `${NAME}` from the environment, `${file:PATH}` from a file.
    pub password: String,
}

/// How a login is proved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mechanism {
    /// The password itself: only sensible over TLS.
    #[default]
    Plain,
    /// Challenge and response with SHA-256.
    #[serde(rename = "scram_sha_256")]
    ScramSha256,
    /// Challenge and response with SHA-512.
    #[serde(rename = "scram_sha_512")]
    ScramSha512,
}

impl KafkaSettings {
    /// The class of a partition: its own, that of its topic, or the source's.
    #[must_use]
    pub fn class_of(&self, topic: &str, partition: i32) -> Class {
        let own = self.classes.get(&format!("{topic}/{partition}")).or_else(|| self.classes.get(topic));
        own.copied().unwrap_or(self.class)
    }

    /// What is wrong with them, in a sentence each.
    #[must_use]
    pub fn problems(&self, name: &str) -> Vec<String> {
        let mut problems = Vec::new();
        let mut say = |wrong: bool, what: String| {
            if wrong {
                problems.push(format!("sources.{name}.kafka.{what}"));
            }
        };
        wrong_brokers(&self.brokers).into_iter().for_each(|problem| say(true, problem));
        say(self.topics.is_empty(), "topics is empty; name at least one".to_owned());
        for topic in self.topics.iter().filter(|topic| !is_topic(topic)) {
            say(true, format!("topics: {topic:?} is no topic's name (1 to 249 letters, digits, `.`, `_`, `-`)"));
        }
        let mut sorted = self.topics.clone();
        sorted.sort();
        for pair in sorted.windows(2) {
            if let [one, other] = pair {
                say(one == other, format!("topics: {one:?} stands there twice"));
            }
        }
        say(!(1..=3_600).contains(&self.discover_every_s), "discover_every_s must lie between 1 and 3600".to_owned());
        let bytes = 64 << 10..=256 << 20;
        say(!bytes.contains(&self.ahead_bytes_max), "ahead_bytes_max must lie between 65536 and 268435456".to_owned());
        say(self.group.as_ref().is_some_and(String::is_empty), "group is empty".to_owned());
        for named in self.classes.keys() {
            let topic = match named.rsplit_once('/') {
                Some((topic, number)) if number.parse::<u32>().is_ok() => topic,
                _ => named.as_str(),
            };
            let known = self.topics.iter().any(|known| known == topic);
            say(!known, format!("classes: {named:?} is no TOPIC or TOPIC/NUMBER of these topics"));
        }
        self.security.wrong().into_iter().for_each(|problem| say(true, problem));
        problems
    }

    /// The client's configuration: nothing is committed, nothing reset, nothing made.
    pub(crate) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        let mut set = |key: &str, value: &str| {
            config.set(key, value);
        };
        set("bootstrap.servers", &self.brokers.join(","));
        set("client.id", "counterflow");
        set("group.id", self.group.as_deref().unwrap_or("counterflow"));
        set("enable.auto.commit", "false");
        set("enable.auto.offset.store", "false");
        // An offset that is not there is our matter.
        set("auto.offset.reset", "error");
        set("allow.auto.create.topics", "false");
        set("isolation.level", "read_committed");
        set("enable.partition.eof", "true");
        set("check.crcs", "true");
        set("topic.metadata.refresh.interval.ms", &(u64::from(self.discover_every_s) * 1_000).to_string());
        set("reconnect.backoff.max.ms", "2000");
        set("socket.keepalive.enable", "true");
        set("statistics.interval.ms", "2000");
        // Back-pressure: a queue per partition, and a full one is not fetched for.
        set("queued.min.messages", "20000");
        set("queued.max.messages.kbytes", &(self.ahead_bytes_max / 1_024).to_string());
        set("fetch.queue.backoff.ms", "5");
        set("fetch.message.max.bytes", "1048576");
        set("fetch.max.bytes", "16777216");
        self.security.set(&mut set);
        config
    }
}

/// What is wrong with addresses of brokers, in a sentence each.
pub(crate) fn wrong_brokers(brokers: &[String]) -> Vec<String> {
    let is_address = |broker: &&String| {
        broker.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0))
    };
    let mut wrong: Vec<String> = brokers
        .iter()
        .filter(|broker| !is_address(broker))
        .map(|broker| format!("brokers: {broker:?} is not HOST:PORT"))
        .collect();
    if brokers.is_empty() {
        wrong.push("brokers is empty; name at least one as HOST:PORT".to_owned());
    }
    wrong
}

impl SecuritySettings {
    /// What is wrong with them, in a sentence each.
    pub(crate) fn wrong(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut say = |is_wrong: bool, what: &str| wrong.extend(is_wrong.then(|| format!("security{what}")));
        let files = [&self.ca, &self.certificate, &self.key];
        let of_tls = ": ca, certificate and key have no meaning without `tls: true`";
        say(!self.tls && files.iter().any(|file| file.is_some()), of_tls);
        say(self.certificate.is_some() != self.key.is_some(), ": certificate and key belong together");
        if let Some(sasl) = &self.sasl {
            say(sasl.user.is_empty(), ".sasl.user is empty");
            say(sasl.password.is_empty(), ".sasl.password is empty");
        }
        wrong
    }

    /// Says them to the client.
    pub(crate) fn set(&self, set: &mut impl FnMut(&str, &str)) {
        let protocol = match (self.tls, self.sasl.is_some()) {
            (false, false) => "plaintext",
            (true, false) => "ssl",
            (false, true) => "sasl_plaintext",
            (true, true) => "sasl_ssl",
        };
        set("security.protocol", protocol);
        let files = [
            ("ssl.ca.location", &self.ca),
            ("ssl.certificate.location", &self.certificate),
            ("ssl.key.location", &self.key),
        ];
        for (key, file) in files {
            if let Some(file) = file {
                set(key, &file.to_string_lossy());
            }
        }
        if let Some(password) = &self.key_password {
            set("ssl.key.password", password);
        }
        if let Some(sasl) = &self.sasl {
            let mechanism = match sasl.mechanism {
                Mechanism::Plain => "PLAIN",
                Mechanism::ScramSha256 => "SCRAM-SHA-256",
                Mechanism::ScramSha512 => "SCRAM-SHA-512",
            };
            set("sasl.mechanism", mechanism);
            set("sasl.username", &sasl.user);
            set("sasl.password", &sasl.password);
        }
    }
}

pub(crate) fn is_topic(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=249).contains(&name.len()) && name.chars().all(fits) && name != "." && name != ".."
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> KafkaSettings {
        KafkaSettings {
            brokers: vec!["127.0.0.1:9092".into()],
            topics: vec!["logs".into()],
            ..KafkaSettings::default()
        }
    }

    #[track_caller]
    fn check(settings: &KafkaSettings, says: &str) {
        let problems = settings.problems("edge");
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with("sources.edge.kafka.") && problems[0].contains(says), "{problems:?}");
    }

    #[test]
    fn what_cannot_be_is_said() {
        assert_eq!(good().problems("edge"), Vec::<String>::new());
        check(&KafkaSettings { brokers: Vec::new(), ..good() }, "HOST:PORT");
        check(&KafkaSettings { brokers: vec!["host".into()], ..good() }, "\"host\"");
        check(&KafkaSettings { topics: vec!["a/b".into()], ..good() }, "\"a/b\"");
        check(&KafkaSettings { topics: vec!["a".into(), "b".into(), "a".into()], ..good() }, "twice");
        check(&KafkaSettings { ahead_bytes_max: 1, ..good() }, "65536");
        let security = SecuritySettings { ca: Some("ca.pem".into()), ..SecuritySettings::default() };
        check(&KafkaSettings { security, ..good() }, "tls: true");
        for named in ["log", "logs/x", "logs/-1", "other/0"] {
            let classes = BTreeMap::from([(named.to_owned(), Class::High)]);
            check(&KafkaSettings { classes, ..good() }, "is no TOPIC");
        }
        let sasl = Some(SaslSettings { user: "u".into(), ..SaslSettings::default() });
        check(&KafkaSettings { security: SecuritySettings { sasl, ..Default::default() }, ..good() }, "password");
    }

    #[test]
    fn a_partitions_class_goes_before_its_topics_and_that_before_the_sources() {
        let classes = [("logs", Class::Low), ("logs/7", Class::High)];
        let classes = classes.into_iter().map(|(name, class)| (name.to_owned(), class)).collect();
        let settings = KafkaSettings { classes, topics: vec!["logs".into(), "more".into()], ..good() };
        assert_eq!(settings.problems("edge"), Vec::<String>::new());
        let found = [("logs", 7), ("logs", 8), ("more", 7)].map(|(topic, number)| settings.class_of(topic, number));
        assert_eq!(found, [Class::High, Class::Low, Class::Normal]);
    }

    #[test]
    fn every_class_gets_a_twentieth_at_least() {
        let all: usize = Class::ALL.iter().map(|class| class.parts()).sum();
        assert!(Class::ALL.iter().all(|class| class.parts() * 20 >= all));
    }
}
