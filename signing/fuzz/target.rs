//! One body under libFuzzer: the one that MUSTER_FUZZ_BODY names. `deploy/ci/fuzz` runs them all.
#![no_main]

use std::sync::LazyLock;

#[path = "bodies.rs"]
mod bodies;

static BODY: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let wanted = std::env::var("MUSTER_FUZZ_BODY").unwrap_or_default();
    let found = bodies::BODIES.into_iter().find(|(name, _)| *name == wanted);
    let names = bodies::BODIES.map(|(name, _)| name).join(", ");
    found.unwrap_or_else(|| panic!("MUSTER_FUZZ_BODY is {wanted:?}; wanted one of {names}")).1
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| BODY(bytes));
