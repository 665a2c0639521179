//! Tests of the crate over its public face; one binary.

#![allow(clippy::as_conversions)] // as in the crate

mod data;
mod drift;
mod honest;
mod input;
mod oracle;
mod stored;
mod support;
mod tune;
