//! A session: where history is, and how much a query may use.
//!
//! Each query opens the tables it names anew, so it sees what was committed before it began and nothing after. Rows of
//! epochs that some table does not have yet are left out: a join never sees half an epoch.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use cf_history::{HistoryError, Place, Table};
use cf_types::{Epoch, Time};
use datafusion::{
    arrow::{
        array::{Array as _, AsArray as _, RecordBatch},
        datatypes::{Int64Type, SchemaRef},
    },
    catalog::{
        CatalogProvider, CatalogProviderList, MemTable, MemoryCatalogProvider, MemoryCatalogProviderList,
        MemorySchemaProvider, TableProvider,
    },
    common::{ParamValues, TableReference},
    datasource::{empty::EmptyTable, provider_as_source, view::ViewTable},
    error::DataFusionError,
    execution::{
        SendableRecordBatchStream, SessionState, SessionStateBuilder,
        context::SQLOptions,
        disk_manager::{DiskManagerBuilder, DiskManagerMode},
        memory_pool::{FairSpillPool, TrackConsumersPool},
        runtime_env::{RuntimeEnv, RuntimeEnvBuilder},
    },
    logical_expr::{LogicalPlan, LogicalPlanBuilder},
    physical_plan::execute_stream,
    prelude::{SessionConfig, SessionContext, col, lit},
    sql::parser::Statement,
};
use futures::{FutureExt as _, StreamExt as _};
use tokio::sync::Semaphore;

use crate::{
    AsOf, Live,
    error::QueryError,
    functions,
    limits::{self, Share},
    live::LiveTable,
    opened::{Held, Tables},
    statement,
};

/// One row per event: of its deliveries the one at the smallest position.
pub(crate) const EVENTS_DISTINCT: &str = "events_distinct";

const EVENTS_DISTINCT_SQL: &str = "
    SELECT * EXCEPT (delivery, identity), identity AS id FROM (
        SELECT * EXCEPT (id), event_identity(tenant, source, event_id, id, raw) AS identity, row_number() OVER (
            PARTITION BY event_identity(tenant, source, event_id, id, raw) ORDER BY origin, record_offset, record_index
        ) AS delivery
        FROM events
    ) WHERE delivery = 1";

/// Name of the catalogue, which is the database to clients of the Postgres wire.
pub(crate) const CATALOG: &str = "counterflow";

/// Name of the schema that holds our tables: what clients look into when nobody tells them anything.
pub(crate) const SCHEMA: &str = "public";

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
    /// Queries at once; more wait.
    pub queries_max: usize,
    /// Time of one query, from its begin to its last row.
    pub time_max: Option<Duration>,
    /// Rows of one answer.
    pub rows_max: Option<u64>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            memory_bytes: 1 << 30, // leaves room for the engine beside it on a machine of 4 GiB
            spill_bytes: 16 << 30,
            spill_folder: None,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            queries_max: 64,
            time_max: None,
            rows_max: None,
        }
    }
}

/// SQL over one history, read-only. Cheap to clone; queries may run side by side and beside the engine.
#[derive(Clone)]
pub struct Session {
    history: Place,
    options: Options,
    places: Arc<Semaphore>,
    live: Option<Arc<dyn Live>>,
    tables: Arc<Tables>,
    /// Settings and functions of every query.
    template: Arc<SessionState>,
}

/// The rows of an answer, as they come.
pub struct Rows {
    stream: SendableRecordBatchStream,
    memory_bytes: usize,
    share: Share,
    ended: bool,
}

impl Session {
    /// Makes a session over a history (`DIR/history`, or [`Place::of_data`]). Tables that are not there yet are empty.
    ///
    /// # Errors
    ///
    /// When the spill folder cannot be used.
    pub fn open(history: impl Into<Place>, options: Options) -> Result<Session, QueryError> {
        let runtime = runtime(&options).map_err(|error| QueryError::new(&error, options.memory_bytes))?;
        let mut config = SessionConfig::new()
            .with_information_schema(true)
            .with_default_catalog_and_schema(CATALOG, SCHEMA)
            .with_target_partitions(options.threads.max(1));
        // A recursion that does not end never yields: neither a limit nor Ctrl-C would stop it.
        config.options_mut().execution.enable_recursive_ctes = false;
        config.options_mut().execution.parquet.pushdown_filters = true;
        config.options_mut().execution.parquet.reorder_filters = true;
        let context = SessionContext::new_with_config_rt(config, runtime);
        functions::register(&context);
        let places = Arc::new(Semaphore::new(options.queries_max.clamp(1, Semaphore::MAX_PERMITS)));
        let template = Arc::new(context.state());
        Ok(Session { history: history.into(), options, places, live: None, tables: Arc::default(), template })
    }

    /// With tables of what is now.
    #[must_use]
    pub fn with_live(mut self, live: Arc<dyn Live>) -> Session {
        self.live = Some(live);
        self
    }

    /// Runs one reading statement. The answer holds what was committed when the query began.
    ///
    /// # Errors
    ///
    /// When the statement is wrong or would write, a table cannot be opened, or a limit is met.
    pub async fn query(&self, sql: &str) -> Result<Rows, QueryError> {
        self.query_as_of(sql, None).await
    }

    /// The same over what history held at an epoch or a time.
    ///
    /// # Errors
    ///
    /// As [`Session::query`]; live tables have no past.
    pub async fn query_as_of(&self, sql: &str, as_of: Option<AsOf>) -> Result<Rows, QueryError> {
        self.answer(statement::parse(sql)?, as_of, None).await
    }

    /// The same with times in the places of `$name`.
    ///
    /// # Errors
    ///
    /// As [`Session::query`].
    pub async fn query_with_times(&self, sql: &str, times: &BTreeMap<&str, Time>) -> Result<Rows, QueryError> {
        let mut statement = statement::parse(sql)?;
        statement::with_times(&mut statement, times)?;
        self.answer(statement, None, None).await
    }

    /// The columns that a statement gives, by the tables' schemas alone: nothing is read, and columns that only loaded rules
    /// bring are not known.
    ///
    /// # Errors
    ///
    /// When the statement is wrong or would write.
    pub fn columns(&self, sql: &str, times: &BTreeMap<&str, Time>) -> Result<Vec<String>, QueryError> {
        let mut statement = statement::parse(sql)?;
        statement::with_times(&mut statement, times)?;
        let context = self.empty_context()?;
        let state = context.state();
        let references = state.resolve_table_references(&statement).map_err(|error| self.error(&error))?;
        let own = |reference: &&TableReference| reference.schema().is_none_or(|schema| schema == SCHEMA);
        let known = |name: &str| self.tables().any(|table| table == name) || state.table_functions().contains_key(name);
        if let Some(unknown) = references.iter().filter(own).find(|reference| !known(reference.table())) {
            return Err(QueryError::no_table(unknown.table(), self.tables()));
        }
        // The catalogue is in memory: nothing in it waits.
        let planned = state.statement_to_plan(statement).now_or_never();
        let plan = planned.ok_or_else(|| QueryError::Sql("the statement cannot be planned at once".to_owned()))?;
        let plan = plan.map_err(|error| self.error(&error))?;
        let reading = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        reading.verify_plan(&plan).map_err(|error| self.error(&error))?;
        Ok(plan.schema().fields().iter().map(|field| field.name().clone()).collect())
    }

    /// Runs a statement that was checked.
    pub(crate) async fn answer(
        &self,
        statement: Statement,
        as_of: Option<AsOf>,
        parameters: Option<ParamValues>,
    ) -> Result<Rows, QueryError> {
        let share = Share::take(&self.places, self.options.time_max, self.options.rows_max).await?;
        let begun = Box::pin(async {
            let (context, mut plan) = self.plan(statement, as_of).await?;
            if let Some(values) = parameters {
                plan = plan.replace_params_with_values(&values).map_err(|error| self.error(&error))?;
            }
            let frame = context.execute_logical_plan(plan).await.map_err(|error| self.error(&error))?;
            let task = Arc::new(frame.task_ctx());
            let plan = frame.create_physical_plan().await.and_then(limits::cooperative);
            plan.and_then(|plan| execute_stream(plan, task)).map_err(|error| self.error(&error))
        });
        let stream = share.within(begun).await??;
        Ok(Rows { stream, memory_bytes: self.options.memory_bytes, share, ended: false })
    }

    /// The plan of a statement over the tables as they are now, and the context that it belongs to.
    pub(crate) async fn plan(
        &self,
        statement: Statement,
        as_of: Option<AsOf>,
    ) -> Result<(SessionContext, LogicalPlan), QueryError> {
        let context = self.context();
        Box::pin(self.register(&context, &statement, as_of)).await?;
        let plan = context.state().statement_to_plan(statement).await.map_err(|error| self.error(&error))?;
        let reading = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        reading.verify_plan(&plan).map_err(|error| self.error(&error))?;
        Ok((context, plan))
    }

    /// With other settings and functions.
    pub(crate) fn with_template(mut self, template: SessionState) -> Session {
        self.template = Arc::new(template);
        self
    }

    /// A context with tables of no rows: what a catalogue is made of.
    pub(crate) fn empty_context(&self) -> Result<SessionContext, QueryError> {
        let context = self.context();
        for name in self.tables() {
            let table = Arc::new(EmptyTable::new(self.schema(name)));
            context.register_table(name, table).map_err(|error| self.error(&error))?;
        }
        Ok(context)
    }

    /// A context without tables; schemas that the template has besides ours come along.
    fn context(&self) -> SessionContext {
        let ours = Arc::new(MemoryCatalogProvider::new());
        let theirs = self.template.catalog_list().catalog(CATALOG);
        let added = ours.register_schema(SCHEMA, Arc::new(MemorySchemaProvider::new()));
        debug_assert!(added.is_ok(), "a catalogue in memory takes schemas");
        for name in theirs.iter().flat_map(|catalog| catalog.schema_names()).filter(|name| name != SCHEMA) {
            if let Some(schema) = theirs.as_ref().and_then(|catalog| catalog.schema(&name)) {
                drop(ours.register_schema(&name, schema));
            }
        }
        let list = MemoryCatalogProviderList::new();
        list.register_catalog(CATALOG.to_owned(), ours);
        let state = SessionStateBuilder::new_from_existing((*self.template).clone()).with_catalog_list(Arc::new(list));
        SessionContext::new_with_state(state.build())
    }

    /// Names of all tables, history first.
    pub(crate) fn tables(&self) -> impl Iterator<Item = &'static str> {
        let live = self.live.iter().flat_map(|live| live.tables()).map(|table| table.name);
        Table::ALL.into_iter().map(Table::name).chain([EVENTS_DISTINCT]).chain(live)
    }

    pub(crate) fn live(&self) -> &'static [LiveTable] {
        self.live.as_ref().map_or(&[], |live| live.tables())
    }

    fn schema(&self, name: &str) -> SchemaRef {
        let live = self.live().iter().find(|table| table.name == name).map(LiveTable::arrow);
        let table = Table::ALL.into_iter().find(|table| table.name() == name).unwrap_or(Table::Events);
        live.unwrap_or_else(|| table.arrow(true))
    }

    /// Makes all tables known, and opens those that the statement names.
    async fn register(
        &self,
        context: &SessionContext,
        statement: &Statement,
        as_of: Option<AsOf>,
    ) -> Result<(), QueryError> {
        let failed = |error: DataFusionError| self.error(&error);
        let state = context.state();
        let references = state.resolve_table_references(statement).map_err(failed)?;
        let own = |reference: &&TableReference| reference.schema().is_none_or(|schema| schema == SCHEMA);
        let mut named: BTreeSet<&str> = references.iter().filter(own).map(|reference| reference.table()).collect();
        let known = |name: &str| self.tables().any(|table| table == name) || state.table_functions().contains_key(name);
        if let Some(unknown) = named.iter().find(|name| !known(name)) {
            return Err(QueryError::no_table(unknown, self.tables()));
        }
        if named.contains(EVENTS_DISTINCT) {
            named.insert(Table::Events.name());
        }
        // Live tables first: then history, which follows the ledger, is never ahead of them by more than it lags.
        self.register_live(context, &named, as_of).await?;
        // `epochs` first: what it says is complete is in all tables that are opened after it.
        let epochs = self.tables.open(&self.history, Table::Epochs).await?;
        let complete = epochs.as_ref().map_or(0, |held| held.opened.last_epoch);
        let complete = match as_of {
            None => complete,
            Some(AsOf::Epoch(epoch)) => epoch.min(complete),
            Some(AsOf::Time(time)) => Box::pin(self.epoch_at(time, complete)).await?,
        };
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

    async fn register_live(
        &self,
        context: &SessionContext,
        named: &BTreeSet<&str>,
        as_of: Option<AsOf>,
    ) -> Result<(), QueryError> {
        let Some(live) = &self.live else { return Ok(()) };
        for table in live.tables() {
            let provider: Arc<dyn TableProvider> = if named.contains(table.name) {
                if as_of.is_some() {
                    return Err(QueryError::NoPast { table: table.name });
                }
                let failed = |why| QueryError::Live { table: table.name, why };
                let rows = live.rows(table.name).await.map_err(failed)?;
                let batch = table.batch(&rows).map_err(|error| failed(error.to_string()))?;
                let table = MemTable::try_new(table.arrow(), vec![vec![batch]]);
                Arc::new(table.map_err(|error| self.error(&error))?)
            } else {
                Arc::new(EmptyTable::new(table.arrow()))
            };
            context.register_table(table.name, provider).map_err(|error| self.error(&error))?;
        }
        Ok(())
    }

    /// The last epoch that was cut at a wall time or before; 0 if there is none.
    async fn epoch_at(&self, time: Time, complete: Epoch) -> Result<Epoch, QueryError> {
        let failed = |error: DataFusionError| self.error(&error);
        let context = self.context();
        let provider = self.provider(&context, Table::Epochs, complete).await?;
        context.register_table(Table::Epochs.name(), provider).map_err(failed)?;
        let sql = format!("SELECT max(epoch) FROM epochs WHERE wall <= '{time}'");
        let batches = context.sql(&sql).await.map_err(failed)?.collect().await.map_err(failed)?;
        let last = batches.first().map(|batch| batch.column(0).as_primitive::<Int64Type>());
        let last = last.filter(|last| !last.is_empty() && !last.is_null(0)).map_or(0, |last| last.value(0));
        Ok(Epoch::try_from(last).unwrap_or(0))
    }

    async fn provider(
        &self,
        context: &SessionContext,
        table: Table,
        complete: Epoch,
    ) -> Result<Arc<dyn TableProvider>, QueryError> {
        let Some(Held { opened, files }) = self.tables.open(&self.history, table).await? else {
            return Ok(Arc::new(EmptyTable::new(table.arrow(true))));
        };
        let failed = |source| HistoryError::Delta { attempt: "read", table, source: Box::new(source) };
        opened.delta.update_datafusion_session(&context.state()).map_err(failed)?;
        let provider: Arc<dyn TableProvider> = match files {
            Some(files) => files,
            None => {
                let state = Arc::new(context.state());
                let provider = opened.delta.table_provider().with_session(state).await;
                provider.map_err(|error| self.error(&error))?
            }
        };
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

fn runtime(options: &Options) -> Result<Arc<RuntimeEnv>, DataFusionError> {
    let mode = match &options.spill_folder {
        Some(folder) => DiskManagerMode::Directories(vec![folder.clone()]),
        None => DiskManagerMode::OsTmpDirectory,
    };
    let disk = DiskManagerBuilder::default().with_mode(mode).with_max_temp_directory_size(options.spill_bytes);
    let consumers = std::num::NonZeroUsize::MIN;
    let pool = TrackConsumersPool::new(FairSpillPool::new(options.memory_bytes), consumers);
    RuntimeEnvBuilder::new().with_disk_manager_builder(disk).with_memory_pool(Arc::new(pool)).build_arc()
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("history", &self.history)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
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
    /// When the query fails underway or meets a limit. Nothing comes after that.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>, QueryError> {
        if self.ended {
            return Ok(None);
        }
        let next = self.pull().await;
        self.ended = !matches!(next, Ok(Some(_)));
        next
    }

    async fn pull(&mut self) -> Result<Option<RecordBatch>, QueryError> {
        let batch = self.share.within(self.stream.next()).await?.transpose();
        let batch = batch.map_err(|error| QueryError::new(&error, self.memory_bytes))?;
        if let Some(batch) = &batch {
            self.share.count(batch.num_rows())?;
        }
        Ok(batch)
    }
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rows").field("schema", &self.schema()).finish_non_exhaustive()
    }
}
