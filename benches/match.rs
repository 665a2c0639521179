//! What loading, changing and matching cost, as JSON.
//!
//! `match --rules PATH [--first N | --copies N] [--flat | --mix N] [FILE]`: FILE holds one JSON document per line; `.zst` is
//! unpacked first. `--first` takes a sample of the rules, `--copies` as many mutated copies; `--flat` flattens nested
//! Windows events, `--mix` generates that many benign ones instead of reading a file.

use std::{fs, io::Write, path::Path, sync::Arc, time::Instant};

use anyhow::{Context, Result, bail};
use cf_benches::{MatchReport, bench_match, input};
use cf_sigma::{Options, RuleSet, Text, parse};
use rustix::time::{ClockId, clock_gettime};

fn main() -> Result<()> {
    let asked = Asked::read(std::env::args().skip(1))?;
    let texts = asked.rules()?;
    let began = (Instant::now(), resident_bytes());
    let cpu_began = cpu_ms(ClockId::ProcessCPUTime);
    let parsed = parse(&texts);
    let parsed_at = began.0.elapsed();
    let parsed_mb = resident_bytes().saturating_sub(began.1) >> 20;
    let (rules, _problems) = RuleSet::compile(parsed, &Options::default());
    let load_ms = began.0.elapsed().as_secs_f64() * 1e3;
    let load_cpu_ms = cpu_ms(ClockId::ProcessCPUTime) - cpu_began;
    let resident_mb = resident_bytes().saturating_sub(began.1) >> 20;
    let change_ms = change_ms(&rules, &texts);
    let load =
        Load { change_ms, parse_ms: parsed_at.as_secs_f64() * 1e3, load_ms, load_cpu_ms, parsed_mb, resident_mb };
    let raw = asked.events()?;
    let report = Report { load, report: bench_match(Arc::new(rules), &raw) };
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, &report)?;
    writeln!(out)?;
    Ok(())
}

/// What the command line asks for.
#[derive(Default)]
struct Asked {
    rules: Vec<String>,
    first: Option<usize>,
    copies: Option<usize>,
    flat: bool,
    mix: Option<u64>,
    file: Option<String>,
}

impl Asked {
    fn read(mut arguments: impl Iterator<Item = String>) -> Result<Asked> {
        let mut asked = Asked::default();
        while let Some(word) = arguments.next() {
            let mut value = || arguments.next().with_context(|| format!("{word} wants a value"));
            match word.as_str() {
                "--rules" => asked.rules.push(value()?),
                "--first" => asked.first = Some(value()?.parse()?),
                "--copies" => asked.copies = Some(value()?.parse()?),
                "--mix" => asked.mix = Some(value()?.parse()?),
                "--flat" => asked.flat = true,
                _ if asked.file.is_none() && !word.starts_with('-') => asked.file = Some(word),
                _ => bail!("usage: match --rules PATH [--first N | --copies N] [--flat | --mix N] [FILE]"),
            }
        }
        Ok(asked)
    }

    fn rules(&self) -> Result<Vec<Text>> {
        let mut texts = Vec::new();
        for path in &self.rules {
            texts.extend(input::rule_texts(Path::new(path))?);
        }
        if let Some(first) = self.first {
            texts = input::sample(texts, first);
        }
        Ok(input::copies(texts, self.copies.unwrap_or(1)))
    }

    fn events(&self) -> Result<Vec<u8>> {
        if let Some(events) = self.mix {
            return Ok(input::benign_mix(events, 20_261_122));
        }
        let file = self.file.as_deref().context("which events? give a file, or --mix N")?;
        let mut raw = fs::read(file).with_context(|| format!("could not read {file}"))?;
        if raw.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            raw = zstd::decode_all(raw.as_slice()).with_context(|| format!("could not unpack {file}"))?;
        }
        Ok(if self.flat { input::flat(&raw) } else { raw })
    }
}

/// What loading the rules took.
#[derive(serde::Serialize)]
struct Load {
    /// Milliseconds from text to parsed rules.
    parse_ms: f64,
    /// Milliseconds from text to the matcher; includes the former.
    load_ms: f64,
    /// The same in CPU time of all threads: another process on the machine does not count.
    load_cpu_ms: f64,
    /// Milliseconds of CPU time to change one rule of the largest log source: the longest of 20.
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
        let began = cpu_ms(ClockId::ThreadCPUTime);
        let (changed, _problems) = rules.changed(vec![text], &[]);
        let time = cpu_ms(ClockId::ThreadCPUTime) - began;
        drop(changed);
        time
    });
    times.fold(0.0, f64::max)
}

#[allow(clippy::as_conversions, clippy::cast_precision_loss)] // a figure for people
fn cpu_ms(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
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
