use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use muster_client::Config;
use muster_client::local::{Request, ask};
use tokio::time::sleep;

use crate::lab::{Client, Lab};
use crate::policies::{at, event, switches, text, with_trial};
use crate::switch::FakeSwitch;

/// Nobody listens there.
const NOBODY: u16 = 1;

#[tokio::test(flavor = "multi_thread")]
async fn k1_a_policy_from_a_file_brings_a_client_back_whose_switch_has_moved() {
    let moved = FakeSwitch::listen().await;
    let lab = Lab::new(NOBODY, 1);
    let config = with_file(&lab, lab.config());
    let file = config.policy.file.clone();
    let client = lab.start_with(config.clone()).await;

    put(&file, &lab.policy(3, &switches(&[&at(&moved)])));

    let mut session = moved.accept(&lab).await;
    session.follows(3).await;
    client.wait_for(|status| status.connected && status.policy_serial == 3).await;
    assert_eq!(file_problem(&client).await, "");
    // A later one comes over the Switch; the file stays, and nobody is told that it is behind.
    session.offer(lab.policy(4, &switches(&[&at(&moved)]))).await;
    session.follows(4).await;
    client.stop().await;
    let client = lab.start_with(config).await;
    let mut session = moved.accept(&lab).await;
    session.follows(4).await;
    wait_for_file_problem(&client, "not later than 4").await;
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k1_what_the_administrators_did_not_sign_is_not_taken_from_a_file_and_both_sides_are_told() {
    let switch = FakeSwitch::listen().await;
    let lab = Lab::new(switch.port(), 1);
    let config = with_file(&lab, lab.config());
    let file = config.policy.file.clone();
    put(&file, &lab.foreign_policy(1, &switches(&["wss://localhost:1/v1/session"])));
    let client = lab.start_with(config).await;
    let mut session = switch.accept(&lab).await;

    let refused = event(&mut session, "policy.refused").await;

    let told = [text(&refused, "source"), text(&refused, "reason")];
    assert_eq!(told, ["file", "signature"]);
    assert!(!file_problem(&client).await.is_empty());
    // Ours takes its place.
    put(&file, &lab.policy(1, "says = \"ours\""));
    session.follows(1).await;
    assert_eq!(file_problem(&client).await, "");
    put(&file, &vec![b'x'; 4 << 20]);
    wait_for_file_problem(&client, "more than").await;
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k1_a_pipe_in_place_of_the_policy_file_is_told_and_keeps_nobody_waiting() {
    let switch = FakeSwitch::listen().await;
    let lab = Lab::new(switch.port(), 1);
    let config = with_file(&lab, lab.config());
    let file = config.policy.file.clone();
    let made = Command::new("mkfifo").arg(&file).status().unwrap();
    assert!(made.success(), "{made}");
    let client = lab.start_with(config).await;
    let mut session = switch.accept(&lab).await;

    wait_for_file_problem(&client, "is no file").await;

    put(&file, &lab.policy(1, "says = \"ours\""));
    session.follows(1).await;
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k4_a_policy_from_a_file_that_gives_no_session_is_rolled_back_and_tried_again_when_somebody_says_so()
{
    let switch = FakeSwitch::listen().await;
    let lab = Lab::new(switch.port(), 1);
    let config = with_file(&lab, with_trial(&lab, Duration::from_secs(1)));
    let file = config.policy.file.clone();
    let client = lab.start_with(config).await;
    let mut session = switch.accept(&lab).await;

    put(&file, &lab.policy(2, &switches(&["wss://localhost:1/v1/session"])));
    drop(event(&mut session, "policy.rolled_back").await);

    wait_for_file_problem(&client, "policy refresh --retry").await;
    drop(ask(client.running.socket(), &Request::RefreshPolicy { retry: true }).await.unwrap());
    drop(event(&mut session, "policy.rolled_back").await);
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k4_a_policy_is_tried_for_as_long_as_the_one_that_is_followed_has_no_session_either() {
    let moved = FakeSwitch::listen().await;
    let lab = Lab::new(NOBODY, 1);
    let config = with_file(&lab, with_trial(&lab, Duration::from_millis(200)));
    put(&config.policy.file, &lab.policy(2, &switches(&[&at(&moved)])));
    let client = lab.start_with(config).await;
    client.wait_for(|status| status.policy_trial == 2).await;

    // Nobody answers there for a while.
    sleep(Duration::from_secs(1)).await;
    let status = client.running.status().await.unwrap();
    assert_eq!((status.policy_serial, status.policy_trial), (0, 2));

    let mut session = moved.accept(&lab).await;
    session.follows(2).await;
    client.stop().await;
}

fn with_file(lab: &Lab, mut config: Config) -> Config {
    config.policy.file = lab.folder.path().join("policy.cms");
    config
}

/// As an administrator does: whole or not at all.
fn put(file: &Path, envelope: &[u8]) {
    let new: PathBuf = file.with_extension("new");
    std::fs::write(&new, envelope).unwrap();
    std::fs::rename(new, file).unwrap();
}

async fn file_problem(client: &Client) -> String {
    client.policy().await.file_problem
}

async fn wait_for_file_problem(client: &Client, told: &str) {
    client.wait_for_policy(|policy| policy.file_problem.contains(told)).await;
}
