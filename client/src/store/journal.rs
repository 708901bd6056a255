//! The journal: which instructions this device has taken on, started and ended. It is what "at most one start" rests on.

use muster_proto::common::v1::Refusal;
use muster_proto::ids::{Digest, InstructionId};
use muster_proto::session::v1::InclusionProof;
use muster_proto::session::v1::{Frame, OrderDelivery, Result as InstructionResult, frame::Body};
use muster_signing::order::WINDOW_MAX;
use prost::Message;
use rusqlite::{OptionalExtension, params};

use super::outbox::interrupted;
use super::parts::Parts;
use super::stopped;
use super::tables::{Tables, checksum};

/// Orders that were answered without being taken on and are remembered; the oldest go first.
pub(super) const REFUSED_MAX: i64 = 1_000;

/// Answers to orders that prove nothing and wait in the outbox, at most; further ones are given once acks made room. A
/// Switch in the wrong hands could fill the disk with them otherwise.
pub(super) const UNPROVEN_RESULTS_MAX: i64 = 256;

/// How far an instruction has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JournalState {
    /// It was taken on and has not started.
    Intent,
    /// It started, and its end is not recorded.
    Started,
    /// Its result was put into the outbox.
    Done,
}

impl JournalState {
    fn number(self) -> i64 {
        match self {
            Self::Intent => 1,
            Self::Started => 2,
            Self::Done => 3,
        }
    }

    fn from_number(number: i64) -> Option<Self> {
        [Self::Intent, Self::Started, Self::Done].into_iter().find(|state| state.number() == number)
    }
}

/// One instruction as it was taken on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    /// Its id.
    pub(crate) instruction: InstructionId,
    /// SHA-256 of the order's envelope: the same id under another digest is a replay.
    pub(crate) order_digest: Digest,
    /// SHA-256 of the definition's envelope.
    pub(crate) definition: Digest,
    /// The end of its window, milliseconds since 1970.
    pub(crate) expires_at_ms: i64,
    /// The order as it came.
    pub(crate) envelope: Vec<u8>,
    /// The proof beside it.
    pub(crate) proof: Option<InclusionProof>,
}

/// What the journal knows of an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Recalled {
    /// The order it came with.
    pub(crate) order_digest: Digest,
    /// How far it has come.
    pub(crate) state: JournalState,
}

impl Tables {
    /// Returns what is known of an instruction.
    pub(crate) fn recall(&mut self, instruction: InstructionId) -> rusqlite::Result<Option<Recalled>> {
        Ok(self.row(instruction)?.and_then(|row| {
            let order_digest = Digest::try_from(row.order_digest.as_slice()).ok()?;
            Some(Recalled { order_digest, state: JournalState::from_number(row.state)? })
        }))
    }

    /// Returns whether an order was answered without being taken on, by the digest of its envelope. The same bytes start nothing for as long as
    /// they are remembered. That is no more than these bytes: what was refused as it was opened proved nothing, not even which instruction it
    /// is of, and the same signed text in another envelope (with another signature or a timestamp) is another order, judged anew. An
    /// instruction is known by the journal, which has it from the first order that held.
    pub(crate) fn is_refused(&self, order_digest: Digest) -> rusqlite::Result<bool> {
        self.connection
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM refused WHERE order_digest = ?1)")?
            .query_row([order_digest.as_bytes().as_slice()], |row| row.get(0))
    }

    /// Returns what is known of an instruction, and of the very order that names it.
    pub(crate) fn recall_order(
        &mut self,
        instruction: InstructionId,
        order_digest: Digest,
    ) -> rusqlite::Result<Option<Recalled>> {
        if let Some(recalled) = self.recall(instruction)? {
            return Ok(Some(recalled));
        }
        let is_over = self.stopped(instruction)?.is_some() || self.is_refused(order_digest)?;
        Ok(is_over.then_some(Recalled { order_digest, state: JournalState::Done }))
    }

    /// Takes an instruction on.
    pub(crate) fn record_intent(&mut self, entry: &Entry) -> rusqlite::Result<()> {
        let frame = Frame {
            body: Some(Body::Order(OrderDelivery { envelope: entry.envelope.clone().into() })),
            proof: entry.proof.clone(),
        };
        self.put(&Row {
            instruction: entry.instruction.as_bytes().to_vec(),
            order_digest: entry.order_digest.to_vec(),
            definition: entry.definition.to_vec(),
            state: JournalState::Intent.number(),
            expires_at_ms: entry.expires_at_ms,
            started_at_ms: 0,
            delivery: frame.encode_to_vec(),
            crc: 0,
        })
    }

    /// Marks the start. It is on disk before anything of the instruction runs; `false`: it has started or ended before,
    /// and must not run, or it was stopped.
    pub(crate) fn record_start(&mut self, instruction: InstructionId, now_ms: i64) -> rusqlite::Result<bool> {
        let Some(mut row) = self.row(instruction)? else { return Ok(false) };
        if row.state != JournalState::Intent.number() || self.stopped(instruction)?.is_some() {
            return Ok(false);
        }
        row.state = JournalState::Started.number();
        row.started_at_ms = now_ms;
        self.put(&row)?;
        Ok(true)
    }

    /// Puts the result into the outbox and marks the end, together. What has ended has its result: `None`, nothing is written.
    pub(crate) fn record_result(
        &mut self,
        result: InstructionResult,
        now_ms: i64,
    ) -> rusqlite::Result<Option<u64>> {
        self.record_answer(result, None, now_ms)
    }

    /// As [`Self::record_result`]; with `parts`, which have its rows, the result is put there as so many records.
    pub(crate) fn record_answer(
        &mut self,
        result: InstructionResult,
        parts: Option<&Parts>,
        now_ms: i64,
    ) -> rusqlite::Result<Option<u64>> {
        if let Ok(instruction) = InstructionId::try_from(result.instruction.as_slice())
            && let Some(mut row) = self.row(instruction)?
        {
            if row.state == JournalState::Done.number() {
                return Ok(None);
            }
            row.state = JournalState::Done.number();
            row.delivery = Vec::new();
            self.put(&row)?;
        }
        match parts {
            Some(parts) => self.append_parts(result, parts, now_ms).map(Some),
            None => self.append_result(result, now_ms).map(Some),
        }
    }

    /// Answers an order that was never taken on: the order's digest is remembered, and `None` says that it was
    /// answered before. With an entry, the instruction is remembered as ended. An order of an instruction that the journal
    /// knows (anything but a replay) is not answered, and its row is left as it is: that one has its own result.
    pub(crate) fn record_refusal(
        &mut self,
        order_digest: Digest,
        entry: Option<&Entry>,
        result: InstructionResult,
        now_ms: i64,
    ) -> rusqlite::Result<Option<u64>> {
        // A replay alone says something about another order than the one that the journal knows.
        if (entry.is_some() || result.refusal() != Refusal::Replayed)
            && let Ok(instruction) = InstructionId::try_from(result.instruction.as_slice())
            && self.row(instruction)?.is_some()
        {
            return Ok(None);
        }
        if entry.is_none()
            && !self.is_refused(order_digest)?
            && self.unproven_results()? >= UNPROVEN_RESULTS_MAX
        {
            metrics::counter!(crate::metrics::ORDERS_UNANSWERED).increment(1);
            return Ok(None);
        }
        if self.is_refused(order_digest)? {
            return Ok(None);
        }
        self.remember_refused(order_digest, now_ms)?;
        if let Some(entry) = entry {
            self.record_intent(entry)?;
            return self.record_result(result, now_ms);
        }
        self.append_result(result, now_ms).map(Some)
    }

    /// Remembers an order that was answered without being taken on.
    pub(super) fn remember_refused(&self, order_digest: Digest, now_ms: i64) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached("INSERT OR IGNORE INTO refused (order_digest, at_ms) VALUES (?1, ?2)")?
            .execute(params![order_digest.as_bytes().as_slice(), now_ms])?;
        self.connection
            .prepare_cached(
                "DELETE FROM refused WHERE order_digest IN (SELECT order_digest FROM refused WHERE order_digest <> ?1 ORDER BY at_ms DESC LIMIT -1 OFFSET ?2)",
            )?
            .execute(params![order_digest.as_bytes().as_slice(), REFUSED_MAX - 1])
            .map(drop)
    }

    /// Ends what had started and never ended, and returns what was taken on and never started.
    pub(crate) fn recover(&mut self, now_ms: i64) -> rusqlite::Result<Vec<Entry>> {
        let mut intents = Vec::new();
        for row in self.open_rows()? {
            let Ok(instruction) = InstructionId::try_from(row.instruction.as_slice()) else { continue };
            if row.state == JournalState::Started.number() {
                let detail = "the client ended between its start and its result; it is not run again";
                let result = interrupted(instruction, detail, row.started_at_ms, now_ms);
                let result = match self.stopped(instruction)? {
                    Some(by) => stopped::cancelled(result, &by),
                    None => result,
                };
                self.record_result(result, now_ms)?;
            } else if let Some(entry) = row.entry(instruction) {
                intents.push(entry);
            }
        }
        intents.sort_by_key(|entry| entry.instruction);
        Ok(intents)
    }

    /// Ends everything that was taken on and has no result: the store was brought back from a copy, and each of it may
    /// have started after the copy was made.
    pub(super) fn end_open(&mut self, now_ms: i64) -> rusqlite::Result<()> {
        for row in self.open_rows()? {
            let Ok(instruction) = InstructionId::try_from(row.instruction.as_slice()) else { continue };
            let detail = "this device's store was brought back from a copy; it may have run before, and is not run again";
            self.record_result(interrupted(instruction, detail, row.started_at_ms, now_ms), now_ms)?;
        }
        Ok(())
    }

    fn open_rows(&self) -> rusqlite::Result<Vec<Row>> {
        let mut statement = self.connection.prepare(&format!("{SELECT} WHERE state IN (1, 2)"))?;
        statement.query_map([], Row::read)?.collect()
    }

    /// Forgets instructions whose window ended so long ago. Only what the time floor has passed counts: an order that a clock
    /// which stepped forward had forgotten would run a second time once the clock is set right, and its window with it.
    pub(crate) fn forget_ended(&mut self, remember_ms: i64, now_ms: i64) -> rusqlite::Result<usize> {
        let certain_ms = now_ms.min(self.time_floor_ms(now_ms)?);
        self.forget(certain_ms.saturating_sub(remember_ms))
    }

    /// Forgets instructions whose window ended before `before_ms`.
    pub(crate) fn forget(&mut self, before_ms: i64) -> rusqlite::Result<usize> {
        let journal = self
            .connection
            .execute("DELETE FROM journal WHERE state = 3 AND expires_at_ms < ?1", [before_ms])?;
        // What could not be opened told no window.
        let refused = self
            .connection
            .execute("DELETE FROM refused WHERE at_ms < ?1", [before_ms.saturating_sub(window_ms())])?;
        Ok(journal + refused + self.forget_stopped(before_ms)?)
    }

    /// Sets damaged records aside. Their instructions count as ended, so that none of them can start a second time.
    pub(super) fn examine_journal(&mut self, now_ms: i64) -> rusqlite::Result<()> {
        let damaged: Vec<Row> = {
            let mut statement = self.connection.prepare(SELECT)?;
            let rows = statement.query_map([], Row::read)?;
            rows.filter(|row| row.as_ref().map_or(true, |row| !row.is_sound()))
                .collect::<rusqlite::Result<_>>()?
        };
        // Any of its fields may be the one that is wrong, and the clock may have been set back since: its window ends within the longest one
        // from the latest time that is known to have been.
        let known_ms = now_ms.max(self.time_floor_ms(now_ms)?);
        let latest_ms = known_ms.saturating_add(window_ms());
        for mut row in damaged {
            self.set_aside("journal", &row.instruction, &row.delivery, now_ms)?;
            let Ok(instruction) = InstructionId::try_from(row.instruction.as_slice()) else {
                self.connection.execute("DELETE FROM journal WHERE instruction = ?1", [&row.instruction])?;
                continue;
            };
            row.state = JournalState::Done.number();
            row.expires_at_ms = row.expires_at_ms.max(latest_ms);
            row.delivery = Vec::new();
            self.put(&row)?;
            if !self.has_result(instruction)? {
                let detail = "its journal record was damaged on this device's disk; it is not run again";
                self.append_result(interrupted(instruction, detail, 0, now_ms), now_ms)?;
            }
        }
        Ok(())
    }

    /// Counts results that wait and belong to no instruction that was taken on; no further than the bound.
    fn unproven_results(&self) -> rusqlite::Result<i64> {
        self.connection
            .prepare_cached(
                "SELECT count(*) FROM (SELECT 1 FROM outbox WHERE lane = 1 AND instruction NOT IN (SELECT instruction FROM journal) LIMIT ?1)",
            )?
            .query_row([UNPROVEN_RESULTS_MAX], |row| row.get(0))
    }

    fn has_result(&self, instruction: InstructionId) -> rusqlite::Result<bool> {
        self.connection.query_row(
            "SELECT EXISTS (SELECT 1 FROM outbox WHERE lane = 1 AND instruction = ?1)",
            [instruction.as_bytes().as_slice()],
            |row| row.get(0),
        )
    }

    fn row(&self, instruction: InstructionId) -> rusqlite::Result<Option<Row>> {
        self.connection
            .prepare_cached(&format!("{SELECT} WHERE instruction = ?1"))?
            .query_row([instruction.as_bytes().as_slice()], Row::read)
            .optional()
    }

    fn put(&self, row: &Row) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached("INSERT OR REPLACE INTO journal VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?
            .execute(params![
                row.instruction,
                row.order_digest,
                row.definition,
                row.state,
                row.expires_at_ms,
                row.started_at_ms,
                row.delivery,
                row.checksum(),
            ])?;
        Ok(())
    }
}

/// No window is longer than this.
fn window_ms() -> i64 {
    i64::try_from(WINDOW_MAX.as_millis()).unwrap_or(i64::MAX)
}

const SELECT: &str = "SELECT instruction, order_digest, definition, state, expires_at_ms, started_at_ms, delivery, crc FROM journal";

struct Row {
    instruction: Vec<u8>,
    order_digest: Vec<u8>,
    definition: Vec<u8>,
    state: i64,
    expires_at_ms: i64,
    started_at_ms: i64,
    delivery: Vec<u8>,
    crc: i64,
}

impl Row {
    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            instruction: row.get(0)?,
            order_digest: row.get(1)?,
            definition: row.get(2)?,
            state: row.get(3)?,
            expires_at_ms: row.get(4)?,
            started_at_ms: row.get(5)?,
            delivery: row.get(6)?,
            crc: row.get(7)?,
        })
    }

    fn checksum(&self) -> i64 {
        checksum(
            "journal",
            &[
                &self.instruction,
                &self.order_digest,
                &self.definition,
                &self.state.to_be_bytes(),
                &self.expires_at_ms.to_be_bytes(),
                &self.started_at_ms.to_be_bytes(),
                &self.delivery,
            ],
        )
    }

    fn is_sound(&self) -> bool {
        self.crc == self.checksum() && JournalState::from_number(self.state).is_some()
    }

    fn entry(&self, instruction: InstructionId) -> Option<Entry> {
        let frame = Frame::decode(self.delivery.as_slice()).ok()?;
        let Some(Body::Order(OrderDelivery { envelope })) = frame.body else { return None };
        Some(Entry {
            instruction,
            order_digest: Digest::try_from(self.order_digest.as_slice()).ok()?,
            definition: Digest::try_from(self.definition.as_slice()).ok()?,
            expires_at_ms: self.expires_at_ms,
            envelope: envelope.to_vec(),
            proof: frame.proof,
        })
    }
}
