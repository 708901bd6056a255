//! A trial (K4): connections by a policy that is not followed yet, one after the other, beside the session that stands.

use std::sync::Arc;
use std::time::Duration;

use muster_pki::DeviceId;
use muster_signing::policy::Policy;
use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep};

use crate::backoff::Backoff;
use crate::connection::{Caller, Welcomed, pause_after};
use crate::profile::{Installed, Profile, Stage};

/// A trial that goes on. Dropping it gives it up.
#[derive(Debug)]
pub(crate) struct Trying {
    /// When it is over.
    pub(super) deadline: Instant,
    /// Since when the policy that is followed has had a session, if it had one meanwhile.
    pub(super) others_since: Option<Instant>,
    task: JoinSet<Welcomed>,
    problem: watch::Receiver<String>,
}

/// What is tried, and with what.
#[derive(Debug)]
pub(super) struct Attempts {
    pub(super) policy: Policy,
    pub(super) installed: Arc<Installed>,
    pub(super) device: DeviceId,
    pub(super) caller: Caller,
}

impl Trying {
    pub(super) fn begin(attempts: Attempts, deadline: Instant) -> Self {
        let (tell, problem) = watch::channel("no attempt has ended yet".to_owned());
        let mut task = JoinSet::new();
        task.spawn(attempts.run(tell));
        Self { deadline, others_since: None, task, problem }
    }

    /// Returns why the last attempt failed.
    pub(super) fn problem(&self) -> String {
        self.problem.borrow().clone()
    }

    /// Waits for the session.
    pub(super) async fn welcomed(&mut self) -> Welcomed {
        match self.task.join_next().await {
            Some(Ok(welcomed)) => welcomed,
            // It has no other end; the deadline has the last word.
            Some(Err(_)) | None => std::future::pending().await,
        }
    }
}

impl Attempts {
    /// Attempts until there is a session.
    async fn run(self, tell: watch::Sender<String>) -> Welcomed {
        let session = &self.caller.config;
        let mut backoff = Backoff::new(session.reconnect_base, session.reconnect_cap, rand::random());
        for at in 0.. {
            let (problem, pause) = match self.attempt(at, &mut backoff).await {
                Ok(welcomed) => return welcomed,
                Err(failed) => failed,
            };
            tracing::warn!(
                serial = self.policy.serial(),
                problem,
                ?pause,
                "no session yet by the policy that is tried"
            );
            tell.send_replace(problem);
            sleep(pause).await;
        }
        std::future::pending().await
    }

    /// Makes one attempt; returns why it failed, and how long to wait for the next.
    async fn attempt(&self, at: usize, backoff: &mut Backoff) -> Result<Welcomed, (String, Duration)> {
        // Made anew for each attempt: a file that the policy names may have come meanwhile.
        let profile = match self.profile().await {
            Ok(profile) => Arc::new(profile),
            Err(problem) => return Err((problem, backoff.next_pause())),
        };
        let Some(url) = profile.switch(at) else {
            return Err(("it names no Switch".to_owned(), backoff.next_pause()));
        };
        match self.caller.call_to_welcome(&profile.credentials, url).await {
            Ok((opened, welcome)) => {
                let at = at % profile.switches.len().max(1);
                Ok(Welcomed { profile: Arc::clone(&profile), at, opened, welcome })
            }
            Err(end) => Err((format!("{url}: {end}"), pause_after(&end, backoff))),
        }
    }

    async fn profile(&self) -> Result<Profile, String> {
        let (installed, device, policy) =
            (Arc::clone(&self.installed), self.device.clone(), self.policy.clone());
        let made = spawn_blocking(move || installed.profile_of(&device, Some(&policy), Stage::Tried)).await;
        match made {
            Ok(made) => made.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }
}
