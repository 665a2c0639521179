//! A rule's `detection`: selections, and the condition that joins them.

use std::sync::Arc;

use crate::{
    outline::{Block, Outline},
    parse::{condition, refuse_repeated_keys, value},
    problem::{Place, Problems, Refused, shown},
    rule::{Expr, Test},
    yaml::{Kind, Node},
};

/// What a `detection` says.
pub(super) struct Read {
    /// What an event must fulfil.
    pub(super) expr: Expr,
    /// Its conditions and selections as they are written.
    pub(super) outline: Outline,
}

/// Reads `detection` (or `filter`, without its `rules`) into one tree.
///
/// `rule` is the id or name by which a correlation could refer to the rule.
pub(super) fn read(entries: &[&(Node, Node)], at: Place, rule: &str, problems: &mut Problems) -> Result<Read, Refused> {
    let mut selections: Vec<(Arc<str>, Block)> = Vec::new();
    let (mut conditions, mut timeframe) = (None, None);
    for (key, value) in entries {
        match key.text() {
            Some("condition") => conditions = Some(value),
            Some("timeframe") => timeframe = Some((key.at, value)),
            Some(name) => selections.push((Arc::<str>::from(name), selection(name, value, problems)?)),
            None => {
                return Err(problems.error("detection", key.at, "the name of a selection is no word".to_owned(), None));
            }
        }
    }
    let Some(conditions) = conditions else {
        return Err(problems.error("no_condition", at, "`detection` has no `condition`".to_owned(), None));
    };
    let exprs: Vec<(Arc<str>, Expr)> = selections
        .iter()
        .map(|(name, block)| (Arc::clone(name), block.expr().unwrap_or(Expr::All(Vec::new()))))
        .collect();
    // A list of conditions is a rule for each of them (specification 2.1, *Condition*): any.
    let (mut any, mut formulas) = (Vec::new(), Vec::new());
    for node in conditions.each() {
        let Some(text) = node.text() else {
            let message = format!("`condition` is {}, not a text", node.word());
            return Err(problems.error("condition", node.at, message, None));
        };
        let written = condition::read(text)
            .map_err(|condition::Wrong { code, message, hint }| problems.error(code, node.at, message, hint))?;
        if let Some(aggregation) = written.aggregation {
            let span = timeframe.and_then(|(_, node): (Place, &Node)| node.text());
            let hint = condition::as_correlation(&aggregation, rule, span)
                .unwrap_or_else(|| "write it as a correlation (`correlation:` with `type: event_count`)".to_owned());
            let message = "aggregations in conditions are of Sigma 1".to_owned();
            return Err(problems.error("aggregation", node.at, message, Some(hint)));
        }
        any.push(condition::resolve(&written.formula, node.at, &exprs, problems)?);
        formulas.push(written.formula);
    }
    if let Some((at, _)) = timeframe {
        // Of Sigma 1, superseded by correlations; without an aggregation it has no effect.
        problems.warn("timeframe", at, "`timeframe` has no effect".to_owned(), None);
    }
    let expr = match any.len() {
        0 => return Err(problems.error("no_condition", conditions.at, "`condition` is empty".to_owned(), None)),
        1 => any.remove(0),
        _ => Expr::Any(any),
    };
    Ok(Read { expr, outline: Outline { formulas, selections, filters: Vec::new() } })
}

fn selection(name: &str, node: &Node, problems: &mut Problems) -> Result<Block, Refused> {
    match &node.kind {
        Kind::Map(entries) => fields(entries, problems),
        Kind::List(elements) if !elements.is_empty() => {
            let any: Result<Vec<Block>, Refused> =
                elements.iter().map(|element| element_of(name, element, problems)).collect();
            any.map(Block::Any)
        }
        Kind::Scalar(_) => keyword(node, problems),
        Kind::Null | Kind::List(_) => {
            Err(problems.error("empty_selection", node.at, format!("the selection \"{}\" is empty", shown(name)), None))
        }
    }
}

fn element_of(name: &str, element: &Node, problems: &mut Problems) -> Result<Block, Refused> {
    match &element.kind {
        Kind::Map(entries) => fields(entries, problems),
        Kind::Scalar(_) => keyword(element, problems),
        Kind::Null | Kind::List(_) => {
            let message = format!("the selection \"{}\" has an element that is {}", shown(name), element.word());
            Err(problems.error("selection_element", element.at, message, None))
        }
    }
}

fn keyword(node: &Node, problems: &mut Problems) -> Result<Block, Refused> {
    let key = value::Key::keyword(node.at);
    value::read(&key, "", std::slice::from_ref(node), problems).map(Block::Item)
}

/// All fields of a map must fit.
pub(crate) fn fields(entries: &[(Node, Node)], problems: &mut Problems) -> Result<Block, Refused> {
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
        all.push(Block::Item(value::read(&key, name.text().unwrap_or_default(), values, problems)?));
    }
    Ok(if all.len() == 1 { all.remove(0) } else { Block::All(all) })
}

/// A test as a condition.
pub(super) fn test(field: Option<&Arc<str>>, matcher: crate::rule::Matcher) -> Expr {
    Expr::Test(Test { field: field.map(Arc::clone), matcher })
}
