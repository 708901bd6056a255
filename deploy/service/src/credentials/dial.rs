//! The way out: TCP, TLS and the check of the server, each within its deadline.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rustls::HandshakeKind;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::client_side::ClientCredentials;
use super::error::PeerRefused;
use super::outgoing::Outgoing;

/// Where a server is: a host name or address, and a port. The server's certificate must be for the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    host: String,
    port: u16,
    pub(super) name: ServerName<'static>,
}

impl Address {
    /// Takes a name or an address without brackets.
    ///
    /// # Errors
    /// Returns [`DialError::Address`] when `host` is neither.
    pub fn new(host: &str, port: u16) -> Result<Self, DialError> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| DialError::Address { got: format!("{host}:{port}") })?;
        Ok(Self { host: host.to_owned(), port, name })
    }

    /// Returns the host: a name, or an address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for Address {
    type Err = DialError;

    /// Reads `HOST:PORT`; an IPv6 address stands in brackets.
    fn from_str(text: &str) -> Result<Self, DialError> {
        let wrong = || DialError::Address { got: text.to_owned() };
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_bracketed = bare.is_some();
        let host = bare.unwrap_or(host);
        if host.contains(':') != is_bracketed {
            return Err(wrong());
        }
        Self::new(host, port.parse().map_err(|_| wrong())?).map_err(|_| wrong())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(formatter, "[{}]:{}", self.host, self.port)
        } else {
            write!(formatter, "{}:{}", self.host, self.port)
        }
    }
}

impl DialError {
    /// Returns whether the server had no room for the handshake and said so, which one over QUIC can: it is within reach.
    #[must_use]
    pub fn is_want_of_room(&self) -> bool {
        match self {
            Self::Tls { source, .. } => source.kind() == io::ErrorKind::ConnectionRefused,
            Self::Address { .. }
            | Self::NoCertificate { .. }
            | Self::Late { .. }
            | Self::Tcp { .. }
            | Self::Refused { .. } => false,
        }
    }
}

/// How long the steps of a connection may take.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// For the name and the TCP connection.
    pub connect: Duration,
    /// For the TLS handshake.
    pub tls: Duration,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The address is none.
    #[error("`{got}` is not HOST:PORT, such as switch.example.org:4001")]
    Address {
        /// What was given.
        got: String,
    },
    /// We have no certificate to show; nothing was sent.
    #[error("{address} is not called without a certificate of ours (S6): {problem}")]
    NoCertificate {
        /// The server.
        address: Address,
        /// Why there is none: what each of the store's lacks.
        problem: String,
    },
    /// A step took too long.
    #[error("{step} with {address} took longer than {limit:?}")]
    Late {
        /// TCP or TLS.
        step: &'static str,
        /// The server.
        address: Address,
        /// The deadline.
        limit: Duration,
    },
    /// TCP failed.
    #[error("cannot connect to {address}: {source}")]
    Tcp {
        /// The server.
        address: Address,
        /// The system's words.
        source: io::Error,
    },
    /// TLS failed: the server refused our certificate, or we have nothing in common.
    #[error("TLS with {address}: {source}{}", early_end(source))]
    Tls {
        /// The server.
        address: Address,
        /// What was wrong.
        source: io::Error,
    },
    /// The server's certificate breaks a rule.
    #[error("the certificate of {address} is refused: {refused}")]
    Refused {
        /// The server.
        address: Address,
        /// Every rule that is broken.
        refused: Box<PeerRefused>,
    },
}

/// Says what may be behind a connection that ended without a word of TLS: who refuses a stranger before its handshake sends none.
fn early_end(source: &io::Error) -> &'static str {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    // What TLS itself has to say comes as its own error inside.
    let is_end = matches!(source.kind(), UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe);
    if is_end && !source.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) {
        "; the port closed the connection before TLS was up: it may be full for this address \
         (`waiting_per_source_max`; the server's metrics count it as `source_full`, or `lobby_full` and `busy` where it is full for all), \
         or speak no TLS"
    } else {
        ""
    }
}

/// Connects to a server and makes sure that it is one: the whole road of every connection that goes out.
///
/// The server is judged after the handshake as well, by the files as they are then: a resumed handshake calls no
/// verifier (spec/trust.md R2, C12). So it is for as long as the connection stands (R3).
///
/// # Errors
/// Returns [`DialError`]; only [`DialError::Address`] stays true without a change of the network or of a certificate. Whose store
/// holds no certificate calls nobody.
pub async fn dial(
    credentials: &Arc<ClientCredentials>,
    address: &Address,
    deadlines: Deadlines,
) -> Result<Outgoing, DialError> {
    if credentials.lacks_own() {
        let problem = credentials.problem().unwrap_or_else(|| "the store holds none that will do".to_owned());
        return Err(DialError::NoCertificate { address: address.clone(), problem });
    }
    let mut stream = handshake(credentials, address, deadlines).await?;
    let mut judged = judge(credentials, address, &stream);
    if judged.is_err() && stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed) {
        // The chain is the one of the first handshake; the server may have another certificate by now.
        drop(stream);
        credentials.forget_tickets(&address.name);
        stream = handshake(credentials, address, deadlines).await?;
        judged = judge(credentials, address, &stream);
    }
    match judged {
        Ok(()) => Ok(Outgoing::new(stream, credentials, &address.name.to_str())),
        Err(refused) => Err(DialError::Refused { address: address.clone(), refused: Box::new(refused) }),
    }
}

/// Judges the server by the files as they are now.
fn judge(
    credentials: &ClientCredentials,
    address: &Address,
    stream: &TlsStream<TcpStream>,
) -> Result<(), PeerRefused> {
    let chain = stream.get_ref().1.peer_certificates();
    credentials.check_server(chain, &address.name.to_str(), credentials.clock().now()).map(drop)
}

async fn handshake(
    credentials: &ClientCredentials,
    address: &Address,
    deadlines: Deadlines,
) -> Result<TlsStream<TcpStream>, DialError> {
    let late = |step, limit| DialError::Late { step, address: address.clone(), limit };
    let stream = timeout(deadlines.connect, TcpStream::connect((address.host.as_str(), address.port)))
        .await
        .map_err(|_elapsed| late("the TCP connection", deadlines.connect))?
        .map_err(|source| DialError::Tcp { address: address.clone(), source })?;
    // What is written is flushed on purpose; a failure costs latency only.
    drop(stream.set_nodelay(true));
    let connector = TlsConnector::from(credentials.config());
    timeout(deadlines.tls, connector.connect(address.name.clone(), stream))
        .await
        .map_err(|_elapsed| late("the TLS handshake", deadlines.tls))?
        .map_err(|source| match PeerRefused::of(&source) {
            Some(refused) => {
                DialError::Refused { address: address.clone(), refused: Box::new(refused.clone()) }
            }
            None => DialError::Tls { address: address.clone(), source },
        })
}
