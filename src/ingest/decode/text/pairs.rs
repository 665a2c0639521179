//! `key=value` pairs as auditd, FortiOS, netfilter and logfmt write them.
//!
//! A value is a word, or quoted (`"` with `\` before what is meant, `'` as it is). A word without `=` is no pair and is
//! passed over; so is what follows the 512th pair.

/// Pairs read of one line, at most.
const PAIRS_MAX: usize = 512;
/// Bytes of the longest key.
const KEY_BYTES_MAX: usize = 128;

/// One pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pair<'a> {
    pub(crate) key: &'a str,
    /// Without its quotes.
    pub(crate) value: &'a str,
    pub(crate) quoted: bool,
}

/// The pairs of a text, in order.
pub(crate) fn pairs(text: &str) -> impl Iterator<Item = Pair<'_>> {
    Pairs { rest: text }.take(PAIRS_MAX)
}

/// The first value of a key.
pub(crate) fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    pairs(text).find(|pair| pair.key == key).map(|pair| pair.value)
}

struct Pairs<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Pairs<'a> {
    type Item = Pair<'a>;

    fn next(&mut self) -> Option<Pair<'a>> {
        loop {
            self.rest = self.rest.trim_start_matches(is_separator);
            let end = self.rest.find(|c: char| c == '=' || is_separator(c))?;
            let (key, rest) = self.rest.split_at_checked(end)?;
            let Some(after) = rest.strip_prefix('=') else {
                self.rest = rest;
                continue;
            };
            let (value, quoted, rest) = value_of(after);
            self.rest = rest;
            if !key.is_empty() && key.len() <= KEY_BYTES_MAX {
                return Some(Pair { key, value, quoted });
            }
        }
    }
}

/// A value, whether it was quoted, and what follows it.
fn value_of(text: &str) -> (&str, bool, &str) {
    let mut escaped = false;
    let quote = text.bytes().next().filter(|first| matches!(first, b'"' | b'\''));
    if let (Some(quote), Some(inner)) = (quote, text.get(1..)) {
        let end = inner.bytes().position(|byte| {
            let closes = byte == quote && !escaped;
            escaped = quote == b'"' && byte == b'\\' && !escaped;
            closes
        });
        if let Some((value, rest)) = end.and_then(|end| inner.split_at_checked(end)) {
            return (value, true, rest.get(1..).unwrap_or(""));
        }
        return (inner, true, ""); // cut off: what is there is the value
    }
    let end = text.find(|c: char| c.is_whitespace() || c == '\u{1d}').unwrap_or(text.len());
    let (value, rest) = text.split_at_checked(end).unwrap_or((text, ""));
    (value.trim_end_matches([',', ';']), false, rest)
}

/// White space, the commas and semicolons that some write between pairs, and the group separator that auditd writes
/// before what it resolved.
fn is_separator(c: char) -> bool {
    c.is_whitespace() || matches!(c, ',' | ';' | '\u{1d}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_words_or_quoted() {
        let shown = |text| {
            let shown: Vec<_> = pairs(text).map(|pair| format!("{}={}", pair.key, pair.value)).collect();
            shown.join("|")
        };
        for (text, expected) in [
            ("a=1 b=2", "a=1|b=2"),
            ("word a=\"x y\" = c='d=\"e\"' f=", "a=x y|c=d=\"e\"|f="),
            ("a=\"say \\\"x\\\"\" b=1", "a=say \\\"x\\\"|b=1"),
            ("type=LOGIN_ERROR, ip=::1, user=a", "type=LOGIN_ERROR|ip=::1|user=a"),
            ("a=\"cut off", "a=cut off"),
            ("key=null\u{1d}ARCH=x86_64", "key=null|ARCH=x86_64"),
            ("nothing here", ""),
            ("=", ""),
            ("", ""),
        ] {
            assert_eq!(shown(text), expected, "{text:?}");
        }
        assert_eq!(pairs(&"a=1 ".repeat(10_000)).count(), PAIRS_MAX);
    }
}
