//! `counterflow replay`: the whole graph over files; when all is read, the final alerts sorted by id.
//!
//! The input is bounded, so nothing ages out (unless `--horizon` asks for it) and any order gives the same bytes.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use cf_dataflows::GraphOptions;
use cf_engine::{Cluster, Engine, EngineOptions, EpochInput, Tap, cluster::Runs};
use cf_ingest::SourceTable;
use cf_sigma::RuleSet;
use cf_types::{Alert, AlertId, AlertState, Epoch, EpochOutput, Event, Lineage, Member, Reject, Row, Time};
use serde_json::{Value, json};

use super::{replay_past, rules};
use crate::{
    cli::{Cli, ReplayArguments},
    cluster,
    input::Input,
    members::Members,
    output::{self, Exit, Format},
    rules::LoadedRules,
};

/// Records an epoch of a replay holds: large enough that the fixed cost of an epoch does not show.
const EPOCH_RECORDS: usize = 16_384;
/// Epochs in flight.
const IN_FLIGHT: u64 = 4;
/// Members printed from each end of an alert.
const MEMBERS_PER_END: usize = 500;
/// In a replay nothing is ahead of its receipt: files may be older than what they hold.
const MAX_AHEAD_S: i64 = 400 * 366 * 86_400;

/// Runs it.
pub(crate) fn run(cli: &Cli, arguments: &ReplayArguments) -> Result<Exit> {
    if let Some(bundle) = &arguments.bundle {
        return replay_past::bundle(cli, arguments, bundle);
    }
    if let (true, Some(data)) = (arguments.files.is_empty(), arguments.data.as_deref()) {
        return replay_past::run(cli, arguments, data);
    }
    if arguments.rules.rules.is_empty() {
        bail!("no rules are named; give --rules PATH");
    }
    if !arguments.past.is_default() {
        bail!("--mode, --from, --to, --as-of, --speed and --into are for history: give --data DIR and no files");
    }
    let loaded = rules::load(&arguments.rules)?;
    let mut input = Input::new(&arguments.files, arguments.year);
    let tap = Arc::new(ReplayTap::default());
    let mut store =
        arguments.data.as_deref().map(|data| crate::commit::Store::for_replay(data, &loaded)).transpose()?;
    let taps: Arc<dyn Tap> = match &store {
        Some(store) => Arc::new(Both(Arc::clone(&tap), store.tap())),
        None => Arc::<ReplayTap>::clone(&tap),
    };
    let mut engine = Engine::start(EngineOptions {
        workers: usize::from(arguments.workers),
        graph: GraphOptions { horizon_s: arguments.horizon, max_ahead_s: MAX_AHEAD_S, ..GraphOptions::default() },
        sources: Arc::new(SourceTable::default()),
        tap: taps,
        cluster: arguments.cluster.processes.as_deref().map(|list| others(list, arguments, &loaded)).transpose()?,
    })?;
    // Alerts come to the first process; the others compute their part of them.
    let is_first = arguments.cluster.process == 0;

    let mut view = View::of(&loaded.rules);
    let mut fed: Epoch = 0;
    let mut rules = Some(Arc::clone(&loaded.rules));
    // What later events could undo is decided by an epoch of its own, at the end.
    let waits = loaded.rules.episode_rules().iter().any(|rule| !rule.predicate.is_monotone());
    let progress = progress();
    loop {
        let records = input.batch(EPOCH_RECORDS);
        let ended = records.is_empty();
        if !ended || fed == 0 || waits {
            fed += 1;
            engine.feed(EpochInput { epoch: fed, records, rules: rules.take(), ended, ..EpochInput::default() })?;
        }
        progress.set_message(format!("{} MB read, {} alerts", input.bytes >> 20, view.alerts.len()));
        progress.tick();
        while fed - view.upto >= if ended { 1 } else { IN_FLIGHT } {
            if let Some(output) = engine.output(Duration::from_millis(200))? {
                if let Some(store) = &mut store {
                    store.apply(&output)?;
                }
                view.apply(output);
            }
        }
        if ended {
            break;
        }
    }
    engine.stop()?;
    progress.finish_and_clear();
    if arguments.horizon.is_some() && !tap.sorted() {
        bail!("the input is not sorted by time; with --horizon it must be, since what is late depends on the order");
    }
    if let Some(store) = store {
        store.close()?;
    }
    if is_first {
        print(cli, arguments, &view)?;
    }
    tap.report(&view);
    rules::report_scans();
    let bad = input.unreadable > 0 || (arguments.rules.strict && loaded.errors() > 0);
    Ok(if bad { Exit::Problems } else { Exit::Ok })
}

/// This process among others. All read the same input, cut the same epochs, and decode their share.
fn others(list: &Path, arguments: &ReplayArguments, loaded: &LoadedRules) -> Result<Cluster> {
    if arguments.data.is_some() || arguments.horizon.is_some() {
        bail!("--data and --horizon need all of the input in one process; leave them out with --processes");
    }
    if arguments.files.iter().any(|file| file.as_os_str() == "-") {
        bail!("every process reads the input by itself; with --processes give files, not standard input");
    }
    let size = |file: &PathBuf| {
        let meta = std::fs::metadata(file).with_context(|| format!("could not look at {}", file.display()))?;
        Ok((file.file_name().unwrap_or_default().to_string_lossy().into_owned(), meta.len()))
    };
    let runs = Runs {
        engine: crate::commit::ENGINE.to_owned(),
        rules: loaded.rules.hash().to_owned(),
        workers: usize::from(arguments.workers),
        input: arguments.files.iter().map(size).collect::<Result<_>>()?,
        options: format!("year {:?}", arguments.year),
        ..Runs::default()
    };
    cluster::named(list, &arguments.cluster, runs)
}

fn progress() -> indicatif::ProgressBar {
    if io::stderr().is_terminal() { indicatif::ProgressBar::new_spinner() } else { indicatif::ProgressBar::hidden() }
}

/// The accumulated output of the graph.
#[derive(Default)]
pub(super) struct View {
    upto: Epoch,
    pub(super) alerts: BTreeMap<AlertId, Alert>,
    sealed: BTreeSet<AlertId>,
    pub(super) members: Members,
    /// Per alert: (epoch, what happened, content).
    revisions: BTreeMap<AlertId, Vec<(Epoch, &'static str, Option<Alert>)>>,
    pub(super) detections: u64,
}

impl View {
    /// With rules from the start.
    pub(super) fn of(rules: &RuleSet) -> View {
        let mut view = View::default();
        view.members.set_rules(rules.episode_rules());
        view
    }

    /// The same as [`View::apply`], for those who may fail.
    #[allow(clippy::unnecessary_wraps)] // what takes outputs may fail elsewhere
    pub(super) fn take(&mut self, output: EpochOutput) -> Result<()> {
        self.apply(output);
        Ok(())
    }

    /// Leaves out the alerts that lie before a time, or begin at another or later.
    pub(super) fn keep_within(&mut self, from: Option<Time>, to: Option<Time>) {
        let within = |alert: &Alert| {
            from.is_none_or(|from| alert.last_cell >= from.cell()) && to.is_none_or(|to| alert.first() < to)
        };
        self.alerts.retain(|_, alert| within(alert));
        self.revisions
            .retain(|_, trail| trail.iter().rev().find_map(|(_, _, content)| content.as_ref()).is_none_or(within));
    }

    fn apply(&mut self, output: EpochOutput) {
        self.upto = output.epoch;
        self.detections += u64::try_from(output.detections.len()).unwrap_or(0);
        self.members.add(&output.detections);
        let alerts = || {
            output
                .rows
                .iter()
                .filter_map(|(row, diff)| if let Row::Alert(alert) = row { Some((alert, *diff)) } else { None })
        };
        let before: BTreeSet<AlertId> = alerts().filter(|(_, diff)| *diff < 0).map(|(alert, _)| alert.id).collect();
        for id in &before {
            self.alerts.remove(id);
        }
        for (alert, _) in alerts().filter(|(_, diff)| *diff > 0) {
            self.alerts.insert(alert.id, alert.clone());
            let what = if before.contains(&alert.id) { "amended" } else { "opened" };
            self.revisions.entry(alert.id).or_default().push((output.epoch, what, Some(alert.clone())));
        }
        for id in before.iter().filter(|id| !self.alerts.contains_key(id)) {
            let superseded = output.lineage.iter().any(|l| matches!(l, Lineage::SupersededBy { old, .. } if old == id));
            let what = if superseded { "superseded" } else { "withdrawn" };
            self.revisions.entry(*id).or_default().push((output.epoch, what, None));
        }
        for lineage in &output.lineage {
            if let Lineage::Sealed(id) = lineage {
                self.sealed.insert(*id);
            }
        }
    }

    fn state(&self, id: AlertId) -> AlertState {
        let state = self.alerts.get(&id).map_or(AlertState::Open, |alert| alert.state);
        if self.sealed.contains(&id) { AlertState::Sealed } else { state }
    }
}

pub(super) fn print(cli: &Cli, arguments: &ReplayArguments, view: &View) -> Result<()> {
    let rows = view.alerts.values().map(|alert| alert_json(view, alert, arguments));
    let gone = view.revisions.iter().filter(|(id, _)| arguments.revisions && !view.alerts.contains_key(id)).map(|(id, trail)| {
        let alert = trail.iter().rev().find_map(|(_, _, content)| content.as_ref());
        let state = trail.last().map_or("withdrawn", |(_, what, _)| what);
        json!({
            "alert_id": id, "rule_id": alert.map(|a| &a.rule), "state": state,
            "group": alert.map(|a| a.group.to_json()), "count": alert.map(|a| a.count), "revisions": trail_json(trail),
        })
    });
    let columns = ["alert_id", "level", "title", "state", "group", "count", "first", "last"];
    output::ignore_closed_pipe(output::rows(Format::or_default(cli.output), &columns, rows.chain(gone)))
}

fn alert_json(view: &View, alert: &Alert, arguments: &ReplayArguments) -> Value {
    let extent = view.members.of(alert, MEMBERS_PER_END);
    let events: Vec<_> = extent.inline.iter().map(|member| member_json(member, !arguments.no_positions)).collect();
    let mut row = json!({
        "alert_id": alert.id, "rule_id": alert.rule, "title": alert.title, "level": alert.level,
        "state": view.state(alert.id), "group": alert.group.to_json(), "count": alert.count,
        "first": extent.first.unwrap_or_else(|| alert.first()),
        "last": extent.last.unwrap_or_else(|| Time::from_seconds(alert.last_cell)),
        "score": alert.score, "tags": alert.tags, "tenant": alert.tenant, "events": events,
    });
    if arguments.revisions {
        row["revisions"] = view.revisions.get(&alert.id).map_or(Value::Null, |trail| trail_json(trail));
    }
    row
}

/// One member as `events` shows it.
pub(crate) fn member_json(member: &Member, positions: bool) -> Value {
    let mut event = json!({ "event_id": member.shown_id(), "time": member.time });
    if positions {
        event["file"] = json!(member.position.origin);
        event["line"] = json!(member.position.line);
    }
    event
}

fn trail_json(trail: &[(Epoch, &'static str, Option<Alert>)]) -> Value {
    let steps = trail
        .iter()
        .map(|(epoch, what, alert)| json!({ "epoch": epoch, "what": what, "count": alert.as_ref().map(|a| a.count) }));
    Value::Array(steps.collect())
}

/// Counts what was decoded, and whether it came in the order of time.
#[derive(Default)]
struct ReplayTap(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    events: u64,
    rejects: u64,
    first_reject: Option<String>,
    /// By epoch and worker: first time, last time, sorted within.
    runs: BTreeMap<(Epoch, usize), (Time, Time, bool)>,
}

impl ReplayTap {
    fn sorted(&self) -> bool {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let runs: Vec<_> = seen.runs.values().collect();
        runs.iter().all(|run| run.2) && runs.windows(2).all(|pair| matches!(pair, [a, b] if a.1 <= b.0))
    }

    fn report(&self, view: &View) {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let alerts = view.alerts.len();
        output::note(&format!(
            "{} events, {} rejects, {} detections, {alerts} alerts",
            seen.events, seen.rejects, view.detections
        ));
        if let Some(reject) = &seen.first_reject {
            output::note(&format!("first reject: {reject}"));
        }
    }
}

impl Tap for ReplayTap {
    fn decoded(&self, epoch: Epoch, worker: usize, events: &[Event], rejects: &[Reject]) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.events += u64::try_from(events.len()).unwrap_or(0);
        seen.rejects += u64::try_from(rejects.len()).unwrap_or(0);
        if let (None, Some(Reject { position, code, reason, .. })) = (&seen.first_reject, rejects.first()) {
            seen.first_reject = Some(format!("{}:{}: {}: {reason}", position.origin, position.line, code.as_str()));
        }
        if let (Some(first), Some(last)) = (events.first(), events.last()) {
            let sorted = events.is_sorted_by_key(|event| event.time);
            seen.runs.insert((epoch, worker), (first.time, last.time, sorted));
        }
    }
}

struct Both(Arc<ReplayTap>, Arc<dyn Tap>);

impl Tap for Both {
    fn decoded(&self, epoch: Epoch, worker: usize, events: &[Event], rejects: &[Reject]) {
        self.0.decoded(epoch, worker, events, rejects);
        self.1.decoded(epoch, worker, events, rejects);
    }
}
