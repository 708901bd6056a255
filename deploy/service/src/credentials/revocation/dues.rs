//! [`Dues`]: until when the CRLs in use hold, by where they came from (N3 of trust.md).

use std::collections::BTreeMap;
use std::time::Duration;

use muster_pki::{Certificate, Loaded, UnixTime};

use crate::metrics;

/// A CRL that is not followed by a newer one within this part of its life is told of: whoever publishes is late.
const LATE_PART: u64 = 10;

/// The longest time before nextUpdate that is told of.
const LATE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// The CRLs in use.
#[derive(Debug, Default)]
pub(super) struct Dues(BTreeMap<String, Vec<Due>>);

#[derive(Debug)]
struct Due {
    issuer: String,
    this_update: UnixTime,
    next_update: UnixTime,
}

impl Dues {
    /// Notes what was loaded from a file or URL.
    pub(super) fn note(&mut self, source: &str, loaded: &[Loaded]) {
        if loaded.is_empty() {
            return;
        }
        let due = |crl: &Loaded| Due {
            issuer: crl.issuer.clone(),
            this_update: crl.this_update,
            next_update: crl.next_update,
        };
        if let Some(first) = loaded.iter().map(|crl| crl.next_update.as_secs()).min() {
            #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 seconds")]
            ::metrics::gauge!(metrics::CRL_NEXT_UPDATE_SECONDS, "crl" => source.to_owned()).set(first as f64);
        }
        self.0.insert(source.to_owned(), loaded.iter().map(due).collect());
    }

    /// Forgets the CRLs of an issuer that is configured no more.
    pub(super) fn forget(&mut self, issuer: &Certificate) {
        for dues in self.0.values_mut() {
            dues.retain(|due| due.issuer != issuer.subject());
        }
    }

    /// Returns which CRLs are about to lapse. Those that have are told of as their issuer's (R6).
    pub(super) fn near(&self, now: UnixTime) -> Vec<String> {
        let mut near = Vec::new();
        for (source, dues) in &self.0 {
            for Due { issuer, this_update, next_update } in dues {
                let life = next_update.as_secs().saturating_sub(this_update.as_secs());
                let left = next_update.as_secs().saturating_sub(now.as_secs());
                if left > 0 && left <= (life / LATE_PART).min(LATE_MAX.as_secs()) {
                    let minutes = left.div_ceil(60);
                    near.push(format!(
                        "CRL of {issuer} from {source} expires in {minutes} minutes; publish a new one"
                    ));
                }
            }
        }
        near
    }
}
