//! What [`Revocation`] complains of: bad CRLs, failing distribution points, issuers without a fresh CRL.

use std::sync::PoisonError;

use muster_pki::{Certificate, RevocationMode, URLS_PER_ISSUER_MAX, UnixTime};

use super::Revocation;
use crate::health::State;
use crate::metrics;

impl Revocation {
    /// Returns how it stands: degraded by bad CRLs, failing distribution points, issuers without a fresh CRL (R6), and CRLs and
    /// CAs of our files that are about to end (N3).
    #[must_use]
    pub fn state(&self) -> State {
        let complaints = self.complaints();
        if complaints.is_empty() { State::Ready } else { State::Degraded(complaints.join("; ")) }
    }

    /// Returns what [`Self::state`] complains of, one text each.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let now = self.clock.now();
        let mut complaints = self.stale(now);
        ::metrics::gauge!(metrics::CRL_STALE).set(if complaints.is_empty() { 0.0 } else { 1.0 });
        let writer = self.writer();
        complaints.extend(writer.dues.near(now));
        complaints.extend(writer.issuers.ending(now));
        complaints
    }

    fn stale(&self, now: UnixTime) -> Vec<String> {
        let writer = self.writer();
        let mut complaints: Vec<String> = writer.problems.values().cloned().collect();
        complaints.extend(self.beyond());
        for (issuer, rule, standing) in self.current.load().index.standings(now) {
            if standing.severity(RevocationMode::Hard).is_some() && !writer.issuers.has_ended(issuer, now) {
                let (subject, mode) = (issuer.subject(), rule.mode);
                let next = if writer.issuers.is_untaken(issuer) {
                    "it could not be taken up from chains that led over it: name its certificate in `revocation.issuers`".to_owned()
                } else {
                    self.next_step(issuer)
                };
                complaints.push(format!("CRL of {subject}: {}; {next}", standing.under(mode)));
            }
        }
        complaints
    }

    /// Returns of whom certificates tell more distribution points than are fetched.
    fn beyond(&self) -> Vec<String> {
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let told = sources.beyond().map(|(issuer, url)| {
            format!(
                "CRL of {}: certificates tell more than {URLS_PER_ISSUER_MAX} distribution points, {url} is one that is not fetched; let the CA publish at fewer, or name those that matter in `urls` of `revocation.issuers`",
                issuer.subject()
            )
        });
        told.collect()
    }

    /// Returns what whoever has no fresh CRL of an issuer can do.
    fn next_step(&self, issuer: &Certificate) -> String {
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let urls: Vec<&str> = sources
            .iter()
            .filter(|(known, _)| known.subject_der() == issuer.subject_der())
            .map(|(_, url)| url.as_str())
            .collect();
        match (self.settings.fetch, urls.as_slice()) {
            (true, [_, ..]) => format!("publish a new one at {}", urls.join(", ")),
            (true, []) => "nothing says where it is published: name its file in `crls`, or its URL in `revocation.issuers`".to_owned(),
            (false, _) => "nothing is fetched here (`revocation.fetch`): put a new one into the files of `crls`".to_owned(),
        }
    }
}
