//! Where the elements of an array lie in a document that is known to be valid JSON.

use std::ops::Range;

/// The spans of an array's elements; none if the text is no array.
pub(crate) fn elements(array: &[u8]) -> Vec<Range<usize>> {
    let mut spans = Vec::new();
    let mut at = skip_blank(array, 0);
    if array.get(at) != Some(&b'[') {
        return spans;
    }
    at = skip_blank(array, at + 1);
    while array.get(at).is_some_and(|byte| *byte != b']') {
        let end = skip_value(array, at);
        spans.push(at..end);
        at = skip_blank(array, end);
        if array.get(at) == Some(&b',') {
            at = skip_blank(array, at + 1);
        }
    }
    spans
}

/// The span of the first member of this name of an object.
pub(crate) fn member(object: &[u8], name: &[u8]) -> Option<Range<usize>> {
    let mut at = skip_blank(object, 0);
    if object.get(at) != Some(&b'{') {
        return None;
    }
    at = skip_blank(object, at + 1);
    while object.get(at) == Some(&b'"') {
        let key = at..skip_value(object, at);
        let colon = skip_blank(object, key.end);
        let value = skip_blank(object, colon + 1);
        let end = skip_value(object, value);
        if object.get(key.start + 1..key.end - 1) == Some(name) {
            return Some(value..end);
        }
        at = skip_blank(object, end);
        if object.get(at) == Some(&b',') {
            at = skip_blank(object, at + 1);
        }
    }
    None
}

fn skip_blank(text: &[u8], at: usize) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    at + rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count()
}

/// The end of the value that begins at `at`; always beyond `at`, so that every loop ends.
fn skip_value(text: &[u8], at: usize) -> usize {
    let mut depth = 0_usize;
    let mut end = at;
    while let Some(byte) = text.get(end) {
        match byte {
            b'"' => end = skip_string(text, end),
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 0 => return end.max(at + 1),
            b'}' | b']' => depth -= 1,
            b',' | b':' if depth == 0 => return end.max(at + 1),
            byte if depth == 0 && byte.is_ascii_whitespace() => return end.max(at + 1),
            _ => {}
        }
        end += 1;
        if depth == 0 && matches!(text.get(end - 1), Some(b'}' | b']' | b'"')) {
            return end;
        }
    }
    end.max(at + 1).min(text.len())
}

/// The index of the quote that ends the string beginning at `at`.
fn skip_string(text: &[u8], at: usize) -> usize {
    let mut end = at + 1;
    while let Some(byte) = text.get(end) {
        match byte {
            b'"' => return end,
            b'\\' => end += 2,
            _ => end += 1,
        }
    }
    text.len()
}
