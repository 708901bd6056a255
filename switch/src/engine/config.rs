//! What the engine is told at start.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::clock::Clock;
use super::core::UnauthenticatedLimits;
use super::reader::AggregateLimits;
use super::trust::Trust;
use crate::config::ClockLimits;
use crate::metrics;
use crate::wall::Wall;

/// Settings of the engine. The shell fills it from `Config`, whose keys document each value.
#[derive(Debug, Clone)]
pub(crate) struct EngineConfig {
    /// Where the store lies; made if missing.
    pub(crate) data_dir: PathBuf,
    /// The organisation that orders name.
    pub(crate) tenant: String,
    /// Items that one commit takes at most.
    pub(crate) batch_items_max: usize,
    /// Items that wait for the writer at most.
    pub(crate) queue_items_max: usize,
    /// Free bytes below which new instructions and imports are refused, and events are not taken.
    pub(crate) disk_reserve_bytes: u64,
    /// Devices that may be blocked at once.
    pub(crate) blocked_max: usize,
    /// Stops that devices may still have to get, at once.
    pub(crate) stops_max: usize,
    /// Devices a second that are to ask for a policy that was imported.
    pub(crate) policy_asks_per_second: u32,
    /// What devices without a certificate may take.
    pub(crate) unauthenticated: UnauthenticatedLimits,
    /// How long a prepared order waits for its signature.
    pub(crate) prepared_ttl: Duration,
    /// What aggregates over results may take.
    pub(crate) aggregates: AggregateLimits,
    /// Connections that read, so as many reads at once.
    pub(crate) readers: usize,
    /// Whom definitions, orders and licences are believed. [`super::EngineHandle::set_trust`] replaces it.
    pub(crate) trust: Arc<Trust>,
    /// The wall clock.
    pub(crate) clock: Clock,
}

impl EngineConfig {
    /// Returns the defaults for a store at `data_dir`.
    pub(crate) fn new(data_dir: PathBuf, tenant: String, trust: Arc<Trust>) -> Self {
        Self {
            data_dir,
            tenant,
            batch_items_max: 1_000,
            queue_items_max: 8_192,
            disk_reserve_bytes: 256 << 20,
            blocked_max: 10_000,
            stops_max: 10_000,
            policy_asks_per_second: 1_000,
            unauthenticated: UnauthenticatedLimits {
                devices_max: 20_000,
                new_per_minute: 600,
                events_per_minute: 6_000,
            },
            prepared_ttl: Duration::from_secs(600),
            aggregates: AggregateLimits::default(),
            readers: READERS,
            trust,
            clock: Clock::of(&Wall::system(ClockLimits::default(), metrics::CLOCK)),
        }
    }
}

/// Reads that run at once; further ones wait. Two for pages and two for long streams such as an export.
const READERS: usize = 4;
