//! Assets, the edges between them, and identities: what an alert's entities are to the site (KB-03).

use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::entity::{Entity, EntityKind};

/// Who can reach an asset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exposure {
    /// Only the site's own networks.
    Internal,
    /// Anybody.
    External,
}

impl Exposure {
    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Exposure::Internal => "internal",
            Exposure::External => "external",
        }
    }
}

/// How much an entity matters, or every address of a network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct Asset {
    /// Which; of a network an address with its prefix length: `10.0.0.0/8`.
    pub entity: Entity,
    /// 1 (hardly matters) to 5 (the site stands on it).
    pub criticality: u8,
    /// Who answers for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Arc<str>>,
    /// Who can reach it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exposure: Option<Exposure>,
    /// Any words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Arc<str>>,
}

crate::compact::text_where_compact!(Asset, Identity);

impl Asset {
    /// The network that it is.
    #[must_use]
    pub fn network(&self) -> Option<IpNet> {
        let is_network = self.entity.kind == EntityKind::Address && self.entity.value.contains('/');
        self.entity.value.parse().ok().filter(|_| is_network)
    }
}

/// Who has `from` can get to `to`: what a blast radius is made of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Edge {
    /// From here.
    pub from: Entity,
    /// To here.
    pub to: Entity,
    /// How: `access`, `admin`, `member_of`, `runs_on`, ... any word.
    pub access: Arc<str>,
}

/// Who an account is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct Identity {
    /// The account.
    pub user: Entity,
    /// Other names of the same account.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<Entity>,
    /// Whether it may do what others may not.
    #[serde(default)]
    pub privileged: bool,
    /// Where its holder works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub department: Option<Arc<str>>,
}
