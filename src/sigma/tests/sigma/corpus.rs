//! The public rules on real events.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use cf_sigma::{Scanner, Severity};

use crate::{
    naive::Naive,
    world::{events, hits, public_rules, regression_dir, shared},
};

#[test]
fn the_public_rules_load_or_say_why_not() {
    let Some(public) = public_rules() else { return };
    let mut codes: BTreeMap<(&str, Severity), usize> = BTreeMap::new();
    for problem in &public.problems {
        *codes.entry((problem.code, problem.severity)).or_default() += 1;
        assert!(problem.line > 0 && problem.column > 0, "{problem}");
    }
    let refused: Vec<String> =
        public.problems.iter().filter(|problem| problem.severity == Severity::Error).map(ToString::to_string).collect();
    eprintln!("{} rules, problems: {codes:?}\n{}", public.rules.rules().len(), refused.join("\n"));
    // Two need a placeholder's values.
    assert_eq!(public.rules.rules().len() + refused.len(), 3_757);
    assert_eq!(codes, BTreeMap::from([(("placeholder", Severity::Error), 2)]));
}

/// Cases whose published count is lower than the number of their events that plainly fulfil the rule's text: three files
/// named `\AppData\Roaming\AnyDesk\user.conf...`, and one value each of AutoShareServer and AutoShareWks.
const MORE: [&str; 2] = ["0b9ad457-2554-44c1-82c2-d56a99c42377", "c7dcacd0-cc59-4004-b0a4-1d6cdebe6f3e"];

#[test]
fn every_regression_case_fires_with_all_rules_loaded() {
    let (Some(public), Some(dir), Some(table)) = (public_rules(), regression_dir(), shared("sigma/regression.tsv"))
    else {
        return;
    };
    let mut scanner = Scanner::new(Arc::clone(&public.rules));
    let table = std::fs::read_to_string(table).unwrap();
    let (mut cases, mut missing) = (0, Vec::new());
    for line in table.lines().skip(1) {
        let columns: Vec<&str> = line.split('\t').collect();
        let (rule, evtx, count) = (columns[0], columns[2], columns[3]);
        for path in [evtx.to_owned(), evtx.replace(".evtx", ".json")] {
            cases += 1;
            let met = events(&dir.join(&path), 1)
                .iter()
                .filter(|event| hits(&mut scanner, event).iter().any(|id| id == rule))
                .count();
            let wanted = count.parse::<usize>().unwrap_or(1);
            if met < wanted || (met > wanted && !count.is_empty() && !MORE.contains(&rule)) {
                missing.push(format!("{path}: {met} of {count}"));
            }
        }
    }
    assert_eq!(cases, 264);
    assert_eq!(missing, Vec::<String>::new());
}

/// All pairs by both ways. Each `step`th event, because the oracle is slow; all with COUNTERFLOW_ALL_PAIRS=1.
#[track_caller]
fn check_against_oracle(file: &str, step: usize) {
    let (Some(public), Some(path)) = (public_rules(), shared(file)) else { return };
    let all = std::env::var("COUNTERFLOW_ALL_PAIRS").is_ok();
    let events = events(&path, if all { 1 } else { step });
    let mut scanner = Scanner::new(Arc::clone(&public.rules));
    let mut pairs = 0;
    for event in &events {
        let found = hits(&mut scanner, event);
        assert_eq!(found, oracle().hits(event), "{}", String::from_utf8_lossy(&event.raw));
        pairs += found.len();
    }
    eprintln!("{file}: {} events, {pairs} pairs", events.len());
    assert!(pairs > 0);
}

fn oracle() -> &'static Naive {
    static NAIVE: OnceLock<Naive> = OnceLock::new();
    NAIVE.get_or_init(|| Naive::new(&public_rules().unwrap().parsed.rules))
}

#[test]
fn matches_on_attacks_are_those_of_the_oracle() {
    check_against_oracle("events/evtx_attack_samples.jsonl.zst", 23);
}

#[test]
fn matches_on_background_are_those_of_the_oracle() {
    check_against_oracle("events/otrf_windows_400k.jsonl.zst", 1_009);
}

#[test]
fn matches_on_cloud_and_text_logs_are_those_of_the_oracle() {
    check_against_oracle("events/otrf_aws_cloudtrail.jsonl", 1);
    let Some(path) = shared("events/openssh_2k.log") else { return };
    let mut scanner = Scanner::new(Arc::clone(&public_rules().unwrap().rules));
    for event in events(&path, 7) {
        assert_eq!(hits(&mut scanner, &event), oracle().hits(&event));
    }
}
