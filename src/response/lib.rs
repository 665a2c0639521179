//! Makes the world match the desired state: tells channels, applies and undoes actions.
//!
//! All it does comes from the ledger's outbox and ends in a receipt there; it decides nothing about alerts. An effect is
//! noted as intent before it is tried, verified before it is repeated, and ends in a known state. Every channel and the
//! actions have a task of their own: one that hangs delays no other.
//!
//! The `mod` list is in the order in which data flows.

pub mod settings;

pub mod protect;
mod retry;

mod responder;

mod channel;
mod nftables;

pub use nftables::Nftables;
pub use protect::{Protected, Refusal};
pub use responder::{Responder, ResponseError};
pub use settings::ResponseSettings;

#[cfg(test)]
mod tests;
