//! The way from the leaf up, by names and signatures alone: what explains a chain that webpki refuses.
//!
//! It accepts nothing. webpki gives one error for a whole chain; this finds the certificates that it was about, so that
//! a finding names the one that breaks the rule.

use super::CHAIN_CERTIFICATES_MAX;
use crate::certificate::{Certificate, SignatureProblem, signed_parts, verify_signature};
use crate::roots::Roots;

/// Signatures that are verified for one explanation; webpki's own search has a like bound.
const SIGNATURES_MAX: usize = 64;

/// What was found above a leaf.
#[derive(Debug, Default)]
pub(super) struct Trace {
    /// Every way to a root whose signatures hold, leaf first and root last.
    pub(super) paths: Vec<Vec<Certificate>>,
    /// Where the longest way ended that reaches no root.
    pub(super) end: Option<End>,
}

/// The end of a way that reaches no root.
#[derive(Debug)]
pub(super) struct End {
    /// Leaf first; the last one is where it ends.
    pub(super) way: Vec<Certificate>,
    /// The last one of the way.
    pub(super) certificate: Certificate,
    /// Why it goes no further.
    pub(super) gap: Gap,
}

/// Why a way goes no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Gap {
    /// No certificate has the issuer's name.
    NoIssuer,
    /// One has, and its key did not make the signature.
    WrongSignature,
    /// One has, and the signature cannot be judged.
    Unsupported,
}

impl Trace {
    /// Follows every way up from the leaf.
    pub(super) fn of(leaf: &Certificate, intermediates: &[Certificate], roots: &Roots) -> Self {
        let mut climb = Climb { intermediates, roots, signatures: SIGNATURES_MAX, found: Self::default() };
        climb.from(&mut vec![leaf.clone()]);
        climb.found
    }
}

struct Climb<'a> {
    intermediates: &'a [Certificate],
    roots: &'a Roots,
    /// How many more signatures may be verified.
    signatures: usize,
    found: Trace,
}

impl Climb<'_> {
    /// Goes on from the last certificate of the way; its length bounds the recursion.
    fn from(&mut self, way: &mut Vec<Certificate>) {
        let Some(head) = way.last().cloned() else { return };
        if way.len() > CHAIN_CERTIFICATES_MAX {
            return;
        }
        let mut gap = Some(Gap::NoIssuer);
        let is_issuer = |candidate: &&Certificate| candidate.subject_der() == head.issuer_der();
        for root in self.roots.iter().filter(is_issuer) {
            match self.signed(&head, root) {
                Ok(()) => {
                    gap = None;
                    let path = way.iter().chain([root]).cloned().collect();
                    self.found.paths.push(path);
                }
                Err(problem) => gap = gap.max(gap.map(|_| problem)),
            }
        }
        let is_known = |candidate: &Certificate| {
            way.iter().any(|known| {
                known.spki_der() == candidate.spki_der() && known.subject_der() == candidate.subject_der()
            })
        };
        let further: Vec<Certificate> = self
            .intermediates
            .iter()
            .filter(is_issuer)
            .filter(|candidate| !is_known(candidate))
            .cloned()
            .collect();
        for candidate in further {
            match self.signed(&head, &candidate) {
                Ok(()) => {
                    gap = None;
                    way.push(candidate);
                    self.from(way);
                    way.pop();
                }
                Err(problem) => gap = gap.max(gap.map(|_| problem)),
            }
        }
        let is_longer = self.found.end.as_ref().is_none_or(|end| end.way.len() < way.len());
        if let Some(gap) = gap.filter(|_| is_longer) {
            self.found.end = Some(End { way: way.clone(), certificate: head, gap });
        }
    }

    fn signed(&mut self, certificate: &Certificate, issuer: &Certificate) -> Result<(), Gap> {
        let Some(left) = self.signatures.checked_sub(1) else { return Err(Gap::Unsupported) };
        self.signatures = left;
        let Some((message, algorithm, signature)) = signed_parts(certificate.der()) else {
            return Err(Gap::Unsupported);
        };
        verify_signature(issuer.certificate_der(), &algorithm, message, &signature).map_err(|problem| {
            match problem {
                SignatureProblem::Wrong => Gap::WrongSignature,
                SignatureProblem::Unsupported => Gap::Unsupported,
            }
        })
    }
}
