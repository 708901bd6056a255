//! The chain of a live server.

use std::time::Duration;

use muster_pki::CertificateDer;
use muster_service::credentials::{Address, shown_by};

use crate::exit::{Exit, Failure};

/// For the name, the connection and the handshake together.
const DEADLINE: Duration = Duration::from_secs(10);

/// Returns the certificates that a server shows, the leaf first.
pub(super) fn chain_of(address: &Address) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Refused, format!("cannot start: {error}")))?;
    runtime
        .block_on(shown_by(address, DEADLINE))
        .map_err(|error| Failure::new(Exit::Unreachable, error.to_string()))
}
