//! The connection to the Switch: attempt after attempt, session after session, for as long as the client lives.
//!
//! [`session`] drives one session, [`pause`] says what lies between two of them.

mod asks;
mod drain;
mod pause;
mod session;

use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_proto::common::v1::NamedValue;
use muster_proto::session::v1::CloseReason;
use muster_service::credentials::{ClientCredentials, DialError};
use rustls::AlertDescription;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::config::SessionConfig;
use crate::instructions::shell::{Inbound, Outbound, Workload};
use crate::store::{Store, StoreError};
use crate::url::ServiceUrl;

pub(crate) use pause::Files;
use pause::{Cause, CredentialWatch, SETTLED_AFTER};

/// Whether there is a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Link {
    /// A session was welcomed.
    Up {
        /// Its epoch.
        epoch: u64,
        /// When, milliseconds since 1970.
        since_ms: i64,
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
pub(super) enum End {
    /// The client stops.
    #[error("the client stops")]
    Stopped,
    /// There was no connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The Switch does not take this device's certificate. With TLS 1.3 it says so after the handshake.
    #[error("the Switch refuses this device's certificate (TLS alert {0:?})")]
    Refused(AlertDescription),
    /// The WebSocket could not be opened, or broke.
    #[error("WebSocket: {0}")]
    WebSocket(String),
    /// The Switch said why.
    #[error("the Switch ended the session: {} {detail}", reason.as_str_name())]
    GoneAway {
        /// Why.
        reason: CloseReason,
        /// How long to stay away.
        reconnect_after: Duration,
        /// For people.
        detail: String,
    },
    /// The protocol's state machine ended the session.
    #[error("the session ended: {}", .0.as_str_name())]
    Closed(CloseReason),
    /// The store was brought back from a copy. Its outbox has another name, which the next session tells.
    #[error(
        "the store was brought back from a copy; its outbox has another outbox_id, by which the next session goes"
    )]
    Renewed,
    /// Instructions were not taken in time.
    #[error("this device is too busy to take orders")]
    Busy,
    /// The store is full, which passes, or it broke, and the client cannot go on.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Everything a session needs.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Where the Switch is.
    pub(crate) url: ServiceUrl,
    /// Certificate and roots.
    pub(crate) credentials: Arc<ClientCredentials>,
    /// Where they come from, for advice.
    pub(crate) files: Files,
    /// Deadlines.
    pub(crate) config: SessionConfig,
    /// Results and events.
    pub(crate) store: Store,
    /// What the client tells of itself.
    pub(crate) attributes: Vec<NamedValue>,
    /// To the instructions.
    pub(crate) inbox: mpsc::Sender<Inbound>,
    /// From the instructions.
    pub(crate) outbound: mpsc::Receiver<Outbound>,
    /// Which licence is held.
    pub(crate) workload: watch::Receiver<Workload>,
    /// To whom asks.
    pub(crate) link: watch::Sender<Link>,
    /// Ends the task.
    pub(crate) stop: CancellationToken,
}

impl Connection {
    /// Runs until it is stopped or the store fails.
    pub(crate) async fn run(mut self) -> Result<(), StoreError> {
        let mut backoff = Backoff::new(self.config.reconnect_base, self.config.reconnect_cap, rand::random());
        let mut watch = CredentialWatch::new(&self.credentials);
        loop {
            // What changes while the attempt is made ends the pause after it as well.
            watch.mark();
            let end = self.session().await;
            // A full disk may have room again: nothing was promised, and what was not kept comes once more.
            if let End::Store(error) = &end
                && !matches!(error, StoreError::DiskFull)
            {
                return Err(error.clone());
            }
            if matches!(end, End::Stopped) || self.stop.is_cancelled() {
                return Ok(());
            }
            let cause = Cause::of(&end);
            self.tell(&end, &cause, &mut backoff);
            let pause = cause.pause(&mut backoff);
            tracing::debug!(?pause, "next attempt");
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(()),
                () = watch.changed(cause.wake()) => tracing::info!("credentials changed; connecting again"),
                () = tokio::time::sleep(pause) => {}
            }
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
        let reason = match cause.advice(&self.files) {
            Some(advice) => {
                let reason = format!("{end}; {advice}");
                let own = self.credentials.own();
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
