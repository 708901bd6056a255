//! The policies of the fleet's administrators: which is followed, and how a new one comes to be (K1–K4).
//!
//! ```text
//! session ──notice, document──► Follower ──► Keeper (decides, pure) ──► store
//!    ▲            policy.file ─────►│ a policy that connects otherwise
//!    └── Takeover ◄── trial: a connection of its own, beside the session that stands
//! ```
//! The Switch only carries policies. One that changes addresses or trust counts once a session came about under it; until then,
//! and for good if none does, the old one is followed.

mod file;
mod followed;
mod follower;
mod judging;
mod keeper;
mod offers;
mod remembered;
mod trial;

use std::path::Path;

use muster_service::credentials::read_at_most;
use muster_signing::envelope::ENVELOPE_BYTES_MAX;
use muster_signing::policy::{Grants, Policy};
use serde::{Deserialize, Serialize};

pub(crate) use file::PolicyFile;
pub(crate) use followed::{Followed, Following};
pub(crate) use follower::{Follower, Heard, Retry, Watching};
pub(crate) use keeper::{Keeper, Memory, TRIAL};
pub(crate) use offers::Offers;
pub(crate) use remembered::remembered;

/// The readable copy of the policy that is followed, in `data_dir` (K3).
pub(crate) const COPY: &str = "policy.toml";

/// How a client stands with its policies.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PolicyStatus {
    /// The serial of the policy that is followed; 0: as installed.
    pub serial: u64,
    /// The serial of the policy that is tried beside it; 0: none.
    pub trial: u64,
    /// When the trial ends without a session, milliseconds since 1970; 0 without one. It goes on where the policy that is followed has no
    /// session either.
    pub trial_until_ms: i64,
    /// The serial of the last policy that was taken, if it was tried in vain; 0: none.
    pub rolled_back: u64,
    /// Why the policy in `policy.file` is not taken; empty: it is, or there is none.
    pub file_problem: String,
    /// What a policy waits for that came before it: a CRL (R6), or a clock that is right; empty: none waits.
    pub waits_for: String,
    /// Why the policy that is followed cannot be read, so that nothing is run but stops; empty: it can, or there is none.
    #[serde(default)]
    pub unreadable: String,
    /// What it lets run and be read on this device; a list that is left out allows all.
    pub grants: Grants,
    /// The text of the policy that is followed; empty: as installed.
    pub text: String,
}

fn status(keeper: &Keeper) -> PolicyStatus {
    let trial = keeper.trial();
    PolicyStatus {
        serial: keeper.serial(),
        trial: trial.map_or(0, |trial| trial.kept.policy.serial()),
        trial_until_ms: trial.map_or(0, |trial| trial.until_ms),
        rolled_back: keeper.rolled_back(),
        file_problem: String::new(),
        waits_for: String::new(),
        unreadable: keeper.unreadable().unwrap_or_default().to_owned(),
        grants: keeper.current().map(|kept| kept.policy.terms().grants.clone()).unwrap_or_default(),
        text: keeper.current().and_then(|kept| remembered::text(&kept.envelope)).unwrap_or_default(),
    }
}

/// Reads the copy for people again, to tell people what it brings about; nothing that counts is decided by it. `None`: as installed.
///
/// # Errors
/// What is there cannot be read.
pub(crate) fn read_copy(path: &Path) -> Result<Option<Policy>, String> {
    // With the line above it, it has no more than a policy's envelope may have.
    let max = u64::try_from(ENVELOPE_BYTES_MAX).unwrap_or(u64::MAX);
    match read_at_most(path, max) {
        Ok(bytes) => {
            let text = std::str::from_utf8(&bytes).map_err(|error| format!("{}: {error}", path.display()))?;
            let policy = Policy::parse(text).map_err(|error| format!("{}: {error}", path.display()))?;
            Ok(Some(policy))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

/// Writes the copy for people.
fn write_copy(path: &Path, status: &PolicyStatus) {
    if !status.unreadable.is_empty() {
        // The copy is what people have left of it.
        return;
    }
    let written = if status.serial == 0 {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    } else {
        let new = path.with_extension("new");
        let head = "# A copy for people: what counts is the signed policy in the client's store.\n";
        std::fs::write(&new, format!("{head}{}", status.text)).and_then(|()| std::fs::rename(&new, path))
    };
    if let Err(error) = written {
        tracing::warn!(file = %path.display(), %error, "the readable copy of the policy is not up to date");
    }
}
