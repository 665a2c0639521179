//! What is done with the statements of one connection, in both forms of the protocol.

use std::{
    mem,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use datafusion::{
    arrow::{array::RecordBatch, datatypes::SchemaRef},
    common::ParamValues,
    sql::parser::Statement,
};
use datafusion_postgres::{
    arrow_pg::{
        datatypes::{arrow_schema_to_pg_fields, df::deserialize_parameters_with_server_types},
        encode_recordbatch,
    },
    pgwire::{
        api::{
            ClientInfo, ClientPortalStore, ConnectionHandle, DEFAULT_NAME, PgWireConnectionState, Type,
            portal::{Format, Portal, PortalExecutionState},
            query::{
                ExtendedQueryHandler, SimpleQueryHandler, send_describe_response, send_execution_response,
                send_partial_query_response,
            },
            results::{DataRowEncoder, DescribePortalResponse, FieldFormat, FieldInfo, QueryResponse, Response, Tag},
            stmt::QueryParser,
            store::PortalStore,
        },
        error::{ErrorInfo, PgWireError, PgWireResult},
        messages::{
            PgWireBackendMessage,
            extendedquery::{Describe, Execute, TARGET_TYPE_BYTE_PORTAL},
            response::TransactionStatus,
        },
    },
};
use futures::{Sink, Stream, StreamExt as _, stream};

use super::{
    command::{Command, setting},
    cursor::{CursorError, Cursors, Declared},
    prepared::{self, Parsed, Prepared, Query},
};
use crate::{AsOf, Session, error::QueryError};

/// The handler of one connection.
pub(super) struct Handler {
    asker: Arc<Asker>,
}

/// Asks in the name of one connection.
pub(super) struct Asker {
    session: Session,
    as_of: Mutex<Option<AsOf>>,
    cursors: Cursors,
}

impl Handler {
    pub(super) fn new(session: Session) -> Handler {
        Handler { asker: Arc::new(Asker { session, as_of: Mutex::new(None), cursors: Cursors::default() }) }
    }

    /// Whether a place among the queries is held by what is not fetched yet.
    pub(super) fn has_cursors(&self) -> bool {
        self.asker.cursors.any()
    }
}

impl Asker {
    fn as_of(&self) -> Option<AsOf> {
        *self.as_of.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what is no query; rows are told in a format.
    fn command(&self, command: Command, format: &Format) -> PgWireResult<Response> {
        Ok(match command {
            Command::Begin => Response::TransactionStart(Tag::new("BEGIN")),
            Command::Commit => {
                self.cursors.end_transaction(true);
                Response::TransactionEnd(Tag::new("COMMIT"))
            }
            Command::Rollback => {
                self.cursors.end_transaction(false);
                Response::TransactionEnd(Tag::new("ROLLBACK"))
            }
            Command::Nothing("DISCARD ALL") => {
                self.cursors.close(None).map_err(misused)?;
                Response::Execution(Tag::new("DISCARD ALL"))
            }
            Command::Nothing(tag) => Response::Execution(Tag::new(tag)),
            Command::AsOf(as_of) => {
                *self.as_of.lock().unwrap_or_else(PoisonError::into_inner) = as_of;
                Response::Execution(Tag::new("SET"))
            }
            Command::Show(name) => self.show(&name)?,
            Command::Fetch(name, rows_max) => Response::Query(self.fetch(&name, rows_max, format)?),
            Command::Close(name) => {
                self.cursors.close(name.as_deref()).map_err(misused)?;
                Response::Execution(Tag::new("CLOSE CURSOR"))
            }
        })
    }

    /// Begins a query whose rows are fetched by its cursor's name.
    async fn declare(
        &self,
        declared: &Declared,
        query: &Query,
        parameters: Option<ParamValues>,
        in_transaction: bool,
    ) -> PgWireResult<Response> {
        if !in_transaction && !declared.hold {
            return Err(error("25P01", "DECLARE CURSOR can only be used in transaction blocks"));
        }
        self.cursors.check(&declared.name).map_err(misused)?;
        let rows = self.session.answer(query.statement.clone(), self.as_of(), parameters).await.map_err(refused)?;
        self.cursors.put(declared, rows);
        Ok(Response::Execution(Tag::new("DECLARE CURSOR")))
    }

    fn fetch(&self, name: &str, rows_max: Option<usize>, format: &Format) -> PgWireResult<QueryResponse> {
        let cursor = self.cursors.get(name).map_err(misused)?;
        let fields = Arc::new(fields(&cursor.schema, format)?);
        let batches = stream::try_unfold((cursor.left, rows_max), |(left, rows_max)| async move {
            if rows_max == Some(0) {
                return Ok(None);
            }
            let batch = left.lock().await.next(rows_max.unwrap_or(usize::MAX)).await.map_err(refused)?;
            let Some(batch) = batch else { return Ok(None) };
            let rows_max = rows_max.map(|max| max.saturating_sub(batch.num_rows()));
            Ok::<_, PgWireError>(Some((batch, (left, rows_max))))
        });
        let mut response = encoded(fields, batches);
        response.set_command_tag("FETCH");
        Ok(response)
    }

    fn show(&self, name: &str) -> PgWireResult<Response> {
        let value = match name {
            "as_of" => Some(self.as_of().map_or_else(|| "now".to_owned(), |as_of| as_of.to_string())),
            name => setting(name).map(str::to_owned),
        };
        let unknown = || error("42704", format!("unrecognized configuration parameter \"{name}\""));
        let value = value.ok_or_else(unknown)?;
        let fields = Arc::new(shown(name));
        let mut row = DataRowEncoder::new(Arc::clone(&fields));
        row.encode_field(&Some(value))?;
        let row = row.take_row();
        let mut response = QueryResponse::new(fields, stream::once(async move { Ok(row) }));
        response.set_command_tag("SHOW");
        Ok(Response::Query(response))
    }

    /// Runs a query up to its first rows: what goes wrong by then is an error, not a broken answer, and can be cancelled.
    async fn query(
        &self,
        query: &Query,
        parameters: Option<ParamValues>,
        format: &Format,
    ) -> PgWireResult<QueryResponse> {
        let fields = Arc::new(fields(&query.schema, format)?);
        let mut rows = self.session.answer(query.statement.clone(), self.as_of(), parameters).await.map_err(refused)?;
        if rows.schema().fields().len() != fields.len() {
            return Err(error("0A000", "cached plan must not change result type"));
        }
        let first = rows.next().await.map_err(refused)?;
        let batches = stream::try_unfold((first, rows), |(batch, mut rows)| async move {
            let Some(batch) = batch else { return Ok(None) };
            let next = rows.next().await.map_err(refused)?;
            Ok::<_, PgWireError>(Some((batch, (next, rows))))
        });
        Ok(encoded(fields, batches))
    }

    async fn prepare(&self, parsed: Parsed) -> Result<Prepared, QueryError> {
        Ok(match parsed {
            Parsed::Command(command) => Prepared::Command(command),
            Parsed::Query(statement) => Prepared::Query(self.plan(statement).await?),
            Parsed::Declare(declared, statement) => Prepared::Declare(declared, self.plan(statement).await?),
        })
    }

    async fn plan(&self, statement: Statement) -> Result<Arc<Query>, QueryError> {
        let (_context, plan) = self.session.plan(statement.clone(), self.as_of()).await?;
        let schema = SchemaRef::new(plan.schema().as_arrow().clone());
        let parameters = prepared::parameters(&plan)?;
        Ok(Arc::new(Query { statement, schema, parameters }))
    }
}

/// Rows as clients get them.
fn encoded(
    fields: Arc<Vec<FieldInfo>>,
    batches: impl Stream<Item = PgWireResult<RecordBatch>> + Send + 'static,
) -> QueryResponse {
    let told = Arc::clone(&fields);
    let rows = batches.flat_map(move |batch| {
        stream::iter(match batch {
            Ok(batch) => encode_recordbatch(Arc::clone(&told), batch).collect::<Vec<_>>(),
            Err(error) => vec![Err(error)],
        })
    });
    QueryResponse::new(fields, rows)
}

/// In a transaction that failed, only its end is heard.
fn check_transaction(client: &impl ClientInfo, command: Option<&Command>) -> PgWireResult<()> {
    let ends = matches!(command, Some(Command::Commit | Command::Rollback));
    if client.transaction_status() == TransactionStatus::Error && !ends {
        let says = "current transaction is aborted, commands ignored until end of transaction block";
        return Err(error("25P02", says));
    }
    Ok(())
}

/// What failed cannot be committed.
fn as_it_stands(client: &impl ClientInfo, command: Command) -> Command {
    let failed = client.transaction_status() == TransactionStatus::Error;
    if failed && command == Command::Commit { Command::Rollback } else { command }
}

#[async_trait]
impl SimpleQueryHandler for Handler {
    async fn do_query<C>(&self, client: &mut C, query: &str) -> PgWireResult<Vec<Response>>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: std::fmt::Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let parsed = prepared::parse(query).map_err(refused)?;
        if parsed.iter().filter(|parsed| matches!(parsed, Parsed::Query(_))).count() > 1 {
            // All would run at once, each with memory and a place of its own.
            return Err(error("0A000", "one query per message is wanted; send them one by one"));
        }
        let mut responses = Vec::new();
        let mut in_transaction = client.transaction_status() != TransactionStatus::Idle;
        for parsed in parsed {
            match self.asker.prepare(parsed).await.map_err(refused)? {
                Prepared::Command(command) => {
                    check_transaction(client, Some(&command))?;
                    let command = as_it_stands(client, command);
                    match command {
                        Command::Begin => in_transaction = true,
                        Command::Commit | Command::Rollback => in_transaction = false,
                        _ => {}
                    }
                    responses.push(self.asker.command(command, &Format::UnifiedText)?);
                }
                Prepared::Declare(declared, query) => {
                    check_transaction(client, None)?;
                    responses.push(self.asker.declare(&declared, &query, None, in_transaction).await?);
                }
                Prepared::Query(query) => {
                    check_transaction(client, None)?;
                    responses.push(Response::Query(self.asker.query(&query, None, &Format::UnifiedText).await?));
                }
            }
        }
        if responses.is_empty() {
            responses.push(Response::EmptyQuery);
        }
        Ok(responses)
    }
}

#[async_trait]
impl ExtendedQueryHandler for Handler {
    type Statement = Prepared;
    type QueryParser = Asker;

    fn query_parser(&self) -> Arc<Asker> {
        Arc::clone(&self.asker)
    }

    /// The library gathers all rows of an execution, and reserves room for as many as a client says, before it sends one.
    async fn on_execute<C>(&self, client: &mut C, mut message: Execute) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: std::fmt::Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let name = message.name.as_deref().unwrap_or(DEFAULT_NAME);
        let portal = client.portal_store().get_portal(name).and_then(|entry| entry.value().cloned());
        let rows_max = usize::try_from(message.max_rows).unwrap_or(0);
        match portal {
            Some(portal) if portal.statement.statement.has_rows() => self.send_rows(client, &portal, rows_max).await,
            _ => {
                message.max_rows = 0;
                self._on_execute(client, message).await
            }
        }
    }

    /// A cursor is a portal to clients.
    async fn on_describe<C>(&self, client: &mut C, message: Describe) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: std::fmt::Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        if message.target_type == TARGET_TYPE_BYTE_PORTAL
            && let Some(name) = message.name.as_deref()
            && client.portal_store().get_portal(name).is_none()
            && let Ok(cursor) = self.asker.cursors.get(name)
        {
            let fields = fields(&cursor.schema, &Format::UnifiedText)?;
            return send_describe_response(client, &DescribePortalResponse::new(fields)).await;
        }
        self._on_describe(client, message).await
    }

    async fn do_query<C>(&self, client: &mut C, portal: &Portal<Prepared>, _max_rows: usize) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: std::fmt::Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        match &portal.statement.statement {
            Prepared::Command(command) => {
                check_transaction(client, Some(command))?;
                let command = as_it_stands(client, command.clone());
                self.asker.command(command, &portal.result_column_format)
            }
            Prepared::Declare(declared, query) => {
                check_transaction(client, None)?;
                let in_transaction = client.transaction_status() != TransactionStatus::Idle;
                self.asker.declare(declared, query, bound(portal, query)?, in_transaction).await
            }
            Prepared::Query(query) => {
                check_transaction(client, None)?;
                let parameters = bound(portal, query)?;
                Ok(Response::Query(self.asker.query(query, parameters, &portal.result_column_format).await?))
            }
        }
    }
}

impl Handler {
    /// Sends rows of a portal as they come: all, or so many and the rest at the next execution.
    async fn send_rows<C>(&self, client: &mut C, portal: &Portal<Prepared>, rows_max: usize) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: std::fmt::Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        if !matches!(client.state(), PgWireConnectionState::ReadyForQuery) {
            return Err(PgWireError::NotReadyForQuery);
        }
        client.set_state(PgWireConnectionState::QueryInProgress);
        let state = portal.state();
        let mut state = state.lock().await;
        if matches!(*state, PortalExecutionState::Initial) {
            let response = self.begin(client, portal).await?;
            *state = PortalExecutionState::Suspended(response);
        }
        // What fails midway is over.
        match mem::replace(&mut *state, PortalExecutionState::Finished) {
            PortalExecutionState::Suspended(mut response) => {
                if send_partial_query_response(client, &mut response, rows_max).await? {
                    *state = PortalExecutionState::Suspended(response);
                }
            }
            PortalExecutionState::Initial | PortalExecutionState::Finished => {
                send_execution_response(client, Tag::new("SELECT").with_rows(0)).await?;
            }
        }
        client.set_state(PgWireConnectionState::ReadyForQuery);
        Ok(())
    }

    /// Runs what a portal holds up to its first rows, unless it is cancelled.
    async fn begin<C>(&self, client: &mut C, portal: &Portal<Prepared>) -> PgWireResult<QueryResponse>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: std::fmt::Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let cancel = client.session_extensions().get::<Arc<ConnectionHandle>>();
        let cancelled = async {
            if let Some(handle) = cancel
                && handle.start_query().await.await.is_ok()
            {
                return;
            }
            std::future::pending::<()>().await;
        };
        let response = tokio::select! {
            response = ExtendedQueryHandler::do_query(self, client, portal, 0) => response?,
            () = cancelled => return Err(PgWireError::QueryCanceled),
        };
        match response {
            Response::Query(response) => Ok(response),
            _ => Err(error("XX000", "a query without rows")),
        }
    }
}

/// The values of a portal's parameters.
fn bound(portal: &Portal<Prepared>, query: &Query) -> PgWireResult<Option<ParamValues>> {
    let (given, wanted) = (portal.parameters.len(), query.parameters.len());
    if given != wanted {
        let says = format!("bind message supplies {given} parameters, but prepared statement requires {wanted}");
        return Err(error("08P01", says));
    }
    // The library counts on as many codes as values.
    if let Format::Individual(codes) = &portal.parameter_format
        && codes.len() != given
    {
        return Err(error(
            "08P01",
            format!("bind message has {} parameter formats but {given} parameters", codes.len()),
        ));
    }
    if wanted == 0 {
        return Ok(None);
    }
    let kinds: Vec<_> = query.parameters.iter().map(|(kind, _)| kind.as_ref()).collect();
    let told: Vec<_> = query.parameters.iter().map(|(_, told)| Some(told)).collect();
    deserialize_parameters_with_server_types(portal, &kinds, &told).map(Some)
}

#[async_trait]
impl QueryParser for Asker {
    type Statement = Prepared;

    async fn parse_sql<C>(&self, _client: &C, sql: &str, _types: &[Option<Type>]) -> PgWireResult<Option<Prepared>>
    where
        C: ClientInfo + Unpin + Send + Sync,
    {
        let mut parsed = prepared::parse(sql).map_err(refused)?;
        if parsed.len() > 1 {
            return Err(error("42601", "cannot insert multiple commands into a prepared statement"));
        }
        match parsed.pop() {
            Some(parsed) => self.prepare(parsed).await.map(Some).map_err(refused),
            None => Ok(None),
        }
    }

    fn get_parameter_types(&self, statement: &Prepared) -> PgWireResult<Vec<Type>> {
        Ok(match statement {
            Prepared::Command(_) => Vec::new(),
            Prepared::Query(query) | Prepared::Declare(_, query) => {
                query.parameters.iter().map(|(_, told)| told.clone()).collect()
            }
        })
    }

    fn get_result_schema(&self, statement: &Prepared, format: Option<&Format>) -> PgWireResult<Vec<FieldInfo>> {
        match statement {
            Prepared::Command(Command::Show(name)) => Ok(shown(name)),
            Prepared::Command(Command::Fetch(name, _)) => {
                let cursor = self.cursors.get(name).map_err(misused)?;
                fields(&cursor.schema, format.unwrap_or(&Format::UnifiedText))
            }
            Prepared::Command(_) | Prepared::Declare(..) => Ok(Vec::new()),
            Prepared::Query(query) => fields(&query.schema, format.unwrap_or(&Format::UnifiedText)),
        }
    }
}

fn fields(schema: &SchemaRef, format: &Format) -> PgWireResult<Vec<FieldInfo>> {
    let columns = schema.fields().len();
    // The library counts on as many codes as columns.
    if let Format::Individual(codes) = format
        && codes.len() != columns
    {
        let says = format!("bind message has {} result formats but query has {columns} columns", codes.len());
        return Err(error("08P01", says));
    }
    arrow_schema_to_pg_fields(schema, format, None)
}

fn shown(name: &str) -> Vec<FieldInfo> {
    vec![FieldInfo::new(name.to_owned(), None, None, Type::VARCHAR, FieldFormat::Text)]
}

fn error(code: &str, says: impl Into<String>) -> PgWireError {
    PgWireError::UserError(Box::new(ErrorInfo::new("ERROR".to_owned(), code.to_owned(), says.into())))
}

/// With PostgreSQL's code.
fn misused(cursor: CursorError) -> PgWireError {
    let code = match &cursor {
        CursorError::Unknown(_) => "34000",
        CursorError::Known(_) => "42P03",
        CursorError::TooMany => "53400",
    };
    error(code, cursor.to_string())
}

/// With PostgreSQL's code, which drivers turn into classes of errors.
fn refused(query: QueryError) -> PgWireError {
    let says = query.to_string();
    let code = match &query {
        QueryError::NotReadOnly { .. } => "25006",
        QueryError::NotOneStatement { .. } => "42601",
        QueryError::NoTable { .. } => "42P01",
        QueryError::TooLong { .. } | QueryError::TooComplex { .. } => "54001",
        QueryError::TooManyRows { .. } => "54000",
        QueryError::TooSlow { .. } => "57014",
        QueryError::Memory { .. } => "53200",
        QueryError::Busy => "53300",
        QueryError::NoPast { .. } => "0A000",
        QueryError::Sql(says) if says.starts_with("No field named") => "42703",
        QueryError::Sql(says) if says.starts_with("Invalid function") => "42883",
        QueryError::Sql(says) if says.starts_with("unrecognized configuration") => "42704",
        QueryError::Sql(_) => "42601",
        QueryError::Live { .. } | QueryError::History(_) | QueryError::Write(_) => "58000",
    };
    error(code, says)
}
