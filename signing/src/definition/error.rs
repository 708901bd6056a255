//! [`DefinitionError`] and [`Finding`]: what is wrong with an authored text, and where.

use std::ops::Range;

use miette::SourceSpan;

use super::rule::{Rule, Severity};

/// Why a text is no definition; rendered by miette it points at the place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[error("line {}: {}", .finding.line, .finding.problem)]
pub struct DefinitionError {
    #[source_code]
    text: String,
    #[label("here")]
    span: SourceSpan,
    finding: Box<Finding>,
}

impl DefinitionError {
    /// Returns the line it stands on, from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        self.finding.line
    }

    /// Returns what was found, what was wanted and what would fix it.
    #[must_use]
    pub fn problem(&self) -> &str {
        &self.finding.problem
    }

    /// Returns the finding.
    #[must_use]
    pub fn finding(&self) -> &Finding {
        &self.finding
    }
}

/// One thing that `lint` has to say about a text; rendered by miette with the text as its source, it points at the place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[error("{problem}")]
pub struct Finding {
    rule: Rule,
    #[label("here")]
    span: SourceSpan,
    line: usize,
    column: usize,
    found: String,
    wanted: String,
    fix: String,
    problem: String,
}

impl Finding {
    /// Returns what it is about.
    #[must_use]
    pub fn rule(&self) -> Rule {
        self.rule
    }

    /// Returns how much it matters.
    #[must_use]
    pub fn severity(&self) -> Severity {
        self.rule.severity()
    }

    /// Returns the line it stands on, from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        self.line
    }

    /// Returns the column it begins in, from 1, in characters.
    #[must_use]
    pub fn column(&self) -> usize {
        self.column
    }

    /// Returns what stands there.
    #[must_use]
    pub fn found(&self) -> &str {
        &self.found
    }

    /// Returns what should stand there.
    #[must_use]
    pub fn wanted(&self) -> &str {
        &self.wanted
    }

    /// Returns what to do.
    #[must_use]
    pub fn fix(&self) -> &str {
        &self.fix
    }

    /// Returns found, wanted and fix in one sentence.
    #[must_use]
    pub fn problem(&self) -> &str {
        &self.problem
    }
}

/// A problem and its place, before the text is known to it.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    rule: Rule,
    span: Range<usize>,
    /// A part of the text at `span`, which is the place if it stands there as it is.
    part: Option<String>,
    found: String,
    wanted: String,
    fix: String,
}

impl Fault {
    pub(super) fn new(span: Range<usize>, rule: Rule, found: impl Into<String>) -> Self {
        Self { rule, span, part: None, found: found.into(), wanted: String::new(), fix: String::new() }
    }

    pub(super) fn wanted(self, wanted: impl Into<String>) -> Self {
        Self { wanted: wanted.into(), ..self }
    }

    pub(super) fn fix(self, fix: impl Into<String>) -> Self {
        Self { fix: fix.into(), ..self }
    }

    /// Points at this part of its place.
    pub(super) fn at(self, part: impl Into<String>) -> Self {
        Self { part: Some(part.into()), ..self }
    }

    pub(super) fn finding(self, text: &str) -> Finding {
        let span = self.place(text);
        let before = text.get(..span.start).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let wanted = if self.wanted.is_empty() { String::new() } else { format!("; wanted {}", self.wanted) };
        let fix = if self.fix.is_empty() { String::new() } else { format!("; {}", self.fix) };
        Finding {
            rule: self.rule,
            span: (span.start, span.len()).into(),
            line,
            column,
            problem: format!("{}{wanted}{fix}", self.found),
            found: self.found,
            wanted: self.wanted,
            fix: self.fix,
        }
    }

    /// The place within the text, at borders of characters.
    fn place(&self, text: &str) -> Range<usize> {
        let border =
            |at: usize| (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let start = border(self.span.start);
        let end = border(self.span.end).max(start);
        let within = text.get(start..end).unwrap_or_default();
        match self.part.as_ref().and_then(|part| position(within, part)) {
            Some(range) => start + range.start..start + range.end,
            None => start..end,
        }
    }

    pub(super) fn within(self, text: &str) -> DefinitionError {
        let finding = self.finding(text);
        DefinitionError { text: text.to_owned(), span: finding.span, finding: Box::new(finding) }
    }
}

/// Finds `part` where no longer word begins with it: `:day` is not found in `:days`.
fn position(text: &str, part: &str) -> Option<Range<usize>> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let ends = |at: &usize| !text.get(at + part.len()..).is_some_and(|rest| rest.starts_with(is_word));
    let at = text.match_indices(part).map(|(at, _)| at).find(ends)?;
    Some(at..at + part.len())
}

/// Most findings of one text; who has more will look again after mending these.
pub const FINDINGS_MAX: usize = 256;

/// The problems found so far.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<Fault>);

impl Faults {
    pub(super) fn push(&mut self, fault: Fault) {
        if self.0.len() < FINDINGS_MAX {
            self.0.push(fault);
        }
    }

    /// Keeps the problem, or gives the value.
    pub(super) fn take<T>(&mut self, result: Result<T, Fault>) -> Option<T> {
        result.map_err(|fault| self.push(fault)).ok()
    }

    /// Drops the problems at such places.
    pub(super) fn forget(&mut self, is_nowhere: impl Fn(&Range<usize>) -> bool) {
        self.0.retain(|fault| !is_nowhere(&fault.span));
    }

    pub(super) fn has_error(&self) -> bool {
        self.0.iter().any(|fault| fault.rule.severity() == Severity::Error)
    }

    /// Returns the first in the order in which they were found.
    pub(super) fn into_first(self) -> Option<Fault> {
        self.0.into_iter().next()
    }

    /// Returns all, in the order of the text.
    pub(super) fn into_findings(self, text: &str) -> Vec<Finding> {
        let mut findings: Vec<Finding> = self.0.into_iter().map(|fault| fault.finding(text)).collect();
        findings.sort_by_key(|finding| (finding.line, finding.column, finding.rule));
        findings
    }
}
