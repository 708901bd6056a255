//! [`Step`]: what makes one certificate better than another (S1, S7).

use std::cmp::Ordering;
use std::fmt;

use rustls_pki_types::UnixTime;

/// One step of an order of preference; the first step that differs decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Issuer listed in `cert_issuer` (S1).
    Issuer,
    /// Subject listed in `cert_subject` (S1).
    Subject,
    /// Subject is an FQDN (S1).
    FullName,
    /// Latest expiry (S1).
    Expiry,
    /// Host name and FQDN, before host name, before FQDN (S7).
    ServerName,
    /// Longest validity, which is the latest expiry (S7).
    Validity,
    /// The first in the store.
    StoreOrder,
}

impl Step {
    /// The steps for a client's certificate (S1).
    pub(super) const CLIENT: &'static [Self] =
        &[Self::Issuer, Self::Subject, Self::FullName, Self::Expiry, Self::StoreOrder];
    /// The steps for a server's certificate (S7).
    pub(super) const SERVER: &'static [Self] = &[Self::ServerName, Self::Validity, Self::StoreOrder];

    /// Returns the rule that has this step.
    #[must_use]
    pub const fn rule(self) -> &'static str {
        match self {
            Self::Issuer | Self::Subject | Self::FullName | Self::Expiry | Self::StoreOrder => "S1",
            Self::ServerName | Self::Validity => "S7",
        }
    }

    /// Compares two certificates at this step; the greater one is preferred.
    fn compare(self, a: &Marks, b: &Marks) -> Ordering {
        match self {
            Self::Issuer => a.issuer.cmp(&b.issuer),
            Self::Subject => a.subject.cmp(&b.subject),
            Self::FullName => a.full_name.cmp(&b.full_name),
            Self::Expiry | Self::Validity => a.not_after.cmp(&b.not_after),
            Self::ServerName => a.server_name.cmp(&b.server_name),
            Self::StoreOrder => b.position.cmp(&a.position),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Issuer => "issuer listed in cert_issuer",
            Self::Subject => "subject listed in cert_subject",
            Self::FullName => "subject is an FQDN",
            Self::Expiry => "latest expiry",
            Self::ServerName => "host name and FQDN, before host name, before FQDN",
            Self::Validity => "longest validity",
            Self::StoreOrder => "store order",
        })
    }
}

/// What the steps look at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Marks {
    pub(super) issuer: bool,
    pub(super) subject: bool,
    pub(super) full_name: bool,
    pub(super) server_name: ServerName,
    pub(super) not_after: UnixTime,
    pub(super) position: usize,
}

/// Which of the machine's names a server certificate has, worst first (S7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ServerName {
    Neither,
    FullName,
    HostName,
    Both,
}

/// Returns which of two certificates is preferred, and the first step that differs; `None` if none does.
pub(super) fn first_difference(steps: &[Step], a: &Marks, b: &Marks) -> Option<(Step, Ordering)> {
    steps.iter().map(|step| (*step, step.compare(a, b))).find(|(_, order)| *order != Ordering::Equal)
}
