//! The whole Switch over real TLS and WebSocket on loopback, with a minimal client of the protocol's own half.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "tests"
)]

mod blocked;
mod client;
mod degraded;
mod floods;
mod full_disk;
mod instructions;
mod licence_file;
mod licence_server;
mod licence_url;
mod operators;
mod packs;
mod pki;
mod policies;
mod quic;
mod quic_client;
mod roads;
mod server_store;
mod sessions;
mod store;
mod strangers;
mod unauthenticated;
mod world;
mod writes;
