//! [`ExtendedKeyUsage`]: what a certificate says it is for.

use std::fmt;

use der::asn1::ObjectIdentifier;

/// One purpose of the Extended Key Usage extension (RFC 5280 §4.2.1.12).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ExtendedKeyUsage {
    /// `anyExtendedKeyUsage`; it satisfies no role, as with `openssl verify -purpose`.
    Any,
    /// TLS server.
    ServerAuth,
    /// TLS client.
    ClientAuth,
    /// Code signing.
    CodeSigning,
    /// Mail.
    EmailProtection,
    /// RFC 3161 timestamps.
    TimeStamping,
    /// OCSP responder.
    OcspSigning,
    /// Any other purpose, as a dotted OID.
    Other(String),
}

/// The purposes that have a name here, and their OIDs.
const KNOWN: [(ExtendedKeyUsage, &str, ObjectIdentifier); 7] = [
    (ExtendedKeyUsage::Any, "anyExtendedKeyUsage", ObjectIdentifier::new_unwrap("2.5.29.37.0")),
    (ExtendedKeyUsage::ServerAuth, "serverAuth", ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1")),
    (ExtendedKeyUsage::ClientAuth, "clientAuth", ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2")),
    (ExtendedKeyUsage::CodeSigning, "codeSigning", ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.3")),
    (ExtendedKeyUsage::EmailProtection, "emailProtection", ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.4")),
    (ExtendedKeyUsage::TimeStamping, "timeStamping", ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.8")),
    (ExtendedKeyUsage::OcspSigning, "OCSPSigning", ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.9")),
];

impl ExtendedKeyUsage {
    /// Returns the purpose that an OID means.
    pub(crate) fn from_oid(oid: &ObjectIdentifier) -> Self {
        KNOWN
            .iter()
            .find(|(_, _, known)| known == oid)
            .map_or_else(|| Self::Other(oid.to_string()), |(usage, _, _)| usage.clone())
    }

    /// Returns the OID; `None` for an [`ExtendedKeyUsage::Other`] that is no OID.
    pub(crate) fn oid(&self) -> Option<ObjectIdentifier> {
        if let Self::Other(text) = self {
            return ObjectIdentifier::new(text).ok();
        }
        KNOWN.iter().find(|(usage, _, _)| usage == self).map(|(_, _, oid)| *oid)
    }
}

impl fmt::Display for ExtendedKeyUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Other(oid) = self {
            return f.write_str(oid);
        }
        let name = KNOWN.iter().find(|(usage, _, _)| usage == self).map_or("", |(_, name, _)| name);
        f.write_str(name)
    }
}
