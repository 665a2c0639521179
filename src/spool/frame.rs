//! Frames: how one row lies in a file, and how to find the next good one behind damage.
//!
//! ```text
//! length u32 | row u64 | CRC32C of salt, length, row: u32 | CRC32C of salt and payload: u32 | payload     (little endian)
//! ```
//!
//! The header has a checksum of its own, so that a damaged payload costs exactly its row and not a search. The row's
//! number is in the frame, so that skipping renumbers nothing. The salt is a secret of the file: payloads are written
//! by attackers, and without it one could hold a forged frame that a search behind damage would take for a row.

use std::{fs::File, io, ops::Range, os::unix::fs::FileExt};

use bytes::{Bytes, BytesMut};

use crate::wide;

/// Bytes before each payload.
pub const HEADER_BYTES: usize = 20;

/// The longest payload, in bytes. A length above it is damage.
pub const PAYLOAD_BYTES_MAX: usize = 64 << 20;

/// How much is read from a file at once.
const CHUNK_BYTES: usize = 256 << 10;

/// Appends one frame to `out`.
///
/// # Panics
///
/// When the payload is longer than [`PAYLOAD_BYTES_MAX`]: callers check first.
pub fn put(salt: u64, row: u64, payload: &[u8], out: &mut Vec<u8>) {
    assert!(payload.len() <= PAYLOAD_BYTES_MAX, "payloads are bounded before they are framed");
    let length = u32::try_from(payload.len()).expect("the bound fits");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&row.to_le_bytes());
    out.extend_from_slice(&header_crc(salt, length, row).to_le_bytes());
    out.extend_from_slice(&payload_crc(salt, payload).to_le_bytes());
    out.extend_from_slice(payload);
}

/// A salt that senders cannot know.
#[must_use]
pub fn fresh_salt() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}

fn header_crc(salt: u64, length: u32, row: u64) -> u32 {
    let crc = crc32c::crc32c(&salt.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(crc, &length.to_le_bytes()), &row.to_le_bytes())
}

fn payload_crc(salt: u64, payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&salt.to_be_bytes()), payload)
}

/// A header whose checksum holds.
#[derive(Clone, Copy)]
struct Header {
    length: usize,
    row: u64,
    payload_crc: u32,
}

impl Header {
    fn read(salt: u64, bytes: &[u8]) -> Option<Header> {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (row, rest) = rest.split_first_chunk::<8>()?;
        let (crc, rest) = rest.split_first_chunk::<4>()?;
        let payload_crc = u32::from_le_bytes(*rest.first_chunk::<4>()?);
        let (length, row) = (u32::from_le_bytes(*length), u64::from_le_bytes(*row));
        let good = header_crc(salt, length, row) == u32::from_le_bytes(*crc);
        let length = usize::try_from(length).ok()?;
        (good && length <= PAYLOAD_BYTES_MAX).then_some(Header { length, row, payload_crc })
    }

    fn frame_bytes(self) -> usize {
        HEADER_BYTES + self.length
    }
}

/// What lies next in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A row.
    Row {
        /// Its number.
        row: u64,
        /// Where its frame begins in the file.
        offset: u64,
        /// What it holds.
        payload: Bytes,
    },
    /// Bytes that are no row, with a good frame behind them (or the record itself damaged, its header whole).
    Damaged {
        /// Where they lie in the file.
        bytes: Range<u64>,
        /// The number of the row, when its header is whole.
        row: Option<u64>,
    },
    /// Bytes up to the end that are no row, and nothing good behind them: a write that was cut short.
    Torn {
        /// Where they lie in the file.
        bytes: Range<u64>,
        /// The number of the row, when its header is whole.
        row: Option<u64>,
    },
}

/// Goes through the frames of a file up to an end that may grow.
#[derive(Debug)]
pub struct Frames {
    file: File,
    salt: u64,
    /// Where `buffer` begins.
    offset: u64,
    end: u64,
    /// No row before this one is taken for good when searching behind damage.
    row_min: u64,
    buffer: BytesMut,
}

impl Frames {
    /// Reads frames from `bytes.start`, which must be where a frame begins, to `bytes.end`.
    #[must_use]
    pub fn new(file: File, salt: u64, bytes: Range<u64>) -> Frames {
        Frames { file, salt, offset: bytes.start, end: bytes.end, row_min: 0, buffer: BytesMut::new() }
    }

    /// Up to where it reads.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Lets it read on to a later end, where a frame ends.
    pub fn extend(&mut self, end: u64) {
        self.end = self.end.max(end);
    }

    /// The next row or damage; `None` at the end, where it can be asked again after [`Frames::extend`].
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn next_found(&mut self) -> io::Result<Option<Found>> {
        let left = self.end.saturating_sub(self.offset);
        if left == 0 {
            return Ok(None);
        }
        self.fill(HEADER_BYTES)?;
        let Some(header) = Header::read(self.salt, &self.buffer) else {
            return self.search().map(Some);
        };
        if wide(header.frame_bytes()) > left {
            // The header is whole, so its length is true: the rest was never written.
            return Ok(Some(self.torn(Some(header.row))));
        }
        self.fill(header.frame_bytes())?;
        let good = self
            .buffer
            .get(HEADER_BYTES..header.frame_bytes())
            .is_some_and(|payload| payload_crc(self.salt, payload) == header.payload_crc);
        self.row_min = header.row.saturating_add(1);
        let offset = self.offset;
        let after = offset + wide(header.frame_bytes());
        if good {
            let payload = self.take(header.frame_bytes()).slice(HEADER_BYTES..);
            return Ok(Some(Found::Row { row: header.row, offset, payload }));
        }
        if after == self.end {
            return Ok(Some(self.torn(Some(header.row))));
        }
        self.jump(after);
        Ok(Some(Found::Damaged { bytes: offset..after, row: Some(header.row) }))
    }

    fn torn(&mut self, row: Option<u64>) -> Found {
        let bytes = self.offset..self.end;
        self.jump(self.end);
        Found::Torn { bytes, row }
    }

    /// Looks for the next whole header behind damage, byte by byte.
    fn search(&mut self) -> io::Result<Found> {
        let start = self.offset;
        let mut window = vec![0; CHUNK_BYTES];
        let mut at = start + 1;
        while at + wide(HEADER_BYTES) <= self.end {
            let wanted = usize::try_from(self.end - at).unwrap_or(usize::MAX).min(CHUNK_BYTES);
            let window = window.get_mut(..wanted).unwrap_or_default();
            let got = read_at_most(&self.file, window, at)?;
            let found = window
                .get(..got)
                .unwrap_or_default()
                .windows(HEADER_BYTES)
                .position(|bytes| Header::read(self.salt, bytes).is_some_and(|header| header.row >= self.row_min));
            if let Some(skipped) = found {
                let after = at + wide(skipped);
                self.jump(after);
                return Ok(Found::Damaged { bytes: start..after, row: None });
            }
            if got < HEADER_BYTES {
                break;
            }
            at += wide(got - HEADER_BYTES + 1);
        }
        Ok(self.torn(None))
    }

    fn jump(&mut self, offset: u64) {
        self.buffer.clear();
        self.offset = offset;
    }

    fn take(&mut self, length: usize) -> Bytes {
        self.offset += wide(length);
        self.buffer.split_to(length).freeze()
    }

    /// Has at least `wanted` bytes in the buffer, or all that there are.
    fn fill(&mut self, wanted: usize) -> io::Result<()> {
        let have = self.buffer.len();
        if have >= wanted {
            return Ok(());
        }
        let left = self.end.saturating_sub(self.offset + wide(have));
        let read = wanted.max(CHUNK_BYTES) - have;
        let read = usize::try_from(left).unwrap_or(usize::MAX).min(read);
        self.buffer.resize(have + read, 0);
        let room = self.buffer.get_mut(have..).unwrap_or_default();
        let got = read_at_most(&self.file, room, self.offset + wide(have))?;
        self.buffer.truncate(have + got);
        Ok(())
    }
}

/// Reads until `room` is full or the file ends.
fn read_at_most(file: &File, room: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut got = 0;
    while let Some(rest) = room.get_mut(got..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + wide(got)) {
            Ok(0) => break,
            Ok(more) => got += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}
