//! CAs that a policy or the trust store brings: their lists are fetched, and no signer has one of them, too.

use std::time::Duration;

use muster_client::start;
use muster_proto::session::v1::Event;
use muster_service::shutdown::Shutdown;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;

use crate::lab::{Lab, PATIENCE};
use crate::policies::{at, event, runs, switches, text, with_trial};
use crate::switch::FakeSwitch;

#[tokio::test(flavor = "multi_thread")]
async fn r1_the_list_of_a_ca_that_only_a_policy_brings_is_fetched() {
    let (old, new) = (FakeSwitch::listen().await, FakeSwitch::listen().await);
    let point = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/others.crl", point.local_addr().unwrap());
    let mut lab = Lab::new(old.port(), 1);
    let client = lab.start().await;
    let mut session = old.accept(&lab).await;
    let ca = lab.move_servers_to_a_ca_that_publishes_at(&url);
    let terms = format!("{}\nca = '''\n{ca}'''", switches(&[&at(&new)]));
    session.policy = Some(lab.policy(1, &terms));
    client.wait_for_trial(&mut session, 1).await;
    let mut moved = new.accept(&lab).await;
    session.end().await;
    moved.follows(1).await;

    let (asked, _) = tokio::time::timeout(PATIENCE, point.accept()).await.unwrap().unwrap();
    let line = BufReader::new(asked).lines().next_line().await.unwrap().unwrap();

    assert_eq!(line, "GET /others.crl HTTP/1.1");
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k2_a_policy_that_brings_a_signers_root_as_a_ca_of_servers_is_refused_at_once() {
    let switch = FakeSwitch::listen().await;
    let lab = Lab::new(switch.port(), 1);
    let client = lab.start().await;
    let mut session = switch.accept(&lab).await;
    let authors = std::fs::read_to_string(lab.folder.path().join("authors.pem")).unwrap();
    session.policy = Some(lab.policy(1, &format!("ca = '''\n{authors}'''")));
    session.follows(0).await;
    runs(&mut session, &lab, 1).await;

    assert_eq!(session.asked, 1);
    // It was never taken, so that its serial is free.
    session.offer(lab.policy(1, "says = \"ours\"")).await;
    session.follows(1).await;
    let status = client.running.status().await.unwrap();
    assert_eq!((status.policy_serial, status.policy_trial), (1, 0));
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k4_a_policy_that_names_a_file_with_a_signers_root_is_rolled_back_with_the_reason() {
    let switch = FakeSwitch::listen().await;
    let lab = Lab::new(switch.port(), 1);
    let client = lab.start_with(with_trial(&lab, Duration::from_secs(2))).await;
    let mut session = switch.accept(&lab).await;
    let file = lab.folder.path().join("orders.pem");
    session.policy = Some(lab.policy(1, &format!("[trust]\nca_file = {file:?}")));

    let rolled_back: Event = event(&mut session, "policy.rolled_back").await;

    let reason = text(&rolled_back, "reason");
    assert!(reason.contains("the CAs of the policy and trust.orders share the root"), "{reason}");
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k4_a_policy_whose_ca_file_is_missing_is_rolled_back_with_the_reason() {
    let switch = FakeSwitch::listen().await;
    let lab = Lab::new(switch.port(), 1);
    let client = lab.start_with(with_trial(&lab, Duration::from_secs(2))).await;
    let mut session = switch.accept(&lab).await;
    session.policy = Some(lab.policy(1, "[trust]\nca_file = \"/nonexist/fleet.pem\""));

    let rolled_back: Event = event(&mut session, "policy.rolled_back").await;

    let reason = text(&rolled_back, "reason");
    assert!(reason.contains("/nonexist/fleet.pem: does not exist"), "{reason}");
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trust_store_that_holds_a_signers_root_is_refused_with_both_names() {
    let lab = Lab::new(1, 1);
    let config = lab.with_folders();
    let file = config.trust.folder.join("cainfo.pem");
    let licences = std::fs::read_to_string(lab.folder.path().join("licences.pem")).unwrap();
    std::fs::write(&file, std::fs::read_to_string(&file).unwrap() + &licences).unwrap();

    let refused = start(config, Shutdown::new()).await.unwrap_err().to_string();

    assert!(refused.contains("trust.licences and trust.folder share the root"), "{refused}");
}
