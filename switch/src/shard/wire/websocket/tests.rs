//! Frames by the letter of RFC 6455, and against tungstenite's client.

use std::io::{self, Read, Write};

use proptest::prelude::*;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{Frame, FrameHeader};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocket};
use tokio_tungstenite::tungstenite::{Bytes, Message};

use super::*;

const MAX: usize = 1 << 20;

fn read(bytes: &[u8]) -> Result<Option<(usize, Received)>, Violation> {
    Reader::new(MAX).read(&mut bytes.to_vec())
}

/// A client's frame.
fn frame(is_final: bool, opcode: OpCode, payload: &[u8]) -> Vec<u8> {
    let header = FrameHeader {
        is_final,
        rsv1: false,
        rsv2: false,
        rsv3: false,
        opcode,
        mask: Some([0x37, 0xfa, 0x21, 0x3d]),
    };
    let mut bytes = Vec::new();
    Frame::from_payload(header, Bytes::from(payload.to_vec())).format(&mut bytes).unwrap();
    bytes
}

fn text(is_final: bool, payload: &[u8]) -> Vec<u8> {
    frame(is_final, OpCode::Data(Data::Text), payload)
}

fn more(is_final: bool, payload: &[u8]) -> Vec<u8> {
    frame(is_final, OpCode::Data(Data::Continue), payload)
}

/// Reads every frame with one reader.
fn read_all(frames: &[Vec<u8>]) -> Result<Vec<Received>, Violation> {
    let mut reader = Reader::new(MAX);
    frames.iter().map(|frame| Ok(reader.read(&mut frame.clone())?.unwrap().1)).collect()
}

#[test]
fn a_masked_text_of_the_rfc_is_read() {
    // RFC 6455 §5.7.
    let mut hello = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];

    let (used, received) = Reader::new(MAX).read(&mut hello).unwrap().unwrap();

    assert_eq!((used, received), (11, Received::Whole(Kind::Text, 6..11)));
    assert_eq!(&hello[6..], b"Hello");
}

#[test]
fn a_frame_that_is_not_whole_is_none_yet() {
    let whole = frame(true, OpCode::Data(Data::Binary), &[7; 300]);

    for length in 0..whole.len() {
        assert_eq!(read(&whole[..length]), Ok(None), "{length}");
    }
    assert!(read(&whole).unwrap().is_some());
}

#[test]
fn what_no_client_may_send_is_told_with_its_code() {
    let masked = [0, 0, 0, 0];
    let with = |head: &[u8]| [head, &masked].concat();
    for (bytes, wanted, code) in [
        (with(&[0xc2, 0x80]), Violation::ReservedBit, 1002),
        (with(&[0x92, 0x80]), Violation::ReservedBit, 1002),
        (with(&[0x83, 0x80]), Violation::Opcode(3), 1002),
        (with(&[0x8f, 0x80]), Violation::Opcode(15), 1002),
        (vec![0x82, 0x00], Violation::Unmasked, 1002),
        (with(&[0x82, 0xfe, 0, 125]), Violation::Length, 1002),
        (with(&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff]), Violation::Length, 1002),
        (with(&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0]), Violation::Length, 1002),
        (with(&[0x09, 0x80]), Violation::Control { got: 0 }, 1002),
        (with(&[0x89, 0xfe, 0, 126]), Violation::Control { got: 126 }, 1002),
        (with(&[0x80, 0x80]), Violation::NoBeginning, 1002),
        (with(&[0x88, 0x81, 0]), Violation::Close, 1002),
        (with(&[0x82, 0xff, 0, 0, 0, 0, 0, 0x10, 0, 1]), Violation::TooLarge { max: MAX }, 1009),
        (
            with(&[0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            Violation::TooLarge { max: MAX },
            1009,
        ),
        (text(true, &[0xff]), Violation::NotUtf8, 1007),
    ] {
        let mut bytes = bytes;
        // The payload of the close frame.
        bytes.resize(bytes.len().max(7), 0);
        let violation = read(&bytes).unwrap_err();
        assert_eq!((violation, violation.close_code()), (wanted, code), "{bytes:02x?}");
    }
}

#[test]
fn a_message_in_parts_is_one_message_and_control_frames_stand_between() {
    let ping = frame(true, OpCode::Control(Control::Ping), b"?");
    let parts = [text(false, b"one, "), ping.clone(), more(false, b"two"), more(true, b", three")];

    let received = read_all(&parts).unwrap();

    let place = ping.len() - 1..ping.len();
    let whole = Received::Gathered(Kind::Text, b"one, two, three".to_vec());
    assert_eq!(received, [Received::Nothing, Received::Ping(place), Received::Nothing, whole]);
}

#[test]
fn parts_together_are_bounded_like_a_message() {
    let half = vec![0; MAX / 2 + 1];
    let parts = [frame(false, OpCode::Data(Data::Binary), &half), more(true, &half)];

    assert_eq!(read_all(&parts), Err(Violation::TooLarge { max: MAX }));
}

#[test]
fn a_message_does_not_begin_within_another() {
    assert_eq!(read_all(&[text(false, b"one"), text(true, b"two")]), Err(Violation::Interleaved));
}

#[test]
fn a_character_may_be_cut_between_parts_and_not_at_the_end() {
    let euro = "€".as_bytes();

    let whole =
        read_all(&[text(false, &euro[..1]), more(false, &euro[1..2]), more(true, &euro[2..])]).unwrap();
    assert_eq!(whole[2], Received::Gathered(Kind::Text, euro.to_vec()));
    assert_eq!(read_all(&[text(false, &euro[..1]), more(true, &euro[1..2])]), Err(Violation::NotUtf8));
    // At once, and not at the end: nothing that follows could mend it.
    assert_eq!(read_all(&[text(false, &[0xed, 0xa0])]), Err(Violation::NotUtf8));
}

#[test]
fn close_codes_are_those_that_are_sent() {
    let close = |code: u16, reason: &[u8]| {
        let payload = [&code.to_be_bytes(), reason].concat();
        read(&frame(true, OpCode::Control(Control::Close), &payload)).map(|read| read.unwrap().1)
    };

    for code in [1000, 1001, 1002, 1003, 1007, 1011, 1014, 3000, 4999] {
        assert_eq!(close(code, b"why"), Ok(Received::Close(Some(code))));
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535] {
        assert_eq!(close(code, b""), Err(Violation::Close), "{code}");
    }
    assert_eq!(close(1000, &[0xff]), Err(Violation::Close));
    assert_eq!(
        read(&frame(true, OpCode::Control(Control::Close), b"")).unwrap().unwrap().1,
        Received::Close(None)
    );
}

/// A stream in memory: what was written, or what is to be read.
#[derive(Default)]
struct Memory {
    written: Vec<u8>,
    unread: io::Cursor<Vec<u8>>,
}

impl Read for Memory {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.unread.read(into)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            length => Ok(length),
        }
    }
}

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.written.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn messages() -> impl Strategy<Value = Vec<Message>> {
    let lengths = prop_oneof![0_usize..300, 65_530_usize..65_540, Just(200_000)];
    let binary = lengths.prop_flat_map(|length| prop::collection::vec(any::<u8>(), length));
    let message = prop_oneof![
        binary.prop_map(|bytes| Message::Binary(Bytes::from(bytes))),
        ".{0,200}".prop_map(Message::text),
        prop::collection::vec(any::<u8>(), 0..=125).prop_map(|bytes| Message::Ping(Bytes::from(bytes))),
        prop::collection::vec(any::<u8>(), 0..=125).prop_map(|bytes| Message::Pong(Bytes::from(bytes))),
    ];
    prop::collection::vec(message, 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_tungstenites_client_writes_is_read_whatever_pieces_it_comes_in(
        messages in messages(),
        pieces in prop::collection::vec(1_usize..100_000, 1..50),
    ) {
        let mut client = WebSocket::from_raw_socket(Memory::default(), Role::Client, None);
        for message in &messages {
            client.write(message.clone()).unwrap();
        }
        client.flush().unwrap();
        let written = &client.get_ref().written;

        let mut reader = Reader::new(MAX);
        let (mut unread, mut at, mut heard) = (Vec::new(), 0, Vec::new());
        for piece in pieces.into_iter().chain(std::iter::once(written.len())) {
            let end = written.len().min(at + piece);
            unread.extend_from_slice(&written[at..end]);
            at = end;
            while let Some((used, received)) = reader.read(&mut unread).unwrap() {
                heard.push(match received {
                    Received::Whole(Kind::Binary, place) => Message::binary(unread[place].to_vec()),
                    Received::Whole(Kind::Text, place) => {
                        Message::text(String::from_utf8(unread[place].to_vec()).unwrap())
                    }
                    Received::Ping(place) => Message::Ping(Bytes::from(unread[place].to_vec())),
                    Received::Nothing => Message::Pong(Bytes::new()),
                    Received::Gathered(..) | Received::Close(_) => panic!("none was sent"),
                });
                unread.drain(..used);
            }
        }

        prop_assert!(unread.is_empty());
        let is_pong = |message: &Message| matches!(message, Message::Pong(_));
        prop_assert_eq!(heard.len(), messages.len());
        for (heard, said) in heard.iter().zip(&messages) {
            prop_assert!(heard == said || is_pong(heard) && is_pong(said));
        }
    }

    #[test]
    fn what_is_written_tungstenites_client_reads(messages in messages()) {
        let mut bytes = Vec::new();
        let mut wanted = Vec::new();
        for message in messages {
            let before = bytes.len();
            match &message {
                Message::Binary(payload) => write_message(&mut bytes, Kind::Binary, payload),
                Message::Text(payload) => write_message(&mut bytes, Kind::Text, payload.as_bytes()),
                Message::Pong(payload) => write_pong(&mut bytes, payload),
                Message::Ping(_) | Message::Close(_) | Message::Frame(_) => continue,
            }
            prop_assert_eq!(bytes.len() - before, framed_bytes(message.len()));
            wanted.push(message);
        }
        write_close(&mut bytes, Some(1000));

        let memory = Memory { unread: io::Cursor::new(bytes), ..Memory::default() };
        let mut client = WebSocket::from_raw_socket(memory, Role::Client, None);
        for message in wanted {
            prop_assert_eq!(client.read().unwrap(), message);
        }
        let Message::Close(Some(close)) = client.read().unwrap() else { panic!("a close") };
        prop_assert_eq!(u16::from(close.code), 1000);
    }

    #[test]
    fn no_bytes_make_a_reader_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut reader = Reader::new(100);
        while let Ok(Some((used, _))) = reader.read(&mut bytes) {
            bytes.drain(..used);
        }
    }
}
