//! [`Followed`]: the policy that is followed, for whoever judges by it.

use std::sync::{Arc, PoisonError, RwLock};

use muster_signing::policy::Policy;

use super::keeper::Memory;

/// The policy that is followed at this moment. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Followed(Arc<RwLock<Following>>);

/// What is followed.
#[derive(Debug, Clone, Default)]
pub(crate) enum Following {
    /// No policy.
    #[default]
    AsInstalled,
    /// This one.
    Policy(Policy),
    /// One that cannot be read, for this reason: it may forbid anything, so that nothing is granted.
    Unreadable(String),
}

impl Following {
    /// Returns what a device follows that remembers this.
    pub(crate) fn of(memory: &Memory) -> Self {
        match (&memory.current, &memory.unreadable) {
            (Some(kept), _) => Self::Policy(kept.policy.clone()),
            (None, Some(unreadable)) => Self::Unreadable(unreadable.problem.clone()),
            (None, None) => Self::AsInstalled,
        }
    }

    /// Returns the policy, if there is one that can be read.
    pub(crate) fn policy(&self) -> Option<&Policy> {
        match self {
            Self::Policy(policy) => Some(policy),
            Self::AsInstalled | Self::Unreadable(_) => None,
        }
    }
}

impl Followed {
    /// Begins with what was followed before a restart.
    pub(crate) fn new(following: Following) -> Self {
        Self(Arc::new(RwLock::new(following)))
    }

    /// Returns it; it costs little.
    pub(crate) fn current(&self) -> Following {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Another one is followed from now on.
    pub(super) fn set(&self, following: Following) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = following;
    }
}
