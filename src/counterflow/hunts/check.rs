//! What can be said of a hunt's query before it is asked: whether it only reads, names tables that there are, and gives the
//! columns that make its rows detections.

use std::{collections::BTreeMap, sync::Arc, thread};

use cf_queries::{Live, LiveRows, LiveTable, Options, Session};
use cf_sigma::{Problem, RuleInfo, RuleSet, Severity};
use cf_types::Time;

use super::Subject;
use crate::sql::now;

/// Stack of the thread that plans: plans are trees.
const STACK_BYTES: usize = 16 << 20;

/// The code of all of these problems.
const CODE: &str = "hunt_query";

/// What is wrong with the queries of the hunts among these rules.
pub(crate) fn problems(rules: &RuleSet) -> Vec<Problem> {
    let hunts: Vec<&RuleInfo> = rules.rules().iter().filter(|info| info.hunt.is_some()).collect();
    if hunts.is_empty() {
        return Vec::new();
    }
    let planned = thread::scope(|scope| {
        let plan = || {
            Session::open(std::path::PathBuf::new(), Options { threads: 1, ..Options::default() })
                .map(|session| session.with_live(Arc::new(Names)))
                .map(|session| hunts.iter().filter_map(|info| problem(&session, info)).collect::<Vec<_>>())
        };
        let thread = thread::Builder::new().name("hunts".to_owned()).stack_size(STACK_BYTES).spawn_scoped(scope, plan);
        thread.map_err(|error| error.to_string()).and_then(|thread| match thread.join() {
            Ok(problems) => problems.map_err(|error| error.to_string()),
            Err(_) => Err("planning ended in a panic".to_owned()),
        })
    });
    planned.unwrap_or_else(|error| {
        let say =
            |info: &&RuleInfo| told(info, Severity::Error, format!("the query could not be looked at: {error}"), None);
        hunts.iter().map(say).collect()
    })
}

/// The same for one hunt over the tables of a data folder, with all columns that they have.
pub(crate) async fn over(session: &Session, subject: &Subject) -> Option<Problem> {
    let (epoch, info) = (Time::from_micros(0), &subject.info);
    // Nothing is read of an empty span, and everything is planned.
    let times = BTreeMap::from([("from", epoch), ("to", epoch)]);
    match session.query_with_times(&subject.hunt.query, &times).await {
        Ok(rows) => {
            let columns: Vec<String> = rows.schema().fields().iter().map(|field| field.name().clone()).collect();
            lacking(info, &columns)
        }
        Err(error) => Some(told(info, Severity::Error, format!("the query cannot be asked: {error}"), None)),
    }
}

fn problem(session: &Session, info: &RuleInfo) -> Option<Problem> {
    let query = &info.hunt.as_ref()?.query;
    let epoch = Time::from_micros(0);
    match session.columns(query, &BTreeMap::from([("from", epoch), ("to", epoch)])) {
        Ok(columns) => lacking(info, &columns),
        Err(error) => {
            let error = error.to_string();
            // A column may be one that fields of loaded rules bring to history.
            let (severity, hint) = if error.contains("No field named") {
                let hint =
                    "columns of fields that rules name are in history only; `hunts check --data DIR` looks there";
                (Severity::Warning, Some(hint.to_owned()))
            } else {
                (Severity::Error, None)
            };
            Some(told(info, severity, format!("the query cannot be asked: {error}"), hint))
        }
    }
}

/// What a row needs and would not have.
fn lacking(info: &RuleInfo, columns: &[String]) -> Option<Problem> {
    let hunt = info.hunt.as_ref()?;
    let has = |column: &str| columns.iter().any(|known| known == column);
    if !has("time") {
        let hint = "select the event's `time`, or `max(time) AS time` of a group";
        return Some(told(info, Severity::Error, "the query gives no column `time`".to_owned(), Some(hint.to_owned())));
    }
    if let Some(missing) = hunt.key.iter().find(|column| !has(column)) {
        let message = format!("the query gives no column `{missing}`, which `key` names");
        return Some(told(info, Severity::Error, message, Some(format!("its columns: {}", columns.join(", ")))));
    }
    if hunt.key.is_empty() && !has("id") {
        let message = "nothing says what makes a row the same row".to_owned();
        let hint = "name columns as `key`, or select the `id` of `events_distinct`";
        return Some(told(info, Severity::Error, message, Some(hint.to_owned())));
    }
    None
}

fn told(info: &RuleInfo, severity: Severity, message: String, hint: Option<String>) -> Problem {
    Problem {
        code: CODE,
        severity,
        file: Arc::clone(&info.file),
        line: info.hunt.as_ref().map_or(info.line, |hunt| hunt.query_line),
        column: 1,
        rule: Some(Arc::clone(&info.title)),
        message,
        hint,
    }
}

/// The live tables without anything in them.
struct Names;

impl Live for Names {
    fn tables(&self) -> &'static [LiveTable] {
        now::TABLES
    }

    fn rows(&self, table: &'static str) -> LiveRows<'_> {
        Box::pin(async move { Err(format!("{table} is only looked at here")) })
    }
}
