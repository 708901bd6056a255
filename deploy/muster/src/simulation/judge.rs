//! The end of a seed: what the Switch exports, held against itself, against what everybody was told, and against what really happened.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use muster_load_tests::history::History;
use muster_proto::common::v1::TargetState;
use muster_proto::operator::v1::export_response::Record;
use muster_switch::simulation::{Dies, First};

use super::world::World;
use crate::command::export::as_json;

/// Things that broke which one failure names.
const TOLD_MAX: usize = 5;

/// What an export has, by what it is known by.
#[derive(Default)]
struct Exported {
    text: String,
    /// The state of each target, by instruction and device.
    states: BTreeMap<(String, String), TargetState>,
    /// The results, in the same way.
    results: BTreeMap<(String, String), Vec<TargetState>>,
    instructions: BTreeSet<String>,
    incomplete: Vec<String>,
    /// Who heard nothing of what, or did not say so, until its time was over.
    late: BTreeSet<(String, String)>,
    /// How often each event is there, by device, outbox and number.
    events: BTreeMap<(String, String, u64), u32>,
    /// The numbers that came by sessions, by device and outbox.
    by_session: BTreeMap<(String, String), Vec<u64>>,
}

impl World {
    /// Judges what is left when everything has drained.
    pub(super) fn judge(&mut self) -> Result<(), String> {
        let exported = self.exported()?;
        let mut broken = Vec::new();
        let history = History::read(&exported.text);
        broken.extend(history.check(&self.promises).iter().map(ToString::to_string));
        self.judge_instructions(&exported, &mut broken);
        self.judge_results(&exported, &mut broken);
        self.judge_events(&exported, &mut broken);
        let (instructions, results, events) = history.counts();
        self.totals.instructions += u64::try_from(instructions).unwrap();
        self.totals.results += u64::try_from(results).unwrap();
        self.totals.events += u64::try_from(events).unwrap();
        let once = u64::try_from(results + events).unwrap();
        self.totals.repeats = self.totals.repeats.saturating_sub(once);
        if broken.is_empty() {
            return Ok(());
        }
        let more = broken.len().saturating_sub(TOLD_MAX);
        broken.truncate(TOLD_MAX);
        let files = self.keep_files(&exported.text);
        Err(format!(
            "{}{}; {files}",
            broken.join("; "),
            if more > 0 { format!("; and {more} more") } else { String::new() }
        ))
    }

    /// Accepted means there, and done once; not known means that nothing of it is there.
    fn judge_instructions(&self, exported: &Exported, broken: &mut Vec<String>) {
        broken.extend(exported.incomplete.iter().map(|id| format!("{id} is not complete")));
        let prepared: BTreeSet<String> = self.truth.prepared.iter().map(ToString::to_string).collect();
        for id in &self.truth.accepted {
            if !exported.instructions.contains(&id.to_string()) {
                broken.push(format!("{} was accepted and is gone", self.called(*id)));
            }
        }
        for id in &self.truth.denied {
            if exported.instructions.contains(&id.to_string()) {
                broken.push(format!("{} is there, and its operator was told otherwise", self.called(*id)));
            }
        }
        let last = self.truth.last.map(|last| last.to_string()).unwrap_or_default();
        for (_, device) in exported.late.iter().filter(|(id, _)| *id == last) {
            broken
                .push(format!("{device} has not answered the last question, and nothing kept it from that"));
        }
        for id in exported.instructions.difference(&prepared) {
            broken.push(format!("{id} is there, and nobody issued it"));
        }
    }

    /// At most one start, one result for each that was on disk, and a ledger that says the same.
    fn judge_results(&self, exported: &Exported, broken: &mut Vec<String>) {
        let key = |device: usize, instruction: &muster_proto::ids::InstructionId| {
            (instruction.to_string(), self.device_name(device))
        };
        for (device, instruction, state) in &self.truth.recorded {
            let results = exported.results.get(&key(*device, instruction)).cloned().unwrap_or_default();
            if results != [*state] {
                let called = self.called(*instruction);
                broken.push(format!(
                    "d{device:02} had the result `{}` of {called} on disk, and the Switch has {results:?}",
                    state.name()
                ));
            }
        }
        for ((instruction, device), state) in &exported.states {
            let at = self.truth.prepared.iter().position(|known| known.to_string() == *instruction);
            let number = (0..self.devices.len()).find(|number| self.device_name(*number) == *device);
            let Some((at, number)) = at.zip(number) else {
                broken.push(format!("{device} has a state of {instruction}, and one of them is nobody's"));
                continue;
            };
            let starts = self.truth.starts.get(&(number, self.truth.prepared[at])).copied().unwrap_or(0);
            let wanted = match state {
                TargetState::Answered | TargetState::Failed => starts == 1,
                TargetState::Refused => starts == 0,
                TargetState::Interrupted | TargetState::Expired | TargetState::Cancelled => starts <= 1,
                TargetState::Unspecified
                | TargetState::Queued
                | TargetState::Sent
                | TargetState::Acked
                | TargetState::Running => false,
            };
            if !wanted {
                broken.push(format!("d{number:02} started i{at} {starts} times, and is `{}`", state.name()));
            }
        }
    }

    /// Every event is there once, and what came by sessions in the order in which it happened.
    fn judge_events(&self, exported: &Exported, broken: &mut Vec<String>) {
        for (device, outbox, sequence) in &self.truth.events {
            let key = (self.device_name(*device), outbox.to_string(), *sequence);
            let count = exported.events.get(&key).copied().unwrap_or(0);
            if count != 1 {
                broken.push(format!("event {sequence} of d{device:02} is there {count} times"));
            }
        }
        for ((device, _), numbers) in &exported.by_session {
            if !numbers.is_sorted() {
                broken.push(format!("the events of {device} came by its sessions as {numbers:?}"));
            }
        }
    }

    /// Says which targets have not ended.
    pub(super) fn open_targets(&mut self) -> Vec<String> {
        let Ok(exported) = self.exported() else { return Vec::new() };
        let open = exported.states.iter().filter(|(_, state)| !state.is_terminal());
        open.map(|((instruction, device), state)| format!("{instruction} of {device} is {}", state.name()))
            .collect()
    }

    fn exported(&mut self) -> Result<Exported, String> {
        let now = self.instant();
        let Some(switch) = &mut self.switch.live else {
            return Err("there is no Switch at the end".to_owned());
        };
        switch.step(Dies::Never, First::Answers, now)?;
        let mut exported = Exported::default();
        switch.export(|response| {
            let Some(record) = response.record else { return };
            exported.take(&record);
            exported.text.push_str(&as_json(record).to_string());
            exported.text.push('\n');
        })?;
        self.totals.repeats += switch.came();
        Ok(exported)
    }

    /// Keeps what the history checker was given, for `muster-load check`.
    fn keep_files(&self, export: &str) -> String {
        if self.trace.is_none() {
            return "a replay keeps the export".to_owned();
        }
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/simulation");
        let promises: Vec<String> =
            self.promises.iter().map(|promise| serde_json::to_string(promise).unwrap()).collect();
        let kept = std::fs::create_dir_all(&folder)
            .and_then(|()| std::fs::write(folder.join("export.jsonl"), export))
            .and_then(|()| std::fs::write(folder.join("promises.jsonl"), promises.join("\n")));
        match kept {
            Ok(()) => {
                "export.jsonl and promises.jsonl are in target/simulation, for `muster-load check`".to_owned()
            }
            Err(error) => format!("the export could not be kept: {error}"),
        }
    }
}

impl Exported {
    fn take(&mut self, record: &Record) {
        match record {
            Record::Definition(_) => {}
            Record::Instruction(instruction) => {
                self.instructions.insert(instruction.id.clone());
                if !instruction.complete {
                    self.incomplete.push(instruction.id.clone());
                }
            }
            Record::Transition(transition) => {
                for device in &transition.devices {
                    let key = (transition.instruction.clone(), device.clone());
                    if transition.cause == "deadline" {
                        self.late.insert(key.clone());
                    }
                    self.states.insert(key, transition.state());
                }
            }
            Record::Result(exported) => {
                let result = exported.result.clone().unwrap_or_default();
                let key = (exported.instruction.clone(), result.device.clone());
                self.results.entry(key).or_default().push(result.state());
            }
            Record::Event(logged) => {
                let sequence = logged.event.as_ref().map_or(0, |event| event.sequence);
                let outbox = hex::encode(&logged.outbox_id);
                *self.events.entry((logged.device.clone(), outbox.clone(), sequence)).or_default() += 1;
                if logged.road == "session" {
                    self.by_session.entry((logged.device.clone(), outbox)).or_default().push(sequence);
                }
            }
        }
    }
}
