//! TCP and TLS to a service, each with its deadline.

use std::time::Duration;

use muster_pki::UnixTime;
use muster_service::credentials::ClientCredentials;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::url::ServiceUrl;

/// How long the steps of a connection may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DialTimeouts {
    /// For the TCP connection.
    pub(crate) connect: Duration,
    /// For the TLS handshake.
    pub(crate) tls: Duration,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The step took too long.
    #[error("{step} with {address} took longer than {limit:?}")]
    Late {
        /// TCP, TLS or the upgrade.
        step: &'static str,
        /// The peer.
        address: String,
        /// The deadline.
        limit: Duration,
    },
    /// TCP failed.
    #[error("cannot connect to {address}: {cause}")]
    Tcp {
        /// The peer.
        address: String,
        /// The system's words.
        cause: std::io::Error,
    },
    /// TLS failed: either side refused the other's certificate, or they have nothing in common.
    #[error("TLS with {address}: {cause}")]
    Tls {
        /// The peer.
        address: String,
        /// What was wrong.
        cause: std::io::Error,
    },
    /// The server's certificate breaks a rule.
    #[error("the certificate of {address} is refused: {reason}")]
    Unfit {
        /// The peer.
        address: String,
        /// Every finding.
        reason: String,
    },
    /// The host is neither a name nor an address.
    #[error("{0:?} is neither a host name nor an address")]
    Host(String),
}

/// Connects to a service and verifies its certificate.
pub(crate) async fn dial(
    url: &ServiceUrl,
    credentials: &ClientCredentials,
    timeouts: DialTimeouts,
) -> Result<TlsStream<TcpStream>, DialError> {
    let address = url.authority();
    let late = |step, limit| DialError::Late { step, address: address.clone(), limit };
    let name =
        ServerName::try_from(url.host().to_owned()).map_err(|_| DialError::Host(url.host().to_owned()))?;
    let stream = timeout(timeouts.connect, TcpStream::connect((url.host(), url.port())))
        .await
        .map_err(|_| late("the TCP connection", timeouts.connect))?
        .map_err(|cause| DialError::Tcp { address: address.clone(), cause })?;
    // Frames are small and each is flushed on purpose; a failure costs latency only.
    drop(stream.set_nodelay(true));
    let stream = timeout(timeouts.tls, TlsConnector::from(credentials.config()).connect(name, stream))
        .await
        .map_err(|_| late("the TLS handshake", timeouts.tls))?
        .map_err(|cause| DialError::Tls { address: address.clone(), cause })?;
    // A resumed handshake calls no verifier; revocation and validity are looked up here, too (trust.md R2, C12).
    let chain = stream.get_ref().1.peer_certificates();
    match credentials.check_server(chain, url.host(), UnixTime::now()) {
        Ok(_) => Ok(stream),
        Err(refused) => Err(DialError::Unfit { address, reason: refused.to_string() }),
    }
}
