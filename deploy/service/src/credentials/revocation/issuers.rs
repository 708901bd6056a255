//! [`Issuers`]: whose CRLs count: roots, the issuing CAs that are named, and those that verified chains lead over.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use muster_pki::{
    Certificate, CertificateDer, CrlSources, CrlUrl, Facts, IssuerRule, RevocationIndex, RevocationMode,
    Roots, Thumbprint, UnixTime, pem, verify_path,
};

use super::kept::Kept;
use super::met;
use super::{RevocationFiles, RevocationSettings, TrustStores};
use crate::credentials::error::CredentialError;
use crate::credentials::files::{bytes_of, read};
use crate::credentials::identity::expiry_warning;
use crate::metrics;

/// The CAs that are configured, and those whose certificates stand in our files.
#[derive(Debug, Default)]
pub(super) struct Issuers {
    /// Of all roles.
    roots: Roots,
    /// Roots and named issuing CAs.
    configured: Vec<Configured>,
    /// The CAs behind our own certificate, if a root vouches for them.
    own: Vec<Certificate>,
    /// Certificates of CAs that verified chains led over and that cannot be taken up, as what is above them is constrained or there is
    /// no room: each has a rule all the same, so that its day of grace ends (R6).
    untaken: Vec<Certificate>,
    /// One of these, if a root vouches for it: there is no room.
    beyond: Option<Certificate>,
    /// Whether as many CAs are remembered as may be; those that come have one day of grace together.
    is_full: bool,
    /// Files of roots that give none.
    unread: Vec<PathBuf>,
    /// Every configured CA, by its file: what is told before it ends (N3).
    authorities: Vec<(PathBuf, Certificate)>,
}

#[derive(Debug)]
struct Configured {
    certificate: Certificate,
    mode: Option<RevocationMode>,
    urls: Vec<CrlUrl>,
    kind: Kind,
}

/// How an issuer came to be configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It stands in a file of roots.
    Root,
    /// `revocation.issuers` names it.
    Named,
    /// A verified chain led over it to a root. It counts as the named ones do, but no path leads over it that does not show it.
    Met,
}

impl Issuers {
    /// Reads them. What is wrong with roots is told where roles are read; here they are passed over.
    pub(super) fn read(
        files: &RevocationFiles,
        settings: &RevocationSettings,
        stores: &TrustStores,
        met: &[Certificate],
        now: UnixTime,
    ) -> Result<Self, CredentialError> {
        let mut this = Self::default();
        let mut errors = Vec::new();
        for path in &files.roots {
            let bytes = read(path);
            let roots =
                bytes.ok().and_then(|bytes| Roots::from_pem(&bytes, &path.display().to_string()).ok());
            if roots.is_none() {
                this.unread.push(path.clone());
            }
            this.configure_roots(path, roots.iter().flat_map(Roots::iter));
        }
        this.read_stores(stores);
        let roots = this.configured.iter().map(|root| root.certificate.clone());
        this.roots = Roots::from_certificates(roots).unwrap_or_default();
        for issuer in &settings.issuers {
            match this.read_issuer(issuer) {
                Ok(()) => {}
                Err(error) => errors.push(error),
            }
        }
        if let Some(error) = CredentialError::of_all(errors) {
            return Err(error);
        }
        if let Some(bytes) = files.own.as_ref().and_then(|path| read(path).ok()) {
            this.own = this.vouched(&certificates_beside(&bytes), now);
        }
        this.read_met(met, settings.met_max, now);
        this.record_ends();
        Ok(this)
    }

    /// Takes up the CAs that chains led over, as far as roots vouch for them and there is room, and remembers the others.
    fn read_met(&mut self, met: &[Certificate], max: usize, now: UnixTime) {
        let vouched = self.vouched(met, now);
        let others = met.iter().filter(|certificate| !vouched.contains(certificate)).cloned();
        let (taken, beyond) = met::parted(vouched.clone(), max, now);
        for certificate in taken {
            self.configure(Configured { certificate, mode: None, urls: Vec::new(), kind: Kind::Met });
        }
        let is_missed = |authority: &&Certificate| !met::has_ended(authority, now) && !self.has(authority);
        let missed = beyond.iter().find(is_missed).cloned();
        self.beyond = missed;
        let is_taken = |authority: &Certificate| self.certificates_of(authority).any(|one| one == authority);
        let untaken: Vec<Certificate> =
            beyond.into_iter().chain(others).filter(|authority| !is_taken(authority)).collect();
        let configured: Vec<&Certificate> =
            self.configured.iter().map(|configured| &configured.certificate).collect();
        self.untaken = met::with_issuers(untaken, &configured, now);
        self.is_full = self.remembered().count() >= remembered_max(max)
            && !self.remembered().any(|authority| met::has_ended(authority, now));
    }

    /// Adds the CAs of trust stores, which stand beside roots. One that cannot be read is as a file of roots that cannot, unless it
    /// is only tried: then whoever tries it tells.
    fn read_stores(&mut self, stores: &TrustStores) {
        if let Some(followed) = &stores.followed {
            match followed.named() {
                Ok(store) => self.configure_roots(&followed.merged_file(), store.roots().iter()),
                Err(_) => self.unread.push(followed.merged_file()),
            }
        }
        if let Some(tried) = &stores.tried
            && let Ok(store) = tried.named()
        {
            self.configure_roots(&tried.merged_file(), store.roots().iter());
        }
    }

    fn configure_roots<'a>(&mut self, path: &Path, roots: impl Iterator<Item = &'a Certificate>) {
        for root in roots {
            self.authorities.push((path.to_owned(), root.clone()));
            let certificate = root.clone();
            self.configure(Configured { certificate, mode: None, urls: Vec::new(), kind: Kind::Root });
        }
    }

    fn read_issuer(&mut self, settings: &super::IssuerSettings) -> Result<(), CredentialError> {
        let path = &settings.certificates;
        let bytes = read(path);
        let bytes = bytes_of(path, &bytes)?;
        let mut urls = Vec::new();
        for url in &settings.urls {
            urls.push(url.parse::<CrlUrl>().map_err(CredentialError::CrlUrl)?);
        }
        for der in pem::certificates(bytes, &path.display().to_string())? {
            let certificate = Certificate::from_der(&der)
                .ok()
                .filter(Certificate::is_ca)
                .ok_or_else(|| CredentialError::NotAnIssuer { path: path.clone() })?;
            self.authorities.push((path.clone(), certificate.clone()));
            self.configure(Configured {
                certificate,
                mode: settings.mode,
                urls: urls.clone(),
                kind: Kind::Named,
            });
        }
        Ok(())
    }

    /// Adds a CA; one that is a root, too, keeps its place and takes mode and URLs.
    fn configure(&mut self, new: Configured) {
        let thumbprint = new.certificate.thumbprint();
        let known = self.configured.iter_mut().find(|known| known.certificate.thumbprint() == thumbprint);
        match known {
            Some(known) => {
                known.mode = new.mode.or(known.mode);
                known.urls.extend(new.urls);
            }
            None => self.configured.push(new),
        }
    }

    /// Sets every issuer's rule, and that of issuing CAs which are seen for the first time (R6).
    pub(super) fn set_rules(
        &self,
        index: &mut RevocationIndex,
        settings: &RevocationSettings,
        kept: &mut Kept,
        now: UnixTime,
    ) {
        if self.configured.is_empty() {
            return;
        }
        kept.set_met(self.remembered());
        index.clear_rules();
        let configured = self.configured.iter().map(|one| &one.certificate);
        for certificate in configured.chain(&self.untaken) {
            let mode = self.mode_of(certificate).unwrap_or(settings.mode);
            let configured_since = kept.configured_since(certificate, now);
            index.set_rule(certificate, IssuerRule { mode, configured_since });
        }
        // Whoever is seen first is taken up or remembered at once, and has its own day from then on; if there is room for that.
        index.set_rule_of_others(settings.mode, kept.full_since(self.is_full, now));
        kept.bound_configured_since();
    }

    /// Returns the mode that is configured for a CA, under whichever of its certificates.
    fn mode_of(&self, authority: &Certificate) -> Option<RevocationMode> {
        self.configured
            .iter()
            .rev()
            .filter(|one| is_same(&one.certificate, authority))
            .find_map(|one| one.mode)
    }

    /// Returns from where CRLs may be fetched.
    pub(super) fn sources(&self) -> CrlSources {
        let certificates = self.configured.iter().map(|configured| configured.certificate.clone());
        let mut sources = CrlSources::new(certificates);
        for configured in &self.configured {
            for url in &configured.urls {
                sources.configure(&configured.certificate, url.clone());
            }
        }
        sources
    }

    /// Returns whoever may have signed a CRL; of `beside`, those that a root vouches for.
    pub(super) fn candidates(&self, beside: &[Certificate], now: UnixTime) -> Vec<Certificate> {
        let configured = self.configured.iter().map(|configured| &configured.certificate);
        let mut candidates: Vec<Certificate> = configured.chain(&self.own).cloned().collect();
        candidates.extend(self.vouched(beside, now));
        candidates
    }

    /// Returns the CAs that are configured, for paths over them.
    pub(super) fn intermediates(&self) -> Vec<CertificateDer<'static>> {
        let named = self.configured.iter().filter(|configured| configured.kind == Kind::Named);
        named.map(|configured| configured.certificate.certificate_der().clone()).collect()
    }

    /// Returns the CAs that were met in verified chains.
    pub(super) fn met(&self) -> impl Iterator<Item = &Certificate> {
        let met = self.configured.iter().filter(|configured| configured.kind == Kind::Met);
        met.map(|configured| &configured.certificate)
    }

    /// Returns the CAs that chains led over, those that are taken up first.
    pub(super) fn remembered(&self) -> impl Iterator<Item = &Certificate> {
        self.met().chain(&self.untaken)
    }

    /// Returns those that cannot be taken up.
    pub(super) fn untaken(&self) -> &[Certificate] {
        &self.untaken
    }

    /// Returns whether chains led over a CA that cannot be taken up under any of its certificates.
    pub(super) fn is_untaken(&self, authority: &Certificate) -> bool {
        !self.has(authority) && self.untaken.iter().any(|known| is_same(known, authority))
    }

    /// Returns whether there is no room to remember another one.
    pub(super) const fn is_full(&self) -> bool {
        self.is_full
    }

    /// Returns what to tell where there is no room for CAs that a root vouches for.
    pub(super) fn beyond(&self, max: usize) -> Option<String> {
        let authority = self.beyond.as_ref()?;
        Some(format!(
            "verified chains led over more than {max} issuing CAs, {} is one too many: its CRL is not known; name it in `revocation.issuers`, or raise `revocation.met_max`",
            authority.subject()
        ))
    }

    /// Returns which configured CAs have ended, or are about to (N3), each once.
    pub(super) fn ending(&self, now: UnixTime) -> Vec<String> {
        let mut told: Vec<Thumbprint> = Vec::new();
        let mut ending = Vec::new();
        for (path, certificate) in &self.authorities {
            if let Some(warning) = expiry_warning("CA", certificate, now)
                && !told.contains(&certificate.thumbprint())
            {
                told.push(certificate.thumbprint());
                ending.push(format!("{}: {warning}", path.display()));
            }
        }
        ending
    }

    /// Returns whether a CA has ended, under all of its certificates here: nobody publishes for it any more, which is no fault.
    pub(super) fn has_ended(&self, issuer: &Certificate, now: UnixTime) -> bool {
        let untaken = self.untaken.iter().filter(|known| is_same(known, issuer));
        let mut known = self.certificates_of(issuer).chain(untaken).chain([issuer]);
        known.all(|certificate| certificate.not_after() < now)
    }

    /// Sets the metric of when the first CA of each file ends.
    fn record_ends(&self) {
        let mut first: BTreeMap<&Path, u64> = BTreeMap::new();
        for (path, certificate) in &self.authorities {
            let end = certificate.not_after().as_secs();
            first.entry(path).and_modify(|first| *first = end.min(*first)).or_insert(end);
        }
        for (path, end) in first {
            let file = path.display().to_string();
            #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 seconds")]
            ::metrics::gauge!(metrics::AUTHORITIES_NOT_AFTER_SECONDS, "file" => file).set(end as f64);
        }
    }

    /// Returns the files of roots that gave none when these were read.
    pub(super) fn unread(&self) -> &[PathBuf] {
        &self.unread
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.is_full == other.is_full && self.identity() == other.identity()
    }

    /// Returns whether a CA of this name and key is configured.
    pub(super) fn has(&self, issuer: &Certificate) -> bool {
        self.certificates_of(issuer).next().is_some()
    }

    fn certificates_of<'a>(&'a self, issuer: &'a Certificate) -> impl Iterator<Item = &'a Certificate> {
        let certificates = self.configured.iter().map(|configured| &configured.certificate);
        certificates.filter(move |known| is_same(known, issuer))
    }

    /// Returns the issuers of this that `next` has no more.
    pub(super) fn gone_from<'a>(&'a self, next: &'a Self) -> impl Iterator<Item = &'a Certificate> {
        self.configured.iter().map(|configured| &configured.certificate).filter(move |gone| !next.has(gone))
    }

    fn identity(&self) -> Vec<(Thumbprint, Option<RevocationMode>, &[CrlUrl])> {
        let configured =
            self.configured.iter().map(|one| (one.certificate.thumbprint(), one.mode, one.urls.as_slice()));
        let others = self.own.iter().chain(&self.untaken).chain(&self.beyond);
        configured.chain(others.map(|certificate| (certificate.thumbprint(), None, &[][..]))).collect()
    }

    /// Keeps the CAs whose path to a root holds, over each other and over the configured ones; or held, of those that have ended:
    /// timestamped documents outlive them, and whom they revoked must stay known.
    fn vouched(&self, certificates: &[Certificate], now: UnixTime) -> Vec<Certificate> {
        let others = certificates.iter().map(|certificate| certificate.certificate_der().clone());
        let intermediates: Vec<CertificateDer<'static>> = others.chain(self.intermediates()).collect();
        let holds_at = |certificate: &Certificate, moment: UnixTime| {
            let facts = Facts { intermediates: &intermediates, ..Facts::at(moment) };
            verify_path(&[certificate.certificate_der().clone()], &self.roots, &facts).is_ok()
        };
        let is_vouched = |certificate: &&Certificate| {
            let mut moments = self.moments(certificate, certificates, now).into_iter();
            certificate.is_ca() && moments.any(|moment| holds_at(certificate, moment))
        };
        certificates.iter().filter(is_vouched).cloned().collect()
    }

    /// Returns when the path of a CA may have held last: now; or where it or one that may be above it has ended, at that end.
    fn moments(&self, certificate: &Certificate, others: &[Certificate], now: UnixTime) -> Vec<UnixTime> {
        let known = || self.configured.iter().map(|configured| &configured.certificate).chain(others);
        let mut way = vec![certificate];
        let mut next = 0;
        // By names, each CA once: signatures are verified only where a path may be.
        while let Some(below) = way.get(next).copied() {
            let above: Vec<&Certificate> = known()
                .filter(|above| above.subject_der() == below.issuer_der() && !way.contains(above))
                .collect();
            way.extend(above);
            next += 1;
        }
        let ends = way.iter().map(|authority| authority.not_after());
        let ended = ends.filter(|end| *end < now && *end >= certificate.not_before());
        let mut moments: Vec<UnixTime> = ended.chain([now]).collect();
        moments.sort_unstable_by(|one, other| other.cmp(one));
        moments.dedup();
        moments
    }
}

/// Returns whether two certificates are of one CA: the same name and key.
fn is_same(one: &Certificate, other: &Certificate) -> bool {
    one.spki_der() == other.spki_der() && one.subject_der() == other.subject_der()
}

/// Returns how many certificates of CAs of chains are remembered where `max` may be taken up: as many again that cannot be.
pub(super) const fn remembered_max(max: usize) -> usize {
    max.saturating_mul(2)
}

/// Returns the certificates of a PEM file; none if it is DER or a PFX.
pub(super) fn certificates_beside(bytes: &[u8]) -> Vec<Certificate> {
    let contents = pem::read(bytes, "file").ok();
    let ders = contents.iter().flat_map(|contents| &contents.certificates);
    ders.filter_map(|der| Certificate::from_der(der).ok()).collect()
}
