//! How [`Flaws`] become a certificate.

use std::time::Duration;

use muster_pki::authority::{LeafKeyUsage, LeafKind, LeafSigner, Overrides};
use muster_pki::{ExtendedKeyUsage, Role, UnixTime};

use super::validity;
use crate::cli::Flaws;

const DAY: u64 = 86_400;

impl Flaws {
    /// Returns whether anything is to be wrong.
    pub(crate) fn is_any(&self) -> bool {
        [
            self.omit_cdp,
            self.wrong_eku,
            self.omit_eku,
            self.wrong_key_usage,
            self.omit_key_usage,
            self.wrong_name,
            self.self_signed,
            self.ca,
            self.expired,
            self.not_yet_valid,
        ]
        .contains(&true)
    }

    /// Returns the name that it carries.
    pub(super) fn name(&self, name: &str) -> String {
        if self.wrong_name { format!("not-{name}") } else { name.to_owned() }
    }

    /// Returns first and last moment of validity.
    pub(super) fn validity(&self, now: UnixTime, days: i32) -> (UnixTime, UnixTime) {
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        if self.not_yet_valid {
            (at(now.as_secs() + DAY), at(now.as_secs() + 31 * DAY))
        } else {
            validity(now, if self.expired { -1 } else { days })
        }
    }

    /// Returns in what else it differs from what `role` asks for.
    pub(super) fn overrides(&self, role: Role) -> Overrides {
        let is_server = role.extended_key_usage() == ExtendedKeyUsage::ServerAuth;
        let wrong = if is_server { ExtendedKeyUsage::ClientAuth } else { ExtendedKeyUsage::ServerAuth };
        let extended_key_usages = match (self.wrong_eku, self.omit_eku) {
            (true, _) => Some(vec![wrong]),
            (false, true) => Some(Vec::new()),
            (false, false) => None,
        };
        let key_usage = match (self.wrong_key_usage, self.omit_key_usage) {
            (true, _) => LeafKeyUsage::Wrong,
            (false, true) => LeafKeyUsage::Missing,
            (false, false) => LeafKeyUsage::OfRole,
        };
        let kind = if self.ca { LeafKind::Authority } else { LeafKind::Leaf };
        let signer = if self.self_signed { LeafSigner::Itself } else { LeafSigner::Authority };
        Overrides { extended_key_usages, key_usage, kind, signer }
    }
}
