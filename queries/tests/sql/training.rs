//! The training set against a slow reading of the same rows, one after the other.

use std::collections::BTreeMap;

use cf_history::{FeatureEntry, Subject, VerdictEntry};
use cf_types::fact::{Judgement, Verdict};
use serde_json::{Value, json};

use super::*;

/// What the control log says, in its order.
#[derive(Clone)]
enum Said {
    /// Features of an alert were served; the number is what they hold.
    Served(u8, i64),
    /// Somebody judged an alert, or took it back.
    Judged(u8, &'static str, Judgement, bool),
}

/// Small numbers that look random; the same for a seed.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

fn said(seed: u64, count: usize) -> Vec<Said> {
    let mut dice = Dice(seed);
    let judgements = [Judgement::TruePositive, Judgement::FalsePositive, Judgement::Benign];
    let one = |_| {
        let alert = u8::try_from(dice.roll(30)).unwrap();
        if dice.roll(2) == 0 {
            return Said::Served(alert, i64::try_from(dice.roll(1 << 40)).unwrap());
        }
        let (author, judgement) = (["alice", "bob"][dice.roll(2) as usize], judgements[dice.roll(3) as usize]);
        Said::Judged(alert, author, judgement, dice.roll(5) > 0)
    };
    (0..count).map(one).collect()
}

fn wall(seq: usize, day_s: i64) -> Time {
    Time::from_seconds(1_767_225_600 + i64::try_from(seq).unwrap() * day_s)
}

/// Written over several epochs; rows of an epoch in any order.
fn written(history: &Path, said: &[Said], day_s: i64, seed: u64) {
    let mut dice = Dice(seed);
    let mut writer = Writer::open(history, HistoryOptions { encoders: 1 }).unwrap();
    let (mut epoch, mut rest) = (0, said);
    let mut seq = 0;
    while !rest.is_empty() {
        epoch += 1;
        let (now, later) = rest.split_at((1 + dice.roll(40) as usize).min(rest.len()));
        let (mut features, mut verdicts) = (Vec::new(), Vec::new());
        for one in now {
            seq += 1;
            let at = wall(seq, day_s);
            let seq = i64::try_from(seq).unwrap();
            match *one {
                Said::Served(alert, number) => {
                    let (tenant, id) = (Tenant::default(), AlertId([alert; 16]).to_string());
                    let time = Time::from_seconds(1_767_225_600 + i64::from(alert));
                    let subject = Subject { tenant, id, kind: "alert", time, seq };
                    let features_ = vec![("level".to_owned(), number.into()), ("a \"b\"".to_owned(), (-number).into())];
                    features.push(FeatureEntry {
                        subject,
                        recipe: "alert-1".to_owned(),
                        rule: None,
                        signature: Some("00".to_owned()),
                        features: features_,
                    });
                }
                Said::Judged(alert, author, judgement, is_given) => {
                    let verdict = Verdict { alert: AlertId([alert; 16]), judgement, rule: "a".into(), at };
                    verdicts.push(VerdictEntry {
                        tenant: Tenant::default(),
                        seq,
                        verdict,
                        given: if is_given { 1 } else { -1 },
                        author: author.to_owned(),
                        reason: String::new(),
                        at,
                    });
                }
            }
        }
        if dice.roll(2) == 0 {
            features.reverse();
            verdicts.reverse();
        }
        writer.write(epoch, &features).unwrap();
        writer.write(epoch, &verdicts).unwrap();
        writer.write(epoch, &[entry(epoch)]).unwrap();
        writer.commit(epoch).unwrap();
        rest = later;
    }
}

/// The same, one entry after the other: alert, label, number.
fn expected(said: &[Said], day_s: i64) -> Vec<(u8, &'static str, i64)> {
    let mut served: BTreeMap<u8, i64> = BTreeMap::new();
    let mut frozen: BTreeMap<u8, Option<i64>> = BTreeMap::new();
    let mut labels: BTreeMap<u8, Option<&'static str>> = BTreeMap::new();
    let mut counts: BTreeMap<(&str, i64), u32> = BTreeMap::new();
    for (at, one) in said.iter().enumerate() {
        match *one {
            Said::Served(alert, number) => drop(served.insert(alert, number)),
            Said::Judged(alert, author, judgement, is_given) => {
                // Features that came after the first verdict may know it.
                frozen.entry(alert).or_insert_with(|| served.get(&alert).copied());
                let day = wall(at + 1, day_s).cell().div_euclid(86_400);
                let count = counts.entry((author, day)).or_default();
                *count += u32::from(is_given);
                labels.insert(alert, (is_given && *count <= 200).then_some(judgement.as_str()));
            }
        }
    }
    let row = |(alert, label): (u8, Option<&'static str>)| Some((alert, label?, frozen.get(&alert).copied()??));
    labels.into_iter().filter_map(row).collect()
}

#[track_caller]
fn check(said: &[Said], day_s: i64, seed: u64) -> usize {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path(), said, day_s, seed);
    let session = Session::open(dir.path(), Options::default()).unwrap();
    let text = run(&session, named::find("training_set").unwrap().sql, Format::Json).unwrap();
    let got: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let row = |(alert, label, number): (u8, &'static str, i64)| {
        let features = json!({"level": number, "a \"b\"": -number}).to_string();
        let time = Time::from_seconds(1_767_225_600 + i64::from(alert)).to_string();
        json!({
            "alert_id": AlertId([alert; 16]).to_string(), "time": time, "rule_id": null, "signature": "00",
            "verdict": label, "recipe": "alert-1", "features": features,
        })
    };
    let expect: Vec<Value> = expected(said, day_s).into_iter().map(row).collect();
    assert_eq!(got, expect);
    expect.len()
}

/// ML: the last label of each alert with the features from before its first, whatever the order of rows and epochs.
#[test]
fn the_training_set_is_what_a_slow_reader_finds() {
    let mut rows = 0;
    for seed in 1..=6 {
        rows += check(&said(seed, 40 * usize::try_from(seed).unwrap()), [1, 7_000][seed as usize % 2], seed);
    }
    assert!(rows > 40, "{rows}");
}

/// A taken-over account says what it wants of many alerts: only so many of a day count; others' verdicts all do.
#[test]
fn of_one_author_only_so_many_verdicts_of_a_day_count() {
    let served = (0..=205).map(|alert| Said::Served(alert, i64::from(alert)));
    let judged = (0..205).map(|alert| Said::Judged(alert, "mallory", Judgement::TruePositive, true));
    let mut said: Vec<Said> = served.chain(judged).collect();
    said.push(Said::Judged(205, "alice", Judgement::Benign, true));
    assert_eq!(check(&said, 1, 1), 201);
    // Over many days all count.
    assert_eq!(check(&said, 86_400, 2), 206);
}
