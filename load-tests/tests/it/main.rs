//! The end-to-end tests: the built binaries, as people and machines start them.
//!
//! Each test has a fleet of its own in a temporary folder, on ports that were free. [`support`] starts it; the other
//! modules are a subject each. They need the binaries: `cargo build --workspace --bins`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "tests")]

mod aggregates;
mod approvals;
mod attacks;
mod client_remove;
mod content_away;
mod crl_load;
mod crl_server;
mod definitions;
mod deploy;
mod descriptors;
mod events;
mod exchange;
mod full_disk;
mod full_disk_client;
mod journey;
mod kill_sweep;
mod large_results;
mod liar;
mod listeners;
mod load;
mod openssl_pki;
mod order_keys;
mod packs;
mod people;
mod people_and_certificates;
mod policies;
mod processes;
mod python_client;
mod quic;
mod renewal;
mod restored_store;
mod retention;
mod revocation;
mod scale;
mod signers;
mod steps;
mod stops;
mod support;
mod tables;
mod tables_of_state;
mod unauthenticated;
