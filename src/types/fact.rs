//! Facts: what can change while running. Each is a record of the control log and enters the graph as a timed input.

use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{action::ActionKind, id::Tenant, rule::Level};

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
}

impl FactBody {
    /// The word for its kind.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            FactBody::Allow { .. } => "allow",
            FactBody::Policy(_) => "policy",
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
