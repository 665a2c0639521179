//! All pairs of the public rules and real events, by the engine and by the oracle.
//!
//! CI takes a sample; `scripts/campaign pairs` sets COUNTERFLOW_ALL_PAIRS and takes all. The oracle flattens a record
//! itself where it knows its form, so that decoder and matcher are held to it together; then the fields must agree too.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

use cf_ingest::{Decoded, Decoder, FileOptions, SourceTable};
use cf_oracle::{Flat, Oracle};
use cf_sigma::Scanner;
use cf_types::{Event, Record, Time};

use crate::world::{cases_dir, hits, public_rules, regression_dir, shared, sources};

/// Records that a thread takes at once.
const BATCH: usize = 512;
/// Differences that are shown.
const SHOWN: usize = 20;
/// Characters of a record that are shown.
const SHOWN_CHARS: usize = 1_000;

fn oracle() -> &'static Oracle {
    static ORACLE: OnceLock<Oracle> = OnceLock::new();
    ORACLE.get_or_init(|| {
        let public = public_rules().unwrap();
        Oracle::new(public.texts.iter().map(|text| text.text.as_str()), sources())
    })
}

#[derive(Default)]
struct Tally {
    events: AtomicUsize,
    flattened: AtomicUsize,
    pairs: AtomicUsize,
    rejects: AtomicUsize,
    differences: Mutex<Vec<String>>,
}

impl Tally {
    fn differ(&self, what: String) {
        self.differences.lock().unwrap().push(what);
    }
}

/// Meets each `step`th record of a file with all rules by both ways; all records in a campaign.
fn compare(path: &Path, step: usize, tally: &Tally) {
    let all = std::env::var("COUNTERFLOW_ALL_PAIRS").is_ok();
    let options = FileOptions::new(Time::from_seconds(1_700_000_000));
    let records = cf_ingest::file::open(path.to_str().unwrap(), &options).unwrap();
    let mut records = records.step_by(if all { 1 } else { step }).map(|record| record.unwrap()).peekable();
    let (send, receive) = mpsc::sync_channel::<Vec<Record>>(4);
    let receive = Mutex::new(receive);
    let take = || receive.lock().unwrap().recv().ok();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut side = Side::new();
                while let Some(batch) = take() {
                    side.meet(&batch, tally);
                }
            });
        }
        while records.peek().is_some() {
            send.send(records.by_ref().take(BATCH).collect()).unwrap();
        }
        drop(send);
    });
}

struct Side {
    decoder: Decoder,
    decoded: Decoded,
    scanner: Scanner,
}

impl Side {
    fn new() -> Side {
        Side {
            scanner: Scanner::new(Arc::clone(&public_rules().unwrap().rules)),
            decoder: Decoder::new(Arc::new(SourceTable::default())),
            decoded: Decoded::default(),
        }
    }

    fn meet(&mut self, batch: &[Record], tally: &Tally) {
        // From the second batch on by what the first ones taught: a plan changes no pair.
        self.scanner.publish();
        if let Some(planned) = self.scanner.rules().replanned() {
            self.scanner = Scanner::new(Arc::new(planned));
        }
        for record in batch {
            self.decoded.clear();
            self.decoder.decode(record, &mut self.decoded);
            tally.rejects.fetch_add(self.decoded.rejects.len(), Ordering::Relaxed);
            for event in &self.decoded.events {
                let found = hits(&mut self.scanner, event);
                tally.pairs.fetch_add(found.len(), Ordering::Relaxed);
                let met = tally.events.fetch_add(1, Ordering::Relaxed) + 1;
                if met.is_multiple_of(20_000) {
                    eprintln!("{met} events, {} pairs", tally.pairs.load(Ordering::Relaxed));
                }
                check_event(event, &found, tally);
            }
        }
    }
}

fn check_event(event: &Event, found: &[String], tally: &Tally) {
    let ours = cf_oracle::Event::of(event);
    let seen = match cf_oracle::flatten(&event.raw) {
        Flat::Event(flat) => {
            tally.flattened.fetch_add(1, Ordering::Relaxed);
            let (left, right) = (ours.asked_for(), flat.asked_for());
            if left != right {
                let only: Vec<_> = left.symmetric_difference(&right).collect();
                tally.differ(format!("fields {only:?} of {}", shown(event)));
            }
            flat
        }
        Flat::Other => ours,
        Flat::Invalid if ours.line.is_some() => ours,
        Flat::Invalid => return tally.differ(format!("decoded, but no JSON: {}", shown(event))),
    };
    let expect: BTreeSet<&str> = oracle().hits(&seen).into_iter().collect();
    let found: BTreeSet<&str> = found.iter().map(String::as_str).collect();
    let (more, less) = (found.difference(&expect), expect.difference(&found));
    let more: Vec<_> = more.map(|id| format!("+{id}")).collect();
    let less: Vec<_> = less.map(|id| format!("-{id}")).collect();
    if !(more.is_empty() && less.is_empty()) {
        tally.differ(format!("{} {} on {}", more.join(" "), less.join(" "), shown(event)));
    }
}

fn shown(event: &Event) -> String {
    let raw = String::from_utf8_lossy(&event.raw);
    format!("{}:{} {}", event.position.origin, event.position.line, raw.chars().take(SHOWN_CHARS).collect::<String>())
}

#[track_caller]
fn check(paths: &[PathBuf], step: usize) {
    if public_rules().is_none() {
        return;
    }
    let tally = Tally::default();
    paths.iter().for_each(|path| compare(path, step, &tally));
    let differences = tally.differences.into_inner().unwrap();
    eprintln!(
        "{} files: {} events ({} flattened by the oracle), {} pairs, {} rejects, {} differences",
        paths.len(),
        tally.events.into_inner(),
        tally.flattened.into_inner(),
        tally.pairs.into_inner(),
        tally.rejects.into_inner(),
        differences.len()
    );
    let shown: Vec<&String> = differences.iter().take(SHOWN).collect();
    assert!(
        shown.is_empty(),
        "engine and oracle differ (if the table of log sources has changed: tests/oracle/beyond.yml): {shown:#?}"
    );
}

#[track_caller]
fn check_file(file: &str, step: usize) {
    check(&shared(file).into_iter().collect::<Vec<_>>(), step);
}

/// All files below a folder, but what describes them.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut entries: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else if !(name == "expected.json" || name == "archive.tar" || name.ends_with(".yml") || name.ends_with(".md"))
        {
            files.push(path);
        }
    }
    files
}

#[test]
fn the_oracle_reads_the_same_rules() {
    let Some(public) = public_rules() else { return };
    // Those without a value for their placeholder.
    assert_eq!(oracle().refused().len(), 2, "{:#?}", oracle().refused());
    assert_eq!(oracle().len(), public.rules.rules().len());
}

#[test]
fn pairs_on_regression_cases_are_those_of_the_oracle() {
    let Some(dir) = regression_dir() else { return };
    check(&files(dir), 1);
}

#[test]
fn pairs_on_attacks_are_those_of_the_oracle() {
    check_file("events/evtx_attack_samples.jsonl.zst", 7);
}

#[test]
fn pairs_on_background_are_those_of_the_oracle() {
    check_file("events/otrf_windows_400k.jsonl.zst", 211);
}

#[test]
fn pairs_on_cloud_logs_are_those_of_the_oracle() {
    check_file("events/otrf_aws_cloudtrail.jsonl", 1);
}

#[test]
fn pairs_on_text_logs_are_those_of_the_oracle() {
    let names = ["otrf_linux_auditd.log", "apache_2k.log", "linux_2k.log", "openssh_2k.log"];
    let paths: Vec<PathBuf> = names.iter().filter_map(|name| shared(&format!("events/{name}"))).collect();
    check(&paths, 3);
}

#[test]
fn pairs_on_cases_of_many_applications_are_those_of_the_oracle() {
    let Some(dir) = cases_dir() else { return };
    check(&files(dir), 1);
}
