//! The way from a signer to a root, over nothing but the certificates that came with the signature.

use muster_pki::{Certificate, Facts, Refused, Role, Roots};

/// Judges `signer` as `role`; returns the path from it up to, and without, the root, and the verdict. `facts.name` and
/// `facts.intermediates` are not used.
pub(crate) fn judged(
    signer: &Certificate,
    inside: &[Certificate],
    role: Role,
    roots: &Roots,
    facts: &Facts<'_>,
) -> (Vec<Certificate>, Result<(), Refused>) {
    let others = inside.iter().filter(|certificate| *certificate != signer);
    let chain: Vec<_> = std::iter::once(signer)
        .chain(others)
        .map(|certificate| certificate.certificate_der().clone())
        .collect();
    let facts = Facts { name: None, intermediates: &[], ..*facts };
    let verdict = muster_pki::check(role, &chain, roots, &facts);
    let mut path = verdict.path().to_vec();
    path.pop();
    (path, verdict.into_result().map(drop))
}
