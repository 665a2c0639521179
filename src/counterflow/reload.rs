//! Rules that change while `run` is on: files are watched, requests are answered, and the conductor is handed a compiled
//! set that it binds to its next epoch.
//!
//! One thread does all of it, in turn, beside the hot path: reading, compiling, keeping the texts in the ledger. A set is
//! handed over only once everything that a replay of its epochs needs is durable.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result};
use cf_api::rules::{
    RuleChange, RuleChanged, RuleOperation, RuleProblem, RuleRefused, RuleSource, RuleView, RulesStanding,
};
use cf_ledger::Ledger;
use cf_sigma::{Problem, RuleInfo, RuleSet, RuleStats, Severity, Text};
use cf_types::{Epoch, clock};
use serde_json::{Value, json};
use tokio::{runtime::Handle, sync::oneshot};

use crate::{
    cluster::Links,
    rulebook::{self, BY_HAND, RuleBook, RuleEntry, Shelf, TextChanges},
    rules,
    rules_work::{self, Keeper, RulesWork},
    status::Status,
};

/// Requests that may wait.
const WAITING_MAX: usize = 64;
/// How long a request waits to learn its epoch.
const BOUND_WITHIN: Duration = Duration::from_secs(10);
/// A file that is gone must be gone this long: editors take it away for a moment.
const GONE_FOR: Duration = Duration::from_millis(300);
/// Of the time between two looks at the files, at most this part is spent in looking.
const LOOKING_PART: u32 = 200;
/// But they are looked at within this time, unless the settings want it less often.
const LOOK_WITHIN: Duration = Duration::from_secs(5);
/// How often what rules cost is written down, and anchors are chosen anew if enough came.
const LEARN_EVERY: Duration = Duration::from_secs(30);

/// Where a compiled set waits for the conductor.
#[derive(Default)]
pub(crate) struct Swap {
    state: Mutex<Swapping>,
    bound: Condvar,
}

#[derive(Default)]
struct Swapping {
    next: Option<Arc<RuleSet>>,
    /// The set in force, by its hash, and since when.
    bound: Option<(String, Epoch)>,
    /// What sets of before counted, by rule.
    counted: HashMap<Arc<str>, RuleStats>,
}

impl Swap {
    /// Hands a set over; an older one that still waits is passed over.
    pub(crate) fn offer(&self, rules: Arc<RuleSet>) {
        self.lock().next = Some(rules);
    }

    /// Whether a set waits.
    pub(crate) fn is_waiting(&self) -> bool {
        self.lock().next.is_some()
    }

    /// What rules cost before this process.
    fn have_counted(&self, counted: HashMap<Arc<str>, RuleStats>) {
        self.lock().counted = counted;
    }

    /// For the conductor: the set that waits.
    pub(crate) fn take(&self) -> Option<Arc<RuleSet>> {
        self.lock().next.take()
    }

    /// The conductor has bound a set to an epoch; what the one before counted is kept.
    pub(crate) fn bind(&self, rules: &RuleSet, epoch: Epoch, before: Option<&RuleSet>) {
        let mut state = self.lock();
        // The same rules in another plan are in force since before.
        if state.bound.as_ref().is_none_or(|(hash, _)| hash != rules.hash()) {
            state.bound = Some((rules.hash().to_owned(), epoch));
        }
        if let Some(before) = before {
            for (info, stats) in before.rules().iter().zip(before.stats()) {
                if stats != RuleStats::default() {
                    let sums = state.counted.entry(Arc::clone(&info.id)).or_default();
                    *sums = added(*sums, stats);
                }
            }
        }
        self.bound.notify_all();
    }

    /// Since when the set in force is.
    fn since(&self) -> Option<Epoch> {
        self.lock().bound.as_ref().map(|(_, epoch)| *epoch)
    }

    /// Waits until a set is bound.
    fn wait(&self, hash: &str) -> Option<Epoch> {
        let end = Instant::now() + BOUND_WITHIN;
        let mut state = self.lock();
        loop {
            if let Some((_, epoch)) = state.bound.as_ref().filter(|(bound, _)| bound == hash) {
                return Some(*epoch);
            }
            let left = end.checked_duration_since(Instant::now())?;
            (state, _) = self.bound.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Swapping> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn added(one: RuleStats, other: RuleStats) -> RuleStats {
    RuleStats {
        hits: one.hits + other.hits,
        candidates: one.candidates + other.candidates,
        nanos_sampled: one.nanos_sampled + other.nanos_sampled,
    }
}

/// What can be asked of the thread.
enum Asked {
    /// Look at the files now, and say what holds then.
    Look(oneshot::Sender<()>),
    Change(RuleChange, oneshot::Sender<Result<RuleChanged, RuleRefused>>),
    End,
}

/// The running thread, as others see it: for health, metrics and the API.
pub(crate) struct Reload {
    asked: SyncSender<Asked>,
    book: Mutex<RuleBook>,
    swap: Arc<Swap>,
    status: Arc<Status>,
    links: Arc<Links>,
}

/// How rules are watched.
pub(crate) struct Watch {
    /// Files and folders.
    pub(crate) paths: Vec<PathBuf>,
    /// How often they are looked at; never if zero.
    pub(crate) every: Duration,
    /// Where what rules cost is kept.
    pub(crate) data: PathBuf,
    /// The other processes: all must have compiled a set before it comes into force.
    pub(crate) links: Arc<Links>,
}

impl Reload {
    /// Starts the thread. `stamps` were taken before the files of `book` were read.
    pub(crate) fn start(
        book: RuleBook,
        stamps: Stamps,
        watch: Watch,
        ledger: Ledger,
        shelf: Shelf,
        status: Arc<Status>,
        runtime: Handle,
    ) -> Result<(Arc<Reload>, thread::JoinHandle<()>)> {
        let (asked, waiting) = sync_channel(WAITING_MAX);
        let (shown, links) = (Mutex::new(book.clone()), Arc::clone(&watch.links));
        let reload = Arc::new(Reload { asked, book: shown, swap: Arc::default(), status, links });
        let shared = Arc::clone(&reload);
        let before = RulesWork::open(&watch.data);
        reload.swap.have_counted(rules_work::counted(&before));
        book.set.have_seen(before.fields.iter().cloned());
        let keeper = Keeper::new(&watch.data, before);
        let mut work = Work { book, stamps, watch, ledger, shelf, runtime, shared, keeper, looking: Duration::ZERO };
        let thread = thread::Builder::new()
            .name("rules".to_owned())
            .spawn(move || work.run(&waiting))
            .context("could not start the thread that watches rules")?;
        Ok((reload, thread))
    }

    /// Where compiled sets wait.
    pub(crate) fn swap(&self) -> &Arc<Swap> {
        &self.swap
    }

    /// Looks at the files at once; gives what is in force when they have been looked at, and what is wrong.
    pub(crate) async fn look_now(&self) -> Value {
        let (done, looked) = oneshot::channel();
        let asked = self.asked.try_send(Asked::Look(done)).is_ok();
        let looked = asked && looked.await.is_ok();
        let book = self.book();
        let shown = |problem: &Problem| problem.to_string();
        json!({
            "looked": looked, "rule_set": book.set.hash(), "rules": book.set.rules().len(),
            "problems": book.all_problems().filter(|problem| problem.severity == Severity::Error).map(shown)
                .collect::<Vec<_>>(),
            // Files that are broken now: what they said before stays in force.
            "held": book.held.keys().collect::<Vec<_>>(),
        })
    }

    /// Ends the thread after what it has begun.
    pub(crate) fn end(&self) {
        drop(self.asked.send(Asked::End));
    }

    /// The compiled rules as they are.
    pub(crate) fn rules(&self) -> Arc<RuleSet> {
        Arc::clone(&self.book.lock().unwrap_or_else(PoisonError::into_inner).set)
    }

    /// The rules as they are.
    pub(crate) fn book(&self) -> RuleBook {
        self.book.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What each rule did since the start, by id.
    pub(crate) fn counted(&self) -> HashMap<Arc<str>, RuleStats> {
        let mut counted = self.swap.lock().counted.clone();
        let set = self.book().set;
        let here = set.rules().iter().map(|info| Arc::clone(&info.id)).zip(set.stats());
        for (rule, stats) in here.chain(self.links.work()) {
            let sums = counted.entry(rule).or_default();
            *sums = added(*sums, stats);
        }
        counted
    }

    fn view(&self, book: &RuleBook, info: &RuleInfo, unseen: Option<&Vec<Arc<str>>>, counted: &Counted) -> RuleView {
        let stats = counted.by_rule.get(&info.id).copied().unwrap_or_default();
        let hits = counted.hits.get(&info.id);
        RuleView {
            id: Arc::clone(&info.id),
            title: Arc::clone(&info.title),
            description: Arc::clone(&info.description),
            level: info.level,
            status: info.status.clone(),
            tags: Arc::clone(&info.tags),
            file: Arc::clone(&info.file),
            line: info.line,
            source: if info.file.starts_with(BY_HAND) { RuleSource::Api } else { RuleSource::File },
            correlation: info.correlation,
            alerts: info.alerts,
            enabled: info.enabled,
            hits: hits.map_or(0, |hits| hits.count),
            last_hit: hits.map(|hits| hits.newest),
            last_hit_at: hits.map(|hits| hits.found_at),
            candidates: stats.candidates,
            cpu_share: counted.share(stats.nanos_sampled),
            fields_unseen: unseen.cloned().unwrap_or_default(),
            etag: book.etag(info),
        }
    }

    fn count(&self) -> Counted {
        let by_rule = self.counted();
        let nanos = by_rule.values().map(|stats| stats.nanos_sampled).sum();
        Counted { by_rule, nanos, hits: self.status.rule_hits() }
    }
}

/// What is known of the work of rules.
struct Counted {
    by_rule: HashMap<Arc<str>, RuleStats>,
    nanos: u64,
    hits: BTreeMap<Arc<str>, crate::status::RuleHits>,
}

impl Counted {
    #[allow(clippy::as_conversions, clippy::cast_precision_loss)] // a share for people
    fn share(&self, nanos: u64) -> Option<f64> {
        (self.nanos > 0).then(|| (nanos as f64 / self.nanos as f64 * 1e4).round() / 1e4)
    }
}

impl cf_api::Rules for Reload {
    fn list(&self) -> Vec<RuleView> {
        let (book, counted) = (self.book(), self.count());
        let unseen = book.set.fields_unseen();
        let rules = book.set.indexes().zip(book.set.rules());
        rules.map(|(index, info)| self.view(&book, info, unseen.get(&index), &counted)).collect()
    }

    fn get(&self, id: &str) -> Option<(RuleView, Arc<str>)> {
        let book = self.book();
        let (info, text) = book.rule(id)?;
        let unseen = book.set.fields_unseen();
        let index = book.set.indexes().zip(book.set.rules()).find(|(_, rule)| rule.id == info.id);
        let unseen = index.and_then(|(index, _)| unseen.get(&index));
        Some((self.view(&book, info, unseen, &self.count()), Arc::clone(text)))
    }

    fn standing(&self) -> RulesStanding {
        let book = self.book();
        let mut problems: Vec<_> = book.all_problems().map(shown).collect();
        problems.sort_by_key(|problem| problem.severity != "error");
        RulesStanding {
            rule_set: book.set.hash().to_owned(),
            since_epoch: self.swap.since(),
            held: book.held.keys().cloned().collect(),
            problems,
        }
    }

    fn change(&self, change: RuleChange) -> Option<oneshot::Receiver<Result<RuleChanged, RuleRefused>>> {
        let (answer, answered) = oneshot::channel();
        self.asked.try_send(Asked::Change(change, answer)).ok()?;
        Some(answered)
    }
}

fn shown(problem: &Problem) -> RuleProblem {
    RuleProblem {
        code: problem.code,
        severity: match problem.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        },
        file: Arc::clone(&problem.file),
        line: problem.line,
        column: problem.column,
        message: problem.message.clone(),
        hint: problem.hint.clone(),
    }
}

/// By which a change of a file is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    modified: Option<SystemTime>,
    bytes: u64,
    inode: u64,
}

/// The files under the watched paths, in the order of loading.
pub(crate) type Stamps = Vec<(PathBuf, Option<Stamp>)>;

/// Looks at all files without reading them.
pub(crate) fn stamps(paths: &[PathBuf]) -> Result<Stamps> {
    Ok(rules::list(paths)?.into_iter().map(|path| (stamp(&path), path)).map(|(stamp, path)| (path, stamp)).collect())
}

/// `None` when it cannot be looked at: then it will look changed until it can.
fn stamp(path: &Path) -> Option<Stamp> {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(path).ok()?;
    Some(Stamp { modified: meta.modified().ok(), bytes: meta.len(), inode: meta.ino() })
}

/// The thread's own.
struct Work {
    book: RuleBook,
    stamps: Stamps,
    watch: Watch,
    ledger: Ledger,
    shelf: Shelf,
    runtime: Handle,
    shared: Arc<Reload>,
    keeper: Keeper,
    /// How long the last look at the files took.
    looking: Duration,
}

impl Work {
    fn run(&mut self, waiting: &Receiver<Asked>) {
        let every = if self.watch.every.is_zero() { Duration::MAX } else { self.watch.every };
        let mut pause = every;
        let (mut looked_at, mut learnt_at) = (Instant::now(), Instant::now());
        loop {
            if learnt_at.elapsed() >= LEARN_EVERY {
                self.learn();
                learnt_at = Instant::now();
            }
            let left = |every: Duration, at: Instant| every.saturating_sub(at.elapsed());
            let asked = waiting.recv_timeout(left(pause, looked_at).min(left(LEARN_EVERY, learnt_at)));
            match asked {
                Err(RecvTimeoutError::Timeout) if looked_at.elapsed() < pause => {}
                looked @ (Ok(Asked::Look(_)) | Err(RecvTimeoutError::Timeout)) => {
                    if let Err(error) = self.look() {
                        tracing::error!(
                            error = format!("{error:#}"),
                            "rules could not be looked at; the old ones stay"
                        );
                    }
                    // A folder that is slow to look at is looked at less often.
                    pause = every.max((self.looking * LOOKING_PART).min(LOOK_WITHIN));
                    looked_at = Instant::now();
                    if let Ok(Asked::Look(done)) = looked {
                        self.learn();
                        let _gone = done.send(()); // whoever waited may be gone
                    }
                }
                Ok(Asked::Change(change, answer)) => {
                    // Whoever asked may be gone; the change holds all the same.
                    drop(answer.send(self.change(change)));
                }
                Ok(Asked::End) | Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.keep_work(); // a new plan would serve nobody any more
    }

    fn keep_work(&mut self) {
        self.keeper.keep(self.book.set.fields_seen(), &self.shared.counted());
    }

    /// Writes down what rules cost, and chooses anchors anew if enough came.
    fn learn(&mut self) {
        self.book.set.have_seen(self.watch.links.take_fields());
        self.keep_work();
        let Some(set) = self.book.set.replanned() else { return };
        tracing::info!(rule_set = set.hash(), "anchors were chosen anew by what came");
        let set = Arc::new(set);
        self.shared.swap.offer(Arc::clone(&set));
        self.publish(RuleBook { set, ..self.book.clone() });
    }

    /// Takes in what changed in the files. On an error nothing is taken in, and the next look sees the same again.
    fn look(&mut self) -> Result<()> {
        let begin = Instant::now();
        let mut now = stamps(&self.watch.paths)?;
        self.looking = begin.elapsed();
        if now == self.stamps {
            return Ok(());
        }
        let gone = |now: &Stamps, before: &Stamps| {
            let there: BTreeSet<&PathBuf> = now.iter().map(|(path, _)| path).collect();
            before.iter().any(|(path, _)| !there.contains(path))
        };
        if gone(&now, &self.stamps) {
            thread::sleep(GONE_FOR);
            now = stamps(&self.watch.paths)?;
        }
        let before: HashMap<&PathBuf, &Option<Stamp>> = self.stamps.iter().map(|(path, stamp)| (path, stamp)).collect();
        let mut changes = TextChanges::default();
        let mut unsettled = BTreeSet::new();
        for (path, stamp_now) in &now {
            if stamp_now.is_some() && before.get(path) == Some(&stamp_now) {
                continue;
            }
            match rules::read_one(path) {
                // Written while it was read, perhaps: the next look tells.
                Ok(_) if stamp(path) != *stamp_now => drop(unsettled.insert(path.clone())),
                Ok(text) => changes.upsert.extend(self.is_new(&text).then_some(text)),
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), "a rule file could not be read; its old text stays");
                    unsettled.insert(path.clone());
                }
            }
        }
        let there: BTreeSet<Arc<str>> = now.iter().map(|(path, _)| rules::name_of(path)).collect();
        let were = self.stamps.iter().map(|(path, _)| rules::name_of(path));
        changes.removed.extend(were.filter(|file| !there.contains(file)));
        // What could not be read keeps its old stamp, if it had one.
        for (path, stamp) in &mut now {
            if unsettled.contains(&*path) {
                *stamp = before.get(&*path).copied().copied().flatten();
            }
        }
        if changes.upsert.is_empty() && changes.removed.is_empty() {
            self.stamps = now;
            return Ok(());
        }
        let files = changes.upsert.len() + changes.removed.len();
        let book = self.book.with_files(changes);
        for file in book.held.keys().filter(|file| !self.book.held.contains_key(*file)) {
            for problem in book.held.get(file).into_iter().flatten() {
                tracing::error!(%problem, "a rule file is broken; its old version stays in force");
            }
        }
        for problem in book.problems.iter().filter(|problem| problem.severity == Severity::Error) {
            if !self.book.problems.contains(problem) {
                tracing::error!(%problem, "a rule does not load");
            }
        }
        tracing::info!(
            files,
            rules = book.set.rules().len(),
            problems = book.errors(),
            rule_set = book.set.hash(),
            "rule files have changed"
        );
        self.runtime.block_on(self.shelf.put(&book))?;
        self.prepare(&book)?;
        self.publish(book);
        self.stamps = now;
        Ok(())
    }

    /// Lets the other processes compile a set whose texts the ledger keeps; one that cannot keeps it out.
    fn prepare(&self, book: &RuleBook) -> Result<()> {
        if book.set.hash() == self.book.set.hash() { Ok(()) } else { self.watch.links.prepare(&book.set) }
    }

    /// Whether a text is another than the one that was read last under its name.
    fn is_new(&self, text: &Text) -> bool {
        self.book.held.contains_key(&text.file)
            || self.book.texts.get(&text.file).is_none_or(|known| **known != *text.text)
    }

    /// Puts a book in force whose texts the ledger keeps.
    fn publish(&mut self, book: RuleBook) {
        if book.set.hash() != self.book.set.hash() {
            self.shared.swap.offer(Arc::clone(&book.set));
        }
        *self.shared.book.lock().unwrap_or_else(PoisonError::into_inner) = book.clone();
        self.book = book;
    }

    fn change(&mut self, change: RuleChange) -> Result<RuleChanged, RuleRefused> {
        let RuleChange { what, author, reason } = change;
        let planned = self.plan(what)?;
        let Planned { file, text, id, entries, changes, disabled } = planned;
        let book = self.book.with_hand(&changes, disabled).map_err(|problems| invalid(&problems))?;
        let failed = |error: anyhow::Error| RuleRefused::Failed(format!("{error:#}"));
        // First its text for replays, then that it was said, then in force: what is answered survives a crash.
        let put = self.runtime.block_on(self.shelf.put(&book));
        put.map_err(failed)?;
        self.prepare(&book).map_err(failed)?;
        let said = self.runtime.block_on(rulebook::append(&self.ledger, &entries, &author, &reason, clock::now()));
        said.map_err(failed)?;
        let hash = book.set.hash().to_owned();
        let ids: Vec<Arc<str>> = match &text {
            Some(_) => ids_of(&book, &file),
            None => Vec::new(),
        };
        self.publish(book);
        let epoch = self.shared.swap.wait(&hash);
        tracing::info!(id, author, reason, epoch, rule_set = hash, "a rule was changed by hand");
        let info = self.book.rule(&id).map(|(info, _)| info);
        let warnings = self.book.problems.iter().filter(|problem| problem.file == file && text.is_some());
        Ok(RuleChanged {
            id: Arc::from(id.as_str()),
            ids,
            epoch,
            etag: info.map_or_else(String::new, |info| self.book.etag(info)),
            warnings: warnings.map(shown).collect(),
        })
    }

    /// What a request comes to, before anything is compiled.
    fn plan(&self, what: RuleOperation) -> Result<Planned, RuleRefused> {
        let mut disabled = BTreeSet::clone(&self.book.disabled);
        let mut planned = match what {
            RuleOperation::Make { text, enabled } => {
                let ids = read_ids(&text)?;
                let taken = |id: &Arc<str>| self.book.rule(id).is_some();
                if let Some(id) = ids.iter().find(|id| taken(id)) {
                    return Err(RuleRefused::Exists(Arc::clone(id)));
                }
                let Some(id) = ids.first() else { return Err(invalid(&[])) };
                let file: Arc<str> = Arc::from(format!("{BY_HAND}{id}"));
                let mut planned = Planned::put(id, file, text);
                // What was disabled under an id that is free now is not meant.
                ids.iter().for_each(|id| planned.set_enabled(id, enabled, &mut disabled));
                planned
            }
            RuleOperation::Change { id, text, enabled, if_match } => {
                let info = self.found(&id, if_match)?;
                let file = Arc::clone(&info.file);
                let mut planned = match text {
                    Some(text) => {
                        if !file.starts_with(BY_HAND) {
                            return Err(RuleRefused::NotOurs(format!(
                                "the rule is from the file {file}: change it there, or disable it here (\"enabled\": false)"
                            )));
                        }
                        if !read_ids(&text)?.iter().any(|other| **other == *id) {
                            return Err(RuleRefused::Invalid(vec![RuleProblem {
                                code: "other_id",
                                severity: "error",
                                file,
                                line: 1,
                                column: 1,
                                message: format!("the text has no rule of the id {id}"),
                                hint: Some("give it this id, or POST it as a new rule".to_owned()),
                            }]));
                        }
                        Planned::put(&id, file, text)
                    }
                    None => Planned { id: id.clone(), file, ..Planned::default() },
                };
                if let Some(enabled) = enabled {
                    planned.set_enabled(&id, enabled, &mut disabled);
                }
                planned
            }
            RuleOperation::Remove { id, if_match } => {
                let file = Arc::clone(&self.found(&id, if_match)?.file);
                if !file.starts_with(BY_HAND) {
                    return Err(RuleRefused::NotOurs(format!(
                        "the rule is from the file {file}: remove it there, or disable it here (PUT \"enabled\": false)"
                    )));
                }
                let mut planned = Planned { id: id.clone(), file: Arc::clone(&file), ..Planned::default() };
                planned.entries.push(RuleEntry::Remove { file: file.to_string() });
                for id in ids_of(&self.book, &file) {
                    planned.set_enabled(&id, true, &mut disabled);
                }
                planned.changes.removed.push(file);
                planned
            }
        };
        planned.disabled = disabled;
        Ok(planned)
    }

    fn found(&self, id: &str, if_match: Option<Vec<String>>) -> Result<&RuleInfo, RuleRefused> {
        let (info, _) = self.book.rule(id).ok_or(RuleRefused::Unknown)?;
        match if_match {
            Some(tags) if !tags.contains(&self.book.etag(info)) => Err(RuleRefused::Stale),
            Some(_) | None => Ok(info),
        }
    }
}

/// A request, ready to be tried.
struct Planned {
    id: String,
    file: Arc<str>,
    /// Its new text, if it has one.
    text: Option<String>,
    entries: Vec<RuleEntry>,
    changes: TextChanges,
    disabled: BTreeSet<String>,
}

impl Default for Planned {
    fn default() -> Planned {
        Planned {
            id: String::new(),
            file: Arc::from(""),
            text: None,
            entries: Vec::new(),
            changes: TextChanges::default(),
            disabled: BTreeSet::new(),
        }
    }
}

impl Planned {
    fn put(id: &str, file: Arc<str>, text: String) -> Planned {
        let upsert = vec![Text { file: Arc::clone(&file), text: text.clone() }];
        Planned {
            id: id.to_owned(),
            entries: vec![RuleEntry::Put { file: file.to_string(), text: text.clone() }],
            changes: TextChanges { upsert, removed: Vec::new() },
            file,
            text: Some(text),
            disabled: BTreeSet::new(),
        }
    }

    fn set_enabled(&mut self, id: &str, enabled: bool, disabled: &mut BTreeSet<String>) {
        if enabled && disabled.remove(id) {
            self.entries.push(RuleEntry::Enable { id: id.to_owned() });
        }
        if !enabled && disabled.insert(id.to_owned()) {
            // Before its text: after a crash in between it must not be evaluated.
            self.entries.insert(0, RuleEntry::Disable { id: id.to_owned() });
        }
    }
}

/// Ids of the rules of a file, in the order of its lines.
fn ids_of(book: &RuleBook, file: &Arc<str>) -> Vec<Arc<str>> {
    let mut rules: Vec<&RuleInfo> = book.set.rules().iter().filter(|info| info.file == *file).collect();
    // Of a plan's rule that counts, the correlation bears the id in the text.
    rules.sort_by_key(|info| (info.line, !info.correlation));
    rules.into_iter().map(|info| Arc::clone(&info.id)).collect()
}

/// Ids of the rules in a text, in the order of its lines; or what is wrong with it. By hand an id must be given: one that
/// is made from the text would change with it.
fn read_ids(text: &str) -> Result<Vec<Arc<str>>, RuleRefused> {
    let parsed = cf_sigma::parse(&[Text { file: Arc::from("text"), text: text.to_owned() }]);
    let refused = |problem: &&Problem| problem.severity == Severity::Error || problem.code == "no_id";
    let mut wrong: Vec<Problem> = parsed.problems.iter().filter(refused).cloned().collect();
    wrong.iter_mut().for_each(|problem| problem.severity = Severity::Error);
    if !wrong.is_empty() {
        return Err(invalid(&wrong));
    }
    let plain = parsed.rules.iter().map(|rule| (rule.line, true, &rule.id));
    let mut ids: Vec<_> = plain.chain(parsed.correlations.iter().map(|rule| (rule.line, false, &rule.id))).collect();
    ids.sort();
    if ids.is_empty() {
        return Err(RuleRefused::Invalid(vec![RuleProblem {
            code: "no_rule",
            severity: "error",
            file: Arc::from("text"),
            line: 1,
            column: 1,
            message: "the text has no rule".to_owned(),
            hint: None,
        }]));
    }
    Ok(ids.into_iter().map(|(_, _, id)| Arc::clone(id)).collect())
}

fn invalid(problems: &[Problem]) -> RuleRefused {
    RuleRefused::Invalid(problems.iter().map(shown).collect())
}
