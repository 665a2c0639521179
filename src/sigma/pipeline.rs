//! pySigma's processing pipelines, as far as they concern matching: rules rewritten before they are compiled.
//!
//! In: rules with their outlines, and pipelines read from YAML of the form that pySigma documents (*Processing
//! Pipelines*). Out: the same rules with other fields, values, conditions and log sources, or without those that a
//! pipeline refuses. What concerns the text of queries (postprocessing, finalizers) is left aside and said.
//!
//! Pipelines run in the order of their priority, those of one priority as they were given. State and marks of what was
//! applied live as long as one rule is rewritten and pass from pipeline to pipeline, as in pySigma.
//!
//! Where this departs from pySigma, it is because a rule is matched here and not made a query: texts are compared without
//! case and numbers as texts anyway, so `convert_type` and the case-insensitive forms of `regex` change nothing; and a
//! value mapped to several is fulfilled by any of them, also under `all`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    outline::Outline,
    parse::{Text, condition::size},
    problem::{Place, Problem, Problems, shown},
    rule::{Correlation, Expr, Formula, LogSourcePattern, Rule, Value},
    yaml::Node,
};

mod condition;
mod correlation;
mod read;
mod transform;

use condition::{FieldCondition, ItemCondition, RuleCondition};

/// Tests that one rule may have when a pipeline is done with it.
const TESTS_MAX: usize = 50_000;

/// One processing pipeline.
#[derive(Clone, Debug)]
pub struct Pipeline {
    name: Arc<str>,
    priority: i64,
    vars: BTreeMap<String, Vec<String>>,
    steps: Vec<Step>,
    digest: [u8; 32],
}

/// Pipelines in the order in which they run.
#[derive(Clone, Debug, Default)]
pub struct Pipelines {
    list: Vec<Pipeline>,
}

/// One transformation and when it is applied.
#[derive(Clone, Debug)]
struct Step {
    id: Option<Arc<str>>,
    transformation: Transformation,
    rule: Conditions<RuleCondition>,
    item: Conditions<ItemCondition>,
    field: Conditions<FieldCondition>,
}

/// Conditions of one kind.
#[derive(Clone, Debug)]
struct Conditions<C> {
    list: Vec<(Arc<str>, C)>,
    /// How they are joined; `None` for all.
    joined: Joined,
    negated: bool,
}

#[derive(Clone, Debug)]
enum Joined {
    All,
    Any,
    /// By an expression over their names.
    By(Formula),
}

/// New names of a field.
type Names = Vec<Arc<str>>;

#[derive(Clone, Debug)]
enum Transformation {
    /// `None` stands for keywords.
    MapFields(BTreeMap<Option<Arc<str>>, Names>),
    MapPrefixes(Vec<(Arc<str>, Names)>),
    /// Other form of the name, but for those that are mapped.
    FieldForm {
        form: Form,
        mapping: BTreeMap<Option<Arc<str>>, Names>,
    },
    Prefix(Arc<str>),
    Suffix(Arc<str>),
    DropItem,
    AddCondition {
        name: Arc<str>,
        conditions: Node,
        template: bool,
        negated: bool,
    },
    ChangeLogSource(LogSourcePattern),
    AddFields(Names),
    RemoveFields(Names),
    SetFields(Names),
    ReplaceString {
        regex: regex::Regex,
        replacement: String,
        skip_special: bool,
        interpret_special: bool,
    },
    MapString(BTreeMap<String, Vec<String>>),
    /// Texts compared with their case.
    Cased,
    SetValue(Option<Arc<str>>),
    TextForm(Form),
    HashFields {
        algorithms: Vec<String>,
        prefix: String,
        drop_algorithm: bool,
    },
    SetState(Arc<str>, Value),
    SetAttribute(Arc<str>, Value),
    FailRule(Arc<str>),
    FailItem(Arc<str>),
    FailUnmapped,
    Nest(Vec<Step>),
    /// What changes nothing here, or is done before (placeholders).
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Lower,
    Upper,
    Snake,
}

/// What is known while one rule is rewritten.
#[derive(Default)]
struct State {
    values: BTreeMap<Arc<str>, Value>,
    /// Ids of steps that were applied to the rule.
    applied: BTreeSet<Arc<str>>,
    /// Field -> ids of steps that gave it its name.
    fields: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// Fields that some mapping knows.
    mapped: BTreeSet<Arc<str>>,
}

/// A pipeline refuses a rule.
struct Failure(String);

impl Pipeline {
    /// Reads one. What is only doubtful comes with it.
    ///
    /// # Errors
    ///
    /// What is wrong in the text.
    pub fn parse(text: &Text) -> Result<(Pipeline, Vec<Problem>), Vec<Problem>> {
        read::pipeline(text)
    }

    /// Its name; its file if it has none.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Lower ones run first.
    #[must_use]
    pub const fn priority(&self) -> i64 {
        self.priority
    }
}

impl PartialEq for Pipelines {
    fn eq(&self, other: &Pipelines) -> bool {
        self.digests().eq(other.digests())
    }
}

impl Eq for Pipelines {}

impl Pipelines {
    /// Puts pipelines into the order in which they run.
    #[must_use]
    pub fn new(mut list: Vec<Pipeline>) -> Pipelines {
        list.sort_by_key(|pipeline| pipeline.priority);
        Pipelines { list }
    }

    /// They, in their order.
    #[must_use]
    pub fn list(&self) -> &[Pipeline] {
        &self.list
    }

    pub(crate) fn digests(&self) -> impl Iterator<Item = &[u8; 32]> {
        self.list.iter().map(|pipeline| &pipeline.digest)
    }

    /// Values of placeholders, for [`crate::ParseOptions::placeholders`]: those are filled in when a rule is read. The name
    /// `*` stands for every placeholder without values of its own.
    #[must_use]
    pub fn placeholders(&self) -> BTreeMap<String, Vec<String>> {
        let mut values = BTreeMap::new();
        for pipeline in &self.list {
            values.extend(pipeline.vars.iter().map(|(name, values)| (name.clone(), values.clone())));
        }
        values
    }

    /// Rewrites rules and correlations. Those that a pipeline refuses, or that have nothing left, are taken out and told.
    #[must_use]
    pub fn apply(&self, rules: &mut Vec<Arc<Rule>>, correlations: &mut Vec<Correlation>) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.list.is_empty() {
            return problems;
        }
        // Correlations ask for the log sources of their rules as they were written.
        let sources = correlation::log_sources(rules, correlations);
        rules.retain_mut(|rule| {
            // A rule that nothing concerns stays the same one: it is shared with the rule set before.
            let mut own = Rule::clone(rule);
            let failure = match self.rewrite(&mut own) {
                Ok(changed) => {
                    if changed {
                        *rule = Arc::new(own);
                    }
                    None
                }
                Err(failure) => Some(failure),
            };
            problems.extend(failure.as_ref().map(|failure| told(failure, &rule.file, rule.line, &rule.title)));
            failure.is_none()
        });
        let mut sources = sources.iter();
        correlations.retain_mut(|rule| {
            let of = sources.next().map(Vec::as_slice).unwrap_or_default();
            let failure = self.rewrite_correlation(rule, of).err();
            problems.extend(failure.as_ref().map(|failure| told(failure, &rule.file, rule.line, &rule.title)));
            failure.is_none()
        });
        problems
    }

    /// Says whether any step was applied.
    fn rewrite(&self, rule: &mut Rule) -> Result<bool, Failure> {
        let mut state = State::default();
        if rule.outline.is_empty() {
            rule.outline = Arc::new(Outline::of(&rule.condition)); // of another reader
        }
        for pipeline in &self.list {
            let of = |Failure(message)| Failure(format!("pipeline \"{}\": {message}", shown(&pipeline.name)));
            transform::steps(&pipeline.steps, rule, &mut state).map_err(of)?;
        }
        if state.applied.is_empty() && state.mapped.is_empty() {
            return Ok(false);
        }
        let Some(condition) = rule.outline.expr() else {
            return Err(Failure("the pipelines leave nothing of the rule's condition".to_owned()));
        };
        if size(&condition) > TESTS_MAX {
            return Err(Failure(format!("the pipelines make more than {TESTS_MAX} values of the rule")));
        }
        // A rule that never matches keeps that: it is switched off.
        if !matches!(&rule.condition, Expr::Any(list) if list.is_empty()) {
            rule.condition = condition;
        }
        Ok(true)
    }

    fn rewrite_correlation(&self, rule: &mut Correlation, sources: &[LogSourcePattern]) -> Result<(), Failure> {
        let mut state = State::default();
        for pipeline in &self.list {
            let of = |Failure(message)| Failure(format!("pipeline \"{}\": {message}", shown(&pipeline.name)));
            correlation::steps(&pipeline.steps, rule, sources, &mut state).map_err(of)?;
        }
        Ok(())
    }
}

fn told(Failure(message): &Failure, file: &Arc<str>, line: u32, title: &Arc<str>) -> Problem {
    let mut problems = Problems::new(file);
    problems.rule = Some(Arc::clone(title));
    let _refused = problems.error("pipeline_failure", Place { line, column: 1 }, message.clone(), None);
    problems.list.remove(0)
}

#[cfg(test)]
mod tests;
