//! The operators' command line, and a development fleet in one command.
fn main() {}
