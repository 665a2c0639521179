//! The public rules on real events.

use std::{collections::BTreeMap, sync::Arc};

use cf_sigma::{Scanner, Severity};

use crate::world::{events, hits, public_rules, regression_dir, shared};

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
