//! The table `[revocation]` of every program.

use std::path::PathBuf;
use std::time::Duration;

use muster_pki::{CRL_BYTES_MAX, FetchLimits, RevocationMode};
use serde::{Deserialize, Serialize};

use crate::config::{Invalid, human};

/// Most fetches at once that can be asked for: each may hold [`CRL_BYTES_MAX`].
const PARALLEL_MAX: usize = 256;

/// Most issuing CAs of verified chains that can be asked for.
const MET_MAX: usize = 1_024;

/// Most redirects that can be asked for.
const REDIRECTS_MAX: u8 = 10;

/// How revocation is looked up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RevocationSettings {
    /// What a missing or lapsed CRL means, for issuers that have no mode of their own (R6). Default: `grace`.
    pub mode: RevocationMode,
    /// Whether CRLs are fetched from the distribution points of configured issuers (R1). Default: true.
    pub fetch: bool,
    /// PEM roots of web servers whose https distribution points are fetched. Default: none, so that only http is fetched; a CRL is
    /// signed, and needs no TLS.
    pub https_roots: Option<PathBuf>,
    /// Issuing CAs below the roots. The roots themselves need not be named, nor CAs that peers and signers show. Default: none.
    pub issuers: Vec<IssuerSettings>,
    /// Most issuing CAs that are taken from verified chains, beside those that are named; as many again are remembered that cannot be
    /// taken, so that their day of grace ends. Each certificate of a CA counts, should it be renewed or cross-signed; and each key of a
    /// CRL's issuer name is tried on its signature. 1 to 1024. Default 64.
    pub met_max: usize,
    /// How long, how often and how many at once.
    pub fetching: FetchSettings,
}

/// The table `[revocation.fetching]`: the bounds of fetching CRLs (R1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FetchSettings {
    /// How long one fetch may take, from the connection to the last byte. Default `60s`, for 64 MiB over 10 Mbit/s.
    #[serde(with = "human::duration")]
    pub timeout: Duration,
    /// The first pause after a failure, which doubles with each; and the shortest time between two fetches. Default `30s`.
    #[serde(with = "human::duration")]
    pub retry_min: Duration,
    /// The longest pause after failures. Default `30m`.
    #[serde(with = "human::duration")]
    pub retry_max: Duration,
    /// The longest time between two fetches of a CRL that is fresh. Default `1h`.
    #[serde(with = "human::duration")]
    pub refresh_max: Duration,
    /// The first fetch comes within this time of the start, by chance; later pauses are up to a quarter shorter, by chance. Default
    /// `5s`.
    #[serde(with = "human::duration")]
    pub start_spread: Duration,
    /// Redirects that are followed for one fetch. 0 to 10. Default 3.
    pub redirects_max: u8,
    /// The largest CRL. Default `64 MiB`, which is also the most.
    #[serde(with = "human::bytes")]
    pub body_max: usize,
    /// Fetches at once. Half of them are for distribution points that did not fail when they were last asked. 1 to 256. Default 16.
    pub parallel: usize,
    /// Of these, from one server (scheme, host and port). Default 4.
    pub parallel_per_server: usize,
    /// From this many failures in a row on, a distribution point that does not answer is an alarm. Default 3.
    pub alarm_after: u32,
}

impl FetchSettings {
    /// Returns the bounds of one distribution point.
    pub(super) fn limits(&self) -> FetchLimits {
        let Self {
            timeout, retry_min, retry_max, refresh_max, start_spread, redirects_max, body_max, ..
        } = *self;
        let body_bytes_max = body_max.min(CRL_BYTES_MAX);
        FetchLimits {
            timeout,
            retry_min,
            retry_max,
            refresh_max,
            start_spread,
            redirects_max,
            body_bytes_max,
        }
    }

    fn findings(&self) -> Vec<Invalid> {
        let mut found = Vec::new();
        let mut refuse = |key: &str, problem: String| found.push(Invalid::new(key, problem));
        for (key, got) in [
            ("timeout", self.timeout),
            ("retry_min", self.retry_min),
            ("retry_max", self.retry_max),
            ("refresh_max", self.refresh_max),
        ] {
            if got < Duration::from_secs(1) {
                let got = human::duration::format(got);
                refuse(key, format!("got {got}, wanted at least 1s"));
            }
        }
        if self.redirects_max > REDIRECTS_MAX {
            refuse("redirects_max", format!("got {}, wanted 0 to {REDIRECTS_MAX}", self.redirects_max));
        }
        if !(1..=CRL_BYTES_MAX).contains(&self.body_max) {
            let max = human::bytes::format(u64::try_from(CRL_BYTES_MAX).unwrap_or(u64::MAX));
            refuse("body_max", format!("got {} B, wanted 1 B to {max}", self.body_max));
        }
        if !(1..=PARALLEL_MAX).contains(&self.parallel) {
            refuse("parallel", format!("got {}, wanted 1 to {PARALLEL_MAX}", self.parallel));
        }
        if self.parallel_per_server == 0 {
            refuse("parallel_per_server", "got 0, wanted at least 1: nothing would be fetched".to_owned());
        }
        if self.alarm_after == 0 {
            refuse("alarm_after", "got 0, wanted at least 1".to_owned());
        }
        for (key, longest) in [("retry_max", self.retry_max), ("refresh_max", self.refresh_max)] {
            if longest < self.retry_min {
                let (got, wanted) =
                    (human::duration::format(longest), human::duration::format(self.retry_min));
                let problem = format!("got {got}, wanted at least `retry_min`, which is {wanted}");
                found.push(Invalid::new(key, problem).against("retry_min"));
            }
        }
        found
    }
}

impl Default for FetchSettings {
    fn default() -> Self {
        let FetchLimits {
            timeout,
            retry_min,
            retry_max,
            refresh_max,
            start_spread,
            redirects_max,
            body_bytes_max,
        } = FetchLimits::default();
        Self {
            timeout,
            retry_min,
            retry_max,
            refresh_max,
            start_spread,
            redirects_max,
            body_max: body_bytes_max,
            parallel: 16,
            parallel_per_server: 4,
            alarm_after: 3,
        }
    }
}

impl RevocationSettings {
    /// Returns what does not work, for keys of this table.
    #[must_use]
    pub fn findings(&self) -> Vec<Invalid> {
        let mut found: Vec<Invalid> =
            self.fetching.findings().into_iter().map(|invalid| invalid.within("fetching")).collect();
        if !(1..=MET_MAX).contains(&self.met_max) {
            found.push(Invalid::new("met_max", format!("got {}, wanted 1 to {MET_MAX}", self.met_max)));
        }
        found
    }
}

/// Issuing CAs: their distribution points may be fetched, and a peer's path may lead over them though it does not send them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerSettings {
    /// PEM: one or more CA certificates.
    pub certificates: PathBuf,
    /// The mode of these CAs. Default: `revocation.mode`.
    #[serde(default)]
    pub mode: Option<RevocationMode>,
    /// Where their CRLs are, besides what certificates tell. Default: none.
    #[serde(default)]
    pub urls: Vec<String>,
}

impl Default for RevocationSettings {
    fn default() -> Self {
        Self {
            mode: RevocationMode::default(),
            fetch: true,
            https_roots: None,
            issuers: Vec::new(),
            met_max: 64,
            fetching: FetchSettings::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn r1_every_bound_of_fetching_that_cannot_work_is_told() {
        let fine = FetchSettings::default();
        let none = Duration::ZERO;
        let cases = [
            (FetchSettings { timeout: none, ..fine }, &["fetching.timeout"][..]),
            (FetchSettings { retry_min: none, ..fine }, &["fetching.retry_min"]),
            (FetchSettings { retry_max: none, ..fine }, &["fetching.retry_max", "fetching.retry_max"]),
            (FetchSettings { refresh_max: none, ..fine }, &["fetching.refresh_max", "fetching.refresh_max"]),
            (FetchSettings { redirects_max: 11, ..fine }, &["fetching.redirects_max"]),
            (FetchSettings { body_max: CRL_BYTES_MAX + 1, ..fine }, &["fetching.body_max"]),
            (FetchSettings { body_max: 0, ..fine }, &["fetching.body_max"]),
            (FetchSettings { parallel: 0, ..fine }, &["fetching.parallel"]),
            (FetchSettings { parallel: 257, ..fine }, &["fetching.parallel"]),
            (FetchSettings { parallel_per_server: 0, ..fine }, &["fetching.parallel_per_server"]),
            (FetchSettings { alarm_after: 0, ..fine }, &["fetching.alarm_after"]),
            (FetchSettings { retry_max: 29 * SECOND, ..fine }, &["fetching.retry_max"]),
            (FetchSettings { refresh_max: 29 * SECOND, ..fine }, &["fetching.refresh_max"]),
            (
                FetchSettings {
                    retry_max: 30 * SECOND,
                    redirects_max: 0,
                    body_max: 1,
                    parallel: 256,
                    ..fine
                },
                &[],
            ),
            (fine, &[]),
        ];
        for (fetching, wanted) in cases {
            let findings = RevocationSettings { fetching, ..RevocationSettings::default() }.findings();

            let keys: Vec<&str> = findings.iter().map(Invalid::key).collect();
            assert_eq!(keys, wanted, "{fetching:?}");
        }
        for (met_max, is_fine) in [(0, false), (1, true), (1_024, true), (1_025, false)] {
            let findings = RevocationSettings { met_max, ..RevocationSettings::default() }.findings();

            assert_eq!(findings.is_empty(), is_fine, "{met_max}: {findings:?}");
        }
    }

    #[test]
    fn r1_every_bound_of_the_table_is_that_of_each_fetch() {
        let limits = FetchLimits {
            timeout: 7 * SECOND,
            retry_min: 3 * SECOND,
            retry_max: 5 * SECOND,
            refresh_max: 11 * SECOND,
            start_spread: 2 * SECOND,
            redirects_max: 1,
            body_bytes_max: 13,
        };
        let fetching = FetchSettings {
            timeout: limits.timeout,
            retry_min: limits.retry_min,
            retry_max: limits.retry_max,
            refresh_max: limits.refresh_max,
            start_spread: limits.start_spread,
            redirects_max: limits.redirects_max,
            body_max: limits.body_bytes_max,
            ..FetchSettings::default()
        };

        assert_eq!(fetching.limits(), limits);
        assert_eq!(FetchSettings::default().limits(), FetchLimits::default());
    }
}
