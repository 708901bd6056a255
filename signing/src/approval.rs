//! Approvals: signatures of other people beside that of the operator who issues an order (signing.md, "Order").

use muster_pki::Certificate;

/// Returns how many different people signed: who has two certificates is one.
#[must_use]
pub fn people(signers: &[Certificate]) -> usize {
    let mut counted: Vec<&Certificate> = Vec::new();
    for signer in signers {
        if !counted.iter().any(|other| is_same_person(other, signer)) {
            counted.push(signer);
        }
    }
    counted.len()
}

/// Returns whether two certificates are one person's: they have the same name, or the same key.
#[must_use]
pub fn is_same_person(a: &Certificate, b: &Certificate) -> bool {
    a.spki_der() == b.spki_der() || name(a).eq_ignore_ascii_case(name(b))
}

/// Returns a person's name as operators have it: the first SAN dNSName, else the CN, else the whole subject.
#[must_use]
pub fn name(certificate: &Certificate) -> &str {
    let first = certificate.dns_names().first().map(String::as_str);
    first.or_else(|| certificate.common_name()).unwrap_or_else(|| certificate.subject())
}

#[cfg(test)]
mod tests {
    use muster_pki::Role;

    use super::*;
    use crate::fixture::Pki;

    #[test]
    fn who_has_two_certificates_is_one() {
        let (ours, theirs) = (Pki::flat("ours"), Pki::flat("theirs"));
        let of = |pki: &Pki, name| pki.signer(name, Role::OrderSigner).certificate().unwrap().clone();
        let (alice, bob) = (of(&ours, "alice"), of(&ours, "bob"));

        for (signers, wanted) in [
            (vec![], 0),
            (vec![alice.clone()], 1),
            (vec![alice.clone(), of(&ours, "alice")], 1),
            (vec![alice.clone(), of(&theirs, "ALICE")], 1),
            (vec![alice.clone(), bob.clone()], 2),
            (vec![alice, bob, of(&theirs, "bob"), of(&ours, "carol")], 3),
        ] {
            assert_eq!(people(&signers), wanted, "{signers:?}");
        }
    }
}
