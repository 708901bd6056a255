//! What was seen of each outbox, as it lies on disk.

use std::collections::HashMap;

use muster_pki::DeviceId;
use muster_proto::ids::{OutboxId, Sequence};
use muster_proto::operator::v1::{ExportedResult, LoggedEvent};
use muster_proto::seen::{SeenSet, gap_ranges};
use muster_proto::session::v1::SequenceRange;
use rusqlite::Connection;

use super::key;
use super::record::{checked, verify};
use crate::engine::core::{Road, StoredOutbox};
use crate::engine::damage::Damage;

/// Loads the outboxes of devices. What of a row is damaged, or was not kept by an earlier version, is gathered from elsewhere.
pub(super) fn load(
    connection: &Connection,
    devices: &[(u32, DeviceId)],
    damage: &Damage,
) -> rusqlite::Result<Vec<StoredOutbox>> {
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
            Ok((set, Some(by_session))) => {
                StoredOutbox { number, id, used, greeted, set, by_session, is_new: false }
            }
            Ok((set, None)) => StoredOutbox { number, id, used, greeted, set, by_session: 0, is_new: true },
            Err(what) => {
                damage.note("seen", &format!("{number}/{id}"), &what);
                let Gathered { set, by_session } = gather(connection, number, id)?;
                StoredOutbox { number, id, used, greeted, set, by_session, is_new: false }
            }
        };
        loaded.push(outbox);
    }
    if loaded.iter().any(|outbox| outbox.is_new) {
        tell_roads_apart(connection, devices, &mut loaded)?;
    }
    Ok(loaded)
}

/// Finds what came over sessions of outboxes whose roads an earlier version did not tell apart: whatever was seen and is not
/// known to have been relayed. Each event is read once, for all outboxes together.
fn tell_roads_apart(
    connection: &Connection,
    devices: &[(u32, DeviceId)],
    loaded: &mut [StoredOutbox],
) -> rusqlite::Result<()> {
    let names: HashMap<u32, String> =
        devices.iter().map(|(number, device)| (*number, device.to_string())).collect();
    let mut relayed: HashMap<(String, Vec<u8>), Vec<SequenceRange>> = HashMap::new();
    let mut events = connection.prepare("SELECT position, number, record, crc FROM events")?;
    let mut rows = events.query([])?;
    while let Some(row) = rows.next()? {
        let (position, number, record): (i64, u32, Vec<u8>) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let keys = [&key(position)[..], &key(number)];
        // A damaged one is counted where events are served.
        let Ok(logged) = checked::<LoggedEvent>("events", &keys, &record, row.get(3)?) else { continue };
        if logged.road != Road::Background.name() {
            continue;
        }
        let event = logged.event.unwrap_or_default();
        let ranges = relayed.entry((logged.device, logged.outbox_id)).or_default();
        ranges.extend(gap_ranges(&event));
        match ranges.last_mut() {
            // They mostly come in order.
            Some(last) if last.last.checked_add(1) == Some(event.sequence) => last.last = event.sequence,
            Some(_) | None => ranges.push(SequenceRange { first: event.sequence, last: event.sequence }),
        }
    }
    for outbox in loaded.iter_mut().filter(|outbox| outbox.is_new) {
        let name = names.get(&outbox.number).cloned().unwrap_or_default();
        let relayed = relayed.remove(&(name, outbox.id.to_vec())).unwrap_or_default();
        outbox.by_session = highest_beside(&outbox.set, relayed);
    }
    Ok(())
}

/// Returns the highest sequence of a set that is in none of the ranges; 0 if there is none.
fn highest_beside(set: &SeenSet, mut ranges: Vec<SequenceRange>) -> u64 {
    ranges.sort_unstable_by_key(|range| range.last);
    let mut highest = set.highest();
    while let Some(range) = ranges.pop() {
        if range.last < highest {
            break;
        }
        if range.first <= highest {
            highest = highest_up_to(set, range.first.saturating_sub(1));
        }
    }
    highest
}

/// Returns the highest sequence of a set that is not above a limit; 0 if there is none.
fn highest_up_to(set: &SeenSet, limit: u64) -> u64 {
    let above = set.ranges().filter(|range| range.first <= limit).last();
    above.map_or(set.mark(), |range| range.last).min(limit)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_over_sessions_is_what_was_seen_and_not_relayed() {
        let range = |first, last| SequenceRange { first, last };
        // (seen, relayed) and the highest that came over sessions.
        let table = [
            (vec![], vec![], 0),
            (vec![range(1, 5)], vec![], 5),
            (vec![range(1, 5)], vec![range(1, 5)], 0),
            (vec![range(1, 5)], vec![range(4, 5)], 3),
            (vec![range(1, 5), range(1 << 62, 1 << 62)], vec![range(1 << 62, 1 << 62)], 5),
            (vec![range(1, 5), range(8, 9), range(20, 30)], vec![range(25, 30), range(8, 24)], 5),
            (vec![range(1, 5), range(8, 9)], vec![range(6, 6), range(9, 9)], 8),
            (vec![range(1, 5), range(8, 9)], vec![range(1, 5)], 9),
            (vec![range(1, 9)], vec![range(9, 9), range(3, 8), range(5, 6)], 2),
        ];
        for (seen, relayed, wanted) in table {
            let mut set = SeenSet::new();
            for range in seen {
                let _fresh = set.insert_range(range);
            }
            assert_eq!(highest_beside(&set, relayed.clone()), wanted, "{set:?} without {relayed:?}");
        }
    }
}
