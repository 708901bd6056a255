//! The development CA: roots, issuing CAs, leaves and CRLs, ECDSA P-256.
//!
//! For `muster pki`, `muster dev` and tests. It keeps its key in memory and has no list of what it issued; that is the
//! caller's. Times are arguments; the only thing it takes from outside is randomness.

mod leaf;

use std::net::IpAddr;
use std::time::Duration;

use aws_lc_rs::rand;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CrlDistributionPoint, DnType, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PublicKeyData, RevokedCertParams, SerialNumber,
};
use rustls_pki_types::UnixTime;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::certificate::{Certificate, CertificateError};
use crate::instant;
use crate::pem::{self, PemError};
use crate::role::Role;
use crate::usage::ExtendedKeyUsage;

/// How long before `now` a CA becomes valid: machines whose clocks are behind accept it at once.
const BACKDATED: Duration = Duration::from_secs(60 * 60);

/// A CA: its certificate, its key and what stands above it.
#[derive(Debug)]
pub struct Authority {
    certificate: Certificate,
    /// The CAs above, nearest first, without the root.
    above: Vec<Certificate>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes a root, valid from an hour before `now` for `validity`.
    ///
    /// # Errors
    /// A time is out of range, or the key cannot be made.
    pub fn root(common_name: &str, validity: Duration, now: UnixTime) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate()?;
        let params = ca_params(common_name, validity, now)?;
        let certificate = Certificate::from_der(params.self_signed(&key)?.der())?;
        Ok(Self { certificate, above: Vec::new(), issuer: Issuer::new(params, key) })
    }

    /// Reads a CA from PEM: its certificate, followed by those above it (a root among them is left out), and its key.
    ///
    /// # Errors
    /// One of the two cannot be read, they do not belong together, or it is no CA.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self, AuthorityError> {
        let mut certificates = pem::certificates(certificate_pem.as_bytes(), "CA certificate")?
            .iter()
            .map(|der| Certificate::from_der(der))
            .collect::<Result<Vec<_>, _>>()?
            .into_iter();
        let Some(certificate) = certificates.next() else {
            return Err(AuthorityError::NotACa(String::new()));
        };
        if !certificate.is_ca() {
            return Err(AuthorityError::NotACa(certificate.subject().to_owned()));
        }
        let key = KeyPair::try_from(&pem::private_key(key_pem.as_bytes(), "CA key")?)?;
        if key.subject_public_key_info() != certificate.spki_der() {
            return Err(AuthorityError::ForeignKey(certificate.subject().to_owned()));
        }
        let issuer = Issuer::from_ca_cert_der(certificate.certificate_der(), key)?;
        let above = certificates.filter(|above| !above.is_self_signed()).collect();
        Ok(Self { certificate, above, issuer })
    }

    /// Issues a CA below this one, valid from an hour before `now` for `validity`, at most as long as this one.
    ///
    /// # Errors
    /// A time is out of range, or the key cannot be made.
    pub fn issue_authority(
        &self,
        common_name: &str,
        validity: Duration,
        now: UnixTime,
    ) -> Result<Self, AuthorityError> {
        self.issue_authority_with(common_name, validity, now, None)
    }

    /// Issues a CA as [`Self::issue_authority`] does, whose certificate says that this CA's CRL is published at `crl_url`.
    ///
    /// # Errors
    /// As [`Self::issue_authority`].
    pub fn issue_authority_with(
        &self,
        common_name: &str,
        validity: Duration,
        now: UnixTime,
        crl_url: Option<&str>,
    ) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate()?;
        let mut params = ca_params(common_name, validity, now)?;
        if let Some(url) = crl_url {
            params.crl_distribution_points = vec![CrlDistributionPoint { uris: vec![url.to_owned()] }];
        }
        params.not_after = params.not_after.min(date(self.certificate.not_after())?);
        params.use_authority_key_identifier_extension = true;
        let certificate = Certificate::from_der(params.signed_by(&key, &self.issuer)?.der())?;
        Ok(Self { certificate, above: self.chain(), issuer: Issuer::new(params, key) })
    }

    /// Issues another certificate to a CA, for the name and key that it has: as it is renewed, or cross-signed.
    ///
    /// # Errors
    /// As [`Self::issue_authority`].
    pub fn certify_again(
        &self,
        authority: &Self,
        validity: Duration,
        now: UnixTime,
    ) -> Result<Self, AuthorityError> {
        let name = authority.certificate.common_name().unwrap_or_default();
        let mut params = ca_params(name, validity, now)?;
        params.not_after = params.not_after.min(date(self.certificate.not_after())?);
        params.use_authority_key_identifier_extension = true;
        let certificate =
            Certificate::from_der(params.signed_by(authority.issuer.key(), &self.issuer)?.der())?;
        let chain = certificate.pem() + &self.chain_pem();
        Self::from_pem(&chain, &authority.key_pem())
    }

    /// Returns the CA's certificate.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Returns this CA and those above it, nearest first, without a root: what goes behind a leaf.
    #[must_use]
    pub fn chain(&self) -> Vec<Certificate> {
        let own = (!self.certificate.is_self_signed()).then(|| self.certificate.clone());
        own.into_iter().chain(self.above.iter().cloned()).collect()
    }

    /// Returns the CA's certificate and those above it, without a root unless it is one itself.
    #[must_use]
    pub fn chain_pem(&self) -> String {
        self.above.iter().fold(self.certificate.pem(), |text, above| text + &above.pem())
    }

    /// Returns the CA's certificate alone.
    #[must_use]
    pub fn certificate_pem(&self) -> String {
        self.certificate.pem()
    }

    /// Returns the CA's key in PKCS#8.
    #[must_use]
    pub fn key_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.issuer.key().serialize_pem())
    }

    /// Issues a leaf with a fresh key.
    ///
    /// # Errors
    /// A name or a time cannot stand in a certificate.
    pub fn issue(&self, request: &Request) -> Result<Issued, AuthorityError> {
        self.issue_with(request, &Overrides::default())
    }

    /// Issues a leaf that differs from what its role asks for, to show that it is refused.
    ///
    /// # Errors
    /// As [`Self::issue`].
    pub fn issue_with(&self, request: &Request, overrides: &Overrides) -> Result<Issued, AuthorityError> {
        let key = KeyPair::generate()?;
        let params = leaf::params(request, overrides)?;
        let (signed, above) = match overrides.signer {
            LeafSigner::Authority => (params.signed_by(&key, &self.issuer)?, self.chain()),
            LeafSigner::Itself => (params.self_signed(&key)?, Vec::new()),
        };
        let certificate = Certificate::from_der(signed.der())?;
        let certificate_pem = certificate.pem();
        let chain_pem = above.iter().fold(certificate_pem.clone(), |text, above| text + &above.pem());
        Ok(Issued { certificate_pem, chain_pem, key_pem: key.serialize_pem(), certificate })
    }

    /// Signs a CRL and returns it as PEM.
    ///
    /// # Errors
    /// `next_update` is not after `this_update`, or a serial number is not hex.
    pub fn crl(
        &self,
        revoked: &[Revoked],
        number: u64,
        this_update: UnixTime,
        next_update: UnixTime,
    ) -> Result<String, AuthorityError> {
        let revoked_certs = revoked.iter().map(Revoked::params).collect::<Result<_, _>>()?;
        let params = CertificateRevocationListParams {
            this_update: date(this_update)?,
            next_update: date(next_update)?,
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(params.signed_by(&self.issuer)?.pem()?)
    }
}

/// What a leaf is to say.
#[derive(Debug, Clone)]
pub struct Request {
    /// The subject's CN.
    pub common_name: String,
    /// SAN dNSNames; the first is a device's id.
    pub dns_names: Vec<String>,
    /// SAN iPAddresses.
    pub ip_addresses: Vec<IpAddr>,
    /// Decides Key Usage and Extended Key Usage.
    pub role: Role,
    /// First moment of validity.
    pub not_before: UnixTime,
    /// Last moment of validity.
    pub not_after: UnixTime,
    /// CRL distribution point; `None` leaves it out.
    pub crl_url: Option<String>,
}

/// How a leaf differs from what its role asks for; tests need wrong certificates.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// Extended Key Usages in place of the role's; an empty list leaves the extension out.
    pub extended_key_usages: Option<Vec<ExtendedKeyUsage>>,
    /// What its Key Usage says (C4).
    pub key_usage: LeafKeyUsage,
    /// Whether it calls itself a CA (C8).
    pub kind: LeafKind,
    /// Who signs it (C8).
    pub signer: LeafSigner,
}

/// The Key Usage of a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LeafKeyUsage {
    /// What its role asks for.
    #[default]
    OfRole,
    /// One that no role asks for: keyAgreement alone.
    Wrong,
    /// No such extension.
    Missing,
}

/// What a leaf's Basic Constraints say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LeafKind {
    /// CA:FALSE.
    #[default]
    Leaf,
    /// CA:TRUE.
    Authority,
}

/// Whose key signs a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LeafSigner {
    /// The CA's.
    #[default]
    Authority,
    /// Its own.
    Itself,
}

/// A leaf and its key.
#[derive(Clone)]
pub struct Issued {
    /// The leaf alone.
    pub certificate_pem: String,
    /// The leaf and the CAs above it, without the root.
    pub chain_pem: String,
    /// Its key in PKCS#8.
    pub key_pem: String,
    /// The leaf, parsed.
    pub certificate: Certificate,
}

impl std::fmt::Debug for Issued {
    /// Leaves the key out.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// One entry of a CRL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// Serial number of the certificate in hex, as [`Certificate::serial_hex`] gives it.
    pub serial_hex: String,
    /// When it was revoked.
    pub at: UnixTime,
}

impl Revoked {
    fn params(&self) -> Result<RevokedCertParams, AuthorityError> {
        let serial =
            hex::decode(&self.serial_hex).map_err(|_| AuthorityError::Serial(self.serial_hex.clone()))?;
        Ok(RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: date(self.at)?,
            reason_code: None,
            invalidity_date: None,
        })
    }
}

/// Why the CA does not issue.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// A file of the CA cannot be read.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// A certificate cannot be read.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The certificate is no CA's.
    #[error("{0:?} is no CA (CA:TRUE is missing); wanted the certificate of a CA")]
    NotACa(String),
    /// The key is another's.
    #[error("the key does not belong to the CA certificate {0:?}; give the key that was made with it")]
    ForeignKey(String),
    /// A time that no certificate can hold.
    #[error("{0} s after 1970 is beyond the year 9999; wanted an earlier time")]
    Time(u64),
    /// A serial number that is not hex.
    #[error("serial number {0:?} is not hex; wanted it as `openssl x509 -serial` writes it")]
    Serial(String),
    /// The purpose is no OID.
    #[error("extended key usage {0:?} is no OID; wanted one like 1.3.6.1.5.5.7.3.2")]
    ExtendedKeyUsage(String),
    /// rcgen's reason: a name that is no IA5 string, a CRL that ends before it begins, an unusable key.
    #[error("the certificate cannot be made: {0}; check names, times and key")]
    Generation(String),
}

impl From<rcgen::Error> for AuthorityError {
    fn from(error: rcgen::Error) -> Self {
        Self::Generation(error.to_string())
    }
}

fn ca_params(
    common_name: &str,
    validity: Duration,
    now: UnixTime,
) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = date(seconds(now.as_secs().saturating_sub(BACKDATED.as_secs())))?;
    params.not_after = date(seconds(now.as_secs().saturating_add(validity.as_secs())))?;
    params.serial_number = Some(serial_number()?);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    Ok(params)
}

/// Makes 16 random bytes: more than the 64 bits that guess-proof serial numbers need, and positive in 17 octets.
fn serial_number() -> Result<SerialNumber, AuthorityError> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).map_err(|_| AuthorityError::Generation("no randomness".to_owned()))?;
    Ok(SerialNumber::from_slice(&bytes))
}

fn seconds(since_epoch: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(since_epoch))
}

fn date(at: UnixTime) -> Result<OffsetDateTime, AuthorityError> {
    instant::date(at).ok_or_else(|| AuthorityError::Time(at.as_secs()))
}
