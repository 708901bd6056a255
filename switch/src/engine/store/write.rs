//! What the core wants stored, and how it becomes rows.

use muster_pki::DeviceId;
use muster_proto::ids::{InstructionId, OutboxId};
use muster_proto::operator::v1::{Block, Client, ExportedResult, LoggedEvent};
use prost::Message;
use rusqlite::{CachedStatement, Connection, Transaction, params};

use super::{
    ApprovalsRecord, CountsRecord, DocumentRecord, InstructionRecord, Mark, StopRecord, SubmissionRecord,
    TransitionRecord, blocked, checksum, kept, kept::Stage, key,
};

/// One row to be written.
#[derive(Debug, Clone)]
pub(crate) enum Write {
    Mark {
        mark: Mark,
        value: u64,
    },
    Device {
        number: u32,
        device: DeviceId,
    },
    /// An operator removed the device: nothing is known of it but its name.
    DeviceRemoved {
        number: u32,
        at_ms: i64,
    },
    /// An operator blocked the device; `None`: it is let in again.
    Blocked {
        device: DeviceId,
        block: Option<Box<Block>>,
    },
    Facts {
        number: u32,
        facts: Box<Client>,
    },
    /// When the device's last session ended, or was last known to be there.
    LastSeen {
        number: u32,
        at_ms: i64,
    },
    /// Who has a session.
    Online {
        at_ms: i64,
        /// A roaring bitmap of device numbers.
        devices: Vec<u8>,
    },
    Seen {
        number: u32,
        outbox: OutboxId,
        used: i64,
        /// Whether a `Hello` has named the outbox.
        greeted: bool,
        /// The highest sequence that came over sessions; `None`: not known.
        by_session: Option<u64>,
        record: Vec<u8>,
    },
    /// The outbox is forgotten.
    SeenGone {
        number: u32,
        outbox: OutboxId,
    },
    Definition {
        position: i64,
        record: Box<DocumentRecord>,
    },
    Licence {
        position: i64,
        record: Box<DocumentRecord>,
    },
    Policy(PolicyWrite),
    Instruction {
        position: i64,
        id: InstructionId,
        record: Box<InstructionRecord>,
    },
    Submission {
        instruction: i64,
        created_at_ms: i64,
        record: Box<SubmissionRecord>,
    },
    /// Replaces what was stored of the instruction's approvals.
    Approvals {
        instruction: i64,
        record: Box<ApprovalsRecord>,
    },
    Stop {
        /// The position of the instruction that it ends.
        instruction: i64,
        until_ms: i64,
        record: Box<StopRecord>,
    },
    Counts {
        instruction: i64,
        record: CountsRecord,
    },
    Transition {
        position: i64,
        instruction: i64,
        record: Box<TransitionRecord>,
    },
    Result {
        position: i64,
        instruction: i64,
        number: u32,
        record: Box<ExportedResult>,
    },
    Event {
        position: i64,
        number: u32,
        record: Box<LoggedEvent>,
    },
    /// How long an instruction's results are kept.
    Kept(KeptWrite),
}

/// A row about client policies.
#[derive(Debug, Clone)]
pub(crate) enum PolicyWrite {
    /// It was imported.
    Held { serial: u64, record: Box<DocumentRecord> },
    /// A later one is for all, and room was wanted.
    Gone { serial: u64 },
    /// Which one a device follows; 0: none.
    Followed { number: u32, serial: u64 },
}

/// A row about how long results are kept, by the position of their instruction.
#[derive(Debug, Clone)]
pub(crate) enum KeptWrite {
    /// They are kept until then, or their deletion has come so far.
    Until { instruction: i64, until_ms: i64, stage: Stage },
    /// Those up to this position are deleted.
    Gone { instruction: i64, last: i64 },
}

/// Writes a batch in one transaction; returns how many bytes it has, about.
pub(super) fn all(connection: &mut Connection, writes: &[Write]) -> rusqlite::Result<usize> {
    let transaction = connection.transaction()?;
    let mut bytes = 0;
    for write in writes {
        bytes += write_one(&transaction, write)?;
    }
    transaction.commit()?;
    Ok(bytes)
}

/// Returns how many bytes the row has, about.
fn write_one(transaction: &Transaction<'_>, write: &Write) -> rusqlite::Result<usize> {
    match write {
        Write::Mark { mark, value } => write_mark(transaction, *mark, *value),
        Write::Device { number, device } => {
            let crc = checksum("devices", &[&key(*number), device.as_str().as_bytes()], &[]);
            cached(transaction, "INSERT INTO devices VALUES (?1, ?2, ?3)")?.execute(params![
                number,
                device.as_str(),
                crc
            ])?;
            Ok(64)
        }
        Write::DeviceRemoved { number, at_ms } => write_removal(transaction, *number, *at_ms),
        Write::Blocked { device, block } => blocked::write(transaction, device, block.as_deref()),
        Write::Facts { number, facts } => {
            let sql = "INSERT OR REPLACE INTO facts VALUES (?1, ?2, ?3)";
            write_keyed(transaction, sql, "facts", i64::from(*number), facts.as_ref())
        }
        Write::LastSeen { number, at_ms } => {
            let crc = checksum("last_seen", &[&key(*number), &key(*at_ms)], &[]);
            cached(transaction, "INSERT OR REPLACE INTO last_seen VALUES (?1, ?2, ?3)")?
                .execute(params![number, at_ms, crc])?;
            Ok(32)
        }
        Write::Online { at_ms, devices } => {
            let crc = checksum("online", &[&key(*at_ms)], devices);
            cached(transaction, "INSERT OR REPLACE INTO online VALUES (0, ?1, ?2, ?3)")?
                .execute(params![at_ms, devices, crc])?;
            Ok(devices.len() + 32)
        }
        Write::Seen { number, outbox, used, greeted, by_session, record } => {
            let by_session = by_session.map(u64::to_be_bytes);
            let number_key = key(*number);
            let keys = [&number_key[..], outbox.as_bytes()]
                .into_iter()
                .chain(by_session.as_ref().map(|key| &key[..]));
            let crc = checksum("seen", &keys.collect::<Vec<_>>(), record);
            cached(transaction, "INSERT OR REPLACE INTO seen VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
                .execute(params![number, outbox.as_bytes(), record, crc, used, greeted, by_session])?;
            Ok(record.len() + 32)
        }
        Write::SeenGone { number, outbox } => {
            let sql = "DELETE FROM seen WHERE number = ?1 AND outbox_id = ?2";
            cached(transaction, sql)?.execute(params![number, outbox.as_bytes()])?;
            Ok(32)
        }
        Write::Definition { position, record } => {
            let sql = "INSERT INTO definitions VALUES (?1, ?2, ?3)";
            write_keyed(transaction, sql, "definitions", *position, record.as_ref())
        }
        Write::Licence { position, record } => {
            let sql = "INSERT INTO licences VALUES (?1, ?2, ?3)";
            write_keyed(transaction, sql, "licences", *position, record.as_ref())
        }
        Write::Policy(write) => write_policy(transaction, write),
        Write::Kept(write) => kept::write(transaction, write),
        Write::Counts { instruction, record } => {
            let sql = "INSERT OR REPLACE INTO counts VALUES (?1, ?2, ?3)";
            write_keyed(transaction, sql, "counts", *instruction, record)
        }
        Write::Instruction { .. }
        | Write::Submission { .. }
        | Write::Approvals { .. }
        | Write::Stop { .. }
        | Write::Transition { .. }
        | Write::Result { .. }
        | Write::Event { .. } => write_logged(transaction, write),
    }
}

/// Writes what becomes of instructions, and events.
fn write_logged(transaction: &Transaction<'_>, write: &Write) -> rusqlite::Result<usize> {
    match write {
        Write::Instruction { position, id, record } => {
            let record = record.encode_to_vec();
            let crc = checksum("instructions", &[&key(*position), id.as_bytes()], &record);
            cached(transaction, "INSERT INTO instructions VALUES (?1, ?2, ?3, ?4)")?.execute(params![
                position,
                id.as_bytes(),
                record,
                crc
            ])?;
            Ok(record.len())
        }
        Write::Submission { instruction, created_at_ms, record } => {
            let keys = (*instruction, *created_at_ms);
            let sql = "INSERT INTO submissions VALUES (?1, ?2, ?3, ?4)";
            write_two_keys(transaction, sql, "submissions", keys, record.as_ref())
        }
        Write::Approvals { instruction, record } => {
            let sql = "INSERT OR REPLACE INTO approvals VALUES (?1, ?2, ?3)";
            write_keyed(transaction, sql, "approvals", *instruction, record.as_ref())
        }
        Write::Stop { instruction, until_ms, record } => {
            let sql = "INSERT OR REPLACE INTO stops VALUES (?1, ?2, ?3, ?4)";
            write_two_keys(transaction, sql, "stops", (*instruction, *until_ms), record.as_ref())
        }
        Write::Transition { position, instruction, record } => {
            let keys = (*position, *instruction);
            let sql = "INSERT INTO transitions VALUES (?1, ?2, ?3, ?4)";
            write_two_keys(transaction, sql, "transitions", keys, record.as_ref())
        }
        Write::Result { position, instruction, number, record } => {
            let record = record.encode_to_vec();
            let crc = checksum("results", &[&key(*position), &key(*instruction), &key(*number)], &record);
            cached(transaction, "INSERT INTO results VALUES (?1, ?2, ?3, ?4, ?5)")?.execute(params![
                position,
                instruction,
                number,
                record,
                crc
            ])?;
            Ok(record.len())
        }
        Write::Event { position, number, record } => {
            let keys = (*position, i64::from(*number));
            write_two_keys(
                transaction,
                "INSERT INTO events VALUES (?1, ?2, ?3, ?4)",
                "events",
                keys,
                record.as_ref(),
            )
        }
        Write::Mark { .. }
        | Write::Device { .. }
        | Write::DeviceRemoved { .. }
        | Write::Blocked { .. }
        | Write::Facts { .. }
        | Write::LastSeen { .. }
        | Write::Online { .. }
        | Write::Seen { .. }
        | Write::SeenGone { .. }
        | Write::Definition { .. }
        | Write::Licence { .. }
        | Write::Policy(_)
        | Write::Kept(_)
        | Write::Counts { .. } => Ok(0),
    }
}

fn write_mark(transaction: &Transaction<'_>, mark: Mark, value: u64) -> rusqlite::Result<usize> {
    let value = i64::try_from(value).unwrap_or(i64::MAX);
    let crc = checksum("marks", &[mark.name().as_bytes(), &key(value)], &[]);
    cached(transaction, "INSERT OR REPLACE INTO marks VALUES (?1, ?2, ?3)")?.execute(params![
        mark.name(),
        value,
        crc
    ])?;
    Ok(32)
}

fn write_removal(transaction: &Transaction<'_>, number: u32, at_ms: i64) -> rusqlite::Result<usize> {
    let crc = checksum("removed", &[&key(number), &key(at_ms)], &[]);
    cached(transaction, "INSERT INTO removed VALUES (?1, ?2, ?3)")?.execute(params![number, at_ms, crc])?;
    cached(transaction, "DELETE FROM facts WHERE number = ?1")?.execute([number])?;
    cached(transaction, "DELETE FROM last_seen WHERE number = ?1")?.execute([number])?;
    cached(transaction, "DELETE FROM policy_followed WHERE number = ?1")?.execute([number])?;
    Ok(32)
}

fn write_policy(transaction: &Transaction<'_>, write: &PolicyWrite) -> rusqlite::Result<usize> {
    // A policy's text cannot say a higher one, and what devices say is cut before it comes here.
    let signed = |serial: u64| i64::try_from(serial).unwrap_or(i64::MAX);
    match write {
        PolicyWrite::Held { serial, record } => {
            let sql = "INSERT INTO policies VALUES (?1, ?2, ?3)";
            return write_keyed(transaction, sql, "policies", signed(*serial), record.as_ref());
        }
        PolicyWrite::Gone { serial } => {
            cached(transaction, "DELETE FROM policies WHERE position = ?1")?.execute([signed(*serial)])?;
        }
        PolicyWrite::Followed { number, serial: 0 } => {
            cached(transaction, "DELETE FROM policy_followed WHERE number = ?1")?.execute([number])?;
        }
        PolicyWrite::Followed { number, serial } => {
            let serial = signed(*serial);
            let crc = checksum("policy_followed", &[&key(*number), &key(serial)], &[]);
            cached(transaction, "INSERT OR REPLACE INTO policy_followed VALUES (?1, ?2, ?3)")?
                .execute(params![number, serial, crc])?;
        }
    }
    Ok(32)
}

fn write_keyed(
    transaction: &Transaction<'_>,
    sql: &str,
    table: &str,
    number: i64,
    record: &impl Message,
) -> rusqlite::Result<usize> {
    let record = record.encode_to_vec();
    let crc = checksum(table, &[&key(number)], &record);
    cached(transaction, sql)?.execute(params![number, record, crc])?;
    Ok(record.len())
}

fn write_two_keys(
    transaction: &Transaction<'_>,
    sql: &str,
    table: &str,
    (first, second): (i64, i64),
    record: &impl Message,
) -> rusqlite::Result<usize> {
    let record = record.encode_to_vec();
    let crc = checksum(table, &[&key(first), &key(second)], &record);
    cached(transaction, sql)?.execute(params![first, second, record, crc])?;
    Ok(record.len())
}

pub(super) fn cached<'a>(
    transaction: &'a Transaction<'_>,
    sql: &str,
) -> rusqlite::Result<CachedStatement<'a>> {
    transaction.prepare_cached(sql)
}
