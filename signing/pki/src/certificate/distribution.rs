//! The names of distribution points: how a certificate and a CRL of a part of the certificates find each other.

use der::Encode;
use x509_cert::ext::pkix::crl::CrlDistributionPoints;
use x509_cert::ext::pkix::name::{DistributionPointName, GeneralName};
use x509_cert::name::Name;

/// Returns the DER of each name of one point; one that is relative to `issuer` is written out (RFC 5280 §4.2.1.13).
///
/// A name that cannot be written again is left out, and matches nothing then.
pub(crate) fn names(point: &DistributionPointName, issuer: &Name) -> Vec<Vec<u8>> {
    match point {
        DistributionPointName::FullName(names) => {
            names.iter().filter_map(|name| name.to_der().ok()).collect()
        }
        DistributionPointName::NameRelativeToCRLIssuer(last) => {
            let mut full = issuer.clone();
            full.0.push(last.clone());
            GeneralName::DirectoryName(full).to_der().ok().into_iter().collect()
        }
    }
}

/// Returns the names of all points whose CRL the certificate's issuer signs itself.
pub(super) fn own_names(points: &CrlDistributionPoints, issuer: &Name) -> Vec<Vec<u8>> {
    let own = points.0.iter().filter(|point| point.crl_issuer.is_none());
    own.filter_map(|point| point.distribution_point.as_ref()).flat_map(|point| names(point, issuer)).collect()
}
