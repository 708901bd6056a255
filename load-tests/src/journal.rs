//! What a simulated device keeps from one session to the next: which orders it started, and what is not acked yet.
//!
//! It lives as long as the device's task. The real client's journal is on disk; a sweep that kills clients uses the
//! real one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use muster_proto::common::v1::{Column, ColumnType, NamedValue, Row, TargetState, Value, value::Kind};
use muster_proto::ids::InstructionId;
use muster_proto::session::v1::{Event, Lane, Result as InstructionResult, SequenceRange};

/// The journal and outbox of one simulated device.
#[derive(Debug)]
pub struct Journal {
    outbox_id: [u8; 16],
    last_sequence: u64,
    started: BTreeSet<InstructionId>,
    waiting: BTreeMap<u64, Record>,
}

/// Something that waits for its ack.
#[derive(Debug, Clone)]
pub enum Record {
    /// An answer.
    Result(Box<InstructionResult>),
    /// An event.
    Event(Box<Event>),
}

/// Whether an order was seen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// For the first time: it starts.
    First,
    /// It came before: it does not start again.
    Repeat,
}

impl Default for Journal {
    fn default() -> Self {
        Self::new()
    }
}

impl Journal {
    /// Makes an empty one with an `outbox_id` of its own.
    #[must_use]
    pub fn new() -> Self {
        Self {
            outbox_id: rand::random(),
            last_sequence: 0,
            started: BTreeSet::new(),
            waiting: BTreeMap::new(),
        }
    }

    /// What names this outbox in every session.
    #[must_use]
    pub fn outbox_id(&self) -> [u8; 16] {
        self.outbox_id
    }

    /// Notes that an order is about to start, unless it did before.
    pub fn start(&mut self, instruction: InstructionId) -> Seen {
        if self.started.insert(instruction) { Seen::First } else { Seen::Repeat }
    }

    /// Notes that an instruction is never to start, and puts that into the outbox, unless it has started.
    pub fn stop(&mut self, instruction: InstructionId) {
        if self.start(instruction) == Seen::First {
            let result = InstructionResult {
                sequence: self.next_sequence(),
                instruction: instruction.to_vec(),
                state: TargetState::Cancelled.into(),
                detail: "it was stopped".to_owned(),
                last: true,
                finished_at_ms: now_ms(),
                ..InstructionResult::default()
            };
            self.waiting.insert(result.sequence, Record::Result(Box::new(result)));
        }
    }

    /// Puts a made-up answer into the outbox.
    pub fn answer(&mut self, instruction: InstructionId) {
        let now = now_ms();
        let column = |name: &str| Column { name: name.to_owned(), r#type: ColumnType::Text.into() };
        let result = InstructionResult {
            sequence: self.next_sequence(),
            instruction: instruction.to_vec(),
            state: TargetState::Answered.into(),
            columns: vec![column("name"), column("version")],
            rows: vec![Row { values: vec![text("Simulated Linux"), text("1")] }],
            last: true,
            started_at_ms: now,
            finished_at_ms: now,
            ..InstructionResult::default()
        };
        self.waiting.insert(result.sequence, Record::Result(Box::new(result)));
    }

    /// Puts an event about an answer into the outbox.
    pub fn report(&mut self, instruction: InstructionId) {
        let field =
            NamedValue { name: "instruction".to_owned(), value: Some(text(&instruction.to_string())) };
        let event = Event {
            sequence: self.next_sequence(),
            occurred_at_ms: now_ms(),
            name: "load.answered".to_owned(),
            fields: vec![field],
        };
        self.waiting.insert(event.sequence, Record::Event(Box::new(event)));
    }

    /// Puts an event of its own accord into the outbox.
    pub fn note(&mut self) {
        let event = Event {
            sequence: self.next_sequence(),
            occurred_at_ms: now_ms(),
            name: "load.noted".to_owned(),
            fields: vec![NamedValue { name: "disk".to_owned(), value: Some(text("/dev/vda1 is 91 % full")) }],
        };
        self.waiting.insert(event.sequence, Record::Event(Box::new(event)));
    }

    /// The first record after a sequence that waits for its ack.
    #[must_use]
    pub fn waiting_after(&self, sequence: u64) -> Option<(u64, Record)> {
        self.waiting.range(sequence + 1..).next().map(|(sequence, record)| (*sequence, record.clone()))
    }

    /// How many results and events wait.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        let results = self.waiting.values().filter(|record| record.lane() == Lane::Results).count();
        let of = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        (of(results), of(self.waiting.len() - results))
    }

    /// Forgets what is on the Switch's disk; gives the sequences that waited for it.
    pub fn acked(&mut self, ranges: &[SequenceRange]) -> Vec<u64> {
        let sequences: Vec<u64> = ranges
            .iter()
            .flat_map(|range| self.waiting.range(range.first..=range.last.max(range.first)))
            .map(|(sequence, _)| *sequence)
            .collect();
        for sequence in &sequences {
            self.waiting.remove(sequence);
        }
        sequences
    }

    fn next_sequence(&mut self) -> u64 {
        self.last_sequence += 1;
        self.last_sequence
    }
}

impl Record {
    /// The lane it goes by.
    #[must_use]
    pub fn lane(&self) -> Lane {
        match self {
            Self::Result(_) => Lane::Results,
            Self::Event(_) => Lane::Events,
        }
    }
}

fn text(value: &str) -> Value {
    Value { kind: Some(Kind::Text(value.to_owned())) }
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_starts_once_and_its_result_waits_until_it_is_acked() {
        let (mut journal, instruction) = (Journal::new(), InstructionId::from([7; 16]));

        assert_eq!(journal.start(instruction), Seen::First);
        journal.answer(instruction);
        journal.report(instruction);
        assert_eq!(journal.start(instruction), Seen::Repeat);
        assert_eq!(journal.counts(), (1, 1));

        assert_eq!(journal.acked(&[SequenceRange { first: 1, last: 1 }]), [1]);
        assert_eq!(journal.acked(&[SequenceRange { first: 1, last: 1 }]), [0; 0], "an ack may come twice");
        assert_eq!(journal.waiting_after(0).map(|(sequence, _)| sequence), Some(2));
        assert!(journal.waiting_after(2).is_none());
    }

    #[test]
    fn what_was_stopped_never_starts_and_what_had_started_keeps_its_answer() {
        let (mut journal, stopped, answered) =
            (Journal::new(), InstructionId::from([7; 16]), InstructionId::from([8; 16]));
        assert_eq!(journal.start(answered), Seen::First);
        journal.answer(answered);

        for instruction in [stopped, stopped, answered] {
            journal.stop(instruction);
            assert_eq!(journal.start(instruction), Seen::Repeat);
        }

        assert_eq!(journal.counts(), (2, 0));
    }
}
