//! The way from the leaf to a root: built by webpki, judged by us.

use std::cell::RefCell;

use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, Error, KeyPurposeIdIter, VerifiedPath};

use super::Facts;
use super::leaf::{list, validity, weak_key, weak_signature};
use super::policies;
use super::purpose::Purpose;
use super::trace::{End, Gap, Trace};
use crate::certificate::Certificate;
use crate::finding::{Finding, Rule, Severity};
use crate::role::Family;
use crate::roots::Roots;

/// The search for a path that holds. Of several, one that holds is enough (R5).
pub(super) struct Search<'a> {
    pub(super) role: Purpose,
    pub(super) leaf: &'a Certificate,
    pub(super) intermediates: &'a [Certificate],
    pub(super) roots: &'a Roots,
    pub(super) facts: &'a Facts<'a>,
}

/// Admits every purpose: webpki accepts a leaf without the extension, so we look ourselves (C3).
struct AnyPurpose;

impl webpki::ExtendedKeyUsageValidator for AnyPurpose {
    fn validate(&self, _purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), Error> {
        Ok(())
    }
}

impl Search<'_> {
    /// Returns the path, leaf first and root last, and adds what is wrong with it; empty if there is none.
    pub(super) fn run(&self, findings: &mut Vec<Finding>) -> Vec<Certificate> {
        if self.leaf.is_self_signed() {
            return Vec::new(); // Refused by C8, whose fix is the one that helps.
        }
        // An expired leaf is told by C9; judging the path within its validity shows what else is wrong.
        let within = self.facts.moment().max(self.leaf.not_before()).min(self.leaf.not_after());
        match self.build(within) {
            Ok(path) | Err(Broken::Stale(path)) => {
                findings.extend(self.freshness(&path));
                return path;
            }
            Err(Broken::Elements(broken)) => findings.extend(broken),
            Err(Broken::Chain(error)) => {
                let more = self.explain(&error, findings);
                findings.extend(more);
                if !findings.iter().any(|finding| finding.severity == Severity::Refusal) {
                    // An error that nothing above knows how to explain refuses all the same.
                    findings.push(self.unverifiable(&error, &[]));
                }
            }
        }
        Vec::new()
    }

    fn build(&self, time: UnixTime) -> Result<Vec<Certificate>, Broken> {
        let leaf_der = CertificateDer::from(self.leaf.der());
        let leaf = EndEntityCert::try_from(&leaf_der).map_err(Broken::Chain)?;
        let intermediates: Vec<CertificateDer<'_>> =
            self.intermediates.iter().map(|certificate| CertificateDer::from(certificate.der())).collect();
        let broken = RefCell::new(Vec::new());
        let accepted = RefCell::new(Vec::new());
        let stale = RefCell::new(None);
        let judge = |path: &VerifiedPath<'_>| {
            let Some(elements) = self.elements(path) else { return Err(Error::UnknownIssuer) };
            let findings = self.judge(&elements);
            if findings.is_empty() {
                // A path without fresh CRLs is taken if there is no other: cross-signed, another one may hold (R5).
                let Some(lack) = self.freshness(&elements).iter().map(|finding| finding.severity).max()
                else {
                    accepted.replace(elements);
                    return Ok(());
                };
                let mut stale = stale.borrow_mut();
                if stale.as_ref().is_none_or(|(known, _)| lack < *known) {
                    *stale = Some((lack, elements));
                }
                return Err(Error::UnknownIssuer);
            }
            // The first candidate that fails is the one told: webpki tries the roots in their order.
            let mut broken = broken.borrow_mut();
            if broken.is_empty() {
                *broken = findings;
            }
            Err(Error::UnknownIssuer)
        };
        let outcome = leaf.verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            self.roots.anchors(),
            &intermediates,
            time,
            AnyPurpose,
            None,
            Some(&judge),
        );
        match outcome {
            Ok(_) => Ok(accepted.take()),
            Err(_) if stale.borrow().is_some() => {
                Err(Broken::Stale(stale.take().map(|(_, path)| path).unwrap_or_default()))
            }
            Err(_) if !broken.borrow().is_empty() => Err(Broken::Elements(broken.take())),
            Err(error) => Err(Broken::Chain(error)),
        }
    }

    /// Returns leaf, intermediates and root of a candidate as we parsed them.
    fn elements(&self, path: &VerifiedPath<'_>) -> Option<Vec<Certificate>> {
        let mut elements = vec![self.leaf.clone()];
        for used in path.intermediate_certificates() {
            let der = used.der();
            elements.push(self.intermediates.iter().find(|known| known.der() == der.as_ref())?.clone());
        }
        elements.push(self.roots.of_anchor(path.anchor(), self.facts.moment())?.clone());
        Some(elements)
    }

    /// Returns what is wrong with the CAs of a path that webpki accepts.
    pub(super) fn judge(&self, elements: &[Certificate]) -> Vec<Finding> {
        let mut findings = Vec::new();
        let last = elements.len().saturating_sub(1);
        for (index, authority) in elements.iter().enumerate().skip(1) {
            findings.extend(self.authority(authority));
            findings.extend(self.path_length(elements.get(1..index).unwrap_or_default(), authority));
            if index < last {
                findings.extend(self.revoked_intermediate(authority));
            }
        }
        findings.extend(policies::finding(self.role, elements));
        findings
    }

    fn authority(&self, authority: &Certificate) -> Vec<Finding> {
        let mut findings = Vec::new();
        findings.extend(validity(authority, self.facts));
        findings.extend(weak_key(authority));
        if !authority.is_ca() {
            // webpki asks this of intermediates, but not of roots.
            let fix = "put the certificate of the CA into the roots, not one that it issued";
            let rule = self.role.rule(Rule::C2);
            findings.push(Finding::refusal(rule, authority, "an issuer that is no CA", "CA:TRUE", fix));
        }
        if authority.key_usage().is_some_and(|usage| !usage.key_cert_sign()) {
            let rule = self.role.rule(Rule::C2);
            let fix = "reissue the CA certificate with Key Usage keyCertSign, cRLSign";
            let got = "a CA whose Key Usage lacks keyCertSign";
            findings.push(Finding::refusal(rule, authority, got, "Key Usage keyCertSign", fix));
        }
        if let Some(wanted) = self.role.extended_key_usage()
            && let Some(usages) = authority.extended_key_usages().filter(|usages| !usages.contains(&wanted))
        {
            let rule = self.role.rule(Rule::C3);
            let got = format!("a CA for {} only", list(usages));
            let fix = format!("issue from a CA without Extended Key Usage, or with {wanted}");
            findings.push(Finding::refusal(
                rule,
                authority,
                got,
                format!("a CA that may issue for {wanted}"),
                fix,
            ));
        }
        // webpki holds SANs to name constraints but no CN, so a CN does not count below a constrained CA.
        let counts_by_common_name =
            self.role.family() == Some(Family::Tls) && self.leaf.dns_names().is_empty();
        if counts_by_common_name && authority.has_name_constraints() {
            let got =
                format!("a name in the CN only, below {} which has name constraints", authority.subject());
            let fix = "reissue it with the name as SAN dNSName";
            findings.push(Finding::refusal(Rule::C7, self.leaf, got, "a SAN dNSName", fix));
        }
        findings
    }

    /// RFC 5280 §4.2.1.9: at most so many CAs below, self-issued ones not counted. webpki does not ask it of roots.
    fn path_length(&self, below: &[Certificate], authority: &Certificate) -> Option<Finding> {
        let most = authority.path_length()?;
        let count = below.iter().filter(|below| below.subject_der() != below.issuer_der()).count();
        if count <= usize::from(most) {
            return None;
        }
        let got = format!("{count} CAs below a CA with pathlen:{most}");
        let fix = "issue from a CA higher up, or raise the path length of this one";
        Some(Finding::refusal(self.role.rule(Rule::C2), authority, got, format!("at most {most}"), fix))
    }

    /// R8: a revoked intermediate drops all below it.
    fn revoked_intermediate(&self, authority: &Certificate) -> Option<Finding> {
        if !self.facts.is_revoked(authority) {
            return None;
        }
        let fix = "issue new certificates from a CA that is not revoked";
        Some(Finding::refusal(
            Rule::R8,
            authority,
            "a revoked CA",
            "a chain without revoked certificates",
            fix,
        ))
    }

    /// R6: tells where the CRL of an issuer on the path is missing or stale, and refuses where the issuer's rule does.
    ///
    /// Of a signature that a timestamp proves, not where the issuer has expired since: nobody publishes for it any more.
    pub(super) fn freshness(&self, path: &[Certificate]) -> Vec<Finding> {
        let Some(revocation) = self.facts.revocation else { return Vec::new() };
        let pairs = path.iter().zip(path.iter().skip(1));
        let publishes =
            |issuer: &Certificate| self.facts.signed_at.is_none() || issuer.is_valid_at(self.facts.now);
        let lacks = pairs.filter(|(_, issuer)| publishes(issuer)).filter_map(|(certificate, issuer)| {
            let lack = revocation.lack(certificate, issuer, self.facts.now)?;
            let fix = "wait a moment if the issuer is new here, as its CRL is fetched then; else publish a new CRL, and see that it can be fetched from here";
            let got = lack.text(certificate.issuer());
            let finding = Finding::refusal(Rule::R6, certificate, got, "a fresh CRL of every issuer", fix);
            Some(finding.with_severity(lack.severity))
        });
        lacks.collect()
    }

    /// Explains why webpki found no path; `known` are the findings so far.
    fn explain(&self, error: &Error, known: &[Finding]) -> Vec<Finding> {
        if self.leaf.is_ca() && *error == Error::CaUsedAsEndEntity {
            return Vec::new(); // Refused by C8.
        }
        if self.leaf.not_before() > self.leaf.not_after() {
            return Vec::new(); // Valid at no time: refused by C9.
        }
        let is_of_time = matches!(error, Error::CertExpired { .. } | Error::CertNotValidYet { .. });
        let weak = if is_of_time { Vec::new() } else { self.weak_authorities() };
        if !weak.is_empty() {
            return weak;
        }
        let trace = Trace::of(self.leaf, self.intermediates, self.roots);
        // Of several paths, the one with the least that is wrong is the nearest to one that holds.
        let judged = trace.paths.iter().map(|path| (self.judge(path), path));
        match (judged.min_by_key(|(findings, _)| findings.len()), trace.end) {
            (Some((findings, _)), _) if !findings.is_empty() => findings,
            // Nothing but the leaf is out of its time: refused by C9.
            (Some(_), _) if is_of_time && !self.leaf.is_valid_at(self.facts.moment()) => Vec::new(),
            (Some((_, path)), _) => vec![self.unverifiable(error, path)],
            (None, Some(end)) => self.gap(&end, error, known),
            (None, None) => vec![self.unverifiable(error, &[])],
        }
    }

    /// Tells where a chain breaks off, and what is wrong with the CAs up to there.
    fn gap(&self, end: &End, error: &Error, known: &[Finding]) -> Vec<Finding> {
        let rule = self.role.rule(Rule::C2);
        let broken = &end.certificate;
        let is_told =
            |finding: &Finding| finding.rule == Rule::C16 && finding.thumbprint == Some(broken.thumbprint());
        let mut findings: Vec<Finding> =
            end.way.iter().skip(1).filter_map(|authority| validity(authority, self.facts)).collect();
        match end.gap {
            Gap::NoIssuer => {
                let (subject, issuer) = (broken.subject(), broken.issuer());
                let got = if broken == self.leaf {
                    format!("no path from the issuer {issuer} to a root")
                } else if broken.subject_der() == broken.issuer_der() {
                    format!("a chain up to {subject}, which is no root of this role")
                } else {
                    format!("a chain up to {subject}, whose issuer {issuer} is not known")
                };
                let fix =
                    "put the intermediates into the chain file, or add the CA's root to this role's roots";
                findings.push(Finding::refusal(rule, self.leaf, got, self.known_roots(), fix));
            }
            Gap::WrongSignature => {
                let got = "a signature that the issuer's key did not make";
                let fix = "use the chain of the CA that issued it; two CAs may have the same name";
                findings.push(Finding::refusal(rule, broken, got, self.known_roots(), fix));
            }
            Gap::Unsupported if known.iter().any(is_told) => {}
            Gap::Unsupported if !is_unsupported_signature(error) => {
                findings.push(self.unverifiable(error, &end.way));
            }
            Gap::Unsupported => {
                let got = format!("a signature that is not supported ({})", broken.signature_algorithm());
                let wanted =
                    "RSA (PKCS#1 or PSS), ECDSA (P-256, P-384, P-521) or Ed25519 with SHA-256 or better";
                let fix = "let the CA sign with a supported algorithm, then reissue";
                findings.push(Finding::refusal(Rule::C16, broken, got, wanted, fix));
            }
        }
        findings
    }

    /// Passes on webpki's reason, where it has none that we would look for ourselves.
    fn unverifiable(&self, error: &Error, path: &[Certificate]) -> Finding {
        let rule = self.role.rule(Rule::C2);
        let constrained: Vec<&str> = path
            .iter()
            .filter(|authority| authority.has_name_constraints())
            .map(Certificate::subject)
            .collect();
        if *error == Error::NameConstraintViolation && !constrained.is_empty() {
            let got = format!("a name outside the name constraints of {}", constrained.join(" and "));
            let fix = "issue it from a CA that may issue this name, or change the constraints";
            let wanted = "names that every CA above may issue";
            return Finding::refusal(rule, self.leaf, got, wanted, fix);
        }
        let got = format!("a chain that cannot be verified: {error}");
        let fix = "correct the CA's profile, then reissue the chain";
        Finding::refusal(rule, self.leaf, got, self.known_roots(), fix)
    }

    /// C16 for the CAs that may have issued the leaf, or one another, which webpki's search never reaches.
    fn weak_authorities(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut wanted = vec![self.leaf.issuer_der()];
        for _ in 0..super::CHAIN_CERTIFICATES_MAX {
            let Some(issuer) = wanted.pop() else { break };
            let known = self.intermediates.iter().chain(self.roots.iter());
            for authority in known.filter(|authority| authority.subject_der() == issuer) {
                let is_new = |finding: &Finding| !findings.contains(finding);
                let mut weak: Vec<Finding> = weak_key(authority).into_iter().collect();
                if authority.subject_der() != authority.issuer_der() {
                    weak.extend(authority.has_weak_signature().then(|| weak_signature(authority)));
                    wanted.push(authority.issuer_der());
                }
                weak.retain(is_new);
                findings.extend(weak);
            }
        }
        findings
    }

    fn known_roots(&self) -> String {
        if self.roots.is_empty() {
            return format!("a chain to a root of the {} store, which is empty", self.role);
        }
        // Three names are enough to see whether it is the wrong file.
        let names: Vec<&str> = self.roots.iter().take(3).map(Certificate::subject).collect();
        let more = if self.roots.len() > names.len() { ", …" } else { "" };
        format!("a chain to a root of the {} store: {}{more}", self.role, names.join(" | "))
    }
}

/// Why there is no path that holds.
enum Broken {
    /// There is one, but these are wrong with its CAs.
    Elements(Vec<Finding>),
    /// This one holds but for its CRLs (R6).
    Stale(Vec<Certificate>),
    /// webpki's reason.
    Chain(Error),
}

fn is_unsupported_signature(error: &Error) -> bool {
    matches!(
        error,
        Error::UnsupportedSignatureAlgorithmContext(_)
            | Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_)
    )
}
