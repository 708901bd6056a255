//! The way from a CA's certificate up to a root, for [`super::verify_path`]: webpki builds none that begins with a CA.
//!
//! Signatures are webpki's, the rest are the rules that every path is held to. Name constraints are not evaluated for the
//! names of CAs, so a constrained CA above refuses.

use rustls_pki_types::CertificateDer;
use webpki::EndEntityCert;

use super::CHAIN_CERTIFICATES_MAX;
use super::path::Search;
use crate::certificate::{Certificate, signed_parts, verify_signature};
use crate::finding::{Finding, Rule};

/// Signatures that are verified for one certificate; webpki's own search allows 100.
const SIGNATURES_MAX: usize = 64;

/// Returns the path, its beginning first and its root last, and adds what is wrong with it; empty if there is none.
pub(super) fn run(search: &Search<'_>, findings: &mut Vec<Finding>) -> Vec<Certificate> {
    let der = CertificateDer::from(search.leaf.der());
    if let Err(error) = EndEntityCert::try_from(&der) {
        let got = format!("a certificate that cannot be verified: {error}");
        findings.push(refusal(search, search.leaf, got, "correct the CA's profile, then reissue"));
        return Vec::new();
    }
    let mut climb = Climb { search, signatures: SIGNATURES_MAX, stale: None, broken: Vec::new() };
    if let Some(path) = climb.from(&mut vec![search.leaf.clone()]).or(climb.stale) {
        findings.extend(search.freshness(&path));
        return path;
    }
    if climb.broken.is_empty() {
        let got = format!("no path from the issuer {} to a root", search.leaf.issuer());
        let fix = "give the CAs above it, or add their root";
        climb.broken.push(refusal(search, search.leaf, got, fix));
    }
    findings.append(&mut climb.broken);
    Vec::new()
}

struct Climb<'s> {
    search: &'s Search<'s>,
    /// How many more signatures may be verified.
    signatures: usize,
    /// A path that holds but for its CRLs (R6).
    stale: Option<Vec<Certificate>>,
    /// What is wrong with the first path to a root.
    broken: Vec<Finding>,
}

impl Climb<'_> {
    /// Goes on from the last certificate of `way`; its length bounds the recursion.
    fn from(&mut self, way: &mut Vec<Certificate>) -> Option<Vec<Certificate>> {
        let head = way.last()?.clone();
        let search = self.search;
        for root in search.roots.iter() {
            if self.issued(&head, root) {
                let path = way.iter().chain([root]).cloned().collect();
                if let Some(path) = self.judge(path) {
                    return Some(path);
                }
            }
        }
        if way.len() >= CHAIN_CERTIFICATES_MAX {
            return None;
        }
        for candidate in search.intermediates {
            let is_known = way.iter().any(|known| {
                known.spki_der() == candidate.spki_der() && known.subject_der() == candidate.subject_der()
            });
            if is_known || !self.issued(&head, candidate) {
                continue;
            }
            way.push(candidate.clone());
            let path = self.from(way);
            way.pop();
            if path.is_some() {
                return path;
            }
        }
        None
    }

    /// Returns whether the key of `issuer` signed; names first, since they cost nothing.
    fn issued(&mut self, certificate: &Certificate, issuer: &Certificate) -> bool {
        if certificate.issuer_der() != issuer.subject_der() {
            return false;
        }
        let Some(left) = self.signatures.checked_sub(1) else { return false };
        self.signatures = left;
        signed_parts(certificate.der()).is_some_and(|(message, algorithm, signature)| {
            verify_signature(issuer.certificate_der(), &algorithm, message, &signature).is_ok()
        })
    }

    /// Returns the path if nothing is wrong with it.
    fn judge(&mut self, path: Vec<Certificate>) -> Option<Vec<Certificate>> {
        let mut findings = self.search.judge(&path);
        for authority in path.iter().skip(1).filter(|authority| authority.has_name_constraints()) {
            let got = format!("a CA below {}, which has name constraints", authority.subject());
            let fix = "begin the path with what this CA issued";
            findings.push(refusal(self.search, self.search.leaf, got, fix));
        }
        if !findings.is_empty() {
            if self.broken.is_empty() {
                self.broken = findings;
            }
            return None;
        }
        if self.search.freshness(&path).is_empty() {
            return Some(path);
        }
        self.stale.get_or_insert(path);
        None
    }
}

fn refusal(search: &Search<'_>, certificate: &Certificate, got: String, fix: &str) -> Finding {
    Finding::refusal(search.role.rule(Rule::C2), certificate, got, "a path to one of the roots", fix)
}
