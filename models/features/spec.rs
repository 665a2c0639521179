//! Which features there are, as declared in a file (YAML or JSON) or by the defaults of a task.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};

use super::causal::Causal;
use crate::{
    ModelError,
    table::{Cells, Table},
    task::Task,
};

/// Bytes of a file of features at most.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Declared features at most.
const DECLARED_MAX: usize = 1_000;

/// What becomes of columns. A column that is not named goes by its type: numbers as they are, texts as categories (the
/// hundred most common values), texts with many values also by how common they are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Spec {
    /// If there are any: no other columns are features.
    pub only: Vec<String>,
    /// Columns that are no features.
    pub leave_out: Vec<String>,
    /// Columns of numbers that are names, such as ports.
    pub category: Vec<String>,
    /// Columns of which also counts how common the value was in training.
    pub frequency: Vec<String>,
    /// Columns with URLs or domains: their text is taken apart.
    pub url: Vec<String>,
    /// Powers of numbers.
    pub polynomial: Polynomial,
    /// Products of two columns of numbers.
    pub product: Vec<[String; 2]>,
    /// The first column divided by one more than the second.
    pub ratio: Vec<[String; 2]>,
    /// Two columns as one category.
    pub cross: Vec<[String; 2]>,
    /// What went before each row; `triage` with a time column looks back by itself.
    pub history: Option<Causal>,
}

/// Powers of columns.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Polynomial {
    /// Of which columns.
    pub columns: Vec<String>,
    /// Up to which power: 2 or 3.
    pub degree: u8,
}

impl Spec {
    /// Reads a declaration.
    ///
    /// # Errors
    /// The file cannot be read or is not a declaration.
    pub fn read(path: &Path) -> Result<Spec, ModelError> {
        let what = || format!("declaration of features {}", path.display());
        let size = fs::metadata(path).map_err(ModelError::io("read", path))?.len();
        if size > FILE_BYTES_MAX {
            return Err(ModelError::setting(what(), format!("it has more than {FILE_BYTES_MAX} bytes")));
        }
        let text = fs::read_to_string(path).map_err(ModelError::io("read", path))?;
        let spec: Spec =
            serde_saphyr::from_str(&text).map_err(|error| ModelError::setting(what(), error.to_string()))?;
        let declared = spec.product.len() + spec.ratio.len() + spec.cross.len() + 2 * spec.polynomial.columns.len();
        if declared > DECLARED_MAX || spec.polynomial.degree > 3 {
            return Err(ModelError::setting(what(), format!("at most {DECLARED_MAX} features and degree 3")));
        }
        Ok(spec)
    }

    /// Adds what the task knows of this table, with its columns of times and groups.
    #[must_use]
    pub fn for_task(mut self, task: &Task, table: &Table, time: Option<&str>, group: Option<&str>) -> Spec {
        if task.name == "triage" && self.history.is_none() {
            self.history = time.and_then(|time| Causal::of(table, time, group));
        }
        for column in &table.columns {
            let Cells::Texts(texts) = &column.cells else { continue };
            let urls = texts.values.iter().filter(|value| value.contains("://")).count();
            let named = task.name == "urls" && ["url", "domain"].contains(&column.name.to_ascii_lowercase().as_str());
            if (named || urls * 2 > texts.values.len()) && !self.url.contains(&column.name) {
                self.url.push(column.name.clone());
            }
        }
        self
    }
}
