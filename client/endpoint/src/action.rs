//! One typed action: what goes into the helper. What comes out is an [`crate::Answer`] of one row: `changed`, and `detail`.
use std::path::PathBuf;
use std::time::Duration;

use crate::script::Content;

/// An action to be done.
#[derive(Debug, Clone)]
pub struct Action {
    /// What.
    pub deed: Deed,
    /// How long it may take.
    pub run_time: Duration,
}

/// What is done. What is as wanted already is left as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// The service manager does something with a unit.
    Service {
        /// What.
        verb: Verb,
        /// The unit's name.
        unit: String,
    },
    /// A file is made, or replaced as a whole.
    Put {
        /// What is in it.
        content: Content,
        /// Where, by absolute path; no symbolic link is followed.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A file is removed.
    Remove {
        /// Which, by absolute path; no symbolic link is followed.
        path: PathBuf,
    },
}

/// What the service manager does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Starts the unit, unless it is active.
    Start,
    /// Stops it, unless it is inactive.
    Stop,
    /// Stops and starts it.
    Restart,
    /// Has it read its configuration again.
    Reload,
}

impl Verb {
    const ALL: [Self; 4] = [Self::Start, Self::Stop, Self::Restart, Self::Reload];

    /// As the service manager's program and helpers are told.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Reload => "reload",
        }
    }

    /// The verb of this name.
    pub(crate) fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verb| verb.name() == name)
    }
}
