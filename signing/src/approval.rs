//! Approvals: signatures of other people beside that of the operator who issues an order (signing.md, "Order").

use std::collections::BTreeSet;

use muster_pki::Certificate;
use muster_pki::text::is_misleading;

/// Returns how many different people signed: who has two certificates is one, and so is who has a third that is like either.
#[must_use]
pub fn people(signers: &[Certificate]) -> usize {
    let mut groups: Vec<Vec<&Certificate>> = Vec::new();
    for signer in signers {
        let is_of = |group: &Vec<&Certificate>| group.iter().any(|other| is_same_person(other, signer));
        let (same, others): (Vec<_>, Vec<_>) = groups.into_iter().partition(is_of);
        groups = others;
        groups.push(same.into_iter().flatten().chain([signer]).collect());
    }
    groups.len()
}

/// Returns whether two certificates are one person's: they have the same key, or a name in common.
#[must_use]
pub fn is_same_person(a: &Certificate, b: &Certificate) -> bool {
    a.spki_der() == b.spki_der() || !names(a).is_disjoint(&names(b))
}

/// Returns whether a certificate gives a person this name.
#[must_use]
pub fn is_named(certificate: &Certificate, name: &str) -> bool {
    names(certificate).contains(&plain(name))
}

/// Returns every name that a certificate gives a person, [plain]: the CN, all SAN dNSNames, rfc822Names and user principal names, else the
/// whole subject.
fn names(certificate: &Certificate) -> BTreeSet<String> {
    let others = certificate.dns_names().iter().chain(certificate.personal_names()).map(String::as_str);
    let names: BTreeSet<String> = others.chain(certificate.common_name()).map(plain).collect();
    if names.is_empty() { [plain(certificate.subject())].into() } else { names }
}

/// Returns a name as it is compared: in lower case, with one blank between its words, and without what nobody sees.
///
/// Letters that only look alike, such as a Latin and a Cyrillic `a`, or that Unicode lets one write in two ways (NFKC), are different: CAs of the
/// orders' roots name people, and are to name each in one way.
fn plain(name: &str) -> String {
    let seen: String = name.chars().filter(|c| c.is_whitespace() || !is_misleading(*c)).collect();
    seen.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use der::Decode as _;
    use muster_pki::Role;
    use muster_pki::authority::Request;
    use x509_cert::spki::SubjectPublicKeyInfoOwned;

    use super::*;
    use crate::fixture::{NOW, Pki, at};

    fn named(pki: &Pki, name: &str, dns_names: &[&str]) -> Certificate {
        let issued = pki.authority().issue(&Request {
            common_name: name.to_owned(),
            dns_names: dns_names.iter().map(|&name| name.to_owned()).collect(),
            ip_addresses: Vec::new(),
            role: Role::OrderSigner,
            not_before: at(NOW),
            not_after: at(NOW + 1),
            crl_url: None,
        });
        issued.unwrap().certificate
    }

    #[test]
    fn every_name_of_a_certificate_counts_and_not_the_first_alone() {
        let pki = Pki::flat("a");
        let of = |name, dns_names| named(&pki, name, dns_names);

        for (signers, wanted) in [
            (vec![of("alice", &[]), of("alice", &["laptop.alice"])], 1),
            (vec![of("x", &["a.b", "c.d"]), of("y", &["c.d", "e.f"])], 1),
            (vec![of("\u{c9}va", &[]), of("\u{e9}va", &[])], 1),
            (vec![of("x", &["a.b"]), of("y", &["c.d"]), of("z", &["c.d", "a.b"])], 1),
            (vec![of("Ann  Lee", &[]), of(" ann\u{a0}lee ", &[])], 1),
            (vec![of("ann", &[]), of("a\u{200b}nn\u{2060}", &[])], 1),
            (vec![of("x", &["a.b"]), of("y", &["c.d"])], 2),
        ] {
            assert_eq!(people(&signers), wanted, "{signers:?}");
        }
    }

    #[test]
    fn a_person_is_named_by_every_name_of_the_certificate_however_it_is_written() {
        let certificate = named(&Pki::flat("a"), "Alice", &["laptop.alice"]);

        for (name, is_hers) in
            [("alice", true), ("ALICE", true), ("Laptop.Alice", true), ("bob", false), ("", false)]
        {
            assert_eq!(is_named(&certificate, name), is_hers, "{name}");
        }
    }

    #[test]
    fn who_has_one_key_under_two_names_is_one() {
        let pki = Pki::flat("a");
        let alice = named(&pki, "alice", &[]);
        let key = SubjectPublicKeyInfoOwned::from_der(alice.spki_der()).unwrap();
        let again = pki.certified("alicia", Role::OrderSigner, key);

        assert!(is_same_person(&alice, &again));
        assert_eq!(people(&[alice, again]), 1);
    }

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
