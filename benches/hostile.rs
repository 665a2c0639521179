//! `hostile --rules PATH [--bytes N]`: values built against each rule, and what they cost.
//!
//! For each rule alone: values of N bytes (default 1 MiB) made of its own texts, of its texts without their last
//! character, of their first four characters, of the pieces of its globs and expressions, in the field that is tested. For
//! the whole set: values made of the texts of all rules at once, in the fields that most rules test, by the busiest
//! routes. Each also at twice the length: cost must grow with it and no faster. Times are CPU time of one thread, from
//! bytes to hits, the best of three. Prints the worst of each as JSON; exits with 1 if a bound is broken.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    path::Path,
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Result, bail};
use bytes::Bytes;
use cf_ingest::{Decoded, Decoder, SourceOptions, SourceTable, decode::Want};
use cf_sigma::{
    Options, Parsed, RuleSet, Scanner, parse,
    rule::{Expr, LogSourcePattern, Matcher, Part, Rule},
};
use cf_types::{Framing, Origin, Position, Record, Tenant, Time};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

/// One value may cost one rule so much.
const ONE_RULE_MS: f64 = 50.0;
/// And the whole set so much.
const ALL_RULES_MS: f64 = 1_000.0;
/// Twice the length may cost so many times as much.
const TWICE: f64 = 2.2;
/// Pieces of one rule that values are made of.
const PIECES_MAX: usize = 12;

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (rules, bytes) = match arguments.as_slice() {
        [flag, rules] if flag == "--rules" => (rules, 1 << 20),
        [flag, rules, bytes, number] if flag == "--rules" && bytes == "--bytes" => (rules, number.parse()?),
        _ => bail!("usage: hostile --rules PATH [--bytes N]"),
    };
    let texts = cf_benches::input::rule_texts(Path::new(rules))?;
    let parsed = parse(&texts);
    let mut bench = Bench::new()?;

    let mut one: Vec<Cost> = Vec::new();
    for rule in &parsed.rules {
        one.extend(bench.against_one(rule, bytes));
    }
    one.sort_by(|left, right| right.ms.total_cmp(&left.ms));
    let mut all = bench.against_all(&parsed, bytes);
    all.sort_by(|left, right| right.ms.total_cmp(&left.ms));
    // Short times are all noise; what grows too fast is seen where it costs.
    let mut grown: Vec<&Cost> = one.iter().chain(&all).filter(|cost| cost.ms > 2.0).collect();
    grown.sort_by(|left, right| right.growth().total_cmp(&left.growth()));
    let steepest = grown.first().map_or(0.0, |cost| cost.growth());

    let worst = |costs: &[Cost]| costs.iter().take(5).map(Cost::shown).collect::<Vec<_>>();
    let report = json!({
        "bytes": bytes,
        "rules": parsed.rules.len(),
        "values": one.len() + all.len(),
        "one_rule_worst": worst(&one),
        "all_rules_worst": worst(&all),
        "steepest": grown.iter().take(5).map(|cost| cost.shown()).collect::<Vec<_>>(),
    });
    let mut out = std::io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, &report)?;
    writeln!(out)?;
    let broken = one.first().is_some_and(|cost| cost.ms > ONE_RULE_MS)
        || all.first().is_some_and(|cost| cost.ms > ALL_RULES_MS)
        || steepest > TWICE;
    Ok(if broken { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What one value cost.
struct Cost {
    rule: String,
    field: String,
    /// What the value repeats.
    piece: String,
    ms: f64,
    twice_ms: f64,
}

impl Cost {
    fn growth(&self) -> f64 {
        self.twice_ms / self.ms
    }

    fn shown(&self) -> serde_json::Value {
        let piece: String = self.piece.chars().take(80).collect();
        let rounded = |number: f64| (number * 100.0).round() / 100.0;
        json!({
            "rule": self.rule,
            "field": self.field,
            "repeats": piece,
            "ms": rounded(self.ms),
            "twice": rounded(self.growth()),
        })
    }
}

struct Bench {
    decoder: Decoder,
    decoded: Decoded,
    origin: Arc<Origin>,
}

impl Bench {
    fn new() -> Result<Bench> {
        let options = SourceOptions { record_bytes_max: 64 << 20, ..SourceOptions::default() };
        let table = SourceTable::new(&BTreeMap::from([("bench".to_owned(), options)]))?;
        let origin = Origin {
            tenant: Tenant::default(),
            source: Arc::from("bench"),
            received_at: Time::from_seconds(1_767_225_600),
            year: None,
            framing: Framing::Record,
        };
        Ok(Bench {
            decoder: Decoder::with(Arc::new(table), Want { entities: false }),
            decoded: Decoded::default(),
            origin: Arc::new(origin),
        })
    }

    /// The dearest value against a rule alone.
    fn against_one(&mut self, rule: &Rule, bytes: usize) -> Option<Cost> {
        let mut pieces = BTreeSet::new();
        pieces_of(&rule.condition, &mut pieces);
        let log_source = LogSourcePattern { product: Some(Arc::from("p")), ..LogSourcePattern::default() };
        let alone = Rule { log_source, ..rule.clone() };
        let mut parsed = Parsed::default();
        parsed.include(&[], vec![alone], Vec::new());
        let (rules, _problems) = RuleSet::compile(parsed, &Options::default());
        let mut scanner = Scanner::new(Arc::new(rules));
        let mut worst: Option<Cost> = None;
        // A sample where a rule has thousands of values.
        let step = (pieces.len() / PIECES_MAX).max(1);
        for (field, piece) in pieces.iter().step_by(step) {
            let value = |bytes: usize| record(&[("product", "p")], field, &repeated(piece, bytes));
            let ms = self.milliseconds(&mut scanner, &value(bytes));
            if worst.as_ref().is_none_or(|worst| ms > worst.ms) {
                let (ms, twice_ms) = self.grown(&mut scanner, ms, &value(bytes), &value(2 * bytes));
                worst =
                    Some(Cost { rule: rule.id.to_string(), field: field.clone(), piece: piece.clone(), ms, twice_ms });
            }
        }
        worst
    }

    /// Values of all rules' texts at once, by the routes with most rules.
    fn against_all(&mut self, parsed: &Parsed, bytes: usize) -> Vec<Cost> {
        let mut by_field: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for rule in &parsed.rules {
            let mut pieces = BTreeSet::new();
            pieces_of(&rule.condition, &mut pieces);
            for (field, piece) in pieces {
                by_field.entry(field).or_default().insert(piece);
            }
        }
        let mut fields: Vec<(String, BTreeSet<String>)> = by_field.into_iter().collect();
        fields.sort_by_key(|(_, pieces)| std::cmp::Reverse(pieces.len()));
        let (rules, _problems) = RuleSet::compile(parsed.clone(), &Options::default());
        let mut scanner = Scanner::new(Arc::new(rules));
        let sysmon = "Microsoft-Windows-Sysmon/Operational";
        let powershell = "Microsoft-Windows-PowerShell/Operational";
        let routes =
            [(sysmon, "1"), ("Security", "4688"), (sysmon, "13"), (sysmon, "11"), (sysmon, "7"), (powershell, "4104")];
        let mut costs = Vec::new();
        for (field, pieces) in fields.iter().take(12) {
            let every: String = pieces.iter().map(String::as_str).collect();
            let last = |piece: &String| piece.chars().last().map_or(0, char::len_utf8);
            let almost: String = pieces.iter().filter_map(|piece| piece.get(..piece.len() - last(piece))).collect();
            let grams: String = pieces.iter().map(|piece| piece.chars().take(4).collect::<String>()).collect();
            for (channel, code) in routes {
                for piece in [&every, &almost, &grams] {
                    let value = |bytes: usize| {
                        record(&[("Channel", channel), ("EventID", code)], field, &repeated(piece, bytes))
                    };
                    let ms = self.milliseconds(&mut scanner, &value(bytes));
                    let (ms, twice_ms) = self.grown(&mut scanner, ms, &value(bytes), &value(2 * bytes));
                    let rule = format!("all, by {channel} {code}");
                    costs.push(Cost { rule, field: field.clone(), piece: piece.clone(), ms, twice_ms });
                }
            }
        }
        costs
    }

    /// What a value and one of twice its length cost. What seems to grow too fast is measured again: other work on the
    /// machine can only make a figure larger, and each time it may be the other of the two.
    fn grown(&mut self, scanner: &mut Scanner, ms: f64, once: &Bytes, twice: &Bytes) -> (f64, f64) {
        let (mut ms, mut twice_ms) = (ms, self.milliseconds(scanner, twice));
        for _ in 0..5 {
            if twice_ms <= TWICE * ms {
                break;
            }
            ms = ms.min(self.milliseconds(scanner, once));
            twice_ms = twice_ms.min(self.milliseconds(scanner, twice));
        }
        (ms, twice_ms)
    }

    /// From bytes to hits, in milliseconds of CPU time.
    fn milliseconds(&mut self, scanner: &mut Scanner, bytes: &Bytes) -> f64 {
        let record = Record { origin: Arc::clone(&self.origin), position: Position::default(), bytes: bytes.clone() };
        let mut hits = Vec::new();
        let mut best = f64::INFINITY;
        for _ in 0..3 {
            let begin = cpu_ms();
            self.decoded.clear();
            self.decoder.decode(&record, &mut self.decoded);
            for event in &self.decoded.events {
                scanner.scan(event, &mut hits);
            }
            best = best.min(cpu_ms() - begin);
            hits.clear();
        }
        assert!(self.decoded.rejects.is_empty(), "the records of this bench are valid: {:?}", self.decoded.rejects);
        best
    }
}

fn record(members: &[(&str, &str)], field: &str, value: &str) -> Bytes {
    let mut members: serde_json::Map<String, serde_json::Value> =
        members.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    members.insert(field.to_owned(), json!(value));
    Bytes::from(serde_json::Value::Object(members).to_string())
}

fn repeated(piece: &str, bytes: usize) -> String {
    let mut value = piece.repeat(bytes.div_ceil(piece.len().max(1)));
    let end = (0..=bytes.min(value.len())).rev().find(|end| value.is_char_boundary(*end));
    value.truncate(end.unwrap_or(0));
    value
}

/// What values against a condition are made of, each with the field it is for.
fn pieces_of(expr: &Expr, pieces: &mut BTreeSet<(String, String)>) {
    match expr {
        Expr::All(list) | Expr::Any(list) => list.iter().for_each(|expr| pieces_of(expr, pieces)),
        Expr::Not(expr) => pieces_of(expr, pieces),
        Expr::Test(test) => {
            let field = test.field.as_deref().unwrap_or("F").to_owned();
            let mut add = |piece: String| {
                if !piece.is_empty() {
                    pieces.insert((field.clone(), piece));
                }
            };
            match &test.matcher {
                Matcher::Text { pattern, .. } => {
                    let texts: Vec<&str> = pattern
                        .parts
                        .iter()
                        .filter_map(|part| if let Part::Text(text) = part { Some(text.as_str()) } else { None })
                        .collect();
                    for text in &texts {
                        add((*text).to_owned());
                        add(without_last(text));
                        add(text.chars().take(4).collect());
                        add(text.chars().take(1).collect());
                    }
                    // Globs: all pieces but the last, so that every `*` has many places to try.
                    if let [first @ .., last] = texts.as_slice()
                        && !first.is_empty()
                    {
                        add(first.concat() + &without_last(last));
                    }
                }
                Matcher::Regex(regex) => {
                    let source = regex.as_str();
                    let words = source.split(|c: char| !(c.is_alphanumeric() || " .-/:=".contains(c)));
                    words.filter(|word| word.len() > 1).for_each(|word| add(word.to_owned()));
                    ["a", "A1", ".", " ", "0", "\\", "\"", "('a' + 'b')", "${a}", "%a%"]
                        .into_iter()
                        .for_each(|piece| add(piece.to_owned()));
                    add(source.to_owned());
                }
                Matcher::Cidr(_) => add("10.0.0.1".to_owned()),
                Matcher::Compare(..) => add("9".to_owned()),
                Matcher::Time(..) => add("2026-01-05T14:00:00Z".to_owned()),
                _ => add("a".to_owned()),
            }
        }
    }
}

fn without_last(text: &str) -> String {
    let mut chars = text.chars();
    chars.next_back();
    chars.as_str().to_owned()
}

#[allow(clippy::as_conversions, clippy::cast_precision_loss)] // a figure for people
fn cpu_ms() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}
