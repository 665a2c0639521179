//! One field of a selection: modifiers that do nothing for its values, values that can never decide.

use std::collections::HashSet;

use regex_syntax::hir::{Hir, HirKind, Look};

use crate::{
    problem::{Place, Problems, shown},
    rule::{LogSourcePattern, Part, Pattern},
    yaml::Node,
};

/// Shorter texts are found nearly everywhere.
const TEXT_CHARS_MIN: usize = 3;
/// With these, case counts and texts within texts are no longer so.
const ENCODINGS: [&str; 6] = ["base64", "base64offset", "wide", "utf16", "utf16le", "utf16be"];
/// Values of one list that are compared pair by pair.
const PAIRS_MAX: usize = 300;

/// A keyword: it is sought in every value of every event.
pub(super) fn keyword(node: &Node, problems: &mut Problems) {
    let Some(text) = node.text() else { return };
    let bare = text.trim().trim_matches('*');
    if bare.is_ascii() && bare.len() < TEXT_CHARS_MIN {
        let message = format!("the keyword \"{}\" is too short to tell anything", shown(text));
        problems.warn("short_keyword", node.at, message, Some("ask for a field's value".to_owned()));
    }
    if text.len() > 1 && (text.starts_with('*') || text.ends_with('*') && !text.ends_with("\\*")) {
        let message = format!("keywords are found anywhere; \"{}\" needs no wildcard at its ends", shown(text));
        problems.warn("redundant_wildcard", node.at, message, Some("take it out".to_owned()));
    }
}

/// `Field|modifiers` and its values.
pub(super) fn check(key: &Node, node: &Node, source: &LogSourcePattern, problems: &mut Problems) {
    let mut words = key.text().unwrap_or_default().split('|');
    let field = words.next().unwrap_or_default();
    let modifiers: Vec<&str> = words.collect();
    let has = |word: &str| modifiers.contains(&word);
    let list = matches!(node.kind, crate::yaml::Kind::List(_));
    let values = node.each();
    if list && values.len() == 1 && !has("all") {
        let message = format!("the list of \"{}\" has one element", shown(field));
        problems.warn("single_element_list", key.at, message, Some("write the value itself".to_owned()));
    }
    if has("all") && values.len() <= 1 {
        let message = format!("`all` has no effect on the one value of \"{}\"", shown(field));
        problems.warn("all_of_one", key.at, message, Some("take `all` out".to_owned()));
    }
    encodings(field, &modifiers, source, key.at, problems);
    let encoded = ENCODINGS.iter().any(|word| has(word));
    repeated(values, has("cased") || encoded || has("re"), problems);
    let typed = ["re", "cidr", "exists", "fieldref", "gt", "gte", "lt", "lte", "expand"];
    for value in values {
        let Some(text) = value.text() else { continue };
        if has("re") {
            expression(text, value.at, problems);
        } else if !typed.iter().chain(&["minute", "hour", "day", "week", "month", "year"]).any(|word| has(word)) {
            wildcards(text, &modifiers, value.at, problems);
        }
    }
    if has("contains") && !encoded {
        covered(values, has("all"), has("cased"), problems);
    }
}

/// PowerShell takes base64 of UTF-16: the encoded bytes of a plain text are never in it.
fn encodings(field: &str, modifiers: &[&str], source: &LogSourcePattern, at: Place, problems: &mut Problems) {
    let has = |words: &[&str]| modifiers.iter().any(|modifier| words.contains(modifier));
    let shell = ["CommandLine", "ParentCommandLine", "ScriptBlockText", "Payload"].contains(&field);
    if shell
        && source.product.as_deref() == Some("windows")
        && has(&["base64", "base64offset"])
        && !has(&["wide", "utf16", "utf16le", "utf16be"])
    {
        let message = "the text is encoded as it is; PowerShell's encoded commands are UTF-16".to_owned();
        let hint = Some("put `wide` before it if they are meant".to_owned());
        problems.warn("base64_not_wide", at, message, hint);
    }
    if has(&["base64"]) && !has(&["contains", "startswith", "endswith"]) {
        return; // the whole value is base64
    }
    if has(&["base64"]) && has(&["contains"]) {
        let message = "`base64` finds the text only where its encoding begins with it".to_owned();
        problems.warn("base64_offset", at, message, Some("use `base64offset`".to_owned()));
    }
}

fn repeated(values: &[Node], cased: bool, problems: &mut Problems) {
    let mut seen = HashSet::new();
    for value in values {
        let Some(text) = value.text() else { continue };
        if !seen.insert(if cased { text.to_owned() } else { text.to_lowercase() }) {
            let message = format!("the value \"{}\" is there twice", shown(text));
            problems.warn("repeated_value", value.at, message, Some("take one out".to_owned()));
        }
    }
}

fn wildcards(text: &str, modifiers: &[&str], at: Place, problems: &mut Problems) {
    let has = |word: &str| modifiers.contains(&word);
    let pattern = Pattern::parse(text);
    let (first, last) = (pattern.parts.first() == Some(&Part::Any), pattern.parts.last() == Some(&Part::Any));
    let within = pattern.parts.get(1..pattern.parts.len().saturating_sub(1)).unwrap_or_default();
    if has("contains") || has("startswith") || has("endswith") {
        let before = first && (has("contains") || has("endswith"));
        let behind = last && (has("contains") || has("startswith"));
        if before || behind {
            let message = format!("the modifier brings the wildcard at the end of \"{}\" anyway", shown(text));
            problems.warn("redundant_wildcard", at, message, Some("take it out".to_owned()));
        }
        // One character of another script tells more than two of ours.
        let short = text.is_ascii() && text.bytes().filter(|byte| *byte != b'*').count() < TEXT_CHARS_MIN;
        if has("contains") && !has("all") && short {
            let message = format!("the text \"{}\" is too short to tell anything", shown(text));
            problems.warn("short_text", at, message, Some("ask for more, or for the whole value".to_owned()));
        }
    } else if (first || last) && pattern.parts.len() > 1 && !within.contains(&Part::Any) {
        let modifier = match (first, last) {
            (true, true) => "contains",
            (true, false) => "endswith",
            _ => "startswith",
        };
        let message = format!("the wildcards of \"{}\" are those of `{modifier}`", shown(text));
        problems.warn("wildcard_modifier", at, message, Some(format!("use `{modifier}` without them")));
    }
    escaped(text, at, problems);
}

/// `C:\Windows\*` asks for an asterisk: the backslash takes its meaning away.
fn escaped(text: &str, at: Place, problems: &mut Problems) {
    let path = text.replace(r"\*", "").contains('\\') && !text.contains(r"\\");
    if path && (text.ends_with(r"\*") || text.contains(r"\*\")) {
        let message = format!("the asterisk of \"{}\" is text, because of the backslash before it", shown(text));
        problems.warn("escaped_wildcard", at, message, Some(r"write `\\*` for a backslash and a wildcard".to_owned()));
    }
}

/// Of two texts to be found within a value, one may be within the other: then one of them can never decide.
fn covered(values: &[Node], all: bool, cased: bool, problems: &mut Problems) {
    let texts: Vec<(String, &Node)> = values
        .iter()
        .filter_map(|value| value.text().map(|text| (text, value)))
        .filter(|(text, _)| !text.is_empty() && !text.contains(['*', '?', '\\']))
        .map(|(text, value)| (if cased { text.to_owned() } else { text.to_lowercase() }, value))
        .collect();
    if texts.len() > PAIRS_MAX {
        return;
    }
    for (text, node) in &texts {
        let other = texts.iter().find(|(other, _)| {
            let (long, short) = if all { (other, text) } else { (text, other) };
            other != text && long.contains(short.as_str())
        });
        if let Some((other, _)) = other {
            let message = format!("the value \"{}\" never decides, because of \"{}\"", shown(text), shown(other));
            problems.warn("covered_value", node.at, message, Some("take it out".to_owned()));
        }
    }
}

/// Expressions that a text would do for are slower and harder to read.
fn expression(text: &str, at: Place, problems: &mut Problems) {
    if text.starts_with(".*") || (text.ends_with(".*") && !text.ends_with("\\.*")) {
        let message = format!("`.*` at the ends of \"{}\" has no effect: expressions are found anywhere", shown(text));
        problems.warn("regex_ends", at, message, Some("take it out".to_owned()));
    }
    let bare = text.trim_start_matches("(?i)");
    let bare = bare.strip_prefix(".*").unwrap_or(bare);
    let bare = bare.strip_suffix(".*").unwrap_or(bare);
    let Ok(hir) = regex_syntax::parse(bare) else { return };
    if let Some(modifier) = as_text(&hir) {
        let message = format!("the expression \"{}\" is a text", shown(text));
        problems.warn("regex_text", at, message, Some(format!("use {modifier} instead of `re`")));
    }
}

/// The modifier by which a text does the same.
fn as_text(hir: &Hir) -> Option<&'static str> {
    let parts = match hir.kind() {
        HirKind::Concat(list) => list.as_slice(),
        HirKind::Literal(_) => std::slice::from_ref(hir),
        _ => return None,
    };
    let is = |hir: &Hir, look: Look| matches!(hir.kind(), HirKind::Look(found) if *found == look);
    let begins = parts.first().is_some_and(|hir| is(hir, Look::Start));
    let ends = parts.last().is_some_and(|hir| is(hir, Look::End));
    let inner = parts.get(usize::from(begins)..parts.len() - usize::from(ends))?;
    let [one] = inner else { return None };
    if !matches!(one.kind(), HirKind::Literal(_)) {
        return None;
    }
    Some(match (begins, ends) {
        (true, true) => "the value itself",
        (true, false) => "`startswith`",
        (false, true) => "`endswith`",
        (false, false) => "`contains`",
    })
}
