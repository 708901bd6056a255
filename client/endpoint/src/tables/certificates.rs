//! `certificates`: X.509 certificates in PEM files.
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use der::asn1::{ObjectIdentifier, UintRef};
use der::{Decode as _, Reader as _, SliceReader};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_cert::Certificate;
use x509_cert::ext::pkix::BasicConstraints;
use x509_cert::spki::SubjectPublicKeyInfoOwned;

use super::machine::read_bounded;
use super::name::written;
use super::walk::{Found, Walk, walk};
use super::{Machine, Row, Rows, Scan, Table, TableError};
use crate::schema::{ColumnSchema, Search, TableSchema};
use crate::value::SqlValue;

pub(crate) const SCHEMA: TableSchema = TableSchema {
    name: "certificates",
    description: "X.509 certificates in PEM files, a row for each in a file. Looks into /etc/ssl/certs, without \
                  OpenSSL's links by hash, unless the WHERE clause has `path = …`, `path IN (…)` or `path GLOB …` \
                  (SQLite's: `*` goes through folders). What can't be read as a certificate has NULLs.",
    columns: &[
        ColumnSchema::text("path", "The file").searched(Search::EqualOrGlob),
        ColumnSchema::text("subject", "Name of the holder, RFC 4514: the most special part first"),
        ColumnSchema::text("issuer", "Name of the issuer, RFC 4514"),
        ColumnSchema::text("serial", "Serial number in upper-case hexadecimal, as `openssl x509 -serial`"),
        ColumnSchema::integer("not_before", "Start of its validity, Unix seconds"),
        ColumnSchema::integer("not_after", "End of its validity, Unix seconds"),
        ColumnSchema::text("sha256", "Thumbprint: SHA-256 of its DER in lower-case hexadecimal"),
        ColumnSchema::text(
            "key_type",
            "`RSA`, `EC`, `Ed25519`, `Ed448` or the algorithm's object identifier",
        ),
        ColumnSchema::integer("key_bits", "Size of the key"),
        ColumnSchema::integer("is_ca", "1 if it may issue certificates"),
    ],
    needs: None,
};

/// The folder that is looked into without a constraint.
const FOLDER: &str = "/etc/ssl/certs";
/// A PEM file; the usual bundle of all roots has 220 KiB.
const PEM_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// What OpenSSL calls a link by hash: eight hexadecimal digits, a dot, a number.
const HASH_DIGITS: usize = 8;

/// Table `certificates`.
#[derive(Debug)]
pub(crate) struct Certificates;

impl Table for Certificates {
    fn schema(&self) -> &'static TableSchema {
        &SCHEMA
    }

    fn rows(&self, scan: &Scan) -> Result<Rows, TableError> {
        let found = match walk(scan)? {
            Some(found) => found,
            None => usual(&scan.machine),
        };
        let machine = Arc::clone(&scan.machine);
        Ok(Box::new(found.flat_map(move |found| match found {
            Ok(found) => certificates(&machine, &found.path).into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        })))
    }
}

fn usual(machine: &Machine) -> Walk {
    let names = machine.names(FOLDER).into_iter().filter(|name| !is_hash_link(name));
    Box::new(names.map(|name| Ok(Found { path: PathBuf::from(format!("{FOLDER}/{name}")), glob: None })))
}

fn is_hash_link(name: &str) -> bool {
    name.split_once('.').is_some_and(|(hash, number)| {
        hash.len() == HASH_DIGITS
            && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
            && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// The rows of one file; none if it isn't a readable file with PEM certificates in it.
fn certificates(machine: &Machine, path: &Path) -> Vec<Box<dyn Row>> {
    let place = machine.path(path);
    if !place.is_file() {
        return Vec::new();
    }
    let Ok(bytes) = read_bounded(&place, PEM_BYTES_MAX) else { return Vec::new() };
    CertificateDer::pem_slice_iter(&bytes)
        .filter_map(Result::ok)
        .map(|der| Box::new(row(&path.to_string_lossy(), &der)) as Box<dyn Row>)
        .collect()
}

fn row(path: &str, bytes: &[u8]) -> Vec<SqlValue> {
    let certificate = Certificate::from_der(bytes).ok();
    let body = certificate.as_ref().map(|certificate| &certificate.tbs_certificate);
    let seconds = |time: &x509_cert::time::Time| time.to_unix_duration().as_secs();
    let key = body.map(|body| Key::of(&body.subject_public_key_info));
    vec![
        path.into(),
        body.map(|body| written(&body.subject)).into(),
        body.map(|body| written(&body.issuer)).into(),
        body.map(|body| serial(body.serial_number.as_bytes())).into(),
        body.map(|body| seconds(&body.validity.not_before)).into(),
        body.map(|body| seconds(&body.validity.not_after)).into(),
        hex::encode(digest(&SHA256, bytes)).into(),
        key.as_ref().map(|key| key.kind.clone()).into(),
        key.and_then(|key| key.bits).into(),
        body.map(
            |body| matches!(body.get::<BasicConstraints>(), Ok(Some((_, constraints))) if constraints.ca),
        )
        .into(),
    ]
}

/// Without the zero byte that DER puts before a high bit.
fn serial(bytes: &[u8]) -> String {
    let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len().saturating_sub(1));
    hex::encode_upper(&bytes[start..])
}

struct Key {
    kind: String,
    bits: Option<u32>,
}

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const ED448: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.113");
/// The named curves of RFC 5480 and RFC 5639 that certificates use, with the size of their field.
const CURVES: &[(ObjectIdentifier, u32)] = &[
    (ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7"), 256),
    (ObjectIdentifier::new_unwrap("1.3.132.0.34"), 384),
    (ObjectIdentifier::new_unwrap("1.3.132.0.35"), 521),
    (ObjectIdentifier::new_unwrap("1.3.132.0.33"), 224),
    (ObjectIdentifier::new_unwrap("1.3.132.0.10"), 256),
    (ObjectIdentifier::new_unwrap("1.3.36.3.3.2.8.1.1.7"), 256),
    (ObjectIdentifier::new_unwrap("1.3.36.3.3.2.8.1.1.11"), 384),
    (ObjectIdentifier::new_unwrap("1.3.36.3.3.2.8.1.1.13"), 512),
];

impl Key {
    fn of(information: &SubjectPublicKeyInfoOwned) -> Self {
        let algorithm = information.algorithm.oid;
        let curve = || {
            let curve = information.algorithm.parameters.as_ref()?.decode_as::<ObjectIdentifier>().ok()?;
            CURVES.iter().find(|(known, _)| *known == curve).map(|(_, bits)| *bits)
        };
        let (kind, bits) = if algorithm == RSA {
            ("RSA".to_owned(), modulus_bits(information.subject_public_key.raw_bytes()))
        } else if algorithm == EC {
            ("EC".to_owned(), curve())
        } else if algorithm == ED25519 {
            ("Ed25519".to_owned(), Some(256))
        } else if algorithm == ED448 {
            ("Ed448".to_owned(), Some(456))
        } else {
            (algorithm.to_string(), None)
        };
        Self { kind, bits }
    }
}

/// The length of the first integer of RSAPublicKey (RFC 8017 §A.1.1).
fn modulus_bits(key: &[u8]) -> Option<u32> {
    let mut reader = SliceReader::new(key).ok()?;
    let modulus = reader
        .sequence(|inner| {
            let modulus = UintRef::decode(inner)?;
            UintRef::decode(inner)?;
            Ok(modulus.as_bytes().to_vec())
        })
        .ok()?;
    let unused = modulus.first()?.leading_zeros();
    u32::try_from(modulus.len()).ok()?.checked_mul(8)?.checked_sub(unused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_by_hash_are_told_from_other_files() {
        assert!(is_hash_link("002c0b4f.0"));
        assert!(!is_hash_link("GlobalSign_Root_R46.pem"));
        assert!(!is_hash_link("deadbeef.pem"));
    }

    #[test]
    fn a_serial_number_has_no_padding() {
        assert_eq!(serial(&[0, 0x9A, 0x0B]), "9A0B");
        assert_eq!(serial(&[0]), "00");
    }

    #[test]
    fn bytes_that_are_no_certificate_have_nulls() {
        let row = row("/x.pem", b"nonsense");

        assert_eq!(row.len(), SCHEMA.columns.len());
        assert_eq!(row[1], SqlValue::Null);
        assert_eq!(row[6], SqlValue::from(hex::encode(digest(&SHA256, b"nonsense"))));
    }
}
