//! Statements that ask nothing of the tables: transactions, which change nothing here, and settings of the connection.
//!
//! Settings are by list: those that drivers send and that may be ignored, and `as_of`. What is not known is refused, as PostgreSQL does.

use datafusion::sql::sqlparser::ast::{CloseCursor, Expr, Set, Statement, Value, ValueWithSpan};

use crate::AsOf;

use super::{cursor, login::SERVER_VERSION};

/// What to do instead of asking tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// `BEGIN`.
    Begin,
    /// `COMMIT`.
    Commit,
    /// `ROLLBACK`.
    Rollback,
    /// `SET as_of = ..`; nothing: now.
    AsOf(Option<AsOf>),
    /// Something that is acknowledged with this tag and changes nothing.
    Nothing(&'static str),
    /// `SHOW name`.
    Show(String),
    /// `FETCH`: so many rows of a cursor; nothing: all that are left.
    Fetch(String, Option<usize>),
    /// `CLOSE`: a cursor; nothing: all.
    Close(Option<String>),
}

/// Settings that clients ask for or set, with what holds here.
const SETTINGS: &[(&str, &str)] = &[
    ("application_name", ""),
    ("bytea_output", "hex"),
    ("client_encoding", "UTF8"),
    ("client_min_messages", "notice"),
    ("datestyle", "ISO, MDY"),
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_read_only", "on"),
    ("extra_float_digits", "1"),
    ("idle_in_transaction_session_timeout", "0"),
    ("integer_datetimes", "on"),
    ("intervalstyle", "postgres"),
    ("is_superuser", "off"),
    ("jit", "off"),
    ("lc_collate", "C"),
    ("lc_ctype", "C"),
    ("lock_timeout", "0"),
    ("max_identifier_length", "63"),
    ("max_index_keys", "32"),
    ("row_security", "off"),
    ("search_path", "public"),
    ("server_encoding", "UTF8"),
    ("server_version", SERVER_VERSION),
    ("server_version_num", "160006"),
    ("standard_conforming_strings", "on"),
    ("statement_timeout", "0"),
    ("synchronize_seqscans", "on"),
    ("timezone", "UTC"),
    ("transaction_isolation", "read committed"),
    ("transaction_read_only", "on"),
];

/// What holds for a setting.
pub(super) fn setting(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    SETTINGS.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
}

/// The command that a statement is; `None` for queries, an error in words for settings that there are not.
pub(super) fn command(statement: &Statement) -> Result<Option<Command>, String> {
    Ok(Some(match statement {
        Statement::StartTransaction { .. } => Command::Begin,
        Statement::Commit { .. } => Command::Commit,
        Statement::Rollback { .. } => Command::Rollback,
        Statement::Set(set) => return assigned(set).map(Some),
        Statement::Reset(_) => Command::Nothing("RESET"),
        Statement::Discard { .. } => Command::Nothing("DISCARD ALL"),
        Statement::Deallocate { .. } => Command::Nothing("DEALLOCATE"),
        Statement::Close { cursor: CloseCursor::All } => Command::Close(None),
        Statement::Close { cursor: CloseCursor::Specific { name } } => Command::Close(Some(cursor::name(name))),
        Statement::Fetch { name, direction, into: None, .. } => {
            Command::Fetch(cursor::name(name), cursor::rows_wanted(direction)?)
        }
        Statement::ShowVariable { variable } => {
            let words: Vec<String> = variable.iter().map(|word| word.value.to_ascii_lowercase()).collect();
            match words.join(" ").as_str() {
                "time zone" => Command::Show("timezone".to_owned()),
                "transaction isolation level" => Command::Show("transaction_isolation".to_owned()),
                "tables" | "functions" => return Ok(None),
                name => Command::Show(name.to_owned()),
            }
        }
        _ => return Ok(None),
    }))
}

fn assigned(set: &Set) -> Result<Command, String> {
    let nothing = Command::Nothing("SET");
    match set {
        Set::SingleAssignment { variable, values, .. } => {
            let name = variable.to_string().to_ascii_lowercase();
            match name.as_str() {
                "as_of" | "counterflow.as_of" => as_of(values).map(Command::AsOf),
                name if setting(name).is_some() => Ok(nothing),
                name => Err(format!("unrecognized configuration parameter \"{name}\"")),
            }
        }
        // The instant stays the same: times are in UTC, and say so.
        Set::SetTimeZone { .. } | Set::SetNames { .. } | Set::SetNamesDefault { .. } | Set::SetTransaction { .. } => {
            Ok(nothing)
        }
        Set::SetSessionParam(_) | Set::SetSessionAuthorization(_) | Set::SetRole { .. } => Ok(nothing),
        other => Err(format!("this setting is not known: {other}")),
    }
}

fn as_of(values: &[Expr]) -> Result<Option<AsOf>, String> {
    let text = match values {
        [Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text) | Value::Number(text, _), .. })] => {
            text.clone()
        }
        [Expr::Identifier(word)] => word.value.clone(),
        _ => return Err("as_of is an epoch, a time in quotes, or now".to_owned()),
    };
    match text.to_ascii_lowercase().as_str() {
        "now" | "default" | "" => Ok(None),
        text => text.to_ascii_uppercase().parse().map(Some),
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::{dialect::PostgreSqlDialect, parser::Parser};

    use super::*;

    #[track_caller]
    fn check(sql: &str, expect: Result<Option<Command>, &str>) {
        let statements = Parser::parse_sql(&PostgreSqlDialect {}, sql).unwrap();
        let found = command(&statements[0]);
        assert_eq!(found.as_ref().map_err(String::as_str), expect.as_ref().map_err(|text| *text), "{sql}");
    }

    #[test]
    fn drivers_settings_are_known() {
        let set = || Ok(Some(Command::Nothing("SET")));
        check("BEGIN READ ONLY", Ok(Some(Command::Begin)));
        check("START TRANSACTION", Ok(Some(Command::Begin)));
        check("COMMIT", Ok(Some(Command::Commit)));
        check("ROLLBACK", Ok(Some(Command::Rollback)));
        check("SET extra_float_digits = 3", set());
        check("SET application_name = 'PostgreSQL JDBC Driver'", set());
        check("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", set());
        check("SET TIME ZONE 'Europe/Berlin'", set());
        check(
            "SET datafusion.runtime.memory_limit = '100G'",
            Err("unrecognized configuration parameter \"datafusion.runtime.memory_limit\""),
        );
        check("SHOW TRANSACTION ISOLATION LEVEL", Ok(Some(Command::Show("transaction_isolation".to_owned()))));
        check("DEALLOCATE ALL", Ok(Some(Command::Nothing("DEALLOCATE"))));
        check("SELECT 1", Ok(None));
    }

    #[test]
    fn cursors_go_forward() {
        let fetch = |name: &str, rows| Ok(Some(Command::Fetch(name.to_owned(), rows)));
        check("FETCH 100 FROM Parts", fetch("parts", Some(100)));
        check("FETCH FORWARD 7 IN \"Parts\"", fetch("Parts", Some(7)));
        check("FETCH NEXT FROM parts", fetch("parts", Some(1)));
        check("FETCH ALL FROM parts", fetch("parts", None));
        check("FETCH FORWARD ALL FROM parts", fetch("parts", None));
        let refused = "cursors go forward only: FETCH NEXT, FETCH n, FETCH FORWARD n and FETCH ALL are there";
        for direction in ["0", "PRIOR", "FIRST", "BACKWARD 1", "ABSOLUTE 3", "99999999999999999999999"] {
            check(&format!("FETCH {direction} FROM parts"), Err(refused));
        }
        check("CLOSE parts", Ok(Some(Command::Close(Some("parts".to_owned())))));
        check("CLOSE ALL", Ok(Some(Command::Close(None))));
    }

    #[test]
    fn the_past_is_a_setting() {
        check("SET as_of = 120", Ok(Some(Command::AsOf(Some(AsOf::Epoch(120))))));
        check("SET as_of = now", Ok(Some(Command::AsOf(None))));
        let time = "2026-01-05T14:00:00Z".parse().unwrap();
        check("SET as_of TO '2026-01-05T14:00:00Z'", Ok(Some(Command::AsOf(Some(AsOf::Time(time))))));
        check("SET as_of = 'x'", Err("\"X\" is neither an epoch nor a time; write 120 or 2026-01-05T14:00:00Z"));
    }
}
