//! What is measured, a scenario each. [`bench`] has the servers and the floors, [`subject`] one server with its fleet.

pub(crate) mod bench;
pub(crate) mod broadcast;
pub(crate) mod churn;
pub(crate) mod connect;
pub(crate) mod events;
pub(crate) mod faults;
pub(crate) mod hold;
pub(crate) mod idle;
pub(crate) mod slow_readers;
pub(crate) mod soak;
pub(crate) mod storm;
pub(crate) mod subject;

use std::path::PathBuf;
use std::time::Duration;

use crate::server::running::Typed;
use crate::simulated::Sabotage;
use crate::tls::Suite;
use crate::worker::protocol::Kind;

/// What every scenario is told.
#[derive(Debug, Clone)]
pub(crate) struct Common {
    pub(crate) sessions: u32,
    pub(crate) rounds: u32,
    /// Of a Switch that runs; without it one is started.
    pub(crate) home: Option<PathBuf>,
    pub(crate) typed: Typed,
    /// Worker processes at least; more where the sessions need them.
    pub(crate) workers: u32,
    pub(crate) peers: Vec<Kind>,
    pub(crate) suite: Suite,
    /// By how much floors may differ within the run, as a share; none where nobody asks.
    pub(crate) tolerance: Option<f64>,
    /// How often a Switch of this run's own pings, where that is not the default.
    pub(crate) ping_interval: Option<Duration>,
    pub(crate) sabotage: Option<Sabotage>,
}
