//! A record to a tape of nodes: strict, in one walk, nothing copied.
//!
//! The walk looks at every byte outside strings itself; only the ends of strings come from [`Marks`]. So a document that
//! is not valid JSON (RFC 8259) is never taken for one, whatever the marks say.

use cf_types::field::Names;

use super::{
    keys::{Keys, NO_KEY},
    marks::{Marks, Quotes},
};

/// One value or name of a document.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    /// Its part of the record; of a string what stands between the quotes.
    pub(super) start: u32,
    pub(super) end: u32,
    /// Of an object or array: how many nodes are inside. Of a name: its number in [`Keys`].
    pub(super) extra: u32,
}

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Object,
    Array,
    /// The name of a member; its value follows.
    Key,
    KeyEscaped,
    Text,
    TextEscaped,
    /// A whole number of at most 64 bits, written as everybody writes it.
    Whole,
    /// Any other number.
    Number,
    True,
    False,
    Null,
}

/// Why a record is no document: what exactly is asked of somebody slower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Invalid,
    TooDeep,
}

/// Buffers for reading one document after the other.
#[derive(Debug, Default)]
pub(super) struct Reader {
    marks: Marks,
    pub(super) nodes: Vec<Node>,
}

struct Walk<'r> {
    bytes: &'r [u8],
    text: &'r str,
    at: usize,
    quotes: Quotes<'r>,
    /// Where the next escape begins.
    escape: usize,
    marks: &'r Marks,
    nodes: &'r mut Vec<Node>,
    keys: &'r mut Keys,
    names: &'r Names,
    depth_max: usize,
}

impl Reader {
    /// Where the quotes and escapes of the document stand.
    pub(super) const fn marks(&self) -> &Marks {
        &self.marks
    }

    /// Reads a document of at most 4 GiB into [`Reader::nodes`].
    pub(super) fn read(&mut self, text: &str, keys: &mut Keys, names: &Names, depth_max: usize) -> Result<(), Fault> {
        self.nodes.clear();
        if u32::try_from(text.len()).is_err() {
            return Err(Fault::Invalid);
        }
        self.marks.read(text.as_bytes());
        let Reader { marks, nodes } = self;
        let (bytes, quotes, escape) = (text.as_bytes(), marks.quotes(), marks.escape_from(0));
        let mut walk = Walk { bytes, text, at: 0, quotes, escape, marks, nodes, keys, names, depth_max };
        walk.blank();
        walk.value(0)?;
        walk.blank();
        if walk.at == text.len() { Ok(()) } else { Err(Fault::Invalid) }
    }
}

impl Walk<'_> {
    #[inline]
    fn byte(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    /// Skips white space; most documents of machines have none.
    #[inline]
    fn blank(&mut self) {
        while matches!(self.byte(), b' ' | b'\n' | b'\r' | b'\t') {
            self.at += 1;
        }
    }

    fn value(&mut self, depth: usize) -> Result<(), Fault> {
        match self.byte() {
            b'"' => {
                let (start, end, escaped) = self.string()?;
                self.push(if escaped { Kind::TextEscaped } else { Kind::Text }, start, end, 0);
                Ok(())
            }
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b't' => self.word(b"true", Kind::True),
            b'f' => self.word(b"false", Kind::False),
            b'n' => self.word(b"null", Kind::Null),
            b'-' | b'0'..=b'9' => self.number(),
            _ => Err(Fault::Invalid),
        }
    }

    fn object(&mut self, depth: usize) -> Result<(), Fault> {
        let opened = self.open(Kind::Object, depth)?;
        if self.byte() == b'}' {
            return self.close(opened);
        }
        loop {
            if self.byte() != b'"' {
                return Err(Fault::Invalid);
            }
            self.key()?;
            self.value(depth + 1)?;
            self.blank();
            match self.byte() {
                b',' => {
                    self.at += 1;
                    self.blank();
                }
                b'}' => return self.close(opened),
                _ => return Err(Fault::Invalid),
            }
        }
    }

    /// A member's name, and the colon behind it.
    #[inline]
    fn key(&mut self) -> Result<(), Fault> {
        let (start, end, escaped) = self.string()?;
        let number = match self.text.get(start..end) {
            Some(text) if !escaped => self.keys.number(text, self.names),
            _ => NO_KEY,
        };
        self.push(if escaped { Kind::KeyEscaped } else { Kind::Key }, start, end, number);
        self.blank();
        if self.byte() != b':' {
            return Err(Fault::Invalid);
        }
        self.at += 1;
        self.blank();
        Ok(())
    }

    fn array(&mut self, depth: usize) -> Result<(), Fault> {
        let opened = self.open(Kind::Array, depth)?;
        if self.byte() == b']' {
            return self.close(opened);
        }
        loop {
            self.value(depth + 1)?;
            self.blank();
            match self.byte() {
                b',' => {
                    self.at += 1;
                    self.blank();
                }
                b']' => return self.close(opened),
                _ => return Err(Fault::Invalid),
            }
        }
    }

    fn open(&mut self, kind: Kind, depth: usize) -> Result<usize, Fault> {
        if depth >= self.depth_max {
            return Err(Fault::TooDeep);
        }
        let opened = self.nodes.len();
        self.push(kind, self.at, self.at, 0);
        self.at += 1;
        self.blank();
        Ok(opened)
    }

    fn close(&mut self, opened: usize) -> Result<(), Fault> {
        self.at += 1;
        let inside = u32::try_from(self.nodes.len() - opened - 1).unwrap_or(u32::MAX);
        if let Some(node) = self.nodes.get_mut(opened) {
            node.extra = inside;
            node.end = u32::try_from(self.at).unwrap_or(u32::MAX);
        }
        Ok(())
    }

    /// What stands between the quotes of the string that begins here, and whether it has escapes.
    #[inline]
    fn string(&mut self) -> Result<(usize, usize, bool), Fault> {
        let open = self.quotes.next();
        let close = self.quotes.next();
        if open != self.at || close >= self.bytes.len() {
            return Err(Fault::Invalid);
        }
        let (start, end) = (open + 1, close);
        self.at = close + 1;
        // Strings come in order, and what is outside them has no backslash, or is refused.
        let escaped = self.escape < end;
        if escaped {
            self.escape = self.marks.escape_from(end);
        }
        if self.marks.controls || (escaped && self.marks.doubtful_escapes) {
            check_string(self.bytes.get(start..end).unwrap_or_default())?;
        }
        Ok((start, end, escaped))
    }

    fn word(&mut self, word: &[u8], kind: Kind) -> Result<(), Fault> {
        let start = self.at;
        if !self.bytes.get(start..).is_some_and(|rest| rest.starts_with(word)) {
            return Err(Fault::Invalid);
        }
        self.at += word.len();
        self.push(kind, start, self.at, 0);
        Ok(())
    }

    /// A number (RFC 8259, section 6).
    fn number(&mut self) -> Result<(), Fault> {
        let start = self.at;
        self.at += usize::from(self.byte() == b'-');
        let zero = self.byte() == b'0';
        let whole = self.digits();
        if whole == 0 || (zero && whole > 1) {
            return Err(Fault::Invalid);
        }
        let digits_end = self.at;
        if self.byte() == b'.' {
            self.at += 1;
            if self.digits() == 0 {
                return Err(Fault::Invalid);
            }
        }
        if matches!(self.byte(), b'e' | b'E') {
            self.at += 1;
            self.at += usize::from(matches!(self.byte(), b'+' | b'-'));
            if self.digits() == 0 {
                return Err(Fault::Invalid);
            }
        }
        let negative_zero = zero && self.bytes.get(start) == Some(&b'-');
        let is_whole = self.at == digits_end && !negative_zero;
        let plain = is_whole && (whole <= SHORT_DIGITS || fits_64_bits(self.text.get(start..self.at)));
        self.push(if plain { Kind::Whole } else { Kind::Number }, start, self.at, 0);
        Ok(())
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while self.byte().is_ascii_digit() {
            self.at += 1;
        }
        self.at - start
    }

    #[inline]
    fn push(&mut self, kind: Kind, start: usize, end: usize, extra: u32) {
        // The whole text is below 4 GiB.
        let place = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        self.nodes.push(Node { kind, start: place(start), end: place(end), extra });
    }
}

/// So many digits always fit 64 bits.
pub(super) const SHORT_DIGITS: usize = 18;

/// Whether a whole number is one of 64 bits, with or without sign: then it is written in one way only.
#[cold]
pub(super) fn fits_64_bits(number: Option<&str>) -> bool {
    number.is_some_and(|number| number.parse::<i64>().is_ok() || number.parse::<u64>().is_ok())
}

/// Whether a string has no control characters and only escapes that are (RFC 8259, section 7), surrogates in pairs.
#[cold]
fn check_string(bytes: &[u8]) -> Result<(), Fault> {
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        at += match byte {
            0..0x20 => return Err(Fault::Invalid),
            b'\\' => escape_len(bytes.get(at..).unwrap_or_default()).ok_or(Fault::Invalid)?,
            _ => 1,
        };
    }
    Ok(())
}

fn escape_len(bytes: &[u8]) -> Option<usize> {
    match bytes.get(1)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(2),
        b'u' => match code_unit(bytes)? {
            0xd800..0xdc00 => (0xdc00..0xe000).contains(&code_unit(bytes.get(6..)?)?).then_some(12),
            0xdc00..0xe000 => None,
            _ => Some(6),
        },
        _ => None,
    }
}

fn code_unit(bytes: &[u8]) -> Option<u32> {
    let digits = bytes.get(..6)?.strip_prefix(b"\\u")?;
    digits.iter().try_fold(0, |unit, digit| Some(unit * 16 + char::from(*digit).to_digit(16)?))
}
