//! Writes an answer as a table for people, as JSON lines or as CSV. Streams: memory is one batch, for a table the rows
//! that decide on the widths of its columns.

use std::io::Write;

use arrow::{
    array::{Array, ArrayRef, RecordBatch},
    compute::cast,
    datatypes::{DataType, Schema},
    error::ArrowError,
    json::{WriterBuilder, writer::LineDelimited},
    util::display::{ArrayFormatter, FormatOptions},
};
use std::sync::Arc;

use crate::{error::QueryError, session::Rows};

/// Rows after which the widths of a table's columns are fixed.
const SAMPLE_ROWS: usize = 200;

/// A column is not made narrower than this, so that something can be read in it.
const WIDTH_MIN: usize = 6;

/// Between two columns.
const GAP: &str = "  ";

/// Writes one JSON object per row with all its columns, nulls too; times as RFC 3339 in UTC. Gives the number of rows.
///
/// # Errors
///
/// When the query fails underway or `out` cannot be written.
pub async fn write_json_lines(rows: &mut Rows, out: &mut (dyn Write + Send)) -> Result<u64, QueryError> {
    let mut count = 0;
    while let Some(batch) = rows.next().await? {
        count += rows_of(&batch);
        json_lines(&batch, out)?;
    }
    Ok(count)
}

/// One batch as JSON lines.
pub(crate) fn json_lines(batch: &RecordBatch, out: &mut (dyn Write + Send)) -> Result<(), QueryError> {
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(&mut *out);
    let written = plain(batch).and_then(|batch| writer.write(&batch)).and_then(|()| writer.finish());
    written.map_err(failed)
}

/// Writes RFC 4180 CSV with a header; lists as JSON, nulls as nothing. Gives the number of rows.
///
/// # Errors
///
/// When the query fails underway or `out` cannot be written.
pub async fn write_csv(rows: &mut Rows, out: &mut (dyn Write + Send)) -> Result<u64, QueryError> {
    csv_header(&rows.schema(), out)?;
    let mut count = 0;
    while let Some(batch) = rows.next().await? {
        count += rows_of(&batch);
        csv_lines(&batch, out)?;
    }
    Ok(count)
}

/// The names of the columns as a CSV line.
pub(crate) fn csv_header(schema: &Schema, out: &mut (dyn Write + Send)) -> Result<(), QueryError> {
    let header: Vec<String> = schema.fields().iter().map(|field| quoted(field.name())).collect();
    Ok(writeln!(out, "{}", header.join(","))?)
}

/// One batch as CSV lines.
pub(crate) fn csv_lines(batch: &RecordBatch, out: &mut (dyn Write + Send)) -> Result<(), QueryError> {
    for row in cells(batch).map_err(failed)? {
        let row: Vec<String> = row.iter().map(|cell| cell.as_deref().map_or_else(String::new, quoted)).collect();
        writeln!(out, "{}", row.join(","))?;
    }
    Ok(())
}

/// Writes an aligned table at most `width` characters wide where the columns allow it: values that are too long are
/// cut, numbers stand on the right, control characters are shown and not sent to the terminal. Gives the number of rows.
///
/// # Errors
///
/// When the query fails underway or `out` cannot be written.
pub async fn write_table(rows: &mut Rows, out: &mut (dyn Write + Send), width: usize) -> Result<u64, QueryError> {
    let schema = rows.schema();
    let mut sample = Vec::new();
    let mut count = 0;
    let mut layout = None;
    while let Some(batch) = rows.next().await? {
        count += rows_of(&batch);
        let lines = cells(&batch).map_err(failed)?;
        match &layout {
            None => sample.extend(lines),
            Some(layout) => write_lines(out, layout, &lines)?,
        }
        if layout.is_none() && sample.len() >= SAMPLE_ROWS {
            layout = Some(begin(out, &schema, &std::mem::take(&mut sample), width)?);
        }
    }
    if layout.is_none() {
        begin(out, &schema, &sample, width)?;
    }
    writeln!(out, "({count} {})", if count == 1 { "row" } else { "rows" })?;
    Ok(count)
}

type Line = Vec<Option<String>>;

/// Width and side of each column.
type Layout = Vec<(usize, bool)>;

fn begin(out: &mut dyn Write, schema: &Schema, sample: &[Line], width: usize) -> std::io::Result<Layout> {
    let layout = layout(schema, sample, width);
    let header: Line = schema.fields().iter().map(|field| Some(field.name().clone())).collect();
    let rule: Line = layout.iter().map(|(width, _)| Some("-".repeat(*width))).collect();
    write_lines(out, &layout, &[header, rule])?;
    write_lines(out, &layout, sample)?;
    Ok(layout)
}

/// Natural widths, then the widest column gives way until all fit.
fn layout(schema: &Schema, sample: &[Line], width: usize) -> Layout {
    let mut layout: Layout = schema
        .fields()
        .iter()
        .enumerate()
        .map(|(i, field)| {
            let cells =
                sample.iter().filter_map(|line| line.get(i)?.as_deref()).map(|cell| shown(cell).chars().count());
            (cells.max().unwrap_or(0).max(shown(field.name()).chars().count()), field.data_type().is_numeric())
        })
        .collect();
    let gaps = GAP.len() * layout.len().saturating_sub(1);
    while layout.iter().map(|(width, _)| width).sum::<usize>() + gaps > width {
        match layout.iter_mut().max_by_key(|(width, _)| *width).filter(|(width, _)| *width > WIDTH_MIN) {
            Some((widest, _)) => *widest -= 1,
            None => break,
        }
    }
    layout
}

fn write_lines(out: &mut dyn Write, layout: &Layout, lines: &[Line]) -> std::io::Result<()> {
    for line in lines {
        let mut text = String::new();
        for (i, ((width, right), cell)) in layout.iter().zip(line).enumerate() {
            let cell = cut(&shown(cell.as_deref().unwrap_or("")), *width);
            let gap = if i == 0 { "" } else { GAP };
            text += &if *right { format!("{gap}{cell:>width$}") } else { format!("{gap}{cell:<width$}") };
        }
        writeln!(out, "{}", text.trim_end())?;
    }
    Ok(())
}

/// What a terminal may get: an attacker's escape sequences are shown, not obeyed.
fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for char in text.chars() {
        // Besides control characters those that change the order of what is read (Unicode TR 36, 2.10).
        if char.is_control() || matches!(char, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            shown.extend(char.escape_default());
        } else {
            shown.push(char);
        }
    }
    shown
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(width.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

/// All values as text, by row.
fn cells(batch: &RecordBatch) -> Result<Vec<Line>, ArrowError> {
    let batch = plain(batch)?;
    let options = FormatOptions::default()
        .with_timestamp_tz_format(Some("%Y-%m-%dT%H:%M:%S%.fZ"))
        .with_timestamp_format(Some("%Y-%m-%dT%H:%M:%S%.f"));
    let mut lines = vec![Vec::with_capacity(batch.num_columns()); batch.num_rows()];
    for column in batch.columns() {
        if column.data_type().is_nested() {
            for (line, value) in lines.iter_mut().zip(json_cells(column)?) {
                line.push(value);
            }
            continue;
        }
        let formatter = ArrayFormatter::try_new(column, &options)?;
        for (row, line) in lines.iter_mut().enumerate() {
            line.push(if column.is_null(row) { None } else { Some(formatter.value(row).try_to_string()?) });
        }
    }
    Ok(lines)
}

/// Lists and structures as JSON.
fn json_cells(column: &ArrayRef) -> Result<Vec<Option<String>>, ArrowError> {
    let batch = RecordBatch::try_from_iter([("v", Arc::clone(column))])?;
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(Vec::new());
    writer.write(&batch)?;
    writer.finish()?;
    let text = String::from_utf8_lossy(&writer.into_inner()).into_owned();
    let value = |line: &str| line.strip_prefix("{\"v\":").and_then(|rest| rest.strip_suffix('}')).map(str::to_owned);
    Ok(text.lines().map(|line| value(line).filter(|value| value != "null")).collect())
}

/// Times in UTC, and dictionaries as what they stand for.
fn plain(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().map(|column| match column.data_type() {
        DataType::Timestamp(unit, Some(zone)) if &**zone != "+00:00" => {
            // The instant stays; only the zone it is shown in changes.
            cast(column, &DataType::Timestamp(*unit, Some(Arc::from("+00:00"))))
        }
        DataType::Dictionary(_, values) => cast(column, values),
        _ => Ok(Arc::clone(column)),
    });
    let columns = columns.collect::<Result<Vec<ArrayRef>, _>>()?;
    RecordBatch::try_from_iter_with_nullable(
        batch.schema().fields().iter().zip(columns).map(|(field, column)| (field.name().clone(), column, true)),
    )
}

fn rows_of(batch: &RecordBatch) -> u64 {
    u64::try_from(batch.num_rows()).unwrap_or(u64::MAX)
}

pub(crate) fn failed(error: ArrowError) -> QueryError {
    match error {
        ArrowError::IoError(_, source) => QueryError::Write(source),
        other => QueryError::Sql(other.to_string()),
    }
}
