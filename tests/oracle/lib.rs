//! The oracle: whether an event fulfils a rule, by the Sigma specification 2.1 alone and in the most obvious way.
//!
//! It reads the rules' YAML itself, flattens JSON itself, and takes log sources from the map that the SigmaHQ project
//! publishes (`logsources-windows.yml`), with a list of what our engine knows beyond it (`beyond.yml`). It shares no code
//! with `cf-sigma` or `cf-ingest`: where the two disagree, one of them is wrong. It is slow on purpose: every rule of a
//! log source is evaluated on every event of it, nothing is indexed but names.
//!
//! Where the specification leaves a choice, the comment beside the code says which one was taken.

mod condition;
mod event;
mod flatten;
mod fold;
mod glob;
mod json;
mod network;
mod number;
mod rule;
mod sources;
mod time;
mod value;

use std::collections::BTreeMap;

pub use event::{Event, Field, Kind};
pub use flatten::{Flat, flatten};
pub use json::Json;
pub use rule::LogSource;
pub use sources::Sources;

use event::Seen;
use rule::Rule;

/// What our engine knows of log sources beyond the SigmaHQ project's map, in the same format.
pub const BEYOND: &str = include_str!("beyond.yml");

/// All rules of some texts.
#[derive(Debug)]
pub struct Oracle {
    /// Rules by log source.
    groups: BTreeMap<LogSource, Vec<Rule>>,
    sources: Sources,
    refused: Vec<String>,
}

impl Oracle {
    /// Reads rules. A document that is no plain rule is passed over; a rule that cannot be read is refused.
    pub fn new<'t>(texts: impl IntoIterator<Item = &'t str>, sources: Sources) -> Oracle {
        let mut groups: BTreeMap<LogSource, Vec<Rule>> = BTreeMap::new();
        let mut refused = Vec::new();
        for text in texts {
            match rule::read(text) {
                Ok(rules) => {
                    for rule in rules {
                        match rule {
                            Ok(rule) => groups.entry(rule.log_source.clone()).or_default().push(rule),
                            Err(reason) => refused.push(reason),
                        }
                    }
                }
                Err(reason) => refused.push(reason),
            }
        }
        Oracle { groups, sources, refused }
    }

    /// How many rules it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.groups.values().map(Vec::len).sum()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Why rules were refused.
    #[must_use]
    pub fn refused(&self) -> &[String] {
        &self.refused
    }

    /// Names of all fields that rules and log sources ask for.
    #[must_use]
    pub fn fields(&self) -> Vec<&str> {
        let rules = self.groups.values().flatten().flat_map(Rule::fields);
        let mut names: Vec<&str> = rules.chain(self.sources.fields()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Ids of the rules that the event fulfils, sorted.
    #[must_use]
    pub fn hits(&self, event: &Event) -> Vec<&str> {
        let seen = Seen::new(event);
        let mut hits = Vec::new();
        for (log_source, rules) in &self.groups {
            let ways = self.sources.ways(log_source, &seen);
            if ways.is_empty() {
                continue;
            }
            let met = rules.iter().filter(|rule| ways.iter().any(|names| rule.holds(&seen, names)));
            hits.extend(met.map(|rule| rule.id.as_str()));
        }
        hits.sort_unstable();
        hits
    }
}
