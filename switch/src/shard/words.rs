//! [`Words`]: what many sessions have to say of one instruction, told to the engine as one.
//!
//! A fleet that was sent an order says so within a second: as a set of devices that is one command and one change of the ledger, alone each would
//! be a command of its own.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_proto::common::v1::TargetState;
use muster_proto::ids::InstructionId;
use roaring::RoaringBitmap;
use tokio::sync::Notify;

use crate::engine::{ShardMessage, Urgency};

/// Different words that wait at most; an instruction has three. Beyond it a session tells the engine by itself, and waits for it.
const WAITING_MAX: usize = 1_024;

/// Instructions of which is remembered whose order was written.
const WRITTEN_MAX: usize = 1_024;

/// How long that is remembered after the last: until then the engine has heard of it, or the Switch has other worries.
const WRITTEN_KEPT: Duration = Duration::from_secs(120);

/// Which state of which instruction.
pub(super) type Word = (InstructionId, TargetState);

/// What a shard has to tell the engine of instructions.
#[derive(Debug, Default)]
pub(super) struct Words {
    waiting: RefCell<BTreeMap<Word, RoaringBitmap>>,
    some: Notify,
    written: RefCell<BTreeMap<InstructionId, Written>>,
    /// When it was last looked for what need not be remembered any more.
    looked: Cell<Option<Instant>>,
}

/// The devices whose session of now an order was written to.
#[derive(Debug)]
struct Written {
    numbers: RoaringBitmap,
    last: Instant,
}

impl Words {
    /// Notes that an order, or a stop, was written to a device's session.
    pub(super) fn note_written(&self, instruction: InstructionId, number: u32, now: Instant) {
        self.waiting.borrow_mut().entry((instruction, TargetState::Sent)).or_default().insert(number);
        self.some.notify_one();
        let mut written = self.written.borrow_mut();
        if written.len() >= WRITTEN_MAX && !written.contains_key(&instruction) {
            // It is sent once more, perhaps.
            written.pop_first();
        }
        let entry = written.entry(instruction);
        let entry = entry.or_insert_with(|| Written { numbers: RoaringBitmap::new(), last: now });
        entry.numbers.insert(number);
        entry.last = now;
    }

    /// Notes what a device says of itself; returns whether there was room.
    pub(super) fn note(&self, word: Word, number: u32) -> bool {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() >= WAITING_MAX && !waiting.contains_key(&word) {
            return false;
        }
        waiting.entry(word).or_default().insert(number);
        self.some.notify_one();
        true
    }

    /// Waits until there is something to tell.
    pub(super) async fn some(&self) {
        self.some.notified().await;
    }

    /// Takes what there is to tell, and forgets what was written long ago.
    pub(super) fn take(&self, now: Instant) -> BTreeMap<Word, RoaringBitmap> {
        if self.looked.get().is_none_or(|looked| now.duration_since(looked) >= WRITTEN_KEPT) {
            self.looked.set(Some(now));
            self.written.borrow_mut().retain(|_, written| now.duration_since(written.last) < WRITTEN_KEPT);
        }
        self.waiting.take()
    }

    /// Forgets what was written to a device: its session has ended.
    pub(super) fn forget(&self, number: u32) {
        for written in self.written.borrow_mut().values_mut() {
            written.numbers.remove(number);
        }
    }

    /// Leaves out of an order those to whose session it was written: the engine, which sends it again to whoever seems to have got none, has
    /// not come to the word of it yet. A stop is sent again until it is answered.
    pub(super) fn unwritten(&self, message: ShardMessage) -> ShardMessage {
        let ShardMessage::Order { instruction, frame, targets, proofs, urgency: Urgency::Order } = message
        else {
            return message;
        };
        let written = self.written.borrow();
        let left = match written.get(&instruction) {
            Some(written) if !targets.is_disjoint(&written.numbers) => Arc::new(&*targets - &written.numbers),
            Some(_) | None => targets,
        };
        ShardMessage::Order { instruction, frame, targets: left, proofs, urgency: Urgency::Order }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const SENT: TargetState = TargetState::Sent;

    fn instruction(byte: u16) -> InstructionId {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&byte.to_be_bytes());
        InstructionId::from(bytes)
    }

    fn order(urgency: Urgency) -> ShardMessage {
        let targets = Arc::new(RoaringBitmap::from([1, 2, 3]));
        ShardMessage::Order {
            instruction: instruction(1),
            frame: Bytes::new(),
            targets,
            proofs: None,
            urgency,
        }
    }

    #[track_caller]
    fn left(words: &Words, urgency: Urgency) -> Vec<u32> {
        let ShardMessage::Order { targets, .. } = words.unwritten(order(urgency)) else { panic!("no order") };
        targets.iter().collect()
    }

    #[test]
    fn what_many_say_of_an_instruction_is_one_word() {
        let (words, now) = (Words::default(), Instant::now());
        for number in 0..1_000 {
            words.note_written(instruction(1), number, now);
            assert!(words.note((instruction(1), TargetState::Acked), number));
        }

        let told = words.take(now);

        assert_eq!(told.len(), 2);
        assert!(told.values().all(|numbers| numbers.len() == 1_000));
        assert!(words.take(now).is_empty());
    }

    #[test]
    fn words_of_instructions_that_clients_make_up_are_bounded() {
        let words = Words::default();
        for byte in 0..1_024 {
            assert!(words.note((instruction(byte), SENT), 1));
        }

        assert!(!words.note((instruction(1_024), SENT), 1));
        assert!(words.note((instruction(1_023), SENT), 2));
        for byte in 0..2_000 {
            words.note_written(instruction(byte), 1, Instant::now());
        }
        assert_eq!(words.written.borrow().len(), WRITTEN_MAX);
    }

    #[test]
    fn an_order_is_not_sent_again_to_a_session_that_has_it_and_a_stop_is() {
        let (words, now) = (Words::default(), Instant::now());
        assert_eq!(left(&words, Urgency::Order), [1, 2, 3]);
        words.note_written(instruction(1), 1, now);
        words.note_written(instruction(1), 3, now);
        drop(words.take(now));

        assert_eq!(left(&words, Urgency::Order), [2]);
        assert_eq!(left(&words, Urgency::Stop), [1, 2, 3]);
        // The device's next session may have got nothing.
        words.forget(3);
        assert_eq!(left(&words, Urgency::Order), [2, 3]);
    }

    #[test]
    fn what_was_written_is_remembered_for_two_minutes() {
        let (words, now) = (Words::default(), Instant::now());
        words.note_written(instruction(1), 1, now);

        drop(words.take(now + WRITTEN_KEPT / 2));
        assert_eq!(left(&words, Urgency::Order), [2, 3]);
        drop(words.take(now + 2 * WRITTEN_KEPT));

        assert_eq!(left(&words, Urgency::Order), [1, 2, 3]);
    }
}
