//! `hunt` documents: a head as every rule's, and `hunt: {query, window, every, key}`.

use std::sync::Arc;

use crate::{
    hunt::{Hunt, QUERY_BYTES_MAX, WINDOW_S},
    parse::{Text, head::Head, refuse_repeated_keys, timespan},
    problem::{Problems, Refused, did_you_mean, shown},
    rule::{Expr, LogSourcePattern, Rule},
    yaml::Node,
};

const KEYS: [&str; 4] = ["query", "window", "every", "key"];
/// Columns of a key.
const COLUMNS_MAX: usize = 32;

/// Reads one.
pub(super) fn read(document: &Node, node: &Node, text: &Text, problems: &mut Problems) -> Result<Rule, Refused> {
    let Some(entries) = node.map() else {
        return Err(problems.error("hunt", node.at, format!("`hunt` is {}, not a map", node.word()), None));
    };
    refuse_repeated_keys(entries, problems)?;
    for (key, _) in entries {
        let word = key.text().unwrap_or_default();
        if !KEYS.contains(&word) {
            let message = format!("`hunt` has no \"{}\"", shown(word));
            return Err(problems.error("unknown_key", key.at, message, did_you_mean(word, KEYS)));
        }
    }
    let Head { id, name, title, description, level, status, tags, file, line, meta } =
        Head::read(document, text, problems)?;
    let hunt = Hunt {
        name: name.clone(),
        every_s: span(node, "every", problems)?,
        window_s: span(node, "window", problems)?.unwrap_or(WINDOW_S),
        key: key(node, problems)?,
        ..query(node, problems)?
    };
    Ok(Rule {
        id,
        name,
        title,
        description,
        level,
        status,
        tags,
        file,
        line,
        log_source: LogSourcePattern::default(),
        condition: Expr::Any(Vec::new()), // nothing fulfils it
        outline: Arc::default(),
        hunt: Some(Arc::new(hunt)),
        meta,
    })
}

fn query(node: &Node, problems: &mut Problems) -> Result<Hunt, Refused> {
    let found = node.get("query");
    let Some((found, query)) = found.and_then(|node| Some((node, node.text()?.trim()))).filter(|(_, q)| !q.is_empty())
    else {
        let at = found.map_or(node.at, |found| found.at);
        let hint = Some("write one SELECT that gives a column `time`".to_owned());
        return Err(problems.error("hunt", at, "the hunt has no `query`".to_owned(), hint));
    };
    if query.len() > QUERY_BYTES_MAX {
        let message = format!("the query has {} bytes; at most {QUERY_BYTES_MAX} are read", query.len());
        return Err(problems.error("hunt", found.at, message, None));
    }
    Ok(Hunt {
        name: None,
        query: Arc::from(query),
        query_line: found.at.line,
        every_s: None,
        window_s: WINDOW_S,
        key: Vec::new(),
    })
}

fn span(node: &Node, key: &str, problems: &mut Problems) -> Result<Option<u32>, Refused> {
    let Some(found) = node.get(key) else { return Ok(None) };
    let seconds = timespan::read(found, problems)?.seconds().and_then(|seconds| u32::try_from(seconds).ok());
    if seconds.is_none() {
        let hint = Some("months and years have no fixed length; write days".to_owned());
        return Err(problems.error("timespan", found.at, format!("`{key}` is no length of time"), hint));
    }
    Ok(seconds)
}

fn key(node: &Node, problems: &mut Problems) -> Result<Vec<Arc<str>>, Refused> {
    let Some(found) = node.get("key") else { return Ok(Vec::new()) };
    let columns: Option<Vec<Arc<str>>> = found.each().iter().map(|node| node.text().map(Arc::from)).collect();
    match columns.filter(|columns| !columns.is_empty() && columns.len() <= COLUMNS_MAX) {
        Some(columns) => Ok(columns),
        None => {
            let message = "`key` is no list of columns".to_owned();
            let hint = Some(format!("name up to {COLUMNS_MAX} columns of the query, as `[host, user]`"));
            Err(problems.error("hunt", found.at, message, hint))
        }
    }
}
