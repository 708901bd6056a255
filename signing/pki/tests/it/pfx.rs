//! C13: PFX files as `openssl pkcs12` writes them, and as they arrive: locked, torn, mistaken for something else.

use std::sync::LazyLock;

use muster_pki::pfx::{PFX_BYTES_MAX, PfxError, read};
use muster_pki::{Format, Identity, IdentityFiles, NamedBytes};
use proptest::prelude::*;

use crate::forge::{ED25519, Forge, P256, P384, RSA_2048, RSA_4096};

const LEGACY: &[&str] = &["-legacy"];
const TRIPLE_DES: &[&str] = &["-keypbe", "PBE-SHA1-3DES", "-certpbe", "PBE-SHA1-3DES", "-macalg", "sha1"];

#[test]
fn c13_opens_every_kind_of_key_in_every_age_of_file() {
    for (name, key) in [
        ("RSA 2048", RSA_2048),
        ("RSA 4096", RSA_4096),
        ("P-256", P256),
        ("P-384", P384),
        ("Ed25519", ED25519),
    ] {
        let forge = Forge::with_leaf_of(key);
        for (age, options) in [("OpenSSL 3", &[] as &[&str]), ("legacy", LEGACY), ("3DES", TRIPLE_DES)] {
            let pfx = forge.pfx("secret", options);

            let identity =
                identity(&pfx, Some("secret")).unwrap_or_else(|error| panic!("{name}, {age}: {error}"));

            assert_eq!(*identity.leaf(), forge.certificate("leaf"), "{name}, {age}");
            assert_eq!(identity.authorities(), [forge.certificate("ca")], "{name}, {age}");
            assert_eq!(identity.format(), Format::Pfx);
        }
    }
}

#[test]
fn c13_opens_every_protection_that_openssl_offers() {
    let forge = Forge::with_leaf();
    let options: &[&[&str]] = &[
        &["-keypbe", "AES-128-CBC", "-certpbe", "AES-192-CBC"],
        &["-keypbe", "DES-EDE3-CBC", "-certpbe", "AES-256-CBC"],
        &["-legacy", "-keypbe", "PBE-SHA1-RC2-128", "-certpbe", "PBE-SHA1-RC2-40"],
        &["-keypbe", "PBE-SHA1-2DES", "-certpbe", "PBE-SHA1-2DES"],
        &["-keypbe", "NONE", "-certpbe", "NONE"],
        &["-keypbe", "NONE"],
        &["-certpbe", "NONE"],
        &["-nomac"],
        &["-legacy", "-nomac"],
        &["-nomac", "-keypbe", "NONE", "-certpbe", "NONE"],
        &["-macalg", "sha384"],
        &["-macalg", "sha512"],
        &["-macalg", "sha1"],
        &["-noiter", "-nomaciter"],
        &["-iter", "100000"],
        &["-name", "Gerät W701", "-caname", "Müller & Söhne"],
        &["-keyex", "-CSP", "Microsoft Enhanced RSA and AES Cryptographic Provider", "-LMK"],
        &["-keysig"],
    ];
    for options in options {
        let pfx = forge.pfx("secret", options);

        let identity = identity(&pfx, Some("secret")).unwrap_or_else(|error| panic!("{options:?}: {error}"));

        assert_eq!(*identity.leaf(), forge.certificate("leaf"), "{options:?}");
        assert_eq!(identity.authorities(), [forge.certificate("ca")], "{options:?}");
    }
}

#[test]
fn c13_opens_passwords_of_every_script_and_the_empty_one() {
    let forge = Forge::with_leaf();
    let long = "0123456789".repeat(10);
    for password in ["", " ", "secret", "two words", "grüße", "пароль", "密码", "\u{1f511} key", &long]
    {
        for options in [&[] as &[&str], LEGACY, TRIPLE_DES, &["-nomac"], &["-legacy", "-nomac"]] {
            let pfx = forge.pfx(password, options);

            let right = read(&pfx, Some(password), "a.pfx");
            let wrong = read(&pfx, Some("another"), "a.pfx");

            let contents = right.unwrap_or_else(|error| panic!("{password:?} {options:?}: {error}"));
            assert_eq!(
                (contents.certificates.len(), contents.keys.len()),
                (2, 1),
                "{password:?} {options:?}"
            );
            assert!(
                matches!(wrong, Err(PfxError::PasswordWrong { .. })),
                "{password:?} {options:?}: {wrong:?}"
            );
        }
    }
}

#[test]
fn c13_a_missing_password_is_told_from_a_wrong_one() {
    let forge = Forge::with_leaf();
    let (locked, open) = (forge.pfx("secret", &[]), forge.pfx("", &[]));

    let missing = read(&locked, None, "a.pfx").unwrap_err();
    let wrong = read(&locked, Some("Secret"), "a.pfx").unwrap_err();

    assert_eq!(missing, PfxError::PasswordMissing { what: "a.pfx".to_owned() });
    assert_eq!(wrong, PfxError::PasswordWrong { what: "a.pfx".to_owned() });
    assert!(wrong.to_string().contains("`openssl pkcs12 -in a.pfx -noout`"), "{wrong}");
    assert!(read(&open, None, "a.pfx").is_ok());
}

#[test]
fn c13_every_other_file_is_named_with_its_remedy() {
    let forge = Forge::with_leaf();
    let pfx = forge.pfx("secret", &[]);
    let der = forge.openssl(&["x509", "-in", "leaf.pem", "-outform", "DER"]);
    let key = forge.openssl(&["pkey", "-in", "leaf.key", "-outform", "DER"]);
    let locked_key =
        forge.openssl(&["pkcs8", "-topk8", "-in", "leaf.key", "-outform", "DER", "-passout", "pass:secret"]);
    let p7b = forge.openssl(&["crl2pkcs7", "-nocrl", "-certfile", "leaf.pem", "-outform", "DER"]);
    let pem = forge.read("leaf.pem");
    for (bytes, expected) in [
        (&b""[..], "a.pfx: an empty file; wanted a PFX (PKCS#12); make it again: `openssl pkcs12 -export"),
        (b"\r\n", "a.pfx: an empty file; wanted a PFX"),
        (&pem, "a.pfx: PEM; wanted a PFX (PKCS#12); make one: `openssl pkcs12 -export -in a.pfx"),
        (&der, "a.pfx: a certificate in DER; wanted a PFX (PKCS#12); it has no key"),
        (&key, "a.pfx: a private key in DER; wanted a PFX"),
        (&locked_key, "a.pfx: an encrypted private key in DER; wanted a PFX"),
        (&p7b, "a.pfx: a PKCS#7 file (.p7b); wanted a PFX"),
        (b"hello", "a.pfx: a text without a PEM block; wanted a PFX"),
        (&[0; 100], "a.pfx: neither PEM nor DER; wanted a PFX"),
        (&pfx[..pfx.len() - 1], "wanted the whole file; copy it again, in binary mode"),
        (&pfx[..8], "a.pfx: ends after 8 of "),
        (&[pfx.clone(), vec![0]].concat(), "a.pfx: damaged: "),
        (
            &indefinite(&pfx),
            "a.pfx: BER with indefinite lengths; wanted DER; export it again: `openssl pkcs12",
        ),
        (&vec![0x30; PFX_BYTES_MAX + 1], "wanted at most 1048576"),
    ] {
        let error = read(bytes, Some("secret"), "a.pfx").unwrap_err().to_string();

        assert!(error.contains(expected), "{error}\nwanted {expected}");
    }
}

#[test]
fn c13_the_iterations_of_mac_certificates_and_key_are_bounded_together() {
    // 100,000 iterations take three bytes, which have room for more than are spent.
    const ASKED: &[u8] = &[0x02, 0x03, 0x01, 0x86, 0xa0];
    const TOO_MANY: &[u8] = &[0x02, 0x03, 0x7f, 0xff, 0xff];
    const HALF: &[u8] = &[0x02, 0x03, 0x3e, 0xff, 0xff];
    let forge = Forge::with_leaf();
    let options: [(&str, &[&str], &[u8]); 4] = [
        ("the certificates alone", &["-nomac", "-certpbe", "AES-256-CBC"], TOO_MANY),
        ("the key alone", &["-nomac", "-certpbe", "NONE"], TOO_MANY),
        ("the MAC alone", &["-certpbe", "NONE", "-keypbe", "NONE"], TOO_MANY),
        ("three blocks of an old key", &["-nomac", "-certpbe", "NONE", "-keypbe", "PBE-SHA1-3DES"], HALF),
    ];
    for (case, options, iterations) in options {
        // `-iter` comes first: behind `-nomac` it would bring the MAC back.
        let pfx = forge.pfx("secret", &[&["-iter", "100000"], options].concat());
        let at = pfx.windows(ASKED.len()).position(|window| window == ASKED).unwrap();
        let greedy = [&pfx[..at], iterations, &pfx[at + ASKED.len()..]].concat();

        let error = read(&greedy, Some("secret"), "a.pfx").unwrap_err();

        assert!(matches!(error, PfxError::TooManyRounds { .. }), "{case}: {error}");
        assert!(error.to_string().contains("-iter 100000"), "{case}: {error}");
    }
}

#[test]
fn c13_an_unsupported_algorithm_is_named() {
    let forge = Forge::with_leaf();
    for (options, expected) in [
        (&["-keypbe", "CAMELLIA-256-CBC"][..], "1.2.392.200011.61.1.1.1.4"),
        (&["-macalg", "md5"], "1.2.840.113549.2.5"),
        (&["-macalg", "sha3-256"], "2.16.840.1.101.3.4.2.8"),
        (&["-legacy", "-keypbe", "PBE-SHA1-RC4-128"], "1.2.840.113549.1.12.1.1"),
    ] {
        let pfx = forge.pfx("secret", options);

        let error = read(&pfx, Some("secret"), "a.pfx").unwrap_err();

        assert!(matches!(error, PfxError::Unsupported { .. }), "{options:?}: {error}");
        assert!(error.to_string().contains(expected), "{options:?}: {error}");
    }
}

static FILES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let forge = Forge::with_leaf();
    let options: [&[&str]; 4] = [&[], LEGACY, &["-nomac"], &["-legacy", "-nomac"]];
    options.iter().map(|options| forge.pfx("secret", &[&["-iter", "10"], *options].concat())).collect()
});

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn c13_a_changed_file_never_panics_and_under_a_mac_never_gives_other_contents(
        file in 0..4_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let original = &FILES[file];
        let mut changed = original.clone();
        for (index, value) in &changes {
            let at = index.index(changed.len());
            changed[at] = *value;
        }
        if let Some(cut) = cut {
            changed.truncate(cut.index(changed.len()));
        }

        if let (Ok(contents), true) = (read(&changed, Some("secret"), "a.pfx"), file < 2) {
            let expected = read(original, Some("secret"), "a.pfx").unwrap();
            prop_assert_eq!(contents.certificates, expected.certificates);
            prop_assert_eq!(contents.keys, expected.keys);
        }
        // Without a MAC nothing tells a changed name; the certificate's signature does, which the checker verifies.
        drop(identity(&changed, Some("secret")));
    }

    #[test]
    fn c13_foreign_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let with_header = [&[0x30, 0x82, 0x01, 0x00, 0x02, 0x01, 0x03][..], &bytes].concat();

        prop_assert!(read(&bytes, Some(""), "a.pfx").is_err());
        prop_assert!(read(&with_header, None, "a.pfx").is_err());
    }
}

fn identity(pfx: &[u8], password: Option<&str>) -> Result<Identity, muster_pki::IdentityError> {
    let certificate = NamedBytes { what: "a.pfx", bytes: pfx };
    Identity::read(&IdentityFiles { certificate, key: None, password })
}

/// Writes the outermost length in BER's indefinite form.
fn indefinite(pfx: &[u8]) -> Vec<u8> {
    assert_eq!(pfx[1], 0x82);
    [&[0x30, 0x80][..], &pfx[4..], &[0, 0]].concat()
}
