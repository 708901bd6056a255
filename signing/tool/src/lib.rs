//! The authors' and licensors' tool, `muster-sign`: signs, verifies and shows definitions, licences and client
//! policies, and signs files for anyone.
//!
//! What its commands do is here as functions, for `muster pki init` and tests: [`sign_definition`],
//! [`verify_definition`], [`request_licence`], [`issue_licence`], [`verify_licence`], [`sign_policy`], [`verify_policy`], [`sign_file`], [`verify_file`], [`stamp_envelope`], [`read_envelope`]. They are given bytes and `now`; only
//! [`command`] and [`read_file`] open files and connections, and [`key`] what holds a signing key: PEM and PFX files, PKCS#11 tokens. Start with [`cli`].

pub mod cli;
pub mod command;
mod definition;
mod envelope;
mod file;
pub mod key;
mod licence;
mod pack;
mod policy;
mod read;
mod timestamp;

pub use definition::{Licensed, Trust, VerifiedDefinition, sign_definition, verify_definition};
pub use envelope::{ReadError, read_envelope};
pub use file::{sign_file, verify_file};
pub use licence::{NewLicence, issue_licence, request_licence, verify_licence, verify_request};
pub use pack::sign_pack_index;
pub use policy::{VerifiedPolicy, sign_policy, verify_policy};
pub use read::{FileError, FileKind, read_file, read_text};
pub use timestamp::{Existing, Stamped, existing_timestamps, stamp_envelope};

use muster_pki::{Certificate, ExtendedKeyUsage, Facts, Role, Roots, Thumbprint, UnixTime};
use muster_signing::definition::DefinitionError;
use muster_signing::envelope::{EnvelopeError, SignError, Signer};
use muster_signing::exchange::ExchangeError;
use muster_signing::licence::{LicenceError, RequestError};
use muster_signing::pack::PackError;
use muster_signing::policy::PolicyError;
use muster_signing::timestamp::TimestampError;

/// Why a document is not signed, or not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ToolError {
    /// The authored text is no definition.
    #[error(transparent)]
    Definition(#[from] Box<DefinitionError>),
    /// The licence's terms do not hold together.
    #[error(transparent)]
    Licence(#[from] LicenceError),
    /// A publisher's request is refused, or cannot be made.
    #[error(transparent)]
    Request(RequestError),
    /// The authored text is no policy.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// Its audience compares what cannot be compared.
    #[error("audience: {0}")]
    Audience(String),
    /// The signer cannot sign.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The signer could sign, but nobody would accept it.
    #[error(
        "signer {subject}: {problem}; have a certificate issued with the extended key usage codeSigning (`muster pki issue --role author`)"
    )]
    SignerUnfit {
        /// The certificate's subject.
        subject: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The envelope is refused.
    #[error("{code}: {problem}")]
    Envelope {
        /// The code that a client would answer with.
        code: &'static str,
        /// What is wrong with it. No `source`: whoever prints causes would say it twice.
        problem: EnvelopeError,
    },
    /// A timestamp that nobody would believe.
    #[error(transparent)]
    Timestamp(#[from] TimestampError),
    /// A timestamp that would be believed, and by which its document would be refused.
    #[error(
        "the timestamp is of {at}, and proves nothing: {problem}; nothing is written; if no good timestamp is there, have the document signed again and stamped at once"
    )]
    UselessStamp {
        /// The moment of the timestamp.
        at: String,
        /// Why.
        problem: String,
    },
    /// A timestamp authority that this tool cannot ask.
    #[error("timestamp authority {url}: {problem}")]
    AuthorityAddress {
        /// The address.
        url: String,
        /// What was wanted, and how else to ask.
        problem: String,
    },
    /// A pack that is not made, or not taken.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// A list of packs that is not made.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// A verified content that is no text.
    #[error("the content is not UTF-8")]
    NotText,
    /// A licence would be signed by one of those that it licenses.
    #[error(
        "signer {subject}: expected a licensor's certificate, found the publisher's that --prefix {prefix} names; sign with the licensor's key and certificate (`muster pki issue --role licensor`)"
    )]
    SignerIsPublisher {
        /// The certificate's subject.
        subject: String,
        /// The prefix that it is named for.
        prefix: String,
    },
    /// A signer that the roots of its role do not know.
    #[error(
        "signer {subject}: expected a certificate of role {wanted}, found {found}; sign with the {wanted}'s key and certificate (`muster pki issue --role {wanted}`)"
    )]
    SignerRole {
        /// The certificate's subject.
        subject: String,
        /// The role that the document asks for.
        wanted: Role,
        /// The role that it has, or why it has none.
        found: String,
    },
    /// A prefix that is to be taken away and is not there.
    #[error("--withdraw-prefix {prefix}: the former licence does not have it; it has: {licensed}")]
    PrefixNotLicensed {
        /// The prefix.
        prefix: String,
        /// Those that there are.
        licensed: String,
    },
    /// A signer who is to be taken away and is not there.
    #[error(
        "--withdraw-signer {signer}: no prefix of the former licence has this signer; `licence inspect` shows those it has"
    )]
    SignerNotLicensed {
        /// The certificate's thumbprint.
        signer: Thumbprint,
    },
    /// A prefix whose last signer was taken away.
    #[error(
        "prefix {prefix} has no signer left; give another (--prefix {prefix}=CERT.pem), or take it away, too (--withdraw-prefix {prefix})"
    )]
    PrefixWithoutSigner {
        /// The prefix.
        prefix: String,
    },
    /// A newer licence would be due when this one has ended already.
    #[error("--refresh {refresh}d is after the licence's end; wanted at most {valid}d, as --valid says")]
    RefreshAfterEnd {
        /// Days until a newer one is due.
        refresh: u64,
        /// Days that it is valid.
        valid: u64,
    },
    /// A certificate of a licence that cannot be read.
    #[error("prefix {prefix}: {problem}")]
    PrefixCertificate {
        /// The prefix.
        prefix: String,
        /// What is wrong.
        problem: String,
    },
}

impl ToolError {
    /// Returns whether the arguments alone are wrong, whatever the files hold.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::RefreshAfterEnd { .. } | Self::AuthorityAddress { .. })
    }
}

impl From<EnvelopeError> for ToolError {
    fn from(problem: EnvelopeError) -> Self {
        Self::Envelope { code: problem.refusal().name(), problem }
    }
}

impl From<RequestError> for ToolError {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Envelope(problem) => problem.into(),
            RequestError::Sign(error) => error.into(),
            RequestError::Text(_) | RequestError::Authorities => Self::Request(error),
        }
    }
}

impl From<DefinitionError> for ToolError {
    fn from(error: DefinitionError) -> Self {
        Self::Definition(Box::new(error))
    }
}

/// What no client would accept should not be signed at all (G5).
fn check_signer(signer: &Signer, now: UnixTime) -> Result<(), ToolError> {
    signer.certificate().map_or(Ok(()), |certificate| check_publisher(certificate, now))
}

/// Refuses a certificate that signs nothing which a client accepts.
fn check_publisher(certificate: &Certificate, now: UnixTime) -> Result<(), ToolError> {
    let may_sign = |usages: &[ExtendedKeyUsage]| usages.contains(&ExtendedKeyUsage::CodeSigning);
    let problem = if !certificate.extended_key_usages().is_some_and(may_sign) {
        "it is not for codeSigning"
    } else if !certificate.is_valid_at(now) {
        "it is not valid now"
    } else if certificate.is_ca() {
        "it is a CA's"
    } else if certificate.is_self_signed() {
        "it is self-signed"
    } else {
        return Ok(());
    };
    Err(ToolError::SignerUnfit { subject: subject(certificate), problem: problem.to_owned() })
}

/// Refuses a signer whose certificate the roots of `wanted` do not accept; `others` are roots that may tell what it is.
///
/// # Errors
/// [`ToolError::SignerRole`], with the role found.
pub fn check_signer_role(
    signer: &Signer,
    wanted: Role,
    roots: &Roots,
    others: &[(Role, Roots)],
    now: UnixTime,
) -> Result<(), ToolError> {
    let chain: Vec<_> = signer.chain().iter().map(|element| element.certificate_der().clone()).collect();
    let judge =
        |role: Role, roots: &Roots| muster_pki::check(role, &chain, roots, &Facts::at(now)).into_result();
    let Err(refused) = judge(wanted, roots) else { return Ok(()) };
    let other = others.iter().find(|(role, roots)| *role != wanted && judge(*role, roots).is_ok());
    let missing = || {
        let highest = signer.chain().last().filter(|highest| !highest.is_self_signed())?;
        let is_there = roots.iter().any(|root| root.subject_der() == highest.issuer_der());
        let issuer = highest.issuer();
        (!is_there).then(|| format!("{refused}; {issuer}, which issued it, is none of the roots and does not come with it: give its certificate, too (--cert with both)"))
    };
    Err(ToolError::SignerRole {
        subject: signer.certificate().map(subject).unwrap_or_default(),
        wanted,
        found: match other {
            Some((role, _)) => format!("one of role {role}"),
            None => missing().unwrap_or_else(|| refused.to_string()),
        },
    })
}

fn subject(certificate: &Certificate) -> String {
    certificate.subject().to_owned()
}
