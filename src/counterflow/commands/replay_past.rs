//! `counterflow replay --data DIR` without files: the whole graph over what history holds.
//!
//! `known`: all events and all facts as known now (or as of a point), as one set; equal to a replay of the files that they
//! are from. `lived`: epoch by epoch, each with its events, rules, facts and idle sources; equal to the live run in all
//! that it told, and by `--into` in what its ledger and history say, too.

use std::{
    cell::RefCell,
    collections::VecDeque,
    io::{self, IsTerminal},
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use cf_engine::{EpochInput, Tap};
use cf_history::{Deliveries, Span};
use cf_ledger::{Ledger, Routes};
use cf_sigma::RuleSet;
use cf_types::{EpochOutput, EpochRecord, Row, Time};
use serde_json::json;

use super::{
    replay::{self, View},
    rules,
};
use crate::{
    bundle::{self, Bundle},
    cli::{Cli, PastArguments, PastMode, ReplayArguments},
    commit::Store,
    output::{self, Exit},
    past::{Decoding, Drive, Lived, Past, Point},
};

/// Records of an epoch where the epochs of then do not matter.
pub(crate) const EPOCH_RECORDS: usize = 16_384;

/// An epoch in flight, with its rules if they change.
type Flying = (EpochRecord, Option<Arc<RuleSet>>);

/// Runs it.
pub(crate) fn run(cli: &Cli, arguments: &ReplayArguments, data: &Path) -> Result<Exit> {
    if arguments.horizon.is_some() || arguments.cluster.processes.is_some() || arguments.year.is_some() {
        bail!("--horizon, --year and --processes are for files; history knows its times, and --mode lived its horizon");
    }
    let past = Past::open(cli, data)?;
    let point = past.point(arguments.past.as_of.as_deref())?;
    let (view, lost) = match arguments.past.mode {
        PastMode::Known => known(&past, arguments, point)?,
        PastMode::Lived => lived(&past, arguments, point)?,
    };
    replay::print(cli, arguments, &view)?;
    output::note(&format!("{} detections, {} alerts as of epoch {}", view.detections, view.alerts.len(), point.epoch));
    if lost > 0 {
        output::note(&format!("warning: {lost} events of history do not decode any more and were left out"));
    }
    rules::report_scans();
    Ok(if lost > 0 { Exit::Problems } else { Exit::Ok })
}

/// Replays a bundle, and says whether it comes to the alerts of its incident.
pub(crate) fn bundle(cli: &Cli, arguments: &ReplayArguments, path: &Path) -> Result<Exit> {
    let Bundle { manifest, texts, facts, events, found } = bundle::read(path)?;
    let settings = manifest.settings.clone().into_settings(crate::config::load(cli, None)?.settings);
    let options = settings.rules.options(settings.detection.fold_window_s)?;
    let (rules, _problems) = crate::rules::compile(&texts, &options);
    let mut decoding = Decoding::new(&crate::config::sources(&settings)?, usize::from(arguments.workers));
    let mut drive = Drive::start(arguments.workers, crate::past::bounded_graph(&settings)?, None)?;
    let mut view = View::of(&rules);
    let facts = facts.into_iter().map(|fact| (fact, 1)).collect();
    let mut next = EpochInput { epoch: 1, rules: Some(rules), facts, found, ..EpochInput::default() };
    for part in events.chunks(EPOCH_RECORDS) {
        next.events = decoding.events(part);
        let after = EpochInput { epoch: next.epoch + 1, ..EpochInput::default() };
        drive.feed(std::mem::replace(&mut next, after), &mut |output| view.take(output))?;
    }
    next.ended = true;
    drive.feed(next, &mut |output| view.take(output))?;
    drive.finish(&mut |output| view.take(output))?;
    replay::print(cli, arguments, &view)?;
    let found = view.alerts.iter().map(|(id, alert)| (*id, alert.count)).collect();
    let missing = bundle::missing(&manifest, &found);
    let (all, incident) = (manifest.alerts.len(), manifest.incident);
    if missing.is_empty() && decoding.lost == 0 {
        output::note(&format!("all {all} alerts of incident {incident} are as they were"));
        return Ok(Exit::Ok);
    }
    for id in &missing {
        output::note(&format!("alert {id} of incident {incident} is not as it was"));
    }
    output::note(&format!("{} of {all} alerts differ, {} events do not decode", missing.len(), decoding.lost));
    Ok(Exit::Problems)
}

/// The rules of the command line, or those that were in force.
fn rules_of(past: &Past, arguments: &ReplayArguments, point: Point) -> Result<Arc<RuleSet>> {
    if arguments.rules.rules.is_empty() {
        return Ok(past.rules_of(point.epoch)?.set);
    }
    Ok(rules::load(&arguments.rules)?.rules)
}

fn known(past: &Past, arguments: &ReplayArguments, point: Point) -> Result<(View, u64)> {
    let PastArguments { from, to, speed, into, .. } = &arguments.past;
    if speed.is_some() || into.is_some() {
        bail!("--speed and --into follow the epochs of then: they are for --mode lived");
    }
    let rules = rules_of(past, arguments, point)?;
    let span = Span { from: *from, to: *to, upto: point.epoch };
    let deliveries = past.runtime.block_on(Box::pin(Deliveries::open(&past.history()?, span)))?;
    let sources = crate::config::sources(&past.settings)?;
    let mut decoding = Decoding::new(&sources, usize::from(arguments.workers));
    let mut drive = Drive::start(arguments.workers, past.bounded_graph()?, None)?;
    let mut view = View::of(&rules);
    let facts = past.facts_at(point.control)?.into_iter().map(|fact| (fact, 1)).collect();
    // Hunts are not asked again: what they found is known, as facts are.
    let found = past.hunts_found(point.control, *from, *to)?;
    let mut next = EpochInput { epoch: 1, rules: Some(rules), facts, found, ..EpochInput::default() };
    let progress = progress(deliveries.files().iter().map(|file| file.rows).sum());
    let mut waiting = Vec::new();
    for file in deliveries.files() {
        for batch in deliveries.read(file)? {
            waiting.extend(batch?);
            if waiting.len() >= EPOCH_RECORDS {
                progress.inc(u64::try_from(waiting.len()).unwrap_or(0));
                next.events = decoding.events(&std::mem::take(&mut waiting));
                let after = EpochInput { epoch: next.epoch + 1, ..EpochInput::default() };
                let input = std::mem::replace(&mut next, after);
                drive.feed(input, &mut |output| view.take(output))?;
            }
        }
    }
    next.events = decoding.events(&waiting);
    next.ended = true;
    drive.feed(next, &mut |output| view.take(output))?;
    drive.finish(&mut |output| view.take(output))?;
    progress.finish_and_clear();
    Ok((view, decoding.lost))
}

fn lived(past: &Past, arguments: &ReplayArguments, point: Point) -> Result<(View, u64)> {
    if !arguments.rules.rules.is_empty() {
        bail!("--mode lived has the rules of then; leave --rules out, or see `rules backtest`");
    }
    let PastArguments { from, to, speed, into, .. } = &arguments.past;
    let mut into = into.as_deref().map(Into::open).transpose()?;
    let tap = into.as_ref().map(|into| -> Arc<dyn Tap> { into.0.tap() });
    let mut lived = Lived::open(past, point, usize::from(arguments.workers), None)?;
    let first = lived.first().cloned();
    if let Some(first) = first.as_ref().filter(|first| first.epoch > 1) {
        if into.is_some() {
            bail!("history begins with epoch {}: a ledger cannot be made again from it", first.epoch);
        }
        output::note(&format!("warning: history begins with epoch {}; what was before is not known", first.epoch));
    }
    let mut drive = Drive::start(arguments.workers, past.lived_graph()?, tap)?;
    let mut view = View::default();
    let flying: RefCell<VecDeque<Flying>> = RefCell::default();
    let progress = progress(point.epoch);
    let pace = speed.zip(first.as_ref()).map(|(speed, first)| Pace::new(speed, first.wall));
    let columns = into.as_ref().map(|into| into.0.columns());
    let mut take = |output: EpochOutput| {
        let (record, rules) = flying.borrow_mut().pop_front().context("an output without its epoch")?;
        if let Some(rules) = &rules {
            view.members.set_rules(rules.episode_rules());
        }
        view.members.forget_rules(&record.begun);
        if let Some(into) = &mut into {
            into.apply(&record, rules.as_deref(), &output)?;
        }
        if speed.is_some() {
            tell(&record, &output)?;
        }
        view.take(output)
    };
    while let Some(step) = lived.next()? {
        if let Some(pace) = &pace {
            // What came before is told before its successor is waited for.
            drive.drain(0, &mut take)?;
            pace.wait_for(step.record.wall);
        }
        if let (Some(columns), Some(rules)) = (&columns, &step.input.rules) {
            columns(rules);
        }
        flying.borrow_mut().push_back((step.record, step.input.rules.clone()));
        drive.feed(step.input, &mut take)?;
        progress.inc(1);
    }
    drive.finish(&mut take)?;
    progress.finish_and_clear();
    if let Some(into) = into {
        into.0.close()?;
    }
    view.keep_within(*from, *to);
    Ok((view, lived.decoding.lost))
}

/// Ledger and history of a folder that the past is lived into again.
struct Into(Store);

impl Into {
    fn open(folder: &Path) -> Result<Into> {
        let runtime = Arc::new(tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?);
        let ledger = runtime.block_on(Ledger::open(folder))?;
        let upper = runtime.block_on(ledger.engine())?.upper;
        if upper > 1 {
            bail!("{} already holds {} epochs; --into wants a folder of its own", folder.display(), upper - 1);
        }
        Ok(Into(Store::open(runtime, ledger, &cf_history::Place::of_data(folder)?, Routes::default())?))
    }

    /// The same transaction as then, but for who made it.
    fn apply(&mut self, record: &EpochRecord, rules: Option<&RuleSet>, output: &EpochOutput) -> Result<()> {
        if let Some(rules) = rules {
            self.0.set_rules(rules);
        }
        let record = EpochRecord { generation: self.0.generation, ..record.clone() };
        self.0.apply_record(&record, output).map(drop)
    }
}

/// Lets epochs come as fast as they came then, or so many times faster.
struct Pace {
    speed: f64,
    first: Time,
    began: Instant,
}

impl Pace {
    fn new(speed: f64, first: Time) -> Pace {
        Pace { speed, first, began: Instant::now() }
    }

    fn wait_for(&self, wall: Time) {
        let then = Duration::from_micros(u64::try_from(wall.micros().saturating_sub(self.first.micros())).unwrap_or(0));
        let due = then.div_f64(self.speed);
        thread::sleep(due.saturating_sub(self.began.elapsed()));
    }
}

/// Says what an epoch changed, as it comes.
fn tell(record: &EpochRecord, output: &EpochOutput) -> Result<()> {
    for (row, diff) in &output.rows {
        if let Row::Alert(alert) = row {
            let what = if *diff > 0 { "came" } else { "went" };
            let line = json!({
                "epoch": record.epoch, "wall": record.wall, "what": what, "alert_id": alert.id, "rule_id": alert.rule,
                "title": alert.title, "state": alert.state, "group": alert.group.to_json(), "count": alert.count,
            });
            output::ignore_closed_pipe(output::text(&format!("{line}\n")))?;
        }
    }
    Ok(())
}

/// A bar on a terminal, nothing in a pipe.
pub(crate) fn progress(length: u64) -> indicatif::ProgressBar {
    if !io::stderr().is_terminal() {
        return indicatif::ProgressBar::hidden();
    }
    let style = indicatif::ProgressStyle::with_template("{bar:40} {percent:>3} % {pos}/{len} {elapsed} {msg}");
    let bar = indicatif::ProgressBar::new(length);
    style.map_or(bar.clone(), |style| bar.with_style(style))
}
