//! The file's tree over the defaults, key by key against the schema.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    Foreign, Origin,
    node::{Kind, Node},
};

/// A merge in progress.
pub(crate) struct Merge<'a> {
    schema: &'a Value,
    foreign: &'a [Foreign],
    pub(crate) problems: Vec<String>,
    pub(crate) warnings: Vec<String>,
    pub(crate) origins: BTreeMap<String, Origin>,
}

impl<'a> Merge<'a> {
    pub(crate) fn new(schema: &'a Value, foreign: &'a [Foreign]) -> Merge<'a> {
        Merge { schema, foreign, problems: Vec::new(), warnings: Vec::new(), origins: BTreeMap::new() }
    }

    /// Lays the file's tree over the values.
    pub(crate) fn file(&mut self, tree: &Node, values: &mut Value) {
        self.lay(tree, self.schema, values, "");
    }

    /// Lays a flag over the values. The path is ours, so it is right.
    pub(crate) fn flag(&mut self, path: &str, value: &Value, values: &mut Value) {
        let mut place = values;
        for key in path.split('.') {
            if !place.is_object() {
                *place = Value::Object(serde_json::Map::new());
            }
            place = &mut place[key];
        }
        *place = value.clone();
        self.origins.insert(path.to_owned(), Origin::Flag);
    }

    /// The origin of a path, or of the nearest one that holds it.
    pub(crate) fn origin_at_or_above(&self, path: &str) -> Option<Origin> {
        let mut path = path.replace('[', ".").replace(']', "");
        loop {
            if let Some(origin) = self.origins.get(&path) {
                return Some(*origin);
            }
            path.truncate(path.rfind('.')?);
        }
    }

    fn lay(&mut self, node: &Node, schema: &'a Value, values: &mut Value, path: &str) {
        let schema = self.resolve(schema);
        let origin =
            if node.interpolated { Origin::Environment { line: node.line } } else { Origin::File { line: node.line } };
        match &node.kind {
            Kind::Map(pairs) if schema.get("properties").is_some() => {
                if !values.is_object() {
                    *values = Value::Object(serde_json::Map::new());
                }
                for (key, child) in pairs {
                    let child_path = join(path, key);
                    match schema.get("properties").and_then(|properties| properties.get(key)) {
                        Some(property) => self.lay(child, property, &mut values[key.as_str()], &child_path),
                        None => self.unknown(key, child, schema, &child_path),
                    }
                }
                if !path.is_empty() {
                    self.origins.insert(path.to_owned(), origin);
                }
            }
            Kind::Map(pairs) if schema.get("additionalProperties").is_some_and(Value::is_object) => {
                if !values.is_object() {
                    *values = Value::Object(serde_json::Map::new());
                }
                for (key, child) in pairs {
                    let inner = schema.get("additionalProperties").unwrap_or(&Value::Null);
                    self.lay(child, inner, &mut values[key.as_str()], &join(path, key));
                }
            }
            Kind::Sequence(nodes) => {
                let items = schema.get("items").unwrap_or(&Value::Null);
                let mut laid = Vec::with_capacity(nodes.len());
                for (index, child) in nodes.iter().enumerate() {
                    let mut value = Value::Null;
                    self.lay(child, items, &mut value, &join(path, &index.to_string()));
                    laid.push(value);
                }
                *values = Value::Array(laid);
                self.origins.insert(path.to_owned(), origin);
            }
            // A section that is there but empty (`ingest:`) keeps its defaults.
            Kind::Scalar(Value::Null) if schema.get("properties").is_some() => {}
            Kind::Scalar(_) | Kind::Map(_) => {
                *values = node.to_value();
                if let (Value::String(text), false) = (&*values, accepts_string(schema)) {
                    // `${PORT}` is text; where a number is wanted, it is one.
                    if let (true, Ok(parsed)) = (node.interpolated, serde_json::from_str::<Value>(text)) {
                        *values = parsed;
                    }
                }
                self.origins.insert(path.to_owned(), origin);
            }
        }
    }

    fn unknown(&mut self, key: &str, child: &Node, schema: &Value, path: &str) {
        let fits = |foreign: &&Foreign| {
            foreign.path == path || foreign.path.strip_suffix(".*").is_some_and(|above| path.starts_with(above))
        };
        // One warning for each key: a section is named by its keys.
        if let Kind::Map(pairs) = &child.kind {
            let below = join(path, "");
            let covers = |foreign: &Foreign| {
                let above = foreign.path.strip_suffix(".*");
                foreign.path.starts_with(&below) || above.is_some_and(|above| below.starts_with(&join(above, "")))
            };
            if self.foreign.iter().any(covers) {
                for (inner, node) in pairs {
                    self.unknown(inner, node, &Value::Null, &join(path, inner));
                }
                return;
            }
        }
        if let Some(foreign) = self.foreign.iter().find(fits) {
            self.warnings.push(format!("line {}: {path} has no effect: {}", child.line, foreign.says));
            return;
        }
        let known = schema.get("properties").and_then(Value::as_object);
        let nearest = known.into_iter().flatten().map(|(name, _)| (strsim::damerau_levenshtein(name, key), name)).min();
        let hint = match nearest {
            Some((distance, name)) if distance <= name.len().max(key.len()) / 2 => format!("; did you mean {name:?}?"),
            _ => match known {
                Some(known) if !known.is_empty() => {
                    format!("; known here: {}", known.keys().map(String::as_str).collect::<Vec<_>>().join(", "))
                }
                _ => String::new(),
            },
        };
        let inside = path.rsplit_once('.').map_or(String::new(), |(above, _)| format!(" in {above}"));
        self.problems.push(format!("line {}: unknown key {key:?}{inside}{hint}", child.line));
    }

    /// Follows `$ref` and takes the one alternative of an `Option` that is not null.
    fn resolve(&self, mut schema: &'a Value) -> &'a Value {
        for _ in 0..16 {
            if let Some(name) = schema.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix("#/$defs/")) {
                match self.schema.get("$defs").and_then(|defs| defs.get(name)) {
                    Some(found) => schema = found,
                    None => return schema,
                }
            } else if let Some(one) = schema.get("anyOf").and_then(Value::as_array).and_then(|alternatives| {
                let mut real = alternatives.iter().filter(|a| a.get("type").and_then(Value::as_str) != Some("null"));
                real.next().filter(|_| real.next().is_none())
            }) {
                schema = one;
            } else {
                break;
            }
        }
        schema
    }
}

fn accepts_string(schema: &Value) -> bool {
    match schema.get("type") {
        Some(Value::String(one)) => one == "string",
        Some(Value::Array(several)) => several.iter().any(|one| one == "string"),
        _ => true,
    }
}

pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
