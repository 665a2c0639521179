//! What the steps of a pipeline do to a correlation: its fields are renamed as those of its rules are.

use std::{collections::HashMap, sync::Arc};

use super::{Failure, State, Step, Transformation, condition::Subject};
use crate::rule::{Correlation, CorrelationKind, LogSourcePattern, Rule};

/// For each correlation the log sources of the rules that it refers to, also through others.
pub(super) fn log_sources(rules: &[Arc<Rule>], correlations: &[Correlation]) -> Vec<Vec<LogSourcePattern>> {
    let mut known: HashMap<&str, Vec<LogSourcePattern>> = HashMap::new();
    for rule in rules {
        for word in [Some(&rule.id), rule.name.as_ref()].into_iter().flatten() {
            known.entry(word).or_default().push(rule.log_source.clone());
        }
    }
    let of = |rule: &Correlation, known: &HashMap<&str, Vec<LogSourcePattern>>| {
        let mut sources: Vec<LogSourcePattern> =
            rule.references.iter().filter_map(|reference| known.get(&*reference.to)).flatten().cloned().collect();
        sources.sort();
        sources.dedup();
        sources
    };
    // Correlations of correlations are few and not deep: as many rounds as there may be levels.
    const LEVELS_MAX: usize = 8;
    for _ in 0..LEVELS_MAX {
        let mut grown = false;
        for rule in correlations {
            let sources = of(rule, &known);
            for word in [Some(&rule.id), rule.name.as_ref()].into_iter().flatten() {
                grown |= known.insert(word, sources.clone()).as_ref() != Some(&sources);
            }
        }
        if !grown {
            break;
        }
    }
    correlations.iter().map(|rule| of(rule, &known)).collect()
}

/// Applies steps in their order.
pub(super) fn steps(
    steps: &[Step],
    rule: &mut Correlation,
    sources: &[LogSourcePattern],
    state: &mut State,
) -> Result<(), Failure> {
    for step in steps {
        if !step.fits_rule(&subject(rule, sources), state) {
            continue;
        }
        match &step.transformation {
            Transformation::FailRule(message) => return Err(Failure(message.to_string())),
            Transformation::Nest(inner) => self::steps(inner, rule, sources, state)?,
            Transformation::SetState(key, value) => {
                state.values.insert(Arc::clone(key), value.clone());
            }
            Transformation::SetAttribute(name, value) => {
                let custom = &mut Arc::make_mut(&mut rule.meta).custom;
                custom.retain(|(known, _)| known != name);
                custom.push((Arc::clone(name), value.clone()));
            }
            Transformation::AddFields(names) => Arc::make_mut(&mut rule.meta).fields.extend(names.iter().cloned()),
            Transformation::RemoveFields(names) => {
                Arc::make_mut(&mut rule.meta).fields.retain(|field| !names.contains(field));
            }
            Transformation::SetFields(names) => Arc::make_mut(&mut rule.meta).fields.clone_from(names),
            transformation if transformation.maps_fields() => rename(step, rule, state)?,
            _ => {}
        }
        state.applied.insert(step.id.clone().unwrap_or_default());
    }
    Ok(())
}

fn subject<'s>(rule: &'s Correlation, log_sources: &'s [LogSourcePattern]) -> Subject<'s> {
    Subject {
        correlation: true,
        log_sources,
        items: Vec::new(),
        id: &rule.id,
        name: rule.name.as_deref(),
        title: &rule.title,
        description: &rule.description,
        status: rule.status.as_deref(),
        level: rule.level,
        tags: &rule.tags,
        meta: &rule.meta,
    }
}

fn rename(step: &Step, rule: &mut Correlation, state: &mut State) -> Result<(), Failure> {
    let fields = &mut Arc::make_mut(&mut rule.meta).fields;
    *fields = fields.iter().flat_map(|field| step.named(field, state)).collect();
    let mut one = |field: &mut Arc<str>, what: &str| {
        let mut names = step.named(field, state);
        match (names.pop(), names.is_empty()) {
            (Some(name), true) => {
                *field = name;
                Ok(())
            }
            _ => Err(Failure(format!("{what} \"{field}\" would have several names or none"))),
        }
    };
    for field in rule.aliases.iter_mut().flat_map(|(_, fields)| fields).map(|(_, field)| field) {
        one(field, "the alias of")?;
    }
    match &mut rule.kind {
        CorrelationKind::ValueCount { fields, .. } | CorrelationKind::FirstSeen { fields, .. } => {
            fields.iter_mut().try_for_each(|field| one(field, "the counted field"))?;
        }
        CorrelationKind::Value { field, .. } => one(field, "the counted field")?,
        CorrelationKind::EventCount(_)
        | CorrelationKind::Temporal { .. }
        | CorrelationKind::Absence
        | CorrelationKind::Rate { .. } => {}
    }
    let is_alias = |field: &Arc<str>| rule.aliases.iter().any(|(alias, _)| alias == field);
    rule.group_by = rule
        .group_by
        .iter()
        .flat_map(|field| if is_alias(field) { vec![Arc::clone(field)] } else { step.named(field, state) })
        .collect();
    Ok(())
}
