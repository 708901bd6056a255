//! For which certificates a CRL speaks, and whether all of them that speak for one are fresh (R5).

use rustls_pki_types::UnixTime;

use crate::certificate::Certificate;

/// All reasons of RFC 5280 §4.2.1.13: bits 1 (keyCompromise) to 8 (aACompromise).
pub(super) const REASONS_ALL: u16 = 0b1_1111_1110;

/// What a CRL speaks for, by its issuing distribution point (RFC 5280 §5.2.5). Without one: for everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Covers {
    pub(super) subjects: Subjects,
    /// One bit for each reason.
    pub(super) reasons: u16,
    /// Names of the distribution point, as DER; one of them must stand in the certificate. `None`: any certificate.
    pub(super) points: Option<Vec<Vec<u8>>>,
}

/// Whose certificates a CRL lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subjects {
    All,
    /// onlyContainsUserCerts.
    Users,
    /// onlyContainsCACerts.
    Authorities,
}

impl Default for Covers {
    fn default() -> Self {
        Self { subjects: Subjects::All, reasons: REASONS_ALL, points: None }
    }
}

impl Covers {
    /// Returns whether the CRL would list this certificate of its issuer if it were revoked.
    pub(super) fn speaks_for(&self, certificate: &Certificate) -> bool {
        let is_its_kind = match self.subjects {
            Subjects::All => true,
            Subjects::Users => !certificate.is_ca(),
            Subjects::Authorities => certificate.is_ca(),
        };
        let is_its_point = self
            .points
            .as_ref()
            .is_none_or(|names| names.iter().any(|name| certificate.crl_point_names().contains(name)));
        is_its_kind && is_its_point
    }

    pub(super) fn is_everything(&self) -> bool {
        *self == Self::default()
    }
}

/// Whether the CRLs that speak for a certificate can be relied on (R5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coverage {
    /// They are within their time.
    Fresh {
        /// When the first of them is due to be followed by a newer one.
        until: UnixTime,
    },
    /// One of them should have been followed by a newer one.
    Stale {
        /// When the next one was due.
        next_update: UnixTime,
    },
    /// There is none, or only for some of the reasons of a revocation.
    Missing,
}

impl Coverage {
    pub(super) fn of(deadline: Option<UnixTime>, now: UnixTime) -> Self {
        match deadline {
            Some(until) if until > now => Self::Fresh { until },
            Some(next_update) => Self::Stale { next_update },
            None => Self::Missing,
        }
    }
}

/// Returns until when CRLs, each with its reasons and its nextUpdate, speak for all reasons; `None`: they never do.
pub(super) fn deadline(crls: impl Iterator<Item = (u16, UnixTime)>) -> Option<UnixTime> {
    let mut by_reason = [None; 16];
    for (reasons, next_update) in crls {
        let latest_of_each = by_reason.iter_mut().enumerate();
        for (_, latest) in latest_of_each.filter(|(bit, _)| reasons >> bit & 1 == 1) {
            *latest = (*latest).max(Some(next_update));
        }
    }
    let wanted = by_reason.iter().enumerate().filter(|(bit, _)| REASONS_ALL >> bit & 1 == 1);
    // `None`, a reason that nothing speaks for, is less than any time.
    wanted.map(|(_, latest)| *latest).min().flatten()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    #[test]
    fn r5_crls_for_some_reasons_make_a_whole_only_together() {
        let (some, others) = (0b10, REASONS_ALL & !0b10);

        assert_eq!(deadline([].into_iter()), None);
        assert_eq!(deadline([(REASONS_ALL, at(5))].into_iter()), Some(at(5)));
        assert_eq!(deadline([(some, at(5))].into_iter()), None);
        assert_eq!(deadline([(some, at(5)), (others, at(7))].into_iter()), Some(at(5)));
        assert_eq!(deadline([(some, at(5)), (REASONS_ALL, at(7))].into_iter()), Some(at(7)));
        assert_eq!(deadline([(REASONS_ALL, at(9)), (REASONS_ALL, at(7))].into_iter()), Some(at(9)));
    }
}
