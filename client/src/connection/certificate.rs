//! What is done while there is no certificate to show (S6): whoever looks later finds when it was missing, and why.

use std::time::Duration;

use tokio::time::sleep;

use super::{Connection, Link};
use crate::clock;
use crate::events::{self, CERTIFICATE_MISSING, CERTIFICATE_RECOVERED, REASON_CHARS_MAX};
use crate::identity::Known;
use crate::value;

/// How often the reason that `status` tells is brought up to date; a certificate that comes wakes at once.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Since when there is no certificate, milliseconds since 1970; `None`: there is one.
#[derive(Debug, Default)]
pub(super) struct MissingSince(Option<i64>);

impl Connection {
    /// Waits until it is known whose device this is; `None`: the client stops.
    pub(super) async fn identified(&mut self, missing: &mut MissingSince) -> Option<std::sync::Arc<Known>> {
        let mut identity = self.caller.identity.clone();
        loop {
            if let Some(known) = identity.known() {
                return Some(known);
            }
            self.note_certificate(missing).await;
            let problem = self.profile.credentials.problem();
            let reason = problem.unwrap_or_else(|| "the certificate names no device that this is".to_owned());
            self.link.send_if_modified(|link| match link {
                Link::Down { reason: known, .. } if *known != reason => {
                    *known = reason;
                    true
                }
                Link::Down { .. } | Link::Up { .. } => false,
            });
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return None,
                known = identity.wait() => return Some(known),
                () = sleep(LOOK_AGAIN) => {}
            }
        }
    }

    /// Puts into the outbox that the certificate is gone, or there again.
    pub(super) async fn note_certificate(&self, missing: &mut MissingSince) {
        let lacks = self.profile.credentials.lacks_own();
        let (name, fields) = match (missing.0, lacks) {
            (None, true) => {
                missing.0 = Some(clock::wall_ms());
                ::metrics::gauge!(crate::metrics::CERTIFICATE_MISSING).set(1.0);
                let problem = self.profile.credentials.problem().unwrap_or_default();
                let reason: String = problem.chars().take(REASON_CHARS_MAX).collect();
                (CERTIFICATE_MISSING, vec![value::text("reason", &reason)])
            }
            (Some(since_ms), false) => {
                missing.0 = None;
                ::metrics::gauge!(crate::metrics::CERTIFICATE_MISSING).set(0.0);
                let waited_ms = clock::wall_ms().saturating_sub(since_ms).max(0);
                (CERTIFICATE_RECOVERED, vec![value::integer("waited_ms", waited_ms)])
            }
            (None, false) | (Some(_), true) => return,
        };
        if let Err(error) = events::post(&self.store, name, fields).await {
            tracing::warn!(%error, name, "an event was not stored");
        }
    }
}
