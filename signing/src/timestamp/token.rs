//! [`Token`]: a TimeStampToken, CMS SignedData over a TSTInfo.

use aws_lc_rs::signature::UnparsedPublicKey;
use cms::cert::CertificateChoices;
use cms::content_info::{CmsVersion, ContentInfo};
use cms::signed_data::{CertificateSet, SignedData, SignerIdentifier, SignerInfo};
use const_oid::db::rfc5911::ID_SIGNED_DATA;
use der::asn1::{Any, ObjectIdentifier, OctetString};
use der::{Decode as _, Encode as _};
use muster_pki::{Certificate, Facts, Role, Roots, UnixTime, has_short_sets};
use x509_cert::ext::pkix::name::GeneralName;

use super::TimestampError;
use super::asn1::TstInfo;
use crate::algorithm::{Hash, KeyType, verifier};
use crate::attributes::{CONTENT_TYPE, MESSAGE_DIGEST, SIGNING_CERTIFICATE_V2, SigningCertificate, one};
use crate::envelope::CLOCK_SKEW_SECONDS;
use crate::path;

/// Largest token, and largest answer of an authority, in bytes; a token with its chain has some 6 KiB.
pub const TOKEN_BYTES_MAX: usize = 64 * 1024;

/// Most certificates of a token that is read; authorities send more than their chain.
const CERTIFICATES_MAX: usize = 10;

/// id-ct-TSTInfo (RFC 3161 §2.4.2).
pub(super) const TST_INFO: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.1.4");

/// A timestamp token, read and not verified.
#[derive(Debug, Clone)]
pub struct Token {
    data: SignedData,
    content: Vec<u8>,
    info: TstInfo,
    certificates: Vec<Certificate>,
    /// Whether it was read from DER; authorities do not sort their certificates.
    is_der: bool,
}

/// What a verified token proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// The signature existed at this moment.
    pub at: UnixTime,
    /// Who says so.
    pub authority: Certificate,
}

/// What a token claims; nothing of it is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimedStamp {
    /// The moment; `None` if it cannot be read.
    pub at: Option<UnixTime>,
    /// The certificates inside, the authority's first where the token names one of them.
    pub chain: Vec<Certificate>,
}

impl Token {
    /// Reads a token. [`Self::verify`] accepts DER only, and [`Self::pruned`] makes it of what authorities send.
    ///
    /// # Errors
    /// [`TimestampError::TooLarge`] or [`TimestampError::Form`].
    pub fn read(der: &[u8]) -> Result<Self, TimestampError> {
        if der.len() > TOKEN_BYTES_MAX {
            return Err(TimestampError::TooLarge(der.len()));
        }
        if !has_short_sets(der) {
            return Err(form("a SET of more elements than any token has"));
        }
        let outer = ContentInfo::from_der(der)?;
        if outer.content_type != ID_SIGNED_DATA {
            return Err(form("CMS of another kind than SignedData"));
        }
        let data = outer.content.decode_as::<SignedData>()?;
        if data.encap_content_info.econtent_type != TST_INFO || data.version != CmsVersion::V3 {
            return Err(form("a content that is not TSTInfo"));
        }
        let content = match &data.encap_content_info.econtent {
            Some(content) => content.decode_as::<OctetString>()?.into_bytes(),
            None => return Err(form("no content")),
        };
        let info = TstInfo::from_der(&content)?;
        let certificates = certificates(&data)?;
        let mut token = Self { data, content, info, certificates, is_der: false };
        token.is_der = token.to_der()? == der;
        Ok(token)
    }

    /// Returns the token in DER.
    ///
    /// # Errors
    /// It has none.
    pub fn to_der(&self) -> Result<Vec<u8>, TimestampError> {
        let outer = ContentInfo { content_type: ID_SIGNED_DATA, content: Any::encode_from(&self.data)? };
        Ok(outer.to_der()?)
    }

    /// Verifies that the token stamps `signature`, by an authority of `roots`; returns when.
    ///
    /// `facts.now` bounds the moment, and `facts.revocation` tells of revoked authorities: one that is revoked, whenever, is
    /// not believed, since whoever has its key may write any time. Its certificates must have been valid at the moment. Only
    /// those inside the token build its chain.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn verify(
        &self,
        signature: &[u8],
        roots: &Roots,
        facts: &Facts<'_>,
    ) -> Result<Stamp, TimestampError> {
        let (stamp, path) = self.stamp(signature, roots, facts)?;
        let info = self.signer_info()?;
        if self.data.crls.is_some() || info.unsigned_attrs.is_some() {
            return Err(form("CRLs or unsigned attributes inside; stamp again with muster-sign"));
        }
        if self.data.digest_algorithms.as_slice() != [info.digest_alg.clone()] {
            return Err(form(
                "digest algorithms that are not exactly the authority's; stamp again with muster-sign",
            ));
        }
        if let Some(unused) = self.certificates.iter().find(|certificate| !path.contains(certificate)) {
            return Err(TimestampError::UnusedCertificate(unused.subject().to_owned()));
        }
        if !self.is_der {
            return Err(form("an encoding that is not DER; stamp again with muster-sign"));
        }
        Ok(stamp)
    }

    /// Verifies as [`Self::verify`] does, and drops what authorities send along and no signature covers: certificates that the
    /// chain does not need, the root, CRLs, unsigned attributes. So every byte is accounted for.
    ///
    /// # Errors
    /// As [`Self::verify`].
    pub fn pruned(
        mut self,
        signature: &[u8],
        roots: &Roots,
        facts: &Facts<'_>,
    ) -> Result<Self, TimestampError> {
        let (_, path) = self.stamp(signature, roots, facts)?;
        let chosen = |certificate: &Certificate| {
            Ok(CertificateChoices::Certificate(x509_cert::Certificate::from_der(certificate.der())?))
        };
        let kept = path.iter().map(chosen).collect::<Result<Vec<_>, der::Error>>()?;
        let mut info = self.signer_info()?.clone();
        info.unsigned_attrs = None;
        self.data.certificates = Some(CertificateSet::try_from(kept)?);
        self.data.crls = None;
        self.data.digest_algorithms = vec![info.digest_alg.clone()].try_into()?;
        self.data.signer_infos = vec![info].try_into()?;
        self.certificates = path;
        Self::read(&self.to_der()?)
    }

    /// Returns what it claims, to show it to a person.
    #[must_use]
    pub fn claimed(&self) -> ClaimedStamp {
        let authority = self.authority().ok();
        let others = self.certificates.iter().filter(|certificate| Some(*certificate) != authority);
        ClaimedStamp { at: self.info.at(), chain: authority.into_iter().chain(others).cloned().collect() }
    }

    pub(super) const fn info(&self) -> &TstInfo {
        &self.info
    }

    /// Returns what it proves, and the path from the authority up to, and without, the root.
    fn stamp(
        &self,
        signature: &[u8],
        roots: &Roots,
        facts: &Facts<'_>,
    ) -> Result<(Stamp, Vec<Certificate>), TimestampError> {
        self.check_imprint(signature)?;
        let authority = self.authority()?;
        self.check_signature(authority)?;
        let Some(at) = self.info.at() else { return Err(form("a genTime that is none in DER")) };
        if at.as_secs() > facts.now.as_secs().saturating_add(CLOCK_SKEW_SECONDS) {
            return Err(TimestampError::Future { at: at.as_secs(), now: facts.now.as_secs() });
        }
        let path = self.trusted_path(authority, at, roots, facts)?;
        Ok((Stamp { at, authority: authority.clone() }, path))
    }

    fn check_imprint(&self, signature: &[u8]) -> Result<(), TimestampError> {
        let imprint = &self.info.message_imprint;
        let hash = Hash::read(&imprint.hash_algorithm)?;
        if self.info.version != 1 {
            return Err(form("a TSTInfo of a version other than 1"));
        }
        if self.info.extensions.iter().flatten().any(|extension| extension.critical) {
            return Err(form("a critical extension, which nothing here reads"));
        }
        if imprint.hashed_message.as_bytes() != hash.of(signature).as_ref() {
            return Err(TimestampError::Imprint);
        }
        Ok(())
    }

    fn signer_info(&self) -> Result<&SignerInfo, TimestampError> {
        match self.data.signer_infos.0.as_slice() {
            [info] if info.version == CmsVersion::V1 => Ok(info),
            [_] => Err(form("a SignerInfo of a version other than 1")),
            other => Err(form(&format!("{} signatures; wanted one", other.len()))),
        }
    }

    /// Returns the certificate that the token names as its signer's.
    fn authority(&self) -> Result<&Certificate, TimestampError> {
        let SignerIdentifier::IssuerAndSerialNumber(id) = &self.signer_info()?.sid else {
            return Err(form("a signer that is not named by issuer and serial number"));
        };
        let issuer = id.issuer.to_der()?;
        let is_signer = |certificate: &&Certificate| {
            certificate.issuer_der() == issuer && certificate.serial() == id.serial_number.as_bytes()
        };
        let found = self.certificates.iter().find(is_signer);
        found.ok_or_else(|| form("no certificate of its authority; ask for it (certReq)"))
    }

    fn check_signature(&self, authority: &Certificate) -> Result<(), TimestampError> {
        let bad = |problem| TimestampError::Signature { authority: authority.subject().to_owned(), problem };
        let info = self.signer_info()?;
        let Some(attributes) = &info.signed_attrs else { return Err(form("no signed attributes")) };
        let hash = Hash::read(&info.digest_alg)?;
        if one(attributes, CONTENT_TYPE, "contentType")?.decode_as::<ObjectIdentifier>()? != TST_INFO {
            return Err(bad("its contentType is another one"));
        }
        let digest = one(attributes, MESSAGE_DIGEST, "messageDigest")?.decode_as::<OctetString>()?;
        if digest.as_bytes() != hash.of(&self.content).as_ref() {
            return Err(bad("the content was changed"));
        }
        // RFC 5816: by SHA-256 or better. The attribute of RFC 3161, by SHA-1, names nobody here.
        let ids = one(attributes, SIGNING_CERTIFICATE_V2, "signingCertificateV2")?
            .decode_as::<SigningCertificate>()?
            .certificates;
        if !ids.first().map_or(Ok(false), |id| id.names(authority))? {
            return Err(bad("its signingCertificateV2 names another certificate"));
        }
        if let Some(GeneralName::DirectoryName(name)) = &self.info.authority
            && name.to_der()? != authority.subject_der()
        {
            return Err(bad("its TSTInfo names another authority"));
        }
        let (key_type, key) = KeyType::read(authority.spki_der())?;
        let algorithm = verifier(&info.signature_algorithm, hash, key_type)?;
        UnparsedPublicKey::new(algorithm, key)
            .verify(&attributes.to_der()?, info.signature.as_bytes())
            .map_err(|_| bad("it is not over these attributes, or not by this key"))
    }

    /// Returns the path from the authority up to, and without, the root.
    fn trusted_path(
        &self,
        authority: &Certificate,
        at: UnixTime,
        roots: &Roots,
        facts: &Facts<'_>,
    ) -> Result<Vec<Certificate>, TimestampError> {
        let facts = Facts { signed_at: Some(at), ..*facts };
        let (path, verdict) = path::judged(authority, &self.certificates, Role::Timestamp, roots, &facts);
        verdict.map_err(|refused| match path::revoked(&refused) {
            Some(revoked) => TimestampError::Revoked(revoked.subject.clone()),
            None => TimestampError::Untrusted(refused),
        })?;
        let path = path.below;
        let is_revoked = |certificate: &&Certificate| {
            facts.revocation.is_some_and(|revocation| revocation.is_revoked(certificate))
        };
        match path.iter().find(is_revoked) {
            Some(revoked) => Err(TimestampError::Revoked(revoked.subject().to_owned())),
            None => Ok(path),
        }
    }
}

fn certificates(data: &SignedData) -> Result<Vec<Certificate>, TimestampError> {
    let choices = data.certificates.as_ref().map(|set| set.0.as_slice()).unwrap_or_default();
    if choices.len() > CERTIFICATES_MAX {
        return Err(form(&format!("{} certificates; wanted at most {CERTIFICATES_MAX}", choices.len())));
    }
    let read = |choice: &CertificateChoices| match choice {
        CertificateChoices::Certificate(certificate) => Certificate::from_der(&certificate.to_der()?)
            .map_err(|error| TimestampError::Form(error.to_string())),
        CertificateChoices::Other(_) => Err(form("a certificate that is not X.509")),
    };
    choices.iter().map(read).collect()
}

fn form(problem: &str) -> TimestampError {
    TimestampError::Form(problem.to_owned())
}
