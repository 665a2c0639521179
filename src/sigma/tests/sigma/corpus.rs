//! The public rules on real events.

use std::{collections::BTreeMap, fmt::Write, sync::Arc};

use cf_sigma::{ParseOptions, Scanner, Severity, lint, parse_with};
use expect_test::expect_file;

use crate::world::{events, hits, public_rules, regression_dir, shared};

/// What becomes of the public rules, kept in a file and compared: every rule loads or is refused for a reason that the
/// specification gives, and what the linter says of them is no more than it was.
#[test]
fn the_public_rules_load_or_say_why_not() {
    let Some(public) = public_rules() else { return };
    let mut out = String::new();
    writeln!(out, "files {}", public.texts.len()).unwrap();
    writeln!(out, "rules {}", public.rules.rules().len()).unwrap();
    let of = |severity| public.problems.iter().filter(move |problem| problem.severity == severity);
    for problem in of(Severity::Error) {
        let text = public.texts.iter().find(|text| text.file == problem.file).unwrap();
        let id = text.text.lines().find_map(|line| line.strip_prefix("id: ")).unwrap();
        writeln!(out, "refused {} {id} {}", problem.code, problem.message).unwrap();
    }
    let lint = lint(&public.texts, &public.parsed);
    for (what, problems) in [("warning", of(Severity::Warning).collect()), ("lint", lint.iter().collect::<Vec<_>>())] {
        let mut codes: BTreeMap<&str, usize> = BTreeMap::new();
        for problem in problems {
            *codes.entry(problem.code).or_default() += 1;
            assert!(problem.line > 0 && problem.column > 0 && problem.severity == Severity::Warning, "{problem}");
        }
        for (code, count) in codes {
            writeln!(out, "{what} {code} {count}").unwrap();
        }
    }
    expect_file!["../golden/sigmahq.txt"].assert_eq(&out);
    let refused = of(Severity::Error).count();
    assert_eq!(public.rules.rules().len() + refused, public.texts.len());
    // The two ask for a placeholder: with its values they load.
    let placeholders = [("known_cdcs".to_owned(), vec!["192.0.2.1".to_owned()])].into();
    let options = ParseOptions { placeholders, ..ParseOptions::default() };
    let asking: Vec<_> = of(Severity::Error).map(|problem| &problem.file).collect();
    let texts: Vec<_> = public.texts.iter().filter(|text| asking.contains(&&text.file)).cloned().collect();
    let parsed = parse_with(&texts, &options);
    assert_eq!((parsed.rules.len(), parsed.problems.len()), (refused, 0), "{:?}", parsed.problems);
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
