//! What is done with the statements of one connection, in both forms of the protocol.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use datafusion::{arrow::datatypes::SchemaRef, common::ParamValues};
use datafusion_postgres::{
    arrow_pg::{
        datatypes::{arrow_schema_to_pg_fields, df::deserialize_parameters_with_server_types},
        encode_recordbatch,
    },
    pgwire::{
        api::{
            ClientInfo, ClientPortalStore, Type,
            portal::{Format, Portal},
            query::{ExtendedQueryHandler, SimpleQueryHandler},
            results::{DataRowEncoder, FieldFormat, FieldInfo, QueryResponse, Response, Tag},
            stmt::QueryParser,
            store::PortalStore,
        },
        error::{ErrorInfo, PgWireError, PgWireResult},
        messages::{PgWireBackendMessage, response::TransactionStatus},
    },
};
use futures::{Sink, StreamExt as _, stream};

use super::{
    command::{Command, setting},
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
}

impl Handler {
    pub(super) fn new(session: Session) -> Handler {
        Handler { asker: Arc::new(Asker { session, as_of: Mutex::new(None) }) }
    }
}

impl Asker {
    fn as_of(&self) -> Option<AsOf> {
        *self.as_of.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn command(&self, command: Command) -> PgWireResult<Response> {
        Ok(match command {
            Command::Begin => Response::TransactionStart(Tag::new("BEGIN")),
            Command::Commit => Response::TransactionEnd(Tag::new("COMMIT")),
            Command::Rollback => Response::TransactionEnd(Tag::new("ROLLBACK")),
            Command::Nothing(tag) => Response::Execution(Tag::new(tag)),
            Command::AsOf(as_of) => {
                *self.as_of.lock().unwrap_or_else(PoisonError::into_inner) = as_of;
                Response::Execution(Tag::new("SET"))
            }
            Command::Show(name) => self.show(&name)?,
        })
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
        let told = Arc::clone(&fields);
        let encoded = batches.flat_map(move |batch| {
            stream::iter(match batch {
                Ok(batch) => encode_recordbatch(Arc::clone(&told), batch).collect::<Vec<_>>(),
                Err(error) => vec![Err(error)],
            })
        });
        Ok(QueryResponse::new(fields, encoded))
    }

    async fn prepare(&self, parsed: Parsed) -> Result<Prepared, QueryError> {
        match parsed {
            Parsed::Command(command) => Ok(Prepared::Command(command)),
            Parsed::Query(statement) => {
                let (_context, plan) = self.session.plan(statement.clone(), self.as_of()).await?;
                let schema = SchemaRef::new(plan.schema().as_arrow().clone());
                let parameters = prepared::parameters(&plan)?;
                Ok(Prepared::Query(Arc::new(Query { statement, schema, parameters })))
            }
        }
    }
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
        for parsed in parsed {
            match self.asker.prepare(parsed).await.map_err(refused)? {
                Prepared::Command(command) => {
                    check_transaction(client, Some(&command))?;
                    responses.push(self.asker.command(command)?);
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
                self.asker.command(command.clone())
            }
            Prepared::Query(query) => {
                check_transaction(client, None)?;
                let parameters = bound(portal, query)?;
                Ok(Response::Query(self.asker.query(query, parameters, &portal.result_column_format).await?))
            }
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
            Prepared::Query(query) => query.parameters.iter().map(|(_, told)| told.clone()).collect(),
        })
    }

    fn get_result_schema(&self, statement: &Prepared, format: Option<&Format>) -> PgWireResult<Vec<FieldInfo>> {
        match statement {
            Prepared::Command(Command::Show(name)) => Ok(shown(name)),
            Prepared::Command(_) => Ok(Vec::new()),
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
