//! One instruction of an export: its ledger against its record, its results against its ledger.

use std::collections::{BTreeMap, BTreeSet};

use muster_proto::common::v1::TargetState;

use super::record::Shown;
use super::rule::{Findings, Place, Rule};

/// What the lines of an export say of one instruction.
#[derive(Debug)]
pub(super) struct Instruction {
    first_line: usize,
    /// Its own record and where that stands.
    pub(super) shown: Option<(usize, Shown)>,
    /// Everybody who has a state or a result.
    pub(super) targets: BTreeMap<String, Target>,
}

/// A device that an instruction has something of.
#[derive(Debug, Default)]
pub(super) struct Target {
    /// Its latest state.
    pub(super) entered: Option<Entered>,
    /// Whether its order was ever handed to it.
    pub(super) has_got_it: bool,
    /// Its results, as they stand there.
    pub(super) parts: Vec<Part>,
}

/// A state and how it came.
#[derive(Debug)]
pub(super) struct Entered {
    pub(super) line: usize,
    pub(super) state: TargetState,
    pub(super) cause: String,
}

/// A part of a result.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) line: usize,
    pub(super) part: u64,
    pub(super) last: bool,
    pub(super) state: TargetState,
}

/// What a state asks of a target's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// One that is whole and says the same.
    Same,
    /// The state came without it. One that comes late is kept, also with parts missing.
    Late,
    /// No last part yet.
    Open,
}

/// Returns the states that a cause leads to; `None` for a cause that is not known here.
pub(super) fn leads_to(cause: &str) -> Option<&'static [TargetState]> {
    Some(match cause {
        "submitted" => &[TargetState::Queued],
        "written" => &[TargetState::Sent],
        "progress" => &[TargetState::Acked, TargetState::Running],
        "result" => &[
            TargetState::Answered,
            TargetState::Failed,
            TargetState::Refused,
            TargetState::Interrupted,
            TargetState::Expired,
            TargetState::Cancelled,
        ],
        "deadline" => &[TargetState::Expired],
        "removed" | "stopped" | "blocked" => &[TargetState::Cancelled],
        code if REFUSED_BY_SWITCH.contains(&code) => &[TargetState::Refused],
        _ => return None,
    })
}

/// The causes by which the Switch refuses itself what is queued: the codes by which devices refuse what a licence does not admit, and whose
/// signer does not count besides (PROTOCOL.md §5, steps 8 to 10).
const REFUSED_BY_SWITCH: [&str; 5] =
    ["UNLICENSED", "UNTRUSTED_SIGNER", "ROLLED_BACK", "SIGNER_REVOKED", "BAD_SIGNATURE"];

/// Returns whether a device that came to this state by this cause has the order. Who answers `cancelled` may have its stop alone.
pub(super) fn has_its_order(state: TargetState, cause: &str) -> bool {
    ["written", "progress", "result"].contains(&cause) && state != TargetState::Cancelled
}

/// What has become of an instruction's results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Results {
    Kept,
    Deleted,
}

impl Instruction {
    pub(super) fn first_on(line: usize) -> Self {
        Self { first_line: line, shown: None, targets: BTreeMap::new() }
    }

    /// Checks what takes all of its lines.
    pub(super) fn check(&self, id: &str, definitions: &BTreeSet<(String, String)>, findings: &mut Findings) {
        let about = format!("instruction {id}");
        match &self.shown {
            Some((line, shown)) => self.check_record(&about, *line, shown, definitions, findings),
            None => findings.hold(Rule::Record, Place::Line(self.first_line), false, || {
                (about.clone(), "its record".to_owned(), "transitions or results without one".to_owned())
            }),
        }
        let results = match &self.shown {
            Some((_, shown)) if shown.results_deleted => Results::Deleted,
            _ => Results::Kept,
        };
        for (device, target) in &self.targets {
            target.check(&format!("{about}, {device}"), results, findings);
        }
    }

    fn check_record(
        &self,
        about: &str,
        line: usize,
        shown: &Shown,
        definitions: &BTreeSet<(String, String)>,
        findings: &mut Findings,
    ) {
        let place = Place::Line(line);
        let Shown { definition, version, targets, states, complete, approvals_wanted, approved_by, .. } =
            shown;
        let is_there = definitions.contains(&(definition.clone(), version.clone()));
        findings.hold(Rule::Definition, place, is_there, || {
            (about.to_owned(), format!("a record of definition {definition} {version}"), "none".to_owned())
        });
        let mut counted: BTreeMap<&str, u64> = BTreeMap::new();
        let entered: Vec<TargetState> = self
            .targets
            .values()
            .filter_map(|target| target.entered.as_ref())
            .map(|entered| entered.state)
            .collect();
        for state in &entered {
            *counted.entry(state.name()).or_default() += 1;
        }
        let members = u64::try_from(entered.len()).unwrap_or(u64::MAX);
        findings.hold(Rule::Members, place, members == *targets, || {
            let expected = format!("{targets} targets in a state, as the record says");
            (about.to_owned(), expected, format!("{members} by the transitions"))
        });
        let names: BTreeSet<&str> =
            counted.keys().copied().chain(states.keys().map(String::as_str)).collect();
        for name in names {
            let said = states.get(name).copied().unwrap_or(0);
            let counted = counted.get(name).copied().unwrap_or(0);
            findings.hold(Rule::Counts, place, said == counted, || {
                let expected = format!("{counted} `{name}`, as the transitions say");
                (about.to_owned(), expected, format!("{said} in the record"))
            });
        }
        let lacks = u64::try_from(approved_by.len()).is_ok_and(|given| given < *approvals_wanted);
        let got = self.targets.iter().find(|(_, target)| {
            target.has_got_it || target.parts.iter().any(|part| has_its_order(part.state, "result"))
        });
        findings.hold(Rule::Approvals, place, !lacks || got.is_none(), || {
            let expected = format!(
                "nobody to have its order with {} of {approvals_wanted} approvals",
                approved_by.len()
            );
            (about.to_owned(), expected, got.map(|(device, _)| device.clone()).unwrap_or_default())
        });
        let all_ended = entered.iter().all(|state| state.is_terminal());
        findings.hold(Rule::Counts, place, all_ended == *complete, || {
            let expected = format!("`complete` {all_ended}, as the transitions say");
            (about.to_owned(), expected, format!("{complete} in the record"))
        });
    }
}

impl Target {
    fn check(&self, about: &str, results: Results, findings: &mut Findings) {
        if results == Results::Deleted {
            let place = Place::Line(self.parts.first().map_or(0, |part| part.line));
            return findings.hold(Rule::OneResult, place, self.parts.is_empty(), || {
                let expected = "no result, since the record says that they are deleted".to_owned();
                (about.to_owned(), expected, format!("{} parts", self.parts.len()))
            });
        }
        let Some(entered) = &self.entered else {
            for part in &self.parts {
                findings.hold(Rule::Targets, Place::Line(part.line), false, || {
                    (about.to_owned(), "no result of who is no target".to_owned(), "one".to_owned())
                });
            }
            return;
        };
        if !self.parts.is_empty() {
            findings.held(Rule::Targets);
        }
        let wanted = entered.wanted();
        self.check_parts(about, wanted, findings);
        let last = self.parts.iter().find(|part| part.last);
        let state = entered.state.name();
        match (wanted, last) {
            (Wanted::Late, _) => {}
            (Wanted::Open, last) => {
                let place = Place::Line(last.map_or(entered.line, |part| part.line));
                findings.hold(Rule::OneResult, place, last.is_none(), || {
                    let expected = format!("no last part, since line {} leaves it `{state}`", entered.line);
                    (about.to_owned(), expected, "one".to_owned())
                });
            }
            (Wanted::Same, None) => findings.hold(Rule::OneResult, Place::Line(entered.line), false, || {
                let found = match self.parts.len() {
                    0 => "none".to_owned(),
                    parts => format!("{parts} parts, none of them the last"),
                };
                (about.to_owned(), format!("a result with its last part, since it is `{state}`"), found)
            }),
            (Wanted::Same, Some(last)) => {
                findings.held(Rule::OneResult);
                findings.hold(Rule::Outcome, Place::Line(last.line), last.state == entered.state, || {
                    let expected = format!("`{state}`, as line {} of the ledger says", entered.line);
                    (about.to_owned(), expected, format!("`{}`", last.state.name()))
                });
            }
        }
    }

    /// Parts come one after the other, and nothing comes after the last.
    fn check_parts(&self, about: &str, wanted: Wanted, findings: &mut Findings) {
        let (mut due, mut last_line) = (0, None);
        for part in &self.parts {
            let place = Place::Line(part.line);
            let is_due = part.part == due || (wanted == Wanted::Late && part.part > due);
            findings.hold(Rule::Parts, place, last_line.is_none() && is_due, || {
                let expected = match last_line {
                    Some(line) => format!("nothing after the last part on line {line}"),
                    None => format!("part {due}"),
                };
                (about.to_owned(), expected, format!("part {}", part.part))
            });
            findings.hold(Rule::Shape, place, part.state.is_terminal(), || {
                (
                    about.to_owned(),
                    "a result with a terminal state".to_owned(),
                    format!("`{}`", part.state.name()),
                )
            });
            due = part.part.saturating_add(1);
            last_line = last_line.or(part.last.then_some(part.line));
        }
    }
}

impl Entered {
    fn wanted(&self) -> Wanted {
        match self.state {
            TargetState::Unspecified
            | TargetState::Queued
            | TargetState::Sent
            | TargetState::Acked
            | TargetState::Running => Wanted::Open,
            // It was queued, by what the Switch knew: its device may have run it, where the Switch ended before it noted that.
            TargetState::Refused if REFUSED_BY_SWITCH.contains(&self.cause.as_str()) => Wanted::Late,
            TargetState::Answered | TargetState::Failed | TargetState::Refused | TargetState::Interrupted => {
                Wanted::Same
            }
            // A client ends an order whose window passed with a result of its own, if it is there to say so.
            TargetState::Expired | TargetState::Cancelled if self.cause == "result" => Wanted::Same,
            TargetState::Expired | TargetState::Cancelled => Wanted::Late,
        }
    }
}
