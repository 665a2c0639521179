//! Answers as bytes for programs: an Arrow IPC stream, JSON lines or CSV, batch by batch.

use datafusion::arrow::{array::RecordBatch, datatypes::SchemaRef, ipc::writer::StreamWriter};

use crate::{
    error::QueryError,
    output::{csv_header, csv_lines, failed, json_lines},
};

/// In which form an answer is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// An Arrow IPC stream, with the types that the columns have.
    Arrow,
    /// A JSON object per line, with all columns; times as RFC 3339 in UTC.
    JsonLines,
    /// RFC 4180 with a header.
    Csv,
}

impl Encoding {
    /// All of them: name for people, media type.
    const NAMES: [(Encoding, &'static str, &'static str); 3] = [
        (Encoding::Arrow, "arrow", "application/vnd.apache.arrow.stream"),
        (Encoding::JsonLines, "json", "application/x-ndjson"),
        (Encoding::Csv, "csv", "text/csv"),
    ];

    /// The one with this name: `arrow`, `json`, `csv`.
    #[must_use]
    pub fn named(name: &str) -> Option<Encoding> {
        Encoding::NAMES.iter().find(|(_, known, _)| *known == name).map(|(encoding, ..)| *encoding)
    }

    /// The first of an `Accept` header that is known, JSON lines where it does not matter; `None` if none of them is.
    #[must_use]
    pub fn accepted(accept: &str) -> Option<Encoding> {
        let wanted = |part: &str| {
            let kind = part.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
            match kind.as_str() {
                "" | "*/*" | "application/*" | "application/json" => Some(Encoding::JsonLines),
                "text/*" => Some(Encoding::Csv),
                _ => Encoding::NAMES.iter().find(|(.., media)| *media == kind).map(|(encoding, ..)| *encoding),
            }
        };
        accept.split(',').find_map(wanted)
    }

    /// Its media type.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        Encoding::NAMES.iter().find(|(known, ..)| *known == self).map_or("", |(.., media)| *media)
    }
}

/// Encodes one answer.
pub struct Encoder(State);

enum State {
    Arrow(Box<StreamWriter<Vec<u8>>>),
    JsonLines,
    Csv(Vec<u8>),
}

impl Encoder {
    /// Begins an answer with these columns.
    ///
    /// # Errors
    ///
    /// When the columns cannot be written in this form.
    pub fn new(encoding: Encoding, schema: &SchemaRef) -> Result<Encoder, QueryError> {
        Ok(Encoder(match encoding {
            Encoding::Arrow => State::Arrow(Box::new(StreamWriter::try_new(Vec::new(), schema).map_err(failed)?)),
            Encoding::JsonLines => State::JsonLines,
            Encoding::Csv => {
                let mut header = Vec::new();
                csv_header(schema, &mut header)?;
                State::Csv(header)
            }
        }))
    }

    /// The bytes of one batch; those of the first begin the answer.
    ///
    /// # Errors
    ///
    /// When a value cannot be written.
    pub fn batch(&mut self, batch: &RecordBatch) -> Result<Vec<u8>, QueryError> {
        match &mut self.0 {
            State::Arrow(writer) => {
                writer.write(batch).map_err(failed)?;
                Ok(std::mem::take(writer.get_mut()))
            }
            State::JsonLines => {
                let mut out = Vec::new();
                json_lines(batch, &mut out)?;
                Ok(out)
            }
            State::Csv(begun) => {
                let mut out = std::mem::take(begun);
                csv_lines(batch, &mut out)?;
                Ok(out)
            }
        }
    }

    /// The bytes that end the answer.
    ///
    /// # Errors
    ///
    /// When they cannot be written.
    pub fn finish(self) -> Result<Vec<u8>, QueryError> {
        match self.0 {
            State::Arrow(mut writer) => {
                writer.finish().map_err(failed)?;
                Ok(std::mem::take(writer.get_mut()))
            }
            State::JsonLines => Ok(Vec::new()),
            State::Csv(begun) => Ok(begun),
        }
    }
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::Encoding;

    #[test]
    fn the_first_known_type_is_taken() {
        for (accept, expect) in [
            ("*/*", Some(Encoding::JsonLines)),
            ("text/csv", Some(Encoding::Csv)),
            ("text/html, text/csv;q=0.9, */*", Some(Encoding::Csv)),
            ("application/vnd.apache.arrow.stream", Some(Encoding::Arrow)),
            ("Application/JSON", Some(Encoding::JsonLines)),
            ("image/png", None),
        ] {
            assert_eq!(Encoding::accepted(accept), expect, "{accept}");
        }
    }
}
