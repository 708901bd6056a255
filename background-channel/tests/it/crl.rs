//! A distribution point that fails in every way while devices call (R1, R4, R5, R6), and devices that are revoked over it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use http::Method;
use muster_pki::{RevocationMode, Role};
use muster_service::credentials::{FetchSettings, IssuerSettings};
use muster_service::wall::{self, ClockLimits, Names, Reading, Wall};

use crate::caller::Caller;
use crate::pki::{A_MONTH, HOUR};
use crate::point::{Answer, Point};
use crate::world::{Channel, PATIENCE, World};

const NO_SUCH: &str = "/resources/0000000000000000000000000000000000000000000000000000000000000000";
const NAMES: Names =
    Names { program: "test", jumps_total: "test_jumps_total", off_seconds: "test_off_seconds" };

/// A Background Channel that asks a distribution point every second.
struct Lab {
    world: World,
    channel: Channel,
    point: Point,
    ahead_ms: Arc<AtomicI64>,
    /// The number of the last list.
    number: u64,
}

impl Lab {
    async fn start(mode: RevocationMode) -> Self {
        let mut world = World::new().await;
        let point = Point::start(Answer::Body(world.pki.crl(Role::Device, &[], 1, 0..24))).await;
        let second = Duration::from_secs(1);
        let revocation = &mut world.config.revocation;
        revocation.mode = RevocationMode::Soft;
        revocation.fetching = FetchSettings {
            timeout: second,
            retry_min: second,
            retry_max: second,
            refresh_max: second,
            start_spread: Duration::ZERO,
            alarm_after: 1,
            ..FetchSettings::default()
        };
        revocation.issuers = vec![IssuerSettings {
            certificates: world.pki.issuing_file(Role::Device),
            mode: Some(mode),
            urls: vec![point.url()],
        }];
        let (ahead_ms, begun) = (Arc::new(AtomicI64::new(0)), Instant::now());
        let (shown, limits) =
            (Arc::clone(&ahead_ms), ClockLimits { jump_max: 400 * A_DAY, ..ClockLimits::default() });
        let wall = Wall::new(limits, NAMES, move || Reading {
            wall_ms: wall::now_ms() + shown.load(Ordering::SeqCst),
            passed: begun.elapsed(),
        });
        let channel = world.start_by(wall).await;
        Self { world, channel, point, ahead_ms, number: 1 }
    }

    /// Somebody who never came before: a full handshake.
    fn device(&self, name: &str) -> Caller {
        self.world.caller(&self.channel, Role::Device, name)
    }

    async fn is_welcome(&self, name: &str) -> bool {
        self.device(name).try_call(Method::GET, NO_SUCH, &[], "").await.is_ok()
    }

    async fn until_welcome(&self, name: &str) {
        let coming = async {
            while !self.is_welcome(name).await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, coming).await.unwrap();
    }

    /// A newer list, from and until so many hours from now.
    fn newer(&mut self, hours: std::ops::Range<i64>) -> Answer {
        self.number += 1;
        Answer::Body(self.world.pki.crl(Role::Device, &[], self.number, hours))
    }

    async fn until_ready_says(&self, what: &str, is_said: bool) {
        let looking = async {
            while self.world.admin(&self.channel, "/readyz").await.contains(what) != is_said {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let told = format!("{what} in /readyz: {is_said}");
        tokio::time::timeout(PATIENCE, looking).await.expect(&told);
    }
}

const A_DAY: Duration = Duration::from_secs(86_400);

#[tokio::test]
async fn r6_hard_lets_nobody_in_by_a_stale_list_and_open_connections_stand() {
    check(RevocationMode::Hard, false, false).await;
}

#[tokio::test]
async fn r6_grace_lets_devices_in_for_a_day_after_the_list_ended() {
    check(RevocationMode::Grace, true, false).await;
}

#[tokio::test]
async fn r6_soft_lets_devices_in_by_any_list_that_does_not_revoke_them() {
    check(RevocationMode::Soft, true, true).await;
}

/// Goes through everything that a distribution point may do, and who is let in.
async fn check(mode: RevocationMode, when_stale: bool, after_grace: bool) {
    let mut lab = Lab::start(mode).await;
    lab.until_welcome("w701.acme.local").await;
    let lasting = lab.world.pki.issue(Role::Device, "w702.acme.local", A_MONTH);
    let mut open = lab.world.caller_with(&lab.channel, Some(&lasting), b"h2").connect().await.unwrap();
    assert!(open.call(Method::GET, NO_SUCH, &[], "").await.is_ok());

    // As long as the list is fresh, nothing that comes in its place changes anything.
    let html = "<html>It works!</html>".to_owned();
    let of_another = lab.world.pki.crl(Role::Operator, &[], 9, 0..24);
    let rolled_back = lab.world.pki.crl(Role::Device, &[], 0, 0..24);
    for (fault, told) in [
        (Answer::Down, "HTTP"),
        (Answer::Slow, "no whole answer within"),
        (Answer::Body(html), "PEM"),
        (Answer::Body(of_another), "operator issuing"),
        (Answer::Body(rolled_back), "wanted a newer one"),
    ] {
        lab.point.answer(fault, 1).await;
        lab.until_ready_says(told, true).await;
        assert!(lab.is_welcome("w703.acme.local").await, "{told}");
    }

    let stale = lab.newer(-2..-1);
    lab.point.answer(stale, 2).await;
    lab.until_ready_says("CRL of CN=device issuing: missing or lapsed", true).await;
    assert_eq!(lab.is_welcome("w704.acme.local").await, when_stale, "stale");
    lab.ahead_ms.store(25 * HOUR * 1_000, Ordering::SeqCst);
    assert_eq!(lab.is_welcome("w705.acme.local").await, after_grace, "a day later");
    assert!(open.call(Method::GET, NO_SUCH, &[], "").await.is_ok(), "an open connection");

    let fresh = lab.newer(24..48);
    lab.point.answer(fresh, 1).await;
    lab.until_welcome("w706.acme.local").await;
    lab.until_ready_says("CRL of CN=device issuing: missing or lapsed", false).await;
    assert!(open.call(Method::GET, NO_SUCH, &[], "").await.is_ok(), "an open connection");
    drop(open);
    lab.channel.stop().await.unwrap();
}

#[tokio::test]
async fn r2_r3_a_device_that_is_revoked_over_its_distribution_point_loses_its_connections_and_resumes_none() {
    let lab = Lab::start(RevocationMode::Hard).await;
    lab.until_welcome("w700.acme.local").await;
    let stolen = lab.world.pki.issue(Role::Device, "w701.acme.local", A_MONTH);
    // One configuration each, so that the later handshakes resume the first.
    let callers =
        [b"h2".as_slice(), b"http/1.1"].map(|alpn| lab.world.caller_with(&lab.channel, Some(&stolen), alpn));
    let mut lines = Vec::new();
    for caller in &callers {
        let mut line = caller.connect().await.unwrap();
        assert!(line.call(Method::GET, NO_SUCH, &[], "").await.is_ok());
        lines.push(line);
    }
    let mut neighbour = lab.device("w702.acme.local").connect().await.unwrap();
    assert!(neighbour.call(Method::GET, NO_SUCH, &[], "").await.is_ok());

    let list = lab.world.pki.crl(Role::Device, &[&stolen], 2, 0..24);
    lab.point.answer(Answer::Body(list), 1).await;
    for line in &mut lines {
        line.ended().await;
    }

    for caller in &callers {
        assert!(caller.try_call(Method::GET, NO_SUCH, &[], "").await.is_err());
    }
    assert!(neighbour.call(Method::GET, NO_SUCH, &[], "").await.is_ok());
    assert!(lab.is_welcome("w703.acme.local").await);
    drop(neighbour);
    lab.channel.stop().await.unwrap();
}
