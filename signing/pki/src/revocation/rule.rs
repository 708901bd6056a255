//! What follows where an issuer has no fresh CRL (R6).

use std::fmt;
use std::time::Duration;

use rustls_pki_types::UnixTime;
use serde::{Deserialize, Serialize};

use super::coverage::Coverage;
use crate::certificate::Certificate;
use crate::finding::Severity;
use crate::instant;

/// How long `grace` goes on after nextUpdate, and after the configuration of an issuer that never had a CRL (R6): a day is
/// what it takes until someone sees the alarm and publishes.
pub const GRACE: Duration = Duration::from_secs(24 * 60 * 60);

/// How strict R6 is for one issuer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RevocationMode {
    /// No fresh CRL: no new sessions.
    Hard,
    /// As `hard` from nextUpdate + [`GRACE`] on, for an issuer that never had a CRL from its configuration + [`GRACE`] on; a
    /// warning before.
    #[default]
    Grace,
    /// A warning only.
    Soft,
}

impl fmt::Display for RevocationMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hard => "hard",
            Self::Grace => "grace",
            Self::Soft => "soft",
        })
    }
}

/// The mode of an issuer, and since when it is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IssuerRule {
    /// How strict.
    pub mode: RevocationMode,
    /// When the issuer was configured first. It belongs on disk: taken anew at every start, the day of an issuer that never had
    /// a CRL never ends.
    pub configured_since: UnixTime,
}

/// How it stands with an issuer's CRLs, whatever its mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// They are fresh.
    Fresh {
        /// When the first of them is due to be followed by a newer one.
        #[serde(serialize_with = "seconds")]
        until: UnixTime,
    },
    /// One is missing or stale, and [`GRACE`] is not over.
    InGrace {
        /// When it is over.
        #[serde(serialize_with = "seconds")]
        until: UnixTime,
    },
    /// One is missing or stale, and [`GRACE`] is over.
    Lapsed {
        /// When it was over.
        #[serde(serialize_with = "seconds")]
        since: UnixTime,
    },
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fresh { until } => write!(f, "fresh until {}", instant::text(*until)),
            Self::InGrace { until } => write!(f, "missing or lapsed, grace until {}", instant::text(*until)),
            Self::Lapsed { since } => {
                write!(f, "missing or lapsed, grace over since {}", instant::text(*since))
            }
        }
    }
}

impl Standing {
    pub(super) fn of(coverage: Coverage, now: UnixTime, configured_since: UnixTime) -> Self {
        let from = match coverage {
            Coverage::Fresh { until } => return Self::Fresh { until },
            Coverage::Stale { next_update } => next_update,
            Coverage::Missing => configured_since,
        };
        let end = after_grace(from);
        if now < end { Self::InGrace { until: end } } else { Self::Lapsed { since: end } }
    }

    /// Returns what it means in this mode, for people.
    #[must_use]
    pub fn under(self, mode: RevocationMode) -> String {
        let meaning = match (self, mode) {
            (Self::Fresh { .. }, _) => return format!("{self} (mode {mode})"),
            (Self::InGrace { .. } | Self::Lapsed { .. }, RevocationMode::Hard) => {
                "nobody new is let in".to_owned()
            }
            (Self::InGrace { until }, RevocationMode::Grace) => {
                format!("let pass until {}", instant::text(until))
            }
            (Self::Lapsed { since }, RevocationMode::Grace) => {
                format!("nobody new is let in since {}", instant::text(since))
            }
            (Self::InGrace { .. } | Self::Lapsed { .. }, RevocationMode::Soft) => "let pass".to_owned(),
        };
        format!("missing or lapsed, {meaning} (mode {mode})")
    }

    /// Returns what a missing or stale CRL means for a certificate of an issuer in this mode; `None` if there is nothing to say.
    #[must_use]
    pub const fn severity(self, mode: RevocationMode) -> Option<Severity> {
        match (self, mode) {
            (Self::Fresh { .. }, _) => None,
            (Self::InGrace { .. } | Self::Lapsed { .. }, RevocationMode::Hard)
            | (Self::Lapsed { .. }, RevocationMode::Grace) => Some(Severity::Refusal),
            (Self::InGrace { .. }, RevocationMode::Grace)
            | (Self::InGrace { .. } | Self::Lapsed { .. }, RevocationMode::Soft) => Some(Severity::Warning),
        }
    }
}

/// The rule that holds for one issuer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    pub(super) mode: RevocationMode,
    /// `None`: it counts as configured at the moment at which it is judged.
    configured_since: Option<UnixTime>,
}

impl Rule {
    /// Returns since when the issuer is configured.
    pub(super) fn configured_since(&self, now: UnixTime) -> UnixTime {
        self.configured_since.unwrap_or(now)
    }

    /// Returns from when on R6 refuses if no newer CRL comes; `deadline` is until when the present ones are fresh.
    pub(super) fn refuses_from(&self, deadline: Option<UnixTime>) -> Option<UnixTime> {
        match self.mode {
            RevocationMode::Hard => Some(deadline.unwrap_or(UnixTime::since_unix_epoch(Duration::ZERO))),
            RevocationMode::Grace => deadline.or(self.configured_since).map(after_grace),
            RevocationMode::Soft => None,
        }
    }
}

/// The rules of all issuers.
#[derive(Debug, Clone, Default)]
pub(super) struct Rules {
    /// Of issuers that have none of their own.
    others: Option<Rule>,
    /// A handful: compared one by one.
    own: Vec<(Certificate, IssuerRule)>,
}

impl Rules {
    pub(super) fn set(&mut self, issuer: &Certificate, rule: IssuerRule) {
        match self.own.iter_mut().find(|(known, _)| is_same(known, issuer)) {
            Some((_, known)) => *known = rule,
            None => self.own.push((issuer.clone(), rule)),
        }
    }

    pub(super) const fn set_others(&mut self, mode: RevocationMode, configured_since: Option<UnixTime>) {
        self.others = Some(Rule { mode, configured_since });
    }

    pub(super) fn of(&self, issuer: &Certificate) -> Option<Rule> {
        let own = self.own.iter().find(|(known, _)| is_same(known, issuer));
        let own = own.map(|(_, IssuerRule { mode, configured_since })| Rule {
            mode: *mode,
            configured_since: Some(*configured_since),
        });
        own.or(self.others)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Certificate, IssuerRule)> {
        self.own.iter().map(|(issuer, rule)| (issuer, *rule))
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.others.is_none() && self.own.is_empty()
    }
}

/// Returns whether two certificates are of one CA: the same name and key. Cross-signed ones are.
pub(super) fn is_same(one: &Certificate, other: &Certificate) -> bool {
    one.spki_der() == other.spki_der() && one.subject_der() == other.subject_der()
}

/// What R6 says of one certificate of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lack {
    pub(crate) severity: Severity,
    pub(crate) coverage: Coverage,
    /// When [`GRACE`] ends, of an issuer in that mode.
    pub(crate) grace_until: Option<UnixTime>,
}

impl Lack {
    /// Returns what is wrong with the CRLs of the issuer of that name.
    pub(crate) fn text(&self, issuer: &str) -> String {
        let lack = match self.coverage {
            Coverage::Stale { next_update } => {
                format!("a CRL that expired at {}", instant::text(next_update))
            }
            Coverage::Missing | Coverage::Fresh { .. } => "no CRL".to_owned(),
        };
        match self.grace_until {
            Some(until) => format!("{lack} of the issuer {issuer}, let pass until {}", instant::text(until)),
            None => format!("{lack} of the issuer {issuer}"),
        }
    }
}

fn after_grace(from: UnixTime) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(from.as_secs().saturating_add(GRACE.as_secs())))
}

fn seconds<S: serde::Serializer>(at: &UnixTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(at.as_secs())
}
