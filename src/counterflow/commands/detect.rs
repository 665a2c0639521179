//! `counterflow detect`: every (rule, event) pair as a line, in the order of the input. No state, all cores.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
};

use anyhow::Result;
use cf_ingest::{Decoded, Decoder, SourceTable, Want};
use cf_sigma::{RuleSet, Scanner};
use cf_types::{Event, Record};
use serde::Serialize;

use super::rules;
use crate::{
    cli::{Cli, DetectArguments},
    input::{BATCH_RECORDS, Input},
    output::{self, Exit, Format},
};

#[derive(Serialize)]
struct Pair<'a> {
    rule_id: &'a str,
    title: &'a str,
    level: cf_types::Level,
    file: &'a str,
    line: u64,
    time: cf_types::Time,
    event_id: String,
}

/// What a worker makes of a batch.
#[derive(Default)]
struct Found {
    lines: Vec<u8>,
    events: u64,
    pairs: u64,
    rejects: u64,
    first_reject: Option<String>,
}

/// Runs it.
pub(crate) fn run(cli: &Cli, arguments: &DetectArguments) -> Result<Exit> {
    let loaded = rules::load(&arguments.rules)?;
    let mut input = Input::new(&arguments.files, arguments.year);
    let format = Format::or_default(cli.output);
    let total = detect(&mut input, &loaded.rules, format)?;
    output::note(&format!("{} events, {} detections, {} rejects", total.events, total.pairs, total.rejects));
    if let Some(reject) = total.first_reject {
        output::note(&format!("first reject: {reject}"));
    }
    rules::report_scans();
    let bad = input.unreadable > 0 || (arguments.rules.strict && loaded.errors() > 0);
    Ok(if bad { Exit::Problems } else { Exit::Ok })
}

fn detect(input: &mut Input, rules: &Arc<RuleSet>, format: Format) -> Result<Found> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let (batches, work) = mpsc::sync_channel::<(u64, Vec<Record>)>(cores * 2);
    let work = Mutex::new(work);
    let (founds, results) = mpsc::sync_channel::<(u64, Found)>(cores * 2);
    thread::scope(|scope| {
        for _ in 0..cores {
            let (work, founds) = (&work, founds.clone());
            scope.spawn(move || {
                let mut worker = Worker::new(rules, format);
                loop {
                    let next = work.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok((number, records)) = next else { break };
                    if founds.send((number, worker.find(&records))).is_err() {
                        break; // the reader of our output is gone
                    }
                }
            });
        }
        drop(founds);
        let writing = scope.spawn(move || write_in_order(&results));
        for number in 0.. {
            let records = input.batch(BATCH_RECORDS);
            if records.is_empty() || batches.send((number, records)).is_err() || writing.is_finished() {
                break;
            }
        }
        drop(batches);
        writing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Writes what was found in the order of the input, whichever worker was first.
fn write_in_order(results: &mpsc::Receiver<(u64, Found)>) -> Result<Found> {
    let mut out = io::BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let mut waiting = BTreeMap::new();
    let mut next = 0;
    let mut total = Found::default();
    for (number, found) in results {
        waiting.insert(number, found);
        while let Some(found) = waiting.remove(&next) {
            next += 1;
            total.events += found.events;
            total.pairs += found.pairs;
            total.rejects += found.rejects;
            total.first_reject = total.first_reject.or(found.first_reject);
            match out.write_all(&found.lines) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(total),
                result => result?,
            }
        }
    }
    output::ignore_closed_pipe(out.flush())?;
    Ok(total)
}

struct Worker<'a> {
    rules: &'a RuleSet,
    scanner: Scanner,
    decoder: Decoder,
    decoded: Decoded,
    format: Format,
}

impl<'a> Worker<'a> {
    fn new(rules: &'a Arc<RuleSet>, format: Format) -> Worker<'a> {
        Worker {
            rules,
            scanner: Scanner::new(Arc::clone(rules)),
            decoder: Decoder::with(Arc::new(SourceTable::default()), Want { entities: false }),
            decoded: Decoded::default(),
            format,
        }
    }

    fn find(&mut self, records: &[Record]) -> Found {
        let mut found = Found::default();
        let mut hits = Vec::new();
        for record in records {
            self.decoded.clear();
            self.decoder.decode(record, &mut self.decoded);
            found.events += u64::try_from(self.decoded.events.len()).unwrap_or(0);
            for event in &self.decoded.events {
                hits.clear();
                self.scanner.scan(event, &mut hits);
                for hit in &hits {
                    found.pairs += 1;
                    self.say(*hit, event, &mut found.lines);
                }
            }
            for reject in self.decoded.rejects.drain(..) {
                found.rejects += 1;
                let position = &reject.position;
                found.first_reject.get_or_insert_with(|| {
                    format!("{}:{}: {}: {}", position.origin, position.line, reject.code.as_str(), reject.reason)
                });
            }
        }
        found
    }

    fn say(&self, hit: cf_sigma::RuleIndex, event: &Event, lines: &mut Vec<u8>) {
        let Some(rule) = self.rules.rule(hit) else { return };
        let pair = Pair {
            rule_id: &rule.id,
            title: &rule.title,
            level: rule.level,
            file: &event.position.origin,
            line: event.position.line,
            time: event.time,
            event_id: event.shown_id(),
        };
        // Writing to memory does not fail.
        let written = match self.format {
            Format::Json | Format::Sarif => serde_json::to_writer(&mut *lines, &pair).map_err(io::Error::from),
            Format::Table => {
                let title = output::printable(pair.title);
                write!(lines, "{}  {:<13}  {title}  {}:{}", pair.time, pair.level.as_str(), pair.file, pair.line)
            }
            Format::Csv => {
                write!(lines, "{},{},{},{},{}", pair.rule_id, pair.level.as_str(), pair.time, pair.file, pair.line)
            }
        };
        debug_assert!(written.is_ok(), "memory takes it");
        lines.push(b'\n');
    }
}
