//! The levels of rules.

use serde::{Deserialize, Serialize};

/// Sigma's levels (specification 2.1, *Level*).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Enriches other events; tells nobody by itself.
    Informational,
    /// Notable, rarely an incident.
    Low,
    /// Relevant; to be looked at more than now and then. The default of a rule without a level.
    #[default]
    Medium,
    /// To be looked at soon.
    High,
    /// To be looked at now.
    Critical,
}

impl Level {
    /// Its word, as published.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Level::Informational => "informational",
            Level::Low => "low",
            Level::Medium => "medium",
            Level::High => "high",
            Level::Critical => "critical",
        }
    }
}
