//! One pass over the files of history: each is met by the rules that it was not met by before.
//!
//! In: files. Out: what the rules of both sets find in each, in any order. Memory: the detections of one file per thread,
//! and of those that wait for the graphs as many files as there are threads.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
};

use anyhow::Result;
use cf_dataflows::IndicatorTable;
use cf_history::{DataFile, Deliveries, WantedLogSource};
use cf_ingest::{Decoder, SourceTable};
use cf_sigma::{RuleIndex, RuleSet, Scanner};
use cf_types::{Detection, Event, Fact, FactBody, LogSource};

use super::{
    Effort, Found, RuleSets,
    cache::Cache,
    rule_sets::{self, Meaning},
};
use crate::past::{One, Past};

/// What is to be met with what.
pub(crate) struct Job<'a> {
    pub(crate) past: &'a Past,
    pub(crate) sets: &'a RuleSets,
    pub(crate) facts: &'a [Fact],
    pub(crate) deliveries: &'a Deliveries,
}

/// Detections of a file, by what found them. A rule that found nothing is there, too.
pub(super) type Pool = BTreeMap<Meaning, Vec<Detection>>;

/// What all threads share.
struct Plan<'a> {
    job: &'a Job<'a>,
    sources: Arc<SourceTable>,
    wanted: BTreeSet<Meaning>,
    /// Sets to meet events with, each with the meanings of its rules by [`RuleIndex::index`].
    sets: Vec<(Arc<RuleSet>, Vec<Option<Meaning>>)>,
    indicators: Option<Meaning>,
    /// What a decoder must have declared of an event that some rule of the sets can meet.
    declared: Arc<WantedLogSource>,
    cache: Option<Cache>,
    next: AtomicUsize,
    stop: AtomicBool,
}

/// Meets all files, by so many threads, and gives what is found to `take` as it comes.
pub(super) fn run(
    job: &Job<'_>,
    threads: usize,
    cache_bytes: u64,
    told: &dyn Fn(u64, u64),
    take: &mut dyn FnMut(Found) -> Result<()>,
) -> Result<Effort> {
    let plan = Plan::new(job, cache_bytes)?;
    let total: u64 = job.deliveries.files().iter().map(|file| file.rows).sum();
    let mut effort = Effort { files: job.deliveries.files().len(), ..Effort::default() };
    std::thread::scope(|scope| {
        let (sender, results) = mpsc::sync_channel(threads);
        for _ in 0..threads.max(1) {
            let (sender, plan) = (sender.clone(), &plan);
            scope.spawn(move || plan.work(&sender));
        }
        drop(sender);
        let mut seen = 0;
        for result in results {
            let taken = result.and_then(|(found, part): (Found, Effort)| {
                effort.add(&part);
                seen += part.events + part.kept + part.passed_over;
                told(seen, total);
                take(found)
            });
            if let Err(error) = taken {
                plan.stop.store(true, Ordering::Release);
                return Err(error);
            }
        }
        Ok(())
    })?;
    if let Some(cache) = &plan.cache {
        cache.bound()?;
    }
    Ok(effort)
}

impl Effort {
    fn add(&mut self, part: &Effort) {
        self.events += part.events;
        self.passed_over += part.passed_over;
        self.kept += part.kept;
        self.lost += part.lost;
        self.files_read += part.files_read;
    }
}

impl<'a> Plan<'a> {
    fn new(job: &'a Job<'a>, cache_bytes: u64) -> Result<Plan<'a>> {
        let before: BTreeSet<Meaning> = job.sets.meanings_before.values().copied().collect();
        let after: BTreeSet<Meaning> = job.sets.meanings_after.values().copied().collect();
        let indicators = indicators(job.facts);
        let wanted: BTreeSet<Meaning> = before.iter().chain(&after).chain(&indicators).copied().collect();
        let cache = match cache_bytes {
            0 => None,
            bytes => {
                let sources = job.past.settings.sources.iter();
                let options = sources.map(|(name, source)| (name.clone(), source.options.clone())).collect();
                Some(Cache::open(&job.past.data.join(super::KEPT), &options, bytes)?)
            }
        };
        // What some file was not met with.
        let mut missing: BTreeSet<Meaning> = BTreeSet::new();
        for file in job.deliveries.files() {
            let kept = cache.as_ref().filter(|_| file.whole).map(|cache| cache.kept(file)).unwrap_or_default();
            missing.extend(wanted.difference(&kept));
        }
        let old: BTreeSet<Meaning> = missing.intersection(&before).copied().collect();
        let new: BTreeSet<Meaning> =
            missing.intersection(&after).filter(|one| !before.contains(*one)).copied().collect();
        let mut sets = Vec::new();
        if old.len() * 2 > before.len() {
            sets.push(with_meanings(Arc::clone(&job.sets.before)));
        } else if !old.is_empty() {
            sets.push(with_meanings(rule_sets::only(&job.sets.before, &old)));
        }
        if !new.is_empty() {
            sets.push(with_meanings(rule_sets::only(&job.sets.after, &new)));
        }
        let sources = crate::config::sources(&job.past.settings)?;
        let met: Vec<Arc<RuleSet>> = sets.iter().map(|(set, _)| Arc::clone(set)).collect();
        let declared: Arc<WantedLogSource> =
            Arc::new(move |log_source: &LogSource| met.iter().any(|set| set.may_meet(log_source)));
        let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        Ok(Plan { job, sources, wanted, sets, indicators, declared, cache, next, stop })
    }

    /// One thread: file after file.
    fn work(&self, results: &mpsc::SyncSender<Result<(Found, Effort)>>) {
        let mut one = One::lean(&self.sources);
        let entities = Decoder::new(Arc::clone(&self.sources));
        let mut scanners: Vec<_> = self.sets.iter().map(|(set, _)| Scanner::new(Arc::clone(set))).collect();
        let mut table = IndicatorTable::default();
        self.job.facts.iter().for_each(|fact| table.change(fact, 1));
        let files = self.job.deliveries.files();
        while let Some(file) = files.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            if self.stop.load(Ordering::Acquire) {
                return;
            }
            let found = self.file(file, &mut one, &mut scanners, (&table, &entities));
            // Nobody takes it any more once something has failed.
            if results.send(found.map(|(pool, effort)| (self.found(pool), effort))).is_err() {
                return;
            }
        }
    }

    fn file(
        &self,
        file: &DataFile,
        one: &mut One,
        scanners: &mut [Scanner],
        (table, entities): (&IndicatorTable, &Decoder),
    ) -> Result<(Pool, Effort)> {
        let cache = self.cache.as_ref().filter(|_| file.whole);
        let mut pool = cache.map(|cache| cache.load(file, &self.wanted)).unwrap_or_default();
        let mut fresh: Pool =
            self.wanted.iter().filter(|one| !pool.contains_key(*one)).map(|one| (*one, Vec::new())).collect();
        let mut effort = Effort::default();
        if fresh.is_empty() {
            effort.kept = file.rows;
            return Ok((pool, effort));
        }
        effort.files_read = 1;
        let mut hits = Vec::new();
        // Indicators are met by events of all kinds.
        let all = self.indicators.is_some_and(|meaning| fresh.contains_key(&meaning));
        let reading = if all {
            self.job.deliveries.read(file)?
        } else {
            self.job.deliveries.read_where(file, Arc::clone(&self.declared))?
        };
        for batch in reading {
            let batch = batch?;
            effort.events += u64::try_from(batch.len()).unwrap_or(0);
            effort.lost += one.events(&batch, |mut event| {
                if all {
                    event.entities = entities.entities(&event);
                    self.meet_indicators(&event, table, &mut fresh);
                }
                self.meet(event, entities, scanners, &mut hits, &mut fresh);
            });
        }
        if file.whole {
            effort.passed_over = file.rows.saturating_sub(effort.events);
        }
        if let Some(cache) = cache {
            cache.keep(file, &fresh);
        }
        pool.append(&mut fresh);
        Ok((pool, effort))
    }

    /// Meets one event with the rules that are missing.
    fn meet(
        &self,
        mut event: Event,
        entities: &Decoder,
        scanners: &mut [Scanner],
        hits: &mut Vec<RuleIndex>,
        fresh: &mut Pool,
    ) {
        for (scanner, (set, meanings)) in scanners.iter_mut().zip(&self.sets) {
            hits.clear();
            scanner.scan(&event, hits);
            for hit in hits.iter() {
                let meaning = meanings.get(hit.index()).copied().flatten();
                if let Some(found) = meaning.and_then(|meaning| fresh.get_mut(&meaning)) {
                    if event.entities.is_empty() {
                        event.entities = entities.entities(&event);
                    }
                    found.push(set.detection(*hit, &event));
                }
            }
        }
    }

    fn meet_indicators(&self, event: &Event, table: &IndicatorTable, fresh: &mut Pool) {
        if let Some(found) = self.indicators.and_then(|meaning| fresh.get_mut(&meaning)) {
            table.detect(event, found);
        }
    }

    /// What of a file belongs to which rule set.
    fn found(&self, mut pool: Pool) -> Found {
        let sets = self.job.sets;
        let indicators = self.indicators.and_then(|meaning| pool.get(&meaning)).cloned().unwrap_or_default();
        let before = sets.meanings_before.values().filter_map(|meaning| pool.get(meaning)).flatten().cloned();
        let before = before.chain(indicators.iter().cloned()).collect();
        let after = sets.meanings_after.values().filter_map(|meaning| pool.remove(meaning)).flatten();
        Found { before, after: after.chain(indicators).collect() }
    }
}

fn with_meanings(set: Arc<RuleSet>) -> (Arc<RuleSet>, Vec<Option<Meaning>>) {
    let meanings =
        set.rules().iter().zip(set.meanings()).map(|(info, meaning)| info.enabled.then_some(meaning)).collect();
    (set, meanings)
}

/// Names all indicators together; `None` if there are none.
fn indicators(facts: &[Fact]) -> Option<Meaning> {
    let mut hasher = blake3::Hasher::new_derive_key("counterflow 2026 indicators of a backtest");
    let mut any = false;
    for fact in facts.iter().filter(|fact| matches!(fact.body, FactBody::Indicator(_))) {
        any = true;
        hasher.update(&serde_json::to_vec(fact).unwrap_or_default());
    }
    any.then(|| *hasher.finalize().as_bytes())
}
