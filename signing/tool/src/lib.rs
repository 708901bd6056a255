//! The authors' and licensors' tool, `muster-sign`: signs, verifies and shows definitions and licences.
//!
//! What its commands do is here as functions, for `muster pki init` and tests: [`sign_definition`],
//! [`verify_definition`], [`issue_licence`], [`read_envelope`]. They are given bytes and `now`; only [`command`] opens
//! files. Keys are PEM files, which are read and never copied; PFX files, PKCS#11 tokens and timestamps are not
//! supported by this version. Start with [`cli`].

pub mod cli;
pub mod command;
mod definition;
mod envelope;
mod licence;

pub use definition::{Licensed, Trust, VerifiedDefinition, sign_definition, verify_definition};
pub use envelope::{ReadError, read_envelope};
pub use licence::{LicenceRequest, issue_licence};

use muster_pki::{Certificate, ExtendedKeyUsage, UnixTime};
use muster_signing::definition::DefinitionError;
use muster_signing::envelope::{EnvelopeError, SignError, Signer};
use muster_signing::licence::LicenceError;

/// Why a document is not signed, or not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ToolError {
    /// The authored text is no definition.
    #[error(transparent)]
    Definition(#[from] Box<DefinitionError>),
    /// The licence's terms do not hold together.
    #[error(transparent)]
    Licence(#[from] LicenceError),
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
    #[error("{code}: {source}")]
    Envelope {
        /// The code that a client would answer with.
        code: &'static str,
        /// What is wrong with it.
        source: EnvelopeError,
    },
    /// A verified content that is no text.
    #[error("the content is not UTF-8")]
    NotText,
    /// A certificate of a licence that cannot be read.
    #[error("prefix {prefix}: {problem}")]
    PrefixCertificate {
        /// The prefix.
        prefix: String,
        /// What is wrong.
        problem: String,
    },
}

impl From<EnvelopeError> for ToolError {
    fn from(source: EnvelopeError) -> Self {
        Self::Envelope { code: source.refusal().name(), source }
    }
}

impl From<DefinitionError> for ToolError {
    fn from(error: DefinitionError) -> Self {
        Self::Definition(Box::new(error))
    }
}

/// What no client would accept should not be signed at all (G5).
fn check_signer(signer: &Signer, now: UnixTime) -> Result<(), ToolError> {
    let Some(certificate) = signer.certificate() else { return Ok(()) };
    let may_sign = |usages: &[ExtendedKeyUsage]| usages.contains(&ExtendedKeyUsage::CodeSigning);
    let problem = if !certificate.extended_key_usages().is_some_and(may_sign) {
        "it is not for codeSigning"
    } else if !certificate.is_valid_at(now) {
        "it is not valid now"
    } else if certificate.is_ca() {
        "it is a CA's"
    } else {
        return Ok(());
    };
    Err(ToolError::SignerUnfit { subject: subject(certificate), problem: problem.to_owned() })
}

fn subject(certificate: &Certificate) -> String {
    certificate.subject().to_owned()
}
