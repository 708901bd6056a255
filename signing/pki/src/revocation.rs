//! [`RevocationIndex`]: who is revoked, in O(1), and which issuers' CRLs can be relied on.
//!
//! A CRL's signature is verified once, when it is added; a look-up hashes a name and a serial number, allocates nothing, and
//! touches a few slots however many entries there are (R7). Two principles decide where CRLs overlap:
//!
//! - **Revoked is the union.** A serial number that stands on any CRL of its issuer's name is revoked, whatever the CRL's key
//!   and scope; a CA gives a number once.
//! - **Fresh is exact.** A CRL counts for a certificate only if its scope has the certificate in it, and one of another key of
//!   the same name only while the certificate's issuer has none of its own (R5).
//!
//! Look-ups go by the issuer's name and not by its key, since a CA with a new key may revoke what it issued with the old one by a
//! list of the new one alone. So a CA of the same name below whichever root can revoke what its namesake issued. It can free
//! nobody: its lists replace none of another key, take no room of theirs ([`CRLS_PER_ISSUER_MAX`]), and make none of them fresh.
//!
//! CRLs are loaded by [`RevocationIndex::load`], compared by [`newly_revoked`], judged by [`IssuerRule`]s, and fetched as
//! [`CrlSources`] and [`Fetch`] say; the IO is the caller's.

mod coverage;
mod crl;
mod entries;
mod error;
mod extension;
mod fetch;
mod limits;
mod rule;
mod serials;
mod sources;
pub(crate) mod tlv;
mod url;

use std::collections::HashMap;
use std::sync::Arc;

use rustls_pki_types::{CertificateRevocationListDer, UnixTime};

pub use self::coverage::Coverage;
use self::coverage::deadline;
use self::crl::{Crl, Read};
pub use self::error::{CrlError, CrlWarning};
pub use self::fetch::{Fetch, FetchError, FetchRequest, FetchResponse, Fetched, Validators};
pub use self::limits::{FetchLimits, REDIRECTS_MAX, REFRESH_MAX, RETRY_MAX};
pub(crate) use self::rule::Lack;
use self::rule::Rules;
pub use self::rule::{GRACE, IssuerRule, RevocationMode, Standing};
pub use self::serials::{CRL_ENTRIES_MAX, SERIAL_BYTES_MAX, Serial};
use self::serials::{Key, added};
pub use self::sources::{CrlSources, URLS_PER_ISSUER_MAX};
pub use self::url::{CrlUrl, CrlUrlError};
use crate::certificate::Certificate;
use crate::finding::Severity;
use crate::pem;
use crate::thumbprint::Thumbprint;

/// Largest CRL that is read, in bytes of DER: a million entries with 20-byte serial numbers and a reason each have 53 million.
pub const CRL_BYTES_MAX: usize = pem::FILE_BYTES_MAX;

/// Most CRLs of one key of an issuer: each of its distribution points has one, and a look-up asks all of the name. A namesake's do
/// not count: it could keep out the CA's own.
pub const CRLS_PER_ISSUER_MAX: usize = 128;

/// All CRLs that were added, by issuer, and the rules of the issuers (R6). Clones share the CRLs.
///
/// Which certificate may issue is the caller's to say, by the candidates it gives.
#[derive(Debug, Clone, Default)]
pub struct RevocationIndex {
    issuers: HashMap<Vec<u8>, Vec<Arc<Crl>>>,
    rules: Rules,
}

/// A CRL that was added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The issuer's name.
    pub issuer: String,
    /// The issuer's name, as [`Certificate::subject_der`] returns it.
    pub issuer_der: Vec<u8>,
    /// Which CRLs follow each other: a digest of the signer's name and key, and of the issuing distribution point.
    pub scope: Thumbprint,
    /// How many certificates it revokes.
    pub entries: usize,
    /// When it was made.
    pub this_update: UnixTime,
    /// When the next one is due; what [`Fetch::handle_loaded`] wants.
    pub next_update: UnixTime,
    /// What is worth an alarm.
    pub warnings: Vec<CrlWarning>,
}

/// A certificate, by what a CRL says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RevokedSerial<'a> {
    /// The issuer's name, as [`Certificate::issuer_der`] returns it.
    pub issuer_der: &'a [u8],
    /// The serial number; its bytes are those of [`Certificate::serial`].
    pub serial: Serial,
}

impl RevocationIndex {
    /// Verifies the CRLs in `crl` (PEM or DER) and adds them, as [`Self::load`] does.
    ///
    /// # Errors
    /// As [`Self::load`]. The index is gone then; a caller that wants to keep the old one clones it or uses `load`.
    pub fn with_crl(mut self, crl: &[u8], issuers: &[Certificate], now: UnixTime) -> Result<Self, CrlError> {
        self.load(crl, issuers, now)?;
        Ok(self)
    }

    /// Verifies the CRLs in `crl` (PEM or DER) and adds them, as [`Self::load`] does, without its warnings.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn add(&mut self, crl: &[u8], issuers: &[Certificate], now: UnixTime) -> Result<(), CrlError> {
        self.load(crl, issuers, now).map(drop)
    }

    /// Verifies the CRLs in `crl` (PEM or DER) and adds them all, or none (R4). One of the same signer and scope is replaced.
    ///
    /// An expired CRL is added: what it revokes stays revoked, and [`Self::coverage`] says that it is stale. A CRL of a million
    /// entries takes most of a second: not on an async runtime (R7).
    ///
    /// # Errors
    /// A CRL cannot be read, is of a kind that is not used (delta, indirect, without nextUpdate; R5), is signed by none of
    /// `issuers`, comes from the future, or is older than the one that is known. Each is an alarm.
    pub fn load(
        &mut self,
        crl: &[u8],
        issuers: &[Certificate],
        now: UnixTime,
    ) -> Result<Vec<Loaded>, CrlError> {
        let mut next = self.issuers.clone();
        let mut loaded = Vec::new();
        let blocks = blocks(crl)?;
        // No block: it is DER.
        let ders = if blocks.is_empty() { vec![crl] } else { blocks.iter().map(AsRef::as_ref).collect() };
        for der in ders {
            loaded.push(put(&mut next, Read::new(der, issuers, now)?)?);
        }
        self.issuers = next;
        Ok(loaded)
    }

    /// Drops the CRLs that the key of `issuer` signed: it is configured no more, or has a new key whose CRLs go on.
    pub fn forget(&mut self, issuer: &Certificate) {
        self.issuers.retain(|_, crls| {
            crls.retain(|crl| !rule::is_same(&crl.signer, issuer));
            !crls.is_empty()
        });
    }

    /// Sets the rule of one issuer (R6).
    pub fn set_rule(&mut self, issuer: &Certificate, rule: IssuerRule) {
        self.rules.set(issuer, rule);
    }

    /// Takes back the rules of all issuers: some are configured no more.
    pub fn clear_rules(&mut self) {
        self.rules = Rules::default();
    }

    /// Sets the rule of all issuers that have none of their own (R6). Without it, they are warned of only.
    ///
    /// `configured_since` is as [`IssuerRule::configured_since`]; with `None` each counts as configured at the moment at which it is
    /// judged, for callers that take up an issuer when they see it first.
    pub const fn set_rule_of_others(&mut self, mode: RevocationMode, configured_since: Option<UnixTime>) {
        self.rules.set_others(mode, configured_since);
    }

    /// Returns whether the issuer with the name `issuer_der` revoked the certificate with this serial number.
    #[must_use]
    pub fn contains(&self, issuer_der: &[u8], serial: &[u8]) -> bool {
        let Some(crls) = self.issuers.get(issuer_der) else { return false };
        let Some(serial) = Serial::new(serial) else { return false };
        let key = Key::of(serial);
        crls.iter().any(|crl| crl.revoked.contains(&key))
    }

    /// Returns whether the issuer with the name `issuer_der` had revoked the certificate with this serial number at `moment`;
    /// `None`: at any time.
    ///
    /// Of several CRLs the earliest date counts, and so does an invalidity date before it (RFC 5280 §5.3.2).
    #[must_use]
    pub fn contains_at(&self, issuer_der: &[u8], serial: &[u8], moment: Option<UnixTime>) -> bool {
        let Some(moment) = moment else { return self.contains(issuer_der, serial) };
        let Some(crls) = self.issuers.get(issuer_der) else { return false };
        let Some(serial) = Serial::new(serial) else { return false };
        let key = Key::of(serial);
        let since = crls.iter().filter_map(|crl| crl.revoked.since(&key)).min();
        since.is_some_and(|since| u64::from(since) <= moment.as_secs())
    }

    /// Returns whether the certificate is revoked by its issuer; its issuers are not looked at.
    #[must_use]
    pub fn is_revoked(&self, certificate: &Certificate) -> bool {
        self.contains(certificate.issuer_der(), certificate.serial())
    }

    /// Returns whether the CRLs that speak for `certificate`, which `issuer` issued, can be relied on at `now` (R5).
    #[must_use]
    pub fn coverage(&self, certificate: &Certificate, issuer: &Certificate, now: UnixTime) -> Coverage {
        Coverage::of(self.deadline(certificate, issuer), now)
    }

    /// Returns how it stands with the CRLs of `issuer`, the worst of all its scopes: what metrics and health show (R6).
    ///
    /// `configured_since` is when the issuer was configured first. [`crate::check()`] judges each certificate by the CRLs that
    /// speak for it.
    #[must_use]
    pub fn standing(&self, issuer: &Certificate, now: UnixTime, configured_since: UnixTime) -> Standing {
        let crls = self.issuers.get(issuer.subject_der()).map_or(&[][..], Vec::as_slice);
        let own = crls.iter().filter(|crl| crl.signer.spki_der() == issuer.spki_der());
        let next_update = |crl: &Arc<Crl>| crl.next_update;
        let first = own.map(next_update).min().or_else(|| crls.iter().map(next_update).min());
        Standing::of(Coverage::of(first, now), now, configured_since)
    }

    /// Returns every issuer with a rule of its own, and how it stands: whatever is not fresh is an alarm (R6).
    pub fn standings(&self, now: UnixTime) -> impl Iterator<Item = (&Certificate, IssuerRule, Standing)> {
        let rules = self.rules.iter();
        rules.map(move |(issuer, rule)| (issuer, rule, self.standing(issuer, now, rule.configured_since)))
    }

    /// Returns from when on R6 refuses `path` (leaf first, root last) if no newer CRL is loaded; `None`: never.
    ///
    /// An accepted verdict may be kept until then, and no longer.
    #[must_use]
    pub fn refuses_from(&self, path: &[Certificate]) -> Option<UnixTime> {
        let pairs = path.iter().zip(path.iter().skip(1));
        let times = pairs.filter_map(|(certificate, issuer)| {
            self.rules.of(issuer)?.refuses_from(self.deadline(certificate, issuer))
        });
        times.min()
    }

    /// Returns whether no CRL was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.issuers.is_empty()
    }

    /// Returns the number of entries of all CRLs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.issuers.values().flatten().map(|crl| crl.revoked.len()).sum()
    }

    /// Returns what R6 says of a certificate that `issuer` issued; `None` if all is well, or if nothing was configured.
    pub(crate) fn lack(
        &self,
        certificate: &Certificate,
        issuer: &Certificate,
        now: UnixTime,
    ) -> Option<Lack> {
        let coverage = self.coverage(certificate, issuer, now);
        if matches!(coverage, Coverage::Fresh { .. }) || (self.is_empty() && self.rules.is_empty()) {
            return None;
        }
        let Some(rule) = self.rules.of(issuer) else {
            return Some(Lack { severity: Severity::Warning, coverage, grace_until: None });
        };
        let standing = Standing::of(coverage, now, rule.configured_since(now));
        let grace_until = match (standing, rule.mode) {
            (Standing::InGrace { until }, RevocationMode::Grace) => Some(until),
            (Standing::Fresh { .. } | Standing::InGrace { .. } | Standing::Lapsed { .. }, _) => None,
        };
        let severity = standing.severity(rule.mode)?;
        Some(Lack { severity, coverage, grace_until })
    }

    /// Returns until when the CRLs that speak for the certificate are fresh; `None` if they speak not for all reasons.
    fn deadline(&self, certificate: &Certificate, issuer: &Certificate) -> Option<UnixTime> {
        let crls = self.issuers.get(certificate.issuer_der())?;
        let speak = || crls.iter().filter(|crl| crl.covers.speaks_for(certificate));
        let is_own = |crl: &&Arc<Crl>| crl.signer.spki_der() == issuer.spki_der();
        let scope = |crl: &Arc<Crl>| (crl.covers.reasons, crl.next_update);
        // A CA that publishes one CRL for each of its keys speaks with each for its own certificates only; one that publishes
        // with its newest key only speaks for all.
        if speak().any(|crl| is_own(&crl)) {
            return deadline(speak().filter(is_own).map(scope));
        }
        deadline(speak().map(scope))
    }
}

/// Returns the certificates that `new` revokes and `old` does not, each once (R3): the sessions to close.
///
/// The order is that of the serial numbers in each CRL. It merges the CRLs that changed, and skips those that both share; a
/// session closes if any certificate of its path is among them (R8).
pub fn newly_revoked<'a>(
    old: &'a RevocationIndex,
    new: &'a RevocationIndex,
) -> impl Iterator<Item = RevokedSerial<'a>> + 'a {
    new.issuers.iter().flat_map(move |(issuer_der, crls)| {
        let before = old.issuers.get(issuer_der).map_or(&[][..], Vec::as_slice);
        crls.iter()
            .enumerate()
            .flat_map(move |(index, crl)| {
                let follows = before.iter().find(|before| is_same_scope(before, crl));
                let is_shared = follows.is_some_and(|follows| Arc::ptr_eq(follows, crl));
                let entries = if is_shared { &[][..] } else { crl.revoked.sorted() };
                let followed = follows.map_or(&[][..], |follows| follows.revoked.sorted());
                let told = crls.get(..index).unwrap_or_default();
                // The CRLs of other scopes may have it already.
                added(followed, entries).filter(move |serial| {
                    let key = Key::of(*serial);
                    !before.iter().chain(told).any(|crl| crl.revoked.contains(&key))
                })
            })
            .map(move |serial| RevokedSerial { issuer_der, serial })
    })
}

impl Loaded {
    /// Returns whether it is of the key of `issuer`, and has no issuing distribution point: it speaks for all of its certificates.
    #[must_use]
    pub fn is_whole_of(&self, issuer: &Certificate) -> bool {
        self.scope == scope(issuer.subject_der(), issuer.spki_der(), &[])
    }
}

fn scope(issuer_der: &[u8], spki_der: &[u8], point: &[u8]) -> Thumbprint {
    Thumbprint::of(&[issuer_der, spki_der, point].concat())
}

/// Puts a CRL in the place of the one that it follows.
fn put(issuers: &mut HashMap<Vec<u8>, Vec<Arc<Crl>>>, read: Read) -> Result<Loaded, CrlError> {
    let Read { issuer, issuer_der, crl, mut warnings } = read;
    let crls = issuers.entry(issuer_der.clone()).or_default();
    let known = crls.iter().position(|known| is_same_scope(known, &crl));
    if let Some(known) = known.and_then(|known| crls.get(known)) {
        if crl.is_older_than(known) {
            return Err(CrlError::Older { issuer, got: crl.age(), known: known.age() });
        }
        if crl.this_update < known.this_update {
            warnings.push(CrlWarning::Backdated { before: known.this_update });
        }
    }
    let scope = scope(&issuer_der, crl.signer.spki_der(), &crl.point);
    let loaded = Loaded {
        issuer,
        issuer_der,
        scope,
        entries: crl.revoked.len(),
        this_update: crl.this_update,
        next_update: crl.next_update,
        warnings,
    };
    let crl = Arc::new(crl);
    // A CRL for everything ends those for parts that its signer made before.
    let ends = |old: &Arc<Crl>| {
        is_same_scope(old, &crl)
            || (crl.covers.is_everything()
                && old.signer.spki_der() == crl.signer.spki_der()
                && old.this_update <= crl.this_update)
    };
    crls.retain(|old| !ends(old));
    let of_key = crls.iter().filter(|old| old.signer.spki_der() == crl.signer.spki_der()).count();
    if of_key >= CRLS_PER_ISSUER_MAX {
        return Err(CrlError::TooManyOfIssuer { issuer: loaded.issuer });
    }
    crls.push(crl);
    Ok(loaded)
}

/// CRLs of one signer and issuing distribution point follow each other.
fn is_same_scope(one: &Crl, other: &Crl) -> bool {
    one.point == other.point && one.signer.spki_der() == other.signer.spki_der()
}

/// Returns the CRLs of a PEM file; none if it is DER.
fn blocks(crl: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, CrlError> {
    if crl.len() > CRL_BYTES_MAX {
        return Err(CrlError::TooLarge(crl.len()));
    }
    if crl.first() == Some(&0x30) {
        return Ok(Vec::new());
    }
    Ok(pem::crls(crl, "CRL")?)
}
