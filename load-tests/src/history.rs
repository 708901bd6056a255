//! The history checker: holds an export against itself and against what fake clients and operators wrote down.
//!
//! Rules (spec/promises.md):
//! - every target of an instruction is in exactly one state, and the stored transitions alone say so;
//! - states only move forward, and a terminal one is final;
//! - every target that ended by its own result shows exactly one, and nobody else shows any;
//! - nothing that is known by (device, outbox_id, sequence) is there twice;
//! - what was acked, or accepted, is there.

use std::collections::{BTreeMap, BTreeSet};

use muster_proto::common::v1::TargetState;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Violation {
    /// A line of the export cannot be read.
    #[error("line {line}: {problem}")]
    Unreadable {
        /// From 1.
        line: usize,
        /// Why.
        problem: String,
    },
    /// The states of an instruction do not add up to its targets.
    #[error("instruction {instruction}: {counted} targets are in a state, it has {targets}")]
    DoesNotAddUp {
        /// Its id.
        instruction: String,
        /// By its transitions.
        counted: u64,
        /// As it says.
        targets: u64,
    },
    /// The counts of an instruction are not those of its transitions.
    #[error("instruction {instruction}: it says {said} are {state}, its transitions say {counted}")]
    WrongCount {
        /// Its id.
        instruction: String,
        /// The state.
        state: String,
        /// As it says.
        said: u64,
        /// By its transitions.
        counted: u64,
    },
    /// A target moved backward, or out of a terminal state.
    #[error("instruction {instruction}: {device} went from {from} to {to}")]
    WentBack {
        /// Its id.
        instruction: String,
        /// The target.
        device: String,
        /// The state before.
        from: String,
        /// The state after.
        to: String,
    },
    /// A device that is no target has a state.
    #[error("instruction {instruction}: {device} became {state} and was never a target")]
    NotATarget {
        /// Its id.
        instruction: String,
        /// The device.
        device: String,
        /// The state.
        state: String,
    },
    /// A target ended by its own result, and the result is not there once.
    #[error("instruction {instruction}: {device} is {state} and has {results} results")]
    Results {
        /// Its id.
        instruction: String,
        /// The target.
        device: String,
        /// Its state.
        state: String,
        /// How many last parts there are.
        results: usize,
    },
    /// The same thing twice.
    #[error("{kind} {sequence} of {device}, outbox {outbox_id}, is there twice")]
    Twice {
        /// `result` or `event`.
        kind: &'static str,
        /// Whose.
        device: String,
        /// From where.
        outbox_id: String,
        /// Which.
        sequence: u64,
    },
    /// Something that was promised is not there.
    #[error("{what} was promised and is not there")]
    Lost {
        /// What.
        what: String,
    },
}

/// What a fake client or operator was told; each writes its own log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "told", rename_all = "snake_case")]
pub enum Promise {
    /// An operator: the instruction was accepted.
    Accepted {
        /// Its id.
        instruction: String,
    },
    /// A client: the result was acked.
    ResultAcked {
        /// Whose.
        device: String,
        /// From where, hex.
        outbox_id: String,
        /// Which.
        sequence: u64,
    },
    /// A client: the event was acked, by either road.
    EventAcked {
        /// Whose.
        device: String,
        /// From where, hex.
        outbox_id: String,
        /// Which.
        sequence: u64,
    },
}

/// An export, read.
#[derive(Debug, Default)]
pub struct History {
    instructions: BTreeMap<String, Instruction>,
    results: BTreeSet<(String, String, u64)>,
    events: BTreeSet<(String, String, u64)>,
    violations: Vec<Violation>,
}

#[derive(Debug, Default)]
struct Instruction {
    targets: u64,
    said: BTreeMap<String, u64>,
    states: BTreeMap<String, TargetState>,
    results: BTreeMap<String, usize>,
}

impl History {
    /// Reads an export, one JSON object a line.
    #[must_use]
    pub fn read(export: &str) -> Self {
        let mut history = Self::default();
        for (index, line) in export.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let added = serde_json::from_str::<Value>(line)
                .map_err(|error| error.to_string())
                .and_then(|record| history.add(&record));
            if let Err(problem) = added {
                history.violations.push(Violation::Unreadable { line: index + 1, problem });
            }
        }
        history
    }

    /// Everything that must not be, in order.
    #[must_use]
    pub fn check(&self, promises: &[Promise]) -> Vec<Violation> {
        let mut found = self.violations.clone();
        for (id, instruction) in &self.instructions {
            instruction.check(id, &mut found);
        }
        for promise in promises {
            found.extend(self.kept(promise));
        }
        found.sort();
        found
    }

    /// How many instructions, results and events there are.
    #[must_use]
    pub fn counts(&self) -> (usize, usize, usize) {
        (self.instructions.len(), self.results.len(), self.events.len())
    }

    fn add(&mut self, record: &Value) -> Result<(), String> {
        match text(record, "kind")?.as_str() {
            "definition" => Ok(()),
            "instruction" => {
                let instruction = self.instructions.entry(text(record, "id")?).or_default();
                instruction.targets = number(record, "targets")?;
                let states = record["states"].as_object().ok_or("no states")?;
                instruction.said = states
                    .iter()
                    .map(|(state, count)| (state.clone(), count.as_u64().unwrap_or(0)))
                    .collect();
                Ok(())
            }
            "transition" => self.transition(record),
            "result" => self.result(record),
            "event" => {
                let event = known_by(record)?;
                if !self.events.insert(event.clone()) {
                    self.violations.push(twice("event", event));
                }
                Ok(())
            }
            other => Err(format!("unknown kind `{other}`")),
        }
    }

    fn transition(&mut self, record: &Value) -> Result<(), String> {
        let (id, name) = (text(record, "instruction")?, text(record, "state")?);
        let state = TargetState::from_name(&name).ok_or_else(|| format!("unknown state `{name}`"))?;
        let devices = record["devices"].as_array().ok_or("no devices")?;
        let instruction = self.instructions.entry(id.clone()).or_default();
        for device in devices.iter().filter_map(Value::as_str) {
            let device = device.to_owned();
            match instruction.states.get(&device).copied() {
                None if state != TargetState::Queued => {
                    self.violations.push(Violation::NotATarget {
                        instruction: id.clone(),
                        device: device.clone(),
                        state: name.clone(),
                    });
                }
                Some(before) if !before.may_become(state) => self.violations.push(Violation::WentBack {
                    instruction: id.clone(),
                    device: device.clone(),
                    from: before.name().to_owned(),
                    to: name.clone(),
                }),
                None | Some(_) => {}
            }
            instruction.states.insert(device, state);
        }
        Ok(())
    }

    fn result(&mut self, record: &Value) -> Result<(), String> {
        let result = known_by(record)?;
        let instruction = self.instructions.entry(text(record, "instruction")?).or_default();
        // A result in parts counts by its first; each part has a sequence of its own.
        if number(record, "part")? == 0 {
            *instruction.results.entry(result.0.clone()).or_default() += 1;
        }
        if !self.results.insert(result.clone()) {
            self.violations.push(twice("result", result));
        }
        Ok(())
    }

    fn kept(&self, promise: &Promise) -> Option<Violation> {
        let lost = |what: String| Some(Violation::Lost { what });
        match promise {
            Promise::Accepted { instruction } if !self.instructions.contains_key(instruction) => {
                lost(format!("instruction {instruction}"))
            }
            Promise::ResultAcked { device, outbox_id, sequence }
                if !self.results.contains(&(device.clone(), outbox_id.clone(), *sequence)) =>
            {
                lost(format!("result {sequence} of {device}"))
            }
            Promise::EventAcked { device, outbox_id, sequence }
                if !self.events.contains(&(device.clone(), outbox_id.clone(), *sequence)) =>
            {
                lost(format!("event {sequence} of {device}"))
            }
            Promise::Accepted { .. } | Promise::ResultAcked { .. } | Promise::EventAcked { .. } => None,
        }
    }
}

impl Instruction {
    fn check(&self, id: &str, found: &mut Vec<Violation>) {
        let counted = u64::try_from(self.states.len()).unwrap_or(u64::MAX);
        if counted != self.targets {
            found.push(Violation::DoesNotAddUp {
                instruction: id.to_owned(),
                counted,
                targets: self.targets,
            });
        }
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for state in self.states.values() {
            *counts.entry(state.name()).or_default() += 1;
        }
        let names: BTreeSet<&str> =
            counts.keys().copied().chain(self.said.keys().map(String::as_str)).collect();
        for state in names {
            let (said, counted) =
                (self.said.get(state).copied().unwrap_or(0), counts.get(state).copied().unwrap_or(0));
            if said != counted {
                let state = state.to_owned();
                found.push(Violation::WrongCount { instruction: id.to_owned(), state, said, counted });
            }
        }
        let devices: BTreeSet<&String> = self.states.keys().chain(self.results.keys()).collect();
        for device in devices {
            let results = self.results.get(device).copied().unwrap_or(0);
            let state = self.states.get(device).copied();
            let wanted = usize::from(state.is_some_and(ends_by_result));
            // A client ends an order whose window passed with a result of its own, if it is there to say so.
            let fits = results == wanted || (results <= 1 && state.is_some_and(may_end_by_result));
            if !fits {
                let state = state.map_or("no target", TargetState::name).to_owned();
                found.push(Violation::Results {
                    instruction: id.to_owned(),
                    device: device.clone(),
                    state,
                    results,
                });
            }
        }
    }
}

fn ends_by_result(state: TargetState) -> bool {
    matches!(
        state,
        TargetState::Answered | TargetState::Failed | TargetState::Refused | TargetState::Interrupted
    )
}

fn may_end_by_result(state: TargetState) -> bool {
    matches!(state, TargetState::Expired | TargetState::Cancelled)
}

fn known_by(record: &Value) -> Result<(String, String, u64), String> {
    Ok((text(record, "device")?, text(record, "outbox_id")?, number(record, "sequence")?))
}

fn twice(kind: &'static str, (device, outbox_id, sequence): (String, String, u64)) -> Violation {
    Violation::Twice { kind, device, outbox_id, sequence }
}

fn text(record: &Value, field: &str) -> Result<String, String> {
    record[field].as_str().map(str::to_owned).ok_or_else(|| format!("no `{field}`"))
}

fn number(record: &Value, field: &str) -> Result<u64, String> {
    record[field].as_u64().ok_or_else(|| format!("no `{field}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
{"kind":"instruction","id":"i","targets":2,"states":{"answered":1,"running":1}}
{"kind":"transition","instruction":"i","state":"queued","devices":["a","b"]}
{"kind":"transition","instruction":"i","state":"sent","devices":["a","b"]}
{"kind":"transition","instruction":"i","state":"answered","devices":["a"]}
{"kind":"transition","instruction":"i","state":"running","devices":["b"]}
{"kind":"result","instruction":"i","device":"a","outbox_id":"0a","sequence":1,"part":0}
{"kind":"event","device":"a","outbox_id":"0a","sequence":2}
"#;

    fn check(export: &str) -> Vec<Violation> {
        History::read(export).check(&[])
    }

    #[test]
    fn a_good_history_has_nothing_to_say() {
        assert_eq!(check(GOOD), []);
        let acked = Promise::EventAcked { device: "a".to_owned(), outbox_id: "0a".to_owned(), sequence: 2 };
        assert_eq!(
            History::read(GOOD).check(&[acked, Promise::Accepted { instruction: "i".to_owned() }]),
            []
        );
    }

    #[test]
    fn a_ledger_with_one_member_removed_is_found() {
        let broken = GOOD
            .replace(r#""queued","devices":["a","b"]"#, r#""queued","devices":["a"]"#)
            .replace(r#""sent","devices":["a","b"]"#, r#""sent","devices":["a"]"#)
            .replace(r#""running","devices":["b"]"#, r#""running","devices":[]"#);

        let found = check(&broken);

        assert!(
            found
                .iter()
                .any(|violation| matches!(violation, Violation::DoesNotAddUp { counted: 1, targets: 2, .. })),
            "{found:?}"
        );
    }

    #[test]
    fn each_broken_promise_is_found() {
        let cases = [
            (GOOD.replace(r#"{"kind":"result","instruction":"i","device":"a","outbox_id":"0a","sequence":1,"part":0}"#, ""), "has 0 results"),
            (format!("{GOOD}{}", r#"{"kind":"event","device":"a","outbox_id":"0a","sequence":2}"#), "is there twice"),
            (format!("{GOOD}{}", r#"{"kind":"result","instruction":"i","device":"a","outbox_id":"0a","sequence":9,"part":0}"#), "has 2 results"),
            (format!("{GOOD}{}", r#"{"kind":"transition","instruction":"i","state":"sent","devices":["a"]}"#), "went from answered to sent"),
            (format!("{GOOD}{}", r#"{"kind":"transition","instruction":"i","state":"sent","devices":["z"]}"#), "never a target"),
            (format!("{GOOD}{}", "{"), "line 9"),
            (GOOD.replace(r#""running":1"#, r#""acked":1"#), "its transitions say"),
        ];
        for (export, expected) in cases {
            let found: Vec<String> = check(&export).iter().map(ToString::to_string).collect();

            assert!(found.iter().any(|text| text.contains(expected)), "{expected}: {found:?}");
        }
    }

    #[test]
    fn an_acked_result_that_is_not_there_is_lost() {
        let acked = Promise::ResultAcked { device: "a".to_owned(), outbox_id: "0a".to_owned(), sequence: 7 };

        assert_eq!(History::read(GOOD).check(&[acked]).len(), 1);
    }
}
