//! From table to matrix: what is declared, fitted on training rows alone, and applied to any rows.
//!
//! In: a table and a [`Spec`]. Out: an [`Encoder`] and a matrix. What is fitted (known categories, frequencies, the
//! model of texts) comes from the rows given to [`Encoder::fit`] and from nowhere else. Memory: 4 bytes per row and
//! column.

pub mod alert;
pub mod causal;
pub mod flow;
pub mod spec;
pub mod url;

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

pub use spec::Spec;

use crate::{
    ModelError,
    matrix::{ColumnKind, Matrix},
    members::{logit, text::Grams},
    split,
    table::{Cells, Column, MISSING, Table, Texts},
};

/// Values of a category that get a code of their own; the rest is "any other".
const VALUES_MAX: usize = 100;
/// Columns of a matrix at most.
const WIDTH_MAX: usize = 4_096;
/// Folds in which texts are scored by models that have not seen them.
const TEXT_FOLDS: usize = 5;

/// One declared feature, with what was fitted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Encoding {
    Number {
        column: String,
    },
    Category {
        column: String,
        values: Vec<String>,
    },
    /// Logarithm of how often the value was there in training.
    Frequency {
        column: String,
        counts: Vec<(String, u32)>,
    },
    Power {
        column: String,
        degree: u8,
    },
    Product {
        left: String,
        right: String,
    },
    Ratio {
        left: String,
        right: String,
    },
    Cross {
        left: String,
        right: String,
        values: Vec<String>,
    },
    /// What can be read from a URL's text, and what a model of its character n-grams says.
    Url {
        column: String,
        grams: Grams,
    },
}

/// Fitted features.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Encoder {
    encodings: Vec<Encoding>,
}

/// What a model needs of an input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// Name of the column.
    pub column: String,
    /// Whether its cells are texts; else numbers.
    pub text: bool,
}

/// Rows to fit on.
pub struct Known<'a> {
    /// Which rows are positive.
    pub positive: &'a [bool],
    /// Which rows must not be apart.
    pub groups: &'a [u64],
    /// Of everything random.
    pub seed: u64,
}

impl Encoder {
    /// Fits on training rows; the matrix is theirs, with texts scored by models that have not seen them.
    ///
    /// # Errors
    /// A declared column is not there or of the wrong kind, or nothing is left to learn from.
    pub fn fit(
        table: &Table,
        inputs: &[Input],
        spec: &Spec,
        known: &Known<'_>,
    ) -> Result<(Encoder, Matrix), ModelError> {
        let mut encodings = Vec::new();
        for input in inputs {
            let column = table.need(&input.column, "a feature")?;
            by_type(column, spec, known, &mut encodings);
        }
        declared(table, spec, &mut encodings)?;
        let encoder = Encoder { encodings };
        let mut matrix = encoder.encode(table)?;
        if matrix.columns() == 0 || matrix.columns() > WIDTH_MAX {
            return Err(ModelError::NoFeature { why: format!("{} columns after encoding", matrix.columns()) });
        }
        encoder.score_unseen(table, known, &mut matrix);
        Ok((encoder, matrix))
    }

    /// Encodes any rows.
    ///
    /// # Errors
    /// A column is not there or of the wrong kind.
    pub fn encode(&self, table: &Table) -> Result<Matrix, ModelError> {
        let kinds: Vec<ColumnKind> = self.encodings.iter().flat_map(Encoding::kinds).collect();
        let mut matrix = Matrix { values: vec![0.0; table.rows * kinds.len()], kinds, rows: table.rows };
        let mut at = 0;
        for encoding in &self.encodings {
            encoding.encode(table, &mut matrix, at)?;
            at += encoding.kinds().len();
        }
        Ok(matrix)
    }

    /// A name for each column of the matrix.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.encodings.iter().flat_map(Encoding::names).collect()
    }

    /// Cells of the named columns that no training row had, per column.
    #[must_use]
    pub fn unseen(&self, table: &Table) -> BTreeMap<String, usize> {
        let mut unseen = BTreeMap::new();
        for encoding in &self.encodings {
            let Encoding::Category { column, values } = encoding else { continue };
            let Some(cells) = table.column(column) else { continue };
            let classes = cells.cells.classes();
            let new: Vec<bool> =
                classes.values.iter().map(|v| values.len() < VALUES_MAX && values.binary_search(v).is_err()).collect();
            let count = classes.codes.iter().filter(|&&code| code != MISSING && new[code as usize]).count();
            if count > 0 {
                unseen.insert(column.clone(), count);
            }
        }
        unseen
    }

    /// Whether a stored encoder is sound.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<usize, String> {
        let width: usize = self.encodings.iter().map(|encoding| encoding.kinds().len()).sum();
        if width == 0 || width > WIDTH_MAX {
            return Err(format!("features of {width} columns"));
        }
        for encoding in &self.encodings {
            match encoding {
                Encoding::Category { values, .. } | Encoding::Cross { values, .. }
                    if values.len() > VALUES_MAX || !values.is_sorted() =>
                {
                    return Err("a category with values that are too many or out of order".to_owned());
                }
                Encoding::Frequency { counts, .. } if !counts.is_sorted() => {
                    return Err("frequencies that are out of order".to_owned());
                }
                Encoding::Url { grams, .. } => grams.check()?,
                _ => {}
            }
        }
        Ok(width)
    }

    /// Replaces the scores of texts by those of models that were trained without the row's group.
    fn score_unseen(&self, table: &Table, known: &Known<'_>, matrix: &mut Matrix) {
        let mut at = 0;
        let width = matrix.columns();
        for encoding in &self.encodings {
            let wide = encoding.kinds().len();
            if let Encoding::Url { column, .. } = encoding
                && let Some(Cells::Texts(texts)) = table.column(column).map(|c| &c.cells)
            {
                for fold in 0..TEXT_FOLDS {
                    let inside = |row: usize| split::fold_of(known.groups[row], TEXT_FOLDS, known.seed) == fold;
                    let rows: Vec<usize> = (0..table.rows).filter(|&row| !inside(row)).collect();
                    let grams = Grams::train(texts, known.positive, &rows, known.seed);
                    for row in (0..table.rows).filter(|&row| inside(row)) {
                        matrix.values[row * width + at + wide - 1] = grams_feature(&grams, texts.get(row));
                    }
                }
            }
            at += wide;
        }
    }
}

/// The features that a column's type stands for.
fn by_type(column: &Column, spec: &Spec, known: &Known<'_>, into: &mut Vec<Encoding>) {
    let name = column.name.clone();
    let forced = spec.category.contains(&name);
    match &column.cells {
        Cells::Numbers(_) if !forced => into.push(Encoding::Number { column: name }),
        Cells::Texts(texts) if spec.url.contains(&name) => {
            let rows: Vec<usize> = (0..texts.codes.len()).collect();
            into.push(Encoding::Url { column: name, grams: Grams::train(texts, known.positive, &rows, known.seed) });
        }
        cells => {
            let classes = cells.classes();
            let many = classes.values.len() > VALUES_MAX;
            if many || spec.frequency.contains(&name) {
                into.push(Encoding::Frequency { column: name.clone(), counts: counts(&classes) });
            }
            // A column where nearly every row has a value of its own says nothing by its values.
            if classes.values.len() * 2 <= classes.codes.len() {
                into.push(Encoding::Category { column: name, values: common(&classes) });
            }
        }
    }
}

/// The features that the spec names.
fn declared(table: &Table, spec: &Spec, into: &mut Vec<Encoding>) -> Result<(), ModelError> {
    let number = |name: &String| match table.need(name, "a declared feature")? {
        Column { cells: Cells::Numbers(_), .. } => Ok(name.clone()),
        other => Err(ModelError::ColumnKind {
            name: name.clone(),
            is: other.cells.kind().to_owned(),
            role: "a part of a polynomial, product or ratio",
            wanted: "numbers",
        }),
    };
    for name in &spec.polynomial.columns {
        for degree in 2..=spec.polynomial.degree {
            into.push(Encoding::Power { column: number(name)?, degree });
        }
    }
    for [left, right] in &spec.product {
        into.push(Encoding::Product { left: number(left)?, right: number(right)? });
    }
    for [left, right] in &spec.ratio {
        into.push(Encoding::Ratio { left: number(left)?, right: number(right)? });
    }
    for [left, right] in &spec.cross {
        let crossed = crossed(table.need(left, "a declared feature")?, table.need(right, "a declared feature")?);
        into.push(Encoding::Cross { left: left.clone(), right: right.clone(), values: common(&crossed) });
    }
    Ok(())
}

impl Encoding {
    fn kinds(&self) -> Vec<ColumnKind> {
        match self {
            Encoding::Category { values, .. } | Encoding::Cross { values, .. } => {
                vec![ColumnKind::Category { values: values.len() as u16 }]
            }
            Encoding::Url { .. } => vec![ColumnKind::Ordered; url::NAMES.len() + 1],
            _ => vec![ColumnKind::Ordered],
        }
    }

    fn names(&self) -> Vec<String> {
        match self {
            Encoding::Number { column } | Encoding::Category { column, .. } => vec![column.clone()],
            Encoding::Frequency { column, .. } => vec![format!("frequency of {column}")],
            Encoding::Power { column, degree } => vec![format!("{column}^{degree}")],
            Encoding::Product { left, right } => vec![format!("{left} * {right}")],
            Encoding::Ratio { left, right } => vec![format!("{left} / {right}")],
            Encoding::Cross { left, right, .. } => vec![format!("{left} with {right}")],
            Encoding::Url { column, .. } => {
                url::NAMES.iter().chain(&["text"]).map(|name| format!("{column}: {name}")).collect()
            }
        }
    }

    fn encode(&self, table: &Table, matrix: &mut Matrix, at: usize) -> Result<(), ModelError> {
        let width = matrix.columns();
        let mut put = |row: usize, offset: usize, value: f32| matrix.values[row * width + at + offset] = value;
        match self {
            Encoding::Number { column } => {
                for (row, &cell) in numbers(table, column)?.iter().enumerate() {
                    put(row, 0, cell as f32);
                }
            }
            Encoding::Power { column, degree } => {
                for (row, &cell) in numbers(table, column)?.iter().enumerate() {
                    put(row, 0, bounded(cell.powi(i32::from(*degree))));
                }
            }
            Encoding::Product { left, right } => {
                for (row, (a, b)) in numbers(table, left)?.iter().zip(numbers(table, right)?).enumerate() {
                    put(row, 0, bounded(a * b));
                }
            }
            Encoding::Ratio { left, right } => {
                for (row, (a, b)) in numbers(table, left)?.iter().zip(numbers(table, right)?).enumerate() {
                    // One more below: counts may be zero.
                    put(row, 0, bounded(a / (1.0 + b.abs())));
                }
            }
            Encoding::Category { column, values } => {
                codes(&table.need(column, "a feature of the model")?.cells.classes(), values, |row, code| {
                    put(row, 0, code)
                });
            }
            Encoding::Cross { left, right, values } => {
                let role = "a feature of the model";
                codes(&crossed(table.need(left, role)?, table.need(right, role)?), values, |row, code| {
                    put(row, 0, code)
                });
            }
            Encoding::Frequency { column, counts } => {
                let classes = table.need(column, "a feature of the model")?.cells.classes();
                let count = |value: &String| match counts.binary_search_by(|(known, _)| known.cmp(value)) {
                    Ok(place) => (counts[place].1 as f32).ln_1p(),
                    Err(_) => 0.0,
                };
                let by_code: Vec<f32> = classes.values.iter().map(count).collect();
                for (row, &code) in classes.codes.iter().enumerate() {
                    put(row, 0, if code == MISSING { f32::NAN } else { by_code[code as usize] });
                }
            }
            Encoding::Url { column, grams } => {
                let texts = texts(table, column)?;
                let describe = |value: &String| (url::features(value), grams_feature(grams, Some(value)));
                let by_code: Vec<_> = texts.values.iter().map(describe).collect();
                for (row, &code) in texts.codes.iter().enumerate() {
                    match by_code.get(code as usize) {
                        Some((features, score)) => {
                            features.iter().enumerate().for_each(|(offset, &value)| put(row, offset, value));
                            put(row, features.len(), *score);
                        }
                        None => (0..=url::NAMES.len()).for_each(|offset| put(row, offset, f32::NAN)),
                    }
                }
            }
        }
        Ok(())
    }
}

fn grams_feature(grams: &Grams, text: Option<&str>) -> f32 {
    text.map_or(f32::NAN, |text| logit(grams.score(text)) as f32)
}

/// Within what 32 bits hold.
fn bounded(value: f64) -> f32 {
    value.clamp(-1e30, 1e30) as f32
}

fn numbers<'a>(table: &'a Table, name: &str) -> Result<&'a [f64], ModelError> {
    let column = table.need(name, "a feature of the model")?;
    match &column.cells {
        Cells::Numbers(numbers) => Ok(numbers),
        Cells::Texts(texts) => {
            let odd = texts.values.iter().find(|value| value.parse::<f64>().is_err());
            Err(ModelError::ColumnKind {
                name: name.to_owned(),
                is: format!("text (for example {:?})", odd.map_or("", |value| value.as_str())),
                role: "a feature that the model knows as a number",
                wanted: "numbers: mend these cells or leave them empty",
            })
        }
    }
}

fn texts<'a>(table: &'a Table, name: &str) -> Result<&'a Texts, ModelError> {
    let column = table.need(name, "a feature of the model")?;
    match &column.cells {
        Cells::Texts(texts) => Ok(texts),
        Cells::Numbers(_) => Err(ModelError::ColumnKind {
            name: name.to_owned(),
            is: "numbers".to_owned(),
            role: "a feature that the model knows as text",
            wanted: "text",
        }),
    }
}

/// Tells each row's code; a value that is not known is "any other".
fn codes(classes: &Texts, values: &[String], mut put: impl FnMut(usize, f32)) {
    let code = |value: &String| values.binary_search(value).unwrap_or(values.len()) as f32;
    let by_code: Vec<f32> = classes.values.iter().map(code).collect();
    for (row, &code) in classes.codes.iter().enumerate() {
        put(row, if code == MISSING { f32::NAN } else { by_code[code as usize] });
    }
}

/// Two columns as one category.
fn crossed(left: &Column, right: &Column) -> Texts {
    let (left, right) = (left.cells.classes(), right.cells.classes());
    let mut texts = Texts::default();
    let mut known: HashMap<(u32, u32), u32> = HashMap::new();
    for (row, pair) in left.codes.iter().copied().zip(right.codes.iter().copied()).enumerate() {
        if pair.0 == MISSING || pair.1 == MISSING {
            texts.codes.push(MISSING);
            continue;
        }
        let code = *known.entry(pair).or_insert_with(|| {
            let both = [left.get(row).unwrap_or_default(), right.get(row).unwrap_or_default()];
            texts.values.push(both.join(" | "));
            texts.values.len() as u32 - 1
        });
        texts.codes.push(code);
    }
    texts
}

/// How often each value is there, in order of the values.
fn counts(classes: &Texts) -> Vec<(String, u32)> {
    let mut counts = vec![0_u32; classes.values.len()];
    for &code in classes.codes.iter().filter(|code| **code != MISSING) {
        counts[code as usize] += 1;
    }
    let mut counts: Vec<(String, u32)> = classes.values.iter().cloned().zip(counts).filter(|(_, n)| *n > 0).collect();
    counts.sort();
    counts
}

/// The most common values, in order of the values; a value seen once is as good as never seen.
fn common(classes: &Texts) -> Vec<String> {
    let mut counts = counts(classes);
    counts.retain(|(_, count)| *count > 1);
    counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    counts.truncate(VALUES_MAX);
    let mut values: Vec<String> = counts.into_iter().map(|(value, _)| value).collect();
    values.sort();
    values
}
