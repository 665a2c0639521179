//! Which ATT&CK techniques a rule set speaks of, as a layer that the ATT&CK Navigator shows.
//!
//! In: rules with their tags and, where known, how often each was met. Out: a layer of format 4.5 (the format's own
//! `layers/spec/v4.5/layerformat.md`). A technique's score is its number of rules; a technique stands without a tactic,
//! so it is coloured wherever the matrix shows it. Nothing depends on the order of the rules.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::{Value, json};

use crate::compile::RuleInfo;

/// Titles that a comment names; what is more is counted.
const TITLES_MAX: usize = 50;

/// What rules say of one technique.
#[derive(Default)]
struct Technique<'r> {
    titles: BTreeSet<&'r str>,
    rules: u64,
    hits: u64,
}

/// Makes the layer. `hits` are by rule id; without them nothing is said of hits.
///
/// Rules that are switched off do not count. A rule that became two (one that matches, one that counts) is one here.
#[must_use]
pub fn navigator_layer(rules: &[RuleInfo], hits: Option<&BTreeMap<Arc<str>, u64>>, name: &str) -> Value {
    let mut techniques: BTreeMap<String, Technique<'_>> = BTreeMap::new();
    let mut tactics: BTreeMap<String, u64> = BTreeMap::new();
    let mut untagged = 0_u64;
    for (rule, met) in once_each(rules, hits) {
        let (mut of, mut under) = (BTreeSet::new(), BTreeSet::new());
        for tag in rule.tags.iter() {
            match Tag::read(tag) {
                Some(Tag::Technique(id)) => of.insert(id),
                Some(Tag::Tactic(tactic)) => under.insert(tactic),
                None => continue,
            };
        }
        untagged += u64::from(of.is_empty());
        for id in of {
            let technique = techniques.entry(id).or_default();
            technique.titles.insert(&rule.title);
            technique.rules += 1;
            technique.hits += met;
        }
        for tactic in under {
            *tactics.entry(tactic).or_default() += 1;
        }
    }
    let most = techniques.values().map(|technique| technique.rules).max().unwrap_or(0).max(1);
    let mut metadata: Vec<Value> =
        tactics.iter().map(|(tactic, rules)| pair(&format!("rules of {tactic}"), rules)).collect();
    metadata.push(pair("rules without a technique", &untagged));
    json!({
        "name": name,
        "versions": {"navigator": "5.2.0", "layer": "4.5"},
        "domain": "enterprise-attack",
        "description": "rules by technique",
        "sorting": 3,
        "layout": {
            "layout": "side",
            "showID": true,
            "showName": true,
            "showAggregateScores": true,
            "countUnscored": false,
            "aggregateFunction": "sum",
            "expandedSubtechniques": "annotated",
        },
        "hideDisabled": false,
        "techniques": techniques.iter().map(|(id, of)| entry(id, of, hits.is_some())).collect::<Vec<_>>(),
        "gradient": {"colors": ["#ffffff", "#66b1ff", "#08519c"], "minValue": 0, "maxValue": most},
        "legendItems": [],
        "metadata": metadata,
    })
}

/// Rules with their hits, the two halves of one text put together.
fn once_each<'r>(
    rules: &'r [RuleInfo],
    hits: Option<&BTreeMap<Arc<str>, u64>>,
) -> impl Iterator<Item = (&'r RuleInfo, u64)> {
    let mut seen: BTreeMap<(&str, u32, &str), (&RuleInfo, u64)> = BTreeMap::new();
    for rule in rules.iter().filter(|rule| rule.enabled) {
        let met = hits.and_then(|hits| hits.get(&rule.id)).copied().unwrap_or(0);
        let known = seen.entry((&rule.file, rule.line, &rule.title)).or_insert((rule, 0));
        known.1 = known.1.max(met);
    }
    seen.into_values()
}

fn entry(id: &str, technique: &Technique<'_>, with_hits: bool) -> Value {
    let mut comment: Vec<&str> = technique.titles.iter().copied().take(TITLES_MAX).collect();
    let more = format!("and {} more", technique.titles.len().saturating_sub(TITLES_MAX));
    if technique.titles.len() > TITLES_MAX {
        comment.push(&more);
    }
    let mut metadata = vec![pair("rules", &technique.rules)];
    if with_hits {
        metadata.push(pair("hits", &technique.hits));
    }
    json!({
        "techniqueID": id,
        "score": technique.rules,
        "comment": comment.join("\n"),
        "enabled": true,
        "metadata": metadata,
        "showSubtechniques": id.contains('.'),
    })
}

fn pair(name: &str, value: &u64) -> Value {
    json!({"name": name, "value": value.to_string()})
}

/// A tag of the ATT&CK namespace that the matrix has a place for.
#[derive(Debug, PartialEq, Eq)]
enum Tag {
    /// `T1059` or `T1059.001`.
    Technique(String),
    /// `lateral-movement`.
    Tactic(String),
}

impl Tag {
    /// Reads `attack.t1059.001` and `attack.lateral_movement`; groups, software and other namespaces are none.
    fn read(tag: &str) -> Option<Tag> {
        let tag = tag.to_ascii_lowercase();
        let word = tag.strip_prefix("attack.")?;
        if let Some(number) = word.strip_prefix('t').filter(|number| number.starts_with(|c: char| c.is_ascii_digit())) {
            let digits = |text: &str, len: usize| text.len() == len && text.bytes().all(|byte| byte.is_ascii_digit());
            let fits = match number.split_once('.') {
                Some((technique, sub)) => digits(technique, 4) && digits(sub, 3),
                None => digits(number, 4),
            };
            // T0... are of industrial control systems, another matrix.
            return (fits && !number.starts_with('0')).then(|| Tag::Technique(format!("T{number}")));
        }
        let letters = word.bytes().all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'-' | b'_'));
        (letters && !word.is_empty()).then(|| Tag::Tactic(word.replace('_', "-")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Options, RuleSet, Text, parse};

    fn rules(list: &[(&str, &str)]) -> Vec<RuleInfo> {
        let rule = |(id, tags): &(&str, &str)| Text {
            file: format!("{id}.yml").into(),
            text: format!(
                "title: Rule {id}\nid: {id}\ntags: [{tags}]\nlogsource: {{product: linux}}\n\
                 detection:\n  s: {{A: b}}\n  condition: s\n"
            ),
        };
        let texts: Vec<Text> = list.iter().map(rule).collect();
        RuleSet::compile(parse(&texts), &Options::default()).0.rules().to_vec()
    }

    #[test]
    fn tags_are_techniques_or_tactics_or_neither() {
        let technique = |id: &str| Some(Tag::Technique(id.to_owned()));
        let tactic = |id: &str| Some(Tag::Tactic(id.to_owned()));
        for (tag, read) in [
            ("attack.t1059", technique("T1059")),
            ("attack.T1059.001", technique("T1059.001")),
            ("attack.t1059.1", None),
            ("attack.t0814", None),
            ("attack.g0016", None),
            ("attack.s0002", None),
            ("attack.lateral_movement", tactic("lateral-movement")),
            ("attack.defense-evasion", tactic("defense-evasion")),
            ("cve.2021-44228", None),
            ("attack.", None),
        ] {
            assert_eq!(Tag::read(tag), read, "{tag}");
        }
    }

    #[test]
    fn a_technique_counts_its_rules_and_their_hits() {
        let rules = rules(&[
            ("a", "attack.execution, attack.t1059.001, attack.t1059.001"),
            ("b", "attack.execution, attack.t1059.001, attack.t1105"),
            ("c", "attack.persistence"),
        ]);
        let hits = BTreeMap::from([(Arc::from("a"), 3), (Arc::from("b"), 4)]);
        let layer = navigator_layer(&rules, Some(&hits), "mine");
        let shown: Vec<String> = layer["techniques"]
            .as_array()
            .unwrap()
            .iter()
            .map(|technique| {
                format!(
                    "{} {} {} {}",
                    technique["techniqueID"],
                    technique["score"],
                    technique["comment"],
                    technique["metadata"][1]["value"]
                )
            })
            .collect();
        assert_eq!(shown, [r#""T1059.001" 2 "Rule a\nRule b" "7""#, r#""T1105" 1 "Rule b" "4""#]);
        let metadata: Vec<String> = layer["metadata"]
            .as_array()
            .unwrap()
            .iter()
            .map(|pair| format!("{} {}", pair["name"].as_str().unwrap(), pair["value"].as_str().unwrap()))
            .collect();
        assert_eq!(metadata, ["rules of execution 2", "rules of persistence 1", "rules without a technique 1"]);
        assert_eq!(layer["gradient"]["maxValue"], 2);
    }

    /// Members that the published format requires, with their types; and no member that it does not know.
    #[track_caller]
    fn check_members(object: &Value, required: &[&str], optional: &[&str]) {
        let members = object.as_object().unwrap();
        for name in required {
            assert!(members.contains_key(*name), "{name} in {object}");
        }
        for name in members.keys() {
            assert!(required.contains(&name.as_str()) || optional.contains(&name.as_str()), "{name} in {object}");
        }
    }

    #[test]
    fn the_layer_has_the_members_of_the_published_format() {
        for rules in [rules(&[]), rules(&[("a", "attack.t1059.001")])] {
            for hits in [None, Some(&BTreeMap::new())] {
                let layer = navigator_layer(&rules, hits, "mine");
                let optional = [
                    "versions",
                    "description",
                    "filters",
                    "sorting",
                    "layout",
                    "hideDisabled",
                    "techniques",
                    "gradient",
                    "legendItems",
                    "showTacticRowBackground",
                    "tacticRowBackground",
                    "selectTechniquesAcrossTactics",
                    "selectSubtechniquesWithParent",
                    "selectVisibleTechniques",
                    "metadata",
                    "links",
                    "customDataURL",
                ];
                check_members(&layer, &["name", "domain"], &optional);
                check_members(&layer["versions"], &["navigator", "layer"], &["attack"]);
                assert_eq!(layer["versions"]["layer"], "4.5");
                check_members(&layer["gradient"], &["colors", "minValue", "maxValue"], &[]);
                assert!(layer["gradient"]["minValue"].as_u64() < layer["gradient"]["maxValue"].as_u64());
                assert!(layer["gradient"]["colors"].as_array().unwrap().len() >= 2);
                let layout = [
                    "layout",
                    "showID",
                    "showName",
                    "showAggregateScores",
                    "countUnscored",
                    "aggregateFunction",
                    "expandedSubtechniques",
                ];
                check_members(&layer["layout"], &[], &layout);
                let techniques = layer["techniques"].as_array().unwrap();
                assert_eq!(techniques.len(), rules.len());
                for technique in techniques {
                    let optional =
                        ["tactic", "comment", "enabled", "score", "color", "metadata", "links", "showSubtechniques"];
                    check_members(technique, &["techniqueID"], &optional);
                    assert!(technique["score"].is_number() && technique["comment"].is_string());
                    for pair in technique["metadata"].as_array().unwrap() {
                        check_members(pair, &["name", "value"], &[]);
                        assert!(pair["value"].is_string());
                    }
                }
            }
        }
    }
}
