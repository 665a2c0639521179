//! Texts without case: Unicode simple folding, one character for one.

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
