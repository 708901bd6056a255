//! TLS configurations from watched files, with every certificate judged by [`muster_pki::check`].
//!
//! ```text
//! PEM files ──► Material (own key and chain, roots by role, revocation) ──► rustls configuration
//!    ▲                 │ validated before it replaces the old; a bad file keeps the old
//!    └── notify + poll ┘
//! ```
//! A listener takes [`ServerCredentials::config`] for each handshake and calls
//! [`ServerCredentials::check_peer`] after it, resumed ones included: TLS resumption restores the peer's
//! chain without calling a verifier (spec/trust.md R2). Whoever calls a server uses [`dial`], which does the same.
//! The role of a peer is that whose roots its chain verifies under. Renewed files are put to use without a restart (N1); sessions in flight stay.
//!
//! It never uses rustls' process-wide provider and fetches nothing.
//! Start reading at [`server`] and [`client`].

mod client_side;
mod dial;
mod error;
mod files;
mod identity;
mod live;
mod provider;
mod server_side;
mod trust;
mod verify;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use muster_pki::{Policy, Role, UnixTime};
use serde::{Deserialize, Serialize};

pub use self::client_side::ClientCredentials;
pub use self::dial::{Address, Deadlines, DialError, dial};
pub use self::error::{CredentialError, PeerRefused};
pub use self::live::Reload;
pub use self::provider::provider;
pub use self::server_side::ServerCredentials;
pub use self::trust::Peer;

use self::files::Source;

/// How often watched files are compared even without a notification, which network file systems never send.
pub const POLL_INTERVAL: Duration = Duration::from_secs(30);
/// Rest after a notification: a renewal writes certificate and key one after the other.
pub const DEBOUNCE: Duration = Duration::from_millis(300);
/// How strictly certificates are judged, here and by `muster pki check`: a missing Key Usage (C4) or CRL distribution point
/// (C6) is a warning, so that a PKI whose CRLs come from files alone works.
pub const POLICY: Policy = Policy::LENIENT;
/// From here on before notAfter, health warns (spec/trust.md N3).
pub const EXPIRY_WARNING: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Our own certificate and its key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CredentialFiles {
    /// PEM: the certificate, followed by the CAs that issued it, without the root.
    pub certificate: PathBuf,
    /// PEM: the certificate's private key, PKCS#8, SEC 1 or PKCS#1, not encrypted.
    pub key: PathBuf,
}

/// Loads what a TLS server needs: its own certificate, and which roles may connect under which roots.
///
/// A CRL file may hold the certificate of the CA that signed the CRL, when that is no root.
/// `own_role` is [`Role::Switch`] for every server of ours.
///
/// # Errors
/// Returns [`CredentialError`] when a file is unreadable, our own certificate breaks a rule, the roots of two roles
/// overlap, or a CRL is not signed by a CA known here; all of it, see [`CredentialError::into_each`]. All need an
/// operator.
pub fn server(
    files: CredentialFiles,
    client_roles: Vec<(Role, PathBuf)>,
    crls: Vec<PathBuf>,
    alpn: Vec<Vec<u8>>,
    own_role: Role,
    clock: Clock,
) -> Result<Arc<ServerCredentials>, CredentialError> {
    let source = Source { own: Some(files), own_role, roots: client_roles, crls, clock };
    ServerCredentials::load(source, alpn)
}

/// Loads what a TLS client needs: its own certificate if it has one, and the roots of the servers it calls.
///
/// # Errors
/// Returns [`CredentialError`] as [`server`] does.
pub fn client(
    files: Option<CredentialFiles>,
    server_roots: PathBuf,
    crls: Vec<PathBuf>,
    alpn: Vec<Vec<u8>>,
    own_role: Role,
    clock: Clock,
) -> Result<Arc<ClientCredentials>, CredentialError> {
    let roots = vec![(Role::Switch, server_roots)];
    let source = Source { own: files, own_role, roots, crls, clock };
    ClientCredentials::load(source, alpn)
}

/// Reads the roots of several roles, only to tell what is wrong with them.
///
/// # Errors
/// Returns every file that gives no roots, and every root that stands in two of them.
pub fn check_roots(roots: Vec<(Role, PathBuf)>) -> Result<(), CredentialError> {
    let source =
        Source { own: None, own_role: Role::Service, roots, crls: Vec::new(), clock: Clock::system() };
    let contents = source.read();
    source.trust(&contents, None, None).map(drop)
}

/// The wall clock that validity is judged by. Tests give one of their own.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> UnixTime + Send + Sync>);

impl Clock {
    /// The system's clock.
    #[must_use]
    pub fn system() -> Self {
        Self::new(UnixTime::now)
    }

    /// A clock that asks `now`.
    pub fn new(now: impl Fn() -> UnixTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// Returns the time.
    #[must_use]
    pub fn now(&self) -> UnixTime {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Clock({} s)", self.now().as_secs())
    }
}

impl rustls::time_provider::TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(self.now())
    }
}

#[cfg(test)]
mod tests;
