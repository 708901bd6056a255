//! How a lane of the outbox flows into a session: in order, under credit, from the start again in every session.

use std::collections::VecDeque;

use crate::store::{QueueLane, Queued, Store, StoreError};

/// Bytes of a lane that are held in memory; a larger record is held alone.
const HELD_BYTES: usize = 256 * 1024;

/// What of a lane was sent in this session, and what is next.
#[derive(Debug)]
pub(super) struct LaneDrain {
    lane: QueueLane,
    /// The last sequence that was taken from the store in this session.
    taken: u64,
    held: VecDeque<Queued>,
    /// The store has nothing behind `taken`, as of the last append that was looked at.
    is_empty: bool,
}

impl LaneDrain {
    pub(super) fn new(lane: QueueLane) -> Self {
        Self { lane, taken: 0, held: VecDeque::new(), is_empty: false }
    }

    /// Something was appended to the outbox.
    pub(super) fn handle_append(&mut self) {
        self.is_empty = false;
    }

    /// Returns the next record without taking it.
    pub(super) async fn peek(&mut self, store: &Store) -> Result<Option<&Queued>, StoreError> {
        if self.held.is_empty() && !self.is_empty {
            let (lane, taken, now_ms) = (self.lane, self.taken, crate::clock::wall_ms());
            let queued = store.alone(move |tables| tables.queued(lane, taken, HELD_BYTES, now_ms)).await?;
            self.is_empty = queued.is_empty();
            if let Some(last) = queued.last() {
                self.taken = last.sequence;
            }
            self.held.extend(queued);
        }
        Ok(self.held.front())
    }

    /// The record was sent.
    pub(super) fn pop(&mut self) {
        self.held.pop_front();
    }
}
