//! Selections and the condition over them: what is never asked, always true, or there twice.

use std::collections::HashMap;

use super::{fields::Known, values};
use crate::{
    parse::condition::{self, is_meant},
    problem::{Place, Problems, shown},
    rule::{Formula, LogSourcePattern, Quantity},
    yaml::{Kind, Node},
};

/// Names of one condition for which all combinations are tried.
const NAMES_MAX: usize = 12;

/// Looks at `detection`, or at `filter`.
pub(super) fn check(document: &Node, found: &Node, fields: &Known, problems: &mut Problems) {
    let entries = found.map().unwrap_or_default();
    let part = |key: &str| {
        let text = document.get("logsource")?.get(key)?.text()?.trim().to_lowercase();
        Some(text.into())
    };
    let source = LogSourcePattern { product: part("product"), category: part("category"), service: part("service") };
    let mut selections: Vec<(&str, &Node)> = Vec::new();
    for (key, value) in entries {
        match key.text() {
            Some("condition" | "timeframe") | None => {}
            Some("rules") if document.get("filter").is_some() => {}
            Some(name) => {
                selections.push((name, key));
                selection(value, &source, fields, problems);
            }
        }
    }
    repeated_selections(entries, problems);
    conditions(found, &selections, entries, problems);
}

fn selection(node: &Node, source: &LogSourcePattern, fields: &Known, problems: &mut Problems) {
    match &node.kind {
        Kind::Map(entries) => {
            for (key, value) in entries {
                values::check(key, value, source, problems);
                let field = key.text().unwrap_or_default().split('|').next().unwrap_or_default();
                if !field.is_empty() {
                    fields.check(source, field, key, problems);
                }
            }
        }
        Kind::List(elements) => {
            for element in elements {
                match element.kind {
                    Kind::Scalar(_) => values::keyword(element, problems),
                    Kind::Map(_) => selection(element, source, fields, problems),
                    Kind::Null | Kind::List(_) => {}
                }
            }
        }
        Kind::Scalar(_) => values::keyword(node, problems),
        Kind::Null => {}
    }
}

fn repeated_selections(entries: &[(Node, Node)], problems: &mut Problems) {
    let mut seen: HashMap<String, &str> = HashMap::new();
    for (key, value) in entries {
        let Some(name) = key.text().filter(|name| !["condition", "timeframe", "rules"].contains(name)) else {
            continue;
        };
        let mut content = String::new();
        write(value, &mut content);
        if let Some(other) = seen.get(&content) {
            let message = format!("the selections \"{}\" and \"{}\" say the same", shown(other), shown(name));
            problems.warn(
                "repeated_selection",
                key.at,
                message,
                Some("one is enough: the condition may name it twice".to_owned()),
            );
        } else {
            seen.insert(content, name);
        }
    }
}

/// A node without its places.
fn write(node: &Node, out: &mut String) {
    match &node.kind {
        Kind::Null => out.push('~'),
        Kind::Scalar(text) => {
            out.push_str(&text.len().to_string());
            out.push(':');
            out.push_str(text);
        }
        Kind::List(elements) => {
            out.push('[');
            elements.iter().for_each(|element| write(element, out));
            out.push(']');
        }
        Kind::Map(entries) => {
            out.push('{');
            for (key, value) in entries {
                write(key, out);
                write(value, out);
            }
            out.push('}');
        }
    }
}

fn conditions(found: &Node, selections: &[(&str, &Node)], entries: &[(Node, Node)], problems: &mut Problems) {
    let mut used = vec![false; selections.len()];
    let list = found.get("condition").map(Node::each).unwrap_or_default();
    let mut read_all = true;
    for node in list {
        let Some(Ok(written)) = node.text().map(condition::read) else {
            read_all = false;
            continue;
        };
        let formula = written.formula;
        let names: Vec<&str> = selections.iter().map(|(name, _)| *name).collect();
        mark(&formula, &names, &mut used);
        style(&formula, node.at, entries, problems);
        constant(&formula, &names, node.at, problems);
        if formula.is_negative() && found.get("rules").is_none() {
            let message = "the condition holds by what is absent alone: nearly every event fulfils it".to_owned();
            problems.warn("only_negative", node.at, message, Some("add a selection that must be met".to_owned()));
        }
    }
    if !read_all || list.is_empty() {
        return;
    }
    for ((name, key), _) in selections.iter().zip(&used).filter(|(_, used)| !**used) {
        let message = format!("the condition does not use the selection \"{}\"", shown(name));
        problems.warn("unused_selection", key.at, message, Some("use it or take it out".to_owned()));
    }
}

fn mark(formula: &Formula, names: &[&str], used: &mut [bool]) {
    match formula {
        Formula::Any(list) | Formula::All(list) => list.iter().for_each(|formula| mark(formula, names, used)),
        Formula::Not(inner) => mark(inner, names, used),
        Formula::Name(name) => {
            names
                .iter()
                .zip(used.iter_mut())
                .filter(|(known, _)| **known == &**name)
                .for_each(|(_, used)| *used = true);
        }
        Formula::Of(_, which) => {
            names
                .iter()
                .zip(used.iter_mut())
                .filter(|(known, _)| is_meant(which, known))
                .for_each(|(_, used)| *used = true);
        }
    }
}

fn style(formula: &Formula, at: Place, entries: &[(Node, Node)], problems: &mut Problems) {
    match formula {
        Formula::Any(list) | Formula::All(list) => {
            list.iter().for_each(|formula| style(formula, at, entries, problems));
        }
        Formula::Not(inner) => style(inner, at, entries, problems),
        Formula::Of(Quantity::All, which) if which.eq_ignore_ascii_case("them") => {
            let message = "`all of them` leaves no room for filters that are added later".to_owned();
            problems.warn("all_of_them", at, message, Some("write `all of selection*`".to_owned()));
        }
        Formula::Of(quantity, which) if !which.contains('*') && !which.eq_ignore_ascii_case("them") => {
            let list = entries.iter().find(|(key, _)| key.text() == Some(which)).map(|(_, value)| value.each().len());
            if *quantity == Quantity::All && list.is_some_and(|count| count > 1) {
                let message =
                    format!("`all of {}` asks for the selection, of which one element is enough", shown(which));
                let hint = Some("in Sigma 1 it asked for all elements: write the modifier `all` for that".to_owned());
                problems.warn("all_of_list", at, message, hint);
            }
        }
        Formula::Of(..) | Formula::Name(_) => {}
    }
}

/// Tries all combinations of what selections may be: `a and not a` is never met, `a or not a` always.
fn constant(formula: &Formula, names: &[&str], at: Place, problems: &mut Problems) {
    if names.is_empty() || names.len() > NAMES_MAX || weight(formula) > 200 {
        return;
    }
    let (mut met, mut not_met) = (false, false);
    for combination in 0..1_u32 << names.len() {
        if holds(formula, names, combination) {
            met = true
        } else {
            not_met = true
        }
        if met && not_met {
            return;
        }
    }
    let (code, what) = if met { ("always_true", "always") } else { ("always_false", "never") };
    problems.warn(code, at, format!("the condition is {what} met, whatever the selections are"), None);
}

fn weight(formula: &Formula) -> usize {
    match formula {
        Formula::Any(list) | Formula::All(list) => list.iter().map(weight).sum(),
        Formula::Not(inner) => weight(inner),
        Formula::Name(_) | Formula::Of(..) => 1,
    }
}

fn holds(formula: &Formula, names: &[&str], combination: u32) -> bool {
    let is_set = |place: usize| combination >> place & 1 == 1;
    match formula {
        Formula::Any(list) => list.iter().any(|formula| holds(formula, names, combination)),
        Formula::All(list) => list.iter().all(|formula| holds(formula, names, combination)),
        Formula::Not(inner) => !holds(inner, names, combination),
        // A name that is not there is refused elsewhere.
        Formula::Name(name) => names.iter().position(|known| *known == &**name).is_some_and(is_set),
        Formula::Of(quantity, which) => {
            let meant: Vec<bool> = names
                .iter()
                .enumerate()
                .filter(|(_, name)| is_meant(which, name))
                .map(|(place, _)| is_set(place))
                .collect();
            let set = meant.iter().filter(|set| **set).count();
            match quantity {
                Quantity::All => set == meant.len(),
                Quantity::AtLeast(number) => set >= *number,
            }
        }
    }
}
