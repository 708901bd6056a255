//! [`Followed`]: the policy that is followed, for whoever judges by it.

use std::sync::{Arc, PoisonError, RwLock};

use muster_signing::policy::Policy;

/// The policy that is followed at this moment. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Followed(Arc<RwLock<Option<Policy>>>);

impl Followed {
    /// Begins with what was followed before a restart; none: as installed.
    pub(crate) fn new(policy: Option<Policy>) -> Self {
        Self(Arc::new(RwLock::new(policy)))
    }

    /// Returns it; it costs little.
    pub(crate) fn current(&self) -> Option<Policy> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Another one is followed from now on.
    pub(super) fn set(&self, policy: Option<Policy>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = policy;
    }
}
