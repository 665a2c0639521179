//! The binary as a user has it, and the shape of the workspace. One test binary: each would link everything again.

mod arrows;
mod cli;
mod files;
mod kill;
mod run;
mod support;
