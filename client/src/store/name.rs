//! The outbox's name and numbers, and when it takes another name ([`muster_proto::numbers`] has the reasons).

use muster_proto::ids::OutboxId;
use muster_proto::numbers::{Link, OutboxNumbers, Standing};

use super::outbox::unsigned;
use super::tables::Tables;

/// The highest numbers of this outbox that a Switch says it has seen; 0: none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SeenNumbers {
    /// By whichever road.
    pub(crate) highest: u64,
    /// By sessions; `None`: the Switch does not tell the roads apart.
    pub(crate) by_session: Option<u64>,
}

impl Tables {
    /// Returns the name of this outbox.
    pub(crate) fn outbox_id(&self) -> OutboxId {
        self.outbox.id
    }

    /// Notes that what waits up to `last` is about to be sent; the note is on disk before it is.
    pub(crate) fn offer(&mut self, last: u64) -> rusqlite::Result<()> {
        if self.outbox.numbers.offer(last) { self.store_name() } else { Ok(()) }
    }

    /// Takes what a Welcome tells of this outbox: goes on, everything that waits offered, or takes another name. Then the session must
    /// end before anything is sent in it. If the store was brought back from a copy, nothing that the
    /// copy had taken on starts ([`Self::end_open`]), and no order from before `switch_ms` ([`Self::restored_at_ms`]). If only somebody
    /// has named numbers by the other road, that may be a lie, and the name is all that changes. A time of an
    /// earlier Welcome that cannot have been true is taken back ([`Self::doubt_restored`]).
    ///
    /// The time is the Switch's: a machine brought back with its clock is behind, and orders are dated by the Switch.
    ///
    /// A copy is told by numbers only. What ran after the copy was made and left no number at the Switch by a session before the store
    /// came back (no result, no event) may start again.
    pub(crate) fn welcomed(
        &mut self,
        seen: SeenNumbers,
        switch_ms: i64,
        now_ms: i64,
    ) -> rusqlite::Result<Standing> {
        self.doubt_restored(switch_ms, now_ms)?;
        let standing = self.outbox.numbers.judge(seen.highest, seen.by_session);
        match standing {
            Standing::Own => {
                self.offer(u64::MAX)?;
                self.outbox.link = Link::Up;
            }
            Standing::Claimed => self.rename()?,
            Standing::Copy => {
                self.rename()?;
                self.end_open(now_ms)?;
                self.mark_restored(switch_ms, now_ms)?;
            }
        }
        Ok(standing)
    }

    /// Takes another name. What waits keeps its numbers.
    fn rename(&mut self) -> rusqlite::Result<()> {
        self.outbox.link = Link::Down;
        self.outbox.id = OutboxId::from(rand::random::<[u8; 16]>());
        self.outbox.numbers.renew();
        self.store_name()
    }

    /// Notes that the session has ended: what is appended from here on is not sent at once.
    pub(crate) fn parted(&mut self) {
        self.outbox.link = Link::Down;
    }

    pub(super) fn store_name(&self) -> rusqlite::Result<()> {
        let mut value = self.outbox.id.as_bytes().to_vec();
        value.extend_from_slice(&self.outbox.numbers.next().to_be_bytes());
        value.extend_from_slice(&self.outbox.numbers.unoffered().to_be_bytes());
        self.set_meta("outbox", &value)
    }

    /// Takes name and numbers as they are on disk; returns whether there are any.
    pub(super) fn recall_name(&mut self, now_ms: i64) -> rusqlite::Result<bool> {
        let Some(value) = self.meta("outbox", now_ms)? else { return Ok(false) };
        let Some((id, numbers)) = name_and_numbers(&value) else { return Ok(false) };
        self.outbox.id = id;
        self.outbox.numbers = numbers;
        Ok(true)
    }

    /// Loads id and next number. If they are lost, the outbox takes another id: numbers used twice under one id would
    /// make the Switch drop records it never saw.
    pub(super) fn load_outbox(&mut self, now_ms: i64) -> rusqlite::Result<()> {
        if !self.recall_name(now_ms)? {
            self.outbox.id = OutboxId::from(rand::random::<[u8; 16]>());
            let highest = "SELECT coalesce(max(sequence), 0) FROM outbox";
            let highest = self.connection.query_row(highest, [], |row| unsigned(row, 0))?;
            self.outbox.numbers = OutboxNumbers::stored(highest.saturating_add(1), 1);
            self.store_name()?;
        }
        self.count_outbox()
    }
}

/// Reads what [`Tables::store_name`] wrote. Stores of the first versions do not have the last eight bytes: whatever
/// they numbered may have been offered.
fn name_and_numbers(value: &[u8]) -> Option<(OutboxId, OutboxNumbers)> {
    let (id, numbers) = value.split_at_checked(16)?;
    let (next, unoffered) = numbers.split_at_checked(8)?;
    let next = u64::from_be_bytes(next.try_into().ok()?);
    let unoffered = if unoffered.is_empty() { next } else { u64::from_be_bytes(unoffered.try_into().ok()?) };
    Some((OutboxId::try_from(id).ok()?, OutboxNumbers::stored(next, unoffered)))
}

#[cfg(test)]
mod tests;
