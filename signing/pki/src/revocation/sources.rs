//! [`CrlSources`]: from which URLs CRLs may be fetched (R1).

use std::time::Duration;

use rustls_pki_types::UnixTime;

use crate::certificate::Certificate;
use crate::revocation::rule::is_same;
use crate::revocation::{CRLS_PER_ISSUER_MAX, CrlUrl};
use crate::verdict::Verdict;

/// Most URLs of one issuer, configured ones apart: what certificates say is bounded. A CA has one to three, or one for each part of
/// its certificates, and an index holds no more lists of it.
pub const URLS_PER_ISSUER_MAX: usize = CRLS_PER_ISSUER_MAX;

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
    /// Other certificates of its name and key: it was renewed, or cross-signed.
    others: Vec<Certificate>,
    configured: Vec<CrlUrl>,
    told: Vec<Told>,
    /// When the latest certificate began that told a URL.
    latest: UnixTime,
    /// One that certificates told, for which there was no room.
    beyond: Option<CrlUrl>,
}

/// A URL that certificates told.
#[derive(Debug, Clone)]
struct Told {
    url: CrlUrl,
    /// When the latest of them began.
    latest: UnixTime,
}

impl CrlSources {
    /// Takes the configured issuers: roots, and intermediates known locally. Their distribution points count for those that
    /// issued them, if these are configured, too.
    #[must_use]
    pub fn new(issuers: impl IntoIterator<Item = Certificate>) -> Self {
        let mut sources = Self::default();
        for certificate in issuers {
            match sources.issuer(&certificate) {
                Some(known) if known.is_under(&certificate) => {}
                Some(known) => known.others.push(certificate),
                None => sources.issuers.push(Issuer::new(certificate)),
            }
        }
        let certificates: Vec<Certificate> =
            sources.issuers.iter().flat_map(Issuer::certificates).cloned().collect();
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
            for told in &known.told {
                issuer.tell(&told.url, told.latest);
            }
            if let Some(url) = &known.beyond {
                issuer.tell(url, UnixTime::since_unix_epoch(Duration::ZERO));
            }
        }
        self
    }

    /// Adds a URL from the configuration; nothing happens if the issuer is not configured.
    pub fn configure(&mut self, issuer: &Certificate, url: CrlUrl) {
        if let Some(known) = self.issuer(issuer).filter(|known| !known.has(&url)) {
            known.beyond.take_if(|beyond| *beyond == url);
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

    /// Returns the certificates of CAs of a verified path that are not configured: a root vouches for them, and nobody named them.
    /// One that was renewed or cross-signed is another certificate of a CA: this one may go on where the known one ends.
    pub fn unknown<'a>(&'a self, verdict: &'a Verdict) -> impl Iterator<Item = &'a Certificate> {
        let is_known = |authority: &&Certificate| {
            self.issuers.iter().any(|known| {
                known.is_under(authority)
                    || (authority.is_self_signed() && is_same(&known.certificate, authority))
            })
        };
        verdict.path().iter().skip(1).filter(move |authority| !is_known(authority))
    }

    /// Returns the issuers and where their CRLs may be fetched, in the order of configuration.
    pub fn iter(&self) -> impl Iterator<Item = (&Certificate, &CrlUrl)> {
        self.issuers.iter().flat_map(|issuer| issuer.urls().map(|url| (&issuer.certificate, url)))
    }

    /// Returns the issuers of which certificates told more than [`URLS_PER_ISSUER_MAX`] URLs, each with one that is not fetched:
    /// worth an alarm.
    pub fn beyond(&self) -> impl Iterator<Item = (&Certificate, &CrlUrl)> {
        self.issuers.iter().filter_map(|issuer| Some((&issuer.certificate, issuer.beyond.as_ref()?)))
    }

    /// Returns whether `url` is one of them.
    #[must_use]
    pub fn allows(&self, url: &CrlUrl) -> bool {
        self.issuers.iter().any(|issuer| issuer.has(url))
    }

    /// Returns whether an issuer has left `url`: certificates told it, and the latest ones tell others in its place.
    #[must_use]
    pub fn is_left(&self, issuer: &Certificate, url: &str) -> bool {
        let known = self.issuers.iter().filter(|known| is_same(&known.certificate, issuer));
        let is_left = |known: &Issuer| {
            let is_configured = known.configured.iter().any(|configured| configured.as_str() == url);
            let told = known.told.iter().find(|told| told.url.as_str() == url);
            !is_configured && told.is_some_and(|told| told.latest < known.latest)
        };
        known.into_iter().any(is_left)
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
            if known.tell(&url, certificate.not_before()) {
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
    fn new(certificate: Certificate) -> Self {
        let (others, configured, told) = (Vec::new(), Vec::new(), Vec::new());
        let latest = UnixTime::since_unix_epoch(Duration::ZERO);
        Self { certificate, others, configured, told, latest, beyond: None }
    }

    fn certificates(&self) -> impl Iterator<Item = &Certificate> {
        std::iter::once(&self.certificate).chain(&self.others)
    }

    /// Returns whether this is one of its certificates.
    fn is_under(&self, certificate: &Certificate) -> bool {
        self.certificates().any(|known| known == certificate)
    }

    /// Takes a URL that a certificate told which began `at`; returns whether it is new and there is room.
    fn tell(&mut self, url: &CrlUrl, at: UnixTime) -> bool {
        self.latest = self.latest.max(at);
        if let Some(told) = self.told.iter_mut().find(|told| told.url == *url) {
            told.latest = told.latest.max(at);
            return false;
        }
        if self.has(url) {
            return false;
        }
        let has_room = self.told.len() < URLS_PER_ISSUER_MAX;
        if has_room {
            self.told.push(Told { url: url.clone(), latest: at });
        } else {
            self.beyond.get_or_insert_with(|| url.clone());
        }
        has_room
    }

    fn urls(&self) -> impl Iterator<Item = &CrlUrl> {
        self.configured.iter().chain(self.told.iter().map(|told| &told.url))
    }

    fn has(&self, url: &CrlUrl) -> bool {
        self.urls().any(|known| known == url)
    }
}
