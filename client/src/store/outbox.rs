//! The outbox: results and events until somebody else has them on disk.

use muster_proto::common::v1::{NamedValue, TargetState};
use muster_proto::frame;
use muster_proto::ids::{InstructionId, OutboxId};
use muster_proto::numbers::{Link, OutboxNumbers};
use muster_proto::seen::GAP_EVENT;
use muster_proto::session::v1::{Event, Result as InstructionResult, SequenceRange};
use prost::Message;
use rusqlite::{OptionalExtension as _, Row, params};

use super::gap::Gap;
use super::parts::without_rows;
use super::tables::{Tables, checksum};
use crate::value;

/// After a drop the queue is this much of its bound (in eighths), so that a flood does not leave a gap for each event.
const KEPT_EIGHTHS: u64 = 7;

/// Which queue a record waits in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QueueLane {
    /// Results.
    Results,
    /// Events.
    Events,
}

impl QueueLane {
    pub(super) fn number(self) -> i64 {
        match self {
            Self::Results => 1,
            Self::Events => 2,
        }
    }
}

/// A record that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Queued {
    /// Its number.
    pub(crate) sequence: u64,
    /// The encoded `Result` or `Event`.
    pub(crate) record: Vec<u8>,
}

/// What waits, and how much of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct OutboxCounts {
    /// Results that wait.
    pub results: u64,
    /// Their bytes.
    pub results_bytes: u64,
    /// Events that wait.
    pub events: u64,
    /// Their bytes.
    pub events_bytes: u64,
}

/// What the writer remembers of the outbox between batches.
#[derive(Debug)]
pub(super) struct OutboxState {
    pub(super) id: OutboxId,
    pub(super) numbers: OutboxNumbers,
    /// Whether a session takes what is appended at once. Not on disk: a store that is opened has none.
    pub(super) link: Link,
    counts: OutboxCounts,
    /// Records appended since the store was opened.
    appended: u64,
}

impl Default for OutboxState {
    fn default() -> Self {
        Self {
            id: OutboxId::from([0; 16]),
            numbers: OutboxNumbers::NEW,
            link: Link::Down,
            counts: OutboxCounts::default(),
            appended: 0,
        }
    }
}

/// Makes an event without its number.
pub(crate) fn event_record(occurred_at_ms: i64, name: &str, fields: Vec<NamedValue>) -> Event {
    Event { sequence: 0, occurred_at_ms, name: name.to_owned(), fields }
}

impl Tables {
    /// Appends an event and returns its number. Beyond the bounds the oldest go, counted.
    pub(crate) fn append_event(&mut self, event: Event, now_ms: i64) -> rusqlite::Result<u64> {
        let event = carried(event);
        let sequence = self.append_event_unbounded(event, now_ms)?;
        self.drop_beyond_bounds(now_ms)?;
        Ok(sequence)
    }

    /// Appends a result and returns its number. A result that has no room is stored as failed, without its rows: every
    /// started instruction has one.
    pub(crate) fn append_result(
        &mut self,
        mut result: InstructionResult,
        now_ms: i64,
    ) -> rusqlite::Result<u64> {
        if result.encoded_len() as u64 > self.results_room() && !result.rows.is_empty() {
            result = self.without_room(result);
        }
        let sequence = self.take_sequence()?;
        result.sequence = sequence;
        self.insert(sequence, QueueLane::Results, &result.instruction, now_ms, &result.encode_to_vec())?;
        Ok(sequence)
    }

    /// Returns how many bytes of results may still be added.
    pub(super) fn results_room(&self) -> u64 {
        self.limits.results_bytes_max.saturating_sub(self.outbox.counts.results_bytes)
    }

    /// Makes the answer of what ran and whose rows have no room.
    pub(super) fn without_room(&self, result: InstructionResult) -> InstructionResult {
        let waits = self.outbox.counts.results_bytes;
        let detail = format!(
            "it ran, but the outbox of this device is full ({waits} bytes of results wait); its rows were left out"
        );
        without_rows(result, detail)
    }

    /// Returns what waits in a lane behind `after`, oldest first: at least one record if there is one, else as many as
    /// fit. Damaged ones are set aside.
    pub(crate) fn queued(
        &mut self,
        lane: QueueLane,
        after: u64,
        bytes_max: usize,
        now_ms: i64,
    ) -> rusqlite::Result<Vec<Queued>> {
        let mut found = Vec::new();
        let mut damaged = Vec::new();
        {
            let mut statement = self.connection.prepare_cached(
                "SELECT sequence, instruction, at_ms, record, crc FROM outbox WHERE lane = ?1 AND sequence > ?2 ORDER BY sequence",
            )?;
            let mut rows = statement.query(params![lane.number(), stored(after)])?;
            let mut bytes = 0_usize;
            while let Some(row) = rows.next()? {
                let stored = StoredRecord::read(row, lane)?;
                if !stored.is_sound() {
                    damaged.push(stored);
                    continue;
                }
                bytes = bytes.saturating_add(stored.record.len());
                if bytes > bytes_max && !found.is_empty() {
                    break;
                }
                found.push(Queued { sequence: stored.sequence, record: stored.record });
            }
        }
        for record in damaged {
            self.set_record_aside(record, now_ms)?;
        }
        Ok(found)
    }

    /// Returns the events that wait behind `after`, as [`Self::queued`] does, and at most so many. One that is no event is set aside.
    pub(crate) fn queued_events(
        &mut self,
        after: u64,
        bytes_max: usize,
        events_max: usize,
        now_ms: i64,
    ) -> rusqlite::Result<Vec<Event>> {
        loop {
            let (mut events, mut undecoded) = (Vec::new(), Vec::new());
            for Queued { sequence, record } in self.queued(QueueLane::Events, after, bytes_max, now_ms)? {
                match Event::decode(&record[..]) {
                    Ok(event) => events.push(Event { sequence, ..event }),
                    Err(_) => undecoded.push(sequence),
                }
            }
            for sequence in &undecoded {
                self.set_undecoded_aside(QueueLane::Events, *sequence, now_ms)?;
            }
            // Each turn takes away what it found, and leaves sound events in its place.
            if !events.is_empty() || undecoded.is_empty() {
                events.truncate(events_max);
                return Ok(events);
            }
        }
    }

    /// Sets a record aside whose checksum holds and that cannot be read all the same, and tells that its number will never come:
    /// the number is what the checksum vouches for. Without that, whoever keeps the events would wait for it.
    pub(crate) fn set_undecoded_aside(
        &mut self,
        lane: QueueLane,
        sequence: u64,
        now_ms: i64,
    ) -> rusqlite::Result<()> {
        let found = self
            .connection
            .prepare_cached(
                "SELECT sequence, instruction, at_ms, record, crc FROM outbox WHERE lane = ?1 AND sequence = ?2",
            )?
            .query_row(params![lane.number(), stored(sequence)], |row| StoredRecord::read(row, lane))
            .optional()?;
        let Some(found) = found else { return Ok(()) };
        let mut gap = Gap::default();
        gap.add(sequence, lane, &found.record);
        self.set_record_aside(found, now_ms)?;
        for fields in gap.into_events() {
            self.append_event_unbounded(event_record(now_ms, GAP_EVENT, fields), now_ms)?;
        }
        self.count_outbox()
    }

    /// Deletes what somebody else has on disk.
    pub(crate) fn acked(&mut self, lane: QueueLane, ranges: &[SequenceRange]) -> rusqlite::Result<()> {
        for range in ranges {
            self.connection
                .prepare_cached("DELETE FROM outbox WHERE lane = ?1 AND sequence BETWEEN ?2 AND ?3")?
                .execute(params![lane.number(), stored(range.first), stored(range.last)])?;
        }
        self.count_outbox()
    }

    /// Deletes what somebody else has on disk under this name; nothing if the outbox has taken another meanwhile, since
    /// what was acked may then have been taken for a repeat.
    pub(crate) fn acked_of(
        &mut self,
        outbox: OutboxId,
        lane: QueueLane,
        ranges: &[SequenceRange],
    ) -> rusqlite::Result<()> {
        if outbox == self.outbox.id { self.acked(lane, ranges) } else { Ok(()) }
    }

    /// Replaces a result that the peer would refuse by one that says so.
    pub(crate) fn replace_result(
        &mut self,
        sequence: u64,
        detail: &str,
        now_ms: i64,
    ) -> rusqlite::Result<()> {
        let Some(queued) = self.queued(QueueLane::Results, sequence.saturating_sub(1), 1, now_ms)?.pop()
        else {
            return Ok(());
        };
        let refused = InstructionResult::decode(&queued.record[..]).unwrap_or_default();
        self.acked(QueueLane::Results, &[SequenceRange { first: sequence, last: sequence }])?;
        let Ok(instruction) = InstructionId::try_from(&refused.instruction[..]) else {
            return Ok(());
        };
        let mut result = interrupted(instruction, detail, 0, now_ms);
        result.state = TargetState::Failed.into();
        result.part = refused.part;
        self.append_result(result, now_ms)?;
        Ok(())
    }

    /// Returns what waits.
    pub(crate) fn outbox_counts(&self) -> OutboxCounts {
        self.outbox.counts
    }

    /// Returns how many records were appended since the store was opened.
    pub(crate) fn appended(&self) -> u64 {
        self.outbox.appended
    }

    /// Drops what is too old or too much, and tells all of it.
    pub(crate) fn drop_beyond_bounds(&mut self, now_ms: i64) -> rusqlite::Result<()> {
        let age_ms = i64::try_from(self.limits.age_max.as_millis()).unwrap_or(i64::MAX);
        let oldest_ms = self.certain_ms(now_ms)?.saturating_sub(age_ms);
        let mut gap = Gap::default();
        self.collect(&mut gap, "at_ms < ?1", oldest_ms)?;
        if self.outbox.counts.events_bytes > self.limits.events_bytes_max {
            let kept = self.limits.events_bytes_max / 8 * KEPT_EIGHTHS;
            if let Some(last) = self.last_to_drop(kept)? {
                self.collect(&mut gap, "lane = 2 AND sequence <= ?1", last)?;
            }
        }
        if gap.dropped == 0 {
            return Ok(());
        }
        tracing::warn!(
            dropped = gap.dropped,
            first = gap.first,
            last = gap.last,
            "the outbox is over its bounds"
        );
        metrics::counter!(crate::metrics::OUTBOX_DROPPED).increment(gap.dropped);
        for fields in gap.into_events() {
            self.append_event_unbounded(event_record(now_ms, GAP_EVENT, fields), now_ms)?;
        }
        self.count_outbox()
    }

    fn append_event_unbounded(&mut self, mut event: Event, now_ms: i64) -> rusqlite::Result<u64> {
        let sequence = self.take_sequence()?;
        event.sequence = sequence;
        self.insert(sequence, QueueLane::Events, &[], now_ms, &event.encode_to_vec())?;
        Ok(sequence)
    }

    pub(super) fn insert(
        &mut self,
        sequence: u64,
        lane: QueueLane,
        instruction: &[u8],
        at_ms: i64,
        record: &[u8],
    ) -> rusqlite::Result<()> {
        let crc = record_checksum(sequence, lane, instruction, at_ms, record);
        self.connection
            .prepare_cached(
                "INSERT INTO outbox (sequence, lane, instruction, at_ms, record, crc) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![stored(sequence), lane.number(), instruction, at_ms, record, crc])?;
        self.outbox.appended += 1;
        let counts = &mut self.outbox.counts;
        match lane {
            QueueLane::Results => {
                counts.results += 1;
                counts.results_bytes += record.len() as u64;
            }
            QueueLane::Events => {
                counts.events += 1;
                counts.events_bytes += record.len() as u64;
            }
        }
        Ok(())
    }

    /// Appends bytes that are no record of that lane, with a checksum that holds.
    #[cfg(test)]
    pub(super) fn append_bytes(
        &mut self,
        lane: QueueLane,
        instruction: &[u8],
        record: &[u8],
    ) -> rusqlite::Result<u64> {
        let sequence = self.take_sequence()?;
        self.insert(sequence, lane, instruction, 0, record)?;
        Ok(sequence)
    }

    /// Returns the sequence up to which the oldest events must go so that at most `kept` bytes stay.
    fn last_to_drop(&self, kept: u64) -> rusqlite::Result<Option<i64>> {
        let mut excess = self.outbox.counts.events_bytes.saturating_sub(kept);
        let mut statement = self
            .connection
            .prepare_cached("SELECT sequence, length(record) FROM outbox WHERE lane = 2 ORDER BY sequence")?;
        let mut rows = statement.query([])?;
        let mut last = None;
        while let Some(row) = rows.next()? {
            if excess == 0 {
                break;
            }
            last = Some(row.get(0)?);
            excess = excess.saturating_sub(unsigned(row, 1)?);
        }
        Ok(last)
    }

    /// Moves records from the table into a gap. `condition` is a constant of this file.
    fn collect(&mut self, gap: &mut Gap, condition: &str, bound: i64) -> rusqlite::Result<()> {
        {
            let mut statement = self.connection.prepare_cached(&format!(
                "SELECT sequence, lane, record FROM outbox WHERE {condition} ORDER BY sequence"
            ))?;
            let mut rows = statement.query([bound])?;
            while let Some(row) = rows.next()? {
                let lane = if row.get::<_, i64>(1)? == QueueLane::Results.number() {
                    QueueLane::Results
                } else {
                    QueueLane::Events
                };
                gap.add(unsigned(row, 0)?, lane, &row.get::<_, Vec<u8>>(2)?);
            }
        }
        self.connection.prepare_cached(&format!("DELETE FROM outbox WHERE {condition}"))?.execute([bound])?;
        self.count_outbox()
    }

    pub(super) fn take_sequence(&mut self) -> rusqlite::Result<u64> {
        let sequence = self.outbox.numbers.take(self.outbox.link);
        self.store_name()?;
        Ok(sequence)
    }

    /// Sets damaged records aside.
    pub(super) fn examine_outbox(&mut self, now_ms: i64) -> rusqlite::Result<()> {
        for lane in [QueueLane::Results, QueueLane::Events] {
            let mut after = 0;
            loop {
                let batch = self.queued(lane, after, EXAMINED_BYTES, now_ms)?;
                let Some(last) = batch.last() else { break };
                after = last.sequence;
            }
        }
        // A record whose lane is damaged is in neither queue.
        let strays: Vec<StoredRecord> = {
            let mut statement = self.connection.prepare(
                "SELECT sequence, instruction, at_ms, record, crc FROM outbox WHERE lane NOT IN (1, 2)",
            )?;
            let rows = statement.query_map([], |row| StoredRecord::read(row, QueueLane::Events))?;
            rows.collect::<rusqlite::Result<_>>()?
        };
        for stray in strays {
            self.set_record_aside(stray, now_ms)?;
        }
        self.count_outbox()
    }

    /// Moves a damaged record away. A result leaves `INTERRUPTED` behind, so that its target does not wait for ever.
    fn set_record_aside(&mut self, record: StoredRecord, now_ms: i64) -> rusqlite::Result<()> {
        self.set_aside("outbox", &record.sequence.to_be_bytes(), &record.record, now_ms)?;
        self.connection.execute("DELETE FROM outbox WHERE sequence = ?1", [stored(record.sequence)])?;
        self.count_outbox()?;
        if let Ok(instruction) = InstructionId::try_from(record.instruction.as_slice()) {
            let detail = "it ran, but its result was damaged on this device's disk";
            let part = self.part_of(instruction, record.sequence, &record.record)?;
            let result = InstructionResult { part, ..interrupted(instruction, detail, 0, now_ms) };
            self.append_result(result, now_ms)?;
        }
        Ok(())
    }

    pub(super) fn count_outbox(&mut self) -> rusqlite::Result<()> {
        let count = |lane: QueueLane| {
            self.connection
                .prepare_cached(
                    "SELECT count(*), coalesce(sum(length(record)), 0) FROM outbox WHERE lane = ?1",
                )?
                .query_row([lane.number()], |row| Ok((unsigned(row, 0)?, unsigned(row, 1)?)))
        };
        let (results, results_bytes) = count(QueueLane::Results)?;
        let (events, events_bytes) = count(QueueLane::Events)?;
        self.outbox.counts = OutboxCounts { results, results_bytes, events, events_bytes };
        Ok(())
    }
}

/// Returns the event if a Switch would take it; else one that says what was wrong with it. What comes from outside was
/// checked before: this is for the client's own, which would block every road.
fn carried(event: Event) -> Event {
    match frame::check_event(&Event { sequence: 1, ..event.clone() }) {
        Ok(()) => event,
        Err(error) => {
            tracing::error!(name = event.name, %error, "an event breaks the protocol; its fields are left out");
            let problem = vec![value::text("problem", &error.to_string())];
            event_record(event.occurred_at_ms, "event.invalid", problem)
        }
    }
}

/// How many bytes are examined at once when the store is opened.
const EXAMINED_BYTES: usize = 4 << 20;

/// Makes the result of an instruction that started and whose end nobody knows.
pub(super) fn interrupted(
    instruction: InstructionId,
    detail: &str,
    started_at_ms: i64,
    now_ms: i64,
) -> InstructionResult {
    InstructionResult {
        instruction: instruction.as_bytes().to_vec(),
        state: TargetState::Interrupted.into(),
        detail: detail.to_owned(),
        last: true,
        started_at_ms,
        finished_at_ms: now_ms,
        ..InstructionResult::default()
    }
}

struct StoredRecord {
    sequence: u64,
    lane: QueueLane,
    instruction: Vec<u8>,
    at_ms: i64,
    record: Vec<u8>,
    crc: i64,
}

impl StoredRecord {
    fn read(row: &Row<'_>, lane: QueueLane) -> rusqlite::Result<Self> {
        Ok(Self {
            sequence: unsigned(row, 0)?,
            lane,
            instruction: row.get(1)?,
            at_ms: row.get(2)?,
            record: row.get(3)?,
            crc: row.get(4)?,
        })
    }

    fn is_sound(&self) -> bool {
        self.crc == record_checksum(self.sequence, self.lane, &self.instruction, self.at_ms, &self.record)
    }
}

fn record_checksum(sequence: u64, lane: QueueLane, instruction: &[u8], at_ms: i64, record: &[u8]) -> i64 {
    checksum(
        "outbox",
        &[&sequence.to_be_bytes(), &lane.number().to_be_bytes(), instruction, &at_ms.to_be_bytes(), record],
    )
}

/// Returns a number that is never negative unless it is damaged; its checksum tells then.
pub(super) fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(u64::try_from(row.get::<_, i64>(column)?).unwrap_or(0))
}

/// SQLite's integers are signed; no outbox reaches 2^63.
fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
