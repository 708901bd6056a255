//! [`PackError`].

use crate::definition::DefinitionError;
use crate::envelope::EnvelopeError;

/// Why a pack is not made, or not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// Bytes that no pack has in that place.
    #[error("no pack: {problem} ({at} bytes read so far); make it with `muster-sign pack build`")]
    Form {
        /// How many bytes were taken.
        at: u64,
        /// What was expected, and what was found.
        problem: String,
    },
    /// Fewer bytes than the index says.
    #[error("the pack ends after {got} bytes, within {within}; it was cut off: get it once more")]
    Truncated {
        /// How many there are.
        got: u64,
        /// What is missing something.
        within: String,
    },
    /// The index's envelope is refused.
    #[error("the pack's index: {}: {}", .0.refusal().name(), .0)]
    Envelope(EnvelopeError),
    /// The index holds together with nothing, or not with the definitions.
    #[error("the pack's index: {0}")]
    Index(String),
    /// A member is another one than the index says.
    #[error("{path}: {problem}")]
    Member {
        /// Its path; control characters are escaped.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// A definition's envelope is refused.
    #[error("{path}: {}: {problem}", .problem.refusal().name())]
    Signature {
        /// Its path.
        path: String,
        /// What is wrong with it.
        problem: EnvelopeError,
    },
    /// A definition's text is none.
    #[error("{path}: {problem}")]
    Definition {
        /// Its path.
        path: String,
        /// What is wrong with it.
        problem: Box<DefinitionError>,
    },
}

impl PackError {
    pub(super) fn member(path: &str, problem: &str) -> Self {
        Self::Member { path: path.escape_debug().to_string(), problem: problem.to_owned() }
    }
}
