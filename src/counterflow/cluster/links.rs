//! The leader's links to its followers: what is sent to all, and how far each is.
//!
//! Two threads send: the conductor epochs, and the one that watches rules new rule sets, so that all have compiled a set
//! before it is bound to an epoch. What one of them has begun to send it ends before the other begins.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    net::TcpStream,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use cf_engine::EpochInput;
use cf_history::{HistoryError, Made};
use cf_ingest::SourceTable;
use cf_sigma::{RuleSet, RuleStats, Text};
use cf_types::{Epoch, Reject};
use tokio::sync::Notify;

use super::{
    lead::Landing,
    link::{Inbox, Outbox, Peer},
    wire::{self, Order, PART_FACTS, Report, RuleWork},
};

/// Rule sets that followers keep ready: the one in force, those that wait to be bound, and some room.
pub(super) const PREPARED_MAX: usize = 4;

/// Gives the texts of a rule set by its hash.
pub(crate) type Texts = Box<dyn Fn(&str) -> Result<Vec<Text>> + Send + Sync>;

/// The links of a leader; without any where one process is alone.
pub(crate) struct Links {
    followers: Vec<Follower>,
    /// Workers of each.
    workers: usize,
    texts: Texts,
    landing: Landing,
    sending: Mutex<Sending>,
    heard: Mutex<Heard>,
    changed: Condvar,
    /// A follower was told to stop.
    leaving: Notify,
}

struct Follower {
    outbox: Outbox,
    peer: Arc<Peer>,
}

/// What was sent.
#[derive(Default)]
struct Sending {
    /// Rule sets that followers were told to compile, the newest last.
    prepared: VecDeque<String>,
    /// The one in force.
    told: String,
}

/// What was reported.
#[derive(Default)]
struct Heard {
    /// By rule set and follower, what it was compiled to, or why not.
    compiled: BTreeMap<String, BTreeMap<usize, Result<String, String>>>,
    /// By follower, how many workers have decoded their share of an epoch.
    decoded: BTreeMap<usize, BTreeMap<Epoch, usize>>,
    work: BTreeMap<Arc<str>, RuleStats>,
    fields: BTreeSet<Arc<str>>,
    /// What was refused, by epoch; history gets it when the epoch is through. Not before: who hears followers must not wait
    /// for history, which may be waiting for what they say next.
    rejects: BTreeMap<Epoch, Vec<Reject>>,
    /// Files that were asked for.
    made: Vec<Made>,
    /// By follower, up to which epoch it has sent all files of its rows.
    made_upto: BTreeMap<usize, Epoch>,
    /// By follower, what its rows take of memory.
    row_bytes: BTreeMap<usize, usize>,
}

impl Links {
    /// Takes up the links, and tells how sources decode.
    pub(super) fn start(
        links: Vec<(usize, TcpStream)>,
        workers: usize,
        silent_max: Duration,
        texts: Texts,
        sources: &SourceTable,
        landing: Landing,
    ) -> Result<Arc<Links>> {
        let (mut followers, mut inboxes) = (Vec::new(), Vec::new());
        for (process, stream) in links {
            let peer = Peer::new(process, silent_max);
            let writing = stream.try_clone().context("could not send to another process")?;
            inboxes.push(Inbox::new(stream, &peer)?);
            let (outbox, _thread) = Outbox::start(writing, &peer, &Order::Beat)?;
            followers.push(Follower { outbox, peer });
        }
        let (sending, heard, changed, leaving) = Default::default();
        let links = Arc::new(Links { followers, workers, texts, landing, sending, heard, changed, leaving });
        for (at, inbox) in inboxes.into_iter().enumerate() {
            links.listen(at, inbox)?;
        }
        links.send_sources(sources)?;
        Ok(links)
    }

    /// Takes a follower's reports on a thread of its own. A report that cannot be taken ends the process: what it was about
    /// would be missing.
    fn listen(self: &Arc<Links>, at: usize, mut inbox: Inbox) -> Result<()> {
        let links = Arc::clone(self);
        let listen = move || {
            let Some(follower) = links.followers.get(at) else { return };
            while let Some(report) = inbox.receive() {
                if let Err(error) = links.take(at, report) {
                    follower.peer.fail(&format!("sends what cannot be taken ({error:#})"));
                }
            }
        };
        thread::Builder::new()
            .name(format!("reports-{}", at + 1))
            .spawn(listen)
            .context("could not start a thread for another process")?;
        Ok(())
    }

    fn take(&self, at: usize, report: Report) -> Result<()> {
        let landing = &self.landing;
        match report {
            Report::Beat => {}
            Report::Made(made) => self.heard().made.push(made),
            Report::MadeAll(upto) => {
                self.heard().made_upto.insert(at, upto);
                self.changed.notify_all();
            }
            Report::Rejects(epoch, rejects) => self.heard().rejects.entry(epoch).or_default().extend(rejects),
            Report::Candidates(epoch, candidates) => {
                landing.gathered.add(epoch, serde_json::from_slice(&candidates)?);
            }
            Report::Decoded { epoch, seen, bytes } => {
                landing.status.take(epoch, &seen);
                let mut heard = self.heard();
                heard.row_bytes.insert(at, bytes);
                *heard.decoded.entry(at).or_default().entry(epoch).or_default() += 1;
                self.changed.notify_all();
            }
            Report::Prepared { rules, compiled } => {
                self.heard().compiled.entry(rules).or_default().insert(at, compiled);
                self.changed.notify_all();
            }
            Report::Work(work) => self.heard().add(work),
            Report::Fields(fields) => {
                self.heard().fields.extend(fields.iter().map(|field| Arc::from(field.as_str())));
            }
            Report::Leave => self.leaving.notify_one(),
            Report::Failed(why) => bail!("it cannot go on: {why}"),
        }
        Ok(())
    }

    /// Lets all followers compile a rule set; returns when they have. The texts of the set are kept by then.
    ///
    /// # Errors
    /// A follower cannot, or compiles it to something else: then the set must not come into force.
    pub(crate) fn prepare(&self, rules: &RuleSet) -> Result<()> {
        if self.followers.is_empty() {
            return Ok(());
        }
        self.send_rules(&mut self.sending(), rules.hash())?;
        self.wait_compiled(rules)
    }

    fn send_rules(&self, sending: &mut Sending, hash: &str) -> Result<()> {
        if sending.prepared.iter().any(|prepared| prepared == hash) {
            return Ok(());
        }
        for Text { file, text } in (self.texts)(hash)? {
            self.send(&Order::Text { file: file.to_string(), text })?;
        }
        self.heard().compiled.remove(hash);
        let columns = self.landing.history.columns().columns().iter().map(ToString::to_string).collect();
        self.send(&Order::Prepare { rules: hash.to_owned(), columns })?;
        sending.prepared.push_back(hash.to_owned());
        while sending.prepared.len() > PREPARED_MAX {
            let gone = sending.prepared.pop_front();
            gone.iter().for_each(|gone| drop(self.heard().compiled.remove(gone)));
        }
        Ok(())
    }

    /// Waits however long they compile: a follower that does not answer is gone, which ends this process.
    fn wait_compiled(&self, rules: &RuleSet) -> Result<()> {
        let ours = compiled(rules);
        let is_awaited = |heard: &mut Heard| {
            heard.compiled.get(rules.hash()).is_none_or(|answers| answers.len() < self.followers.len())
        };
        let heard = self.changed.wait_while(self.heard(), is_awaited).unwrap_or_else(PoisonError::into_inner);
        let answers = heard.compiled.get(rules.hash()).cloned().unwrap_or_default();
        drop(heard);
        for (at, theirs) in answers {
            let process = self.followers.get(at).map_or(0, |follower| follower.peer.process);
            let why = match theirs {
                Ok(theirs) if theirs == ours => continue,
                Ok(_) => "it makes something else of them than this process".to_owned(),
                Err(why) => why,
            };
            // Else nobody would ask it again.
            self.sending().prepared.retain(|prepared| prepared != rules.hash());
            bail!("process {process} of the cluster does not take rule set {}: {why}", rules.hash());
        }
        Ok(())
    }

    /// Sends an epoch to all followers, each with its share of the records; the first share stays in `input`.
    pub(super) fn feed(&self, input: &mut EpochInput) -> Result<()> {
        if self.followers.is_empty() {
            return Ok(());
        }
        if let Some(sources) = &input.sources {
            self.send_sources(sources)?;
        }
        let mut sending = self.sending();
        // The same rules in another plan are this process's own matter.
        let rules = input.rules.as_ref().filter(|rules| rules.hash() != sending.told);
        if let Some(rules) = rules {
            self.send_rules(&mut sending, rules.hash())?;
            drop(sending);
            self.wait_compiled(rules)?;
            sending = self.sending();
            rules.hash().clone_into(&mut sending.told);
        }
        for facts in input.facts.chunks(PART_FACTS) {
            self.send(&Order::Facts(facts.to_vec()))?;
        }
        let share = input.records.len().div_ceil(self.followers.len() + 1);
        let mut rest = input.records.split_off(share.min(input.records.len()));
        let feed =
            wire::encode(&Order::Feed { epoch: input.epoch, rules: rules.map(|rules| rules.hash().to_owned()) })?;
        for follower in &self.followers {
            let after = rest.split_off(share.min(rest.len()));
            wire::orders_of(&rest).iter().try_for_each(|order| follower.outbox.send(order))?;
            follower.outbox.send_encoded(feed.clone());
            rest = after;
        }
        drop(sending);
        Ok(())
    }

    fn send_sources(&self, sources: &SourceTable) -> Result<()> {
        self.send(&Order::Sources(serde_json::to_vec(sources.options())?.into()))
    }

    /// Sends to all.
    fn send(&self, order: &Order) -> Result<()> {
        if !self.followers.is_empty() {
            let order = wire::encode(order)?;
            self.followers.iter().for_each(|follower| follower.outbox.send_encoded(order.clone()));
        }
        Ok(())
    }

    /// Waits, at most so long, until all that followers have of an epoch is reported; says whether it is.
    pub(super) fn is_decoded(&self, epoch: Epoch, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        let mut heard = self.heard();
        loop {
            if (0..self.followers.len()).all(|at| heard.has_decoded(at, epoch, self.workers)) {
                // Nobody asks about earlier ones any more.
                heard.decoded.values_mut().for_each(|epochs| *epochs = epochs.split_off(&(epoch + 1)));
                let later = heard.rejects.split_off(&(epoch + 1));
                let rejects = std::mem::replace(&mut heard.rejects, later);
                drop(heard);
                rejects.iter().for_each(|(epoch, rejects)| self.landing.history.rejected(*epoch, rejects));
                return true;
            }
            let Some(left) = end.checked_duration_since(Instant::now()) else { return false };
            (heard, _) = self.changed.wait_timeout(heard, left).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether waiting says nothing of the followers: there are none, or history takes no rows at the moment.
    pub(super) fn are_held_up(&self) -> bool {
        self.followers.is_empty() || self.landing.history.is_full()
    }

    /// Ends this process because an epoch does not come through; names who has not decoded what others have.
    pub(super) fn give_up(&self) {
        let heard = self.heard();
        let last = |at: usize| heard.decoded.get(&at).and_then(|epochs| epochs.keys().next_back().copied());
        let slowest = (0..self.followers.len()).min_by_key(|at| last(*at));
        let process = slowest.and_then(|at| self.followers.get(at)).map_or(0, |follower| follower.peer.process);
        cf_engine::cluster::end(&format!(
            "an epoch makes no progress, and process {process} of the cluster is the farthest behind"
        ));
    }

    /// The files that followers make of their rows of the epochs after one, up to and with another; the rows stay there.
    ///
    /// # Errors
    /// They were told to end: what they had is gone.
    pub(crate) fn make(&self, after: Epoch, upto: Epoch) -> Result<Vec<Made>, HistoryError> {
        if self.followers.is_empty() {
            return Ok(Vec::new());
        }
        if self.followers.iter().any(|follower| follower.peer.has_ended()) {
            return Err(HistoryError::Gone);
        }
        let mut heard = self.heard();
        (heard.made, heard.made_upto) = (Vec::new(), BTreeMap::new());
        drop(heard);
        self.send(&Order::Make { after, upto }).expect("two numbers are a message");
        let is_awaited = |heard: &mut Heard| heard.made_upto.len() < self.followers.len();
        let mut heard = self.changed.wait_while(self.heard(), is_awaited).unwrap_or_else(PoisonError::into_inner);
        let mut made = std::mem::take(&mut heard.made);
        drop(heard);
        // As if one process had made them.
        made.sort_by(|one, other| one.path().cmp(other.path()));
        Ok(made)
    }

    /// History has the rows up to and with this epoch.
    pub(crate) fn forget(&self, upto: Epoch) {
        self.heard().row_bytes.clear();
        self.send(&Order::Forget(upto)).expect("a number is a message");
    }

    /// What the rows of all followers take of memory until history is committed.
    pub(crate) fn row_bytes(&self) -> usize {
        self.heard().row_bytes.values().sum()
    }

    /// Tells followers that no epoch follows: they work off what they have and end.
    pub(super) fn end(&self) {
        for follower in &self.followers {
            follower.peer.end();
            drop(follower.outbox.send(&Order::End));
            follower.outbox.close();
        }
    }

    /// Returns when a follower was told to stop.
    pub(crate) async fn leaving(&self) {
        self.leaving.notified().await;
    }

    /// What rules did in followers since the start, by id.
    pub(crate) fn work(&self) -> HashMap<Arc<str>, RuleStats> {
        self.heard().work.iter().map(|(rule, stats)| (Arc::clone(rule), *stats)).collect()
    }

    /// The fields that events of followers had, since it was asked last.
    pub(crate) fn take_fields(&self) -> BTreeSet<Arc<str>> {
        std::mem::take(&mut self.heard().fields)
    }

    fn sending(&self) -> MutexGuard<'_, Sending> {
        self.sending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Heard {
    fn has_decoded(&self, at: usize, epoch: Epoch, workers: usize) -> bool {
        self.decoded.get(&at).and_then(|epochs| epochs.get(&epoch)).is_some_and(|count| *count >= workers)
    }

    fn add(&mut self, work: Vec<RuleWork>) {
        for RuleWork { rule, hits, candidates, nanos_sampled } in work {
            let sums = self.work.entry(Arc::from(rule)).or_default();
            sums.hits += hits;
            sums.candidates += candidates;
            sums.nanos_sampled += nanos_sampled;
        }
    }
}

/// What a rule set was compiled to, as far as followers and leader must agree: which rules there are, and what they count.
pub(super) fn compiled(rules: &RuleSet) -> String {
    let mut hasher = blake3::Hasher::new();
    for rule in rules.rules() {
        hasher.update(format!("{:?}", (&rule.id, rule.level, rule.correlation, rule.alerts, rule.enabled)).as_bytes());
    }
    for rule in rules.episode_rules() {
        hasher.update(format!("{rule:?}").as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use cf_types::{Framing, Origin, Position, Record, Tenant, Time};

    use super::*;
    use crate::{commit::HistoryTap, status::Status};

    const RULE: &str = "rule:\n  id: a\n  name: a\n  severity: high\n  conditions:\n    \
                        - {field: event_type, operator: equals, value: a}\n";

    fn landing() -> Landing {
        let (status, history) = (Arc::new(Status::new(300)), Arc::new(HistoryTap::to_nowhere()));
        Landing { status, history, gathered: Arc::default() }
    }

    /// The links to so many processes, and the other ends.
    fn links(followers: usize, workers: usize) -> (Arc<Links>, Vec<TcpStream>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ends = (1..=followers).map(|process| {
            let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            ((process, ours), listener.accept().unwrap().0)
        });
        let (ours, theirs): (Vec<_>, Vec<_>) = ends.unzip();
        let texts = |_: &str| Ok(vec![Text { file: Arc::from("a.yml"), text: RULE.to_owned() }]);
        let patience = Duration::from_secs(60);
        let links = Links::start(ours, workers, patience, Box::new(texts), &SourceTable::default(), landing()).unwrap();
        (links, theirs)
    }

    fn report(stream: &mut TcpStream, report: &Report) {
        wire::write(stream, &wire::encode(report).unwrap()).unwrap();
    }

    #[test]
    fn a_follower_that_does_not_take_a_rule_set_keeps_it_out_and_is_asked_again() {
        let rules = cf_engine::rules("a.yml", RULE).unwrap();
        let (links, mut ends) = links(1, 1);
        let answers = [Err("no YARA".to_owned()), Ok("another".to_owned()), Ok(compiled(&rules))];
        let mut stream = ends.remove(0);
        let follower = thread::spawn(move || {
            let mut answers = answers.into_iter();
            loop {
                match wire::read::<Order>(&mut stream).unwrap() {
                    Order::Prepare { rules, .. } => {
                        report(&mut stream, &Report::Prepared { rules, compiled: answers.next().unwrap() });
                    }
                    Order::End => return answers.count(),
                    _ => {}
                }
            }
        });
        for why in ["process 1 of the cluster does not take rule set", "it makes something else of them"] {
            let error = format!("{:#}", links.prepare(&rules).unwrap_err());
            assert!(error.contains(why), "{error}");
        }
        links.prepare(&rules).unwrap();
        links.prepare(&rules).unwrap(); // It is there: nobody is asked.
        links.end();
        assert_eq!(follower.join().unwrap(), 0);
    }

    #[test]
    fn an_epoch_is_decoded_when_every_worker_of_every_follower_has_said_so() {
        let (links, mut ends) = links(2, 2);
        let none = Duration::ZERO;
        let decoded = |stream: &mut TcpStream, epoch| {
            report(stream, &Report::Decoded { epoch, seen: Default::default(), bytes: 0 });
        };
        let taken = |count: usize| {
            let mut heard = links.heard();
            while heard.decoded.values().flat_map(BTreeMap::values).sum::<usize>() < count {
                heard = links.changed.wait(heard).unwrap();
            }
        };
        for (count, end) in [(1, 0), (2, 1), (3, 1)] {
            decoded(&mut ends[end], 5);
            taken(count);
            assert!(!links.is_decoded(5, none));
        }
        decoded(&mut ends[0], 6);
        decoded(&mut ends[0], 5);
        taken(5);
        assert!(links.is_decoded(5, none) && !links.is_decoded(6, none));
        links.end();
    }

    #[test]
    fn records_are_dealt_out_in_runs_of_neighbours_and_each_once() {
        let (links, ends) = links(2, 1);
        let origin = Arc::new(Origin {
            tenant: Tenant::default(),
            source: Arc::from("app"),
            received_at: Time::from_seconds(1),
            year: None,
            framing: Framing::Http,
        });
        let record = |offset| Record {
            origin: Arc::clone(&origin),
            position: Position { origin: Arc::from("spool"), offset, line: 0, index: 0 },
            bytes: bytes::Bytes::from_static(b"{}"),
        };
        for records in [10, 2, 0, 3] {
            let mut input =
                EpochInput { epoch: 1, records: (0..records).map(record).collect(), ..EpochInput::default() };
            links.feed(&mut input).unwrap();
            let mut offsets: Vec<u64> = input.records.iter().map(|record| record.position.offset).collect();
            for mut end in &ends {
                let mut decoder = cf_spool::record::RecordDecoder::default();
                loop {
                    match wire::read::<Order>(&mut end).unwrap() {
                        Order::Records(rows) => {
                            offsets.extend(rows.into_iter().map(|row| decoder.decode(0, row).unwrap().position.offset))
                        }
                        Order::Feed { epoch: 1, rules: None } => break,
                        Order::Sources(_) => {}
                        other => panic!("{other:?}"),
                    }
                }
            }
            assert_eq!(offsets, (0..records).collect::<Vec<_>>());
        }
        links.end();
    }
}
