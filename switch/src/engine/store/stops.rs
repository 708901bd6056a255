//! Stops of instructions, and who has answered them.

use muster_proto::ids::InstructionId;
use roaring::RoaringBitmap;
use rusqlite::Connection;

use super::recall::received;
use super::{StopRecord, checked, key};
use crate::engine::damage::Damage;

/// A stop as it lies in the store.
#[derive(Debug)]
pub(crate) struct LoadedStop {
    /// The position of the instruction that it ends.
    pub(crate) position: i64,
    /// That instruction's id.
    pub(crate) instruction: InstructionId,
    pub(crate) until_ms: i64,
    /// `None`: it is damaged, and stops all the same.
    pub(crate) record: Option<StopRecord>,
    /// The devices that have brought a result of the instruction.
    pub(crate) answered: RoaringBitmap,
}

/// Loads the stops that hold at `since_ms` or later.
pub(super) fn load(
    connection: &Connection,
    damage: &Damage,
    since_ms: i64,
) -> rusqlite::Result<Vec<LoadedStop>> {
    let sql = "SELECT s.instruction, s.until_ms, s.record, s.crc, i.id FROM stops s \
               JOIN instructions i ON i.position = s.instruction WHERE s.until_ms >= ?1";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([since_ms])?;
    let mut stops = Vec::new();
    while let Some(row) = rows.next()? {
        let (position, until_ms): (i64, i64) = (row.get(0)?, row.get(1)?);
        let (record, id): (Vec<u8>, Vec<u8>) = (row.get(2)?, row.get(4)?);
        let read = checked::<StopRecord>("stops", &[&key(position), &key(until_ms)], &record, row.get(3)?);
        let record = read.inspect_err(|what| damage.note("stops", &position.to_string(), what)).ok();
        // An instruction without an id is set aside, and goes to nobody.
        let Ok(instruction) = InstructionId::try_from(&id[..]) else { continue };
        let answered = received(connection, position)?.into_keys().collect();
        stops.push(LoadedStop { position, instruction, until_ms, record, answered });
    }
    Ok(stops)
}
