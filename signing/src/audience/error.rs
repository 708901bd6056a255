//! [`AudienceError`]: what is wrong with an expression, and where.

use std::collections::BTreeSet;

use miette::SourceSpan;

/// Why a text is no audience; rendered by miette it points at the place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[error("audience, column {column}: {problem}")]
pub struct AudienceError {
    #[source_code]
    text: String,
    #[label("here")]
    span: SourceSpan,
    column: usize,
    problem: String,
}

impl AudienceError {
    /// `problem` says what was found and what was wanted; `span` is offset and length in bytes.
    pub(super) fn new(text: &str, span: (usize, usize), problem: impl Into<String>) -> Self {
        let column = text.get(..span.0).map_or(0, |before| before.chars().count()) + 1;
        Self { text: text.to_owned(), span: span.into(), column, problem: problem.into() }
    }

    /// `known` may hold a name several times.
    pub(super) fn unknown_name(text: &str, name: &str, span: (usize, usize), known: &[&str]) -> Self {
        let known: BTreeSet<&str> = known.iter().copied().collect();
        let nearest = known.iter().min_by_key(|candidate| strsim::damerau_levenshtein(name, candidate));
        let is_near =
            |candidate: &&&str| strsim::damerau_levenshtein(name, candidate) <= name.len().div_ceil(2);
        let fix = match nearest.filter(is_near) {
            Some(nearest) => format!("did you mean `{nearest}`?"),
            None if known.is_empty() => "no attribute is known".to_owned(),
            None => format!("known are {}", known.into_iter().collect::<Vec<_>>().join(", ")),
        };
        Self::new(text, span, format!("unknown attribute `{name}`; {fix}"))
    }

    /// Returns where the problem stands: offset and length in bytes.
    #[must_use]
    pub fn span(&self) -> (usize, usize) {
        (self.span.offset(), self.span.len())
    }
}
