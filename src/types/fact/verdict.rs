//! Verdicts: what alerts were, as people judged. A rule's precision is counted from them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{id::AlertId, time::Time};

/// What an alert was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Judgement {
    /// It happened, and it was an attack.
    TruePositive,
    /// It did not happen as the rule says.
    FalsePositive,
    /// It happened, and it was somebody's work.
    Benign,
}

impl Judgement {
    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Judgement::TruePositive => "true_positive",
            Judgement::FalsePositive => "false_positive",
            Judgement::Benign => "benign",
        }
    }
}

/// Somebody's judgement of an alert. Rule and time are looked up and written down when it is recorded, so that what
/// follows from it is the same at every later computation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Verdict {
    /// The alert.
    pub alert: AlertId,
    /// What it was.
    pub judgement: Judgement,
    /// The alert's rule; empty until it is recorded.
    #[serde(default)]
    pub rule: Arc<str>,
    /// When it was said; the order in which verdicts count.
    #[serde(default)]
    pub at: Time,
}
