//! A wall clock that is wrong for a while: what it may not end.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use muster_pki::Role;
use muster_service::wall::{self, ClockLimits, Names, Reading, Wall};

use crate::world::{Channel, PATIENCE, World};

const NO_SUCH: &str = "/resources/0000000000000000000000000000000000000000000000000000000000000000";
const DAY: Duration = Duration::from_secs(86_400);
const DAY_MS: i64 = 86_400_000;

const NAMES: Names = Names {
    program: "the Background Channel",
    jumps_total: "muster_background_clock_jumps_total",
    off_seconds: "muster_background_clock_off_seconds",
};

#[tokio::test]
async fn a_wall_clock_that_jumped_two_days_ahead_ends_no_certificate_and_is_told() {
    let world = World::new().await;
    let ahead_ms = Arc::new(AtomicI64::new(0));
    let channel = world.start_by(wall_that_is(&ahead_ms)).await;
    let device = world.pki.issue(Role::Device, "w701.acme.local", DAY);
    let caller = world.caller_with(&channel, Some(&device), b"http/1.1");
    assert!(world.admin(&channel, "/readyz").await.contains("\"clock\""));

    ahead_ms.store(2 * DAY_MS, Ordering::SeqCst);
    let readiness = until_told(&world, &channel, "jumped").await;
    let answer = caller.call(Method::GET, NO_SUCH, "").await;

    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert!(readiness.starts_with("HTTP/1.1 200"), "degraded, and in service: {readiness}");
    assert!(readiness.contains("restart the Background Channel"), "{readiness}");
    let metrics = world.admin(&channel, "/metrics").await;
    assert!(metrics.contains("muster_background_clock_jumps_total{direction=\"ahead\"} 1\n"), "{metrics}");
    assert!(metrics.contains("muster_background_clock_off_seconds 172"), "{metrics}");
    ahead_ms.store(0, Ordering::SeqCst);
    channel.stop().await.unwrap();
}

/// The system's clock, so much ahead.
fn wall_that_is(ahead_ms: &Arc<AtomicI64>) -> Wall {
    let (ahead_ms, start) = (Arc::clone(ahead_ms), Instant::now());
    Wall::new(ClockLimits::default(), NAMES, move || Reading {
        wall_ms: wall::now_ms() + ahead_ms.load(Ordering::SeqCst),
        passed: start.elapsed(),
    })
}

async fn until_told(world: &World, channel: &Channel, what: &str) -> String {
    let looking = async {
        loop {
            let readiness = world.admin(channel, "/readyz").await;
            if readiness.contains(what) {
                return readiness;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.unwrap()
}
