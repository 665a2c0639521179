//! The words of Counterflow as types.
//!
//! What every crate may name and none may extend: events, detections, alerts, incidents, actions, facts, epochs.
//! Nothing here does I/O; the one clock is [`clock`], and it is for the edges only.
//! The `mod` list is in the order in which data flows; [`random`] is for tests and benches.

pub mod clock;
mod compact;
pub mod time;

pub mod id;
pub mod record;

pub mod entity;
pub mod event;
pub mod field;
pub mod fixed;
pub mod reject;

pub mod detection;
pub mod episode;
pub mod rule;

pub mod action;
pub mod alert;
pub mod assess;
pub mod blast;
pub mod change;
pub mod epoch;
pub mod fact;
pub mod incident;
pub mod risk;
pub mod scored;
pub mod triage;

pub mod random;

pub use action::{ActionKind, DesiredAction};
pub use alert::{Alert, AlertState, Group};
pub use assess::{Assessment, RiskLevel};
pub use blast::BlastRadius;
pub use change::{EpochOutput, Lineage, Row, Suppressed};
pub use detection::{Detection, Item, Member};
pub use entity::{Entity, EntityKind};
pub use episode::{ChainedFields, Condition, Episode, EpisodeKey, EpisodeRule, Predicate, Presence, ValueKind};
pub use epoch::{Epoch, EpochRecord};
pub use event::{Event, LogSource, TimeBasis};
pub use fact::{Fact, FactBody, Said, Subject};
pub use field::{Fields, Name, Scalar};
pub use fixed::{Fixed, NotFixed};
pub use id::{ActionId, AlertId, AnchorKind, EventId, IncidentId, Tenant};
pub use incident::{Hub, Incident, IncidentKind, IncidentSeverity, Tactic};
pub use record::{Framing, Origin, Position, Record};
pub use reject::{Reject, RejectCode};
pub use risk::{EntityLevel, EntityRisk, Score};
pub use rule::Level;
pub use time::{Cell, Time};
pub use triage::{Decision, Triage};
