use proptest::prelude::*;

use super::*;
use crate::common::v1::value::Kind;
use crate::common::v1::{Column, NamedValue, Refusal, Row, TargetState, Value};
use crate::session::v1::frame::Body;
use crate::session::v1::{
    Ack, Event, EventBatch, Hello, InclusionProof, Lane, OrderDelivery, Ping, PolicyNotice, Progress,
    Result as InstructionResult, SequenceRange,
};

#[test]
fn a_frame_without_a_known_body_is_let_through_to_be_ignored() {
    // Field 99, two bytes.
    assert_eq!(decode(&[0x9a, 0x06, 0x02, 0x01, 0x02]), Ok(Frame::default()));
    assert_eq!(decode(&[]), Ok(Frame::default()));
}

#[test]
fn refuses_two_bodies() {
    let two =
        [encode_body(Body::Ping(Ping { nonce: 1 })), encode_body(Body::Ping(Ping { nonce: 2 }))].concat();

    assert_eq!(decode(&two), Err(FrameError::TwoBodies { first: 3, second: 3 }));
}

#[test]
fn refuses_more_bytes_than_a_frame_may_have() {
    let error = decode(&vec![0; limits::FRAME_BYTES_MAX + 1]).unwrap_err();

    assert_eq!(error.to_string(), "a frame has 1048577 bytes, at most 1048576 are allowed");
}

#[test]
fn refuses_a_body_by_its_length_before_it_is_decoded() {
    let mut hello = vec![0x0a];
    prost::encoding::encode_varint(70_000, &mut hello);
    hello.resize(70_004, 0);

    let wanted = FrameError::TooLarge { what: "a Hello", got: 70_000, max: limits::HELLO_BYTES_MAX };
    assert_eq!(decode(&hello), Err(wanted));
}

#[test]
fn refuses_bytes_that_are_not_protobuf() {
    // A tag cut short, field 0, a length past the end, a group, a varint of eleven bytes.
    for bytes in [
        &[0x80][..],
        &[0x02, 0],
        &[0x0a, 5, 1],
        &[0x0b],
        &[0x18, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255],
    ] {
        assert_eq!(decode(bytes), Err(FrameError::Malformed { at: 0 }), "{bytes:?}");
    }
    assert!(matches!(decode(&[0x1a, 1, 0xff]), Err(FrameError::Undecodable(_))));
}

#[test]
fn refuses_what_breaks_a_field() {
    let cases: Vec<(&str, Body)> = vec![
        ("Hello.outbox_id", Body::Hello(Hello { outbox_id: vec![0; 15], ..hello() })),
        ("Hello.versions", Body::Hello(Hello { versions: vec![1; 9], ..hello() })),
        ("Hello.client_version", Body::Hello(Hello { client_version: "1".repeat(33), ..hello() })),
        ("Hello.attributes", Body::Hello(Hello { attributes: vec![named("os"); 65], ..hello() })),
        ("Hello.attributes", Body::Hello(Hello { attributes: vec![named("o s")], ..hello() })),
        ("Hello.licence_digest", Body::Hello(Hello { licence_digest: vec![0; 31], ..hello() })),
        ("PolicyNotice.digest", Body::PolicyNotice(PolicyNotice { digest: vec![0; 33], spread_ms: 0 })),
        (
            "Progress.state",
            Body::Progress(Progress { instruction: vec![0; 16], state: TargetState::Answered.into() }),
        ),
        ("Result.sequence", Body::Result(InstructionResult { sequence: 0, ..result() })),
        ("Result.state", Body::Result(InstructionResult { state: TargetState::Running.into(), ..result() })),
        ("Result.state", Body::Result(InstructionResult { state: 99, ..result() })),
        ("Result.refusal", Body::Result(InstructionResult { refusal: Refusal::Clock.into(), ..result() })),
        (
            "Result.refusal",
            Body::Result(InstructionResult { state: TargetState::Refused.into(), ..result() }),
        ),
        ("Result.detail", Body::Result(InstructionResult { detail: "d".repeat(1_025), ..result() })),
        (
            "Result.columns",
            Body::Result(InstructionResult { columns: vec![column("a"), column("a")], ..result() }),
        ),
        ("Result.rows", Body::Result(InstructionResult { rows: vec![Row { values: vec![] }], ..result() })),
        (
            "Row.values",
            Body::Result(InstructionResult {
                rows: vec![Row { values: vec![Value::default()] }],
                ..result()
            }),
        ),
        ("Event.name", Body::Event(Event { name: "Client".to_owned(), ..event() })),
        ("Event.name", Body::Event(Event { name: String::new(), ..event() })),
        ("Event.fields", Body::Event(Event { fields: vec![named("a"); 33], ..event() })),
        ("Ack.lane", Body::Ack(Ack { lane: 3, ranges: vec![], credit_bytes: 0 })),
        ("SequenceRange", ack(vec![SequenceRange { first: 0, last: 1 }])),
        ("SequenceRange", ack(vec![SequenceRange { first: 2, last: 1 }])),
        ("Ack.ranges", ack(vec![SequenceRange { first: 1, last: 1 }; 1_001])),
        (
            "OrderDelivery.envelope",
            Body::Order(OrderDelivery { envelope: vec![0; limits::ENVELOPE_BYTES_MAX + 1].into() }),
        ),
    ];
    for (field, body) in cases {
        let bytes = encode_body(body);
        let error = decode(&bytes).unwrap_err();
        assert!(error.to_string().starts_with(field), "{field}: {error}");
    }
}

#[test]
fn refuses_a_proof_beside_another_body() {
    let ping = encode_body(Body::Ping(Ping { nonce: 1 }));
    let bytes = with_proof(&ping, &InclusionProof::default()).into_bytes();

    assert!(matches!(decode(&bytes), Err(FrameError::Invalid { field: "proof", .. })));
}

#[test]
fn an_error_does_not_repeat_foreign_text_at_length() {
    let name = format!("\u{1b}[31m{}", "x".repeat(10_000));
    let error = decode(&encode_body(Body::Event(Event { name, ..event() }))).unwrap_err().to_string();

    assert!(error.len() < 200 && !error.contains('\u{1b}'), "{error}");
}

#[test]
fn the_largest_result_fits_a_frame_and_one_byte_more_does_not() {
    let columns = (0..13).map(|n| column(&n.to_string())).collect::<Vec<_>>();
    let fill = |bytes: usize| Value { kind: Some(Kind::Blob(vec![7; bytes])) };
    let sized = |last: usize| {
        let mut values = vec![fill(61_000); 12];
        values.push(fill(last));
        InstructionResult { columns: columns.clone(), rows: vec![Row { values }], ..result() }
    };
    let largest =
        (53_000..55_000).find(|last| sized(*last).encoded_len() == limits::RESULT_BYTES_MAX).unwrap();

    let fits = encode_body(Body::Result(sized(largest)));
    let exceeds = encode_body(Body::Result(sized(largest + 1)));

    assert!(decode(&fits).is_ok());
    assert_eq!(fits.len(), limits::RESULT_BYTES_MAX + 4);
    assert!(matches!(decode(&exceeds), Err(FrameError::TooLarge { what: "a Result", .. })));
}

#[test]
fn an_event_batch_is_in_order_and_each_once() {
    let batch = |numbers: &[u64]| EventBatch {
        outbox_id: vec![0; 16],
        events: numbers.iter().map(|number| Event { sequence: *number, ..event() }).collect(),
    };

    assert_eq!(check_event_batch(&batch(&[1, 2, 9])), Ok(()));
    assert!(check_event_batch(&batch(&[1, 1])).is_err());
    assert!(check_event_batch(&batch(&[2, 1])).is_err());
    assert!(check_event_batch(&batch(&(1..=1_001).collect::<Vec<_>>())).is_err());
}

#[test]
fn the_body_of_a_post_of_events_is_refused_whole_unless_all_of_it_holds_the_bounds() {
    let batch = |numbers: &[u64]| EventBatch {
        outbox_id: vec![0; 16],
        events: numbers.iter().map(|number| Event { sequence: *number, ..event() }).collect(),
    };
    let good = batch(&[1, 5]);
    let empty_events = [0x12, 0].repeat(1_001);

    assert_eq!(decode_event_batch(&good.encode_to_vec()), Ok(good.clone()));
    for bad in [batch(&[]), batch(&[0]), batch(&[2, 2]), EventBatch { outbox_id: vec![], ..good }] {
        assert!(
            matches!(decode_event_batch(&bad.encode_to_vec()), Err(FrameError::Invalid { .. })),
            "{bad:?}"
        );
    }
    assert!(decode_event_batch(b"\xff\xff").is_err());
    let many = decode_event_batch(&empty_events);
    assert!(matches!(many, Err(FrameError::TooMany { got: 1_001, .. })), "{many:?}");
    let large = decode_event_batch(&vec![0; limits::EVENT_BATCH_BYTES_MAX + 1]);
    assert!(matches!(large, Err(FrameError::TooLarge { .. })), "{large:?}");
}

#[test]
fn the_examples_of_the_protocol_page_are_frames() {
    let page = include_str!("../../../PROTOCOL.md");
    let hex_lines =
        page.lines().filter_map(|line| line.strip_prefix("    ")).filter(|line| !line.contains(' '));

    let frames: Vec<_> = hex_lines.map(|line| hex::decode(line.trim()).unwrap()).collect();

    assert!(frames.len() >= 8, "{} examples", frames.len());
    for bytes in frames {
        let frame = decode(&bytes).unwrap();
        let proof = frame.proof.clone();
        let shared = encode(&Frame { proof: None, ..frame });
        assert_eq!(proof.map_or(shared.clone(), |proof| with_proof(&shared, &proof).into_bytes()), bytes);
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let kind = prop_oneof![
        any::<i64>().prop_map(Kind::Integer),
        prop::num::f64::NORMAL.prop_map(Kind::Real),
        ".{0,20}".prop_map(Kind::Text),
        prop::collection::vec(any::<u8>(), 0..20).prop_map(Kind::Blob),
    ];
    prop::option::of(kind).prop_map(|kind| Value { kind })
}

fn any_event() -> impl Strategy<Value = Body> {
    let field = ("[A-Za-z0-9_.-]{1,64}", any_value())
        .prop_map(|(name, value)| NamedValue { name, value: Some(value) });
    (1_u64.., any::<i64>(), "[a-z0-9_.]{1,64}", prop::collection::vec(field, 0..32)).prop_map(
        |(sequence, occurred_at_ms, name, fields)| {
            Body::Event(Event { sequence, occurred_at_ms, name, fields })
        },
    )
}

fn any_result() -> impl Strategy<Value = Body> {
    (0_usize..6).prop_flat_map(|width| {
        let row = prop::collection::vec(any_value(), width).prop_map(|values| Row { values });
        let rows = prop::collection::vec(row, if width == 0 { 0..1_usize } else { 0..20 });
        (1_u64.., any::<[u8; 16]>(), rows, any::<bool>(), ".{0,200}").prop_map(
            move |(sequence, instruction, mut rows, truncated, detail)| {
                rows.retain(|_| width > 0);
                let columns = (0..width).map(|n| column(&format!("c{n}"))).collect();
                let instruction = instruction.to_vec();
                Body::Result(InstructionResult {
                    sequence,
                    instruction,
                    columns,
                    rows,
                    truncated,
                    detail,
                    ..result()
                })
            },
        )
    })
}

fn any_ack() -> impl Strategy<Value = Body> {
    let range = (1_u64..1 << 60, 0_u64..1 << 60)
        .prop_map(|(first, more)| SequenceRange { first, last: first + more });
    prop::collection::vec(range, 0..50).prop_map(ack)
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(body in prop_oneof![any_event(), any_result(), any_ack()]) {
        let frame = Frame { proof: None, body: Some(body) };

        prop_assert_eq!(decode(&encode(&frame)), Ok(frame));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let decoded = decode(&bytes);

        if let Ok(frame) = decoded {
            prop_assert_eq!(check(&frame), Ok(()));
        }
    }

    #[test]
    fn no_flipped_bit_makes_it_panic(body in any_result(), at in any::<prop::sample::Index>(), bit in 0..8_u32) {
        let mut bytes = encode_body(body).to_vec();
        *at.get_mut(&mut bytes) ^= 1 << bit;

        if let Ok(frame) = decode(&bytes) {
            prop_assert_eq!(check(&frame), Ok(()));
        }
    }
}

fn encode_body(body: Body) -> Bytes {
    encode(&Frame { proof: None, body: Some(body) })
}

fn hello() -> Hello {
    Hello { outbox_id: vec![0; 16], versions: vec![1], ..Hello::default() }
}

fn result() -> InstructionResult {
    let state = TargetState::Answered.into();
    InstructionResult { sequence: 1, instruction: vec![0; 16], state, ..InstructionResult::default() }
}

fn event() -> Event {
    Event { sequence: 1, name: "client.started".to_owned(), ..Event::default() }
}

fn ack(ranges: Vec<SequenceRange>) -> Body {
    Body::Ack(Ack { lane: Lane::Events.into(), ranges, credit_bytes: 1 })
}

fn column(name: &str) -> Column {
    Column { name: name.to_owned(), r#type: 0 }
}

fn named(name: &str) -> NamedValue {
    NamedValue { name: name.to_owned(), value: None }
}
