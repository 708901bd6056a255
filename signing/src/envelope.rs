//! Signed envelopes: CMS SignedData (RFC 5652) in strict DER, so that `openssl cms`, HSMs and an organisation's own
//! code-signing PKI work with them.
//!
//! The content is opaque: [`verify`] gives back the very bytes that were signed, and nothing is ever serialised again.
//! Every byte is accounted for: what is decoded must encode to the same bytes; the certificates are exactly the chains
//! that were used, without the root; the digest algorithms are the signers'; there are no CRLs, and no signed attributes
//! but contentType, messageDigest, signingTime and signingCertificateV2 (RFC 5035), once each. A signature may have one
//! unsigned attribute, a timestamp token, which must hold: then the signature outlives its certificate.
//!
//! Files of any size are signed beside themselves ([`sign_detached`], [`Detached`]): nothing here ever holds one.

mod attributes;
mod cosign;
mod detached;
mod error;
mod signer;
mod stamp;
mod structure;

use aws_lc_rs::digest::{SHA256, digest as hash};
use der::asn1::ObjectIdentifier;
use muster_pki::{Certificate, CertificateDer, Facts, Role, Roots, UnixTime, authorities_above};
use muster_proto::ids::Digest;
pub use muster_proto::limits::ENVELOPE_BYTES_MAX;

use self::structure::{Signature, Structure};
use crate::algorithm::Hash;
use crate::path::{self, Path};
use crate::timestamp::{ClaimedStamp, Stamp, Token};

pub use self::cosign::cosign;
pub use self::detached::{ContentDigest, Detached, Digester, VerifiedFile, sign_detached};
pub use self::error::{EnvelopeError, SignError};
pub use self::signer::{RemoteKey, Signer};
pub use self::stamp::{signature_values, timestamps, with_timestamps};
pub use crate::algorithm::KeyType;

/// Most certificates of an envelope; a chain has two or three.
pub const CERTIFICATES_MAX: usize = 8;

/// Most signatures of an order: the operator's and its approvals. Everything else has exactly one.
pub const ORDER_SIGNERS_MAX: usize = 8;

/// Most approvals that a definition asks for: with the operator's own they are signatures of four people, whose certificates fit
/// [`CERTIFICATES_MAX`] with an issuing CA each, even where no two of them have it in common.
pub const APPROVALS_MAX: u32 = 3;

/// How far a signer's clock may be ahead of ours.
pub const CLOCK_SKEW_SECONDS: u64 = 300;

/// What an envelope holds; each type has an eContentType of its own, so that none can be taken for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ContentType {
    /// A definition's authored text.
    Definition,
    /// An encoded order.
    Order,
    /// A licence's text.
    Licence,
    /// A client policy.
    Policy,
    /// The index of a pack.
    Pack,
    /// Any file, beside its signature (G10). A type of our own and not id-data: what somebody signs as data elsewhere, such as a
    /// mail, is no release, and `openssl cms` takes any type.
    File,
    /// What a publisher asks a licensor for.
    LicenceRequest,
}

impl ContentType {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Definition,
        Self::Order,
        Self::Licence,
        Self::Policy,
        Self::Pack,
        Self::File,
        Self::LicenceRequest,
    ];

    /// Returns the eContentType, in the experimental arc 1.3.6.1.3.
    #[must_use]
    pub const fn oid(self) -> ObjectIdentifier {
        ObjectIdentifier::new_unwrap(match self {
            Self::Definition => "1.3.6.1.3.20263.1.1",
            Self::Order => "1.3.6.1.3.20263.1.2",
            Self::Licence => "1.3.6.1.3.20263.1.3",
            Self::Policy => "1.3.6.1.3.20263.1.4",
            Self::Pack => "1.3.6.1.3.20263.1.5",
            Self::File => "1.3.6.1.3.20263.1.6",
            Self::LicenceRequest => "1.3.6.1.3.20263.1.7",
        })
    }

    /// Returns the type's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Definition => "definition",
            Self::Order => "order",
            Self::Licence => "licence",
            Self::Policy => "policy",
            Self::Pack => "pack's index",
            Self::File => "file's signature",
            Self::LicenceRequest => "licence request",
        }
    }

    /// Returns the type's name as it stands in a sentence: `an order`.
    #[must_use]
    pub fn with_article(self) -> String {
        error::with_article(self.name())
    }

    /// Returns whether a timestamp makes a signature outlive its certificate. Whoever stole the key of an order's, a licence's or a
    /// policy's signer would keep stamped ones to use them after the revocation, and nothing distrusts these signers "after" a moment.
    #[must_use]
    pub const fn outlives_certificate(self) -> bool {
        match self {
            // What a release or a pack is good for does not end with a certificate (G10).
            Self::Definition | Self::Pack | Self::File => true,
            Self::Order | Self::Licence | Self::Policy | Self::LicenceRequest => false,
        }
    }

    /// Returns whether the content is beside the envelope, and not in it.
    const fn is_detached(self) -> bool {
        match self {
            Self::File => true,
            Self::Definition
            | Self::Order
            | Self::Licence
            | Self::Policy
            | Self::Pack
            | Self::LicenceRequest => false,
        }
    }

    const fn signers_max(self) -> usize {
        match self {
            Self::Order => ORDER_SIGNERS_MAX,
            Self::Definition
            | Self::Licence
            | Self::Policy
            | Self::Pack
            | Self::File
            | Self::LicenceRequest => 1,
        }
    }
}

/// Signs `content`; the envelope holds it (of [`ContentType::File`] not), the signer's chain without the root, and the time of signing.
///
/// # Errors
/// The envelope would be too large, or the key does not sign.
pub fn sign(
    content: &[u8],
    content_type: ContentType,
    signer: &Signer,
    signing_time: UnixTime,
) -> Result<Vec<u8>, SignError> {
    structure::sign(content, content_type, &[signer], signing_time)
}

/// Signs `content` with several signers at once, as nobody does but tests: [`cosign`] adds one later, as an approval is.
#[cfg(test)]
fn sign_by_all(
    content: &[u8],
    content_type: ContentType,
    signers: &[&Signer],
    signing_time: UnixTime,
) -> Result<Vec<u8>, SignError> {
    structure::sign(content, content_type, signers, signing_time)
}

/// The roots that an envelope is verified by.
#[derive(Debug, Clone, Copy)]
pub struct Anchors<'a> {
    /// Of the signers' role.
    pub signers: &'a Roots,
    /// Of timestamp authorities; `None`: a timestamp is not believed, and refused.
    pub timestamps: Option<&'a Roots>,
}

impl<'a> Anchors<'a> {
    /// Roots of signers alone.
    #[must_use]
    pub const fn of(signers: &'a Roots) -> Self {
        Self { signers, timestamps: None }
    }
}

/// Content whose signatures all hold.
#[derive(Debug, Clone)]
pub struct Verified {
    /// The bytes that were signed.
    pub content: Vec<u8>,
    /// Who signed them; each chains to a root of the role.
    pub signers: Vec<Certificate>,
    /// The root of each signer, in their order.
    pub roots: Vec<Certificate>,
    /// When, by the signers' own clocks; the latest of them.
    pub signing_time: UnixTime,
    /// When at the latest, by timestamps; `None` if a signature has none.
    pub stamped_at: Option<UnixTime>,
}

/// Verifies an envelope: its form, every signature and timestamp, and that every signer may play `role`.
///
/// A signer's certificates must be valid at `facts.now` and not be revoked; where a timestamp proves the signature of a definition,
/// they must have been valid at its moment, and not have been revoked before. Only certificates inside the envelope build its
/// chains; `facts.intermediates` and `facts.signed_at` are not used.
///
/// # Errors
/// What is wrong; [`EnvelopeError::refusal`] gives the code for it.
pub fn verify(
    envelope: &[u8],
    content_type: ContentType,
    role: Role,
    anchors: &Anchors<'_>,
    facts: &Facts<'_>,
) -> Result<Verified, EnvelopeError> {
    let opened = open(envelope, content_type)?;
    let Judged { signers, roots, signing_time, stamped_at } = opened.judge(role, anchors, facts)?;
    Ok(Verified { content: opened.content, signers, roots, signing_time, stamped_at })
}

/// An envelope whose signatures hold by the keys of the certificates in it. That never changes, so it may be kept; whether those who
/// signed are to be trusted does, and is judged each time.
#[derive(Debug)]
pub struct Opened {
    structure: Structure,
    content: Vec<u8>,
    /// When each signature was made, by its signer's own clock.
    signed_at: Vec<UnixTime>,
}

/// Signatures of signers who may play their role.
#[derive(Debug, Clone)]
pub struct Judged {
    /// As [`Verified::signers`].
    pub signers: Vec<Certificate>,
    /// As [`Verified::roots`].
    pub roots: Vec<Certificate>,
    /// As [`Verified::signing_time`].
    pub signing_time: UnixTime,
    /// As [`Verified::stamped_at`].
    pub stamped_at: Option<UnixTime>,
}

/// Opens an envelope: its form, and every signature by the key of its certificate. Nobody is trusted by that.
///
/// # Errors
/// As [`verify`], of whose checks these are the first.
pub fn open(envelope: &[u8], content_type: ContentType) -> Result<Opened, EnvelopeError> {
    let mut structure = Structure::read(envelope, content_type)?;
    let Some(content) = structure.content.take() else {
        return Err(structure::form("a detached signature; it is verified beside its file"));
    };
    let signed_at = signed_at(&structure, |hash: Hash| Ok(hash.of(&content).as_ref().to_vec()))?;
    Ok(Opened { structure, content, signed_at })
}

impl Opened {
    /// Returns the bytes that were signed.
    #[must_use]
    pub fn content(&self) -> &[u8] {
        &self.content
    }

    /// Judges who signed it, and its timestamps, as [`verify`] does.
    ///
    /// # Errors
    /// What is wrong; [`EnvelopeError::refusal`] gives the code for it.
    pub fn judge(
        &self,
        role: Role,
        anchors: &Anchors<'_>,
        facts: &Facts<'_>,
    ) -> Result<Judged, EnvelopeError> {
        judge(&self.structure, &self.signed_at, role, anchors, facts)
    }
}

/// Verifies every signature over a content with this digest; returns when each was made.
fn signed_at(
    structure: &Structure,
    digest: impl Fn(Hash) -> Result<Vec<u8>, EnvelopeError>,
) -> Result<Vec<UnixTime>, EnvelopeError> {
    let at = |signature: &Signature| structure.verify_signature(signature, &digest(signature.hash)?);
    structure.signatures.iter().map(at).collect()
}

/// Judges those whose signatures were verified.
fn judge(
    structure: &Structure,
    signed_at: &[UnixTime],
    role: Role,
    anchors: &Anchors<'_>,
    facts: &Facts<'_>,
) -> Result<Judged, EnvelopeError> {
    let epoch = UnixTime::since_unix_epoch(std::time::Duration::ZERO);
    let (mut signing_time, mut stamped_at) = (epoch, Some(epoch));
    let (mut signers, mut roots) = (Vec::new(), Vec::new());
    let mut used: Vec<Certificate> = Vec::new();
    for (signature, &signed_at) in structure.signatures.iter().zip(signed_at) {
        let stamp = stamp(signature, anchors, facts)?.map(|stamp| stamp.at);
        let signed_at_least = stamp.filter(|_| structure.content_type().outlives_certificate());
        let facts = Facts { signed_at: signed_at_least, ..*facts };
        let path = trusted_path(structure, &signature.signer, role, anchors.signers, &facts)?;
        used.extend(path.below);
        roots.extend(path.root);
        check_time(&signature.signer, signed_at, stamp.unwrap_or(facts.now))?;
        signing_time = signing_time.max(signed_at);
        stamped_at = stamped_at.zip(stamp).map(|(latest, stamp)| latest.max(stamp));
        signers.push(signature.signer.clone());
    }
    if let Some(unused) = structure.certificates.iter().find(|certificate| !used.contains(certificate)) {
        return Err(EnvelopeError::UnusedCertificate(unused.subject().to_owned()));
    }
    Ok(Judged { signers, roots, signing_time, stamped_at })
}

/// A licence request whose signature holds: whoever made it has the key of `signer`. Who that is, nobody vouches for.
#[derive(Debug, Clone)]
pub struct Possessed {
    /// The bytes that were signed.
    pub content: Vec<u8>,
    /// The certificate whose key signed them.
    pub signer: Certificate,
    /// The CAs above it that came along, nearest first.
    pub authorities: Vec<Certificate>,
    /// When, by the signer's own clock.
    pub signing_time: UnixTime,
}

/// Verifies the form and the signature of a [`ContentType::LicenceRequest`], and that every certificate in it stands above the
/// signer's: its signer possesses the key (G6). No root is asked, since who licenses need not know the publisher's CA; nothing else
/// is ever accepted in this way.
///
/// # Errors
/// What is wrong; [`EnvelopeError::refusal`] gives the code for it.
pub fn verify_possession(envelope: &[u8], now: UnixTime) -> Result<Possessed, EnvelopeError> {
    let mut structure = Structure::read(envelope, ContentType::LicenceRequest)?;
    let Some(content) = structure.content.take() else {
        return Err(EnvelopeError::Form("no content".to_owned()));
    };
    let [signature] = &structure.signatures[..] else {
        return Err(EnvelopeError::Form("not exactly one signature".to_owned()));
    };
    if signature.token.is_some() {
        return Err(EnvelopeError::Form("a timestamp, which a licence request has not".to_owned()));
    }
    let signing_time = structure.verify_signature(signature, signature.hash.of(&content).as_ref())?;
    let signer = signature.signer.clone();
    check_time(&signer, signing_time, now)?;
    let authorities = authorities_above(&signer, &structure.certificates);
    let is_unused = |one: &&Certificate| **one != signer && !authorities.contains(one);
    if let Some(unused) = structure.certificates.iter().find(is_unused) {
        return Err(EnvelopeError::UnusedCertificate(unused.subject().to_owned()));
    }
    Ok(Possessed { content, signer, authorities, signing_time })
}

/// Verifies the timestamp of a signature, if it has one.
fn stamp(
    signature: &Signature,
    anchors: &Anchors<'_>,
    facts: &Facts<'_>,
) -> Result<Option<Stamp>, EnvelopeError> {
    let Some(token) = &signature.token else { return Ok(None) };
    let roots = anchors.timestamps.ok_or(EnvelopeError::NoTimestampRoots)?;
    Ok(Some(token.verify(&signature.value, roots, facts)?))
}

/// Returns SHA-256 over the envelope's bytes: how the protocol names a definition or a licence.
#[must_use]
pub fn digest(envelope: &[u8]) -> Digest {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(hash(&SHA256, envelope).as_ref());
    Digest::from(bytes)
}

/// What an envelope claims; nothing of it is verified.
#[derive(Debug, Clone)]
pub struct Inspection {
    /// What it holds.
    pub content_type: ContentType,
    /// The content; empty where it is beside the envelope.
    pub content: Vec<u8>,
    /// Who is said to have signed it, and when.
    pub signers: Vec<(Certificate, UnixTime)>,
    /// The certificates inside, in DER order.
    pub certificates: Vec<Certificate>,
    /// The timestamps beside the signatures.
    pub stamps: Vec<ClaimedStamp>,
}

/// A chain inside an envelope, as it is claimed; nothing of it is verified.
#[derive(Debug, Clone)]
pub struct ClaimedChain {
    /// Whose it would be.
    pub role: Role,
    /// The certificates, the signer's first; then all others of the document or the timestamp.
    pub certificates: Vec<CertificateDer<'static>>,
    /// The moment by which its certificates would be judged, where that is not now.
    pub signed_at: Option<UnixTime>,
}

impl Inspection {
    /// Returns the chains of the signers, who would play `role`, and of the timestamp authorities: from them is learned where the CRLs
    /// are, which no handshake shows (R1 of trust.md).
    #[must_use]
    pub fn chains(&self, role: Role) -> Vec<ClaimedChain> {
        let der = |certificate: &Certificate| certificate.certificate_der().clone();
        // Only documents with a single signer outlive their certificates.
        let stamp = self.stamps.first().filter(|_| self.content_type.outlives_certificate());
        let signed_at = stamp.and_then(|stamp| stamp.at);
        let of_signers = self.signers.iter().map(|(signer, _)| {
            let others = self.certificates.iter().filter(|certificate| *certificate != signer);
            let certificates = std::iter::once(signer).chain(others).map(der).collect();
            ClaimedChain { role, certificates, signed_at }
        });
        let of_authorities = self.stamps.iter().map(|stamp| ClaimedChain {
            role: Role::Timestamp,
            certificates: stamp.chain.iter().map(der).collect(),
            signed_at: stamp.at,
        });
        of_signers.chain(of_authorities).collect()
    }
}

/// Reads an envelope **without verifying it**, to show it to a person or to name what was refused.
///
/// # Errors
/// It is not in the form that [`verify`] asks for.
pub fn inspect(envelope: &[u8]) -> Result<Inspection, EnvelopeError> {
    let content_type = structure::content_type(envelope)?;
    let structure = Structure::read(envelope, content_type)?;
    let signers = structure.signatures.iter().map(|signature| {
        Ok((signature.signer.clone(), attributes::read(&signature.attributes)?.signing_time))
    });
    let tokens = structure.signatures.iter().filter_map(|signature| signature.token.as_ref());
    Ok(Inspection {
        content_type,
        stamps: tokens.map(Token::claimed).collect(),
        signers: signers.collect::<Result<_, EnvelopeError>>()?,
        certificates: structure.certificates,
        content: structure.content.unwrap_or_default(),
    })
}

/// Returns the path from the signer up to the root.
fn trusted_path(
    structure: &Structure,
    signer: &Certificate,
    role: Role,
    roots: &Roots,
    facts: &Facts<'_>,
) -> Result<Path, EnvelopeError> {
    let (path, verdict) = path::judged(signer, &structure.certificates, role, roots, facts);
    if let Err(refused) = verdict {
        return Err(if path::revoked(&refused).is_some() {
            EnvelopeError::Revoked(refused)
        } else {
            EnvelopeError::Untrusted(refused)
        });
    }
    Ok(path)
}

/// A signing time is the signer's word, but it cannot be outside the certificate's validity, or after now and any timestamp.
fn check_time(signer: &Certificate, signed_at: UnixTime, now: UnixTime) -> Result<(), EnvelopeError> {
    let is_future = signed_at.as_secs() > now.as_secs().saturating_add(CLOCK_SKEW_SECONDS);
    if is_future || !signer.is_valid_at(signed_at) {
        return Err(EnvelopeError::SigningTime { signed_at: signed_at.as_secs(), now: now.as_secs() });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
