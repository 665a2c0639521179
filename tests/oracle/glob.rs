//! Texts with wildcards.

use crate::fold::fold;

/// A piece of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// These characters.
    Text(String),
    /// `*`.
    Any,
    /// `?`.
    One,
    /// Any of the characters that Windows takes for a dash (`windash`).
    Dash,
}

/// "`-`, `/`, `–` (en dash), `—` (em dash), and `―` (horizontal bar)" (Modifiers, `windash`).
const DASHES: [char; 5] = ['-', '/', '\u{2013}', '\u{2014}', '\u{2015}'];

/// A text with wildcards, with or without case.
#[derive(Clone, Debug)]
pub(crate) struct Glob {
    parts: Vec<Part>,
    pub(crate) cased: bool,
}

impl Glob {
    pub(crate) fn new(parts: Vec<Part>, cased: bool) -> Glob {
        let fold_part = |part| match part {
            Part::Text(text) if !cased => Part::Text(fold(&text)),
            other => other,
        };
        Glob { parts: parts.into_iter().map(fold_part).collect(), cased }
    }

    /// Whether the whole text is like this. The text must be folded unless case counts.
    pub(crate) fn fits(&self, text: &str) -> bool {
        match self.parts.as_slice() {
            [] => text.is_empty(),
            [Part::Any] => true,
            [Part::Text(wanted)] => text == wanted,
            [Part::Any, Part::Text(wanted), Part::Any] => text.contains(wanted.as_str()),
            [Part::Any, Part::Text(wanted)] => text.ends_with(wanted.as_str()),
            [Part::Text(wanted), Part::Any] => text.starts_with(wanted.as_str()),
            parts => fits(parts, text),
        }
    }
}

/// Keeps all places that the parts so far can end at.
fn fits(parts: &[Part], text: &str) -> bool {
    let mut places = vec![0];
    for part in parts {
        let mut next = Vec::new();
        for place in places {
            let Some(rest) = text.get(place..) else { continue };
            match part {
                Part::Text(wanted) if rest.starts_with(wanted.as_str()) => next.push(place + wanted.len()),
                Part::Text(_) => {}
                Part::Any => next.extend(rest.char_indices().map(|(at, _)| place + at).chain([text.len()])),
                Part::One => next.extend(rest.chars().next().map(|c| place + c.len_utf8())),
                Part::Dash => {
                    let dash = rest.chars().next().filter(|c| DASHES.contains(c));
                    next.extend(dash.map(|c| place + c.len_utf8()));
                }
            }
            if *part == Part::Any {
                break; // the places are sorted: the first reaches all that the others do
            }
        }
        if next.is_empty() {
            return false;
        }
        places = next;
    }
    places.contains(&text.len())
}

/// Reads a value: "`\` is used for escaping of wildcards `*` and `?` as well as the backslash character itself"
/// (Escaping); a backslash before anything else is itself.
pub(crate) fn parse(text: &str) -> Vec<Part> {
    read(text, false)
}

/// Reads a value whose dashes may be any dash: those that begin a flag, which is one of the five before a word and not
/// behind one. (The specification does not say which dashes; `a-b` has none that begins a flag.)
pub(crate) fn parse_windash(text: &str) -> Vec<Part> {
    read(text, true)
}

fn read(text: &str, windash: bool) -> Vec<Part> {
    let word = |c: &char| c.is_alphanumeric() || *c == '_';
    let chars: Vec<char> = text.chars().collect();
    let mut parts: Vec<Part> = Vec::new();
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        let next = chars.get(at + 1);
        let before = at.checked_sub(1).and_then(|before| chars.get(before));
        match c {
            '\\' if matches!(next, Some('*' | '?' | '\\')) => {
                push(&mut parts, next.copied().unwrap_or(c));
                at += 1;
            }
            '*' => parts.push(Part::Any),
            '?' => parts.push(Part::One),
            c if windash && DASHES.contains(&c) && !before.is_some_and(word) && next.is_some_and(word) => {
                parts.push(Part::Dash)
            }
            c => push(&mut parts, c),
        }
        at += 1;
    }
    parts
}

fn push(parts: &mut Vec<Part>, c: char) {
    match parts.last_mut() {
        Some(Part::Text(text)) => text.push(c),
        _ => parts.push(Part::Text(c.to_string())),
    }
}

/// All texts that a pattern with dashes stands for; `None` if it has wildcards.
pub(crate) fn literals(parts: &[Part]) -> Option<Vec<String>> {
    let mut texts = vec![String::new()];
    for part in parts {
        match part {
            Part::Text(text) => texts.iter_mut().for_each(|so_far| so_far.push_str(text)),
            Part::Dash => {
                texts = texts.iter().flat_map(|so_far| DASHES.map(|dash| format!("{so_far}{dash}"))).collect();
            }
            Part::Any | Part::One => return None,
        }
    }
    Some(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_whole_texts() {
        for (pattern, text, fits) in [
            (r"a*b", "ab", true),
            (r"a*b", "abc", false),
            (r"*a*b*", "xxaxxbxx", true),
            (r"?a", "ba", true),
            (r"?a", "a", false),
            (r"*ab*ab", "ab", false),
            (r"a*?", "aä", true),
            (r"", "", true),
            (r"?*", "", false),
            // The specification's own possibilities (Escaping).
            (r"a\b", r"a\b", true),
            (r"a\\b", r"a\b", true),
            (r"\*", "*", true),
            (r"\*", "x", false),
            (r"\\*", r"\x", true),
            (r"\\\*", r"\*", true),
            (r"\\\*", r"\x", false),
            (r"\\\\", r"\\", true),
            (r"\\\", r"\\", true),
        ] {
            assert_eq!(Glob::new(parse(pattern), true).fits(text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn flags_have_any_dash() {
        for (pattern, text, fits) in [
            (" -f ", " /f ", true),
            (" -f ", " \u{2015}f ", true),
            (" -f ", " +f ", false),
            ("-a /b", "/a -b", true),
            ("a-b", "a/b", false),
            ("--f", "-/f", true),
            ("- f", "/ f", false),
        ] {
            assert_eq!(Glob::new(parse_windash(pattern), true).fits(text), fits, "{pattern} {text}");
        }
    }
}
