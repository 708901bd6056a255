//! T5: what PEM files hold in practice.

use muster_pki::authority::Issued;
use muster_pki::pem::{PemError, certificates, private_key, read};
use muster_pki::{Role, Roots};

use crate::support::{Pki, chain};

#[test]
fn t5_tolerates_crlf_byte_order_mark_and_text_between_blocks() {
    let issued = issued();
    let text = issued.chain_pem.replace("-----BEGIN", "subject=CN = w701\n-----BEGIN");
    let dressed = format!("\u{feff}{}", text.replace('\n', "\r\n"));

    assert_eq!(certificates(dressed.as_bytes(), "a.pem").unwrap(), chain(&issued));
    let marked = format!("\u{feff}{}", issued.chain_pem);
    assert_eq!(certificates(marked.as_bytes(), "a.pem").unwrap(), chain(&issued));
}

#[test]
fn t5_one_bad_block_never_loses_the_others() {
    let issued = issued();
    let good = &issued.certificate_pem;
    for bad in [
        "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\nMIIB\n",
        "-----BEGIN CERTIFICATE----\nMIIB\n-----END CERTIFICATE-----\n",
        "-----BEGIN WHATEVER-----\nMIIB\n-----END WHATEVER-----\n",
    ] {
        let contents = read(format!("{bad}{good}{bad}{good}{bad}").as_bytes(), "a.pem").unwrap();

        assert_eq!(contents.certificates.len(), 2, "{bad}");
        assert_eq!(contents.skipped.len(), 3, "{bad}: {:?}", contents.skipped);
    }
}

#[test]
fn t5_names_the_conversion_of_der_and_pfx() {
    let issued = issued();
    let pfx = [0x30, 0x82, 0x0b, 0x07, 0x02, 0x01, 0x03, 0x30];

    let der = certificates(issued.certificate.der(), "a.cer").unwrap_err();
    let pfx = certificates(&pfx, "a.pfx").unwrap_err();

    assert!(matches!(der, PemError::Der { .. }));
    assert!(der.to_string().contains("openssl x509 -inform DER"), "{der}");
    assert!(matches!(pfx, PemError::Pfx { .. }));
    assert!(pfx.to_string().contains("openssl pkcs12"), "{pfx}");
}

#[test]
fn says_what_stands_there_instead() {
    let issued = issued();

    let no_certificate = certificates(issued.key_pem.as_bytes(), "a.pem").unwrap_err().to_string();
    let no_key = private_key(issued.chain_pem.as_bytes(), "a.pem").unwrap_err().to_string();

    assert!(no_certificate.contains("1 private key"), "{no_certificate}");
    assert!(no_key.contains("2 certificate"), "{no_key}");
    assert!(private_key(issued.key_pem.as_bytes(), "a.pem").is_ok());
}

#[test]
fn names_the_conversion_of_an_encrypted_key() {
    let text = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n";

    let error = private_key(text.as_bytes(), "a.key").unwrap_err();

    assert!(matches!(error, PemError::EncryptedKey { .. }));
}

#[test]
fn roots_drop_duplicates_and_tell_unreadable_certificates() {
    let pki = Pki::new();
    let root = pki.root.certificate_pem();
    let unreadable = "-----BEGIN CERTIFICATE-----\nMAMBAgM=\n-----END CERTIFICATE-----\n";

    let roots = Roots::from_pem(format!("{root}{unreadable}{root}").as_bytes(), "roots.pem").unwrap();

    assert_eq!(roots.len(), 1);
    assert_eq!(roots.skipped().len(), 1);
    assert!(Roots::from_pem(unreadable.as_bytes(), "roots.pem").is_err());
    assert!(Roots::from_pem(b"", "roots.pem").is_err());
}

fn issued() -> Issued {
    Pki::new().issue(Role::Device)
}
