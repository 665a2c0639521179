//! Sigma rule sets as the graph's rules.

use std::sync::Arc;

use cf_sigma::{RuleIndex, RuleSet, Scanner};
use cf_types::{Detection, EpisodeRule, Event};

use super::{Matcher, Rules};

impl Rules for RuleSet {
    fn episode_rules(&self) -> &[Arc<EpisodeRule>] {
        RuleSet::episode_rules(self)
    }

    fn matcher(self: Arc<Self>) -> Box<dyn Matcher> {
        Box::new(SigmaMatcher { scanner: Scanner::new(self), hits: Vec::new() })
    }
}

struct SigmaMatcher {
    scanner: Scanner,
    hits: Vec<RuleIndex>,
}

impl Matcher for SigmaMatcher {
    fn detect(&mut self, event: &Event, out: &mut Vec<Detection>) {
        self.hits.clear();
        self.scanner.scan(event, &mut self.hits);
        out.extend(self.hits.iter().map(|rule| self.scanner.rules().detection(*rule, event)));
    }

    fn rest(&mut self) {
        self.scanner.publish();
    }
}
