//! Answers that are larger than a message: in parts, each acked by itself, whole and once whatever ends in between, and in a client that stays
//! small.

use std::collections::BTreeMap;

use muster_proto::common::v1::TargetState;
use muster_proto::common::v1::value::Kind;
use muster_proto::session::v1::Result as InstructionResult;

use super::endless::peak_kib;
use super::{DEVICE, Lab};
use crate::liar::Session;

/// About 6 MiB of rows.
const ROWS: i64 = 6_000;

/// Far less than the rows take in memory.
const GROWTH_KIB_MAX: u64 = 16 * 1024;

#[test]
fn an_answer_of_several_messages_comes_whole_and_once_across_kill_9_and_the_client_stays_small() {
    let lab = Lab::new();
    let liar = lab.liar();
    let client = lab.start();
    let mut session = liar.accept(lab.welcome());
    lab.goes_on(&mut session);
    session.ack();
    let before = peak_kib(&client);
    let definition = lab.publish(&liar, &large("8 MiB"));
    let order = lab.order(&definition);

    session.deliver(&lab.signed(&order));
    let mut parts = BTreeMap::new();
    for number in 0..3 {
        take(&mut session, number, &mut parts);
        // The third one is not acked, and so is sent again.
        if number < 2 {
            session.ack();
        }
    }
    let grown = peak_kib(&client).saturating_sub(before);
    client.kill();
    drop(session);
    let _client = lab.start();
    let mut session = liar.accept(lab.welcome());
    let mut number = 2;
    while take(&mut session, number, &mut parts) != Last::Yes {
        session.ack();
        number += 1;
    }

    assert!(grown < GROWTH_KIB_MAX, "the client grew by {grown} KiB");
    assert_eq!(lab.place.starts(), 2, "the honest one and this");
    let parts: Vec<&InstructionResult> = parts.values().collect();
    assert!(parts.len() > 6, "{}", parts.len());
    let first = parts[0].sequence;
    assert!(parts.iter().zip(first..).all(|(part, sequence)| part.sequence == sequence));
    assert_eq!(shown(&parts), (1..=ROWS).collect::<Vec<_>>());
    assert!(parts.iter().all(|part| !part.truncated && part.state() == TargetState::Answered));
    let left: Vec<String> = std::fs::read_dir(lab.place.path(DEVICE))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("rows"))
        .collect();
    assert_eq!(left, Vec::<String>::new());
}

#[test]
fn an_answer_beyond_what_the_device_grants_is_cut_in_its_last_part_and_told_as_cut() {
    let lab = Lab::new();
    lab.configure("", "", "[instructions]\nresult_bytes_max = \"1 MiB\"");
    let liar = lab.liar();
    let _client = lab.start();
    let mut session = liar.accept(lab.welcome());
    let definition = lab.publish(&liar, &large("8 MiB"));
    let order = lab.order(&definition);

    session.deliver(&lab.signed(&order));
    let mut parts = BTreeMap::new();
    assert_eq!(take(&mut session, 0, &mut parts), Last::No);
    session.ack();
    assert_eq!(take(&mut session, 1, &mut parts), Last::Yes);

    let parts: Vec<&InstructionResult> = parts.values().collect();
    assert_eq!(parts.iter().map(|part| part.truncated).collect::<Vec<_>>(), [false, true]);
    let rows = shown(&parts);
    assert!((900..1_048).contains(&rows.len()), "{}", rows.len());
    assert!(rows.iter().copied().eq(1..=i64::try_from(rows.len()).unwrap()), "the first ones, in order");
}

/// A question whose answer is larger than a message.
pub(crate) fn large(bytes: &str) -> String {
    format!(
        "name = \"Acme-Test-Large\"\nversion = \"1.0.0\"\nkind = \"question\"\nsays = \"How much is there?\"\n\n[[step]]\n\
         query = \"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS}) \
         SELECT i AS number, printf('%01000d', i) AS text FROM n\"\n\n\
         [[result]]\nname = \"number\"\ntype = \"integer\"\n\n[[result]]\nname = \"text\"\ntype = \"text\"\n\n\
         [limits]\nrun_time = \"30s\"\nrows = 10000\nbytes = \"{bytes}\"\n"
    )
}

#[derive(Debug, PartialEq, Eq)]
enum Last {
    Yes,
    No,
}

/// Waits for a part, which the protocol would not let in beyond a message's bound; one that came before is the same.
#[track_caller]
fn take(session: &mut Session<'_>, number: u32, parts: &mut BTreeMap<u32, InstructionResult>) -> Last {
    let at = session.until(&format!("part {number}"), |told| {
        told.results.iter().position(|result| !result.rows.is_empty() && result.part == number)
    });
    let part = session.told.results.remove(at);
    let last = if part.last { Last::Yes } else { Last::No };
    if let Some(before) = parts.insert(number, part.clone()) {
        assert!(before == part, "part {number} is another");
    }
    last
}

/// The numbers of the rows.
fn shown(parts: &[&InstructionResult]) -> Vec<i64> {
    let number = |row: &muster_proto::common::v1::Row| match &row.values[0].kind {
        Some(Kind::Integer(number)) => *number,
        other => panic!("{other:?}"),
    };
    parts.iter().flat_map(|part| &part.rows).map(number).collect()
}
