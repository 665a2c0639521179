//! What clients ask of the catalogue that neither its parser nor its tables understand, said in other words.

use std::{borrow::Cow, fmt::Write as _, ops::ControlFlow, sync::LazyLock};

use datafusion::sql::sqlparser::{
    ast::{self, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, visit_expressions_mut},
    dialect::PostgreSqlDialect,
    parser::{Parser, ParserError},
    tokenizer::{Token, Tokenizer},
};

use crate::session::SCHEMA;

/// The schemas of a search path, as Grafana looks for them. The catalogue's parser would put an empty name in its place, and a
/// table without a schema would have no columns.
const SEARCH_PATH: &str = r#"SELECT CASE WHEN trim(s[i]) = '"$user"' THEN user ELSE trim(s[i]) END
    FROM generate_series(
        array_lower(string_to_array(current_setting('search_path'),','),1),
        array_upper(string_to_array(current_setting('search_path'),','),1)
    ) as i, string_to_array(current_setting('search_path'),',') s"#;

static SEARCH_PATH_TOKENS: LazyLock<Vec<Token>> = LazyLock::new(|| tokens(SEARCH_PATH).unwrap_or_default());

/// Arrays of numbers that the catalogue's tables hold as text: `[1, 2]` or `1 2`.
const TEXT_ARRAYS: [&str; 4] = ["conkey", "confkey", "indkey", "indoption"];

/// The text with our schema in the places where the search path is taken apart.
pub(super) fn with_search_path(text: &str) -> Result<Cow<'_, str>, ParserError> {
    if !text.contains("search_path") || SEARCH_PATH_TOKENS.is_empty() {
        return Ok(Cow::Borrowed(text));
    }
    let tokens = tokens(text)?;
    let mut out = String::with_capacity(text.len());
    let mut rest = tokens.as_slice();
    while let [first, behind @ ..] = rest {
        // Writing to a string cannot fail.
        let (written, behind) = match rest.strip_prefix(SEARCH_PATH_TOKENS.as_slice()) {
            Some(behind) => (write!(out, "'{SCHEMA}' "), behind),
            None => (write!(out, "{first} "), behind),
        };
        debug_assert!(written.is_ok());
        rest = behind;
    }
    Ok(Cow::Owned(out))
}

fn tokens(text: &str) -> Result<Vec<Token>, ParserError> {
    let mut tokens = Tokenizer::new(&PostgreSqlDialect {}, text).tokenize()?;
    tokens.retain(|token| !matches!(token, Token::Whitespace(_)));
    Ok(tokens)
}

/// Lets `number = ANY(conkey)`, which the parser has made a function, look into arrays that are text.
pub(super) fn look_into_text_arrays(statement: &mut ast::Statement) {
    let _all: ControlFlow<()> = visit_expressions_mut(statement, |expression| {
        if let Some(other) = in_text_array(expression) {
            *expression = other;
        }
        ControlFlow::Continue(())
    });
}

fn in_text_array(expression: &Expr) -> Option<Expr> {
    let Expr::Function(function) = expression else { return None };
    let FunctionArguments::List(list) = &function.args else { return None };
    let [FunctionArg::Unnamed(FunctionArgExpr::Expr(array)), FunctionArg::Unnamed(FunctionArgExpr::Expr(number))] =
        list.args.as_slice()
    else {
        return None;
    };
    let column = match array {
        Expr::Identifier(column) => column,
        Expr::CompoundIdentifier(parts) => parts.last()?,
        _ => return None,
    };
    let meant = function.name.to_string() == "array_contains" && TEXT_ARRAYS.contains(&column.value.as_str());
    let text =
        format!("array_contains(string_to_array(translate({array}, ' []{{}}', ','), ','), CAST({number} AS VARCHAR))");
    let parsed = || Parser::new(&PostgreSqlDialect {}).try_with_sql(&text).and_then(|mut parser| parser.parse_expr());
    meant.then(parsed)?.ok()
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[track_caller]
    fn check(text: &str, expect: Expect) {
        expect.assert_eq(&with_search_path(text).unwrap());
    }

    #[test]
    fn the_search_path_is_our_schema() {
        check("SELECT current_setting('search_path')", expect!["SELECT current_setting ( 'search_path' ) "]);
        check(&format!("SELECT 1 IN (\n{SEARCH_PATH}) AS x"), expect!["SELECT 1 IN ( 'public' ) AS x "]);
        check("SELECT  'x y'", expect!["SELECT  'x y'"]);
    }

    #[test]
    fn text_is_looked_into_as_an_array() {
        let said = |sql: &str| {
            let mut statements = Parser::parse_sql(&PostgreSqlDialect {}, sql).unwrap();
            look_into_text_arrays(&mut statements[0]);
            statements[0].to_string()
        };
        assert_eq!(
            said("SELECT array_contains(\"c\".\"conkey\", a.attnum)"),
            "SELECT array_contains(string_to_array(translate(\"c\".\"conkey\", ' []{}', ','), ','), CAST(a.attnum AS VARCHAR))"
        );
        assert_eq!(said("SELECT array_contains(entities, 'a')"), "SELECT array_contains(entities, 'a')");
    }
}
