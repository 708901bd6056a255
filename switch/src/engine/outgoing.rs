//! What waits for the shards' mailboxes. A full mailbox delays its own shard's messages, nobody else's.

use std::collections::{BTreeMap, VecDeque};

use muster_proto::session::v1::{Lane, SequenceRange};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::{SessionKey, ShardMessage, metrics};

/// Whom a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum To {
    /// One shard, by its index.
    Shard(u16),
    /// All of them.
    All,
}

/// A result or event to be acked, or credit to be given back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Acked {
    pub(crate) session: SessionKey,
    pub(crate) lane: Lane,
    /// `None`: not stored and not to be deleted, only the credit comes back.
    pub(crate) sequence: Option<u64>,
    pub(crate) credit_bytes: u64,
}

/// The mailboxes and what waits for them.
#[derive(Debug)]
pub(crate) struct Outgoing {
    shards: Vec<Shard>,
}

#[derive(Debug)]
struct Shard {
    mailbox: mpsc::Sender<ShardMessage>,
    /// Bounded by what it holds: one order for each active instruction, one close for each superseded session.
    waiting: VecDeque<ShardMessage>,
    /// Acks by session and lane, so that any number of them is one message; bounded by the sessions' credit.
    acks: BTreeMap<(SessionKey, i32), Acks>,
    /// How many messages the metric was last told to wait.
    told: usize,
}

#[derive(Debug, Default)]
struct Acks {
    sequences: Vec<u64>,
    credit_bytes: u64,
}

/// Orders that wait for one shard at most; beyond, an order is left out and its targets are served by the next round
/// of resending.
const WAITING_MAX: usize = 65_536;

impl Outgoing {
    pub(crate) fn new(shards: Vec<mpsc::Sender<ShardMessage>>) -> Self {
        let shard = |mailbox| Shard { mailbox, waiting: VecDeque::new(), acks: BTreeMap::new(), told: 0 };
        Self { shards: shards.into_iter().map(shard).collect() }
    }

    /// Adds an ack to what its session gets next.
    pub(crate) fn push_ack(&mut self, acked: Acked) {
        let Some(shard) = self.shards.get_mut(usize::from(acked.session.shard)) else { return };
        let acks = shard.acks.entry((acked.session, i32::from(acked.lane))).or_default();
        acks.sequences.extend(acked.sequence);
        acks.credit_bytes += acked.credit_bytes;
    }

    /// Adds a message.
    pub(crate) fn push(&mut self, to: To, message: &ShardMessage) {
        let shards = match to {
            To::All => &mut self.shards[..],
            To::Shard(index) => match self.shards.get_mut(usize::from(index)) {
                Some(shard) => std::slice::from_mut(shard),
                None => return,
            },
        };
        for shard in shards {
            if shard.waiting.len() < WAITING_MAX {
                shard.waiting.push_back(message.clone());
            } else {
                metrics::dropped("shard_backlog");
            }
        }
    }

    /// Hands over what the mailboxes take. Returns whether nothing is left.
    pub(crate) fn flush(&mut self) -> bool {
        let mut empty = true;
        for (index, shard) in self.shards.iter_mut().enumerate() {
            let left = shard.flush();
            // Also when none is left, or the metric would tell of the last backlog for ever.
            if left != shard.told {
                shard.told = left;
                metrics::backlog(index, left);
            }
            empty &= left == 0;
        }
        empty
    }
}

impl Shard {
    /// Returns how many messages are left.
    fn flush(&mut self) -> usize {
        while let Some(message) = self.waiting.pop_front() {
            match self.mailbox.try_send(message) {
                Ok(()) => {}
                Err(TrySendError::Full(message)) => {
                    self.waiting.push_front(message);
                    return self.waiting.len() + self.acks.len();
                }
                Err(TrySendError::Closed(_)) => self.waiting.clear(),
            }
        }
        while let Some(((session, lane), acks)) = self.acks.pop_first() {
            let message = ShardMessage::Ack {
                session,
                lane: Lane::try_from(lane).unwrap_or_default(),
                ranges: ranges(&acks.sequences),
                credit_bytes: acks.credit_bytes,
            };
            match self.mailbox.try_send(message) {
                Ok(()) => {}
                Err(TrySendError::Full(_)) => {
                    self.acks.insert((session, lane), acks);
                    return self.acks.len();
                }
                Err(TrySendError::Closed(_)) => self.acks.clear(),
            }
        }
        0
    }
}

/// Joins sequences to ascending ranges.
fn ranges(sequences: &[u64]) -> Vec<SequenceRange> {
    let mut sorted = sequences.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let mut ranges: Vec<SequenceRange> = Vec::new();
    for sequence in sorted {
        match ranges.last_mut() {
            Some(range) if range.last + 1 == sequence => range.last = sequence,
            _ => ranges.push(SequenceRange { first: sequence, last: sequence }),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use muster_proto::ids::Epoch;

    use super::*;

    #[tokio::test]
    async fn acks_that_find_no_room_are_joined_and_wait() {
        let (mailbox, mut shard) = mpsc::channel(1);
        let mut outgoing = Outgoing::new(vec![mailbox.clone()]);
        mailbox.try_send(ack_message(&[])).unwrap();

        for sequence in [3, 1, 2, 7] {
            outgoing.push_ack(acked(sequence));
        }
        assert!(!outgoing.flush());
        assert_eq!(outgoing.shards[0].told, 1);
        shard.recv().await.unwrap();

        assert!(outgoing.flush());
        assert_eq!(outgoing.shards[0].told, 0, "the metric still tells of a backlog that is gone");
        let ShardMessage::Ack { ranges, credit_bytes, .. } = shard.recv().await.unwrap() else {
            panic!("wanted an ack")
        };
        assert_eq!(ranges, [SequenceRange { first: 1, last: 3 }, SequenceRange { first: 7, last: 7 }]);
        assert_eq!(credit_bytes, 400);
    }

    const SESSION: SessionKey = SessionKey { shard: 0, slot: 0, epoch: Epoch(1) };

    fn acked(sequence: u64) -> Acked {
        Acked { session: SESSION, lane: Lane::Results, sequence: Some(sequence), credit_bytes: 100 }
    }

    fn ack_message(ranges: &[SequenceRange]) -> ShardMessage {
        ShardMessage::Ack { session: SESSION, lane: Lane::Events, ranges: ranges.to_vec(), credit_bytes: 0 }
    }
}
