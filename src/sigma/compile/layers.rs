//! A matcher, and what changed since it was built: changing one rule compiles one rule.
//!
//! Compiling thousands of rules takes a good part of a second. So a rule set that differs little from another shares its
//! matcher, in which rules that are gone or off are passed over, and has those that are new in a second one. A rule is
//! the same if it is the same parsed text in memory; one that a filter touches is made anew and counts as changed.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::{
    RuleIndex,
    program::{Matcher, profile::Profile},
};
use crate::{log_source::LogSources, rule::Rule};

/// Changed rules from which all are compiled anew. A second matcher costs each event a little.
const CHANGED_MAX: usize = 64;

/// The matchers of a rule set: the large one, and one of what changed.
#[derive(Debug)]
pub(crate) struct Layers(Vec<Layer>);

/// A matcher and what its rules are in the rule set.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) matcher: Arc<Matcher>,
    /// By the matcher's own number.
    rules: Arc<[Arc<Rule>]>,
    /// By the matcher's own number: the rule's place in the rule set, `None` if it is gone or off.
    places: Vec<Option<RuleIndex>>,
}

impl Layers {
    /// Compiles rules of which some are off, as far as `before` does not have them already.
    pub(crate) fn build(
        rules: &[Arc<Rule>],
        is_on: impl Fn(&Rule) -> bool,
        log_sources: &Arc<LogSources>,
        profile: &Profile,
        before: Option<&Layers>,
    ) -> Layers {
        let on = (0..).map(RuleIndex).zip(rules).filter(|(_, rule)| is_on(rule));
        let on: Vec<(RuleIndex, &Arc<Rule>)> = on.collect();
        let large = before.and_then(|before| before.0.first());
        let shared = large.filter(|large| Arc::ptr_eq(&large.matcher.log_sources, log_sources));
        shared
            .and_then(|large| Layers::beside(large, &on, log_sources, profile))
            .unwrap_or_else(|| Layers(vec![Layer::build(&on, log_sources, profile)]))
    }

    /// The large matcher again, and one of what it does not have; `None` if that is much.
    fn beside(
        large: &Layer,
        on: &[(RuleIndex, &Arc<Rule>)],
        log_sources: &Arc<LogSources>,
        profile: &Profile,
    ) -> Option<Layers> {
        let mut wanted: FxHashMap<*const Rule, RuleIndex> =
            on.iter().map(|(place, rule)| (Arc::as_ptr(rule), *place)).collect();
        let places: Vec<_> = large.rules.iter().map(|rule| wanted.remove(&Arc::as_ptr(rule))).collect();
        let gone = places.iter().filter(|place| place.is_none()).count();
        if wanted.len() > CHANGED_MAX || gone > large.rules.len() / 2 {
            return None;
        }
        let changed: Vec<_> = on.iter().copied().filter(|(_, rule)| wanted.contains_key(&Arc::as_ptr(rule))).collect();
        let mut layers = vec![Layer { matcher: Arc::clone(&large.matcher), rules: Arc::clone(&large.rules), places }];
        if !changed.is_empty() {
            layers.push(Layer::build(&changed, log_sources, profile));
        }
        Some(Layers(layers))
    }

    /// The plain rules that events meet, each with its place.
    pub(crate) fn rules(&self) -> impl Iterator<Item = (RuleIndex, &Arc<Rule>)> {
        let rules = self.0.iter().flat_map(|layer| layer.rules.iter().zip(&layer.places));
        rules.filter_map(|(rule, place)| Some(((*place)?, rule)))
    }

    pub(crate) fn iter(&self) -> std::slice::Iter<'_, Layer> {
        self.0.iter()
    }
}

impl Layer {
    fn build(rules: &[(RuleIndex, &Arc<Rule>)], log_sources: &Arc<LogSources>, profile: &Profile) -> Layer {
        let places = rules.iter().map(|(place, _)| Some(*place)).collect();
        let rules: Arc<[Arc<Rule>]> = rules.iter().map(|(_, rule)| Arc::clone(rule)).collect();
        Layer { matcher: Arc::new(Matcher::build(&rules, log_sources, profile)), rules, places }
    }

    /// The place in the rule set of the matcher's rule of this number.
    #[inline]
    pub(crate) fn place(&self, number: u32) -> Option<RuleIndex> {
        *self.places.get(usize::try_from(number).ok()?)?
    }
}
