//! A server's certificate against the store: which anchor matched (T4), leaf pins (T6), pinned fingerprints (T9).

use std::collections::HashSet;
use std::fmt;

use rustls_pki_types::CertificateDer;

use super::fingerprint;
use super::settings::{PeerVerification, TrustSettings, YesNo};
use super::store::{Anchor, TrustStore};
use crate::certificate::Certificate;
use crate::check::{CHAIN_CERTIFICATES_MAX, Facts, Policy, check_server_pinned, check_with};
use crate::finding::{Finding, Rule};
use crate::instant;
use crate::role::Role;
use crate::thumbprint::Thumbprint;
use crate::verdict::{Refused, Verdict};

/// Whether a server is accepted, by which anchor, and everything that was found.
#[derive(Debug, Clone)]
#[must_use]
pub struct ServerVerdict {
    verdict: Verdict,
    matched: Option<Matched>,
}

impl ServerVerdict {
    /// Returns the findings.
    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// Gives the findings away.
    pub fn into_verdict(self) -> Verdict {
        self.verdict
    }

    /// Returns what the server was accepted by (T4); `None` if it is refused.
    #[must_use]
    pub fn matched(&self) -> Option<&Matched> {
        self.matched.as_ref().filter(|_| self.verdict.is_accepted())
    }

    /// Returns what the server was accepted by.
    ///
    /// # Errors
    /// It is refused; all findings are in the error.
    pub fn into_result(self) -> Result<Matched, Refused> {
        let matched = self.matched().cloned();
        match (self.verdict.into_result(), matched) {
            (Ok(_), Some(matched)) => Ok(matched),
            (Ok(leaf), None) => Err(Refused::of(not_in_store(&leaf, &[]))),
            (Err(refused), _) => Err(refused),
        }
    }
}

/// How a server was accepted, for logs and for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Matched {
    /// Its chain leads to this CA.
    Authority(MatchedAnchor),
    /// Its own certificate stands in the store (T6).
    Leaf(MatchedAnchor),
    /// Its certificate has the pinned fingerprint, and nothing else was asked for (T9).
    Fingerprint(Thumbprint),
}

/// The anchor that matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatchedAnchor {
    /// Its place among the anchors, from 1.
    pub position: usize,
    /// Its file and line.
    pub place: String,
    /// Its subject.
    pub subject: String,
    /// Its thumbprint.
    pub thumbprint: Thumbprint,
}

impl MatchedAnchor {
    fn of(anchor: &Anchor) -> Self {
        Self {
            position: anchor.position(),
            place: anchor.place().to_owned(),
            subject: anchor.certificate().subject().to_owned(),
            thumbprint: anchor.certificate().thumbprint(),
        }
    }
}

impl fmt::Display for Matched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, anchor) = match self {
            Self::Authority(anchor) => ("the CA", anchor),
            Self::Leaf(anchor) => ("the saved certificate", anchor),
            Self::Fingerprint(thumbprint) => {
                return write!(f, "the pinned fingerprint {}", fingerprint::text(thumbprint));
            }
        };
        let MatchedAnchor { position, place, subject, thumbprint } = anchor;
        write!(f, "anchor {position} ({place}): {what} {subject}, thumbprint {thumbprint}")
    }
}

impl TrustStore {
    /// Judges a server's chain: the anchors are tried in the order of the file, and the first that holds counts (T4).
    ///
    /// `facts.name` is the host that was called; [`TrustSettings::verify_host`] decides whether it is compared.
    pub fn check_server(
        &self,
        policy: &Policy,
        settings: &TrustSettings,
        chain: &[CertificateDer<'_>],
        facts: &Facts<'_>,
    ) -> ServerVerdict {
        let facts = match settings.verify_host() {
            YesNo::Yes => *facts,
            YesNo::No => Facts { name: None, ..*facts },
        };
        let judged = Judged { store: self, policy, chain, facts: &facts };
        let leaf = chain.first().and_then(|first| Certificate::from_der(first).ok());
        let Some(leaf) = leaf.filter(|_| chain.len() <= CHAIN_CERTIFICATES_MAX) else {
            return ServerVerdict { verdict: judged.by_all(), matched: None };
        };
        match settings.peer() {
            PeerVerification::Anchor => judged.by_anchor(&leaf),
            PeerVerification::AnchorAndFingerprint(pinned) => {
                let ServerVerdict { verdict, matched } = judged.by_anchor(&leaf);
                ServerVerdict { verdict: with(verdict, other_fingerprint(&leaf, &pinned)), matched }
            }
            PeerVerification::Fingerprint(pinned) => {
                let verdict = check_server_pinned(policy, &leaf, &facts);
                let verdict = with(verdict, other_fingerprint(&leaf, &pinned));
                ServerVerdict { verdict, matched: Some(Matched::Fingerprint(pinned)) }
            }
        }
    }
}

/// One server before one store.
struct Judged<'a> {
    store: &'a TrustStore,
    policy: &'a Policy,
    chain: &'a [CertificateDer<'a>],
    facts: &'a Facts<'a>,
}

impl Judged<'_> {
    fn by_anchor(&self, leaf: &Certificate) -> ServerVerdict {
        let issuers = self.issuers();
        let mut refused_pin = None;
        for anchor in self.store.anchors() {
            if anchor.certificate() == leaf {
                let verdict = check_server_pinned(self.policy, leaf, self.facts);
                if verdict.is_accepted() {
                    return ServerVerdict {
                        verdict,
                        matched: Some(Matched::Leaf(MatchedAnchor::of(anchor))),
                    };
                }
                refused_pin = Some(verdict);
            } else if let Some(roots) = anchor.roots()
                && issuers.contains(anchor.certificate().subject_der())
            {
                // Only CAs that issued one of these certificates can hold, which spares the others their path search.
                let verdict = check_with(self.policy, Role::Switch, self.chain, roots, self.facts);
                if verdict.is_accepted() {
                    let matched = Some(Matched::Authority(MatchedAnchor::of(anchor)));
                    return ServerVerdict { verdict, matched };
                }
            }
        }
        let verdict = refused_pin.unwrap_or_else(|| self.without_anchor(leaf));
        ServerVerdict { verdict, matched: None }
    }

    /// Returns the names of the issuers that a path can lead through.
    fn issuers(&self) -> HashSet<Vec<u8>> {
        let known = self.chain.iter().map(|der| Certificate::from_der(der));
        let local = self.facts.intermediates.iter().map(|der| Certificate::from_der(der));
        known.chain(local).flatten().map(|certificate| certificate.issuer_der().to_vec()).collect()
    }

    /// All CAs at once: their findings say best what is wrong.
    fn by_all(&self) -> Verdict {
        check_with(self.policy, Role::Switch, self.chain, self.store.roots(), self.facts)
    }

    fn without_anchor(&self, leaf: &Certificate) -> Verdict {
        let verdict = self.by_all();
        let has_no_path = verdict.path().is_empty();
        // A self-signed server is no mistake here: it is trusted once it is saved (C8's exception, T7).
        let is_told_better = |finding: &&Finding| !(leaf.is_self_signed() && finding.rule == Rule::C8);
        let mut findings: Vec<Finding> = verdict.findings().iter().filter(is_told_better).cloned().collect();
        if has_no_path {
            findings.push(not_in_store(leaf, self.store.anchors()));
        }
        Verdict::new(Some(leaf.clone()), verdict.path().to_vec(), findings)
    }
}

/// T6: neither the certificate nor one of its issuers is in the store.
fn not_in_store(leaf: &Certificate, anchors: &[Anchor]) -> Finding {
    let is_namesake = |anchor: &&Anchor| {
        let saved = anchor.certificate();
        anchor.may_be_server() && saved.subject_der() == leaf.subject_der()
    };
    let got = match anchors.iter().find(is_namesake) {
        Some(saved) => format!(
            "a certificate that is not in the trust store; the saved one of its name has the thumbprint {} and ends at {}",
            saved.certificate().thumbprint(),
            instant::text(saved.certificate().not_after())
        ),
        None => "a certificate that is not in the trust store, nor is a CA that it leads to".to_owned(),
    };
    let wanted = "a CA of the server in cainfo.pem or the policy's CA file, or its own certificate, saved by its fingerprint";
    let fix = format!(
        "if the server's owner tells the same fingerprint, `muster-client trust fetch HOST:PORT --fingerprint {}`; else add its CA",
        fingerprint::text(&leaf.thumbprint())
    );
    Finding::refusal(Rule::T6, leaf, got, wanted, fix)
}

/// T7, T9: the certificate has not the pinned fingerprint.
fn other_fingerprint(leaf: &Certificate, pinned: &Thumbprint) -> Option<Finding> {
    let mismatch = fingerprint::confirm(pinned, leaf).err()?;
    let got = format!("the fingerprint {}", fingerprint::text(&mismatch.found));
    let wanted = format!("the pinned fingerprint {}", fingerprint::text(pinned));
    let fix =
        "ask the server's owner; if its certificate was renewed, put the new fingerprint into the policy";
    Some(Finding::refusal(Rule::T7, leaf, got, wanted, fix))
}

fn with(verdict: Verdict, finding: Option<Finding>) -> Verdict {
    let Some(finding) = finding else { return verdict };
    let mut findings = verdict.findings().to_vec();
    findings.push(finding);
    Verdict::new(verdict.leaf().cloned(), verdict.path().to_vec(), findings)
}
