//! Tests of the crate over its public face; one binary.

mod data;
mod drift;
mod honest;
mod input;
mod oracle;
mod stored;
mod support;
mod tune;
