//! [`FetchLimits`]: how long, how often and how much is fetched (R1).

use std::time::Duration;

use super::CRL_BYTES_MAX;

/// Most redirects that are followed for one fetch, unless configured otherwise; a CA behind a load balancer needs one.
pub const REDIRECTS_MAX: u8 = 3;

/// Longest time between two fetches of a CRL that is fresh, unless configured otherwise. CAs publish earlier than they must when
/// they revoke, and a request that finds nothing new costs one round trip.
pub const REFRESH_MAX: Duration = Duration::from_secs(60 * 60);

/// Longest time between two tries after failures, unless configured otherwise.
pub const RETRY_MAX: Duration = Duration::from_secs(30 * 60);

/// The bounds of one [`super::Fetch`]. Those of [`Self::default`] are what a fleet of any size can live with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchLimits {
    /// How long one fetch may take. A request that was never answered is made again after twice as long.
    pub timeout: Duration,
    /// Shortest time between two fetches, and the first of the tries, which double.
    pub retry_min: Duration,
    /// Longest time between two tries after failures.
    pub retry_max: Duration,
    /// Longest time between two fetches of a CRL that is fresh.
    pub refresh_max: Duration,
    /// The first fetch comes within this time: fleets restart together.
    pub start_spread: Duration,
    /// Most redirects that are followed for one fetch.
    pub redirects_max: u8,
    /// Most bytes of a body; never more than [`CRL_BYTES_MAX`] are read.
    pub body_bytes_max: usize,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self {
            // 64 MiB over 10 Mbit/s.
            timeout: Duration::from_secs(60),
            retry_min: Duration::from_secs(30),
            retry_max: RETRY_MAX,
            refresh_max: REFRESH_MAX,
            start_spread: Duration::from_secs(5),
            redirects_max: REDIRECTS_MAX,
            body_bytes_max: CRL_BYTES_MAX,
        }
    }
}
