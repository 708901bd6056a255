//! The rules that look at the leaf alone.

use super::name;
use super::{Facts, KeyEncipherment, Policy};
use crate::certificate::Certificate;
use crate::finding::{Finding, Rule, Severity};
use crate::instant;
use crate::role::{Family, Role};
use crate::roots::Roots;
use crate::usage::ExtendedKeyUsage;

/// Returns what is wrong with the leaf, whoever issued it.
pub(super) fn findings(
    policy: &Policy,
    role: Role,
    leaf: &Certificate,
    roots: &Roots,
    facts: &Facts<'_>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(extended_key_usage(role, leaf));
    findings.extend(timestamp_usage(role, leaf));
    match role.family() {
        Family::Tls => {
            findings.extend(tls_key_usage(policy, leaf));
            findings.extend(crl_distribution_point(policy, leaf));
        }
        Family::Signing => findings.extend(signing_key_usage(leaf)),
    }
    findings.extend(name::finding(role, leaf, facts.name));
    findings.extend(own_issuer(role, leaf, roots));
    findings.extend(validity(leaf, facts));
    findings.extend(algorithms(leaf));
    findings.extend(revoked(leaf, facts));
    findings
}

/// Returns what is wrong with the leaf, whatever it is for.
pub(super) fn path_findings(leaf: &Certificate, facts: &Facts<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if leaf.is_self_signed() {
        let fix = "look for it among the roots; a path begins below one";
        findings.push(Finding::refusal(Rule::C8, leaf, "self-signed", "a certificate that a CA issued", fix));
    }
    findings.extend(validity(leaf, facts));
    findings.extend(algorithms(leaf));
    findings.extend(revoked(leaf, facts));
    findings
}

/// C3, S7, G5: the role's purpose is listed; a leaf without the extension is refused.
fn extended_key_usage(role: Role, leaf: &Certificate) -> Option<Finding> {
    let wanted = role.extended_key_usage();
    let got = match leaf.extended_key_usages() {
        Some(usages) if usages.contains(&wanted) => return None,
        Some(usages) => format!("Extended Key Usage {}", list(usages)),
        None => "no Extended Key Usage".to_owned(),
    };
    let fix = format!("reissue it from a certificate template for {role}s, with Extended Key Usage {wanted}");
    Some(Finding::refusal(role.rule(Rule::C3), leaf, got, format!("Extended Key Usage {wanted}"), fix))
}

/// RFC 3161 §2.3: a timestamp signer's Extended Key Usage is critical and the only one.
fn timestamp_usage(role: Role, leaf: &Certificate) -> Option<Finding> {
    let usages = leaf.extended_key_usages().filter(|_| role == Role::Timestamp)?;
    if !usages.contains(&ExtendedKeyUsage::TimeStamping) {
        return None; // Told by the rule above.
    }
    if leaf.extended_key_usage_is_critical() && usages.len() == 1 {
        return None;
    }
    let criticality = if leaf.extended_key_usage_is_critical() { "critical" } else { "not critical" };
    let got = format!("Extended Key Usage {}, {criticality}", list(usages));
    let fix = "reissue the timestamp certificate with `extendedKeyUsage = critical,timeStamping`";
    Some(Finding::refusal(Rule::G5, leaf, got, "timeStamping alone, critical (RFC 3161 §2.3)", fix))
}

/// C4: digitalSignature, and keyEncipherment for RSA keys.
fn tls_key_usage(policy: &Policy, leaf: &Certificate) -> Vec<Finding> {
    const FIX: &str = "reissue it with Key Usage digitalSignature, keyEncipherment";
    let Some(usage) = leaf.key_usage() else {
        let wanted = "Key Usage digitalSignature, for RSA also keyEncipherment";
        let finding = Finding::refusal(Rule::C4, leaf, "no Key Usage", wanted, FIX);
        return vec![finding.with_severity(policy.key_usage)];
    };
    let mut findings = Vec::new();
    if !usage.digital_signature() {
        let got = "Key Usage without digitalSignature";
        findings.push(Finding::refusal(Rule::C4, leaf, got, "Key Usage digitalSignature", FIX));
    }
    if !usage.key_encipherment() {
        let is_required = match policy.key_encipherment {
            KeyEncipherment::Required => true,
            KeyEncipherment::RsaOnly => leaf.key().is_rsa(),
        };
        let severity = if is_required { policy.key_usage } else { Severity::Info };
        let got = format!("Key Usage without keyEncipherment, on a key of {}", leaf.key_algorithm());
        let finding = Finding::refusal(Rule::C4, leaf, got, "keyEncipherment (needed for RSA keys)", FIX);
        findings.push(finding.with_severity(severity));
    }
    findings
}

/// G5: a signer's Key Usage, where there is one, allows signing.
fn signing_key_usage(leaf: &Certificate) -> Option<Finding> {
    let usage = leaf.key_usage()?;
    if usage.digital_signature() || usage.non_repudiation() {
        return None;
    }
    let got = "Key Usage without digitalSignature";
    let fix = "reissue it with Key Usage digitalSignature";
    Some(Finding::refusal(Rule::G5, leaf, got, "Key Usage digitalSignature or nonRepudiation", fix))
}

/// C6: revocation can be looked up.
fn crl_distribution_point(policy: &Policy, leaf: &Certificate) -> Option<Finding> {
    let points = leaf.crl_distribution_points();
    let is_http = |uri: &&String| {
        let lower = uri.to_ascii_lowercase();
        lower.starts_with("http://") || lower.starts_with("https://")
    };
    if points.iter().any(|uri| is_http(&uri)) {
        return None;
    }
    let got = match points.first() {
        Some(uri) => format!("a CRL distribution point without http: {uri:?}"),
        None => "no CRL distribution point".to_owned(),
    };
    let wanted = "a CRL distribution point with an http or https URI";
    let fix = "add the CDP to the CA, then reissue the certificate";
    Some(Finding::refusal(Rule::C6, leaf, got, wanted, fix).with_severity(policy.crl_distribution_point))
}

/// C8: no self-signed leaf, no CA, no root.
fn own_issuer(role: Role, leaf: &Certificate, roots: &Roots) -> Vec<Finding> {
    let rule = role.rule(Rule::C8);
    let mut findings = Vec::new();
    if leaf.is_self_signed() {
        let fix = format!("have it issued by a CA of the {role} roots; trusting it as it is does not help");
        findings.push(Finding::refusal(rule, leaf, "self-signed", "a certificate that a CA issued", fix));
    }
    if leaf.is_ca() {
        let fix = "issue a certificate with CA:FALSE from this CA, and use that";
        findings.push(Finding::refusal(
            rule,
            leaf,
            "a CA certificate (CA:TRUE)",
            "an end-entity certificate",
            fix,
        ));
    }
    if roots.contains(leaf) && !leaf.is_self_signed() && !leaf.is_ca() {
        let fix = format!("remove it from the {role} roots and put its issuer there");
        findings.push(Finding::refusal(
            rule,
            leaf,
            "one of the trusted roots",
            "a certificate below a root",
            fix,
        ));
    }
    findings
}

/// C9: valid now, or when a timestamp says that the signature was made.
pub(super) fn validity(certificate: &Certificate, facts: &Facts<'_>) -> Option<Finding> {
    let moment = facts.moment();
    if certificate.is_valid_at(moment) {
        return None;
    }
    let (from, until) = (instant::text(certificate.not_before()), instant::text(certificate.not_after()));
    let (got, fix) = if moment > certificate.not_after() {
        (format!("expired at {until}"), "renew the certificate")
    } else {
        (format!("not valid before {from}"), "check the clock of this machine, or wait")
    };
    let wanted = format!("{from} <= {} <= {until}", instant::text(moment));
    Some(Finding::refusal(Rule::C9, certificate, got, wanted, fix))
}

/// C16: key and signature of the leaf.
fn algorithms(leaf: &Certificate) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(weak_key(leaf));
    if leaf.has_weak_signature() && !leaf.is_self_signed() {
        findings.push(weak_signature(leaf));
    }
    findings
}

/// C16: the key of one certificate.
pub(super) fn weak_key(certificate: &Certificate) -> Option<Finding> {
    if !certificate.key().is_weak() {
        return None;
    }
    let got = format!("a key of {}", certificate.key_algorithm());
    let fix = "make a new key (ECDSA P-256, or RSA of 2048 bits or more) and reissue";
    let wanted = "RSA of 2048 to 8192 bits, ECDSA on P-256, P-384 or P-521, or Ed25519";
    Some(Finding::refusal(Rule::C16, certificate, got, wanted, fix))
}

/// C16: the signature on one certificate.
pub(super) fn weak_signature(certificate: &Certificate) -> Finding {
    let got = format!("signed with {}", certificate.signature_algorithm());
    let fix = "let the CA sign with SHA-256 or better, then reissue";
    Finding::refusal(Rule::C16, certificate, got, "a signature with SHA-256, SHA-384 or SHA-512", fix)
}

/// R2: the leaf is revoked.
fn revoked(leaf: &Certificate, facts: &Facts<'_>) -> Option<Finding> {
    if !facts.is_revoked(leaf) {
        return None;
    }
    let fix = "issue a new certificate with a new key";
    Some(Finding::refusal(Rule::R2, leaf, "revoked by its issuer", "a certificate that is not revoked", fix))
}

/// Returns purposes as `clientAuth, serverAuth`.
pub(super) fn list(usages: &[ExtendedKeyUsage]) -> String {
    let names: Vec<String> = usages.iter().map(ExtendedKeyUsage::to_string).collect();
    if names.is_empty() { "(empty)".to_owned() } else { names.join(", ") }
}
