//! What stands in a leaf of each role.

use der::Encode;
use rcgen::{
    BasicConstraints, CertificateParams, CrlDistributionPoint, CustomExtension, DistinguishedName, DnType,
    IsCa, KeyUsagePurpose, SanType,
};
use x509_cert::ext::pkix::ExtendedKeyUsage as EncodedUsages;

use super::{AuthorityError, LeafKeyUsage, LeafKind, LeafSigner, Overrides, Request, date, serial_number};
use crate::role::Role;
use crate::usage::ExtendedKeyUsage;

/// id-ce-extKeyUsage (RFC 5280 §4.2.1.12).
const EXTENDED_KEY_USAGE: [u64; 4] = [2, 5, 29, 37];

/// Returns what a leaf for `request` says, but for `overrides`.
pub(super) fn params(request: &Request, overrides: &Overrides) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, request.common_name.as_str());
    for name in &request.dns_names {
        params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into()?));
    }
    params.subject_alt_names.extend(request.ip_addresses.iter().copied().map(SanType::IpAddress));
    params.not_before = date(request.not_before)?;
    params.not_after = date(request.not_after)?;
    params.serial_number = Some(serial_number()?);
    params.is_ca = match overrides.kind {
        LeafKind::Leaf => IsCa::ExplicitNoCa,
        LeafKind::Authority => IsCa::Ca(BasicConstraints::Unconstrained),
    };
    // No keyEncipherment: the keys are ECDSA, for which it has no meaning (C4).
    params.key_usages = match overrides.key_usage {
        LeafKeyUsage::OfRole => vec![KeyUsagePurpose::DigitalSignature],
        LeafKeyUsage::Wrong => vec![KeyUsagePurpose::KeyAgreement],
        LeafKeyUsage::Missing => Vec::new(),
    };
    params.use_authority_key_identifier_extension = overrides.signer == LeafSigner::Authority;
    if let Some(url) = &request.crl_url {
        params.crl_distribution_points = vec![CrlDistributionPoint { uris: vec![url.clone()] }];
    }
    let own = vec![request.role.extended_key_usage()];
    let usages = overrides.extended_key_usages.as_ref().unwrap_or(&own);
    if !usages.is_empty() {
        params.custom_extensions.push(extended_key_usage(request.role, usages)?);
    }
    Ok(params)
}

/// Writes the extension ourselves: a timestamp signer's must be critical (RFC 3161 §2.3), which rcgen cannot say.
fn extended_key_usage(role: Role, usages: &[ExtendedKeyUsage]) -> Result<CustomExtension, AuthorityError> {
    let oids = usages
        .iter()
        .map(|usage| usage.oid().ok_or_else(|| AuthorityError::ExtendedKeyUsage(usage.to_string())))
        .collect::<Result<Vec<_>, _>>()?;
    let content =
        EncodedUsages(oids).to_der().map_err(|error| AuthorityError::Generation(error.to_string()))?;
    let mut extension = CustomExtension::from_oid_content(&EXTENDED_KEY_USAGE, content);
    extension.set_criticality(role == Role::Timestamp);
    Ok(extension)
}
