//! The numbers of a client's outbox, and how a client learns that they are no longer its own.
//!
//! A store that is brought back from a copy (a backup, a machine's snapshot) goes on from the copy's next number under the
//! same outbox_id. Whoever saw those numbers before takes what they name for repeats, acks it, and nobody ever sees
//! it. A Welcome gives it away: the Switch has seen a number that this store, as far as it remembers, never sent. The client
//! then takes another outbox_id.
//!
//! There are two roads, and only one of them proves anything. Over a session nobody but the device names a number, so what
//! [`Welcome.highest_by_session`](crate::session::v1::Welcome::highest_by_session) gives away is a copy, whose journal is not to
//! be believed either. By the Background Channel whoever holds one can name any number of any device, so a number that
//! [`Welcome.highest_sequence`](crate::session::v1::Welcome::highest_sequence) alone gives away changes the outbox_id and nothing
//! else: that costs an honest store nothing.
//!
//! # What is promised
//! A client that marks numbers as offered on its disk *before* it sends what they name ([`OutboxNumbers::take`],
//! [`OutboxNumbers::offer`]), and judges every Welcome before it sends anything in that session
//! ([`OutboxNumbers::judge`]), never has a record swallowed that goes by a session. Without a copy brought back it never
//! changes its outbox_id, whatever is lost on the way: what was sent was marked before.
//!
//! # What is not
//! - What waited in the copy may have been delivered after the copy was made. It is sent again under the new outbox_id:
//!   events may be listed twice, since nobody can tell them from new ones. Of a result the Switch keeps one.
//! - A copy is not told from an honest store where all that the Switch has seen since it was made came by the Background Channel, or
//!   under an outbox_id that was taken since.
//! - The Background Channel does not tell what it has seen. Events that are posted there after a copy came back and
//!   before the next Welcome may be taken for repeats and lost. From that Welcome on they are safe: either it tells
//!   of the copy, or the numbers went past all that was seen.
//! - A machine that is brought back with its memory believes in its session until the first write fails. What is
//!   appended in that time counts as offered.

/// The numbers that an outbox has given and offered under one outbox_id.
///
/// Kept on disk together: a copy has both as they were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxNumbers {
    next: u64,
    /// Nothing from here on was ever sent to anybody; never above `next`.
    unoffered: u64,
}

/// Whether what is numbered is sent at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// A session was welcomed and judged, and has not ended.
    Up,
    /// There is none.
    Down,
}

/// What a Welcome says of an outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Standing {
    /// Every number that the Switch has seen may have come from this store.
    Own,
    /// A number was named by a road that proves nothing, and this store never sent it: the store is an older copy whose events were
    /// posted, or somebody made the number up. Take another outbox_id, and believe nothing else of it.
    Claimed,
    /// A number came over a session that this store never sent: the store is an older copy. Take another outbox_id.
    Copy,
}

impl OutboxNumbers {
    /// The numbers of an outbox that never gave one.
    pub const NEW: Self = Self { next: 1, unoffered: 1 };

    /// Makes them of what was stored. What is above `next` was never given, so it was not offered either.
    #[must_use]
    pub fn stored(next: u64, unoffered: u64) -> Self {
        Self { next, unoffered: unoffered.min(next) }
    }

    /// Returns the number that is given next.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Returns the first number that was never offered to anybody.
    #[must_use]
    pub fn unoffered(&self) -> u64 {
        self.unoffered
    }

    /// Gives a number. While there is a session it counts as offered from the start, so that one write does for both.
    pub fn take(&mut self, link: Link) -> u64 {
        let number = self.next;
        self.next = number.saturating_add(1);
        if link == Link::Up {
            self.unoffered = self.next;
        }
        number
    }

    /// Notes that everything up to `last` is about to be sent; returns whether there is something to write first.
    #[must_use]
    pub fn offer(&mut self, last: u64) -> bool {
        let unoffered = last.saturating_add(1).min(self.next).max(self.unoffered);
        std::mem::replace(&mut self.unoffered, unoffered) != unoffered
    }

    /// Judges the highest number that the Switch has seen of this outbox_id, by whichever road, and the highest of those that came over
    /// sessions; 0 for none. A Switch that does not tell the roads apart says no second one (`None`): its only one counts as both,
    /// since nothing may start twice.
    pub fn judge(&self, highest_sequence: u64, highest_by_session: Option<u64>) -> Standing {
        if highest_by_session.unwrap_or(highest_sequence) >= self.unoffered {
            Standing::Copy
        } else if highest_sequence >= self.unoffered {
            Standing::Claimed
        } else {
            Standing::Own
        }
    }

    /// Goes on under another outbox_id: nothing was offered under it.
    ///
    /// What waits keeps its numbers. They are as good as any under a new name, what local programs were told stays true,
    /// and the ranges of a gap event still name what they named.
    pub fn renew(&mut self) {
        self.unoffered = 1;
    }
}

#[cfg(test)]
mod tests;
