//! What is doubtful about rules that load: attributes that are missing or malformed, parts without effect, costly or
//! misleading ways to write. Pure: texts and what was parsed of them in, warnings out.
//!
//! It looks at the YAML, because most of what it speaks of (a list of one, a wildcard that a modifier brings anyway) is
//! gone in a parsed rule; what concerns the set (titles) or the meaning (anchors) it asks of the parsed rules. What
//! [`crate::parse()`] says of the same texts is not said again. Time is linear in the texts but for lists of values, which
//! are compared pair by pair up to a bound.

use std::{collections::HashMap, sync::Arc};

use crate::{
    parse::{PLAN_CONDITIONS, Parsed, Text, collection},
    problem::{Problem, Problems, Severity, shown},
    yaml::{self, Node},
};

mod cost;
mod detection;
mod fields;
mod head;
mod values;

/// Looks at rules as a careful reader would.
///
/// ```
/// use cf_sigma::{Text, lint, parse};
/// let rule = "title: T\nid: 1\nlogsource: {product: windows}\ndetection: {a: {F|contains: '*x*'}, b: {F: y}, condition: a}\n";
/// let texts = [Text { file: "a_rule_of_ours.yml".into(), text: rule.to_owned() }];
/// let codes: Vec<&str> = lint(&texts, &parse(&texts)).iter().map(|problem| problem.code).collect();
/// assert!(codes.contains(&"unused_selection") && codes.contains(&"redundant_wildcard"));
/// ```
#[must_use]
pub fn lint(texts: &[Text], parsed: &Parsed) -> Vec<Problem> {
    let fields = fields::Known::new(parsed);
    let mut list = Vec::new();
    for text in texts {
        file_name(text, &mut list);
        let (documents, _) = yaml::documents(&text.text);
        let documents = collection::expand(documents, &mut Problems::new(&text.file));
        for document in documents.iter().filter(|document| document.map().is_some()) {
            let mut problems = Problems::new(&text.file);
            problems.rule = document.get("title").and_then(Node::text).map(|title| shown(title).into());
            one(document, &fields, &mut problems);
            list.append(&mut problems.list);
        }
    }
    repeated_titles(parsed, &mut list);
    cost::anchors(parsed, &mut list);
    list.sort_by(|left, right| (&left.file, left.line, left.column).cmp(&(&right.file, right.line, right.column)));
    list
}

fn one(document: &Node, fields: &fields::Known, problems: &mut Problems) {
    if let Some(found) = document.get("detection").filter(|found| found.map().is_some()) {
        head::check(document, problems);
        head::log_source(document, problems);
        detection::check(document, found, fields, problems);
    } else if let Some(correlation) = document.get("correlation") {
        head::check(document, problems);
        head::correlation(correlation, problems);
    } else if document.get("hunt").is_some() {
        head::check(document, problems);
    } else if let Some(filter) = document.get("filter").filter(|filter| filter.map().is_some()) {
        head::log_source(document, problems);
        detection::check(document, filter, fields, problems);
    }
}

/// File names as the specification wants them (*Yaml File*).
fn file_name(text: &Text, list: &mut Vec<Problem>) {
    let name = text.file.rsplit(['/', '\\']).next().unwrap_or_default();
    let stem = name.strip_suffix(".yml").unwrap_or_default();
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if (10..=70).contains(&name.len()) && !stem.is_empty() && stem.chars().all(plain) {
        return;
    }
    let message = format!("the file's name \"{}\" is not of the form that rules are exchanged with", shown(name));
    let hint = Some("10 to 70 small letters, digits and `_`, and `.yml`".to_owned());
    let mut problems = Problems::new(&text.file);
    problems.warn("file_name", crate::problem::Place { line: 1, column: 1 }, message, hint);
    list.append(&mut problems.list);
}

/// People tell rules apart by their titles, correlations refer to them by their names.
fn repeated_titles(parsed: &Parsed, list: &mut Vec<Problem>) {
    // A plan's rule that counts is two of one title; the one within bears the id with a suffix.
    let plain = parsed.rules.iter().filter(|rule| !rule.id.ends_with(PLAN_CONDITIONS));
    let plain = plain.map(|rule| (&rule.title, rule.name.as_ref(), (&rule.file, rule.line)));
    let others = parsed.correlations.iter().map(|rule| (&rule.title, rule.name.as_ref(), (&rule.file, rule.line)));
    let (mut titles, mut names) = (HashMap::new(), HashMap::new());
    for (title, name, (file, line)) in plain.chain(others) {
        if let Some((first, at)) = titles.insert(title.to_lowercase(), (file, line)) {
            let message = format!("the title is that of the rule at {first}:{at} too");
            list.push(of_rule(
                "duplicate_title",
                title,
                file,
                line,
                message,
                "people tell rules apart by their titles",
            ));
        }
        if let Some((name, (first, at))) = name.and_then(|name| Some((name, names.insert(name, (file, line))?))) {
            let message = format!("the name \"{}\" is that of the rule at {first}:{at} too", shown(name));
            list.push(of_rule("duplicate_name", title, file, line, message, "correlations take the first of the two"));
        }
    }
}

fn of_rule(code: &'static str, title: &str, file: &Arc<str>, line: u32, message: String, hint: &str) -> Problem {
    Problem {
        code,
        severity: Severity::Warning,
        file: Arc::clone(file),
        line,
        column: 1,
        rule: Some(shown(title).into()),
        message,
        hint: Some(hint.to_owned()),
    }
}
