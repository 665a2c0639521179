//! A rule's `detection`: selections, and the condition that joins them.

use std::sync::Arc;

use crate::{
    parse::{condition, refuse_repeated_keys, value},
    problem::{Problems, Refused, shown},
    rule::{Expr, Test},
    yaml::{Kind, Node},
};

/// Reads `detection` into one tree.
pub(super) fn read(detection: &Node, problems: &mut Problems) -> Result<Expr, Refused> {
    let Some(entries) = detection.map() else {
        return Err(problems.error(
            "detection",
            detection.at,
            format!("`detection` is {}, not a map", detection.word()),
            None,
        ));
    };
    refuse_repeated_keys(entries, problems)?;
    let mut selections = Vec::new();
    let mut conditions: Option<&Node> = None;
    for (key, value) in entries {
        match key.text() {
            Some("condition") => conditions = Some(value),
            // Of Sigma 1, superseded by correlations; without an aggregation it has no effect.
            Some("timeframe") => problems.warn("timeframe", key.at, "`timeframe` has no effect".to_owned(), None),
            Some(name) => selections.push((Arc::<str>::from(name), selection(name, value, problems)?)),
            None => {
                return Err(problems.error("detection", key.at, "the name of a selection is no word".to_owned(), None));
            }
        }
    }
    let Some(conditions) = conditions else {
        return Err(problems.error("no_condition", detection.at, "`detection` has no `condition`".to_owned(), None));
    };
    // A list of conditions is a rule for each of them (specification 2.1, *Condition*): any.
    let mut any = Vec::new();
    for node in conditions.each() {
        let Some(text) = node.text() else {
            return Err(problems.error(
                "condition",
                node.at,
                format!("`condition` is {}, not a text", node.word()),
                None,
            ));
        };
        any.push(condition::read(text, node.at, &selections, problems)?);
    }
    match any.len() {
        0 => Err(problems.error("no_condition", conditions.at, "`condition` is empty".to_owned(), None)),
        1 => Ok(any.remove(0)),
        _ => Ok(Expr::Any(any)),
    }
}

fn selection(name: &str, node: &Node, problems: &mut Problems) -> Result<Expr, Refused> {
    match &node.kind {
        Kind::Map(entries) => fields(entries, problems),
        Kind::List(elements) if !elements.is_empty() => {
            let any: Result<Vec<Expr>, Refused> =
                elements.iter().map(|element| element_of(name, element, problems)).collect();
            any.map(Expr::Any)
        }
        Kind::Scalar(_) => keyword(node, problems),
        Kind::Null | Kind::List(_) => {
            Err(problems.error("empty_selection", node.at, format!("the selection \"{}\" is empty", shown(name)), None))
        }
    }
}

fn element_of(name: &str, element: &Node, problems: &mut Problems) -> Result<Expr, Refused> {
    match &element.kind {
        Kind::Map(entries) => fields(entries, problems),
        Kind::Scalar(_) => keyword(element, problems),
        Kind::Null | Kind::List(_) => {
            let message = format!("the selection \"{}\" has an element that is {}", shown(name), element.word());
            Err(problems.error("selection_element", element.at, message, None))
        }
    }
}

fn keyword(node: &Node, problems: &mut Problems) -> Result<Expr, Refused> {
    let key = value::Key::keyword(node.at);
    value::read(&key, std::slice::from_ref(node), problems)
}

/// All fields of a map must fit.
fn fields(entries: &[(Node, Node)], problems: &mut Problems) -> Result<Expr, Refused> {
    refuse_repeated_keys(entries, problems)?;
    let mut all = Vec::new();
    for (name, node) in entries {
        let key = value::Key::read(name, problems)?;
        let values = match &node.kind {
            Kind::List(elements) => elements.as_slice(),
            Kind::Map(_) => {
                let message = format!("the value of \"{}\" is a map", shown(name.text().unwrap_or_default()));
                return Err(problems.error("value", node.at, message, None));
            }
            Kind::Null | Kind::Scalar(_) => std::slice::from_ref(node),
        };
        if values.is_empty() {
            let message = format!("\"{}\" has no values", shown(name.text().unwrap_or_default()));
            return Err(problems.error("value", node.at, message, None));
        }
        all.push(value::read(&key, values, problems)?);
    }
    Ok(if all.len() == 1 { all.remove(0) } else { Expr::All(all) })
}

/// A test as a condition.
pub(super) fn test(field: Option<&Arc<str>>, matcher: crate::rule::Matcher) -> Expr {
    Expr::Test(Test { field: field.map(Arc::clone), matcher })
}
