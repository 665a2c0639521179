//! Models: from features to training, evaluation, a registry, and predictions.
//!
//! In: tables with labels (Parquet, CSV). Out: versions in a registry, each a model with all that is needed to predict
//! and to judge it. The same input, recipe and seed give the same bytes, on any number of threads.
//! The `mod` list is in the order in which data flows.

// Counts become floats and bins become bytes on every other line here; the ranges are small and checked where input
// comes in (`table`, `model`).
#![allow(clippy::as_conversions)]

mod error;
mod random;
mod threads;

pub mod table;
pub mod task;

pub mod balance;
pub mod leak;
pub mod split;

pub mod features;
pub mod matrix;

pub mod members;
pub mod tree;

pub mod drift;
pub mod ensemble;
pub mod rarity;
pub mod reasons;

pub mod calibrate;
pub mod metrics;

pub mod model;

pub mod train;
pub mod tune;

mod card;
mod evidence;
mod svg;

pub mod publish;
pub mod registry;

pub mod served;

pub use error::ModelError;
