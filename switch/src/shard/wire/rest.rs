//! What is under way to a client: the rest of a message, and how much all of a shard have under way.

use std::cell::Cell;

use bytes::{Buf as _, Bytes};
use muster_proto::frame::Encoded;

thread_local! {
    static UNSENT: Unsent = const { Unsent { bytes: Cell::new(0), max: Cell::new(usize::MAX) } };
}

/// What was sealed for the sessions of a shard, which has a thread, and has not left.
struct Unsent {
    bytes: Cell<usize>,
    max: Cell<usize>,
}

/// Bounds what is sealed at the price of a whole record each: beyond it records are small, and who did not take one gets nothing more.
pub(in crate::shard) fn bound_unsent_bytes(max: usize) {
    UNSENT.with(|unsent| unsent.max.set(max));
}

/// Returns whether that bound is reached.
pub(in crate::shard) fn is_crowded() -> bool {
    UNSENT.with(|unsent| unsent.bytes.get() >= unsent.max.get())
}

/// Returns the bytes that were sealed for the sessions of this shard and that their sockets have not taken.
pub(in crate::shard) fn unsent_bytes() -> usize {
    UNSENT.with(|unsent| unsent.bytes.get())
}

/// What of it is one session's.
#[derive(Debug, Default)]
pub(super) struct Held(usize);

impl Held {
    /// Says how much it is.
    pub(super) fn set(&mut self, bytes: usize) {
        UNSENT.with(|unsent| unsent.bytes.set((unsent.bytes.get() + bytes).saturating_sub(self.0)));
        self.0 = bytes;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// What is left of a message.
#[derive(Debug)]
pub(super) struct Rest {
    pieces: [Bytes; 2],
}

impl From<Encoded> for Rest {
    fn from(message: Encoded) -> Self {
        Self { pieces: message.into_pieces() }
    }
}

impl Rest {
    /// Appends as much of it as makes so many bytes in all; returns whether nothing is left.
    pub(super) fn put(&mut self, frames: &mut Vec<u8>, bytes_max: usize) -> bool {
        for piece in &mut self.pieces {
            let room = bytes_max.saturating_sub(frames.len()).min(piece.len());
            frames.extend_from_slice(piece.get(..room).unwrap_or_default());
            piece.advance(room);
        }
        self.pieces.iter().all(Bytes::is_empty)
    }
}
