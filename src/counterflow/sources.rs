//! How the sources stand: for `sources list`, the API, health and metrics; and how a stopped one goes on.
//!
//! The conductor notes once a second what it knows ([`Board::note`]); the same is left in the data folder, so that
//! `sources list` needs no connection to the engine. It is a view: nothing is computed from it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use anyhow::{Context, Result, anyhow};
use cf_kafka::{Class, KafkaSettings, PartitionState, Place};
use cf_ledger::Ledger;
use cf_types::{Time, clock};
use serde_json::{Value, json};
use tokio::{runtime::Handle, sync::oneshot};

use crate::{
    config::Settings,
    kafka::{RESUME, Resume},
    status::Status,
};

/// What is left in the data folder.
pub(crate) const FILE: &str = "sources.json";
/// How much the newest second weighs in a rate.
const NEWEST: f64 = 0.2;

/// What is known of the sources.
pub(crate) struct Board {
    status: Arc<Status>,
    file: PathBuf,
    disorder_us: i64,
    /// Ways in that are open.
    listening: Vec<(&'static str, String)>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    partitions: Vec<(Arc<str>, Class, PartitionState)>,
    rates: BTreeMap<Arc<str>, Rate>,
    noted: Option<Instant>,
}

#[derive(Clone, Copy, Default)]
struct Rate {
    events: u64,
    per_second: f64,
}

impl Board {
    /// For an engine on a data folder.
    pub(crate) fn new(settings: &Settings, data: &Path, status: Arc<Status>) -> Board {
        let listen = &settings.listen;
        let mut listening = Vec::new();
        for (kind, address) in [("http", listen.http), ("syslog", listen.syslog_udp), ("syslog", listen.syslog_tcp)] {
            listening.extend(address.map(|address| (kind, address.to_string())));
        }
        let disorder_us = i64::from(settings.detection.disorder_s).saturating_mul(1_000_000);
        Board { status, file: data.join(FILE), disorder_us, listening, inner: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in how the partitions stand; once a second is enough.
    pub(crate) fn note(&self, partitions: Vec<(Arc<str>, Class, PartitionState)>) {
        {
            let mut inner = self.lock();
            let seconds = inner.noted.map_or(1.0, |at| at.elapsed().as_secs_f64().max(0.001));
            inner.noted = Some(Instant::now());
            for (stream, counts) in self.status.streams() {
                let rate = inner.rates.entry(stream).or_default();
                let new = u32::try_from(counts.events - rate.events.min(counts.events)).unwrap_or(u32::MAX);
                rate.per_second += (f64::from(new) / seconds - rate.per_second) * NEWEST;
                rate.events = counts.events;
            }
            inner.partitions = partitions;
        }
        let told = json!({"at": clock::now(), "pid": std::process::id(), "sources": self.rows()});
        let fresh = self.file.with_extension("json.new");
        let left = std::fs::write(&fresh, told.to_string()).and_then(|()| std::fs::rename(&fresh, &self.file));
        if let Err(error) = left {
            tracing::debug!(%error, "how the sources stand could not be left in the data folder");
        }
    }

    /// One row for each source: Kafka's partitions, and by their names what is sent to us or read as files.
    pub(crate) fn rows(&self) -> Vec<Value> {
        let (streams, newest, watermark) =
            (self.status.streams(), self.status.newest_reached(), self.status.watermark());
        let inner = self.lock();
        let row = |stream: &str, source: &str, kind: &str| {
            let counts = streams.get(stream).copied().unwrap_or_default();
            let rate = inner.rates.get(stream).copied().unwrap_or_default();
            let reached: Option<Time> = newest.get(stream).map(|time| time.plus_micros(-self.disorder_us));
            #[allow(clippy::cast_precision_loss, clippy::as_conversions)] // a share for people
            let late_share = if counts.events == 0 { 0.0 } else { counts.late as f64 / counts.events as f64 };
            json!({
                "source": source, "stream": stream, "kind": kind, "class": "normal", "state": "reading",
                "rate": (rate.per_second * 10.0).round() / 10.0, "events": counts.events, "lag": null, "next": null,
                "end": null, "watermark": reached, "complete_upto": watermark, "late_share": late_share,
                "rejects": counts.rejects, "last_error": null,
            })
        };
        let mut rows = Vec::new();
        for (source, class, state) in &inner.partitions {
            let mut row = row(&state.stream, source, "kafka");
            let more = json!({
                "class": class, "state": state.state, "lag": state.lag, "next": state.next, "end": state.end,
                "last_error": state.says, "pauses": state.pauses,
            });
            if let (Some(row), Some(more)) = (row.as_object_mut(), more.as_object()) {
                row.extend(more.clone());
            }
            rows.push(row);
        }
        let mut pushed: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (kind, address) in &self.listening {
            pushed.entry(kind).or_default().push(address);
        }
        for stream in streams.keys().filter(|stream| !stream.starts_with(cf_types::record::KAFKA_PREFIX)) {
            pushed.entry(stream).or_default();
        }
        for (name, addresses) in pushed {
            let kind = if addresses.is_empty() && name != "http" && name != "syslog" { "file" } else { "pushed" };
            let mut row = row(name, name, kind);
            if let (Some(row), false) = (row.as_object_mut(), addresses.is_empty()) {
                row.insert("state".to_owned(), json!("listening"));
                row.insert("address".to_owned(), json!(addresses.join(", ")));
            }
            rows.push(row);
        }
        rows
    }

    /// One line for health, and whether all is well.
    pub(crate) fn summary(&self) -> (bool, String) {
        let inner = self.lock();
        let bad = |(_, _, state): &&(Arc<str>, Class, PartitionState)| {
            !matches!(state.state, "reading" | "paused" | "waiting")
        };
        let troubled: Vec<_> = inner.partitions.iter().filter(bad).collect();
        let says = match troubled.first() {
            None => format!("{} partitions of Kafka", inner.partitions.len()),
            Some((_, _, first)) => {
                let why = first.says.clone().unwrap_or_default();
                format!(
                    "{} of {} are not read; {}: {}: {why}",
                    troubled.len(),
                    inner.partitions.len(),
                    first.stream,
                    first.state
                )
            }
        };
        (troubled.is_empty(), says)
    }

    /// Lag of every partition, for metrics.
    pub(crate) fn lags(&self) -> Vec<(String, u64)> {
        let inner = self.lock();
        inner.partitions.iter().filter_map(|(_, _, state)| Some((state.stream.clone(), state.lag?))).collect()
    }
}

/// The sources as the API sees them.
pub(crate) struct SourcesApi {
    pub(crate) board: Arc<Board>,
    pub(crate) kafka: BTreeMap<String, KafkaSettings>,
    pub(crate) ledger: Ledger,
    pub(crate) runtime: Handle,
}

impl cf_api::sources::Sources for SourcesApi {
    fn list(&self) -> Vec<Value> {
        self.board.rows()
    }

    fn resume(&self, source: String, from: String) -> oneshot::Receiver<Result<Value, String>> {
        let (answer, answered) = oneshot::channel();
        let (kafka, ledger) = (self.kafka.get(&source).cloned(), self.ledger.clone());
        let stopped = self.board.rows().iter().any(|row| row["source"] == source.as_str() && row["state"] == "stopped");
        self.runtime.spawn(async move {
            let recorded = async {
                let kafka = kafka.ok_or_else(|| anyhow!("there is no source {source:?} of Kafka"))?;
                if !stopped {
                    return Err(anyhow!("source {source:?} is not stopped: there is nothing to resume"));
                }
                let resume = tokio::task::spawn_blocking(move || resolved(&source, &kafka, &from)).await??;
                let body = serde_json::to_string(&resume)?;
                let seq = ledger.control_append(RESUME, &body, "api", &resume.from, clock::now()).await?;
                Ok(json!({"seq": seq, "offsets": resume.offsets}))
            };
            // Whoever asked may be gone.
            drop(answer.send(recorded.await.map_err(|error: anyhow::Error| format!("{error:#}"))));
        });
        answered
    }
}

/// Where each partition of a source goes on: asked of the brokers now, so that every replay has the same.
pub(crate) fn resolved(source: &str, settings: &KafkaSettings, from: &str) -> Result<Resume> {
    let offsets = cf_kafka::resolve(source, settings, parse_place(from)?)
        .map_err(|why| anyhow!("could not ask where source {source:?} goes on: {why}"))?;
    let offsets = offsets.into_iter().map(|resolved| (resolved.stream, resolved.next)).collect();
    Ok(Resume { source: source.to_owned(), from: from.to_owned(), offsets })
}

fn parse_place(text: &str) -> Result<Place> {
    let wrong = || format!("{text:?} is no place; write earliest, latest, offset=N or time=2026-01-05T14:00:00Z");
    match text.split_once('=') {
        None if text == "earliest" => Ok(Place::Earliest),
        None if text == "latest" => Ok(Place::Latest),
        Some(("offset", number)) => Ok(Place::Offset(number.parse().with_context(wrong)?)),
        Some(("time", time)) => {
            let time: Time = time.parse().map_err(|_| anyhow!(wrong()))?;
            Ok(Place::TimeMs(time.micros() / 1_000))
        }
        _ => Err(anyhow!(wrong())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read() {
        assert_eq!(parse_place("earliest").unwrap(), Place::Earliest);
        assert_eq!(parse_place("offset=12").unwrap(), Place::Offset(12));
        assert_eq!(parse_place("time=1970-01-01T00:00:02Z").unwrap(), Place::TimeMs(2_000));
        assert!(parse_place("offset=x").is_err() && parse_place("somewhere").is_err());
    }
}
