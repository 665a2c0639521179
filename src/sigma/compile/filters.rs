//! Sigma filters put into the conditions of the rules that they name.

use std::collections::{HashMap, HashSet};

use super::{Arc, Problem, Rule};
use crate::{
    parse::condition::size,
    problem::{Place, Problems, did_you_mean, shown},
    rule::{Expr, Filter, LogSourcePattern, Reference},
};

/// Tests that all filters together may add to the rules: `rules: any` copies a filter into thousands.
const TESTS_MAX: usize = 1_000_000;

/// Applies filters in their order. One that names an unknown rule is refused as a whole: it would suppress less than it says.
pub(super) fn apply(rules: &mut [Arc<Rule>], filters: &[Filter], problems: &mut Vec<Problem>) {
    if filters.is_empty() {
        return;
    }
    let mut index: HashMap<Arc<str>, Vec<usize>> = HashMap::new();
    for (number, rule) in rules.iter().enumerate() {
        for word in [Some(&rule.id), rule.name.as_ref()].into_iter().flatten() {
            index.entry(Arc::clone(word)).or_default().push(number);
        }
    }
    let mut added = 0;
    for filter in filters {
        let mut told = Problems::new(&filter.file);
        told.rule = Some(Arc::from(shown(&filter.title)));
        let targets = targets(filter, rules, &index, &mut told);
        added += targets.len().saturating_mul(size(&filter.condition));
        if added > TESTS_MAX {
            let at = Place { line: filter.line, column: 1 };
            let message = format!("the filters add more than {TESTS_MAX} values to the rules");
            let _refused = told.error("too_many_tests", at, message, None);
            problems.append(&mut told.list);
            return;
        }
        problems.append(&mut told.list);
        for number in targets {
            if let Some(rule) = rules.get_mut(number).map(Arc::make_mut) {
                let condition = std::mem::replace(&mut rule.condition, Expr::Any(Vec::new()));
                let filter_condition = filter.condition.clone();
                let also = if filter.suppresses { Expr::Not(Box::new(filter_condition)) } else { filter_condition };
                rule.condition = Expr::All(vec![condition, also]);
                let (title, outline) = (Arc::clone(&filter.title), Arc::clone(&filter.outline));
                Arc::make_mut(&mut rule.outline).filters.push((title, filter.suppresses, outline));
            }
        }
    }
}

/// The rules that a filter concerns, none if it is refused.
fn targets(
    filter: &Filter,
    rules: &[Arc<Rule>],
    index: &HashMap<Arc<str>, Vec<usize>>,
    told: &mut Problems,
) -> Vec<usize> {
    let concerns = |rule: &Rule| rule.hunt.is_none() && is_part(&filter.log_source, &rule.log_source);
    let Some(references) = &filter.rules else {
        return rules.iter().enumerate().filter(|(_, rule)| concerns(rule)).map(|(number, _)| number).collect();
    };
    let (mut targets, mut refused) = (HashSet::new(), 0);
    for Reference { to, line, column } in references {
        let at = Place { line: *line, column: *column };
        let Some(found) = index.get(to) else {
            // Looking for a near one among thousands costs too much to be done for each of thousands.
            let hint = if refused < 3 { did_you_mean(to, index.keys().map(|key| &**key)) } else { None };
            let _refused = told.error("unknown_reference", at, format!("unknown rule \"{}\"", shown(to)), hint);
            refused += 1;
            continue;
        };
        for number in found {
            match rules.get(*number) {
                Some(rule) if concerns(rule) => {
                    targets.insert(*number);
                }
                _ => {
                    let message = format!("the filter is of another log source than the rule \"{}\"", shown(to));
                    let hint = Some("it does not concern the rule; give both the same `logsource`".to_owned());
                    told.warn("filter_logsource", at, message, hint);
                }
            }
        }
    }
    if refused > 0 {
        return Vec::new();
    }
    let mut targets: Vec<usize> = targets.into_iter().collect();
    targets.sort_unstable();
    targets
}

/// Whether a rule's log source has all parts that the filter's gives.
fn is_part(filter: &LogSourcePattern, rule: &LogSourcePattern) -> bool {
    let fits = |filter: &Option<Arc<str>>, rule: &Option<Arc<str>>| filter.is_none() || filter == rule;
    fits(&filter.product, &rule.product)
        && fits(&filter.category, &rule.category)
        && fits(&filter.service, &rule.service)
}
