//! R3 and R7: what many entries cost, what is new in a CRL, and what changed bytes do.

use std::collections::BTreeSet;
use std::hint::black_box;
use std::sync::LazyLock;

use muster_pki::authority::Authority;
use muster_pki::{CRL_BYTES_MAX, CRLS_PER_ISSUER_MAX, Certificate, CrlError, RevocationIndex, newly_revoked};
use proptest::prelude::*;

use crate::crl_maker::{
    Critical, CrlMaker, UNKNOWN, entry, extension, flag, large, point, reason, scope, seal, serials,
};
use crate::support::{NOW, Pki, now};

static PKI: LazyLock<Pki> = LazyLock::new(Pki::new);

/// Bytes of memory that an entry may have at a million entries.
const ENTRY_BYTES_MAX: f64 = 40.0;

#[test]
fn r7_a_million_entries_have_at_most_40_bytes_each_and_a_look_up_allocates_nothing() {
    const COUNT: u64 = 1_000_000;
    let authority = &PKI.issuing;
    let crl = large(authority, NOW, 1, COUNT, 7);
    let issuers = [authority.certificate().clone()];
    let mut index = RevocationIndex::default();
    assert!(!index.contains(b"", &[1])); // What every process has once.

    let loading = allocation_counter::measure(|| index.add(&crl, &issuers, now()).unwrap());
    let name = authority.certificate().subject_der();
    let (listed, others): (Vec<_>, Vec<_>) = (serials(1_000, 7).collect(), serials(1_000, 8).collect());
    let looking = allocation_counter::measure(|| {
        assert!(black_box(&listed).iter().all(|serial| index.contains(name, serial)));
        assert!(!black_box(&others).iter().any(|serial| index.contains(name, serial)));
        assert!(!index.contains(b"no issuer", &listed[0]));
        assert!(!index.contains(name, &[1; 22]));
    });

    let each = |bytes: f64| bytes / COUNT as f64;
    let (kept, most) = (each(loading.bytes_current as f64), each(loading.bytes_max as f64));
    println!("{kept:.1} bytes an entry, {most:.1} while loading, {} allocations", loading.count_total);
    assert_eq!(index.len(), usize::try_from(COUNT).unwrap());
    assert!(kept <= ENTRY_BYTES_MAX, "{kept} bytes an entry");
    assert!(most <= ENTRY_BYTES_MAX, "{most} bytes an entry while loading");
    assert!(loading.count_total < 200, "{} allocations", loading.count_total);
    assert_eq!(looking.count_total, 0);
}

#[test]
fn r7_a_clone_shares_the_entries() {
    let authority = &PKI.issuing;
    let crl = large(authority, NOW, 1, 10_000, 7);
    let index = RevocationIndex::default().with_crl(&crl, &[authority.certificate().clone()], now()).unwrap();

    let cloning = allocation_counter::measure(|| drop(black_box(index.clone())));

    assert!(cloning.bytes_max < 1_000, "{} bytes", cloning.bytes_max);
}

#[test]
fn r3_newly_revoked_are_those_that_the_new_crl_adds() {
    let authority = &PKI.issuing;
    let name = authority.certificate().subject_der();
    let crl = |number, serials: &[u8]| crl_of(authority, number, serials.iter().map(|serial| vec![*serial]));
    let load = |index: RevocationIndex, crl: CrlMaker| {
        index
            .with_crl(
                &crl.sign(),
                &[PKI.issuing.certificate().clone(), PKI.root.certificate().clone()],
                now(),
            )
            .unwrap()
    };
    let empty = RevocationIndex::default();
    let first = load(empty.clone(), crl(1, &[1, 3, 5]));
    let second = load(first.clone(), crl(2, &[1, 2, 5, 9]));
    let with_part = load(second.clone(), crl(3, &[2, 7]).extension(scope(&[flag(1)])));
    let with_root = load(second.clone(), crl_of(&PKI.root, 1, [vec![2]]));

    assert_eq!(pairs(&empty, &first), expected(name, &[&[1], &[3], &[5]]));
    assert_eq!(pairs(&first, &second), expected(name, &[&[2], &[9]]));
    assert_eq!(pairs(&second, &first), expected(name, &[&[3]]));
    assert_eq!(pairs(&second, &second.clone()), []);
    assert_eq!(pairs(&second, &with_part), expected(name, &[&[7]]), "2 was known by another scope");
    assert_eq!(pairs(&second, &with_root), expected(PKI.root.certificate().subject_der(), &[&[2]]));
    assert_eq!(pairs(&first, &empty), []);
}

#[test]
fn r3_finds_one_new_among_many() {
    let authority = &PKI.issuing;
    let issuers = [authority.certificate().clone()];
    let bad = PKI.issue(muster_pki::Role::Device).certificate;
    let before = large(authority, NOW, 1, 20_000, 7);
    let mut entries = entry(bad.serial(), &[]);
    serials(20_000, 7).for_each(|serial| entries.extend(entry(&serial, &[])));
    let after = CrlMaker::new(authority, NOW, 2).with(|crl| crl.entries = entries).sign();

    let old = RevocationIndex::default().with_crl(&before, &issuers, now()).unwrap();
    let new = old.clone().with_crl(&after, &issuers, now()).unwrap();

    let found: Vec<_> = newly_revoked(&old, &new).collect();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].issuer_der, found[0].serial.as_bytes()), (bad.issuer_der(), bad.serial()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn r7_the_index_answers_as_a_naive_set_does(listed in contents(80), asked in contents(80)) {
        let index = load(std::slice::from_ref(&listed));
        let naive: BTreeSet<Vec<u8>> = listed.iter().cloned().collect();

        prop_assert_eq!(index.len(), naive.len());
        for serial in listed.iter().chain(&asked) {
            let name = PKI.issuing.certificate().subject_der();
            prop_assert_eq!(index.contains(name, serial), naive.contains(serial), "{:x?}", serial);
        }
    }

    #[test]
    fn r3_newly_revoked_is_the_difference_of_sets(
        old in prop::collection::vec(contents(40), 0..4),
        new in prop::collection::vec(contents(40), 0..4),
    ) {
        let set = |crls: &[Vec<Vec<u8>>]| -> BTreeSet<Vec<u8>> { crls.concat().into_iter().collect() };
        let (before, after) = (load(&old), load(&new));

        let found = pairs(&before, &after);

        let name = PKI.issuing.certificate().subject_der();
        let difference: Vec<_> = set(&new).difference(&set(&old)).map(|serial| (name.to_vec(), serial.clone())).collect();
        prop_assert_eq!(found, difference);
    }

    /// The signature is made anew, so that the bytes come as far as they can.
    #[test]
    fn r5_a_signed_crl_with_changed_bytes_never_panics(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let maker = &*VARIED;
        let mut body = maker.body();
        for (index, value) in changes {
            let at = index.index(body.len());
            body[at] = value;
        }
        if let Some(cut) = cut {
            body.truncate(cut.index(body.len()));
        }
        let crl = seal(&body, maker.key_pem());

        let mut index = RevocationIndex::default();
        let loaded = index.load(&crl, &[PKI.issuing.certificate().clone()], now());

        prop_assert_eq!(loaded.is_err(), index.is_empty());
    }
}

#[test]
fn r5_keeps_so_many_crls_of_an_issuer_and_no_more() {
    let authority = &PKI.issuing;
    let crl = |n: usize, number| {
        CrlMaker::new(authority, NOW, number).extension(scope(&[point(&format!("http://a/{n}"))])).sign()
    };
    let issuers = [authority.certificate().clone()];
    let mut index = RevocationIndex::default();

    for n in 0..CRLS_PER_ISSUER_MAX {
        index.add(&crl(n, 1), &issuers, now()).unwrap();
    }
    let one_more = index.add(&crl(CRLS_PER_ISSUER_MAX, 1), &issuers, now());

    assert!(matches!(one_more, Err(CrlError::TooManyOfIssuer { .. })), "{one_more:?}");
    assert_eq!(index.add(&crl(0, 2), &issuers, now()), Ok(()), "one takes the place of another");
}

#[test]
fn r5_a_namesake_takes_no_room_of_an_issuers_crls() {
    let theirs = Pki::new();
    assert_eq!(theirs.issuing.certificate().subject_der(), PKI.issuing.certificate().subject_der());
    let issuers = [theirs.issuing.certificate().clone(), PKI.issuing.certificate().clone()];
    let mut index = RevocationIndex::default();
    for n in 0..CRLS_PER_ISSUER_MAX {
        let part = scope(&[point(&format!("http://a/{n}"))]);
        let crl = CrlMaker::new(&theirs.issuing, NOW, 1).extension(part).sign();
        index.add(&crl, &issuers, now()).unwrap();
    }

    let own = index.add(&CrlMaker::new(&PKI.issuing, NOW, 1).sign(), &issuers, now());

    assert_eq!(own, Ok(()));
}

#[test]
fn r5_reads_so_many_bytes_and_no_more() {
    let bytes = vec![0x30; CRL_BYTES_MAX + 1];

    let refused = RevocationIndex::default().add(&bytes, &[], now());

    assert_eq!(refused, Err(CrlError::TooLarge(CRL_BYTES_MAX + 1)));
}

#[test]
fn r5_no_flipped_bit_passes_the_signature() {
    let crl = VARIED.sign();
    let issuers: [Certificate; 1] = [PKI.issuing.certificate().clone()];
    assert!(RevocationIndex::default().with_crl(&crl, &issuers, now()).is_ok());

    for at in 0..crl.len() {
        for bit in 0..8 {
            let mut changed = crl.clone();
            changed[at] ^= 1 << bit;

            let refused = RevocationIndex::default().with_crl(&changed, &issuers, now());
            assert!(refused.is_err(), "byte {at}, bit {bit}");
        }
        assert!(RevocationIndex::default().with_crl(&crl[..at], &issuers, now()).is_err(), "{at} bytes");
    }
}

/// A CRL with something of everything.
static VARIED: LazyLock<CrlMaker> = LazyLock::new(|| {
    CrlMaker::new(&PKI.issuing, NOW, 1)
        .entry(&entry(&[5], &[]))
        .entry(&entry(&[0, 0x85, 1], &[reason(1)]))
        .entry(&entry(&[1; 20], &[reason(6), extension(UNKNOWN, Critical::No, &[5, 0])]))
        .extension(scope(&[point("http://crl.acme.local/issuing.crl"), flag(1)]))
});

/// Contents of INTEGERs in DER, short ones often, so that sets overlap.
fn contents(most: usize) -> impl Strategy<Value = Vec<Vec<u8>>> {
    let bytes =
        prop_oneof![prop::collection::vec(any::<u8>(), 1..=1), prop::collection::vec(any::<u8>(), 1..=20)];
    prop::collection::vec(bytes.prop_map(minimal), 0..most)
}

fn minimal(mut bytes: Vec<u8>) -> Vec<u8> {
    while let [0, second, ..] | [0xff, second, ..] = bytes[..]
        && (bytes[0] ^ second) & 0x80 == 0
    {
        bytes.remove(0);
    }
    bytes
}

/// One CRL for each list: the first for everything, the others for points of their own.
fn load(crls: &[Vec<Vec<u8>>]) -> RevocationIndex {
    crls.iter().enumerate().fold(RevocationIndex::default(), |index, (n, serials)| {
        let crl = crl_of(&PKI.issuing, 1, serials.iter().cloned());
        let crl = if n == 0 { crl } else { crl.extension(scope(&[point(&format!("http://a/{n}"))])) };
        index.with_crl(&crl.sign(), &[PKI.issuing.certificate().clone()], now()).unwrap()
    })
}

fn crl_of(authority: &Authority, number: u64, serials: impl IntoIterator<Item = Vec<u8>>) -> CrlMaker {
    let entries: Vec<Vec<u8>> = serials.into_iter().map(|serial| entry(&serial, &[])).collect();
    CrlMaker::new(authority, NOW, number).with(|crl| crl.entries = entries.concat())
}

fn pairs(old: &RevocationIndex, new: &RevocationIndex) -> Vec<(Vec<u8>, Vec<u8>)> {
    let found = newly_revoked(old, new);
    let mut pairs: Vec<_> =
        found.map(|found| (found.issuer_der.to_vec(), found.serial.as_bytes().to_vec())).collect();
    pairs.sort_unstable();
    pairs
}

fn expected(issuer: &[u8], serials: &[&[u8]]) -> Vec<(Vec<u8>, Vec<u8>)> {
    serials.iter().map(|serial| (issuer.to_vec(), serial.to_vec())).collect()
}
