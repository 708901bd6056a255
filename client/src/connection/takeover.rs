//! [`Takeover`]: hands a session that was welcomed elsewhere to the [`Connection`](super::Connection), which leaves its own for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use muster_proto::session::v1::Welcome;
use tokio::sync::Notify;

use super::caller::Opened;
use crate::profile::Profile;

/// A session that was welcomed.
#[derive(Debug)]
pub(crate) struct Welcomed {
    /// By what it came about.
    pub(crate) profile: Arc<Profile>,
    /// Which of its Switches it is with.
    pub(crate) at: usize,
    /// The connection.
    pub(crate) opened: Opened,
    /// What the Switch said.
    pub(crate) welcome: Welcome,
}

/// A place for one session.
#[derive(Debug, Clone, Default)]
pub(crate) struct Takeover(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    place: Mutex<Option<Welcomed>>,
    offered: Notify,
    /// A session is attempted elsewhere: a Switch may end the one that stands for it.
    is_trying: AtomicBool,
}

impl Takeover {
    /// Offers a session; one that was offered before and not taken is dropped.
    pub(crate) fn offer(&self, welcomed: Welcomed) {
        *self.0.place.lock().unwrap_or_else(PoisonError::into_inner) = Some(welcomed);
        self.0.offered.notify_one();
    }

    /// Tells whether a session is attempted elsewhere.
    pub(crate) fn set_trying(&self, is_trying: bool) {
        self.0.is_trying.store(is_trying, Ordering::Relaxed);
    }

    pub(super) fn is_trying(&self) -> bool {
        self.0.is_trying.load(Ordering::Relaxed)
    }

    pub(super) fn is_offered(&self) -> bool {
        self.0.place.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    pub(super) fn take(&self) -> Option<Welcomed> {
        self.0.place.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Waits until a session is offered.
    pub(super) async fn offered(&self) {
        while !self.is_offered() {
            self.0.offered.notified().await;
        }
    }
}
