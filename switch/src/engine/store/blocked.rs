//! Devices that an operator keeps out.

use std::collections::BTreeMap;

use muster_pki::DeviceId;
use muster_proto::operator::v1::Block;
use prost::Message as _;
use rusqlite::{Connection, Transaction, params};

use super::record::{checked, checksum};
use crate::engine::damage::Damage;

const TABLE: &str = "blocked";

/// Loads them. A damaged record keeps its device out all the same: that somebody wanted it is all that the row must say.
pub(super) fn load(connection: &Connection, damage: &Damage) -> rusqlite::Result<BTreeMap<DeviceId, Block>> {
    let mut statement = connection.prepare("SELECT device, record, crc FROM blocked")?;
    let mut rows = statement.query([])?;
    let mut blocked = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let name = String::from_utf8_lossy(row.get_ref(0)?.as_bytes().map_err(rusqlite::Error::from)?);
        let record: Vec<u8> = row.get(1)?;
        let block = checked::<Block>(TABLE, &[name.as_bytes()], &record, row.get(2)?);
        let block = block.unwrap_or_else(|what| {
            damage.note(TABLE, &name, &what);
            Block { device: name.to_string(), ..Block::default() }
        });
        match name.parse::<DeviceId>() {
            Ok(device) => drop(blocked.insert(device, block)),
            Err(error) => damage.note(TABLE, &name, &error.to_string()),
        }
    }
    Ok(blocked)
}

/// Writes one, or takes it away; returns how many bytes that is, about.
pub(super) fn write(
    transaction: &Transaction<'_>,
    device: &DeviceId,
    block: Option<&Block>,
) -> rusqlite::Result<usize> {
    let Some(block) = block else {
        let sql = "DELETE FROM blocked WHERE device = ?1";
        transaction.prepare_cached(sql)?.execute([device.as_str()])?;
        return Ok(32);
    };
    let record = block.encode_to_vec();
    let crc = checksum(TABLE, &[device.as_str().as_bytes()], &record);
    let sql = "INSERT OR REPLACE INTO blocked VALUES (?1, ?2, ?3)";
    transaction.prepare_cached(sql)?.execute(params![device.as_str(), record, crc])?;
    Ok(record.len() + 32)
}
