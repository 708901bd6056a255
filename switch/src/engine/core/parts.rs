//! Results in parts: one after the other, and together no more than the definition allows.
//!
//! What is stored of a result decides which part is due. A part's sequence does not: a gap may have named it, and a client
//! whose store was restored sends everything again under new ones.
//!
//! A device is believed no further than its order: what it sends beyond is acked, so that its outbox drains, and not
//! stored. Of a target that has yet to end, the rest of the result would be worth nothing, so the target fails.

use muster_proto::common::v1::TargetState;
use muster_proto::ids::{Digest, InstructionId};
use muster_proto::limits::RESULT_BYTES_MAX;
use muster_proto::session::v1::Result as SessionResult;

use super::Core;
use super::intake::Place;
use crate::engine::store::Received;

/// One part of a result, before it is taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    pub(super) instruction: InstructionId,
    pub(super) number: u32,
    /// The part's number within the result.
    pub(super) part: u32,
    /// Its encoded length.
    pub(super) bytes: u64,
}

/// Why a part is not taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PartError {
    /// One before it is missing.
    #[error(
        "part {got} of the result came where part {due} was due; update the client, then issue the instruction again"
    )]
    OutOfOrder { due: u32, got: u32 },
    /// The parts together are more than was signed.
    #[error(
        "the result has {got} bytes in {parts} parts, at most {most} are taken (limits.bytes of the definition and one \
         message); update the client, then issue the instruction again"
    )]
    TooLarge { got: u64, parts: u32, most: u64 },
}

/// `limits.bytes` of a definition at most, for an instruction whose definition cannot be told any more.
const LIMIT_BYTES_MAX: u64 = 16 << 20;

/// What a result may have beyond `limits.bytes`, which counts rows only: one message of the largest size.
const FRAMING_BYTES: u64 = RESULT_BYTES_MAX as u64;

impl Core {
    /// Returns whether a part of an open target is stored already: by whatever sequence it came, it is due once.
    pub(super) fn is_stored(&self, position: i64, place: Place, part: &Part) -> bool {
        let before = self.received(position, place, part.instruction, part.number);
        place == Place::Open && part.part < before.parts
    }

    /// Checks a part against those that came before it.
    pub(super) fn check_part(&self, position: i64, place: Place, part: &Part) -> Result<(), PartError> {
        let Part { instruction, number, bytes, part } = part;
        let before = self.received(position, place, *instruction, *number);
        // What came late or for a damaged instruction is rather kept than lost, also with a part missing.
        if place == Place::Open && *part != before.parts {
            return Err(PartError::OutOfOrder { due: before.parts, got: *part });
        }
        let got = before.bytes.saturating_add(*bytes);
        let most = self.limit_bytes(position, place, *instruction).saturating_add(FRAMING_BYTES);
        if got > most {
            return Err(PartError::TooLarge { got, parts: before.parts.saturating_add(1), most });
        }
        Ok(())
    }

    /// Notes that a part is stored. After the last one of a target that has yet to end nothing more can come.
    pub(super) fn part_taken(&mut self, position: i64, place: Place, part: &Part) {
        let Part { instruction, number, bytes, .. } = *part;
        let received = match place {
            Place::Open => self.active.get_mut(&position).map(|active| &mut active.received),
            Place::SetAside => self.set_aside.get_mut(&instruction).map(|aside| &mut aside.received),
            Place::Late => None,
        };
        if let Some(received) = received {
            received.entry(number).or_default().add(bytes);
        }
        // Also of an open target: it may expire before its last part comes.
        if let Some(late) = self.late.get_mut(&instruction) {
            late.received.entry(number).or_default().add(bytes);
        }
    }

    /// Returns what is stored of a device's result.
    fn received(&self, position: i64, place: Place, id: InstructionId, number: u32) -> Received {
        let received = match place {
            Place::Open => self.active.get(&position).map(|active| &active.received),
            Place::SetAside => self.set_aside.get(&id).map(|aside| &aside.received),
            Place::Late => self.late.get(&id).map(|late| &late.received),
        };
        received.and_then(|received| received.get(&number)).copied().unwrap_or_default()
    }

    fn limit_bytes(&self, position: i64, place: Place, id: InstructionId) -> u64 {
        let digest = match place {
            Place::Open => self.active.get(&position).map(|active| &active.definition_digest),
            Place::SetAside => None,
            Place::Late => self.late.get(&id).map(|late| &late.definition_digest),
        };
        let digest = digest.and_then(|digest| Digest::try_from(&digest[..]).ok());
        let held = digest.and_then(|digest| self.catalogue.definition_by_digest(digest));
        held.map_or(LIMIT_BYTES_MAX, |held| held.document.limits().bytes.into())
    }
}

impl PartError {
    /// Returns its name in metrics.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::OutOfOrder { .. } => "part_out_of_order",
            Self::TooLarge { .. } => "result_too_large",
        }
    }

    /// Makes what is stored in the place of the part.
    pub(super) fn into_failure(self, refused: &SessionResult, due: u32) -> SessionResult {
        SessionResult {
            sequence: refused.sequence,
            instruction: refused.instruction.clone(),
            state: TargetState::Failed.into(),
            detail: self.to_string(),
            part: due,
            last: true,
            started_at_ms: refused.started_at_ms,
            finished_at_ms: refused.finished_at_ms,
            ..SessionResult::default()
        }
    }

    /// Returns the part that was due.
    pub(super) fn due(&self) -> u32 {
        match self {
            Self::OutOfOrder { due, .. } => *due,
            Self::TooLarge { parts, .. } => parts.saturating_sub(1),
        }
    }
}
