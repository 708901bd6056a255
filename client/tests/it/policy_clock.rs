//! A policy that comes while the clock is behind: certificates would count that have ended.

use crate::lab::{Lab, now_ms};
use crate::policies::runs;
use crate::policy_unreadable::write;
use crate::switch::FakeSwitch;

/// How far a clock may be behind, and a few seconds.
const BEHIND_MS: i64 = 305_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_is_not_judged_by_a_clock_that_was_set_back_and_is_once_that_is_right() {
    let switch = FakeSwitch::listen().await;
    let lab = Lab::new(switch.port(), 1);
    lab.start().await.stop().await;
    let floor_ms = u64::try_from(now_ms() + BEHIND_MS).unwrap();
    write(&lab.config(), "time_floor", &floor_ms.to_be_bytes());
    let client = lab.start().await;
    let mut session = switch.accept_living(&lab).await;

    session.policy = Some(lab.policy(1, ""));
    session.policy_sent().await;

    client.wait_for_policy(|policy| policy.waits_for.contains("clock")).await;
    assert_eq!(client.policy().await.serial, 0);
    session.follows(1).await;
    client.wait_for_policy(|policy| policy.waits_for.is_empty()).await;
    runs(&mut session, &lab, 1).await;
    client.stop().await;
}
