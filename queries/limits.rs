//! What one query may use: time, rows, its place among others. Memory and disk are the session's pool.

use std::{sync::Arc, time::Duration};

use datafusion::{
    common::tree_node::{Transformed, TreeNode as _},
    error::DataFusionError,
    physical_plan::{ExecutionPlan, coop::CooperativeExec},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

use crate::error::QueryError;

/// A query's share: dropped with its answer.
pub(crate) struct Share {
    deadline: Option<(Instant, Duration)>,
    rows_left: Option<u64>,
    rows_max: u64,
    _place: Option<OwnedSemaphorePermit>,
}

impl Share {
    /// Waits for a place among the queries that run, as long as the query itself may take.
    pub(crate) async fn take(
        places: &Arc<Semaphore>,
        time_max: Option<Duration>,
        rows_max: Option<u64>,
    ) -> Result<Share, QueryError> {
        let deadline = time_max.map(|max| (Instant::now() + max, max));
        let place = Arc::clone(places).acquire_owned();
        let place = match deadline {
            Some((at, _)) => timeout_at(at, place).await.map_err(|_| QueryError::Busy)?,
            None => place.await,
        };
        Ok(Share { deadline, rows_left: rows_max, rows_max: rows_max.unwrap_or(u64::MAX), _place: place.ok() })
    }

    /// Lets something go on until the deadline.
    pub(crate) async fn within<T>(&self, work: impl Future<Output = T>) -> Result<T, QueryError> {
        match self.deadline {
            Some((at, max)) => timeout_at(at, work).await.map_err(|_| QueryError::TooSlow { seconds: max.as_secs() }),
            None => Ok(work.await),
        }
    }

    /// Counts rows of the answer.
    pub(crate) fn count(&mut self, rows: usize) -> Result<(), QueryError> {
        let Some(left) = &mut self.rows_left else { return Ok(()) };
        *left = left
            .checked_sub(u64::try_from(rows).unwrap_or(u64::MAX))
            .ok_or(QueryError::TooManyRows { max: self.rows_max })?;
        Ok(())
    }
}

/// Lets what makes many rows of few give way between them. A cross join reads one batch and writes a million: what sums them
/// up would never come back to where time is looked at.
pub(crate) fn cooperative(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
    let giving_way = plan.transform_up(|node| {
        if node.name().ends_with("JoinExec") || node.name() == "UnnestExec" {
            let wrapped: Arc<dyn ExecutionPlan> = Arc::new(CooperativeExec::new(node));
            return Ok(Transformed::yes(wrapped));
        }
        Ok(Transformed::no(node))
    });
    giving_way.map(|plan| plan.data)
}
