//! Cuts the bytes of a connection into messages, and refuses those that lie about lengths.
//!
//! `pgwire` decodes what it is given, and panics where a length within a message reaches beyond it. So a message is cut off whole,
//! never longer than is allowed, and the lengths within are followed before it is decoded.

use std::io;

use bytes::{Buf, Bytes, BytesMut};

/// Bytes of a message, which holds a statement and its parameters.
const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// Bytes of the first message, as PostgreSQL has it.
const STARTUP_BYTES_MAX: usize = 10_000;

/// Takes one message off, with its head; `None` while more must come. The first one has no kind.
pub(super) fn take(buffer: &mut BytesMut, first: bool) -> io::Result<Option<BytesMut>> {
    let (head, max) = if first { (0, STARTUP_BYTES_MAX) } else { (1, MESSAGE_BYTES_MAX) };
    let Some(length) = buffer.get(head..head + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes)
    else {
        return Ok(None);
    };
    let length = usize::try_from(length).ok().filter(|length| (4..=max).contains(length));
    let length = length.ok_or_else(|| broken("a message is too long or too short"))?;
    if buffer.len() < head + length {
        return Ok(None);
    }
    let message = buffer.split_to(head + length);
    if !first {
        check(&message)?;
    }
    Ok(Some(message))
}

/// Follows the lengths within a message.
fn check(message: &BytesMut) -> io::Result<()> {
    let mut body = Bytes::copy_from_slice(message.get(5..).unwrap_or_default());
    let sound = match message.first() {
        Some(b'B') => bind(&mut body),
        Some(b'P') => text(&mut body).and_then(|()| text(&mut body)).and_then(|()| list(&mut body, 4)),
        Some(b'Q') => text(&mut body),
        Some(b'C' | b'D') => skip(&mut body, 1).and_then(|()| text(&mut body)),
        Some(b'E') => text(&mut body).and_then(|()| skip(&mut body, 4)),
        Some(b'p') => password(&mut body),
        Some(b'S' | b'H' | b'X') => Some(()),
        Some(b'd' | b'c' | b'f') => None, // COPY is never under way
        _ => None,
    };
    sound.ok_or_else(|| broken("a message is broken"))
}

fn bind(body: &mut Bytes) -> Option<()> {
    text(body)?;
    text(body)?;
    list(body, 2)?;
    for _ in 0..count(body)? {
        match number(body)? {
            -1 => {}
            length => skip(body, usize::try_from(length).ok()?)?,
        }
    }
    list(body, 2)
}

/// A password, or one of SASL's answers, of which only the first has a length within.
fn password(body: &mut Bytes) -> Option<()> {
    let Some(end) = body.iter().position(|byte| *byte == 0).filter(|_| body.starts_with(b"SCRAM-")) else {
        return Some(());
    };
    skip(body, end + 1)?;
    match number(body)? {
        -1 => Some(()),
        length => skip(body, usize::try_from(length).ok()?),
    }
}

fn text(body: &mut Bytes) -> Option<()> {
    let end = body.iter().position(|byte| *byte == 0)?;
    skip(body, end + 1)
}

fn list(body: &mut Bytes, width: usize) -> Option<()> {
    let elements = count(body)?;
    skip(body, elements * width)
}

fn count(body: &mut Bytes) -> Option<usize> {
    (body.len() >= 2).then(|| usize::from(body.get_u16()))
}

fn number(body: &mut Bytes) -> Option<i32> {
    (body.len() >= 4).then(|| body.get_i32())
}

fn skip(body: &mut Bytes, bytes: usize) -> Option<()> {
    (body.len() >= bytes).then(|| body.advance(bytes))
}

fn broken(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes: &[u8], expect: &str) {
        let mut buffer = BytesMut::from(bytes);
        let found = match take(&mut buffer, false) {
            Ok(None) => "more".to_owned(),
            Ok(Some(message)) => format!("{} of {}", message.len(), bytes.len()),
            Err(error) => error.to_string(),
        };
        assert_eq!(found, expect, "{bytes:?}");
    }

    #[test]
    fn messages_are_cut_and_checked() {
        check(b"", "more");
        check(b"Q\0\0\0\x06a", "more");
        check(b"Q\0\0\0\x06a\0X", "7 of 8");
        check(b"Q\0\0\0\x06ab", "a message is broken");
        check(b"Q\0\0\0\x03", "a message is too long or too short");
        check(b"Q\x3f\0\0\0", "a message is too long or too short");
        check(b"B\0\0\0\x12\0\0\0\0\0\x01\0\0\0\x02ab\0\0", "19 of 19");
        check(b"B\0\0\0\x12\0\0\0\0\0\x01\0\0\0\x22ab\0\0", "a message is broken");
        check(b"B\0\0\0\x12\0\0\0\0\0\x09\0\0\0\x02ab\0\0", "a message is broken");
        check(b"p\0\0\0\x16SCRAM-SHA-256\0\0\0\0\x7f", "a message is broken");
        check(b"?\0\0\0\x04", "a message is broken");
    }
}
