//! C5: an identity from whatever files a person has, and what is wrong with them.

use muster_pki::{Format, Identity, IdentityError, IdentityFiles, NamedBytes, PrivateKeyDer};

use crate::forge::{ED25519, Forge, P256, P384, RSA_2048};

const SECRET: Option<&str> = Some("secret");

#[test]
fn c5_reads_pem_keys_of_every_kind_and_notation() {
    for (name, algorithm) in [("RSA", RSA_2048), ("P-256", P256), ("P-384", P384), ("Ed25519", ED25519)] {
        let forge = Forge::with_leaf_of(algorithm);
        let chain = forge.join("chain.pem", &["leaf.pem", "ca.pem"]);
        let mut keys = vec![("PKCS#8", forge.read("leaf.key"))];
        if algorithm != ED25519 {
            keys.push(("PKCS#1 or SEC 1", forge.openssl(&["pkey", "-in", "leaf.key", "-traditional"])));
        }
        for (notation, key) in keys {
            let beside =
                read(&chain, Some(&key), None).unwrap_or_else(|error| panic!("{name} {notation}: {error}"));
            let together = read(&[chain.clone(), key.clone()].concat(), None, None).unwrap();

            for identity in [beside, together] {
                assert_eq!(*identity.leaf(), forge.certificate("leaf"), "{name} {notation}");
                assert_eq!(identity.authorities(), [forge.certificate("ca")], "{name} {notation}");
                assert_eq!(identity.format(), Format::Pem);
                assert_eq!(identity.skipped(), [] as [&str; 0], "{name} {notation}");
            }
        }
    }
}

#[test]
fn c5_finds_the_leaf_and_orders_the_chain_whatever_the_file_s_order() {
    let forge = Forge::with_leaf();
    forge.issue("other", "/CN=Other", P256, "basicConstraints=CA:TRUE", None);
    forge.issue("namesake", "/CN=Issuing", P256, "basicConstraints=CA:TRUE", Some("other"));
    let key = forge.read("leaf.key");
    for order in [
        ["leaf.pem", "ca.pem", "root.pem", "namesake.pem"],
        ["root.pem", "namesake.pem", "ca.pem", "leaf.pem"],
        ["namesake.pem", "leaf.pem", "root.pem", "ca.pem"],
        ["ca.pem", "root.pem", "leaf.pem", "namesake.pem"],
    ] {
        let pem = forge.join("all.pem", &[&order[..], &["leaf.pem"]].concat());
        // Without a key, openssl keeps the order of the file.
        forge.openssl(&[
            "pkcs12", "-export", "-nokeys", "-in", "all.pem", "-passout", "pass:", "-out", "all.pfx",
        ]);

        for certificates in [pem, forge.read("all.pfx")] {
            let identity = read(&certificates, Some(&key), None).unwrap();

            assert_eq!(*identity.leaf(), forge.certificate("leaf"), "{order:?}");
            assert_eq!(identity.authorities(), [forge.certificate("ca")], "{order:?}");
            assert_eq!(identity.chain_der().len(), 2);
            assert_eq!(identity.unused().len(), 2, "the root and the namesake: {order:?}");
        }
    }
}

#[test]
fn n1_of_two_certificates_for_one_key_the_one_that_is_valid_longer_counts() {
    let forge = Forge::with_leaf();
    forge.openssl(&[
        "req",
        "-x509",
        "-key",
        "leaf.key",
        "-days",
        "900",
        "-subj",
        "/CN=w701",
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-config",
        "leaf.cnf",
        "-out",
        "renewed.pem",
    ]);
    let key = forge.read("leaf.key");

    for order in [["leaf.pem", "renewed.pem"], ["renewed.pem", "leaf.pem"]] {
        let identity = read(&forge.join("both.pem", &order), Some(&key), None).unwrap();

        assert_eq!(*identity.leaf(), forge.certificate("renewed"), "{order:?}");
        assert_eq!(identity.unused(), [forge.certificate("leaf")], "{order:?}");
    }
}

#[test]
fn c5_cross_signed_cas_are_all_sent_and_foreign_ones_are_not() {
    let forge = Forge::with_leaf();
    forge.issue("old", "/CN=Old Root", P256, "basicConstraints=critical,CA:TRUE", None);
    forge.openssl(&[
        "req",
        "-x509",
        "-key",
        "ca.key",
        "-days",
        "90",
        "-subj",
        "/CN=Issuing",
        "-CA",
        "old.pem",
        "-CAkey",
        "old.key",
        "-config",
        "ca.cnf",
        "-out",
        "cross.pem",
    ]);
    let chain = forge.join("chain.pem", &["cross.pem", "leaf.pem", "ca.pem", "old.pem"]);

    let identity = read(&chain, Some(&forge.read("leaf.key")), None).unwrap();

    assert_eq!(identity.authorities(), [forge.certificate("cross"), forge.certificate("ca")]);
    assert_eq!(identity.unused(), [forge.certificate("old")]);
}

#[test]
fn c5_decrypts_pkcs8_keys_of_every_scheme() {
    let forge = Forge::with_leaf();
    let chain = forge.read("leaf.pem");
    let schemes: [&[&str]; 7] = [
        &[],
        &["-v2", "aes-128-cbc", "-v2prf", "hmacWithSHA1"],
        &["-v2", "aes-192-cbc", "-v2prf", "hmacWithSHA384"],
        &["-v2", "aes-256-cbc", "-v2prf", "hmacWithSHA512", "-iter", "50000"],
        &["-v2", "des3"],
        &["-v1", "PBE-SHA1-3DES"],
        &["-v1", "PBE-SHA1-RC2-40", "-provider", "legacy", "-provider", "default"],
    ];
    for scheme in schemes {
        let arguments = ["pkcs8", "-topk8", "-in", "leaf.key", "-passout", "pass:secret"];
        let key = forge.openssl(&[&arguments[..], scheme].concat());

        let right = read(&chain, Some(&key), SECRET).unwrap_or_else(|error| panic!("{scheme:?}: {error}"));
        let wrong = read(&chain, Some(&key), Some("another")).unwrap_err();
        let none = read(&chain, Some(&key), None).unwrap_err();

        assert!(matches!(right.key(), PrivateKeyDer::Pkcs8(_)));
        assert!(matches!(wrong, IdentityError::KeyPasswordWrong { .. }), "{scheme:?}: {wrong}");
        assert!(matches!(none, IdentityError::KeyPasswordMissing { .. }), "{scheme:?}: {none}");
        assert!(none.to_string().contains("`openssl pkey -in a.key -out a.key.key`"), "{none}");
    }
}

#[test]
fn c5_keys_encrypted_in_other_ways_name_the_command_that_converts_them() {
    let forge = Forge::with_leaf();
    let chain = forge.read("leaf.pem");
    let old = forge.openssl(&["ec", "-in", "leaf.key", "-aes256", "-passout", "pass:secret"]);
    let encrypt = ["pkcs8", "-topk8", "-in", "leaf.key", "-passout", "pass:secret"];
    let scrypt = forge.openssl(&[&encrypt[..], &["-scrypt", "-scrypt_N", "16"]].concat());
    let des = ["-v1", "PBE-MD5-DES", "-provider", "legacy", "-provider", "default"];
    let des = forge.openssl(&[&encrypt[..], &des].concat());

    let old = read(&chain, Some(&old), SECRET).unwrap_err();
    assert!(matches!(old, IdentityError::LegacyEncryptedKey { .. }), "{old}");
    assert!(old.to_string().contains("`openssl pkcs8 -topk8 -v2 aes-256-cbc -in a.key"), "{old}");
    for (key, named) in [(scrypt, "1.3.6.1.4.1.11591.4.11"), (des, "1.2.840.113549.1.5.3")] {
        let error = read(&chain, Some(&key), SECRET).unwrap_err();
        assert!(matches!(error, IdentityError::KeyEncryption { .. }), "{error}");
        assert!(error.to_string().contains(named), "{error}");
        assert!(error.to_string().contains("`openssl pkcs8 -topk8"), "{error}");
    }
}

#[test]
fn c5_a_key_that_belongs_to_no_certificate_is_told_with_both_names() {
    let forge = Forge::with_leaf();
    forge.leaf("other", "/CN=w702", P256);
    let other = forge.read("other.key");

    let pem = read(&forge.read("leaf.pem"), Some(&other), None).unwrap_err();
    let arguments = ["pkcs12", "-export", "-nokeys", "-in", "leaf.pem", "-passout", "pass:", "-out", "n.pfx"];
    forge.openssl(&arguments);
    let pfx = read(&forge.read("n.pfx"), Some(&other), None).unwrap_err();
    let wrong_kind =
        read(&forge.read("leaf.pem"), Some(&forge.openssl(&["genpkey", "-algorithm", "ed25519"])), None);

    for error in [pem, pfx, wrong_kind.unwrap_err()] {
        assert!(matches!(error, IdentityError::KeyMismatch { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("a.key") && text.contains("CN=w701") && text.contains("-pubkey"), "{text}");
    }
}

#[test]
fn c5_no_key_several_keys_and_unusable_keys_are_told() {
    let forge = Forge::with_leaf();
    forge.leaf("other", "/CN=w702", P256);
    let (chain, key, other) = (forge.read("leaf.pem"), forge.read("leaf.key"), forge.read("other.key"));
    forge.openssl(&["pkcs12", "-export", "-nokeys", "-in", "leaf.pem", "-passout", "pass:", "-out", "n.pfx"]);
    let no_key = forge.read("n.pfx");
    let short = forge.openssl(&["genpkey", "-algorithm", "rsa", "-pkeyopt", "rsa_keygen_bits:1024"]);
    let damaged = b"-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n".to_vec();
    let unusable = |error: &IdentityError| matches!(error, IdentityError::KeyUnusable { .. });
    let none = |error: &IdentityError| matches!(error, IdentityError::NoKey { .. });
    let several = |error: &IdentityError| matches!(error, IdentityError::SeveralKeys { count: 2, .. });

    for (case, certificate, key, expected) in [
        ("PEM without key", chain.clone(), None, &none as &dyn Fn(&IdentityError) -> bool),
        ("PFX without key", no_key, None, &none),
        ("a certificate as key", chain.clone(), Some(chain.clone()), &none),
        ("two keys", [chain.clone(), key.clone(), other.clone()].concat(), None, &several),
        ("two keys in the key file", chain.clone(), Some([key.clone(), other].concat()), &several),
        ("RSA 1024", chain.clone(), Some(short), &unusable),
        ("no key inside", chain.clone(), Some(damaged), &unusable),
    ] {
        let error = read(&certificate, key.as_deref(), None).unwrap_err();

        assert!(expected(&error), "{case}: {error:?}");
    }
    let twice = read(&[chain, key.clone(), key].concat(), None, None);
    assert!(twice.is_ok(), "the same key twice is one key");
}

#[test]
fn c13_several_keys_in_a_pfx_are_told() {
    // openssl exports one key; a second bag is spliced in, where nothing is encrypted and nothing is signed.
    let forge = Forge::with_leaf();
    forge.leaf("other", "/CN=w702", P256);
    let plain = ["-nomac", "-keypbe", "NONE", "-certpbe", "NONE"];
    let one = forge.pfx("", &plain);
    forge.write("leaf.pem", &forge.read("other.pem"));
    forge.write("leaf.key", &forge.read("other.key"));
    let two = forge.pfx("", &plain);

    let error = read(&splice(&one, &two), None, None).unwrap_err();

    assert_eq!(error, IdentityError::SeveralKeys { what: "a.pem".to_owned(), count: 2 });
}

#[test]
fn c5_files_of_other_formats_are_named_with_their_conversion() {
    let forge = Forge::with_leaf();
    let (chain, key) = (forge.read("leaf.pem"), forge.read("leaf.key"));
    let der = forge.openssl(&["x509", "-in", "leaf.pem", "-outform", "DER"]);
    let key_der = forge.openssl(&["pkey", "-in", "leaf.key", "-outform", "DER"]);
    let p7b = forge.openssl(&["crl2pkcs7", "-nocrl", "-certfile", "leaf.pem", "-outform", "DER"]);
    let pfx = forge.pfx("secret", &[]);
    for (certificate, key, expected) in [
        (&b""[..], Some(&key[..]), "a.pem: an empty file; wanted PEM or a PFX"),
        (&chain, Some(b""), "a.key: an empty file; wanted PEM"),
        (
            &der,
            Some(&key),
            "a.pem: a certificate in DER; wanted PEM or a PFX (PKCS#12); convert it: `openssl x509 -inform DER -in a.pem",
        ),
        (
            &p7b,
            Some(&key),
            "a.pem: a PKCS#7 file (.p7b); wanted PEM or a PFX (PKCS#12); convert it: `openssl pkcs7",
        ),
        (&key_der, None, "a.pem: a private key in DER"),
        (
            &chain,
            Some(&key_der),
            "a.key: a private key in DER; wanted PEM or a PFX (PKCS#12); convert it: `openssl pkey -inform DER -in a.key",
        ),
        (
            &chain,
            Some(&pfx),
            "a.key: a PFX (PKCS#12) file; wanted a PEM key; give the PFX as the certificate",
        ),
        (&pfx, Some(&key), "a.pem: holds the private key already, and a.key is given as well"),
        (b"hello", Some(&key), "a.pem: a text without a PEM block"),
        (&key, None, "a.pem: no certificate"),
        (
            b"-----BEGIN CERTIFICATE-----\nMAMBAgM=\n-----END CERTIFICATE-----\n",
            Some(&key),
            "a.pem: no certificate; it holds 1 certificate(s); a.pem: certificate 1: certificate:",
        ),
    ] {
        let error = read(certificate, key, SECRET).unwrap_err().to_string();

        assert!(error.contains(expected), "{error}\nwanted {expected}");
    }
}

#[test]
fn t5_identity_files_may_have_crlf_marks_text_and_bad_blocks() {
    let forge = Forge::with_leaf();
    let all = String::from_utf8(forge.join("all.pem", &["ca.pem", "leaf.pem", "leaf.key"])).unwrap();
    let dressed = all.replace("-----BEGIN", "Bag Attributes\n    friendlyName: w701\n-----BEGIN");
    let torn = "-----BEGIN CERTIFICATE-----\nMIIB\n".to_owned() + &all;
    let unreadable = all.clone() + "-----BEGIN CERTIFICATE-----\nMAMBAgM=\n-----END CERTIFICATE-----\n";
    let utf16: Vec<u8> = format!("\u{feff}{all}").encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (case, bytes, skipped) in [
        ("CRLF and mark", format!("\u{feff}{}", dressed.replace('\n', "\r\n")).into_bytes(), 0),
        ("torn block", torn.into_bytes(), 1),
        ("unreadable block", unreadable.into_bytes(), 1),
        ("UTF-16, as PowerShell writes it", utf16, 0),
    ] {
        let identity = read(&bytes, None, None).unwrap_or_else(|error| panic!("{case}: {error}"));

        assert_eq!(*identity.leaf(), forge.certificate("leaf"), "{case}");
        assert_eq!(identity.authorities().len(), 1, "{case}");
        assert_eq!(identity.skipped().len(), skipped, "{case}: {:?}", identity.skipped());
    }
}

#[test]
fn c5_no_debug_text_shows_the_key_or_the_password() {
    let forge = Forge::with_leaf();
    let (chain, key) = (forge.read("leaf.pem"), forge.read("leaf.key"));
    let certificate = NamedBytes { what: "a.pem", bytes: &chain };
    let files = IdentityFiles {
        certificate,
        key: Some(NamedBytes { what: "a.key", bytes: &key }),
        password: Some("hunter2"),
    };

    let identity = Identity::read(&files).unwrap();

    let secret = identity.key().secret_der();
    for text in [format!("{files:?}"), format!("{identity:?}")] {
        assert!(!text.contains("hunter2") && !text.contains(&format!("{secret:?}")), "{text}");
    }
}

fn read(certificate: &[u8], key: Option<&[u8]>, password: Option<&str>) -> Result<Identity, IdentityError> {
    Identity::read(&IdentityFiles {
        certificate: NamedBytes { what: "a.pem", bytes: certificate },
        key: key.map(|bytes| NamedBytes { what: "a.key", bytes }),
        password,
    })
}

/// Joins the safes of two PFX files without MAC.
fn splice(one: &[u8], two: &[u8]) -> Vec<u8> {
    // PFX { 3, { id-data, [0] { OCTET STRING { safes } } } }: the safes begin behind four headers of four bytes each.
    let safes = |pfx: &[u8]| {
        let oid = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
        let at = pfx.windows(oid.len()).position(|window| window == oid).unwrap() + oid.len();
        pfx[at + 12..].to_vec() // [0], OCTET STRING and SEQUENCE
    };
    let wrap = |tag: u8, inside: &[u8]| {
        let length = u16::try_from(inside.len()).unwrap().to_be_bytes();
        [&[tag, 0x82][..], &length, inside].concat()
    };
    let both = wrap(0x30, &[safes(one), safes(two)].concat());
    let content = wrap(0xa0, &wrap(0x04, &both));
    let data = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
    wrap(0x30, &[&[0x02, 0x01, 0x03][..], &wrap(0x30, &[&data[..], &content].concat())].concat())
}
