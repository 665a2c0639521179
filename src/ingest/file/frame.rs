//! Cutting a stream of text into records.

use std::{io::{self, Read}, sync::Arc};

use bytes::{Bytes, BytesMut};
use cf_types::{Position, Record};

use super::{FileError, Origins};

/// How much is read at once.
const BLOCK_BYTES: usize = 262_144;

/// The records of one text stream, in order.
pub(super) struct Frames {
    path: Arc<str>,
    input: Box<dyn Read + Send>,
    origins: Origins,
    record_bytes_max: usize,
    /// Bytes read and not yet given.
    buffer: BytesMut,
    /// Offset and line of the buffer's first byte.
    offset: u64,
    line: u64,
    ended: bool,
}

impl Frames {
    pub(super) fn new(path: &str, input: Box<dyn Read + Send>, origins: Origins, record_bytes_max: usize) -> Frames {
        Frames {
            path: Arc::from(path),
            input,
            origins,
            record_bytes_max,
            buffer: BytesMut::new(),
            offset: 0,
            line: 1,
            ended: false,
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        let held = self.buffer.len();
        self.buffer.resize(held + BLOCK_BYTES, 0);
        let read = loop {
            match self.input.read(self.buffer.get_mut(held..).unwrap_or_default()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        self.buffer.truncate(held + read.as_ref().map_or(0, |read| *read));
        self.ended = read? == 0;
        Ok(())
    }

    fn next_line(&mut self) -> io::Result<Option<Bytes>> {
        let mut searched = 0;
        loop {
            if let Some(end) = memchr::memchr(b'\n', self.buffer.get(searched..).unwrap_or_default()) {
                return Ok(Some(self.buffer.split_to(searched + end + 1).freeze()));
            }
            if self.ended {
                return Ok((!self.buffer.is_empty()).then(|| self.buffer.split().freeze()));
            }
            searched = self.buffer.len();
            self.fill()?;
        }
    }
}

impl Iterator for Frames {
    type Item = Result<Record, FileError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let line = match self.next_line() {
                Ok(line) => line?,
                Err(cause) => {
                    self.ended = true;
                    self.buffer.clear();
                    return Some(Err(FileError::Read { path: self.path.to_string(), offset: self.offset, cause }));
                }
            };
            let position = Position { origin: Arc::clone(&self.path), offset: self.offset, line: self.line, index: 0 };
            self.offset += u64::try_from(line.len()).unwrap_or(0);
            self.line += 1;
            if line.trim_ascii().is_empty() {
                continue;
            }
            let content = line.strip_suffix(b"\n").unwrap_or(&line);
            let content = content.strip_suffix(b"\r").unwrap_or(content);
            let origin = Arc::clone(self.origins.of_line(content));
            return Some(Ok(Record { origin, position, bytes: line.slice_ref(content) }));
        }
    }
}
