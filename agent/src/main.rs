//! The kinewatch command.
fn main() {}
