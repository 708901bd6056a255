use std::time::Duration;

use muster_proto::common::v1::value::Kind;
use muster_proto::common::v1::{Refusal, TargetState};
use muster_proto::session::v1::{Event, Lane};

use crate::lab::{Lab, PATIENCE, instruction, now_ms};
use crate::switch::{FakeSwitch, Said, Session};

const ENDLESS: &str =
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) AS answer FROM n";

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_is_ended_by_a_stop_and_answered_as_cancelled_with_its_reason() {
    let (switch, mut lab) = lab().await;
    lab.definition = lab.definition_of(ENDLESS, "10m");
    let client = lab.start().await;
    let mut session = switch.accept(&lab).await;
    session.order(&lab.order(1)).await;
    for wanted in ["Acked", "Running"] {
        assert_eq!(session.progress().await, wanted);
    }

    session.order(&lab.stop(9, 1)).await;

    let (result, _) = session.result().await;
    assert_eq!(
        (result.state(), result.instruction.clone()),
        (TargetState::Cancelled, instruction(1).to_vec())
    );
    assert_eq!(result.detail, "stopped by operator: wrong fleet");
    assert!(result.started_at_ms > 0);
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_that_is_stopped_is_told_as_cancelled_once_nothing_of_it_is_left() {
    let (switch, mut lab) = lab().await;
    let ready = format!("ready-{}", std::process::id());
    // What takes a while to be cleared.
    let text =
        format!("i=0; while [ $i -lt 30000 ]; do : > f$i; i=$((i + 1)); done; : > {ready}; sleep 98.3234001");
    lab.definition = lab.scripted_by(&text, "10m");
    let client = lab.start().await;
    let mut session = switch.accept(&lab).await;
    session.order(&lab.order(1)).await;
    for wanted in ["Acked", "Running"] {
        assert_eq!(session.progress().await, wanted);
    }
    let begun = tokio::time::Instant::now();
    let folder = loop {
        assert!(begun.elapsed() < PATIENCE, "the script did not begin; does the kernel have Landlock?");
        let folders = std::fs::read_dir("/tmp").unwrap().flatten().map(|entry| entry.path());
        match folders.into_iter().find(|folder| folder.join(&ready).exists()) {
            Some(folder) => break folder,
            None => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };

    session.order(&lab.stop(9, 1)).await;

    let (result, _) = session.result().await;
    assert!(!folder.exists(), "{} is not cleared yet", folder.display());
    assert_eq!(result.state(), TargetState::Cancelled, "{}", result.detail);
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_that_comes_before_its_order_keeps_it_from_running_also_after_a_restart() {
    let (switch, lab) = lab().await;
    let client = lab.start().await;
    let mut session = switch.accept(&lab).await;

    session.order(&lab.stop(9, 1)).await;
    let (cancelled, _) = session.result().await;
    session.ack(Lane::Results, cancelled.sequence).await;
    // An answer: so the ack before it was read.
    session.order(&lab.order(2)).await;
    let (other, _) = session.result().await;
    session.ack(Lane::Results, other.sequence).await;
    client.wait_for(|status| status.outbox.results == 0).await;
    client.stop().await;
    let client = lab.start().await;
    let mut session = switch.accept(&lab).await;
    session.order(&lab.order(1)).await;
    assert_eq!(session.progress().await, "Acked");
    session.order(&lab.stop(9, 1)).await;
    session.order(&lab.stop(10, 1)).await;
    session.order(&lab.order(3)).await;

    let (next, progress) = session.result().await;
    assert_eq!((cancelled.state(), cancelled.instruction), (TargetState::Cancelled, instruction(1).to_vec()));
    assert_eq!(cancelled.started_at_ms, 0);
    assert_eq!((next.state(), next.instruction), (TargetState::Answered, instruction(3).to_vec()));
    assert_eq!(progress, ["Acked", "Running"], "of the third; of the first there is nothing more to say");
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_restart_finds_taken_on_does_not_start_before_the_stops_that_the_welcome_announces() {
    let (switch, mut lab) = lab().await;
    lab.definition = lab.definition_of(ENDLESS, "10m");
    let mut config = lab.config();
    config.instructions.parallel = 1;
    let client = lab.start_with(config.clone()).await;
    let mut session = switch.accept(&lab).await;
    session.order(&lab.order(1)).await;
    for wanted in ["Acked", "Running"] {
        assert_eq!(session.progress().await, wanted);
    }
    session.order(&lab.order(2)).await;
    assert_eq!(session.progress().await, "Acked");
    client.stop().await;
    drop(session);

    let client = lab.start_with(config).await;
    let mut session = switch.accept_saying(&lab, Said { stops_due: 1, ..Said::now() }).await;
    let early = tokio::time::timeout(Duration::from_secs(1), session.result()).await;
    assert!(early.is_err(), "nothing starts, and nothing that waits is sent before the stop: {early:?}");
    session.order(&lab.stop(9, 2)).await;

    let (mut results, mut progress) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let (result, before) = session.result().await;
        results.push((result.instruction[15], result.state(), result.started_at_ms > 0));
        progress.extend(before);
    }
    results.sort_unstable_by_key(|(number, ..)| *number);
    assert_eq!(results, [(1, TargetState::Interrupted, true), (2, TargetState::Cancelled, false)]);
    assert_eq!(progress, Vec::<String>::new());
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_that_announces_a_stop_and_sends_none_is_waited_for_a_few_seconds() {
    let (switch, lab) = lab().await;
    let client = lab.start().await;
    let mut session = switch.accept_saying(&lab, Said { stops_due: 2, ..Said::now() }).await;

    // The client's start, which waited.
    assert_eq!(session.event().await.name, "client.started");
    session.order(&lab.order(1)).await;

    let (result, _) = session.result().await;
    assert_eq!(result.state(), TargetState::Answered, "{}", result.detail);
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_goes_on_where_only_the_other_road_has_named_higher_numbers() {
    let (switch, mut lab) = lab().await;
    lab.definition = lab.definition_of(ENDLESS, "10m");
    let client = lab.start().await;
    let mut session = switch.accept(&lab).await;
    let order = lab.order(1);
    session.order(&order).await;
    for wanted in ["Acked", "Running"] {
        assert_eq!(session.progress().await, wanted);
    }
    let outbox = session.hello.outbox_id.clone();
    drop(session);

    let said = Said { highest_sequence: 1 << 62, ..Said::now() };
    switch.accept_saying(&lab, said).await.end().await;
    let mut session = switch.accept(&lab).await;

    assert_ne!(session.hello.outbox_id, outbox);
    client.wait_for(|status| status.running == 1).await;
    session.order(&order).await;
    assert_eq!(session.progress().await, "Running");
    session.order(&lab.stop(9, 1)).await;
    let (result, _) = session.result().await;
    assert_eq!(
        (result.state(), result.started_at_ms > 0),
        (TargetState::Cancelled, true),
        "{}",
        result.detail
    );
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_of_what_has_answered_changes_nothing() {
    let (switch, lab) = lab().await;
    let client = lab.start().await;
    let mut session = switch.accept(&lab).await;
    session.order(&lab.order(1)).await;
    let (first, _) = session.result().await;
    session.ack(Lane::Results, first.sequence).await;

    session.order(&lab.stop(9, 1)).await;
    session.order(&lab.order(2)).await;

    let (second, _) = session.result().await;
    assert_eq!((first.state(), second.state()), (TargetState::Answered, TargetState::Answered));
    assert_eq!(second.instruction, instruction(2).to_vec());
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_that_no_operator_of_this_tenant_signed_for_now_is_reported_by_its_code_and_nothing_is_stopped()
 {
    let (switch, lab) = lab().await;
    let stranger = Lab::new(1, 1);
    let client = lab.start().await;
    let mut session = switch.accept(&lab).await;
    let mut flipped = lab.stop(9, 1);
    let at = flipped.windows(8).position(|window| window == b"operator").unwrap();
    flipped[at] = b'0';
    let stops = [
        (flipped, Refusal::BadSignature),
        (stranger.stop(9, 1), Refusal::UntrustedSigner),
        (lab.stop_by_switch(9, 1), Refusal::UntrustedSigner),
        (lab.stop_with(9, 1, |stop| stop.tenant = "other".to_owned()), Refusal::WrongTenant),
        (lab.stop_with(9, 1, |stop| stop.not_before_ms = now_ms() + 300_000), Refusal::NotYetValid),
        (
            lab.stop_with(9, 1, |stop| {
                stop.not_before_ms = now_ms() - 60_000;
                stop.expires_at_ms = now_ms() - 1_000;
            }),
            Refusal::Expired,
        ),
    ];

    for (stop, refusal) in stops {
        session.order(&stop).await;
        let event = refused(&mut session).await;
        assert_eq!(field(&event, "refusal"), refusal.name(), "{event:?}");
        assert_eq!(field(&event, "instruction"), instruction(1).to_string());
    }

    session.order(&lab.order(1)).await;
    let (result, _) = session.result().await;
    assert_eq!(result.state(), TargetState::Answered, "{}", result.detail);
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k2_the_switchs_own_key_stops_nothing_whatever_a_policy_names_for_it() {
    let (switch, lab) = lab().await;
    let client = lab.start().await;
    let mut session = switch.accept(&lab).await;
    session.follows(0).await;
    let (_, key) = lab.order_by_switch(0);
    let policy = format!(
        "[order_key]\nthumbprints = [\"{key}\"]\nprefixes = [\"Acme\"]\nkinds = [\"question\"]\n\
         definitions = [\"Acme-Test-Answer\"]"
    );
    session.offer(lab.policy(1, &policy)).await;
    session.follows(1).await;

    session.order(&lab.stop_by_switch(9, 1)).await;

    assert_eq!(field(&refused(&mut session).await, "refusal"), Refusal::NotGranted.name());
    session.order(&lab.order_by_switch(1).0).await;
    let (result, _) = session.result().await;
    assert_eq!(result.state(), TargetState::Answered, "{}", result.detail);
    client.stop().await;
}

/// Returns the next report of a stop that is not believed.
async fn refused(session: &mut Session) -> Event {
    loop {
        if let Some(event) = session.event_or_other().await
            && event.name == "stop.refused"
        {
            return event;
        }
    }
}

fn field(event: &Event, name: &str) -> String {
    let field = event.fields.iter().find(|field| field.name == name).unwrap();
    match field.value.clone().unwrap().kind {
        Some(Kind::Text(text)) => text,
        other => panic!("{name}: {other:?}"),
    }
}

async fn lab() -> (FakeSwitch, Lab) {
    let switch = FakeSwitch::listen().await;
    // Nobody listens on port 1: the Background Channel is away.
    let lab = Lab::new(switch.port(), 1);
    (switch, lab)
}
