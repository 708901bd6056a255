//! More than was declared or is allowed: the session ends or the order is refused, and the client stays small and goes on.

use std::path::Path;

use muster_proto::common::v1::{Refusal, TargetState};
use muster_proto::limits::{ENVELOPE_BYTES_MAX, FRAME_BYTES_MAX};
use muster_proto::session::v1::DocumentKind;
use muster_signing::envelope;

use super::{DEVICE, Lab, instruction, text};
use crate::liar::Session;
use crate::support::Service;

/// More than one message that is too large may take, and far less than all that is sent.
const GROWTH_KIB_MAX: u64 = 48 * 1024;

/// What a client's store, its log of writes and what else it has of its own may take of the disk.
const STORE_BYTES_MAX: u64 = 8 << 20;

/// What may lie unread in the sockets between two programs when one of them leaves.
pub(super) const UNREAD_BYTES_MAX: u64 = 16 << 20;

#[test]
fn attack_endless_data_of_documents_and_messages_ends_the_session_and_not_the_client() {
    let lab = Lab::new();
    let liar = lab.liar();
    let client = lab.start();
    let mut session = liar.accept(lab.welcome());
    lab.goes_on(&mut session);
    let before = peak_kib(&client);
    let endless = vec![0; ENVELOPE_BYTES_MAX + 1];

    // The definition that an order names.
    let definition = lab.publish(&liar, &text("Acme-Test-Endless", "1.0.0", ""));
    liar.serve(envelope::digest(&definition), &endless);
    let order = lab.order(&definition);
    session.deliver(&lab.signed(&order));
    ends(&mut session, "a document");
    // An order.
    let mut session = liar.accept(lab.welcome());
    session.deliver(&endless);
    ends(&mut session, "an order");
    // What nobody asked for, in messages beyond any bound.
    for bytes in [FRAME_BYTES_MAX + 1, 64 << 20] {
        let mut session = liar.accept(lab.welcome());
        session.push(DocumentKind::Licence, envelope::digest(b"nobody asked"), &vec![0; bytes]);
        ends(&mut session, "a message");
    }

    let mut session = liar.accept(lab.welcome());
    stays_small(&lab, &client, before, 0);
    liar.shelve(&definition);
    assert_eq!(lab.place.starts(), 1);
    lab.runs(&mut session, &order, &lab.signed(&order));
    lab.goes_on(&mut session);
}

#[test]
fn attack_endless_data_of_unasked_documents_is_neither_kept_nor_taken() {
    let lab = Lab::new();
    let liar = lab.liar();
    let client = lab.start();
    let mut session = liar.accept(lab.welcome());
    lab.goes_on(&mut session);
    let before = peak_kib(&client);

    for number in 0..2_000_u32 {
        let mut document = vec![7; 64 << 10];
        document[..4].copy_from_slice(&number.to_be_bytes());
        for kind in [DocumentKind::Definition, DocumentKind::Licence] {
            session.push(kind, envelope::digest(&document), &document);
        }
    }

    lab.goes_on(&mut session);
    stays_small(&lab, &client, before, 0);
}

#[test]
fn attack_endless_data_of_a_resource_beyond_this_devices_bound_is_refused_before_it_is_asked_for() {
    let lab = Lab::new();
    lab.configure("", "", "[resources]\nbytes_max = \"1 MiB\"");
    let liar = lab.liar();
    let client = lab.start();
    let mut session = liar.accept(lab.welcome());
    let resource =
        format!("[[resource]]\nname = \"huge\"\nsize = {}\nroot = \"{}\"\n", (1 << 20) + 1, "0a".repeat(32));
    let definition = lab.publish(&liar, &text("Acme-Test-Huge", "1.0.0", &resource));

    let order = lab.order(&definition);
    session.deliver(&lab.signed(&order));
    let (state, refusal, detail) = session.result_with_detail(instruction(&order));

    assert_eq!((state, refusal), (TargetState::Refused, Refusal::Resource), "{detail}");
    assert!(detail.contains("resources.bytes_max"), "{detail}");
    assert_eq!(lab.place.starts(), 0);
    lab.goes_on(&mut session);
    drop(client);
}

#[test]
fn attack_endless_data_of_an_answer_is_cut_at_the_signed_limits_and_told_as_cut() {
    let lab = Lab::new();
    let liar = lab.liar();
    let client = lab.start();
    let mut session = liar.accept(lab.welcome());
    let endless = |name: &str, value: &str, limits: &str| {
        format!(
            "name = \"{name}\"\nversion = \"1.0.0\"\nkind = \"question\"\nsays = \"Does it end?\"\n\n[[step]]\n\
             query = \"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT {value} AS value FROM n\"\n\n\
             [[result]]\nname = \"value\"\ntype = \"text\"\nmax_length = 1024\n\n[limits]\nrun_time = \"30s\"\n{limits}\n"
        )
    };
    let before = peak_kib(&client);

    for (name, value, limits, rows_max) in [
        ("Acme-Test-Rows", "'x'", "rows = 10\n", 10),
        ("Acme-Test-Bytes", "printf('%1000d', i)", "bytes = \"64 KiB\"\n", 65),
    ] {
        let definition = lab.publish(&liar, &endless(name, value, limits));
        let order = lab.order(&definition);
        session.deliver(&lab.signed(&order));
        let of = instruction(&order).to_vec();
        let result = session
            .until("the answer", |told| told.results.iter().find(|result| result.instruction == of).cloned());

        assert_eq!(result.state(), TargetState::Answered, "{name}: {}", result.detail);
        assert!(result.truncated, "{name}");
        assert!(!result.rows.is_empty() && result.rows.len() <= rows_max, "{name}: {}", result.rows.len());
    }
    stays_small(&lab, &client, before, 0);
    lab.goes_on(&mut session);
}

/// Waits for the client to end the session.
#[track_caller]
pub(super) fn ends(session: &mut Session<'_>, what: &str) {
    session.until(&format!("the end of the session by {what}"), |told| told.ended.clone());
}

/// Says what a client has taken since its peak was looked at, and that it is little; `declared` is what signed documents let its cache hold.
#[track_caller]
pub(super) fn stays_small(lab: &Lab, client: &Service, before: u64, declared: u64) {
    let grown = peak_kib(client).saturating_sub(before);
    let folder = lab.place.path(DEVICE);
    let cached = bytes_below(&folder.join("resources"));
    let kept = bytes_below(&folder).saturating_sub(cached);
    eprintln!(
        "endless data: the client grew by {grown} KiB, its cache has {cached} bytes of {declared}, its store {kept}"
    );
    assert!(grown < GROWTH_KIB_MAX, "the client grew by {grown} KiB");
    assert!(cached <= declared, "{cached} bytes are cached, {declared} were signed");
    assert!(kept < STORE_BYTES_MAX, "{kept} bytes are kept beside the cache");
}

/// The most memory that a process ever had, in KiB.
pub(super) fn peak_kib(service: &Service) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", service.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the peak");
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// What all files below a folder take.
fn bytes_below(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let bytes = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.len(),
        // It has gone meanwhile.
        Err(_) => 0,
    };
    entries.map(bytes).sum()
}
