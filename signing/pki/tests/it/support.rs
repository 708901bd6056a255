//! A small PKI for the tests, and what they ask of verdicts.

use std::time::Duration;

use muster_pki::authority::{Authority, Issued, Overrides, Request};
use muster_pki::{CertificateDer, ExtendedKeyUsage, Facts, Role, Roots, Rule, Severity, UnixTime, Verdict};

/// The tests' now: 2026-06-01T00:00:00Z.
pub(crate) const NOW: u64 = 1_780_272_000;
pub(crate) const DAY: u64 = 86_400;

pub(crate) fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

pub(crate) fn now() -> UnixTime {
    at(NOW)
}

/// A root, the CA that issues below it, and the store that trusts the root.
pub(crate) struct Pki {
    pub(crate) root: Authority,
    pub(crate) issuing: Authority,
    pub(crate) roots: Roots,
}

impl Pki {
    pub(crate) fn new() -> Self {
        Self::named("Test Root")
    }

    pub(crate) fn named(name: &str) -> Self {
        let root = Authority::root(name, Duration::from_secs(3650 * DAY), now()).unwrap();
        let issuing =
            root.issue_authority(&format!("{name} Issuing"), Duration::from_secs(1825 * DAY), now()).unwrap();
        let roots = Roots::from_certificates([root.certificate().clone()]).unwrap();
        Self { root, issuing, roots }
    }

    pub(crate) fn issue(&self, role: Role) -> Issued {
        self.issuing.issue(&request(role)).unwrap()
    }

    pub(crate) fn issue_for(&self, role: Role, usages: &[ExtendedKeyUsage]) -> Issued {
        let overrides = Overrides { extended_key_usages: Some(usages.to_vec()), ..Overrides::default() };
        self.issuing.issue_with(&request(role), &overrides).unwrap()
    }

    pub(crate) fn check(&self, role: Role, issued: &Issued) -> Verdict {
        self.check_at(role, issued, &Facts::at(now()))
    }

    pub(crate) fn check_at(&self, role: Role, issued: &Issued, facts: &Facts<'_>) -> Verdict {
        muster_pki::check(role, &chain(issued), &self.roots, facts)
    }
}

/// A request for a certificate that nothing is wrong with.
pub(crate) fn request(role: Role) -> Request {
    Request {
        common_name: "w701.acme.local".to_owned(),
        dns_names: vec!["w701.acme.local".to_owned()],
        ip_addresses: Vec::new(),
        role,
        not_before: at(NOW - DAY),
        not_after: at(NOW + 90 * DAY),
        crl_url: Some("http://crl.acme.local/issuing.crl".to_owned()),
    }
}

pub(crate) fn chain(issued: &Issued) -> Vec<CertificateDer<'static>> {
    muster_pki::pem::certificates(issued.chain_pem.as_bytes(), "chain").unwrap()
}

/// Returns the rules that a verdict refuses by, in order and once each.
pub(crate) fn refusals(verdict: &Verdict) -> Vec<Rule> {
    rules(verdict, Severity::Refusal)
}

pub(crate) fn warnings(verdict: &Verdict) -> Vec<Rule> {
    rules(verdict, Severity::Warning)
}

fn rules(verdict: &Verdict, severity: Severity) -> Vec<Rule> {
    let of_severity = verdict.findings().iter().filter(|finding| finding.severity == severity);
    let mut rules: Vec<Rule> = of_severity.map(|finding| finding.rule).collect();
    rules.sort_unstable();
    rules.dedup();
    rules
}
