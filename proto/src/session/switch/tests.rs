use super::*;
use crate::ids::Sequence;
use crate::session::v1::{DocumentRequest, Ping, PolicyCheck, Pong, Progress};

#[test]
fn closes_a_session_that_does_not_say_hello_in_time() {
    let start = start();
    let mut session = SwitchSession::new(SwitchSessionConfig::default(), start);

    assert_eq!(session.poll_timeout(), Some(start + limits::HELLO_DEADLINE));
    session.handle_byte(start + Duration::from_secs(14));
    session.handle_timeout(start + limits::HELLO_DEADLINE);

    assert_eq!(closing(&mut session), (CloseReason::HelloTimeout, 0));
    assert_eq!(session.poll_timeout(), None);
}

#[test]
fn closes_a_session_whose_first_frame_is_another() {
    let mut session = SwitchSession::new(SwitchSessionConfig::default(), start());

    handle(&mut session, Body::Pong(Pong { nonce: 1 }), start());

    assert_eq!(closing(&mut session).0, CloseReason::ProtocolError);
}

#[test]
fn sends_a_client_of_other_versions_away_for_an_hour() {
    let mut session = SwitchSession::new(SwitchSessionConfig::default(), start());

    handle(&mut session, Body::Hello(Hello { versions: vec![2, 3], ..hello() }), start());

    assert_eq!(closing(&mut session), (CloseReason::Version, 3_600_000));
}

#[test]
fn chooses_the_version_that_both_speak() {
    let mut session = SwitchSession::new(SwitchSessionConfig::default(), start());

    handle(&mut session, Body::Hello(Hello { versions: vec![7, 1], ..hello() }), start());
    let _hello = session.poll_event();
    session.push_welcome(welcome(), start());

    let Some(Body::Welcome(welcome)) = transmitted(&mut session) else { panic!("no welcome") };
    assert_eq!((welcome.version, welcome.epoch, welcome.idle_timeout_ms), (1, 7, 150_000));
}

#[test]
fn closes_a_client_that_talks_before_its_welcome() {
    let mut session = SwitchSession::new(SwitchSessionConfig::default(), start());

    handle(&mut session, Body::Hello(hello()), start());
    let _hello = session.poll_event();
    handle(&mut session, event(1), start());

    assert_eq!(closing(&mut session).0, CloseReason::ProtocolError);
}

#[test]
fn takes_nothing_to_send_before_the_welcome_or_after_the_end() {
    let mut session = SwitchSession::new(SwitchSessionConfig::default(), start());
    assert_eq!(session.push_order(Bytes::new()), Err(PushError::NotEstablished));

    session.push_close(CloseReason::Unfit, Duration::ZERO, "");
    session.push_close(CloseReason::Revoked, Duration::ZERO, "");

    assert_eq!(session.push_order(Bytes::new()), Err(PushError::Closed));
    assert_eq!(closing(&mut session).0, CloseReason::Unfit);
    assert_eq!((session.poll_event(), session.poll_transmit()), (None, None));
}

#[test]
fn pings_at_every_interval_and_calls_silence_a_death() {
    let start = start();
    let mut session = established(SessionLimits::default());

    for (number, seconds) in [(1, 60), (2, 120)] {
        let now = start + Duration::from_secs(seconds);
        assert_eq!(session.poll_timeout(), Some(now));
        session.handle_timeout(now);
        assert_eq!(transmitted(&mut session), Some(Body::Ping(Ping { nonce: number })));
    }
    assert_eq!(session.poll_timeout(), Some(start + Duration::from_secs(150)));
    session.handle_timeout(start + Duration::from_secs(150));

    assert_eq!(closing(&mut session).0, CloseReason::Idle);
}

#[test]
fn any_byte_proves_life() {
    let start = start();
    let mut session = established(SessionLimits::default());

    session.handle_byte(start + Duration::from_secs(149));
    session.handle_timeout(start + Duration::from_secs(150));

    assert!(session.is_established());
}

#[test]
fn a_result_beyond_its_credit_ends_the_session() {
    let frame = encode(result(1));
    let credit = u64::try_from(frame.len()).unwrap() * 2;
    let mut session = established(SessionLimits { results_credit_bytes: credit, ..SessionLimits::default() });

    session.handle_message(&frame, start());
    session.handle_message(&frame, start());
    assert!(matches!(session.poll_event(), Some(SwitchEvent::Result(..))));
    assert!(matches!(session.poll_event(), Some(SwitchEvent::Result(..))));
    session.handle_message(&frame, start());

    assert_eq!(closing(&mut session).0, CloseReason::ProtocolError);
}

#[test]
fn an_ack_gives_credit_back() {
    let frame = encode(event(1));
    let bytes = u64::try_from(frame.len()).unwrap();
    let mut session = established(SessionLimits { events_credit_bytes: bytes, ..SessionLimits::default() });

    for _ in 0..3 {
        session.handle_message(&frame, start());
        let Some(SwitchEvent::Event(_, taken)) = session.poll_event() else { panic!("no event") };
        session.push_ack(Lane::Events, vec![range(1)], taken.into());
        assert!(matches!(transmitted(&mut session), Some(Body::Ack(ack)) if ack.credit_bytes == bytes));
    }
}

#[test]
fn control_overtakes_orders_and_orders_overtake_acks_and_documents() {
    let mut session = established(SessionLimits::default());
    let order =
        encode(Body::Order(crate::session::v1::OrderDelivery { envelope: Bytes::from_static(b"order") }));

    session.push_document(document(4)).unwrap();
    session.push_licence_notice(Digest::from([1; 32]));
    session.push_ack(Lane::Results, vec![range(1)], 10);
    session.push_order(order).unwrap();
    session.handle_timeout(start() + Duration::from_secs(60));

    let kinds: Vec<_> = std::iter::from_fn(|| transmitted(&mut session)).map(|body| name(&body)).collect();
    assert_eq!(kinds, ["a Ping", "an OrderDelivery", "an Ack", "a LicenceNotice", "a Document"]);
}

#[test]
fn a_stop_overtakes_every_order_that_waits() {
    let mut session = established(SessionLimits::default());
    let delivery = |envelope| {
        encode(Body::Order(crate::session::v1::OrderDelivery { envelope: Bytes::from_static(envelope) }))
    };

    session.push_order(delivery(b"order")).unwrap();
    session.push_stop(delivery(b"stop")).unwrap();

    let sent: Vec<_> = std::iter::from_fn(|| transmitted(&mut session)).collect();
    let envelope = |body: &Body| {
        let Body::Order(order) = body else { panic!("{}", name(body)) };
        order.envelope.clone()
    };
    assert_eq!(sent.iter().map(envelope).collect::<Vec<_>>(), [&b"stop"[..], b"order"]);
}

#[test]
fn a_full_queue_refuses_the_next_order_and_keeps_the_session() {
    let mut session = established(SessionLimits { outbound_bytes_max: 100, ..SessionLimits::default() });

    session.push_order(Bytes::from(vec![0; 60])).unwrap();

    assert_eq!(
        session.push_order(Bytes::from(vec![0; 60])),
        Err(PushError::Busy { queued: 60, needed: 60, max: 100 })
    );
    assert!(session.poll_transmit().is_some());
    assert_eq!(session.push_order(Bytes::from(vec![0; 60])), Ok(()));
}

#[test]
fn a_client_that_reads_no_acks_is_slow() {
    let mut session = established(SessionLimits::default());

    for number in 0..=u64::try_from(limits::PENDING_ACK_RANGES_MAX).unwrap() {
        session.push_ack(Lane::Events, vec![range(number * 2 + 1)], 0);
    }

    assert_eq!(session.close_reason(), Some(CloseReason::Slow));
}

#[test]
fn the_last_acks_go_before_the_go_away_and_orders_do_not() {
    let mut session = established(SessionLimits::default());
    session.push_order(Bytes::from_static(b"order")).unwrap();
    session.push_ack(Lane::Results, vec![range(1)], 10);

    session.push_close(CloseReason::Shutdown, Duration::from_secs(9_999), &"ü".repeat(200));

    assert!(matches!(transmitted(&mut session), Some(Body::Ack(_))));
    let Some(Body::GoAway(go_away)) = transmitted(&mut session) else { panic!("no go_away") };
    assert_eq!((go_away.reconnect_after_ms, go_away.detail.len()), (3_600_000, 256));
    assert_eq!(session.poll_transmit(), None);
}

#[test]
fn ignores_requests_for_more_documents_than_a_session_may_wait_for() {
    let mut session = established(SessionLimits::default());
    let request = |byte| DocumentRequest { kind: DocumentKind::Definition.into(), digest: vec![byte; 32] };

    for byte in 0..20 {
        handle(&mut session, Body::DocumentRequest(request(byte)), start());
    }

    assert_eq!(std::iter::from_fn(|| session.poll_event()).count(), limits::DOCUMENT_REQUESTS_MAX);
    assert_eq!(session.ignored_frames(), 4);
    session.push_document(document(0)).unwrap();
    handle(&mut session, Body::DocumentRequest(request(99)), start());
    assert!(session.poll_event().is_some());
}

#[test]
fn a_policy_check_is_heard_once_until_it_is_answered() {
    let mut session = established(SessionLimits::default());
    let check = |session: &mut SwitchSession, serial| {
        handle(session, Body::PolicyCheck(PolicyCheck { serial }), start());
        session.poll_event()
    };

    assert_eq!(check(&mut session, 7), Some(SwitchEvent::PolicyCheck { serial: 7 }));
    assert_eq!((check(&mut session, 8), session.ignored_frames()), (None, 1));
    session.push_policy_notice(None, Duration::ZERO);
    assert!(
        matches!(transmitted(&mut session), Some(Body::PolicyNotice(notice)) if notice.digest.is_empty())
    );

    assert_eq!(check(&mut session, 9), Some(SwitchEvent::PolicyCheck { serial: 9 }));
    session.push_policy_notice(Some(Digest::from([3; 32])), Duration::from_secs(100));
    assert!(
        matches!(transmitted(&mut session), Some(Body::PolicyNotice(notice)) if notice.digest == [3; 32] && notice.spread_ms == 100_000)
    );
}

#[test]
fn tells_progress_by_its_types() {
    let mut session = established(SessionLimits::default());

    let progress = Progress { instruction: vec![9; 16], state: TargetState::Running.into() };
    handle(&mut session, Body::Progress(progress), start());

    let instruction = InstructionId::from([9; 16]);
    assert_eq!(
        session.poll_event(),
        Some(SwitchEvent::Progress { instruction, state: TargetState::Running })
    );
}

#[test]
fn ignores_and_counts_a_frame_of_a_later_version() {
    let mut session = established(SessionLimits::default());

    session.handle_message(&[0x9a, 0x06, 0x00], start());

    assert_eq!((session.ignored_frames(), session.is_established()), (1, true));
}

#[test]
fn bytes_that_are_no_frame_end_the_session() {
    let mut session = established(SessionLimits::default());

    session.handle_message(&[0xff], start());

    assert_eq!(closing(&mut session).0, CloseReason::ProtocolError);
}

#[test]
fn a_frame_that_only_the_switch_may_send_ends_the_session() {
    let mut session = established(SessionLimits::default());

    handle(&mut session, Body::Ping(Ping { nonce: 1 }), start());

    assert_eq!(closing(&mut session).0, CloseReason::ProtocolError);
}

fn established(limits: SessionLimits) -> SwitchSession {
    let mut session = SwitchSession::new(SwitchSessionConfig::new(Arc::new(limits)), start());
    handle(&mut session, Body::Hello(hello()), start());
    assert!(matches!(session.poll_event(), Some(SwitchEvent::Hello(_))));
    session.push_welcome(welcome(), start());
    assert!(matches!(transmitted(&mut session), Some(Body::Welcome(_))));
    session
}

fn handle(session: &mut SwitchSession, body: Body, now: Instant) {
    session.handle_message(&encode(body), now);
}

fn transmitted(session: &mut SwitchSession) -> Option<Body> {
    let bytes = session.poll_transmit()?;
    frame::decode(&bytes).unwrap().body
}

/// Returns the reason and delay that both the shell and the client are told, which have to be the last of all.
fn closing(session: &mut SwitchSession) -> (CloseReason, u32) {
    let Some(SwitchEvent::Closed { reason }) = session.poll_event() else { panic!("not closed") };
    let Some(Body::GoAway(go_away)) = transmitted(session) else { panic!("no go_away") };
    assert_eq!(go_away.reason, i32::from(reason));
    (reason, go_away.reconnect_after_ms)
}

fn welcome() -> WelcomeArgs {
    WelcomeArgs {
        epoch: Epoch(7),
        time_ms: 1_800_000_000_000,
        licence_digest: None,
        highest_sequence: 9,
        highest_by_session: Some(8),
        stops_due: 2,
    }
}

fn hello() -> Hello {
    Hello { outbox_id: vec![0; 16], versions: vec![1], ..Hello::default() }
}

fn event(sequence: u64) -> Body {
    Body::Event(Event { sequence, name: "client.started".to_owned(), ..Event::default() })
}

fn result(sequence: u64) -> Body {
    let state = TargetState::Answered.into();
    Body::Result(InstructionResult {
        sequence,
        instruction: vec![0; 16],
        state,
        ..InstructionResult::default()
    })
}

fn document(byte: u8) -> Document {
    let kind = DocumentKind::Definition.into();
    Document { kind, digest: vec![byte; 32], envelope: Bytes::from_static(b"envelope") }
}

fn range(number: u64) -> SequenceRange {
    let number = Sequence::try_from(number).unwrap().value();
    SequenceRange { first: number, last: number }
}

#[expect(
    clippy::disallowed_methods,
    reason = "an Instant has no other beginning; time moves by arithmetic from here"
)]
fn start() -> Instant {
    use std::sync::OnceLock;
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}
