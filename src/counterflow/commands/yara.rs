//! `counterflow yara`: files scanned with YARA rules, each match as a row.
//!
//! Bounded: a file's size, a scan's time, the depth of folders; links found in folders are not followed. What was not
//! scanned is told, one line each, and then the command ends with 1.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use cf_sigma::{Severity, rule::Rule};
use serde_json::{Value, json};

use crate::{
    cli::{Cli, YaraArguments},
    output::{self, Exit, Format},
    rules,
};

/// Folders within folders.
const DEPTH_MAX: usize = 64;

/// Runs it.
pub(crate) fn run(cli: &Cli, arguments: &YaraArguments) -> Result<Exit> {
    let mut texts = rules::read(&arguments.rules)?;
    texts.retain(|text| rules::is_yara(&text.file));
    if texts.is_empty() {
        bail!("there are no YARA files (*.yar, *.yara) in what --rules names");
    }
    let limits = cf_yara::Limits {
        scan_time: Duration::from_secs(arguments.seconds_max),
        value_bytes_max: usize::MAX,
        ..cf_yara::Limits::default()
    };
    let read = cf_yara::read(&texts, &limits);
    let refused = read.problems.iter().filter(|problem| problem.severity == Severity::Error);
    let errors = refused.inspect(|problem| output::note(&format!("error: {problem}"))).count();
    output::note(&format!("{} rules loaded, {errors} problems", read.rules.len()));

    let mut scan = Scan { read: &read, bytes_max: arguments.size_max << 20, files: 0, matches: 0, not_scanned: 0 };
    let mut rows = Vec::new();
    for path in &arguments.paths {
        scan.path(path, 0, &mut rows);
    }
    let columns = ["file", "rule_id", "title", "level", "strings"];
    output::ignore_closed_pipe(output::rows(Format::or_default(cli.output), &columns, rows))?;
    let Scan { files, matches, not_scanned, .. } = scan;
    output::note(&format!("{files} files, {matches} matches, {not_scanned} not scanned"));
    Ok(if errors == 0 && not_scanned == 0 { Exit::Ok } else { Exit::Problems })
}

struct Scan<'a> {
    read: &'a cf_yara::Read,
    bytes_max: u64,
    files: u64,
    matches: u64,
    not_scanned: u64,
}

impl Scan<'_> {
    /// A path that a person named may be a link; one that was found may not.
    fn path(&mut self, path: &Path, depth: usize, rows: &mut Vec<Value>) {
        let meta = if depth == 0 { fs::metadata(path) } else { fs::symlink_metadata(path) };
        match meta {
            Err(error) => self.leave(path, &error.to_string()),
            Ok(meta) if meta.is_dir() && depth >= DEPTH_MAX => self.leave(path, "folders are nested too deep"),
            Ok(meta) if meta.is_dir() => self.folder(path, depth, rows),
            Ok(meta) if meta.is_file() => self.file(path, rows),
            Ok(meta) if meta.is_symlink() => {}
            Ok(_) => self.leave(path, "it is no file"),
        }
    }

    fn folder(&mut self, path: &Path, depth: usize, rows: &mut Vec<Value>) {
        let listing = fs::read_dir(path).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
        let mut entries: Vec<PathBuf> = match listing {
            Ok(entries) => entries,
            Err(error) => return self.leave(path, &error.to_string()),
        };
        entries.sort();
        for entry in entries {
            self.path(&entry, depth + 1, rows);
        }
    }

    fn file(&mut self, path: &Path, rows: &mut Vec<Value>) {
        let bytes = match read_file(path, self.bytes_max) {
            Ok(bytes) => bytes,
            Err(error) => return self.leave(path, &format!("{error:#}")),
        };
        self.files += 1;
        let scan = self.read.engine.scan(&bytes);
        if scan.timed_out {
            self.leave(path, "the scan ran out of time; what it found until then is shown");
        }
        if scan.failed {
            self.leave(path, "the engine failed on it");
        }
        for found in &scan.found {
            let Some(rule) = self.read.rules.get(found.rule) else { continue };
            self.matches += 1;
            rows.push(row(path, rule, &found.strings));
        }
    }

    fn leave(&mut self, path: &Path, why: &str) {
        self.not_scanned += 1;
        output::note(&format!("error: could not scan {} to its end: {why}", path.display()));
    }
}

fn read_file(path: &Path, bytes_max: u64) -> Result<Vec<u8>> {
    let file = fs::File::open(path)?;
    let mut bytes = Vec::new();
    // The size may grow while it is read, and special files have none.
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes).context("could not read it")?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > bytes_max {
        bail!("it has more than {} MiB; --size-max allows more", bytes_max >> 20);
    }
    Ok(bytes)
}

fn row(path: &Path, rule: &Rule, strings: &[cf_yara::FoundString]) -> Value {
    let strings = strings.iter().map(
        |string| json!({ "name": format!("${}", string.name), "offset": string.offset, "text": shown(&string.bytes) }),
    );
    json!({
        "file": path.display().to_string(), "rule_id": rule.id, "title": rule.title, "level": rule.level,
        "tags": rule.tags, "rule_file": rule.file, "rule_line": rule.line, "strings": strings.collect::<Vec<_>>(),
    })
}

/// Bytes for people: what is no printable ASCII as `\xNN`.
fn shown(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| std::ascii::escape_default(*byte)).map(char::from).collect()
}
