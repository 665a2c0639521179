//! Blast radius: what an attacker who has an entity can reach over the asset and access graph (RSK-03).

use serde::{Deserialize, Serialize};

use crate::{entity::Entity, id::Tenant};

/// Steps that are followed.
pub const HOPS_MAX: usize = 4;
/// Entities with an open alert whose radius is followed: those of the highest scores.
pub const ROOTS_MAX: usize = 1_000;
/// Edges of one entity that are followed: the first in the order of where they lead.
pub const FANOUT_MAX: usize = 50;
/// Entities that a radius names: the most critical, then the nearest.
pub const NAMED_MAX: usize = 20;

/// An entity that can be reached.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Reached {
    /// Which.
    pub entity: Entity,
    /// Steps from the root, the fewest.
    pub hop: u8,
    /// How much it matters, where a fact says so.
    pub criticality: Option<u8>,
}

/// What can be reached from one entity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BlastRadius {
    /// Whose.
    pub tenant: Tenant,
    /// From where: an entity with an open alert.
    pub root: Entity,
    /// How many are reached first in 1, 2, 3 and 4 steps.
    pub hops: Vec<u64>,
    /// Of all reached, how many have criticality 1, 2, 3, 4 and 5.
    pub by_criticality: Vec<u64>,
    /// The most critical, then the nearest, then by name; at most [`NAMED_MAX`].
    pub named: Vec<Reached>,
    /// Entities on the way that lead to more than [`FANOUT_MAX`] others, and how many more; at most [`NAMED_MAX`].
    pub and_more: Vec<(Entity, u64)>,
}

impl BlastRadius {
    /// How many entities are reached.
    #[must_use]
    pub fn reached(&self) -> u64 {
        self.hops.iter().sum()
    }
}
