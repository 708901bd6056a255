//! `muster pki revoke`: puts a certificate on its CA's list, and says when that counts and what else to do.

use muster_pki::{REFRESH_MAX, Role, UnixTime};
use muster_service::config::human::duration;
use muster_service::credentials::POLL_INTERVAL;

use super::crl;
use crate::exit::{Exit, Failure};
use crate::home::Home;
use crate::output;
use crate::pki_home::{self, Entry, PkiHome};

/// Runs the command.
pub(super) fn run(home: &Home, subject: &str, role: Role, now: UnixTime) -> Result<Exit, Failure> {
    let pki = PkiHome::of(home);
    let revoked = pki.revoke(role, subject, now)?;
    let list = format!("{}/{}.crl", pki.crl_base_url()?, pki_home::folder(role)?);
    output::note(&told(role, &revoked, &list));
    crl(home, role, now)
}

/// What was done, when it counts, and what is left to do.
fn told(role: Role, revoked: &[Entry], list: &str) -> String {
    let mut lines: Vec<String> =
        revoked.iter().map(|entry| format!("revoked {} (serial {})", entry.name, entry.serial)).collect();
    lines.push(format!(
        "certificates name {list}: publish the list there, `muster pki crl --publish DIR` (a running `muster dev` of this home does, and follows at once)\n\
         it counts, and ends sessions, within {} where a program reads it as a file (`crls`), within {} where it fetches it",
        duration::format(POLL_INTERVAL),
        duration::format(REFRESH_MAX),
    ));
    let mut names: Vec<&str> = revoked.iter().map(|entry| entry.name.as_str()).collect();
    names.dedup();
    if role == Role::Device {
        // The device stays known and offline: revoking says nothing of whether it comes back under another certificate.
        lines.extend(
            names.iter().map(|name| format!("if the device is gone for good: muster client remove {name}")),
        );
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revocation_says_when_it_counts_and_how_a_device_is_forgotten_too() {
        let entry = |serial: &str| Entry {
            name: "web1.example.org".to_owned(),
            serial: serial.to_owned(),
            not_after: 0,
            revoked_at: Some(1),
        };
        let list = "http://crl.example.org/devices.crl";

        let device = told(Role::Device, &[entry("01"), entry("02")], list);
        let operator = told(Role::Operator, &[entry("01")], list);

        assert!(
            device.contains(list) && device.contains("within 30s") && device.contains("within 1h"),
            "{device}"
        );
        assert_eq!(device.matches("muster client remove web1.example.org").count(), 1, "{device}");
        assert!(!operator.contains("client remove"), "{operator}");
    }
}
