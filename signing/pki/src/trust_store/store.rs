//! [`TrustStore`]: the anchors of a merged file, in its order.

use super::inputs::InputsFingerprint;
use super::merge::{ANCHORS_MAX, Problem, certificate, items, recorded_fingerprint, shown};
use crate::certificate::Certificate;
use crate::identity::NamedBytes;
use crate::roots::Roots;

/// What a client trusts: CAs, and servers' own certificates (T4, T6).
#[derive(Debug, Clone, Default)]
pub struct TrustStore {
    anchors: Vec<Anchor>,
    /// All CAs together.
    roots: Roots,
    problems: Vec<Problem>,
    fingerprint: Option<InputsFingerprint>,
    /// Anchors were left out.
    is_full: bool,
}

impl TrustStore {
    /// Reads `cainfo-merged.pem`. A block that cannot be read costs only itself, see [`Self::problems`].
    ///
    /// An empty file gives an empty store, which accepts nobody.
    ///
    /// # Errors
    /// It is not PEM, or too large.
    pub fn read(file: NamedBytes<'_>) -> Result<Self, TrustStoreError> {
        let NamedBytes { what, bytes } = file;
        let mut store = Self { fingerprint: recorded_fingerprint(bytes), ..Self::default() };
        for item in items(bytes, what).map_err(TrustStoreError)? {
            let line = item.line;
            match certificate(item) {
                Ok(certificate) => {
                    store.add(certificate, format!("{}, line {line}", shown(what)), what, Some(line))
                }
                Err(problem) => store.problems.push(Problem::new(what, Some(line), problem)),
            }
        }
        store.collect_roots();
        Ok(store)
    }

    /// Adds CAs behind all others: the system's, or those of the policy's folder (T9). `origin` names them in reports.
    ///
    /// Certificates that are no CAs are left out: only the merged files pin servers.
    #[must_use]
    pub fn with_authorities(
        mut self,
        origin: &str,
        authorities: impl IntoIterator<Item = Certificate>,
    ) -> Self {
        for authority in authorities.into_iter().filter(Certificate::is_ca) {
            self.add(authority, shown(origin), origin, None);
        }
        self.collect_roots();
        self
    }

    /// Returns the anchors in their order.
    #[must_use]
    pub fn anchors(&self) -> &[Anchor] {
        &self.anchors
    }

    /// Returns the CAs among the anchors.
    #[must_use]
    pub fn roots(&self) -> &Roots {
        &self.roots
    }

    /// Returns what was wrong with the blocks that were left out, with file and line.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Returns the hash of the inputs that the file was merged from (T2); `None` if it was not made by [`super::merge`].
    #[must_use]
    pub fn inputs_fingerprint(&self) -> Option<InputsFingerprint> {
        self.fingerprint
    }

    fn add(&mut self, certificate: Certificate, place: String, what: &str, line: Option<usize>) {
        let thumbprint = certificate.thumbprint();
        if self.anchors.iter().any(|known| known.certificate.thumbprint() == thumbprint) {
            return;
        }
        if self.anchors.len() >= ANCHORS_MAX {
            if !std::mem::replace(&mut self.is_full, true) {
                let text =
                    format!("more than {ANCHORS_MAX} anchors; this one and all behind it are left out");
                self.problems.push(Problem::new(what, line, text));
            }
            return;
        }
        let mut roots = None;
        if certificate.is_ca() {
            match Roots::from_certificates([certificate.clone()]) {
                Ok(own) => roots = Some(own),
                Err(error) => self.problems.push(Problem::new(what, line, error.to_string())),
            }
        }
        let position = self.anchors.len() + 1;
        self.anchors.push(Anchor { certificate, roots, position, place });
    }

    fn collect_roots(&mut self) {
        let authorities = self.anchors.iter().filter(|anchor| anchor.roots.is_some());
        // Each was taken alone before, so all together are.
        let all = Roots::from_certificates(authorities.map(|anchor| anchor.certificate.clone()));
        self.roots = all.unwrap_or_default();
    }
}

/// What an anchor is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnchorKind {
    /// A CA: servers that it issued to are trusted.
    Authority,
    /// A server's own certificate: that one server is trusted (T6).
    Leaf,
}

/// One certificate of the store.
#[derive(Debug, Clone)]
pub struct Anchor {
    certificate: Certificate,
    /// The certificate alone as a root; `None` for leaves.
    roots: Option<Roots>,
    position: usize,
    place: String,
}

impl Anchor {
    /// Returns the certificate.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Returns what it is good for. A server that shows the very certificate of a self-signed CA is accepted as well.
    #[must_use]
    pub fn kind(&self) -> AnchorKind {
        if self.roots.is_some() { AnchorKind::Authority } else { AnchorKind::Leaf }
    }

    /// Returns its place among the anchors, from 1.
    #[must_use]
    pub fn position(&self) -> usize {
        self.position
    }

    /// Returns its file and line, or where else it is from.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.place
    }

    pub(super) fn roots(&self) -> Option<&Roots> {
        self.roots.as_ref()
    }

    /// Returns whether it can be a server's own certificate.
    pub(super) fn may_be_server(&self) -> bool {
        !self.certificate.is_ca() || self.certificate.is_self_signed()
    }
}

/// Why a merged file is not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}; rebuild it: `muster-client trust rebuild`")]
pub struct TrustStoreError(Problem);
