//! What triage learns from: alerts that people judged, with the features that were served before anybody judged them.
//!
//! Read from the control log, which holds both, so that nothing has to wait for history; `queries/training_set.sql` gives
//! the same rows in SQL. One label per alert: the last, unless it was taken back. A verdict may come long after its
//! alert; the features are the last that were served before its first verdict, so none of them knows what was said. Of
//! an author no more than [`VERDICTS_A_DAY`] verdicts of a day count, the first: whoever takes over one account cannot
//! teach the model much.

use std::collections::BTreeMap;

use anyhow::Result;
use cf_ledger::{ControlEntry, Reader};
use cf_models::{features::alert::RECIPE, served::Labelled};
use cf_types::{AlertId, Decision, FactBody};

/// Verdicts of one author that count in one day (UTC).
const VERDICTS_A_DAY: u32 = 200;

/// The rows of a training, by time and alert; and how many alerts were served features of another version.
pub(crate) async fn labelled(reader: &Reader) -> Result<(Vec<Labelled>, usize)> {
    let mut verdicts = Verdicts::default();
    each(reader, |entry| verdicts.entry(entry)).await?;
    let mut served = BTreeMap::new();
    each(reader, |entry| {
        if let Some(decision) = entry.decision()?
            && verdicts.first.get(&decision.alert).is_some_and(|first| entry.seq < *first)
        {
            served.insert(decision.alert, decision);
        }
        Ok(())
    })
    .await?;
    Ok(rows(&verdicts.labels(), served))
}

fn rows(labels: &BTreeMap<AlertId, &'static str>, served: BTreeMap<AlertId, Decision>) -> (Vec<Labelled>, usize) {
    let mut others = 0;
    let mut rows = Vec::new();
    for (alert, decision) in served {
        let Some(label) = labels.get(&alert) else { continue };
        if &*decision.recipe != RECIPE {
            others += 1;
            continue;
        }
        rows.push(Labelled {
            alert: alert.to_string(),
            cell: decision.cell,
            // Alerts of one rule in one group are alike: never on both sides of a split.
            group: format!("{:016x}", decision.signature),
            label: (*label).to_owned(),
            features: decision.features,
        });
    }
    rows.sort_by(|a, b| (a.cell, &a.alert).cmp(&(b.cell, &b.alert)));
    (rows, others)
}

async fn each(reader: &Reader, mut take: impl FnMut(&ControlEntry) -> Result<()>) -> Result<()> {
    let mut last = 0;
    loop {
        let entries = reader.control_since(last).await?;
        let Some(end) = entries.last().map(|entry| entry.seq) else { return Ok(()) };
        entries.iter().try_for_each(&mut take)?;
        last = end;
    }
}

/// What people said of each alert.
#[derive(Default)]
struct Verdicts {
    /// Where an alert was judged first.
    first: BTreeMap<AlertId, i64>,
    /// What it was judged last; `None` where that was taken back or is beyond its author's day.
    last: BTreeMap<AlertId, Option<&'static str>>,
    /// Verdicts by author and day.
    said: BTreeMap<(String, i64), u32>,
}

impl Verdicts {
    fn entry(&mut self, entry: &ControlEntry) -> Result<()> {
        let Some((fact, sign)) = entry.fact()? else { return Ok(()) };
        let FactBody::Verdict(verdict) = fact.body else { return Ok(()) };
        self.first.entry(verdict.alert).or_insert(entry.seq);
        let mut label = None;
        if sign > 0 {
            let day = entry.at.cell().div_euclid(86_400);
            let said = self.said.entry((entry.author.clone(), day)).or_default();
            *said += 1;
            label = (*said <= VERDICTS_A_DAY).then_some(verdict.judgement.as_str());
        }
        self.last.insert(verdict.alert, label);
        Ok(())
    }

    fn labels(&self) -> BTreeMap<AlertId, &'static str> {
        self.last.iter().filter_map(|(alert, label)| Some((*alert, (*label)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use cf_ledger::control::{FACT_ADD, FACT_REMOVE};
    use cf_types::{
        Fact, Tenant, Time,
        fact::{Judgement, Verdict},
    };

    use super::*;

    /// `alice +3` says that alert 3 is an attack, `alice -3` that it is none, `alice x3` takes it back.
    #[track_caller]
    fn check(said: &[&str], day_s: i64, expect: &str) {
        let mut verdicts = Verdicts::default();
        for (seq, words) in (1..).zip(said) {
            let (author, word) = words.split_once(' ').unwrap();
            let alert = AlertId([word.trim_start_matches(['+', '-', 'x']).parse::<u8>().unwrap(); 16]);
            let judgement = if word.starts_with('+') { Judgement::TruePositive } else { Judgement::Benign };
            let kind = if word.starts_with('x') { FACT_REMOVE } else { FACT_ADD };
            let verdict = Verdict { alert, judgement, rule: "a".into(), at: Time::default() };
            let fact = Fact { tenant: Tenant::default(), body: FactBody::Verdict(verdict) };
            let entry = ControlEntry {
                seq,
                kind: kind.to_owned(),
                body: serde_json::to_string(&fact).unwrap(),
                author: author.to_owned(),
                reason: String::new(),
                at: Time::from_seconds(seq * day_s),
            };
            verdicts.entry(&entry).unwrap();
            assert!(verdicts.first[&alert] <= seq);
        }
        let labels: Vec<String> =
            verdicts.labels().iter().map(|(alert, label)| format!("{} {label}", alert.0[0])).collect();
        assert_eq!(labels.join(", "), expect);
    }

    #[test]
    fn the_last_label_of_an_alert_counts_unless_it_was_taken_back() {
        check(&["alice +1", "bob -1", "alice +2", "alice x2"], 1, "1 benign");
        check(&["alice +1", "alice x1", "bob +1"], 1, "1 true_positive");
        check(&[], 1, "");
    }

    /// A taken-over account says what it wants of many alerts: only so many count, others' verdicts all do.
    #[test]
    fn of_one_author_only_so_many_of_a_day_count() {
        let texts: Vec<String> = (1..=205).map(|alert| format!("mallory +{alert}")).collect();
        let mut said: Vec<&str> = texts.iter().map(String::as_str).collect();
        said.push("alice -206");
        let mut expect: Vec<String> = (1..=200).map(|alert| format!("{alert} true_positive")).collect();
        expect.push("206 benign".to_owned());
        check(&said, 1, &expect.join(", "));
        // Over many days all count.
        let all: Vec<String> = (1..=205).map(|alert| format!("{alert} true_positive")).collect();
        check(&said[..205], 86_400, &all.join(", "));
    }
}
