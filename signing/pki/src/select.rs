//! Certificate selection: which of a machine's certificates it shows, and why (S1–S7, N2).
//!
//! ```text
//! store ─► Candidates ─┐
//! configuration ─► Selection ─┤► select ─► Choice | Missing, both with a Report of every certificate
//! Question (purpose, now, revocation) ─┘
//! ```
//! [`select()`] answers once; who runs on asks [`Chosen`], which keeps the answer (S4), for a client's certificate or a server's.
//! [`select_server`] finds the certificate of a peer's HTTPS (S7). [`CertificateWait`] is what a download does while there is none (S6).
//!
//! It reads no store and no key: the caller says what there is. It does not look for a path to a root either, which is the
//! peer's to judge (C2).

mod candidate;
mod chosen;
mod failure;
mod field;
mod fitness;
mod name;
mod pin;
mod preference;
mod report;
mod server;
mod settings;
mod successor;
mod wait;

use std::fmt;

use rustls_pki_types::UnixTime;

pub use self::candidate::{Candidate, Candidates, PrivateKey, Unread};
pub use self::chosen::{Cause, Chosen, Outcome, Wanted};
pub use self::failure::{ErrorCode, ErrorCodeError, Origin, SuccessCodes};
use self::field::Field;
pub use self::fitness::Unfit;
pub use self::pin::{PinFate, PinProblem, PinRecord, Successor};
pub use self::preference::Step;
pub use self::report::{ROWS_SHOWN_MAX, Report, Row, Standing, Why};
pub use self::server::{
    MachineNames, ServerCertificate, ServerCertificateMissing, ServerCertificates, ServerNames, select_server,
};
pub use self::settings::{FollowSuccessor, PARTS_MAX, Selection, SelectionError, SelectionSettings};
pub use self::wait::{
    Admission, Availability, CertificateWait, Event, Failure, Gate, RETRY_INTERVAL, Start,
    WAIT_PERIOD_DEFAULT, WaitMode, WaitSnapshot,
};
use crate::certificate::Certificate;
use crate::revocation::RevocationIndex;

/// Chooses a client's certificate (S1, S2, S3, S5), without regard to an earlier choice.
///
/// # Errors
/// There is none; the error has each certificate's reason, and is `ERROR_CLIENT_CERT_MISSING` (S6).
pub fn select(
    candidates: &Candidates,
    selection: &Selection,
    question: &Question<'_>,
) -> Result<Choice, Missing> {
    let field = Field::clients(candidates, selection, question);
    let (pin, pinned) = field.pinned(selection, question);
    let winner = pinned.or_else(|| field.preferred_client(selection));
    field.answer(candidates, winner, pin)
}

/// What a certificate is wanted for, and when.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Whom it is shown to.
    pub purpose: Purpose,
    /// The time to judge validity by.
    pub now: UnixTime,
    /// Who is revoked; `None`: not looked up.
    pub revocation: Option<&'a RevocationIndex>,
    /// The certificate of the pinned thumbprint as it was last seen, for when it left the store (N2): without it nobody
    /// knows whose successor to look for.
    pub remembered: Option<&'a Certificate>,
}

impl Question<'static> {
    /// Asks with purpose and time alone.
    #[must_use]
    pub const fn at(purpose: Purpose, now: UnixTime) -> Self {
        Self { purpose, now, revocation: None, remembered: None }
    }
}

/// Whom a client shows its certificate to; a pinned thumbprint counts differently (S5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// A Switch URL.
    Switch,
    /// A Background Channel URL. Peers have the same choice (S3).
    BackgroundChannel,
}

/// The certificate that was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Choice {
    candidate: Candidate,
    position: usize,
    why: Why,
    report: Report,
}

impl Choice {
    /// Returns the certificate with what belongs to it.
    #[must_use]
    pub fn candidate(&self) -> &Candidate {
        &self.candidate
    }

    /// Returns the certificate itself.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        self.candidate.certificate()
    }

    /// Returns its place in the store, counted from 0: where the caller finds its key.
    #[must_use]
    pub fn position(&self) -> usize {
        self.position
    }

    /// Returns what decided for it.
    #[must_use]
    pub fn why(&self) -> Why {
        self.why
    }

    /// Returns every certificate of the store, and why it lost.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }
}

impl fmt::Display for Choice {
    /// Writes the chosen one in one line; the report has the others.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let certificate = self.certificate();
        let (subject, source) =
            (report::shown(certificate.subject()), report::shown(self.candidate.source()));
        write!(f, "certificate {subject} of {source}, thumbprint {}: {}", certificate.thumbprint(), self.why)
    }
}

/// No certificate may be shown: for a client `ERROR_CLIENT_CERT_MISSING` (S6); a server's port stays closed (S7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    report: Report,
    /// Whose names it was to have, where a server's was looked for.
    server: Option<ServerNames>,
}

impl Missing {
    fn of_server(self, names: ServerNames) -> Self {
        Self { server: Some(names), ..self }
    }

    /// Returns [`ErrorCode::CLIENT_CERT_MISSING`], the code of a client's download.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        ErrorCode::CLIENT_CERT_MISSING
    }

    /// Returns every certificate of the store, and why it lost.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }
}

impl fmt::Display for Missing {
    /// Writes one line; `{:#}` writes the report as a table below it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.server {
            None => write!(f, "ERROR_CLIENT_CERT_MISSING ({}): no valid client certificate", self.code())?,
            Some(names) => write!(f, "no server certificate; {names}")?,
        }
        match (f.alternate(), &self.server) {
            (true, _) => write!(f, "\n{:#}", self.report),
            (false, Some(_)) => write!(f, ": {}", self.report),
            (false, None) => {
                write!(
                    f,
                    "; wanted one with clientAuth, its private key, and a CA's signature: {}",
                    self.report
                )
            }
        }
    }
}

impl std::error::Error for Missing {}
