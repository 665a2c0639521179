//! The form in which texts are compared: without case (Unicode simple folding, one character for one), and written as in
//! a JSON string: `\` before each backslash and quote.
//!
//! Nearly all values come as JSON strings with no other escapes. In this form a value is a part of its record, folded as a
//! whole, and nothing is unescaped. Texts compare in this form exactly as they do without the escapes: a run of `2n`
//! backslashes stands for `n`, and a text that begins or ends within a run takes an even number of them.

use std::sync::LazyLock;

use rustc_hash::FxHashMap;

/// Characters beyond ASCII and what stands for them and all their forms.
static FOLDS: LazyLock<FxHashMap<char, char>> = LazyLock::new(|| {
    ('\u{80}'..=char::MAX)
        .filter(|c| !c.to_lowercase().eq([*c]) || !c.to_uppercase().eq([*c]))
        .filter_map(|c| Some((c, representative(c)?)))
        .collect()
});

/// The least of a character's simple case forms, an ASCII letter as its small form.
fn representative(c: char) -> Option<char> {
    let mut class = regex_syntax::hir::ClassUnicode::new([regex_syntax::hir::ClassUnicodeRange::new(c, c)]);
    class.try_case_fold_simple().ok()?;
    let least = class.ranges().first()?.start();
    (least != c).then_some(least.to_ascii_lowercase())
}

/// One character, folded.
fn fold_char(c: char) -> char {
    if c.is_ascii() { c.to_ascii_lowercase() } else { FOLDS.get(&c).copied().unwrap_or(c) }
}

/// Appends a folded text.
pub(crate) fn push_folded(text: &str, out: &mut String) {
    if text.is_ascii() {
        let begin = out.len();
        out.push_str(text);
        if let Some(new) = out.get_mut(begin..) {
            new.make_ascii_lowercase();
        }
    } else {
        out.extend(text.chars().map(fold_char));
    }
}

/// Appends a text with `\` before each backslash and quote.
pub(crate) fn push_escaped(text: &str, out: &mut String) {
    let mut rest = text;
    while let Some(at) = memchr::memchr2(b'\\', b'"', rest.as_bytes()) {
        let (before, behind) = rest.split_at(at);
        out.push_str(before);
        out.push('\\');
        let (special, behind) = behind.split_at(1);
        out.push_str(special);
        rest = behind;
    }
    out.push_str(rest);
}

/// A text with `\` before each backslash and quote.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    push_escaped(text, &mut out);
    out
}

/// The length of what stands for the first character of an escaped text; 0 if it is empty.
pub(crate) fn unit_len(text: &str) -> usize {
    let mut chars = text.chars();
    match chars.next() {
        None => 0,
        Some('\\') => 1 + chars.next().map_or(0, char::len_utf8),
        Some(first) => first.len_utf8(),
    }
}

/// A folded text.
pub(crate) fn folded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    push_folded(text, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_one_letter_fold_alike() {
        for (left, right) in [
            ("ÄÖÜ", "äöü"),
            ("K", "k"),
            ("ſ", "S"),
            ("ΣΑΣ", "σας"),
            ("ẞ", "ß"),
            ("É", "é"),
            ("Ж", "ж"),
            ("\u{b5}", "\u{3bc}"),
        ] {
            assert_eq!(folded(left), folded(right), "{left} {right}");
        }
        for (left, right) in [("ß", "ss"), ("ı", "i"), ("İ", "i"), ("a", "b")] {
            assert_ne!(folded(left), folded(right), "{left} {right}");
        }
    }

    #[test]
    fn ascii_folds_to_small_letters() {
        assert_eq!(folded("C:\\Windows\\CMD.exe"), "c:\\windows\\cmd.exe");
    }
}
