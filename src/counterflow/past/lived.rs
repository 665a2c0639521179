//! Epoch by epoch as they were: each with its events, its rules, the facts and answers that came with it, and the sources
//! that were idle.

use std::{collections::VecDeque, sync::Arc};

use anyhow::{Context, Result};
use cf_engine::EpochInput;
use cf_history::{Delivery, Known};
use cf_sigma::RuleSet;
use cf_types::{Epoch, EpochRecord};

use super::{Decoding, Past, Point, RulesThen};
use crate::{
    lookup,
    remember::{self, Began},
    triage::served::Served,
};

/// What another rule set takes the place of an epoch's.
pub(crate) type Instead<'a> = dyn Fn(&RulesThen) -> Result<Arc<RuleSet>> + 'a;

/// The epochs of a data folder, one after the other.
pub(crate) struct Lived<'a> {
    past: &'a Past,
    upto: Epoch,
    instead: Option<&'a Instead<'a>>,
    records: VecDeque<EpochRecord>,
    last: Option<EpochRecord>,
    /// The set in force, and the hash of the epochs that had it.
    rules: Option<(String, Arc<RuleSet>)>,
    rows: cf_queries::Rows,
    known: Known,
    /// What models said, as facts.
    served: Served,
    /// When rules began, of those that were not there from the first epoch.
    began: Began,
    /// Deliveries that were read and belong to a later epoch.
    read: VecDeque<Delivery>,
    pub(crate) decoding: Decoding,
}

/// One epoch, to be fed.
pub(crate) struct Step {
    /// As it was, with the rules that begin empty in it.
    pub(crate) record: EpochRecord,
    pub(crate) input: EpochInput,
}

impl<'a> Lived<'a> {
    /// From the first epoch that history has. With `instead`, other rules take the place of those of then.
    pub(crate) fn open(
        past: &'a Past,
        upto: Point,
        threads: usize,
        instead: Option<&'a Instead<'a>>,
    ) -> Result<Lived<'a>> {
        let sources = crate::config::sources(&past.settings)?;
        Ok(Lived {
            past,
            upto: upto.epoch,
            instead,
            records: past.records(0, upto.epoch)?.into(),
            last: None,
            rules: None,
            rows: past.by_epoch(upto.epoch)?,
            known: Known::default(),
            served: Served::default(),
            began: Began::new(),
            read: VecDeque::new(),
            decoding: Decoding::new(&sources, threads),
        })
    }

    /// The first epoch, if there is one.
    pub(crate) fn first(&self) -> Option<&EpochRecord> {
        self.records.front()
    }

    /// The next epoch; `None` after the last.
    pub(crate) fn next(&mut self) -> Result<Option<Step>> {
        if self.records.is_empty() {
            let after = self.last.as_ref().map_or(0, |record| record.epoch);
            self.records = self.past.records(after, self.upto)?.into();
        }
        let Some(mut record) = self.records.pop_front() else { return Ok(None) };
        let mut input = EpochInput { epoch: record.epoch, ..EpochInput::default() };
        if self.rules.as_ref().is_none_or(|(hash, _)| *hash != record.rules) {
            let (set, begun) = self.change_rules(&record)?;
            record.begun = begun;
            input.rules = Some(set);
        }
        match self.last.as_ref().map(|last| last.control) {
            Some(control) => {
                let entries = self.past.control_between(control, record.control)?;
                for entry in &entries {
                    input.facts.extend(entry.fact()?);
                }
                self.served.take(&entries, &mut input.facts)?;
                input.found = lookup::found(&entries)?;
                input.remembered = remember::found(&entries, &self.began)?;
            }
            // What came with epochs that history has no more is there from the start.
            None if record.epoch > 1 => {
                let facts = self.past.facts_at(record.control)?;
                input.facts = facts.into_iter().map(|fact| (fact, 1)).collect();
                let entries = self.past.control_between(0, record.control)?;
                self.served.take(&entries, &mut input.facts)?;
            }
            None => {
                let entries = self.past.control_between(0, record.control)?;
                for entry in &entries {
                    input.facts.extend(entry.fact()?);
                }
                self.served.take(&entries, &mut input.facts)?;
                input.found = lookup::found(&entries)?;
            }
        }
        record.models.clone_from(&self.served.models);
        input.idle = record.idle.iter().map(|source| Arc::from(source.as_str())).collect();
        input.passed_ms = record.passed_ms;
        let deliveries = self.deliveries(record.epoch)?;
        input.events = self.decoding.events(&deliveries);
        input.ended = self.past.bounded && record.epoch == self.upto;
        self.last = Some(record.clone());
        Ok(Some(Step { record, input }))
    }

    fn change_rules(&mut self, record: &EpochRecord) -> Result<(Arc<RuleSet>, Vec<String>)> {
        let then = self.past.rule_set(&record.rules)?;
        let set = match self.instead {
            Some(instead) => instead(&then)?,
            None => then.set,
        };
        let before = self.rules.replace((record.rules.clone(), Arc::clone(&set)));
        let begun = before.map(|(_, before)| cf_dataflows::begun(before.episode_rules(), set.episode_rules()));
        let begun: Vec<String> = begun.unwrap_or_default().iter().map(ToString::to_string).collect();
        // What was looked up for the rules of then says nothing of others.
        if self.instead.is_none() {
            self.began.extend(begun.iter().map(|rule| (rule.clone(), record.epoch)));
        }
        Ok((set, begun))
    }

    /// What came with an epoch.
    fn deliveries(&mut self, epoch: Epoch) -> Result<Vec<Delivery>> {
        while self.read.back().is_none_or(|last| last.epoch <= epoch) {
            let Some(batch) = self.past.runtime.block_on(self.rows.next())? else { break };
            self.read.extend(self.known.deliveries(&batch).context("events of history are damaged")?);
        }
        let end = self.read.iter().position(|delivery| delivery.epoch > epoch).unwrap_or(self.read.len());
        Ok(self.read.drain(..end).collect())
    }
}
