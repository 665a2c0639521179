//! How a [`Record`] lies in a row.
//!
//! ```text
//! version u8 | flags u8 | framing u8 | received_at i64 | year i16, if flagged | tenant | source
//!   | position: origin, offset u64, line u64, index u32, if flagged | bytes to the end
//! ```
//!
//! Texts have their length before them as u32; all numbers are little endian. A record without an origin in its
//! position was pushed to us: its position is its row, given when it is read.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use cf_types::{Framing, Origin, Position, Record, Tenant, Time};
use thiserror::Error;

const VERSION: u8 = 1;
const HAS_YEAR: u8 = 1;
const HAS_POSITION: u8 = 2;

/// The name that positions of pushed records have as their origin.
pub const ORIGIN: &str = "spool";

/// Why a row is no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Written by a later version of this program.
    #[error("a spooled record has version {0}, which this program does not know")]
    Version(u8),
    /// Its checksum holds, but it does not read: a fault of ours.
    #[error("a spooled record does not read")]
    Malformed,
}

/// Makes a row of a record.
#[must_use]
pub fn encode(record: &Record) -> Bytes {
    let Record { origin, position, bytes } = record;
    let texts = origin.tenant.as_str().len() + origin.source.len() + position.origin.len();
    let mut out = Vec::with_capacity(48 + texts + bytes.len());
    let placed = !position.origin.is_empty();
    let flags = if origin.year.is_some() { HAS_YEAR } else { 0 } | if placed { HAS_POSITION } else { 0 };
    out.put_u8(VERSION);
    out.put_u8(flags);
    out.put_u8(framing_to_byte(origin.framing));
    out.put_i64_le(origin.received_at.micros());
    if let Some(year) = origin.year {
        out.put_i16_le(year);
    }
    put_text(origin.tenant.as_str(), &mut out);
    put_text(&origin.source, &mut out);
    if placed {
        put_text(&position.origin, &mut out);
        out.put_u64_le(position.offset);
        out.put_u64_le(position.line);
        out.put_u32_le(position.index);
    }
    out.extend_from_slice(bytes);
    Bytes::from(out)
}

/// Reads rows back as records; shares what follows each other with the same origin.
#[derive(Debug, Default)]
pub struct RecordDecoder {
    last: Option<Arc<Origin>>,
    origin: Option<Arc<str>>,
}

impl RecordDecoder {
    /// Reads one row.
    ///
    /// # Errors
    ///
    /// When it is no record.
    pub fn decode(&mut self, row: u64, mut payload: Bytes) -> Result<Record, DecodeError> {
        let version = payload.try_get_u8().map_err(|_| DecodeError::Malformed)?;
        if version != VERSION {
            return Err(DecodeError::Version(version));
        }
        let (origin, position) = self.header(row, &mut payload).ok_or(DecodeError::Malformed)?;
        Ok(Record { origin, position, bytes: payload })
    }

    fn header(&mut self, row: u64, payload: &mut Bytes) -> Option<(Arc<Origin>, Position)> {
        let flags = payload.try_get_u8().ok()?;
        let framing = framing_of_byte(payload.try_get_u8().ok()?)?;
        let received_at = Time::from_micros(payload.try_get_i64_le().ok()?);
        let year = if flags & HAS_YEAR == 0 { None } else { Some(payload.try_get_i16_le().ok()?) };
        let tenant = take_text(payload)?;
        let source = take_text(payload)?;
        let origin = self.origin(
            std::str::from_utf8(&tenant).ok()?,
            std::str::from_utf8(&source).ok()?,
            |origin| origin.received_at == received_at && origin.year == year && origin.framing == framing,
            |tenant, source| Origin { tenant, source, received_at, year, framing },
        );
        let position = if flags & HAS_POSITION == 0 {
            Position { origin: self.text(ORIGIN), offset: row, line: 0, index: 0 }
        } else {
            let placed = take_text(payload)?;
            Position {
                origin: self.text(std::str::from_utf8(&placed).ok()?),
                offset: payload.try_get_u64_le().ok()?,
                line: payload.try_get_u64_le().ok()?,
                index: payload.try_get_u32_le().ok()?,
            }
        };
        Some((origin, position))
    }

    /// The last origin if it is the same, else one that shares its texts where they are.
    fn origin(
        &mut self,
        tenant: &str,
        source: &str,
        same: impl FnOnce(&Origin) -> bool,
        make: impl FnOnce(Tenant, Arc<str>) -> Origin,
    ) -> Arc<Origin> {
        let last = self.last.as_ref();
        let (same_tenant, same_source) =
            last.map_or((false, false), |last| (last.tenant.as_str() == tenant, *last.source == *source));
        if let Some(last) = last.filter(|last| same_tenant && same_source && same(last)) {
            return Arc::clone(last);
        }
        let tenant = last.filter(|_| same_tenant).map_or_else(|| Tenant::new(tenant), |last| last.tenant.clone());
        let source = last.filter(|_| same_source).map_or_else(|| Arc::from(source), |last| Arc::clone(&last.source));
        let origin = Arc::new(make(tenant, source));
        self.last = Some(Arc::clone(&origin));
        origin
    }

    fn text(&mut self, text: &str) -> Arc<str> {
        match &self.origin {
            Some(last) if **last == *text => Arc::clone(last),
            _ => {
                let fresh: Arc<str> = Arc::from(text);
                self.origin = Some(Arc::clone(&fresh));
                fresh
            }
        }
    }
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    // Longer ones cannot come: a row is shorter than that.
    out.put_u32_le(u32::try_from(text.len()).unwrap_or(u32::MAX));
    out.extend_from_slice(text.as_bytes());
}

fn take_text(payload: &mut Bytes) -> Option<Bytes> {
    let length = usize::try_from(payload.try_get_u32_le().ok()?).ok()?;
    (length <= payload.len()).then(|| payload.split_to(length))
}

const fn framing_to_byte(framing: Framing) -> u8 {
    match framing {
        Framing::Record => 0,
        Framing::Syslog => 1,
        Framing::Http => 2,
        Framing::Evtx => 3,
        Framing::Unframed => 4,
    }
}

const fn framing_of_byte(byte: u8) -> Option<Framing> {
    Some(match byte {
        0 => Framing::Record,
        1 => Framing::Syslog,
        2 => Framing::Http,
        3 => Framing::Evtx,
        4 => Framing::Unframed,
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
