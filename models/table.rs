//! Rows and typed columns of an input file, whole in memory.
//!
//! In: Parquet or CSV. Out: a column is numbers or texts; nothing else is a feature. Memory: [`CELLS_MAX`] cells; texts
//! are kept once each. A missing cell is NaN or [`MISSING`]; what was made of odd cells is said in `notes`.

mod csv;
mod parquet;

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{BufReader, Read},
    path::Path,
};

use sha2::{Digest, Sha256};

use crate::ModelError;

/// Columns at most: wider files are exports of something that is not a table of features.
pub const COLUMNS_MAX: usize = 4_096;
/// Cells at most: 8 bytes each.
pub const CELLS_MAX: u64 = 400_000_000;
/// Bytes of one text at most; longer ones are cut, and counted in the notes.
pub const TEXT_BYTES_MAX: usize = 4_096;
/// The code of a text that is not there.
pub const MISSING: u32 = u32::MAX;

/// Texts of a column, each distinct one once.
#[derive(Clone, Debug, Default)]
pub struct Texts {
    /// Per row the place in `values`, or [`MISSING`].
    pub codes: Vec<u32>,
    /// Distinct texts in order of first appearance.
    pub values: Vec<String>,
}

/// What a column holds.
#[derive(Clone, Debug)]
pub enum Cells {
    /// Numbers; NaN is missing.
    Numbers(Vec<f64>),
    /// Texts.
    Texts(Texts),
}

/// A column with its name.
#[derive(Clone, Debug)]
pub struct Column {
    /// As in the file.
    pub name: String,
    /// Its cells.
    pub cells: Cells,
}

/// An input file.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// In the order of the file.
    pub columns: Vec<Column>,
    /// Rows.
    pub rows: usize,
    /// Of the file's bytes, in hexadecimal.
    pub sha256: String,
    /// How odd cells were treated, one sentence each.
    pub notes: Vec<String>,
}

impl Table {
    /// Reads a file by its extension.
    ///
    /// # Errors
    /// The file cannot be read, is not what its extension says, has no rows or is beyond the limits.
    pub fn read(path: &Path) -> Result<Table, ModelError> {
        let extension = path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
        let mut table = match extension.as_deref() {
            Some("parquet" | "pq") => parquet::read(path)?,
            Some("csv" | "tsv") => csv::read(path, if extension.as_deref() == Some("tsv") { b'\t' } else { b',' })?,
            _ => return Err(ModelError::Extension { path: path.to_owned() }),
        };
        if table.rows == 0 {
            return Err(ModelError::NoRows { path: path.to_owned() });
        }
        table.sha256 = sha256_of(path)?;
        table.clean();
        Ok(table)
    }

    /// The column of a name.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The column of a name, or an error that says which there are.
    ///
    /// # Errors
    /// There is none.
    pub fn need(&self, name: &str, role: &'static str) -> Result<&Column, ModelError> {
        self.column(name).ok_or_else(|| {
            let near = self
                .columns
                .iter()
                .map(|c| c.name.as_str())
                .max_by(|a, b| strsim::jaro_winkler(a, name).total_cmp(&strsim::jaro_winkler(b, name)));
            let hint = near.filter(|near| strsim::jaro_winkler(near, name) > 0.8);
            ModelError::NoColumn {
                name: name.to_owned(),
                role,
                hint: hint.map(|near| format!("; did you mean {near:?}?")).unwrap_or_default(),
                known: listed(self.columns.iter().map(|c| c.name.as_str()), 100),
            }
        })
    }

    /// The given rows, in the given order.
    #[must_use]
    pub fn take(&self, rows: &[usize]) -> Table {
        let columns =
            self.columns.iter().map(|column| Column { name: column.name.clone(), cells: column.cells.take(rows) });
        Table { columns: columns.collect(), rows: rows.len(), sha256: self.sha256.clone(), notes: Vec::new() }
    }

    /// Infinite numbers become missing, and that is said.
    fn clean(&mut self) {
        for column in &mut self.columns {
            if let Cells::Numbers(numbers) = &mut column.cells {
                let mut infinite = 0_usize;
                for number in numbers.iter_mut().filter(|n| n.is_infinite()) {
                    *number = f64::NAN;
                    infinite += 1;
                }
                let missing = numbers.iter().filter(|n| n.is_nan()).count();
                if infinite > 0 {
                    self.notes.push(format!("column {:?}: {infinite} infinite values count as missing", column.name));
                }
                if missing > 0 {
                    self.notes.push(format!("column {:?}: {missing} of {} values are missing; trees send them their own way, the others take the mean", column.name, numbers.len()));
                }
            }
        }
    }
}

impl Cells {
    /// Of what kind, for messages.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Cells::Numbers(_) => "numbers",
            Cells::Texts(_) => "text",
        }
    }

    /// The given rows.
    #[must_use]
    pub fn take(&self, rows: &[usize]) -> Cells {
        match self {
            Cells::Numbers(numbers) => Cells::Numbers(rows.iter().map(|&row| numbers[row]).collect()),
            Cells::Texts(texts) => {
                let mut taken = Interner::default();
                rows.iter().for_each(|&row| taken.push(texts.get(row)));
                Cells::Texts(taken.texts)
            }
        }
    }

    /// A row as text; `None` if missing. Whole numbers are written without a point, as a CSV would have them.
    #[must_use]
    pub fn text(&self, row: usize) -> Option<String> {
        match self {
            Cells::Numbers(numbers) => numbers.get(row).filter(|n| !n.is_nan()).map(|n| format!("{n}")),
            Cells::Texts(texts) => texts.get(row).map(str::to_owned),
        }
    }

    /// Every row's distinct value by number, in order of the values' texts; missing ones are [`MISSING`].
    #[must_use]
    pub fn classes(&self) -> Texts {
        let rows = match self {
            Cells::Numbers(numbers) => numbers.len(),
            Cells::Texts(texts) => texts.codes.len(),
        };
        let mut codes = vec![MISSING; rows];
        let mut known: HashMap<u64, u32> = HashMap::new();
        let mut values: Vec<String> = Vec::new();
        for (row, code) in codes.iter_mut().enumerate() {
            let key = match self {
                Cells::Numbers(numbers) if numbers[row].is_nan() => continue,
                Cells::Numbers(numbers) => (numbers[row] + 0.0).to_bits(),
                Cells::Texts(texts) if texts.codes[row] == MISSING => continue,
                Cells::Texts(texts) => u64::from(texts.codes[row]),
            };
            *code = *known.entry(key).or_insert_with(|| {
                values.push(self.text(row).unwrap_or_default());
                values.len() as u32 - 1
            });
        }
        sorted(codes, values)
    }
}

/// Renumbers so that the values are in order.
fn sorted(mut codes: Vec<u32>, values: Vec<String>) -> Texts {
    let order: BTreeMap<&str, usize> = values.iter().enumerate().map(|(at, value)| (value.as_str(), at)).collect();
    let mut new = vec![MISSING; values.len()];
    for (place, &at) in order.values().enumerate() {
        new[at] = place as u32;
    }
    for code in codes.iter_mut().filter(|code| **code != MISSING) {
        *code = new[*code as usize];
    }
    let values = order.keys().map(|&value| value.to_owned()).collect();
    Texts { codes, values }
}

impl Texts {
    /// The text of a row.
    #[must_use]
    pub fn get(&self, row: usize) -> Option<&str> {
        self.codes.get(row).and_then(|&code| self.values.get(code as usize)).map(String::as_str)
    }
}

/// Collects texts, each distinct one once.
#[derive(Default)]
pub(crate) struct Interner {
    texts: Texts,
    known: HashMap<String, u32>,
    /// Texts that were cut.
    cut: usize,
}

impl Interner {
    pub(crate) fn push(&mut self, text: Option<&str>) {
        let Some(text) = text else {
            self.texts.codes.push(MISSING);
            return;
        };
        let text = capped(text);
        let code = match self.known.get(text.0) {
            Some(&code) => code,
            None => {
                let code = self.texts.values.len() as u32;
                self.texts.values.push(text.0.to_owned());
                self.known.insert(text.0.to_owned(), code);
                code
            }
        };
        self.cut += usize::from(text.1);
        self.texts.codes.push(code);
    }

    pub(crate) fn finish(self, name: &str, notes: &mut Vec<String>) -> Texts {
        if self.cut > 0 {
            notes.push(format!("column {name:?}: {} texts were cut to {TEXT_BYTES_MAX} bytes", self.cut));
        }
        self.texts
    }
}

fn capped(text: &str) -> (&str, bool) {
    if text.len() <= TEXT_BYTES_MAX {
        return (text, false);
    }
    let end = (0..=TEXT_BYTES_MAX).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    (text.get(..end).unwrap_or_default(), true)
}

/// The first names, and how many more.
pub(crate) fn listed<'a>(names: impl Iterator<Item = &'a str>, most: usize) -> String {
    let names: Vec<&str> = names.collect();
    let shown = names.iter().take(most).copied().collect::<Vec<_>>().join(", ");
    if names.len() > most { format!("{shown} and {} more", names.len() - most) } else { shown }
}

fn sha256_of(path: &Path) -> Result<String, ModelError> {
    let mut reader = BufReader::new(File::open(path).map_err(ModelError::io("open", path))?);
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let read = reader.read(&mut buffer).map_err(ModelError::io("read", path))?;
        if read == 0 {
            return Ok(hex(&digest.finalize()));
        }
        digest.update(&buffer[..read]);
    }
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
