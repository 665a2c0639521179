//! Texts without case.
//!
//! "All values are treated as case-insensitive strings" (Detection, General). Read as Unicode's simple case folding: one
//! character for one, so that `?` counts the same before and after.

/// A text with every character in the form that stands for all its cases.
pub(crate) fn fold(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    text.chars().map(fold_char).collect()
}

fn fold_char(c: char) -> char {
    match c {
        c if c.is_ascii() => c.to_ascii_lowercase(),
        // Of the Turkish letters, neither is a case of `i` or `I` outside of Turkish (status T of CaseFolding.txt).
        'ı' | 'İ' => c,
        // Three pairs that are cases of each other although their capitals are several letters (CaseFolding.txt, S).
        '\u{1fd3}' => '\u{390}',
        '\u{1fe3}' => '\u{3b0}',
        '\u{fb05}' => '\u{fb06}',
        c => {
            let upper = only(c.to_uppercase()).unwrap_or(c);
            only(upper.to_lowercase()).or_else(|| only(c.to_lowercase())).unwrap_or(c)
        }
    }
}

/// The character, if it is one.
fn only(mut chars: impl Iterator<Item = char>) -> Option<char> {
    chars.next().filter(|_| chars.next().is_none())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn letters_fold_alike_exactly_if_an_expression_without_case_says_so() {
        let mut classes: BTreeMap<char, String> = BTreeMap::new();
        for c in '\0'..=char::MAX {
            if !(c.to_lowercase().eq([c]) && c.to_uppercase().eq([c])) {
                classes.entry(fold_char(c)).or_default().push(c);
            }
        }
        let all: String = classes.values().flat_map(|class| class.chars()).collect();
        let mut wrong = Vec::new();
        for class in classes.values() {
            let c = class.chars().next().unwrap();
            let cases = regex::Regex::new(&format!("(?i){}", regex::escape(&c.to_string()))).unwrap();
            let met: String = cases.find_iter(&all).map(|found| found.as_str()).collect();
            // New letters of Unicode 17, which the expressions do not know yet.
            let new = matches!(c, '\u{a7ce}' | '\u{a7d2}' | '\u{a7d4}' | '\u{16ea0}'..='\u{16eb8}');
            if met != *class && !new {
                wrong.push((class.escape_unicode().to_string(), met.escape_unicode().to_string()));
            }
        }
        assert_eq!(wrong, []);
    }
}
