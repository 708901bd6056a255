//! The bytes of each frame. They change only with the protocol's version; PROTOCOL.md shows some of them.

use super::*;
use crate::common::v1::value::Kind;
use crate::common::v1::{Column, ColumnType, NamedValue, Refusal, Row, TargetState, Value};
use crate::session::v1::frame::Body;
use crate::session::v1::{
    Ack, CloseReason, Document, DocumentKind, DocumentRequest, Event, GoAway, Hello, InclusionProof, Lane,
    LicenceNotice, OrderDelivery, Ping, PolicyCheck, PolicyNotice, Pong, Progress,
    Result as InstructionResult, SequenceRange, Welcome,
};

/// The instruction of the examples.
const INSTRUCTION: [u8; 16] =
    [0x01, 0x8f, 0x4f, 0x9a, 0x7a, 0x3c, 0x7b, 0x01, 0x9c, 0x2d, 0, 0x11, 0x22, 0x33, 0xaa, 0xbb];

#[test]
fn a_welcome_says_that_nothing_came_over_sessions() {
    check(
        Body::Welcome(Welcome {
            epoch: 7,
            idle_timeout_ms: 150_000,
            version: 1,
            highest_sequence: 9,
            highest_by_session: Some(0),
            stops_due: 2,
            ..Welcome::default()
        }),
        "120e080718f0930930014009480050 02",
    );
}

#[test]
fn hello() {
    check(
        Body::Hello(Hello {
            outbox_id: (0..16).collect(),
            last_epoch: 6,
            versions: vec![1],
            client_version: "0.1.0".to_owned(),
            attributes: vec![named("os", Kind::Text("linux".to_owned())), named("cpus", Kind::Integer(8))],
            queued_results: 1,
            queued_events: 2,
            licence_digest: vec![],
        }),
        "0a3d0a10000102030405060708090a0b0c0d0e0f10061a01012205302e312e302a0d0a026f7312071a056c696e75782a0a0a0463707573\
         1202080830013802",
    );
}

#[test]
fn welcome() {
    check(
        Body::Welcome(Welcome {
            epoch: 7,
            time_ms: 1_800_000_000_000,
            idle_timeout_ms: 150_000,
            results_credit_bytes: 1_048_576,
            events_credit_bytes: 262_144,
            version: 1,
            licence_digest: vec![],
            highest_sequence: 0,
            highest_by_session: None,
            stops_due: 0,
        }),
        "121708071080a0f1c2b13418f093092080804028808010 3001",
    );
}

#[test]
fn ping_and_pong() {
    check(Body::Ping(Ping { nonce: 1 }), "1a020801");
    check(Body::Pong(Pong { nonce: 1 }), "22020801");
}

#[test]
fn order_and_its_proof() {
    let envelope = Bytes::from_static(&[0x30, 0x82, 0xbe, 0xef]);
    let order = Frame { proof: None, body: Some(Body::Order(OrderDelivery { envelope })) };
    let proof = InclusionProof { leaf_index: 2, hashes: vec![vec![0xaa; 32]] };

    let shared = encode(&order);
    let delivered = with_proof(&shared, &proof).into_bytes();

    assert_eq!(hex::encode(&shared), "2a060a043082beef");
    let tail = format!("a2062408021220{}", "aa".repeat(32));
    assert_eq!(hex::encode(&delivered), format!("2a060a043082beef{tail}"));
    assert_eq!(decode(&delivered), Ok(Frame { proof: Some(proof), ..order }));
}

#[test]
fn progress() {
    check(
        Body::Progress(Progress { instruction: INSTRUCTION.to_vec(), state: TargetState::Acked.into() }),
        "32140a10018f4f9a7a3c7b019c2d00112233aabb1003",
    );
}

#[test]
fn result() {
    check(
        Body::Result(InstructionResult {
            sequence: 1,
            instruction: INSTRUCTION.to_vec(),
            state: TargetState::Answered.into(),
            columns: vec![Column { name: "n".to_owned(), r#type: ColumnType::Integer.into() }],
            rows: vec![row(Some(Kind::Integer(42))), row(None)],
            last: true,
            started_at_ms: 1_800_000_000_000,
            finished_at_ms: 1_800_000_000_050,
            ..InstructionResult::default()
        }),
        "3a3708011210018f4f9a7a3c7b019c2d00112233aabb180532050a016e10013a040a02082a3a020a00580160 80a0f1c2b134 68b2a0f1c2b134",
    );
}

#[test]
fn refused_result() {
    check(
        Body::Result(InstructionResult {
            sequence: 2,
            instruction: INSTRUCTION.to_vec(),
            state: TargetState::Refused.into(),
            refusal: Refusal::Expired.into(),
            last: true,
            ..InstructionResult::default()
        }),
        "3a1a08021210018f4f9a7a3c7b019c2d00112233aabb180720095801",
    );
}

#[test]
fn event() {
    check(
        Body::Event(Event {
            sequence: 3,
            occurred_at_ms: 1_800_000_000_000,
            name: "client.started".to_owned(),
            fields: vec![named("pid", Kind::Integer(4_242))],
        }),
        "4225080310 80a0f1c2b134 1a0e636c69656e742e73746172746564 220a0a03706964120308 9221",
    );
}

#[test]
fn ack() {
    let ranges = vec![SequenceRange { first: 1, last: 2 }];
    check(
        Body::Ack(Ack { lane: Lane::Results.into(), ranges, credit_bytes: 85 }),
        "4a0a08011204080110021855",
    );
}

#[test]
fn document_request_and_document() {
    let digest = vec![0xdd; 32];
    let kind = DocumentKind::Definition.into();
    let dd = "dd".repeat(32);
    check(
        Body::DocumentRequest(DocumentRequest { kind, digest: digest.clone() }),
        &format!("522408011220{dd}"),
    );
    check(
        Body::Document(Document { kind, digest, envelope: Bytes::from_static(&[0x30, 0]) }),
        &format!("5a2808011220{dd}1a023000"),
    );
}

#[test]
fn licence_notice() {
    check(
        Body::LicenceNotice(LicenceNotice { digest: vec![0xee; 32] }),
        &format!("62220a20{}", "ee".repeat(32)),
    );
}

#[test]
fn policy_check() {
    check(Body::PolicyCheck(PolicyCheck { serial: 7 }), "72020807");
    check(Body::PolicyCheck(PolicyCheck { serial: 0 }), "7200");
}

#[test]
fn policy_notice() {
    check(
        Body::PolicyNotice(PolicyNotice { digest: vec![0xee; 32], spread_ms: 0 }),
        &format!("7a220a20{}", "ee".repeat(32)),
    );
    check(
        Body::PolicyNotice(PolicyNotice { digest: vec![0xee; 32], spread_ms: 100_000 }),
        &format!("7a260a20{}10a08d06", "ee".repeat(32)),
    );
    check(Body::PolicyNotice(PolicyNotice { digest: Vec::new(), spread_ms: 0 }), "7a00");
}

#[test]
fn go_away() {
    check(
        Body::GoAway(GoAway {
            reason: CloseReason::Shutdown.into(),
            reconnect_after_ms: 5_000,
            detail: "restart".to_owned(),
        }),
        "6a0e080110 8827 1a0772657374617274",
    );
}

#[test]
fn a_proof_alone_is_what_is_appended() {
    let proof = InclusionProof { leaf_index: 0, hashes: vec![] };

    assert_eq!(hex::encode(with_proof(&Bytes::new(), &proof).into_bytes()), "a20600");
}

#[track_caller]
fn check(body: Body, wanted_hex: &str) {
    let frame = Frame { proof: None, body: Some(body) };

    let bytes = encode(&frame);

    assert_eq!(hex::encode(&bytes), wanted_hex.replace(char::is_whitespace, ""));
    assert_eq!(decode(&bytes), Ok(frame));
}

fn named(name: &str, kind: Kind) -> NamedValue {
    NamedValue { name: name.to_owned(), value: Some(Value { kind: Some(kind) }) }
}

fn row(kind: Option<Kind>) -> Row {
    Row { values: vec![Value { kind }] }
}
