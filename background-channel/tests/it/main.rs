//! The whole Background Channel over real TLS on loopback, with a caller of any role and a Switch that only takes events.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "tests"
)]

mod caller;
mod clock;
mod connections;
mod crl;
mod curl;
mod door;
mod events;
mod full_disk;
mod pki;
mod point;
mod resources;
mod server_store;
mod switch;
mod world;
