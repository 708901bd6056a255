//! [`PinRecord`]: what became of a pinned thumbprint (S5, N2).

use std::fmt;

use super::fitness::Unfit;
use crate::thumbprint::{AnyThumbprint, Thumbprint};

/// What became of the configured `thumbprint`. The rows of the [`super::Report`] that holds it are the candidates, each with
/// the reason why it lost (N2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinRecord {
    pub(super) pinned: AnyThumbprint,
    pub(super) fate: PinFate,
}

/// Whether the pinned certificate was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PinFate {
    /// It is valid, and chosen (S5).
    Taken,
    /// For the Switch's URL it does not count where `cert_issuer` or `cert_subject` is set (S5).
    NotConsulted,
    /// It is not valid; its successor or normal selection follows (S5, N2).
    Invalid {
        /// What is wrong.
        problem: PinProblem,
        /// Whether a successor took its place.
        successor: Successor,
    },
}

/// Why a pinned certificate cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PinProblem {
    /// It is not in the store: archived, replaced by its renewal, or never there.
    Absent,
    /// It is in the store, and unfit.
    Unfit(Vec<Unfit>),
}

/// Whether an invalid pinned certificate handed over to its successor (N2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Successor {
    /// This one was taken.
    Followed(Thumbprint),
    /// There is none in the store.
    NotFound,
    /// `follow_successor` is off.
    NotAllowed,
    /// Nobody knows the pinned certificate's subject: it was never seen in the store.
    Unknown,
}

impl PinRecord {
    /// Returns the thumbprint as it is configured.
    #[must_use]
    pub fn pinned(&self) -> AnyThumbprint {
        self.pinned
    }

    /// Returns what became of it.
    #[must_use]
    pub fn fate(&self) -> &PinFate {
        &self.fate
    }
}

impl fmt::Display for PinRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pinned thumbprint {}: ", self.pinned)?;
        match &self.fate {
            PinFate::Taken => f.write_str("taken"),
            PinFate::NotConsulted => {
                f.write_str("does not count for the Switch while cert_issuer or cert_subject is set")
            }
            PinFate::Invalid { problem, successor } => write!(f, "{problem}; {successor}"),
        }
    }
}

impl fmt::Display for PinProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("not in the store"),
            Self::Unfit(reasons) => {
                let reasons: Vec<String> = reasons.iter().map(Unfit::to_string).collect();
                f.write_str(&reasons.join("; "))
            }
        }
    }
}

impl fmt::Display for Successor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Followed(thumbprint) => write!(f, "its successor {thumbprint} is taken"),
            Self::NotFound => f.write_str("no successor in the store"),
            Self::NotAllowed => f.write_str("its successor is not taken, since follow_successor is off"),
            Self::Unknown => f.write_str(
                "its successor is not known, since the pinned certificate was never seen; pin the newer thumbprint",
            ),
        }
    }
}
