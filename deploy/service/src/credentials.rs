//! TLS configurations from watched files, with every certificate judged by [`muster_pki::check`].
//!
//! ```text
//! files ──► Material (own key and chain, roots by role) ──► rustls configuration      CRLs ──► Revocation
//!   ▲                 │ validated before it replaces the old; a bad file keeps the old              │
//!   └── notify + poll ┘                                        every check of a peer looks it up ◄───┘
//! ```
//! A listener takes [`ServerCredentials::config`] for each handshake and calls
//! [`ServerCredentials::check_peer`] after it, resumed ones included: TLS resumption restores the peer's
//! chain without calling a verifier (spec/trust.md R2). Whoever calls a server uses [`dial`], which does the same.
//! The role of a peer is that whose roots its chain verifies under. Renewed files are put to use without a restart (N1); sessions in flight stay.
//!
//! It never uses rustls' process-wide provider; the only thing it fetches is CRLs, see [`Revocation`].
//! Start reading at [`server`] and [`client`].

mod client_side;
mod dial;
mod durable;
mod error;
mod files;
mod identity;
mod judge;
mod live;
mod one_device;
mod outgoing;
mod outgoing_quic;
mod provider;
mod revocation;
mod server_side;
mod server_store;
mod shown;
mod store;
mod told;
mod trust;
mod trust_folder;
mod verify;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use muster_pki::{Policy, Role, TrailOf, UnixTime};
use serde::{Deserialize, Serialize};

pub use self::client_side::ClientCredentials;
pub use self::dial::{Address, Deadlines, DialError, dial};
pub use self::error::{CredentialError, PeerRefused};
pub use self::files::{FILE_BYTES_MAX, FileBytes, read_at_most};
pub use self::live::{Reload, WatchedFile};
pub use self::one_device::{OneDevice, OtherDevice};
pub use self::outgoing::Outgoing;
pub use self::outgoing_quic::{OutgoingQuic, QuicRoad, dial_quic};
pub use self::provider::provider;
pub use self::revocation::{
    FetchSettings, IssuerSettings, Keeping, PathElement, Revocation, RevocationFiles, RevocationSettings,
    Revocations, http_get, web_client,
};
pub use self::server_side::{ClientCertificate, ServerCredentials};
pub use self::server_store::ServerTls;
pub use self::shown::{NothingShown, shown_by};
pub use self::store::{CertificateStore, STORE_FILE_BYTES_MAX, STORE_FILES_MAX, StoreSettings};
pub use self::told::{Shown, Told, ToldPeer};
pub use self::trust::Peer;
pub use self::trust_folder::{Accepted, Rebuilt, Saved, TrustFolder, TrustFolderError};

use self::files::Source;

/// How often watched files are compared even without a notification, which network file systems never send.
pub const POLL_INTERVAL: Duration = Duration::from_secs(30);
/// Rest after a notification: a renewal writes certificate and key one after the other.
pub const DEBOUNCE: Duration = Duration::from_millis(300);
/// From here on before notAfter, health warns (spec/trust.md N3).
pub const EXPIRY_WARNING: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Our own certificate and its key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CredentialFiles {
    /// PEM: the certificate, followed by the CAs that issued it, without the root; or a PFX with the key in it.
    pub certificate: PathBuf,
    /// PEM: the certificate's private key, PKCS#8, SEC 1 or PKCS#1. Not looked at where the certificate's file is a PFX.
    pub key: PathBuf,
    /// A file with the password of the PFX or of the key: one line of UTF-8.
    pub password_file: Option<PathBuf>,
}

impl CredentialFiles {
    /// PEM files, without a password.
    #[must_use]
    pub fn pem(certificate: PathBuf, key: PathBuf) -> Self {
        Self { certificate, key, password_file: None }
    }
}

/// Where our own certificate comes from.
#[derive(Clone, Debug)]
pub enum Own {
    /// We show none.
    None,
    /// From files that are named.
    Files(CredentialFiles),
    /// From a folder, by the rules of selection.
    Store(Arc<CertificateStore>),
}

impl From<CredentialFiles> for Own {
    fn from(files: CredentialFiles) -> Self {
        Self::Files(files)
    }
}

impl Own {
    fn files(&self) -> Option<&CredentialFiles> {
        match self {
            Self::Files(files) => Some(files),
            Self::None | Self::Store(_) => None,
        }
    }

    fn store(&self) -> Option<&CertificateStore> {
        match self {
            Self::Store(store) => Some(store),
            Self::None | Self::Files(_) => None,
        }
    }
}

/// Which servers are trusted.
#[derive(Clone, Debug)]
pub enum Servers {
    /// Those below the roots in a PEM file.
    Roots(PathBuf),
    /// Those of a client's trust store.
    Folder(TrustFolder),
}

/// What every certificate is judged by, ours and the peers'.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Who is revoked; one for the whole process.
    pub revocation: Arc<Revocation>,
    /// How strict C4 and C6 are.
    pub policy: Policy,
    /// Of which checks of peers the verification trail is logged (C14).
    pub trail: TrailOf,
    /// The time.
    pub clock: Clock,
    /// Which device this process is, where it is one (N4).
    pub device: OneDevice,
    /// Roots of every role that the process trusts, each with its file. Whoever is given these rules puts no roots to use, at start
    /// or later, while two of these roles share one: what one listener trusts is no other listener's.
    pub roles: Vec<(Role, PathBuf)>,
}

/// Loads what a TLS server needs: its own certificate, and which roles may connect under which roots. Nobody connects without a
/// certificate.
///
/// `own_role` is [`Role::Switch`] for every server of ours.
///
/// # Errors
/// Returns [`CredentialError`] when a file is unreadable, our own certificate breaks a rule, a folder holds none that will do (S7),
/// or the roots of two roles overlap; all of it, see [`CredentialError::into_each`]. All need an operator.
pub fn server(
    own: impl Into<Own>,
    client_roles: Vec<(Role, PathBuf)>,
    alpn: Vec<Vec<u8>>,
    own_role: Role,
    rules: Rules,
) -> Result<Arc<ServerCredentials>, CredentialError> {
    server_asking(ClientCertificate::Required, own, client_roles, alpn, own_role, rules)
}

/// As [`server`], for a listener that may let somebody in without a certificate: see [`ServerCredentials::asks`].
///
/// # Errors
/// As [`server`].
pub fn server_asking(
    asks: ClientCertificate,
    own: impl Into<Own>,
    client_roles: Vec<(Role, PathBuf)>,
    alpn: Vec<Vec<u8>>,
    own_role: Role,
    rules: Rules,
) -> Result<Arc<ServerCredentials>, CredentialError> {
    ServerCredentials::load(
        Source { own: own.into(), own_role, roots: client_roles, servers: None, rules, begun: false.into() },
        alpn,
        asks,
    )
}

/// Loads what a TLS client needs: its own certificate if it has one, and the roots of the servers it calls.
///
/// # Errors
/// Returns [`CredentialError`] as [`server`] does.
pub fn client(
    own: Own,
    servers: Servers,
    alpn: Vec<Vec<u8>>,
    own_role: Role,
    rules: Rules,
) -> Result<Arc<ClientCredentials>, CredentialError> {
    let (roots, servers) = match servers {
        Servers::Roots(path) => (vec![(Role::Switch, path)], None),
        Servers::Folder(folder) => (Vec::new(), Some(folder)),
    };
    ClientCredentials::load(Source { own, own_role, roots, servers, rules, begun: false.into() }, alpn)
}

/// Reads the roots of several roles, only to tell what is wrong with them.
///
/// # Errors
/// Returns every file that gives no roots, and every root that stands in two of them.
pub fn check_roots(roots: Vec<(Role, PathBuf)>) -> Result<(), CredentialError> {
    let rules = Rules::lenient(Clock::system());
    let (own, own_role, begun) = (Own::None, Role::Service, false.into());
    let source = Source { own, own_role, roots, servers: None, rules, begun };
    let mut contents = source.read();
    source.trust(&mut contents).map(drop)
}

/// The table `[certificates]` of every program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CertificateSettings {
    /// Of which checks of peers the verification trail is logged (C14): `off`, `refusals` or `all`. Default: off.
    pub trail: TrailOf,
    /// How strict the rules are that an organisation may loosen.
    pub policy: Policy,
}

impl Rules {
    /// Puts together what configuration says. Reads the files of revocation; blocks on the disk.
    ///
    /// What is wrong with them comes beside rules without revocation: only good for finding what else is wrong.
    #[must_use]
    pub fn load(
        certificates: CertificateSettings,
        revocation: &RevocationSettings,
        files: RevocationFiles,
        clock: Clock,
    ) -> (Self, Option<CredentialError>) {
        let CertificateSettings { trail, policy } = certificates;
        let (revocation, error) = match Revocation::load(files, revocation.clone(), clock.clone()) {
            Ok(revocation) => (revocation, None),
            Err(error) => (Revocation::none(clock.clone()), Some(error)),
        };
        (Self { revocation, policy, trail, clock, device: OneDevice::default(), roles: Vec::new() }, error)
    }

    /// No revocation, and [`Policy::LENIENT`].
    #[must_use]
    pub fn lenient(clock: Clock) -> Self {
        Self {
            revocation: Revocation::none(clock.clone()),
            policy: Policy::LENIENT,
            trail: TrailOf::Off,
            clock,
            device: OneDevice::default(),
            roles: Vec::new(),
        }
    }
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
