//! A real Kafka broker by `scripts/kafka`: one for all tests that do not harm it, own ones for those that do.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    producer::{BaseProducer, BaseRecord, Producer as _},
};

use crate::support::root;

/// A broker on 127.0.0.1.
pub(crate) struct Broker {
    dir: PathBuf,
    port: u16,
    _folder: tempfile::TempDir,
}

fn script() -> Command {
    let mut command = Command::new(root().join("scripts/kafka"));
    command.env("COUNTERFLOW_KAFKA_SECURE", "1").env("COUNTERFLOW_KAFKA_UNTIL", std::process::id().to_string());
    command.stdin(Stdio::null());
    command
}

/// Five ports in a row that nobody uses at the moment.
fn free_ports() -> u16 {
    let taken = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_err();
    // Several brokers of one process, and processes beside each other, look in other places.
    static BROKERS: AtomicU16 = AtomicU16::new(0);
    let first =
        u16::try_from(std::process::id() % 10_000).unwrap() + 20_000 + BROKERS.fetch_add(1_009, Ordering::Relaxed);
    (first..u16::MAX - 5).step_by(7).find(|port| !(*port..port + 5).any(taken)).unwrap()
}

/// Why there can be no broker here, said; or nothing.
fn cannot() -> bool {
    let can = script().arg("can-run").output().unwrap();
    if !can.status.success() {
        eprintln!("skipped: Kafka: {}", String::from_utf8_lossy(&can.stdout).trim());
    }
    !can.status.success()
}

impl Broker {
    /// One that tests share; each uses topics of its own.
    pub(crate) fn shared() -> Option<&'static Broker> {
        static SHARED: OnceLock<Option<Broker>> = OnceLock::new();
        SHARED.get_or_init(Broker::own).as_ref()
    }

    /// One that may be harmed. `None` where there can be none.
    pub(crate) fn own() -> Option<Broker> {
        if cannot() {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let broker = Broker { dir: folder.path().join("broker"), port: free_ports(), _folder: folder };
        broker.start();
        Some(broker)
    }

    pub(crate) fn start(&self) {
        let done = script().arg("start").arg(&self.dir).arg(self.port.to_string()).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    /// SIGKILL.
    pub(crate) fn kill(&self) {
        assert!(script().arg("kill9").arg(&self.dir).status().unwrap().success());
    }

    /// Its address: 0 without login, 2 with login, 3 with TLS, 4 with both.
    pub(crate) fn address(&self, way: u16) -> String {
        format!("127.0.0.1:{}", self.port + way)
    }

    pub(crate) fn tls(&self) -> PathBuf {
        self.dir.join("tls")
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.address(0)).set("message.timeout.ms", "120000");
        config
    }

    fn admin<T>(&self, work: impl AsyncFnOnce(AdminClient<DefaultClientContext>, AdminOptions) -> T) -> T {
        let admin: AdminClient<_> = self.config().create().unwrap();
        let patience = Some(Duration::from_secs(60));
        let options = AdminOptions::new().request_timeout(patience).operation_timeout(patience);
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work(admin, options))
    }

    /// Makes a topic; one that was deleted a moment ago is waited for.
    pub(crate) fn create(&self, topic: &str, partitions: i32) {
        self.create_with(topic, partitions, &[]);
    }

    /// The same with settings of the topic.
    pub(crate) fn create_with(&self, topic: &str, partitions: i32, settings: &[(&str, &str)]) {
        for _ in 0..100 {
            let made = self.admin(async |admin, options| {
                let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
                let new = settings.iter().fold(new, |new, (key, value)| new.set(key, value));
                admin.create_topics([&new], &options).await.unwrap()
            });
            match &made[0] {
                Ok(_) => return,
                Err((_, rdkafka::types::RDKafkaErrorCode::TopicAlreadyExists)) => {
                    std::thread::sleep(Duration::from_millis(100));
                }
                Err(error) => panic!("{error:?}"),
            }
        }
        panic!("{topic} cannot be made");
    }

    pub(crate) fn delete(&self, topic: &str) {
        let done = self.admin(async |admin, options| admin.delete_topics(&[topic], &options).await.unwrap());
        assert!(done[0].is_ok(), "{done:?}");
    }

    pub(crate) fn grow(&self, topic: &str, partitions: usize) {
        let done = self.admin(async |admin, options| {
            admin.create_partitions([&NewPartitions::new(topic, partitions)], &options).await.unwrap()
        });
        assert!(done[0].is_ok(), "{done:?}");
    }

    /// Deletes the records before an offset, as retention does.
    pub(crate) fn forget_before(&self, topic: &str, partition: i32, offset: i64) {
        self.admin(async |admin, options| {
            let mut list = rdkafka::TopicPartitionList::new();
            list.add_partition_offset(topic, partition, rdkafka::Offset::Offset(offset)).unwrap();
            admin.delete_records(&list, &options).await.unwrap()
        });
    }

    /// Writes values, in turn to all partitions, and waits until the broker has them.
    pub(crate) fn produce<'a>(&self, topic: &str, partitions: i32, values: impl IntoIterator<Item = &'a str>) {
        self.produce_with(&[], topic, partitions, values.into_iter().map(|value| Some(value.as_bytes())));
    }

    /// The same with settings of the producer (`compression.type`), and with values that are no text or not there.
    pub(crate) fn produce_with<'a>(
        &self,
        settings: &[(&str, &str)],
        topic: &str,
        partitions: i32,
        values: impl IntoIterator<Item = Option<&'a [u8]>>,
    ) {
        let mut config = self.config();
        for (key, value) in settings {
            config.set(*key, *value);
        }
        let producer: BaseProducer = config.create().unwrap();
        for (index, value) in values.into_iter().enumerate() {
            let partition = i32::try_from(index).unwrap() % partitions;
            let mut record = BaseRecord::<[u8], [u8]>::to(topic).partition(partition);
            record.payload = value;
            while let Err((error, again)) = producer.send(record) {
                assert_eq!(error.rdkafka_error_code(), Some(rdkafka::types::RDKafkaErrorCode::QueueFull), "{error}");
                producer.poll(Duration::from_millis(10));
                record = again;
            }
        }
        producer.flush(Duration::from_secs(120)).unwrap();
    }

    /// Writes values, each to its partition.
    pub(crate) fn produce_by(&self, topic: &str, values: impl IntoIterator<Item = (i32, Vec<u8>)>) {
        let producer: BaseProducer = self.config().create().unwrap();
        for (partition, value) in values {
            let mut record = BaseRecord::<[u8], [u8]>::to(topic).partition(partition).payload(&value);
            while let Err((error, again)) = producer.send(record) {
                assert_eq!(error.rdkafka_error_code(), Some(rdkafka::types::RDKafkaErrorCode::QueueFull), "{error}");
                producer.poll(Duration::from_millis(10));
                record = again;
            }
        }
        producer.flush(Duration::from_secs(120)).unwrap();
    }

    /// Writes values in one transaction, and commits or aborts it.
    pub(crate) fn transact(&self, topic: &str, partition: i32, values: &[&str], commit: bool) {
        let mut config = self.config();
        config.set("transactional.id", format!("t-{topic}")).set("message.timeout.ms", "60000");
        let producer: BaseProducer = config.create().unwrap();
        let patience = Duration::from_secs(60);
        producer.init_transactions(patience).unwrap();
        producer.begin_transaction().unwrap();
        for value in values {
            let record = BaseRecord::<[u8], str>::to(topic).partition(partition).payload(*value);
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(patience).unwrap();
        if commit {
            producer.commit_transaction(patience).unwrap();
        } else {
            producer.abort_transaction(patience).unwrap();
        }
    }

    /// The sum of the ends of a topic's partitions.
    pub(crate) fn end(&self, topic: &str, partitions: i32) -> u64 {
        use rdkafka::consumer::Consumer as _;
        let consumer: rdkafka::consumer::BaseConsumer = self.config().create().unwrap();
        let end = |partition| consumer.fetch_watermarks(topic, partition, Duration::from_secs(60)).unwrap().1;
        (0..partitions).map(|partition| u64::try_from(end(partition)).unwrap()).sum()
    }

    /// All committed records of a topic, each partition's in order: partition, key, value.
    pub(crate) fn records(&self, topic: &str, partitions: i32) -> Vec<(i32, String, Option<String>)> {
        use rdkafka::{Message as _, consumer::Consumer as _, error::KafkaError};
        let mut config = self.config();
        config.set("group.id", "reader").set("enable.partition.eof", "true").set("isolation.level", "read_committed");
        let consumer: rdkafka::consumer::BaseConsumer = config.create().unwrap();
        let mut list = rdkafka::TopicPartitionList::new();
        for partition in 0..partitions {
            list.add_partition_offset(topic, partition, rdkafka::Offset::Beginning).unwrap();
        }
        consumer.assign(&list).unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let (mut records, mut ended) = (Vec::new(), std::collections::BTreeSet::new());
        while i32::try_from(ended.len()).unwrap() < partitions {
            match consumer.poll(Duration::from_secs(60)).expect("the broker answers") {
                Ok(message) => {
                    let key = text(message.key().expect("every record has a key"));
                    records.push((message.partition(), key, message.payload().map(text)));
                }
                Err(KafkaError::PartitionEOF(partition)) => drop(ended.insert(partition)),
                Err(error) => panic!("{error}"),
            }
        }
        records.sort_by_key(|(partition, ..)| *partition);
        records
    }

    /// Settings of an engine that reads topics as source `edge`.
    pub(crate) fn settings(&self, folder: &Path, topics: &[&str], more: &str) -> String {
        let file = folder.join("settings.yaml");
        let (address, topics) = (self.address(0), topics.join(", "));
        let text = format!(
            "sources:\n  edge:\n    kafka:\n      brokers: [\"{address}\"]\n      topics: [{topics}]\n      \
             discover_every_s: 1\n{more}"
        );
        std::fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(script().arg("kill9").arg(&self.dir).status());
    }
}
