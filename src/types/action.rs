//! Desired actions: what the graph wants done. What was done is the ledger's.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    id::{ActionId, AlertId, Tenant},
    time::Cell,
};

/// What can be done to the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionKind {
    /// Drops packets from an address (nftables).
    BlockAddress,
}

impl ActionKind {
    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            ActionKind::BlockAddress => "block_address",
        }
    }
}

impl fmt::Display for ActionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The graph wants this done, because of this alert. Several alerts may want the same: each is a row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DesiredAction {
    /// Whose.
    pub tenant: Tenant,
    /// Kind and target as one id.
    pub id: ActionId,
    /// What to do.
    pub kind: ActionKind,
    /// To whom, normalised.
    pub target: Arc<str>,
    /// How long the effect lasts from the moment it is applied, in seconds.
    pub ttl_s: u32,
    /// The alert that is the reason.
    pub alert: AlertId,
    /// Anchor of that alert.
    pub anchor: Cell,
}
