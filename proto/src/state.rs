//! What the states of a target mean: which are terminal, which may follow which, and their names; and the names of other codes.

use crate::common::v1::{Refusal, TargetState};
use crate::session::v1::CloseReason;

/// The ten states a target can be in, in the order of progress.
pub const ALL: [TargetState; 10] = [
    TargetState::Queued,
    TargetState::Sent,
    TargetState::Acked,
    TargetState::Running,
    TargetState::Answered,
    TargetState::Failed,
    TargetState::Refused,
    TargetState::Interrupted,
    TargetState::Expired,
    TargetState::Cancelled,
];

impl TargetState {
    /// Returns whether a target stays in this state for ever.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        match self {
            Self::Unspecified | Self::Queued | Self::Sent | Self::Acked | Self::Running => false,
            Self::Answered
            | Self::Failed
            | Self::Refused
            | Self::Interrupted
            | Self::Expired
            | Self::Cancelled => true,
        }
    }

    /// Returns the state's name as people and scripts see it: `queued`, `answered`, ….
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::Queued => "queued",
            Self::Sent => "sent",
            Self::Acked => "acked",
            Self::Running => "running",
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Interrupted => "interrupted",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
        }
    }

    /// Returns the state of a name that [`Self::name`] gave.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        ALL.into_iter().find(|state| state.name() == name)
    }

    /// Returns how far a target has come: 0 queued, 1 sent, 2 acked, 3 running, 4 any terminal state.
    #[must_use]
    pub fn progress(self) -> u8 {
        match self {
            Self::Unspecified | Self::Queued => 0,
            Self::Sent => 1,
            Self::Acked => 2,
            Self::Running => 3,
            Self::Answered
            | Self::Failed
            | Self::Refused
            | Self::Interrupted
            | Self::Expired
            | Self::Cancelled => 4,
        }
    }

    /// Returns whether a target in this state may enter `next`: only forward, and never out of a terminal state.
    ///
    /// Steps may be left out: a repeated result can reach the Switch without the progress before it.
    #[must_use]
    pub fn may_become(self, next: Self) -> bool {
        next != Self::Unspecified && next.progress() > self.progress()
    }
}

impl Refusal {
    /// Returns the stable code that people and scripts see: `REPLAYED`, `WRONG_AUDIENCE`, …; `NONE` for no refusal.
    #[must_use]
    pub fn name(self) -> &'static str {
        if self == Self::Unspecified { "NONE" } else { self.as_str_name().trim_start_matches("REFUSAL_") }
    }
}

impl CloseReason {
    /// Returns the stable code that people and scripts see: `REVOKED`, `SHUTDOWN`, ….
    #[must_use]
    pub fn name(self) -> &'static str {
        self.as_str_name().trim_start_matches("CLOSE_REASON_")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_a_name_of_its_own() {
        for state in ALL {
            assert_eq!(TargetState::from_name(state.name()), Some(state));
        }
        assert_eq!(TargetState::from_name("unspecified"), None);
    }

    #[test]
    fn a_terminal_state_is_never_left() {
        for from in ALL {
            for to in ALL {
                assert!(!(from.is_terminal() && from.may_become(to)), "{} to {}", from.name(), to.name());
            }
        }
    }

    #[test]
    fn every_other_state_leads_to_every_terminal_one() {
        for from in ALL.into_iter().filter(|state| !state.is_terminal()) {
            for to in ALL.into_iter().filter(|state| state.is_terminal()) {
                assert!(from.may_become(to), "{} to {}", from.name(), to.name());
            }
        }
    }

    #[test]
    fn a_refusal_is_named_by_its_code() {
        assert_eq!(Refusal::Replayed.name(), "REPLAYED");
        assert_eq!(Refusal::WrongAudience.name(), "WRONG_AUDIENCE");
        assert_eq!(Refusal::Unauthenticated.name(), "UNAUTHENTICATED");
        assert_eq!(Refusal::Unspecified.name(), "NONE");
        assert_eq!(CloseReason::CertificateExpired.name(), "CERTIFICATE_EXPIRED");
    }
}
