//! Problems of rules as SARIF 2.1.0 (OASIS), the form in which code hosts and CI show findings.

use std::fmt::Write;

use cf_sigma::{Problem, Severity};
use serde_json::{Value, json};

/// One run of the linter. Every code is described, whether it was found or not.
pub(crate) fn log(problems: &[Problem], codes: &[(&str, &str)]) -> Value {
    let rules = codes.iter().map(|(code, about)| {
        json!({
            "id": code,
            "shortDescription": { "text": first_sentence(about) },
            "help": { "text": about },
        })
    });
    let results = problems.iter().map(|problem| result(problem, codes));
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "counterflow",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules.collect::<Vec<_>>(),
            }},
            "columnKind": "unicodeCodePoints",
            "results": results.collect::<Vec<_>>(),
        }],
    })
}

fn result(problem: &Problem, codes: &[(&str, &str)]) -> Value {
    let hint = problem.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
    let rule = problem.rule.as_ref().map(|rule| format!("rule \"{rule}\": ")).unwrap_or_default();
    let mut result = json!({
        "ruleId": problem.code,
        "level": if problem.severity == Severity::Error { "error" } else { "warning" },
        "message": { "text": format!("{rule}{}{hint}", problem.message) },
        "locations": [{ "physicalLocation": {
            "artifactLocation": { "uri": uri(&problem.file) },
            // A problem of a whole file has no place: its first line then.
            "region": { "startLine": problem.line.max(1), "startColumn": problem.column.max(1) },
        }}],
    });
    if let Some(index) = codes.iter().position(|(code, _)| *code == problem.code) {
        result["ruleIndex"] = json!(index);
    }
    result
}

fn first_sentence(about: &str) -> &str {
    about.split_inclusive(". ").next().unwrap_or(about).trim_end()
}

/// A path as a URI reference (RFC 3986): relative ones stay so, absolute ones get their scheme.
fn uri(path: &str) -> String {
    let mut uri = String::from(if path.starts_with('/') { "file://" } else { "" });
    let path = path.strip_prefix("./").unwrap_or(path);
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'_' | b'.' | b'~') {
            uri.push(char::from(byte));
        } else {
            // Writing to memory does not fail.
            let written = write!(uri, "%{byte:02X}");
            debug_assert!(written.is_ok(), "memory takes it");
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_uris() {
        assert_eq!(uri("rules/ssh/a b.yml"), "rules/ssh/a%20b.yml");
        assert_eq!(uri("/tmp/ä#1.yml"), "file:///tmp/%C3%A4%231.yml");
        assert_eq!(uri("./x.yml"), "x.yml");
    }

    #[test]
    fn descriptions_are_cut_at_the_first_sentence() {
        assert_eq!(first_sentence("One thing. Do that."), "One thing.");
        assert_eq!(first_sentence("Only one"), "Only one");
    }
}
