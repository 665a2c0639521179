//! Models that answer while alerts and events come in: what fits, what it says, and the table that a training learns from.
//!
//! In: features by the names of [`crate::features::alert`], or cells of events. Out: answers as they are recorded. A row's
//! answer does not depend on the rows around it, so they are asked about in batches.

use std::sync::Arc;

use cf_types::triage::{Answer, Reason, Role, Worth};
use sha2::{Digest, Sha256};

use crate::{
    ModelError,
    features::{Input, alert::feature_names, flow},
    model::{Model, Verdict},
    reasons::Names,
    registry::Registry,
    table::{Cells, Column, Interner, Table, hex},
};

/// Reasons of an answer.
const REASONS: usize = 3;

/// A version that answers.
pub struct Serving {
    /// The version's id.
    pub version: Arc<str>,
    model: Model,
    /// Of reasons.
    names: Names,
}

/// What a model of a task is asked with: columns, whether they are texts, and what to do where a model wants others.
struct Asking {
    what: &'static str,
    columns: Vec<(String, bool)>,
    hint: &'static str,
}

impl Asking {
    fn of(task: &str) -> Asking {
        let named = |columns: &[(&str, bool)]| columns.iter().map(|(name, text)| ((*name).to_owned(), *text)).collect();
        match task {
            "urls" => Asking {
                what: "answering about URLs",
                columns: named(&[(URL, true)]),
                hint: "train it on the text alone: --features FILE with `only: [url]`",
            },
            "flows" => Asking {
                what: "answering about flows",
                columns: named(&flow::COLUMNS),
                hint: "train it on what a flow record says: --features FILE with `only:` and some of duration, protocol_type, \
                       service, flag, src_bytes, dst_bytes",
            },
            _ => Asking {
                what: "answering alerts",
                columns: feature_names().into_iter().map(|name| (name, false)).collect(),
                hint: "train it with --data",
            },
        }
    }
}

impl Serving {
    /// Loads a version: whole, as it was stored, its probe predicted bit by bit, and of features that we have.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn load(registry: &Registry, task: &str, version: &str) -> Result<Serving, ModelError> {
        registry.check_probe(task, version)?;
        let model = registry.model(task, version)?;
        let asking = Asking::of(task);
        let refused = |why: String| ModelError::setting(format!("version {version} for {}", asking.what), why);
        let is_known =
            |input: &&Input| asking.columns.iter().any(|(name, text)| *name == input.column && *text == input.text);
        if let Some(input) = model.inputs.iter().find(|input| !is_known(input)) {
            return Err(refused(format!(
                "it needs column {:?}, which is not there when it is asked: it was trained on something else; {}",
                input.column, asking.hint
            )));
        }
        if model.history.is_some() {
            return Err(refused(format!("it looks back on rows of a file: {}", asking.hint)));
        }
        let names = Names::of(&model.ensemble.encoder);
        Ok(Serving { version: Arc::from(version), model, names })
    }

    /// Answers about alerts with these features, in order.
    ///
    /// # Errors
    /// A feature is missing.
    pub fn answer(&self, features: &[&[Option<i64>]], role: Role) -> Result<Vec<Answer>, ModelError> {
        self.answer_rows(&table(features), role)
    }

    /// Answers about the rows of a table, in order.
    ///
    /// # Errors
    /// A column is missing or of the wrong kind.
    pub fn answer_rows(&self, rows: &Table, role: Role) -> Result<Vec<Answer>, ModelError> {
        let matrix = self.model.encode(rows)?;
        let (probabilities, effects) = self.model.explained(&matrix);
        let answers = probabilities.iter().zip(effects.chunks_exact(matrix.columns()));
        Ok(answers.map(|(&probability, effects)| self.said(probability, effects, role)).collect())
    }

    /// What is said of a row.
    fn said(&self, probability: f64, effects: &[f64], role: Role) -> Answer {
        let possible = self.model.conformal.set(probability);
        let reasons = self.names.largest(effects, REASONS).into_iter().map(|(feature, effect)| Reason {
            feature: feature.into(),
            effect_milli: (effect * 1_000.0).clamp(-1e9, 1e9).round() as i64,
        });
        Answer {
            model: Arc::clone(&self.version),
            role,
            probability_ppm: (probability.clamp(0.0, 1.0) * 1e6).round() as u32,
            // Of well separated classes the operating point lies below a millionth: the verdict is not of the rounded.
            verdict: match self.model.verdict(probability) {
                Verdict::True => Worth::True,
                Verdict::False => Worth::False,
                Verdict::Unknown => Worth::Unknown,
            },
            set: [(false, possible.negative), (true, possible.positive)]
                .into_iter()
                .filter_map(|(class, is)| is.then_some(class))
                .collect(),
            reasons: reasons.collect(),
        }
    }
}

/// Features as a table, one column a name.
#[must_use]
pub fn table(features: &[&[Option<i64>]]) -> Table {
    let column = |(at, name): (usize, String)| {
        let cell = |row: &&[Option<i64>]| row.get(at).copied().flatten().map_or(f64::NAN, |number| number as f64);
        Column { name, cells: Cells::Numbers(features.iter().map(cell).collect()) }
    };
    let columns = feature_names().into_iter().enumerate().map(column).collect();
    Table { columns, rows: features.len(), ..Table::default() }
}

/// The column of URLs.
const URL: &str = "url";

/// Version of the columns that events of a task are asked with.
#[must_use]
pub fn event_recipe(task: &str) -> &'static str {
    if task == "urls" { "url-1" } else { "flow-1" }
}

/// Cells of events as a table of the task's columns; what is not there, or of another kind, is missing.
#[must_use]
pub fn event_table(task: &str, rows: &[&cf_types::scored::Cells]) -> Table {
    let column = |(name, text): (String, bool)| {
        let cells = if text {
            let mut texts = Interner::default();
            rows.iter().for_each(|row| texts.push(row.get(name.as_str()).and_then(serde_json::Value::as_str)));
            // Longer ones were left out where they were picked.
            Cells::Texts(texts.finish(&name, &mut Vec::new()))
        } else {
            let number = |row: &&cf_types::scored::Cells| row.get(name.as_str()).and_then(serde_json::Value::as_f64);
            Cells::Numbers(rows.iter().map(|row| number(row).unwrap_or(f64::NAN)).collect())
        };
        Column { name, cells }
    };
    let columns = Asking::of(task).columns.into_iter().map(column).collect();
    Table { columns, rows: rows.len(), ..Table::default() }
}

/// A labelled decision, as a training reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labelled {
    /// The alert.
    pub alert: String,
    /// Event time in seconds.
    pub cell: i64,
    /// What must not be on both sides of a split: the first id of the alert's lineage.
    pub group: String,
    /// What people said that it was.
    pub label: String,
    /// As they were served, by name.
    pub features: Vec<Option<i64>>,
}

/// Column of labels.
pub const LABEL: &str = "verdict";
/// Column of times.
pub const TIME: &str = "time";
/// Column of groups.
pub const GROUP: &str = "group";

/// The table of a training: the features as they were served, time, group and label. Its hash is that of all cells.
#[must_use]
pub fn training_table(rows: &[Labelled]) -> Table {
    let features: Vec<&[Option<i64>]> = rows.iter().map(|row| row.features.as_slice()).collect();
    let mut table = table(&features);
    let mut digest = Sha256::new();
    digest.update(crate::features::alert::RECIPE);
    for row in rows {
        digest.update(format!("{:?}\n", (&row.alert, row.cell, &row.group, &row.label, &row.features)));
    }
    table.sha256 = hex(&digest.finalize());
    let texts = |name: &str, of: fn(&Labelled) -> &str| {
        let mut texts = Interner::default();
        rows.iter().for_each(|row| texts.push(Some(of(row))));
        Column { name: name.to_owned(), cells: Cells::Texts(texts.finish(name, &mut Vec::new())) }
    };
    table.columns.push(texts(LABEL, |row| &row.label));
    table.columns.push(texts(GROUP, |row| &row.group));
    let times = rows.iter().map(|row| row.cell as f64).collect();
    table.columns.push(Column { name: TIME.to_owned(), cells: Cells::Numbers(times) });
    table
}

/// A judged event, as a training of `urls` or `flows` reads it.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelledEvent {
    /// What must not be on both sides of a split: the alert that came of it, whose events have one label between them; of
    /// what came to nothing, the event.
    pub group: String,
    /// What people said that it was.
    pub label: String,
    /// What the model was given.
    pub cells: cf_types::scored::Cells,
}

/// The table of a training on judged events of a task. Its hash is that of all cells.
#[must_use]
pub fn event_training_table(task: &str, rows: &[LabelledEvent]) -> Table {
    let cells: Vec<&cf_types::scored::Cells> = rows.iter().map(|row| &row.cells).collect();
    let mut table = event_table(task, &cells);
    let mut digest = Sha256::new();
    digest.update(event_recipe(task));
    for row in rows {
        digest.update(format!("{:?}\n", (&row.group, &row.label, &row.cells)));
    }
    table.sha256 = hex(&digest.finalize());
    let mut texts = |name: &str, of: fn(&LabelledEvent) -> &str| {
        let mut texts = Interner::default();
        rows.iter().for_each(|row| texts.push(Some(of(row))));
        table.columns.push(Column { name: name.to_owned(), cells: Cells::Texts(texts.finish(name, &mut Vec::new())) });
    };
    texts(LABEL, |row| &row.label);
    texts(GROUP, |row| &row.group);
    table
}

/// The columns that events of a task are asked with.
#[must_use]
pub fn event_columns(task: &str) -> Vec<String> {
    Asking::of(task).columns.into_iter().map(|(name, _)| name).collect()
}
