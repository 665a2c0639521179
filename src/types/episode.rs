//! Episode rules: what the graph must know of a rule to find its episodes (`streaming.md`, *Episodes*).

use std::{cmp::Ordering, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    alert::Group,
    fixed::Fixed,
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
    /// By reference, what it takes from the episodes of a correlation that it refers to; a reference beyond the list,
    /// or without an entry, takes the group as it is and no value.
    pub chained: Vec<Option<ChainedFields>>,
}

/// What a correlation takes from the group of an episode that it counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChainedFields {
    /// Fields of its own group, each with the field of the episode's group whose value it has.
    pub group: Vec<(Arc<str>, Arc<str>)>,
    /// Fields of the episode's group whose values it counts.
    pub value: Vec<Arc<str>>,
}

/// Between the values of several fields that are counted as one; ASCII's unit separator.
pub const UNITS: &str = "\u{1f}";

impl EpisodeRule {
    /// Values that one rule keeps in one group at most: some 24 MB. Items beyond it are refused, and that is said.
    pub const VALUES_MAX: usize = 1_000_000;

    /// Length of the cut grid in cells: `max(24 h, 4 T)`.
    #[must_use]
    pub fn cut(&self) -> Cell {
        self.timespan.saturating_mul(4).max(86_400)
    }

    /// For how many cells after it an item can decide whether a cell is a hit.
    #[must_use]
    pub fn reach(&self) -> Cell {
        match &self.predicate {
            Predicate::FirstSeen { memory, .. } => self.timespan.max(*memory),
            Predicate::Rate { memory, .. } => self.timespan.saturating_add(*memory),
            _ => self.timespan,
        }
    }

    /// Whether it compares with the time before its windows.
    #[must_use]
    pub fn remembers(&self) -> bool {
        matches!(self.predicate, Predicate::FirstSeen { .. } | Predicate::Rate { .. })
    }

    /// How far behind its item's cell a hit lies. Only what does not come hits later than an item.
    #[must_use]
    pub fn lag(&self) -> Cell {
        if self.predicate == Predicate::Absence { self.timespan } else { 0 }
    }

    /// How far before its first hit an episode may begin: what was new begins with itself.
    #[must_use]
    pub fn lead(&self) -> Cell {
        if matches!(self.predicate, Predicate::FirstSeen { .. }) { 0 } else { self.timespan }
    }

    /// Group and value of an episode, as this rule takes them where it refers to the episode's rule; `None` if the
    /// episode's group lacks a field.
    #[must_use]
    pub fn taken(&self, reference: u16, group: &Group) -> Option<(Group, Option<Arc<str>>)> {
        let Some(Some(fields)) = self.chained.get(usize::from(reference)) else { return Some((group.clone(), None)) };
        let of = |wanted: &str| group.iter().find(|(field, _)| *field == wanted).map(|(_, value)| value);
        let own = fields.group.iter().map(|(shown, field)| Some((Arc::clone(shown), Arc::from(of(field)?))));
        let own = Group::new(own.collect::<Option<Vec<_>>>()?);
        let values: Vec<&str> = fields.value.iter().map(|field| of(field)).collect::<Option<_>>()?;
        Some((own, (!values.is_empty()).then(|| Arc::from(values.join(UNITS)))))
    }

    /// Whether items that were kept for this version of a rule can serve another: the references stand for the same,
    /// values are there if and only if they are wanted, and what is remembered is remembered alike.
    #[must_use]
    pub fn can_serve(&self, other: &EpisodeRule) -> bool {
        let memory = |rule: &EpisodeRule| match &rule.predicate {
            Predicate::FirstSeen { memory, .. } => Some((rule.timespan, *memory, 0)),
            Predicate::Rate { memory, grid, .. } => Some((rule.timespan, *memory, *grid)),
            _ => None,
        };
        self.references == other.references
            && self.chained == other.chained
            && self.predicate.values() == other.predicate.values()
            && memory(self) == memory(other)
    }
}

/// What makes a window a hit. `docs/correlations.md` has the definitions.
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
    /// References are present as a formula says.
    Presence(Presence),
    /// Sum of values.
    Sum(Condition<Fixed>),
    /// Mean of values, compared without a division.
    Average(Condition<Fixed>),
    /// The value at a rank: the smallest that so many of a hundred do not exceed (nearest rank).
    Percentile {
        /// Of a hundred; 0 is the smallest value.
        percent: u8,
        /// What the value must be.
        condition: Condition<Fixed>,
    },
    /// Reference 0 is in the window's first cell, and reference 1 nowhere in the window. The window ends where the time
    /// for it is over, not where an item is.
    Absence,
    /// A value of the window's last cell that the `memory` cells before do not have.
    FirstSeen {
        /// How many cells are remembered.
        memory: Cell,
        /// How many distinct values must be remembered before any is new.
        known_min: u64,
    },
    /// Number of items against the mean of the time before.
    Rate {
        /// How many cells before the window are looked at, in whole steps of `grid`.
        memory: Cell,
        /// Cells that are counted together.
        grid: Cell,
        /// For how many cells items must have been known.
        age_min: Cell,
        /// Items that the window must have at least.
        count_min: u64,
        /// What the number must be, as a multiple of the mean.
        times: Condition<Fixed>,
    },
}

/// What an item's value is to a predicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ValueKind {
    /// Not looked at.
    None,
    /// A text.
    Text,
    /// A number, kept one by one.
    Number,
    /// A number, kept as a sum.
    Sum,
}

impl Predicate {
    /// What it wants of an item's value. An item without it does not count.
    #[must_use]
    pub fn values(&self) -> ValueKind {
        match self {
            Predicate::ValueCount(_) | Predicate::FirstSeen { .. } => ValueKind::Text,
            Predicate::Percentile { .. } => ValueKind::Number,
            Predicate::Sum(_) | Predicate::Average(_) => ValueKind::Sum,
            Predicate::EventCount(_)
            | Predicate::Temporal
            | Predicate::TemporalOrdered
            | Predicate::Presence(_)
            | Predicate::Absence
            | Predicate::Rate { .. } => ValueKind::None,
        }
    }

    /// Whether a hit stays one whatever else happens: then it can be told at once. Sums count among these, as if no
    /// value were negative; one that is corrects the alert.
    #[must_use]
    pub fn is_monotone(&self) -> bool {
        match self {
            Predicate::EventCount(condition) | Predicate::ValueCount(condition) => condition.is_monotone(),
            Predicate::Sum(condition) => condition.is_monotone(),
            Predicate::Temporal | Predicate::TemporalOrdered => true,
            Predicate::Presence(presence) => presence.is_monotone(),
            Predicate::Average(_)
            | Predicate::Percentile { .. }
            | Predicate::Absence
            | Predicate::FirstSeen { .. }
            | Predicate::Rate { .. } => false,
        }
    }
}

/// Which references must be present.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Presence {
    /// This one.
    Reference(u16),
    /// Not so.
    Not(Box<Presence>),
    /// All of these.
    All(Vec<Presence>),
    /// One of these.
    Any(Vec<Presence>),
    /// So many of these.
    Count(Condition, Vec<u16>),
}

impl Presence {
    /// Whether it holds where `present` are.
    pub fn holds(&self, present: &impl Fn(u16) -> bool) -> bool {
        match self {
            Presence::Reference(reference) => present(*reference),
            Presence::Not(inner) => !inner.holds(present),
            Presence::All(list) => list.iter().all(|inner| inner.holds(present)),
            Presence::Any(list) => list.iter().any(|inner| inner.holds(present)),
            Presence::Count(condition, of) => condition.holds(count_present(of, present)),
        }
    }

    /// What is counted, where something is; else 0.
    pub fn count(&self, present: &impl Fn(u16) -> bool) -> u64 {
        if let Presence::Count(_, of) = self { count_present(of, present) } else { 0 }
    }

    fn is_monotone(&self) -> bool {
        match self {
            Presence::Reference(_) => true,
            Presence::Not(_) => false,
            Presence::All(list) | Presence::Any(list) => list.iter().all(Presence::is_monotone),
            Presence::Count(condition, _) => condition.is_monotone(),
        }
    }
}

fn count_present(of: &[u16], present: &impl Fn(u16) -> bool) -> u64 {
    of.iter().map(|reference| u64::from(present(*reference))).sum()
}

/// Bounds on a figure; all that are given must hold. At least one is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Condition<N = u64> {
    /// At least.
    pub gte: Option<N>,
    /// More than.
    pub gt: Option<N>,
    /// At most.
    pub lte: Option<N>,
    /// Less than.
    pub lt: Option<N>,
    /// Exactly.
    pub eq: Option<N>,
    /// Anything but.
    pub neq: Option<N>,
}

impl Condition {
    /// At least `n`.
    #[must_use]
    pub const fn at_least(n: u64) -> Condition {
        Condition { gte: Some(n), gt: None, lte: None, lt: None, eq: None, neq: None }
    }
}

impl<N: Copy + Ord> Condition<N> {
    /// Whether a figure fulfils it.
    #[must_use]
    pub fn holds(&self, figure: N) -> bool {
        self.holds_by(|bound| figure.cmp(&bound))
    }

    /// The same for a figure of which is only known how it compares with a bound.
    #[must_use]
    pub fn holds_by(&self, compare: impl Fn(N) -> Ordering) -> bool {
        self.gte.is_none_or(|bound| compare(bound).is_ge())
            && self.gt.is_none_or(|bound| compare(bound).is_gt())
            && self.lte.is_none_or(|bound| compare(bound).is_le())
            && self.lt.is_none_or(|bound| compare(bound).is_lt())
            && self.eq.is_none_or(|bound| compare(bound).is_eq())
            && self.neq.is_none_or(|bound| compare(bound).is_ne())
    }

    /// Whether a larger figure fulfils it if a smaller one does.
    #[must_use]
    pub fn is_monotone(&self) -> bool {
        self.lte.is_none() && self.lt.is_none() && self.eq.is_none() && self.neq.is_none()
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
    /// Highest figure of the predicate over its hits, in whole units, rounded down, at least 0; 0 where nothing is
    /// counted (temporal, formulas, absence).
    pub peak: u64,
}

impl Episode {
    /// Its alert's id.
    #[must_use]
    pub fn id(&self) -> AlertId {
        AlertId::of(&self.key.tenant, &self.key.rule, &self.key.group, self.kind, self.anchor)
    }
}
