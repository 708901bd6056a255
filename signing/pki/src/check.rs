//! [`check`]: all rules over one chain.

mod climb;
mod leaf;
pub(crate) mod name;
mod path;
mod pinned;
mod policies;
mod purpose;
mod trace;

use rustls_pki_types::{CertificateDer, UnixTime};
use serde::{Deserialize, Serialize};

pub use self::pinned::check_server_pinned;

use self::purpose::Purpose;
use crate::certificate::Certificate;
use crate::finding::{Finding, Rule, Severity};
use crate::revocation::RevocationIndex;
use crate::role::Role;
use crate::roots::Roots;
use crate::verdict::{Refused, Verdict};

/// Most certificates that a peer may send; a real chain has two to four.
pub const CHAIN_CERTIFICATES_MAX: usize = 10;

/// What is known besides the chain itself.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The time to judge validity by, and whether CRLs are fresh.
    pub now: UnixTime,
    /// When a timestamp proves a signature to have been made: its certificates must have been valid then, and not have been
    /// revoked before. `None`: they must be valid `now`, and not be revoked at all.
    pub signed_at: Option<UnixTime>,
    /// The name that the peer must have (C7), for a server also an IP address; `None`: not compared.
    pub name: Option<&'a str>,
    /// Intermediates known locally, besides those in the chain.
    pub intermediates: &'a [CertificateDer<'static>],
    /// Who is revoked; `None`: not looked up.
    pub revocation: Option<&'a RevocationIndex>,
}

impl Facts<'static> {
    /// Facts with the time alone: no timestamp, no name, no intermediates, no revocation.
    #[must_use]
    pub const fn at(now: UnixTime) -> Self {
        Self { now, signed_at: None, name: None, intermediates: &[], revocation: None }
    }
}

impl Facts<'_> {
    /// Returns the moment at which certificates must be valid.
    pub(crate) fn moment(&self) -> UnixTime {
        self.signed_at.unwrap_or(self.now)
    }

    /// Returns whether a certificate was revoked when that counts.
    pub(crate) fn is_revoked(&self, certificate: &Certificate) -> bool {
        self.revocation.is_some_and(|revocation| {
            revocation.contains_at(certificate.issuer_der(), certificate.serial(), self.signed_at)
        })
    }
}

/// How strict the rules are that an organisation may loosen.
///
/// In configuration each key may be left out, and has its default then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// What a missing Key Usage means, or one without the keyEncipherment that the key needs (C4). One that is there
    /// without digitalSignature is always refused. Default: `refusal`.
    pub key_usage: Severity,
    /// Which keys need keyEncipherment (C4). Default: `rsa_only`.
    pub key_encipherment: KeyEncipherment,
    /// What a missing http(s) CRL distribution point means, for clients and servers alike (C6). Default: `refusal`.
    pub crl_distribution_point: Severity,
}

/// Which keys need the Key Usage keyEncipherment (C4). Where it is missing and not needed, that is told as a note.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyEncipherment {
    /// Every TLS certificate, whatever its key.
    Required,
    /// RSA keys; for ECDSA and Ed25519 it has no meaning.
    RsaOnly,
}

impl Default for Policy {
    /// What the spec asks for: refusals for C4 and C6, keyEncipherment for RSA keys only.
    fn default() -> Self {
        Self {
            key_usage: Severity::Refusal,
            key_encipherment: KeyEncipherment::RsaOnly,
            crl_distribution_point: Severity::Refusal,
        }
    }
}

impl Policy {
    /// Warns of what a PKI that was made for other purposes often lacks: Key Usage, and a place to look up revocation.
    pub const LENIENT: Self = Self {
        key_usage: Severity::Warning,
        key_encipherment: KeyEncipherment::RsaOnly,
        crl_distribution_point: Severity::Warning,
    };
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
    let (leaf, rest) = match split(Purpose::Of(role), chain) {
        Ok(split) => split,
        Err(finding) => return Verdict::new(None, Vec::new(), vec![*finding]),
    };
    let findings = leaf::findings(policy, role, &leaf, roots, facts);
    search(Purpose::Of(role), leaf, rest, roots, facts, findings)
}

/// Verifies the way from the first certificate of `chain` to a root, whatever it is for: RFC 5280 §6 under C2, C8, C9, C16,
/// R2, R6 and R8.
///
/// It admits nobody, since it asks for neither purpose, name, Key Usage of the leaf nor distribution points; a peer and a
/// signer go through [`check`]. It is the part that all roles share. The first certificate may be a CA's: who takes CAs from
/// a file, such as the signers of CRLs, finds out here whether a root vouches for them. With [`Facts::revocation`] it is
/// strict: every issuer needs a fresh CRL.
///
/// Returns the path, leaf first and root last.
///
/// # Errors
/// There is no path that holds; all findings are in the error.
pub fn verify_path(
    chain: &[CertificateDer<'_>],
    roots: &Roots,
    facts: &Facts<'_>,
) -> Result<Vec<Certificate>, Refused> {
    let (leaf, rest) = split(Purpose::PathOnly, chain).map_err(|finding| Refused::of(*finding))?;
    let mut findings = leaf::path_findings(&leaf, facts);
    if facts.revocation.is_some_and(RevocationIndex::is_empty) {
        let (got, fix) = ("no CRL of any issuer", "load the CRLs first");
        findings.push(Finding::refusal(Rule::R6, &leaf, got, "a fresh CRL of every issuer", fix));
    }
    search(Purpose::PathOnly, leaf, rest, roots, facts, findings).into_path()
}

/// Parses the leaf, and bounds what comes behind it.
fn split<'c, 'd>(
    purpose: Purpose,
    chain: &'c [CertificateDer<'d>],
) -> Result<(Certificate, &'c [CertificateDer<'d>]), Box<Finding>> {
    let Some((first, rest)) = chain.split_first() else {
        let fix = "configure the peer's certificate and key";
        return Err(refusal(Rule::C1, "no certificate", "a certificate", fix));
    };
    let rule = purpose.rule(Rule::C2);
    if chain.len() > CHAIN_CERTIFICATES_MAX {
        let got = format!("{} certificates", chain.len());
        let wanted = "a chain of at most 10 certificates";
        let fix = "send the leaf and its intermediates only";
        return Err(refusal(rule, got, wanted, fix));
    }
    match Certificate::from_der(first) {
        Ok(leaf) => Ok((leaf, rest)),
        Err(error) => {
            let got = format!("unreadable: {error}");
            let wanted = "an X.509 certificate in DER";
            Err(refusal(rule, got, wanted, "reissue the certificate"))
        }
    }
}

fn refusal(rule: Rule, got: impl Into<String>, wanted: &str, fix: &str) -> Box<Finding> {
    Box::new(Finding::without_certificate(rule, got, wanted, fix))
}

/// Looks for a path that holds, and puts the verdict together.
fn search(
    purpose: Purpose,
    leaf: Certificate,
    rest: &[CertificateDer<'_>],
    roots: &Roots,
    facts: &Facts<'_>,
    mut findings: Vec<Finding>,
) -> Verdict {
    let mut intermediates = Vec::new();
    for (index, der) in rest.iter().chain(facts.intermediates).enumerate() {
        match Certificate::from_der(der) {
            Ok(certificate) => intermediates.push(certificate),
            Err(error) => findings.push(unreadable_intermediate(purpose, &leaf, index, &error.to_string())),
        }
    }
    let search = path::Search { role: purpose, leaf: &leaf, intermediates: &intermediates, roots, facts };
    let path = match purpose {
        // For a role, a CA is no leaf: refused by C8.
        Purpose::PathOnly if leaf.is_ca() => climb::run(&search, &mut findings),
        Purpose::PathOnly | Purpose::Of(_) => search.run(&mut findings),
    };
    Verdict::new(Some(leaf), path, findings)
}

fn unreadable_intermediate(purpose: Purpose, leaf: &Certificate, index: usize, problem: &str) -> Finding {
    let got = format!("intermediate {} is unreadable: {problem}", index + 1);
    Finding::refusal(
        purpose.rule(Rule::C2),
        leaf,
        got,
        "intermediates in DER",
        "remove the block from the chain file",
    )
    .with_severity(Severity::Info)
}
