//! What matching costs, against the cost of merely reading the same bytes as JSON.
//!
//! The yardstick is simd-json's tape into reused buffers: what every consumer of JSON pays at least. Both sides copy the
//! record into a padded buffer first; matching includes the tape, flat fields, validation and all rules. Times are CPU
//! time of one thread, so that another process on the machine does not count; only ratios of one run are compared.

use std::sync::Arc;

use bytes::Bytes;
use cf_ingest::{Decoded, Decoder, SourceTable, decode::Want};
use cf_sigma::{RuleSet, Scanner};
use cf_types::{Framing, Origin, Position, Record, Tenant, Time};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use simd_json::{Buffers, Tape};

/// Runs of each side; the median is reported.
const RUNS: usize = 5;

/// Times that records are gone through until a sample of them is given up.
const LEARNT_WITHIN: usize = 16;

/// Records that are decoded before they are scanned.
const BATCH: usize = 64;

/// Figures of one run of the bench.
#[derive(Clone, Debug, Serialize)]
pub struct MatchReport {
    /// Records read.
    pub events: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Plain rules loaded.
    pub rules: usize,
    /// (rule, event) pairs found.
    pub matches: u64,
    /// Records that did not decode.
    pub rejects: u64,
    /// Rules evaluated per event: their anchor was met, or they have none.
    pub candidates_per_event: f64,
    /// Nanoseconds per event for the tape alone.
    pub tape_ns_per_event: f64,
    /// Nanoseconds per event for decoding to fields alone; part of the next.
    pub decode_ns_per_event: f64,
    /// Nanoseconds per event for decoding and all rules.
    pub match_ns_per_event: f64,
    /// Tape divided by match: 1.0 would be matching for nothing.
    pub ratio: f64,
    /// The same with anchors chosen by a sample of these events; none if they are too few for one.
    pub learnt_ratio: Option<f64>,
    /// Rules evaluated per event then.
    pub learnt_candidates_per_event: Option<f64>,
    /// CPU time per event of two threads with half of the events each, divided by that of one.
    pub two_workers: f64,
}

/// Measures tape and match on these lines, one JSON document each.
#[must_use]
pub fn bench_match(rules: Arc<RuleSet>, raw: &[u8]) -> MatchReport {
    let raw = Bytes::copy_from_slice(raw);
    let records = records(&raw);
    let count = rules.rules().iter().filter(|rule| !rule.correlation).count();
    let mut tape = TapeSide::default();
    let mut side = MatchSide::new(Arc::clone(&rules));
    // Buffers grow and caches warm up outside the measurement.
    tape.run(&records);
    side.run(&records, true);

    let mut learnt = learnt(&rules, &records).map(MatchSide::new);
    if let Some(learnt) = &mut learnt {
        learnt.run(&records, true);
        assert_eq!(learnt.found, side.found, "a plan changes the cost, never what is found");
    }

    let (mut tapes, mut decodes, mut matches, mut learnts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNS {
        tapes.push(timed(|| tape.run(&records)));
        decodes.push(timed(|| side.run(&records, false)));
        matches.push(timed(|| side.run(&records, true)));
        learnts.extend(learnt.as_mut().map(|learnt| timed(|| learnt.run(&records, true))));
    }
    let per_event = |times: Vec<u64>| median(times) / float(u64::try_from(records.len()).unwrap_or(u64::MAX)).max(1.0);
    let (tape_ns, decode_ns, match_ns) = (per_event(tapes), per_event(decodes), per_event(matches));
    let learnt_ns = (!learnts.is_empty()).then(|| per_event(learnts));
    let two_workers = two_workers(&rules, &records);
    MatchReport {
        events: u64::try_from(records.len()).unwrap_or(u64::MAX),
        bytes: records.iter().map(|record| u64::try_from(record.bytes.len()).unwrap_or(0)).sum(),
        rules: count,
        matches: side.found,
        rejects: side.rejects,
        candidates_per_event: rounded(side.candidates_per_event(records.len()), 100.0),
        tape_ns_per_event: rounded(tape_ns, 10.0),
        decode_ns_per_event: rounded(decode_ns, 10.0),
        match_ns_per_event: rounded(match_ns, 10.0),
        ratio: rounded(tape_ns / match_ns.max(1.0), 1_000.0),
        learnt_ratio: learnt_ns.map(|ns| rounded(tape_ns / ns.max(1.0), 1_000.0)),
        learnt_candidates_per_event: learnt.map(|side| rounded(side.candidates_per_event(records.len()), 100.0)),
        two_workers: rounded(two_workers, 1_000.0),
    }
}

/// The rules with anchors chosen by a sample of the records, which are gone through until it is large enough.
fn learnt(rules: &Arc<RuleSet>, records: &[Record]) -> Option<Arc<RuleSet>> {
    let mut side = MatchSide::new(Arc::clone(rules));
    (0..LEARNT_WITHIN).find_map(|_| {
        side.run(records, true);
        side.scanner.publish();
        rules.replanned().map(Arc::new)
    })
}

/// Each run of two is beside one of one thread, so that both meet the same machine.
fn two_workers(rules: &Arc<RuleSet>, records: &[Record]) -> f64 {
    let run = |records: &[Record]| {
        let mut side = MatchSide::new(Arc::clone(rules));
        side.run(records, true);
        timed(|| side.run(records, true))
    };
    let (left, right) = records.split_at(records.len() / 2);
    let ratios = (0..RUNS).map(|_| {
        let one = run(left) + run(right);
        let two = std::thread::scope(|scope| {
            let other = scope.spawn(|| run(right));
            run(left) + other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        two.saturating_mul(1_000_000) / one.max(1)
    });
    median(ratios.collect()) / 1e6
}

fn records(raw: &Bytes) -> Vec<Record> {
    let origin = Arc::new(Origin {
        tenant: Tenant::default(),
        source: Arc::from("bench"),
        received_at: Time::from_seconds(1_767_225_600),
        year: None,
        framing: Framing::Record,
    });
    let lines = raw.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    (1..)
        .zip(lines)
        .map(|(line, bytes)| Record {
            origin: Arc::clone(&origin),
            position: Position { line, ..Position::default() },
            bytes: raw.slice_ref(bytes),
        })
        .collect()
}

struct TapeSide {
    padded: Vec<u8>,
    buffers: Buffers,
    tape: Tape<'static>,
}

impl Default for TapeSide {
    fn default() -> TapeSide {
        TapeSide { padded: Vec::new(), buffers: Buffers::new(4_096), tape: Tape(Vec::new()) }
    }
}

impl TapeSide {
    fn run(&mut self, records: &[Record]) {
        for record in records {
            self.padded.clear();
            self.padded.extend_from_slice(&record.bytes);
            self.padded.resize(record.bytes.len() + simd_json::INPUT_PADDING, b' ');
            let mut tape = std::mem::replace(&mut self.tape, Tape(Vec::new())).reset();
            let parsed =
                simd_json::fill_tape_padded(&mut self.padded, record.bytes.len(), &mut self.buffers, &mut tape);
            std::hint::black_box(parsed.is_ok());
            self.tape = tape.reset();
        }
    }
}

struct MatchSide {
    decoder: Decoder,
    decoded: Decoded,
    scanner: Scanner,
    found: u64,
    rejects: u64,
}

impl MatchSide {
    fn new(rules: Arc<RuleSet>) -> MatchSide {
        let decoder = Decoder::with(Arc::new(SourceTable::default()), Want { entities: false });
        MatchSide { decoder, decoded: Decoded::default(), scanner: Scanner::new(rules), found: 0, rejects: 0 }
    }

    /// Over all runs so far.
    fn candidates_per_event(&self, records: usize) -> f64 {
        let candidates: u64 = self.scanner.stats().iter().map(|stats| stats.candidates).sum();
        let runs = u64::try_from(RUNS + 1).unwrap_or(1);
        float(candidates) / float(runs * u64::try_from(records).unwrap_or(1).max(1))
    }

    fn run(&mut self, records: &[Record], scan: bool) {
        let mut hits = Vec::new();
        (self.found, self.rejects) = if scan { (0, 0) } else { (self.found, self.rejects) };
        // In batches, as the engine does: first all are decoded, then all are scanned.
        for batch in records.chunks(BATCH) {
            self.decoded.clear();
            for record in batch {
                self.decoder.decode(record, &mut self.decoded);
            }
            if !scan {
                continue;
            }
            for event in &self.decoded.events {
                hits.clear();
                self.scanner.scan(event, &mut hits);
                self.found += u64::try_from(hits.len()).unwrap_or(0);
            }
            self.rejects += u64::try_from(self.decoded.rejects.len()).unwrap_or(0);
        }
    }
}

/// CPU nanoseconds of this thread.
fn timed(run: impl FnOnce()) -> u64 {
    let now = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        u64::try_from(time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec)).unwrap_or(0)
    };
    let begin = now();
    run();
    now().saturating_sub(begin)
}

fn median(mut times: Vec<u64>) -> f64 {
    times.sort_unstable();
    times.get(times.len() / 2).map_or(0.0, |time| float(*time))
}

#[allow(clippy::as_conversions, clippy::cast_precision_loss)] // figures for people
const fn float(number: u64) -> f64 {
    number as f64
}

fn rounded(number: f64, parts: f64) -> f64 {
    (number * parts).round() / parts
}

#[cfg(test)]
mod tests {
    use cf_sigma::{Options, Text, parse};

    use super::*;

    #[test]
    fn the_report_counts_what_is_there() {
        let rule = "title: t\nid: r\nlogsource: {product: p}\ndetection: {s: {F|contains: abc}, condition: s}\n";
        let parsed = parse(&[Text { file: "t.yml".into(), text: rule.to_owned() }]);
        let (rules, problems) = RuleSet::compile(parsed, &Options::default());
        assert!(problems.is_empty());
        let lines = b"{\"product\":\"p\",\"F\":\"xabcx\"}\n{\"product\":\"p\",\"F\":\"x\"}\n{broken\n";
        let report = bench_match(Arc::new(rules), lines);
        assert_eq!((report.events, report.matches, report.rejects, report.rules), (3, 1, 1, 1));
        assert!(report.tape_ns_per_event > 0.0 && report.match_ns_per_event > 0.0);
    }
}
