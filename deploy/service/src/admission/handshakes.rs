//! [`Handshakes`]: how many are in progress, in all and of one source.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Source;

/// The handshakes that one accept loop may have in progress.
#[derive(Debug)]
pub struct Handshakes {
    permits: Arc<Semaphore>,
    per_source_max: usize,
    shares: Mutex<HashMap<Source, Arc<Semaphore>>>,
}

/// One handshake; dropped, the next may begin.
#[derive(Debug)]
pub struct Permit {
    _permit: Option<OwnedSemaphorePermit>,
    _share: Share,
}

/// A source's part in the handshakes. The last to go takes the source out of the map.
#[derive(Debug)]
struct Share {
    handshakes: Arc<Handshakes>,
    source: Source,
    permit: Option<OwnedSemaphorePermit>,
}

impl Handshakes {
    /// Lets `max` be in progress, of one source `per_source_max`; 0 counts as 1.
    #[must_use]
    pub fn new(max: u32, per_source_max: u32) -> Arc<Self> {
        let count = |max: u32| usize::try_from(max.max(1)).unwrap_or(Semaphore::MAX_PERMITS);
        Arc::new(Self {
            permits: Arc::new(Semaphore::new(count(max))),
            per_source_max: count(per_source_max),
            shares: Mutex::default(),
        })
    }

    /// Waits until a handshake may begin. While none may, connections are best left in the kernel's backlog.
    pub async fn room(&self) {
        // The semaphore is never closed, so there is no error to tell.
        drop(self.permits.acquire().await);
    }

    /// Waits until a handshake of `source` may begin. A source that has its share waits for its own, not for others'.
    pub async fn permit(self: &Arc<Self>, source: Source) -> Permit {
        let per_source = Arc::clone(
            self.shares().entry(source).or_insert_with(|| Arc::new(Semaphore::new(self.per_source_max))),
        );
        // Made before the wait, so that a wait that is given up leaves nothing behind.
        let mut share = Share { handshakes: Arc::clone(self), source, permit: None };
        share.permit = per_source.acquire_owned().await.ok();
        Permit { _permit: Arc::clone(&self.permits).acquire_owned().await.ok(), _share: share }
    }

    fn shares(&self) -> MutexGuard<'_, HashMap<Source, Arc<Semaphore>>> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.permit = None;
        let mut shares = self.handshakes.shares();
        // Whoever holds or awaits a permit of the source has a reference, and gets it under this lock.
        if shares.get(&self.source).is_some_and(|share| Arc::strong_count(share) == 1) {
            shares.remove(&self.source);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::net::SocketAddr;
    use std::pin::Pin;
    use std::task::{Context, Waker};

    use super::*;

    fn is_ready(future: Pin<&mut impl Future>) -> bool {
        future.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    fn source(address: &str) -> Source {
        Source::from(address.parse::<SocketAddr>().unwrap())
    }

    #[tokio::test]
    async fn a_source_that_has_its_share_waits_while_others_do_not() {
        let handshakes = Handshakes::new(4, 2);
        let (greedy, honest) = (source("192.0.2.1:1"), source("192.0.2.2:1"));
        let held = [handshakes.permit(greedy).await, handshakes.permit(greedy).await];

        let mut third = Box::pin(handshakes.permit(greedy));
        assert!(!is_ready(third.as_mut()));
        let other = handshakes.permit(honest).await;
        handshakes.room().await;
        drop(held);

        drop((third.await, other));
        assert!(handshakes.shares().is_empty());
    }

    #[tokio::test]
    async fn a_wait_that_is_given_up_leaves_nothing_behind() {
        let handshakes = Handshakes::new(1, 1);
        let held = handshakes.permit(source("192.0.2.1:1")).await;

        let mut waits = Box::pin(handshakes.permit(source("192.0.2.2:1")));
        assert!(!is_ready(waits.as_mut()));
        drop(waits);
        assert_eq!(handshakes.shares().len(), 1);
        drop(held);

        assert!(handshakes.shares().is_empty());
        handshakes.room().await;
    }
}
