//! A session: where history is, and how much a query may use.
//!
//! Each query opens the tables it names anew, so it sees what was committed before it began and nothing after. Rows of
//! epochs that some table does not have yet are left out: a join never sees half an epoch.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use cf_history::{HistoryError, Place, Table};
use cf_types::Epoch;
use datafusion::{
    arrow::{array::RecordBatch, datatypes::SchemaRef},
    catalog::TableProvider,
    common::TableReference,
    datasource::{empty::EmptyTable, provider_as_source, view::ViewTable},
    error::DataFusionError,
    execution::{
        SendableRecordBatchStream,
        context::SQLOptions,
        disk_manager::{DiskManagerBuilder, DiskManagerMode},
        memory_pool::{FairSpillPool, TrackConsumersPool},
        runtime_env::{RuntimeEnv, RuntimeEnvBuilder},
    },
    logical_expr::LogicalPlanBuilder,
    prelude::{SessionConfig, SessionContext, col, lit},
    sql::parser::Statement,
};
use futures::StreamExt as _;

use crate::{error::QueryError, functions, statement};

/// One row per event: of its deliveries the one at the smallest position.
const EVENTS_DISTINCT: &str = "events_distinct";

const EVENTS_DISTINCT_SQL: &str = "
    SELECT * EXCEPT (delivery, identity), identity AS id FROM (
        SELECT * EXCEPT (id), event_identity(tenant, source, event_id, id, raw) AS identity, row_number() OVER (
            PARTITION BY event_identity(tenant, source, event_id, id, raw) ORDER BY origin, record_offset, record_index
        ) AS delivery
        FROM events
    ) WHERE delivery = 1";

/// Name of the schema that holds our tables.
pub(crate) const SCHEMA: &str = "history";

fn tables() -> impl Iterator<Item = &'static str> {
    Table::ALL.into_iter().map(Table::name).chain([EVENTS_DISTINCT])
}

fn known(name: &str) -> bool {
    tables().any(|table| table == name)
}

/// What queries may use.
#[derive(Clone, Debug)]
pub struct Options {
    /// Memory of all queries of the session together. Beyond it, what can spills, what cannot fails.
    pub memory_bytes: usize,
    /// Disk for what is spilled.
    pub spill_bytes: u64,
    /// Where to spill; the system's temporary folder by default.
    pub spill_folder: Option<PathBuf>,
    /// Threads of one query.
    pub threads: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            memory_bytes: 1 << 30, // leaves room for the engine beside it on a machine of 4 GiB
            spill_bytes: 16 << 30,
            spill_folder: None,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// SQL over one history, read-only. Cheap to clone; queries may run side by side and beside the engine.
#[derive(Clone, Debug)]
pub struct Session {
    history: Place,
    options: Options,
    runtime: Arc<RuntimeEnv>,
}

/// The rows of an answer, as they come.
pub struct Rows {
    stream: SendableRecordBatchStream,
    memory_bytes: usize,
}

impl Session {
    /// Makes a session over a history (`DIR/history`, or [`Place::of_data`]). Tables that are not there yet are empty.
    ///
    /// # Errors
    ///
    /// When the spill folder cannot be used.
    pub fn open(history: impl Into<Place>, options: Options) -> Result<Session, QueryError> {
        let mode = match &options.spill_folder {
            Some(folder) => DiskManagerMode::Directories(vec![folder.clone()]),
            None => DiskManagerMode::OsTmpDirectory,
        };
        let disk = DiskManagerBuilder::default().with_mode(mode).with_max_temp_directory_size(options.spill_bytes);
        let consumers = std::num::NonZeroUsize::MIN;
        let pool = TrackConsumersPool::new(FairSpillPool::new(options.memory_bytes), consumers);
        let runtime = RuntimeEnvBuilder::new()
            .with_disk_manager_builder(disk)
            .with_memory_pool(Arc::new(pool))
            .build_arc()
            .map_err(|error| QueryError::new(&error, options.memory_bytes))?;
        Ok(Session { history: history.into(), options, runtime })
    }

    /// Runs one reading statement. The answer holds what was committed when the query began.
    ///
    /// # Errors
    ///
    /// When the statement is wrong or would write, or a table cannot be opened.
    pub async fn query(&self, sql: &str) -> Result<Rows, QueryError> {
        let statement = statement::parse(sql)?;
        let context = self.context();
        self.register(&context, &statement).await?;
        let stream = Box::pin(run(&context, statement)).await.map_err(|error| self.error(&error))?;
        Ok(Rows { stream, memory_bytes: self.options.memory_bytes })
    }

    fn context(&self) -> SessionContext {
        let mut config = SessionConfig::new()
            .with_information_schema(true)
            .with_default_catalog_and_schema("counterflow", SCHEMA)
            .with_target_partitions(self.options.threads);
        config.options_mut().execution.parquet.pushdown_filters = true;
        config.options_mut().execution.parquet.reorder_filters = true;
        let context = SessionContext::new_with_config_rt(config, Arc::clone(&self.runtime));
        functions::register(&context);
        context
    }

    /// Makes all tables known, and opens those that the statement names.
    async fn register(&self, context: &SessionContext, statement: &Statement) -> Result<(), QueryError> {
        let failed = |error: DataFusionError| self.error(&error);
        let state = context.state();
        let references = state.resolve_table_references(statement).map_err(failed)?;
        let mut named: BTreeSet<&str> = references.iter().map(|reference| reference.table()).collect();
        let own = |reference: &&TableReference| reference.schema().is_none_or(|schema| schema == SCHEMA);
        if let Some(unknown) = references
            .iter()
            .filter(own)
            .map(|reference| reference.table())
            .find(|name| !known(name) && !state.table_functions().contains_key(*name))
        {
            return Err(QueryError::no_table(unknown, tables()));
        }
        if named.contains(EVENTS_DISTINCT) {
            named.insert(Table::Events.name());
        }
        // `epochs` first: what it says is complete is in all tables that are opened after it.
        let epochs = cf_history::open(&self.history, Table::Epochs).await?;
        let complete = epochs.as_ref().map_or(0, |opened| opened.last_epoch);
        for table in Table::ALL {
            let provider = if named.contains(table.name()) {
                Box::pin(self.provider(context, table, complete)).await?
            } else {
                Arc::new(EmptyTable::new(table.arrow(true)))
            };
            context.register_table(table.name(), provider).map_err(failed)?;
        }
        let view = context.sql(EVENTS_DISTINCT_SQL).await.map_err(failed)?.into_view();
        context.register_table(EVENTS_DISTINCT, view).map_err(failed)?;
        Ok(())
    }

    async fn provider(
        &self,
        context: &SessionContext,
        table: Table,
        complete: Epoch,
    ) -> Result<Arc<dyn TableProvider>, QueryError> {
        let Some(opened) = cf_history::open(&self.history, table).await? else {
            return Ok(Arc::new(EmptyTable::new(table.arrow(true))));
        };
        let failed = |source| HistoryError::Delta { attempt: "read", table, source: Box::new(source) };
        opened.delta.update_datafusion_session(&context.state()).map_err(failed)?;
        let provider = opened
            .delta
            .table_provider()
            .with_session(Arc::new(context.state()))
            .await
            .map_err(|error| self.error(&error))?;
        if opened.last_epoch <= complete {
            return Ok(provider);
        }
        let upto = i64::try_from(complete).unwrap_or(i64::MAX);
        let plan = LogicalPlanBuilder::scan(table.name(), provider_as_source(provider), None)
            .and_then(|plan| plan.filter(col("epoch").lt_eq(lit(upto))))
            .and_then(LogicalPlanBuilder::build)
            .map_err(|error| self.error(&error))?;
        Ok(Arc::new(ViewTable::new(plan, None)))
    }

    fn error(&self, error: &DataFusionError) -> QueryError {
        QueryError::new(error, self.options.memory_bytes)
    }
}

async fn run(context: &SessionContext, statement: Statement) -> Result<SendableRecordBatchStream, DataFusionError> {
    let plan = context.state().statement_to_plan(statement).await?;
    SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false).verify_plan(&plan)?;
    context.execute_logical_plan(plan).await?.execute_stream().await
}

impl Rows {
    /// Names and types of the columns.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        self.stream.schema()
    }

    /// The next rows; `None` at the end.
    ///
    /// # Errors
    ///
    /// When the query fails underway. Nothing comes after that.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>, QueryError> {
        let batch = self.stream.next().await.transpose();
        batch.map_err(|error| QueryError::new(&error, self.memory_bytes))
    }
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rows").field("schema", &self.schema()).finish_non_exhaustive()
    }
}
