//! A follower: takes what the leader sends, feeds it to its own workers, reports what they see.
//!
//! Memory: what the leader has in flight (few epochs), [`PREPARED_MAX`] rule sets, and the messages that wait for the leader.
//! Whatever cannot be done is reported, and ends this process and with it the cluster.

use std::{
    collections::{BTreeSet, VecDeque},
    net::TcpStream,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use cf_engine::{Cluster, Engine, EngineOptions, EpochInput, Tap};
use cf_history::{EventBatch, FieldColumns};
use cf_ingest::SourceTable;
use cf_sigma::{RuleSet, RuleStats, Text};
use cf_spool::record::RecordDecoder;
use cf_types::{Epoch, Event, Reject};

use super::{
    link::{Inbox, Outbox, Peer},
    links::{PREPARED_MAX, compiled},
    rows::Rows,
    wire::{self, Order, Report, RuleWork},
};
use crate::{
    config::{self, Settings},
    output::Exit,
    rules::{self, RuleOptions},
    scoring::{Gathered, Scoring},
    status::Seen,
};

/// How often the leader is told what rules did.
const WORK_EVERY: Duration = Duration::from_secs(5);
/// How often anchors are chosen anew, if enough came.
const LEARN_EVERY: Duration = Duration::from_secs(30);
/// Texts of one rule set; the leader reads no more.
const TEXTS_MAX: usize = 200_000;
/// Candidates of one message: each has some URL or flow.
const PART_CANDIDATES: usize = 256;
/// Records and facts of one epoch; the leader cuts long before.
const ITEMS_MAX: usize = 50_000_000;

/// Follows until the leader ends it.
pub(crate) fn follow(settings: &Settings, cluster: Cluster, silent_max: Duration) -> Result<Exit> {
    let (process, processes) = (cluster.process, cluster.addresses.len());
    let options = settings.rules.options(settings.detection.fold_window_s)?;
    let tap = Arc::new(FollowerTap::new(settings));
    let mut engine = Engine::start(EngineOptions {
        workers: usize::from(settings.detection.workers),
        graph: config::graph(settings)?,
        sources: config::sources(settings)?,
        tap: Arc::<FollowerTap>::clone(&tap),
        cluster: Some(cluster),
    })?;
    let (_, stream): (usize, TcpStream) = engine.links().pop().context("there is no link to the leader")?;
    let peer = Peer::new(0, silent_max);
    let writing = stream.try_clone().context("could not send to the leader")?;
    let (outbox, sending) = Outbox::start(writing, &peer, &Report::Beat)?;
    let mut inbox = Inbox::new(stream, &peer)?;
    let rows = Rows::start(process, outbox.clone())?;
    drop(tap.link.set((outbox.clone(), rows.clone())));
    leave_on_signal(outbox.clone())?;
    tracing::info!(process, processes, "following; process 0 leads");
    let mut follower = Follower::new(engine, options, tap, (outbox.clone(), rows));
    while let Some(order) = inbox.receive::<Order>() {
        let is_end = matches!(order, Order::End);
        if let Err(error) = follower.obey(order) {
            // Without its engine this process ends by this error; the leader says it, too, before it is taken along.
            drop(follower);
            drop(outbox.send(&Report::Failed(format!("{error:#}"))));
            outbox.close();
            drop(sending.join());
            return Err(error);
        }
        if is_end {
            peer.end();
            break;
        }
    }
    follower.engine.stop()?;
    outbox.close();
    drop(sending.join());
    tracing::info!("stopped");
    Ok(Exit::Ok)
}

/// Asks the leader to stop all when this process is asked to: one that went by itself would look like one that failed.
fn leave_on_signal(outbox: Outbox) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listen = async move {
        let kinds = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()));
        let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)) = kinds else {
            tracing::error!("signals cannot be heard; stop the leader, or this process by SIGKILL");
            return;
        };
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = hangup.recv() => {
                    tracing::info!("nothing is read anew here: rules and sources come from the leader");
                    continue;
                }
            }
            tracing::info!("asking the leader to stop all processes");
            drop(outbox.send(&Report::Leave));
        }
    };
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || runtime.block_on(listen))
        .context("could not start the thread that hears signals")?;
    Ok(())
}

/// A rule set that is ready.
struct Prepared {
    rules: Arc<RuleSet>,
    columns: Arc<FieldColumns>,
}

struct Follower {
    engine: Engine,
    options: RuleOptions,
    tap: Arc<FollowerTap>,
    outbox: Outbox,
    rows: Rows,
    /// Texts of the set that is named next.
    texts: Vec<Text>,
    prepared: VecDeque<Prepared>,
    /// What came of the next epoch.
    input: EpochInput,
    decoder: RecordDecoder,
    work: Work,
}

impl Follower {
    fn new(engine: Engine, options: RuleOptions, tap: Arc<FollowerTap>, (outbox, rows): (Outbox, Rows)) -> Follower {
        let (texts, prepared, input, decoder) = Default::default();
        Follower { engine, options, tap, outbox, rows, texts, prepared, input, decoder, work: Work::new() }
    }

    fn obey(&mut self, order: Order) -> Result<()> {
        if self.texts.len() > TEXTS_MAX || self.input.records.len() + self.input.facts.len() > ITEMS_MAX {
            bail!("the leader sends more than one rule set or epoch can have");
        }
        match order {
            Order::Beat => self.work.look(&self.outbox)?,
            Order::Text { file, text } => self.texts.push(Text { file: file.into(), text }),
            Order::Prepare { rules, columns } => self.prepare(rules, &columns)?,
            Order::Sources(options) => {
                let options = serde_json::from_slice(&options).context("the leader's sources do not read")?;
                self.input.sources = Some(Arc::new(SourceTable::new(&options)?));
            }
            Order::Facts(facts) => self.input.facts.extend(facts),
            Order::Records(rows) => self.take_records(rows)?,
            Order::Feed { epoch, rules } => self.feed(epoch, rules)?,
            Order::Make { after, upto } => self.rows.make(after, upto),
            Order::Forget(upto) => self.rows.forget(upto),
            Order::End => self.work.report(&self.outbox)?,
        }
        Ok(())
    }

    fn take_records(&mut self, rows: Vec<Bytes>) -> Result<()> {
        for row in rows {
            self.input.records.push(self.decoder.decode(0, row)?);
        }
        Ok(())
    }

    fn prepare(&mut self, hash: String, columns: &[String]) -> Result<()> {
        let begin = Instant::now();
        let (rules, _problems) = rules::compile(&std::mem::take(&mut self.texts), &self.options);
        let (columns, _left_out) = FieldColumns::new(columns.iter().map(String::as_str)).with(&rules.fields());
        let same = rules.hash() == hash;
        let made = if same { Ok(compiled(&rules)) } else { Err(format!("it has the hash {} here", rules.hash())) };
        let took_ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(rule_set = hash, rules = rules.rules().len(), took_ms, "a rule set is compiled");
        if same {
            self.prepared.push_back(Prepared { rules, columns: Arc::new(columns) });
        }
        while self.prepared.len() > PREPARED_MAX {
            self.prepared.pop_front();
        }
        self.outbox.send(&Report::Prepared { rules: hash, compiled: made })
    }

    fn feed(&mut self, epoch: Epoch, rules: Option<String>) -> Result<()> {
        let mut input = EpochInput { epoch, ..std::mem::take(&mut self.input) };
        if let Some(hash) = rules {
            let prepared = self.prepared.iter().find(|prepared| prepared.rules.hash() == hash);
            let Prepared { rules, columns } =
                prepared.with_context(|| format!("epoch {epoch} has rule set {hash}, which was not prepared"))?;
            self.tap.set_columns(Arc::clone(columns));
            self.work.count(Arc::clone(rules));
            input.rules = Some(Arc::clone(rules));
        } else {
            input.rules = self.work.learn();
        }
        self.engine.feed(input)?;
        // How far it is the leader knows by itself.
        while self.engine.output(Duration::ZERO)?.is_some() {}
        self.work.look(&self.outbox)
    }
}

/// What the rules in force did, told now and then.
struct Work {
    rules: Option<Arc<RuleSet>>,
    /// What the leader knows of it, by rule.
    told: Vec<RuleStats>,
    fields_told: BTreeSet<Arc<str>>,
    /// Not told yet, of sets that are in force no more.
    before: Vec<RuleWork>,
    told_at: Instant,
    learnt_at: Instant,
}

impl Work {
    fn new() -> Work {
        let (rules, told, fields_told, before) = Default::default();
        Work { rules, told, fields_told, before, told_at: Instant::now(), learnt_at: Instant::now() }
    }

    /// These are in force from now on.
    fn count(&mut self, rules: Arc<RuleSet>) {
        let new = self.new_work();
        self.before.extend(new);
        self.told = Vec::new();
        self.rules = Some(rules);
    }

    /// The rules in another plan, if enough came for one.
    fn learn(&mut self) -> Option<Arc<RuleSet>> {
        if self.learnt_at.elapsed() < LEARN_EVERY {
            return None;
        }
        self.learnt_at = Instant::now();
        let rules = Arc::new(self.rules.as_ref()?.replanned()?);
        self.count(Arc::clone(&rules));
        Some(rules)
    }

    /// What rules did since it was asked last.
    fn new_work(&mut self) -> Vec<RuleWork> {
        let Some(rules) = &self.rules else { return Vec::new() };
        let now = rules.stats();
        self.told.resize(now.len(), RuleStats::default());
        let since = rules.rules().iter().zip(now.iter().zip(&self.told)).filter(|(_, (now, told))| now != told);
        let new = since.map(|(info, (now, told))| RuleWork {
            rule: info.id.to_string(),
            hits: now.hits.saturating_sub(told.hits),
            candidates: now.candidates.saturating_sub(told.candidates),
            nanos_sampled: now.nanos_sampled.saturating_sub(told.nanos_sampled),
        });
        let new = new.collect();
        self.told = now;
        new
    }

    fn look(&mut self, outbox: &Outbox) -> Result<()> {
        if self.told_at.elapsed() >= WORK_EVERY { self.report(outbox) } else { Ok(()) }
    }

    fn report(&mut self, outbox: &Outbox) -> Result<()> {
        self.told_at = Instant::now();
        let mut work = std::mem::take(&mut self.before);
        work.extend(self.new_work());
        if !work.is_empty() {
            outbox.send(&Report::Work(work))?;
        }
        let seen = self.rules.as_ref().map(|rules| rules.fields_seen()).unwrap_or_default();
        let new: Vec<String> = seen.difference(&self.fields_told).map(ToString::to_string).collect();
        if !new.is_empty() {
            outbox.send(&Report::Fields(new))?;
            self.fields_told = seen;
        }
        Ok(())
    }
}

/// Reports what this process's workers decode.
struct FollowerTap {
    /// There from before the first epoch.
    link: OnceLock<(Outbox, Rows)>,
    columns: Mutex<Arc<FieldColumns>>,
    picker: Option<Gathered>,
    max_ahead_us: i64,
}

impl FollowerTap {
    fn new(settings: &Settings) -> FollowerTap {
        FollowerTap {
            link: OnceLock::new(),
            columns: Mutex::default(),
            picker: Scoring::picker(&settings.models),
            max_ahead_us: i64::from(settings.detection.max_ahead_s).saturating_mul(1_000_000),
        }
    }

    fn set_columns(&self, columns: Arc<FieldColumns>) {
        *self.columns.lock().unwrap_or_else(PoisonError::into_inner) = columns;
    }

    fn report(&self, epoch: Epoch, events: &[Event], rejects: &[Reject]) -> Result<()> {
        let (outbox, rows) = self.link.get().context("an epoch is fed before the link is there")?;
        self.keep_rows(rows, epoch, events)?;
        for rejects in wire::parts(rejects.to_vec(), |reject| reject.raw.len() + reject.reason.len()) {
            outbox.send(&Report::Rejects(epoch, rejects))?;
        }
        let candidates = self.picker.as_ref().map(|picker| picker.of_events(events)).unwrap_or_default();
        for candidates in candidates.chunks(PART_CANDIDATES) {
            outbox.send(&Report::Candidates(epoch, serde_json::to_vec(candidates)?.into()))?;
        }
        let seen = Seen::of(events, rejects, self.max_ahead_us);
        outbox.send(&Report::Decoded { epoch, seen, bytes: rows.bytes() })
    }

    /// The rows of history that events are.
    fn keep_rows(&self, rows: &Rows, epoch: Epoch, events: &[Event]) -> Result<()> {
        if events.is_empty() {
            return Ok(());
        }
        let columns = Arc::clone(&self.columns.lock().unwrap_or_else(PoisonError::into_inner));
        let mut builder = EventBatch::with_fields(columns);
        for event in events {
            builder.push(epoch, event);
            if builder.bytes() >= EventBatch::BYTES_MAX {
                rows.keep(builder.finish()?);
            }
        }
        rows.keep(builder.finish()?);
        Ok(())
    }
}

impl Tap for FollowerTap {
    fn decoded(&self, epoch: Epoch, _worker: usize, events: &[Event], rejects: &[Reject]) {
        // The worker's loop has nobody to tell an error: it ends the process, as a panic of a worker does.
        if let Err(error) = self.report(epoch, events, rejects) {
            self.link.get().iter().for_each(|(outbox, _)| drop(outbox.send(&Report::Failed(format!("{error:#}")))));
            panic!("what was decoded could not be reported: {error:#}");
        }
    }
}
