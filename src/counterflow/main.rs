//! The counterflow binary.
fn main() {}
