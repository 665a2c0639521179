//! Reads the rows of a log in order, up to its durable end; asked again, it goes on with what came since.

use std::{fs::File, io, sync::Arc};

use bytes::Bytes;

use crate::{
    frame::{Found, Frames},
    log::{LogError, Shared},
};

/// Reads rows in order. An iterator that ends at the durable end and can be asked again later.
///
/// Damage is skipped and counted. Segments that are trimmed while they are read are read to their end.
#[derive(Debug)]
pub struct LogReader {
    shared: Arc<Shared>,
    next_row: u64,
    /// The segment being read, by its first row.
    open: Option<(u64, Frames)>,
    damaged: u64,
}

impl LogReader {
    pub(crate) fn new(shared: Arc<Shared>, from_row: u64) -> LogReader {
        LogReader { shared, next_row: from_row, open: None, damaged: 0 }
    }

    /// The next row that it would give, if it is there.
    #[must_use]
    pub fn next_row(&self) -> u64 {
        self.next_row
    }

    /// How many damaged ranges were skipped.
    #[must_use]
    pub fn damaged(&self) -> u64 {
        self.damaged
    }

    fn read(&mut self) -> Result<Option<(u64, Bytes)>, LogError> {
        loop {
            let Some((first_row, frames)) = &mut self.open else {
                match self.next_segment()? {
                    Some(open) => self.open = Some(open),
                    None => return Ok(None),
                }
                continue;
            };
            let first_row = *first_row;
            match frames.next_found().map_err(|source| self.error("read", source))? {
                Some(Found::Row { row, payload, .. }) if row >= self.next_row => {
                    self.next_row = row.saturating_add(1);
                    return Ok(Some((row, payload)));
                }
                Some(Found::Row { .. }) => {}
                Some(Found::Damaged { .. } | Found::Torn { .. }) => self.damaged += 1,
                None if self.grew(first_row) => {}
                None => match self.segment_after(first_row)? {
                    Some(open) => self.open = Some(open),
                    None => return Ok(None),
                },
            }
        }
    }

    /// Takes up what was appended to the open segment since.
    fn grew(&mut self, first_row: u64) -> bool {
        let Some((_, frames)) = &mut self.open else { return false };
        let durable = self.shared.durable();
        let known = durable.segments.iter().rev().find(|segment| segment.header.first_row == first_row);
        let before = frames.end();
        if let Some(segment) = known {
            frames.extend(segment.bytes);
        }
        frames.end() > before
    }

    /// The segment in which `next_row` is, or the first after it.
    fn next_segment(&self) -> Result<Option<(u64, Frames)>, LogError> {
        let durable = self.shared.durable();
        let after = durable.segments.partition_point(|segment| segment.header.first_row <= self.next_row);
        let found = durable.segments.get(after.saturating_sub(1)).cloned();
        drop(durable);
        found.map(|segment| self.open_segment(&segment)).transpose()
    }

    fn segment_after(&self, first_row: u64) -> Result<Option<(u64, Frames)>, LogError> {
        let durable = self.shared.durable();
        let found = durable.segments.iter().find(|segment| segment.header.first_row > first_row).cloned();
        drop(durable);
        found.map(|segment| self.open_segment(&segment)).transpose()
    }

    fn open_segment(&self, segment: &crate::segment::Segment) -> Result<(u64, Frames), LogError> {
        let file = match File::open(&segment.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let floor = self.shared.durable().segments.first().map_or(0, |first| first.header.first_row);
                return Err(LogError::Trimmed { wanted: self.next_row, floor });
            }
            Err(source) => return Err(LogError::Io { verb: "open", path: segment.path.clone(), source }),
        };
        let frames = Frames::new(file, segment.header.salt, segment.bytes_from(self.next_row));
        Ok((segment.header.first_row, frames))
    }

    fn error(&self, verb: &'static str, source: io::Error) -> LogError {
        let first_row = self.open.as_ref().map_or(self.next_row, |(first_row, _)| *first_row);
        LogError::Io { verb, path: crate::segment::path(self.shared.dir(), first_row), source }
    }
}

impl Iterator for LogReader {
    type Item = Result<(u64, Bytes), LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}
