//! Incidents: alerts connected by shared entities. Membership is pure; numbers and owners are the ledger's.

use serde::{Deserialize, Serialize};

use crate::{
    entity::Entity,
    id::{AlertId, IncidentId, Tenant},
    time::Cell,
};

/// A component of the graph of alerts and entities.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Incident {
    /// Whose.
    pub tenant: Tenant,
    /// By its smallest (anchor, alert).
    pub id: IncidentId,
    /// Its alerts, sorted by anchor, then id.
    pub alerts: Vec<(Cell, AlertId)>,
    /// The entities of its alerts, sorted.
    pub entities: Vec<Entity>,
}
