//! Facts: what can change while running. Each is a record of the control log and enters the graph as a timed input.

mod asset;
mod indicator;
mod said;
mod silence;
mod verdict;

use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use asset::{Asset, Edge, Exposure, Identity};
pub use indicator::{Indicator, Observable, Pattern};
pub use said::{FACT_BYTES_MAX, FactError, Said, author, text};
pub use silence::Silence;
pub use verdict::{Judgement, Verdict};

use crate::{
    action::ActionKind,
    id::{AlertId, Tenant},
    rule::Level,
    triage::Triaged,
};

/// What a fact says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FactBody {
    /// What this network does is allowed: alerts with an address of it as entity are withdrawn.
    Allow {
        /// One address is a network of one.
        network: IpNet,
    },
    /// Alerts like this want this done.
    Policy(Policy),
    /// Alerts like this are not told while it lasts.
    Silence(Silence),
    /// Whoever meets this meets a threat.
    Indicator(Indicator),
    /// How much an entity matters and who can reach it.
    Asset(Asset),
    /// From this entity one gets to that one.
    Edge(Edge),
    /// Who an account is.
    Identity(Identity),
    /// What an alert was, as somebody judged.
    Verdict(Verdict),
    /// What a model said of an alert; it comes from a decision of the control log, never by hand.
    Triage(Triaged),
}

/// What a fact speaks of. Where there is one, a new fact about the same subject takes the place of the old one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// A silence, by its name.
    Silence(Arc<str>),
    /// An indicator of a source: two sources may say the same, each for itself.
    Indicator(Pattern, Arc<str>),
    /// An asset or an identity.
    Entity(&'static str, crate::Entity),
    /// An edge, by its ends and its kind.
    Edge(crate::Entity, crate::Entity, Arc<str>),
    /// An alert.
    Alert(AlertId),
    /// An alert, as a model sees it.
    Triage(AlertId),
}

impl FactBody {
    /// The kinds that people and programs may add and remove; `policy` comes from the settings.
    pub const KINDS: [&'static str; 7] = ["allow", "silence", "indicator", "asset", "edge", "identity", "verdict"];

    /// The word for its kind.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            FactBody::Allow { .. } => "allow",
            FactBody::Policy(_) => "policy",
            FactBody::Silence(_) => "silence",
            FactBody::Indicator(_) => "indicator",
            FactBody::Asset(_) => "asset",
            FactBody::Edge(_) => "edge",
            FactBody::Identity(_) => "identity",
            FactBody::Verdict(_) => "verdict",
            FactBody::Triage(_) => "triage",
        }
    }

    /// What it speaks of; `None` where the whole content is its identity.
    #[must_use]
    pub fn subject(&self) -> Option<Subject> {
        match self {
            FactBody::Allow { .. } | FactBody::Policy(_) => None,
            FactBody::Silence(silence) => Some(Subject::Silence(Arc::clone(&silence.name))),
            FactBody::Indicator(Indicator { pattern, source, .. }) => {
                Some(Subject::Indicator(pattern.clone(), Arc::clone(source)))
            }
            FactBody::Asset(asset) => Some(Subject::Entity("asset", asset.entity.clone())),
            FactBody::Edge(edge) => Some(Subject::Edge(edge.from.clone(), edge.to.clone(), Arc::clone(&edge.access))),
            FactBody::Identity(identity) => Some(Subject::Entity("identity", identity.user.clone())),
            FactBody::Verdict(verdict) => Some(Subject::Alert(verdict.alert)),
            FactBody::Triage(triaged) => Some(Subject::Triage(triaged.alert)),
        }
    }

    /// Whether it says the same, but for when it was said.
    #[must_use]
    pub fn same_as(&self, other: &FactBody) -> bool {
        match (self, other) {
            (FactBody::Verdict(one), FactBody::Verdict(other)) => {
                (one.alert, one.judgement) == (other.alert, other.judgement)
            }
            _ => self == other,
        }
    }
}

/// From alerts to desired actions. All conditions given must hold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Policy {
    /// Its name, for the audit.
    pub name: Arc<str>,
    /// Alerts of this level or above.
    pub level_min: Level,
    /// Alerts of these rules; empty: of all.
    pub rules: Vec<Arc<str>>,
    /// Alerts with one of these tags; empty: with any or none.
    pub tags: Vec<Arc<str>>,
    /// What to do to each fitting entity of the alert.
    pub action: ActionKind,
    /// How long the effect lasts, in seconds.
    pub ttl_s: u32,
}

/// One fact. Two facts with the same tenant and body are one: who said it, and why, is in the control log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fact {
    /// Whose.
    pub tenant: Tenant,
    /// What it says.
    pub body: FactBody,
}
