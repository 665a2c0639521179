//! Who counts for whom: references of correlations resolved, and the episode rules that follow.

use cf_types::Condition;

use super::{
    Arc, BTreeMap, BTreeSet, Correlation, Counted, CountedValue, EpisodeRule, FxHashMap, Grouping, Name, Options,
    Predicate, Problem, Rule,
};
use crate::{
    parse::condition,
    problem::{Place, Problems, did_you_mean, shown},
    rule::{CorrelationKind, Formula, Quantity, Reference, TemporalCondition},
};

/// What the graph and [`super::RuleSet::detection`] need.
#[derive(Debug, Default)]
pub(super) struct Resolved {
    pub(super) episode_rules: Vec<Arc<EpisodeRule>>,
    /// By plain rule.
    pub(super) counts: Vec<Vec<Counted>>,
    /// By plain rule: whether it alerts by itself.
    pub(super) alerting: Vec<bool>,
    /// Those that are used, and whether they make alerts.
    pub(super) correlations: Vec<(Correlation, bool)>,
}

/// What a reference leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Rule(usize),
    Correlation(usize),
}

/// Resolves references. Correlations that refer to nothing known, to themselves in a circle, or to refused ones are refused.
pub(super) fn resolve(
    rules: &[Arc<Rule>],
    mut correlations: Vec<Correlation>,
    disabled: &BTreeSet<Arc<str>>,
    options: &Options,
    problems: &mut Vec<Problem>,
) -> Resolved {
    // Refusing one may take the ground from another: until none is refused any more.
    let targets = loop {
        let index = index(rules, &correlations);
        let mut kept = Vec::new();
        let refused: Vec<bool> = correlations
            .iter()
            .enumerate()
            .map(|(number, rule)| match targets(rule, number, rules, &correlations, &index) {
                Ok(found) => {
                    kept.push(found);
                    false
                }
                Err((at, code, message, hint)) => {
                    let mut told = Problems::new(&rule.file);
                    told.rule = Some(Arc::clone(&rule.title));
                    let _refused = told.error(code, at, message, hint);
                    problems.append(&mut told.list);
                    true
                }
            })
            .collect();
        let circles = if refused.contains(&true) { Vec::new() } else { circle(&kept) };
        for number in &circles {
            if let Some(rule) = correlations.get(*number) {
                let mut told = Problems::new(&rule.file);
                told.rule = Some(Arc::clone(&rule.title));
                let at = Place { line: rule.line, column: 1 };
                let _refused =
                    told.error("circle", at, "the correlation refers to itself through others".to_owned(), None);
                problems.append(&mut told.list);
            }
        }
        if circles.is_empty() && !refused.contains(&true) {
            break kept;
        }
        let mut number = 0;
        correlations.retain(|_| {
            let keep = refused.get(number) != Some(&true) && !circles.contains(&number);
            number += 1;
            keep
        });
    };
    build(rules, correlations, &targets, disabled, options)
}

type Index = FxHashMap<Arc<str>, Target>;

/// Ids and names; where a name is another's id, the id wins.
fn index(rules: &[Arc<Rule>], correlations: &[Correlation]) -> Index {
    let mut index = Index::default();
    if correlations.is_empty() {
        return index; // nobody asks
    }
    let heads = || {
        let plain = rules.iter().enumerate().map(|(number, rule)| (Target::Rule(number), &rule.id, rule.name.as_ref()));
        let others = correlations.iter().enumerate();
        plain.chain(others.map(|(number, rule)| (Target::Correlation(number), &rule.id, rule.name.as_ref())))
    };
    for (target, id, _) in heads() {
        index.entry(Arc::clone(id)).or_insert(target);
    }
    for (target, _, name) in heads() {
        if let Some(name) = name {
            index.entry(Arc::clone(name)).or_insert(target);
        }
    }
    index
}

type Why = (Place, &'static str, String, Option<String>);

fn targets(
    rule: &Correlation,
    number: usize,
    rules: &[Arc<Rule>],
    correlations: &[Correlation],
    index: &Index,
) -> Result<Vec<Target>, Why> {
    let mut targets = Vec::new();
    for reference in &rule.references {
        let Reference { to, line, column } = reference;
        let at = Place { line: *line, column: *column };
        let Some(target) = index.get(to).copied() else {
            let hint = did_you_mean(to, index.keys().map(|key| &**key));
            return Err((at, "unknown_reference", format!("unknown rule \"{}\"", shown(to)), hint));
        };
        if target == Target::Correlation(number) {
            return Err((at, "circle", "the correlation refers to itself".to_owned(), None));
        }
        if let Target::Correlation(inner) = target {
            check_chained(rule, correlations.get(inner), at)?;
        }
        if targets.contains(&target) {
            return Err((at, "reference", format!("the rule \"{}\" is referred to twice", shown(to)), None));
        }
        targets.push(target);
    }
    check_aliases(rule, rules, correlations, &targets)?;
    evaluated(rule, &targets)?;
    Ok(targets)
}

/// How the graph evaluates a correlation.
struct Evaluated {
    predicate: Predicate,
    timespan: i64,
    /// What items must bring.
    value: Wanted,
}

enum Wanted {
    Nothing,
    Fields(Vec<Arc<str>>),
    /// Which reference it is.
    Reference,
}

/// What the graph cannot evaluate is refused here, so that it is read and checked like all else.
fn evaluated(rule: &Correlation, targets: &[Target]) -> Result<Evaluated, Why> {
    let at = Place { line: rule.line, column: 1 };
    let refuse = |what: &str, hint: Option<&str>| {
        Err((at, "not_yet_evaluated", format!("{what} are not yet evaluated"), hint.map(str::to_owned)))
    };
    let Some(timespan) = rule.timespan.seconds() else {
        return refuse("time spans of months and years, which have no fixed length,", Some("give days, as `30d`"));
    };
    let (predicate, value) = match &rule.kind {
        CorrelationKind::EventCount(condition) => (Predicate::EventCount(*condition), Wanted::Nothing),
        CorrelationKind::ValueCount { fields, condition } => {
            (Predicate::ValueCount(*condition), Wanted::Fields(fields.clone()))
        }
        CorrelationKind::Value { .. } => {
            return refuse(
                "sums, averages, medians and percentiles",
                Some("count events or values (`event_count`, `value_count`)"),
            );
        }
        CorrelationKind::Temporal { ordered, condition } => match simple(condition, rule) {
            Some(Simple::All) if *ordered => (Predicate::TemporalOrdered, Wanted::Nothing),
            Some(Simple::All) => (Predicate::Temporal, Wanted::Nothing),
            Some(Simple::Any) if !*ordered => (Predicate::EventCount(Condition::at_least(1)), Wanted::Nothing),
            // The number of different rules: each item's value is the rule it is of.
            Some(Simple::Count(count))
                if !*ordered && targets.iter().all(|target| matches!(target, Target::Rule(_))) =>
            {
                (Predicate::ValueCount(count), Wanted::Reference)
            }
            Some(_) | None => {
                return refuse(
                    "such conditions on temporal correlations",
                    Some("leave `condition` out: then all of its rules must be met; or chain correlations"),
                );
            }
        },
    };
    Ok(Evaluated { predicate, timespan, value })
}

/// Conditions that say no more than a number of rules.
enum Simple {
    All,
    Any,
    Count(Condition),
}

fn simple(condition: &TemporalCondition, rule: &Correlation) -> Option<Simple> {
    let of = u64::try_from(rule.references.len()).ok()?;
    let names = |list: &[Formula]| {
        let named = |reference: &Reference| {
            list.iter().any(|part| matches!(part, Formula::Name(name) if *name == reference.to))
        };
        list.iter().all(|part| matches!(part, Formula::Name(_))) && rule.references.iter().all(named)
    };
    match condition {
        TemporalCondition::All => Some(Simple::All),
        TemporalCondition::Count(count) => {
            // Whatever holds for all of them and for no less says: all.
            let least = (1..=of).find(|number| count.holds(*number));
            Some(if least == Some(of) { Simple::All } else { Simple::Count(*count) })
        }
        TemporalCondition::Formula(Formula::All(list)) if names(list) => Some(Simple::All),
        TemporalCondition::Formula(Formula::Any(list)) if names(list) => Some(Simple::Any),
        TemporalCondition::Formula(Formula::Name(_)) if of == 1 => Some(Simple::All),
        TemporalCondition::Formula(Formula::Of(quantity, which)) => {
            let all = rule.references.iter().all(|reference| condition::is_meant(which, &reference.to));
            let number = match quantity {
                Quantity::All => of,
                Quantity::AtLeast(number) => u64::try_from(*number).ok()?,
            };
            match number {
                _ if !all => None,
                1 => Some(Simple::Any),
                number if number == of => Some(Simple::All),
                number => Some(Simple::Count(Condition::at_least(number))),
            }
        }
        TemporalCondition::Formula(_) => None,
    }
}

/// An episode has a group and no fields: a correlation over it can group by that group only.
fn check_chained(rule: &Correlation, inner: Option<&Correlation>, at: Place) -> Result<(), Why> {
    let Some(inner) = inner else { return Ok(()) };
    let sorted = |fields: &[Arc<str>]| {
        let mut fields = fields.to_vec();
        fields.sort();
        fields
    };
    if sorted(&rule.group_by) != sorted(&inner.group_by) {
        let message =
            format!("it does not group by the same fields as the correlation \"{}\", which it refers to", inner.title);
        return Err((at, "chained_group", message, Some(format!("group by {}", inner.group_by.join(", ")))));
    }
    if matches!(rule.kind, CorrelationKind::ValueCount { .. }) {
        let message = "values of episodes are not yet counted".to_owned();
        return Err((at, "not_yet_evaluated", message, None));
    }
    Ok(())
}

/// Every alias must be known for every rule, else its events would never count.
fn check_aliases(
    rule: &Correlation,
    rules: &[Arc<Rule>],
    correlations: &[Correlation],
    targets: &[Target],
) -> Result<(), Why> {
    let at = Place { line: rule.line, column: 1 };
    for (alias, fields) in &rule.aliases {
        for (to, _) in fields {
            if !targets.iter().any(|target| is_called(*target, to, rules, correlations)) {
                let message =
                    format!("the alias \"{}\" speaks of \"{}\", which is not among the rules", shown(alias), shown(to));
                return Err((
                    at,
                    "alias",
                    message,
                    did_you_mean(to, rule.references.iter().map(|reference| &*reference.to)),
                ));
            }
        }
    }
    Ok(())
}

fn is_called(target: Target, word: &str, rules: &[Arc<Rule>], correlations: &[Correlation]) -> bool {
    let (id, name) = match target {
        Target::Rule(number) => {
            (rules.get(number).map(|rule| &rule.id), rules.get(number).and_then(|rule| rule.name.as_ref()))
        }
        Target::Correlation(number) => {
            let rule = correlations.get(number);
            (rule.map(|rule| &rule.id), rule.and_then(|rule| rule.name.as_ref()))
        }
    };
    id.is_some_and(|id| &**id == word) || name.is_some_and(|name| &**name == word)
}

/// Correlations on a circle or above one.
fn circle(targets: &[Vec<Target>]) -> Vec<usize> {
    let mut done = vec![false; targets.len()];
    loop {
        let ready: Vec<usize> = (0..targets.len())
            .filter(|&number| done.get(number) == Some(&false))
            .filter(|&number| {
                targets.get(number).is_some_and(|targets| {
                    targets.iter().all(|target| match target {
                        Target::Rule(_) => true,
                        Target::Correlation(inner) => done.get(*inner) == Some(&true),
                    })
                })
            })
            .collect();
        if ready.is_empty() {
            return (0..targets.len()).filter(|&number| done.get(number) == Some(&false)).collect();
        }
        for number in ready {
            if let Some(done) = done.get_mut(number) {
                *done = true;
            }
        }
    }
}

fn build(
    rules: &[Arc<Rule>],
    correlations: Vec<Correlation>,
    targets: &[Vec<Target>],
    disabled: &BTreeSet<Arc<str>>,
    options: &Options,
) -> Resolved {
    // Sigma: what a correlation refers to does not alert by itself, unless it says `generate: true`.
    let mut silent = BTreeMap::new();
    for (rule, targets) in correlations.iter().zip(targets) {
        for target in targets {
            let key = match target {
                Target::Rule(number) => (0, *number),
                Target::Correlation(number) => (1, *number),
            };
            let silenced = silent.entry(key).or_insert(true);
            *silenced &= !rule.generate;
        }
    }
    let alerts = |kind: u8, number: usize| silent.get(&(kind, number)) != Some(&true);

    let mut counts: Vec<Vec<Counted>> = vec![Vec::new(); rules.len()];
    let mut episode_rules = Vec::new();
    for (number, (rule, targets)) in correlations.iter().zip(targets).enumerate() {
        let Ok(Evaluated { predicate, timespan, value }) = evaluated(rule, targets) else { continue };
        episode_rules.push(Arc::new(EpisodeRule {
            id: Arc::clone(&rule.id),
            title: Arc::clone(&rule.title),
            level: rule.level,
            tags: Arc::clone(&rule.tags),
            references: targets.iter().filter_map(|target| id_of(*target, rules, &correlations)).collect(),
            timespan,
            predicate,
            // Of a disabled one nothing more is counted, so what it found stays. Episodes below it would still count:
            // then it has no alerts at all.
            alerts: alerts(1, number) && !(disabled.contains(&rule.id) && stands_on_others(targets)),
        }));
        if disabled.contains(&rule.id) {
            continue;
        }
        for (reference, target) in targets.iter().enumerate() {
            if let Target::Rule(plain) = target
                && let (Some(counts), Some(info)) = (counts.get_mut(*plain), rules.get(*plain))
            {
                counts.push(counted(rule, reference, info, &value));
            }
        }
    }
    let alerting: Vec<bool> = (0..rules.len()).map(|number| alerts(0, number)).collect();
    for ((rule, counts), _) in rules.iter().zip(&mut counts).zip(&alerting).filter(|(_, alerts)| **alerts) {
        episode_rules.push(Arc::new(folded(rule, options)));
        counts.push(Counted {
            rule: Arc::clone(&rule.id),
            reference: 0,
            group: Grouping::Fingerprint,
            value: CountedValue::None,
        });
    }
    let alerting_correlations: Vec<bool> = (0..correlations.len()).map(|number| alerts(1, number)).collect();
    let correlations = correlations.into_iter().zip(alerting_correlations).collect();
    Resolved { episode_rules, counts, alerting, correlations }
}

fn stands_on_others(targets: &[Target]) -> bool {
    targets.iter().any(|target| matches!(target, Target::Correlation(_)))
}

fn id_of(target: Target, rules: &[Arc<Rule>], correlations: &[Correlation]) -> Option<Arc<str>> {
    match target {
        Target::Rule(number) => rules.get(number).map(|rule| Arc::clone(&rule.id)),
        Target::Correlation(number) => correlations.get(number).map(|rule| Arc::clone(&rule.id)),
    }
}

fn counted(rule: &Correlation, reference: usize, plain: &Rule, value: &Wanted) -> Counted {
    let field_of = |word: &Arc<str>| -> Arc<str> {
        let alias = rule.aliases.iter().find(|(alias, _)| alias == word);
        let field = alias.and_then(|(_, fields)| {
            fields.iter().find(|(to, _)| *to == plain.id || Some(to) == plain.name.as_ref()).map(|(_, field)| field)
        });
        Arc::clone(field.unwrap_or(word))
    };
    let group = rule.group_by.iter().map(|word| (Arc::clone(word), Name::intern(&field_of(word))));
    Counted {
        rule: Arc::clone(&rule.id),
        reference: u16::try_from(reference).unwrap_or(u16::MAX), // bounded when it was parsed
        group: Grouping::Fields(group.collect()),
        value: match value {
            Wanted::Nothing => CountedValue::None,
            Wanted::Fields(fields) => {
                CountedValue::Fields(fields.iter().map(|field| Name::intern(&field_of(field))).collect())
            }
            Wanted::Reference => CountedValue::Fixed(Arc::clone(&plain.id)),
        },
    }
}

/// A plain rule that alerts by itself, as an episode rule.
fn folded(rule: &Rule, options: &Options) -> EpisodeRule {
    EpisodeRule {
        id: Arc::clone(&rule.id),
        title: Arc::clone(&rule.title),
        level: rule.level,
        tags: Arc::clone(&rule.tags),
        references: vec![Arc::clone(&rule.id)],
        timespan: i64::from(options.fold_window_s),
        predicate: Predicate::EventCount(Condition::at_least(1)),
        alerts: true,
    }
}
