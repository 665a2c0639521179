//! Where the quotes and escapes of a record stand: 64 bytes at a time, one bit for a byte.
//!
//! The method is that of Langdale and Lemire, "Parsing Gigabytes of JSON per Second" (2019), section 3.1, cut down to what
//! the walk over the record cannot find cheaply itself: the ends of strings.

use std::ops::Range;

use cf_types::field::Form;

mod vectors;

/// Bits of one record, and what is known of it as a whole.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// Quotes that no backslash takes the meaning from.
    quotes: Vec<u64>,
    /// Backslashes that begin an escape.
    escapes: Vec<u64>,
    /// What follows the backslash in escapes that are neither `\\` nor `\"`; ends with the last of them.
    odd: Vec<u64>,
    /// Some byte is below 0x20.
    pub(super) controls: bool,
    /// Some escape is not of one character, or none at all: to be looked at.
    pub(super) doubtful_escapes: bool,
}

/// The bytes of 64 that are of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Block {
    quotes: u64,
    slashes: u64,
    controls: u64,
}

const EVEN_BITS: u64 = 0x5555_5555_5555_5555;

/// A place beyond every record.
pub(super) const NOWHERE: usize = usize::MAX;

impl Marks {
    /// Reads a record.
    pub(super) fn read(&mut self, bytes: &[u8]) {
        self.quotes.clear();
        self.escapes.clear();
        self.odd.clear();
        (self.controls, self.doubtful_escapes) = (false, false);
        vectors::read(self, bytes);
    }

    /// Reads all blocks of a record by a way to read one.
    #[inline(always)] // so that it is compiled for the processor of each way
    fn read_blocks(&mut self, bytes: &[u8], read: impl Fn(&[u8; 64]) -> Block) {
        let mut carry = 0; // 1 if the last byte before begins an escape
        let (blocks, rest) = bytes.as_chunks::<64>();
        for block in blocks {
            carry = self.block(&read(block), block, carry);
        }
        if !rest.is_empty() {
            let mut last = [b' '; 64];
            if let Some(begin) = last.get_mut(..rest.len()) {
                begin.copy_from_slice(rest);
            }
            self.block(&read(&last), &last, carry);
        }
    }

    #[inline(always)]
    fn block(&mut self, block: &Block, bytes: &[u8; 64], carry: u64) -> u64 {
        self.controls |= block.controls != 0;
        if block.slashes | carry == 0 {
            self.quotes.push(block.quotes);
            self.escapes.push(0);
            return 0;
        }
        // In a run of backslashes every second one is escaped; a run that begins at an odd place shows by the carry of
        // an addition (section 3.1.1 of the paper).
        let slashes = block.slashes & !carry;
        let follows = slashes << 1 | carry;
        let odd_starts = slashes & !EVEN_BITS & !follows;
        let (even_ends, next) = odd_starts.overflowing_add(slashes);
        let escaped = (EVEN_BITS ^ (even_ends << 1)) & follows;
        let odd = escaped & !(block.quotes | block.slashes);
        if odd != 0 {
            self.odd(odd, bytes);
        }
        self.quotes.push(block.quotes & !escaped);
        self.escapes.push(block.slashes & !escaped);
        u64::from(next)
    }

    /// What the escapes are that are neither of a backslash nor of a quote.
    fn odd(&mut self, mut odd: u64, bytes: &[u8; 64]) {
        self.odd.resize(self.quotes.len(), 0);
        self.odd.push(odd);
        while odd != 0 {
            let at = usize::try_from(odd.trailing_zeros()).unwrap_or(0);
            self.doubtful_escapes |= !matches!(bytes.get(at), Some(b'n' | b'r' | b't' | b'/' | b'b' | b'f'));
            odd &= odd - 1;
        }
    }

    /// Where the first escape at or behind a place begins; [`NOWHERE`] if there is none.
    pub(super) fn escape_from(&self, from: usize) -> usize {
        first_from(&self.escapes, from)
    }

    /// The form of a string with escapes.
    #[inline]
    pub(super) fn form(&self, part: Range<usize>) -> Form {
        let odd = !self.odd.is_empty() && first_from(&self.odd, part.start) < part.end;
        if odd { Form::EscapedOddly } else { Form::Escaped }
    }

    /// Where the string ends whose first byte stands at a place ([`NOWHERE`] if it does not end), and whether it has
    /// escapes.
    #[inline]
    pub(super) fn string_from(&self, start: usize) -> (usize, bool) {
        let quotes = window(&self.quotes, start);
        if quotes == 0 {
            let end = first_from(&self.quotes, start);
            return (end, self.escape_from(start) < end);
        }
        let before = quotes & quotes.wrapping_neg();
        let escaped = window(&self.escapes, start) & (before - 1) != 0;
        (start + usize::try_from(quotes.trailing_zeros()).unwrap_or(0), escaped)
    }

    /// Walks over the quotes.
    pub(super) fn quotes(&self) -> Quotes<'_> {
        Quotes { words: &self.quotes, at: 0, left: self.quotes.first().copied().unwrap_or(0) }
    }
}

/// The 64 bits from a place on.
#[inline]
fn window(words: &[u64], from: usize) -> u64 {
    let (at, bit) = (from / 64, from % 64);
    let low = words.get(at).copied().unwrap_or(0) >> bit;
    let high = words.get(at + 1).copied().unwrap_or(0);
    low | high << 1 << (63 - bit)
}

/// The place of the first bit at or behind a place.
fn first_from(words: &[u64], from: usize) -> usize {
    let mut at = from / 64;
    let mut word = words.get(at).copied().unwrap_or(0) & u64::MAX << (from % 64);
    while word == 0 {
        at += 1;
        match words.get(at) {
            Some(next) => word = *next,
            None => return NOWHERE,
        }
    }
    at * 64 + usize::try_from(word.trailing_zeros()).unwrap_or(0)
}

/// The quotes of a record, in order.
#[derive(Clone, Debug)]
pub(super) struct Quotes<'m> {
    words: &'m [u64],
    at: usize,
    left: u64,
}

impl Quotes<'_> {
    /// The place of the next quote; beyond every record if there is none.
    #[inline]
    pub(super) fn next(&mut self) -> usize {
        while self.left == 0 {
            self.at += 1;
            match self.words.get(self.at) {
                Some(word) => self.left = *word,
                None => return usize::MAX,
            }
        }
        let place = self.at * 64 + usize::try_from(self.left.trailing_zeros()).unwrap_or(0);
        self.left &= self.left - 1;
        place
    }
}

impl Block {
    /// One byte after the other: for processors that [`vectors`] does not know, and to compare with.
    fn read_plainly(bytes: &[u8; 64]) -> Block {
        let mut block = Block::default();
        for (at, byte) in (0..).zip(bytes) {
            block.quotes |= u64::from(*byte == b'"') << at;
            block.slashes |= u64::from(*byte == b'\\') << at;
            block.controls |= u64::from(*byte < 0x20) << at;
        }
        block
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One byte after the other, as a person would.
    fn slowly(bytes: &[u8]) -> (Vec<usize>, Vec<usize>) {
        let (mut quotes, mut escapes, mut escaped) = (Vec::new(), Vec::new(), false);
        for (at, byte) in bytes.iter().enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => {
                    escapes.push(at);
                    escaped = true;
                }
                b'"' => quotes.push(at),
                _ => {}
            }
        }
        (quotes, escapes)
    }

    proptest! {
        #[test]
        fn bits_are_what_a_walk_finds(bytes in proptest::collection::vec(prop_oneof![
            4 => Just(b'\\'), 2 => Just(b'"'), 1 => any::<u8>()], 0..300)) {
            let mut marks = Marks::default();
            marks.read(&bytes);
            let (quotes, escapes) = slowly(&bytes);
            let mut walk = marks.quotes();
            let found: Vec<usize> = std::iter::from_fn(|| Some(walk.next()).filter(|at| *at < bytes.len())).collect();
            prop_assert_eq!(found, quotes);
            for from in 0..=bytes.len() {
                let first = escapes.iter().copied().find(|at| *at >= from);
                prop_assert_eq!(marks.escape_from(from), first.unwrap_or(NOWHERE));
                let end = slowly(&bytes).0.into_iter().find(|at| *at >= from).unwrap_or(NOWHERE);
                prop_assert_eq!(marks.string_from(from), (end, first.is_some_and(|first| first < end)));
            }
            prop_assert_eq!(marks.controls, bytes.iter().any(|byte| *byte < 0x20));
            let odd = |at: &usize| bytes.get(at + 1).is_some_and(|byte| !matches!(byte, b'\\' | b'"'));
            // Behind a last backslash stands nothing, or the blank that fills the block.
            prop_assert!((marks.form(0..bytes.len()) == Form::EscapedOddly) == escapes.iter().any(odd) || bytes.last() == Some(&b'\\'));
            for start in 0..bytes.len() {
                let any = escapes.iter().any(|at| (start..bytes.len() - 1).contains(at) && odd(at));
                prop_assert_eq!(marks.form(start + 1..bytes.len()) == Form::EscapedOddly, any);
            }
        }

        #[test]
        fn blocks_are_read_alike(bytes in any::<[u8; 32]>()) {
            let mut block = [0x1f; 64];
            block[7..39].copy_from_slice(&bytes);
            let mut plain = Marks::default();
            plain.read_blocks(&block, Block::read_plainly);
            let mut marks = Marks::default();
            marks.read(&block);
            prop_assert_eq!(format!("{marks:?}"), format!("{plain:?}"));
        }
    }
}
