//! Certificates for tests: one root for each role, and signers below it.

use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _,
};
use cms::content_info::ContentInfo;
use cms::signed_data::SignedData;
use const_oid::db::rfc5912::{ID_EC_PUBLIC_KEY, RSA_ENCRYPTION, SECP_384_R_1};
use der::asn1::{Any, BitString, Null};
use der::{Decode as _, Encode as _};
use muster_pki::authority::{Authority, Issued, Overrides, Request, Revoked};
use muster_pki::{
    Certificate, ExtendedKeyUsage, Facts, PrivateKeyDer, RevocationIndex, Role, Roots, UnixTime, pem,
};
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};

use crate::envelope::Signer;

/// The moment at which tests take place: 2027-01-15.
pub(crate) const NOW: u64 = 1_800_000_000;

pub(crate) fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

pub(crate) fn facts() -> Facts<'static> {
    Facts::at(at(NOW))
}

/// A root and, where asked for, a CA between it and its signers.
#[derive(Debug)]
pub(crate) struct Pki {
    root: Authority,
    issuing: Option<Authority>,
}

impl Pki {
    pub(crate) fn flat(name: &str) -> Self {
        Self::flat_for(name, Duration::from_secs(10 * 365 * 86_400))
    }

    pub(crate) fn flat_for(name: &str, validity: Duration) -> Self {
        Self { root: Authority::root(name, validity, at(NOW)).unwrap(), issuing: None }
    }

    pub(crate) fn deep(name: &str) -> Self {
        let flat = Self::flat(name);
        let issuing =
            flat.root.issue_authority("issuing", Duration::from_secs(365 * 86_400), at(NOW)).unwrap();
        Self { issuing: Some(issuing), ..flat }
    }

    pub(crate) fn authority(&self) -> &Authority {
        self.issuing.as_ref().unwrap_or(&self.root)
    }

    pub(crate) fn root(&self) -> &Certificate {
        self.root.certificate()
    }

    pub(crate) fn roots(&self) -> Roots {
        Roots::from_certificates([self.root().clone()]).unwrap()
    }

    pub(crate) fn signer(&self, name: &str, role: Role) -> Signer {
        self.signer_with(name, role, &Overrides::default())
    }

    pub(crate) fn signer_for(&self, name: &str, usage: ExtendedKeyUsage) -> Signer {
        let overrides = Overrides { extended_key_usages: Some(vec![usage]), ..Overrides::default() };
        self.signer_with(name, Role::Author, &overrides)
    }

    pub(crate) fn signer_until(&self, name: &str, role: Role, not_after: u64) -> Signer {
        let issued = self.issued_until(name, role, not_after, &Overrides::default());
        Signer::from_pem(issued.chain_pem, issued.key_pem).unwrap()
    }

    fn signer_with(&self, name: &str, role: Role, overrides: &Overrides) -> Signer {
        let issued = self.issued_with(name, role, overrides);
        Signer::from_pem(issued.chain_pem, issued.key_pem).unwrap()
    }

    /// A leaf that is valid from an hour before [`NOW`] for a day after it, and its key.
    pub(crate) fn issued(&self, name: &str, role: Role) -> Issued {
        self.issued_with(name, role, &Overrides::default())
    }

    fn issued_with(&self, name: &str, role: Role, overrides: &Overrides) -> Issued {
        self.issued_until(name, role, NOW + 86_400, overrides)
    }

    fn issued_until(&self, name: &str, role: Role, not_after: u64, overrides: &Overrides) -> Issued {
        let request = Request {
            common_name: name.to_owned(),
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            role,
            not_before: at(NOW - 3_600),
            not_after: at(not_after),
            crl_url: None,
        };
        self.authority().issue_with(&request, overrides).unwrap()
    }

    /// A leaf as [`Self::issued`], for another public key than the development CA's kind.
    pub(crate) fn certified(&self, name: &str, role: Role, key: SubjectPublicKeyInfoOwned) -> Certificate {
        let leaf = self.issued(name, role).certificate;
        let mut parsed = x509_cert::Certificate::from_der(leaf.der()).unwrap();
        parsed.tbs_certificate.subject_public_key_info = key;
        let ca = pem::private_key(self.authority().key_pem().as_bytes(), "the CA's key").unwrap();
        let signature = ecdsa(&ca).sign(&SystemRandom::new(), &parsed.tbs_certificate.to_der().unwrap());
        parsed.signature = BitString::from_bytes(signature.unwrap().as_ref()).unwrap();
        Certificate::from_der(&parsed.to_der().unwrap()).unwrap()
    }

    /// A signer with a P-384 key.
    pub(crate) fn signer_of_p384(&self, name: &str, role: Role) -> Signer {
        let key =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_ASN1_SIGNING, &SystemRandom::new()).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_ASN1_SIGNING, key.as_ref()).unwrap();
        let algorithm = AlgorithmIdentifierOwned {
            oid: ID_EC_PUBLIC_KEY,
            parameters: Some(Any::encode_from(&SECP_384_R_1).unwrap()),
        };
        let leaf = self.certified(name, role, public_key(algorithm, pair.public_key().as_ref()));
        let chain = std::iter::once(leaf).chain(self.authority().chain());
        Signer::new(chain, &PrivateKeyDer::Pkcs8(key.as_ref().to_vec().into())).unwrap()
    }

    /// A CRL of this CA that revokes one certificate, by itself.
    pub(crate) fn revoking(&self, certificate: &Certificate) -> RevocationIndex {
        let revoked = [Revoked { serial_hex: certificate.serial_hex(), at: at(NOW - 60) }];
        let crl = self.authority().crl(&revoked, 1, at(NOW - 60), at(NOW + 3_600)).unwrap();
        let issuer = [self.authority().certificate().clone()];
        RevocationIndex::default().with_crl(crl.as_bytes(), &issuer, at(NOW)).unwrap()
    }
}

/// An RSA public key as certificates hold it; `der` is RSAPublicKey.
pub(crate) fn rsa_public_key(der: &[u8]) -> SubjectPublicKeyInfoOwned {
    let algorithm =
        AlgorithmIdentifierOwned { oid: RSA_ENCRYPTION, parameters: Some(Any::encode_from(&Null).unwrap()) };
    public_key(algorithm, der)
}

fn public_key(algorithm: AlgorithmIdentifierOwned, key: &[u8]) -> SubjectPublicKeyInfoOwned {
    SubjectPublicKeyInfoOwned { algorithm, subject_public_key: BitString::from_bytes(key).unwrap() }
}

/// The key pair of a P-256 key in PKCS#8.
pub(crate) fn ecdsa(key: &PrivateKeyDer<'_>) -> EcdsaKeyPair {
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key.secret_der()).unwrap()
}

/// An envelope or a timestamp token with something changed that no signature covers.
pub(crate) fn edited(cms: &[u8], change: impl FnOnce(&mut SignedData)) -> Vec<u8> {
    let outer = ContentInfo::from_der(cms).unwrap();
    let mut data = outer.content.decode_as::<SignedData>().unwrap();
    change(&mut data);
    ContentInfo { content: Any::encode_from(&data).unwrap(), ..outer }.to_der().unwrap()
}
