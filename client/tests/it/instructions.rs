use muster_proto::common::v1::value::Kind;
use muster_proto::common::v1::{Refusal, TargetState};
use muster_proto::order::v1::Audience;
use muster_proto::session::v1::{CloseReason, Lane};

use crate::lab::{DEVICE, Lab, TENANT, instruction, now_ms};
use crate::policies::{event, integer};
use crate::switch::FakeSwitch;

#[tokio::test(flavor = "multi_thread")]
async fn a_question_is_acked_run_answered_and_forgotten_after_the_ack() {
    let (switch, lab) = lab().await;
    let client = lab.start().await;
    let mut session = switch.accept(&lab).await;

    session.order(&lab.order(1)).await;
    let (result, progress) = session.result().await;

    assert_eq!((result.state(), result.detail.as_str()), (TargetState::Answered, ""));
    assert_eq!(result.instruction, instruction(1).to_vec());
    assert_eq!(result.columns[0].name, "answer");
    assert_eq!(result.rows[0].values[0].kind, Some(Kind::Integer(42)));
    assert_eq!(progress, ["Acked", "Running"]);
    session.ack(Lane::Results, result.sequence).await;
    client
        .wait_for(|status| status.connected && status.outbox.results == 0 && status.licence_serial == 1)
        .await;
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tells_what_it_knows_of_itself() {
    let (switch, lab) = lab().await;
    let client = lab.start().await;

    let session = switch.accept(&lab).await;

    let text = |name: &str| {
        let attribute = session.hello.attributes.iter().find(|attribute| attribute.name == name);
        attribute.and_then(|attribute| attribute.value.clone()?.kind)
    };
    assert_eq!(text("device"), Some(Kind::Text(DEVICE.to_owned())));
    assert_eq!(text("domain"), Some(Kind::Text("acme.local".to_owned())));
    assert_eq!(text("os"), Some(Kind::Text(std::env::consts::OS.to_owned())));
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_order_again_is_acked_again_and_runs_once() {
    let (switch, lab) = lab().await;
    let client = lab.start().await;
    let mut session = switch.accept(&lab).await;
    let order = lab.order(1);
    session.order(&order).await;
    let (first, _) = session.result().await;
    session.ack(Lane::Results, first.sequence).await;

    session.order(&order).await;
    assert_eq!(session.progress().await, "Acked");

    // The next result is that of another instruction: the repeated one has none.
    session.order(&lab.order(2)).await;
    let (second, _) = session.result().await;
    assert_eq!(second.instruction, instruction(2).to_vec());
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_instruction_under_other_bytes_is_refused_as_a_replay() {
    let (switch, lab) = lab().await;
    let client = lab.start().await;
    let mut session = switch.accept(&lab).await;
    session.order(&lab.order(1)).await;
    let (first, _) = session.result().await;
    session.ack(Lane::Results, first.sequence).await;

    session.order(&lab.order_with(1, |order| order.expires_at_ms += 1_000)).await;

    let (second, _) = session.result().await;
    assert_eq!((second.state(), second.refusal()), (TargetState::Refused, Refusal::Replayed));
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tampered_definition_is_refused() {
    let (switch, lab) = lab().await;
    let client = lab.start().await;
    let mut session = switch.accept(&lab).await;
    let at = session.definition.windows(6).position(|window| window == b"41 + 1").unwrap();
    session.definition[at] ^= 1;

    session.order(&lab.order(1)).await;

    let (result, _) = session.result().await;
    assert_eq!((result.state(), result.refusal()), (TargetState::Refused, Refusal::WrongDefinition));
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tampered_order_is_refused_and_does_not_keep_the_real_one_out() {
    let (switch, lab) = lab().await;
    let client = lab.start().await;
    let mut session = switch.accept(&lab).await;
    let order = lab.order(1);
    let mut tampered = order.clone();
    let at = tampered.windows(8).position(|window| window == b"operator").unwrap();
    tampered[at] = b'0';

    session.order(&tampered).await;
    let (refused, _) = session.result().await;
    session.order(&order).await;
    let (answered, _) = session.result().await;

    assert_eq!((refused.state(), refused.refusal()), (TargetState::Refused, Refusal::BadSignature));
    assert_eq!(answered.state(), TargetState::Answered);
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_order_that_is_not_for_this_device_has_its_code() {
    let (switch, lab) = lab().await;
    let client = lab.start().await;
    let mut session = switch.accept(&lab).await;
    let other = r#"device == "other.acme.local""#.to_owned();
    let orders = [
        (lab.order_with(1, |order| order.tenant = "other".to_owned()), Refusal::WrongTenant),
        (
            lab.order_with(2, |order| {
                order.audience = Some(Audience { expression: other, ..Audience::default() })
            }),
            Refusal::WrongAudience,
        ),
        (lab.order_with(3, |order| order.not_before_ms = now_ms() + 300_000), Refusal::NotYetValid),
        (lab.order_with(4, |order| order.licence_serial = 9), Refusal::LicenceStale),
    ];

    for (order, refusal) in orders {
        session.order(&order).await;
        let (result, _) = session.result().await;
        assert_eq!((result.state(), result.refusal()), (TargetState::Refused, refusal), "{}", result.detail);
        session.ack(Lane::Results, result.sequence).await;
    }
    let expired = lab.order_with(5, |order| {
        order.not_before_ms = now_ms() - 60_000;
        order.expires_at_ms = now_ms() - 1_000;
    });
    session.order(&expired).await;
    let (result, _) = session.result().await;
    assert_eq!(result.state(), TargetState::Expired, "{}", result.detail);
    assert_eq!(TENANT, "acme");
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_whose_ack_was_lost_is_sent_again_under_its_number() {
    let (switch, lab) = lab().await;
    let client = lab.start().await;
    let mut session = switch.accept(&lab).await;
    session.order(&lab.order(1)).await;
    let (first, _) = session.result().await;

    drop(session);
    let mut session = switch.accept(&lab).await;
    let (again, _) = session.result().await;

    assert_eq!(session.hello.queued_results, 1);
    assert_eq!((again.sequence, again.rows), (first.sequence, first.rows));
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_survives_a_restart_under_its_number_and_outbox() {
    let (switch, lab) = lab().await;
    let client = lab.start().await;
    let mut session = switch.accept(&lab).await;
    session.order(&lab.order(1)).await;
    let (first, _) = session.result().await;
    let hello = session.hello.clone();
    client.stop().await;

    let client = lab.start().await;
    let mut session = switch.accept(&lab).await;
    let (again, _) = session.result().await;

    assert_eq!((again.sequence, again.rows), (first.sequence, first.rows));
    assert_eq!(session.hello.outbox_id, hello.outbox_id);
    assert_eq!(session.hello.last_epoch, hello.last_epoch + 1);
    assert_eq!(session.hello.licence_digest, lab.licence_digest().to_vec());
    session.order(&lab.order(1)).await;
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_licence_of_another_tenant_neither_counts_nor_keeps_ours_out() {
    let (switch, mut lab) = lab().await;
    let ours = std::mem::take(&mut lab.licence);
    lab.licence = lab.licence_of("other", 9);
    let client = lab.start().await;
    let mut session = switch.accept(&lab).await;
    session.order(&lab.order(1)).await;
    let (first, _) = session.result().await;
    assert_eq!((first.state(), first.refusal()), (TargetState::Refused, Refusal::Unlicensed));
    session.ack(Lane::Results, first.sequence).await;

    lab.licence = ours;
    session.close(CloseReason::Shutdown).await;
    let mut session = switch.accept(&lab).await;
    session.order(&lab.order(2)).await;

    let (second, _) = session.result().await;
    assert_eq!(second.state(), TargetState::Answered, "{}", second.detail);
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g6_a_licence_whose_refresh_by_lapsed_works_and_is_told_of_also_offline_after_a_restart_until_a_newer_one_came()
 {
    let (switch, mut lab) = lab().await;
    lab.licence = lab.overdue_licence(1);
    let client = lab.start().await;
    let mut session = switch.accept(&lab).await;
    let event = event(&mut session, "licence.overdue").await;
    assert_eq!(integer(&event, "serial"), 1);
    session.order(&lab.order(1)).await;
    let (answered, _) = session.result().await;
    session.ack(Lane::Results, answered.sequence).await;
    let is_told = |status: &muster_client::Status| {
        status.licence_problem.contains("licence 1 should have had a successor")
    };
    client.wait_for(is_told).await;
    client.stop().await;

    let client = lab.start().await;
    client.wait_for(|status| !status.connected && is_told(status)).await;
    lab.licence = lab.licence_of(TENANT, 2);
    let mut session = switch.accept(&lab).await;
    tokio::select! {
        () = client.wait_for(|status| status.licence_serial == 2 && status.licence_problem.is_empty()) => {}
        () = session.answer() => {}
    }

    assert_eq!(answered.state(), TargetState::Answered, "{}", answered.detail);
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_too_long_is_told_with_the_limit_that_was_signed() {
    let (switch, mut lab) = lab().await;
    // By the time that the helper starts, less than a second is left; nobody signed that.
    let endless =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) AS answer FROM n";
    lab.definition = lab.definition_of(endless, "1s");
    let client = lab.start().await;
    let mut session = switch.accept(&lab).await;

    session.order(&lab.order(1)).await;

    let (result, _) = session.result().await;
    assert_eq!(result.state(), TargetState::Failed, "{}", result.detail);
    assert!(result.detail.starts_with("stopped after 1s, the run time that its definition"), "{result:?}");
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_is_asked_for_once() {
    let (switch, lab) = lab().await;
    let client = lab.start().await;
    let mut session = switch.accept(&lab).await;
    session.order(&lab.order(1)).await;
    let (first, _) = session.result().await;
    session.ack(Lane::Results, first.sequence).await;

    // From here on the Switch would send something else.
    session.definition = b"nothing".to_vec();
    session.order(&lab.order(2)).await;

    let (second, _) = session.result().await;
    assert_eq!(second.state(), TargetState::Answered);
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn comes_back_after_the_switch_went_away() {
    let (switch, lab) = lab().await;
    let client = lab.start().await;
    let mut session = switch.accept(&lab).await;

    session.close(CloseReason::Shutdown).await;
    let session = switch.accept(&lab).await;

    assert_eq!(session.hello.last_epoch, 1);
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_superseded_client_stays_away_and_says_why() {
    let (switch, lab) = lab().await;
    let client = lab.start().await;
    let mut session = switch.accept(&lab).await;
    client.wait_for(|status| status.connected).await;

    session.close(CloseReason::Superseded).await;

    client.wait_for(|status| !status.connected && status.disconnected_because.contains("SUPERSEDED")).await;
    client.stop().await;
}

async fn lab() -> (FakeSwitch, Lab) {
    let switch = FakeSwitch::listen().await;
    // Nobody listens on port 1: the Background Channel is away.
    let lab = Lab::new(switch.port(), 1);
    (switch, lab)
}
