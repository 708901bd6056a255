//! The time of day, as far as it is believed. Deadlines of sockets, pings and queues are monotonic and not here.
//!
//! [`Wall`] shows the system's wall clock, held against the time that has really passed: what an operator signs until
//! then, and what a certificate is valid until, must not end because a clock was wrong for a second. The rules are
//! `Steady`'s; they go by readings alone, so that tests make them up.
//!
//! The passed time counts while the machine sleeps (`CLOCK_BOOTTIME`), so waking up is no jump. A virtual machine that was
//! paused or moved does not know how long: its clock jumps, is held back, and believed after `clock.settle`. At the start
//! of the process there is nothing to hold a clock against, and the first reading is believed. What cannot be undone, such as
//! deleting what has been kept long enough, waits for [`Wall::settled_ms`]: a machine may start with any clock, and is set right soon.

mod steady;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use muster_pki::UnixTime;
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

pub use self::steady::Reading;
use self::steady::{Change, Steady};
use crate::config::{Invalid, human};
use crate::credentials::Clock;
use crate::health::{Health, State};
use crate::shutdown::Shutdown;

/// How often [`Wall::watch`] looks; a clock that goes right moves far less than `jump_max` in it.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// How far the wall clock is believed: the table `[clock]` of every program that has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClockLimits {
    /// How far the wall clock may move against the time that has really passed; what jumps further is not followed
    /// at once, so that nothing ends by it. Default `30s`.
    #[serde(with = "human::duration")]
    pub jump_max: Duration,
    /// How long a wall clock that jumped ahead must keep its new time until it is believed. Default `10m`.
    #[serde(with = "human::duration")]
    pub settle: Duration,
}

impl Default for ClockLimits {
    fn default() -> Self {
        Self { jump_max: Duration::from_secs(30), settle: Duration::from_secs(600) }
    }
}

impl ClockLimits {
    /// Returns what does not work, for keys of this table.
    #[must_use]
    pub fn findings(&self) -> Vec<Invalid> {
        let keys = [("jump_max", self.jump_max), ("settle", self.settle)];
        let zero = keys.into_iter().filter(|(_, got)| got.is_zero());
        let problem = "got 0s, wanted a duration such as \"10s\": every wait has an end";
        zero.map(|(key, _)| Invalid::new(key, problem)).collect()
    }
}

/// What a program calls itself, and its metrics of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Names {
    /// What is to be restarted, such as "the Switch".
    pub program: &'static str,
    /// Counter: jumps of the wall clock that were not followed; label `direction`.
    pub jumps_total: &'static str,
    /// Gauge: how far the wall clock is from the time that is believed; 0 while it is believed.
    pub off_seconds: &'static str,
}

/// The time of day, the same for everyone who has a clone.
#[derive(Clone)]
pub struct Wall(Arc<Inner>);

struct Inner {
    names: Names,
    read: Box<dyn Fn() -> Reading + Send + Sync>,
    steady: Mutex<Steady>,
}

impl Wall {
    /// Shows the system's clock.
    #[must_use]
    pub fn system(limits: ClockLimits, names: Names) -> Self {
        Self::new(limits, names, || Reading { wall_ms: now_ms(), passed: since_boot() })
    }

    /// Shows the clock that `read` reads.
    pub fn new(
        limits: ClockLimits,
        names: Names,
        read: impl Fn() -> Reading + Send + Sync + 'static,
    ) -> Self {
        let steady = Mutex::new(Steady::new(limits, read()));
        Self(Arc::new(Inner { names, read: Box::new(read), steady }))
    }

    /// Returns the time, milliseconds since 1970, UTC. It never goes back.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        self.read().0
    }

    /// Returns the time if nothing speaks against it: the wall clock is believed, and the first reading of this process has stood for
    /// `clock.settle`. To be asked before anything is deleted because its time is up.
    #[must_use]
    pub fn settled_ms(&self) -> Option<i64> {
        let (now_ms, is_settled) = self.read();
        is_settled.then_some(now_ms)
    }

    /// Reads the clock; returns the time, and whether it is settled.
    fn read(&self) -> (i64, bool) {
        let mut steady = self.steady();
        // Read under the lock, so that of two readers the later reading comes later.
        let reading = (self.0.read)();
        let (now_ms, change) = steady.handle_reading(reading);
        let is_settled = steady.is_settled(reading.passed);
        drop(steady);
        if let Some(change) = change {
            self.tell(change, now_ms);
        }
        (now_ms, is_settled)
    }

    /// Returns the time, as certificate checks want it.
    #[must_use]
    pub fn now(&self) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_millis(u64::try_from(self.now_ms()).unwrap_or_default()))
    }

    /// Returns this clock, as credentials want it.
    #[must_use]
    pub fn clock(&self) -> Clock {
        let this = self.clone();
        Clock::new(move || this.now())
    }

    /// Keeps component `clock` of `health` and the metrics up to date, also while nobody asks for the time.
    pub fn watch(&self, shutdown: &Shutdown, health: &Health) {
        let (this, component, token) = (self.clone(), health.component("clock"), shutdown.token());
        shutdown.spawn("clock", async move {
            loop {
                // A jump is noticed by whoever reads the clock.
                let _now_ms = this.now_ms();
                component.set(this.state());
                if token.run_until_cancelled(tokio::time::sleep(WATCH_INTERVAL)).await.is_none() {
                    return;
                }
            }
        });
    }

    /// Returns whether the system's clock is believed, for readiness.
    #[must_use]
    pub fn state(&self) -> State {
        let off_ms = self.steady().off_ms();
        let off_s = i32::try_from(off_ms.unwrap_or_default() / 1000).unwrap_or(i32::MAX);
        ::metrics::gauge!(self.0.names.off_seconds).set(f64::from(off_s));
        match off_ms {
            None => State::Ready,
            Some(off_ms) => State::Degraded(self.describe(off_ms)),
        }
    }

    fn steady(&self) -> MutexGuard<'_, Steady> {
        self.0.steady.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, change: Change, believed_ms: i64) {
        match change {
            Change::Held { wall_ms } => {
                let off_ms = wall_ms.saturating_sub(believed_ms);
                let direction = if off_ms > 0 { "ahead" } else { "back" };
                ::metrics::counter!(self.0.names.jumps_total, "direction" => direction).increment(1);
                tracing::error!(wall_ms, believed_ms, "{}", self.describe(off_ms));
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
    fn describe(&self, off_ms: i64) -> String {
        let program = self.0.names.program;
        let off = Duration::from_secs(off_ms.unsigned_abs() / 1000);
        if off_ms > 0 {
            format!(
                "the wall clock jumped {off:?} ahead and is not followed: set it right; if it is right, wait for \
                 `clock.settle`, or restart {program}"
            )
        } else {
            format!(
                "the wall clock was set back by {off:?} and is not followed: set it right; if it is right, restart {program}"
            )
        }
    }
}

impl fmt::Debug for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wall")
    }
}

/// Returns the time since the machine started, its sleep included.
fn since_boot() -> Duration {
    // A kernel without this clock (before Linux 2.6.39) would read 0 for ever. The wall clock, looked at far more often than
    // every `jump_max`, is then followed in small steps; one that jumps is held back until it returns.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

/// Returns the moment by the system's clock, milliseconds since 1970, UTC.
#[must_use]
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Returns a moment in milliseconds since 1970, UTC.
#[must_use]
pub fn millis(time: UnixTime) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX).saturating_mul(1000)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    const NAMES: Names =
        Names { program: "the Switch", jumps_total: "test_jumps_total", off_seconds: "test_off_seconds" };

    #[test]
    fn a_clock_that_is_not_believed_is_told_with_what_to_do() {
        let wall_ms = Arc::new(AtomicI64::new(1_000_000));
        let read = Arc::clone(&wall_ms);
        let wall = Wall::new(ClockLimits::default(), NAMES, move || Reading {
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
        let wall = Wall::system(ClockLimits::default(), NAMES);

        assert!((wall.now_ms() - now_ms()).abs() < 30_000);
        assert!(since_boot() > Duration::ZERO);
        assert_eq!(wall.state(), State::Ready);
    }

    #[test]
    fn a_bound_of_nothing_is_told_by_its_key() {
        let limits = ClockLimits { settle: Duration::ZERO, ..ClockLimits::default() };

        let findings = limits.findings();

        assert_eq!(findings.iter().map(Invalid::key).collect::<Vec<_>>(), ["settle"]);
        assert_eq!(ClockLimits::default().findings(), Vec::new());
    }
}
