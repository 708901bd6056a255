//! Reads devices, definitions and events.

use std::collections::BTreeMap;

use bytes::Bytes;
use muster_pki::DeviceId;
use muster_proto::common::v1::Value;
use muster_proto::operator::v1::{Client, Definition, LoggedEvent};
use muster_signing::audience;
use rusqlite::{Connection, Row, params};
use semver::Version;

use super::pool::{Pool, failed};
use super::{Cursor, Page};
use crate::engine::EngineError;
use crate::engine::core::parse_audience;
use crate::engine::shared::Shared;
use crate::engine::store::{checked, key, verify};

/// Lists devices by name.
pub(super) fn clients(
    pool: &Pool,
    shared: &Shared,
    asked: &str,
    after: &Cursor,
    limit: u32,
) -> Result<Page<Client>, EngineError> {
    let expression = match asked {
        "" => None,
        asked => Some(parse_audience(asked, &shared.attributes())?),
    };
    pool.read(|connection| {
        let sql = "SELECT d.device, f.number, f.record, f.crc, l.at_ms, l.crc, p.serial, p.crc FROM devices d \
                   JOIN facts f ON f.number = d.number LEFT JOIN last_seen l ON l.number = d.number \
                   LEFT JOIN policy_followed p ON p.number = d.number \
                   WHERE d.device > ?1 ORDER BY d.device";
        let mut statement = connection.prepare_cached(sql).map_err(failed)?;
        let mut rows = statement.query([&after.0]).map_err(failed)?;
        let mut page = Page { items: Vec::new(), cursor: after.clone(), more: false };
        while let Some(row) = rows.next().map_err(failed)? {
            let Some(client) = facts(row, shared)? else { continue };
            // Nothing asked for lists everybody; an audience lists whom it holds.
            let matches = expression
                .as_ref()
                .is_none_or(|expression| audience::holds(Some(expression), &attributes(&client)));
            if !matches {
                continue;
            }
            if page.items.len() >= usize::try_from(limit).unwrap_or(usize::MAX) {
                page.more = true;
                break;
            }
            page.cursor = Cursor(row.get(0).map_err(failed)?);
            page.items.push(client);
        }
        Ok(page)
    })
}

/// Returns one device.
pub(super) fn client(pool: &Pool, shared: &Shared, device: &DeviceId) -> Result<Client, EngineError> {
    pool.read(|connection| {
        let sql = "SELECT d.device, f.number, f.record, f.crc, l.at_ms, l.crc, p.serial, p.crc FROM devices d \
                   JOIN facts f ON f.number = d.number LEFT JOIN last_seen l ON l.number = d.number \
                   LEFT JOIN policy_followed p ON p.number = d.number \
                   WHERE d.device = ?1";
        let mut statement = connection.prepare_cached(sql).map_err(failed)?;
        let mut rows = statement.query([device.as_str()]).map_err(failed)?;
        let row = rows.next().map_err(failed)?;
        let row = row.ok_or_else(|| EngineError::NotFound(format!("no device {device}")))?;
        facts(row, shared)?
            .ok_or_else(|| EngineError::Damaged(format!("what is known of {device} is damaged")))
    })
}

/// Lists definitions by name, then version.
pub(super) fn definitions(shared: &Shared, after: &Cursor, limit: u32) -> Page<Definition> {
    let (catalogue, now_ms) = (shared.catalogue(), shared.clock.now_ms());
    let from =
        after.0.rsplit_once('@').and_then(|(name, version)| Some((name.to_owned(), version.parse().ok()?)));
    let mut page = Page { items: Vec::new(), cursor: after.clone(), more: false };
    for (place, held) in catalogue.all().filter(|(place, _)| from.as_ref().is_none_or(|from| *place > from)) {
        if page.items.len() >= usize::try_from(limit).unwrap_or(usize::MAX) {
            page.more = true;
            break;
        }
        page.cursor = Cursor(format!("{}@{}", place.0, place.1));
        page.items.push(catalogue.shown(held, now_ms));
    }
    page
}

/// Returns one definition and its envelope.
pub(super) fn definition(
    shared: &Shared,
    name: &str,
    version: &str,
) -> Result<(Definition, Bytes), EngineError> {
    let catalogue = shared.catalogue();
    let held = if version.is_empty() {
        catalogue.versions(name).last()
    } else {
        let parsed: Version = version
            .parse()
            .map_err(|error| EngineError::InvalidArgument(format!("version `{version}`: {error}")))?;
        catalogue.definition(name, &parsed)
    };
    let held = held.ok_or_else(|| catalogue.missing(name, version))?;
    Ok((catalogue.shown(held, shared.clock.now_ms()), held.envelope.clone()))
}

/// Lists events in the order of commitment.
pub(super) fn events(
    pool: &Pool,
    shared: &Shared,
    device: Option<&DeviceId>,
    after: u64,
    limit: u32,
) -> Result<Vec<LoggedEvent>, EngineError> {
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    pool.read(|connection| {
        let numbers = device.map(|device| numbers(connection, device)).transpose()?;
        let sql = match numbers.as_deref() {
            None => "SELECT position, number, record, crc FROM events WHERE position > ?1 ORDER BY position",
            Some([]) => return Ok(Vec::new()),
            // In the order of its index; those of several numbers have to be sorted.
            Some([_]) => {
                "SELECT position, number, record, crc FROM events WHERE number = ?2 AND position > ?1 ORDER BY position"
            }
            Some(_) => {
                "SELECT position, number, record, crc FROM events WHERE position > ?1 \
                 AND number IN (SELECT number FROM devices WHERE device = ?2) ORDER BY position"
            }
        };
        let mut statement = connection.prepare_cached(sql).map_err(failed)?;
        let mut rows = match (numbers.as_deref(), device) {
            (Some([number]), _) => statement.query(params![after, number]),
            (Some(_), Some(device)) => statement.query(params![after, device.as_str()]),
            (None, _) | (_, None) => statement.query([after]),
        }
        .map_err(failed)?;
        let mut events = Vec::new();
        while let Some(row) = rows.next().map_err(failed)? {
            events.extend(event(row, shared)?);
            if events.len() >= usize::try_from(limit).unwrap_or(usize::MAX) {
                break;
            }
        }
        Ok(events)
    })
}

/// Returns the event of a row (position, number, record, crc); `None` if it is damaged.
pub(super) fn event(row: &Row<'_>, shared: &Shared) -> Result<Option<LoggedEvent>, EngineError> {
    let position: i64 = row.get(0).map_err(failed)?;
    let number: u32 = row.get(1).map_err(failed)?;
    let record = row.get_ref(2).map_err(failed)?.as_blob().map_err(failed)?;
    let read = checked("events", &[&key(position), &key(number)], record, row.get(3).map_err(failed)?);
    Ok(read.inspect_err(|what| shared.damage.note("events", &position.to_string(), what)).ok())
}

/// Returns what is known of a device of a row (name, number, record, crc, last seen, its crc, the policy's serial, its
/// crc); `None` if it is damaged.
fn facts(row: &Row<'_>, shared: &Shared) -> Result<Option<Client>, EngineError> {
    let number: u32 = row.get(1).map_err(failed)?;
    let record = row.get_ref(2).map_err(failed)?.as_blob().map_err(failed)?;
    let read = checked::<Client>("facts", &[&key(number)], record, row.get(3).map_err(failed)?);
    let Ok(mut client) = read.inspect_err(|what| shared.damage.note("facts", &number.to_string(), what))
    else {
        return Ok(None);
    };
    let address = client.device.parse().ok().and_then(|device| shared.address(&device));
    client.blocked = client.device.parse().ok().and_then(|device| shared.blocked().get(&device).cloned());
    client.unauthenticated = client.device.parse().is_ok_and(|device: DeviceId| device.is_of_key());
    client.online = address.is_some();
    client.last_seen_at_ms = match address {
        Some(_) => shared.clock.now_ms(),
        None => client.last_seen_at_ms.max(session_end(row, number, shared)?.unwrap_or_default()),
    };
    client.address = address.map(|address| address.to_string()).unwrap_or_default();
    client.policy_serial = policy_serial(row, number, shared)?;
    Ok(Some(client))
}

/// Returns when the device's last session ended; `None` if none did, or the row is damaged.
fn session_end(row: &Row<'_>, number: u32, shared: &Shared) -> Result<Option<i64>, EngineError> {
    let stored: (Option<i64>, Option<i64>) = (row.get(4).map_err(failed)?, row.get(5).map_err(failed)?);
    let (Some(at_ms), Some(crc)) = stored else { return Ok(None) };
    let sound = verify("last_seen", &[&key(number), &key(at_ms)], &[], crc);
    Ok(sound
        .inspect_err(|what| shared.damage.note("last_seen", &number.to_string(), what))
        .is_ok()
        .then_some(at_ms))
}

/// Returns the serial of the policy that the device follows; 0 if it follows none, or the row is damaged.
fn policy_serial(row: &Row<'_>, number: u32, shared: &Shared) -> Result<u64, EngineError> {
    let stored: (Option<i64>, Option<i64>) = (row.get(6).map_err(failed)?, row.get(7).map_err(failed)?);
    let (Some(serial), Some(crc)) = stored else { return Ok(0) };
    let sound = verify("policy_followed", &[&key(number), &key(serial)], &[], crc);
    let sound = sound.inspect_err(|what| shared.damage.note("policy_followed", &number.to_string(), what));
    Ok(sound.ok().and_then(|()| u64::try_from(serial).ok()).unwrap_or_default())
}

fn attributes(client: &Client) -> BTreeMap<String, Value> {
    let pair = |named: &muster_proto::common::v1::NamedValue| {
        (named.name.clone(), named.value.clone().unwrap_or_default())
    };
    client.attributes.iter().map(pair).collect()
}

/// Returns the numbers that a name has had: more than one if its device was removed and came again.
fn numbers(connection: &Connection, device: &DeviceId) -> Result<Vec<u32>, EngineError> {
    let sql = "SELECT number FROM devices WHERE device = ?1";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let numbers = statement.query_map([device.as_str()], |row| row.get(0)).map_err(failed)?;
    numbers.collect::<Result<_, _>>().map_err(failed)
}
