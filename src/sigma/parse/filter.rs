//! `filter` documents (Sigma filters specification 2.1): conditions added to rules that are written elsewhere.
//!
//! The specification says that filters suppress matches, and its example has the condition `selection`. Other tools put
//! *and* between rule and filter, so for them one writes `not selection`. Both can be told apart: a condition that only
//! holds by what is absent is one that must hold as well, any other says what to suppress.

use std::sync::Arc;

use crate::{
    parse::{Text, detection, head, place_of, refuse_repeated_keys},
    problem::{Problems, Refused},
    rule::{Filter, Formula, Reference},
    yaml::{Kind, Node},
};

/// References of one filter.
const REFERENCES_MAX: usize = 10_000;

/// Reads one.
pub(super) fn read(document: &Node, node: &Node, text: &Text, problems: &mut Problems) -> Result<Filter, Refused> {
    let title = head::title(document, problems)?;
    let meta = Arc::new(head::meta(document, problems)?);
    let log_source = head::log_source(document, problems)?;
    let Some(entries) = node.map() else {
        return Err(problems.error("filter", node.at, format!("`filter` is {}, not a map", node.word()), None));
    };
    refuse_repeated_keys(entries, problems)?;
    let rules = rules(node, problems)?;
    let selections: Vec<&(Node, Node)> = entries.iter().filter(|(key, _)| key.text() != Some("rules")).collect();
    let detection::Read { expr, outline } = detection::read(&selections, node.at, "", problems)?;
    let suppresses = !outline.formulas.iter().all(Formula::is_negative);
    if suppresses {
        let at = place_of(node.get("condition"), node.at);
        let message = "the filter's condition is read as what to suppress".to_owned();
        let hint = Some("write `not selection`, which every tool reads alike".to_owned());
        problems.warn("filter_condition", at, message, hint);
    }
    Ok(Filter {
        id: document.get("id").and_then(Node::text).map(Arc::from),
        title,
        file: Arc::clone(&text.file),
        line: document.at.line,
        log_source,
        rules,
        condition: expr,
        outline: Arc::new(outline),
        suppresses,
        meta,
    })
}

/// Its references; `None` for all rules.
fn rules(node: &Node, problems: &mut Problems) -> Result<Option<Vec<Reference>>, Refused> {
    let at = place_of(node.get("rules"), node.at);
    let list = match node.get("rules").map(|rules| (&rules.kind, rules.each())) {
        Some((Kind::Scalar(word), _)) if word.eq_ignore_ascii_case("any") => return Ok(None),
        Some((_, list)) if !list.is_empty() && list.len() <= REFERENCES_MAX => list,
        Some((_, list)) if !list.is_empty() => {
            let message = format!("the filter refers to more than {REFERENCES_MAX} rules");
            return Err(problems.error("reference", at, message, None));
        }
        _ => {
            let hint = Some("list ids or names, or write `rules: any`".to_owned());
            return Err(problems.error("no_references", at, "the filter refers to no `rules`".to_owned(), hint));
        }
    };
    let mut references = Vec::with_capacity(list.len());
    for reference in list {
        let Some(to) = reference.text() else {
            let message = format!("a reference in `rules` is {}, not an id or name", reference.word());
            return Err(problems.error("reference", reference.at, message, None));
        };
        references.push(Reference { to: Arc::from(to), line: reference.at.line, column: reference.at.column });
    }
    Ok(Some(references))
}
