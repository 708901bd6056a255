use std::time::Duration;

use muster_client::Config;
use muster_client::local::{Reply, Request, ask};
use muster_proto::common::v1::{Refusal, TargetState, value::Kind};
use muster_proto::session::v1::{CloseReason, Event, Lane, Result as InstructionResult};

use crate::lab::{Lab, PATIENCE};
use crate::switch::{FakeSwitch, Session};

/// Nobody listens there.
const NOWHERE: &str = "wss://localhost:1/v1/session";

#[tokio::test(flavor = "multi_thread")]
async fn k4_a_policy_moves_the_client_to_another_switch_and_the_old_session_stands_until_then() {
    let (old, new) = (FakeSwitch::listen().await, FakeSwitch::listen().await);
    let lab = Lab::new(old.port(), 1);
    let client = lab.start().await;
    let mut session = old.accept(&lab).await;
    session.policy = Some(lab.policy(1, &format!("says = \"to the new one\"\n{}", switches(&[&at(&new)]))));
    session.follows(0).await;

    // The new Switch has not answered yet, and orders are still taken from the old one.
    client.wait_for_trial(&mut session, 1).await;
    runs(&mut session, &lab, 1).await;
    assert_eq!(client.running.status().await.unwrap().policy_serial, 0);

    let mut moved = new.accept(&lab).await;
    session.end().await;
    client.wait_for(|status| status.connected && status.policy_serial == 1).await;
    moved.follows(1).await;
    runs(&mut moved, &lab, 2).await;
    let status = client.running.status().await.unwrap();
    assert_eq!((status.switch.as_str(), status.policy_trial), (at(&new).as_str(), 0));
    let copy = std::fs::read_to_string(lab.config().data_dir.join("policy.toml")).unwrap();
    assert!(copy.contains("to the new one"), "{copy}");

    // It comes back there, after the end of a session and after a restart.
    moved.close(CloseReason::Shutdown).await;
    let _again = new.accept(&lab).await;
    client.stop().await;
    let client = lab.start().await;
    let _after_restart = new.accept(&lab).await;
    client.wait_for(|status| status.connected && status.policy_serial == 1).await;
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k4_a_policy_that_gives_no_session_in_time_is_rolled_back_and_reported() {
    let switch = FakeSwitch::listen().await;
    let lab = Lab::new(switch.port(), 1);
    let client = lab.start_with(with_trial(&lab, Duration::from_secs(1))).await;
    let mut session = switch.accept(&lab).await;
    let policy = lab.policy(7, &switches(&[NOWHERE]));
    session.policy = Some(policy.clone());

    let event = event(&mut session, "policy.rolled_back").await;

    assert_eq!((integer(&event, "serial"), integer(&event, "back_to")), (7, 0));
    assert!(text(&event, "reason").contains("localhost:1"), "{event:?}");
    let status = client.running.status().await.unwrap();
    assert_eq!((status.connected, status.policy_serial, status.policy_trial), (true, 0, 0));
    // It is not tried again, not even asked for, in this session or after a restart.
    assert_eq!(session.asked, 1);
    session.offer(policy.clone()).await;
    runs(&mut session, &lab, 1).await;
    assert_eq!(session.asked, 1);
    client.stop().await;
    let client = lab.start_with(with_trial(&lab, Duration::from_secs(1))).await;
    let mut session = switch.accept(&lab).await;
    session.policy = Some(policy);
    session.follows(0).await;
    runs(&mut session, &lab, 2).await;
    assert_eq!(session.asked, 0);
    // Only somebody on this machine has it tried once more.
    let shown = ask(client.running.socket(), &Request::RefreshPolicy { retry: true }).await.unwrap();
    assert!(matches!(&shown, Reply::Policy(policy) if policy.rolled_back == 7), "{shown:?}");
    client.wait_for_trial(&mut session, 7).await;
    assert_eq!(session.asked, 1);
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k1_a_policy_that_the_administrators_did_not_sign_changes_nothing() {
    let (switch, other) = (FakeSwitch::listen().await, FakeSwitch::listen().await);
    let lab = Lab::new(switch.port(), 1);
    let client = lab.start().await;
    let mut session = switch.accept(&lab).await;
    session.policy = Some(lab.foreign_policy(1, &switches(&[&at(&other)])));

    let event = event(&mut session, "policy.refused").await;
    runs(&mut session, &lab, 1).await;

    assert_eq!(text(&event, "reason"), "signature");
    assert_eq!(session.asked, 1);
    let status = client.running.status().await.unwrap();
    assert_eq!((status.connected, status.policy_serial, status.policy_trial), (true, 0, 0));
    // Ours is taken afterwards: its serial says nothing about the liar's.
    session.offer(lab.policy(1, "says = \"ours\"")).await;
    session.follows(1).await;
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k1_an_operator_whose_orders_are_believed_signs_no_policy_and_other_devices_policies_are_not_followed()
 {
    let switch = FakeSwitch::listen().await;
    let lab = Lab::new(switch.port(), 1);
    let client = lab.start().await;
    let mut session = switch.accept(&lab).await;
    session.follows(0).await;

    for (offered, reason) in [
        (lab.policy_by_operator(1, "says = \"by an operator\""), "signature"),
        (lab.policy(1, "audience = 'device == \"w702.acme.local\"'"), "not_ours"),
    ] {
        session.offer(offered).await;
        let event = event(&mut session, "policy.refused").await;
        assert_eq!(text(&event, "reason"), reason);
    }

    assert_eq!(client.running.status().await.unwrap().policy_serial, 0);
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k3_a_later_policy_is_asked_for_by_the_clock_as_well() {
    let switch = FakeSwitch::listen().await;
    let lab = Lab::new(switch.port(), 1);
    let mut config = lab.config();
    config.policy.refresh = Duration::from_millis(50);
    let client = lab.start_with(config).await;
    let mut session = switch.accept(&lab).await;
    session.follows(0).await;

    // Nothing tells of it.
    session.policy = Some(lab.policy(1, "says = \"found by looking\""));

    session.follows(1).await;
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k1_the_serial_of_a_policy_never_goes_back_not_even_over_a_restart() {
    let switch = FakeSwitch::listen().await;
    let lab = Lab::new(switch.port(), 1);
    let client = lab.start().await;
    let mut session = switch.accept(&lab).await;
    session.policy = Some(lab.policy(5, "says = \"the fifth\""));
    session.follows(5).await;

    session.offer(lab.policy(4, &switches(&[NOWHERE]))).await;
    runs(&mut session, &lab, 1).await;
    let status = client.running.status().await.unwrap();
    assert_eq!((status.policy_serial, status.policy_trial), (5, 0));
    client.stop().await;
    let client = lab.start().await;
    let mut session = switch.accept(&lab).await;
    session.policy = Some(lab.policy(4, &switches(&[NOWHERE])));
    session.follows(5).await;
    runs(&mut session, &lab, 2).await;
    assert_eq!(client.running.status().await.unwrap().policy_trial, 0);
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k4_a_trial_goes_on_after_a_restart() {
    let (old, new) = (FakeSwitch::listen().await, FakeSwitch::listen().await);
    let lab = Lab::new(old.port(), 1);
    let client = lab.start().await;
    let mut session = old.accept(&lab).await;
    session.policy = Some(lab.policy(1, &switches(&[&at(&new)])));
    client.wait_for_trial(&mut session, 1).await;

    client.stop().await;
    let client = lab.start().await;
    let old_session = old.accept(&lab).await;
    assert_eq!(client.running.status().await.unwrap().policy_serial, 0);
    // The connection of before the restart may be the first in the queue.
    let mut moved = new.accept_living(&lab).await;

    old_session.end().await;
    moved.follows(1).await;
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k2_a_policys_ca_is_trusted_and_its_switches_are_called_in_their_order() {
    let (old, new) = (FakeSwitch::listen().await, FakeSwitch::listen().await);
    let mut lab = Lab::new(old.port(), 1);
    let client = lab.start().await;
    let mut session = old.accept(&lab).await;
    let ca = lab.move_servers_to_another_ca();
    let terms = format!("{}\nca = '''\n{ca}'''", switches(&[NOWHERE, &at(&new)]));
    session.policy = Some(lab.policy(1, &terms));
    client.wait_for_trial(&mut session, 1).await;

    let mut moved = new.accept(&lab).await;

    session.end().await;
    moved.follows(1).await;
    // The preferred one is asked first again, and the roots that were installed still count.
    moved.close(CloseReason::Shutdown).await;
    let mut again = new.accept(&lab).await;
    again.follows(1).await;
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k4_a_switch_that_ends_the_old_session_for_the_tried_one_is_no_stranger() {
    let switch = FakeSwitch::listen().await;
    let lab = Lab::new(switch.port(), 1);
    let client = lab.start().await;
    let mut session = switch.accept(&lab).await;
    session.policy = Some(lab.policy(1, "[trust]\nverify_host = \"yes\""));
    client.wait_for_trial(&mut session, 1).await;

    let mut moved = switch.accept(&lab).await;
    session.close(CloseReason::Superseded).await;

    // Another client with the same identity would be stayed away from for a minute and more.
    moved.follows(1).await;
    client.wait_for(|status| status.connected && status.policy_serial == 1).await;
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k2_a_policy_moves_the_background_channel() {
    let (old, new) = (FakeSwitch::listen().await, FakeSwitch::listen().await);
    let channel = tokio::net::TcpListener::bind("localhost:0").await.unwrap();
    let lab = Lab::new(old.port(), 1);
    let client = lab.start().await;
    let mut session = old.accept(&lab).await;
    let port = channel.local_addr().unwrap().port();
    let base = format!("background_channel = \"https://localhost:{port}/Background/v1\"");
    session.policy = Some(lab.policy(1, &format!("{}\n{base}", switches(&[&at(&new)]))));
    client.wait_for_trial(&mut session, 1).await;
    let mut moved = new.accept(&lab).await;
    moved.follows(1).await;

    // Without a session, what waits is posted there.
    moved.close(CloseReason::Shutdown).await;
    drop((session, moved, old, new));
    client.running.post_event("app.started", Vec::new()).await.unwrap();

    let called = tokio::time::timeout(PATIENCE, channel.accept()).await;
    assert!(called.expect("nobody called the new Background Channel").is_ok());
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c5_t1_a_client_with_a_store_of_certificates_and_a_trust_store_connects_and_follows_policies() {
    let (old, new) = (FakeSwitch::listen().await, FakeSwitch::listen().await);
    let mut lab = Lab::new(old.port(), 1);
    let config = lab.with_folders();
    let client = lab.start_with(config).await;
    let mut session = old.accept(&lab).await;
    let ca = lab.move_servers_to_another_ca();
    let terms =
        format!("{}\nca = '''\n{ca}'''\n[selection]\ncert_issuer = \"Devices\"", switches(&[&at(&new)]));
    session.policy = Some(lab.policy(1, &terms));
    client.wait_for_trial(&mut session, 1).await;

    let mut moved = new.accept(&lab).await;

    moved.follows(1).await;
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_a_policy_whose_selection_fits_no_certificate_is_rolled_back() {
    let switch = FakeSwitch::listen().await;
    let lab = Lab::new(switch.port(), 1);
    let mut config = lab.with_folders();
    config.policy.trial = Duration::from_secs(1);
    let client = lab.start_with(config).await;
    let mut session = switch.accept(&lab).await;
    session.policy = Some(lab.policy(1, "[selection]\ncert_issuer = \"Nobody here\""));

    let event = event(&mut session, "policy.rolled_back").await;

    assert!(text(&event, "reason").contains("no certificate will do"), "{event:?}");
    runs(&mut session, &lab, 1).await;
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_roots_of_administrators_no_policy_is_ever_asked_for_and_none_is_followed() {
    let switch = FakeSwitch::listen().await;
    let lab = Lab::new(switch.port(), 1);
    let client = lab.start().await;
    let mut session = switch.accept(&lab).await;
    session.policy = Some(lab.policy(1, ""));
    session.follows(1).await;
    client.stop().await;
    let mut config = lab.config();
    config.trust.policies = std::path::PathBuf::new();

    let client = lab.start_with(config).await;

    let mut session = switch.accept(&lab).await;
    session.policy = Some(lab.policy(2, ""));
    session.follows(0).await;
    runs(&mut session, &lab, 1).await;
    assert_eq!(session.asked, 0);
    assert!(!lab.config().data_dir.join("policy.toml").exists());
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k3_a_local_program_sees_the_policy_and_has_a_later_one_asked_for() {
    let switch = FakeSwitch::listen().await;
    let lab = Lab::new(switch.port(), 1);
    let client = lab.start().await;
    let mut session = switch.accept(&lab).await;
    session.follows(0).await;
    session.policy = Some(lab.policy(3, "says = \"the third\""));

    let reply = ask(client.running.socket(), &Request::RefreshPolicy { retry: false }).await.unwrap();
    assert!(matches!(&reply, Reply::Policy(policy) if policy.serial == 0), "{reply:?}");
    session.follows(3).await;

    let reply = ask(client.running.socket(), &Request::Policy {}).await.unwrap();
    assert!(
        matches!(&reply, Reply::Policy(policy) if policy.serial == 3 && policy.text.contains("the third")),
        "{reply:?}"
    );
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k3_a_client_that_was_told_with_many_does_not_ask_at_once() {
    let switch = FakeSwitch::listen().await;
    let lab = Lab::new(switch.port(), 1);
    let mut config = lab.config();
    // Its own part of that is under a second once in a hundred thousand policies.
    config.policy.spread_max = Duration::from_secs(86_400);
    let client = lab.start_with(config).await;
    let mut session = switch.accept(&lab).await;
    session.follows(0).await;

    session.offer_over(lab.policy(1, "says = \"to many\""), Duration::from_secs(86_400)).await;
    // What it asks for comes before the answer to what is sent after the offer.
    runs(&mut session, &lab, 1).await;

    assert_eq!(session.asked, 0);
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k3_a_switch_cannot_have_a_client_wait_longer_than_its_configuration_says() {
    let switch = FakeSwitch::listen().await;
    let lab = Lab::new(switch.port(), 1);
    let mut config = lab.config();
    config.policy.spread_max = Duration::from_millis(200);
    let client = lab.start_with(config).await;
    let mut session = switch.accept(&lab).await;
    session.follows(0).await;

    session.offer_over(lab.policy(1, "says = \"to many\""), Duration::from_secs(86_400)).await;

    session.follows(1).await;
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k2_what_a_policy_does_not_grant_is_refused_before_it_runs_and_granted_again_by_a_later_one() {
    let switch = FakeSwitch::listen().await;
    let lab = Lab::new(switch.port(), 1);
    let client = lab.start().await;
    let mut session = switch.accept(&lab).await;
    session.policy = Some(lab.policy(1, "[grants]\nkinds = [\"action\"]"));
    session.follows(1).await;

    let (refused, progress) = outcome(&mut session, &lab, 1).await;
    assert_eq!((refused.state(), refused.refusal()), (TargetState::Refused, Refusal::NotGranted));
    assert!(refused.detail.contains("question is not granted: grants.kinds has action"), "{refused:?}");
    assert!(refused.detail.contains("policy 1") && progress.is_empty(), "{refused:?} {progress:?}");

    // Over a restart as well, and before anything is heard of the Switch.
    client.stop().await;
    let client = lab.start().await;
    let mut session = switch.accept(&lab).await;
    let (refused, _) = outcome(&mut session, &lab, 2).await;
    assert_eq!(refused.refusal(), Refusal::NotGranted);

    session.policy = Some(lab.policy(2, "[grants]\nkinds = [\"question\"]"));
    session.offer(lab.policy(2, "[grants]\nkinds = [\"question\"]")).await;
    session.follows(2).await;
    runs(&mut session, &lab, 3).await;
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k2_a_table_that_a_policy_does_not_grant_is_not_read() {
    let switch = FakeSwitch::listen().await;
    let mut lab = Lab::new(switch.port(), 1);
    lab.definition = lab.definition_of("SELECT count(*) AS answer FROM users", "10s");
    let client = lab.start().await;
    let mut session = switch.accept(&lab).await;
    session.policy = Some(lab.policy(1, "[grants]\ntables = [\"os\", \"processes\"]"));
    session.follows(1).await;

    let (refused, _) = outcome(&mut session, &lab, 1).await;
    assert_eq!((refused.state(), refused.refusal()), (TargetState::Refused, Refusal::NotGranted));
    assert!(refused.detail.contains("users is not granted: grants.tables has os, processes"), "{refused:?}");

    let shown = ask(client.running.socket(), &Request::Policy {}).await.unwrap();
    let Reply::Policy(shown) = shown else { panic!("{shown:?}") };
    assert_eq!(shown.grants.tables.as_ref().map(|tables| tables.contains("os")), Some(true));
    assert_eq!((shown.grants.kinds.as_ref(), shown.grants.actions.as_ref()), (None, None));
    session.offer(lab.policy(2, "[grants]\ntables = [\"users\"]")).await;
    session.follows(2).await;
    runs(&mut session, &lab, 2).await;
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k2_a_script_runs_only_where_steps_are_granted_or_nothing_limits_tables_and_steps() {
    let switch = FakeSwitch::listen().await;
    let mut lab = Lab::new(switch.port(), 1);
    lab.definition = lab.scripted();
    let client = lab.start().await;
    let mut session = switch.accept(&lab).await;
    session.policy = Some(lab.policy(1, "[grants]\ntables = [\"os\"]"));
    session.follows(1).await;

    let (refused, progress) = outcome(&mut session, &lab, 1).await;
    assert_eq!((refused.state(), refused.refusal()), (TargetState::Refused, Refusal::NotGranted));
    assert!(
        refused.detail.contains(
            "a step that is no SQL (script, which grants.steps can allow) is not granted: grants.tables has os"
        ),
        "{refused:?}"
    );
    assert!(progress.is_empty(), "{progress:?}");

    session.offer(lab.policy(2, "[grants]\nsteps = [\"query\", \"action\"]")).await;
    session.follows(2).await;
    let (refused, progress) = outcome(&mut session, &lab, 2).await;
    assert_eq!((refused.state(), refused.refusal()), (TargetState::Refused, Refusal::NotGranted));
    assert!(refused.detail.contains("script is not granted: grants.steps has action, query"), "{refused:?}");
    assert!(progress.is_empty(), "{progress:?}");

    session.offer(lab.policy(3, "[grants]\ntables = [\"os\"]\nsteps = [\"script\"]")).await;
    session.follows(3).await;
    runs(&mut session, &lab, 3).await;
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k2_an_order_by_the_switchs_own_key_runs_only_what_a_policy_names_for_it() {
    let switch = FakeSwitch::listen().await;
    let lab = Lab::new(switch.port(), 1);
    let client = lab.start().await;
    let mut session = switch.accept(&lab).await;
    session.follows(0).await;
    let (_, key) = lab.order_by_switch(0);
    let named = |key: &str, definition: &str| {
        format!(
            "[order_key]\nthumbprints = [{key:?}]\nprefixes = [\"Acme\"]\nkinds = [\"question\"]\n\
             definitions = [{definition:?}]"
        )
    };
    let own = key.to_string();

    for (serial, policy, wanted) in [
        (0, None, Refusal::UntrustedSigner),
        (1, Some(named(&"ab".repeat(32), "Acme-Test-Answer")), Refusal::UntrustedSigner),
        (2, Some(named(&own, "Acme-Test-Another")), Refusal::NotGranted),
        (3, Some(named(&own, "Acme-Test-Answer")), Refusal::Unspecified),
        (4, Some("says = \"no longer\"".to_owned()), Refusal::UntrustedSigner),
    ] {
        if let Some(policy) = policy {
            session.offer(lab.policy(serial, &policy)).await;
            session.follows(serial).await;
        }
        session.order(&lab.order_by_switch(u8::try_from(serial).unwrap() + 1).0).await;
        let (result, _) = session.result().await;
        session.ack(Lane::Results, result.sequence).await;
        assert_eq!(result.refusal(), wanted, "{serial}: {}", result.detail);
        assert_eq!(result.state() == TargetState::Answered, wanted == Refusal::Unspecified);
    }
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_keys_of_a_switch_together_are_one_signer_and_approve_nothing() {
    let switch = FakeSwitch::listen().await;
    let mut lab = Lab::new(switch.port(), 1);
    let (_, keys) = lab.order_by_both_keys(0);
    let keys = keys.map(|key| key.to_string());
    let policy = format!(
        "[order_key]\nthumbprints = {keys:?}\nprefixes = [\"Acme\"]\nkinds = [\"question\"]\n\
         definitions = [\"Acme-Test-Answer\"]"
    );
    let client = lab.start().await;
    let mut session = switch.accept(&lab).await;
    session.policy = Some(lab.policy(1, &policy));
    session.follows(1).await;
    // While one key takes the other's place, an order may carry both.
    session.order(&lab.order_by_both_keys(1).0).await;
    let (without, _) = session.result().await;
    session.ack(Lane::Results, without.sequence).await;
    assert_eq!(without.state(), TargetState::Answered, "{}", without.detail);

    lab.definition = lab.approved_definition();
    session.definition = lab.definition.clone();
    session.order(&lab.order_by_both_keys(2).0).await;
    let (refused, _) = session.result().await;

    assert_eq!((refused.state(), refused.refusal()), (TargetState::Refused, Refusal::Unapproved));
    client.stop().await;
}

pub(crate) fn at(switch: &FakeSwitch) -> String {
    format!("wss://localhost:{}/v1/session", switch.port())
}

pub(crate) fn switches(urls: &[&str]) -> String {
    format!("switch = {urls:?}")
}

pub(crate) fn with_trial(lab: &Lab, trial: Duration) -> Config {
    let mut config = lab.config();
    config.policy.trial = trial;
    config
}

/// An order is answered over this session.
pub(crate) async fn runs(session: &mut Session, lab: &Lab, number: u8) {
    let (result, _) = outcome(session, lab, number).await;
    assert_eq!(result.state(), TargetState::Answered, "{}", result.detail);
}

/// What becomes of an order over this session, and the progress before it.
pub(crate) async fn outcome(
    session: &mut Session,
    lab: &Lab,
    number: u8,
) -> (InstructionResult, Vec<String>) {
    session.order(&lab.order(number)).await;
    let (result, progress) = session.result().await;
    session.ack(Lane::Results, result.sequence).await;
    (result, progress)
}

pub(crate) async fn event(session: &mut Session, name: &str) -> Event {
    let found = async {
        loop {
            let event = session.event().await;
            session.ack(Lane::Events, event.sequence).await;
            if event.name == name {
                return event;
            }
        }
    };
    tokio::time::timeout(PATIENCE, found).await.expect("the event did not come")
}

pub(crate) fn integer(event: &Event, name: &str) -> i64 {
    match field(event, name) {
        Kind::Integer(number) => number,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn text(event: &Event, name: &str) -> String {
    match field(event, name) {
        Kind::Text(text) => text,
        other => panic!("{other:?}"),
    }
}

fn field(event: &Event, name: &str) -> Kind {
    let field = event.fields.iter().find(|field| field.name == name).expect("the field");
    field.value.clone().unwrap().kind.unwrap()
}
