use std::collections::BTreeSet;
use std::time::Duration;

use muster_pki::RevocationMode;
use muster_proto::common::v1::{Refusal, TargetState};
use muster_proto::session::v1::Lane;
use muster_service::credentials::IssuerSettings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

use crate::lab::{Lab, PATIENCE, instruction, now_ms};
use crate::switch::FakeSwitch;

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_whose_revocation_only_a_distribution_point_tells_is_refused() {
    let switch = FakeSwitch::listen().await;
    let lab = Lab::new(switch.port(), 1);
    let point = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/orders.crl", point.local_addr().unwrap());
    let mut config = lab.config();
    let certificates = lab.folder.path().join("orders.pem");
    config.revocation.issuers = vec![IssuerSettings { certificates, mode: None, urls: vec![url] }];
    let (publish, published) = oneshot::channel();
    let tracker = TaskTracker::new();
    let serving = tracker.spawn(serve(point, published, lab.list_of_the_operator()));
    let client = lab.start_with(config).await;
    let mut session = switch.accept(&lab).await;
    session.order(&lab.order(1)).await;
    let (first, _) = session.result().await;
    assert_eq!(first.state(), TargetState::Answered, "{}", first.detail);
    session.ack(Lane::Results, first.sequence).await;

    publish.send(()).unwrap();
    serving.await.unwrap();

    // What was served is put to use a moment later.
    for number in 2..=200 {
        session.order(&lab.order(number)).await;
        let (result, _) = session.result().await;
        session.ack(Lane::Results, result.sequence).await;
        if result.state() == TargetState::Refused {
            assert_eq!(result.refusal(), Refusal::SignerRevoked, "{}", result.detail);
            client.stop().await;
            return;
        }
    }
    panic!("orders of a revoked operator are still run");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_who_is_not_yet_valid_is_refused_for_the_clock_where_the_switch_shows_a_later_time() {
    let switch = FakeSwitch::listen().await;
    let lab = Lab::new(switch.port(), 1);
    let later = Duration::from_secs(1_800);
    let order = lab.order_from(1, later);
    let client = lab.start().await;
    let mut session = switch.accept_at(&lab, now_ms() + 2 * 1_800_000).await;

    session.order(&order).await;

    let (result, _) = session.result().await;
    assert_eq!(
        (result.state(), result.refusal()),
        (TargetState::Refused, Refusal::Clock),
        "{}",
        result.detail
    );
    assert!(result.detail.contains("behind the Switch's"), "{}", result.detail);
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r1_the_lists_of_whoever_signed_what_is_judged_are_asked_for() {
    let switch = FakeSwitch::listen().await;
    let point = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", point.local_addr().unwrap());
    let lab = Lab::with_points(switch.port(), 1, |name| format!("{base}/{name}.crl"));
    let (asked, mut paths) = mpsc::channel(64);
    let mut serving = JoinSet::new();
    serving.spawn(note(point, asked));
    let mut config = lab.config();
    config.revocation.fetching.start_spread = Duration::ZERO;
    let client = lab.start_with(config).await;
    let mut session = switch.accept(&lab).await;

    session.order(&lab.order(1)).await;
    let (result, _) = session.result().await;
    session.ack(Lane::Results, result.sequence).await;
    session.offer(lab.policy(1, "")).await;
    let all = async {
        let mut asked = BTreeSet::new();
        while asked.len() < 4 {
            asked.extend(paths.recv().await);
        }
        asked
    };
    let asked = tokio::time::timeout(PATIENCE, session.answer_until(all)).await.unwrap();

    let wanted = ["/authors.crl", "/licences.crl", "/orders.crl", "/policies.crl"];
    assert_eq!(asked.into_iter().collect::<Vec<_>>(), wanted);
    assert_eq!(result.state(), TargetState::Answered, "{}", result.detail);
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r6_what_came_before_the_crl_that_it_needs_is_taken_once_that_is_there() {
    let switch = FakeSwitch::listen().await;
    let lab = Lab::new(switch.port(), 1);
    let mut config = lab.config();
    let hard = |name: &str| IssuerSettings {
        certificates: lab.folder.path().join(name),
        mode: Some(RevocationMode::Hard),
        urls: Vec::new(),
    };
    let names = ["authors.pem", "orders.pem", "licences.pem", "policies.pem"];
    config.revocation.issuers = names.map(hard).into();
    let client = lab.start_with(config).await;
    let mut session = switch.accept(&lab).await;
    session.order(&lab.order(1)).await;
    session.offer(lab.policy(1, "")).await;
    session.policy_sent().await;
    // Meanwhile it says what it waits for.
    client.wait_for(|status| status.licence_problem.contains("CRL")).await;
    client.wait_for_policy(|policy| policy.waits_for.contains("CRL")).await;

    lab.publish_lists_of_signers();

    let (result, _) = session.result().await;
    assert_eq!(result.state(), TargetState::Answered, "{}", result.detail);
    session.follows(1).await;
    client.wait_for(|status| status.licence_problem.is_empty()).await;
    client.wait_for_policy(|policy| policy.waits_for.is_empty()).await;
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r6_an_order_by_the_switchs_own_key_waits_for_the_list_of_its_ca_and_is_refused_once_that_revokes_it()
{
    let switch = FakeSwitch::listen().await;
    let lab = Lab::new(switch.port(), 1);
    let mut config = lab.config();
    let certificates = lab.folder.path().join("switch_orders.pem");
    let mode = Some(RevocationMode::Hard);
    config.revocation.issuers = vec![IssuerSettings { certificates, mode, urls: Vec::new() }];
    let client = lab.start_with(config).await;
    let mut session = switch.accept(&lab).await;
    let key = lab.order_by_switch(0).1.to_string();
    let named = |key: &str| {
        format!(
            "[order_key]\nthumbprints = [{key:?}]\nprefixes = [\"Acme\"]\nkinds = [\"question\"]\n\
             definitions = [\"Acme-Test-Answer\"]"
        )
    };
    // Of a key that nobody named, its list says nothing.
    session.policy = Some(lab.policy(1, &named(&"ab".repeat(32))));
    session.follows(1).await;
    session.order(&lab.order_by_switch(1).0).await;
    let (stranger, _) = session.result().await;
    session.ack(Lane::Results, stranger.sequence).await;
    session.offer(lab.policy(2, &named(&key))).await;
    session.follows(2).await;

    session.order(&lab.order_by_switch(2).0).await;
    session.order(&lab.order(3)).await;
    let (other, _) = session.result().await;
    session.ack(Lane::Results, other.sequence).await;
    lab.publish_list_of_order_keys();
    let (waited, _) = session.result().await;
    session.ack(Lane::Results, waited.sequence).await;
    lab.revoke_order_key();

    assert_eq!(stranger.refusal(), Refusal::UntrustedSigner, "{}", stranger.detail);
    assert_eq!(other.instruction, instruction(3).to_vec(), "{}", other.detail);
    assert_eq!(waited.instruction, instruction(2).to_vec());
    assert_eq!(waited.state(), TargetState::Answered, "{}", waited.detail);
    for number in 4..=200 {
        session.order(&lab.order_by_switch(number).0).await;
        let (result, _) = session.result().await;
        session.ack(Lane::Results, result.sequence).await;
        if result.state() == TargetState::Refused {
            assert_eq!(result.refusal(), Refusal::SignerRevoked, "{}", result.detail);
            client.stop().await;
            return;
        }
    }
    panic!("orders by a revoked key of the Switch are still run");
}

/// Tells the paths that are asked for, and has none of them.
async fn note(listener: TcpListener, asked: mpsc::Sender<String>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut request = [0; 4_096];
        let length = stream.read(&mut request).await.unwrap_or(0);
        let text = String::from_utf8_lossy(&request[..length]).into_owned();
        if let Some(path) = text.split(' ').nth(1) {
            asked.send(path.to_owned()).await.unwrap();
        }
        let head = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        drop(stream.write_all(head.as_bytes()).await);
    }
}

/// Answers one request once it is told to.
async fn serve(listener: TcpListener, published: oneshot::Receiver<()>, list: String) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut request = [0; 4_096];
    let _bytes = stream.read(&mut request).await.unwrap();
    published.await.unwrap();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", list.len());
    stream.write_all((head + &list).as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
}
