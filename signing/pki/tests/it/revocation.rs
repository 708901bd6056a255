//! The revocation index: what it takes, what it refuses, and what a check makes of it.

use std::time::Duration;

use muster_pki::authority::{Authority, Revoked};
use muster_pki::{Certificate, Coverage, CrlError, Facts, RevocationIndex, Role, Rule};

use crate::support::{DAY, NOW, Pki, at, now, refusals, warnings};

#[test]
fn r2_refuses_a_revoked_leaf_and_no_other() {
    let pki = Pki::new();
    let (good, bad) = (pki.issue(Role::Device), pki.issue(Role::Device));
    let index = index(&pki, &[(&pki.issuing, &[&bad.certificate]), (&pki.root, &[])]);
    let facts = Facts { revocation: Some(&index), ..Facts::at(now()) };

    let accepted = pki.check_at(Role::Device, &good, &facts);
    let refused = pki.check_at(Role::Device, &bad, &facts);

    assert!(accepted.is_accepted(), "{accepted}");
    assert_eq!(warnings(&accepted), []);
    assert_eq!(refusals(&refused), [Rule::R2]);
    assert_eq!(index.len(), 1);
    assert!(index.is_revoked(&bad.certificate));
}

#[test]
fn r8_a_revoked_intermediate_drops_all_below_it() {
    let pki = Pki::new();
    let index = index(&pki, &[(&pki.root, &[pki.issuing.certificate()])]);

    for role in Role::ALL {
        let facts = Facts { revocation: Some(&index), ..Facts::at(now()) };
        let verdict = pki.check_at(role, &pki.issue(role), &facts);

        assert_eq!(refusals(&verdict), [Rule::R8], "{role}");
    }
}

#[test]
fn r6_warns_of_a_stale_and_of_a_missing_crl() {
    let pki = Pki::new();
    let issued = pki.issue(Role::Device);
    let index = index(&pki, &[(&pki.issuing, &[])]);
    let facts = Facts { revocation: Some(&index), ..Facts::at(at(NOW + 8 * DAY)) };

    let verdict = pki.check_at(Role::Device, &issued, &facts);

    assert!(verdict.is_accepted());
    assert_eq!(warnings(&verdict), [Rule::R6]);
    let issuing = pki.issuing.certificate();
    assert_eq!(
        index.coverage(&issued.certificate, issuing, at(NOW + 8 * DAY)),
        Coverage::Stale { next_update: at(NOW + 7 * DAY) }
    );
    assert_eq!(index.coverage(issuing, pki.root.certificate(), now()), Coverage::Missing);
}

#[test]
fn says_nothing_of_revocation_where_no_crl_is_configured() {
    let pki = Pki::new();
    let facts = Facts { revocation: Some(&RevocationIndex::default()), ..Facts::at(now()) };

    let verdict = pki.check_at(Role::Device, &pki.issue(Role::Device), &facts);

    assert!(verdict.is_accepted());
    assert_eq!(warnings(&verdict), []);
}

#[test]
fn r5_refuses_a_crl_of_another_key_and_of_an_unknown_issuer() {
    let (ours, theirs) = (Pki::new(), Pki::new());
    let forged = crl(&theirs.issuing, &[], 1, NOW);
    let add = |issuer: &Authority| {
        RevocationIndex::default().with_crl(forged.as_bytes(), &[issuer.certificate().clone()], now())
    };

    assert!(matches!(add(&ours.issuing), Err(CrlError::Signature { .. })));
    assert!(matches!(add(&ours.root), Err(CrlError::UnknownIssuer { .. })));
    assert!(add(&theirs.issuing).is_ok());
}

#[test]
fn r5_namesakes_keep_no_list_of_an_issuer_out_however_many_come_before_it() {
    let pki = Pki::new();
    let issued = pki.issue(Role::Device);
    let name = pki.issuing.certificate().common_name().unwrap();
    let namesake = |_| pki.root.issue_authority(name, Duration::from_secs(DAY), now()).unwrap();
    let namesakes = (0..64).map(namesake).map(|authority| authority.certificate().clone());
    let issuers: Vec<Certificate> = namesakes.chain([pki.issuing.certificate().clone()]).collect();
    let list = crl(&pki.issuing, &[&issued.certificate], 1, NOW);

    let index = RevocationIndex::default().with_crl(list.as_bytes(), &issuers, now());

    assert!(index.is_ok_and(|index| index.is_revoked(&issued.certificate)));
}

#[test]
fn r5_refuses_a_crl_whose_bytes_were_changed() {
    let pki = Pki::new();
    let issued = pki.issue(Role::Device);
    let text = crl(&pki.issuing, &[&issued.certificate], 1, NOW);
    let der = muster_pki::pem::crls(text.as_bytes(), "crl").unwrap().swap_remove(0);
    let issuers = [pki.issuing.certificate().clone()];

    assert!(RevocationIndex::default().with_crl(&der, &issuers, now()).is_ok());
    for byte in 0..der.len() {
        let mut changed = der.to_vec();
        changed[byte] ^= 1;

        assert!(RevocationIndex::default().with_crl(&changed, &issuers, now()).is_err(), "byte {byte}");
    }
}

#[test]
fn r5_refuses_an_older_crl_and_keeps_the_newer() {
    let pki = Pki::new();
    let issued = pki.issue(Role::Device);
    let issuers = [pki.issuing.certificate().clone()];
    let mut index = RevocationIndex::default();
    index.add(crl(&pki.issuing, &[&issued.certificate], 2, NOW).as_bytes(), &issuers, now()).unwrap();

    let older = index.add(crl(&pki.issuing, &[], 1, NOW).as_bytes(), &issuers, now());
    let revoked_after_older = index.is_revoked(&issued.certificate);
    let newer = index.add(crl(&pki.issuing, &[], 300, NOW).as_bytes(), &issuers, now());

    assert!(matches!(older, Err(CrlError::Older { .. })));
    assert!(revoked_after_older);
    assert_eq!(newer, Ok(()));
    assert!(!index.is_revoked(&issued.certificate));
}

#[test]
fn r5_refuses_a_crl_from_the_future() {
    let pki = Pki::new();
    let issuers = [pki.issuing.certificate().clone()];

    let future = crl(&pki.issuing, &[], 1, NOW + DAY);

    let refused = RevocationIndex::default().with_crl(future.as_bytes(), &issuers, now());
    assert!(matches!(refused, Err(CrlError::Future { .. })));
}

#[test]
fn r7_looks_up_among_many_thousand_entries() {
    let pki = Pki::new();
    let revoked: Vec<Revoked> =
        (0_u32..20_000).map(|n| Revoked { serial_hex: format!("01{n:08x}"), at: now() }).collect();
    let text = pki.issuing.crl(&revoked, 1, now(), at(NOW + 7 * DAY)).unwrap();

    let issuers = [pki.issuing.certificate().clone()];
    let index = RevocationIndex::default().with_crl(text.as_bytes(), &issuers, now()).unwrap();

    let issuer = pki.issuing.certificate().subject_der();
    assert_eq!(index.len(), 20_000);
    assert!(index.contains(issuer, &[1, 0, 0, 0x4e, 0x1f]));
    assert!(!index.contains(issuer, &[1, 0, 0, 0x4e, 0x20]));
    assert!(!index.contains(pki.root.certificate().subject_der(), &[1, 0, 0, 0x4e, 0x1f]));
}

fn crl(authority: &Authority, revoked: &[&Certificate], number: u64, this_update: u64) -> String {
    let revoked: Vec<Revoked> = revoked
        .iter()
        .map(|certificate| Revoked { serial_hex: certificate.serial_hex(), at: at(NOW - DAY) })
        .collect();
    authority.crl(&revoked, number, at(this_update), at(this_update + 7 * DAY)).unwrap()
}

fn index(pki: &Pki, crls: &[(&Authority, &[&Certificate])]) -> RevocationIndex {
    let issuers = [pki.root.certificate().clone(), pki.issuing.certificate().clone()];
    crls.iter().fold(RevocationIndex::default(), |index, (authority, revoked)| {
        index.with_crl(crl(authority, revoked, 1, NOW).as_bytes(), &issuers, now()).unwrap()
    })
}
