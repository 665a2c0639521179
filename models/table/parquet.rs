//! Parquet: numbers, booleans, times and texts; other types are an error when they are wanted, so they are left out here
//! with a note.

use std::{fs::File, path::Path};

use arrow::{
    array::{ArrayRef, AsArray},
    compute::cast,
    datatypes::{DataType, Float64Type, Int64Type, TimeUnit},
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::{CELLS_MAX, COLUMNS_MAX, Cells, Column, Interner, Table};
use crate::ModelError;

/// What becomes of a type.
#[derive(Clone, Copy)]
enum Kind {
    Number,
    /// Seconds per unit.
    Time(f64),
    Text,
    Other,
}

/// A column while it is read.
enum Reading {
    Numbers(Vec<f64>, Kind),
    Texts(Interner),
    LeftOut(DataType),
}

pub(super) fn read(path: &Path) -> Result<Table, ModelError> {
    let file = File::open(path).map_err(ModelError::io("open", path))?;
    let wrong = |why: String| ModelError::Format { path: path.to_owned(), format: "Parquet", why };
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| wrong(error.to_string()))?;
    let rows = usize::try_from(builder.metadata().file_metadata().num_rows()).map_err(|e| wrong(e.to_string()))?;
    let schema = std::sync::Arc::clone(builder.schema());
    if schema.fields().len() > COLUMNS_MAX {
        return Err(ModelError::TooLarge { path: path.to_owned(), what: "columns", most: COLUMNS_MAX as u64 });
    }
    if rows as u64 * schema.fields().len() as u64 > CELLS_MAX {
        return Err(ModelError::TooLarge { path: path.to_owned(), what: "cells", most: CELLS_MAX });
    }
    let mut columns: Vec<Reading> = schema.fields().iter().map(|field| Reading::new(field.data_type())).collect();
    let reader = builder.with_batch_size(8_192).build().map_err(|error| wrong(error.to_string()))?;
    let mut read = 0;
    for batch in reader {
        let batch = batch.map_err(|error| wrong(error.to_string()))?;
        read += batch.num_rows();
        if read > rows {
            return Err(wrong("it has more rows than it says".to_owned()));
        }
        for (column, array) in columns.iter_mut().zip(batch.columns()) {
            column.extend(array).map_err(|error| wrong(error.to_string()))?;
        }
    }
    let mut table = Table { rows: read, ..Table::default() };
    for (field, column) in schema.fields().iter().zip(columns) {
        let name = field.name().clone();
        let cells = match column {
            Reading::Numbers(numbers, _) => Cells::Numbers(numbers),
            Reading::Texts(texts) => Cells::Texts(texts.finish(&name, &mut table.notes)),
            Reading::LeftOut(kind) => {
                table
                    .notes
                    .push(format!("column {name:?} is left out: its type {kind} is neither number, time nor text"));
                continue;
            }
        };
        table.columns.push(Column { name, cells });
    }
    Ok(table)
}

impl Reading {
    fn new(kind: &DataType) -> Reading {
        match kind_of(kind) {
            Kind::Text => Reading::Texts(Interner::default()),
            Kind::Other => Reading::LeftOut(kind.clone()),
            number => Reading::Numbers(Vec::new(), number),
        }
    }

    fn extend(&mut self, array: &ArrayRef) -> Result<(), arrow::error::ArrowError> {
        match self {
            Reading::Numbers(numbers, Kind::Time(seconds)) => {
                let array = cast(array, &DataType::Int64)?;
                let scale = |n: Option<i64>| n.map_or(f64::NAN, |n| n as f64 * *seconds);
                numbers.extend(array.as_primitive::<Int64Type>().iter().map(scale));
            }
            Reading::Numbers(numbers, _) => {
                let array = cast(array, &DataType::Float64)?;
                numbers.extend(array.as_primitive::<Float64Type>().iter().map(|n| n.unwrap_or(f64::NAN)));
            }
            Reading::Texts(texts) => {
                let array = cast(array, &DataType::Utf8)?;
                let array = array.as_string::<i32>();
                for text in array {
                    texts.push(text);
                }
            }
            Reading::LeftOut(_) => {}
        }
        Ok(())
    }
}

fn kind_of(kind: &DataType) -> Kind {
    match kind {
        kind if kind.is_numeric() => Kind::Number,
        DataType::Boolean => Kind::Number,
        DataType::Timestamp(unit, _) => Kind::Time(match unit {
            TimeUnit::Second => 1.0,
            TimeUnit::Millisecond => 1e-3,
            TimeUnit::Microsecond => 1e-6,
            TimeUnit::Nanosecond => 1e-9,
        }),
        DataType::Date32 => Kind::Time(86_400.0),
        DataType::Date64 => Kind::Time(1e-3),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Kind::Text,
        DataType::Dictionary(_, values) => kind_of(values),
        _ => Kind::Other,
    }
}
