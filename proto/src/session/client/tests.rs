use super::*;
use crate::limits;
use crate::session::v1::{Ack, LicenceNotice, OrderDelivery, Ping, PolicyNotice};

#[test]
fn says_hello_first_with_the_versions_it_speaks() {
    let mut session = session();

    let Some(Body::Hello(hello)) = transmitted(&mut session) else { panic!("no hello") };
    assert_eq!(hello.versions, VERSIONS);
    assert_eq!(session.push_event(event(1)), Err(PushError::NotEstablished));
}

#[test]
fn gives_up_when_no_welcome_comes() {
    let mut session = session();

    session.handle_timeout(start() + limits::HELLO_DEADLINE);

    assert_eq!(session.poll_event(), Some(ClientEvent::Closed { reason: CloseReason::HelloTimeout }));
}

#[test]
fn refuses_a_version_that_it_did_not_offer() {
    let mut session = session();

    handle(&mut session, Body::Welcome(Welcome { version: 2, ..welcome() }));

    assert_eq!(session.poll_event(), Some(ClientEvent::Closed { reason: CloseReason::ProtocolError }));
}

#[test]
fn refuses_an_order_before_its_welcome_and_a_second_welcome() {
    let mut session = session();
    handle(&mut session, Body::Order(OrderDelivery::default()));
    assert_eq!(session.close_reason(), Some(CloseReason::ProtocolError));

    let mut session = established();
    handle(&mut session, Body::Welcome(welcome()));
    assert_eq!(session.close_reason(), Some(CloseReason::ProtocolError));
}

#[test]
fn answers_only_the_latest_of_many_pings() {
    let mut session = established();

    for nonce in 1..1_000 {
        handle(&mut session, Body::Ping(Ping { nonce }));
    }

    assert_eq!(transmitted(&mut session), Some(Body::Pong(Pong { nonce: 999 })));
    assert_eq!(session.poll_transmit(), None);
}

#[test]
fn calls_a_silent_switch_dead() {
    let mut session = established();

    session.handle_byte(start() + Duration::from_secs(10));
    assert_eq!(session.poll_timeout(), Some(start() + Duration::from_secs(160)));
    session.handle_timeout(start() + Duration::from_secs(159));
    assert!(session.is_established());
    session.handle_timeout(start() + Duration::from_secs(160));

    assert_eq!(session.poll_event(), Some(ClientEvent::Closed { reason: CloseReason::Idle }));
}

#[test]
fn sends_no_event_beyond_its_credit() {
    let mut session = established();
    let bytes = u64::try_from(encode(Body::Event(event(1))).len()).unwrap();
    let fit = session.credit(Lane::Events) / bytes;

    for sequence in 1..=fit {
        session.push_event(event(1)).unwrap_or_else(|error| panic!("{sequence}: {error}"));
    }

    let available = session.credit(Lane::Events);
    assert_eq!(session.push_event(event(1)), Err(PushError::NoCredit { needed: bytes, available }));
    handle(&mut session, Body::Ack(Ack { lane: Lane::Events.into(), ranges: vec![], credit_bytes: bytes }));
    assert_eq!(session.push_event(event(1)), Ok(()));
}

#[test]
fn refuses_what_the_switch_would_close_the_session_for() {
    let mut session = established();
    let before = session.credit(Lane::Events);

    let refused = session.push_event(Event { name: "Not A Name".to_owned(), ..event(1) });

    assert!(matches!(refused, Err(PushError::Invalid(FrameError::Invalid { field: "Event.name", .. }))));
    assert_eq!(session.credit(Lane::Events), before);
}

#[test]
fn waits_for_a_bounded_number_of_documents() {
    let mut session = established();

    for byte in 0..16 {
        session.push_document_request(DocumentKind::Definition, Digest::from([byte; 32])).unwrap();
    }

    let more = Digest::from([99; 32]);
    let refused = session.push_document_request(DocumentKind::Definition, more);
    assert_eq!(refused, Err(PushError::TooManyRequests { max: 16 }));
    session.push_document_request(DocumentKind::Definition, Digest::from([3; 32])).unwrap();
    let kind = DocumentKind::Definition.into();
    handle(&mut session, Body::Document(Document { kind, digest: vec![3; 32], envelope: Bytes::new() }));
    session.push_document_request(DocumentKind::Definition, more).unwrap();
}

#[test]
fn hands_on_what_the_switch_says() {
    let mut session = established();
    let envelope = Bytes::from_static(b"order");
    let proof = InclusionProof { leaf_index: 3, hashes: vec![vec![1; 32]] };
    let order = encode(Body::Order(OrderDelivery { envelope: envelope.clone() }));

    session.handle_message(&frame::with_proof(&order, &proof).into_bytes(), start());
    handle(&mut session, Body::LicenceNotice(LicenceNotice { digest: vec![5; 32] }));
    handle(&mut session, Body::PolicyNotice(PolicyNotice { digest: vec![6; 32], spread_ms: 1_500 }));
    handle(&mut session, Body::PolicyNotice(PolicyNotice { digest: Vec::new(), spread_ms: 0 }));

    assert_eq!(session.poll_event(), Some(ClientEvent::Order { envelope, proof: Some(proof) }));
    assert_eq!(session.poll_event(), Some(ClientEvent::LicenceNotice(Digest::from([5; 32]))));
    let (digest, spread) = (Some(Digest::from([6; 32])), Duration::from_millis(1_500));
    assert_eq!(session.poll_event(), Some(ClientEvent::PolicyNotice { digest, spread }));
    let none = ClientEvent::PolicyNotice { digest: None, spread: Duration::ZERO };
    assert_eq!(session.poll_event(), Some(none));
}

#[test]
fn a_go_away_is_told_and_ends_the_session() {
    let mut session = established();
    session.push_event(event(1)).unwrap();

    let reason = CloseReason::Superseded;
    handle(
        &mut session,
        Body::GoAway(GoAway { reason: reason.into(), reconnect_after_ms: 5, detail: "newer".into() }),
    );

    let reconnect_after = Duration::from_millis(5);
    assert_eq!(
        session.poll_event(),
        Some(ClientEvent::GoAway { reason, reconnect_after, detail: "newer".to_owned() })
    );
    assert_eq!(session.poll_event(), Some(ClientEvent::Closed { reason }));
    assert_eq!((session.poll_event(), session.poll_transmit(), session.poll_timeout()), (None, None, None));
    assert_eq!(session.push_event(event(1)), Err(PushError::Closed));
}

#[test]
fn progress_and_results_go_before_events() {
    let mut session = established();
    let state = TargetState::Answered.into();
    let result =
        InstructionResult { sequence: 2, instruction: vec![0; 16], state, ..InstructionResult::default() };

    session.push_event(event(1)).unwrap();
    session.push_result(result).unwrap();
    session.push_progress(InstructionId::from([0; 16]), TargetState::Running).unwrap();

    assert!(matches!(transmitted(&mut session), Some(Body::Progress(_))));
    assert!(matches!(transmitted(&mut session), Some(Body::Result(_))));
    assert!(matches!(transmitted(&mut session), Some(Body::Event(_))));
}

fn session() -> ClientSession {
    let hello = Hello { outbox_id: vec![0; 16], ..Hello::default() };
    ClientSession::new(ClientSessionConfig::default(), hello, start())
}

fn established() -> ClientSession {
    let mut session = session();
    assert!(matches!(transmitted(&mut session), Some(Body::Hello(_))));
    handle(&mut session, Body::Welcome(welcome()));
    assert!(matches!(session.poll_event(), Some(ClientEvent::Welcome(_))));
    session
}

fn handle(session: &mut ClientSession, body: Body) {
    session.handle_message(&encode(body), start());
}

fn transmitted(session: &mut ClientSession) -> Option<Body> {
    let bytes = session.poll_transmit()?;
    frame::decode(&bytes).unwrap().body
}

fn welcome() -> Welcome {
    Welcome {
        epoch: 7,
        idle_timeout_ms: 150_000,
        results_credit_bytes: 10_000,
        events_credit_bytes: 100,
        version: 1,
        ..Welcome::default()
    }
}

fn event(sequence: u64) -> Event {
    Event { sequence, name: "client.started".to_owned(), ..Event::default() }
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
