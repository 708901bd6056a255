//! The time of day, as far as it is believed. Deadlines of sockets, pings and queues are monotonic and not here.
//!
//! [`Wall`] shows the system's wall clock, held against the time that has really passed: what an operator signs until
//! then, and what a certificate is valid until, must not end because a clock was wrong for a second. The rules are
//! [`Steady`]'s; they go by readings alone, so that tests make them up.
//!
//! Who asks which clock:
//!
//! | question | clock |
//! |---|---|
//! | an order's `not_before` and end, a prepared order's, when an instruction expires, the licence | [`Wall`], by the engine |
//! | the Switch's own certificate, and a peer's in the handshake, after it and while it is connected | [`Wall`] |
//! | what is stored and shown: when something was accepted, committed, last seen; the time in a Welcome | [`Wall`] |
//! | CRLs for signed documents as they are read, warnings for operators | the system's, [`now`] and [`now_ms`]: nothing ends by it |
//! | the client, for what it runs | its own clock, and the latest time it has stored |
//!
//! The passed time counts while the machine sleeps (`CLOCK_BOOTTIME`), so waking up is no jump. A virtual machine that was
//! paused or moved does not know how long: its clock jumps, is held back, and believed after `clock.settle`. At the start
//! of the process there is nothing to hold a clock against, and the first reading is believed.

mod steady;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use muster_service::health::State;
use nix::time::{ClockId, clock_gettime};
use rustls_pki_types::UnixTime;

pub(crate) use self::steady::Reading;
use self::steady::{Change, Steady};
use crate::config::ClockLimits;
use crate::metrics;

/// The time of day, the same for everyone who has a clone.
#[derive(Clone)]
pub(crate) struct Wall(Arc<Inner>);

struct Inner {
    read: Box<dyn Fn() -> Reading + Send + Sync>,
    steady: Mutex<Steady>,
}

impl Wall {
    /// Shows the system's clock.
    pub(crate) fn system(limits: ClockLimits) -> Self {
        Self::new(limits, || Reading { wall_ms: now_ms(), passed: since_boot() })
    }

    /// Shows the clock that `read` reads.
    pub(crate) fn new(limits: ClockLimits, read: impl Fn() -> Reading + Send + Sync + 'static) -> Self {
        let steady = Mutex::new(Steady::new(limits, read()));
        Self(Arc::new(Inner { read: Box::new(read), steady }))
    }

    /// Returns the time, milliseconds since 1970, UTC. It never goes back.
    pub(crate) fn now_ms(&self) -> i64 {
        let mut steady = self.steady();
        // Read under the lock, so that of two readers the later reading comes later.
        let (now_ms, change) = steady.handle_reading((self.0.read)());
        drop(steady);
        if let Some(change) = change {
            tell(change, now_ms);
        }
        now_ms
    }

    /// Returns the time, as certificate checks want it.
    pub(crate) fn now(&self) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_millis(u64::try_from(self.now_ms()).unwrap_or_default()))
    }

    /// Returns whether the system's clock is believed, for readiness.
    pub(crate) fn state(&self) -> State {
        let off_ms = self.steady().off_ms();
        metrics::clock_off(off_ms.unwrap_or_default());
        match off_ms {
            None => State::Ready,
            Some(off_ms) => State::Degraded(describe(off_ms)),
        }
    }

    fn steady(&self) -> MutexGuard<'_, Steady> {
        self.0.steady.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wall")
    }
}

fn tell(change: Change, believed_ms: i64) {
    match change {
        Change::Held { wall_ms } => {
            let off_ms = wall_ms.saturating_sub(believed_ms);
            metrics::clock_jumped(if off_ms > 0 { "ahead" } else { "back" });
            tracing::error!(wall_ms, believed_ms, "{}", describe(off_ms));
        }
        Change::Agreed => {
            tracing::info!(believed_ms, "the wall clock agrees with the time that has passed again")
        }
        Change::TakenOver { ahead_ms } => tracing::warn!(
            believed_ms,
            ahead_ms,
            "the wall clock kept its new time for `clock.settle`: it is believed, and what ends by it has ended"
        ),
    }
}

/// Says how far the clock is off, and what to do.
fn describe(off_ms: i64) -> String {
    let off = Duration::from_secs(off_ms.unsigned_abs() / 1000);
    if off_ms > 0 {
        format!(
            "the wall clock jumped {off:?} ahead and is not followed: set it right; if it is right, wait for \
             `clock.settle`, or restart the Switch"
        )
    } else {
        format!(
            "the wall clock was set back by {off:?} and is not followed: set it right; if it is right, restart the Switch"
        )
    }
}

/// Returns the time since the machine started, its sleep included.
fn since_boot() -> Duration {
    // A kernel without this clock (before Linux 2.6.39) would read 0 for ever. The wall clock, looked at far more often than
    // every `jump_max`, is then followed in small steps; one that jumps is held back until it returns.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

/// Returns the moment by the system's clock, milliseconds since 1970, UTC.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Returns a moment in milliseconds since 1970, UTC.
pub(crate) fn millis(time: UnixTime) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX).saturating_mul(1000)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    #[test]
    fn a_clock_that_is_not_believed_is_told_with_what_to_do() {
        let wall_ms = Arc::new(AtomicI64::new(1_000_000));
        let read = Arc::clone(&wall_ms);
        let wall = Wall::new(ClockLimits::default(), move || Reading {
            wall_ms: read.load(Ordering::SeqCst),
            passed: Duration::ZERO,
        });
        assert_eq!(wall.state(), State::Ready);

        wall_ms.store(1_000_000 + 2 * 86_400_000, Ordering::SeqCst);

        assert_eq!(wall.now_ms(), 1_000_000);
        let State::Degraded(told) = wall.state() else { panic!("degraded") };
        assert!(told.contains("jumped 172800s ahead") && told.contains("restart the Switch"), "{told}");
    }

    #[test]
    fn the_systems_clocks_go_on() {
        let wall = Wall::system(ClockLimits::default());

        assert!((wall.now_ms() - now_ms()).abs() < 30_000);
        assert!(since_boot() > Duration::ZERO);
        assert_eq!(wall.state(), State::Ready);
    }
}
