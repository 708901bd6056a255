//! Reads instructions and their results.

use bytes::Bytes;
use muster_pki::Certificate;
use muster_proto::ids::InstructionId;
use muster_proto::operator::v1::{Approval, DeviceResult, ExportedResult, Instruction, StateCount, Stop};
use muster_proto::order::v1::Order;
use muster_signing::approval::is_named;
use muster_signing::{envelope, moment};
use prost::Message;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::pool::{Pool, failed};
use super::{Cursor, Page, fleet};
use crate::engine::EngineError;
use crate::engine::ledger::Ledger;
use crate::engine::shared::Shared;
use crate::engine::store::kept::Kept;
use crate::engine::store::{
    self, ApprovalsRecord, CountsRecord, InstructionRecord, StopRecord, checked, key,
};

/// Bytes of a page of results at most (instruction.proto), so that it fits a 4 MiB message.
const PAGE_BYTES_MAX: usize = 3 << 20;

/// An instruction's row.
pub(super) struct Stored {
    pub(super) position: i64,
    pub(super) id: InstructionId,
    pub(super) record: InstructionRecord,
}

/// Returns one instruction.
pub(super) fn one(pool: &Pool, shared: &Shared, id: InstructionId) -> Result<Instruction, EngineError> {
    pool.read(|connection| {
        let stored = find(connection, shared, id)?;
        shown(connection, shared, &stored)
    })
}

/// Lists instructions, newest first.
pub(super) fn list(
    pool: &Pool,
    shared: &Shared,
    after: &Cursor,
    limit: u32,
) -> Result<Page<Instruction>, EngineError> {
    let before = if after.is_start() { i64::MAX } else { after.number()? };
    pool.read(|connection| {
        let sql = "SELECT position, id, record, crc FROM instructions WHERE position < ?1 ORDER BY position DESC LIMIT ?2";
        let mut statement = connection.prepare_cached(sql).map_err(failed)?;
        let mut rows = statement.query(params![before, i64::from(limit) + 1]).map_err(failed)?;
        let mut page = Page { items: Vec::new(), cursor: after.clone(), more: false };
        let mut read = 0;
        while let Some(row) = rows.next().map_err(failed)? {
            if read == limit {
                page.more = true;
                break;
            }
            read += 1;
            let position: i64 = row.get(0).map_err(failed)?;
            page.cursor = Cursor(position.to_string());
            if let Ok(stored) = stored(row, shared)?
                && let Ok(shown) = shown(connection, shared, &stored)
            {
                page.items.push(shown);
            }
        }
        Ok(page)
    })
}

/// Lists results in the order of commitment.
pub(super) fn results(
    pool: &Pool,
    shared: &Shared,
    id: InstructionId,
    after: &Cursor,
    limit: u32,
) -> Result<Page<DeviceResult>, EngineError> {
    let from = after.number()?;
    pool.read(|connection| {
        // One read transaction: what is whole as it begins is whole to its end.
        let snapshot = connection.unchecked_transaction().map_err(failed)?;
        let instruction = position(&snapshot, id)?;
        require_results(&snapshot, shared, id, instruction)?;
        let sql = "SELECT position, instruction, number, record, crc FROM results WHERE instruction = ?1 AND position > ?2 \
                   ORDER BY position";
        let mut statement = snapshot.prepare_cached(sql).map_err(failed)?;
        let mut rows = statement.query([instruction, from]).map_err(failed)?;
        let mut page = Page { items: Vec::new(), cursor: after.clone(), more: false };
        let mut bytes = 0;
        while let Some(row) = rows.next().map_err(failed)? {
            let length = row.get_ref(3).map_err(failed)?.as_blob().map_or(0, <[u8]>::len);
            let full = bytes + length > PAGE_BYTES_MAX && !page.items.is_empty();
            if full || page.items.len() >= usize::try_from(limit).unwrap_or(usize::MAX) {
                page.more = true;
                break;
            }
            bytes += length;
            let position: i64 = row.get(0).map_err(failed)?;
            page.cursor = Cursor(position.to_string());
            page.items.extend(result(row, shared)?.and_then(|result| result.result));
        }
        Ok(page)
    })
}

/// Refuses what asks for results that are deleted, whole or in part. In a read transaction what it lets pass stays.
pub(super) fn require_results(
    connection: &Connection,
    shared: &Shared,
    id: InstructionId,
    position: i64,
) -> Result<(), EngineError> {
    match kept(connection, shared, position)? {
        Some(kept) if kept.stage.has_begun() => Err(EngineError::NotFound(format!(
            "the results of instruction {id} were kept until {}, as it was issued, and are deleted; what became of its \
             targets stays: muster instruction targets {id}",
            moment::shown(u64::try_from(kept.until_ms).unwrap_or_default() / 1_000)
        ))),
        _ => Ok(()),
    }
}

/// Returns until when the results of an instruction are kept; `None`: they stay, or the row is damaged.
fn kept(connection: &Connection, shared: &Shared, position: i64) -> Result<Option<Kept>, EngineError> {
    let read = store::kept::of(connection, position).map_err(failed)?;
    let note = |what: &String| shared.damage.note("kept", &position.to_string(), what);
    Ok(read.inspect_err(note).ok().flatten())
}

/// Returns an instruction's row, unless it is damaged.
pub(super) fn find(
    connection: &Connection,
    shared: &Shared,
    id: InstructionId,
) -> Result<Stored, EngineError> {
    if let Some(why) = shared.why_set_aside(id) {
        return Err(EngineError::Damaged(format!("instruction {id} was set aside: {why}")));
    }
    let sql = "SELECT position, id, record, crc FROM instructions WHERE id = ?1";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let mut rows = statement.query([id.as_bytes()]).map_err(failed)?;
    let row = rows.next().map_err(failed)?.ok_or_else(|| unknown(id))?;
    stored(row, shared)?.map_err(|what| EngineError::Damaged(format!("instruction {id} is damaged: {what}")))
}

/// Returns the instruction of a row (position, id, record, crc); the text says why it is damaged.
pub(super) fn stored(row: &Row<'_>, shared: &Shared) -> Result<Result<Stored, String>, EngineError> {
    let position: i64 = row.get(0).map_err(failed)?;
    let id: Vec<u8> = row.get(1).map_err(failed)?;
    let record: Vec<u8> = row.get(2).map_err(failed)?;
    let keys = [&key(position)[..], &id];
    let read = checked("instructions", &keys, &record, row.get(3).map_err(failed)?).and_then(|record| {
        let id = InstructionId::try_from(&id[..]).map_err(|error| error.to_string())?;
        Ok(Stored { position, id, record })
    });
    if let Err(what) = &read {
        shared.damage.note("instructions", &position.to_string(), what);
    }
    Ok(read)
}

/// Returns the result of a row (position, instruction, number, record, crc); `None` if it is damaged.
pub(super) fn result(row: &Row<'_>, shared: &Shared) -> Result<Option<ExportedResult>, EngineError> {
    let position: i64 = row.get(0).map_err(failed)?;
    let instruction: i64 = row.get(1).map_err(failed)?;
    let number: u32 = row.get(2).map_err(failed)?;
    let record = row.get_ref(3).map_err(failed)?.as_blob().map_err(failed)?;
    let keys = [&key(position)[..], &key(instruction), &key(number)];
    let read = checked("results", &keys, record, row.get(4).map_err(failed)?);
    Ok(read.inspect_err(|what| shared.damage.note("results", &position.to_string(), what)).ok())
}

/// Replays an instruction's stored transitions.
pub(super) fn ledger(
    connection: &Connection,
    shared: &Shared,
    stored: &Stored,
) -> Result<Ledger, EngineError> {
    let replayed = store::replay(connection, stored.position, &stored.record.targets).map_err(failed)?;
    replayed.map_err(|what| {
        shared.damage.note("transitions", &stored.id.to_string(), &what);
        EngineError::Damaged(format!("the ledger of instruction {} is damaged: {what}", stored.id))
    })
}

/// Returns an instruction as shown, with the counts committed beside its transitions.
pub(super) fn shown(
    connection: &Connection,
    shared: &Shared,
    stored: &Stored,
) -> Result<Instruction, EngineError> {
    let sql = "SELECT record, crc FROM counts WHERE instruction = ?1";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let read = |row: &Row<'_>| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, i64>(1)?));
    let counts = statement.query_row([stored.position], read).optional().map_err(failed)?;
    let targets = decided(stored)?;
    let counts = counts.and_then(|(record, crc)| {
        checked::<CountsRecord>("counts", &[&key(stored.position)], &record, crc)
            .and_then(|counts| match sum(&counts.states) {
                counted if counted == targets => Ok(counts),
                counted => Err(format!("counts of {counted} targets, {targets} were decided at submit")),
            })
            .inspect_err(|what| shared.damage.note("counts", &stored.position.to_string(), what))
            .ok()
    });
    // Counts can be had again from what they were counted of.
    let states = match counts {
        Some(counts) => counts.states,
        None => counted(&ledger(connection, shared, stored)?),
    };
    instruction(connection, shared, stored, states)
}

/// Returns an instruction, its definition, and its order with all signatures that it has; nothing of the order where it lacks none.
pub(super) fn to_approve(
    pool: &Pool,
    shared: &Shared,
    id: InstructionId,
) -> Result<(Instruction, Bytes, Bytes), EngineError> {
    pool.read(|connection| {
        let stored = find(connection, shared, id)?;
        let shown = shown(connection, shared, &stored)?;
        let (_, definition) = fleet::definition(shared, &shown.definition, &shown.version)?;
        if shown.approvals_missing == 0 {
            return Ok((shown, definition, Bytes::new()));
        }
        let approvals = approvals(connection, shared, stored.position)?;
        let envelope = approvals.map_or(stored.record.envelope, |approvals| approvals.envelope);
        Ok((shown, definition, envelope))
    })
}

/// Returns the approvals that came after an instruction; `None`: there are none, or the record is damaged.
pub(super) fn approvals(
    connection: &Connection,
    shared: &Shared,
    position: i64,
) -> Result<Option<ApprovalsRecord>, EngineError> {
    let read = store::approvals::of(connection, position).map_err(failed)?;
    let note = |what: &String| shared.damage.note("approvals", &position.to_string(), what);
    Ok(read.inspect_err(note).ok().flatten())
}

/// Returns how an instruction was stopped; `None`: it was not, or the record is damaged.
fn stop(connection: &Connection, shared: &Shared, position: i64) -> Result<Option<Stop>, EngineError> {
    let sql = "SELECT until_ms, record, crc FROM stops WHERE instruction = ?1";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let read = |row: &Row<'_>| Ok((row.get(0)?, row.get::<_, Vec<u8>>(1)?, row.get(2)?));
    let found: Option<(i64, Vec<u8>, i64)> =
        statement.query_row([position], read).optional().map_err(failed)?;
    let Some((until_ms, record, crc)) = found else { return Ok(None) };
    let keys = [&key(position)[..], &key(until_ms)];
    let shown = checked::<StopRecord>("stops", &keys, &record, crc).and_then(|record| {
        let order = Order::decode(&record.order[..]).map_err(|error| error.to_string())?;
        let id = InstructionId::try_from(&order.instruction[..]).map_err(|error| error.to_string())?;
        let (signer, signer_thumbprint) = named(signers(&record.envelope, &order.operator).first());
        let (operator, reason, at_ms) = (order.operator, order.reason, record.created_at_ms);
        Ok(Stop { id: id.to_string(), operator, reason, at_ms, signer, signer_thumbprint })
    });
    Ok(shown.inspect_err(|what| shared.damage.note("stops", &position.to_string(), what)).ok())
}

/// Returns who signed an envelope, whoever has the operator's name first: it verified when it was accepted, and the record's checksum
/// held.
fn signers(envelope: &[u8], operator: &str) -> Vec<Certificate> {
    let found = envelope::inspect(envelope).map(|found| found.signers).unwrap_or_default();
    let mut signers: Vec<Certificate> = found.into_iter().map(|(signer, _)| signer).collect();
    signers.sort_by_key(|signer| !is_named(signer, operator));
    signers
}

/// Returns subject and thumbprint of a certificate.
fn named(signer: Option<&Certificate>) -> (String, String) {
    signer.map(|signer| (signer.subject().to_owned(), signer.thumbprint().to_string())).unwrap_or_default()
}

/// Returns an approval that came with the order itself.
fn with_order(signer: &Certificate, order: &Order, at_ms: i64) -> Approval {
    let (operator, (signer, signer_thumbprint)) = (order.operator.clone(), named(Some(signer)));
    Approval { operator, signer, signer_thumbprint, at_ms }
}

/// Returns the counts of a ledger.
pub(super) fn counted(ledger: &Ledger) -> Vec<StateCount> {
    ledger.counts().into_iter().map(|(state, count)| StateCount { state: state.into(), count }).collect()
}

fn sum(states: &[StateCount]) -> u64 {
    states.iter().map(|count| count.count).sum()
}

/// Returns how many targets an instruction was submitted for, as the operator signed it.
fn decided(stored: &Stored) -> Result<u64, EngineError> {
    let order = Order::decode(&stored.record.order[..]).map_err(failed)?;
    Ok(order.audience.map_or(0, |audience| audience.members_count))
}

/// Returns an instruction as shown, with these counts. It has the targets that were signed, whatever the counts add up to:
/// a target that got lost shows, and such an instruction is never complete.
pub(super) fn instruction(
    connection: &Connection,
    shared: &Shared,
    stored: &Stored,
    states: Vec<StateCount>,
) -> Result<Instruction, EngineError> {
    let stop = stop(connection, shared, stored.position)?;
    let approvals = approvals(connection, shared, stored.position)?;
    let kept = kept(connection, shared, stored.position)?;
    let order = Order::decode(&stored.record.order[..]).map_err(failed)?;
    let audience = order.audience.clone().unwrap_or_default();
    let targets = audience.members_count;
    let signers = signers(&stored.record.envelope, &order.operator);
    let (signer, signer_thumbprint) = named(signers.first());
    let came = signers.iter().skip(1).map(|other| with_order(other, &order, stored.record.created_at_ms));
    let came: Vec<Approval> = came.collect();
    let wanted = stored.record.approvals_wanted;
    let approved = approvals.as_ref().map_or(stored.record.approvals, |approvals| approvals.approvals);
    Ok(Instruction {
        approvals_wanted: wanted,
        approvals_missing: wanted.saturating_sub(approved),
        approvals: came
            .into_iter()
            .chain(approvals.into_iter().flat_map(|approvals| approvals.given))
            .collect(),
        signer,
        signer_thumbprint,
        stop,
        id: stored.id.to_string(),
        definition: order.definition_name,
        version: order.definition_version,
        operator: order.operator,
        audience: audience.expression,
        arguments: order.arguments,
        created_at_ms: stored.record.created_at_ms,
        expires_at_ms: order.expires_at_ms,
        targets,
        results_until_ms: kept.map_or(0, |kept| kept.until_ms),
        results_deleted: kept.is_some_and(|kept| kept.stage.has_begun()),
        complete: sum(&states) == targets && states.iter().all(|count| count.state().is_terminal()),
        states,
    })
}

/// Returns a device's name; of a damaged record, its number.
pub(super) fn device_name(connection: &Connection, number: u32) -> Result<String, EngineError> {
    let sql = "SELECT device, crc FROM devices WHERE number = ?1";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let read = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?));
    let named = statement.query_row([number], read).optional().map_err(failed)?;
    let sound = named.filter(|(device, crc)| {
        store::verify("devices", &[&key(number), device.as_bytes()], &[], *crc).is_ok()
    });
    Ok(sound.map_or_else(|| format!("#{number}"), |(device, _)| device))
}

fn position(connection: &Connection, id: InstructionId) -> Result<i64, EngineError> {
    let mut statement =
        connection.prepare_cached("SELECT position FROM instructions WHERE id = ?1").map_err(failed)?;
    let found = statement.query_row([id.as_bytes()], |row| row.get(0)).optional().map_err(failed)?;
    found.ok_or_else(|| unknown(id))
}

fn unknown(id: InstructionId) -> EngineError {
    EngineError::NotFound(format!("no instruction {id}"))
}
