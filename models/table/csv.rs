//! CSV with a header: a column is numbers if every cell that is there is one.

use std::{fs::File, path::Path};

use super::{CELLS_MAX, COLUMNS_MAX, Cells, Column, Interner, MISSING, Table, Texts};
use crate::ModelError;

/// What counts as a missing number besides an empty cell; in a column of texts these are texts.
const NO_NUMBER: [&str; 6] = ["NA", "N/A", "null", "NULL", "None", "nan"];

pub(super) fn read(path: &Path, delimiter: u8) -> Result<Table, ModelError> {
    let file = File::open(path).map_err(ModelError::io("open", path))?;
    let wrong = |error: csv::Error| ModelError::Format { path: path.to_owned(), format: "CSV", why: error.to_string() };
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(file);
    let names = names(path, reader.headers().map_err(wrong)?)?;
    let mut columns: Vec<Interner> = names.iter().map(|_| Interner::default()).collect();
    let mut rows = 0_usize;
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record).map_err(wrong)? {
        rows += 1;
        if rows as u64 * names.len() as u64 > CELLS_MAX {
            return Err(ModelError::TooLarge { path: path.to_owned(), what: "cells", most: CELLS_MAX });
        }
        for (column, cell) in columns.iter_mut().zip(&record) {
            column.push(Some(cell.trim()).filter(|cell| !cell.is_empty()));
        }
    }
    let mut table = Table { rows, ..Table::default() };
    for (name, column) in names.into_iter().zip(columns) {
        let texts = column.finish(&name, &mut table.notes);
        let cells = numbers(&texts).map_or(Cells::Texts(texts), Cells::Numbers);
        table.columns.push(Column { name, cells });
    }
    Ok(table)
}

fn names(path: &Path, header: &csv::StringRecord) -> Result<Vec<String>, ModelError> {
    if header.len() > COLUMNS_MAX {
        return Err(ModelError::TooLarge { path: path.to_owned(), what: "columns", most: COLUMNS_MAX as u64 });
    }
    let names: Vec<String> = header.iter().map(|name| name.trim().trim_start_matches('\u{feff}').to_owned()).collect();
    for (at, name) in names.iter().enumerate() {
        let why = match name {
            name if name.is_empty() => format!("column {} has no name in the first line", at + 1),
            name if names[..at].contains(name) => format!("two columns are named {name:?}"),
            _ => continue,
        };
        return Err(ModelError::Format { path: path.to_owned(), format: "CSV", why });
    }
    Ok(names)
}

/// The texts as numbers, if all are.
fn numbers(texts: &Texts) -> Option<Vec<f64>> {
    let parse = |text: &String| {
        if NO_NUMBER.contains(&text.as_str()) { Some(f64::NAN) } else { text.parse::<f64>().ok() }
    };
    let values: Vec<f64> = texts.values.iter().map(parse).collect::<Option<_>>()?;
    // A column without any cell has no type; as numbers it is constant, and left out as such.
    let cell = |&code: &u32| if code == MISSING { f64::NAN } else { values[code as usize] };
    Some(texts.codes.iter().map(cell).collect())
}
