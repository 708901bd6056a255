//! Who had a session when it was last written down, as a Switch that was killed left it.

use roaring::RoaringBitmap;
use rusqlite::{Connection, OptionalExtension};

use super::record::verify;
use super::{bitmap, key};
use crate::engine::damage::Damage;

/// What was known of the sessions that no end was written of.
#[derive(Debug, Default)]
pub(crate) struct Online {
    /// Devices, with when they were last known to have a session; those of which a later time is stored are left out.
    pub(crate) last_seen: Vec<(u32, i64)>,
    /// There is a record of somebody.
    pub(crate) is_noted: bool,
}

/// Reads the record; a damaged one is as none.
pub(super) fn load(connection: &Connection, damage: &Damage) -> rusqlite::Result<Online> {
    let sql = "SELECT at_ms, record, crc FROM online";
    let row = connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
    let Some((at_ms, record, crc)): Option<(i64, Vec<u8>, i64)> = row.optional()? else {
        return Ok(Online::default());
    };
    let devices: RoaringBitmap =
        match verify("online", &[&key(at_ms)], &record, crc).and_then(|()| bitmap(&record)) {
            Ok(devices) => devices,
            Err(what) => {
                damage.note("online", "0", &what);
                return Ok(Online { last_seen: Vec::new(), is_noted: true });
            }
        };
    let mut stored = connection.prepare("SELECT at_ms FROM last_seen WHERE number = ?1")?;
    let mut online = Online { last_seen: Vec::new(), is_noted: !devices.is_empty() };
    for number in &devices {
        let later: Option<i64> = stored.query_row([number], |row| row.get(0)).optional()?;
        if later.is_none_or(|later| later < at_ms) {
            online.last_seen.push((number, at_ms));
        }
    }
    Ok(online)
}
