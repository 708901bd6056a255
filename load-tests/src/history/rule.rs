//! What is checked, what was found, and how often it was looked at.

use std::collections::BTreeMap;

/// What must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Every line is a record.
    Readable,
    /// Every instruction has one record of its own.
    Record,
    /// The definition of every instruction is there.
    Definition,
    /// As many targets are in a state as there are, each in exactly one.
    Members,
    /// The counts of an instruction are those of its transitions.
    Counts,
    /// Nobody has a state or a result who was not queued as a target.
    Targets,
    /// States only move forward, and a terminal one is final.
    Forward,
    /// A state has a cause that leads to it.
    Causes,
    /// Nobody got an order that lacks approvals.
    Approvals,
    /// Batches and positions ascend.
    Order,
    /// A target that ended by its own result has one, whole; one that has not ended has none.
    OneResult,
    /// The result says what the ledger says.
    Outcome,
    /// Parts of a result are numbered from 0 without a gap, and nothing follows the last.
    Parts,
    /// What a record says fits itself.
    Shape,
    /// What is known by (device, `outbox_id`, sequence) is there once.
    Once,
    /// What was acked, or accepted, is there.
    Promises,
}

/// Where something was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A line of the export, from 1.
    Line(usize),
    /// A promise, from 1.
    Promise(usize),
}

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("{place}: {about}: expected {expected}; found {found}")]
pub struct Violation {
    /// Where.
    pub place: Place,
    /// Which rule it breaks.
    pub rule: Rule,
    /// Of what.
    pub about: String,
    /// What should be there.
    pub expected: String,
    /// What is.
    pub found: String,
}

/// What a check compared and found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Everything that must not be, in order.
    pub violations: Vec<Violation>,
    compared: BTreeMap<Rule, u64>,
}

/// A report that grows.
#[derive(Debug, Clone, Default)]
pub(super) struct Findings {
    violations: Vec<Violation>,
    compared: BTreeMap<Rule, u64>,
}

impl Rule {
    /// Every rule, in the order in which they are told.
    pub const ALL: [Self; 16] = [
        Self::Readable,
        Self::Record,
        Self::Definition,
        Self::Members,
        Self::Counts,
        Self::Targets,
        Self::Forward,
        Self::Causes,
        Self::Approvals,
        Self::Order,
        Self::OneResult,
        Self::Outcome,
        Self::Parts,
        Self::Shape,
        Self::Once,
        Self::Promises,
    ];

    /// What it says, for people.
    #[must_use]
    pub fn says(self) -> &'static str {
        match self {
            Self::Readable => "every line is a record",
            Self::Record => "every instruction has one record",
            Self::Definition => "the definition of every instruction is there",
            Self::Members => "every target is in one state, and the states add up",
            Self::Counts => "the counts are those of the transitions",
            Self::Targets => "nobody but a target has a state or a result",
            Self::Forward => "states only move forward",
            Self::Causes => "every state has a cause that leads to it",
            Self::Approvals => "nobody got an order that lacks approvals",
            Self::Order => "batches and positions ascend",
            Self::OneResult => "who ended by a result has one, whole; who has not ended has none",
            Self::Outcome => "results say what the ledger says",
            Self::Parts => "parts have no gap, and nothing follows the last",
            Self::Shape => "what a record says fits itself",
            Self::Once => "every sequence of an outbox is there once",
            Self::Promises => "what was promised is there",
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Line(line) => write!(formatter, "line {line}"),
            Self::Promise(number) => write!(formatter, "promise {number}"),
        }
    }
}

impl Report {
    /// How often a rule was looked at, and how often it was broken.
    #[must_use]
    pub fn of(&self, rule: Rule) -> (u64, usize) {
        let broken = self.violations.iter().filter(|violation| violation.rule == rule).count();
        (self.compared.get(&rule).copied().unwrap_or(0), broken)
    }
}

impl Findings {
    /// Notes that something was looked at and holds.
    pub(super) fn held(&mut self, rule: Rule) {
        *self.compared.entry(rule).or_default() += 1;
    }

    /// Notes whether something holds; if not, `says` tells what it is about, what was expected and what was found.
    pub(super) fn hold(
        &mut self,
        rule: Rule,
        place: Place,
        holds: bool,
        says: impl FnOnce() -> (String, String, String),
    ) {
        self.held(rule);
        if !holds {
            let (about, expected, found) = says();
            self.violations.push(Violation { place, rule, about, expected, found });
        }
    }

    pub(super) fn into_report(mut self) -> Report {
        self.violations.sort();
        Report { violations: self.violations, compared: self.compared }
    }
}
