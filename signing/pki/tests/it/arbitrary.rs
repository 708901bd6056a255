//! Foreign bytes never panic.

use std::sync::LazyLock;

use muster_pki::{Certificate, CertificateDer, Facts, RevocationIndex, Role, Roots, check, pem};
use proptest::prelude::*;

use crate::support::{DAY, NOW, Pki, at, chain, now};

static PKI: LazyLock<Pki> = LazyLock::new(Pki::new);
static CHAIN: LazyLock<Vec<CertificateDer<'static>>> = LazyLock::new(|| chain(&PKI.issue(Role::Device)));

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn from_der_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let read = Certificate::from_der(&bytes);

        prop_assert!(read.is_err());
    }

    #[test]
    fn pem_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        for file in [bytes.clone(), [b"-----BEGIN CERTIFICATE-----\n", bytes.as_slice()].concat()] {
            let outcomes = (pem::read(&file, "file").is_ok(), Roots::from_pem(&file, "file").is_ok());
            prop_assert!(!outcomes.1);
            prop_assert!(pem::private_key(&file, "file").is_err());
        }
    }

    #[test]
    fn pem_lines_in_any_order_never_panic(lines in prop::collection::vec(prop::sample::select(vec![
        "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----", "-----BEGIN PRIVATE KEY-----", "MIIB", "=", "",
        "-----END PRIVATE KEY-----", "-----BEGIN ", "-----END ", "-----", "\u{feff}-----BEGIN CERTIFICATE-----",
    ]), 0..20)) {
        prop_assert!(pem::read(lines.join("\n").as_bytes(), "file").is_ok());
    }

    #[test]
    fn a_changed_certificate_never_panics_nor_passes(index in any::<prop::sample::Index>(), value in any::<u8>(), cut in any::<bool>()) {
        let mut leaf = CHAIN[0].to_vec();
        let byte = index.index(leaf.len());
        prop_assume!(leaf[byte] != value);
        leaf[byte] = value;
        if cut {
            leaf.truncate(byte);
        }
        let mut chain = CHAIN.clone();
        chain[0] = leaf.into();

        for role in Role::ALL {
            prop_assert!(!check(role, &chain, &PKI.roots, &Facts::at(now())).is_accepted());
        }
    }

    #[test]
    fn crls_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(RevocationIndex::default().with_crl(&bytes, &[], now()).is_err());
    }

    #[test]
    fn any_time_gives_a_verdict(seconds in any::<u64>()) {
        let verdict = check(Role::Device, &CHAIN, &PKI.roots, &Facts::at(at(seconds)));

        let valid = (NOW - 3_600..=NOW + 90 * DAY).contains(&seconds);
        prop_assert_eq!(verdict.is_accepted(), valid);
    }
}
