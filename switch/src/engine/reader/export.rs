//! Everything that a history checker needs, as of one moment.

use std::ops::ControlFlow;

use muster_proto::operator::v1::{ExportResponse, Transition, export_response::Record};
use rusqlite::{Connection, Row};

use super::pool::{Pool, failed};
use super::{fleet, instructions};
use crate::engine::EngineError;
use crate::engine::shared::Shared;
use crate::engine::store::{TransitionRecord, bitmap, checked, kept, key};

/// Gives definitions, instructions, transitions, results and events, each by its position.
pub(super) fn run(
    pool: &Pool,
    shared: &Shared,
    mut take: impl FnMut(ExportResponse) -> ControlFlow<()>,
) -> Result<(), EngineError> {
    let mut take = |record| take(ExportResponse { record: Some(record) });
    pool.read_long(|connection| {
        // One read transaction: what is committed meanwhile is not in it.
        let snapshot = connection.unchecked_transaction().map_err(failed)?;
        // The moment is that of the first read, and the catalogue must not be older: every instruction in the snapshot
        // has its definition there.
        snapshot.query_row("SELECT count(*) FROM marks", [], |_| Ok(())).map_err(failed)?;
        let (catalogue, now_ms) = (shared.catalogue(), shared.clock.now_ms());
        for (_, held) in catalogue.all() {
            if take(Record::Definition(catalogue.shown(held, now_ms))).is_break() {
                return Ok(());
            }
        }
        let sql = "SELECT position, id, record, crc FROM instructions ORDER BY position";
        let ended = each(&snapshot, sql, |row| instruction(&snapshot, row, shared), &mut take)?;
        if ended.is_break() {
            return Ok(());
        }
        let sql = "SELECT t.position, t.instruction, t.record, t.crc, i.id FROM transitions t \
                   JOIN instructions i ON i.position = t.instruction ORDER BY t.position";
        if each(&snapshot, sql, |row| transition(&snapshot, row, shared), &mut take)?.is_break() {
            return Ok(());
        }
        // Of an instruction whose results are deleted or being deleted, none: what is left of them is no history.
        let deleted = kept::deleted(&snapshot, &shared.damage).map_err(failed)?;
        let sql = "SELECT position, instruction, number, record, crc FROM results ORDER BY position";
        let result = |row: &Row<'_>| {
            if deleted.contains(&row.get(1).map_err(failed)?) {
                return Ok(None);
            }
            Ok(instructions::result(row, shared)?.map(Record::Result))
        };
        if each(&snapshot, sql, result, &mut take)?.is_break() {
            return Ok(());
        }
        let sql = "SELECT position, number, record, crc FROM events ORDER BY position";
        let event = |row: &Row<'_>| Ok(fleet::event(row, shared)?.map(Record::Event));
        each(&snapshot, sql, event, &mut take).map(|_| ())
    })
}

fn each(
    connection: &Connection,
    sql: &str,
    read: impl Fn(&Row<'_>) -> Result<Option<Record>, EngineError>,
    take: &mut impl FnMut(Record) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, EngineError> {
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    while let Some(row) = rows.next().map_err(failed)? {
        if let Some(record) = read(row)?
            && take(record).is_break()
        {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// Returns an instruction with the counts that its transitions add up to; `None` if it is damaged.
fn instruction(
    connection: &Connection,
    row: &Row<'_>,
    shared: &Shared,
) -> Result<Option<Record>, EngineError> {
    let Ok(stored) = instructions::stored(row, shared)? else { return Ok(None) };
    match instructions::ledger(connection, shared, &stored) {
        Ok(ledger) => {
            let counts = instructions::counted(&ledger);
            let shown = instructions::instruction(connection, shared, &stored, counts)?;
            Ok(Some(Record::Instruction(shown)))
        }
        Err(EngineError::Damaged(_)) => Ok(None),
        Err(other) => Err(other),
    }
}

/// Returns a transition with its devices' names; `None` if it is damaged.
fn transition(
    connection: &Connection,
    row: &Row<'_>,
    shared: &Shared,
) -> Result<Option<Record>, EngineError> {
    let position: i64 = row.get(0).map_err(failed)?;
    let instruction: i64 = row.get(1).map_err(failed)?;
    let record = row.get_ref(2).map_err(failed)?.as_blob().map_err(failed)?;
    let id: Vec<u8> = row.get(4).map_err(failed)?;
    let keys = [&key(position)[..], &key(instruction)];
    let read = checked::<TransitionRecord>("transitions", &keys, record, row.get(3).map_err(failed)?)
        .and_then(|record| Ok((bitmap(&record.devices)?, record)))
        .inspect_err(|what| shared.damage.note("transitions", &position.to_string(), what));
    let (Ok((devices, record)), Ok(id)) = (read, muster_proto::ids::InstructionId::try_from(&id[..])) else {
        return Ok(None);
    };
    let devices = devices.iter().map(|number| instructions::device_name(connection, number));
    Ok(Some(Record::Transition(Transition {
        instruction: id.to_string(),
        batch: record.batch,
        state: record.state,
        devices: devices.collect::<Result<_, _>>()?,
        cause: record.cause,
        at_ms: record.at_ms,
    })))
}
