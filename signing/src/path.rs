//! The way from a signer to a root, over nothing but the certificates that came with the signature.

use muster_pki::{Certificate, Facts, Finding, Refused, Role, Roots, Rule, Severity};

/// The certificates that lead from a signer to a root.
#[derive(Debug)]
pub(crate) struct Path {
    /// The signer's own first, without the root.
    pub(crate) below: Vec<Certificate>,
    /// `None`: there is no path.
    pub(crate) root: Option<Certificate>,
}

/// Judges `signer` as `role`; returns the path and the verdict. `facts.name` and `facts.intermediates` are not used.
pub(crate) fn judged(
    signer: &Certificate,
    inside: &[Certificate],
    role: Role,
    roots: &Roots,
    facts: &Facts<'_>,
) -> (Path, Result<(), Refused>) {
    let others = inside.iter().filter(|certificate| *certificate != signer);
    let chain: Vec<_> = std::iter::once(signer)
        .chain(others)
        .map(|certificate| certificate.certificate_der().clone())
        .collect();
    let facts = Facts { name: None, intermediates: &[], ..*facts };
    let verdict = muster_pki::check(role, &chain, roots, &facts);
    let mut below = verdict.path().to_vec();
    let root = below.pop();
    (Path { below, root }, verdict.into_result().map(drop))
}

/// Returns what says that a certificate is revoked, if that is among the reasons.
pub(crate) fn revoked(refused: &Refused) -> Option<&Finding> {
    let is_revoked = |finding: &&Finding| {
        finding.severity == Severity::Refusal && [Rule::R2, Rule::R8].contains(&finding.rule)
    };
    refused.findings().iter().find(is_revoked)
}
