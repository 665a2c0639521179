//! A burst of failed logins on one key: what it costs the graph, and the events beside it.
//!
//! `graph-burst [--failures 1000000] [--others 4000000] [--seconds 100]`: JSON events are decoded, met with rules and
//! correlated, one epoch a second of event time, first the others alone, then with the burst among them. Printed are the
//! records that correlation was given against the distinct (second, epoch) of the burst, the revisions of its alert by a
//! ledger, and how much longer the others took.

use std::{
    collections::BTreeSet,
    sync::{Arc, mpsc},
};

use anyhow::{Context, Result};
use cf_dataflows::{Batch, Graph, GraphOptions, Rules};
use cf_graph_benches::{BEGIN, Given, cpu_s, float, numbers, say};
use cf_ingest::{Decoded, Decoder, SourceTable};
use cf_ledger::{AlertEvent, Ledger, Routes};
use cf_sigma::{Options, RuleSet, Text};
use cf_types::{EpochOutput, EpochRecord, Origin, Position, Record, Tenant, Time, random::Random, record::Framing};
use serde_json::json;

const RULES: &str = "\
title: Failed login
id: 11111111-1111-4111-8111-111111111111
name: failed
logsource: {product: app}
detection: {s: {event_type: login_failed}, condition: s}
---
title: Password guessing
id: 22222222-2222-4222-8222-222222222222
correlation:
  type: event_count
  rules: [failed]
  group-by: [source_ip]
  timespan: 5m
  condition: {gte: 5}
level: high
";

/// The address that guesses.
const GUESSER: &str = "203.0.113.9";
/// How far the burst's events lie behind the second of their epoch at most.
const BEHIND_S: u64 = 1;

fn main() -> Result<()> {
    let known = [("failures", 1_000_000), ("others", 4_000_000), ("seconds", 100)];
    let [failures, others, seconds] = numbers(known, std::env::args().skip(1))?;
    let usual = run(0, others, seconds)?;
    let burst = run(failures, others, seconds)?;
    let updates = burst.updates.saturating_sub(usual.updates);
    let cells = burst.cells.max(1);
    let (revisions, gauges) = tell(&burst.outputs)?;
    let counted = burst.outputs.iter().flat_map(|output| &output.rows).filter_map(|(row, diff)| match row {
        cf_types::Row::Alert(alert) if *diff > 0 && alert.group.iter().any(|(_, value)| value == GUESSER) => {
            Some(alert.count)
        }
        _ => None,
    });
    let counted = counted.max().unwrap_or(0);
    say(&json!({
        "bench": "burst", "failures": failures, "others": others, "exact": counted == failures,
        "updates_of_correlation": updates, "distinct_second_epoch": cells,
        "updates_per_cell": float(updates) / float(cells), "revisions": revisions,
        // A changed count changes the ledger's row; no message, no history row and no revision follows from it.
        "counts_changed_in_ledger": gauges, "gauge_releases": 0,
        "others_per_cpu_s_usual": float(others) / usual.cpu_s, "others_per_cpu_s_in_burst": float(others) / burst.cpu_s,
        "rate_kept": usual.cpu_s / burst.cpu_s, "ns_per_failure": (burst.cpu_s - usual.cpu_s) / float(failures) * 1e9,
    }))
}

/// What one run gave.
struct Ran {
    cpu_s: f64,
    /// Records that the operator of correlation was given.
    updates: u64,
    /// Distinct (second, epoch) of the burst.
    cells: u64,
    outputs: Vec<EpochOutput>,
}

fn run(failures: u64, others: u64, seconds: u64) -> Result<Ran> {
    let parsed = cf_sigma::parse(&[Text { file: "burst.yml".into(), text: RULES.to_owned() }]);
    let rules: Arc<dyn Rules> = Arc::new(RuleSet::compile(parsed, &Options::default()).0);
    let (output, outputs) = mpsc::channel();
    let output = std::sync::Mutex::new(Some(output));
    let (cpu_s, updates, cells) = timely::execute_directly(move |worker| {
        let given = Given::of(worker);
        let output = output.lock().ok().and_then(|mut output| output.take());
        let mut graph = Graph::build(worker, &GraphOptions::default(), output);
        let mut decoder = Decoder::new(Arc::new(SourceTable::default()));
        let (mut random, mut cpu, mut cells) = (Random(1), 0.0, BTreeSet::new());
        for epoch in 1..=seconds {
            let records = records(&mut random, epoch, failures / seconds, others / seconds, &mut cells);
            let began = cpu_s();
            let mut decoded = Decoded::default();
            for record in &records {
                decoder.decode(record, &mut decoded);
            }
            let rules = (epoch == 1).then(|| Arc::clone(&rules));
            graph.feed(Batch { epoch, rules, events: decoded.events, ..Batch::default() });
            graph.advance_to(epoch + 1);
            while !graph.done(epoch) {
                worker.step_or_park(None);
            }
            cpu += cpu_s() - began;
        }
        drop(graph);
        while worker.has_dataflows() {
            worker.step_or_park(None);
        }
        let updates = given.records().get("Correlate").copied().unwrap_or(0);
        (cpu, updates, u64::try_from(cells.len()).unwrap_or(0))
    });
    Ok(Ran { cpu_s, updates, cells, outputs: outputs.into_iter().collect() })
}

/// One second: the burst's share, and the others', of whom one in fifty fails to log in.
fn records(
    random: &mut Random,
    epoch: u64,
    failures: u64,
    others: u64,
    cells: &mut BTreeSet<(i64, u64)>,
) -> Vec<Record> {
    let mut records = Vec::new();
    let mut line = 0;
    let mut add = |text: String, second: i64| {
        line += 1;
        let origin = Origin {
            tenant: Tenant::default(),
            source: "app".into(),
            received_at: Time::from_seconds(second),
            year: None,
            framing: Framing::Record,
        };
        let position = Position { origin: "bench".into(), offset: epoch << 32 | line, line, index: 0 };
        records.push(Record { origin: Arc::new(origin), position, bytes: bytes::Bytes::from(text) });
    };
    let now = BEGIN + i64::try_from(epoch).unwrap_or(0);
    let time = |second: i64| Time::from_seconds(second);
    for _ in 0..failures {
        let second = now - i64::try_from(random.number(BEHIND_S + 1)).unwrap_or(0);
        cells.insert((second, epoch));
        let user = random.number(1_000);
        let text = format!(
            r#"{{"timestamp":"{}","product":"app","event_type":"login_failed","source_ip":"{GUESSER}","user":"u{user}"}}"#,
            time(second)
        );
        add(text, now);
    }
    for _ in 0..others {
        let kind = if random.number(50) == 0 { "login_failed" } else { "page_viewed" };
        let (address, user) = (random.number(1 << 16), random.number(50_000));
        let text = format!(
            r#"{{"timestamp":"{}","product":"app","event_type":"{kind}","source_ip":"10.0.{}.{}","user":"u{user}","path":"/a/b/c?d=1"}}"#,
            time(now),
            address >> 8,
            address & 255
        );
        add(text, now);
    }
    random.shuffle(&mut records);
    records
}

/// Applies the epochs to a ledger, a second apart; gives revisions and releases of the guesser's alert.
fn tell(outputs: &[EpochOutput]) -> Result<(u64, u64)> {
    let folder = tempfile::tempdir().context("could not make a folder for the ledger")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let ledger = Ledger::open(folder.path()).await?;
        let generation = ledger.begin_generation(Time::from_seconds(BEGIN)).await?;
        let (mut revisions, mut gauges) = (0, 0);
        for output in outputs {
            let wall = Time::from_seconds(BEGIN + i64::try_from(output.epoch).unwrap_or(0));
            let record = EpochRecord {
                epoch: output.epoch,
                wall,
                generation,
                ends: Default::default(),
                newest: Default::default(),
                starts: Default::default(),
                marks: Default::default(),
                idle: Vec::new(),
                passed_ms: 0,
                control: 0,
                rules: String::new(),
                begun: Vec::new(),
                models: Default::default(),
                engine: "bench".to_owned(),
            };
            let applied = ledger.apply(&record, output, &Routes::default(), &|_| None).await?;
            for change in applied.alerts.iter().filter(|change| change.alert.group.iter().any(|(_, v)| v == GUESSER)) {
                match change.event {
                    AlertEvent::Gauge => gauges += 1,
                    _ => revisions += 1,
                }
            }
        }
        Ok((revisions, gauges))
    })
}
