//! The simulated fleet, the history checker, and what end-to-end tests share.
//!
//! Simulated devices speak the real protocol over real mutual TLS, each with its own key and certificate; only the
//! machine behind them is made up. Nothing here is part of a product: it may use proto, proto-grpc, pki and signing, and
//! never a program's code.

pub mod ask;
pub mod checked;
pub mod cli;
pub mod crl;
pub mod dev_fleet;
pub mod history;
pub mod journal;
pub mod operator;
pub mod pinged;
pub mod report;
pub mod simulated;
pub mod tls;
