//! Rule sets that change by file: the same as one made anew from the files as they are then.

use std::sync::Arc;

use cf_sigma::{Options, RuleSet, RuleStats, Scanner, Severity, Text, parse};

use crate::world::{event, hits, log_source, text};

fn rule(id: &str, image: &str) -> String {
    format!(
        "title: {id}\nid: {id}\nlogsource: {{product: linux}}\ndetection:\n  s:\n    Image|endswith: {image}\n  condition: s\n"
    )
}

fn correlation(id: &str, of: &str) -> String {
    format!(
        "title: {id}\nid: {id}\ncorrelation:\n  type: event_count\n  rules: [{of}]\n  group-by: [Image]\n  timespan: 1m\n  \
         condition: {{gte: 2}}\n"
    )
}

fn compiled(texts: &[Text]) -> RuleSet {
    RuleSet::compile(parse(texts), &Options::default()).0
}

/// Rules that a process with this image meets.
fn met(rules: &RuleSet, image: &str) -> String {
    let (anew, _) = rules.changed(Vec::new(), &[]);
    let mut scanner = Scanner::new(Arc::new(anew));
    hits(&mut scanner, &event(log_source("linux", "", ""), &[("Image", Some(image))], "{}")).join(" ")
}

fn shown(rules: &RuleSet) -> String {
    let shown = rules.rules().iter().map(|rule| format!("{}{}", rule.id, if rule.enabled { "" } else { "-" }));
    shown.collect::<Vec<_>>().join(" ")
}

/// `a=x` makes a file of rule `a` for images `/x`; `-a` takes the file away; `c>a` is a correlation over `a`; `!a` a file
/// that disables it; `f:a=x` names the file; `~a` breaks the file of `a`. Shown are ids (`-`: disabled) and errors.
#[track_caller]
fn check(changes: &[&str], expect: &str) -> RuleSet {
    let (mut rules, mut problems) = RuleSet::compile(parse(&[]), &Options::default());
    let mut files: Vec<Text> = Vec::new();
    for change in changes {
        let (mut upsert, mut removed) = (Vec::new(), Vec::new());
        for word in change.split(' ') {
            let (file, word) = word.split_once(':').unwrap_or(("", word));
            let named = |id: &str| format!("{}.yml", if file.is_empty() { id } else { file });
            if let Some(id) = word.strip_prefix('-') {
                removed.push(Arc::from(named(id)));
            } else if let Some(id) = word.strip_prefix('!') {
                upsert.push(text("off.yml", &format!("disable: [{id}]\n")));
            } else if let Some(id) = word.strip_prefix('~') {
                upsert.push(text(&named(id), "title: [\n"));
            } else if let Some((id, image)) = word.split_once('=') {
                upsert.push(text(&named(id), &rule(id, &format!("/{image}"))));
            } else if let Some((id, of)) = word.split_once('>') {
                upsert.push(text(&named(id), &correlation(id, of)));
            }
        }
        files.retain(|text| !removed.contains(&text.file));
        for text in &upsert {
            match files.iter_mut().find(|known| known.file == text.file) {
                Some(known) => known.clone_from(text),
                None => files.push(text.clone()),
            }
        }
        (rules, problems) = rules.changed(upsert, &removed);
        let (anew, anew_problems) = RuleSet::compile(parse(&files), &Options::default());
        assert_eq!((rules.hash(), rules.rules(), &problems), (anew.hash(), anew.rules(), &anew_problems), "{change}");
        assert_eq!(rules.episode_rules(), anew.episode_rules(), "{change}");
        assert!(rules.files().eq(files.iter().map(|text| &text.file)));
    }
    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error).map(|problem| problem.code);
    assert_eq!(errors.fold(shown(&rules), |all, code| format!("{all} !{code}")), expect);
    rules
}

#[test]
fn files_come_change_and_go() {
    check(&["a=x b=y"], "a b");
    let rules = check(&["a=x b=y", "a=z"], "a b");
    assert_eq!((met(&rules, "/x"), met(&rules, "/z"), met(&rules, "/y")), ("".into(), "a".into(), "b".into()));
    let rules = check(&["a=x b=y", "-a"], "b");
    assert_eq!(met(&rules, "/x"), "");
    check(&["a=x", "-nothing"], "a");
    check(&["a=x", "-a", "a=x"], "a");
}

#[test]
fn what_is_there_wins_against_what_comes_with_its_id() {
    let rules = check(&["one:a=x", "two:a=y"], "a !repeated_id");
    assert_eq!(met(&rules, "/x"), "a");
    // Once the first is gone, the other is no repetition.
    let rules = check(&["one:a=x", "two:a=y", "one:-a"], "a");
    assert_eq!(met(&rules, "/y"), "a");
}

#[test]
fn a_correlation_follows_the_rules_that_it_refers_to() {
    check(&["c>a"], " !unknown_reference");
    check(&["c>a", "a=x"], "a c");
    check(&["c>a", "a=x", "-a"], " !unknown_reference");
    let rules = check(&["a=x", "c>a"], "a c");
    assert!(!rules.rules()[0].alerts, "what a correlation refers to does not alert by itself");
    let rules = check(&["a=x c>a", "-c"], "a");
    assert!(rules.rules()[0].alerts);
}

#[test]
fn a_broken_text_takes_its_file_down_and_no_other() {
    check(&["a=x b=y", "~a"], "b !yaml");
    check(&["a=x b=y", "~a", "a=x"], "a b");
}

#[test]
fn a_disabled_rule_meets_nothing_and_stays_known() {
    let rules = check(&["a=x b=x", "!a"], "a- b");
    assert_eq!(met(&rules, "/x"), "b");
    // Who refers to it still finds it.
    check(&["a=x c>a", "!a"], "a- c");
    let rules = check(&["a=x c>a", "!c"], "a c-");
    let detected = rules.episode_rules().iter().find(|rule| &*rule.id == "c").unwrap();
    assert!(detected.alerts, "what it found stays");
    let rules = check(&["a=x b=x", "!a", "-off"], "a b");
    assert_eq!(met(&rules, "/x"), "a b");
}

#[test]
fn a_disabled_rule_of_the_plan_counts_nothing() {
    let plan = "rule:\n  id: p\n  name: P\n  severity: high\n  conditions:\n    - {field: event_type, operator: equals, \
                value: x}\n    - {field: source_ip, operator: count, value: 3, timeframe: 1m}\n";
    let off = compiled(&[text("p.yml", plan), text("off.yml", "disable: [p]\n")]);
    assert_eq!(shown(&off), "p#conditions- p-");
    let bad = RuleSet::compile(parse(&[text("off.yml", "disable:\n  - {a: b}\n")]), &Options::default()).1;
    assert_eq!((bad[0].code, bad[0].line, bad[0].column), ("disable", 2, 5));
}

#[test]
fn scanners_add_up_in_the_rule_set() {
    let rules = Arc::new(compiled(&[text("a.yml", &rule("a", "/x")), text("b.yml", &rule("b", "/y"))]));
    let of = |image| event(log_source("linux", "", ""), &[("Image", Some(image))], "{}");
    let mut one = Scanner::new(Arc::clone(&rules));
    let mut other = Scanner::new(Arc::clone(&rules));
    for _ in 0..3 {
        hits(&mut one, &of("/x"));
    }
    hits(&mut other, &of("/y"));
    let read = |stats: &[RuleStats]| stats.iter().map(|stats| stats.hits).collect::<Vec<_>>();
    assert_eq!(read(one.stats()), [3, 0]);
    assert_eq!(read(&rules.stats()), [0, 0], "not published yet");
    one.publish();
    one.publish();
    hits(&mut one, &of("/x"));
    drop((one, other));
    assert_eq!(read(&rules.stats()), [4, 1]);
}

/// What decides on detections has a name: the same for the same, wherever it stands, and another for whatever differs.
#[test]
fn a_meaning_follows_all_that_decides_on_detections() {
    let name = |texts: &[Text]| -> Vec<[u8; 32]> { compiled(texts).meanings() };
    let (a, b) = (rule("a", "/x"), rule("b", "/x"));
    let plain = name(&[text("a.yml", &a), text("b.yml", &b)]);
    assert_eq!(plain.len(), 2);
    assert_ne!(plain[0], plain[1], "another id");
    assert_eq!(name(&[text("other/a.yml", &a)])[0], plain[0], "wherever it stands, whatever stands beside");
    assert_ne!(name(&[text("a.yml", &rule("a", "/y"))])[0], plain[0], "another condition");
    // Who counts it, and by what.
    let over = correlation("c", "a");
    let counted = name(&[text("a.yml", &a), text("b.yml", &b), text("c.yml", &over)]);
    assert_eq!(counted.len(), 2, "correlations have none");
    assert_ne!(counted[0], plain[0]);
    assert_eq!(counted[1], plain[1]);
    let by_other = over.replace("group-by: [Image]", "group-by: [User]");
    assert_ne!(name(&[text("a.yml", &a), text("b.yml", &b), text("c.yml", &by_other)])[0], counted[0]);
    // How often it must be met does not decide on what meets it.
    let higher = over.replace("gte: 2", "gte: 3");
    assert_eq!(name(&[text("a.yml", &a), text("b.yml", &b), text("c.yml", &higher)])[0], counted[0]);
    let (windows, _) =
        RuleSet::compile(parse(&[text("a.yml", &a)]), &Options { fold_window_s: 60, ..Options::default() });
    assert_eq!(windows.meanings()[0], plain[0]);
}
