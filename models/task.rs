//! What each task takes for granted: its positive class, its groups, what is never a feature, its operating point.

use crate::{
    ModelError,
    table::{Cells, Column, MISSING, Texts, listed},
};

/// Labels that mean "nothing to see", in small letters, for `triage`.
const BENIGN: [&str; 9] = ["benign", "false_positive", "false positive", "fp", "normal", "legitimate", "none", "-", ""];

/// A task with its defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Its name: the folder of its versions.
    pub name: String,
}

/// Which rows are positive, and what each label was.
#[derive(Clone, Debug)]
pub struct Labels {
    /// Per row.
    pub positive: Vec<bool>,
    /// Per row which label, for balancing and for reports.
    pub classes: Texts,
    /// What counts as positive, in words.
    pub rule: String,
}

impl Task {
    /// A task of a name that is good for a folder.
    ///
    /// # Errors
    /// The name is empty, long or has other characters.
    pub fn new(name: &str) -> Result<Task, ModelError> {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
        if name.is_empty() || name.len() > 40 || !name.chars().all(fits) || name.starts_with('-') {
            return Err(ModelError::setting(
                format!("task {name:?}"),
                "a name has at most 40 of a-z, 0-9, _ and -; flows, urls and triage know their defaults",
            ));
        }
        Ok(Task { name: name.to_owned() })
    }

    /// Columns that are never features of this task.
    #[must_use]
    pub fn never_features(&self) -> &'static [&'static str] {
        match self.name.as_str() {
            // How many of 21 other learners got the row right: known only to those who know the label.
            "flows" => &["difficulty", "difficulty_level"],
            // What else the alerts are labelled with.
            "triage" => &["time_label", "event_label", "scenario"],
            _ => &[],
        }
    }

    /// Share of false positives that the operating point may cost; `None` takes the most accurate point.
    #[must_use]
    pub fn budget(&self) -> Option<f64> {
        // URLs are judged one by one, half of them bad; flows and alerts come in masses, nearly all of them good.
        if self.name == "urls" { None } else { Some(0.01) }
    }

    /// The column of URLs whose registered domain groups the rows when no group is named.
    #[must_use]
    pub fn grouping_url<'a>(&self, columns: &'a [Column]) -> Option<&'a Column> {
        let is = |column: &&Column| column.name.eq_ignore_ascii_case("url") && matches!(column.cells, Cells::Texts(_));
        if self.name == "urls" { columns.iter().find(is) } else { None }
    }

    /// Which rows are positive.
    ///
    /// # Errors
    /// A label is missing, or all rows are of one class.
    pub fn labels(&self, column: &Column, positive: Option<&str>) -> Result<Labels, ModelError> {
        let classes = column.cells.classes();
        if let Some(row) = classes.codes.iter().position(|&code| code == MISSING) {
            return Err(ModelError::ColumnKind {
                name: column.name.clone(),
                is: format!("empty in row {}", row + 1),
                role: "the label",
                wanted: "there in every row: label these rows or leave them out",
            });
        }
        let (is, rule): (Vec<bool>, String) = match (positive, self.name.as_str()) {
            (Some(value), _) => (classes.values.iter().map(|v| v == value).collect(), format!("{:?}", value)),
            (None, "urls") => (classes.values.iter().map(|v| v == "phishing").collect(), "\"phishing\"".to_owned()),
            (None, "flows") => (
                classes.values.iter().map(|v| !v.trim_end_matches('.').eq_ignore_ascii_case("normal")).collect(),
                "anything but \"normal\"".to_owned(),
            ),
            (None, "triage") => (
                classes.values.iter().map(|v| !BENIGN.contains(&v.to_ascii_lowercase().as_str())).collect(),
                "anything but a benign label".to_owned(),
            ),
            (None, _) => {
                return Err(ModelError::setting(
                    "--positive",
                    format!(
                        "task {:?} has no default; give one of {}",
                        self.name,
                        listed(classes.values.iter().map(String::as_str), 20)
                    ),
                ));
            }
        };
        let positive: Vec<bool> = classes.codes.iter().map(|&code| is[code as usize]).collect();
        let count = positive.iter().filter(|is| **is).count();
        if count == 0 || count == positive.len() {
            return Err(ModelError::OneClass {
                column: column.name.clone(),
                rows: positive.len(),
                class: if count == 0 { "negative" } else { "positive" },
                values: listed(classes.values.iter().map(String::as_str), 20),
                hint: "name the positive value with --positive, or add rows of the other class",
            });
        }
        Ok(Labels { positive, classes, rule })
    }
}
