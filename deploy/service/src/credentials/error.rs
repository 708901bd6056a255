//! Why credentials do not load, and why a peer is refused.

use std::io;
use std::path::PathBuf;

use muster_pki::pem::PemError;
use muster_pki::{
    CrlError, CrlUrlError, DeviceIdError, IdentityError, Refused, Role, RootsError, Thumbprint,
};

use super::one_device::OtherDevice;
use super::told::Shown;
use super::trust_folder::TrustFolderError;

/// Why files were not put to use. All need an operator; at a reload the old ones stay in use.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// A file cannot be read.
    #[error("{}: {source}{}", path.display(), advice(source.kind()))]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// A file is larger than any of its kind.
    #[error("{}: more than {max} bytes, wanted certificates, a key or a CRL; name another file", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The bound.
        max: u64,
    },
    /// A file holds no PEM of the kind wanted.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// Certificate and key give no identity (C5).
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A server's folder holds no certificate that will do; the one in use stays until it ends (S7).
    #[error("{0}")]
    NoServerCertificate(String),
    /// The same without one in use: the port stays closed (S7).
    #[error("the port stays closed: {0}")]
    PortClosed(String),
    /// A store with more files than any machine has certificates.
    #[error("{}: more than {max} files, wanted a folder for certificates alone; name another one", folder.display())]
    CrowdedStore {
        /// The store.
        folder: PathBuf,
        /// The bound.
        max: usize,
    },
    /// A client's trust store is of no use.
    #[error(transparent)]
    TrustFolder(#[from] TrustFolderError),
    /// A password that is no text.
    #[error("{}: not UTF-8, wanted the password as one line of text; write it anew", path.display())]
    Password {
        /// The password's file.
        path: PathBuf,
    },
    /// A certificate that cannot issue stands where issuers are named.
    #[error("{}: got a certificate that is no CA, wanted issuing CAs; name the file of the CA", path.display())]
    NotAnIssuer {
        /// The file.
        path: PathBuf,
    },
    /// A URL from which no CRL can be fetched.
    #[error("`revocation.issuers.urls`: {0}")]
    CrlUrl(#[source] CrlUrlError),
    /// A file gives no roots.
    #[error(transparent)]
    Roots(#[from] RootsError),
    /// The key is not the certificate's, or of an unusable kind.
    #[error(
        "{}: got a key that does not fit {} ({problem}), wanted the private key of that certificate; \
         put both files in place together",
        key.display(), certificate.display()
    )]
    Key {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// The TLS library's complaint.
        problem: String,
    },
    /// Our own certificate breaks a rule.
    #[error("{}: our own certificate cannot serve as {role}: {refused}", path.display())]
    OwnCertificate {
        /// The certificate's file.
        path: PathBuf,
        /// The role it is to have.
        role: Role,
        /// Every rule it breaks.
        refused: Refused,
    },
    /// Our own certificate is another device's (N4).
    #[error("{}: got {other}", path.display())]
    OtherDevice {
        /// The certificate's file.
        path: PathBuf,
        /// Whose it is, and whose it was to be.
        other: Box<OtherDevice>,
    },
    /// Two roles trust the same root, so that one's certificates would pass as the other's.
    #[error(
        "{} ({first_role}) and {} ({second_role}) both trust the root {thumbprint}, wanted separate roots for each role; \
         issue {second_role} certificates from a CA of their own",
        first.display(), second.display()
    )]
    RootsOverlap {
        /// The first file.
        first: PathBuf,
        /// Its role.
        first_role: Role,
        /// The second file.
        second: PathBuf,
        /// Its role.
        second_role: Role,
        /// The root that both trust.
        thumbprint: Thumbprint,
    },
    /// A CRL is not usable.
    #[error("{}: {source}", path.display())]
    Crl {
        /// The CRL's file.
        path: PathBuf,
        /// What is wrong with it.
        source: CrlError,
    },
    /// A distribution point serves the list of another CA.
    #[error(
        "{url}: serves the CRL of {}, wanted that of {}; let the CA publish its own there, or put its own URL into \
         certificates and configuration",
        .found.join(", "), .expected.join(", ")
    )]
    CrlOfAnother {
        /// The distribution point.
        url: String,
        /// Whose CRLs it gave.
        found: Vec<String>,
        /// The issuers that it was configured or told for.
        expected: Vec<String>,
    },
    /// The TLS library refuses the combination.
    #[error("TLS configuration: {0}")]
    Tls(#[from] rustls::Error),
    /// Several files do not do.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Several(Vec<Self>),
}

impl CredentialError {
    /// Returns every problem by itself.
    #[must_use]
    pub fn into_each(self) -> Vec<Self> {
        match self {
            Self::Several(errors) => errors.into_iter().flat_map(Self::into_each).collect(),
            one @ (Self::Read { .. }
            | Self::TooLarge { .. }
            | Self::Pem(_)
            | Self::Identity(_)
            | Self::NoServerCertificate(_)
            | Self::PortClosed(_)
            | Self::Password { .. }
            | Self::TrustFolder(_)
            | Self::CrowdedStore { .. }
            | Self::NotAnIssuer { .. }
            | Self::CrlUrl(_)
            | Self::Roots(_)
            | Self::Key { .. }
            | Self::OwnCertificate { .. }
            | Self::OtherDevice { .. }
            | Self::RootsOverlap { .. }
            | Self::Crl { .. }
            | Self::CrlOfAnother { .. }
            | Self::Tls(_)) => vec![one],
        }
    }

    /// Puts problems together; `None` where there is none.
    pub(super) fn of_all(mut errors: Vec<Self>) -> Option<Self> {
        if errors.len() > 1 { Some(Self::Several(errors)) } else { errors.pop() }
    }
}

fn advice(kind: io::ErrorKind) -> &'static str {
    if kind == io::ErrorKind::NotFound {
        "; put it there, or name another file"
    } else if kind == io::ErrorKind::PermissionDenied {
        "; let the user that runs the program read it"
    } else {
        ""
    }
}

/// Why a peer may not connect. None goes away without a change of the peer's certificate or of our trust.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerRefused {
    /// The peer showed no certificate.
    #[error(
        "the peer showed no certificate; wanted one of role {wanted}; configure certificate and key there"
    )]
    NoCertificate {
        /// The roles admitted, separated by commas.
        wanted: String,
    },
    /// The certificate breaks rules.
    #[error("not accepted as {wanted}: {refused}")]
    Unfit {
        /// The peer's own certificate; the rule may be broken by one above it.
        certificate: Box<Shown>,
        /// The role it came nearest to.
        wanted: Role,
        /// Every rule it breaks in that role.
        refused: Refused,
    },
    /// The certificate is good, for something else.
    #[error(
        "certificate {}: got role {got}, wanted {wanted}; use a certificate that the CA of that role issued",
        print(.certificate)
    )]
    WrongRole {
        /// The certificate.
        certificate: Box<Shown>,
        /// The role it has.
        got: Role,
        /// The roles admitted.
        wanted: String,
    },
    /// The chain verifies under the roots of two roles.
    #[error(
        "certificate {} is both {first} and {second}; wanted roots that are separate by role; remove the \
         cross-signed CA from one of the two root files",
        print(.certificate)
    )]
    Ambiguous {
        /// The certificate.
        certificate: Box<Shown>,
        /// One role.
        first: Role,
        /// The other.
        second: Role,
    },
    /// A device's certificate has no usable name.
    #[error("certificate {}: {source}", print(.certificate))]
    Unnamed {
        /// The certificate.
        certificate: Box<Shown>,
        /// What is wrong with its names.
        source: DeviceIdError,
    },
}

fn print(certificate: &Shown) -> String {
    certificate.thumbprint.map(|print| print.to_string()).unwrap_or_default()
}
