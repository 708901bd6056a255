//! NIST's Public Key Interoperability Test Suite (PKITS 1.0.1, 2011 data): all certification paths of sections 4.1–4.16.
//!
//! Certificates and CRLs come from the Python package `cryptography_vectors`; what NIST expects of each test stands in
//! [`table`]. All CAs and all CRLs of the suite lie in one pool, as they would in a directory, so that the path and the
//! CRLs of each test have to be found among those of all others.

mod table;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use muster_pki::{Certificate, CertificateDer, Facts, RevocationIndex, Roots, verify_path};

use self::table::{Nist, Ours, TABLE};
use crate::support::at;

/// When NIST published the data, 2011-04-15: every certificate that a valid path needs is valid then.
const PUBLISHED: u64 = 1_302_825_600;

/// Tests in sections 4.1–4.16 of the document; some have several parts.
const TESTS: usize = 224;

#[test]
fn c2_agrees_with_nist_on_every_path_of_pkits() {
    let suite = Suite::open();
    let mut wrong = Vec::new();

    for row in TABLE {
        let verdict = suite.verify(row.end_entity);
        let is_valid = row.nist == Nist::Valid;
        let complaint = match (&row.ours, verdict.is_ok()) {
            (Ours::Same, accepted) if accepted == is_valid => None,
            (Ours::Refused(_), false) if is_valid => None,
            (Ours::Accepted(_), true) if !is_valid => None,
            (Ours::Same, _) => Some("differs from NIST without a reason"),
            (Ours::Refused(_) | Ours::Accepted(_), _) => Some("has a reason to differ, and does not"),
        };
        println!("{:<8} {:<53} {:?} {}", row.number, row.end_entity, row.nist, row.ours);
        if let Some(complaint) = complaint {
            let told = verdict.map_or_else(|refused| refused.to_string(), |_| "accepted".to_owned());
            wrong.push(format!("{} {} {complaint}: {told}", row.number, row.end_entity));
        }
    }

    assert!(wrong.is_empty(), "{} rows:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn pkits_is_there_whole() {
    let tests: BTreeSet<String> =
        TABLE.iter().map(|row| row.number.splitn(4, '.').take(3).collect::<Vec<_>>().join(".")).collect();
    let same = TABLE.iter().filter(|row| matches!(row.ours, Ours::Same)).count();

    assert_eq!(tests.len(), TESTS);
    println!(
        "{} rows of {TESTS} tests: {same} as NIST says, {} out of scope",
        TABLE.len(),
        TABLE.len() - same
    );
}

/// What is invalid is refused, even where the reason is another; only what needs inputs that no role of ours has is not.
#[test]
fn pkits_rows_that_are_accepted_though_invalid_are_of_two_kinds() {
    for row in TABLE {
        if let Ours::Accepted(reason) = row.ours {
            let is_policy = reason == table::POLICY_INPUTS && (8..=12).contains(&row.section());
            let is_delta = reason == table::DELTA && row.section() == 15;
            assert!(row.nist == Nist::Invalid && (is_policy || is_delta), "{}: {reason}", row.number);
        }
    }
}

/// The suite's files: the trust anchor, all CAs, all CRLs that our rules take.
struct Suite {
    folder: PathBuf,
    roots: Roots,
    authorities: Vec<CertificateDer<'static>>,
    revocation: RevocationIndex,
}

impl Suite {
    fn open() -> Self {
        let folder = folder();
        let root =
            Certificate::from_der(&read(&folder.join("certs/TrustAnchorRootCertificate.crt"))).unwrap();
        let roots = Roots::from_certificates([root.clone()]).unwrap();
        let is_authority = |path: &PathBuf| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            !name.ends_with("EE.crt") && name != "TrustAnchorRootCertificate.crt"
        };
        let files = list(&folder.join("certs")).into_iter().filter(is_authority);
        let authorities: Vec<_> = files.map(|path| CertificateDer::from(read(&path))).collect();
        let crls: Vec<Vec<u8>> = list(&folder.join("crls")).iter().map(|path| read(path)).collect();
        let mut revocation = RevocationIndex::default();
        let mut issuers = vec![root];
        // Who may sign CRLs is the caller's to say: those that the root vouches for, and that are not revoked themselves.
        // So the CRLs of one level come first, and then the CAs below.
        let mut pending = authorities.clone();
        loop {
            for crl in &crls {
                // One that is not usable counts as missing.
                drop(revocation.add(crl, &issuers, at(PUBLISHED)));
            }
            let known = issuers.len();
            let facts = facts(&authorities, &revocation);
            pending.retain(|der| match verify_path(std::slice::from_ref(der), &roots, &facts) {
                Ok(path) => {
                    issuers.extend(path.into_iter().next());
                    false
                }
                Err(_) => true,
            });
            if issuers.len() == known {
                break;
            }
        }
        Self { folder, roots, authorities, revocation }
    }

    fn verify(&self, end_entity: &str) -> Result<Vec<Certificate>, muster_pki::Refused> {
        let leaf = read(&self.folder.join("certs").join(end_entity).with_extension("crt"));
        let facts = facts(&self.authorities, &self.revocation);
        verify_path(&[CertificateDer::from(leaf)], &self.roots, &facts)
    }
}

fn facts<'a>(authorities: &'a [CertificateDer<'static>], revocation: &'a RevocationIndex) -> Facts<'a> {
    Facts { intermediates: authorities, revocation: Some(revocation), ..Facts::at(at(PUBLISHED)) }
}

/// Returns the folder of the suite's data in the tests' Python environment.
fn folder() -> PathBuf {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/python/lib");
    let inside = "site-packages/cryptography_vectors/x509/PKITS_data";
    let versions = if python.is_dir() { list(&python) } else { Vec::new() };
    let mut folders = versions.iter().map(|version| version.join(inside)).filter(|folder| folder.is_dir());
    folders.next().unwrap_or_else(|| {
        panic!("no PKITS data below {}; run deploy/ci/install-test-needs", python.display())
    })
}

fn list(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[expect(clippy::disallowed_methods, reason = "the suite's data are files")]
fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
