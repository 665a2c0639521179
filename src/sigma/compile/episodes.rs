//! Who counts for whom: references of correlations resolved, and the episode rules that follow.

use cf_types::{ChainedFields, Condition, Presence};

use super::{
    Arc, BTreeMap, BTreeSet, Correlation, Counted, CountedValue, EpisodeRule, FxHashMap, Grouping, Name, Options,
    Predicate, Problem, Rule,
};
use crate::{
    parse::condition,
    problem::{Place, Problems, did_you_mean, shown},
    rule::{Aggregate, CorrelationKind, Formula, Quantity, Reference, TemporalCondition, Timespan},
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
        if let Target::Correlation(inner) = target
            && let Some(inner) = correlations.get(inner)
        {
            chained(rule, inner, at)?;
        }
        if targets.contains(&target) {
            return Err((at, "reference", format!("the rule \"{}\" is referred to twice", shown(to)), None));
        }
        targets.push(target);
    }
    check_aliases(rule, rules, correlations, &targets)?;
    evaluated(rule)?;
    Ok(targets)
}

/// How the graph evaluates a correlation.
struct Evaluated {
    predicate: Predicate,
    timespan: i64,
    /// The fields whose values items must bring.
    fields: Vec<Arc<str>>,
}

/// Into how many steps the memory of a `rate` is parted: hours in a week.
const GRID_STEPS: i64 = 168;

/// What the graph cannot evaluate is refused here, so that it is read and checked like all else.
fn evaluated(rule: &Correlation) -> Result<Evaluated, Why> {
    let at = Place { line: rule.line, column: 1 };
    let seconds = |span: Timespan| {
        span.seconds().ok_or_else(|| {
            let message = "months and years are no time span: they have no fixed length".to_owned();
            (at, "timespan", message, Some("give days, as `30d`".to_owned()))
        })
    };
    let timespan = seconds(rule.timespan)?;
    let mut fields = Vec::new();
    let predicate = match &rule.kind {
        CorrelationKind::EventCount(condition) => Predicate::EventCount(*condition),
        CorrelationKind::ValueCount { fields: counted, condition } => {
            fields.clone_from(counted);
            Predicate::ValueCount(*condition)
        }
        CorrelationKind::Value { aggregate, field, percentile, condition } => {
            fields.push(Arc::clone(field));
            match (aggregate, percentile) {
                (Aggregate::Sum, _) => Predicate::Sum(*condition),
                (Aggregate::Average, _) => Predicate::Average(*condition),
                (Aggregate::Median, _) => Predicate::Percentile { percent: 50, condition: *condition },
                (Aggregate::Percentile, Some(percent)) => {
                    Predicate::Percentile { percent: *percent, condition: *condition }
                }
                (Aggregate::Percentile, None) => {
                    let message = "`value_percentile` does not say which percentile".to_owned();
                    return Err((at, "percentile", message, Some("add `percentile: 95` to `condition`".to_owned())));
                }
            }
        }
        CorrelationKind::Temporal { ordered, condition } => temporal(rule, *ordered, condition)?,
        CorrelationKind::Absence => Predicate::Absence,
        CorrelationKind::FirstSeen { fields: seen, within, known_min } => {
            fields.clone_from(seen);
            Predicate::FirstSeen { memory: seconds(*within)?, known_min: *known_min }
        }
        CorrelationKind::Rate { within, history, count_min, times } => {
            let memory = seconds(*within)?;
            Predicate::Rate {
                memory,
                grid: (memory / GRID_STEPS).max(1),
                age_min: seconds(*history)?,
                count_min: *count_min,
                times: *times,
            }
        }
    };
    Ok(Evaluated { predicate, timespan, fields })
}

fn temporal(rule: &Correlation, ordered: bool, condition: &TemporalCondition) -> Result<Predicate, Why> {
    match simple(condition, rule) {
        Some(Simple::All) if ordered => return Ok(Predicate::TemporalOrdered),
        Some(Simple::All) => return Ok(Predicate::Temporal),
        Some(Simple::Any) if !ordered => return Ok(Predicate::EventCount(Condition::at_least(1))),
        Some(Simple::Any) | None => {}
    }
    let at = Place { line: rule.line, column: 1 };
    if ordered {
        let message = "`temporal_ordered` is of all its rules, in their order".to_owned();
        let hint = Some("take the condition out, or write `type: temporal`".to_owned());
        return Err((at, "condition", message, hint));
    }
    let presence = match condition {
        TemporalCondition::All => Presence::All(references(rule, "them").map(Presence::Reference).collect()),
        TemporalCondition::Count(count) => Presence::Count(*count, references(rule, "them").collect()),
        TemporalCondition::Formula(formula) if formula.is_negative() => {
            let message = "the condition can hold by what is absent alone: no event would be its reason".to_owned();
            let hint = Some("for what does not follow, write `type: absence`".to_owned());
            return Err((at, "condition", message, hint));
        }
        TemporalCondition::Formula(formula) => presence(formula, rule),
    };
    Ok(Predicate::Presence(presence))
}

/// The references that a pattern means, in order.
fn references<'a>(rule: &'a Correlation, which: &'a str) -> impl Iterator<Item = u16> + 'a {
    let meant =
        rule.references.iter().zip(0u16..).filter(move |(reference, _)| condition::is_meant(which, &reference.to));
    meant.map(|(_, place)| place)
}

fn presence(formula: &Formula, rule: &Correlation) -> Presence {
    let list = |list: &[Formula]| list.iter().map(|formula| presence(formula, rule)).collect();
    match formula {
        Formula::All(parts) => Presence::All(list(parts)),
        Formula::Any(parts) => Presence::Any(list(parts)),
        Formula::Not(inner) => Presence::Not(Box::new(presence(inner, rule))),
        Formula::Name(name) => {
            // It is one of them: that was checked when it was parsed.
            let place = rule.references.iter().zip(0u16..).find(|(reference, _)| reference.to == *name);
            Presence::Reference(place.map_or(u16::MAX, |(_, place)| place))
        }
        Formula::Of(Quantity::All, which) => Presence::All(references(rule, which).map(Presence::Reference).collect()),
        Formula::Of(Quantity::AtLeast(number), which) => {
            let number = u64::try_from(*number).unwrap_or(u64::MAX);
            Presence::Count(Condition::at_least(number), references(rule, which).collect())
        }
    }
}

/// Conditions that say no more than all, or any.
enum Simple {
    All,
    Any,
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
            (least == Some(of) && !count.holds(0)).then_some(Simple::All)
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
                _ => None,
            }
        }
        TemporalCondition::Formula(_) => None,
    }
}

/// What a correlation takes from the episodes of another. An episode has a group and no fields, so what it is grouped
/// by above must be among what it is grouped by itself.
fn chained(rule: &Correlation, inner: &Correlation, at: Place) -> Result<ChainedFields, Why> {
    let own = |word: &Arc<str>| -> Result<Arc<str>, Why> {
        let field = aliased(rule, word, &inner.id, inner.name.as_ref());
        if inner.group_by.contains(&field) {
            return Ok(field);
        }
        let message = format!(
            "\"{}\" is none of the fields that the correlation \"{}\", which it refers to, groups by",
            shown(&field),
            inner.title
        );
        Err((at, "chained_group", message, Some(format!("group by {}", inner.group_by.join(", ")))))
    };
    let value = match &rule.kind {
        CorrelationKind::ValueCount { fields, .. } | CorrelationKind::FirstSeen { fields, .. } => {
            fields.iter().map(own).collect::<Result<_, _>>()?
        }
        CorrelationKind::Value { .. } => {
            let message = "an episode has no numbers: sums, averages and percentiles are of events".to_owned();
            return Err((at, "chained_value", message, None));
        }
        _ => Vec::new(),
    };
    let group = rule.group_by.iter().map(|word| Ok((Arc::clone(word), own(word)?)));
    Ok(ChainedFields { group: group.collect::<Result<_, _>>()?, value })
}

/// The field that a word of a correlation means in one of its rules.
fn aliased(rule: &Correlation, word: &Arc<str>, id: &Arc<str>, name: Option<&Arc<str>>) -> Arc<str> {
    let alias = rule.aliases.iter().find(|(alias, _)| alias == word);
    let field = alias
        .and_then(|(_, fields)| fields.iter().find(|(to, _)| to == id || Some(to) == name).map(|(_, field)| field));
    Arc::clone(field.unwrap_or(word))
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
        let Ok(Evaluated { predicate, timespan, fields }) = evaluated(rule) else { continue };
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
            chained: taken(rule, targets, &correlations),
        }));
        if disabled.contains(&rule.id) {
            continue;
        }
        for (reference, target) in targets.iter().enumerate() {
            if let Target::Rule(plain) = target
                && let (Some(counts), Some(info)) = (counts.get_mut(*plain), rules.get(*plain))
            {
                counts.push(counted(rule, reference, info, &fields));
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

/// By reference, what it takes from episodes; nothing at all if it refers to no correlation.
fn taken(rule: &Correlation, targets: &[Target], correlations: &[Correlation]) -> Vec<Option<ChainedFields>> {
    if !stands_on_others(targets) {
        return Vec::new();
    }
    let at = Place { line: rule.line, column: 1 };
    let of = |target: &Target| match target {
        Target::Rule(_) => None,
        Target::Correlation(inner) => chained(rule, correlations.get(*inner)?, at).ok(),
    };
    targets.iter().map(of).collect()
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

fn counted(rule: &Correlation, reference: usize, plain: &Rule, fields: &[Arc<str>]) -> Counted {
    let field_of = |word: &Arc<str>| Name::intern(&aliased(rule, word, &plain.id, plain.name.as_ref()));
    let group = rule.group_by.iter().map(|word| (Arc::clone(word), field_of(word)));
    Counted {
        rule: Arc::clone(&rule.id),
        reference: u16::try_from(reference).unwrap_or(u16::MAX), // bounded when it was parsed
        group: Grouping::Fields(group.collect()),
        value: match fields {
            [] => CountedValue::None,
            fields => CountedValue::Fields(fields.iter().map(field_of).collect()),
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
        chained: Vec::new(),
    }
}
