//! What was seen of each outbox, as it lies on disk.

use muster_proto::ids::{OutboxId, Sequence};
use muster_proto::operator::v1::{ExportedResult, LoggedEvent};
use muster_proto::seen::{SeenSet, gap_ranges};
use rusqlite::Connection;

use super::key;
use super::record::{checked, verify};
use crate::engine::core::{Road, StoredOutbox};
use crate::engine::damage::Damage;

/// Loads the outboxes of devices. What of a row is damaged is gathered from elsewhere. What came over sessions of one that an earlier version
/// wrote is not known, and not looked for: the events are all that the fleet ever told.
pub(super) fn load(connection: &Connection, damage: &Damage) -> rusqlite::Result<Vec<StoredOutbox>> {
    let mut statement =
        connection.prepare("SELECT number, outbox_id, record, crc, used, greeted, by_session FROM seen")?;
    let mut rows = statement.query([])?;
    let mut loaded = Vec::new();
    while let Some(row) = rows.next()? {
        let number: u32 = row.get(0)?;
        let outbox: Vec<u8> = row.get(1)?;
        let record: Vec<u8> = row.get(2)?;
        let Ok(id) = OutboxId::try_from(&outbox[..]) else {
            damage.note("seen", &format!("{number}/?"), "outbox_id is not 16 bytes");
            continue;
        };
        let (used, greeted) = (row.get(4)?, row.get(5)?);
        let by_session: Option<Vec<u8>> = row.get(6)?;
        let outbox = match read(number, &outbox, &record, by_session.as_deref(), row.get(3)?) {
            Ok((set, by_session)) => StoredOutbox { number, id, used, greeted, set, by_session },
            Err(what) => {
                damage.note("seen", &format!("{number}/{id}"), &what);
                let Gathered { set, by_session } = gather(connection, number, id)?;
                StoredOutbox { number, id, used, greeted, set, by_session: Some(by_session) }
            }
        };
        loaded.push(outbox);
    }
    Ok(loaded)
}

/// Reads a row; the second is `None` where an earlier version wrote it.
fn read(
    number: u32,
    outbox: &[u8],
    record: &[u8],
    by_session: Option<&[u8]>,
    crc: i64,
) -> Result<(SeenSet, Option<u64>), String> {
    let number = key(number);
    let keys = [&number[..], outbox].into_iter().chain(by_session).collect::<Vec<_>>();
    verify("seen", &keys, record, crc)?;
    let set = SeenSet::decode(record).map_err(|error| error.to_string())?;
    let by_session = by_session.map(|bytes| bytes.try_into().map(u64::from_be_bytes)).transpose();
    Ok((set, by_session.map_err(|_| "by_session is not 8 bytes".to_owned())?))
}

/// The numbers that a device's name has had, for a device that was removed and came again has the seen sets of before.
const NUMBERS_OF_NAME: &str = "SELECT ?1 UNION SELECT b.number FROM devices a JOIN devices b ON b.device = a.device WHERE a.number = ?1";

/// What the events and results of an outbox say was seen of it.
#[derive(Debug, Default)]
struct Gathered {
    set: SeenSet,
    by_session: u64,
}

impl Gathered {
    fn add(&mut self, sequence: u64, is_by_session: bool) {
        let Ok(number) = Sequence::try_from(sequence) else { return };
        let _fresh = self.set.insert(number);
        if is_by_session {
            self.by_session = self.by_session.max(sequence);
        }
    }
}

/// Gathers what was seen of an outbox again from the events and results that it let in. What was acked without being stored is
/// not in it; if it comes again, it is dropped again.
fn gather(connection: &Connection, number: u32, outbox: OutboxId) -> rusqlite::Result<Gathered> {
    let mut gathered = Gathered::default();
    let mut gaps = Vec::new();
    let sql = format!("SELECT position, number, record, crc FROM events WHERE number IN ({NUMBERS_OF_NAME})");
    let mut events = connection.prepare_cached(&sql)?;
    let mut rows = events.query([number])?;
    while let Some(row) = rows.next()? {
        let (position, number, record): (i64, u32, Vec<u8>) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let keys = [&key(position)[..], &key(number)];
        if let Ok(logged) = checked::<LoggedEvent>("events", &keys, &record, row.get(3)?)
            && logged.outbox_id == outbox.as_bytes()
        {
            let event = logged.event.unwrap_or_default();
            gathered.add(event.sequence, logged.road == Road::Session.name());
            gaps.extend(gap_ranges(&event));
        }
    }
    let sql = format!(
        "SELECT position, instruction, number, record, crc FROM results WHERE number IN ({NUMBERS_OF_NAME})"
    );
    let mut results = connection.prepare_cached(&sql)?;
    let mut rows = results.query([number])?;
    while let Some(row) = rows.next()? {
        let (position, instruction, number): (i64, i64, u32) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let record: Vec<u8> = row.get(3)?;
        let keys = [&key(position)[..], &key(instruction), &key(number)];
        if let Ok(result) = checked::<ExportedResult>("results", &keys, &record, row.get(4)?)
            && result.outbox_id == outbox.as_bytes()
        {
            // There is no other road for them.
            gathered.add(result.sequence, true);
        }
    }
    for gap in gaps {
        let _fresh = gathered.set.insert_range(gap);
    }
    Ok(gathered)
}
