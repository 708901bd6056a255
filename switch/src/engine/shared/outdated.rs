//! Definitions that an earlier version took, and whose text this version refuses. Their records are whole, so no backup helps: a text that
//! passes does.

use muster_signing::definition::{Definition, DefinitionName};
use semver::Version;

use super::catalogue::some_of;
use crate::engine::core::Unfit;

/// A definition that is stored and not held.
#[derive(Debug)]
pub(crate) struct Outdated {
    /// What its text calls it; `None`: that does not pass either.
    called: Option<(DefinitionName, Version)>,
    position: i64,
    problem: String,
}

impl Outdated {
    /// Makes it of a stored text; `problem` says why it is refused.
    pub(super) fn new(position: i64, text: &str, problem: String) -> Self {
        Self { called: Definition::called(text), position, problem }
    }

    /// Returns whether it is this one; an empty version is any.
    pub(super) fn is(&self, name: &str, version: &str) -> bool {
        let is_called = |(own, of): &(DefinitionName, Version)| {
            own.as_str() == name && (version.is_empty() || of.to_string() == version)
        };
        self.called.as_ref().is_some_and(is_called)
    }

    /// Returns whether a definition that is held takes its place: none of an older version does.
    pub(super) fn is_mended_by(&self, name: &str, version: &Version) -> bool {
        self.called.as_ref().is_some_and(|(own, of)| own.as_str() == name && of <= version)
    }

    /// Says what it is, and what is wrong with it.
    pub(super) fn says(&self) -> String {
        match &self.called {
            Some((name, version)) => format!("{name} {version} ({})", self.problem),
            None => format!("the one at position {} of the store ({})", self.position, self.problem),
        }
    }
}

/// Warns of them.
pub(super) fn warning<'a>(all: impl Iterator<Item = &'a Outdated>) -> Option<String> {
    let (count, some) = some_of(all.map(Outdated::says).collect());
    (count > 0).then(|| {
        format!(
            "{count} of the definitions were imported by an earlier version, and this one refuses what they say; none of them is issued: {some}; \
             mend the text, raise its version, have it signed, and import that"
        )
    })
}

/// Tells a text that is refused from a record that is damaged, and logs it.
pub(super) fn refused(position: i64, unfit: Unfit) -> Result<Outdated, String> {
    match unfit {
        Unfit::Refused { text, problem } => {
            let outdated = Outdated::new(position, &text, problem);
            tracing::warn!(definition = outdated.says(), "refused by this version; import a mended one");
            Ok(outdated)
        }
        Unfit::Damaged(what) => Err(what),
    }
}
