//! [`Chosen`]: the choice that stays (S4).

use std::fmt;
use std::time::Duration;

use rustls_pki_types::UnixTime;

use super::candidate::Candidates;
use super::field::{Field, Winner};
use super::fitness::Unfit;
use super::report::{self, Why};
use super::server::ServerNames;
use super::settings::{FollowSuccessor, Selection};
use super::wait::Availability;
use super::{Choice, Missing, Purpose, Question};
use crate::certificate::Certificate;
use crate::revocation::RevocationIndex;
use crate::thumbprint::Thumbprint;

/// The choice of a client's certificate for one [`Purpose`], or of a server's, kept until something ends it (S4).
///
/// A better certificate that arrives does not displace the chosen one. It goes when it expires, leaves the store, loses its
/// key or is revoked, and when its successor (N2) is there. The exception of S5 stands above this: a pinned
/// thumbprint, or the successor of one that is no longer valid, is taken as soon as it is in the store ("Caching of
/// certificates", Exception).
#[derive(Debug, Clone)]
pub struct Chosen {
    selection: Selection,
    wanted: Wanted,
    choice: Option<Choice>,
    /// The certificate of the pinned thumbprint as it was last seen.
    pinned: Option<Certificate>,
    freshness: Freshness,
    timeout: Option<UnixTime>,
}

/// Which certificate is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// A client's (S1, S2), to be shown to these.
    Client(Purpose),
    /// A server's (S7), for these names.
    Server(ServerNames),
}

/// Whether the choice was made under the present selection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Freshness {
    Current,
    SelectionChanged,
}

impl Chosen {
    /// Starts without a choice of a client's certificate.
    #[must_use]
    pub fn new(selection: Selection, purpose: Purpose) -> Self {
        Self::of(selection, Wanted::Client(purpose))
    }

    /// Starts without a choice.
    #[must_use]
    pub fn of(selection: Selection, wanted: Wanted) -> Self {
        Self { selection, wanted, choice: None, pinned: None, freshness: Freshness::Current, timeout: None }
    }

    /// Takes over the pinned certificate that an earlier process saw ([`Self::pinned_certificate`]), so that its successor is
    /// found even if it left the store before this one started (N2). One of another thumbprint is ignored.
    #[must_use]
    pub fn with_pinned_certificate(mut self, certificate: Certificate) -> Self {
        if self.is_pinned(&certificate) {
            self.pinned = Some(certificate);
        }
        self
    }

    /// Returns the certificate of the pinned thumbprint as it was last seen; the caller keeps it on disk.
    #[must_use]
    pub fn pinned_certificate(&self) -> Option<&Certificate> {
        self.pinned.as_ref()
    }

    /// Takes a new configuration. The next [`Self::handle_store`] chooses anew if it differs.
    pub fn push_selection(&mut self, selection: Selection) {
        if selection == self.selection {
            return;
        }
        self.selection = selection;
        self.freshness = Freshness::SelectionChanged;
        if !self.pinned.as_ref().is_some_and(|certificate| self.is_pinned(certificate)) {
            self.pinned = None;
        }
    }

    /// Tells what the store holds at `now`, and who is revoked: at start, when either changes, and at [`Self::poll_timeout`].
    pub fn handle_store(
        &mut self,
        now: UnixTime,
        candidates: &Candidates,
        revocation: Option<&RevocationIndex>,
    ) -> Outcome {
        let purpose = match &self.wanted {
            Wanted::Client(purpose) => *purpose,
            // S5 restricts a pinned thumbprint for clients that call a Switch; everywhere else it counts.
            Wanted::Server(_) => Purpose::BackgroundChannel,
        };
        let question = Question { purpose, now, revocation, remembered: self.pinned.as_ref() };
        let field = self.field(candidates, &question);
        let (pin, pinned) = field.pinned(&self.selection, &question);
        let preferred = pinned.or_else(|| self.preferred(&field));
        let previous = self.choice.take().map(|choice| choice.certificate().clone());
        let (winner, cause) = match &previous {
            None => (preferred, Some(Cause::First)),
            Some(certificate) => self.follow(certificate, &field, pinned, preferred),
        };
        let thumbprint_of = |position: usize| {
            field.entrants.get(position).map(|entrant| entrant.candidate.certificate().thumbprint())
        };
        let preferred = preferred.and_then(|preferred| thumbprint_of(preferred.position));
        let answer = field.answer(candidates, winner, pin).map_err(|missing| match &self.wanted {
            Wanted::Client(_) => missing,
            Wanted::Server(names) => missing.of_server(names.clone()),
        });

        self.freshness = Freshness::Current;
        self.pinned = candidates
            .iter()
            .map(super::Candidate::certificate)
            .find(|certificate| self.is_pinned(certificate))
            .cloned()
            .or(self.pinned.take());
        self.choice = answer.as_ref().ok().cloned();
        let expiry = self.choice.as_ref().map(|choice| after(choice.certificate().not_after()));
        self.timeout = expiry.into_iter().chain(candidates.next_not_before(now)).min();
        match (answer, cause) {
            (Ok(choice), None) => {
                let preferred = preferred.filter(|preferred| *preferred != choice.certificate().thumbprint());
                Outcome::Kept { choice, preferred }
            }
            (Ok(choice), Some(cause)) => Outcome::Changed { choice, previous, cause },
            (Err(missing), cause) => {
                Outcome::Missing { missing, previous, cause: cause.unwrap_or(Cause::First) }
            }
        }
    }

    /// Returns the present choice.
    #[must_use]
    pub fn choice(&self) -> Option<&Choice> {
        self.choice.as_ref()
    }

    /// Returns when [`Self::handle_store`] should be called even if nothing changes: the choice expires, or a certificate of
    /// the store becomes valid.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<UnixTime> {
        self.timeout
    }

    fn field<'a>(&self, candidates: &'a Candidates, question: &Question<'_>) -> Field<'a> {
        match &self.wanted {
            Wanted::Client(_) => Field::clients(candidates, &self.selection, question),
            Wanted::Server(names) => {
                let (names, revocation) = (names.as_names(), question.revocation);
                Field::servers(candidates, &self.selection, names, question.now, revocation)
            }
        }
    }

    fn preferred(&self, field: &Field<'_>) -> Option<Winner> {
        match &self.wanted {
            Wanted::Client(_) => field.preferred_client(&self.selection),
            Wanted::Server(_) => field.preferred(),
        }
    }

    /// Returns who follows the present choice, and what ended that; no cause: it stays.
    fn follow(
        &self,
        present: &Certificate,
        field: &Field<'_>,
        pinned: Option<Winner>,
        preferred: Option<Winner>,
    ) -> (Option<Winner>, Option<Cause>) {
        let is_present = |winner: &Winner| {
            let entrant = field.entrants.get(winner.position);
            entrant.is_some_and(|entrant| entrant.candidate.certificate() == present)
        };
        if self.freshness == Freshness::SelectionChanged {
            let cause = (!preferred.as_ref().is_some_and(is_present)).then_some(Cause::SelectionChanged);
            return (preferred, cause);
        }
        if let Some(winner) = pinned {
            let cause = match winner.why {
                Why::Successor { .. } => Cause::Successor,
                Why::OnlyOne | Why::Preferred(_) | Why::Pinned | Why::Kept => Cause::Pinned,
            };
            return (pinned, (!is_present(&winner)).then_some(cause));
        }
        // A pinned one hands over only as its pin says (N2); without that it loses to whom preference chooses, when it ends.
        let hands_over =
            !self.is_pinned(present) || self.selection.follow_successor() == FollowSuccessor::Yes;
        if let Some(newer) = field.successor(present).filter(|_| hands_over) {
            let why = Why::Successor { of: present.thumbprint() };
            return (Some(Winner { position: newer.marks.position, why }), Some(Cause::Successor));
        }
        if let Some(position) = field.fit_at(present) {
            return (Some(Winner { position, why: Why::Kept }), None);
        }
        let cause = field.unfit(present).map_or(Cause::LeftStore, |reasons| Cause::Unfit(reasons.to_vec()));
        (preferred, Some(cause))
    }

    fn is_pinned(&self, certificate: &Certificate) -> bool {
        self.selection.thumbprint().is_some_and(|thumbprint| thumbprint.is_of(certificate.der()))
    }
}

/// What became of the choice.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// It stays (S4). The place in the store and the CAs above it may be others than before.
    Kept {
        /// The choice.
        choice: Choice,
        /// What would be chosen if nothing were; `None`: the same.
        preferred: Option<Thumbprint>,
    },
    /// Another certificate is to be shown in new handshakes.
    Changed {
        /// The choice.
        choice: Choice,
        /// The one before.
        previous: Option<Certificate>,
        /// What ended the one before.
        cause: Cause,
    },
    /// There is none (S6).
    Missing {
        /// Each certificate's reason.
        missing: Missing,
        /// The one before.
        previous: Option<Certificate>,
        /// What ended the one before.
        cause: Cause,
    },
}

/// Why a choice was made anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// There was none before.
    First,
    /// It left the store.
    LeftStore,
    /// It expired, was revoked, or lost its key; all reasons.
    Unfit(Vec<Unfit>),
    /// The certificate that renewed it is there (N2).
    Successor,
    /// The pinned certificate is there (S5).
    Pinned,
    /// The configuration was changed.
    SelectionChanged,
}

impl Outcome {
    /// Returns the choice, if there is one.
    #[must_use]
    pub fn choice(&self) -> Option<&Choice> {
        match self {
            Self::Kept { choice, .. } | Self::Changed { choice, .. } => Some(choice),
            Self::Missing { .. } => None,
        }
    }

    /// Returns what a waiting download is told (S6).
    #[must_use]
    pub fn availability(&self) -> Availability {
        if self.choice().is_some() { Availability::Present } else { Availability::Missing }
    }
}

impl fmt::Display for Outcome {
    /// Writes one line for a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kept { choice, preferred: None } => write!(f, "kept {choice}"),
            Self::Kept { choice, preferred: Some(other) } => {
                write!(f, "kept {choice}; {other} would be preferred, but does not displace it")
            }
            Self::Changed { choice, previous, cause } => {
                write!(f, "chose {choice}; {}", Before { previous: previous.as_ref(), cause })
            }
            Self::Missing { missing, previous, cause } => {
                write!(f, "{missing}; {}", Before { previous: previous.as_ref(), cause })
            }
        }
    }
}

struct Before<'a> {
    previous: Option<&'a Certificate>,
    cause: &'a Cause,
}

impl fmt::Display for Before<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.previous {
            None => f.write_str("none was chosen before"),
            Some(certificate) => {
                let subject = report::shown(certificate.subject());
                write!(f, "before: {subject}, thumbprint {}: {}", certificate.thumbprint(), self.cause)
            }
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::First => f.write_str("none was chosen before"),
            Self::LeftStore => f.write_str("it left the store"),
            Self::Unfit(reasons) => {
                let reasons: Vec<String> = reasons.iter().map(Unfit::to_string).collect();
                f.write_str(&report::shown(&reasons.join("; ")))
            }
            Self::Successor => f.write_str("its successor is there"),
            Self::Pinned => f.write_str("the pinned certificate is there"),
            Self::SelectionChanged => f.write_str("the configuration was changed"),
        }
    }
}

/// The first moment after the last one of validity.
fn after(at: UnixTime) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(at.as_secs().saturating_add(1)))
}
