//! One settings file into one struct: origins, interpolation, suggestions, secrets, template.
//!
//! ```text
//! defaults  <  file (${ENV}, ${file:PATH})  <  flags
//! ```
//!
//! The struct's doc comments (by its JSON Schema) are the manual: the template and the list of keys are made from them.
//! An unknown key is an error with its line and the nearest known key; nothing is ever ignored in silence. What this
//! crate must never know: what any setting means.

mod interpolate;
mod merge;
mod node;
mod show;
mod template;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

pub use crate::{interpolate::Lookup, show::Setting};

/// The largest settings file read, in bytes.
pub const FILE_BYTES_MAX: usize = 1 << 20;

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The struct's default.
    Default,
    /// The settings file.
    File {
        /// Line of the key, from 1.
        line: u32,
    },
    /// The settings file, by `${NAME}` or `${file:PATH}`.
    Environment {
        /// Line of the key, from 1.
        line: u32,
    },
    /// A flag of the command line.
    Flag,
}

/// A key of somebody else's settings file that is accepted: what to say about it.
#[derive(Clone, Copy, Debug)]
pub struct Foreign {
    /// Dotted path of the key; with `.*` at the end all keys below it.
    pub path: &'static str,
    /// Why it has no effect here.
    pub says: &'static str,
}

/// What is wrong with a settings file.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// It is no YAML.
    #[error("settings {file} are not valid YAML: {reason}")]
    Yaml {
        /// The file.
        file: String,
        /// What the reader says, with line and column.
        reason: String,
    },
    /// One or more keys or values are wrong.
    #[error("settings {file} are not valid:\n  {}", .problems.join("\n  "))]
    Invalid {
        /// The file.
        file: String,
        /// Each with its line.
        problems: Vec<String>,
    },
}

/// Settings and how they came about.
#[derive(Debug)]
pub struct Loaded<T> {
    /// The settings.
    pub settings: T,
    /// What a person should know: foreign keys without effect.
    pub warnings: Vec<String>,
    values: Value,
    origins: BTreeMap<String, Origin>,
}

/// Loads settings: defaults, then the file's text (if any), then flags (dotted path and value).
///
/// # Errors
///
/// [`SettingsError`] lists everything that is wrong at once, each with line and hint.
///
/// ```
/// # use serde::{Deserialize, Serialize};
/// #[derive(Debug, Default, Deserialize, Serialize, schemars::JsonSchema)]
/// #[serde(default, deny_unknown_fields)]
/// struct Settings {
///     /// Threads.
///     workers: u16,
/// }
/// let nothing = |_: &cf_settings::Lookup| None;
/// let file = Some(("c.yaml", "workers: 4"));
/// let loaded = cf_settings::load::<Settings>(file, &[], &[], &nothing).unwrap();
/// assert_eq!(loaded.settings.workers, 4);
///
/// let wrong = cf_settings::load::<Settings>(Some(("c.yaml", "worker: 4")), &[], &[], &nothing);
/// assert!(wrong.unwrap_err().to_string().contains("line 1: unknown key \"worker\"; did you mean \"workers\"?"));
/// ```
pub fn load<T>(
    file: Option<(&str, &str)>,
    flags: &[(&str, Value)],
    foreign: &[Foreign],
    look_up: &dyn Fn(&Lookup) -> Option<String>,
) -> Result<Loaded<T>, SettingsError>
where
    T: DeserializeOwned + Serialize + JsonSchema + Default,
{
    let name = file.map_or("(none)", |(name, _)| name);
    let invalid = |problems| SettingsError::Invalid { file: name.to_owned(), problems };
    let schema = schemars::schema_for!(T).to_value();
    let mut values = serde_json::to_value(T::default()).map_err(|error| invalid(vec![error.to_string()]))?;
    let mut merge = merge::Merge::new(&schema, foreign);
    if let Some((_, text)) = file {
        let mut tree = node::parse(text).map_err(|reason| SettingsError::Yaml { file: name.to_owned(), reason })?;
        let mut problems = Vec::new();
        interpolate::all(&mut tree, look_up, &mut problems);
        if !problems.is_empty() {
            return Err(invalid(problems));
        }
        merge.file(&tree, &mut values);
    }
    for (path, value) in flags {
        merge.flag(path, value, &mut values);
    }
    if !merge.problems.is_empty() {
        return Err(invalid(merge.problems));
    }
    let settings = serde_path_to_error::deserialize(&values).map_err(|error: serde_path_to_error::Error<_>| {
        let path = error.path().to_string();
        let place = match merge.origin_at_or_above(&path) {
            Some(Origin::File { line } | Origin::Environment { line }) => format!("line {line}: "),
            Some(Origin::Flag) => "flag: ".to_owned(),
            Some(Origin::Default) | None => String::new(),
        };
        invalid(vec![format!("{place}{path}: {}", error.into_inner())])
    })?;
    Ok(Loaded { settings, warnings: merge.warnings, values, origins: merge.origins })
}

impl<T> Loaded<T> {
    /// Every value with its origin, as `path = value  # origin`; secrets as `***`.
    #[must_use]
    pub fn show(&self) -> Vec<Setting> {
        show::all(&self.values, &self.origins)
    }
}

/// A commented template of the settings file: every key with its manual and its default.
#[must_use]
pub fn template<T: JsonSchema + Serialize + Default>() -> String {
    let schema = schemars::schema_for!(T).to_value();
    let defaults = serde_json::to_value(T::default()).unwrap_or_default();
    template::of(&schema, &defaults)
}

#[cfg(test)]
mod tests;
