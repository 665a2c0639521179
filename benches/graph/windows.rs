//! A count per key and minute of events that are out of order: the same file for us and for others.
//!
//! `graph-windows generate FILE [--events 1000000] [--keys 10000] [--disorder-ms 5000] [--late-permille 0]` writes JSON
//! lines, `{"timestamp": milliseconds, "user": key}`, 1,000 a second of event time, in the order in which they arrive:
//! each up to `disorder-ms` behind; of a thousand so many one to ten minutes behind, when their window has long been
//! closed. Beside it, FILE.answer holds the right answer: rows, sum and checksum.
//! `graph-windows run FILE [--horizon HOURS] [--epoch RECORDS]` counts them with this engine's decoder and its operator of
//! correlation, in epochs as they come, and says whether that is the right answer. `peers/windows.py` does so with others.
//!
//! A cell of the operator is a minute here, and a window one cell: so its episodes are the rows.

use std::{
    collections::HashMap,
    fs::File,
    io::{BufRead, BufReader, BufWriter, Write},
    path::Path,
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use cf_dataflows::correlate::{CellItem, Correlated, Limit, correlate};
use cf_graph_benches::{BEGIN, cpu_s, float, numbers, resident_bytes, say};
use cf_ingest::{Decoded, Decoder, SourceTable};
use cf_types::{
    Condition, EpisodeKey, EpisodeRule, Epoch, Group, Level, Name, Origin, Position, Predicate, Record, Tenant, Time,
    random::Random, record::Framing,
};
use differential_dataflow::input::InputSession;
use serde_json::{Value, json};
use timely::dataflow::{
    ProbeHandle,
    operators::{Input as _, vec::Broadcast},
};

const EVENTS_PER_S: u64 = 1_000;
const MINUTE_MS: i64 = 60_000;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next()) {
        (Some("generate"), Some(file)) => {
            let known = [("events", 1_000_000), ("keys", 10_000), ("disorder-ms", 5_000), ("late-permille", 0)];
            let [events, keys, disorder, late] = numbers(known, arguments)?;
            generate(Path::new(&file), events, keys, disorder, late)
        }
        (Some("run"), Some(file)) => {
            let [horizon, epoch] = numbers([("horizon", 1), ("epoch", 8_192)], arguments)?;
            run(Path::new(&file), horizon, usize::try_from(epoch)?)
        }
        _ => bail!("usage: graph-windows generate FILE ... | run FILE ..."),
    }
}

/// Rows, the sum of their counts, and a sum in which key, minute and count all matter.
#[derive(Default, PartialEq, Eq)]
struct Answer {
    rows: u64,
    sum: u64,
    checksum: u64,
}

impl Answer {
    /// Minutes count from the first of the epoch of Unix.
    fn add(&mut self, key: u64, minute: i64, count: u64) {
        self.rows += 1;
        self.sum += count;
        let minute = u64::try_from(minute).unwrap_or(0);
        self.checksum = self.checksum.wrapping_add((key + 1).wrapping_mul(minute).wrapping_mul(count) % 1_000_000_007);
    }

    fn json(&self) -> Value {
        json!({ "rows": self.rows, "sum": self.sum, "checksum": self.checksum })
    }
}

fn generate(file: &Path, events: u64, keys: u64, disorder_ms: u64, late_permille: u64) -> Result<()> {
    let mut random = Random(11);
    let mut arrivals: Vec<(i64, i64, u64)> = Vec::new();
    let mut counts: HashMap<(u64, i64), u64> = HashMap::new();
    for number in 0..events {
        let time = BEGIN * 1_000 + i64::try_from(number * 1_000 / EVENTS_PER_S)?;
        let key = random.number(keys);
        let is_late = random.number(1_000) < late_permille;
        let behind = if is_late { 60_000 + random.number(540_000) } else { random.number(disorder_ms + 1) };
        arrivals.push((time + i64::try_from(behind)?, time, key));
        *counts.entry((key, time.div_euclid(MINUTE_MS))).or_default() += 1;
    }
    arrivals.sort_unstable();
    let mut out = BufWriter::new(File::create(file).with_context(|| format!("could not write {}", file.display()))?);
    for (_, time, key) in arrivals {
        writeln!(out, r#"{{"timestamp":{time},"user":"k{key}"}}"#)?;
    }
    out.flush()?;
    let mut answer = Answer::default();
    counts.into_iter().for_each(|((key, minute), count)| answer.add(key, minute, count));
    std::fs::write(answer_file(file), format!("{}\n", answer.json()))?;
    say(&answer.json())
}

fn answer_file(file: &Path) -> std::path::PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".answer");
    name.into()
}

fn run(file: &Path, horizon_h: u64, epoch_records: usize) -> Result<()> {
    let right: Value = serde_json::from_str(&std::fs::read_to_string(answer_file(file))?)?;
    let reader = BufReader::with_capacity(1 << 20, File::open(file)?);
    let began = (cpu_s(), std::time::Instant::now());
    let rows = timely::execute_directly(move |worker| count(worker, reader, horizon_h, epoch_records));
    let (events, rows) = rows?;
    let cpu = cpu_s() - began.0;
    let mut answer = Answer::default();
    for ((key, minute), count) in rows {
        answer.add(key, minute, count);
    }
    say(&json!({
        "bench": "windows", "engine": "counterflow", "events": events, "cpu_s": cpu,
        "wall_s": began.1.elapsed().as_secs_f64(), "events_per_cpu_s": float(events) / cpu,
        "resident_mb": resident_bytes() >> 20, "answer": answer.json(), "exact": answer.json() == right,
    }))
}

/// Counts by key and minute.
type Rows = HashMap<(u64, i64), u64>;

fn count(
    worker: &mut timely::worker::Worker,
    reader: BufReader<File>,
    horizon_h: u64,
    epoch_records: usize,
) -> Result<(u64, Rows)> {
    let (told, changes) = std::sync::mpsc::channel();
    let probe = ProbeHandle::new();
    let mut items = InputSession::<Epoch, CellItem, isize>::new();
    let (mut rules, mut limits) = worker.dataflow::<Epoch, _, _>(|scope| {
        let (rules, rules_in) = scope.new_input::<Vec<Arc<Vec<Arc<EpisodeRule>>>>>();
        let (limits, limits_in) = scope.new_input::<Vec<Limit>>();
        let Correlated { episodes, .. } = correlate(items.to_collection(scope), rules_in, limits_in.broadcast());
        let told = told.clone();
        episodes.inspect_batch(move |_, rows| drop(told.send(rows.to_vec()))).probe_with(&probe);
        (rules, limits)
    });
    let rule = rule();
    rules.send(Arc::new(vec![Arc::clone(&rule)]));
    rules.advance_to(2);

    let mut source = Source::new(reader, Arc::clone(&rule.id));
    let (mut rows, mut epoch, mut newest) = (Rows::new(), 0, i64::MIN);
    loop {
        let added = source.batch(epoch_records)?;
        if added.is_empty() {
            break;
        }
        epoch += 1;
        let tick = u64::try_from(epoch)?;
        items.advance_to(tick);
        limits.advance_to(tick);
        rules.advance_to(tick.max(2));
        for ((key, minute), count) in added {
            newest = newest.max(minute);
            let Some(key) = source.keys.get(key).cloned() else { continue };
            items.update(CellItem { key, cell: minute, reference: 0, value: None }, isize::try_from(count)?);
        }
        limits.send(Limit(newest - i64::try_from(horizon_h)? * 60));
        items.advance_to(tick + 1);
        items.flush();
        limits.advance_to(tick + 1);
        rules.advance_to(tick + 1);
        while probe.less_than(&(tick + 1)) {
            worker.step_or_park(None);
        }
        for (episode, _, diff) in changes.try_iter().flatten() {
            let name = episode.key.group.iter().next().map_or("", |(_, value)| value);
            let key: u64 = name.trim_start_matches('k').parse()?;
            let row = rows.entry((key, episode.anchor)).or_default();
            // It went with what it counted and came with what it counts now.
            *row = row.wrapping_add_signed(i64::try_from(diff)?.wrapping_mul(i64::try_from(episode.count)?));
        }
    }
    drop((items, rules, limits));
    while worker.has_dataflows() {
        worker.step_or_park(None);
    }
    Ok((source.events, rows))
}

fn rule() -> Arc<EpisodeRule> {
    Arc::new(EpisodeRule {
        id: "count".into(),
        title: "count".into(),
        level: Level::Low,
        tags: Arc::from([]),
        references: vec!["count".into()],
        timespan: 0,
        predicate: Predicate::EventCount(Condition::at_least(1)),
        alerts: true,
        chained: Vec::new(),
    })
}

/// Lines of the file, decoded and counted.
struct Source {
    reader: BufReader<File>,
    decoder: Decoder,
    decoded: Decoded,
    origin: Arc<Origin>,
    file: Arc<str>,
    user: Name,
    events: u64,
    rule: Arc<str>,
    /// The number of a key; its group is made once.
    numbers: HashMap<Box<str>, usize>,
    keys: Vec<EpisodeKey>,
}

impl Source {
    fn new(reader: BufReader<File>, rule: Arc<str>) -> Source {
        let origin = Origin {
            tenant: Tenant::default(),
            source: "file".into(),
            received_at: Time::MAX,
            year: None,
            framing: Framing::Record,
        };
        Source {
            reader,
            decoder: Decoder::new(Arc::new(SourceTable::default())),
            decoded: Decoded::default(),
            origin: Arc::new(origin),
            file: "file".into(),
            user: Name::intern("user"),
            events: 0,
            rule,
            numbers: HashMap::new(),
            keys: Vec::new(),
        }
    }

    /// What the next records add, by the number of the key and by minute.
    fn batch(&mut self, records: usize) -> Result<HashMap<(usize, i64), u64>> {
        self.decoded.clear();
        for _ in 0..records {
            let mut line = Vec::new();
            if self.reader.read_until(b'\n', &mut line)? == 0 {
                break;
            }
            line.pop();
            self.events += 1;
            let position =
                Position { origin: Arc::clone(&self.file), offset: self.events, line: self.events, index: 0 };
            let record = Record { origin: Arc::clone(&self.origin), position, bytes: bytes::Bytes::from(line) };
            self.decoder.decode(&record, &mut self.decoded);
        }
        if let Some(reject) = self.decoded.rejects.first() {
            bail!("line {}: {}", reject.position.line, reject.reason);
        }
        let mut added: HashMap<(usize, i64), u64> = HashMap::new();
        for event in &self.decoded.events {
            let key = event.fields.first(self.user).context("an event has no user")?;
            let number = match self.numbers.get(key) {
                Some(number) => *number,
                None => {
                    let group = Group::new([(Arc::from("user"), Arc::from(key))]);
                    self.keys.push(EpisodeKey { tenant: Tenant::default(), rule: Arc::clone(&self.rule), group });
                    *self.numbers.entry(Box::from(key)).or_insert(self.keys.len() - 1)
                }
            };
            *added.entry((number, event.time.cell().div_euclid(60))).or_default() += 1;
        }
        Ok(added)
    }
}
