//! How the engine stands: what health and metrics show.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use cf_ledger::{AlertEvent, Applied};
use cf_types::{
    AlertId, AlertState, Epoch, EpochOutput, EpochRecord, Event, Reject, RejectCode, Row, Time, record::stream,
};

use cf_engine::Tap;
use serde::{Deserialize, Serialize};

/// Counters and gauges of one running engine.
#[derive(Default)]
pub(crate) struct Status {
    ready: AtomicBool,
    events: AtomicU64,
    detections: AtomicU64,
    damaged: AtomicU64,
    differences: AtomicU64,
    durable: AtomicU64,
    inner: Mutex<Inner>,
    newest: Mutex<Newest>,
    streams: Mutex<BTreeMap<Arc<str>, StreamCounts>>,
    max_ahead_us: i64,
}

/// What came of a stream in this run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StreamCounts {
    /// Events decoded.
    pub(crate) events: u64,
    /// Records and events refused, for whatever reason.
    pub(crate) rejects: u64,
    /// Of these, events that came too late for a correlation, once for each.
    pub(crate) late: u64,
}

impl StreamCounts {
    fn add(&mut self, other: StreamCounts) {
        self.events += other.events;
        self.rejects += other.rejects;
        self.late += other.late;
    }
}

/// What one worker's share of an epoch was, in numbers; also from another process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    streams: BTreeMap<Arc<str>, StreamCounts>,
    /// Events, by source.
    sources: BTreeMap<Arc<str>, u64>,
    rejects: BTreeMap<RejectCode, u64>,
    /// By stream, the newest time of its events that are not dated too far ahead.
    newest: BTreeMap<Arc<str>, Time>,
}

impl Seen {
    /// Of what was decoded, where events may be dated so far ahead of their receipt and still count.
    pub(crate) fn of(events: &[Event], rejects: &[Reject], max_ahead_us: i64) -> Seen {
        let mut seen = Seen::default();
        // Neighbours are mostly of one stream.
        for run in events.chunk_by(|a, b| stream(&a.origin, &a.position) == stream(&b.origin, &b.position)) {
            let Some(first) = run.first() else { continue };
            let (stream, count) = (stream(&first.origin, &first.position), u64::try_from(run.len()).unwrap_or(0));
            seen.streams.entry(Arc::clone(stream)).or_default().events += count;
            *seen.sources.entry(Arc::clone(&first.origin.source)).or_default() += count;
            let counts = |event: &&Event| event.time <= event.origin.received_at.plus_micros(max_ahead_us);
            if let Some(newest) = run.iter().filter(counts).map(|event| event.time).max() {
                let reached = seen.newest.entry(Arc::clone(stream)).or_insert(newest);
                *reached = newest.max(*reached);
            }
        }
        seen.count_rejects(rejects);
        seen
    }

    fn count_rejects(&mut self, rejects: &[Reject]) {
        for reject in rejects {
            let counts = self.streams.entry(Arc::clone(stream(&reject.origin, &reject.position))).or_default();
            counts.rejects += 1;
            counts.late += u64::from(reject.code == RejectCode::TooLate);
            *self.rejects.entry(reject.code).or_default() += 1;
        }
    }
}

/// What a rule found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RuleHits {
    /// Matched pairs, repeats of one event counted once; for a correlation alerts that opened.
    pub(crate) count: u64,
    /// The newest of their times.
    pub(crate) newest: Time,
    /// When the last one was found.
    pub(crate) found_at: Time,
}

/// How far the events of each source reach: decoded on the workers, asked for when an epoch is in the ledger.
#[derive(Default)]
struct Newest {
    /// Of epochs that are not in the ledger yet.
    waiting: BTreeMap<Epoch, BTreeMap<String, Time>>,
    reached: BTreeMap<String, Time>,
}

#[derive(Default)]
struct Inner {
    epoch: Epoch,
    cut_at: Option<Time>,
    watermark: Option<Time>,
    rejects: BTreeMap<&'static str, u64>,
    alerts: BTreeMap<&'static str, u64>,
    rules: BTreeMap<Arc<str>, RuleHits>,
    /// Alerts that opened, by rule.
    opened: BTreeMap<Arc<str>, RuleHits>,
    by_source: BTreeMap<Arc<str>, u64>,
    /// Alerts that count others beyond their rule's budget: rule and number, while they can still change.
    over_budget: BTreeMap<AlertId, (Arc<str>, u64)>,
    /// Alerts that wait for the score that facts give them.
    rescoring: u64,
}

impl Status {
    /// For sources whose events may be dated this far ahead of their receipt and still count.
    pub(crate) fn new(max_ahead_s: i64) -> Status {
        Status { max_ahead_us: max_ahead_s.saturating_mul(1_000_000), ..Status::default() }
    }

    /// Takes in what was decoded of an epoch by one worker, here or in another process.
    pub(crate) fn take(&self, epoch: Epoch, seen: &Seen) {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let reached = newest.waiting.entry(epoch).or_default();
        for (stream, time) in &seen.newest {
            match reached.get_mut(&**stream) {
                Some(reached) => *reached = (*time).max(*reached),
                None => drop(reached.insert(stream.to_string(), *time)),
            }
        }
        drop(newest);
        self.events.fetch_add(seen.sources.values().sum::<u64>(), Ordering::Relaxed);
        self.count(seen);
        let mut inner = self.lock();
        for (source, events) in &seen.sources {
            *inner.by_source.entry(Arc::clone(source)).or_default() += events;
        }
    }

    /// Adds to the counts of streams and of what is refused.
    fn count(&self, seen: &Seen) {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        for (stream, counts) in &seen.streams {
            streams.entry(Arc::clone(stream)).or_default().add(*counts);
        }
        drop(streams);
        let mut inner = self.lock();
        for (code, count) in &seen.rejects {
            *inner.rejects.entry(code.as_str()).or_default() += count;
        }
    }

    /// Takes in up to when input was complete before this start.
    pub(crate) fn restore_watermark(&self, watermark: Option<Time>) {
        let mut inner = self.lock();
        inner.watermark = inner.watermark.max(watermark);
    }

    /// Takes up what an earlier run knew.
    pub(crate) fn restore_newest(&self, reached: &BTreeMap<String, Time>) {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).reached.clone_from(reached);
    }

    /// Per source, the newest time of its events up to and with an epoch.
    pub(crate) fn newest_upto(&self, epoch: Epoch) -> BTreeMap<String, Time> {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let later = newest.waiting.split_off(&(epoch + 1));
        for (source, time) in std::mem::replace(&mut newest.waiting, later).into_values().flatten() {
            let reached = newest.reached.entry(source).or_insert(time);
            *reached = time.max(*reached);
        }
        newest.reached.clone()
    }

    /// Per stream, what came of it.
    pub(crate) fn streams(&self) -> BTreeMap<Arc<str>, StreamCounts> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Per stream, the newest time of its events.
    pub(crate) fn newest_reached(&self) -> BTreeMap<String, Time> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).reached.clone()
    }

    /// The same with epochs that are not in the ledger yet.
    pub(crate) fn newest_decoded(&self) -> BTreeMap<String, Time> {
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let mut decoded = newest.reached.clone();
        for (source, time) in newest.waiting.values().flatten() {
            match decoded.get_mut(source) {
                Some(reached) => *reached = (*time).max(*reached),
                None => drop(decoded.insert(source.clone(), *time)),
            }
        }
        decoded
    }

    pub(crate) fn ready(&self) {
        self.ready.store(true, Ordering::Release);
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// A record of the spool could not be read.
    pub(crate) fn damaged(&self) {
        self.damaged.fetch_add(1, Ordering::Relaxed);
    }

    /// Alerts in which the rebuilt state differs from the ledger.
    pub(crate) fn differences(&self, count: usize) {
        self.differences.store(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How many alerts differed at the start.
    pub(crate) fn differing(&self) -> u64 {
        self.differences.load(Ordering::Relaxed)
    }

    /// History holds everything up to this epoch.
    pub(crate) fn durable(&self, epoch: Epoch) {
        self.durable.store(epoch, Ordering::Relaxed);
    }

    pub(crate) fn watermark(&self) -> Option<Time> {
        self.lock().watermark
    }

    /// An epoch is in the ledger.
    pub(crate) fn applied(&self, record: &EpochRecord, output: &EpochOutput, applied: &Applied) {
        self.detections.fetch_add(u64::try_from(output.detections.len()).unwrap_or(0), Ordering::Relaxed);
        self.count(&Seen::of(&[], &output.rejects, self.max_ahead_us));
        let mut inner = self.lock();
        inner.epoch = record.epoch;
        inner.cut_at = Some(record.wall);
        inner.watermark = output.watermark.or(inner.watermark);
        inner.note_over_budget(output);
        inner.rescoring = output.rescoring;
        for change in &applied.alerts {
            if change.event != AlertEvent::Gauge {
                *inner.alerts.entry(change.event.as_str()).or_default() += 1;
            }
            if change.event == AlertEvent::Opened {
                let time = Time::from_seconds(change.alert.last_cell);
                note(&mut inner.opened, &change.alert.rule, time, record.wall);
            }
        }
        for detection in &output.detections {
            note(&mut inner.rules, &detection.rule, detection.member.time, record.wall);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What each rule found since the start: matched pairs, for correlations alerts. Rules without any are not there.
    pub(crate) fn rule_hits(&self) -> BTreeMap<Arc<str>, RuleHits> {
        let inner = self.lock();
        let mut hits = inner.opened.clone();
        hits.extend(inner.rules.iter().map(|(rule, hits)| (Arc::clone(rule), *hits)));
        hits
    }

    /// All of it in the text format of Prometheus (version 0.0.4).
    pub(crate) fn metrics(&self, spool: &cf_spool::Log) -> String {
        use std::fmt::Write;
        let mut out = String::new();
        let mut metric = |name: &str, kind: &str, help: &str, rows: &[(String, u64)]| {
            // Writing to a string does not fail.
            let _ok = writeln!(out, "# HELP counterflow_{name} {help}\n# TYPE counterflow_{name} {kind}");
            for (labels, value) in rows {
                let _ok = writeln!(out, "counterflow_{name}{labels} {value}");
            }
        };
        let one = |value: u64| vec![(String::new(), value)];
        let hits = self.rule_hits().into_iter().map(|(rule, hits)| (rule, hits.count)).collect();
        let inner = self.lock();
        let labelled = |label: &str, rows: &BTreeMap<&'static str, u64>| -> Vec<_> {
            rows.iter().map(|(key, value)| (format!("{{{label}=\"{key}\"}}"), *value)).collect()
        };
        let shared = |label: &str, rows: &BTreeMap<Arc<str>, u64>| -> Vec<_> {
            rows.iter().map(|(key, value)| (format!("{{{label}={:?}}}", &**key), *value)).collect()
        };
        metric("events_total", "counter", "Events decoded.", &one(self.events.load(Ordering::Relaxed)));
        metric("source_events_total", "counter", "Events decoded, by source.", &shared("source", &inner.by_source));
        metric("rejects_total", "counter", "Records and items refused, by reason.", &labelled("code", &inner.rejects));
        metric("detections_total", "counter", "Matched pairs.", &one(self.detections.load(Ordering::Relaxed)));
        let help = "Matched pairs by rule, for correlations alerts; only rules that have any.";
        metric("rule_hits_total", "counter", help, &shared("rule_id", &hits));
        metric("alert_changes_total", "counter", "Changes of alerts, by kind.", &labelled("event", &inner.alerts));
        let help = "Alerts of an hour beyond their rule's budget, counted by one alert and not told, by rule.";
        metric("rule_alerts_over_budget", "gauge", help, &shared("rule_id", &inner.alerts_over_budget()));
        let help = "Alerts that wait for a new score, because facts concern more of them than one epoch scores.";
        metric("alerts_rescoring", "gauge", help, &one(inner.rescoring));
        metric("epoch", "gauge", "The last epoch in the ledger.", &one(inner.epoch));
        metric("history_epoch", "gauge", "The last epoch in history.", &one(self.durable.load(Ordering::Relaxed)));
        if let Some(watermark) = inner.watermark {
            let seconds = u64::try_from(watermark.cell()).unwrap_or(0);
            metric("watermark_seconds", "gauge", "Event time up to which input is complete.", &one(seconds));
        }
        metric("spool_rows", "gauge", "Rows accepted since the folder was made.", &one(spool.durable_end()));
        metric("spool_bytes", "gauge", "Bytes of the spool on disk.", &one(spool.bytes()));
        metric("spool_damaged_total", "counter", "Damaged ranges skipped.", &one(self.damaged.load(Ordering::Relaxed)));
        metric(
            "ledger_differences",
            "gauge",
            "Alerts in which the state rebuilt at start differed from the ledger.",
            &one(self.differences.load(Ordering::Relaxed)),
        );
        out
    }

    /// One line for health.
    pub(crate) fn summary(&self) -> (bool, String) {
        let inner = self.lock();
        let ready = self.is_ready();
        let watermark =
            inner.watermark.map_or_else(|| "no watermark yet".to_owned(), |time| format!("complete up to {time}"));
        let state = if ready { "ready" } else { "rebuilding state" };
        let over = inner.alerts_over_budget();
        let over = match (over.keys().next(), over.values().sum::<u64>()) {
            (Some(rule), count) => format!(", {count} alerts beyond their rules' budget of an hour (first {rule})"),
            (None, _) => String::new(),
        };
        let rescoring = match inner.rescoring {
            0 => String::new(),
            number => format!(", {number} alerts wait for a new score"),
        };
        (ready, format!("{state}, epoch {}, {watermark}{over}{rescoring}", inner.epoch))
    }
}

impl Inner {
    /// Takes up which alerts count others. What went is first: an alert that changed goes and comes.
    fn note_over_budget(&mut self, output: &EpochOutput) {
        let counters = output.rows.iter().filter_map(|(row, diff)| match row {
            Row::Alert(alert) if alert.group.iter().any(|(field, _)| field == "over_budget") => Some((alert, *diff)),
            _ => None,
        });
        let (came, went): (Vec<_>, Vec<_>) = counters.partition(|(_, diff)| *diff > 0);
        for (alert, _) in went {
            self.over_budget.remove(&alert.id);
        }
        for (alert, _) in came.into_iter().filter(|(alert, _)| alert.state != AlertState::Sealed) {
            self.over_budget.insert(alert.id, (Arc::clone(&alert.rule), alert.count));
        }
    }

    /// By rule, how many alerts are counted and not told.
    fn alerts_over_budget(&self) -> BTreeMap<Arc<str>, u64> {
        let mut by_rule: BTreeMap<Arc<str>, u64> = BTreeMap::new();
        for (rule, count) in self.over_budget.values() {
            *by_rule.entry(Arc::clone(rule)).or_default() += count;
        }
        by_rule
    }
}

fn note(hits: &mut BTreeMap<Arc<str>, RuleHits>, rule: &Arc<str>, time: Time, found_at: Time) {
    let hits = hits.entry(Arc::clone(rule)).or_insert(RuleHits { count: 0, newest: time, found_at });
    *hits = RuleHits { count: hits.count + 1, newest: hits.newest.max(time), found_at };
}

impl Tap for Status {
    fn decoded(&self, epoch: Epoch, _worker: usize, events: &[Event], rejects: &[Reject]) {
        self.take(epoch, &Seen::of(events, rejects, self.max_ahead_us));
    }
}
