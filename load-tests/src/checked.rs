//! What `muster-load check` found, and how it is told.

use muster_pki::text::printable;
use serde::Serialize;

use crate::history::{History, Place, Promise, Rule};

/// Violations that are told for people at most; of a broken store there are as many as it has lines.
const TOLD_MAX: usize = 100;

/// What a check found.
#[derive(Debug, Clone, Serialize)]
pub struct Checked {
    /// How many instructions there are.
    pub instructions: usize,
    /// How many results, each part of one counted.
    pub results: usize,
    /// How many events.
    pub events: usize,
    /// How many promises were to be kept.
    pub promises: usize,
    /// Each rule, as often as it was looked at.
    pub rules: Vec<Looked>,
    /// What must not be.
    pub violations: Vec<Broken>,
}

/// A rule, and how often it was looked at.
#[derive(Debug, Clone, Serialize)]
pub struct Looked {
    /// What it says.
    pub rule: &'static str,
    /// How often it was looked at.
    pub compared: u64,
    /// How often it was broken.
    pub violations: usize,
}

/// A violation.
#[derive(Debug, Clone, Serialize)]
pub struct Broken {
    /// The line of the export.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// The promise, counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub promise: Option<usize>,
    /// The rule.
    pub rule: &'static str,
    /// Of what.
    pub about: String,
    /// What should be there.
    pub expected: String,
    /// What is.
    pub found: String,
    #[serde(skip)]
    text: String,
}

impl Checked {
    /// Checks a history.
    #[must_use]
    pub fn new(history: &History, promises: &[Promise]) -> Self {
        let report = history.report(promises);
        let (instructions, results, events) = history.counts();
        let looked = |rule: Rule| {
            let (compared, violations) = report.of(rule);
            Looked { rule: rule.says(), compared, violations }
        };
        let rules = Rule::ALL.map(looked).to_vec();
        let broken = report.violations.iter().map(|violation| {
            let (line, promise) = match violation.place {
                Place::Line(line) => (Some(line), None),
                Place::Promise(number) => (None, Some(number)),
            };
            Broken {
                line,
                promise,
                rule: violation.rule.says(),
                about: violation.about.clone(),
                expected: violation.expected.clone(),
                found: violation.found.clone(),
                text: violation.to_string(),
            }
        });
        let violations = broken.collect();
        Self { instructions, results, events, promises: promises.len(), rules, violations }
    }
}

impl std::fmt::Display for Checked {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for broken in self.violations.iter().take(TOLD_MAX) {
            // A device's or an outbox's text must not drive the terminal.
            writeln!(formatter, "{}", printable(&broken.text))?;
        }
        if self.violations.len() > TOLD_MAX {
            writeln!(formatter, "and {} more; `-o json` tells all", self.violations.len() - TOLD_MAX)?;
        }
        if !self.violations.is_empty() {
            writeln!(formatter)?;
        }
        writeln!(formatter, "{:<66} {:>9} {:>10}", "RULE", "COMPARED", "VIOLATIONS")?;
        for Looked { rule, compared, violations } in &self.rules {
            writeln!(formatter, "{rule:<66} {compared:>9} {violations:>10}")?;
        }
        let Self { instructions, results, events, promises, violations, .. } = self;
        write!(
            formatter,
            "\n{instructions} instructions, {results} results, {events} events, {promises} promises: {} violations",
            violations.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_is_told_with_its_counts_and_violations_come_first() {
        let checked = Checked::new(&History::read("{\"kind\":\"\\u001b[2J\"}\n"), &[]);

        let told = checked.to_string();

        let lines: Vec<&str> = told.lines().collect();
        assert!(lines[0].starts_with("line 1: the line: expected a record"), "{told}");
        assert!(!told.contains('\u{1b}'), "{told}");
        assert_eq!(lines.len(), 2 + 1 + Rule::ALL.len() + 2, "{told}");
        assert_eq!(lines.last(), Some(&"0 instructions, 0 results, 0 events, 0 promises: 1 violations"));
        let json = serde_json::to_value(&checked).unwrap();
        assert_eq!(json["violations"][0]["line"], 1);
        assert_eq!(json["rules"][0]["violations"], 1);
    }
}
