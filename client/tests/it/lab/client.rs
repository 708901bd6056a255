//! The client of a laboratory.

use std::time::Duration;

use muster_client::local::{Reply, Request as LocalRequest, ask};
use muster_client::{PolicyStatus, Running};
use muster_service::shutdown::Shutdown;

use super::PATIENCE;
use crate::switch::Session;

/// A client that runs.
pub(crate) struct Client {
    pub(crate) running: Running,
    pub(super) shutdown: Shutdown,
}

impl Client {
    /// Stops it as a signal does.
    pub(crate) async fn stop(self) {
        let outcome = self.shutdown.drain(PATIENCE).await;
        assert_eq!(outcome, muster_service::shutdown::DrainOutcome::Drained);
        self.running.wait().await.unwrap();
    }

    /// Waits until it tries a policy that this session offers.
    pub(crate) async fn wait_for_trial(&self, session: &mut Session, serial: u64) {
        tokio::select! {
            () = self.wait_for(|status| status.policy_trial == serial) => {}
            () = session.answer() => {}
        }
    }

    /// Waits until what it tells of itself fits.
    pub(crate) async fn wait_for(&self, fits: impl Fn(&muster_client::Status) -> bool) {
        let wait = async {
            while !fits(&self.running.status().await.unwrap()) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("the client never came to that");
    }

    /// How it stands with its policies.
    pub(crate) async fn policy(&self) -> PolicyStatus {
        match ask(self.running.socket(), &LocalRequest::Policy {}).await.unwrap() {
            Reply::Policy(policy) => *policy,
            other => panic!("{other:?}"),
        }
    }

    /// Waits until what it tells of its policies fits.
    pub(crate) async fn wait_for_policy(&self, fits: impl Fn(&PolicyStatus) -> bool) {
        let wait = async {
            while !fits(&self.policy().await) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("its policies never came to that");
    }
}
