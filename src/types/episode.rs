//! Episode rules: what the graph must know of a rule to find its episodes (`streaming.md`, *Episodes*).

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    alert::Group,
    id::{AlertId, AnchorKind, Tenant},
    rule::Level,
    time::Cell,
};

/// A rule whose alerts are episodes: a Sigma correlation, or a plain rule folded by its fingerprint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EpisodeRule {
    /// The rule's id.
    pub id: Arc<str>,
    /// Its title.
    pub title: Arc<str>,
    /// Its level.
    pub level: Level,
    /// ATT&CK and other tags.
    pub tags: Arc<[Arc<str>]>,
    /// Ids of the rules it refers to, in its order; a plain rule refers to itself.
    pub references: Vec<Arc<str>>,
    /// Window length in cells: windows are trailing and closed, `[c - timespan, c]`. At least 0.
    pub timespan: Cell,
    /// What makes a window a hit.
    pub predicate: Predicate,
    /// Whether its episodes are alerts. False for a correlation that only feeds others.
    pub alerts: bool,
}

impl EpisodeRule {
    /// Length of the cut grid in cells: `max(24 h, 4 T)`.
    #[must_use]
    pub fn cut(&self) -> Cell {
        self.timespan.saturating_mul(4).max(86_400)
    }
}

/// What makes a window a hit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Predicate {
    /// Number of items.
    EventCount(Condition),
    /// Number of distinct values.
    ValueCount(Condition),
    /// Every reference is present.
    Temporal,
    /// Cells c1 <= c2 <= ... exist with the references in order; the same cell counts as in order.
    TemporalOrdered,
}

/// Bounds on a count; all that are given must hold. At least one is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Condition {
    /// At least.
    pub gte: Option<u64>,
    /// More than.
    pub gt: Option<u64>,
    /// At most.
    pub lte: Option<u64>,
    /// Less than.
    pub lt: Option<u64>,
    /// Exactly.
    pub eq: Option<u64>,
    /// Anything but.
    pub neq: Option<u64>,
}

impl Condition {
    /// At least `n`.
    #[must_use]
    pub const fn at_least(n: u64) -> Condition {
        Condition { gte: Some(n), gt: None, lte: None, lt: None, eq: None, neq: None }
    }

    /// Whether a count fulfils it.
    #[must_use]
    pub fn holds(&self, count: u64) -> bool {
        self.gte.is_none_or(|n| count >= n)
            && self.gt.is_none_or(|n| count > n)
            && self.lte.is_none_or(|n| count <= n)
            && self.lt.is_none_or(|n| count < n)
            && self.eq.is_none_or(|n| count == n)
            && self.neq.is_none_or(|n| count != n)
    }
}

/// Where episodes are found: one rule, one group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EpisodeKey {
    /// Whose.
    pub tenant: Tenant,
    /// The episode rule's id.
    pub rule: Arc<str>,
    /// The group.
    pub group: Group,
}

/// One episode: a piece of a run of hits. Pure: a function of the multiset of items.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Episode {
    /// Rule and group.
    pub key: EpisodeKey,
    /// Whether it begins with an item or with a cut.
    pub kind: AnchorKind,
    /// First cell of its extent.
    pub anchor: Cell,
    /// Last cell of its extent, inclusive.
    pub last_cell: Cell,
    /// Cell of its first hit: where it counts as an item of a chained correlation.
    pub first_hit: Cell,
    /// Items in its extent.
    pub count: u64,
    /// The same by reference.
    pub reference_counts: Vec<u64>,
    /// Highest value of the predicate's count over its windows; 0 for temporal predicates.
    pub peak: u64,
}

impl Episode {
    /// Its alert's id.
    #[must_use]
    pub fn id(&self) -> AlertId {
        AlertId::of(&self.key.tenant, &self.key.rule, &self.key.group, self.kind, self.anchor)
    }
}
