//! When devices were last seen, also by a Switch that is killed.
//!
//! The end of a session is stored with its time. Of sessions that are open nothing has to be stored but who has one, as
//! one record every few minutes and at the end; the next start turns it into times.

use super::Core;
use crate::engine::store::{Write, bitmap_bytes};

/// How often it is stored who has a session: 12 KiB or less for 100,000 devices, and the error of a time after a kill.
const NOTED_EVERY_MS: i64 = 5 * 60 * 1_000;

/// What is stored of who has a session.
#[derive(Debug)]
pub(super) struct Presence {
    /// When it was stored last; `None`: not since the start.
    noted_at_ms: Option<i64>,
    /// Whether what is stored has anybody in it.
    is_noted: bool,
}

impl Presence {
    /// Makes it of whether a record of somebody was found.
    pub(super) fn new(is_noted: bool) -> Self {
        Self { noted_at_ms: None, is_noted }
    }

    /// Returns whether it is time; a wall clock that was set back makes it time, too.
    fn is_due(&self, now_ms: i64) -> bool {
        self.noted_at_ms.is_none_or(|noted| !(noted..noted.saturating_add(NOTED_EVERY_MS)).contains(&now_ms))
    }
}

impl Core {
    /// Stores who has a session, if it is time.
    pub(super) fn note_online_if_due(&mut self, now_ms: i64) {
        if self.presence.is_due(now_ms) {
            self.note_online(now_ms);
        }
    }

    /// Stores who has a session. Nobody, again, is not worth a row.
    pub(crate) fn note_online(&mut self, now_ms: i64) {
        self.presence.noted_at_ms = Some(now_ms);
        if self.online.is_empty() && !self.presence.is_noted {
            return;
        }
        self.presence.is_noted = !self.online.is_empty();
        self.out.writes.push(Write::Online { at_ms: now_ms, devices: bitmap_bytes(&self.online) });
    }
}
