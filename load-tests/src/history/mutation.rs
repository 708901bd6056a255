//! The oracle of the oracle: each way in which a history can be broken, and the rule that must find it.
//!
//! A checker that finds nothing is only believed after it found what was put there. Tests do so with histories of their
//! own and with exports of programs that ran.

use serde_json::{Value, json};

use super::Rule;

/// One way to break a history.
#[derive(Debug, Clone, Copy)]
pub struct Mutation {
    /// What is done to it.
    pub name: &'static str,
    /// The rule that is broken.
    pub breaks: Rule,
    apply: fn(&mut Vec<Value>) -> Option<()>,
}

impl Mutation {
    /// Breaks an export; `None` if it holds nothing that this could be done to.
    #[must_use]
    pub fn of(&self, export: &str) -> Option<String> {
        let mut lines: Vec<Value> =
            export.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        (self.apply)(&mut lines)?;
        Some(lines.iter().map(|line| format!("{line}\n")).collect())
    }
}

/// Every mutation. Each needs an instruction that was answered, and an event, to be applied.
pub const ALL: [Mutation; 28] = [
    Mutation {
        name: "a line of junk",
        breaks: Rule::Readable,
        apply: |lines| {
            lines.push(json!("junk"));
            Some(())
        },
    },
    Mutation {
        name: "an unknown state",
        breaks: Rule::Readable,
        apply: |lines| set(lines, "transition", "state", json!("done")),
    },
    Mutation {
        name: "an instruction without its record",
        breaks: Rule::Record,
        apply: |lines| take(lines, "instruction").map(drop),
    },
    Mutation {
        name: "an instruction twice",
        breaks: Rule::Record,
        apply: |lines| repeat(lines, "instruction"),
    },
    Mutation {
        name: "no definition",
        breaks: Rule::Definition,
        apply: |lines| {
            let name = find(lines, "instruction")?["definition"].clone();
            lines.retain(|line| line["kind"] != "definition" || line["name"] != name);
            Some(())
        },
    },
    Mutation {
        name: "a target left in no state",
        breaks: Rule::Members,
        apply: |lines| {
            let (instruction, device) = answered(lines)?;
            each_transition(lines, &instruction, |record| leave_out(record, &device));
            Some(())
        },
    },
    Mutation {
        name: "a target too many",
        breaks: Rule::Members,
        apply: |lines| {
            let targets = find(lines, "instruction")?["targets"].as_u64()?;
            set(lines, "instruction", "targets", json!(targets + 1))
        },
    },
    Mutation {
        name: "a member taken out of its last transition",
        breaks: Rule::Counts,
        apply: |lines| {
            let (_, device) = answered(lines)?;
            leave_out(answered_transition(lines)?, &device);
            Some(())
        },
    },
    Mutation {
        name: "an instruction that says the contrary of complete",
        breaks: Rule::Counts,
        apply: |lines| {
            let complete = find(lines, "instruction")?["complete"].as_bool()?;
            set(lines, "instruction", "complete", json!(!complete))
        },
    },
    Mutation {
        name: "a member taken out of its first transition",
        breaks: Rule::Targets,
        apply: |lines| {
            let (instruction, device) = answered(lines)?;
            let first = lines.iter_mut().find(|line| {
                line["kind"] == "transition"
                    && line["instruction"] == instruction
                    && line["state"] == "queued"
            })?;
            leave_out(first, &device);
            Some(())
        },
    },
    Mutation {
        name: "a result of a stranger",
        breaks: Rule::Targets,
        apply: |lines| copy_result(lines, |result| result["device"] = json!("stranger.example.org")),
    },
    Mutation {
        name: "a transition twice",
        breaks: Rule::Forward,
        apply: |lines| {
            let again = answered_transition(lines)?.clone();
            insert_after(lines, "transition", again);
            Some(())
        },
    },
    Mutation {
        name: "a step back out of a terminal state",
        breaks: Rule::Forward,
        apply: |lines| {
            let mut back = answered_transition(lines)?.clone();
            (back["state"], back["cause"]) = (json!("sent"), json!("written"));
            insert_after(lines, "transition", back);
            Some(())
        },
    },
    Mutation {
        name: "a state by a cause that does not lead to it",
        breaks: Rule::Causes,
        apply: |lines| {
            answered_transition(lines)?["cause"] = json!("deadline");
            Some(())
        },
    },
    Mutation {
        name: "an order that went out without an approval that it needs",
        breaks: Rule::Approvals,
        apply: |lines| {
            let (id, _) = answered(lines)?;
            let of = |line: &&mut Value| line["kind"] == "instruction" && line["id"] == id;
            let record = lines.iter_mut().find(of)?;
            let given = record["approvals"].as_array().map_or(0, Vec::len);
            record["approvals_wanted"] = json!(given + 1);
            Some(())
        },
    },
    Mutation {
        name: "a batch out of its turn",
        breaks: Rule::Order,
        apply: |lines| {
            let last = lines.iter_mut().rfind(|line| line["kind"] == "transition")?;
            last["batch"] = json!(0);
            Some(())
        },
    },
    Mutation {
        name: "an event out of its turn",
        breaks: Rule::Order,
        apply: |lines| set(lines, "event", "position", json!(0)),
    },
    Mutation {
        name: "a result less",
        breaks: Rule::OneResult,
        apply: |lines| {
            let at = last_part(lines)?;
            let (instruction, device) = (lines[at]["instruction"].clone(), lines[at]["device"].clone());
            lines.retain(|line| {
                line["kind"] != "result" || line["instruction"] != instruction || line["device"] != device
            });
            Some(())
        },
    },
    Mutation {
        name: "a result that lost its last part",
        breaks: Rule::OneResult,
        apply: |lines| last_part(lines).map(|at| drop(lines.remove(at))),
    },
    Mutation {
        name: "a result whose last part is not marked",
        breaks: Rule::OneResult,
        apply: |lines| last_part(lines).map(|at| lines[at]["last"] = json!(false)),
    },
    Mutation {
        name: "a result of a target that never ended",
        breaks: Rule::OneResult,
        apply: |lines| {
            let (_, device) = answered(lines)?;
            leave_out(answered_transition(lines)?, &device);
            Some(())
        },
    },
    Mutation {
        name: "a ledger that says failed of an answer",
        breaks: Rule::Outcome,
        apply: |lines| {
            answered_transition(lines)?["state"] = json!("failed");
            Some(())
        },
    },
    Mutation {
        name: "an answer that became interrupted",
        breaks: Rule::Outcome,
        apply: |lines| last_part(lines).map(|at| lines[at]["state"] = json!("interrupted")),
    },
    Mutation {
        name: "a second result",
        breaks: Rule::Parts,
        apply: |lines| copy_result(lines, |result| result["part"] = json!(0)),
    },
    Mutation {
        name: "a part left out",
        breaks: Rule::Parts,
        apply: |lines| {
            let at = last_part(lines)?;
            let part = lines[at]["part"].as_u64()?;
            lines[at]["part"] = json!(part + 1);
            Some(())
        },
    },
    Mutation {
        name: "a refusal's code on an answer",
        breaks: Rule::Shape,
        apply: |lines| last_part(lines).map(|at| lines[at]["refusal"] = json!("REPLAYED")),
    },
    Mutation { name: "an event twice", breaks: Rule::Once, apply: |lines| repeat(lines, "event") },
    Mutation {
        name: "a result by the sequence of an event",
        breaks: Rule::Once,
        apply: |lines| {
            let event = find(lines, "event")?.clone();
            copy_result(lines, |result| {
                for field in ["device", "outbox_id", "sequence"] {
                    result[field] = event[field].clone();
                }
            })
        },
    },
];

fn find<'a>(lines: &'a [Value], kind: &str) -> Option<&'a Value> {
    lines.iter().find(|line| line["kind"] == kind)
}

fn take(lines: &mut Vec<Value>, kind: &str) -> Option<Value> {
    let at = lines.iter().position(|line| line["kind"] == kind)?;
    Some(lines.remove(at))
}

fn set(lines: &mut [Value], kind: &str, field: &str, value: Value) -> Option<()> {
    let record = lines.iter_mut().find(|line| line["kind"] == kind)?;
    record[field] = value;
    Some(())
}

fn repeat(lines: &mut Vec<Value>, kind: &str) -> Option<()> {
    let again = find(lines, kind)?.clone();
    insert_after(lines, kind, again);
    Some(())
}

/// Inserts a record behind the last of its kind.
fn insert_after(lines: &mut Vec<Value>, kind: &str, record: Value) {
    let at = lines.iter().rposition(|line| line["kind"] == kind).map_or(lines.len(), |at| at + 1);
    lines.insert(at, record);
}

/// Where the last part of the first answer stands.
fn last_part(lines: &[Value]) -> Option<usize> {
    lines.iter().position(|line| {
        line["kind"] == "result" && line["state"] == "answered" && line["last"] == true && ended(lines, line)
    })
}

/// Whether the ledger says so, too: an answer that came too late is kept beside another state.
fn ended(lines: &[Value], result: &Value) -> bool {
    lines.iter().any(|line| is_answer(line, &result["instruction"], &result["device"]))
}

fn is_answer(line: &Value, instruction: &Value, device: &Value) -> bool {
    let devices = line["devices"].as_array();
    line["kind"] == "transition"
        && line["state"] == "answered"
        && line["instruction"] == *instruction
        && devices.is_some_and(|devices| devices.contains(device))
}

/// An instruction and a device that answered it.
fn answered(lines: &[Value]) -> Option<(Value, Value)> {
    let result = &lines[last_part(lines)?];
    Some((result["instruction"].clone(), result["device"].clone()))
}

/// The transition by which that device's target ended.
fn answered_transition(lines: &mut [Value]) -> Option<&mut Value> {
    let (instruction, device) = answered(lines)?;
    lines.iter_mut().find(|line| is_answer(line, &instruction, &device))
}

fn each_transition(lines: &mut [Value], instruction: &Value, mut change: impl FnMut(&mut Value)) {
    let of = |line: &&mut Value| line["kind"] == "transition" && line["instruction"] == *instruction;
    lines.iter_mut().filter(of).for_each(&mut change);
}

fn leave_out(transition: &mut Value, device: &Value) {
    if let Some(devices) = transition["devices"].as_array_mut() {
        devices.retain(|member| member != device);
    }
}

/// Adds a changed copy of an answer, with a sequence that nobody has.
fn copy_result(lines: &mut Vec<Value>, change: impl FnOnce(&mut Value)) -> Option<()> {
    let mut copy = lines[last_part(lines)?].clone();
    copy["sequence"] = json!(1_u64 << 60);
    change(&mut copy);
    insert_after(lines, "result", copy);
    Some(())
}
