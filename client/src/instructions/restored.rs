//! A store that was brought back from a copy: what it had taken on, and what was issued before, may have run.
//!
//! A journal that is a copy has forgotten what started after the copy was made, so nothing of a restart starts before the
//! first Welcome of this process has been judged ([`muster_proto::numbers`]). Without a Switch it waits.
//!
//! A Welcome tells how many stops the Switch holds for this device; they come before anything else. What waits starts once so many orders
//! came, for any of it may be among what they stop; a Switch that announces what it does not send delays that by [`STOPS_WAIT`] only. Where
//! the session ends before they came, the next Welcome is waited for, no longer than [`WELCOME_WAIT`], and then for its stops.
//!
//! What cannot be told: a start whose device had sent no number since the copy was made leaves no trace at the Switch, and
//! a machine brought back with its memory goes on with what it held until the next Welcome. Orders are told apart by when
//! their ids were made: one that was dated ahead, past the time of the restore, counts as issued after it, which is why an
//! operator's command signs no id of the future.

use std::time::{Duration, Instant};

use super::slots::Waiting;
use super::{Admission, Effect, Instructions, Now, Refused, outcome};
use crate::store::Entry;
use muster_proto::common::v1::Refusal;
use muster_proto::numbers::Standing;

/// An instruction that was taken on before a restart, with its definition if the store has it.
pub(super) type Held = (Entry, Option<Vec<u8>>);

/// Whether something may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    /// No Welcome of this process was judged.
    UntilJudged,
    /// One was, and stops are to come.
    UntilStopped {
        /// How many.
        left: u32,
        /// From then on they are not waited for.
        until: Instant,
        /// Since when stops are waited for, in whichever session.
        since: Instant,
    },
    /// The session ended before the announced stops came, or its Welcome could not be judged: the next one is waited for.
    UntilWelcome {
        /// Since when stops are waited for, in whichever session.
        since: Instant,
    },
    /// One was, and nothing is waited for.
    Released,
}

/// How long stops are waited for that a Welcome has announced: they are written right behind it, so this is for slow lines, and short
/// enough for whoever waits for what has not started.
pub(crate) const STOPS_WAIT: Duration = Duration::from_secs(5);

/// How long stops are waited for across sessions: for most pauses between two of them, which are a minute at the longest; short enough for
/// whoever waits for what has not started where no Switch is to be had.
pub(crate) const WELCOME_WAIT: Duration = Duration::from_secs(60);

impl Hold {
    /// Returns when it ends by itself.
    pub(super) fn timeout(self) -> Option<Instant> {
        match self {
            Self::UntilStopped { until, .. } => Some(until),
            Self::UntilWelcome { since } => Some(since + WELCOME_WAIT),
            Self::UntilJudged | Self::Released => None,
        }
    }

    /// Returns since when stops are waited for; `None`: they are not.
    fn since(self) -> Option<Instant> {
        match self {
            Self::UntilStopped { since, .. } | Self::UntilWelcome { since } => Some(since),
            Self::UntilJudged | Self::Released => None,
        }
    }
}

impl<A: Admission> Instructions<A> {
    /// Takes back an instruction that was taken on before a restart and never started, as far as this store knows.
    pub(crate) fn handle_recovered(&mut self, entry: Entry, definition: Option<Vec<u8>>) {
        self.held.push((entry, definition));
    }

    /// A Welcome was judged; the store has then been brought back last at `restored_at_ms`, which may be earlier than a Switch
    /// that lied had said. If it is news that it was, the journal has ended everything that was open, and all of it is let
    /// go here.
    ///
    /// What has not started waits for the stops that the Welcome has announced.
    pub(crate) fn handle_judged(
        &mut self,
        standing: Standing,
        restored_at_ms: i64,
        stops_due: u32,
        now: Now,
    ) {
        // A session that ended meanwhile may have kept the news itself.
        let is_news = standing == Standing::Copy || restored_at_ms > self.memory.restored_at_ms;
        self.memory.restored_at_ms = restored_at_ms;
        if is_news {
            self.held.clear();
            self.arriving.clear();
            self.waiting.clear();
            self.fetching.clear();
            // Nobody could end it any more, and its answer was given.
            let runs = self.running.iter().filter(|(_, started)| started.runs());
            self.effects.extend(runs.map(|(instruction, _)| Effect::EndRun { instruction: *instruction }));
            self.running.clear();
        }
        if stops_due > 0 {
            // Announced again and again, they are waited for no longer; a Welcome that was waited for has its own time for them.
            let latest = match self.hold {
                Hold::UntilStopped { until, .. } => until,
                Hold::UntilWelcome { since } => since + WELCOME_WAIT + STOPS_WAIT,
                Hold::UntilJudged | Hold::Released => now.instant + STOPS_WAIT,
            };
            let since = self.hold.since().unwrap_or(now.instant);
            let until = latest.min(now.instant + STOPS_WAIT);
            self.hold = Hold::UntilStopped { left: stops_due, until, since };
            return;
        }
        self.release(now);
    }

    /// The session ended: stops that were announced in it come in the next one.
    pub(super) fn handle_parted(&mut self) {
        if let Hold::UntilStopped { since, .. } = self.hold {
            self.hold = Hold::UntilWelcome { since };
        }
    }

    /// A Welcome came, and could not be judged: nothing starts until one was, or for a bounded time.
    pub(crate) fn handle_unjudged(&mut self, now: Now) {
        if self.hold != Hold::UntilJudged {
            let since = self.hold.since().unwrap_or(now.instant);
            self.hold = Hold::UntilWelcome { since };
        }
    }

    /// An order or a stop came, and was taken for what it is; stops come first.
    pub(super) fn handle_expected(&mut self, now: Now) {
        let Hold::UntilStopped { left, until, since } = self.hold else { return };
        if left > 1 {
            self.hold = Hold::UntilStopped { left: left - 1, until, since };
            return;
        }
        self.release(now);
    }

    /// The stops that were announced may not have come in time.
    pub(super) fn handle_hold_timeout(&mut self, now: Now) {
        if self.hold.timeout().is_none_or(|until| until > now.instant) {
            return;
        }
        match self.hold {
            Hold::UntilStopped { .. } => {
                tracing::warn!("the Switch has announced stops that did not come; what waits starts without");
            }
            Hold::UntilWelcome { .. } => {
                tracing::warn!(
                    "the session ended before the stops came that are due, and there was no other in time; what waits starts without"
                );
            }
            Hold::UntilJudged | Hold::Released => {}
        }
        self.release(now);
    }

    /// Lets what waits start.
    fn release(&mut self, now: Now) {
        self.hold = Hold::Released;
        for (entry, definition) in std::mem::take(&mut self.held) {
            match definition {
                Some(definition) => self.waiting.push_back(Waiting::new(entry, definition, None)),
                None => {
                    let detail =
                        "its definition is no longer in this device's store; issue it again".to_owned();
                    let refused = Refused::new(Refusal::WrongDefinition, detail);
                    self.end(outcome::refused(entry.instruction, &refused, now.wall_ms));
                }
            }
        }
        self.advance(now);
    }

    pub(super) fn may_start(&self) -> bool {
        !self.is_held() && !self.is_stopping
    }

    /// Returns whether nothing may start or run until the hold ends, whatever is on disk.
    pub(crate) fn is_held(&self) -> bool {
        self.hold != Hold::Released
    }
}
