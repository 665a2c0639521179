//! EVTX files: a header of 4 KiB, then chunks of 64 KiB, each read for itself, so that memory is that of one chunk and a
//! damaged chunk costs no other.

use std::{
    collections::VecDeque,
    io::{self, Read},
    sync::Arc,
};

use bytes::Bytes;
use cf_types::{Origin, Position, Record};
use evtx::{EvtxChunkData, ParserSettings};

use super::{FileError, Origins};

const HEADER_BYTES: u64 = 4_096;
const CHUNK_BYTES: u64 = 65_536;
/// Where a chunk's records begin.
const RECORDS_AT: usize = 512;

/// The records of one EVTX file, in order.
pub(super) struct Chunks {
    path: Arc<str>,
    input: Box<dyn Read + Send>,
    good: Arc<Origin>,
    bad: Arc<Origin>,
    settings: Arc<ParserSettings>,
    offset: u64,
    ready: VecDeque<Record>,
    ended: bool,
}

impl Chunks {
    pub(super) fn new(path: &str, input: Box<dyn Read + Send>, origins: &Origins) -> Chunks {
        Chunks {
            path: Arc::from(path),
            input,
            good: Arc::clone(&origins.evtx),
            bad: Arc::clone(&origins.unframed),
            settings: Arc::new(ParserSettings::new().indent(false).validate_checksums(false)),
            offset: 0,
            ready: VecDeque::new(),
            ended: false,
        }
    }

    /// Reads the next chunk and renders its records.
    fn fill(&mut self) -> Result<(), io::Error> {
        if self.offset == 0 {
            let header = self.take(HEADER_BYTES)?;
            if header.len() < usize::try_from(HEADER_BYTES).unwrap_or(usize::MAX) {
                self.ended = true;
                self.unreadable(0, 0, header);
                return Ok(());
            }
        }
        let at = self.offset;
        let chunk = self.take(CHUNK_BYTES)?;
        self.ended = chunk.len() < usize::try_from(CHUNK_BYTES).unwrap_or(usize::MAX);
        if chunk.iter().any(|byte| *byte != 0) {
            self.render(at, chunk); // else space that Windows has not used yet
        }
        Ok(())
    }

    fn take(&mut self, len: u64) -> Result<Vec<u8>, io::Error> {
        let mut bytes = Vec::new();
        self.input.by_ref().take(len).read_to_end(&mut bytes)?;
        self.offset += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        Ok(bytes)
    }

    fn render(&mut self, at: u64, mut chunk: Vec<u8>) {
        let raw = Bytes::copy_from_slice(&chunk);
        chunk.resize(usize::try_from(CHUNK_BYTES).unwrap_or(usize::MAX), 0); // a cut file's last chunk
        let Ok(mut data) = EvtxChunkData::new(chunk, false) else {
            return self.unreadable(at, 0, raw);
        };
        let Ok(mut parsed) = data.parse(Arc::clone(&self.settings)) else {
            return self.unreadable(at, 0, raw);
        };
        let mut damaged = 0_u32;
        let records: Vec<_> = parsed.iter().map(|record| record.and_then(evtx::EvtxRecord::into_json_bytes)).collect();
        for record in records {
            match record {
                Ok(record) => {
                    let number = record.event_record_id;
                    let within = offset_of(&raw, number).unwrap_or(RECORDS_AT);
                    let position = self.place(at + u64::try_from(within).unwrap_or(0), number, 0);
                    let bytes = Bytes::from(record.data);
                    self.ready.push_back(Record { origin: Arc::clone(&self.good), position, bytes });
                }
                // The parser says which record, but not where it ends: each damage is a reject with the chunk's bytes.
                Err(_) => {
                    self.unreadable(at, damaged, raw.clone());
                    damaged += 1;
                }
            }
        }
    }

    fn unreadable(&mut self, at: u64, index: u32, bytes: impl Into<Bytes>) {
        let position = self.place(at, 0, index);
        self.ready.push_back(Record { origin: Arc::clone(&self.bad), position, bytes: bytes.into() });
    }

    fn place(&self, offset: u64, line: u64, index: u32) -> Position {
        Position { origin: Arc::clone(&self.path), offset, line, index }
    }
}

impl Iterator for Chunks {
    type Item = Result<Record, FileError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.ready.is_empty() && !self.ended {
            if let Err(cause) = self.fill() {
                self.ended = true;
                return Some(Err(FileError::Read { path: self.path.to_string(), offset: self.offset, cause }));
            }
        }
        self.ready.pop_front().map(Ok)
    }
}

/// Where in the chunk the record of this number begins: records follow one another, each with its size.
fn offset_of(chunk: &[u8], number: u64) -> Option<usize> {
    let mut at = RECORDS_AT;
    while let Some(header) = chunk.get(at..at + 16) {
        let (magic, rest) = header.split_first_chunk::<4>()?;
        let (size, rest) = rest.split_first_chunk::<4>()?;
        let id = rest.first_chunk::<8>()?;
        if magic != b"\x2a\x2a\x00\x00" {
            return None;
        }
        if u64::from_le_bytes(*id) == number {
            return Some(at);
        }
        at += usize::try_from(u32::from_le_bytes(*size)).ok()?.max(24);
    }
    None
}
