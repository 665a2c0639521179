//! Log sources as conditions: the same public rules with channel and event code written into each, by the published map,
//! find the same. Both ways go through our matcher; who writes them out is the oracle's side.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use cf_oracle::Sources;
use cf_sigma::{Options, RuleSet, Scanner, Severity, Text, parse};
use serde_json::Value;

use crate::world::{events, hits, public_rules, shared, sources};

/// Between the id of a rule and the number of its way to its log source.
const WAY: &str = "#";

/// The Windows rules among the texts, as they are and written out.
fn windows_rules(texts: &[Text], sources: &Sources) -> (Vec<Text>, Vec<Text>) {
    let (mut plain, mut written) = (Vec::new(), Vec::new());
    for text in texts {
        let Ok(rule) = serde_saphyr::from_str::<Value>(&text.text) else { continue };
        let source = &rule["logsource"];
        let placeholders = text.text.contains("|expand"); // two rules, whose values are the site's
        if placeholders || source["product"] != "windows" && source["category"] != "antivirus" {
            continue;
        }
        let Some(id) = rule["id"].as_str() else { continue };
        let ways = sources.written_out(&rule);
        if ways.is_empty() {
            // The map leads no event to it; ours may know another way.
            continue;
        }
        for (number, mut way) in ways.into_iter().enumerate() {
            way["id"] = Value::String(format!("{id}{WAY}{number}"));
            written.push(Text { file: text.file.clone(), text: way.to_string() });
        }
        plain.push(text.clone());
    }
    (plain, written)
}

fn compile(texts: &[Text]) -> Arc<RuleSet> {
    let (rules, problems) = RuleSet::compile(parse(texts), &Options::default());
    let errors: Vec<String> =
        problems.iter().filter(|problem| problem.severity == Severity::Error).map(ToString::to_string).collect();
    assert_eq!(errors, Vec::<String>::new());
    Arc::new(rules)
}

/// Compares on each `step`th event of a file; gives how many pairs there were.
fn compare(path: &Path, step: usize, plain: &mut Scanner, written: &mut Scanner) -> usize {
    let ids = |found: Vec<String>| -> BTreeSet<String> {
        found.into_iter().map(|id| id.split(WAY).next().unwrap_or_default().to_owned()).collect()
    };
    let mut pairs = 0;
    for event in events(path, step) {
        let (left, right) = (ids(hits(plain, &event)), ids(hits(written, &event)));
        assert_eq!(left, right, "{}", String::from_utf8_lossy(&event.raw));
        pairs += left.len();
    }
    pairs
}

#[test]
fn a_log_source_is_the_conditions_that_the_published_map_gives() {
    let (Some(public), Some(_)) = (public_rules(), shared("sigma/logsources-windows.yml")) else { return };
    let (plain, written) = windows_rules(&public.texts, &sources());
    assert!(plain.len() > 2_500 && written.len() > plain.len(), "{} rules, {} ways", plain.len(), written.len());
    let (mut plain, mut written) = (Scanner::new(compile(&plain)), Scanner::new(compile(&written)));
    let all = std::env::var("COUNTERFLOW_ALL_PAIRS").is_ok();
    for (file, step) in [("events/evtx_attack_samples.jsonl.zst", 3), ("events/otrf_windows_400k.jsonl.zst", 100)] {
        let Some(path) = shared(file) else { return };
        let pairs = compare(&path, if all { 1 } else { step }, &mut plain, &mut written);
        assert!(pairs > 40, "only {pairs} pairs in {file}: nothing was compared");
    }
}
