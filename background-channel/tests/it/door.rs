//! Whom operators block, and who was turned away: what the Switch says, and what it is told.

use std::time::Duration;

use http::Method;
use muster_pki::Role;
use muster_proto::relay::v1::RefusedPeer;

use crate::pki::{A_MONTH, Pki};
use crate::switch::Switch;
use crate::world::{CHANNEL_NAME, PATIENCE, World};

const NO_SUCH: &str = "/resources/0000000000000000000000000000000000000000000000000000000000000000";

/// A world whose Background Channel asks often.
async fn eager() -> World {
    let mut world = World::new().await;
    world.config.relay.ask_every = Duration::from_millis(50);
    world
}

/// Waits until somebody was turned away by a rule; returns all that is told of them.
async fn told(switch: &mut Switch, rule: &str) -> RefusedPeer {
    let by_rule = |all: &Vec<RefusedPeer>| all.iter().any(|one| one.rules == [rule]);
    let all = tokio::time::timeout(PATIENCE, switch.refused.wait_for(by_rule)).await.unwrap().unwrap();
    all.iter().find(|one| one.rules == [rule]).unwrap().clone()
}

#[tokio::test]
async fn r2_a_blocked_device_loses_its_live_connection_and_gets_no_other_until_it_is_unblocked() {
    let mut world = eager().await;
    let channel = world.start().await;
    let listener = std::mem::replace(&mut world.switch, spare().await);
    let mut switch = Switch::serve(&world.pki, listener);
    let blocked = world.pki.issue(Role::Device, "w701.acme.local", A_MONTH);
    let caller = world.caller_with(&channel, Some(&blocked), b"h2");
    let mut line = caller.connect().await.unwrap();
    let mut neighbour = world.caller(&channel, Role::Device, "w702.acme.local").connect().await.unwrap();
    assert!(line.call(Method::GET, NO_SUCH, &[], "").await.is_ok());

    switch.blocked.send_replace(vec!["w701.acme.local".to_owned()]);
    line.ended().await;

    // A resumed TLS session, as this is, is refused as a full handshake.
    assert!(caller.try_call(Method::GET, NO_SUCH, &[], "").await.is_err());
    assert!(neighbour.call(Method::GET, NO_SUCH, &[], "").await.is_ok());
    let refused = told(&mut switch, "R2").await;
    assert!(refused.findings[0].contains("muster client unblock w701.acme.local"), "{refused:?}");
    assert_eq!(refused.serial, blocked.certificate.serial_hex());

    switch.blocked.send_replace(Vec::new());
    let again = async {
        while caller.try_call(Method::GET, NO_SUCH, &[], "").await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, again).await.unwrap();
    drop(neighbour);
    channel.stop().await.unwrap();
}

#[tokio::test]
async fn r2_a_blocked_device_stays_out_after_a_restart_while_the_switch_is_away() {
    let mut world = eager().await;
    let channel = world.start().await;
    let listener = std::mem::replace(&mut world.switch, spare().await);
    let switch = Switch::serve(&world.pki, listener);
    let blocked = world.pki.issue(Role::Device, "w701.acme.local", A_MONTH);
    let mut line = world.caller_with(&channel, Some(&blocked), b"h2").connect().await.unwrap();
    assert!(line.call(Method::GET, NO_SUCH, &[], "").await.is_ok());
    switch.blocked.send_replace(vec!["w701.acme.local".to_owned()]);
    line.ended().await;
    // What is in force is on disk before the Switch is asked again.
    let is_told_back = |state: &Vec<u8>| state == b"state w701.acme.local";
    tokio::time::timeout(PATIENCE, switch.state.clone().wait_for(is_told_back)).await.unwrap().unwrap();
    channel.stop().await.unwrap();
    drop(switch);

    let channel = world.start().await;
    let caller = world.caller_with(&channel, Some(&blocked), b"h2");
    let neighbour = world.caller(&channel, Role::Device, "w702.acme.local");

    assert!(caller.try_call(Method::GET, NO_SUCH, &[], "").await.is_err());
    assert!(neighbour.try_call(Method::GET, NO_SUCH, &[], "").await.is_ok());
    channel.stop().await.unwrap();
}

#[tokio::test]
async fn c14_who_is_turned_away_here_is_told_to_the_switch_with_rule_certificate_and_fix() {
    let mut world = eager().await;
    let channel = world.start().await;
    let listener = std::mem::replace(&mut world.switch, spare().await);
    let mut switch = Switch::serve(&world.pki, listener);
    let elsewhere = tempfile::tempdir().unwrap();
    let foreign = Pki::new(elsewhere.path()).issue(Role::Device, "w703.acme.local", A_MONTH);

    let caller = world.caller_with(&channel, Some(&foreign), b"http/1.1");
    assert!(caller.try_call(Method::GET, NO_SUCH, &[], "").await.is_err());
    let refused = told(&mut switch, "C2").await;

    let certificate = &foreign.certificate;
    // The one that breaks the rule: the CA that leads to no root of ours.
    assert_eq!(refused.subject, certificate.issuer());
    // And whom that keeps out.
    assert_eq!((&refused.peer[..], &refused.peer_subject[..]), ("w703.acme.local", certificate.subject()));
    assert_eq!(refused.peer_serial, certificate.serial_hex());
    assert_eq!(refused.peer_thumbprint, certificate.thumbprint().to_string());
    assert_ne!(refused.peer_thumbprint, refused.thumbprint);
    assert!(!refused.issuer.is_empty() && !refused.serial.is_empty(), "{refused:?}");
    assert_eq!(refused.thumbprint.len(), certificate.thumbprint().to_string().len());
    assert!(refused.address.starts_with("127.0.0.1:"), "{refused:?}");
    assert!(refused.findings[0].contains("fix: "), "{refused:?}");
    assert_eq!(refused.count, 1);
    let metrics = world.admin(&channel, "/metrics").await;
    assert!(metrics.contains("muster_background_refused_certificates_total{rule=\"C2\"}"), "{metrics}");
    channel.stop().await.unwrap();
}

#[tokio::test]
async fn n3_certificates_that_are_about_to_end_are_told_to_the_switch_and_by_readyz_and_metrics() {
    let mut world = eager().await;
    let days = |days: u64| Duration::from_secs(days * 24 * 3_600);
    let server = world.pki.issue(Role::Switch, CHANNEL_NAME, days(20));
    (world.config.tls.certificate, world.config.tls.key) = world.pki.write("channel", &server);
    let service = world.pki.issue(Role::Service, "background.acme.local", days(10));
    (world.config.relay.certificate, world.config.relay.key) = world.pki.write("service", &service);
    let channel = world.start().await;
    let listener = std::mem::replace(&mut world.switch, spare().await);
    let mut switch = Switch::serve(&world.pki, listener);

    let both = |all: &Vec<String>| {
        ["expires in 19 days", "expires in 9 days"].map(|end| all.iter().any(|one| one.contains(end)))
            == [true; 2]
    };
    let told = tokio::time::timeout(PATIENCE, switch.warnings.wait_for(both)).await;

    assert!(told.unwrap().is_ok());
    let readiness = world.admin(&channel, "/readyz").await;
    for end in ["expires in 19 days", "expires in 9 days"] {
        assert!(readiness.contains(end), "{readiness}");
    }
    let metrics = world.admin(&channel, "/metrics").await;
    for name in ["server certificate", "service certificate"] {
        let metric = format!("muster_credentials_not_after_seconds{{credentials=\"{name}\"}}");
        assert!(metrics.contains(&metric), "{metrics}");
    }
    channel.stop().await.unwrap();
}

async fn spare() -> tokio::net::TcpListener {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap()
}
