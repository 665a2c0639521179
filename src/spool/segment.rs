//! One segment: a file named by its first row, with a header and frames.
//!
//! The header is there twice, because without its salt no row of the file can be believed.

use std::{
    fs::{self, File},
    io,
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use crate::wide;

/// Where the first frame begins.
pub(crate) const HEADER_BYTES: u64 = 128;
const COPY_BYTES: usize = 64;
const MAGIC: &[u8; 8] = b"cf-spool";
const FORMAT: u32 = 1;
const SUFFIX: &str = ".log";

/// How far apart the entries of a segment's index are, in bytes.
const INDEX_BYTES: u64 = 64 << 10;

/// What the header of a segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) first_row: u64,
    pub(crate) salt: u64,
}

impl Header {
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let mut copy = Vec::with_capacity(COPY_BYTES);
        copy.extend_from_slice(MAGIC);
        copy.extend_from_slice(&FORMAT.to_le_bytes());
        copy.extend_from_slice(&self.first_row.to_le_bytes());
        copy.extend_from_slice(&self.salt.to_le_bytes());
        copy.extend_from_slice(&crc32c::crc32c(&copy).to_le_bytes());
        copy.resize(COPY_BYTES, 0);
        let mut both = copy.clone();
        both.extend_from_slice(&copy);
        both
    }

    /// The first of the copies that is whole.
    pub(crate) fn read(file: &File) -> io::Result<Option<Header>> {
        for offset in [0, wide(COPY_BYTES)] {
            let mut copy = [0; COPY_BYTES];
            match file.read_exact_at(&mut copy, offset) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                Err(error) => return Err(error),
            }
            if let Some(header) = Header::parse(&copy) {
                return Ok(Some(header));
            }
        }
        Ok(None)
    }

    fn parse(copy: &[u8]) -> Option<Header> {
        let (body, rest) = copy.split_at_checked(28)?;
        let crc = u32::from_le_bytes(*rest.first_chunk::<4>()?);
        let body_after_magic = body.strip_prefix(MAGIC.as_slice())?;
        let (format, rest) = body_after_magic.split_first_chunk::<4>()?;
        let (first_row, rest) = rest.split_first_chunk::<8>()?;
        let salt = rest.first_chunk::<8>()?;
        let good = crc32c::crc32c(body) == crc && u32::from_le_bytes(*format) == FORMAT;
        good.then_some(Header { first_row: u64::from_le_bytes(*first_row), salt: u64::from_le_bytes(*salt) })
    }
}

/// A segment as far as it is durable.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) path: PathBuf,
    pub(crate) header: Header,
    /// Durable length of the file, where a frame ends.
    pub(crate) bytes: u64,
    /// Some rows and where their frames begin, ascending.
    index: Vec<(u64, u64)>,
}

impl Segment {
    pub(crate) fn new(path: PathBuf, header: Header) -> Segment {
        Segment { path, header, bytes: HEADER_BYTES, index: Vec::new() }
    }

    /// Notes where a row begins; most are not kept.
    pub(crate) fn note(&mut self, row: u64, offset: u64) {
        if self.index.last().is_none_or(|(_, last)| offset >= last + INDEX_BYTES) {
            self.index.push((row, offset));
        }
    }

    /// The bytes to read to find `row`.
    pub(crate) fn bytes_from(&self, row: u64) -> Range<u64> {
        let before = self.index.partition_point(|(indexed, _)| *indexed <= row);
        let start = before.checked_sub(1).and_then(|i| self.index.get(i)).map_or(HEADER_BYTES, |(_, offset)| *offset);
        start..self.bytes
    }
}

/// The path of the segment that begins with this row.
pub(crate) fn path(dir: &Path, first_row: u64) -> PathBuf {
    dir.join(format!("{first_row:020}{SUFFIX}"))
}

/// The segments' files, by first row. What has another name is not ours.
pub(crate) fn list(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let row = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)).filter(|digits| digits.len() == 20);
        if let Some(row) = row.and_then(|digits| digits.parse().ok()) {
            found.push((row, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}
