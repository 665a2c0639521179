//! Rules that are there without a rule file: that an indicator was seen, that a model called an event positive.

use std::sync::Arc;

use cf_types::{
    EpisodeRule,
    assess::{INDICATOR_RULE, RISK_RULE},
};

use crate::{
    detect::{Matcher, Rules},
    indicator, model,
};

/// The built-in rules that are found as episodes.
#[must_use]
pub fn builtin() -> Vec<Arc<EpisodeRule>> {
    [indicator::rule()].into_iter().chain(model::rules()).map(Arc::new).collect()
}

/// Whether a rule's id is taken: a rule of that id in a file is not evaluated.
#[must_use]
pub fn is_builtin(id: &str) -> bool {
    [INDICATOR_RULE, RISK_RULE].contains(&id) || model::is_rule(id)
}

/// A rule set, and the built-in rules beside it.
pub(crate) struct WithBuiltin {
    rules: Arc<dyn Rules>,
    episode_rules: Vec<Arc<EpisodeRule>>,
}

impl WithBuiltin {
    pub(crate) fn over(rules: Arc<dyn Rules>) -> Arc<dyn Rules> {
        let given = rules.episode_rules().iter().filter(|rule| !is_builtin(&rule.id)).cloned();
        let episode_rules = given.chain(builtin()).collect();
        Arc::new(WithBuiltin { rules, episode_rules })
    }
}

impl Rules for WithBuiltin {
    fn episode_rules(&self) -> &[Arc<EpisodeRule>] {
        &self.episode_rules
    }

    fn matcher(self: Arc<Self>) -> Box<dyn Matcher> {
        Arc::clone(&self.rules).matcher()
    }
}
