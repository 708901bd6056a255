//! [`check`]: all rules over one chain.

mod leaf;
mod name;
mod path;
mod trace;

use rustls_pki_types::{CertificateDer, UnixTime};

use crate::certificate::Certificate;
use crate::finding::{Finding, Rule, Severity};
use crate::revocation::RevocationIndex;
use crate::role::Role;
use crate::roots::Roots;
use crate::verdict::Verdict;

/// Most certificates that a peer may send; a real chain has two to four.
pub const CHAIN_CERTIFICATES_MAX: usize = 10;

/// What is known besides the chain itself.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The time to judge validity by.
    pub now: UnixTime,
    /// The name that the peer must have (C7), for a server also an IP address; `None`: not compared.
    pub name: Option<&'a str>,
    /// Intermediates known locally, besides those in the chain.
    pub intermediates: &'a [CertificateDer<'static>],
    /// Who is revoked; `None`: not looked up.
    pub revocation: Option<&'a RevocationIndex>,
}

impl Facts<'static> {
    /// Facts with the time alone: no name, no intermediates, no revocation.
    #[must_use]
    pub const fn at(now: UnixTime) -> Self {
        Self { now, name: None, intermediates: &[], revocation: None }
    }
}

/// How strict the rules are that an organisation may loosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// What a missing Key Usage means (C4). One that is there but without digitalSignature is always refused.
    pub key_usage: Severity,
    /// Which keys need keyEncipherment (C4).
    pub key_encipherment: KeyEncipherment,
    /// What a missing http(s) CRL distribution point means (C6).
    pub crl_distribution_point: Severity,
}

/// Which keys need the Key Usage keyEncipherment (C4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyEncipherment {
    /// Every TLS certificate, whatever its key.
    Required,
    /// RSA keys; for ECDSA it has no meaning.
    RsaOnly,
}

impl Default for Policy {
    /// Warnings for C4 and C6, keyEncipherment for RSA keys only.
    fn default() -> Self {
        Self {
            key_usage: Severity::Warning,
            key_encipherment: KeyEncipherment::RsaOnly,
            crl_distribution_point: Severity::Warning,
        }
    }
}

/// Judges whether the first certificate of `chain` may play `role`, with the default [`Policy`].
pub fn check(role: Role, chain: &[CertificateDer<'_>], roots: &Roots, facts: &Facts<'_>) -> Verdict {
    check_with(&Policy::default(), role, chain, roots, facts)
}

/// Judges whether the first certificate of `chain` may play `role`.
///
/// The other certificates of the chain may come in any order. The verdict has every finding, not the first only (C14).
pub fn check_with(
    policy: &Policy,
    role: Role,
    chain: &[CertificateDer<'_>],
    roots: &Roots,
    facts: &Facts<'_>,
) -> Verdict {
    let Some((first, rest)) = chain.split_first() else {
        return refuse(
            Rule::C1,
            "no certificate",
            "a certificate",
            "configure the peer's certificate and key",
        );
    };
    if chain.len() > CHAIN_CERTIFICATES_MAX {
        let got = format!("{} certificates", chain.len());
        let wanted = "a chain of at most 10 certificates";
        return refuse(role.rule(Rule::C2), got, wanted, "send the leaf and its intermediates only");
    }
    let leaf = match Certificate::from_der(first) {
        Ok(leaf) => leaf,
        Err(error) => {
            let wanted = "an X.509 certificate in DER";
            return refuse(
                role.rule(Rule::C2),
                format!("unreadable: {error}"),
                wanted,
                "reissue the certificate",
            );
        }
    };

    let mut findings = leaf::findings(policy, role, &leaf, roots, facts);
    let mut intermediates = Vec::new();
    for (index, der) in rest.iter().chain(facts.intermediates).enumerate() {
        match Certificate::from_der(der) {
            Ok(certificate) => intermediates.push(certificate),
            Err(error) => findings.push(unreadable_intermediate(role, &leaf, index, &error.to_string())),
        }
    }
    let search = path::Search { role, leaf: &leaf, intermediates: &intermediates, roots, facts };
    let path = search.run(&mut findings);
    Verdict::new(Some(leaf), path, findings)
}

fn refuse(rule: Rule, got: impl Into<String>, wanted: &str, fix: &str) -> Verdict {
    Verdict::new(None, Vec::new(), vec![Finding::without_certificate(rule, got, wanted, fix)])
}

fn unreadable_intermediate(role: Role, leaf: &Certificate, index: usize, problem: &str) -> Finding {
    let got = format!("intermediate {} is unreadable: {problem}", index + 1);
    Finding::refusal(
        role.rule(Rule::C2),
        leaf,
        got,
        "intermediates in DER",
        "remove the block from the chain file",
    )
    .with_severity(Severity::Info)
}
