//! `match --rules PATH FILE`: prints a [`cf_benches::MatchReport`] as JSON. FILE holds one JSON document per line; `.zst`
//! is unpacked first.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use cf_benches::bench_match;
use cf_sigma::{Options, RuleSet, Text, parse};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (rules, file) = match arguments.as_slice() {
        [flag, rules, file] if flag == "--rules" => (rules, file),
        _ => bail!("usage: match --rules PATH FILE"),
    };
    let mut texts = Vec::new();
    collect(Path::new(rules), &mut texts)?;
    let (rules, _problems) = RuleSet::compile(parse(&texts), &Options::default());
    let mut raw = fs::read(file).with_context(|| format!("could not read {file}"))?;
    if raw.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        raw = zstd::decode_all(raw.as_slice()).with_context(|| format!("could not unpack {file}"))?;
    }
    let report = bench_match(Arc::new(rules), &raw);
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, &report)?;
    writeln!(out)?;
    Ok(())
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
