//! Where a JSON document ends, byte by byte and as soon as it is known to be broken.
//!
//! Only the structure is followed (brackets, keys, commas, strings): enough to find the end of a document, and to see a
//! truncated one at the first byte that cannot follow. Whether it is valid in every detail is the decoder's matter.

/// Deeper documents are given up: no decoder takes them, and the stack must have an end.
const DEPTH_MAX: usize = 4_096;

/// What a byte did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The document goes on.
    More,
    /// The document ends with this byte.
    Done,
    /// The document (a number or a word) ended before this byte.
    DoneBefore,
    /// This byte cannot follow.
    Broken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    Value,
    ValueOrEnd,
    Key,
    KeyOrEnd,
    Colon,
    CommaOrEnd,
    Text { key: bool, escaped: bool },
    Atom,
}

/// The automaton; one per document.
pub(super) struct Scan {
    stack: Vec<u8>,
    expect: Expect,
}

impl Scan {
    pub(super) const fn new() -> Scan {
        Scan { stack: Vec::new(), expect: Expect::Value }
    }

    /// Takes the next byte.
    pub(super) fn step(&mut self, byte: u8) -> Step {
        match self.expect {
            Expect::Text { key, escaped: true } => self.go(Expect::Text { key, escaped: false }),
            Expect::Text { key, escaped: false } => match byte {
                b'\\' => self.go(Expect::Text { key, escaped: true }),
                b'"' if key => self.go(Expect::Colon),
                b'"' => self.closed(),
                b'\n' => Step::Broken,
                _ => Step::More,
            },
            Expect::Atom if byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.') => Step::More,
            Expect::Atom if self.stack.is_empty() => Step::DoneBefore,
            Expect::Atom => {
                self.expect = Expect::CommaOrEnd;
                self.step(byte)
            }
            _ if byte.is_ascii_whitespace() => Step::More,
            Expect::Colon if byte == b':' => self.go(Expect::Value),
            Expect::Key | Expect::KeyOrEnd if byte == b'"' => self.go(Expect::Text { key: true, escaped: false }),
            Expect::KeyOrEnd if byte == b'}' => self.close(byte),
            Expect::ValueOrEnd if byte == b']' => self.close(byte),
            Expect::CommaOrEnd => match (byte, self.stack.last()) {
                (b',', Some(b'{')) => self.go(Expect::Key),
                (b',', Some(b'[')) => self.go(Expect::Value),
                (b'}' | b']', _) => self.close(byte),
                _ => Step::Broken,
            },
            Expect::Value | Expect::ValueOrEnd => self.value(byte),
            Expect::Colon | Expect::Key | Expect::KeyOrEnd => Step::Broken,
        }
    }

    fn value(&mut self, byte: u8) -> Step {
        match byte {
            b'{' | b'[' if self.stack.len() >= DEPTH_MAX => Step::Broken,
            b'{' | b'[' => {
                self.stack.push(byte);
                self.go(if byte == b'{' { Expect::KeyOrEnd } else { Expect::ValueOrEnd })
            }
            b'"' => self.go(Expect::Text { key: false, escaped: false }),
            b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => self.go(Expect::Atom),
            _ => Step::Broken,
        }
    }

    fn close(&mut self, byte: u8) -> Step {
        match (self.stack.pop(), byte) {
            (Some(b'{'), b'}') | (Some(b'['), b']') => self.closed(),
            _ => Step::Broken,
        }
    }

    fn closed(&mut self) -> Step {
        self.expect = Expect::CommaOrEnd;
        if self.stack.is_empty() { Step::Done } else { Step::More }
    }

    fn go(&mut self, expect: Expect) -> Step {
        self.expect = expect;
        Step::More
    }
}
