//! What a late result needs to know of an instruction that is complete, and so no longer in memory.

use std::collections::HashMap;

use muster_proto::common::v1::TargetState;
use muster_proto::ids::InstructionId;
use muster_proto::order::v1::Order;
use prost::Message;
use roaring::RoaringBitmap;
use rusqlite::{Connection, OptionalExtension};

use super::load::replay;
use super::{InstructionRecord, Store, StoreError, checked, kept, key};
use crate::engine::damage::Damage;
use crate::engine::ledger::Ledger;

/// The states in which a target may have ended without its device's result. A refusal may be the device's own, too: what is stored of
/// its result tells.
pub(crate) const ENDED_WITHOUT_IT: [TargetState; 3] =
    [TargetState::Expired, TargetState::Cancelled, TargetState::Refused];

/// Who may bring a late result of an instruction.
#[derive(Debug)]
pub(crate) struct Late {
    pub(crate) position: i64,
    /// The targets that expired, were refused or whose device was removed; `None` if a damaged record hides them: then a result is
    /// rather kept than lost.
    pub(crate) unanswered: Option<RoaringBitmap>,
    /// What of a result each of them has in the store already.
    pub(crate) received: HashMap<u32, Received>,
    /// Its results have been kept long enough: what comes now has no place.
    pub(crate) is_deleted: bool,
    /// Empty if a damaged record hides it.
    pub(crate) definition_digest: Vec<u8>,
}

/// How much of a device's result is in the store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) parts: u32,
    /// Bytes, about: as they came, or as they lie in the store.
    pub(crate) bytes: u64,
}

impl Received {
    /// Adds a part.
    pub(crate) fn add(&mut self, bytes: u64) {
        self.parts = self.parts.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

impl Store {
    /// Returns what is committed of an instruction; `None` if there is none of that id.
    pub(crate) fn recall(&self, id: InstructionId, damage: &Damage) -> Result<Option<Late>, StoreError> {
        self.look_up(id, damage).map_err(|cause| self.error(&cause))
    }

    fn look_up(&self, id: InstructionId, damage: &Damage) -> rusqlite::Result<Option<Late>> {
        let sql = "SELECT position, record, crc FROM instructions WHERE id = ?1";
        let mut statement = self.connection().prepare_cached(sql)?;
        let row = statement.query_row([id.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
        let Some((position, record, crc)): Option<(i64, Vec<u8>, i64)> = row.optional()? else {
            return Ok(None);
        };
        let (unanswered, definition_digest) = match self.unanswered(position, id, &record, crc)? {
            Ok((unanswered, digest)) => (Some(unanswered), digest),
            Err(what) => {
                damage.note("instructions", &id.to_string(), &what);
                (None, Vec::new())
            }
        };
        let is_deleted = kept::is_deleted(self.connection(), position)?;
        // What is left of the others says nothing of one that has no place any more.
        let mut received = if is_deleted { HashMap::new() } else { received(self.connection(), position)? };
        received
            .retain(|number, _| unanswered.as_ref().is_none_or(|unanswered| unanswered.contains(*number)));
        Ok(Some(Late { position, unanswered, received, is_deleted, definition_digest }))
    }

    fn unanswered(
        &self,
        position: i64,
        id: InstructionId,
        record: &[u8],
        crc: i64,
    ) -> rusqlite::Result<Result<(RoaringBitmap, Vec<u8>), String>> {
        let keys = [&key(position)[..], id.as_bytes()];
        let record = match checked::<InstructionRecord>("instructions", &keys, record, crc) {
            Ok(record) => record,
            Err(what) => return Ok(Err(what)),
        };
        let ledger = replay(self.connection(), position, &record.targets)?;
        // The record's checksum held, so the order in it is what was decoded when it was accepted.
        let digest = Order::decode(&record.order[..]).unwrap_or_default().definition_digest;
        let unanswered = |ledger: Ledger| {
            ENDED_WITHOUT_IT.into_iter().fold(RoaringBitmap::new(), |all, state| all | ledger.in_state(state))
        };
        Ok(ledger.map(|ledger| (unanswered(ledger), digest)))
    }
}

/// Returns what is stored of an instruction's results, by device.
pub(super) fn received(
    connection: &Connection,
    instruction: i64,
) -> rusqlite::Result<HashMap<u32, Received>> {
    let sql = "SELECT number, length(record) FROM results WHERE instruction = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([instruction])?;
    let mut received: HashMap<u32, Received> = HashMap::new();
    while let Some(row) = rows.next()? {
        let bytes: i64 = row.get(1)?;
        received.entry(row.get(0)?).or_default().add(u64::try_from(bytes).unwrap_or_default());
    }
    Ok(received)
}
