//! From a text of a Postgres client to statements that only read: its dialect, the catalogue's names, the same checks as all SQL.

use std::{
    ops::ControlFlow,
    sync::{Arc, LazyLock},
};

use datafusion::{
    arrow::datatypes::{DataType, SchemaRef},
    common::tree_node::{TreeNode as _, TreeNodeRecursion},
    logical_expr::LogicalPlan,
    prelude::Expr,
    sql::{
        parser::Statement,
        sqlparser::{
            ast::{self, Ident, ObjectName, visit_expressions_mut, visit_relations},
            dialect::PostgreSqlDialect,
            parser::ParserError,
        },
    },
};
use datafusion_postgres::{
    arrow_pg::datatypes::{PG_OID_ALIAS_KEY, into_pg_type, pg_type_for_alias_kind},
    datafusion_pg_catalog::sql::PostgresCompatibilityParser,
    pgwire::api::Type,
};

use super::{
    clients::{look_into_text_arrays, with_search_path},
    command::{Command, command},
    cursor::{Declared, declared},
};
use crate::{
    error::QueryError,
    statement::{bounded, name_columns, only_reads, relations},
};

/// Parameters of a statement, which the protocol counts with 16 bits.
const PARAMETERS_MAX: usize = 65_535;

static PARSER: LazyLock<PostgresCompatibilityParser> = LazyLock::new(PostgresCompatibilityParser::new);

/// A statement as a connection keeps it. The plan is made anew for each execution, over the tables as they are then.
#[derive(Clone, Debug)]
pub(super) enum Prepared {
    Command(Command),
    Query(Arc<Query>),
    /// A cursor over a query.
    Declare(Declared, Arc<Query>),
}

impl Prepared {
    /// Whether it answers with as many rows as there are.
    pub(super) fn has_rows(&self) -> bool {
        matches!(self, Prepared::Query(_) | Prepared::Command(Command::Fetch(..)))
    }
}

/// A statement that asks tables.
#[derive(Debug)]
pub(super) struct Query {
    pub(super) statement: Statement,
    /// Its columns, as they were when it was prepared.
    pub(super) schema: SchemaRef,
    /// What its parameters are, as far as the plan says, and what clients are told.
    pub(super) parameters: Vec<(Option<DataType>, Type)>,
}

/// One statement of a text.
#[derive(Clone, Debug)]
pub(super) enum Parsed {
    Command(Command),
    Query(Statement),
    Declare(Declared, Statement),
}

/// Parses a text; refuses all that would write.
pub(super) fn parse(text: &str) -> Result<Vec<Parsed>, QueryError> {
    bounded(text, &PostgreSqlDialect {})?;
    let failed = |error: ParserError| QueryError::Sql(error.to_string());
    let statements = PARSER.parse(&with_search_path(text).map_err(failed)?).map_err(failed)?;
    statements.into_iter().map(checked).collect()
}

fn checked(statement: ast::Statement) -> Result<Parsed, QueryError> {
    if let Some(command) = command(&statement).map_err(QueryError::Sql)? {
        return Ok(Parsed::Command(command));
    }
    if let ast::Statement::Declare { stmts } = &statement
        && let [declare] = stmts.as_slice()
        && let Some(query) = &declare.for_query
    {
        let declared = declared(declare).map_err(QueryError::Sql)?;
        // Some of the rewriting looks at queries alone.
        let query = PARSER.rewrite(ast::Statement::Query(query.clone()));
        return Ok(Parsed::Declare(declared, reading(query)?));
    }
    reading(statement).map(Parsed::Query)
}

fn reading(mut statement: ast::Statement) -> Result<Statement, QueryError> {
    look_into_text_arrays(&mut statement);
    let about_ours = names_ours(&statement);
    let mut statement = Statement::Statement(Box::new(statement));
    if !only_reads(&statement) {
        let word = statement.to_string().split_whitespace().next().unwrap_or_default().to_uppercase();
        return Err(QueryError::NotReadOnly { word });
    }
    relations(&statement)?;
    if about_ours {
        name_columns(&mut statement);
    } else {
        name_user(&mut statement);
    }
    Ok(statement)
}

/// Whether it asks tables of ours, where `user` is a column; elsewhere it is who asks.
fn names_ours(statement: &ast::Statement) -> bool {
    let found = visit_relations(statement, |name| {
        let schema = name.0.len().checked_sub(2).and_then(|at| name.0.get(at)).and_then(|part| part.as_ident());
        let theirs = schema.is_some_and(|schema| ["pg_catalog", "information_schema"].contains(&schema.value.as_str()));
        if theirs { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    found.is_break()
}

fn name_user(statement: &mut Statement) {
    let Statement::Statement(statement) = statement else { return };
    let _all: ControlFlow<()> = visit_expressions_mut(statement, |expression| {
        if let ast::Expr::Function(function) = expression
            && matches!(function.args, ast::FunctionArguments::None)
            && function.name.to_string().eq_ignore_ascii_case("user")
        {
            function.name = ObjectName::from(vec![Ident::new("session_user")]);
        }
        ControlFlow::Continue(())
    });
}

/// The parameters of a plan in order. Columns of the catalogue that hold an `oid` as a number are told as one.
pub(super) fn parameters(plan: &LogicalPlan) -> Result<Vec<(Option<DataType>, Type)>, QueryError> {
    let failed = |error: datafusion::error::DataFusionError| QueryError::new(&error, 0);
    let mut list: Vec<(Option<DataType>, Option<Type>)> = Vec::new();
    let mut put = |id: &str, kind: Option<DataType>, told: Option<Type>| -> Result<(), QueryError> {
        let number = id.trim_start_matches('$').parse::<usize>().ok().filter(|n| (1..=PARAMETERS_MAX).contains(n));
        let Some(number) = number else { return Err(QueryError::Sql(format!("{id:?} is no parameter"))) };
        if list.len() < number {
            list.resize(number, (None, None));
        }
        if let Some(slot) = list.get_mut(number - 1) {
            slot.0 = slot.0.take().or(kind);
            slot.1 = slot.1.take().or(told);
        }
        Ok(())
    };
    for (id, kind) in plan.get_parameter_types().map_err(failed)? {
        put(&id, kind, None)?;
    }
    for (id, kind, told) in placeholders(plan).map_err(failed)? {
        put(&id, kind, told)?;
    }
    let known = |(kind, told): (Option<DataType>, Option<Type>)| {
        let told = told.or_else(|| kind.as_ref().and_then(|kind| into_pg_type(kind).ok())).unwrap_or(Type::UNKNOWN);
        (kind, told)
    };
    Ok(list.into_iter().map(known).collect())
}

type Placeholder = (String, Option<DataType>, Option<Type>);

fn placeholders(plan: &LogicalPlan) -> Result<Vec<Placeholder>, datafusion::error::DataFusionError> {
    let mut found = Vec::new();
    plan.apply_with_subqueries(|node| {
        for expression in node.expressions() {
            expression.apply(|part| {
                let (placeholder, cast) = match part {
                    Expr::Placeholder(placeholder) => (placeholder, None),
                    Expr::Cast(cast) => match &*cast.expr {
                        Expr::Placeholder(placeholder) => (placeholder, Some(cast.field.data_type().clone())),
                        _ => return Ok(TreeNodeRecursion::Continue),
                    },
                    _ => return Ok(TreeNodeRecursion::Continue),
                };
                let field = placeholder.field.as_deref().filter(|field| *field.data_type() == DataType::Int32);
                let told = field.and_then(|field| field.metadata().get(PG_OID_ALIAS_KEY));
                found.push((placeholder.id.clone(), cast, told.and_then(|kind| pg_type_for_alias_kind(kind))));
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    // Casts first: a cast says what the text of its parameter is to become.
    found.sort_by_key(|(_, cast, _)| cast.is_none());
    Ok(found)
}
