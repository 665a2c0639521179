//! Cutting a stream of text into records.
//!
//! Line by line what a line begins with decides: a brace begins a JSON document (which may go on over lines, or be
//! followed by another on the same line), a bracket before a brace an array of documents, anything else is a line of
//! text. A document that breaks becomes one unframed record, and reading goes on at the next line, or at the first line
//! inside it that begins with a bracket in column 0: the next record of a file in which one line was truncated.

use std::{
    io::{self, Read},
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use cf_types::{Origin, Position, Record};

use super::{
    FileError, Origins,
    scan::{Scan, Step},
};
use crate::decode::is_json;

/// How much is read at once.
const BLOCK_BYTES: usize = 262_144;
/// White space looked through behind a bracket for what an array begins with.
const LOOK_AHEAD_BYTES: usize = 4_096;

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
    mode: Mode,
    ended: bool,
    /// Why reading stopped; told when all that was read is given.
    failed: Option<io::Error>,
}

/// What the buffer's first byte may begin.
#[derive(Clone, Debug, PartialEq)]
enum Mode {
    /// The stream: a byte order mark may come.
    Start,
    /// A line.
    Line,
    /// What stands behind a document on its line.
    Rest,
    /// An element of an array that began there, or its end.
    Element(Position),
    /// The comma behind an element of an array that began there, or its end.
    Comma(Position),
}

/// Where the line of a byte ends.
enum LineEnd {
    /// Before this byte, with this many bytes of line end.
    At(usize, usize),
    /// Further away than a record may be long.
    Beyond,
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
            mode: Mode::Start,
            ended: false,
            failed: None,
        }
    }

    /// The next record; `None` when nothing is left.
    fn frame(&mut self) -> Option<Record> {
        if self.mode == Mode::Start {
            self.mode = Mode::Line;
            if self.byte(2).is_some() && self.buffer.starts_with(b"\xef\xbb\xbf") {
                self.consume(3);
            }
        }
        loop {
            match self.mode.clone() {
                Mode::Start | Mode::Line | Mode::Rest => {
                    let (at, first) = self.first_of_line()?;
                    match first {
                        b'{' => return Some(self.document(at)),
                        b'[' if self.begins_array(at) => {
                            let position = self.place(at);
                            self.consume(at + 1);
                            self.mode = Mode::Element(position);
                        }
                        b',' if self.mode == Mode::Rest => self.consume(at + 1), // lines that were cut out of an array
                        _ => return Some(self.text_line()),
                    }
                }
                Mode::Element(array) => match self.first(array.clone()) {
                    Ok((at, b']')) => self.end_array(at),
                    Ok((at, _)) => {
                        self.mode = Mode::Comma(array);
                        return Some(self.document(at));
                    }
                    Err(unended) => return Some(unended),
                },
                Mode::Comma(array) => match self.first(array.clone()) {
                    Ok((at, b',')) => {
                        self.consume(at + 1);
                        self.mode = Mode::Element(array);
                    }
                    Ok((at, b']')) => self.end_array(at),
                    Ok(_) => self.mode = Mode::Rest, // no array any more: what stands there is judged for itself
                    Err(unended) => return Some(unended),
                },
            }
        }
    }

    fn end_array(&mut self, at: usize) {
        self.consume(at + 1);
        self.mode = Mode::Rest;
    }

    /// The first byte that is no white space on the present line or a later one; `None` at the end.
    fn first_of_line(&mut self) -> Option<(usize, u8)> {
        let mut at = 0;
        loop {
            match self.byte(at)? {
                b'\n' => {
                    self.consume(at + 1);
                    self.mode = Mode::Line;
                    at = 0;
                }
                b' ' | b'\t' | b'\r' | 0x0b | 0x0c => {
                    at += 1;
                    if at > self.record_bytes_max {
                        self.consume(at); // blanks without end are nothing, and must not be kept
                        at = 0;
                    }
                }
                byte => return Some((at, byte)),
            }
        }
    }

    /// The first byte inside an array that is no white space; at the end the array's beginning as what is broken.
    fn first(&mut self, array: Position) -> Result<(usize, u8), Record> {
        loop {
            match self.byte(0) {
                Some(byte) if byte.is_ascii_whitespace() => {
                    let blanks = self.buffer.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
                    self.consume(blanks);
                }
                Some(byte) => return Ok((0, byte)),
                None => {
                    self.mode = Mode::Line;
                    let origin = Arc::clone(&self.origins.unframed);
                    return Err(Record { origin, position: array, bytes: Bytes::from_static(b"[") });
                }
            }
        }
    }

    /// Whether the bracket there begins a JSON array, and not a line of text like `[error] ..`.
    fn begins_array(&mut self, at: usize) -> bool {
        let mut next = at + 1;
        while let Some(byte) = self.byte(next).filter(|_| next < at + LOOK_AHEAD_BYTES) {
            if !byte.is_ascii_whitespace() {
                if byte == b'{' {
                    return true;
                }
                break;
            }
            next += 1;
        }
        // Of anything else than objects it must be whole on its line.
        let LineEnd::At(end, _) = self.line_end(at) else {
            return false;
        };
        let line = self.buffer.get(at..end).unwrap_or_default().trim_ascii();
        line.ends_with(b"]") && is_json(line).is_ok()
    }

    /// A JSON document that begins at a byte.
    fn document(&mut self, at: usize) -> Record {
        if matches!(self.mode, Mode::Line | Mode::Rest)
            && let LineEnd::At(end, ending) = self.line_end(at)
            && self.buffer.get(at..end).is_some_and(|line| is_one_document(line.trim_ascii_end()))
        {
            self.mode = Mode::Line;
            let origin = Arc::clone(&self.origins.record);
            return self.cut(origin, at, end, end + ending);
        }
        let is_object = self.byte(at) == Some(b'{');
        let mut scan = Scan::new();
        let mut end = at;
        while let Some(byte) = self.byte(end) {
            match scan.step(byte) {
                Step::More => end += 1,
                Step::Done => return self.framed(is_object, at, end + 1),
                Step::DoneBefore => return self.framed(is_object, at, end),
                Step::Broken => return self.broken(at, end),
            }
            if end - at > self.record_bytes_max {
                return self.too_long(at, Some(scan));
            }
        }
        self.broken(at, end)
    }

    fn framed(&mut self, is_object: bool, at: usize, end: usize) -> Record {
        if self.mode == Mode::Line {
            self.mode = Mode::Rest;
        }
        let origin = Arc::clone(if is_object { &self.origins.record } else { &self.origins.unframed });
        self.cut(origin, at, end, end)
    }

    /// A document that cannot go on at `end`.
    fn broken(&mut self, at: usize, end: usize) -> Record {
        self.mode = Mode::Line;
        let inside = self.buffer.get(at..end + 1).or_else(|| self.buffer.get(at..)).unwrap_or_default();
        let next = memchr::memchr_iter(b'\n', inside)
            .find(|newline| matches!(inside.get(newline + 1), Some(b'{' | b'[')))
            .map(|newline| at + newline + 1);
        if let Some(next) = next {
            let origin = Arc::clone(&self.origins.unframed);
            return self.cut(origin, at, next - 1, next);
        }
        match self.line_end(end) {
            LineEnd::At(end, ending) if end - at <= self.record_bytes_max => {
                let origin = Arc::clone(&self.origins.unframed);
                self.cut(origin, at, end, end + ending)
            }
            _ => self.too_long(at, None),
        }
    }

    /// One line of text, or what stands behind a document on its line.
    fn text_line(&mut self) -> Record {
        let is_rest = self.mode == Mode::Rest;
        self.mode = Mode::Line;
        let LineEnd::At(end, ending) = self.line_end(0) else {
            return self.too_long(0, None);
        };
        let is_cut = ending == 0 && self.failed.is_some();
        let content = self.buffer.get(..end).unwrap_or_default();
        let origin = if is_rest || is_cut { &self.origins.unframed } else { self.origins.of_line(content) };
        let origin = Arc::clone(origin);
        self.cut(origin, 0, end, end + ending)
    }

    /// Gives the beginning of what is longer than a record may be, one byte more than allowed so that the decoder sees
    /// it, and forgets the rest: to the end of the document as far as it holds together, else to the end of the line.
    fn too_long(&mut self, at: usize, scan: Option<Scan>) -> Record {
        let kept = at + self.record_bytes_max + 1;
        let _enough = self.byte(kept - 1);
        let kept = kept.min(self.buffer.len());
        let origin = Arc::clone(&self.origins.unframed);
        let record = self.cut(origin, at, kept, kept);
        if let Some(mut scan) = scan
            && self.discard(|byte| scan.step(byte))
        {
            self.mode = if self.mode == Mode::Line { Mode::Rest } else { self.mode.clone() };
            return record;
        }
        self.mode = Mode::Line;
        self.discard(|byte| if byte == b'\n' { Step::Done } else { Step::More });
        record
    }

    /// Consumes bytes while they are `More`; says whether that ended well.
    fn discard(&mut self, mut step: impl FnMut(u8) -> Step) -> bool {
        loop {
            let found = self.buffer.iter().enumerate().find_map(|(at, byte)| match step(*byte) {
                Step::More => None,
                end => Some((at, end)),
            });
            match found {
                Some((at, Step::Done)) => {
                    self.consume(at + 1);
                    return true;
                }
                Some((at, end)) => {
                    self.consume(at);
                    return end == Step::DoneBefore;
                }
                None => {
                    self.consume(self.buffer.len());
                    if self.byte(0).is_none() {
                        return false;
                    }
                }
            }
        }
    }

    fn line_end(&mut self, from: usize) -> LineEnd {
        let mut searched = from;
        loop {
            if let Some(newline) = memchr::memchr(b'\n', self.buffer.get(searched..).unwrap_or_default()) {
                let newline = searched + newline;
                if newline - from > self.record_bytes_max + 1 {
                    return LineEnd::Beyond;
                }
                let is_crlf = newline > from && self.buffer.get(newline - 1) == Some(&b'\r');
                return if is_crlf { LineEnd::At(newline - 1, 2) } else { LineEnd::At(newline, 1) };
            }
            searched = self.buffer.len();
            if searched.saturating_sub(from) > self.record_bytes_max + 1 {
                return LineEnd::Beyond;
            }
            if self.ended {
                return LineEnd::At(searched, 0);
            }
            self.fill();
        }
    }

    /// The byte there, read if need be.
    fn byte(&mut self, at: usize) -> Option<u8> {
        while at >= self.buffer.len() && !self.ended {
            self.fill();
        }
        self.buffer.get(at).copied()
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.buffer.capacity()
    }

    fn fill(&mut self) {
        let held = self.buffer.len();
        self.buffer.resize(held + BLOCK_BYTES, 0);
        let read = loop {
            match self.input.read(self.buffer.get_mut(held..).unwrap_or_default()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        self.buffer.truncate(held + read.as_ref().map_or(0, |read| *read));
        match read {
            Ok(read) => self.ended = read == 0,
            Err(error) => {
                self.ended = true;
                self.failed = Some(error);
            }
        }
    }

    /// Gives `at..end` as a record and goes on at `next`.
    fn cut(&mut self, origin: Arc<Origin>, at: usize, end: usize, next: usize) -> Record {
        let position = self.place(at);
        let bytes = self.split(next).slice(at..end);
        Record { origin, position, bytes }
    }

    fn place(&self, at: usize) -> Position {
        let before = self.buffer.get(..at).unwrap_or_default();
        Position {
            origin: Arc::clone(&self.path),
            offset: self.offset + wide(at),
            line: self.line + wide(memchr::memchr_iter(b'\n', before).count()),
            index: 0,
        }
    }

    fn consume(&mut self, len: usize) {
        self.split(len);
    }

    fn split(&mut self, len: usize) -> Bytes {
        let taken = self.buffer.split_to(len.min(self.buffer.len())).freeze();
        self.offset += wide(taken.len());
        self.line += wide(memchr::memchr_iter(b'\n', &taken).count());
        taken
    }
}

impl Iterator for Frames {
    type Item = Result<Record, FileError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(record) = self.frame() {
            return Some(Ok(record));
        }
        let cause = self.failed.take()?;
        Some(Err(FileError::Read { path: self.path.to_string(), offset: self.offset, cause }))
    }
}

/// Whether a line that begins with a brace holds just one document, as far as brackets tell: they are even, and none
/// closes right before another opens. What they do not tell apart the decoder does.
fn is_one_document(line: &[u8]) -> bool {
    let mut open = 0_usize;
    let mut closed = 0_usize;
    for at in memchr::memchr2_iter(b'{', b'}', line) {
        if line.get(at) == Some(&b'{') {
            open += 1;
            continue;
        }
        closed += 1;
        let after = line.get(at + 1..).unwrap_or_default();
        if matches!(after.iter().find(|byte| !byte.is_ascii_whitespace()), Some(b'{' | b'[')) {
            return false;
        }
    }
    open == closed && line.ends_with(b"}")
}

fn wide(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
