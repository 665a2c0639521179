//! The rules in force, and the same with others in their place.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use anyhow::Result;
use cf_sigma::{Problem, RuleSet, Severity, Text};

use crate::{
    past::{Past, RulesThen},
    rules,
};

/// Names all that decides on a rule's detections ([`RuleSet::meanings`]).
pub(crate) type Meaning = [u8; 32];

/// What a text that disables rules is called here.
const OTHERS: &str = "backtest:others";

/// The two rule sets.
pub(crate) struct RuleSets {
    pub(crate) before: Arc<RuleSet>,
    pub(crate) after: Arc<RuleSet>,
    /// By id of the plain rules that events meet.
    pub(crate) meanings_before: BTreeMap<Arc<str>, Meaning>,
    pub(crate) meanings_after: BTreeMap<Arc<str>, Meaning>,
}

impl RuleSets {
    pub(crate) fn new(before: Arc<RuleSet>, after: Arc<RuleSet>) -> RuleSets {
        let (meanings_before, meanings_after) = (meanings(&before), meanings(&after));
        RuleSets { before, after, meanings_before, meanings_after }
    }

    /// The rules that differ: plain ones by what they find, correlations by what they count, all by how they are told.
    pub(crate) fn changed(&self) -> BTreeSet<Arc<str>> {
        let differ = |one: &BTreeMap<Arc<str>, Meaning>, other: &BTreeMap<Arc<str>, Meaning>| -> Vec<Arc<str>> {
            one.iter().filter(|(id, meaning)| other.get(*id) != Some(*meaning)).map(|(id, _)| Arc::clone(id)).collect()
        };
        let mut changed: BTreeSet<Arc<str>> = differ(&self.meanings_before, &self.meanings_after).into_iter().collect();
        changed.extend(differ(&self.meanings_after, &self.meanings_before));
        let told = |set: &RuleSet| -> BTreeMap<Arc<str>, String> {
            set.episode_rules().iter().map(|rule| (Arc::clone(&rule.id), format!("{rule:?}"))).collect()
        };
        let (before, after) = (told(&self.before), told(&self.after));
        let ids = before.keys().chain(after.keys());
        changed.extend(ids.filter(|id| before.get(*id) != after.get(*id)).cloned());
        changed
    }
}

fn meanings(set: &RuleSet) -> BTreeMap<Arc<str>, Meaning> {
    let named = set.rules().iter().zip(set.meanings());
    named.filter(|(info, _)| info.enabled).map(|(info, meaning)| (Arc::clone(&info.id), meaning)).collect()
}

/// A set of which only the plain rules of these meanings are met by events. It shares what is parsed.
pub(crate) fn only(set: &RuleSet, wanted: &BTreeSet<Meaning>) -> Arc<RuleSet> {
    let all = meanings(set);
    only_ids(set, &all.iter().filter(|(_, one)| wanted.contains(*one)).map(|(id, _)| &**id).collect())
}

/// The same by their ids.
pub(crate) fn only_ids(set: &RuleSet, wanted: &BTreeSet<&str>) -> Arc<RuleSet> {
    let plain = set.rules().iter().filter(|info| info.enabled && !info.correlation);
    let others: Vec<&str> = plain.map(|info| &*info.id).filter(|id| !wanted.contains(id)).collect();
    // JSON texts are YAML texts.
    let list = serde_json::Value::from(others).to_string();
    let off = Text { file: Arc::from(OTHERS), text: format!("disable: {list}\n") };
    rules::changed(set, vec![off], &[]).0
}

/// The rules of then with those of the texts in the place of the rules that have the same ids; and what keeps rules of the
/// texts out.
pub(crate) fn instead(past: &Past, then: &RulesThen, texts: &[Text]) -> Result<(Arc<RuleSet>, Vec<Problem>)> {
    let options = past.rule_options()?;
    let (set, problems, names) = match in_place(then, texts, &options) {
        Some(changes) => {
            let names: BTreeSet<Arc<str>> = changes.iter().map(|text| Arc::clone(&text.file)).collect();
            let (set, problems) = rules::changed(&then.set, changes, &[]);
            (set, problems, names)
        }
        // Of rules with one id the first stays: what is tried comes first.
        None => {
            let names: BTreeSet<Arc<str>> = texts.iter().map(|text| Arc::clone(&text.file)).collect();
            let rest = then.texts.iter().filter(|text| !names.contains(&text.file));
            let all: Vec<Text> = texts.iter().chain(rest).cloned().collect();
            let (set, problems) = rules::compile(&all, &options);
            (set, problems, names)
        }
    };
    let wrong = |problem: &Problem| problem.severity == Severity::Error && names.contains(&problem.file);
    Ok((set, problems.into_iter().filter(wrong).collect()))
}

/// The texts under the names of the files whose place they take; `None` if a text takes the place of a part of a file.
fn in_place(then: &RulesThen, texts: &[Text], options: &rules::RuleOptions) -> Option<Vec<Text>> {
    let (tried, problems) = rules::compile(texts, options);
    if problems.iter().any(|problem| problem.severity == Severity::Error) {
        return None; // what refers to rules of other texts has no id here
    }
    let ids = |set: &RuleSet, file: &str| -> BTreeSet<Arc<str>> {
        set.rules().iter().filter(|info| *info.file == *file).map(|info| Arc::clone(&info.id)).collect()
    };
    let mut changes: Vec<Text> = Vec::new();
    for text in texts {
        let own = ids(&tried, &text.file);
        let owners: BTreeSet<&Arc<str>> =
            then.set.rules().iter().filter(|info| own.contains(&info.id)).map(|info| &info.file).collect();
        let file = match owners.into_iter().collect::<Vec<_>>()[..] {
            [] => Arc::clone(&text.file),
            [owner] if ids(&then.set, owner).is_subset(&own) => Arc::clone(owner),
            _ => return None,
        };
        if changes.iter().any(|change| change.file == file) {
            return None;
        }
        changes.push(Text { file, text: text.text.clone() });
    }
    Some(changes)
}
