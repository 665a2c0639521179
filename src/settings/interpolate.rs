//! `${NAME}` and `${file:PATH}` in values; `$${` is a literal `${`.

use serde_json::Value;

use crate::node::{Kind, Node};

/// What a settings file asks its surroundings for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// An environment variable.
    Environment(String),
    /// The content of a file, its last line end cut off.
    File(String),
}

/// Replaces in all strings of the tree; what cannot be found is a problem with its line.
pub(crate) fn all(node: &mut Node, look_up: &dyn Fn(&Lookup) -> Option<String>, problems: &mut Vec<String>) {
    match &mut node.kind {
        Kind::Scalar(Value::String(text)) => match one(text, look_up) {
            Ok(None) => {}
            Ok(Some(replaced)) => {
                node.kind = Kind::Scalar(Value::String(replaced));
                node.interpolated = true;
            }
            Err(problem) => problems.push(format!("line {}: {problem}", node.line)),
        },
        Kind::Scalar(_) => {}
        Kind::Sequence(nodes) => nodes.iter_mut().for_each(|node| all(node, look_up, problems)),
        Kind::Map(pairs) => pairs.iter_mut().for_each(|(_, node)| all(node, look_up, problems)),
    }
}

fn one(text: &str, look_up: &dyn Fn(&Lookup) -> Option<String>) -> Result<Option<String>, String> {
    let mut out = String::new();
    let mut rest = text;
    let mut replaced = false;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(literal) = before.strip_suffix('$') {
            out.push_str(literal);
            out.push_str("${");
            rest = after;
            replaced = true;
            continue;
        }
        let (name, tail) = after.split_once('}').ok_or_else(|| format!("\"${{{after}\" has no closing brace"))?;
        let asked = match name.strip_prefix("file:") {
            Some(path) => Lookup::File(path.to_owned()),
            None => Lookup::Environment(name.to_owned()),
        };
        let found = look_up(&asked).ok_or_else(|| match &asked {
            Lookup::Environment(name) => format!("environment variable {name:?} is not set; set it or write the value"),
            Lookup::File(path) => format!("could not read file {path:?}"),
        })?;
        out.push_str(before);
        out.push_str(&found);
        rest = tail;
        replaced = true;
    }
    out.push_str(rest);
    Ok(replaced.then_some(out))
}
