//! Our matcher and `rsigma-eval` on the same events and the same rules, in one run.
//!
//! `peers --rules DIR --map logsources-windows.yml [--step N] [--differences] FILE`: prints a report as JSON. Rules are
//! those on Windows. Events are flattened first (by the oracle, outside of the measurement), because rsigma does not read
//! nested EVTX; both sides then get the same bytes and are measured from bytes to hits, in CPU time of one thread.
//!
//! rsigma runs in its fastest setting (each event is given one log source, by channel and event code, and rules of others
//! are passed over; what is not said fails open) and in its exact one (channel and event code written into each rule).
//! `--differences` lists by rule the pairs in which either differs from ours.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    hint::black_box,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use cf_ingest::{Decoded, Decoder, SourceTable, decode::Want};
use cf_oracle::{Field, Flat, Kind, Sources};
use cf_sigma::{Options, RuleSet, Scanner, Text};
use cf_types::{Framing, Origin, Position, Record, Tenant, Time};
use rsigma_eval::{Engine, JsonEvent};
use rsigma_parser::{LogSource, parse_sigma_yaml};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Map, Value, json};

const RUNS: usize = 3;
/// Ids of differing rules that are kept in a report.
const LISTED: usize = 200;

fn main() -> Result<()> {
    let arguments = Arguments::read(std::env::args().skip(1))?;
    let map = fs::read_to_string(&arguments.map).context("could not read the map of log sources")?;
    let table = concat!(env!("CARGO_MANIFEST_DIR"), "/../../src/sigma/log_source/table.yml");
    let table = fs::read_to_string(table).context("could not read our table of log sources")?;
    let sources = Sources::read(&[&map, cf_oracle::BEYOND], &table).map_err(|reason| anyhow!(reason))?;
    let rules = windows_rules(&arguments.rules)?;
    let lines = flat_lines(&arguments.file, arguments.step)?;

    let mut ours = Ours::new(&rules, &lines);
    let mut routed = Rsigma::routed(&rules, &sources)?;
    let mut exact = Rsigma::exact(&rules, &sources)?;
    let mut report = Map::new();
    report.insert("events".to_owned(), json!(lines.len()));
    report.insert("bytes".to_owned(), json!(lines.iter().map(Bytes::len).sum::<usize>()));
    report.insert("rules".to_owned(), json!(rules.len()));
    let our_rate = rate(lines.len(), RUNS, || ours.run(&mut |_, _| {}));
    let mut sides = vec![("ours", our_rate)];
    for (name, pruned, bloom) in [
        ("rsigma_routed_pruned", true, false),
        ("rsigma_routed_matching", false, false),
        ("rsigma_routed_pruned_bloom", true, true),
        ("rsigma_routed_matching_bloom", false, true),
    ] {
        routed.pruned = pruned;
        routed.engine.set_bloom_prefilter(bloom);
        sides.push((name, rate(lines.len(), RUNS, || routed.run(&lines, &mut |_, _| {}))));
    }
    for (name, bloom) in [("rsigma_exact", false), ("rsigma_exact_bloom", true)] {
        exact.engine.set_bloom_prefilter(bloom);
        sides.push((name, rate(lines.len(), 1, || exact.run(&lines, &mut |_, _| {}))));
    }
    let best = |prefix: &str| {
        sides.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, rate)| *rate).fold(0.0, f64::max)
    };
    report.insert("times_routed".to_owned(), json!(rounded(our_rate / best("rsigma_routed"))));
    report.insert("times_exact".to_owned(), json!(rounded(our_rate / best("rsigma_exact"))));
    report.insert("rsigma_rules".to_owned(), json!({"routed": routed.loaded, "exact": exact.loaded}));
    let rates: Map<String, Value> =
        sides.iter().map(|(name, rate)| ((*name).to_owned(), json!(rate.round()))).collect();
    report.insert("events_per_cpu_second".to_owned(), Value::Object(rates));
    if arguments.differences {
        report.insert("differences".to_owned(), differences(&mut ours, &mut routed, &mut exact, &lines));
    }
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(())
}

struct Arguments {
    rules: PathBuf,
    map: PathBuf,
    file: PathBuf,
    step: usize,
    differences: bool,
}

impl Arguments {
    fn read(mut words: impl Iterator<Item = String>) -> Result<Arguments> {
        const USAGE: &str = "usage: peers --rules DIR --map FILE [--step N] [--differences] FILE";
        let (mut rules, mut map, mut file, mut step, mut differences) = (None, None, None, 1, false);
        while let Some(word) = words.next() {
            let mut next = || words.next().context(USAGE);
            match word.as_str() {
                "--rules" => rules = Some(PathBuf::from(next()?)),
                "--map" => map = Some(PathBuf::from(next()?)),
                "--step" => step = next()?.parse().context("--step takes a number")?,
                "--differences" => differences = true,
                _ if word.starts_with("--") => bail!(USAGE),
                _ => file = Some(PathBuf::from(word)),
            }
        }
        match (rules, map, file) {
            (Some(rules), Some(map), Some(file)) => Ok(Arguments { rules, map, file, step: step.max(1), differences }),
            _ => bail!(USAGE),
        }
    }
}

/// Documents of all rules on Windows, in the order of their files.
fn windows_rules(dir: &Path) -> Result<Vec<Value>> {
    let mut paths = Vec::new();
    collect(dir, &mut paths)?;
    paths.sort();
    let mut rules = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))?;
        let Ok(document) = serde_saphyr::from_str::<Value>(&text) else { continue };
        let source = &document["logsource"];
        if source["product"] == "windows" || source["category"] == "antivirus" {
            rules.push(document);
        }
    }
    Ok(rules)
}

fn collect(dir: &Path, paths: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("could not read {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, paths)?;
        } else if path.extension().is_some_and(|extension| extension == "yml") {
            paths.push(path);
        }
    }
    Ok(())
}

/// Each `step`th record as flat JSON.
fn flat_lines(file: &Path, step: usize) -> Result<Vec<Bytes>> {
    let mut raw = fs::read(file).with_context(|| format!("could not read {}", file.display()))?;
    if raw.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        raw = zstd::decode_all(raw.as_slice())?;
    }
    let lines = raw.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).step_by(step);
    let flat = lines.filter_map(|line| match cf_oracle::flatten(line) {
        Flat::Event(event) => Some(Bytes::from(flat_json(&event.fields))),
        Flat::Other | Flat::Invalid => None,
    });
    Ok(flat.collect())
}

fn flat_json(fields: &[Field]) -> Vec<u8> {
    let mut members: Map<String, Value> = Map::new();
    for field in fields {
        let value = match field.kind {
            Kind::Text => Value::String(field.text.clone()),
            Kind::Number | Kind::Bool => serde_json::from_str(&field.text).unwrap_or(Value::Null),
            Kind::Null => Value::Null,
        };
        match members.get_mut(&field.name) {
            None => drop(members.insert(field.name.clone(), value)),
            Some(Value::Array(list)) => list.push(value),
            Some(one) => *one = Value::Array(vec![one.take(), value]),
        }
    }
    Value::Object(members).to_string().into_bytes()
}

/// Called with the number of an event and the id of a rule that it met.
type Found<'f> = dyn FnMut(usize, &str) + 'f;

struct Ours {
    decoder: Decoder,
    decoded: Decoded,
    scanner: Scanner,
    records: Vec<Record>,
}

impl Ours {
    fn new(rules: &[Value], lines: &[Bytes]) -> Ours {
        let texts: Vec<Text> =
            rules.iter().map(|rule| Text { file: "rule.yml".into(), text: rule.to_string() }).collect();
        let (rules, _problems) = RuleSet::compile(cf_sigma::parse(&texts), &Options::default());
        let origin = Arc::new(Origin {
            tenant: Tenant::default(),
            source: Arc::from("bench"),
            received_at: Time::from_seconds(1_767_225_600),
            year: None,
            framing: Framing::Record,
        });
        let record =
            |bytes: &Bytes| Record { origin: Arc::clone(&origin), position: Position::default(), bytes: bytes.clone() };
        Ours {
            scanner: Scanner::new(Arc::new(rules)),
            decoder: Decoder::with(Arc::new(SourceTable::default()), Want { entities: false }),
            decoded: Decoded::default(),
            records: lines.iter().map(record).collect(),
        }
    }

    fn run(&mut self, found: &mut Found<'_>) {
        let mut hits = Vec::new();
        for (number, record) in self.records.iter().enumerate() {
            self.decoded.clear();
            self.decoder.decode(record, &mut self.decoded);
            for event in &self.decoded.events {
                hits.clear();
                self.scanner.scan(event, &mut hits);
                for hit in &hits {
                    if let Some(rule) = self.scanner.rules().rule(*hit) {
                        found(number, &rule.id);
                    }
                }
            }
        }
    }
}

struct Rsigma {
    engine: Engine,
    /// By channel in small letters and event code; none if rules say themselves what they are about.
    routes: Option<HashMap<(String, String), LogSource>>,
    /// Whether a rule is passed over only if it says something else, or whatever it says must be the event's.
    pruned: bool,
    loaded: usize,
}

impl Rsigma {
    fn load(rules: impl Iterator<Item = Value>) -> Result<(Engine, usize)> {
        let mut engine = Engine::new();
        let mut loaded = 0;
        let mut list = Vec::new();
        for rule in rules {
            if let Ok(collection) = parse_sigma_yaml(&rule.to_string()) {
                list.extend(collection.rules);
            }
        }
        let refused = engine.add_rules(&list).len();
        loaded += list.len() - refused;
        Ok((engine, loaded))
    }

    fn routed(rules: &[Value], sources: &Sources) -> Result<Rsigma> {
        let (engine, loaded) = Rsigma::load(rules.iter().cloned())?;
        let mut routes = HashMap::new();
        for (channel, code, category, service) in sources.routes() {
            // One event is of one log source: the first that the map names.
            routes.entry((channel.to_lowercase(), code)).or_insert(LogSource {
                category,
                product: Some("windows".to_owned()),
                service: Some(service),
                ..LogSource::default()
            });
        }
        Ok(Rsigma { engine, routes: Some(routes), pruned: true, loaded })
    }

    fn exact(rules: &[Value], sources: &Sources) -> Result<Rsigma> {
        let written = rules.iter().flat_map(|rule| sources.written_out(rule));
        let (engine, loaded) = Rsigma::load(written)?;
        Ok(Rsigma { engine, routes: None, pruned: true, loaded })
    }

    fn run(&mut self, lines: &[Bytes], found: &mut Found<'_>) {
        let windows = LogSource { product: Some("windows".to_owned()), ..LogSource::default() };
        for (number, line) in lines.iter().enumerate() {
            let Ok(value) = serde_json::from_slice::<Value>(line) else { continue };
            let event = JsonEvent::borrow(&value);
            let results = match &self.routes {
                None => self.engine.evaluate(&event),
                Some(routes) => {
                    let channel = value["Channel"].as_str().unwrap_or_default().to_lowercase();
                    let code = match &value["EventID"] {
                        Value::String(text) => text.clone(),
                        other => other.to_string(),
                    };
                    let route = routes.get(&(channel.clone(), code));
                    let route = route.or_else(|| routes.get(&(channel, String::new()))).unwrap_or(&windows);
                    if self.pruned {
                        self.engine.evaluate_pruned(&event, route)
                    } else {
                        self.engine.evaluate_with_logsource(&event, route)
                    }
                }
            };
            for result in black_box(results) {
                found(number, result.header.rule_id.as_deref().unwrap_or_default());
            }
        }
    }
}

/// By rule, how many pairs are theirs only and ours only.
fn differences(ours: &mut Ours, routed: &mut Rsigma, exact: &mut Rsigma, lines: &[Bytes]) -> Value {
    let pairs = |run: &mut dyn FnMut(&mut Found<'_>)| {
        let mut pairs = BTreeSet::new();
        run(&mut |event, rule| {
            pairs.insert((rule.to_owned(), event));
        });
        pairs
    };
    let of_ours = pairs(&mut |found| ours.run(found));
    let mut report = Map::new();
    report.insert("our_pairs".to_owned(), json!(of_ours.len()));
    let mut add = |name: &str, theirs: BTreeSet<(String, usize)>| {
        let mut by_rule: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for (rule, _) in theirs.difference(&of_ours) {
            by_rule.entry(rule).or_default().0 += 1;
        }
        for (rule, _) in of_ours.difference(&theirs) {
            by_rule.entry(rule).or_default().1 += 1;
        }
        let sum = by_rule.values().fold((0, 0), |sum, (more, less)| (sum.0 + more, sum.1 + less));
        let listed: Map<String, Value> = by_rule
            .into_iter()
            .take(LISTED)
            .map(|(rule, (more, less))| (rule.to_owned(), json!({"theirs_only": more, "ours_only": less})))
            .collect();
        report.insert(
            name.to_owned(),
            json!({"pairs": theirs.len(), "theirs_only": sum.0, "ours_only": sum.1, "rules": listed}),
        );
    };
    routed.pruned = true;
    add("rsigma_routed", pairs(&mut |found| routed.run(lines, found)));
    add("rsigma_exact", pairs(&mut |found| exact.run(lines, found)));
    Value::Object(report)
}

/// Events per second of CPU time of this thread; the best of some runs after one that warms up.
fn rate(events: usize, runs: usize, mut run: impl FnMut()) -> f64 {
    if runs > 1 {
        run();
    }
    let now = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
    };
    let timed = (0..runs).map(|_| {
        let begin = now();
        run();
        now() - begin
    });
    events as f64 / timed.fold(f64::INFINITY, f64::min)
}

fn rounded(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}
