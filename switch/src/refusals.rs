//! [`Refusals`]: who was turned away lately, and by which rules (C14 of trust.md). What `muster client list --refused` shows.
//!
//! A device that comes back every minute is one entry with a count. It lives in memory: after a restart whoever is still refused
//! is soon seen again.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};

use muster_service::admission::Lines;
use muster_service::credentials::Told;

use crate::metrics::Listener;
use crate::refusal::NOBODY_RULE;

/// Everyone who was turned away lately, bounded for each door, and there for those who showed a certificate and for strangers by
/// themselves: the one who was seen longest ago makes room, so that nobody pushes those of another door out, and strangers no device.
#[derive(Debug)]
pub(crate) struct Refusals {
    entries: Mutex<HashMap<Key, Refusal>>,
    max: usize,
    sessions: Lines,
    quic: Lines,
    operators: Lines,
    background: Lines,
}

/// Two refusals are one entry if the same peer's path broke the same rules at the same door, or the same address showed no
/// certificate. The one to blame may be that of a CA, which a whole fleet has above it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    listener: Listener,
    peer: String,
    thumbprint: String,
    address: Option<IpAddr>,
    rules: String,
}

impl Key {
    /// Returns those who make room for one another.
    fn share(&self) -> (Listener, bool) {
        (self.listener, self.rules == NOBODY_RULE)
    }
}

/// One who was turned away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// At which door.
    pub(crate) listener: Listener,
    /// The rules, the certificate, and what would fix it.
    pub(crate) told: Told,
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
        Self {
            entries: Mutex::default(),
            max: max.max(1),
            sessions: Lines::default(),
            quic: Lines::default(),
            operators: Lines::default(),
            background: Lines::default(),
        }
    }

    /// Returns the lines of a door in the log.
    pub(crate) fn lines(&self, listener: Listener) -> &Lines {
        match listener {
            Listener::Sessions => &self.sessions,
            Listener::Quic => &self.quic,
            Listener::Operators => &self.operators,
            Listener::Background => &self.background,
        }
    }

    /// Notes a refusal.
    pub(crate) fn note(&self, listener: Listener, told: Told, address: SocketAddr, now_ms: i64) {
        let refusal = Refusal { listener, told, address, first_at_ms: now_ms, last_at_ms: now_ms, count: 1 };
        self.add(refusal);
    }

    /// Adds a refusal, or several of the same kind.
    pub(crate) fn add(&self, new: Refusal) {
        let key = Key {
            listener: new.listener,
            peer: new.told.peer.thumbprint.clone(),
            thumbprint: new.told.thumbprint.clone(),
            address: (new.told.peer.thumbprint.is_empty() && new.told.thumbprint.is_empty())
                .then_some(new.address.ip()),
            rules: new.told.rules.join(" "),
        };
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = entries.get_mut(&key) {
            known.count = known.count.saturating_add(new.count);
            known.last_at_ms = known.last_at_ms.max(new.last_at_ms);
            known.address = new.address;
            known.told.findings = new.told.findings;
            return;
        }
        let here = |other: &Key| other.share() == key.share();
        if entries.keys().filter(|key| here(key)).count() >= self.max {
            let of_door = entries.iter().filter(|(key, _)| here(key));
            let oldest = of_door.min_by_key(|(_, known)| known.last_at_ms).map(|(key, _)| key.clone());
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
            other
                .last_at_ms
                .cmp(&one.last_at_ms)
                .then_with(|| one.told.peer.thumbprint.cmp(&other.told.peer.thumbprint))
        });
        list
    }
}

#[cfg(test)]
mod tests {
    use muster_service::credentials::{PeerRefused, Shown};

    use super::*;

    fn nobody() -> Told {
        PeerRefused::NoCertificate { wanted: "device".to_owned() }.told()
    }

    fn of_wrong_role(byte: u8) -> Told {
        let refused = PeerRefused::WrongRole {
            certificate: Box::new(Shown::of_der(&[byte])),
            got: muster_pki::Role::Operator,
            wanted: "device".to_owned(),
        };
        refused.told()
    }

    fn from(last: u8, port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, last], port))
    }

    #[test]
    fn c14_one_who_comes_again_is_one_entry_with_a_count() {
        let refusals = Refusals::new(10);

        refusals.note(Listener::Sessions, nobody(), from(1, 1000), 5);
        refusals.note(Listener::Sessions, nobody(), from(1, 2000), 9);
        refusals.note(Listener::Sessions, nobody(), from(2, 1000), 7);

        let list = refusals.list();
        let told: Vec<_> = list.iter().map(|one| (one.address, one.count, one.first_at_ms)).collect();
        assert_eq!(told, [(from(1, 2000), 2, 5), (from(2, 1000), 1, 7)]);
        assert_eq!(list[0].told.rules, ["C1"]);
    }

    #[test]
    fn the_one_seen_longest_ago_makes_room() {
        let refusals = Refusals::new(2);

        refusals.note(Listener::Sessions, of_wrong_role(1), from(1, 1), 1);
        refusals.note(Listener::Sessions, of_wrong_role(2), from(2, 1), 2);
        refusals.note(Listener::Sessions, of_wrong_role(1), from(1, 1), 3);
        refusals.note(Listener::Sessions, of_wrong_role(3), from(3, 1), 4);

        let addresses: Vec<_> = refusals.list().iter().map(|one| one.address).collect();
        assert_eq!(addresses, [from(3, 1), from(1, 1)]);
    }

    #[test]
    fn c14_strangers_push_no_device_out_of_the_list() {
        let refusals = Refusals::new(2);
        refusals.note(Listener::Sessions, of_wrong_role(1), from(1, 1), 1);

        for last in 2..9 {
            refusals.note(Listener::Sessions, nobody(), from(last, 1), i64::from(last));
        }

        let addresses: Vec<_> = refusals.list().iter().map(|one| one.address).collect();
        assert_eq!(addresses, [from(8, 1), from(7, 1), from(1, 1)]);
    }

    #[test]
    fn c14_strangers_at_one_door_push_nobody_out_of_the_list_of_another() {
        let refusals = Refusals::new(1);
        refusals.note(Listener::Sessions, of_wrong_role(1), from(1, 1), 1);

        refusals.note(Listener::Operators, of_wrong_role(1), from(2, 1), 2);
        refusals.note(Listener::Operators, of_wrong_role(2), from(3, 1), 3);

        let doors: Vec<_> = refusals.list().iter().map(|one| (one.listener, one.address)).collect();
        assert_eq!(doors, [(Listener::Operators, from(3, 1)), (Listener::Sessions, from(1, 1))]);
    }
}
