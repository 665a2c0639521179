//! What an epoch's output becomes: one ledger transaction, then history rows. The same for `run` and `replay --data`.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use cf_engine::Tap;
use cf_fail as fail;
use cf_history::{
    ActionStep, AlertRevision, Batch, BatchBuilder, Committed, EpochEntry, EventBatch, FieldColumns, HistoryError,
    IncidentRevision, Place, Replacement, Row, Table, Writer,
};
use cf_ledger::{AlertEvent, Applied, ControlEntry, Ledger, MemberRef, MemberSummary, Present, Routes, retries::RETRY};
use cf_sigma::RuleSet;
use cf_types::{
    ActionId, ActionKind, Alert, AlertId, Epoch, EpochOutput, EpochRecord, Event, Member, Record, Reject, Tenant, Time,
    clock,
};
use serde::Deserialize;
use tokio::runtime::Runtime;

use crate::{
    again::Again,
    below::Chains,
    cluster::Links,
    members::Members,
    room::Room,
    rulebook::{Shelf, by_file},
    rules::LoadedRules,
    scoring,
    standing::{Standing, control_rows},
    triage,
};

/// Version of the engine, part of every epoch record.
pub(crate) const ENGINE: &str = env!("CARGO_PKG_VERSION");

/// Ledger and history of one data folder.
pub(crate) struct Store {
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) ledger: Ledger,
    pub(crate) members: Members,
    pub(crate) generation: u64,
    pub(crate) routes: Routes,
    pub(crate) history: History,
    again: Arc<Again>,
    /// What is given away when the disk is full; without it that is an error.
    pub(crate) room: Option<Arc<Room>>,
    standing: Standing,
    rules: String,
}

impl Store {
    /// For a replay: one generation, nobody is told, the epochs are numbered from the folder's upper.
    pub(crate) fn for_replay(data: &Path, loaded: &LoadedRules) -> Result<Store> {
        let runtime = Arc::new(tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?);
        let ledger = runtime.block_on(Ledger::open(data))?;
        let engine = runtime.block_on(ledger.engine())?;
        if engine.upper > 1 {
            let place = data.display();
            anyhow::bail!("{place} already holds {} epochs; a replay wants a folder of its own", engine.upper - 1);
        }
        let mut store = Store::open(runtime, ledger, &Place::of_data(data)?, Routes::default())?;
        store.rules = loaded.rules.hash().to_owned();
        store.set_rules(&loaded.rules);
        // For those who want to know later what an alert is from.
        store.runtime.block_on(async {
            crate::past::keep(&store.ledger, store.generation, None).await?;
            let mut shelf = Shelf::open(store.ledger.clone()).await?;
            shelf.put_texts(&loaded.rules, &by_file(&loaded.texts)).await
        })?;
        Ok(store)
    }

    /// Opens ledger and history of a folder that this process holds, and begins a generation.
    pub(crate) fn open(runtime: Arc<Runtime>, ledger: Ledger, place: &Place, routes: Routes) -> Result<Store> {
        let upper = runtime.block_on(ledger.engine())?.upper;
        let history = History::open(place, upper)?;
        let generation = runtime.block_on(ledger.begin_generation(clock::now()))?;
        let (members, again, standing) = (Members::default(), Arc::default(), Standing::default());
        let (room, rules) = (None, String::new());
        Ok(Store { runtime, ledger, members, generation, routes, history, again, room, standing, rules })
    }

    /// The rules from here on: what makes members, and what makes columns of events.
    pub(crate) fn set_rules(&mut self, rules: &RuleSet) {
        self.members.set_rules(rules.episode_rules());
        self.history.set_rules(rules);
    }

    /// Makes columns alone, for whom rules come to events before their epoch comes here.
    pub(crate) fn columns(&self) -> impl Fn(&RuleSet) + use<> {
        let columns = Arc::clone(&self.history.columns);
        move |rules| make_columns(&columns, rules)
    }

    /// Takes in what stood when history ended, of which it has all rows.
    pub(crate) fn recall(&mut self, output: &EpochOutput) {
        let _known = self.standing.take(output, Time::MIN);
    }

    /// What wants to see decoded events.
    pub(crate) fn tap(&self) -> Arc<HistoryTap> {
        Arc::new(HistoryTap {
            sender: Mutex::new(self.history.sender.clone()),
            again: Arc::clone(&self.again),
            columns: Arc::clone(&self.history.columns),
            waiting: AtomicUsize::new(0),
        })
    }

    /// Applies an epoch of a replay, with a record that only counts.
    pub(crate) fn apply(&mut self, output: &EpochOutput) -> Result<()> {
        let record = EpochRecord {
            epoch: output.epoch,
            wall: clock::now(),
            generation: self.generation,
            ends: std::collections::BTreeMap::new(),
            newest: std::collections::BTreeMap::new(),
            starts: std::collections::BTreeMap::new(),
            marks: std::collections::BTreeMap::new(),
            idle: Vec::new(),
            passed_ms: 0,
            control: 0,
            rules: self.rules.clone(),
            begun: Vec::new(),
            models: std::collections::BTreeMap::new(),
            engine: ENGINE.to_owned(),
        };
        self.apply_record(&record, output)?;
        Ok(())
    }

    /// Applies an epoch: the ledger's transaction first, then the rows for history.
    pub(crate) fn apply_record(&mut self, record: &EpochRecord, output: &EpochOutput) -> Result<Applied> {
        self.members.forget_rules(&record.begun);
        self.members.add(&output.detections);
        let members = &self.members;
        let summary = |alert: &Alert| summary(members, alert);
        let applied = loop {
            match self.runtime.block_on(self.ledger.apply(record, output, &self.routes, &summary)) {
                // Nothing of it was written, and its records are in the spool: it waits for space.
                Err(error) if error.is_disk_full() && self.room.as_ref().is_some_and(|room| room.give()) => {
                    thread::sleep(FULL_WAIT);
                    self.room.iter().for_each(|room| room.look());
                }
                done => break done?,
            }
        };
        self.write_history(record, output, &applied)?;
        Ok(applied)
    }

    /// Lets a rebuilt state win over the ledger, as an epoch of its own.
    pub(crate) fn adopt(&mut self, record: &EpochRecord, present: &Present, output: &EpochOutput) -> Result<()> {
        let members = &self.members;
        let summary = |alert: &Alert| summary(members, alert);
        let adopting = self.ledger.adopt(record, present, &self.routes, &summary);
        let applied = self.runtime.block_on(adopting)?;
        self.write_history(record, output, &applied)
    }

    /// Takes in an epoch that the ledger has already: only what history may lack.
    pub(crate) fn take_again(&mut self, record: &EpochRecord, output: &EpochOutput) -> Result<()> {
        self.members.forget_rules(&record.begun);
        self.members.add(&output.detections);
        let epoch = record.epoch;
        if epoch > self.history.committed {
            let applied = self.runtime.block_on(self.ledger.applied_at(epoch))?;
            self.write_history(record, output, &applied)?;
        } else {
            self.recall(output);
        }
        Ok(())
    }

    /// Gives history what entered with this epoch from the control log: also judgements, decisions of models, and the
    /// steps of actions among it.
    pub(crate) fn receipts(&mut self, epoch: Epoch, entries: &[ControlEntry]) -> Result<()> {
        let mut steps = Vec::new();
        for entry in entries.iter().filter(|entry| entry.kind == "receipt") {
            steps.push(
                step(&entry.body).with_context(|| format!("receipt {} of the control log is damaged", entry.seq))?,
            );
        }
        let (facts, verdicts) = control_rows(entries)?;
        self.history.rows(epoch, &facts)?;
        self.history.rows(epoch, &verdicts)?;
        let (features, predictions) = triage::rows::rows(entries)?;
        self.history.rows(epoch, &features)?;
        self.history.rows(epoch, &predictions)?;
        let (features, predictions) = scoring::rows(entries)?;
        self.history.rows(epoch, &features)?;
        self.history.rows(epoch, &predictions)?;
        self.history.rows(epoch, &steps)
    }

    /// The rejected records that entries of the control log bring into an epoch again.
    pub(crate) fn again(&self, epoch: Epoch, entries: &[ControlEntry]) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        for entry in entries.iter().filter(|entry| entry.kind == RETRY) {
            let some = self.runtime.block_on(self.ledger.retried(entry.seq))?;
            self.again.note(epoch, entry.seq, &some);
            records.extend(some);
        }
        Ok(records)
    }

    fn write_history(&mut self, record: &EpochRecord, output: &EpochOutput, applied: &Applied) -> Result<()> {
        let epoch = output.epoch;
        let risks = self.standing.take(output, record.wall);
        self.history.rows(epoch, &risks)?;
        self.history.rows(epoch, &output.detections)?;
        self.history.rows(epoch, &output.rejects)?;
        let revisions: Vec<_> = applied
            .alerts
            .iter()
            .filter(|change| change.event != AlertEvent::Gauge)
            .map(|change| AlertRevision {
                members: summary(&self.members, &change.alert).and_then(|s| serde_json::to_string(&s).ok()),
                alert: change.alert.clone(),
                thread: change.thread,
                revision: u64::try_from(change.revision).unwrap_or(0),
                event: change.event.as_str().to_owned(),
                state: change.state.to_owned(),
                reason: change.reason.clone(),
                incident: change.incident,
                superseded_by: change.superseded_by,
                assessment: self.standing.assessment(change.alert.id).cloned(),
                revised_at: record.wall,
            })
            .collect();
        self.history.rows(epoch, &revisions)?;
        let incidents: Vec<_> = applied
            .incidents
            .iter()
            .map(|change| IncidentRevision {
                incident: change.incident.clone(),
                number: change.number,
                state: change.state.to_owned(),
                redirect: change.redirect,
                title: change.title.clone(),
                score: change.score,
                revised_at: record.wall,
            })
            .collect();
        self.history.rows(epoch, &incidents)?;
        self.history.rows(epoch, &[EpochEntry { record: record.clone(), watermark: output.watermark }])?;
        self.history.ready(epoch)
    }

    /// Writes everything out and closes.
    pub(crate) fn close(mut self) -> Result<()> {
        self.history.finish()?;
        self.runtime.block_on(self.ledger.stopped(clock::now()))?;
        Ok(())
    }
}

fn step(body: &str) -> Result<ActionStep> {
    let receipt: Receipt = serde_json::from_str(body)?;
    Ok(ActionStep {
        tenant: receipt.tenant,
        id: receipt.action_id,
        number: receipt.number,
        kind: receipt.kind,
        target: receipt.target,
        state: receipt.state,
        reason: receipt.reason,
        alerts: receipt.alerts,
        ttl_s: receipt.ttl_s,
        until_at: receipt.until_us.map(Time::from_micros),
        detail: Some(serde_json::to_string(&serde_json::json!({
            "operation": receipt.operation, "outcome": receipt.outcome, "receipt": receipt.receipt,
        }))?),
        at: Time::from_micros(receipt.at_us),
    })
}

/// A receipt as the ledger writes it into the control log.
#[derive(Deserialize)]
struct Receipt {
    tenant: Tenant,
    number: i64,
    action_id: ActionId,
    kind: ActionKind,
    target: String,
    state: String,
    reason: Option<String>,
    alerts: Vec<AlertId>,
    ttl_s: u32,
    until_us: Option<i64>,
    operation: String,
    outcome: String,
    receipt: serde_json::Value,
    at_us: i64,
}

fn summary(members: &Members, alert: &Alert) -> Option<MemberSummary> {
    let extent = members.of(alert, MemberSummary::INLINE);
    let refer = |member: &Member| MemberRef {
        event_id: member.shown_id(),
        time: member.time,
        origin: member.position.origin.to_string(),
        offset: member.position.offset,
        line: member.position.line,
    };
    let (first, last) = extent.inline.split_at(extent.inline.len().min(MemberSummary::INLINE));
    Some(MemberSummary {
        first: extent.first?,
        last: extent.last.unwrap_or_else(|| Time::from_seconds(alert.last_cell)),
        count: alert.count,
        first_members: first.iter().map(refer).collect(),
        last_members: last.iter().map(refer).collect(),
    })
}

enum Message {
    Rows(Batch),
    /// All rows of the epochs up to here are in the channel, and the ledger has them.
    Ready(Epoch),
    /// Commit all that is ready, then say so.
    Settle(mpsc::Sender<()>),
    /// Put files in the place of others, then say whether that was done.
    Replace(Replacement, mpsc::Sender<Result<bool>>),
    Finish,
}

/// The history writer on a thread of its own: a Delta commit must not hold up an epoch.
pub(crate) struct History {
    sender: mpsc::SyncSender<Message>,
    thread: Option<thread::JoinHandle<Result<()>>>,
    /// The last epoch that all tables held when it was opened, then what was committed since.
    committed: Epoch,
    progress: Arc<std::sync::atomic::AtomicU64>,
    /// Columns of events by rules' fields.
    columns: Arc<Mutex<Arc<FieldColumns>>>,
    /// Somebody waits for the end: messages are taken even while nothing can be written.
    ending: Arc<AtomicBool>,
    /// The other processes of a cluster, which have rows, too.
    others: Arc<OnceLock<Arc<Links>>>,
    /// How the correlations of the present rules stand on each other.
    pub(crate) chains: Arc<Mutex<Chains>>,
}

/// Messages in the channel before those who write wait: back-pressure instead of memory.
const MESSAGES_MAX: usize = 256;
/// Bytes after which a commit does not wait for its time.
const BUFFERED_BYTES_MAX: usize = 128 << 20;
/// How long an epoch waits for space on the disk before it is tried again.
const FULL_WAIT: Duration = Duration::from_millis(200);
/// Time between commits.
pub(crate) const COMMIT_EVERY: Duration = Duration::from_secs(5);

impl History {
    /// Opens the history of a ledger whose next epoch is `upper`.
    fn open(place: &Place, upper: Epoch) -> Result<History> {
        let writer = Writer::open(place, cf_history::Options::default())
            .with_context(|| format!("could not open history {place}"))?;
        let committed = writer.last_epoch(Table::Epochs);
        if committed >= upper {
            anyhow::bail!(
                "history {place} has epoch {committed}, but the ledger's next one is {upper}: another engine wrote it, or \
                 the ledger is an older one; give this engine a place of its own, or restore both from one backup"
            );
        }
        let columns = Arc::new(Mutex::new(writer.field_columns()?));
        let progress = Arc::new(std::sync::atomic::AtomicU64::new(committed));
        let (sender, messages) = mpsc::sync_channel(MESSAGES_MAX);
        let (seen, ending) = (Arc::clone(&progress), Arc::new(AtomicBool::new(false)));
        let (ends, others) = (Arc::clone(&ending), Arc::<OnceLock<Arc<Links>>>::default());
        let rows = Arc::clone(&others);
        let thread = thread::Builder::new()
            .name("history".to_owned())
            .spawn(move || write(&mut Rows { writer, others: rows }, &messages, &seen, &ends))
            .context("could not start the history thread")?;
        let chains = Arc::default();
        Ok(History { sender, thread: Some(thread), committed, progress, columns, ending, others, chains })
    }

    /// Other processes have rows of events from here on.
    pub(crate) fn share_with(&self, links: Arc<Links>) {
        drop(self.others.set(links));
    }

    /// What puts files in the place of others, for a thread beside.
    pub(crate) fn replacer(&self) -> impl FnMut(Replacement) -> Result<bool> + Send + 'static {
        let sender = self.sender.clone();
        move |replacement| {
            let (done, replaced) = mpsc::channel();
            let gone = || anyhow!("history is closed");
            sender.send(Message::Replace(replacement, done)).map_err(|_| gone())?;
            replaced.recv().map_err(|_| gone())?
        }
    }

    /// Makes columns for the fields that rules name; batches from here on have them.
    fn set_rules(&self, rules: &RuleSet) {
        make_columns(&self.columns, rules);
        *self.chains.lock().unwrap_or_else(PoisonError::into_inner) = Chains::new(rules.episode_rules());
    }

    fn rows<R: Row>(&mut self, epoch: Epoch, rows: &[R]) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let mut builder = BatchBuilder::new();
        for row in rows {
            builder.push(epoch, row);
        }
        self.send(Message::Rows(builder.finish()?))
    }

    fn ready(&mut self, epoch: Epoch) -> Result<()> {
        self.send(Message::Ready(epoch))
    }

    /// The last epoch that history holds durably.
    pub(crate) fn durable(&self) -> Epoch {
        self.progress.load(Ordering::Acquire)
    }

    /// The same, for others to follow.
    pub(crate) fn progress(&self) -> Arc<std::sync::atomic::AtomicU64> {
        Arc::clone(&self.progress)
    }

    /// Waits until all that is ready is durable.
    pub(crate) fn settle(&mut self) -> Result<()> {
        self.ending.store(true, Ordering::Release);
        let (done, settled) = mpsc::channel();
        self.send(Message::Settle(done))?;
        settled.recv().map_err(|_| self.died())
    }

    fn send(&mut self, message: Message) -> Result<()> {
        if self.sender.send(message).is_ok() {
            return Ok(());
        }
        Err(self.died())
    }

    fn died(&mut self) -> anyhow::Error {
        match self.thread.take().map(thread::JoinHandle::join) {
            Some(Ok(Err(error))) => error.context("history could not be written"),
            _ => anyhow!("the history thread has died"),
        }
    }

    fn finish(&mut self) -> Result<()> {
        self.ending.store(true, Ordering::Release);
        self.send(Message::Finish)?;
        match self.thread.take().map(thread::JoinHandle::join) {
            Some(Ok(result)) => result.context("history could not be written"),
            _ => Err(anyhow!("the history thread has died")),
        }
    }
}

/// The writer, and who else has rows.
struct Rows {
    writer: Writer,
    others: Arc<OnceLock<Arc<Links>>>,
}

impl Rows {
    /// What waits for the next commit, in bytes of memory, in all processes.
    fn bytes(&self) -> usize {
        self.writer.buffered_bytes() + self.others.get().map_or(0, |links| links.row_bytes())
    }

    fn commit(&mut self, upto: Epoch) -> Result<Committed, HistoryError> {
        let Some(links) = self.others.get() else { return self.writer.commit(upto) };
        let committed = self.writer.commit_with(upto, &mut |table, after, upto| match table {
            Table::Events => links.make(after, upto),
            _ => Ok(Vec::new()),
        })?;
        links.forget(upto);
        Ok(committed)
    }
}

fn write(
    rows: &mut Rows,
    messages: &mpsc::Receiver<Message>,
    progress: &std::sync::atomic::AtomicU64,
    ending: &AtomicBool,
) -> Result<()> {
    let mut ready: Epoch = 0;
    let mut committed: Epoch = 0;
    let mut last = Instant::now();
    let mut patience = Patience::default();
    loop {
        let mut settle = None;
        let mut finish = false;
        let wait = patience.wait(COMMIT_EVERY.saturating_sub(last.elapsed()));
        // While the place cannot be written and enough waits, nothing more is taken: those who send wait, and then the
        // spool, and then the senders.
        let ends = ending.load(Ordering::Acquire);
        if patience.is_tried() && !ends && rows.bytes() > BUFFERED_BYTES_MAX {
            thread::sleep(wait.min(Duration::from_millis(200)));
        } else {
            match messages.recv_timeout(wait) {
                Ok(Message::Rows(batch)) => rows.writer.append(batch),
                Ok(Message::Ready(epoch)) => ready = epoch,
                Ok(Message::Settle(done)) => settle = Some(done),
                Ok(Message::Replace(replacement, done)) => {
                    let replaced = rows.writer.replace(replacement).map_err(anyhow::Error::from);
                    drop(done.send(replaced)); // whoever asked may be gone
                }
                Ok(Message::Finish) => finish = true,
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(()), // not an orderly end: nothing more is promised
            }
        }
        let must = finish || settle.is_some();
        let due = must || last.elapsed() >= COMMIT_EVERY || rows.bytes() > BUFFERED_BYTES_MAX;
        if due
            && ready > committed
            && (must || patience.is_over())
            && let Some(epoch) = patience.commit(rows, ready, must)?
        {
            committed = epoch.max(ready);
            fail::point("history.committed");
            progress.store(committed, Ordering::Release);
        }
        if due {
            last = Instant::now();
        }
        // Whoever waits for it may be gone: then nobody needs to know.
        if let Some(done) = settle {
            let _gone = done.send(());
        }
        if finish {
            return Ok(());
        }
    }
}

/// How often a place that cannot be written is tried again. Rows wait in memory meanwhile; what is beyond that waits in
/// the spool, so nothing that was acknowledged is lost.
#[derive(Default)]
struct Patience {
    failures: u32,
    next: Option<Instant>,
}

impl Patience {
    /// Between two tries at most.
    const LONGEST: Duration = Duration::from_secs(30);
    /// How long an engine that stops tries; then what history lacks is written after the next start.
    const LAST: Duration = Duration::from_secs(20);

    fn is_tried(&self) -> bool {
        self.failures > 0
    }

    fn is_over(&self) -> bool {
        self.next.is_none_or(|next| next <= Instant::now())
    }

    fn wait(&self, usual: Duration) -> Duration {
        self.next.map_or(usual, |next| next.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)))
    }

    /// Commits; `None` if that failed and is to be tried again. With `must` it is tried until it works or time is up.
    fn commit(&mut self, rows: &mut Rows, ready: Epoch, must: bool) -> Result<Option<Epoch>> {
        let begun = Instant::now();
        loop {
            match rows.commit(ready) {
                Ok(done) => {
                    if self.is_tried() {
                        tracing::info!(epoch = done.epoch, "history is written again");
                    }
                    *self = Patience::default();
                    return Ok(Some(done.epoch));
                }
                Err(error) if !error.may_pass() || (must && begun.elapsed() >= Patience::LAST) => {
                    return Err(error.into());
                }
                Err(error) => {
                    self.failures += 1;
                    let wait = Duration::from_secs(1 << self.failures.min(5)).min(Patience::LONGEST);
                    self.next = Some(Instant::now() + wait);
                    let error = format!("{:#}", anyhow::Error::from(error));
                    let waiting = rows.bytes();
                    tracing::error!(error, tries = self.failures, waiting, "history could not be written; tried again");
                    if !must {
                        return Ok(None);
                    }
                    thread::sleep(wait.min(Duration::from_secs(2)));
                }
            }
        }
    }
}

fn make_columns(columns: &Mutex<Arc<FieldColumns>>, rules: &RuleSet) {
    let mut columns = columns.lock().unwrap_or_else(PoisonError::into_inner);
    let (with, left_out) = columns.with(&rules.fields());
    if left_out > 0 {
        tracing::info!(left_out, "fields of rules that get no column of their own in history; raw has them");
    }
    *columns = Arc::new(with);
}

/// Turns decoded events into history rows on the workers' threads.
pub(crate) struct HistoryTap {
    sender: Mutex<mpsc::SyncSender<Message>>,
    again: Arc<Again>,
    columns: Arc<Mutex<Arc<FieldColumns>>>,
    /// How many threads wait until history takes their rows.
    waiting: AtomicUsize,
}

impl Tap for HistoryTap {
    fn decoded(&self, epoch: Epoch, _worker: usize, events: &[Event], rejects: &[Reject]) {
        if !events.is_empty() {
            self.send(rows_of(epoch, events, EventBatch::with_fields(self.columns())));
        }
        self.rejected(epoch, rejects);
    }
}

impl HistoryTap {
    /// The columns of events at present.
    pub(crate) fn columns(&self) -> Arc<FieldColumns> {
        Arc::clone(&self.columns.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What was refused when an epoch was decoded, here or in another process.
    pub(crate) fn rejected(&self, epoch: Epoch, rejects: &[Reject]) {
        if !rejects.is_empty() {
            self.send(rows_of(epoch, &self.again.said(epoch, rejects), BatchBuilder::new()));
        }
    }

    /// Gives rows to history; waits while it has too many.
    pub(crate) fn send(&self, batch: Batch) {
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // If the history thread has died, the committer says so at its next message and ends the engine.
        if let Err(mpsc::TrySendError::Full(rows)) = sender.try_send(Message::Rows(batch)) {
            self.waiting.fetch_add(1, Ordering::Relaxed);
            drop(sender.send(rows));
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Whether somebody waits until history takes rows.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }
}

fn rows_of<R: Row>(epoch: Epoch, rows: &[R], mut builder: BatchBuilder<R>) -> Batch {
    for row in rows {
        builder.push(epoch, row);
    }
    builder.finish().expect("the columns of one table fit together")
}

#[cfg(test)]
impl HistoryTap {
    /// One whose rows nobody takes.
    pub(crate) fn to_nowhere() -> HistoryTap {
        let (sender, _) = mpsc::sync_channel(MESSAGES_MAX);
        let (again, columns) = (Arc::default(), Arc::default());
        HistoryTap { sender: Mutex::new(sender), again, columns, waiting: AtomicUsize::new(0) }
    }
}
