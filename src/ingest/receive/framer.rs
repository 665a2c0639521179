//! Cuts a TCP stream into syslog messages: octet counting and line feeds (RFC 6587), told apart message by message.
//!
//! A message that begins with a count, a space and `<` is counted; every other one ends with a line feed. The `<` is
//! looked at because senders of bare lines begin some of them with a number.

use bytes::{Buf, Bytes, BytesMut};
use cf_types::Framing;

/// Where in the stream it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Between messages.
    Between,
    /// In a message that ends with a line feed; so many bytes have been searched for it.
    Line { searched: usize },
    /// In a message of this length.
    Counted { length: u64 },
    /// In what is left of a line that was too long.
    SkipLine,
    /// In what is left of a counted message that was too long.
    Skip { left: u64 },
}

#[derive(Debug)]
pub(super) struct Framer {
    state: State,
    message_bytes_max: usize,
}

impl Framer {
    pub(super) fn new(message_bytes_max: usize) -> Framer {
        Framer { state: State::Between, message_bytes_max }
    }

    /// Whether a message has begun and not ended.
    pub(super) fn is_inside(&self, buffer: &BytesMut) -> bool {
        self.state != State::Between || !buffer.is_empty()
    }

    /// Takes the next message out of the buffer; `None` when more bytes are needed.
    ///
    /// Of one that is too long, the first bytes are given, one more than allowed: so the decoder sees that it is.
    pub(super) fn next(&mut self, buffer: &mut BytesMut) -> Option<(Framing, Bytes)> {
        loop {
            match self.state {
                State::Between => {
                    // Some senders of counted messages put a line feed behind each.
                    let trailers = buffer.iter().take_while(|byte| matches!(byte, b'\n' | b'\r' | 0)).count();
                    buffer.advance(trailers);
                    self.state = begin(buffer)?;
                }
                State::Line { searched } => return self.line(buffer, searched),
                State::Counted { length } => return self.counted(buffer, length),
                State::SkipLine => match memchr::memchr(b'\n', buffer) {
                    Some(end) => {
                        buffer.advance(end + 1);
                        self.state = State::Between;
                    }
                    None => {
                        buffer.clear();
                        return None;
                    }
                },
                State::Skip { left } => {
                    let here = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    buffer.advance(here);
                    let left = left - u64::try_from(here).unwrap_or(left);
                    if left > 0 {
                        self.state = State::Skip { left };
                        return None;
                    }
                    self.state = State::Between;
                }
            }
        }
    }

    /// What is left when the stream has ended: a last line needs no line feed, anything else was cut off.
    pub(super) fn finish(&mut self, buffer: &mut BytesMut, cut_off: bool) -> Option<(Framing, Bytes)> {
        let state = std::mem::replace(&mut self.state, State::Between);
        let rest = trim_end(buffer.split().freeze());
        let framing = match state {
            State::SkipLine | State::Skip { .. } => return None,
            State::Counted { .. } => Framing::Unframed,
            State::Between | State::Line { .. } if cut_off => Framing::Unframed,
            State::Between | State::Line { .. } => Framing::Syslog,
        };
        (!rest.is_empty()).then_some((framing, rest))
    }

    fn line(&mut self, buffer: &mut BytesMut, searched: usize) -> Option<(Framing, Bytes)> {
        let found = memchr::memchr(b'\n', buffer.get(searched..).unwrap_or_default()).map(|end| searched + end);
        let too_long = found.unwrap_or(buffer.len()) > self.message_bytes_max;
        if too_long {
            self.state = State::SkipLine;
            return Some((Framing::Unframed, buffer.split_to(self.message_bytes_max + 1).freeze()));
        }
        let Some(end) = found else {
            self.state = State::Line { searched: buffer.len() };
            return None;
        };
        self.state = State::Between;
        let line = buffer.split_to(end).freeze();
        buffer.advance(1);
        Some((Framing::Syslog, trim_end(line)))
    }

    fn counted(&mut self, buffer: &mut BytesMut, length: u64) -> Option<(Framing, Bytes)> {
        let bytes = usize::try_from(length).unwrap_or(usize::MAX);
        if bytes <= self.message_bytes_max {
            if buffer.len() < bytes {
                return None;
            }
            self.state = State::Between;
            return Some((Framing::Syslog, trim_end(buffer.split_to(bytes).freeze())));
        }
        if buffer.len() <= self.message_bytes_max {
            return None;
        }
        let kept = buffer.split_to(self.message_bytes_max + 1).freeze();
        self.state = State::Skip { left: length - u64::try_from(kept.len()).unwrap_or(length) };
        Some((Framing::Unframed, kept))
    }
}

/// How the message at the buffer's begin is framed; `None` when that cannot be seen yet. Takes the count away.
fn begin(buffer: &mut BytesMut) -> Option<State> {
    // Longer counts are no counts: no message has 10 GB.
    const DIGITS_MAX: usize = 10;
    let first = *buffer.first()?;
    let digits = buffer.iter().take(DIGITS_MAX + 1).take_while(|byte| byte.is_ascii_digit()).count();
    if !(b'1'..=b'9').contains(&first) || digits > DIGITS_MAX {
        return Some(State::Line { searched: 0 });
    }
    match (buffer.get(digits), buffer.get(digits + 1)) {
        (None, _) | (Some(b' '), None) => None,
        (Some(b' '), Some(b'<')) => {
            let count = buffer.split_to(digits + 1);
            let length = count.iter().filter(|byte| byte.is_ascii_digit());
            let length = length.fold(0, |length, digit| length * 10 + u64::from(digit - b'0'));
            Some(State::Counted { length })
        }
        _ => Some(State::Line { searched: 0 }),
    }
}

fn trim_end(message: Bytes) -> Bytes {
    let kept = message.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r' | 0)).map_or(0, |last| last + 1);
    message.slice(..kept)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX: usize = 20;

    /// Feeds the stream in pieces of this size; shows messages, unframed ones with a `!`, the end with what is left.
    fn frames(stream: &[u8], piece: usize, cut_off: bool) -> Vec<String> {
        let mut framer = Framer::new(MAX);
        let mut buffer = BytesMut::new();
        let mut shown = Vec::new();
        let show = |(framing, bytes): (Framing, Bytes)| {
            let mark = if framing == Framing::Unframed { "!" } else { "" };
            format!("{mark}{}", String::from_utf8_lossy(&bytes))
        };
        for piece in stream.chunks(piece) {
            buffer.extend_from_slice(piece);
            while let Some(message) = framer.next(&mut buffer) {
                shown.push(show(message));
            }
            assert!(buffer.len() <= MAX + 16, "memory is bounded: {}", buffer.len());
        }
        shown.extend(framer.finish(&mut buffer, cut_off).map(show));
        shown
    }

    #[track_caller]
    fn check(stream: &str, expect: &[&str]) {
        for piece in [1, 2, 3, 7, 15] {
            assert_eq!(frames(stream.as_bytes(), piece, false), expect, "in pieces of {piece}");
        }
    }

    #[test]
    fn lines_end_with_a_line_feed() {
        check("<1>a\n<2>b\r\n<3>c", &["<1>a", "<2>b", "<3>c"]);
    }

    #[test]
    fn counted_messages_may_hold_line_feeds() {
        check("6 <1>a\nb7 <2>abcd", &["<1>a\nb", "<2>abcd"]);
    }

    #[test]
    fn both_framings_may_alternate() {
        check("4 <1>a<2>b\n4 <3>c\n<4>d\n", &["<1>a", "<2>b", "<3>c", "<4>d"]);
    }

    #[test]
    fn a_line_that_begins_with_a_number_is_a_line() {
        check("12 monkeys\n2026-01-05 x\n0 <1>a\n", &["12 monkeys", "2026-01-05 x", "0 <1>a"]);
        check("12345678901 <1>a\n", &["12345678901 <1>a"]);
    }

    #[test]
    fn too_long_a_line_costs_only_itself() {
        check(&format!("<1>a\n{}\n<2>b\n", "x".repeat(50)), &["<1>a", &format!("!{}", "x".repeat(21)), "<2>b"]);
        check(&format!("{}\n<2>b\n", "x".repeat(20)), &["x".repeat(20).as_str(), "<2>b"]);
    }

    #[test]
    fn too_long_a_count_costs_only_itself() {
        check(&format!("50 <{}\n4 <2>b", "x".repeat(49)), &[&format!("!<{}", "x".repeat(20)), "<2>b"]);
    }

    #[test]
    fn what_was_cut_off_is_said() {
        check("9 <1>a", &["!<1>a"]);
        check("9 ", &["9 "]);
        assert_eq!(frames(b"<1>a\n<2>b", 4, true), ["<1>a", "!<2>b"]);
    }

    proptest! {
        /// Any mixture of framings, cut anywhere, gives the messages.
        #[test]
        fn messages_come_out_as_they_went_in(
            messages in prop::collection::vec(("<[0-9]{1,2}>[a-z0-9 ]{0,15}[a-z]", any::<bool>()), 0..20),
            piece in 1..30_usize,
        ) {
            let stream: String = messages
                .iter()
                .map(|(text, counted)| if *counted { format!("{} {text}", text.len()) } else { format!("{text}\n") })
                .collect();
            let texts: Vec<_> = messages.into_iter().map(|(text, _)| text).collect();
            let mut framer = Framer::new(1_000);
            let mut buffer = BytesMut::new();
            let mut got = Vec::new();
            for piece in stream.as_bytes().chunks(piece) {
                buffer.extend_from_slice(piece);
                while let Some((framing, bytes)) = framer.next(&mut buffer) {
                    prop_assert_eq!(framing, Framing::Syslog);
                    got.push(String::from_utf8(bytes.to_vec()).unwrap());
                }
            }
            prop_assert!(!framer.is_inside(&buffer));
            prop_assert_eq!(got, texts);
        }

        #[test]
        fn no_bytes_make_it_panic_or_grow(stream in prop::collection::vec(prop::sample::select(b"0159 <>\n\r\0ax".to_vec()), 0..300), piece in 1..16_usize) {
            frames(&stream, piece, true);
        }
    }
}
