//! The table `[licence_refresh]`: how a newer licence is fetched (G6).

use std::path::PathBuf;
use std::time::Duration;

use muster_pki::{CrlUrl, FetchLimits};
use muster_service::config::{Invalid, human};
use serde::{Deserialize, Serialize};

/// Most redirects that can be asked for.
const REDIRECTS_MAX: u8 = 10;

/// How, and how often, `licence_url` is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LicenceRefresh {
    /// The time between two questions; each is up to a quarter shorter, by chance. Default `1h`.
    #[serde(with = "human::duration")]
    pub every: Duration,
    /// How long one may take, from the connection to the last byte. Default `30s`.
    #[serde(with = "human::duration")]
    pub timeout: Duration,
    /// The first pause after a failure, which doubles with each up to `every`. Default `1m`.
    #[serde(with = "human::duration")]
    pub retry_min: Duration,
    /// The first question comes within this time of the start, by chance. Default `5s`.
    #[serde(with = "human::duration")]
    pub start_spread: Duration,
    /// Redirects that are followed for one question. 0 to 10. Default 3.
    pub redirects_max: u8,
    /// From this many failures in a row on, a server that gives no answer is an alarm. Default 3.
    pub alarm_after: u32,
    /// PEM roots of the web server of an https URL. Default: none, and the system's count.
    pub https_roots: Option<PathBuf>,
}

impl LicenceRefresh {
    /// Returns the bounds of one question.
    pub(crate) fn limits(&self, body_bytes_max: usize) -> FetchLimits {
        FetchLimits {
            timeout: self.timeout,
            retry_min: self.retry_min,
            retry_max: self.every,
            refresh_max: self.every,
            start_spread: self.start_spread,
            redirects_max: self.redirects_max,
            body_bytes_max,
        }
    }

    /// Returns what does not work, for keys of this table.
    pub(super) fn findings(&self) -> Vec<Invalid> {
        let mut found = Vec::new();
        for (key, got) in [("every", self.every), ("timeout", self.timeout), ("retry_min", self.retry_min)] {
            if got < Duration::from_secs(1) {
                let got = human::duration::format(got);
                found.push(Invalid::new(key, format!("got {got}, wanted at least 1s")));
            }
        }
        if self.every < self.retry_min {
            let (got, wanted) =
                (human::duration::format(self.every), human::duration::format(self.retry_min));
            let problem = format!("got {got}, wanted at least `retry_min`, which is {wanted}");
            found.push(Invalid::new("every", problem).against("retry_min"));
        }
        if self.redirects_max > REDIRECTS_MAX {
            let problem = format!("got {}, wanted 0 to {REDIRECTS_MAX}", self.redirects_max);
            found.push(Invalid::new("redirects_max", problem));
        }
        if self.alarm_after == 0 {
            found.push(Invalid::new("alarm_after", "got 0, wanted at least 1".to_owned()));
        }
        found
    }
}

impl Default for LicenceRefresh {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(60 * 60),
            timeout: Duration::from_secs(30),
            retry_min: Duration::from_secs(60),
            start_spread: Duration::from_secs(5),
            redirects_max: 3,
            alarm_after: 3,
            https_roots: None,
        }
    }
}

/// Returns what is wrong with `licence_url`.
pub(super) fn url(licence_url: Option<&str>) -> Option<Invalid> {
    let problem = licence_url?.parse::<CrlUrl>().err()?;
    Some(Invalid::new("licence_url", format!("{problem}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g6_each_bound_of_the_table_is_checked_and_is_that_of_each_question() {
        let fine = LicenceRefresh::default();
        let second = Duration::from_secs(1);
        let none = Duration::ZERO;
        for (wrong, keys) in [
            (LicenceRefresh { every: none, ..fine.clone() }, &["every", "every"][..]),
            (LicenceRefresh { every: 59 * second, ..fine.clone() }, &["every"]),
            (LicenceRefresh { timeout: none, ..fine.clone() }, &["timeout"]),
            (LicenceRefresh { retry_min: none, ..fine.clone() }, &["retry_min"]),
            (LicenceRefresh { redirects_max: 11, ..fine.clone() }, &["redirects_max"]),
            (LicenceRefresh { alarm_after: 0, ..fine.clone() }, &["alarm_after"]),
            (fine.clone(), &[]),
        ] {
            let found: Vec<String> =
                wrong.findings().iter().map(|invalid| invalid.key().to_owned()).collect();
            assert_eq!(found, keys, "{wrong:?}");
        }
        let settings = LicenceRefresh { every: 7 * second, retry_min: 2 * second, redirects_max: 1, ..fine };
        let limits = settings.limits(13);
        assert_eq!(
            (limits.refresh_max, limits.retry_max, limits.retry_min),
            (7 * second, 7 * second, 2 * second)
        );
        assert_eq!((limits.redirects_max, limits.body_bytes_max, limits.timeout), (1, 13, 30 * second));
    }

    #[test]
    fn g6_a_url_is_http_or_https() {
        assert!(url(None).is_none() && url(Some("https://licences.test/acme.cms")).is_none());
        for wrong in ["licences.test", "file:///etc/licence.cms", "http://user@licences.test/", ""] {
            assert_eq!(
                url(Some(wrong)).map(|invalid| invalid.key().to_owned()).as_deref(),
                Some("licence_url")
            );
        }
    }
}
