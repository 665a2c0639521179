//! From text to one statement that only reads.

use std::{collections::BTreeMap, ops::ControlFlow};

use cf_types::Time;

use datafusion::{
    error::DataFusionError,
    sql::{
        parser::{DFParser, DFParserBuilder, Statement},
        sqlparser::{
            ast::{Expr, FunctionArguments, Statement as Sql, Value, visit_expressions_mut, visit_relations},
            dialect::{Dialect, GenericDialect},
            keywords::Keyword,
            parser::Parser,
            tokenizer::{Token, Tokenizer},
        },
    },
};

use crate::error::QueryError;

/// Bytes of a statement. A person writes less; a list of a thousand addresses fits.
const STATEMENT_BYTES_MAX: usize = 1 << 20;

/// Nested parentheses and subqueries.
const DEPTH_MAX: usize = 64;

/// Words and operators of a statement; literals, commas and parentheses are not among them, so lists may be long. Chains of
/// operators (`a + b + c ..`) make trees as deep as they are long, which no limit on nesting sees, and trees are taken
/// apart recursively.
const WORDS_MAX: usize = 2_048;

/// Commas of a statement. Some readers of Parquet turn a list into a chain of comparisons, which is as deep as it is long.
const ELEMENTS_MAX: usize = 2_000;

/// Tables that a statement names, and queries in it: each is a level of the plan.
const RELATIONS_MAX: usize = 128;

/// Parses one statement and refuses all that do not only read.
pub(crate) fn parse(text: &str) -> Result<Statement, QueryError> {
    bounded(text, &GenericDialect {})?;
    let mut statements = DFParserBuilder::new(text)
        .with_dialect(&GenericDialect {})
        .with_recursion_limit(DEPTH_MAX)
        .build()
        .and_then(|mut parser| parser.parse_statements())
        .map_err(|error: DataFusionError| QueryError::new(&error, 0))?;
    let found = statements.len();
    let Some(mut statement) = statements.pop_front().filter(|_| found == 1) else {
        return Err(QueryError::NotOneStatement { found });
    };
    if !only_reads(&statement) {
        let word = text.split_whitespace().next().unwrap_or_default().to_uppercase();
        return Err(QueryError::NotReadOnly { word });
    }
    relations(&statement)?;
    name_columns(&mut statement);
    Ok(in_order(statement))
}

/// Refuses texts that would be expensive to parse.
pub(crate) fn bounded(text: &str, dialect: &dyn Dialect) -> Result<(), QueryError> {
    if text.len() > STATEMENT_BYTES_MAX {
        return Err(QueryError::TooLong { bytes: text.len(), max: STATEMENT_BYTES_MAX });
    }
    let tokens = Tokenizer::new(dialect, text).tokenize().map_err(|error| QueryError::Sql(error.to_string()))?;
    let lists = |token: &&Token| {
        matches!(
            token,
            Token::Number(..)
                | Token::SingleQuotedString(_)
                | Token::Comma
                | Token::LParen
                | Token::RParen
                | Token::Whitespace(_)
        )
    };
    let found = tokens.iter().filter(|token| !lists(token)).count();
    if found > WORDS_MAX {
        return Err(QueryError::TooComplex { what: "words and operators", found, max: WORDS_MAX });
    }
    let found = tokens.iter().filter(|token| matches!(token, Token::Comma)).count();
    if found > ELEMENTS_MAX {
        return Err(QueryError::TooComplex { what: "commas", found, max: ELEMENTS_MAX });
    }
    let query = |token: &&Token| matches!(token, Token::Word(word) if word.keyword == Keyword::SELECT);
    let found = tokens.iter().filter(query).count();
    if found > RELATIONS_MAX {
        return Err(QueryError::TooComplex { what: "queries in it", found, max: RELATIONS_MAX });
    }
    Ok(())
}

/// Refuses statements that name too many tables.
pub(crate) fn relations(statement: &Statement) -> Result<(), QueryError> {
    let mut found = 0;
    match statement {
        Statement::Statement(statement) => {
            let _all: ControlFlow<()> = visit_relations(&**statement, |_| {
                found += 1;
                ControlFlow::Continue(())
            });
        }
        Statement::Explain(explain) => return relations(&explain.statement),
        Statement::CreateExternalTable(_) | Statement::CopyTo(_) | Statement::Reset(_) => {}
    }
    if found > RELATIONS_MAX {
        return Err(QueryError::TooComplex { what: "tables", found, max: RELATIONS_MAX });
    }
    Ok(())
}

/// By a list of what is allowed: what a later parser learns is refused until somebody thought about it. Whether a query
/// hides a write (`SELECT INTO`) is checked again on its plan.
pub(crate) fn only_reads(statement: &Statement) -> bool {
    match statement {
        Statement::Statement(statement) => {
            matches!(
                **statement,
                Sql::Query(_)
                    | Sql::ShowTables { .. }
                    | Sql::ShowColumns { .. }
                    | Sql::ShowFunctions { .. }
                    | Sql::ShowVariable { .. }
                    | Sql::ExplainTable { .. }
            ) || matches!(&**statement, Sql::Explain { statement, .. } if matches!(**statement, Sql::Query(_)))
        }
        Statement::Explain(explain) => only_reads(&explain.statement),
        Statement::CreateExternalTable(_) | Statement::CopyTo(_) | Statement::Reset(_) => false,
    }
}

/// The parser takes a bare `user` for the function of that name, which we do not have: it is our column.
pub(crate) fn name_columns(statement: &mut Statement) {
    match statement {
        Statement::Statement(statement) => {
            let _done: ControlFlow<()> = visit_expressions_mut(statement, |expression| {
                if let Expr::Function(function) = expression
                    && matches!(function.args, FunctionArguments::None)
                    && let [part] = function.name.0.as_slice()
                    && let Some(identifier) = part.as_ident().filter(|name| name.value.eq_ignore_ascii_case("user"))
                {
                    *expression = Expr::Identifier(identifier.clone());
                }
                ControlFlow::Continue(())
            });
        }
        Statement::Explain(explain) => name_columns(&mut explain.statement),
        Statement::CreateExternalTable(_) | Statement::CopyTo(_) | Statement::Reset(_) => {}
    }
}

/// Puts times in the places of `$name`, typed as columns of time are, so that files are passed over by them.
pub(crate) fn with_times(statement: &mut Statement, times: &BTreeMap<&str, Time>) -> Result<(), QueryError> {
    let mut values = BTreeMap::new();
    for (name, time) in times {
        let text = format!("arrow_cast({}, 'Timestamp(Microsecond, Some(\"UTC\"))')", time.micros());
        let parsed = Parser::new(&GenericDialect {}).try_with_sql(&text).and_then(|mut parser| parser.parse_expr());
        values.insert(format!("${name}"), parsed.map_err(|error| QueryError::Sql(error.to_string()))?);
    }
    let Statement::Statement(statement) = statement else { return Ok(()) };
    let _done: ControlFlow<()> = visit_expressions_mut(statement, |expression| {
        if let Expr::Value(value) = expression
            && let Value::Placeholder(name) = &value.value
            && let Some(time) = values.get(name)
        {
            *expression = time.clone();
        }
        ControlFlow::Continue(())
    });
    Ok(())
}

/// The catalogue has no order of its own: our tables, by name.
fn in_order(statement: Statement) -> Statement {
    const TABLES: &str = "SELECT table_name, table_type FROM information_schema.tables WHERE table_schema = 'public' ORDER BY table_name";
    match &statement {
        Statement::Statement(show) if show.to_string() == "SHOW TABLES" => {
            DFParser::parse_sql(TABLES).ok().and_then(|mut ordered| ordered.pop_front()).unwrap_or(statement)
        }
        _ => statement,
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[track_caller]
    fn check(text: &str, expect: Expect) {
        expect.assert_eq(&parse(text).map_or_else(|error| error.to_string(), |statement| statement.to_string()));
    }

    #[test]
    fn only_reading_statements_pass() {
        for text in [
            "SELECT 1",
            "select 1;",
            "WITH a AS (SELECT 1) SELECT * FROM a",
            "VALUES (1)",
            "EXPLAIN SELECT 1",
            "EXPLAIN ANALYZE SELECT 1",
            "SHOW TABLES",
            "SHOW COLUMNS FROM events",
            "DESCRIBE events",
        ] {
            assert!(parse(text).is_ok(), "{text}: {:?}", parse(text));
        }
        for text in [
            "DROP TABLE events",
            "CREATE TABLE a AS SELECT 1",
            "CREATE EXTERNAL TABLE a STORED AS CSV LOCATION '/etc/passwd'",
            "CREATE VIEW a AS SELECT 1",
            "INSERT INTO events SELECT * FROM events",
            "UPDATE events SET raw = ''",
            "DELETE FROM events",
            "COPY (SELECT 1) TO '/tmp/x.csv'",
            "EXPLAIN COPY (SELECT 1) TO '/tmp/x.csv'",
            "SET datafusion.execution.batch_size = 1",
            "RESET datafusion.execution.batch_size",
            "BEGIN",
            "PREPARE p AS SELECT 1",
            "TRUNCATE TABLE events",
        ] {
            assert!(matches!(parse(text), Err(QueryError::NotReadOnly { .. })), "{text}: {:?}", parse(text));
        }
    }

    #[test]
    fn errors_say_what_is_wrong() {
        check("", expect!["one statement is wanted, there are 0"]);
        check("SELECT 1; SELECT 2", expect!["one statement is wanted, there are 2"]);
        check(
            "DROP TABLE a",
            expect!["DROP is not allowed: history is read-only; hint: SELECT, EXPLAIN, SHOW and DESCRIBE are"],
        );
        check("SELEC 1", expect!["Expected: an SQL statement, found: SELEC at Line: 1, Column: 1"]);
        check(&"(".repeat(1_000), expect!["the statement is nested too deep"]);
    }

    #[test]
    fn a_bare_user_is_the_column() {
        check(
            "SELECT user, e.user FROM events e WHERE USER = 'root'",
            expect!["SELECT user, e.user FROM events e WHERE USER = 'root'"],
        );
        assert!(format!("{:?}", parse("SELECT user FROM events").unwrap()).contains("Identifier(Ident"));
    }
}
