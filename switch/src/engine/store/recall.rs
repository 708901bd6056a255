//! What a late result needs to know of an instruction that is complete, and so no longer in memory.

use std::collections::HashMap;

use muster_proto::common::v1::TargetState;
use muster_proto::ids::InstructionId;
use roaring::RoaringBitmap;
use rusqlite::OptionalExtension;

use super::load::replay;
use super::{InstructionRecord, Store, StoreError, checked, key};
use crate::engine::damage::Damage;

/// Who may bring a late result of an instruction.
#[derive(Debug)]
pub(crate) struct Late {
    pub(crate) position: i64,
    /// The expired targets; `None` if a damaged record hides them: then a result is rather kept than lost.
    pub(crate) expired: Option<RoaringBitmap>,
    /// How many parts of a result each device has in the store already.
    pub(crate) parts: HashMap<u32, u32>,
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
        let expired = match self.expired(position, id, &record, crc)? {
            Ok(expired) => Some(expired),
            Err(what) => {
                damage.note("instructions", &id.to_string(), &what);
                None
            }
        };
        let mut statement =
            self.connection().prepare_cached("SELECT number FROM results WHERE instruction = ?1")?;
        let mut rows = statement.query([position])?;
        let mut parts = HashMap::new();
        while let Some(row) = rows.next()? {
            let number: u32 = row.get(0)?;
            if expired.as_ref().is_none_or(|expired| expired.contains(number)) {
                *parts.entry(number).or_default() += 1;
            }
        }
        Ok(Some(Late { position, expired, parts }))
    }

    fn expired(
        &self,
        position: i64,
        id: InstructionId,
        record: &[u8],
        crc: i64,
    ) -> rusqlite::Result<Result<RoaringBitmap, String>> {
        let keys = [&key(position)[..], id.as_bytes()];
        let record = match checked::<InstructionRecord>("instructions", &keys, record, crc) {
            Ok(record) => record,
            Err(what) => return Ok(Err(what)),
        };
        let ledger = replay(self.connection(), position, &record.targets)?;
        Ok(ledger.map(|ledger| ledger.in_state(TargetState::Expired).clone()))
    }
}
