//! The history checker: holds an export against itself and against what fake clients and operators wrote down.
//!
//! [`Rule`] lists what is checked (spec/promises.md). An export is read once, line by line; what a line alone can break
//! is found there, what takes several lines is held together in [`History::report`].

mod instruction;
pub mod mutation;
mod promise;
mod record;
mod rule;

use std::collections::{BTreeMap, BTreeSet};

pub use promise::Promise;
pub use rule::{Place, Report, Rule, Violation};

use instruction::{Entered, Instruction, Part};
use muster_proto::common::v1::TargetState;
use record::{Known, Record, Shown};
use rule::Findings;

/// Which lane a sequence went by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lane {
    Result,
    Event,
}

/// An export, read.
#[derive(Debug, Default)]
pub struct History {
    findings: Findings,
    definitions: BTreeSet<(String, String)>,
    instructions: BTreeMap<String, Instruction>,
    sequences: BTreeMap<Known, (Lane, usize)>,
    results: usize,
    events: usize,
    batch: u64,
    position: u64,
}

impl History {
    /// Reads an export, one JSON object a line.
    #[must_use]
    pub fn read(export: &str) -> Self {
        let mut history = Self::default();
        for (index, text) in export.lines().enumerate().filter(|(_, text)| !text.trim().is_empty()) {
            let line = index + 1;
            match Record::parse(text) {
                Ok(record) => {
                    history.findings.held(Rule::Readable);
                    history.add(line, record);
                }
                Err(problem) => {
                    let expected = "a record of `muster export`".to_owned();
                    history.findings.hold(Rule::Readable, Place::Line(line), false, || {
                        ("the line".to_owned(), expected, problem)
                    });
                }
            }
        }
        history
    }

    /// Everything that must not be, in order.
    #[must_use]
    pub fn check(&self, promises: &[Promise]) -> Vec<Violation> {
        self.report(promises).violations
    }

    /// What was compared by each rule, and everything that must not be, in order.
    #[must_use]
    pub fn report(&self, promises: &[Promise]) -> Report {
        let mut findings = self.findings.clone();
        for (id, instruction) in &self.instructions {
            instruction.check(id, &self.definitions, &mut findings);
        }
        for (index, promise) in promises.iter().enumerate() {
            self.check_promise(index + 1, promise, &mut findings);
        }
        findings.into_report()
    }

    /// How many instructions, results and events there are.
    #[must_use]
    pub fn counts(&self) -> (usize, usize, usize) {
        (self.instructions.len(), self.results, self.events)
    }

    fn add(&mut self, line: usize, record: Record) {
        match record {
            Record::Definition { name, version } => {
                self.definitions.insert((name, version));
            }
            Record::Instruction { id, shown } => {
                let instruction = self.instruction(&id, line);
                let before = instruction.shown.as_ref().map(|(line, _)| *line);
                instruction.shown = Some((line, shown));
                self.findings.hold(Rule::Record, Place::Line(line), before.is_none(), || {
                    let found = format!("another, the first is on line {}", before.unwrap_or_default());
                    (format!("instruction {id}"), "one record".to_owned(), found)
                });
            }
            Record::Transition { instruction, batch, state, devices, cause } => {
                self.in_order(line, "batch", batch, self.batch, batch >= self.batch);
                self.batch = batch;
                self.transition(line, &instruction, state, &devices, &cause);
            }
            Record::Result { instruction, known, part, last, state, shape } => {
                self.findings.hold(Rule::Shape, Place::Line(line), shape.is_ok(), || {
                    let (expected, found) = shape.err().unwrap_or_default();
                    (format!("instruction {instruction}, {}", known.device), expected, found)
                });
                let device = known.device.clone();
                if self.once(line, known, Lane::Result) {
                    self.results += 1;
                }
                let target = self.instruction(&instruction, line).targets.entry(device).or_default();
                target.parts.push(Part { line, part, last, state });
            }
            Record::Event { position, known, road } => {
                self.in_order(line, "position", position, self.position, position > self.position);
                self.position = position;
                let is_road = ["session", "background"].contains(&&*road);
                self.findings.hold(Rule::Shape, Place::Line(line), is_road, || {
                    let expected = "the road `session` or `background`".to_owned();
                    (known.to_string(), expected, format!("`{road}`"))
                });
                if self.once(line, known, Lane::Event) {
                    self.events += 1;
                }
            }
        }
    }

    /// Returns an instruction, also one that has no record of its own.
    fn instruction(&mut self, id: &str, line: usize) -> &mut Instruction {
        self.instructions.entry(id.to_owned()).or_insert_with(|| Instruction::first_on(line))
    }

    fn transition(&mut self, line: usize, id: &str, state: TargetState, devices: &[String], cause: &str) {
        let place = Place::Line(line);
        let leads_to = instruction::leads_to(cause);
        self.findings.hold(
            Rule::Causes,
            place,
            leads_to.is_some_and(|states| states.contains(&state)),
            || {
                let names = |states: &[TargetState]| {
                    states.iter().map(|state| state.name()).collect::<Vec<_>>().join(" or ")
                };
                let expected = leads_to.map_or_else(
                    || format!("a cause that this version knows, and not `{cause}`"),
                    |states| format!("`{cause}` to lead to {}", names(states)),
                );
                (format!("instruction {id}"), expected, format!("`{}`", state.name()))
            },
        );
        for device in devices {
            let target = self.instruction(id, line).targets.entry(device.clone()).or_default();
            target.has_got_it |= instruction::has_its_order(state, cause);
            let before = target.entered.replace(Entered { line, state, cause: cause.to_owned() });
            let about = || format!("instruction {id}, {device}");
            match before {
                None => self.findings.hold(Rule::Targets, place, state == TargetState::Queued, || {
                    let found = format!("`{}`, and it was never a target", state.name());
                    (about(), "`queued` first".to_owned(), found)
                }),
                Some(Entered { state: from, line: at, .. }) => {
                    self.findings.hold(Rule::Forward, place, from.may_become(state), || {
                        let expected = format!("a state beyond `{}` of line {at}", from.name());
                        (about(), expected, format!("`{}`", state.name()))
                    });
                }
            }
        }
    }

    fn in_order(&mut self, line: usize, what: &str, number: u64, before: u64, ascends: bool) {
        self.findings.hold(Rule::Order, Place::Line(line), ascends, || {
            (what.to_owned(), format!("one after {before}"), number.to_string())
        });
    }

    /// Notes what is known by its sequence; returns whether it is new.
    fn once(&mut self, line: usize, known: Known, lane: Lane) -> bool {
        let about = known.to_string();
        // The first is kept: it is what others are repeats of.
        let before = self.sequences.get(&known).copied();
        if before.is_none() {
            self.sequences.insert(known, (lane, line));
        }
        self.findings.hold(Rule::Once, Place::Line(line), before.is_none(), || {
            let found = format!("it again, the first is on line {}", before.map_or(0, |(_, line)| line));
            (about, "it once".to_owned(), found)
        });
        before.is_none()
    }

    fn check_promise(&self, number: usize, promise: &Promise, findings: &mut Findings) {
        let kept = match promise {
            Promise::Accepted { instruction } => self.shown(instruction).is_some(),
            Promise::StopAccepted { instruction } => {
                self.shown(instruction).is_some_and(|shown| shown.is_stopped)
            }
            Promise::ApprovalAccepted { instruction, operator } => {
                self.shown(instruction).is_some_and(|shown| shown.approved_by.contains(operator))
            }
            Promise::DefinitionImported { name, version } => {
                self.definitions.contains(&(name.clone(), version.clone()))
            }
            Promise::ResultAcked { device, outbox_id, sequence } => {
                self.has(Lane::Result, device, outbox_id, *sequence) || self.may_be_deleted(device)
            }
            Promise::EventAcked { device, outbox_id, sequence } => {
                self.has(Lane::Event, device, outbox_id, *sequence)
            }
        };
        findings.hold(Rule::Promises, Place::Promise(number), kept, || {
            (promise.to_string(), "it, since it was promised".to_owned(), "nothing".to_owned())
        });
    }

    /// Whether results of this device have been deleted; for which instruction a promise was, it does not say.
    fn may_be_deleted(&self, device: &str) -> bool {
        let is_deleted = |it: &Instruction| it.shown.as_ref().is_some_and(|(_, shown)| shown.results_deleted);
        self.instructions.values().any(|it| is_deleted(it) && it.targets.contains_key(device))
    }

    fn shown(&self, instruction: &str) -> Option<&Shown> {
        let (_, shown) = self.instructions.get(instruction)?.shown.as_ref()?;
        Some(shown)
    }

    fn has(&self, lane: Lane, device: &str, outbox_id: &str, sequence: u64) -> bool {
        let known = Known { device: device.to_owned(), outbox_id: outbox_id.to_owned(), sequence };
        self.sequences.get(&known).is_some_and(|(found, _)| *found == lane)
    }
}

#[cfg(test)]
mod tests;
