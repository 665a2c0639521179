//! A line that a person edits: keys in, text and cursor out. Knows no terminal.

/// A key, as terminals of today send it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Char(char),
    Left,
    Right,
    Home,
    End,
    Up,
    Down,
    Backspace,
    Delete,
    /// Back to the begin of the word.
    WordBack,
    /// All before the cursor.
    KillBack,
    /// All behind the cursor.
    KillForward,
    Tab,
    Enter,
    /// Ctrl-C.
    Interrupt,
    /// Ctrl-D.
    Close,
    /// Nothing that is known.
    Other,
}

/// The next key of some bytes, and how many of them it took; `None` where more must come.
pub(super) fn key(bytes: &[u8]) -> Option<(Key, usize)> {
    let key = match bytes {
        [] | [0x1b] | [0x1b, b'[' | b'O'] => return None,
        [0x1b, b'[' | b'O', rest @ ..] => return escape(rest).map(|(key, taken)| (key, taken + 2)),
        [0x1b, ..] => return Some((Key::Other, 2)),
        [b'\r' | b'\n', ..] => Key::Enter,
        [b'\t', ..] => Key::Tab,
        [0x01, ..] => Key::Home,
        [0x03, ..] => Key::Interrupt,
        [0x04, ..] => Key::Close,
        [0x05, ..] => Key::End,
        [0x08 | 0x7f, ..] => Key::Backspace,
        [0x0b, ..] => Key::KillForward,
        [0x0e, ..] => Key::Down,
        [0x10, ..] => Key::Up,
        [0x15, ..] => Key::KillBack,
        [0x17, ..] => Key::WordBack,
        [0..0x20, ..] => Key::Other,
        _ => return char_of(bytes),
    };
    Some((key, 1))
}

/// What follows `ESC [`: parameters, then a letter.
fn escape(bytes: &[u8]) -> Option<(Key, usize)> {
    let end = bytes.iter().position(|byte| (0x40..=0x7e).contains(byte))?;
    let (parameters, last) = (bytes.get(..end)?, bytes.get(end)?);
    let key = match (parameters, last) {
        (_, b'A') => Key::Up,
        (_, b'B') => Key::Down,
        (_, b'C') => Key::Right,
        (_, b'D') => Key::Left,
        (_, b'H') | (b"1" | b"7", b'~') => Key::Home,
        (_, b'F') | (b"4" | b"8", b'~') => Key::End,
        (b"3", b'~') => Key::Delete,
        _ => Key::Other,
    };
    Some((key, end + 1))
}

fn char_of(bytes: &[u8]) -> Option<(Key, usize)> {
    let length = match bytes.first()? {
        0..0x80 => 1,
        0xc0..0xe0 => 2,
        0xe0..0xf0 => 3,
        0xf0..0xf8 => 4,
        _ => return Some((Key::Other, 1)),
    };
    let taken = bytes.get(..length)?;
    let char = std::str::from_utf8(taken).ok().and_then(|text| text.chars().next());
    Some(char.map_or((Key::Other, 1), |char| (Key::Char(char), length)))
}

/// Text and cursor.
#[derive(Clone, Debug, Default)]
pub(super) struct Line {
    text: Vec<char>,
    at: usize,
}

impl Line {
    /// With the cursor at its end.
    pub(super) fn of(text: &str) -> Line {
        let text: Vec<char> = text.chars().collect();
        Line { at: text.len(), text }
    }

    pub(super) fn text(&self) -> String {
        self.text.iter().collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// What stands before the cursor.
    pub(super) fn before(&self) -> String {
        self.text.iter().take(self.at).collect()
    }

    pub(super) fn insert(&mut self, text: &str) {
        for char in text.chars() {
            self.text.insert(self.at.min(self.text.len()), char);
            self.at += 1;
        }
    }

    /// Takes a key that edits; others change nothing.
    pub(super) fn edit(&mut self, key: Key) {
        let end = self.text.len();
        match key {
            Key::Char(char) => self.insert(char.encode_utf8(&mut [0; 4])),
            Key::Left => self.at = self.at.saturating_sub(1),
            Key::Right => self.at = (self.at + 1).min(end),
            Key::Home => self.at = 0,
            Key::End => self.at = end,
            Key::Backspace => self.remove(self.at.saturating_sub(1)),
            Key::Delete => drop(self.text.drain(self.at..(self.at + 1).min(end))),
            Key::KillBack => self.remove(0),
            Key::KillForward => self.text.truncate(self.at),
            Key::WordBack => {
                let before = self.text.get(..self.at).unwrap_or_default();
                let word = before.iter().rposition(|char| !char.is_whitespace()).unwrap_or(0);
                let begin = before.get(..word).unwrap_or_default().iter().rposition(|char| char.is_whitespace());
                self.remove(begin.map_or(0, |space| space + 1));
            }
            Key::Up | Key::Down | Key::Tab | Key::Enter | Key::Interrupt | Key::Close | Key::Other => {}
        }
    }

    /// Removes what stands from a place up to the cursor.
    fn remove(&mut self, from: usize) {
        let from = from.min(self.at);
        self.text.drain(from..self.at.min(self.text.len()));
        self.at = from;
    }

    /// What of it is shown in so many columns, and where the cursor is in that.
    pub(super) fn window(&self, columns: usize) -> (String, usize) {
        let columns = columns.max(1);
        let from = (self.at + 1).saturating_sub(columns);
        (self.text.iter().skip(from).take(columns).collect(), self.at - from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys as bytes; `|` shows the cursor.
    #[track_caller]
    fn check(bytes: &str, expect: &str) {
        let (mut line, mut rest) = (Line::default(), bytes.as_bytes());
        while let Some((key, taken)) = key(rest) {
            line.edit(key);
            rest = &rest[taken..];
        }
        assert!(rest.is_empty(), "{rest:?} is no key");
        let after: String = line.text.iter().skip(line.at).collect();
        assert_eq!(format!("{}|{after}", line.before()), expect, "{bytes:?}");
    }

    #[test]
    fn keys_edit() {
        check("select", "select|");
        check("abc\u{1b}[D\u{1b}[Dx", "ax|bc");
        check("abc\u{1}x\u{5}y", "xabcy|");
        check("abc\u{1b}[H\u{1b}[3~", "|bc");
        check("äöü\u{7f}\u{7f}", "ä|");
        check("select count\u{17}", "select |");
        check("select count  \u{17}\u{17}x", "x|");
        check("abc\u{1b}[D\u{15}", "|c");
        check("abc\u{1b}[D\u{b}", "ab|");
        check("\u{7f}\u{1b}[D\u{1b}[C\u{1b}[3~", "|");
        check("a\u{1b}[1;5Cb\u{1b}[200~c", "abc|"); // with modifiers, and what is not known
    }

    #[test]
    fn a_key_may_come_in_parts() {
        assert_eq!(key(b"\x1b"), None);
        assert_eq!(key(b"\x1b[1;"), None);
        assert_eq!(key("ü".as_bytes().get(..1).unwrap()), None);
        assert_eq!(key(b"\xff"), Some((Key::Other, 1)));
    }

    #[test]
    fn long_lines_are_seen_where_the_cursor_is() {
        let line = Line::of("0123456789");
        assert_eq!(line.window(20), ("0123456789".to_owned(), 10));
        assert_eq!(line.window(5), ("6789".to_owned(), 4));
    }
}
