//! The table `[trust]`: whom the client believes.

use std::path::PathBuf;

use muster_pki::trust_store::{TrustFields, TrustSettings};
use muster_service::config::Invalid;
use serde::{Deserialize, Serialize};

/// PEM files of roots by role.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrustConfig {
    /// Who may be a Switch or a Background Channel. Empty where there is a `folder`.
    pub switch: PathBuf,
    /// A trust store in place of `switch`: a folder with `cainfo.pem` and `cainfo-ss.pem`, an absolute path. Empty: none.
    pub folder: PathBuf,
    /// How servers are verified with the trust store of `folder` (T9).
    pub verification: TrustFields,
    /// Who may sign definitions.
    pub authors: PathBuf,
    /// Who may sign orders.
    pub orders: PathBuf,
    /// The roots of the Switch's own order keys, which count for what a policy names and nothing else. Empty: none.
    pub switch_orders: PathBuf,
    /// Who may sign licences.
    pub licences: PathBuf,
    /// Who may sign policies, the administrators of the fleet. Empty: nobody, and no policy is ever followed.
    pub policies: PathBuf,
    /// Who may give timestamps (RFC 3161). Empty: nobody, and a document with a timestamp is refused.
    pub timestamps: PathBuf,
}

impl TrustConfig {
    /// Returns whether servers are judged by a trust store.
    pub(crate) fn has_folder(&self) -> bool {
        !self.folder.as_os_str().is_empty()
    }

    /// Returns whether anybody may sign policies.
    pub(crate) fn has_policies(&self) -> bool {
        !self.policies.as_os_str().is_empty()
    }

    pub(super) fn findings(&self) -> Vec<Invalid> {
        let has_file = !self.switch.as_os_str().is_empty();
        let mut found = Vec::new();
        let mut refuse = |key: &str, problem: String| found.push(Invalid::new(key, problem));
        match (self.has_folder(), has_file) {
            (true, true) => refuse(
                "trust.folder",
                format!(
                    "is given beside trust.switch ({}); set switch = \"\", or leave folder out",
                    self.switch.display()
                ),
            ),
            (false, false) => refuse(
                "trust.switch",
                "is empty, and there is no trust.folder; name the file of the servers' roots, or a folder"
                    .to_owned(),
            ),
            (true, false) | (false, true) => {}
        }
        if self.has_folder() && !self.folder.is_absolute() {
            refuse("trust.folder", format!("is {}; wanted an absolute path", self.folder.display()));
        }
        if !self.has_folder() && self.verification != TrustFields::default() {
            refuse("trust.verification", "counts with a trust.folder, and none is given".to_owned());
        }
        if let Err(error) = TrustSettings::try_from(&self.verification) {
            refuse("trust.verification", error.to_string());
        }
        found
    }
}

impl Default for TrustConfig {
    fn default() -> Self {
        Self {
            switch: "/etc/muster/trust/servers.pem".into(),
            folder: PathBuf::new(),
            verification: TrustFields::default(),
            authors: "/etc/muster/trust/authors.pem".into(),
            orders: "/etc/muster/trust/orders.pem".into(),
            switch_orders: PathBuf::new(),
            licences: "/etc/muster/trust/licences.pem".into(),
            policies: PathBuf::new(),
            timestamps: PathBuf::new(),
        }
    }
}
