//! [`Posts`]: the bodies of posts of events that are in memory, and the bounds over all of them.
//!
//! A body has a place before its first byte is collected, and keeps it until its events are on disk. So neither many
//! streams nor many connections take more memory than the operator allows, and one device does not take it from all others.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Body as _;
use muster_pki::DeviceId;
use muster_proto::limits::EVENT_BATCH_BYTES_MAX;
use muster_service::admission::{Share, Shares};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Limits;
use crate::metrics;

/// How long a post waits for a place; then its client is told to come back.
const PLACE_DEADLINE: Duration = Duration::from_secs(2);

/// Places for bodies.
#[derive(Debug)]
pub(crate) struct Posts {
    bytes: Arc<Semaphore>,
    per_device: Arc<Shares<DeviceId>>,
    place_deadline: Duration,
    body_deadline: Duration,
}

/// A body's place, until its events are on disk.
#[derive(Debug)]
pub(crate) struct Place {
    _bytes: OwnedSemaphorePermit,
    _of_device: Share<DeviceId>,
}

/// Why a body was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PostRefused {
    #[error("a post of events has at most {EVENT_BATCH_BYTES_MAX} bytes; post fewer at once")]
    TooLong,
    #[error("too many posts of this device are under way; come back")]
    DeviceFull,
    #[error("too many posts are under way; come back")]
    Full,
    #[error("the body did not come within {0:?}; post fewer events at once")]
    Late(Duration),
    #[error("the body ended early: {0}")]
    Broken(String),
}

impl Posts {
    pub(crate) fn new(limits: &Limits) -> Self {
        let bytes = usize::try_from(limits.posts_bytes_max).unwrap_or(usize::MAX);
        Self {
            bytes: Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS))),
            per_device: Shares::new(limits.posts_per_device_max),
            place_deadline: PLACE_DEADLINE,
            body_deadline: limits.body_deadline,
        }
    }

    /// Finds a place for a body, and collects it.
    pub(crate) async fn collect(&self, device: &DeviceId, body: Body) -> Result<(Bytes, Place), PostRefused> {
        let collected = self.collect_within(device, body).await;
        match &collected {
            Err(PostRefused::DeviceFull) => metrics::refused_post("device_full"),
            Err(PostRefused::Full) => metrics::refused_post("full"),
            Err(PostRefused::Late(_)) => metrics::refused_post("body_deadline"),
            Err(PostRefused::TooLong) => metrics::refused_post("too_long"),
            Ok(_) | Err(PostRefused::Broken(_)) => {}
        }
        collected
    }

    async fn collect_within(&self, device: &DeviceId, body: Body) -> Result<(Bytes, Place), PostRefused> {
        let most = u64::try_from(EVENT_BATCH_BYTES_MAX).unwrap_or(u64::MAX);
        // A body that does not say how long it is may be as long as any.
        let length = body.size_hint().exact().unwrap_or(most);
        let bytes = u32::try_from(length).ok().filter(|_| length <= most).ok_or(PostRefused::TooLong)?;
        let of_device = self.per_device.take(device.clone()).ok_or(PostRefused::DeviceFull)?;
        let permit = Arc::clone(&self.bytes).acquire_many_owned(bytes);
        let permit = tokio::time::timeout(self.place_deadline, permit).await;
        let Ok(Ok(permit)) = permit else { return Err(PostRefused::Full) };
        let place = Place { _bytes: permit, _of_device: of_device };
        let collected = Limited::new(body, EVENT_BATCH_BYTES_MAX).collect();
        match tokio::time::timeout(self.body_deadline, collected).await {
            Ok(Ok(collected)) => Ok((collected.to_bytes(), place)),
            Ok(Err(error)) if is_too_long(error.as_ref()) => Err(PostRefused::TooLong),
            Ok(Err(error)) => Err(PostRefused::Broken(error.to_string())),
            Err(_) => Err(PostRefused::Late(self.body_deadline)),
        }
    }
}

/// The limit's error may be wrapped in the HTTP library's.
fn is_too_long(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|error| error.is::<LengthLimitError>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn posts(bytes: u64, per_device: u32) -> Posts {
        let limits = Limits {
            posts_bytes_max: bytes,
            posts_per_device_max: per_device,
            body_deadline: Duration::ZERO,
            ..Limits::default()
        };
        Posts { place_deadline: Duration::ZERO, ..Posts::new(&limits) }
    }

    fn device(name: &str) -> DeviceId {
        name.parse().unwrap()
    }

    /// Says nothing of its length, and never comes.
    fn silent() -> Body {
        Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>())
    }

    #[tokio::test]
    async fn bodies_beyond_the_bound_over_all_are_told_to_come_back_until_one_is_on_disk() {
        let posts = posts(1_000, 10);

        let first = posts.collect(&device("a.test"), Body::from(vec![1; 600])).await.unwrap();
        let second = posts.collect(&device("b.test"), Body::from(vec![1; 600])).await;
        let small = posts.collect(&device("b.test"), Body::from(vec![1; 300])).await;
        drop(first);
        let third = posts.collect(&device("b.test"), Body::from(vec![1; 600])).await;

        assert!(matches!(second, Err(PostRefused::Full)), "{second:?}");
        assert!(small.is_ok() && third.is_ok(), "{small:?}, {third:?}");
    }

    #[tokio::test]
    async fn a_device_has_its_share_of_posts_under_way_and_another_its_own() {
        let posts = posts(1 << 20, 1);

        let first = posts.collect(&device("a.test"), Body::from("x")).await.unwrap();
        let second = posts.collect(&device("a.test"), Body::from("x")).await;
        let others = posts.collect(&device("b.test"), Body::from("x")).await;
        drop(first);
        let third = posts.collect(&device("a.test"), Body::from("x")).await;

        assert!(matches!(second, Err(PostRefused::DeviceFull)), "{second:?}");
        assert!(others.is_ok() && third.is_ok());
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_is_given_up_and_its_place_with_it() {
        let posts = posts(1 << 20, 1);

        for _ in 0..2 {
            let late = posts.collect(&device("a.test"), silent()).await;

            assert!(matches!(late, Err(PostRefused::Late(_))), "{late:?}");
        }
        let large = posts.collect(&device("a.test"), Body::from(vec![0; (1 << 20) + 1])).await;
        assert!(matches!(large, Err(PostRefused::TooLong)), "{large:?}");
    }
}
