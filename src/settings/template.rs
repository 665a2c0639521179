//! A commented settings file out of the schema and the defaults.

use serde_json::Value;

/// The template's text. Defaults stand commented out, so that a later default is not pinned by an old template.
pub(crate) fn of(schema: &Value, defaults: &Value) -> String {
    let mut out = String::from("# Settings of Counterflow. Every key is optional; what stands here is the default.\n");
    section(schema, schema, defaults, 0, &mut out);
    out
}

fn section(root: &Value, schema: &Value, defaults: &Value, depth: usize, out: &mut String) {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
    let indent = "  ".repeat(depth);
    for (key, property) in properties {
        let target = resolve(root, property);
        out.push('\n');
        let manual = property.get("description").or_else(|| target.get("description")).and_then(Value::as_str);
        for line in manual.unwrap_or_default().lines() {
            out.push_str(format!("{indent}# {line}").trim_end());
            out.push('\n');
        }
        let default = defaults.get(key).unwrap_or(&Value::Null);
        if target.get("properties").is_some() && default.is_object() {
            out.push_str(&format!("{indent}{key}:\n"));
            section(root, target, default, depth + 1, out);
        } else {
            out.push_str(&format!("{indent}# {key}: {default}\n"));
            if let Some(items) = target.get("items").map(|items| resolve(root, items)) {
                element(items, &indent, out);
            }
        }
    }
}

/// The keys of a list's elements, each with its manual, as a comment.
fn element(items: &Value, indent: &str, out: &mut String) {
    let Some(properties) = items.get("properties").and_then(Value::as_object) else { return };
    out.push_str(&format!("{indent}#   each element:\n"));
    for (key, property) in properties {
        let manual = property.get("description").and_then(Value::as_str).unwrap_or_default();
        out.push_str(&format!("{indent}#     {key}: {}\n", manual.lines().collect::<Vec<_>>().join(" ").trim_end()));
    }
}

fn resolve<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    schema
        .get("$ref")
        .and_then(Value::as_str)
        .and_then(|reference| reference.strip_prefix("#/$defs/"))
        .and_then(|name| root.get("$defs")?.get(name))
        .unwrap_or(schema)
}
