//! The authors' and licensors' tool: signs and verifies definitions and licences.
fn main() {}
