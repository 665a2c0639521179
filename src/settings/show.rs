//! Every value with its origin, secrets hidden.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{Origin, merge::join};

/// One setting, to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Dotted path.
    pub path: String,
    /// Its value as JSON; `***` for a secret.
    pub value: String,
    /// Where it comes from.
    pub origin: Origin,
}

pub(crate) fn all(values: &Value, origins: &BTreeMap<String, Origin>) -> Vec<Setting> {
    let mut out = Vec::new();
    walk(values, origins, "", Origin::Default, &mut out);
    out
}

fn walk(value: &Value, origins: &BTreeMap<String, Origin>, path: &str, above: Origin, out: &mut Vec<Setting>) {
    // What a section's line says holds for its scalars only if they were given themselves; a list is given as a whole.
    let origin = origins.get(path).copied().unwrap_or(above);
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            let inherited = if matches!(origin, Origin::Flag) { origin } else { Origin::Default };
            fields.iter().for_each(|(key, inner)| walk(inner, origins, &join(path, key), inherited, out));
        }
        Value::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => {
            items
                .iter()
                .enumerate()
                .for_each(|(i, item)| walk(item, origins, &join(path, &i.to_string()), origin, out));
        }
        _ => out.push(Setting { path: path.to_owned(), value: shown(path, value, origin), origin }),
    }
}

fn shown(path: &str, value: &Value, origin: Origin) -> String {
    let last = path.rsplit('.').find(|part| part.parse::<usize>().is_err()).unwrap_or(path).to_ascii_lowercase();
    let named = ["password", "secret", "token", "api_key", "webhook_url", "private_key", "url"]
        .iter()
        .any(|word| last == *word || last.ends_with(&format!("_{word}")));
    // Whatever was kept out of the file on purpose is kept off the screen, too; a webhook's URL is its password.
    let hidden = (named || (matches!(origin, Origin::Environment { .. }) && value.is_string()))
        && !value.is_null()
        && value != "";
    if hidden { "***".to_owned() } else { value.to_string() }
}
