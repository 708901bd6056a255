//! A Switch whose documents, messages and upgrades have no end: each is ended by a bound, and the client stays small and goes on.

use std::time::Duration;

use bytes::Bytes;
use muster_pki::Role;
use muster_proto::ids::{Digest, InstructionId};
use muster_proto::limits::{ENVELOPE_BYTES_MAX, FRAME_BYTES_MAX};
use muster_proto::session::v1::DocumentKind;
use muster_signing::envelope;

use super::endless::{UNREAD_BYTES_MAX, ends, peak_kib, stays_small};
use super::{DEVICE, Lab};
use crate::liar::{Session, Welcome};
use crate::support::orders::{order_of, sign_order, stranger};

/// Orders that prove nothing, licences and the like, of each sort: more than are remembered of any.
const MANY: u16 = 400;

/// More answers to what proves nothing than a client keeps, and fewer than were made up.
const UNPROVEN_MAX: u64 = 300;

#[test]
fn attack_endless_data_of_a_licence_or_a_policy_that_was_asked_for_is_taken_no_further_than_its_bound() {
    let lab = Lab::new();
    let policies = lab.place.home().join("trust/policies.pem");
    lab.configure("", &format!("policies = {policies:?}"), "");
    let liar = lab.liar();
    let client = lab.start();
    let mut session = liar.accept(lab.welcome());
    lab.goes_on(&mut session);
    let before = peak_kib(&client);
    type Tell = fn(&mut Session<'_>, Digest);
    let licence: Tell = |session, digest| session.tell_licence(digest);
    let policy: Tell = |session, digest| session.tell_policy(Some(digest));

    for bytes in [ENVELOPE_BYTES_MAX + 1, FRAME_BYTES_MAX, 64 << 20] {
        for (kind, tell) in [(DocumentKind::Licence, licence), (DocumentKind::Policy, policy)] {
            let digest = envelope::digest(format!("{kind:?} of {bytes} bytes").as_bytes());
            liar.serve(digest, &vec![0; bytes]);
            tell(&mut session, digest);
            ends(&mut session, "a document");
            assert!(session.told.asked.contains(&(kind, digest)), "{:?}", session.told.asked);
            drop(session);
            session = liar.accept(lab.welcome());
        }
    }

    // A frame that decodes is held against the bounds of what is in it; one beyond the bound of frames is not read.
    let log = client.log();
    assert!(log.contains("PROTOCOL_ERROR") && log.contains("too long"), "{log}");
    stays_small(&lab, &client, before, 0);
    assert_eq!(lab.place.status(DEVICE).unwrap()["licence_serial"], 1);
    let shown = lab.place.client_command(DEVICE, &["policy", "show"], &[]).with_code(0).json();
    assert_eq!(shown["serial"], 0, "{shown}");
    lab.goes_on(&mut session);
}

#[test]
fn attack_endless_data_of_one_message_or_upgrade_ends_by_its_bound_or_by_the_silence_around_it() {
    let lab = Lab::new();
    let liar = lab.liar();
    let client = lab.start();
    let mut session = liar.accept(lab.welcome());
    lab.goes_on(&mut session);
    let before = peak_kib(&client);
    let piece = 64 << 10;
    // WebSocket, RFC 6455: 0x02 begins a binary message that goes on, 0x00 goes on with it, 0x82 is a whole one.
    let head = |opcode: u8, length: u64| [&[opcode, 127][..], &length.to_be_bytes()].concat();
    let part = |opcode: u8| [head(opcode, piece), vec![0; 64 << 10]].concat();
    let silence = Some(Duration::from_secs(3));
    let pause = Duration::from_millis(100);

    for (what, first, again, dead_after, pause, bound) in [
        ("a message in parts without end", part(0x02), part(0x00), None, Duration::ZERO, true),
        ("a frame of 2^40 bytes", head(0x82, 1 << 40), vec![0; 64 << 10], None, Duration::ZERO, true),
        ("parts of no bytes", vec![0x02, 0], [0x00, 0].repeat(1 << 10), silence, Duration::ZERO, false),
        ("a frame byte by byte", head(0x82, 1 << 10), vec![0], silence, pause, true),
    ] {
        drop(session);
        let mut lying = liar.accept(Welcome { dead_after, ..lab.welcome() });
        let written = lying.write_over_and_over(&first, &again, pause);
        drop(lying);
        let most = FRAME_BYTES_MAX as u64 + UNREAD_BYTES_MAX;
        assert!(!bound || written < most, "{what}: {written} bytes were written");
        session = liar.accept(lab.welcome());
    }
    drop(session);
    let written =
        liar.answer_without_end("HTTP/1.1 101 So\r\n", &format!("x-endless: {}\r\n", "x".repeat(1_000)));
    assert!(written < UNREAD_BYTES_MAX, "{written} bytes of an upgrade were written");

    let mut session = liar.accept(lab.welcome());
    let log = client.log();
    assert!(log.contains("ended: IDLE") && log.contains("too long"), "{log}");
    stays_small(&lab, &client, before, 0);
    assert_eq!(lab.place.starts(), 1);
    lab.goes_on(&mut session);
}

#[test]
fn attack_endless_data_of_orders_pings_and_notices_is_neither_run_nor_kept_beyond_a_bound() {
    let lab = Lab::new();
    let liar = lab.liar();
    let client = lab.start();
    let mut session = liar.accept(lab.welcome());
    lab.goes_on(&mut session);
    let before = peak_kib(&client);
    let honest = lab.order(&lab.honest);
    let again = lab.signed(&honest);
    lab.runs(&mut session, &honest, &again);
    let liars = stranger(Role::OrderSigner);
    let of = |number: u16| {
        let mut id = [1, 0x97, 0xa6, 0xc8, 0, 0, 0x70, 1, 0x80, 0, 0, 0, 0, 0, 0, 0];
        id[14..].copy_from_slice(&number.to_be_bytes());
        InstructionId::from(id)
    };

    for number in 0..MANY {
        session.deliver(&again);
        session.deliver(&sign_order(&order_of(&lab.honest, of(number)), &liars));
        session.deliver(format!("order {number}").as_bytes());
        session.tell_licence(envelope::digest(&number.to_be_bytes()));
        session.tell_policy(Some(envelope::digest(&number.to_le_bytes())));
        // A body that no version knows yet, and one that no version has.
        session.send(Bytes::from_static(&[0xf2, 0x06, 0]));
    }

    // The licence that it cannot have is not waited for any more once it is told of the one that it holds.
    session.tell_licence(envelope::digest(&lab.licence));
    lab.goes_on(&mut session);
    assert_eq!(lab.place.starts(), 3);
    let outbox = lab.place.status(DEVICE).unwrap()["outbox"].clone();
    for lane in ["results", "events"] {
        assert!(outbox[lane].as_u64().is_some_and(|kept| kept < UNPROVEN_MAX), "{lane}: {outbox}");
    }
    stays_small(&lab, &client, before, 0);
}
