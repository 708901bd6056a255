//! The connection to the Switch: attempt after attempt, session after session, for as long as the client lives.
//!
//! [`caller`] makes one connection of an address and credentials, by the road that [`roads`] finds; [`session`] drives one session, [`pause`] says
//! what lies between two of them. [`takeover`] hands over a session that a policy's trial brought about.

mod asks;
#[cfg(feature = "autobahn")]
pub mod autobahn;
mod caller;
mod certificate;
mod drain;
mod pause;
mod quic;
mod roads;
mod session;
mod socket;
mod stops;
mod takeover;
mod websocket;

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use muster_proto::session::v1::CloseReason;
use muster_service::credentials::{DialError, PeerRefused};
use rustls::AlertDescription;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::config::Transport;
use crate::instructions::shell::{Inbound, Outbound};
use crate::policy::Heard;
use crate::profile::Profile;
use crate::store::{Store, StoreError};

pub(crate) use asks::Asks;
pub(crate) use caller::Caller;
use certificate::MissingSince;
pub(crate) use pause::Files;
use pause::{Cause, CredentialWatch, SETTLED_AFTER};
pub(crate) use roads::Roads;
pub(crate) use stops::ExpectedStops;
pub(crate) use takeover::{Takeover, Welcomed};

/// Whether there is a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Link {
    /// A session was welcomed.
    Up {
        /// Its epoch.
        epoch: u64,
        /// When, milliseconds since 1970.
        since_ms: i64,
        /// What it goes over.
        transport: Transport,
    },
    /// There is none.
    Down {
        /// Since when.
        since: Instant,
        /// Why.
        reason: String,
    },
}

/// How a session or an attempt ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum End {
    /// The client stops.
    #[error("the client stops")]
    Stopped,
    /// There was no connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The certificate of the Switch was taken, and is not any more: it is revoked, has ended, or its root is gone.
    #[error("the certificate of the Switch is no longer accepted: {0}")]
    ServerRefused(Box<PeerRefused>),
    /// The Switch does not take this device's certificate. With TLS 1.3 it says so after the handshake.
    #[error("the Switch refuses this device's certificate (TLS alert {0:?})")]
    Refused(AlertDescription),
    /// The Switch does not take this device, and says so once the handshake is over: a resumed TLS session has no alert for it,
    /// and a device may be blocked whatever its certificate.
    #[error("the Switch refuses this device: {0}")]
    Denied(String),
    /// The Switch takes no session of this device at present, or what answers is none.
    #[error("the Switch answers {status}{}{text}", if text.is_empty() { "" } else { ": " })]
    TurnedAway {
        /// The answer.
        status: StatusCode,
        /// How long it asks to stay away.
        retry_after: Option<Duration>,
        /// Its explanation.
        text: String,
    },
    /// The WebSocket could not be opened, or broke.
    #[error("WebSocket: {0}")]
    WebSocket(String),
    /// The connection over QUIC broke.
    #[error("QUIC: {0}")]
    Quic(String),
    /// It fell silent: nothing comes, or nothing goes.
    #[error("QUIC: {0}")]
    QuicSilent(String),
    /// The Switch ended it.
    #[error("QUIC: {0}")]
    QuicClosed(String),
    /// The Switch said why.
    #[error("the Switch ended the session: {} {detail}", reason.name())]
    GoneAway {
        /// Why.
        reason: CloseReason,
        /// How long to stay away.
        reconnect_after: Duration,
        /// For people.
        detail: String,
    },
    /// The protocol's state machine ended the session.
    #[error("the session ended: {}", .0.name())]
    Closed(CloseReason),
    /// The Switch has seen numbers that the store never sent. Its outbox has another name, which the next session tells.
    #[error(
        "the Switch has seen numbers that this store never sent; its outbox has another outbox_id, by which the next session goes"
    )]
    Renewed,
    /// Another session takes the place of this one.
    #[error("the client moves on by a policy")]
    Moved,
    /// Instructions were not taken in time.
    #[error("this device is too busy to take orders")]
    Busy,
    /// The store is full, which passes, or it broke, and the client cannot go on.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl End {
    /// Returns whether another road might have led to a Welcome: nothing that the Switch said ended it.
    fn may_be_the_road(&self) -> bool {
        self.is_silence() || matches!(self, Self::Quic(_) | Self::Closed(CloseReason::HelloTimeout))
    }

    /// Returns whether nothing came any more, for too long.
    fn is_silence(&self) -> bool {
        matches!(self, Self::QuicSilent(_) | Self::Closed(CloseReason::Idle))
    }
}

/// Returns how long to stay away after an attempt in vain.
pub(crate) fn pause_after(end: &End, backoff: &mut Backoff) -> Duration {
    Cause::of(end).pause(backoff)
}

/// Everything a session needs.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Where the Switches are, and as whom they are called.
    pub(crate) profile: Arc<Profile>,
    /// Which of them is called next.
    pub(crate) at: usize,
    /// Makes connections.
    pub(crate) caller: Caller,
    /// Results and events.
    pub(crate) store: Store,
    /// To the instructions.
    pub(crate) inbox: mpsc::Sender<Inbound>,
    /// From the instructions.
    pub(crate) outbound: mpsc::Receiver<Outbound>,
    /// To whoever follows policies.
    pub(crate) policy: mpsc::Sender<Heard>,
    /// A session that is to take the place of the one that stands.
    pub(crate) takeover: Takeover,
    /// The Switch that is called, to whom asks.
    pub(crate) address: watch::Sender<String>,
    /// To whom asks.
    pub(crate) link: watch::Sender<Link>,
    /// Ends the task.
    pub(crate) stop: CancellationToken,
}

impl Connection {
    /// Runs until it is stopped or the store fails.
    pub(crate) async fn run(mut self) -> Result<(), StoreError> {
        let mut missing = MissingSince::default();
        if self.identified(&mut missing).await.is_none() {
            return Ok(());
        }
        let session = &self.caller.config;
        let mut backoff = Backoff::new(session.reconnect_base, session.reconnect_cap, rand::random());
        let mut watch = CredentialWatch::new(&self.profile.credentials);
        loop {
            // What changes while the attempt is made ends the pause after it as well.
            watch.mark();
            self.note_certificate(&mut missing).await;
            let profile = Arc::clone(&self.profile);
            let end = self.session().await;
            if !Arc::ptr_eq(&profile, &self.profile) {
                watch = CredentialWatch::new(&self.profile.credentials);
                backoff.reset();
            }
            // A full disk may have room again: nothing was promised, and what was not kept comes once more.
            if let End::Store(error) = &end
                && !matches!(error, StoreError::DiskFull)
            {
                return Err(error.clone());
            }
            if matches!(end, End::Stopped) || self.stop.is_cancelled() {
                return Ok(());
            }
            if self.is_moving(&end).await {
                self.link.send_replace(Link::Down { since: Instant::now(), reason: End::Moved.to_string() });
                continue;
            }
            let was_up = matches!(*self.link.borrow(), Link::Up { .. });
            let cause = Cause::of(&end);
            self.tell(&end, &cause, &mut backoff);
            // The next one after an attempt in vain, the preferred one after a session.
            self.at = if was_up { 0 } else { (self.at + 1) % self.profile.switches.len().max(1) };
            let pause = cause.pause(&mut backoff);
            tracing::debug!(?pause, "next attempt");
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(()),
                () = self.takeover.offered() => {}
                () = watch.changed(cause.wake()) => tracing::info!("credentials changed; connecting again"),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Whether another session takes the place of the one that ended. A Switch that has both ends the older one, maybe before
    /// the newer one is offered here.
    async fn is_moving(&self, end: &End) -> bool {
        let is_superseded = matches!(end, End::GoneAway { reason: CloseReason::Superseded, .. });
        if is_superseded && self.takeover.is_trying() {
            let offered = self.takeover.offered();
            return tokio::time::timeout(self.caller.config.upgrade_timeout, offered).await.is_ok();
        }
        matches!(end, End::Moved)
    }

    /// Tells something to whoever follows policies. What it has no room for is asked for again in an hour.
    fn hear(&self, heard: Heard) {
        if let Err(error) = self.policy.try_send(heard) {
            tracing::debug!(%error, "the follower of policies is busy");
        }
    }

    /// Says how the session ended, and what is to be done about it.
    fn tell(&self, end: &End, cause: &Cause, backoff: &mut Backoff) {
        let was_up = matches!(*self.link.borrow(), Link::Up { .. });
        let lasted = match *self.link.borrow() {
            Link::Up { since_ms, .. } => crate::clock::wall_ms().saturating_sub(since_ms),
            Link::Down { .. } => 0,
        };
        if u128::try_from(lasted).is_ok_and(|lasted| lasted >= SETTLED_AFTER.as_millis()) {
            backoff.reset();
        }
        let reason = match cause.advice(&self.profile.files) {
            Some(advice) => {
                let reason = format!("{end}; {advice}");
                let own = self.profile.credentials.own();
                let thumbprint = own.as_ref().map(|own| own.thumbprint().to_string());
                tracing::error!(reason, thumbprint, "no session until somebody acts");
                reason
            }
            None => {
                let reason = end.to_string();
                tracing::warn!(reason, "no session");
                reason
            }
        };
        if was_up {
            self.link.send_replace(Link::Down { since: Instant::now(), reason });
        } else {
            metrics::counter!(crate::metrics::CONNECT_FAILURES).increment(1);
            self.link.send_modify(|link| {
                if let Link::Down { reason: known, .. } = link {
                    *known = reason;
                }
            });
        }
    }
}
