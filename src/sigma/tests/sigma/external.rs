//! Tests that another crate brings: asked where their anchors are met, shared where they are equal.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use cf_sigma::{
    Options, RuleSet, Scanner,
    parse::Parsed,
    rule::{Expr, Matcher, Rule, Test, ValueTest},
};

use crate::world::{event, hits, log_source};

/// Fits values of an even length, and counts how often it is asked.
#[derive(Debug, Default)]
struct Even {
    necessary: Option<Vec<String>>,
    asked: AtomicUsize,
}

impl ValueTest for Even {
    fn fits(&self, value: &str) -> bool {
        self.asked.fetch_add(1, Ordering::Relaxed);
        value.len().is_multiple_of(2)
    }

    fn key(&self) -> &'static str {
        "even"
    }

    fn necessary(&self) -> Option<Vec<String>> {
        self.necessary.clone()
    }
}

/// The ids that fire on an event, and how often the test was asked: two rules share it.
#[track_caller]
fn check(necessary: Option<&[&str]>, fields: &[(&str, Option<&str>)], wanted: &[&str], asked: usize) {
    let necessary = necessary.map(|texts| texts.iter().map(ToString::to_string).collect());
    let test = Arc::new(Even { necessary, ..Even::default() });
    let rule = |id: &str| Rule {
        id: Arc::from(id),
        condition: Expr::Test(Test {
            field: Some(Arc::from("x")),
            matcher: Matcher::External(Arc::<Even>::clone(&test)),
        }),
        ..Rule::default()
    };
    let mut parsed = Parsed::default();
    parsed.include(&[], vec![rule("one"), rule("two"), rule("two")], Vec::new());
    let (rules, problems) = RuleSet::compile(parsed, &Options::default());
    assert_eq!(problems.iter().map(|problem| problem.code).collect::<Vec<_>>(), ["repeated_id"]);
    let mut scanner = Scanner::new(Arc::new(rules));
    let found = hits(&mut scanner, &event(log_source("test", "", ""), fields, "{}"));
    assert_eq!(
        (found.iter().map(String::as_str).collect::<Vec<_>>().as_slice(), test.asked.load(Ordering::Relaxed)),
        (wanted, asked)
    );
}

#[test]
fn equal_tests_are_asked_once_a_value() {
    check(None, &[("x", Some("ab"))], &["one", "two"], 1);
    check(None, &[("x", Some("a")), ("x", Some("abc"))], &[], 2);
    check(None, &[("x", Some("a"))], &[], 1);
    check(None, &[("y", Some("ab"))], &[], 0);
}

#[test]
fn what_is_necessary_saves_asking() {
    check(Some(&["needle"]), &[("x", Some("hay"))], &[], 0);
    check(Some(&["needle", "pin"]), &[("x", Some("a NEEDLE"))], &["one", "two"], 1);
    check(Some(&["needle", "pin"]), &[("x", Some("pin"))], &[], 1);
    // Nothing is necessary where an empty text would do.
    check(Some(&["needle", ""]), &[("x", Some("hi"))], &["one", "two"], 1);
}
