//! [`DefinitionError`]: what is wrong with an authored text, and on which line.

use std::ops::Range;

use miette::SourceSpan;

/// Why a text is no definition; rendered by miette it points at the place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[error("line {line}: {problem}")]
pub struct DefinitionError {
    #[source_code]
    text: String,
    #[label("here")]
    span: SourceSpan,
    line: usize,
    problem: String,
}

impl DefinitionError {
    /// Returns the line it stands on, from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        self.line
    }

    /// Returns what was found, what was wanted and what would fix it.
    #[must_use]
    pub fn problem(&self) -> &str {
        &self.problem
    }
}

/// A problem and its place, before the text is known to it.
#[derive(Debug)]
pub(super) struct Fault {
    span: Range<usize>,
    problem: String,
}

impl Fault {
    pub(super) fn new(span: Range<usize>, problem: impl Into<String>) -> Self {
        Self { span, problem: problem.into() }
    }

    pub(super) fn within(self, text: &str) -> DefinitionError {
        let start = self.span.start.min(text.len());
        let before = text.as_bytes().get(..start).unwrap_or_default();
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let length = self.span.end.min(text.len()).saturating_sub(start);
        DefinitionError { text: text.to_owned(), span: (start, length).into(), line, problem: self.problem }
    }
}
