//! [`Door`]: whom the Switch's operators keep out, and who was turned away here.
//!
//! Both go over one call every few seconds. While the Switch is away the last list holds, over restarts, too: it is on disk before
//! its name goes back to the Switch. Until the first answer ever nobody is known to be blocked, and what such a device posts
//! meanwhile is refused by the Switch.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use muster_pki::DeviceId;
use muster_proto::relay::v1::{RefusedPeer, SyncDoorRequest};
use muster_proto_grpc::relay::v1::event_relay_service_client::EventRelayServiceClient;
use muster_service::admission::Lines;
use muster_service::credentials::{Peer, Shown, Told};
use muster_service::exit::describe;
use muster_service::health::{Health, State};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use super::{ATTEMPT_DEADLINE, Change, RelayError, Road, Target, connect};
use crate::metrics;
use crate::spool::{KeptDoor, Spool};

/// Refusals that wait to be told; the Switch takes as many in a call. What is beyond is counted only.
const UNTOLD_MAX: usize = 100;

/// Of these, of who showed no certificate: strangers leave room for devices.
const UNTOLD_STRANGERS_MAX: usize = UNTOLD_MAX / 2;

/// The components of our own certificates.
pub(crate) const SERVER_CERTIFICATE: &str = "server certificate";
pub(crate) const SERVICE_CERTIFICATE: &str = "service certificate";

/// Whom operators block was on disk, and cannot be read.
const DAMAGED: &str = "whom operators have blocked is not known until the Switch answers: the list on disk was damaged and set aside";

type Blocked = Arc<BTreeSet<DeviceId>>;

/// The door of a Background Channel.
#[derive(Debug, Default)]
pub(crate) struct Door {
    blocked: watch::Sender<Blocked>,
    untold: Mutex<BTreeMap<Key, RefusedPeer>>,
    lines: Lines,
}

/// Two refusals are told as one if the same peer's path broke the same rules by the same certificate, or the same address showed none.
type Key = (String, String, String);

impl Door {
    /// Begins with whom operators kept out before the start.
    pub(crate) fn new(kept: &KeptDoor) -> Self {
        let door = Self::default();
        if let KeptDoor::Told(told) = kept {
            door.set_blocked(&told.blocked);
        }
        door
    }

    /// Returns whether an operator keeps the peer out.
    pub(crate) fn is_blocked(&self, peer: &Peer) -> bool {
        peer.device_id().is_some_and(|device| self.blocked.borrow().contains(device))
    }

    /// Waits until the peer is kept out.
    pub(crate) async fn blocked_later(&self, peer: &Peer) {
        let Some(device) = peer.device_id() else { return std::future::pending().await };
        let mut changes = self.blocked.subscribe();
        if changes.wait_for(|blocked| blocked.contains(device)).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Logs, counts and remembers that a blocked device was turned away.
    pub(crate) fn note_blocked(&self, peer: &Peer, address: SocketAddr, now_ms: i64) {
        let device = peer.name();
        let finding = format!(
            "R2: got {device}, which an operator blocked; wanted a device that is not blocked; fix: muster client unblock \
             {device}"
        );
        self.note(Told::new("R2", finding, &Shown::of(peer.certificate())), address, now_ms);
    }

    /// Logs, counts and remembers a refused certificate (C14 of trust.md).
    pub(crate) fn note(&self, told: Told, address: SocketAddr, now_ms: i64) {
        let line = self.lines.line(&told, address, now_ms);
        let Told { rules, findings, subject, serial, thumbprint, issuer, peer } = told;
        let (rules_told, fixes) = (rules.join(" "), findings.join("; "));
        if let Some(left_out) = line {
            tracing::warn!(
                %address, peer = peer.name, peer_subject = peer.subject, peer_serial = peer.serial,
                peer_thumbprint = peer.thumbprint, rules = rules_told, subject, serial, thumbprint, issuer,
                findings = fixes, left_out, "certificate refused"
            );
        }
        rules.iter().for_each(|rule| metrics::refused_certificate(rule.clone()));
        let has_shown = !peer.thumbprint.is_empty();
        let who = if has_shown { peer.thumbprint.clone() } else { address.ip().to_string() };
        let mut untold = self.untold.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (who, thumbprint.clone(), rules_told);
        let strangers = || untold.values().filter(|one| one.peer_thumbprint.is_empty()).count();
        let is_full = untold.len() >= UNTOLD_MAX || (!has_shown && strangers() >= UNTOLD_STRANGERS_MAX);
        if is_full && !untold.contains_key(&key) {
            return metrics::refusal_untold();
        }
        let known = untold.entry(key).or_default();
        *known = RefusedPeer {
            rules,
            findings,
            subject,
            serial,
            thumbprint,
            issuer,
            address: address.to_string(),
            last_at_ms: now_ms,
            count: known.count.saturating_add(1),
            peer: peer.name,
            peer_subject: peer.subject,
            peer_serial: peer.serial,
            peer_thumbprint: peer.thumbprint,
        };
    }

    fn take_untold(&self) -> BTreeMap<Key, RefusedPeer> {
        std::mem::take(&mut *self.untold.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes back what could not be told.
    fn put_back(&self, untold: BTreeMap<Key, RefusedPeer>) {
        let mut held = self.untold.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, before) in untold {
            if held.len() >= UNTOLD_MAX && !held.contains_key(&key) {
                metrics::refusal_untold();
                continue;
            }
            let count = before.count;
            let known = held.entry(key).or_insert_with(|| RefusedPeer { count: 0, ..before });
            known.count = known.count.saturating_add(count);
        }
    }

    fn set_blocked(&self, names: &[String]) {
        let blocked: BTreeSet<DeviceId> = names.iter().filter_map(|name| name.parse().ok()).collect();
        tracing::info!(devices = blocked.len(), "who is blocked has changed");
        self.blocked.send_replace(Arc::new(blocked));
    }
}

/// Asks the Switch and tells it, every `every`, until cancelled.
pub(crate) async fn run(
    door: Arc<Door>,
    spool: Spool,
    target: Target,
    every: Duration,
    health: Health,
    cancelled: CancellationToken,
) {
    let component = health.component("blocked devices");
    let (mut state, mut is_unknown) = match spool.door() {
        KeptDoor::Told(told) => (told.state.clone(), false),
        KeptDoor::None => (Vec::new(), false),
        KeptDoor::Damaged => (Vec::new(), true),
    };
    component.set(if is_unknown { State::Degraded(DAMAGED.to_owned()) } else { State::Ready });
    let (mut channel, mut road) = (None, Road::default());
    loop {
        let asking = Asking { door: &door, spool: &spool, target: &target, health: &health };
        let attempt = tokio::time::timeout(ATTEMPT_DEADLINE, asking.sync(&mut channel, &mut state));
        let outcome = tokio::select! {
            biased;
            () = cancelled.cancelled() => return,
            outcome = attempt => outcome.unwrap_or(Err(RelayError::Deadline)),
        };
        match outcome {
            Ok(()) => {
                if road.handle_success(Instant::now()) != Change::Nothing || is_unknown {
                    is_unknown = false;
                    component.set(State::Ready);
                }
            }
            Err(error) => {
                channel = None;
                let error = describe(&error);
                tracing::debug!(error, "whom operators block could not be asked");
                if let Change::Degraded { failing } = road.handle_failure(Instant::now()) {
                    let (failing, switch) = (Duration::from_secs(failing.as_secs()), &target.address);
                    component.set(State::Degraded(format!(
                        "whom operators have blocked since is not known: asking the Switch at {switch} fails for {failing:?}: \
                         {error}"
                    )));
                }
            }
        }
        tokio::select! {
            biased;
            () = cancelled.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
    }
}

/// What one call to the Switch is made of.
struct Asking<'a> {
    door: &'a Door,
    spool: &'a Spool,
    target: &'a Target,
    health: &'a Health,
}

impl Asking<'_> {
    async fn sync(&self, channel: &mut Option<Channel>, state: &mut Vec<u8>) -> Result<(), RelayError> {
        let open = match channel {
            Some(channel) => channel.clone(),
            None => channel.insert(connect(self.target).await?).clone(),
        };
        let untold = self.door.take_untold();
        let request = SyncDoorRequest {
            refused: untold.values().cloned().collect(),
            state: state.clone(),
            warnings: warnings(self.health),
        };
        let answer = match EventRelayServiceClient::new(open).sync_door(request).await {
            Ok(answer) => answer.into_inner(),
            Err(status) => {
                self.door.put_back(untold);
                return Err(Box::new(status).into());
            }
        };
        if !answer.unchanged {
            self.door.set_blocked(&answer.blocked);
            // As long as it is not on disk, its name is not told back, and the Switch says it again.
            self.spool.keep_door(&answer).await?;
        }
        *state = answer.state;
        Ok(())
    }
}

/// Returns what is wrong with our certificates, roots and CRLs, for operators who look at the Switch (N3 of trust.md).
fn warnings(health: &Health) -> Vec<String> {
    let snapshot = health.snapshot();
    let of = |name: &&str| match snapshot.components().get(*name) {
        Some(State::Degraded(why) | State::Failed(why)) => Some(why.clone()),
        Some(State::Ready | State::Starting) | None => None,
    };
    [SERVER_CERTIFICATE, SERVICE_CERTIFICATE, "revocation"].iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(subject: &str) -> Told {
        let shown = Shown { subject: subject.to_owned(), ..Shown::of_der(subject.as_bytes()) };
        Told::new("C6", "C6: got none; wanted one; fix: reissue".to_owned(), &shown)
    }

    #[test]
    fn c14_a_refusal_that_could_not_be_told_is_told_later_with_all_of_its_count() {
        let door = Door::default();
        let address = SocketAddr::from(([127, 0, 0, 1], 5));
        door.note(told("CN=w701"), address, 1);
        door.note(told("CN=w701"), address, 2);

        let untold = door.take_untold();
        door.note(told("CN=w701"), address, 3);
        door.put_back(untold);

        let all: Vec<RefusedPeer> = door.take_untold().into_values().collect();
        let [one] = &all[..] else { panic!("{all:?}") };
        assert_eq!((one.count, one.last_at_ms, &one.subject[..]), (3, 3, "CN=w701"));
        assert_eq!(one.rules, ["C6"]);
    }

    #[test]
    fn refusals_that_nobody_fetches_take_bounded_room() {
        let door = Door::default();
        for stranger in 0..2 * UNTOLD_MAX {
            door.note(told(&format!("CN=s{stranger}")), SocketAddr::from(([127, 0, 0, 1], 5)), 1);
        }

        let first = door.take_untold();
        door.note(told("CN=another"), SocketAddr::from(([127, 0, 0, 1], 5)), 1);
        door.put_back(first.clone());

        assert_eq!(first.len(), UNTOLD_MAX);
        assert_eq!(door.take_untold().len(), UNTOLD_MAX);
    }
}
