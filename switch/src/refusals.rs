//! [`Refusals`]: who was turned away lately, and by which rules (C14 of trust.md). What `muster client list --refused` shows.
//!
//! A device that comes back every minute is one entry with a count. It lives in memory: after a restart whoever is still refused
//! is soon seen again.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};

use muster_pki::{Finding, Severity};
use muster_service::credentials::PeerRefused;

/// Everyone who was turned away lately, bounded: the one who was seen longest ago makes room.
#[derive(Debug)]
pub(crate) struct Refusals {
    entries: Mutex<HashMap<Key, Refusal>>,
    max: usize,
}

/// Two refusals are one entry if the same certificate broke the same rules, or the same address showed none.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    thumbprint: String,
    address: Option<IpAddr>,
    rules: String,
}

/// One who was turned away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The rules that were broken, each once.
    pub(crate) rules: Vec<String>,
    /// What was got, what was wanted and what would fix it, one text a finding.
    pub(crate) findings: Vec<String>,
    /// The certificate's subject; empty: none was shown, or it could not be read.
    pub(crate) subject: String,
    /// Its serial number in hex.
    pub(crate) serial: String,
    /// Its SHA-256.
    pub(crate) thumbprint: String,
    /// Its issuer.
    pub(crate) issuer: String,
    /// Where it connected from last.
    pub(crate) address: SocketAddr,
    /// When it was turned away first, milliseconds since 1970.
    pub(crate) first_at_ms: i64,
    /// When it was turned away last, milliseconds since 1970.
    pub(crate) last_at_ms: i64,
    /// How often.
    pub(crate) count: u64,
}

impl Refusals {
    /// Makes an empty list of at most so many.
    pub(crate) fn new(max: usize) -> Self {
        Self { entries: Mutex::default(), max: max.max(1) }
    }

    /// Notes a refusal.
    pub(crate) fn note(&self, refused: &PeerRefused, address: SocketAddr, now_ms: i64) {
        let new = Refusal::of(refused, address, now_ms);
        let key = Key {
            thumbprint: new.thumbprint.clone(),
            address: new.thumbprint.is_empty().then_some(address.ip()),
            rules: new.rules.join(" "),
        };
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = entries.get_mut(&key) {
            known.count = known.count.saturating_add(1);
            known.last_at_ms = now_ms;
            known.address = address;
            known.findings = new.findings;
            return;
        }
        if entries.len() >= self.max {
            let oldest = entries.iter().min_by_key(|(_, known)| known.last_at_ms).map(|(key, _)| key.clone());
            oldest.and_then(|oldest| entries.remove(&oldest));
        }
        entries.insert(key, new);
    }

    /// Returns them, the latest first.
    pub(crate) fn list(&self) -> Vec<Refusal> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let mut list: Vec<Refusal> = entries.values().cloned().collect();
        drop(entries);
        list.sort_by(|one, other| {
            other.last_at_ms.cmp(&one.last_at_ms).then_with(|| one.thumbprint.cmp(&other.thumbprint))
        });
        list
    }
}

impl Refusal {
    fn of(refused: &PeerRefused, address: SocketAddr, now_ms: i64) -> Self {
        let bare = |rule: &str, thumbprint: String| Self {
            rules: vec![rule.to_owned()],
            findings: vec![refused.to_string()],
            subject: String::new(),
            serial: String::new(),
            thumbprint,
            issuer: String::new(),
            address,
            first_at_ms: now_ms,
            last_at_ms: now_ms,
            count: 1,
        };
        match refused {
            PeerRefused::Unfit { refused, .. } => {
                let broken = || refused.findings().iter().filter(|one| one.severity == Severity::Refusal);
                let mut rules: Vec<String> = broken().map(|finding| finding.rule.to_string()).collect();
                rules.dedup();
                let about = broken().find(|finding| finding.thumbprint.is_some());
                let text = |of: fn(&Finding) -> &String| about.map(of).cloned().unwrap_or_default();
                let told = |one: &Finding| {
                    format!("{}: got {}; wanted {}; fix: {}", one.rule, one.got, one.wanted, one.fix)
                };
                let thumbprint = about.and_then(|finding| finding.thumbprint);
                Self {
                    rules,
                    findings: broken().map(told).collect(),
                    subject: text(|finding| &finding.subject),
                    serial: text(|finding| &finding.serial),
                    issuer: text(|finding| &finding.issuer),
                    ..bare("", thumbprint.map(|print| print.to_string()).unwrap_or_default())
                }
            }
            PeerRefused::NoCertificate { .. } => bare("C1", String::new()),
            PeerRefused::WrongRole { thumbprint, .. } | PeerRefused::Ambiguous { thumbprint, .. } => {
                bare("C2", thumbprint.to_string())
            }
            PeerRefused::Unnamed { thumbprint, .. } => bare("C7", thumbprint.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use muster_pki::Thumbprint;

    use super::*;

    fn nobody() -> PeerRefused {
        PeerRefused::NoCertificate { wanted: "device".to_owned() }
    }

    fn of_wrong_role(byte: u8) -> PeerRefused {
        PeerRefused::WrongRole {
            thumbprint: Thumbprint::of(&[byte]),
            got: muster_pki::Role::Operator,
            wanted: "device".to_owned(),
        }
    }

    fn from(last: u8, port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, last], port))
    }

    #[test]
    fn c14_one_who_comes_again_is_one_entry_with_a_count() {
        let refusals = Refusals::new(10);

        refusals.note(&nobody(), from(1, 1000), 5);
        refusals.note(&nobody(), from(1, 2000), 9);
        refusals.note(&nobody(), from(2, 1000), 7);

        let list = refusals.list();
        let told: Vec<_> = list.iter().map(|one| (one.address, one.count, one.first_at_ms)).collect();
        assert_eq!(told, [(from(1, 2000), 2, 5), (from(2, 1000), 1, 7)]);
        assert_eq!(list[0].rules, ["C1"]);
    }

    #[test]
    fn the_one_seen_longest_ago_makes_room() {
        let refusals = Refusals::new(2);

        refusals.note(&of_wrong_role(1), from(1, 1), 1);
        refusals.note(&of_wrong_role(2), from(2, 1), 2);
        refusals.note(&of_wrong_role(1), from(1, 1), 3);
        refusals.note(&of_wrong_role(3), from(3, 1), 4);

        let addresses: Vec<_> = refusals.list().iter().map(|one| one.address).collect();
        assert_eq!(addresses, [from(3, 1), from(1, 1)]);
    }
}
