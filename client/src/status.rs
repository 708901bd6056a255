//! How a client is, for people and programs that ask over the local socket.

use muster_service::health::{Component, State};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};

use crate::connection::Link;
use crate::identity::Identity;
use crate::instructions::shell::Workload;
use crate::policy::{Heard, PolicyStatus};
use crate::store::{OutboxCounts, Store, StoreError};

/// How a client is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The client's version.
    pub version: String,
    /// Its DeviceId; empty as long as no certificate has told it.
    pub device: String,
    /// The name of its outbox, hex.
    pub outbox_id: String,
    /// The Switch it is connected to, or calls at present.
    pub switch: String,
    /// There is a session.
    pub connected: bool,
    /// The epoch of the session, or of the last one; 0 if there never was one.
    pub epoch: u64,
    /// What the session goes over, `quic` or `websocket`; empty without one.
    #[serde(default)]
    pub transport: String,
    /// When the session began, milliseconds since 1970; 0 without one.
    pub connected_since_ms: i64,
    /// Why there is no session; empty with one.
    pub disconnected_because: String,
    /// What of certificate, roots and revocation lists somebody has to look after, such as an end that is near or a new
    /// file that is refused; empty if nothing is.
    #[serde(default)]
    pub credentials_problem: String,
    /// The instruction whose download waits for a certificate, and all other downloads with it (S6); empty: none does.
    #[serde(default)]
    pub certificate_wait: String,
    /// When that download fails with 0x209A, milliseconds since 1970; 0: none waits.
    #[serde(default)]
    pub certificate_wait_until_ms: i64,
    /// What waits to be acknowledged.
    pub outbox: OutboxCounts,
    /// Instructions that wait to start.
    pub waiting: usize,
    /// Instructions that run.
    pub running: usize,
    /// The serial of the licence held, 0 without one.
    pub licence_serial: u64,
    /// What is wrong with the licence, such as that a newer one should have come (`refresh_by`); empty if nothing is.
    #[serde(default)]
    pub licence_problem: String,
    /// The serial of the policy that is followed, 0 without one.
    #[serde(default)]
    pub policy_serial: u64,
    /// The serial of the policy that is tried beside it, 0 without one.
    #[serde(default)]
    pub policy_trial: u64,
    /// Why the policy that is followed cannot be read, so that nothing is run but stops; empty: it can, or there is none.
    #[serde(default)]
    pub policy_problem: String,
    /// Stored records that were ever found damaged.
    pub damaged_records: u64,
}

/// Where a [`Status`] comes from.
#[derive(Debug, Clone)]
pub(crate) struct StatusSource {
    pub(crate) identity: Identity,
    pub(crate) address: watch::Receiver<String>,
    pub(crate) store: Store,
    pub(crate) link: watch::Receiver<Link>,
    pub(crate) workload: watch::Receiver<Workload>,
    pub(crate) certificate: Component,
    pub(crate) policy: watch::Receiver<PolicyStatus>,
    /// To whoever follows policies.
    pub(crate) heard: mpsc::Sender<Heard>,
}

impl StatusSource {
    /// Asks everyone.
    pub(crate) async fn read(&self) -> Result<Status, StoreError> {
        let now_ms = crate::clock::wall_ms();
        let (outbox_id, outbox, damaged_records, last_epoch) = self
            .store
            .alone(move |tables| {
                let epoch = tables.epoch(now_ms)?;
                Ok((tables.outbox_id(), tables.outbox_counts(), tables.damaged()?, epoch))
            })
            .await?;
        let (connected, epoch, transport, connected_since_ms, disconnected_because) =
            match &*self.link.borrow() {
                Link::Up { epoch, since_ms, transport } => {
                    (true, *epoch, transport.to_string(), *since_ms, String::new())
                }
                Link::Down { reason, .. } => (false, last_epoch, String::new(), 0, reason.clone()),
            };
        let credentials_problem = match self.certificate.state() {
            State::Degraded(problem) | State::Failed(problem) => problem,
            State::Starting | State::Ready => String::new(),
        };
        let workload = self.workload.borrow();
        let policy = self.policy.borrow();
        let (certificate_wait, certificate_wait_until_ms) = match workload.certificate_wait {
            Some((instruction, until_ms)) => (instruction.to_string(), until_ms),
            None => (String::new(), 0),
        };
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            device: self.identity.known().map(|known| known.device.to_string()).unwrap_or_default(),
            outbox_id: outbox_id.to_string(),
            switch: self.address.borrow().clone(),
            connected,
            epoch,
            transport,
            connected_since_ms,
            disconnected_because,
            credentials_problem,
            certificate_wait,
            certificate_wait_until_ms,
            outbox,
            waiting: workload.waiting,
            running: workload.running,
            licence_serial: workload.licence_serial,
            licence_problem: workload.licence_problem.clone(),
            policy_serial: policy.serial,
            policy_trial: policy.trial,
            policy_problem: policy.unreadable.clone(),
            damaged_records,
        })
    }
}
