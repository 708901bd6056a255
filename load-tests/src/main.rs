//! The simulated fleet, the history checker, end-to-end tests over the built binaries, house rules.
fn main() {}
