//! The simulated fleet, the history checker, and what end-to-end tests share.
//!
//! Simulated devices speak the real protocol over real mutual TLS, each with its own key and certificate; only the
//! machine behind them is made up. Nothing here is part of a product: it may use proto, proto-grpc, pki and signing, and
//! never a program's code.

mod ask;
pub mod checked;
pub mod cli;
pub mod crl;
pub mod dev_fleet;
pub mod history;
pub mod journal;
pub mod measure;
pub mod moment;
pub mod operator;
mod peer;
pub mod pinged;
mod proxy;
pub mod report;
mod scenario;
mod server;
pub mod simulated;
pub mod tls;
mod told;
mod worker;
