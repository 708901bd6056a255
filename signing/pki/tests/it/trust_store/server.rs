//! T4, T6, T9: which anchor accepts a server, and which settings refuse it.

use std::time::SystemTime;

use muster_pki::authority::{Request, Revoked};
use muster_pki::trust_store::{
    AnchorKind, Matched, ServerVerdict, TrustFields, TrustSettings, TrustStore, YesNo, fingerprint,
};
use muster_pki::{CertificateDer, Facts, Policy, RevocationIndex, Role, Rule, Severity, UnixTime};

use super::{SELF_SIGNED, store, text};
use crate::forge::{Forge, P256};
use crate::support::{DAY, NOW, Pki, at, chain, now, refusals, request, warnings};

#[test]
fn t4_the_first_anchor_in_file_order_that_holds_is_reported() {
    let pki = Pki::new();
    let (server, other) = (pki.issue(Role::Switch), Pki::named("Other"));
    let (root, issuing, leaf) =
        (pki.root.certificate_pem(), pki.issuing.certificate_pem(), &server.certificate_pem);
    let stranger = other.root.certificate_pem();
    for (order, position, kind) in [
        ([&stranger, &root, &issuing, leaf], 2, AnchorKind::Authority),
        ([&stranger, leaf, &root, &issuing], 2, AnchorKind::Leaf),
        ([&issuing, &stranger, leaf, &root], 1, AnchorKind::Authority),
        ([leaf, &stranger, &stranger, &stranger], 1, AnchorKind::Leaf),
    ] {
        let text = order.map(String::as_str).concat();

        let verdict = check(&store(&text), &TrustSettings::default(), &chain(&server));

        let matched = verdict.matched().unwrap_or_else(|| panic!("{}", verdict.verdict()));
        let (found, anchor) = match matched {
            Matched::Authority(anchor) => (AnchorKind::Authority, anchor),
            Matched::Leaf(anchor) => (AnchorKind::Leaf, anchor),
            Matched::Fingerprint(_) => panic!("{matched}"),
        };
        let line = 1 + order[..position - 1].iter().map(|pem| pem.lines().count()).sum::<usize>();
        assert_eq!((found, anchor.position), (kind, position));
        assert_eq!(anchor.place, format!("cainfo-merged.pem, line {line}"));
        assert!(matched.to_string().contains(&anchor.subject), "{matched}");
    }
}

#[test]
fn t4_an_anchor_that_does_not_hold_does_not_keep_the_next_from_holding() {
    // Two roots of one name, one of them with another key; an expired pin before the CA.
    let (ours, namesake) = (Pki::new(), Pki::new());
    let server = ours.issue(Role::Switch);
    let text = namesake.root.certificate_pem() + &ours.root.certificate_pem();

    let verdict = check(&store(&text), &TrustSettings::default(), &chain(&server));

    assert!(matches!(verdict.matched(), Some(Matched::Authority(anchor)) if anchor.position == 2));
}

#[test]
fn t6_a_leaf_alone_is_the_anchor_of_that_server_and_of_no_other() {
    let pki = Pki::new();
    let (server, other) = (pki.issue(Role::Switch), pki.issue(Role::Switch));
    let store = store(&server.certificate_pem);

    let pinned = check(&store, &TrustSettings::default(), &chain(&server)[..1]);
    let with_chain = check(&store, &TrustSettings::default(), &chain(&server));
    let sibling = check(&store, &TrustSettings::default(), &chain(&other));

    assert_eq!(store.anchors()[0].kind(), AnchorKind::Leaf);
    assert!(matches!(pinned.matched(), Some(Matched::Leaf(_))), "{}", pinned.verdict());
    assert!(matches!(with_chain.matched(), Some(Matched::Leaf(_))));
    assert_eq!(sibling.matched(), None);
    let text = sibling.verdict().to_string();
    assert_eq!(refusals(sibling.verdict()), [Rule::C2, Rule::T6], "{text}");
    assert!(text.contains(&server.certificate.thumbprint().to_string()), "the saved one is named: {text}");
    let offered = fingerprint::text(&other.certificate.thumbprint());
    assert!(text.contains(&format!("muster-client trust fetch HOST:PORT --fingerprint {offered}")), "{text}");
    assert!(sibling.into_result().is_err());
}

#[test]
fn t6_a_pin_is_still_held_to_name_time_purpose_and_revocation() {
    let pki = Pki::new();
    let server = pki.issue(Role::Switch);
    let device = pki.issue(Role::Device);
    let ended = pki.issuing.issue(&Request { not_after: at(NOW - 1), ..request(Role::Switch) }).unwrap();
    let revoked = Revoked { serial_hex: server.certificate.serial_hex(), at: now() };
    let crl = pki.issuing.crl(&[revoked], 1, now(), at(NOW + DAY)).unwrap();
    let index = RevocationIndex::default()
        .with_crl(crl.as_bytes(), &[pki.issuing.certificate().clone()], now())
        .unwrap();
    let plain = facts();
    for (case, issued, facts, rule) in [
        ("another name", &server, Facts { name: Some("switch.acme.local"), ..plain }, Rule::C7),
        ("expired", &ended, plain, Rule::C9),
        ("not yet valid", &server, Facts { now: at(NOW - 2 * DAY), ..plain }, Rule::C9),
        ("a client's certificate", &device, plain, Rule::C3),
        ("revoked", &server, Facts { revocation: Some(&index), ..plain }, Rule::R2),
    ] {
        let store = store(&issued.certificate_pem);

        let verdict =
            store.check_server(&Policy::default(), &TrustSettings::default(), &chain(issued), &facts);

        assert_eq!(refusals(verdict.verdict()), [rule], "{case}: {}", verdict.verdict());
        assert_eq!(verdict.matched(), None, "{case}");
    }
}

#[test]
fn c8_self_signed_site_servers_pass_once_saved_and_are_told_how_before() {
    for (case, extensions) in [
        (
            "what `openssl req -x509` makes: CA:TRUE, no EKU",
            "basicConstraints=critical,CA:TRUE\nsubjectAltName=DNS:site.acme.local",
        ),
        ("no extension but the name", SELF_SIGNED),
        (
            "a proper one",
            "basicConstraints=CA:FALSE\nkeyUsage=digitalSignature\nextendedKeyUsage=serverAuth\nsubjectAltName=DNS:site.acme.local",
        ),
    ] {
        let forge = Forge::new();
        forge.issue("site", "/CN=site", P256, extensions, None);
        let chain = [forge.certificate("site").certificate_der().clone()];
        let facts = Facts { name: Some("site.acme.local"), ..Facts::at(clock()) };
        let judge = |store: &TrustStore| {
            store.check_server(&Policy::default(), &TrustSettings::default(), &chain, &facts)
        };

        let before = judge(&TrustStore::default());
        let after = judge(&store(&text(&forge, "site")));

        assert_eq!(before.matched(), None, "{case}");
        assert!(refusals(before.verdict()).contains(&Rule::T6), "{case}: {}", before.verdict());
        assert!(!before.verdict().to_string().contains("trusting it as it is does not help"), "{case}");
        assert!(matches!(after.matched(), Some(Matched::Leaf(_))), "{case}: {}", after.verdict());
        assert!(!warnings(after.verdict()).contains(&Rule::C6), "nobody issued it: {case}");
    }
}

#[test]
fn c8_a_ca_that_another_issued_is_no_server_even_where_it_is_an_anchor() {
    let forge = Forge::new();
    forge.issue("root", "/CN=Root", P256, "basicConstraints=critical,CA:TRUE", None);
    let extensions = "basicConstraints=critical,CA:TRUE\nkeyUsage=digitalSignature,keyCertSign\nextendedKeyUsage=serverAuth\ncrlDistributionPoints=URI:http://crl/a\nsubjectAltName=DNS:site.acme.local";
    forge.issue("ca", "/CN=Issuing", P256, extensions, Some("root"));
    let chain = [forge.certificate("ca").certificate_der().clone()];
    let facts = Facts { name: Some("site.acme.local"), ..Facts::at(clock()) };

    for anchors in [text(&forge, "ca"), text(&forge, "root") + &text(&forge, "ca")] {
        let verdict =
            store(&anchors).check_server(&Policy::default(), &TrustSettings::default(), &chain, &facts);

        assert_eq!(refusals(verdict.verdict()), [Rule::C8], "{}", verdict.verdict());
    }
}

#[test]
fn t9_pinned_fingerprint_peer_and_host_verification_combine() {
    let pki = Pki::new();
    let (server, other) = (pki.issue(Role::Switch), pki.issue(Role::Switch));
    let (root, empty) = (store(&pki.root.certificate_pem()), TrustStore::default());
    let right = fingerprint::text(&server.certificate.thumbprint());
    let wrong = fingerprint::text(&other.certificate.thumbprint());
    let (yes, no) = (YesNo::Yes, YesNo::No);
    for (store, peer, host, pin, name, expected) in [
        (&root, yes, yes, "", "w701.acme.local", &[][..]),
        (&root, yes, yes, "", "another", &[Rule::C7]),
        (&root, yes, no, "", "another", &[]),
        (&root, yes, yes, &right, "w701.acme.local", &[]),
        (&root, yes, yes, &wrong, "w701.acme.local", &[Rule::T7]),
        (&empty, yes, yes, &right, "w701.acme.local", &[Rule::C2, Rule::T6]),
        (&empty, no, yes, &right, "w701.acme.local", &[]),
        (&empty, no, yes, &right, "another", &[Rule::C7]),
        (&empty, no, no, &right, "another", &[]),
        (&empty, no, no, &wrong, "another", &[Rule::T7]),
    ] {
        let fields = TrustFields {
            verify_peer: peer,
            verify_host: host,
            pinned_fingerprint: pin.to_owned(),
            ..TrustFields::default()
        };
        let settings = TrustSettings::try_from(&fields).unwrap();
        let facts = Facts { name: Some(name), ..Facts::at(now()) };

        let verdict = store.check_server(&Policy::default(), &settings, &chain(&server), &facts);

        assert_eq!(refusals(verdict.verdict()), expected, "{fields:?}: {}", verdict.verdict());
        assert_eq!(verdict.matched().is_some(), expected.is_empty(), "{fields:?}");
    }
}

#[test]
fn t9_system_and_folder_cas_come_behind_the_merged_ones_and_pin_nobody() {
    let (pki, other) = (Pki::new(), Pki::named("System"));
    let (server, foreign) = (pki.issue(Role::Switch), other.issue(Role::Switch));
    let added =
        [other.root.certificate().clone(), pki.root.certificate().clone(), foreign.certificate.clone()];

    let store = store(&pki.root.certificate_pem()).with_authorities("the system's CAs", added);

    assert_eq!(store.anchors().len(), 2, "one is known, one is no CA");
    let ours = check(&store, &TrustSettings::default(), &chain(&server));
    let theirs = check(&store, &TrustSettings::default(), &chain(&foreign));
    assert!(matches!(ours.matched(), Some(Matched::Authority(anchor)) if anchor.position == 1));
    let Some(Matched::Authority(anchor)) = theirs.matched() else { panic!("{}", theirs.verdict()) };
    assert_eq!((anchor.position, anchor.place.as_str()), (2, "the system's CAs"));
}

#[test]
fn t4_an_empty_store_and_an_empty_or_endless_chain_accept_nobody() {
    let pki = Pki::new();
    let server = chain(&pki.issue(Role::Switch));
    let long = vec![server[0].clone(); 11];
    let garbage = [CertificateDer::from(vec![0x30, 0x00])];
    let root = store(&pki.root.certificate_pem());

    for (case, store, chain) in [
        ("empty store", &TrustStore::default(), &server[..]),
        ("empty chain", &root, &[]),
        ("endless chain", &root, &long),
        ("garbage", &root, &garbage),
    ] {
        let verdict = check(store, &TrustSettings::default(), chain);

        assert!(!verdict.verdict().is_accepted() && verdict.matched().is_none(), "{case}");
        assert!(
            verdict.verdict().findings().iter().any(|finding| finding.severity == Severity::Refusal),
            "{case}"
        );
        assert!(verdict.into_result().is_err(), "{case}");
    }
}

fn check(store: &TrustStore, settings: &TrustSettings, chain: &[CertificateDer<'_>]) -> ServerVerdict {
    store.check_server(&Policy::default(), settings, chain, &facts())
}

fn facts() -> Facts<'static> {
    Facts { name: Some("w701.acme.local"), ..Facts::at(now()) }
}

#[expect(clippy::disallowed_methods, reason = "the openssl command line takes notBefore from the clock")]
fn clock() -> UnixTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    UnixTime::since_unix_epoch(since)
}
