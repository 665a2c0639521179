//! `match --rules PATH FILE`: prints a [`cf_benches::MatchReport`] as JSON. FILE holds one JSON document per line; `.zst`
//! is unpacked first.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use anyhow::{Context, Result, bail};
use cf_benches::{MatchReport, bench_match};
use cf_sigma::{Options, RuleSet, Text, parse};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (rules, file) = match arguments.as_slice() {
        [flag, rules, file] if flag == "--rules" => (rules, file),
        _ => bail!("usage: match --rules PATH FILE"),
    };
    let mut texts = Vec::new();
    collect(Path::new(rules), &mut texts)?;
    let began = (Instant::now(), resident_bytes());
    let parsed = parse(&texts);
    let parsed_at = began.0.elapsed();
    let parsed_mb = resident_bytes().saturating_sub(began.1) >> 20;
    let (rules, _problems) = RuleSet::compile(parsed, &Options::default());
    let load_ms = began.0.elapsed().as_secs_f64() * 1e3;
    let resident_mb = resident_bytes().saturating_sub(began.1) >> 20;
    let change_ms = change_ms(&rules, &texts);
    let load = Load { change_ms, parse_ms: parsed_at.as_secs_f64() * 1e3, load_ms, parsed_mb, resident_mb };
    let mut raw = fs::read(file).with_context(|| format!("could not read {file}"))?;
    if raw.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        raw = zstd::decode_all(raw.as_slice()).with_context(|| format!("could not unpack {file}"))?;
    }
    let report = Report { load, report: bench_match(Arc::new(rules), &raw) };
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, &report)?;
    writeln!(out)?;
    Ok(())
}

/// What loading the rules took.
#[derive(serde::Serialize)]
struct Load {
    /// Milliseconds from text to parsed rules.
    parse_ms: f64,
    /// Milliseconds from text to the matcher; includes the former.
    load_ms: f64,
    /// Milliseconds to change one rule of the largest log source: the longest of 20.
    change_ms: f64,
    /// Megabytes of memory that parsing added.
    parsed_mb: u64,
    /// Megabytes of memory that parsing and compiling added.
    resident_mb: u64,
}

/// Changes rules for process creation one after the other, each in the rule set as it was loaded.
fn change_ms(rules: &RuleSet, texts: &[Text]) -> f64 {
    let largest = texts.iter().filter(|text| text.file.contains("process_creation")).take(20);
    let times = largest.map(|text| {
        let text = Text { file: Arc::clone(&text.file), text: format!("{}\n", text.text) };
        let began = Instant::now();
        let (changed, _problems) = rules.changed(vec![text], &[]);
        let time = began.elapsed().as_secs_f64() * 1e3;
        drop(changed);
        time
    });
    times.fold(0.0, f64::max)
}

#[derive(serde::Serialize)]
struct Report {
    #[serde(flatten)]
    load: Load,
    #[serde(flatten)]
    report: MatchReport,
}

/// Memory of this process that is in use (proc(5), statm).
fn resident_bytes() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4_096
}

/// All rule files below a path, in the order of their names.
fn collect(path: &Path, texts: &mut Vec<Text>) -> Result<()> {
    if path.is_dir() {
        let entries = fs::read_dir(path).with_context(|| format!("could not read {}", path.display()))?;
        let mut inner: Vec<PathBuf> = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
        inner.sort();
        return inner.iter().try_for_each(|path| collect(path, texts));
    }
    if path.extension().is_some_and(|extension| extension == "yml" || extension == "yaml") {
        let text = fs::read_to_string(path).with_context(|| format!("could not read {}", path.display()))?;
        texts.push(Text { file: path.display().to_string().into(), text });
    }
    Ok(())
}
