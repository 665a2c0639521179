//! The conductor of `run`: cuts epochs out of spool and control log, feeds the graph, applies what comes out.
//!
//! One thread does all three in turn, with a bounded number of epochs in flight. On start it first replays the epochs
//! that the ledger has and the facts log has not, exactly as they were cut; they only build the present state, and its
//! digest must be the ledger's.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use cf_dataflows::Recalled;
use cf_engine::EpochInput;
use cf_fail as fail;
use cf_kafka::Class;
use cf_ledger::facts_log::{FactsLog, Loaded};
use cf_ledger::{ControlEntry, Difference, Present, Sealed};
use cf_sigma::{RuleSet, Text};
use cf_spool::{ReadError, Spool, SpoolReader};
use cf_types::{EntityRisk, Epoch, EpochOutput, EpochRecord, Fact, Record, Time, clock, record::stream};

use crate::{
    again,
    align::Alignment,
    cluster::Lead,
    commit::{ENGINE, Store},
    kafka::{self, Again, Kafka},
    keep::Keep,
    live::{self, Waiting},
    lookup::{self, Lookup},
    passage::Passage,
    reload::Swap,
    remember::{self, Began, Remember},
    room::{self, Room},
    rulebook::Shelf,
    rules,
    scoring::{self, Scoring},
    shares::{self, ROUND, Shares},
    sources::Board,
    status::Status,
    triage::{Triage, served::Served},
    warm::{self, Warm},
};

/// Records of one epoch at most.
const EPOCH_RECORDS: usize = 8_192;
/// Bytes of one epoch's records, about: one record may go beyond it.
const EPOCH_BYTES: usize = 32 << 20;
/// Epochs in flight at most: beyond it the spool waits, and then the senders.
const IN_FLIGHT: usize = 8;
/// The same where some sources go before others, or wait for others: what is in flight cannot be overtaken any more.
const FEW_IN_FLIGHT: usize = 2;
/// How long an epoch gathers after its first record when there is little to do.
const GATHER: Duration = Duration::from_millis(10);
/// How long Kafka may wait for us when nothing else happens.
const KAFKA_EVERY: Duration = Duration::from_millis(5);
/// How often others are told how the sources stand.
const NOTE_EVERY: Duration = Duration::from_secs(1);
/// How often the control log is looked at.
const CONTROL_EVERY: Duration = Duration::from_millis(50);
/// Alerts in which a rebuilt state may differ from the ledger before a person must say yes.
const DIFFERENCES_MAX: usize = 20;
/// How often the facts log is made durable and the spool trimmed.
const FLUSH_EVERY: Duration = Duration::from_secs(5);

/// Before a file's path among the ends of an epoch.
const FILE_PREFIX: &str = "file:";

/// What the conductor needs to know.
pub(crate) struct Conductor {
    pub(crate) store: Store,
    pub(crate) engine: Lead,
    pub(crate) spool: Arc<Spool>,
    /// Partitions that are read.
    pub(crate) kafka: Kafka,
    /// Which of them wait for others.
    pub(crate) alignment: Alignment,
    pub(crate) facts_log: FactsLog,
    /// Kept for the ledger.
    pub(crate) room: Arc<Room>,
    /// Held while something is taken away.
    pub(crate) keep: Keep,
    pub(crate) rule_options: rules::RuleOptions,
    /// The rules from the next epoch on.
    pub(crate) rules: Arc<RuleSet>,
    /// Where others wait.
    pub(crate) swap: Arc<Swap>,
    pub(crate) idle_after: Duration,
    pub(crate) horizon_s: i64,
    pub(crate) status: Arc<Status>,
    /// How the sources stand, for others.
    pub(crate) board: Arc<Board>,
    /// Where changed settings wait.
    pub(crate) live: Arc<Waiting>,
    /// Whether a rebuilt state that differs much from the ledger may win.
    pub(crate) accept_differences: bool,
    /// What the facts log held at the start.
    pub(crate) recalled: Loaded,
    /// Finds events of before for new indicators.
    pub(crate) lookup: Lookup,
    /// Asks models about alerts.
    pub(crate) triage: Triage,
    pub(crate) scoring: Scoring,
    /// What they said, as facts.
    pub(crate) served: Served,
    /// Finds events of before for rules that are asked for.
    pub(crate) warm: Warm,
    /// Finds what rules that begin would remember.
    pub(crate) remember: Remember,
    /// When rules began, of those that were not there from the first epoch.
    pub(crate) began: Began,
    /// Where in the spool each epoch ends that is not in the facts log yet.
    pub(crate) ends: VecDeque<(Epoch, u64)>,
    /// The first epoch of those behind which alerts waited for a new score, while some do.
    pub(crate) rescoring: Option<Epoch>,
}

/// Where the live run goes on.
struct Cut {
    epoch: Epoch,
    row: u64,
    control: i64,
    rules: String,
    /// The rule set of that hash, if there was an epoch.
    set: Option<Arc<RuleSet>>,
    /// How far each file is read: they keep their place among the ends of every epoch.
    files: BTreeMap<String, u64>,
    reader: SpoolReader,
    /// When each source was last heard, by our clock.
    heard: HashMap<Arc<str>, Instant>,
    /// Records that no epoch has yet.
    gathered: Vec<Record>,
    /// Bytes that they may still grow by.
    bytes_left: usize,
    /// What of them each class may take.
    shares: Shares,
    gathering_since: Option<Instant>,
    waiting: Vec<ControlEntry>,
    looked_at_control: Instant,
    /// Whether all of the control log was taken since we were told to stop.
    looked_at_stop: bool,
    /// How event time goes on while all sources are silent.
    passage: Passage,
    /// Whether some partition cannot be read: it may have events, so its silence says nothing.
    is_cut_off: bool,
}

impl Cut {
    /// Whether every source can be read and has been silent for so long.
    fn is_silent(&self, idle_after: Duration) -> bool {
        !self.is_cut_off && self.heard.values().all(|at| at.elapsed() >= idle_after)
    }

    /// The streams of the records gathered from one on were just heard.
    fn hear(&mut self, from: usize) {
        let now = Instant::now();
        // Neighbours are mostly of one stream.
        let new = self.gathered.get(from..).unwrap_or_default();
        for run in new.chunk_by(|a, b| Arc::ptr_eq(&a.position.origin, &b.position.origin)) {
            if let Some(first) = run.first() {
                self.passage.heard(now);
                self.heard.insert(Arc::clone(stream(&first.origin, &first.position)), now);
            }
        }
    }
}

impl Conductor {
    /// Replays what was, then goes live until `stop`; then drains and closes.
    pub(crate) fn run(mut self, stop: &AtomicBool) -> Result<()> {
        let Some(mut cut) = self.recover(stop)? else {
            // Nothing was changed, and nothing is lost: what was received waits in the spool.
            self.store.history.settle()?;
            self.engine.stop()?;
            return self.store.close();
        };
        self.ask_again(&cut)?;
        if cut.rules == self.rules.hash() {
            self.swap.bind(&self.rules, cut.epoch, None);
        }
        self.status.ready();
        self.engine.go_live();
        fail::point("start.recovered");
        let mut flying: VecDeque<EpochRecord> = VecDeque::new();
        let mut flushed = Instant::now();
        let mut noted: Option<Instant> = None;
        loop {
            if noted.is_none_or(|at: Instant| at.elapsed() >= NOTE_EVERY) {
                noted = Some(Instant::now());
                let states = self.kafka.states();
                cut.is_cut_off = kafka::is_cut_off(&states);
                if cut.is_cut_off {
                    cut.passage.heard(Instant::now());
                }
                self.board.note(states);
            }
            let stopping = stop.load(Ordering::Acquire);
            if let Some(error) = self.spool.log().ended() {
                bail!("the spool takes nothing any more, so nothing can be received: {error}");
            }
            self.look_at_control(&mut cut, stopping)?;
            let due = self.gather(&mut cut, flying.is_empty(), stopping)?;
            let in_flight = self.in_flight();
            if due && flying.len() < in_flight {
                flying.push_back(self.cut(&mut cut)?);
            }
            while let Some(record) = flying.front() {
                let full = flying.len() >= in_flight || (stopping && cut.gathered.is_empty());
                let Some(output) =
                    self.engine.output(if full { Duration::from_millis(100) } else { Duration::from_millis(2) })?
                else {
                    break;
                };
                fail::point("epoch.computed");
                let record = record.clone();
                flying.pop_front();
                cut.passage.through(&output);
                self.apply(record, &output)?;
            }
            if flushed.elapsed() >= FLUSH_EVERY {
                flushed = Instant::now();
                self.flush()?;
            }
            if stopping
                && flying.is_empty()
                && cut.gathered.is_empty()
                && cut.waiting.is_empty()
                && cut.looked_at_stop
                && cut.row >= self.spool.log().durable_end()
            {
                break;
            }
        }
        fail::point("stop.drained");
        // History first: other processes have rows for it.
        self.store.history.settle()?;
        self.engine.stop()?;
        self.flush()?;
        self.store.close()
    }

    fn in_flight(&self) -> usize {
        if self.kafka.has_classes() || self.alignment.is_tight() { FEW_IN_FLIGHT } else { IN_FLIGHT }
    }

    /// Rebuilds the graph's state: the facts log, then the epochs behind it from the spool.
    /// `None` if it was stopped while it waited for a cluster.
    fn recover(&mut self, stop: &AtomicBool) -> Result<Option<Cut>> {
        let mut loaded = std::mem::take(&mut self.recalled);
        // What was counted for a rule before it began anew was forgotten then.
        self.began = self.store.runtime.block_on(self.store.ledger.rules_since())?;
        loaded.forget_before(&self.began);
        for damage in &loaded.damage {
            tracing::error!(damage, "the facts log is damaged; more is replayed from the spool");
        }
        let upper = self.store.runtime.block_on(self.store.ledger.engine())?.upper;
        // Epochs up to this one are in the facts log; it must be the ledger's, for where the spool goes on.
        let last = loaded.frontier.saturating_sub(1);
        let mut records = self.records(last, upper)?;
        let newest_bound = records.back().cloned();
        self.kafka.open(records.front().filter(|_| last > 0))?;
        let mut present = Present::default();
        let mut state = State::default();
        if last > 0 {
            let record = records.pop_front().filter(|record| record.epoch == last).with_context(|| {
                format!("the ledger has no epoch {last}, where the facts log ends; restore both from one backup")
            })?;
            self.store.set_rules(&self.rules);
            self.store.members.add(&loaded.detections);
            let Some(mut input) = self.input_of(&record, &mut state, None, stop)? else { return Ok(None) };
            input.recalled = loaded.detections;
            let mut answers = self.store.runtime.block_on(self.store.ledger.control_of_kind(remember::ANSWER))?;
            answers.retain(|entry| entry.seq <= record.control);
            input.remembered = remember::found(&answers, &self.began)?;
            input.newest = record.newest.iter().map(|(source, time)| (Arc::from(source.as_str()), *time)).collect();
            self.status.restore_newest(&record.newest);
            // Sources of before count as just heard: they hold the watermark back until they have been silent for a while.
            state.heard = input.newest.iter().map(|(source, _)| (Arc::clone(source), Instant::now())).collect();
            // A damaged log does not know its watermark any more; the ledger does.
            let kept = self.store.runtime.block_on(async { self.store.ledger.reader().await?.epoch(last).await })?;
            input.watermark = loaded.watermark.or(kept.and_then(|(_, watermark)| watermark));
            self.status.restore_watermark(input.watermark);
            let sealed = self.sealed_upto(last, input.watermark)?;
            let floors = self.store.runtime.block_on(async {
                let reader = self.store.ledger.reader().await?;
                remember::floors(&answers, &self.began, &self.rules, last, &reader, self.horizon_s).await
            })?;
            input.sealed = Some(Recalled { floors, ..sealed });
            self.engine.feed(input)?;
            state.last = self.take(&record, &mut present, false)?;
            state.row = record.ends.get("spool").copied().unwrap_or(0);
        }
        // A spool that was cut short must not number new records as ones that an epoch has already.
        let end = records.back().and_then(|record| record.ends.get("spool")).copied().unwrap_or(0).max(state.row);
        self.spool.log().reserve(end);
        let floor = self.spool.log().first_row();
        if state.row < floor && !records.is_empty() {
            bail!(
                "the spool begins at row {floor}, but the facts log needs row {}: records are missing; \
                 restore the data folder, or rebuild it from history in a new one",
                state.row
            );
        }
        let mut reader = self.spool.read(state.row.max(floor))?;
        let replayed = records.len();
        for record in records {
            let Some(input) = self.input_of(&record, &mut state, Some(&mut reader), stop)? else { return Ok(None) };
            self.engine.feed(input)?;
            state.last = self.take(&record, &mut present, true)?;
        }
        tracing::info!(recalled = last, replayed, upper, "state is rebuilt");
        self.kafka.go_live(newest_bound.as_ref());
        let epoch = self.reconcile(&mut present, upper.max(1), &state)?;
        let mut passage = Passage::new(Instant::now());
        passage.through(&state.last);
        Ok(Some(Cut {
            passage,
            is_cut_off: !self.kafka.is_empty(),
            epoch,
            row: reader.next_row().max(state.row),
            control: state.control,
            rules: state.rules,
            set: state.set,
            files: state.files,
            reader,
            heard: state.heard,
            gathered: Vec::new(),
            bytes_left: EPOCH_BYTES,
            shares: Shares::of(EPOCH_BYTES),
            gathering_since: None,
            waiting: Vec::new(),
            looked_at_control: Instant::now(),
            looked_at_stop: false,
        }))
    }

    /// What was sealed up to an epoch and still weighs in risk and incidents: the ledger's, since sealed is final.
    fn sealed_upto(&self, last: Epoch, watermark: Option<Time>) -> Result<Recalled> {
        // As far back as risk reaches, and an hour for its buckets.
        let span = (EntityRisk::SPAN_HOURS + 1) * 3_600;
        let limit = watermark.map(|watermark| watermark.cell().saturating_sub(self.horizon_s));
        let floor = limit.map_or(i64::MIN, |limit| limit.saturating_sub(span));
        let Sealed { alerts, hubs } = self.store.runtime.block_on(self.store.ledger.sealed_upto(last, floor))?;
        tracing::info!(sealed = alerts.len(), "sealed alerts are recalled");
        Ok(Recalled { alerts, hubs, ..Recalled::default() })
    }

    /// Asks for what was not answered before the last end.
    fn ask_again(&self, cut: &Cut) -> Result<()> {
        let ledger = &self.store.ledger;
        let last = self.store.runtime.block_on(ledger.control_last_of_kind(lookup::ANSWER))?;
        let unanswered = match lookup::unanswered(last.as_ref())? {
            Some(unanswered) => unanswered,
            None => lookup::unanswered_of_all(&self.store.runtime.block_on(ledger.control_of_kind(lookup::ANSWER))?)?,
        };
        let facts = cf_ledger::control::FACT_ADD;
        let runtime = &self.store.runtime;
        let entries = runtime.block_on(ledger.control_of_kind_between(facts, unanswered.since, cut.control))?;
        let held = self.store.runtime.block_on(ledger.facts_at(cut.control))?;
        for mut question in lookup::questions_again(&entries, &unanswered, cut.epoch)? {
            question.facts.retain(|fact| held.binary_search(fact).is_ok());
            self.lookup.ask(question);
        }
        let asked = self.store.runtime.block_on(ledger.control_of_kind(warm::ASKED))?;
        let answers = self.store.runtime.block_on(ledger.control_of_kind(cf_ledger::control::BACKFILL))?;
        // What no epoch has taken yet is taken by the next.
        let asked = asked.into_iter().filter(|entry| entry.seq <= cut.control).collect();
        let (asked, last) = (warm::unanswered(asked, &answers)?, cut.epoch.saturating_sub(1));
        self.warm.ask(warm::questions(&asked, last, &self.rules, self.horizon_begins())?);
        let answers = self.store.runtime.block_on(ledger.control_of_kind(remember::ANSWER))?;
        let questions = remember::questions_again(&answers, &self.began, &self.rules, self.horizon_begins())?;
        self.remember.ask(questions);
        Ok(())
    }

    /// What lies before it is final.
    fn horizon_begins(&self) -> Option<Time> {
        let begins = |watermark: Time| Time::from_seconds(watermark.cell().saturating_sub(self.horizon_s));
        self.status.watermark().map(begins)
    }

    /// The records of the epochs from `first` up to, without, `upper`.
    fn records(&self, first: Epoch, upper: Epoch) -> Result<VecDeque<EpochRecord>> {
        let mut records: VecDeque<EpochRecord> = VecDeque::new();
        loop {
            let from = records.back().map_or(first, |record| record.epoch + 1);
            let page = self.store.runtime.block_on(self.store.ledger.epochs_from(from))?;
            let before = records.len();
            records.extend(page.into_iter().filter(|record| record.epoch < upper));
            if records.len() == before {
                break;
            }
        }
        let reached = records.back().map_or(first.max(1), |record| record.epoch + 1);
        if reached < upper {
            bail!(
                "the ledger lacks the records of epochs {reached} to {}; restore the data folder from a backup",
                upper - 1
            );
        }
        Ok(records)
    }

    /// An epoch of before, made again from its record.
    fn input_of(
        &mut self,
        record: &EpochRecord,
        state: &mut State,
        reader: Option<&mut SpoolReader>,
        stop: &AtomicBool,
    ) -> Result<Option<EpochInput>> {
        let mut input = EpochInput { epoch: record.epoch, ..EpochInput::default() };
        let mut again = Vec::new();
        if record.rules != state.rules {
            let set = self.rule_set(&record.rules, state)?;
            input.rules = Some(Arc::clone(&set));
            state.set = Some(set);
            state.rules.clone_from(&record.rules);
        }
        input.facts = if state.control == 0 && reader.is_none() {
            let facts = self.store.runtime.block_on(self.store.ledger.facts_at(record.control))?;
            let served = self.store.runtime.block_on(self.served.recall(&self.store.ledger, record.control))?;
            facts.into_iter().map(|fact| (fact, 1)).chain(served).collect()
        } else {
            let entries = self.control_between(state.control, record.control)?;
            self.store.receipts(record.epoch, &entries)?;
            again = self.store.again(record.epoch, &entries)?;
            input.found = lookup::found(&entries)?;
            input.found.extend(scoring::found(&entries)?);
            input.remembered = remember::found(&entries, &self.began)?;
            let mut facts = facts_of(&entries)?;
            self.served.take(&entries, &mut facts)?;
            facts
        };
        self.served.models.clone_from(&record.models);
        state.control = record.control;
        state.files = record
            .ends
            .iter()
            .filter(|(name, _)| name.starts_with(FILE_PREFIX))
            .map(|(n, e)| (n.clone(), *e))
            .collect();
        input.idle = record.idle.iter().map(|source| Arc::from(source.as_str())).collect();
        input.passed_ms = record.passed_ms;
        if let Some(reader) = reader {
            let end = record.ends.get("spool").copied().unwrap_or(state.row);
            while reader.next_row() < end {
                match reader.next() {
                    Some(Ok((row, record))) if row < end => {
                        state.heard.insert(Arc::clone(&record.origin.source), Instant::now());
                        input.records.push(record);
                    }
                    // Rows before it are damaged: it belongs to a later epoch and is read again there.
                    Some(Ok((row, _))) => {
                        *reader = self.spool.read(row)?;
                        break;
                    }
                    None => break,
                    Some(Err(error @ ReadError::Log(_))) => return Err(error.into()),
                    Some(Err(error)) => tracing::error!(%error, "a record of the spool is lost"),
                }
            }
            state.row = end;
            if !self.read_partitions(record, state, &mut input.records, stop)? {
                return Ok(None);
            }
        }
        input.records.extend(again);
        Ok(Some(input))
    }

    /// The records that an epoch of before had from Kafka, however long the cluster lets us wait. False if we are told to
    /// stop meanwhile.
    fn read_partitions(
        &mut self,
        record: &EpochRecord,
        state: &mut State,
        records: &mut Vec<Record>,
        stop: &AtomicBool,
    ) -> Result<bool> {
        let before = records.len();
        self.kafka.begin_again(record);
        let mut said = Instant::now();
        while matches!(self.kafka.read_again(record, self.accept_differences, records)?, Again::Later) {
            self.board.note(self.kafka.states());
            if stop.load(Ordering::Acquire) {
                return Ok(false);
            }
            if said.elapsed() >= Duration::from_secs(10) {
                said = Instant::now();
                tracing::warn!(
                    epoch = record.epoch,
                    "waiting for Kafka to rebuild the state; what is received is kept"
                );
            }
        }
        for record in records.iter().skip(before) {
            let stream = stream(&record.origin, &record.position);
            if !state.heard.contains_key(stream) {
                state.heard.insert(Arc::clone(stream), Instant::now());
            }
        }
        Ok(true)
    }

    fn control_between(&self, after: i64, upto: i64) -> Result<Vec<ControlEntry>> {
        let mut entries = Vec::new();
        let mut last = after;
        while last < upto {
            let more = self.store.runtime.block_on(self.store.ledger.control_since(last))?;
            let Some(end) = more.last().map(|entry| entry.seq) else { break };
            entries.extend(more.into_iter().filter(|entry| entry.seq <= upto));
            last = end;
        }
        Ok(entries)
    }

    /// The rule set of an epoch of before, made from that of the epoch before it if that is possible: a replay may meet
    /// many changes of one rule.
    fn rule_set(&self, hash: &str, state: &mut State) -> Result<Arc<RuleSet>> {
        if hash == self.rules.hash() {
            state.texts.clear();
            return Ok(Arc::clone(&self.rules));
        }
        let texts = self.store.runtime.block_on(Shelf::get(&self.store.ledger, hash))?;
        let texts =
            texts.with_context(|| format!("the ledger lacks rule set {hash} that an epoch was evaluated with"))?;
        let before = state.set.as_ref().filter(|_| !state.texts.is_empty());
        let changed = before.map(|before| {
            let known: HashMap<&str, &str> = state.texts.iter().map(|text| (&*text.file, text.text.as_str())).collect();
            let is_new = |text: &&Text| known.get(&*text.file) != Some(&text.text.as_str());
            let there: HashSet<&str> = texts.iter().map(|text| &*text.file).collect();
            let gone = state.texts.iter().map(|text| &text.file).filter(|file| !there.contains(&***file));
            let removed: Vec<_> = gone.cloned().collect();
            rules::changed(before, texts.iter().filter(is_new).cloned().collect(), &removed).0
        });
        // Another order of the files is another set.
        let set = changed.filter(|set| set.hash() == hash);
        let set = set.unwrap_or_else(|| rules::compile(&texts, &self.rule_options).0);
        state.texts = texts;
        Ok(set)
    }

    /// Waits for the output of an epoch that the ledger has already.
    fn take(&mut self, record: &EpochRecord, present: &mut Present, with_history: bool) -> Result<EpochOutput> {
        let output = self.next_output()?;
        present.apply(&output);
        self.note_rescoring(&output);
        let _folded = self.status.newest_upto(record.epoch);
        if with_history {
            self.store.take_again(record, &output)?;
            self.scoring.ask(record.epoch);
            self.keep(record, &output);
        } else {
            self.store.recall(&output);
        }
        Ok(output)
    }

    /// Compares what was rebuilt with what the ledger says. A few differences (another engine version, a damaged log) are
    /// applied as an epoch of their own, with that reason; many wait for a person, and nothing is undone before. Gives the
    /// next epoch.
    fn reconcile(&mut self, present: &mut Present, epoch: Epoch, state: &State) -> Result<Epoch> {
        let differences = self.store.runtime.block_on(self.store.ledger.reconcile(present))?;
        self.status.differences(differences.len());
        if differences.is_empty() {
            return Ok(epoch);
        }
        for difference in &differences {
            let difference = serde_json::to_string(difference)?;
            tracing::error!(difference, "the rebuilt state differs from the ledger");
        }
        // Another score undoes nothing: it needs nobody's yes.
        let graver = differences.iter().filter(|difference| !matches!(difference, Difference::Score { .. })).count();
        if graver > DIFFERENCES_MAX && !self.accept_differences {
            bail!(
                "the state rebuilt from facts log and spool differs from the ledger in {} alerts; nothing was changed. \
                 Look at the log above; start with --accept-differences to let the rebuilt state win",
                graver
            );
        }
        let mut record = EpochRecord {
            epoch,
            starts: BTreeMap::new(),
            marks: BTreeMap::new(),
            newest: self.status.newest_upto(epoch),
            wall: clock::now(),
            generation: self.store.generation,
            ends: state.files.clone().into_iter().chain([("spool".to_owned(), state.row)]).collect(),
            idle: Vec::new(),
            passed_ms: 0,
            control: state.control,
            rules: state.rules.clone(),
            begun: Vec::new(),
            models: self.served.models.clone(),
            engine: ENGINE.to_owned(),
        };
        self.kafka.bind(&mut record);
        self.engine.feed(EpochInput { epoch, ..EpochInput::default() })?;
        let output = self.next_output()?;
        // Alerts that wait for their scores may have some now.
        present.apply(&output);
        self.note_rescoring(&output);
        self.store.adopt(&record, present, &output)?;
        self.keep(&record, &output);
        Ok(epoch + 1)
    }

    fn next_output(&mut self) -> Result<EpochOutput> {
        loop {
            if let Some(output) = self.engine.output(Duration::from_secs(1))? {
                return Ok(output);
            }
        }
    }

    fn look_at_control(&self, cut: &mut Cut, stopping: bool) -> Result<()> {
        // What was said before we were told to stop is taken, however little before: who said it was told that it is in.
        let last = stopping && !cut.looked_at_stop;
        if (cut.looked_at_control.elapsed() < CONTROL_EVERY && !last) || !cut.waiting.is_empty() {
            return Ok(());
        }
        cut.looked_at_control = Instant::now();
        let waiting = self.store.runtime.block_on(self.store.ledger.control_since(cut.control))?;
        cut.looked_at_stop = stopping && waiting.is_empty();
        cut.waiting = again::one_at_a_time(waiting);
        Ok(())
    }

    /// Takes what the spool has; says whether an epoch is due.
    fn gather(&mut self, cut: &mut Cut, idle: bool, stopping: bool) -> Result<bool> {
        let begun = self.gather_by_class(cut, idle, stopping)?;
        // Each epoch scores some of the alerts that wait for it, with whatever else it brings.
        let rescores = idle && !stopping && self.rescoring.is_some();
        let others = begun || rescores || cut.rules != self.rules.hash() || self.swap.is_waiting();
        if others || !cut.waiting.is_empty() || cut.gathered.len() + ROUND > EPOCH_RECORDS || cut.bytes_left == 0 {
            return Ok(true);
        }
        if cut.gathered.is_empty() {
            if idle && !stopping && cut.is_silent(self.idle_after) && cut.passage.is_due(Instant::now()) {
                return Ok(true);
            }
            if idle && !stopping {
                // Nothing to do at all: sleep until a record comes, but no longer than the others may wait.
                let _next = self.spool.wait(cut.row, if self.kafka.is_empty() { CONTROL_EVERY } else { KAFKA_EVERY });
            }
            return Ok(false);
        }
        let since = *cut.gathering_since.get_or_insert_with(Instant::now);
        if idle && !stopping && since.elapsed() < GATHER {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(stopping || since.elapsed() >= GATHER)
    }

    /// Takes what is there, by turns: when there is more than an epoch holds, each class gets its parts. What is pushed is
    /// of class normal and shares it with Kafka's. Says whether partitions began, which the next epoch must bind.
    fn gather_by_class(&mut self, cut: &mut Cut, idle: bool, stopping: bool) -> Result<bool> {
        // Who stops takes what was accepted, and no more.
        if self.kafka.is_empty() || stopping {
            let mut bytes = cut.bytes_left;
            let _rows = self.gather_spool(cut, EPOCH_RECORDS, &mut bytes)?;
            cut.bytes_left = bytes;
            return Ok(false);
        }
        let begun = self.kafka.tend();
        let (patience, before) = (self.idle_after, cut.gathered.len());
        if !self.alignment.begin(&mut self.kafka, &cut.heard, patience, &mut cut.gathered) {
            return Ok(begun);
        }
        cut.hear(before);
        self.alignment.look(&mut self.kafka, &self.status, &cut.heard, patience);
        // While there is time, what goes first is waited for when it gives nothing at the moment.
        let leading = self.kafka.leading().filter(|_| !idle);
        loop {
            let before = cut.gathered.len();
            let mut is_dry = false;
            for class in Class::ALL {
                let taken = self.take_part(cut, class)?;
                is_dry |= leading == Some(class) && taken < shares::records(class);
            }
            cut.hear(before);
            // A round that is begun is ended: nobody's part falls behind the end of an epoch.
            let full = cut.gathered.len() + ROUND > EPOCH_RECORDS || cut.bytes_left == 0;
            if full || is_dry || (cut.gathered.len() == before && !cut.shares.free()) {
                return Ok(begun);
            }
        }
    }

    /// Takes a class's part of a round; gives how many records that were.
    fn take_part(&mut self, cut: &mut Cut, class: Class) -> Result<usize> {
        let before = cut.gathered.len();
        let part = shares::records(class);
        let budget = cut.shares.budget(class, cut.bytes_left);
        let mut bytes = budget;
        if class == Class::Normal {
            let mut taken = self.kafka.take(class, part.div_ceil(2), &mut bytes, &mut cut.gathered);
            taken += self.gather_spool(cut, part - taken, &mut bytes)?;
            self.kafka.take(class, part.saturating_sub(taken), &mut bytes, &mut cut.gathered);
        } else {
            self.kafka.take(class, part, &mut bytes, &mut cut.gathered);
        }
        cut.shares.used(class, budget - bytes);
        cut.bytes_left -= budget - bytes;
        Ok(cut.gathered.len() - before)
    }

    /// Takes at most so many records of the spool.
    fn gather_spool(&self, cut: &mut Cut, records: usize, bytes: &mut usize) -> Result<usize> {
        let end = self.spool.log().durable_end();
        let before = cut.gathered.len();
        let room = EPOCH_RECORDS.saturating_sub(before).min(records);
        for _ in 0..room {
            if *bytes == 0 {
                break;
            }
            match cut.reader.next() {
                Some(Ok((row, record))) => {
                    cut.row = row + 1;
                    *bytes = bytes.saturating_sub(record.bytes.len());
                    let now = Instant::now();
                    cut.passage.heard(now);
                    cut.heard.insert(Arc::clone(&record.origin.source), now);
                    if &*record.position.origin != "spool" {
                        let name = format!("{FILE_PREFIX}{}", record.position.origin);
                        let next = cut.files.entry(name).or_default();
                        *next = (*next).max(record.position.offset + 1);
                    }
                    cut.gathered.push(record);
                }
                Some(Err(error @ ReadError::Log(_))) => return Err(error.into()),
                Some(Err(error)) => {
                    cut.row = cut.reader.next_row();
                    self.status.damaged();
                    tracing::error!(%error, "a record of the spool is lost");
                }
                // What is durable and cannot be read is a gap (a torn end, numbers held back): nothing waits for it.
                None => {
                    cut.row = cut.row.max(end);
                    break;
                }
            }
        }
        Ok(cut.gathered.len() - before)
    }

    /// Closes an epoch and feeds it.
    fn cut(&mut self, cut: &mut Cut) -> Result<EpochRecord> {
        let mut input =
            EpochInput { epoch: cut.epoch, records: std::mem::take(&mut cut.gathered), ..EpochInput::default() };
        cut.bytes_left = EPOCH_BYTES;
        cut.shares = Shares::of(EPOCH_BYTES);
        for entry in cut.waiting.iter().filter(|entry| entry.kind == kafka::RESUME) {
            self.kafka.resume(&entry.body)?;
        }
        let begun = self.change_rules(cut, &mut input);
        let live::Changed { sources, idle_after } = self.live.take();
        input.sources = sources;
        self.idle_after = idle_after.unwrap_or(self.idle_after);
        input.facts = facts_of(&cut.waiting)?;
        self.served.take(&cut.waiting, &mut input.facts)?;
        let limit = self.status.watermark().map(|watermark| watermark.cell().saturating_sub(self.horizon_s));
        self.served.expire(limit, &mut input.facts);
        input.found = lookup::found(&cut.waiting)?;
        input.found.extend(scoring::found(&cut.waiting)?);
        self.began.extend(begun.iter().map(|rule| (rule.clone(), cut.epoch)));
        input.remembered = remember::found(&cut.waiting, &self.began)?;
        let horizon = self.horizon_begins();
        self.remember.ask(remember::questions(&begun, cut.epoch, &self.began, &self.rules, horizon));
        self.lookup.ask(lookup::question(&cut.waiting, cut.epoch)?);
        self.warm.ask(warm::questions(&cut.waiting, cut.epoch, &self.rules, self.horizon_begins())?);
        self.store.receipts(cut.epoch, &cut.waiting)?;
        for record in self.store.again(cut.epoch, &cut.waiting)? {
            // Else its source could hold the watermark back for ever.
            cut.heard.entry(Arc::clone(&record.origin.source)).or_insert_with(Instant::now);
            input.records.push(record);
        }
        if let Some(last) = cut.waiting.last() {
            cut.control = last.seq;
        }
        cut.waiting.clear();
        let mut idle: Vec<_> = cut
            .heard
            .iter()
            // Who has records that we had no time for is not silent.
            .filter(|(source, at)| at.elapsed() >= self.idle_after && !self.alignment.is_waiting(source))
            .map(|(source, _)| Arc::clone(source))
            .collect();
        // Files are bounded sources: they take no part in the watermark.
        idle.push(Arc::from("file"));
        idle.sort();
        idle.dedup();
        input.idle.clone_from(&idle);
        input.passed_ms = if cut.is_silent(self.idle_after) { cut.passage.take(Instant::now()) } else { 0 };
        let mut record = EpochRecord {
            epoch: cut.epoch,
            starts: BTreeMap::new(),
            marks: BTreeMap::new(),
            newest: BTreeMap::new(), // known when it has been decoded: see `apply`
            passed_ms: input.passed_ms,
            wall: clock::now(),
            generation: self.store.generation,
            ends: cut
                .files
                .iter()
                .map(|(name, end)| (name.clone(), *end))
                .chain([("spool".to_owned(), cut.row)])
                .collect(),
            idle: idle.iter().map(ToString::to_string).collect(),
            control: cut.control,
            rules: cut.rules.clone(),
            begun,
            models: self.served.models.clone(),
            engine: ENGINE.to_owned(),
        };
        self.kafka.bind(&mut record);
        cut.epoch += 1;
        cut.gathering_since = None;
        fail::point("epoch.cut");
        self.engine.feed(input)?;
        Ok(record)
    }

    /// Takes the rule set that waits, if one does, and binds it to this epoch. Gives the rules that begin empty with it.
    fn change_rules(&mut self, cut: &mut Cut, input: &mut EpochInput) -> Vec<String> {
        let taken = self.swap.take();
        let waited = taken.is_some();
        self.rules = taken.unwrap_or_else(|| Arc::clone(&self.rules));
        if cut.rules == self.rules.hash() {
            // The same rules, perhaps in another plan: what they find is the same, and no epoch need tell of it.
            let planned = cut.set.as_ref().is_some_and(|set| !Arc::ptr_eq(set, &self.rules));
            let before = if planned { cut.set.replace(Arc::clone(&self.rules)) } else { None };
            if planned {
                input.rules = Some(Arc::clone(&self.rules));
            }
            if waited {
                self.swap.bind(&self.rules, cut.epoch, before.as_deref());
            }
            return Vec::new();
        }
        tracing::info!(before = cut.rules, now = self.rules.hash(), epoch = cut.epoch, "rules change");
        let before = cut.set.replace(Arc::clone(&self.rules));
        let begun =
            before.as_ref().map(|before| cf_dataflows::begun(before.episode_rules(), self.rules.episode_rules()));
        self.rules.hash().clone_into(&mut cut.rules);
        self.store.set_rules(&self.rules);
        input.rules = Some(Arc::clone(&self.rules));
        self.swap.bind(&self.rules, cut.epoch, before.as_deref());
        begun.unwrap_or_default().iter().map(ToString::to_string).collect()
    }

    fn apply(&mut self, mut record: EpochRecord, output: &EpochOutput) -> Result<()> {
        record.newest = self.status.newest_upto(record.epoch);
        let record = &record;
        let applied = self.store.apply_record(record, output)?;
        self.status.applied(record, output, &applied);
        self.note_rescoring(output);
        self.triage.ask(&applied);
        self.scoring.ask(record.epoch);
        self.keep(record, output);
        fail::point("epoch.applied");
        Ok(())
    }

    /// A restart rebuilds the state of the facts log's last epoch with all facts of then at once. Where alerts wait for their
    /// scores that would not be what the ledger has, so those epochs are computed again instead.
    fn note_rescoring(&mut self, output: &EpochOutput) {
        self.rescoring = (output.rescoring > 0).then(|| self.rescoring.unwrap_or(output.epoch));
    }

    /// Gives an epoch to the facts log; it becomes durable there by [`Conductor::flush`].
    fn keep(&mut self, record: &EpochRecord, output: &EpochOutput) {
        self.facts_log.append_epoch(record.epoch, &output.detections, output.watermark);
        if let Some(end) = record.ends.get("spool") {
            self.ends.push_back((record.epoch, *end));
        }
    }

    /// The same when the disk may be full: then it is tried again with the next call, and the spool waits.
    fn flush(&mut self) -> Result<()> {
        self.room.look();
        match self.flush_now() {
            Err(error) if room::is_full(&error) => {
                tracing::warn!(error = format!("{error:#}"), "the disk is full; the spool is not trimmed meanwhile");
                Ok(())
            }
            other => other,
        }
    }

    /// Makes durable in the facts log what history has durably (never more: what is behind its frontier is not computed
    /// again), forgets what lies behind the horizon, trims the spool.
    fn flush_now(&mut self) -> Result<()> {
        self.kafka.commit();
        let durable = self.store.history.durable();
        self.status.durable(durable);
        // Nor more than what models have answered about: they are asked again with what is computed again.
        let settled = self.rescoring.map_or(Epoch::MAX, |first| first.saturating_sub(1));
        let frontier = self.facts_log.flush(durable.min(self.scoring.done()).min(settled) + 1)?;
        // A backup that is being made copies what lies behind the frontier, too.
        let Some(_alone) = self.keep.alone() else { return Ok(()) };
        // Epoch records are for replaying; history keeps them all for people.
        let _gone = self.store.runtime.block_on(self.store.ledger.epochs_trim(frontier.saturating_sub(1)))?;
        fail::point("epochs.trimmed");
        while let Some((_, end)) = self.ends.pop_front_if(|(epoch, _)| *epoch < frontier) {
            let _segments = self.spool.log().trim(end)?;
        }
        if let Some(watermark) = self.status.watermark() {
            let floor = watermark.cell().saturating_sub(self.horizon_s).saturating_sub(self.reach());
            let _hours = self.facts_log.expire(Time::from_seconds(floor))?;
            self.store.members.forget_before(floor);
        }
        Ok(())
    }

    /// Per file, the first offset that is not in the spool yet: from the last epoch, and from the rows behind it.
    pub(crate) fn files_done(&self) -> Result<HashMap<String, u64>> {
        let upper = self.store.runtime.block_on(self.store.ledger.engine())?.upper;
        let records = self.store.runtime.block_on(self.store.ledger.epochs_from(upper.saturating_sub(1)))?;
        let ends = records.last().map(|record| record.ends.clone()).unwrap_or_default();
        let mut done: HashMap<String, u64> =
            ends.iter().filter_map(|(name, end)| Some((name.strip_prefix(FILE_PREFIX)?.to_owned(), *end))).collect();
        let row = ends.get("spool").copied().unwrap_or(0).max(self.spool.log().first_row());
        for item in self.spool.read(row)? {
            let record = match item {
                Ok((_, record)) => record,
                Err(error @ ReadError::Log(_)) => return Err(error.into()),
                Err(ReadError::Decode { .. }) => continue, // said when it is cut
            };
            let position = &record.position;
            let next = done.entry(position.origin.to_string()).or_default();
            *next = (*next).max(position.offset + 1);
        }
        Ok(done)
    }

    /// How far an episode reaches back behind its last cell: a cut bounds it at 2 C, and what decides on its hits lies
    /// no further before.
    fn reach(&self) -> i64 {
        let builtin = cf_dataflows::builtin();
        let rules = self.rules.episode_rules().iter().chain(&builtin);
        rules.map(|rule| rule.cut() * 2 + rule.reach()).max().unwrap_or(0)
    }
}

#[derive(Default)]
struct State {
    heard: HashMap<Arc<str>, Instant>,
    files: BTreeMap<String, u64>,
    row: u64,
    control: i64,
    rules: String,
    set: Option<Arc<RuleSet>>,
    /// The texts of that set; empty if they were not looked up.
    texts: Vec<Text>,
    /// The output of the last epoch.
    last: EpochOutput,
}

fn facts_of(entries: &[ControlEntry]) -> Result<Vec<(Fact, i64)>> {
    let mut facts = Vec::new();
    for entry in entries {
        facts.extend(entry.fact()?);
    }
    Ok(facts)
}

/// Makes the folder, or says why not.
pub(crate) fn folder(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).with_context(|| format!("could not make data folder {}", path.display()))
}
