//! [`Follower`]: carries out what the [`Keeper`] decides: asks, verifies, keeps, tries, and moves the client.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use muster_pki::DeviceId;
use muster_proto::common::v1::NamedValue;
use muster_proto::ids::Digest;
use muster_proto::session::v1::DocumentKind;
use muster_service::credentials::ClientCredentials;
use muster_service::health::Health;
use muster_service::shutdown::Shutdown;
use muster_signing::envelope;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::followed::{Followed, Following};
use super::judging::Offer;
use super::keeper::{Keeper, RolledBack};
use super::offers::{self, Offers};
use super::trial::{Attempts, Trying};
use super::{PolicyStatus, remembered, status, write_copy};
use crate::clock;
use crate::connection::{Caller, Link, Takeover, Welcomed};
use crate::events::REASON_CHARS_MAX;
use crate::https::Https;
use crate::identity::Identity;
use crate::instructions::LiveTrust;
use crate::instructions::shell::Outbound;
use crate::metrics as names;
use crate::profile::{Installed, Profile, Stage};
use crate::store::{Store, StoreError, Tables, event_record};
use crate::value;

/// The event of a policy that was tried in vain (K4).
const ROLLED_BACK: &str = "policy.rolled_back";

/// The event of a policy that is followed and cannot be read.
const UNREADABLE: &str = "policy.unreadable";

/// The end of a trial is kept in milliseconds.
const TRIAL_ROUNDING: Duration = Duration::from_millis(2);

/// Pause before a write is tried again that found the disk full.
const DISK_FULL_PAUSE: Duration = Duration::from_secs(5);

/// What the follower is told.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A session was welcomed.
    Session,
    /// The Switch holds another policy for this device.
    Notice {
        /// Which.
        digest: Digest,
        /// Over how long all that were told of it are to ask, as the Switch has it.
        spread: Duration,
    },
    /// A policy that was asked for.
    Document {
        /// As asked.
        digest: Digest,
        /// Empty: the Switch does not have it.
        envelope: Bytes,
    },
    /// What `policy.file` has, if it is there, or why it cannot be read.
    File(Result<Option<Bytes>, String>),
    /// Somebody on this machine wants to know at once.
    Refresh {
        /// Whether what was refused or tried in vain is to be looked at again.
        retry: Retry,
        /// Told once the Switch was asked.
        done: oneshot::Sender<()>,
    },
}

/// What is looked at when somebody has a later policy asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    /// What was not refused yet.
    No,
    /// Everything, what was refused or tried in vain as well.
    Yes,
}

/// Follows the files of the credentials in use.
#[derive(Debug, Clone)]
pub(crate) struct Watching {
    pub(crate) shutdown: Shutdown,
    pub(crate) health: Health,
    /// By what name health and metrics know them.
    pub(crate) name: &'static str,
    /// Ends the following of those in use.
    pub(crate) current: CancellationToken,
}

/// Follows the policies of the fleet's administrators.
#[derive(Debug)]
pub(crate) struct Follower {
    pub(crate) keeper: Keeper,
    pub(crate) offers: Offers,
    /// For who judges by the policy that is followed.
    pub(crate) followed: Followed,
    pub(crate) identity: Identity,
    pub(crate) installed: Arc<Installed>,
    pub(crate) trust: Arc<LiveTrust>,
    pub(crate) store: Store,
    pub(crate) caller: Caller,
    pub(crate) takeover: Takeover,
    pub(crate) background: watch::Sender<Option<Https>>,
    /// Rises when the CRLs change.
    pub(crate) lists: watch::Receiver<u64>,
    /// Of each source the policy that came before the CRL that its signature needs (R6), or while the clock was behind: judged again.
    pub(crate) unjudged: Vec<Offer>,
    /// When that is, where no CRL brings it about.
    pub(crate) judges_at: Option<Instant>,
    /// What is in `policy.file`.
    pub(crate) file: Option<Bytes>,
    /// Why that is not taken.
    pub(crate) file_problem: String,
    /// To the Switch.
    pub(crate) session: mpsc::Sender<Outbound>,
    pub(crate) heard: mpsc::Receiver<Heard>,
    /// What a policy that came lacks before it can be judged.
    pub(crate) waits_for: String,
    /// Whether the policy that is followed has a session.
    pub(crate) link: watch::Receiver<Link>,
    pub(crate) status: watch::Sender<PolicyStatus>,
    pub(crate) watching: Watching,
    pub(crate) trying: Option<Trying>,
    /// The readable copy.
    pub(crate) copy: PathBuf,
    pub(crate) stop: CancellationToken,
}

impl Follower {
    /// Runs until it is stopped or the store fails.
    pub(crate) async fn run(mut self) -> Result<(), StoreError> {
        self.show();
        self.tell_of_unreadable().await?;
        let stop = self.stop.clone();
        let mut identity = self.identity.clone();
        let known = loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                known = identity.wait() => break known,
                Some(heard) = self.heard.recv() => self.handle_heard(heard).await?,
            }
        };
        self.keeper.know(known.values());
        // A trial that a restart interrupted goes on.
        self.begin_trial(&known.device);
        self.judge_file().await?;
        let refresh = self.installed.config.policy.refresh;
        let mut next_check = Instant::now() + refresh;
        loop {
            let deadline = self.trying.as_ref().map(|trying| trying.deadline);
            let judges_at = self.judges_at;
            let asks_at = self.offers.poll_timeout().map(Instant::from_std);
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                welcomed = welcomed(&mut self.trying) => self.handle_welcomed(welcomed).await?,
                () = wait_until(deadline) => {
                    if !self.is_undecided() {
                        self.handle_trial_over().await?;
                    }
                }
                Ok(()) = self.link.changed() => self.note_link(),
                Some(heard) = self.heard.recv() => self.handle_heard(heard).await?,
                Ok(()) = self.lists.changed() => self.judge_again().await?,
                () = wait_until(judges_at) => self.judge_again().await?,
                () = wait_until(asks_at) => {
                    if let Some(digest) = self.offers.handle_timeout(clock::now().instant) {
                        self.send(Outbound::Ask(DocumentKind::Policy, digest));
                    }
                }
                () = sleep_until(next_check) => {
                    self.check();
                    next_check = Instant::now() + refresh;
                }
            }
        }
    }

    /// Tells the operators of a policy that cannot be read, once in a run of the client.
    async fn tell_of_unreadable(&self) -> Result<(), StoreError> {
        let Some(problem) = self.keeper.unreadable() else { return Ok(()) };
        let highest = i64::try_from(self.keeper.memory().highest_serial).unwrap_or(i64::MAX);
        let detail: String = problem.chars().take(REASON_CHARS_MAX).collect();
        let fields = vec![value::integer("highest_serial", highest), value::text("detail", &detail)];
        self.tell(UNREADABLE, fields).await
    }

    /// Appends an event; where the disk is full, the log has it.
    pub(super) async fn tell(&self, name: &'static str, fields: Vec<NamedValue>) -> Result<(), StoreError> {
        let now_ms = clock::wall_ms();
        let event = event_record(now_ms, name, fields);
        match self.store.write(move |tables| tables.append_event(event, now_ms).map(drop)).await {
            Err(StoreError::DiskFull) => Ok(()),
            written => written,
        }
    }

    async fn handle_heard(&mut self, heard: Heard) -> Result<(), StoreError> {
        match heard {
            Heard::Session => {
                self.offers.handle_session();
                self.check();
            }
            // Nobody may sign any.
            Heard::Notice { .. } if !self.installed.config.trust.has_policies() => {}
            Heard::Notice { digest, spread } => self.handle_notice(digest, spread),
            Heard::Document { digest, envelope } => return self.handle_document(digest, envelope).await,
            Heard::File(read) => return self.handle_file(read).await,
            Heard::Refresh { retry, done } => {
                if retry == Retry::Yes {
                    tracing::info!("policies that were refused or tried in vain are looked at again");
                    self.offers.handle_retry();
                    self.keeper.handle_retry();
                    self.judge_file().await?;
                }
                self.check();
                // Whoever asked may have gone.
                let _gone = done.send(());
            }
        }
        Ok(())
    }

    fn handle_notice(&mut self, digest: Digest, spread: Duration) {
        // It comes over a session, which nobody has who is not known.
        let Some(known) = self.identity.known() else { return };
        let memory = self.keeper.memory();
        let held = [memory.current.as_ref(), memory.trial.as_ref().map(|trial| &trial.kept)];
        let held = held.into_iter().flatten().any(|kept| envelope::digest(&kept.envelope) == digest);
        let held = held || self.unjudged.iter().any(|unjudged| unjudged.digest == digest);
        let spread = spread.min(self.installed.config.policy.spread_max);
        let wait = offers::wait(&known.device, digest, spread);
        if self.offers.handle_notice(digest, held, wait, clock::now().instant) {
            self.send(Outbound::Ask(DocumentKind::Policy, digest));
        }
    }

    /// Tells the Switch which policy is followed; it answers with a later one.
    pub(super) fn check(&self) {
        self.send(Outbound::CheckPolicy(self.keeper.serial()));
    }

    /// Sends if there is a session with room; what is lost is sent with the next session, or in an hour.
    fn send(&self, outbound: Outbound) {
        if let Err(error) = self.session.try_send(outbound) {
            tracing::debug!(%error, "not sent");
        }
    }

    pub(super) fn begin_trial(&mut self, device: &DeviceId) {
        let Some(trial) = self.keeper.trial() else { return };
        let left = u64::try_from(trial.until_ms.saturating_sub(clock::wall_ms())).unwrap_or(0);
        let attempts = Attempts {
            policy: trial.kept.policy.clone(),
            installed: Arc::clone(&self.installed),
            device: device.clone(),
            caller: self.caller.clone(),
        };
        self.takeover.set_trying(true);
        self.trying = Some(Trying::begin(attempts, Instant::now() + Duration::from_millis(left)));
        self.note_link();
    }

    fn note_link(&mut self) {
        let is_up = matches!(*self.link.borrow_and_update(), Link::Up { .. });
        if let Some(trying) = self.trying.as_mut().filter(|_| is_up) {
            trying.others_since.get_or_insert_with(Instant::now);
        }
    }

    /// Returns whether a trial that is over says nothing of its policy, and goes on: where the one that is followed had no session either,
    /// it is the network, or the Switch has moved. It gets its time from when that one has a session.
    fn is_undecided(&mut self) -> bool {
        let Some(trying) = &mut self.trying else { return false };
        let (now, trial) = (Instant::now(), self.installed.config.policy.trial);
        let over = trying.others_since.unwrap_or(now) + trial;
        // One that began with a session had its time, to the millisecond that is kept over a restart.
        let is_undecided = over > now + TRIAL_ROUNDING;
        if is_undecided {
            trying.deadline = over;
        }
        is_undecided
    }

    pub(super) fn give_up_trial(&mut self) {
        self.trying = None;
        self.installed.rules.revocation.end_trial();
        self.takeover.set_trying(false);
    }

    /// There is a session under the policy that is tried: from now on it is followed.
    async fn handle_welcomed(&mut self, welcomed: Welcomed) -> Result<(), StoreError> {
        self.trying = None;
        let Some(serial) = self.keeper.trial().map(|trial| trial.kept.policy.serial()) else { return Ok(()) };
        self.keeper.handle_session(serial);
        self.keep(None).await?;
        // The files that it makes lie where those of the policy before lay; until now they were that one's.
        let followed = self.followed().await;
        if followed.is_some() {
            self.installed.rules.revocation.end_trial();
        }
        let profile = followed.unwrap_or_else(|| Arc::clone(&welcomed.profile));
        self.watch(&profile.credentials);
        self.background.send_replace(self.https(&profile));
        tracing::info!(serial, "policy followed: it has a session");
        self.show();
        self.takeover.offer(Welcomed { profile, ..welcomed });
        self.takeover.set_trying(false);
        Ok(())
    }

    async fn followed(&self) -> Option<Arc<Profile>> {
        let (installed, device) = (Arc::clone(&self.installed), self.identity.known()?.device.clone());
        let policy = self.keeper.current().map(|kept| kept.policy.clone());
        let made = move || installed.profile_of(&device, policy.as_ref(), Stage::Followed);
        match spawn_blocking(made).await {
            Ok(Ok(profile)) => Some(Arc::new(profile)),
            Ok(Err(error)) => {
                tracing::error!(%error, "what the policy was tried by stays in use until the next start");
                None
            }
            Err(error) => {
                tracing::error!(%error, "what the policy was tried by stays in use until the next start");
                None
            }
        }
    }

    /// The files of other credentials are followed from now on.
    fn watch(&mut self, credentials: &Arc<ClientCredentials>) {
        let Watching { shutdown, health, name, current } = &mut self.watching;
        current.cancel();
        *current = self.stop.child_token();
        credentials.watch_until(shutdown, current.clone(), health, name);
    }

    fn https(&self, profile: &Profile) -> Option<Https> {
        Https::of(profile, &self.installed.config, &self.watching.shutdown)
    }

    async fn handle_trial_over(&mut self) -> Result<(), StoreError> {
        let reason = self.trying.as_ref().map_or_else(String::new, Trying::problem);
        let tried = self.keeper.trial().map(|trial| (trial.until_ms, envelope::digest(&trial.kept.envelope)));
        self.give_up_trial();
        let Some((until_ms, digest)) = tried else { return Ok(()) };
        // By the clock that never steps it is over, whatever the other says.
        let Some(rolled_back) = self.keeper.handle_time(until_ms) else { return Ok(()) };
        // Told by an event of its own.
        let _told = self.offers.refuse(digest);
        let RolledBack { serial, back_to } = rolled_back;
        let reason: String = reason.chars().take(REASON_CHARS_MAX).collect();
        self.keep(Some((rolled_back, reason.clone()))).await?;
        ::metrics::counter!(names::POLICIES_ROLLED_BACK).increment(1);
        tracing::error!(
            serial,
            back_to,
            reason,
            "the policy gave no session in time; the one before stays, and only a later one is tried, or this one after \
             `muster-client policy refresh --retry`"
        );
        self.show();
        self.judge_file().await
    }

    /// Writes what the keeper remembers, with the event of a policy that was tried in vain. It is on disk when this returns, or
    /// the client stops.
    pub(super) async fn keep(&self, rolled_back: Option<(RolledBack, String)>) -> Result<(), StoreError> {
        let stored = remembered::stored(self.keeper.memory());
        loop {
            let (stored, rolled_back, now_ms) = (stored.clone(), rolled_back.clone(), clock::wall_ms());
            let job = move |tables: &mut Tables| {
                tables.keep_policies(&stored)?;
                let Some((rolled_back, reason)) = rolled_back else { return Ok(()) };
                let number = |serial: u64| i64::try_from(serial).unwrap_or(i64::MAX);
                let fields = vec![
                    value::integer("serial", number(rolled_back.serial)),
                    value::integer("back_to", number(rolled_back.back_to)),
                    value::text("reason", &reason),
                ];
                tables.append_event(event_record(now_ms, ROLLED_BACK, fields), now_ms).map(drop)
            };
            match self.store.write(job).await {
                Err(StoreError::DiskFull) if !self.stop.is_cancelled() => {
                    tracing::error!("the disk of the store is full; policies wait for room");
                    tokio::select! {
                        () = self.stop.cancelled() => {}
                        () = sleep(DISK_FULL_PAUSE) => {}
                    }
                }
                // The client stops; the next one begins with what was kept before.
                Err(StoreError::DiskFull) => return Ok(()),
                written => return written,
            }
        }
    }

    /// Tells what is followed to who judges by it, and to people.
    pub(super) fn show(&self) {
        self.followed.set(Following::of(self.keeper.memory()));
        let status = PolicyStatus {
            file_problem: self.file_problem.clone(),
            waits_for: self.waits_for.clone(),
            ..status(&self.keeper)
        };
        #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
        ::metrics::gauge!(names::POLICY_SERIAL).set(status.serial as f64);
        write_copy(&self.copy, &status);
        self.status.send_replace(status);
    }
}

async fn welcomed(trying: &mut Option<Trying>) -> Welcomed {
    match trying {
        Some(trying) => trying.welcomed().await,
        None => std::future::pending().await,
    }
}

async fn wait_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
