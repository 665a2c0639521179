//! Kafka: partitions as sources, topics as sinks.
