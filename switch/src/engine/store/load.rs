//! What the core gets back at start. A damaged record is set aside and counted, never served.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use muster_pki::DeviceId;
use muster_proto::common::v1::TargetState;
use muster_proto::ids::InstructionId;
use muster_proto::operator::v1::{Block, Client, StateCount};
use rusqlite::{Connection, params};

use super::kept::{self, LoadedKept};
use super::online::Online;
use super::recall::{self, Received};
use super::record::{checked, verify};
use super::stops::{self, LoadedStop};
use super::{
    ApprovalsRecord, CountsRecord, DocumentRecord, InstructionRecord, Mark, Store, StoreError,
    SubmissionRecord, TransitionRecord, approvals, bitmap, blocked, key, online, seen,
};
use crate::engine::core::StoredOutbox;
use crate::engine::damage::Damage;
use crate::engine::ledger::Ledger;

/// Everything the core needs.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    /// By number, also those that were removed.
    pub(crate) devices: Vec<(u32, DeviceId)>,
    /// The numbers of those that were removed.
    pub(crate) removed: BTreeSet<u32>,
    pub(crate) facts: BTreeMap<u32, Client>,
    /// Greater than every number given before, also than those of damaged records.
    pub(crate) next_number: u32,
    pub(crate) seen: Vec<StoredOutbox>,
    /// In the order of import.
    pub(crate) definitions: LoadedDocuments,
    pub(crate) licences: LoadedDocuments,
    /// By serial.
    pub(crate) policies: LoadedDocuments,
    /// Which policy devices follow, by number.
    pub(crate) followed: Vec<(u32, u64)>,
    /// Those with targets that are not terminal, oldest first.
    pub(crate) active: Vec<LoadedInstruction>,
    /// Those that are damaged, and why.
    pub(crate) set_aside: Vec<(i64, InstructionId, String)>,
    /// Those of them whose results are deleted, or being deleted, by position.
    pub(crate) deleted_aside: BTreeSet<i64>,
    /// Those since [`Store::load`]'s `submissions_since_ms`, with when they came, oldest first.
    pub(crate) submissions: Vec<(i64, SubmissionRecord)>,
    /// Of instructions whose windows may not be over.
    pub(crate) stops: Vec<LoadedStop>,
    /// Results that are kept, or not deleted to the last.
    pub(crate) kept: Vec<LoadedKept>,
    pub(crate) marks: LoadedMarks,
    /// Who is blocked, with by whom, when and why.
    pub(crate) blocked: BTreeMap<DeviceId, Block>,
    pub(crate) online: Online,
}

/// Documents of a table, in its order.
#[derive(Debug, Default)]
pub(crate) struct LoadedDocuments {
    /// Those that are whole, each with its position.
    pub(crate) whole: Vec<(i64, DocumentRecord)>,
    /// The last position of a damaged one; 0: there is none.
    pub(crate) damaged_to: i64,
}

/// An instruction whose transitions add up.
#[derive(Debug)]
pub(crate) struct LoadedInstruction {
    pub(crate) position: i64,
    pub(crate) id: InstructionId,
    pub(crate) record: InstructionRecord,
    pub(crate) ledger: Ledger,
    /// What is stored of results of which the last part has yet to come, by device.
    pub(crate) received: HashMap<u32, Received>,
    /// Approvals that came after it.
    pub(crate) approvals: Option<ApprovalsRecord>,
}

/// Numbers that never go back: the last ones given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LoadedMarks {
    pub(crate) epoch: u64,
    pub(crate) order_sequence: u64,
    pub(crate) batch: u64,
    /// The highest serial of a licence, as far as its mark says; 0 if none does.
    pub(crate) licence_serial: u64,
    /// The highest serial of a policy, damaged ones included.
    pub(crate) policy_serial: u64,
    pub(crate) definition: i64,
    pub(crate) licence: i64,
    pub(crate) instruction: i64,
    pub(crate) transition: i64,
    pub(crate) result: i64,
    pub(crate) event: i64,
}

/// By how much a mark is raised above what the other records show, when its own record is damaged: more than can have
/// been given between two of them.
const MARK_MARGIN: u64 = 1 << 32;

impl Store {
    /// Loads what the core needs.
    pub(crate) fn load(&self, submissions_since_ms: i64, damage: &Damage) -> Result<Loaded, StoreError> {
        load(self.connection(), submissions_since_ms, damage).map_err(|cause| self.error(&cause))
    }
}

fn load(connection: &Connection, submissions_since_ms: i64, damage: &Damage) -> rusqlite::Result<Loaded> {
    let mut loaded = Loaded::default();
    load_removed(connection, damage, &mut loaded)?;
    load_devices(connection, damage, &mut loaded)?;
    load_facts(connection, damage, &mut loaded)?;
    names_from_facts(&mut loaded);
    loaded.seen = seen::load(connection, damage)?;
    loaded.definitions = load_documents(connection, damage, "definitions")?;
    loaded.licences = load_documents(connection, damage, "licences")?;
    loaded.policies = load_documents(connection, damage, "policies")?;
    load_followed(connection, damage, &mut loaded)?;
    load_instructions(connection, damage, &mut loaded)?;
    load_submissions(connection, damage, submissions_since_ms, &mut loaded)?;
    loaded.stops = stops::load(connection, damage, submissions_since_ms)?;
    loaded.kept = kept::load(connection, damage)?;
    for (position, ..) in &loaded.set_aside {
        if kept::is_deleted(connection, *position)? {
            loaded.deleted_aside.insert(*position);
        }
    }
    load_marks(connection, damage, &mut loaded)?;
    loaded.blocked = blocked::load(connection, damage)?;
    loaded.online = online::load(connection, damage)?;
    Ok(loaded)
}

/// Replays the stored transitions of an instruction.
///
/// # Errors
/// The text says what is damaged; the outer error is SQLite's.
pub(crate) fn replay(
    connection: &Connection,
    instruction: i64,
    targets: &[u8],
) -> rusqlite::Result<Result<Ledger, String>> {
    let mut ledger = match bitmap(targets) {
        Ok(targets) => Ledger::empty(targets),
        Err(what) => return Ok(Err(what)),
    };
    let sql = "SELECT position, record, crc FROM transitions WHERE instruction = ?1 ORDER BY position";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([instruction])?;
    while let Some(row) = rows.next()? {
        let position: i64 = row.get(0)?;
        let record = row.get_ref(1)?.as_bytes_or_null().map_err(rusqlite::Error::from)?.unwrap_or_default();
        let keys = [&key(position)[..], &key(instruction)];
        let applied =
            checked::<TransitionRecord>("transitions", &keys, record, row.get(2)?).and_then(|record| {
                let devices = bitmap(&record.devices)?;
                ledger.replay(&devices, record.state()).map_err(|error| error.to_string())
            });
        if let Err(what) = applied {
            return Ok(Err(format!("transition {position}: {what}")));
        }
    }
    Ok(ledger.check().map(|()| ledger).map_err(|error| error.to_string()))
}

/// A damaged row removes its device all the same: it stands there, and a removed device must not come back by itself.
fn load_removed(connection: &Connection, damage: &Damage, loaded: &mut Loaded) -> rusqlite::Result<()> {
    let mut statement = connection.prepare("SELECT number, at_ms, crc FROM removed")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (number, at_ms): (u32, i64) = (row.get(0)?, row.get(1)?);
        if let Err(what) = verify("removed", &[&key(number), &key(at_ms)], &[], row.get(2)?) {
            damage.note("removed", &number.to_string(), &what);
        }
        loaded.removed.insert(number);
    }
    Ok(())
}

fn load_devices(connection: &Connection, damage: &Damage, loaded: &mut Loaded) -> rusqlite::Result<()> {
    let mut statement = connection.prepare("SELECT number, device, crc FROM devices ORDER BY number")?;
    let mut rows = statement.query([])?;
    let mut known = BTreeSet::new();
    while let Some(row) = rows.next()? {
        let number: u32 = row.get(0)?;
        loaded.next_number = loaded.next_number.max(number.saturating_add(1));
        let name = row.get_ref(1)?.as_bytes().map_err(rusqlite::Error::from)?;
        let device = verify("devices", &[&key(number), name], &[], row.get(2)?).and_then(|()| {
            let text = str::from_utf8(name).map_err(|error| error.to_string())?;
            text.parse::<DeviceId>().map_err(|error| error.to_string())
        });
        match device {
            Ok(device) if loaded.removed.contains(&number) => loaded.devices.push((number, device)),
            Ok(device) if known.insert(device.clone()) => loaded.devices.push((number, device)),
            Ok(device) => damage.note("devices", &number.to_string(), &format!("{device} has two numbers")),
            Err(what) => damage.note("devices", &number.to_string(), &what),
        }
    }
    let highest: Option<u32> = connection.query_row("SELECT max(number) FROM facts", [], |row| row.get(0))?;
    loaded.next_number = loaded.next_number.max(highest.map_or(0, |highest| highest.saturating_add(1)));
    Ok(())
}

fn load_facts(connection: &Connection, damage: &Damage, loaded: &mut Loaded) -> rusqlite::Result<()> {
    let mut statement = connection.prepare("SELECT number, record, crc FROM facts")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let number: u32 = row.get(0)?;
        let record: Vec<u8> = row.get(1)?;
        match checked("facts", &[&key(number)], &record, row.get(2)?) {
            Ok(facts) => {
                loaded.facts.insert(number, facts);
            }
            Err(what) => damage.note("facts", &number.to_string(), &what),
        }
    }
    Ok(())
}

/// Gives devices whose own record is damaged the name that their facts have, too.
fn names_from_facts(loaded: &mut Loaded) {
    let live = loaded.devices.iter().filter(|(number, _)| !loaded.removed.contains(number));
    let mut known: BTreeSet<DeviceId> = live.map(|(_, device)| device.clone()).collect();
    let numbers: BTreeSet<u32> = loaded.devices.iter().map(|(number, _)| *number).collect();
    for (number, facts) in &loaded.facts {
        if let Ok(device) = facts.device.parse::<DeviceId>()
            && !numbers.contains(number)
            && known.insert(device.clone())
        {
            loaded.devices.push((*number, device));
        }
    }
}

fn load_documents(
    connection: &Connection,
    damage: &Damage,
    table: &'static str,
) -> rusqlite::Result<LoadedDocuments> {
    let mut statement =
        connection.prepare(&format!("SELECT position, record, crc FROM {table} ORDER BY position"))?;
    let mut rows = statement.query([])?;
    let mut documents = LoadedDocuments::default();
    while let Some(row) = rows.next()? {
        let position: i64 = row.get(0)?;
        let record: Vec<u8> = row.get(1)?;
        match checked(table, &[&key(position)], &record, row.get(2)?) {
            Ok(document) => documents.whole.push((position, document)),
            Err(what) => {
                documents.damaged_to = position;
                damage.note(table, &position.to_string(), &what);
            }
        }
    }
    Ok(documents)
}

/// A damaged row is as none: the device tells it again with its next session.
fn load_followed(connection: &Connection, damage: &Damage, loaded: &mut Loaded) -> rusqlite::Result<()> {
    let mut statement = connection.prepare("SELECT number, serial, crc FROM policy_followed")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (number, serial): (u32, i64) = (row.get(0)?, row.get(1)?);
        match verify("policy_followed", &[&key(number), &key(serial)], &[], row.get(2)?) {
            Ok(()) => loaded.followed.push((number, u64::try_from(serial).unwrap_or_default())),
            Err(what) => damage.note("policy_followed", &number.to_string(), &what),
        }
    }
    Ok(())
}

/// Replays every instruction that is not known to be complete. Those that are cost one small row each.
fn load_instructions(connection: &Connection, damage: &Damage, loaded: &mut Loaded) -> rusqlite::Result<()> {
    let sql = "SELECT i.position, i.id, c.record, c.crc FROM instructions i LEFT JOIN counts c ON c.instruction = i.position \
               ORDER BY i.position";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let position: i64 = row.get(0)?;
        let id: Vec<u8> = row.get(1)?;
        let Ok(id) = InstructionId::try_from(&id[..]) else {
            damage.note("instructions", &position.to_string(), "id is not 16 bytes");
            continue;
        };
        let counts = match row.get::<_, Option<Vec<u8>>>(2)? {
            Some(record) => checked::<CountsRecord>("counts", &[&key(position)], &record, row.get(3)?),
            None => Err("counts are missing".to_owned()),
        };
        let counts = counts.inspect_err(|what| damage.note("counts", &position.to_string(), what)).ok();
        if counts.as_ref().is_some_and(|counts| counts.states.iter().all(|count| count.state().is_terminal()))
        {
            continue;
        }
        match load_instruction(connection, damage, position, id, counts)? {
            Ok(instruction) if instruction.ledger.is_complete() => {}
            Ok(instruction) => loaded.active.push(instruction),
            Err(what) => {
                damage.note("instructions", &id.to_string(), &what);
                loaded.set_aside.push((position, id, what));
            }
        }
    }
    Ok(())
}

fn load_instruction(
    connection: &Connection,
    damage: &Damage,
    position: i64,
    id: InstructionId,
    counts: Option<CountsRecord>,
) -> rusqlite::Result<Result<LoadedInstruction, String>> {
    let sql = "SELECT record, crc FROM instructions WHERE position = ?1";
    let (record, crc): (Vec<u8>, i64) =
        connection.prepare_cached(sql)?.query_row([position], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let keys = [&key(position)[..], id.as_bytes()];
    let record = match checked::<InstructionRecord>("instructions", &keys, &record, crc) {
        Ok(record) => record,
        Err(what) => return Ok(Err(what)),
    };
    let ledger = match replay(connection, position, &record.targets)? {
        Ok(ledger) => ledger,
        Err(what) => return Ok(Err(what)),
    };
    let replayed: Vec<StateCount> =
        ledger.counts().into_iter().map(|(state, count)| StateCount { state: state.into(), count }).collect();
    match counts {
        // A transition that is missing as a whole leaves a partition; only the counts know of it.
        Some(counts) if counts.states != replayed => Ok(Err(format!(
            "transitions add up to {}, the counts say {}",
            told(&replayed),
            told(&counts.states)
        ))),
        _ => {
            let mut received = recall::received(connection, position)?;
            let is_open = |number: u32| ledger.state_of(number).is_some_and(|state| !state.is_terminal());
            received.retain(|number, _| is_open(*number));
            let approvals = approvals::of(connection, position)?;
            let approvals = match approvals {
                Ok(approvals) => approvals,
                // Without them it is as it was submitted, and others may approve it again; but a device that has it would take it for
                // another then, since other signatures make other bytes.
                Err(what) if replayed.iter().all(|count| was_nowhere(count.state())) => {
                    damage.note("approvals", &position.to_string(), &what);
                    None
                }
                Err(what) => return Ok(Err(format!("approvals: {what}"))),
            };
            Ok(Ok(LoadedInstruction { position, id, record, ledger, received, approvals }))
        }
    }
}

/// Whether no device has told of an instruction whose target is in this state.
fn was_nowhere(state: TargetState) -> bool {
    matches!(state, TargetState::Queued | TargetState::Cancelled | TargetState::Expired)
}

fn told(states: &[StateCount]) -> String {
    let one = |count: &StateCount| format!("{} {}", count.count, TargetState::name(count.state()));
    match states {
        [] => "nothing".to_owned(),
        states => states.iter().map(one).collect::<Vec<_>>().join(", "),
    }
}

fn load_submissions(
    connection: &Connection,
    damage: &Damage,
    since_ms: i64,
    loaded: &mut Loaded,
) -> rusqlite::Result<()> {
    let sql = "SELECT instruction, created_at_ms, record, crc FROM submissions WHERE created_at_ms >= ?1 \
               ORDER BY instruction";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query(params![since_ms])?;
    while let Some(row) = rows.next()? {
        let (instruction, created, record): (i64, i64, Vec<u8>) = (row.get(0)?, row.get(1)?, row.get(2)?);
        match checked("submissions", &[&key(instruction), &key(created)], &record, row.get(3)?) {
            Ok(submission) => loaded.submissions.push((created, submission)),
            Err(what) => damage.note("submissions", &instruction.to_string(), &what),
        }
    }
    Ok(())
}

fn load_marks(connection: &Connection, damage: &Damage, loaded: &mut Loaded) -> rusqlite::Result<()> {
    let last = |table: &str| -> rusqlite::Result<i64> {
        let sql = format!("SELECT coalesce(max(position), 0) FROM {table}");
        connection.query_row(&sql, [], |row| row.get(0))
    };
    let epochs = loaded.facts.values().map(|facts| facts.epoch).max().unwrap_or_default();
    loaded.marks = LoadedMarks {
        epoch: mark(connection, damage, Mark::Epoch, epochs)?,
        order_sequence: mark(connection, damage, Mark::OrderSequence, 0)?,
        batch: mark(connection, damage, Mark::Batch, 0)?,
        licence_serial: serial(connection, damage, Mark::LicenceSerial)?,
        policy_serial: serial(connection, damage, Mark::PolicySerial)?
            .max(u64::try_from(last("policies")?).unwrap_or_default()),
        definition: last("definitions")?,
        licence: last("licences")?,
        instruction: last("instructions")?,
        transition: last("transitions")?,
        result: i64::try_from(mark(
            connection,
            damage,
            Mark::Result,
            u64::try_from(last("results")?).unwrap_or_default(),
        )?)
        .unwrap_or(i64::MAX),
        event: last("events")?,
    };
    Ok(())
}

/// Returns the highest serial of a kind of document. A damaged mark is left out: raised, it would refuse every later one.
fn serial(connection: &Connection, damage: &Damage, mark: Mark) -> rusqlite::Result<u64> {
    let mut statement = connection.prepare("SELECT value, crc FROM marks WHERE name = ?1")?;
    let mut rows = statement.query([mark.name()])?;
    let Some(row) = rows.next()? else { return Ok(0) };
    let value: i64 = row.get(0)?;
    match verify("marks", &[mark.name().as_bytes(), &key(value)], &[], row.get(1)?) {
        Ok(()) => Ok(u64::try_from(value).unwrap_or_default()),
        Err(what) => {
            damage.note("marks", mark.name(), &what);
            Ok(0)
        }
    }
}

/// Returns a mark; of a damaged one, a value that is surely not lower than the one lost.
fn mark(connection: &Connection, damage: &Damage, mark: Mark, shown: u64) -> rusqlite::Result<u64> {
    let mut statement = connection.prepare("SELECT value, crc FROM marks WHERE name = ?1")?;
    let mut rows = statement.query([mark.name()])?;
    let Some(row) = rows.next()? else { return Ok(shown) };
    let value: i64 = row.get(0)?;
    match verify("marks", &[mark.name().as_bytes(), &key(value)], &[], row.get(1)?) {
        Ok(()) => Ok(u64::try_from(value).unwrap_or_default().max(shown)),
        Err(what) => {
            damage.note("marks", mark.name(), &what);
            Ok(shown + MARK_MARGIN)
        }
    }
}
