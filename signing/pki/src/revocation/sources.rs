//! [`CrlSources`]: from which URLs CRLs may be fetched (R1).

use crate::certificate::Certificate;
use crate::revocation::CrlUrl;
use crate::revocation::rule::is_same;
use crate::verdict::Verdict;

/// Most URLs of one issuer, configured ones apart: a CA has one to three, and what certificates say is bounded.
pub const URLS_PER_ISSUER_MAX: usize = 16;

/// The URLs that may be fetched, by configured issuer. No other URL is ever fetched.
///
/// They come from configuration, from configured certificates (each tells where its own issuer publishes), and from
/// certificates whose path to a root was verified; never from what a peer only claims.
#[derive(Debug, Clone, Default)]
pub struct CrlSources {
    issuers: Vec<Issuer>,
}

#[derive(Debug, Clone)]
struct Issuer {
    certificate: Certificate,
    configured: Vec<CrlUrl>,
    told: Vec<CrlUrl>,
}

impl CrlSources {
    /// Takes the configured issuers: roots, and intermediates known locally. Their distribution points count for those that
    /// issued them, if these are configured, too.
    #[must_use]
    pub fn new(issuers: impl IntoIterator<Item = Certificate>) -> Self {
        let mut sources = Self::default();
        for certificate in issuers {
            if sources.issuer(&certificate).is_none() {
                sources.issuers.push(Issuer { certificate, configured: Vec::new(), told: Vec::new() });
            }
        }
        let certificates: Vec<Certificate> =
            sources.issuers.iter().map(|issuer| issuer.certificate.clone()).collect();
        for certificate in certificates.iter().filter(|certificate| !certificate.is_self_signed()) {
            let by_name =
                certificates.iter().filter(|issuer| issuer.subject_der() == certificate.issuer_der());
            for issuer in by_name {
                sources.tell(certificate, issuer);
            }
        }
        sources
    }

    /// Keeps what certificates told of the issuers that were configured before, too: those who told it need not come again.
    #[must_use]
    pub fn with_told_of(mut self, before: &Self) -> Self {
        for known in &before.issuers {
            let Some(issuer) = self.issuer(&known.certificate) else { continue };
            for url in &known.told {
                if issuer.told.len() < URLS_PER_ISSUER_MAX && !issuer.has(url) {
                    issuer.told.push(url.clone());
                }
            }
        }
        self
    }

    /// Adds a URL from the configuration; nothing happens if the issuer is not configured.
    pub fn configure(&mut self, issuer: &Certificate, url: CrlUrl) {
        if let Some(known) = self.issuer(issuer).filter(|known| !known.has(&url)) {
            known.configured.push(url);
        }
    }

    /// Adds the http and https distribution points of a verified path's certificates, each to its issuer, and returns the new
    /// ones.
    ///
    /// Whether the certificate itself was accepted plays no part: in mode `hard` it cannot be before a CRL is there. A path is in
    /// a verdict only if all its signatures hold.
    pub fn learn(&mut self, verdict: &Verdict) -> Vec<CrlUrl> {
        self.learn_path(verdict.path())
    }

    /// As [`Self::learn`], of the path of a verdict: leaf first, root last.
    pub fn learn_path(&mut self, path: &[Certificate]) -> Vec<CrlUrl> {
        let pairs = path.iter().zip(path.iter().skip(1));
        pairs.flat_map(|(certificate, issuer)| self.tell(certificate, issuer)).collect()
    }

    /// Returns the CAs of a verified path that are not configured: a root vouches for them, and nobody named them.
    pub fn unknown<'a>(&'a self, verdict: &'a Verdict) -> impl Iterator<Item = &'a Certificate> {
        let is_known = |authority: &&Certificate| {
            self.issuers.iter().any(|known| is_same(&known.certificate, authority))
        };
        verdict.path().iter().skip(1).filter(move |authority| !is_known(authority))
    }

    /// Returns the issuers and where their CRLs may be fetched, in the order of configuration.
    pub fn iter(&self) -> impl Iterator<Item = (&Certificate, &CrlUrl)> {
        self.issuers.iter().flat_map(|issuer| issuer.urls().map(|url| (&issuer.certificate, url)))
    }

    /// Returns the issuers for which there is no URL: their CRLs come from files, or not at all, which is worth an alarm.
    pub fn without_url(&self) -> impl Iterator<Item = &Certificate> {
        self.issuers.iter().filter(|issuer| issuer.urls().next().is_none()).map(|issuer| &issuer.certificate)
    }

    /// Returns whether `url` is one of them.
    #[must_use]
    pub fn allows(&self, url: &CrlUrl) -> bool {
        self.issuers.iter().any(|issuer| issuer.has(url))
    }

    /// Returns whose CRL `url` is to serve: the issuers that it was configured or told for. Empty: it is not fetched.
    pub fn issuers_of<'a>(&'a self, url: &'a str) -> impl Iterator<Item = &'a Certificate> {
        let serves = move |issuer: &&Issuer| issuer.urls().any(|known| known.as_str() == url);
        self.issuers.iter().filter(serves).map(|issuer| &issuer.certificate)
    }

    /// Returns the configured issuers, to verify a fetched CRL with.
    #[must_use]
    pub fn issuers(&self) -> Vec<Certificate> {
        self.issuers.iter().map(|issuer| issuer.certificate.clone()).collect()
    }

    fn tell(&mut self, certificate: &Certificate, issuer: &Certificate) -> Vec<CrlUrl> {
        let Some(known) = self.issuer(issuer) else { return Vec::new() };
        let mut new = Vec::new();
        for uri in certificate.crl_distribution_points() {
            let Ok(url) = uri.parse::<CrlUrl>() else { continue };
            if known.told.len() < URLS_PER_ISSUER_MAX && !known.has(&url) {
                known.told.push(url.clone());
                new.push(url);
            }
        }
        new
    }

    fn issuer(&mut self, certificate: &Certificate) -> Option<&mut Issuer> {
        self.issuers.iter_mut().find(|known| is_same(&known.certificate, certificate))
    }
}

impl Issuer {
    fn urls(&self) -> impl Iterator<Item = &CrlUrl> {
        self.configured.iter().chain(&self.told)
    }

    fn has(&self, url: &CrlUrl) -> bool {
        self.urls().any(|known| known == url)
    }
}
