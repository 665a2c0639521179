//! The whole graph, on one page.
//!
//! ```text
//! events, rules ─ detect ─ dedup ─ correlate ─ chain ─ (next level: correlate ...) ─ alerts ─ suppress ─┬─ risk
//!                    │       │ ▲                                                        ▲          ▲     ├─ incidents
//!              watermark ────┼─┴─ limits (for later epochs)                             rules      facts ├─ desire
//!                            └────────── detections, rejects, lineage ───────────────────────────────────┴─ sink
//! ```
//!
//! No clock, no I/O, no randomness: everything that changes comes in with an epoch.

use std::sync::{Arc, mpsc::Sender};

use cf_types::{
    Alert, AlertState, Cell, Detection, Epoch, EpochOutput, Event, Fact, FactBody, Hub, Row, Suppressed, Tenant, Time,
    assess::{INDICATOR_RULE, OfficeHours, RISK_RULE},
};
use differential_dataflow::input::InputSession;
use serde::{Deserialize, Serialize};
use timely::{
    dataflow::{
        InputHandle, ProbeHandle, StreamVec,
        operators::{
            Concat, Concatenate, OkErr, Probe,
            vec::{Broadcast, Filter, Map},
        },
    },
    worker::Worker,
};

use crate::{
    alert::{self, Told, alerts},
    assess::{AssessOptions, Assessed, assess},
    blast::{Blast, Node, blast},
    budget,
    builtin::WithBuiltin,
    chain::{self, LEVELS, Levels},
    correlate::{CellItem, Limit, Remembered, correlate_remembering},
    dedup::{Counted, Deduped, Local, dedup},
    desire::desire,
    detect::{Detected, Given, Matched, Rules, detect},
    epochs::{at_epoch, changes},
    incident::{self, Connected, IncidentOptions, incidents},
    indicator, rescore,
    risk::{RiskOptions, Risked, risk},
    sink::{Change, sink},
    suppress::{Kept, suppress},
    watermark::{Signal, watermark},
};

/// How the graph counts time.
#[derive(Clone, Debug)]
pub struct GraphOptions {
    /// How far behind the watermark corrections reach, in seconds of event time. `None`: the input is bounded, nothing
    /// expires, and no time is too far ahead.
    pub horizon_s: Option<i64>,
    /// How far an event's time may lie ahead of its receipt, in seconds.
    pub max_ahead_s: i64,
    /// How far behind its newest event a source's watermark lies, in seconds.
    pub disorder_s: i64,
    /// What connects alerts to incidents.
    pub incidents: IncidentOptions,
    /// Alerts that one rule may have in one hour of event time; more are folded into one that counts them.
    pub alerts_an_hour: usize,
    /// When people are at work; `None`: it does not matter.
    pub office_hours: Option<OfficeHours>,
    /// Alerts that the facts of one epoch may concern without that they are scored anew in slices.
    pub rescored_at_once: usize,
    /// The sum of an entity's scores of a day, decayed, in tenths, from which on it has a risk alert; 0: never.
    pub risk_alert_tenths: u32,
}

impl Default for GraphOptions {
    /// A day of corrections; clocks may be five minutes wrong and shippers a minute late; nobody reads a thousand alerts
    /// of one rule in an hour; ten thousand scores cost an epoch about a second; more than three critical alerts within
    /// hours, or six medium ones, make an entity's risk an alert: what two rules say of one attack does not.
    fn default() -> GraphOptions {
        GraphOptions {
            horizon_s: Some(86_400),
            max_ahead_s: 300,
            disorder_s: 60,
            incidents: IncidentOptions::default(),
            alerts_an_hour: 1_000,
            office_hours: None,
            rescored_at_once: 10_000,
            risk_alert_tenths: 300,
        }
    }
}

/// What a restart knows of before, beside the detections of the horizon.
#[derive(Clone, Debug, Default)]
pub struct Recalled {
    /// The alerts that were sealed, as they were told: those that still weigh in a risk, and those of incidents that were
    /// not closed.
    pub alerts: Vec<Alert>,
    /// The hubs of the incidents that were not closed.
    pub hubs: Vec<(Tenant, Hub)>,
    /// Per rule on other correlations that began later than these: of their episodes it counts those from this cell on. What
    /// was before it was told of ([`Remembered`]), and the detections of before give those episodes again.
    pub floors: Vec<(Arc<str>, Cell)>,
}

/// The same on its way.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Recall {
    Begin,
    Alert(Alert),
    Hub(Tenant, Hub),
    Floor(Arc<str>, Cell),
}

/// What one worker is given of one epoch.
#[derive(Default)]
pub struct Batch {
    /// Which epoch. Never less than the one before.
    pub epoch: Epoch,
    /// The rules from this epoch on; the same on every worker, in the first batch of its epoch.
    pub rules: Option<Arc<dyn Rules>>,
    /// Facts that came (+1) or went (-1); the same on every worker, in the first batch of its epoch.
    pub facts: Vec<(Fact, i64)>,
    /// This worker's share of the events.
    pub events: Vec<Event>,
    /// Detections from the facts log, at a restart; this worker's share. They are not given out again, and no limit
    /// applies to them if they come in the first epoch after the start.
    pub recalled: Vec<Detection>,
    /// Detections of the built-in rule of indicators in events of before, by a look-up; on one worker.
    pub found: Vec<Detection>,
    /// What rules that compare with the time before find there, by a look-up; on one worker.
    pub remembered: Vec<Remembered>,
    /// All sources that were idle when this epoch was cut; on worker 0.
    pub idle: Vec<Arc<str>>,
    /// The watermark as it was before a restart, to hold after this epoch; on worker 0.
    pub limit: Option<Time>,
    /// How far each source's events reached before a restart; on worker 0.
    pub newest: Vec<(Arc<str>, Time)>,
    /// What was sealed before a restart, in the epoch of the detections that are recalled; on worker 0.
    pub sealed: Option<Recalled>,
    /// How long all sources were idle since the epoch before, in milliseconds: event time goes on by as much; on worker 0.
    pub passed_ms: u64,
    /// Whether this is the last of a bounded input: then everything is decided; on worker 0.
    pub ended: bool,
}

/// One worker's hold of the graph: its inputs and how far the output is.
pub struct Graph {
    given: InputHandle<Epoch, timely::container::CapacityContainerBuilder<Vec<Given>>>,
    rules: InputHandle<Epoch, timely::container::CapacityContainerBuilder<Vec<Arc<dyn Rules>>>>,
    recalled: InputHandle<Epoch, timely::container::CapacityContainerBuilder<Vec<Detection>>>,
    signals: InputHandle<Epoch, timely::container::CapacityContainerBuilder<Vec<Option<Signal>>>>,
    sealed: InputHandle<Epoch, timely::container::CapacityContainerBuilder<Vec<Recall>>>,
    remembered: InputHandle<Epoch, timely::container::CapacityContainerBuilder<Vec<Remembered>>>,
    facts: InputSession<Epoch, Fact, isize>,
    /// Facts that say what leads where: only one operator wants them, and they are many.
    edges: InputSession<Epoch, (Node, Node), isize>,
    probe: ProbeHandle<Epoch>,
    begun: Option<Epoch>,
    /// Whether this is the worker that gives the facts to all.
    first: bool,
}

impl Graph {
    /// Builds the graph; on every worker alike. `output` is for worker 0: all changes come there.
    pub fn build(worker: &mut Worker, options: &GraphOptions, output: Option<Sender<EpochOutput>>) -> Graph {
        let (mut given, mut rules, mut recalled, mut signals, mut sealed) =
            (InputHandle::new(), InputHandle::new(), InputHandle::new(), InputHandle::new(), InputHandle::new());
        let mut remembered = InputHandle::new();
        let (mut facts, mut edges) = (InputSession::new(), InputSession::new());
        let probe = ProbeHandle::new();
        let micros = |seconds: i64| seconds.saturating_mul(1_000_000);
        let expires = options.horizon_s.is_some();
        worker.dataflow::<Epoch, _, _>(|scope| {
            let rules: StreamVec<'_, Epoch, Arc<dyn Rules>> = rules.to_stream(scope);
            let recalled: StreamVec<'_, Epoch, Detection> = recalled.to_stream(scope);
            let signals: StreamVec<'_, Epoch, Option<Signal>> = signals.to_stream(scope);
            let sealed: StreamVec<'_, Epoch, Recall> = sealed.to_stream(scope);
            let before: StreamVec<'_, Epoch, Remembered> = remembered.to_stream(scope);
            // Two facts with the same words are one.
            let facts = facts.to_collection(scope).distinct();
            let edges = edges.to_collection(scope);

            let detected = detect(given.to_stream(scope), options.horizon_s.map(|_| micros(options.max_ahead_s)));
            let begun = signals.clone().filter(Option::is_none).map(|_| Change::Begun);
            let ended = signals.clone().flat_map(|signal| matches!(signal, Some(Signal::Ended)).then_some(Cell::MAX));
            let ended = ended.broadcast();
            let recalling = sealed.clone().filter(|row| matches!(row, Recall::Begin)).broadcast();
            let pace = [
                signals.clone().filter(Option::is_none).map(|_| rescore::Beside::Begun),
                ended.clone().map(|_| rescore::Beside::Everything),
                recalling.clone().map(|_| rescore::Beside::Everything),
            ];
            // Parted, not filtered: a copy of every detection for each who wants another kind is what a burst would cost.
            let (matched, seen): (StreamVec<'_, Epoch, Matched>, StreamVec<'_, Epoch, Signal>) = detected.ok_err(part);
            let seen = seen.concat(signals.flat_map(|signal| signal));
            let watermarks = match options.horizon_s {
                Some(_) => watermark(seen, micros(options.disorder_s)),
                None => seen.flat_map(|_| None),
            };
            let horizon = options.horizon_s.unwrap_or(0);
            let limits = watermarks.clone().map(move |time| time.cell().saturating_sub(horizon)).broadcast();

            let matched = matched.concat(recalled.map(recall));
            let decided = limits.clone().map(move |limit| limit.saturating_add(horizon)).concat(ended);
            let locals = rules.clone().map(Local::Rules).concat(limits.clone().map(Local::Limit));
            let deduped = dedup(matched, locals, expires);
            let (accounted, counted): (StreamVec<'_, Epoch, Change>, StreamVec<'_, Epoch, Counted>) =
                deduped.ok_err(account);
            let (born, items): (StreamVec<'_, Epoch, alert::Change>, StreamVec<'_, Epoch, LevelItem>) =
                counted.ok_err(born);

            // What correlation gives, level upon level: each takes the items of its rules from detections and from the
            // episodes of all levels below.
            let (sought, items): (StreamVec<'_, Epoch, (CellItem, isize)>, StreamVec<'_, Epoch, LevelItem>) =
                items.ok_err(of_indicator);
            let held = changes(indicator::holding(at_epoch(sought), facts.clone()));
            let mut items = items.concat(held.map(|(item, diff)| (0, item, diff)));
            let (mut found, mut refused, mut waits) = (Vec::new(), Vec::new(), Vec::new());
            let floors = sealed.clone().flat_map(floor).broadcast();
            for level in 0..LEVELS {
                let own = items.clone().filter(move |(at, ..)| *at == level);
                let own = at_epoch(own.map(|(_, item, diff)| (item, diff)));
                let own_rules = rules
                    .clone()
                    .map(move |rules| Arc::new(Levels::of(rules.episode_rules()).at(level, rules.episode_rules())));
                let correlated = correlate_remembering(own, own_rules, limits.clone().map(Limit), before.clone());
                let beside = [
                    rules.clone().map(chain::Beside::Rules),
                    limits.clone().map(chain::Beside::Limit),
                    floors.clone().map(|(rule, floor)| chain::Beside::Floor(rule, floor)),
                ];
                items = items.concat(chain::chain(correlated.episodes.clone(), scope.concatenate(beside)));
                refused.push(correlated.refused.flat_map(budget::refusal));
                found.push(changes(correlated.episodes).map(|(episode, diff)| alert::Change::Episode(episode, diff)));
                found.push(correlated.lineage.map(alert::Change::Lineage));
                waits.push(correlated.waits.map(move |wait| until_limit(wait, horizon)));
            }
            found.push(born);
            found.push(sealed.clone().flat_map(sealed_alert).map(alert::Change::Recalled));
            let beside = [
                rules.clone().map(alert::Beside::Rules),
                limits.clone().map(alert::Beside::Limit),
                decided.map(alert::Beside::Decided),
                recalling.map(|_| alert::Beside::Recalling),
            ];
            let told = alerts(scope.concatenate(found), scope.concatenate(beside));
            let recalled = sealed.clone().flat_map(sealed_alert).map(|alert| alert.id);
            let remaining = suppress(at_epoch(told.clone().flat_map(alert_row)), facts.clone(), recalled.clone());
            let kept = at_epoch(remaining.clone().flat_map(kept_alert));
            let kept = budget::within_budget(kept, options.alerts_an_hour);
            let assess_options =
                AssessOptions { office_hours: options.office_hours, rescored_at_once: options.rescored_at_once };
            let pace = scope.concatenate(pace);
            let assessed = assess(kept, facts.clone(), recalled.clone(), pace, assess_options);
            let rescoring = assessed.clone().flat_map(rescoring);
            let all_scored = at_epoch(assessed.clone().flat_map(assessed_alert));
            // Nothing is done, scored or connected because of what is not decided.
            let scored = all_scored.clone().filter(|alert| alert.state != AlertState::Provisional);
            let risk_options =
                RiskOptions { horizon_s: options.horizon_s, alert_tenths: u64::from(options.risk_alert_tenths) };
            let high_before = sealed.clone().flat_map(sealed_risk_alert);
            let risked = risk(scored.clone(), facts.clone(), high_before.clone(), watermarks.clone(), risk_options);
            waits.extend([told.clone().flat_map(alert_waits), risked.clone().flat_map(risk_waits)]);
            // Behind the sum: a risk alert adds nothing to the risk of its own entity.
            let high_before = high_before.map(|alert| alert.id);
            let high = suppress(at_epoch(risked.clone().flat_map(risk_alert)), facts.clone(), high_before);
            let high_alerts = at_epoch(high.clone().flat_map(kept_alert));
            let (all_alerts, alerts) = (all_scored.concat(high_alerts.clone()), scored.concat(high_alerts));
            let remaining = remaining.concat(high);
            let beside = [
                rules.map(|rules| incident::Beside::Reach(longest(rules.episode_rules()))),
                limits.map(incident::Beside::Limit),
                sealed.flat_map(settled_hub).broadcast(),
            ];
            let connected = incidents(alerts.clone(), scope.concatenate(beside), options.incidents.clone());
            let Connected { incidents, waits: closing } = connected;
            waits.push(closing.map(move |wait| until_limit(wait, horizon)));
            let rows = [
                at_epoch(assessed.flat_map(assessment)).map(Row::Assessment),
                at_epoch(remaining.clone().flat_map(suppressed)).map(Row::Suppressed),
                at_epoch(risked.flat_map(risk_row)),
                at_epoch(blast(alerts.clone(), facts.clone(), edges).map(|(blast, diff)| (blast_row(blast), diff))),
                incidents.map(Row::Incident),
                desire(alerts, facts).map(Row::Desired),
            ];

            let rows = rows.map(|rows| changes(rows).map(|(row, diff)| Change::Row(row, diff)));
            // An alert that only leaves the graph stays what it was.
            let shown = changes(all_alerts).filter(|(alert, diff)| !alert::leaves(alert, *diff));
            let shown = shown.map(|(alert, diff)| Change::Row(Row::Alert(alert), diff));
            let lineage = told.flat_map(lineage).concat(remaining.flat_map(kept_lineage));
            let other = [begun, shown, accounted, lineage, watermarks.map(Change::Watermark), rescoring];
            let other = other.into_iter().chain(refused).chain(waits);
            sink(scope.concatenate(rows.into_iter().chain(other)), output).probe_with(&probe);
        });
        let first = worker.index() == 0;
        Graph { given, rules, recalled, signals, sealed, remembered, facts, edges, probe, begun: None, first }
    }

    /// Gives this worker's share of an epoch. Earlier epochs are closed by it, as by [`Graph::advance_to`].
    ///
    /// Several batches may belong to one epoch.
    ///
    /// # Panics
    ///
    /// If the epoch was closed already, or rules or facts come after the first batch of their epoch.
    pub fn feed(&mut self, batch: Batch) {
        let Batch { epoch, rules, facts, events, recalled, found, remembered, .. } = batch;
        let (idle, limit, newest, sealed) = (batch.idle, batch.limit, batch.newest, batch.sealed);
        let (passed_ms, ended) = (batch.passed_ms, batch.ended);
        assert!(epoch >= *self.given.time(), "epoch {epoch} was closed");
        assert!(rules.is_none() || self.begun != Some(epoch), "rules came after the begin of epoch {epoch}");
        assert!(facts.is_empty() || self.begun != Some(epoch), "facts came after the begin of epoch {epoch}");
        self.advance_to(epoch);
        if self.begun != Some(epoch) {
            self.begun = Some(epoch);
            self.signals.send(None);
        }
        let mut given = Vec::with_capacity(events.len() + 1);
        if let Some(rules) = rules {
            self.rules.send(WithBuiltin::over(Arc::clone(&rules)));
            given.push(Given::Rules(rules));
        }
        let indicators = facts.iter().filter(|(fact, _)| matches!(fact.body, FactBody::Indicator(_)));
        given.extend(indicators.map(|(fact, diff)| Given::Indicator(fact.clone(), *diff)));
        given.extend(found.into_iter().map(Given::Found));
        given.extend(events.into_iter().map(Given::Event));
        self.given.send_batch(&mut given);
        for (Fact { tenant, body }, diff) in facts.into_iter().filter(|_| self.first) {
            let diff = isize::try_from(diff).unwrap_or(0);
            match body {
                FactBody::Edge(edge) => self.edges.update(((tenant.clone(), edge.from), (tenant, edge.to)), diff),
                body => self.facts.update(Fact { tenant, body }, diff),
            }
        }
        recalled.into_iter().for_each(|detection| self.recalled.send(detection));
        remembered.into_iter().for_each(|one| self.remembered.send(one));
        idle.into_iter().for_each(|source| self.signals.send(Some(Signal::Idle(source))));
        newest.into_iter().for_each(|(source, time)| self.signals.send(Some(Signal::Seen(source, time))));
        limit.into_iter().for_each(|time| self.signals.send(Some(Signal::Restored(time))));
        if passed_ms > 0 {
            let passed = i64::try_from(passed_ms).unwrap_or(i64::MAX).saturating_mul(1_000);
            self.signals.send(Some(Signal::Passed(passed)));
        }
        if ended {
            self.signals.send(Some(Signal::Ended));
        }
        if let Some(Recalled { alerts, hubs, floors }) = sealed {
            self.sealed.send(Recall::Begin);
            alerts.into_iter().for_each(|alert| self.sealed.send(Recall::Alert(alert)));
            hubs.into_iter().for_each(|(tenant, hub)| self.sealed.send(Recall::Hub(tenant, hub)));
            floors.into_iter().for_each(|(rule, floor)| self.sealed.send(Recall::Floor(rule, floor)));
        }
    }

    /// Closes all epochs before `epoch`: nothing more comes for them from this worker. An epoch is complete when every
    /// worker has closed it, so *each* worker must call this, also when it has no events.
    pub fn advance_to(&mut self, epoch: Epoch) {
        if epoch > *self.given.time() {
            self.given.advance_to(epoch);
            self.rules.advance_to(epoch);
            self.recalled.advance_to(epoch);
            self.signals.advance_to(epoch);
            self.sealed.advance_to(epoch);
            self.remembered.advance_to(epoch);
            self.facts.advance_to(epoch);
            self.facts.flush();
            self.edges.advance_to(epoch);
            self.edges.flush();
        }
    }

    /// Whether the epoch is closed, complete, and its output given out.
    #[must_use]
    pub fn done(&self, epoch: Epoch) -> bool {
        !self.probe.less_equal(&epoch)
    }
}

/// An item of rules of a level, and how many more there are.
type LevelItem = (usize, CellItem, isize);

fn part(detected: Detected) -> Result<Matched, Signal> {
    match detected {
        Detected::Matched(matched) => Ok(matched),
        Detected::Seen(source, time) => Err(Signal::Seen(source, time)),
    }
}

fn recall(detection: Detection) -> Matched {
    Matched { detection, origin: None, ahead: false }
}

/// What is told as it is.
fn account(deduped: Deduped) -> Result<Change, Counted> {
    match deduped {
        Deduped::Detection(detection) => Ok(Change::Detection(detection)),
        Deduped::Refused(refusal) => Ok(Change::Refused(refusal)),
        Deduped::Counted(counted) => Err(counted),
    }
}

fn born(counted: Counted) -> Result<alert::Change, LevelItem> {
    match counted {
        Counted::Born(episode) => Ok(alert::Change::Born(episode)),
        Counted::Item(level, item, count) => Err((level, item, count)),
    }
}

/// Whether an item counts only while its indicator holds.
fn of_indicator((level, item, count): LevelItem) -> Result<(CellItem, isize), LevelItem> {
    if &*item.key.rule == INDICATOR_RULE { Ok((item, count)) } else { Err((level, item, count)) }
}

fn sealed_alert(row: Recall) -> Option<Alert> {
    match row {
        Recall::Alert(alert) if &*alert.rule != RISK_RULE => Some(alert),
        Recall::Alert(_) | Recall::Begin | Recall::Hub(..) | Recall::Floor(..) => None,
    }
}

/// Alerts on risk are made behind all others: they are recalled where they are made.
fn sealed_risk_alert(row: Recall) -> Option<Alert> {
    match row {
        Recall::Alert(alert) if &*alert.rule == RISK_RULE => Some(alert),
        Recall::Alert(_) | Recall::Begin | Recall::Hub(..) | Recall::Floor(..) => None,
    }
}

fn settled_hub(row: Recall) -> Option<incident::Beside> {
    match row {
        Recall::Hub(tenant, hub) => Some(incident::Beside::Hub(tenant, hub)),
        Recall::Begin | Recall::Alert(_) | Recall::Floor(..) => None,
    }
}

fn floor(row: Recall) -> Option<(Arc<str>, Cell)> {
    match row {
        Recall::Floor(rule, floor) => Some((rule, floor)),
        Recall::Begin | Recall::Alert(_) | Recall::Hub(..) => None,
    }
}

/// The longest timespan: how far before the limit an alert may still begin.
fn longest(rules: &[Arc<cf_types::EpisodeRule>]) -> Cell {
    rules.iter().map(|rule| rule.timespan.saturating_add(rule.lag())).max().unwrap_or(0)
}

fn alert_row(told: Told) -> Option<(Alert, isize)> {
    match told {
        Told::Alert(alert, diff) => Some((alert, diff)),
        Told::Lineage(_) | Told::Waits(..) => None,
    }
}

fn alert_waits(told: Told) -> Option<Change> {
    match told {
        Told::Waits(cell, diff) => Some(Change::Waits(cell, diff)),
        Told::Alert(..) | Told::Lineage(_) => None,
    }
}

fn risk_waits((risked, diff): (Risked, isize)) -> Option<Change> {
    match risked {
        Risked::Waits(cell) => Some(Change::Waits(cell, diff)),
        Risked::Risk(_) | Risked::Level(_) | Risked::Alert(_) => None,
    }
}

/// What waits for a limit waits for the watermark that brings it.
fn until_limit((limit, diff): (Cell, isize), horizon: Cell) -> Change {
    Change::Waits(limit.saturating_add(horizon), diff)
}

fn lineage(told: Told) -> Option<Change> {
    match told {
        Told::Lineage(lineage) => Some(Change::Lineage(lineage)),
        Told::Alert(..) | Told::Waits(..) => None,
    }
}

fn kept_alert(kept: Kept) -> Option<(Alert, isize)> {
    match kept {
        Kept::Alert(alert, diff) => Some((alert, diff)),
        Kept::Suppressed(..) | Kept::Lineage(_) => None,
    }
}

fn suppressed(kept: Kept) -> Option<(Suppressed, isize)> {
    match kept {
        // One that only leaves the graph stays what it was.
        Kept::Suppressed(suppressed, diff) if !alert::leaves(&suppressed.alert, diff) => Some((suppressed, diff)),
        Kept::Suppressed(..) | Kept::Alert(..) | Kept::Lineage(_) => None,
    }
}

fn assessed_alert(assessed: Assessed) -> Option<(Alert, isize)> {
    match assessed {
        Assessed::Alert(alert, diff) => Some((alert, diff)),
        Assessed::Assessment(..) | Assessed::Waiting(_) => None,
    }
}

fn rescoring(assessed: Assessed) -> Option<Change> {
    match assessed {
        Assessed::Waiting(number) => Some(Change::Rescoring(number)),
        Assessed::Alert(..) | Assessed::Assessment(..) => None,
    }
}

fn assessment(assessed: Assessed) -> Option<(cf_types::Assessment, isize)> {
    match assessed {
        Assessed::Assessment(assessment, diff) => Some((assessment, diff)),
        Assessed::Alert(..) | Assessed::Waiting(_) => None,
    }
}

fn risk_alert((risked, diff): (Risked, isize)) -> Option<(Alert, isize)> {
    match risked {
        Risked::Alert(alert) => Some((alert, diff)),
        Risked::Risk(_) | Risked::Level(_) | Risked::Waits(_) => None,
    }
}

fn risk_row((risked, diff): (Risked, isize)) -> Option<(Row, isize)> {
    match risked {
        Risked::Risk(risk) => Some((Row::Risk(risk), diff)),
        Risked::Level(level) => Some((Row::RiskLevel(level), diff)),
        Risked::Alert(_) | Risked::Waits(_) => None,
    }
}

fn blast_row(blast: Blast) -> Row {
    match blast {
        Blast::Radius(radius) => Row::Blast(radius),
        Blast::LeftOut(roots) => Row::BlastLeftOut(roots),
    }
}

fn kept_lineage(kept: Kept) -> Option<Change> {
    match kept {
        Kept::Lineage(lineage) => Some(Change::Lineage(lineage)),
        Kept::Alert(..) | Kept::Suppressed(..) => None,
    }
}
