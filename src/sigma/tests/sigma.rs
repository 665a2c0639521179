//! Tests of the crate from outside: semantics as tables, an obvious oracle, the public rules and their own cases.

#[path = "sigma/corpus.rs"]
mod corpus;
#[path = "sigma/correlations.rs"]
mod correlations;
#[path = "sigma/hostile.rs"]
mod hostile;
#[path = "sigma/naive.rs"]
mod naive;
#[path = "sigma/problems.rs"]
mod problems;
#[path = "sigma/random.rs"]
mod random;
#[path = "sigma/semantics.rs"]
mod semantics;
#[path = "sigma/world.rs"]
mod world;
