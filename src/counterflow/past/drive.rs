//! A graph of its own that is fed with the past: few epochs in flight, outputs in order.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use cf_dataflows::GraphOptions;
use cf_engine::{Engine, EngineOptions, EpochInput, Tap};
use cf_ingest::SourceTable;
use cf_types::EpochOutput;

/// Epochs in flight.
const IN_FLIGHT: u64 = 4;

/// A running graph.
pub(crate) struct Drive {
    engine: Engine,
    in_flight: u64,
}

impl Drive {
    /// Starts a graph. Events come decoded, so it matters not how sources decode.
    pub(crate) fn start(workers: u16, graph: GraphOptions, tap: Option<Arc<dyn Tap>>) -> Result<Drive> {
        let mut options = EngineOptions {
            graph,
            sources: Arc::new(SourceTable::default()),
            ..EngineOptions::bounded(usize::from(workers))
        };
        if let Some(tap) = tap {
            options.tap = tap;
        }
        Ok(Drive { engine: Engine::start(options)?, in_flight: 0 })
    }

    /// Feeds the next epoch, and gives what has come out of those before to `take`.
    pub(crate) fn feed(&mut self, input: EpochInput, take: &mut dyn FnMut(EpochOutput) -> Result<()>) -> Result<()> {
        self.engine.feed(input)?;
        self.in_flight += 1;
        self.drain(IN_FLIGHT - 1, take)
    }

    /// Waits until no more than so many epochs are in flight.
    pub(crate) fn drain(&mut self, rest: u64, take: &mut dyn FnMut(EpochOutput) -> Result<()>) -> Result<()> {
        while self.in_flight > rest {
            if let Some(output) = self.engine.output(Duration::from_millis(200))? {
                self.in_flight -= 1;
                take(output)?;
            }
        }
        Ok(())
    }

    /// Waits for the rest and ends the workers.
    pub(crate) fn finish(mut self, take: &mut dyn FnMut(EpochOutput) -> Result<()>) -> Result<()> {
        self.drain(0, take)?;
        Ok(self.engine.stop()?)
    }
}
