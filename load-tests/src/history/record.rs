//! A line of an export.

use std::collections::BTreeMap;

use muster_proto::common::v1::TargetState;
use serde_json::Value;

/// What a result or an event is known by, for ever.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Known {
    pub(super) device: String,
    pub(super) outbox_id: String,
    pub(super) sequence: u64,
}

/// What an instruction's record says of itself.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) definition: String,
    pub(super) version: String,
    pub(super) targets: u64,
    pub(super) states: BTreeMap<String, u64>,
    pub(super) complete: bool,
    /// Whether its results had been kept long enough.
    pub(super) results_deleted: bool,
    /// Whether an operator stopped it.
    pub(super) is_stopped: bool,
    /// How many approvals its author asks for.
    pub(super) approvals_wanted: u64,
    /// Who has approved it.
    pub(super) approved_by: Vec<String>,
}

/// One record.
#[derive(Debug)]
pub(super) enum Record {
    Definition {
        name: String,
        version: String,
    },
    Instruction {
        id: String,
        shown: Shown,
    },
    Transition {
        instruction: String,
        batch: u64,
        state: TargetState,
        devices: Vec<String>,
        cause: String,
    },
    Result {
        instruction: String,
        known: Known,
        part: u64,
        last: bool,
        state: TargetState,
        /// What does not fit: expected and found.
        shape: Result<(), (String, String)>,
    },
    Event {
        position: u64,
        known: Known,
        road: String,
    },
}

impl Record {
    /// Reads a line.
    ///
    /// # Errors
    /// It is no record, in words.
    pub(super) fn parse(line: &str) -> Result<Self, String> {
        let record: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
        match text(&record, "kind")?.as_str() {
            "definition" => {
                Ok(Self::Definition { name: text(&record, "name")?, version: text(&record, "version")? })
            }
            "instruction" => Ok(Self::Instruction { id: text(&record, "id")?, shown: shown(&record)? }),
            "transition" => Ok(Self::Transition {
                instruction: text(&record, "instruction")?,
                batch: number(&record, "batch")?,
                state: state(&record)?,
                devices: devices(&record)?,
                cause: text(&record, "cause")?,
            }),
            "result" => Ok(Self::Result {
                instruction: text(&record, "instruction")?,
                known: known(&record)?,
                part: number(&record, "part")?,
                last: boolean(&record, "last")?,
                state: state(&record)?,
                shape: result_shape(&record),
            }),
            "event" => Ok(Self::Event {
                position: number(&record, "position")?,
                known: known(&record)?,
                road: text(&record, "road")?,
            }),
            other => Err(format!("the unknown kind `{other}`")),
        }
    }
}

impl std::fmt::Display for Known {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { device, outbox_id, sequence } = self;
        write!(formatter, "sequence {sequence} of {device}, outbox {outbox_id}")
    }
}

fn shown(record: &Value) -> Result<Shown, String> {
    let states = record["states"].as_object().ok_or_else(|| missing(record, "states", "an object"))?;
    let count = |(state, count): (&String, &Value)| {
        let counted = count.as_u64().ok_or_else(|| format!("`states.{state}` {count}, not a count"))?;
        Ok((state.clone(), counted))
    };
    let approvals = record["approvals"].as_array().map_or(&[][..], Vec::as_slice);
    Ok(Shown {
        definition: text(record, "definition")?,
        version: text(record, "version")?,
        targets: number(record, "targets")?,
        states: states.iter().map(count).collect::<Result<_, String>>()?,
        complete: boolean(record, "complete")?,
        // An older Switch deletes none, and does not say so.
        results_deleted: record["results_deleted"].as_bool().unwrap_or_default(),
        is_stopped: record["stop"].is_object(),
        approvals_wanted: record["approvals_wanted"].as_u64().unwrap_or_default(),
        approved_by: approvals.iter().map(|given| text(given, "operator")).collect::<Result<_, _>>()?,
    })
}

fn devices(record: &Value) -> Result<Vec<String>, String> {
    let devices = record["devices"].as_array().ok_or_else(|| missing(record, "devices", "an array"))?;
    let name = |device: &Value| device.as_str().map(str::to_owned);
    devices.iter().map(|device| name(device).ok_or_else(|| format!("`devices` with {device}"))).collect()
}

fn known(record: &Value) -> Result<Known, String> {
    let (outbox_id, sequence) = (text(record, "outbox_id")?, number(record, "sequence")?);
    if outbox_id.len() != 32 || !outbox_id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(format!("`outbox_id` \"{outbox_id}\", not 32 hex digits"));
    }
    if sequence == 0 {
        return Err("`sequence` 0; they begin with 1".to_owned());
    }
    Ok(Known { device: text(record, "device")?, outbox_id, sequence })
}

/// A refusal has a code and nothing else has one; rows are as wide as there are columns.
fn result_shape(record: &Value) -> Result<(), (String, String)> {
    let (state, refusal) = (record["state"].as_str().unwrap_or_default(), record["refusal"].as_str());
    if refusal.is_some() != (state == TargetState::Refused.name()) {
        let expected = "a refusal's code where it was refused, and only there".to_owned();
        return Err((expected, format!("`{state}` with `refusal` {}", record["refusal"])));
    }
    let columns = record["columns"].as_array().map_or(0, Vec::len);
    let rows = record["rows"].as_array().map_or(&[][..], Vec::as_slice);
    match rows.iter().map(|row| row.as_array().map_or(0, Vec::len)).find(|width| *width != columns) {
        Some(width) => {
            Err((format!("rows of {columns} values, as there are columns"), format!("one of {width}")))
        }
        None => Ok(()),
    }
}

fn state(record: &Value) -> Result<TargetState, String> {
    let name = text(record, "state")?;
    TargetState::from_name(&name).ok_or_else(|| format!("the unknown state `{name}`"))
}

fn text(record: &Value, field: &str) -> Result<String, String> {
    record[field].as_str().map(str::to_owned).ok_or_else(|| missing(record, field, "a text"))
}

fn number(record: &Value, field: &str) -> Result<u64, String> {
    record[field].as_u64().ok_or_else(|| missing(record, field, "a number"))
}

fn boolean(record: &Value, field: &str) -> Result<bool, String> {
    record[field].as_bool().ok_or_else(|| missing(record, field, "true or false"))
}

fn missing(record: &Value, field: &str, wanted: &str) -> String {
    match record.get(field) {
        Some(value) => format!("`{field}` {value}, not {wanted}"),
        None => format!("no `{field}`"),
    }
}
