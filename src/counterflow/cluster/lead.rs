//! The graph as the conductor sees it, in one process or several: epochs go in, outputs come out in order.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use cf_engine::{Engine, EngineError, EpochInput};
use cf_ingest::SourceTable;
use cf_types::EpochOutput;

use super::{
    links::{Links, Texts},
    stall::Stall,
};
use crate::{commit::HistoryTap, scoring::Gathered, status::Status};

/// Where what followers report lands: the same places as what our own workers see.
pub(crate) struct Landing {
    pub(crate) status: Arc<Status>,
    pub(crate) history: Arc<HistoryTap>,
    pub(crate) gathered: Arc<Gathered>,
}

/// The engine of this process, and its followers if it has any.
pub(crate) struct Lead {
    engine: Engine,
    links: Arc<Links>,
    /// Of an epoch that followers have not reported whole.
    output: Option<EpochOutput>,
    stall: Stall,
}

impl Lead {
    /// Leads the processes that an engine was started with; `workers` is how many each has. One that says nothing for
    /// `silent_max` ends this process.
    pub(crate) fn start(
        mut engine: Engine,
        workers: usize,
        silent_max: Duration,
        texts: Texts,
        sources: &SourceTable,
        landing: Landing,
    ) -> Result<Lead> {
        let links = Links::start(engine.links(), workers, silent_max, texts, sources, landing)?;
        Ok(Lead { engine, links, output: None, stall: Stall::new(silent_max) })
    }

    /// The state is rebuilt: from here on an epoch that takes too long means that a process does not work any more.
    pub(crate) fn go_live(&mut self) {
        self.stall.go_live();
    }

    /// The links, for those who have something else to say or to ask.
    pub(crate) fn links(&self) -> &Arc<Links> {
        &self.links
    }

    /// Feeds the next epoch to all processes, each its share.
    pub(crate) fn feed(&mut self, mut input: EpochInput) -> Result<()> {
        self.links.feed(&mut input)?;
        self.engine.feed(input)?;
        Ok(())
    }

    /// Waits for the output of the next epoch that is through everywhere; `None` if none came within `timeout`.
    pub(crate) fn output(&mut self, timeout: Duration) -> Result<Option<EpochOutput>, EngineError> {
        if self.output.is_none() {
            self.output = self.engine.output(timeout)?;
        }
        let is_whole = |output: &mut EpochOutput| self.links.is_decoded(output.epoch, timeout);
        let output = self.output.take_if(is_whole);
        if output.is_some() || self.links.are_held_up() {
            self.stall.reset();
        } else if self.stall.waited(Instant::now()) {
            self.links.give_up();
        }
        Ok(output)
    }

    /// Ends all processes after everything fed is through.
    pub(crate) fn stop(&mut self) -> Result<(), EngineError> {
        self.links.end();
        self.engine.stop()
    }
}
