//! Reads an instruction's targets: the state of each, and by what it came to that.

use std::collections::HashMap;

use muster_proto::common::v1::TargetState;
use muster_proto::ids::InstructionId;
use muster_proto::operator::v1::Target;
use roaring::RoaringBitmap;
use rusqlite::Connection;

use super::instructions::{device_name, find, ledger};
use super::pool::{Pool, failed};
use super::{Cursor, Page};
use crate::engine::EngineError;
use crate::engine::shared::Shared;
use crate::engine::store::{TransitionRecord, bitmap, checked, key};

/// Lists targets by device number.
pub(super) fn list(
    pool: &Pool,
    shared: &Shared,
    id: InstructionId,
    state: Option<TargetState>,
    after: &Cursor,
    limit: u32,
) -> Result<Page<Target>, EngineError> {
    // A device's number may be 0, so the cursor holds the next one.
    let from = u32::try_from(after.number()?).unwrap_or(u32::MAX);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    pool.read(|connection| {
        // States and their causes are of one moment.
        let connection = connection.unchecked_transaction().map_err(failed)?;
        let stored = find(&connection, shared, id)?;
        let ledger = ledger(&connection, shared, &stored)?;
        let wanted = state.map_or(ledger.targets(), |state| ledger.in_state(state));
        let numbers: RoaringBitmap = wanted.range(from..).take(limit).collect();
        let last = numbers.max();
        let entered = entered(&connection, stored.position, numbers.clone())?;
        let mut page = Page { items: Vec::new(), cursor: after.clone(), more: false };
        if let Some(last) = last {
            page.cursor = Cursor((u64::from(last) + 1).to_string());
            page.more = wanted.max() > Some(last);
        }
        for number in &numbers {
            let device = device_name(&connection, number)?;
            let state = ledger.state_of(number).unwrap_or_default().into();
            let (cause, at_ms) = entered.get(&number).cloned().unwrap_or_default();
            page.items.push(Target { device, state, cause, at_ms });
        }
        Ok(page)
    })
}

/// Returns why and when each of these devices entered the state in which it is: what the last transition says that moved it. All
/// transitions were found to be sound when the ledger was made of them.
fn entered(
    connection: &Connection,
    instruction: i64,
    mut wanted: RoaringBitmap,
) -> Result<HashMap<u32, (String, i64)>, EngineError> {
    let sql = "SELECT position, record, crc FROM transitions WHERE instruction = ?1 ORDER BY position DESC";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let mut rows = statement.query([instruction]).map_err(failed)?;
    let mut found = HashMap::new();
    while !wanted.is_empty()
        && let Some(row) = rows.next().map_err(failed)?
    {
        let position: i64 = row.get(0).map_err(failed)?;
        let record = row.get_ref(1).map_err(failed)?.as_blob().map_err(failed)?;
        let keys = [&key(position)[..], &key(instruction)];
        let crc = row.get(2).map_err(failed)?;
        let read: TransitionRecord =
            checked("transitions", &keys, record, crc).map_err(EngineError::Damaged)?;
        let moved = bitmap(&read.devices).map_err(EngineError::Damaged)? & &wanted;
        wanted -= &moved;
        found.extend(moved.iter().map(|number| (number, (read.cause.clone(), read.at_ms))));
    }
    Ok(found)
}
