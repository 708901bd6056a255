//! A whole client against a fake Switch and a fake Background Channel on loopback.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test that cannot go on has failed"
)]

mod certificates;
mod commands;
mod events;
mod full_disk;
mod instructions;
mod lab;
mod licences;
mod missing_certificate;
mod policies;
mod policy_cas;
mod policy_clock;
mod policy_file;
mod policy_retry;
mod policy_unreadable;
mod rights;
mod road;
mod roads;
mod signers;
mod start;
mod stops;
mod switch;
mod unauthenticated;
mod undecoded;
