//! What is doubtful about rules that load: attributes that are missing or malformed, parts without effect, costly or
//! misleading ways to write. Pure: texts and what was parsed of them in, warnings out.

use crate::{
    parse::{Parsed, Text, collection},
    problem::{Problem, Problems, shown},
    yaml::{self, Node},
};

/// Longest title (specification 2.1, *Title*).
const TITLE_CHARS_MAX: usize = 256;

/// Looks at rules as a careful reader would. What [`crate::parse()`] says of the same texts is not said again.
#[must_use]
pub fn lint(texts: &[Text], parsed: &Parsed) -> Vec<Problem> {
    let _ = parsed;
    let mut list = Vec::new();
    for text in texts {
        let (documents, _) = yaml::documents(&text.text);
        let documents = collection::expand(documents, &mut Problems::new(&text.file));
        for document in &documents {
            let mut problems = Problems::new(&text.file);
            problems.rule = document.get("title").and_then(Node::text).map(|title| shown(title).into());
            head(document, &mut problems);
            list.append(&mut problems.list);
        }
    }
    list.sort_by(|left, right| (&left.file, left.line, left.column).cmp(&(&right.file, right.line, right.column)));
    list
}

fn head(document: &Node, problems: &mut Problems) {
    if document.get("detection").is_none() && document.get("correlation").is_none() {
        return;
    }
    for (key, code, what) in [
        ("description", "no_description", "say what it finds and why that matters"),
        ("level", "no_level", "give it informational, low, medium, high or critical"),
        ("status", "no_status", "write test or experimental, later stable"),
    ] {
        if document.get(key).and_then(Node::text).is_none_or(|text| text.trim().is_empty()) {
            problems.warn(code, document.at, format!("the rule has no `{key}`"), Some(what.to_owned()));
        }
    }
    if let Some(title) = document.get("title")
        && title.text().is_some_and(|text| text.chars().count() > TITLE_CHARS_MAX)
    {
        let message = format!("the title has more than {TITLE_CHARS_MAX} characters");
        problems.warn("title_length", title.at, message, None);
    }
}
