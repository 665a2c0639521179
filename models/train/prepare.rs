//! From a request to rows that can be learned from: which columns are features, and what was refused or left out.

use std::collections::{HashMap, HashSet};

use super::Request;
use crate::{
    ModelError,
    ensemble::Rows,
    features::{Input, Spec, url::registered_domain},
    leak,
    random::mix,
    split,
    table::{Cells, Table, Texts, listed},
    task::Labels,
};

/// Rows that a training needs at least.
const ROWS_MIN: usize = 50;

/// An input that can be learned from.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The input, label and all.
    pub table: Table,
    /// Of each row.
    pub labels: Labels,
    /// Columns that may be features.
    pub inputs: Vec<Input>,
    /// Rows that must stay together.
    pub groups: Vec<u64>,
    /// Equal rows have equal hashes.
    pub hashes: Vec<u64>,
    /// Of each row, if a time column was named.
    pub times: Option<Vec<f64>>,
    /// What was noticed and how it was treated.
    pub notes: Vec<String>,
}

impl Prepared {
    /// Guards and splits a table.
    ///
    /// # Errors
    /// A column is missing, of the wrong kind or a leak; there is only one class; nothing is left to learn from.
    pub fn new(request: &Request, mut table: Table) -> Result<Prepared, ModelError> {
        let label = table.need(&request.label, "the label")?;
        let labels = request.task.labels(label, request.positive.as_deref())?;
        if table.rows < ROWS_MIN {
            return Err(ModelError::TooFew { what: "rows".to_owned(), found: table.rows, least: ROWS_MIN });
        }
        let mut notes = table.notes.clone();
        let times = request.time.as_deref().map(|name| times(&table, name)).transpose()?;
        if let Some(history) = &request.recipe.spec.history {
            table.columns.extend(history.columns(&table)?);
        }
        let mut inputs = Vec::new();
        let mut constant = Vec::new();
        for column in wanted(request, &table)? {
            if leak::is_constant(column) {
                constant.push(column.name.as_str());
                continue;
            }
            inputs.push(Input { column: column.name.clone(), text: matches!(column.cells, Cells::Texts(_)) });
        }
        if !constant.is_empty() {
            notes.push(format!("left out, being the same in all rows: {}", listed(constant.iter().copied(), 30)));
        }
        if inputs.is_empty() {
            return Err(ModelError::NoFeature {
                why: format!(
                    "of {} columns, {} are constant, the others label, group, time or left out",
                    table.columns.len(),
                    constant.len()
                ),
            });
        }
        let names: Vec<&str> = inputs.iter().map(|input| input.column.as_str()).collect();
        let hashes = split::row_hashes(&table, &names);
        let groups = groups(request, &table, &hashes)?;
        for column in names.iter().filter_map(|name| table.column(name)) {
            let auc = leak::auc_alone(column, &labels.positive, &groups);
            if auc > leak::AUC_MAX && !request.allow_leak.contains(&column.name) {
                return Err(ModelError::Leak { column: column.name.clone(), auc });
            }
        }
        let twins = table.rows - hashes.iter().collect::<HashSet<_>>().len();
        if twins > 0 {
            notes.push(format!(
                "{twins} rows repeat an earlier one; rows that judge have no twin among those learned from"
            ));
        }
        Ok(Prepared { table, labels, inputs, groups, hashes, times, notes })
    }

    /// The rows for fitting.
    #[must_use]
    pub fn rows(&self) -> Rows<'_> {
        Rows {
            table: &self.table,
            inputs: &self.inputs,
            positive: &self.labels.positive,
            classes: &self.labels.classes,
            groups: &self.groups,
            hashes: &self.hashes,
        }
    }

    /// Some of the rows, as if there were no others; what went before them stays what it was.
    #[must_use]
    pub fn take(&self, rows: &[usize]) -> Prepared {
        let classes = &self.labels.classes;
        let labels = Labels {
            positive: rows.iter().map(|&row| self.labels.positive[row]).collect(),
            classes: Texts {
                codes: rows.iter().map(|&row| classes.codes[row]).collect(),
                values: classes.values.clone(),
            },
            rule: self.labels.rule.clone(),
        };
        Prepared {
            table: self.table.take(rows),
            labels,
            inputs: self.inputs.clone(),
            groups: rows.iter().map(|&row| self.groups[row]).collect(),
            hashes: rows.iter().map(|&row| self.hashes[row]).collect(),
            times: self.times.as_ref().map(|times| rows.iter().map(|&row| times[row]).collect()),
            notes: Vec::new(),
        }
    }

    /// At most so many rows of each label, signature and group: of a flood, more say no more.
    #[must_use]
    pub fn capped(&self, rows: &[usize], by: &str, most: usize, seed: u64) -> Vec<usize> {
        let Some(column) = self.table.column(by) else { return rows.to_vec() };
        let signatures = column.cells.classes();
        let mut scrambled: Vec<(u64, usize)> = rows.iter().map(|&row| (mix(row as u64 ^ mix(seed)), row)).collect();
        scrambled.sort_unstable();
        let mut counts: HashMap<(u32, u32, u64), usize> = HashMap::new();
        let mut kept = Vec::new();
        for (_, row) in scrambled {
            let count =
                counts.entry((self.labels.classes.codes[row], signatures.codes[row], self.groups[row])).or_default();
            *count += 1;
            if *count <= most {
                kept.push(row);
            }
        }
        kept.sort_unstable();
        kept
    }

    /// All other rows, without those that are equal to one of the given.
    #[must_use]
    pub fn without_twins(&self, inside: &[usize]) -> Vec<usize> {
        let hashes: HashSet<u64> = inside.iter().map(|&row| self.hashes[row]).collect();
        let rows: HashSet<usize> = inside.iter().copied().collect();
        (0..self.table.rows).filter(|row| !rows.contains(row) && !hashes.contains(&self.hashes[*row])).collect()
    }
}

/// Columns that the request and the task let be features.
fn wanted<'a>(request: &Request, table: &'a Table) -> Result<Vec<&'a crate::table::Column>, ModelError> {
    let spec: &Spec = &request.recipe.spec;
    for name in spec.only.iter().chain(&spec.leave_out).chain(&spec.category).chain(&spec.frequency).chain(&spec.url) {
        table.need(name, "named in --features")?;
    }
    for name in &request.allow_leak {
        table.need(name, "named in --allow-leak")?;
    }
    let apart = [Some(&request.label), request.group.as_ref(), request.time.as_ref()];
    let fits = |name: &String| {
        let never = request.task.never_features().iter().any(|never| name.eq_ignore_ascii_case(never));
        // Who and where it was says nothing of the next place; what they did does.
        let placed = spec.history.as_ref().is_some_and(|history| history.places.contains(name));
        let named = spec.only.is_empty() || spec.only.contains(name);
        named && !placed && !never && !spec.leave_out.contains(name) && !apart.contains(&Some(name))
    };
    Ok(table.columns.iter().filter(|column| fits(&column.name)).collect())
}

fn times(table: &Table, name: &str) -> Result<Vec<f64>, ModelError> {
    match &table.need(name, "the time")?.cells {
        Cells::Numbers(numbers) => Ok(numbers.clone()),
        Cells::Texts(texts) => {
            let parse = |value: &String| value.parse::<cf_types::Time>().ok().map(|time| time.micros() as f64 / 1e6);
            let by_code: Vec<Option<f64>> = texts.values.iter().map(parse).collect();
            if let Some(odd) = by_code.iter().position(Option::is_none) {
                return Err(ModelError::ColumnKind {
                    name: name.to_owned(),
                    is: format!("text such as {:?}", texts.values[odd]),
                    role: "the time",
                    wanted: "a number, a timestamp or RFC 3339 text",
                });
            }
            Ok(texts
                .codes
                .iter()
                .map(|&code| by_code.get(code as usize).copied().flatten().unwrap_or(f64::NAN))
                .collect())
        }
    }
}

fn groups(request: &Request, table: &Table, hashes: &[u64]) -> Result<Vec<u64>, ModelError> {
    if let Some(name) = &request.group {
        return Ok(split::group_hashes(&table.need(name, "the group")?.cells, str::to_owned));
    }
    Ok(match request.task.grouping_url(&table.columns) {
        Some(column) => split::group_hashes(&column.cells, registered_domain),
        // Equal rows are a group: they never judge each other.
        None => hashes.to_vec(),
    })
}
