//! Who is told what, when, and how often.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use muster_proto::ids::{Epoch, OutboxId};
use muster_proto::session::switch::{SwitchSession, SwitchSessionConfig};
use muster_proto::session::v1::CloseReason;

use super::super::drive::End;
use super::super::session::Identity;
use super::*;
use crate::engine::{SessionKey, ShardMessage};

/// What each session was told since, in the order of being told.
type Log = RefCell<Vec<u32>>;

/// Sessions of devices whose number is their slot, and whose queues take everything.
fn table(stride: Stride, sessions: u32) -> Table {
    let table = Table::new(stride);
    for number in 0..sessions {
        let half = SwitchSession::new(SwitchSessionConfig::default(), Instant::now());
        let session = table.insert(format!("w{number}").parse().unwrap(), None, half, 1 << 20).unwrap();
        let identity = Identity { number, epoch: Epoch(1), outbox: OutboxId::from([1; 16]) };
        table.connecting();
        table.connected(&session, identity, &[]);
    }
    table
}

/// An order whose frame has so many bytes.
fn order(id: u8, urgency: Urgency, bytes: usize, targets: impl IntoIterator<Item = u32>) -> ShardMessage {
    ShardMessage::Order {
        instruction: InstructionId::from([id; 16]),
        frame: Bytes::from(vec![0; bytes]),
        targets: Arc::new(targets.into_iter().collect()),
        proofs: None,
        urgency,
    }
}

fn hear(table: &Table, message: ShardMessage) {
    table.handle([message], |_| {});
}

/// Tells one turn; returns who was told.
fn turn(table: &Table) -> (Turn, Vec<u32>) {
    let told = Log::default();
    let turn = table.turn(|session| told.borrow_mut().push(session.slot));
    (turn, told.into_inner())
}

#[test]
fn many_sessions_are_told_a_few_at_a_time_and_each_all_that_waits_for_it() {
    let many = 3 * 96 + 10;
    let table = table(Stride::QUIC, many);
    for id in 1..=64 {
        hear(&table, order(id, Urgency::Order, 10, 0..many));
    }
    let mut sizes = Vec::new();
    let mut times = BTreeMap::new();

    loop {
        let (left, told) = turn(&table);
        sizes.push(told.len());
        for slot in told {
            *times.entry(slot).or_insert(0) += 1;
            assert_eq!(table.at(slot).unwrap().waiting_bytes(), 640);
        }
        if left == Turn::Done {
            break;
        }
    }

    assert_eq!(sizes, [96, 96, 96, 10]);
    assert!(times.len() == usize::try_from(many).unwrap() && times.values().all(|count| *count == 1));
    assert_eq!(table.pace().untold(), 0);
}

#[test]
fn what_is_long_is_told_to_fewer_at_a_time() {
    let table = table(Stride::QUIC, 200);
    hear(&table, order(1, Urgency::Order, 256 << 10, 0..200));

    let (left, told) = turn(&table);

    assert_eq!((left, told.len()), (Turn::More, 12), "the first packets of each are 14 KiB");
}

#[test]
fn an_order_that_comes_again_while_it_waits_is_told_once() {
    let table = table(Stride::QUIC, 400);
    for _ in 0..10 {
        hear(&table, order(1, Urgency::Order, 10, 0..400));
    }
    assert_eq!(table.pace().untold(), 400);
    turn(&table);
    // As the engine does: to those who were not written to, as far as it knows, and to who came since.
    hear(&table, order(1, Urgency::Order, 10, 50..400));
    while turn(&table).0 == Turn::More {}

    for slot in 0..400 {
        assert_eq!(table.at(slot).unwrap().waiting_bytes(), 10, "{slot}");
    }
}

#[test]
fn a_stop_goes_first_and_stops_without_an_end_keep_nobodys_orders_back() {
    let table = table(Stride::QUIC, 1_000);
    hear(&table, order(1, Urgency::Order, 10, 0..1_000));
    hear(&table, order(2, Urgency::Stop, 10, [999]));

    let (_, first) = turn(&table);
    assert_eq!(first[0], 999);
    let mut turns = 1;
    while (0..500).any(|slot| table.at(slot).unwrap().waiting_bytes() == 0) {
        hear(&table, order(3, Urgency::Stop, 10, 500..1_000));
        turn(&table);
        turns += 1;
        assert!(turns < 100, "orders wait behind stops");
    }
    // Those who are told a stop are told their orders with it.
    assert!(turns <= 2 * 1_000 / 96 + 1, "{turns}");
}

#[test]
fn of_orders_beyond_the_bound_the_targets_stay_queued_and_stops_have_a_bound_of_their_own() {
    let table = table(Stride::TCP, 1);
    let id = |count: usize| {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&count.to_le_bytes());
        InstructionId::from(id)
    };
    let push = |count, urgency| {
        let ShardMessage::Order { frame, targets, proofs, .. } = order(0, urgency, 1, [0]) else { panic!() };
        hear(&table, ShardMessage::Order { instruction: id(count), frame, targets, proofs, urgency });
    };

    (0..SAYINGS_MAX + 5).for_each(|count| push(count, Urgency::Order));
    push(usize::MAX, Urgency::Stop);

    assert_eq!(table.pace().untold(), u64::try_from(SAYINGS_MAX).unwrap() + 1);
}

#[test]
fn notices_wait_for_their_turn_and_the_last_is_the_one_that_is_told() {
    let table = table(Stride::QUIC, 200);
    let digests = [1_u8, 2].map(|byte| Digest::from([byte; 32]));
    for (digest, serial) in digests.into_iter().zip(1..) {
        hear(&table, ShardMessage::LicenceNotice { digest, serial });
        let targets = Arc::new((0..200).collect());
        hear(&table, ShardMessage::PolicyNotice { digest, spread: Duration::ZERO, targets });
    }

    assert_eq!(table.pace().untold(), 400, "one licence and one policy for each");
    assert_eq!(turn(&table).1.len(), 96);
}

#[test]
fn who_closes_is_told_first_what_came_before_and_a_new_session_nothing_of_what_waited() {
    let table = table(Stride::QUIC, 3);
    hear(&table, order(1, Urgency::Order, 10, 0..3));
    let told = Log::default();
    let close = ShardMessage::Close {
        session: SessionKey { shard: 0, slot: 1, epoch: Epoch(1) },
        reason: CloseReason::Superseded,
        reconnect_after: Duration::ZERO,
        detail: String::new(),
    };
    table.handle([close], |session| told.borrow_mut().push(session.slot));
    let again = Identity { number: 2, epoch: Epoch(2), outbox: OutboxId::from([1; 16]) };
    let half = SwitchSession::new(SwitchSessionConfig::default(), Instant::now());
    let session = table.insert("w2".parse().unwrap(), None, half, 1 << 20).unwrap();
    table.connecting();
    table.connected(&session, again, &[InstructionId::from([1; 16])]);

    assert_eq!(told.into_inner(), [1]);
    assert_eq!(turn(&table), (Turn::Done, vec![0]));
}

#[test]
fn who_fails_while_it_is_told_something_fails_alone() {
    let table = table(Stride::TCP, 3);
    hear(&table, order(1, Urgency::Order, 10, 0..3));
    let told = Log::default();
    let tell = |session: &Session| {
        assert_ne!(session.slot, 1, "a test");
        told.borrow_mut().push(session.slot);
    };

    assert_eq!(table.turn(tell), Turn::Done);
    let ack = |slot| ShardMessage::Ack {
        session: SessionKey { shard: 0, slot, epoch: Epoch(1) },
        lane: muster_proto::session::v1::Lane::Results,
        ranges: Vec::new(),
        credit_bytes: 1,
    };
    table.handle([0, 1, 2].map(ack), tell);

    assert_eq!(told.into_inner(), [0, 2, 0, 2]);
    let over = [0, 1, 2].map(|slot| table.at(slot).unwrap().over());
    assert_eq!(over, [None, Some(End::Failed), None]);
}

#[tokio::test]
async fn between_two_turns_others_have_theirs() {
    let many = 4_000;
    let table = table(Stride::TCP, many);
    (1..=64).for_each(|id| hear(&table, order(id, Urgency::Order, 10, 0..many)));
    let (round, told) = (Cell::new(0_u32), RefCell::new(BTreeMap::new()));
    let done = CancellationToken::new();

    let tell = |_: &Session| {
        *told.borrow_mut().entry(round.get()).or_insert(0_u32) += 1;
        if told.borrow().values().sum::<u32>() == many {
            done.cancel();
        }
    };
    let others = async {
        while !done.is_cancelled() {
            round.set(round.get() + 1);
            yield_now().await;
        }
    };
    tokio::join!(run(&table, tell, &done), others);

    let told = told.into_inner();
    // Whose turn it is first changes from one to the next.
    assert!(told.values().all(|count| *count <= 2 * 512), "{told:?}");
}

#[tokio::test]
async fn a_shard_that_is_done_tells_nobody_any_more_however_many_wait() {
    let table = table(Stride::QUIC, 20_000);
    hear(&table, order(1, Urgency::Order, 10, 0..20_000));
    let (told, done) = (Cell::new(0), CancellationToken::new());

    let tell = |_: &Session| {
        told.set(told.get() + 1);
        done.cancel();
    };
    let ended = tokio::time::timeout(Duration::from_millis(100), run(&table, tell, &done)).await;

    assert_eq!(ended, Ok(()));
    assert_eq!(told.get(), 96);
    assert_eq!(table.pace().untold(), 20_000 - 96);
}
