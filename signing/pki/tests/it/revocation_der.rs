//! R5, byte by byte: which CRLs are used, which are not, and for which certificates one speaks.

use muster_pki::authority::Authority;
use muster_pki::{
    Certificate, Coverage, CrlError, CrlWarning, Facts, Loaded, RevocationIndex, Role, Rule, UnixTime,
};

use crate::crl_maker::{
    CERTIFICATE_ISSUER, CRL_NUMBER, Critical, CrlMaker, DELTA_CRL_INDICATOR, ECDSA_SHA256, INVALIDITY_DATE,
    ISSUING_DISTRIBUTION_POINT, REASON_CODE, UNKNOWN, entry, extension, flag, number, point, reason, scope,
    seal, some_reasons, tlv, utc_time,
};
use crate::support::{DAY, NOW, Pki, at, now, refusals, warnings};

/// Bits of onlySomeReasons: keyCompromise alone, and all others.
const KEY_COMPROMISE: [u8; 2] = [0b0100_0000, 0];
const ALL_OTHERS: [u8; 2] = [0b0011_1111, 0x80];

#[test]
fn r5_takes_what_a_ca_may_publish() {
    let pki = Pki::new();
    let good = || CrlMaker::new(&pki.issuing, NOW, 1);
    for (case, crl) in [
        ("no entries", good()),
        ("an entry", good().entry(&entry(&[5], &[]))),
        (
            "a reason, critical",
            good().entry(&entry(&[5], &[extension(REASON_CODE, Critical::Yes, &[0x0a, 1, 1])])),
        ),
        (
            "an invalidity date",
            good()
                .entry(&entry(&[5], &[extension(INVALIDITY_DATE, Critical::No, b"\x18\x0f20260101000000Z")])),
        ),
        (
            "an unknown entry extension",
            good().entry(&entry(&[5], &[extension(UNKNOWN, Critical::No, &[5, 0])])),
        ),
        ("an unknown extension", good().extension(extension(UNKNOWN, Critical::No, &[5, 0]))),
        (
            "a default that is written out",
            good().extension(tlv(0x30, &[&tlv(6, &[UNKNOWN]), &[1, 1, 0], &[4, 0]])),
        ),
        ("a date in GeneralizedTime", good().entry(&tlv(0x30, &[&[2, 1, 5], b"\x18\x0f20260101000000Z"]))),
        ("a negative serial number", good().entry(&entry(&[0xff], &[]))),
        (
            "a serial number of 20 bytes and its sign",
            good().entry(&entry(&[&[0, 0x80][..], &[1; 19]].concat(), &[])),
        ),
        ("a clock that is a minute ahead", good().with(|crl| crl.this_update = NOW + 60)),
    ] {
        let loaded = load(&pki.issuing, &crl.sign());

        assert_eq!(loaded.as_ref().map(|loaded| loaded.warnings.clone()), Ok(vec![]), "{case}");
    }
}

#[test]
fn r5_refuses_kinds_that_are_not_used() {
    let pki = Pki::new();
    let good = || CrlMaker::new(&pki.issuing, NOW, 1);
    let base = tlv(2, &[&[1]]);
    let issuer = tlv(0x30, &[&tlv(0xa4, &[pki.root.certificate().subject_der()])]);
    let other = |critical| entry(&[5], &[extension(CERTIFICATE_ISSUER, critical, &issuer)]);
    for (case, got, crl) in [
        ("no nextUpdate", "no nextUpdate", good().with(|crl| crl.next_update = None)),
        ("nextUpdate first", "before its thisUpdate", good().with(|crl| crl.next_update = Some(NOW - 1))),
        ("delta", "delta", good().extension(extension(DELTA_CRL_INDICATOR, Critical::Yes, &base))),
        (
            "delta, not critical",
            "delta",
            good().extension(extension(DELTA_CRL_INDICATOR, Critical::No, &base)),
        ),
        ("indirect", "indirect", good().extension(scope(&[flag(4)]))),
        ("an entry of another issuer", "indirect", good().entry(&other(Critical::Yes))),
        ("the same, not critical", "indirect", good().entry(&other(Critical::No))),
        ("attribute certificates", "attribute", good().extension(scope(&[flag(5)]))),
        ("users and CAs", "user", good().extension(scope(&[flag(1), flag(2)]))),
        ("no reason", "no reason", good().extension(scope(&[some_reasons([0, 0])]))),
        (
            "a bad scope",
            "distribution point",
            good().extension(extension(ISSUING_DISTRIBUTION_POINT, Critical::Yes, &[5, 0])),
        ),
        ("unknown extension", "2.5.29.127", good().extension(extension(UNKNOWN, Critical::Yes, &[5, 0]))),
        (
            "unknown entry extension",
            "2.5.29.127",
            good().entry(&entry(&[5], &[extension(UNKNOWN, Critical::Yes, &[5, 0])])),
        ),
        (
            "negative number",
            "CRLNumber",
            good().with(|crl| crl.extensions = vec![extension(CRL_NUMBER, Critical::No, &[2, 1, 0xff])]),
        ),
        (
            "long number",
            "CRLNumber",
            good()
                .with(|crl| crl.extensions = vec![extension(CRL_NUMBER, Critical::No, &tlv(2, &[&[1; 22]]))]),
        ),
        ("long serial number", "22 bytes", good().entry(&entry(&[1; 22], &[]))),
        (
            "entry extension in version 1",
            "version 1",
            good()
                .with(|crl| {
                    crl.version = None;
                    crl.extensions.clear();
                })
                .entry(&entry(&[5], &[reason(1)])),
        ),
    ] {
        let refused = load(&pki.issuing, &crl.sign()).unwrap_err();

        assert!(
            matches!(&refused, CrlError::Unsupported { got: told, .. } if told.contains(got)),
            "{case}: {refused}"
        );
    }
}

#[test]
fn r5_refuses_what_is_not_strict_der() {
    let pki = Pki::new();
    let good = || CrlMaker::new(&pki.issuing, NOW, 1);
    let seal_with = |algorithm: &[u8], front: u8| {
        let sealed = seal(&good().body(), good().key_pem());
        let mut changed = sealed.clone();
        let at = sealed.windows(ECDSA_SHA256.len()).rposition(|window| window == ECDSA_SHA256).unwrap();
        changed[at..at + algorithm.len()].copy_from_slice(algorithm);
        changed[at + ECDSA_SHA256.len() + 2] = front;
        changed
    };
    let other_algorithm = [&ECDSA_SHA256[..11], &[3]].concat();
    for (case, crl) in [
        ("bytes behind", [good().sign(), vec![0]].concat()),
        ("bytes inside", good().with(|crl| crl.rest = vec![5, 0]).sign()),
        ("version 1 written out", good().with(|crl| crl.version = Some(0)).sign()),
        ("version 3", good().with(|crl| crl.version = Some(2)).sign()),
        ("extensions in version 1", good().with(|crl| crl.version = None).sign()),
        ("two algorithms", seal_with(&other_algorithm, 0)),
        ("unused bits of the signature", seal_with(ECDSA_SHA256, 1)),
        ("an extension twice", good().extension(number(2)).sign()),
        ("a reason twice", good().entry(&entry(&[5], &[reason(1), reason(8)])).sign()),
        (
            "a reason that is none",
            good().entry(&entry(&[5], &[extension(REASON_CODE, Critical::No, &[2, 1, 1])])).sign(),
        ),
        (
            "an odd criticality",
            good().extension(tlv(0x30, &[&tlv(6, &[UNKNOWN]), &[1, 1, 1], &[4, 0]])).sign(),
        ),
        ("a serial number without bytes", good().entry(&entry(&[], &[])).sign()),
        ("a superfluous zero", good().entry(&entry(&[0, 5], &[])).sign()),
        ("no date", good().entry(&tlv(0x30, &[&[2, 1, 5]])).sign()),
        ("a date that is none", good().entry(&tlv(0x30, &[&[2, 1, 5], &[4, 0]])).sign()),
        ("a date without seconds", good().entry(&tlv(0x30, &[&[2, 1, 5], b"\x17\x0b2605010000Z"])).sign()),
        ("more in an entry", good().entry(&tlv(0x30, &[&[2, 1, 5], &utc_time(NOW), &[5, 0]])).sign()),
        ("an entry that is none", good().entry(&[2, 1, 5]).sign()),
        ("half a CRL", good().sign()[..60].to_vec()),
        ("an empty SEQUENCE", vec![0x30, 0]),
        ("a length beyond the end", vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff]),
    ] {
        let refused = load(&pki.issuing, &crl);

        assert!(matches!(refused, Err(CrlError::Encoding(_))), "{case}: {refused:?}");
    }
}

#[test]
fn r5_a_crl_number_never_goes_back() {
    let pki = Pki::new();
    let crl = |number, at| CrlMaker::new(&pki.issuing, at, number).sign();
    let unnumbered = |at| CrlMaker::new(&pki.issuing, at, 0).with(|crl| crl.extensions.clear()).sign();
    let (early, late) = (NOW - DAY, NOW);
    for (case, known, next, accepted) in [
        ("a higher number", crl(255, early), crl(256, late), Ok(vec![])),
        ("a lower number", crl(256, early), crl(255, late), Err(())),
        ("the same again", crl(7, late), crl(7, late), Ok(vec![])),
        ("the same number, made earlier", crl(7, late), crl(7, early), Err(())),
        (
            "a higher number, made earlier",
            crl(7, late),
            crl(8, early),
            Ok(vec![CrlWarning::Backdated { before: at(late) }]),
        ),
        ("no numbers", unnumbered(early), unnumbered(late), Ok(vec![CrlWarning::NoNumber])),
        ("no numbers, made earlier", unnumbered(late), unnumbered(early), Err(())),
        ("no number any more", crl(7, early), unnumbered(late), Ok(vec![CrlWarning::NoNumber])),
        ("no number any more, made earlier", crl(7, late), unnumbered(early), Err(())),
        ("a number now", unnumbered(early), crl(1, late), Ok(vec![])),
        ("a number now, made earlier", unnumbered(late), crl(1, early), Err(())),
    ] {
        let mut index = RevocationIndex::default();
        index.add(&known, &[pki.issuing.certificate().clone()], now()).unwrap();

        let loaded = index.load(&next, &[pki.issuing.certificate().clone()], now());

        match accepted {
            Ok(warnings) => {
                assert_eq!(loaded.map(|mut loaded| loaded.remove(0).warnings), Ok(warnings), "{case}")
            }
            Err(()) => assert!(matches!(loaded, Err(CrlError::Older { .. })), "{case}: {loaded:?}"),
        }
    }
}

#[test]
fn r5_takes_a_crl_of_version_1_with_a_warning() {
    let pki = Pki::new();
    let crl = CrlMaker::new(&pki.issuing, NOW, 0).entry(&entry(&[5], &[])).with(|crl| {
        crl.version = None;
        crl.extensions.clear();
    });

    let loaded = load(&pki.issuing, &crl.sign()).unwrap();

    assert_eq!((loaded.entries, loaded.warnings), (1, vec![CrlWarning::NoNumber]));
}

#[test]
fn r5_an_expired_crl_still_revokes_and_warns() {
    let pki = Pki::new();
    let bad = pki.issue(Role::Device).certificate;
    let crl = CrlMaker::new(&pki.issuing, NOW - 8 * DAY, 1).entry(&entry(bad.serial(), &[]));

    let mut index = RevocationIndex::default();
    let loaded = index.load(&crl.sign(), &[pki.issuing.certificate().clone()], now()).unwrap();

    assert_eq!(loaded[0].warnings, [CrlWarning::Expired { next_update: at(NOW - DAY) }]);
    assert!(index.is_revoked(&bad));
}

#[test]
fn r5_every_reason_revokes_but_remove_from_crl() {
    let pki = Pki::new();
    let entries = (0..=10).map(|code| entry(&[code + 1], &[reason(code)])).collect::<Vec<_>>().concat();
    let crl = CrlMaker::new(&pki.issuing, NOW, 1).entry(&entries);

    let index = index(&[(&pki.issuing, crl)]);

    for code in 0..=10 {
        let is_revoked = index.contains(pki.issuing.certificate().subject_der(), &[code + 1]);
        assert_eq!(is_revoked, code != 8, "reason {code}");
    }
}

#[test]
fn r5_counts_an_entry_that_stands_there_twice_once_and_it_stays_revoked() {
    let pki = Pki::new();
    let crl = CrlMaker::new(&pki.issuing, NOW, 1)
        .entry(&entry(&[5], &[reason(1)]))
        .entry(&entry(&[5], &[reason(4)]))
        .entry(&entry(&[5], &[reason(8)]));

    let index = index(&[(&pki.issuing, crl)]);

    assert_eq!(index.len(), 1);
    assert!(index.contains(pki.issuing.certificate().subject_der(), &[5]));
}

#[test]
fn r5_a_crl_speaks_for_its_scope_only() {
    let pki = Pki::new();
    let device = pki.issue(Role::Device);
    // The device says http://crl.acme.local/issuing.crl; the issuing CA has no distribution point.
    let own = "http://crl.acme.local/issuing.crl";
    for (case, of_issuing, of_root, missing) in [
        ("everything", vec![], vec![], 0),
        ("users below, CAs above", vec![flag(1)], vec![flag(2)], 0),
        ("users everywhere", vec![flag(1)], vec![flag(1)], 1),
        ("CAs everywhere", vec![flag(2)], vec![flag(2)], 1),
        ("the wrong way round", vec![flag(2)], vec![flag(1)], 2),
        ("the device's point", vec![point(own)], vec![], 0),
        ("another point", vec![point("http://crl.acme.local/2.crl")], vec![], 1),
        ("a point, and the CA has none", vec![], vec![point(own)], 1),
        ("the device's point, for users", vec![point(own), flag(1)], vec![], 0),
        ("the device's point, for CAs", vec![point(own), flag(2)], vec![], 1),
        ("some reasons", vec![some_reasons(KEY_COMPROMISE)], vec![], 1),
    ] {
        let crl = |authority, fields: &Vec<Vec<u8>>| {
            let crl = CrlMaker::new(authority, NOW, 1);
            if fields.is_empty() { crl } else { crl.extension(scope(fields)) }
        };
        let index =
            index(&[(&pki.issuing, crl(&pki.issuing, &of_issuing)), (&pki.root, crl(&pki.root, &of_root))]);

        let facts = Facts { revocation: Some(&index), ..Facts::at(now()) };
        let verdict = pki.check_at(Role::Device, &device, &facts);

        assert!(verdict.is_accepted(), "{case}: {verdict}");
        let told = verdict.findings().iter().filter(|finding| finding.rule == Rule::R6).count();
        assert_eq!(told, missing, "{case}: {verdict}");
    }
}

#[test]
fn r5_crls_for_some_reasons_speak_together_until_the_first_expires() {
    let pki = Pki::new();
    let device = pki.issue(Role::Device).certificate;
    let some = |reasons, at| CrlMaker::new(&pki.issuing, at, 1).extension(scope(&[some_reasons(reasons)]));
    let (one, others) = (some(KEY_COMPROMISE, NOW - DAY), some(ALL_OTHERS, NOW));
    let issuing = pki.issuing.certificate();

    let half = index(&[(&pki.issuing, one.clone())]);
    let whole = index(&[(&pki.issuing, one), (&pki.issuing, others)]);

    assert_eq!(half.coverage(&device, issuing, now()), Coverage::Missing);
    assert_eq!(whole.coverage(&device, issuing, now()), Coverage::Fresh { until: at(NOW + 6 * DAY) });
    let later = at(NOW + 6 * DAY);
    assert_eq!(whole.coverage(&device, issuing, later), Coverage::Stale { next_update: later });
}

#[test]
fn r5_what_any_scope_lists_is_revoked() {
    let pki = Pki::new();
    let issuing = pki.issuing.certificate();
    let for_users = CrlMaker::new(&pki.root, NOW, 1).extension(scope(&[flag(1)]));

    let index = index(&[(&pki.root, for_users.entry(&entry(issuing.serial(), &[])))]);
    let facts = Facts { revocation: Some(&index), ..Facts::at(now()) };
    let verdict = pki.check_at(Role::Device, &pki.issue(Role::Device), &facts);

    assert_eq!(refusals(&verdict), [Rule::R8], "{verdict}");
}

#[test]
fn r5_a_newer_crl_for_everything_ends_those_for_parts() {
    let pki = Pki::new();
    let part = |number| CrlMaker::new(&pki.issuing, NOW - DAY, number).extension(scope(&[flag(1)]));
    let (old, whole) = (part(1).entry(&entry(&[5], &[])), CrlMaker::new(&pki.issuing, NOW, 2));
    let name = pki.issuing.certificate().subject_der();

    let after = index(&[(&pki.issuing, old.clone()), (&pki.issuing, whole.clone())]);
    let replayed = index(&[(&pki.issuing, whole.entry(&entry(&[6], &[]))), (&pki.issuing, old)]);

    assert!(!after.contains(name, &[5]), "the hold was lifted");
    assert!(
        replayed.contains(name, &[5]) && replayed.contains(name, &[6]),
        "an old part adds, it takes nothing away"
    );
    let (new_part, old_whole) = (
        CrlMaker::new(&pki.issuing, NOW, 1).extension(scope(&[flag(1)])).entry(&entry(&[7], &[])),
        CrlMaker::new(&pki.issuing, NOW - DAY, 9),
    );
    let replayed = index(&[(&pki.issuing, new_part), (&pki.issuing, old_whole)]);
    assert!(replayed.contains(name, &[7]), "nor does an old whole");
}

#[test]
fn r5_a_new_key_of_the_issuer_does_not_speak_for_the_old_one_while_that_has_crls() {
    let (pki, device, renewed) = renewed_issuing();
    let issuing = pki.issuing.certificate();
    let (stale, fresh) = (CrlMaker::new(&pki.issuing, NOW - 8 * DAY, 1), CrlMaker::new(&renewed, NOW, 1));

    let only_new = index(&[(&renewed, fresh.clone())]);
    let mut both = index(&[(&pki.issuing, stale), (&renewed, fresh.entry(&entry(device.serial(), &[])))]);

    assert!(matches!(only_new.coverage(&device, issuing, now()), Coverage::Fresh { .. }));
    assert!(matches!(both.coverage(&device, issuing, now()), Coverage::Stale { .. }));
    assert!(both.is_revoked(&device), "revoked is the union");
    both.forget(issuing);
    assert!(
        matches!(both.coverage(&device, issuing, now()), Coverage::Fresh { .. }),
        "its CRLs were forgotten"
    );
}

#[test]
fn r5_a_namesake_replaces_no_crl() {
    let (ours, theirs) = (Pki::new(), Pki::new());
    let device = ours.issue(Role::Device).certificate;
    let revoked = CrlMaker::new(&ours.issuing, NOW - DAY, 1).entry(&entry(device.serial(), &[]));
    let empty = CrlMaker::new(&theirs.issuing, NOW, 99);

    let index = index(&[(&ours.issuing, revoked), (&theirs.issuing, empty)]);

    assert!(index.is_revoked(&device));
}

#[test]
fn r4_a_bad_crl_among_good_ones_changes_nothing() {
    let pki = Pki::new();
    let pem = |crl: &[u8]| der::pem::encode_string("X509 CRL", der::pem::LineEnding::LF, crl).unwrap();
    let good = CrlMaker::new(&pki.issuing, NOW, 1).entry(&entry(&[5], &[])).sign();
    let bad = CrlMaker::new(&pki.root, NOW, 1).with(|crl| crl.next_update = None).sign();
    let issuers = [pki.issuing.certificate().clone(), pki.root.certificate().clone()];
    let mut index = RevocationIndex::default();

    let refused = index.load((pem(&good) + &pem(&bad)).as_bytes(), &issuers, now());
    let is_untouched = index.is_empty();
    let accepted = index.load(pem(&good).as_bytes(), &issuers, now());

    assert!(matches!(refused, Err(CrlError::Unsupported { .. })), "{refused:?}");
    assert!(is_untouched);
    assert_eq!((accepted.map(|loaded| loaded.len()), index.len()), (Ok(1), 1));
}

#[test]
fn r5_warns_nowhere_where_all_is_well() {
    let pki = Pki::new();
    let fresh = |authority| (authority, CrlMaker::new(authority, NOW, 1));
    let index = index(&[fresh(&pki.issuing), fresh(&pki.root)]);
    let facts = Facts { revocation: Some(&index), ..Facts::at(now()) };

    let verdict = pki.check_at(Role::Device, &pki.issue(Role::Device), &facts);

    assert!(verdict.is_accepted() && warnings(&verdict).is_empty(), "{verdict}");
}

/// An issuing CA, a device that it issued, and the same CA with a new key.
fn renewed_issuing() -> (Pki, Certificate, Authority) {
    let pki = Pki::new();
    let device = pki.issue(Role::Device).certificate;
    let lifetime = std::time::Duration::from_secs(365 * DAY);
    let renewed = pki.root.issue_authority("Test Root Issuing", lifetime, now()).unwrap();
    (pki, device, renewed)
}

fn load(issuer: &Authority, crl: &[u8]) -> Result<Loaded, CrlError> {
    let now: UnixTime = now();
    let issuers = [issuer.certificate().clone()];
    RevocationIndex::default().load(crl, &issuers, now).map(|mut loaded| loaded.remove(0))
}

fn index(crls: &[(&Authority, CrlMaker)]) -> RevocationIndex {
    crls.iter().fold(RevocationIndex::default(), |index, (issuer, crl)| {
        index.with_crl(&crl.sign(), &[issuer.certificate().clone()], now()).unwrap()
    })
}
