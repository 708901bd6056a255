//! [`Judge`]: what our own certificate is judged by before it is shown.

use muster_pki::select::Candidate;
use muster_pki::{
    Certificate, CertificateDer, Facts, Finding, Identity, Policy, Refused, Role, Roots, Rule, Severity,
    UnixTime, Verdict, check_with,
};

use super::Rules;
use super::one_device::{OneDevice, OtherDevice};
use super::provider::provider;

/// Applies every rule that needs no root of ours: peers know the root, our own configuration need not. The same before a certificate
/// of a store is chosen and before any is put to use, so that none is chosen which is not shown then.
#[derive(Clone, Debug)]
pub(super) struct Judge {
    policy: Policy,
    role: Role,
    now: UnixTime,
    /// Where it is a device's.
    device: Option<OneDevice>,
}

impl Judge {
    pub(super) fn new(rules: &Rules, role: Role) -> Self {
        let device = (role == Role::Device).then(|| rules.device.clone());
        Self { policy: rules.policy, role, now: rules.clock.now(), device }
    }

    /// Returns the role that the certificate is to have.
    pub(super) fn role(&self) -> Role {
        self.role
    }

    /// Judges a chain, the leaf first.
    ///
    /// The CAs of the file stand in for the root. Without any CA in the file the path (C2) is for the peers to judge.
    pub(super) fn check(&self, chain: &[CertificateDer<'static>]) -> Result<Certificate, Refused> {
        let issuers: Vec<Certificate> =
            chain.iter().skip(1).filter_map(|der| Certificate::from_der(der).ok()).collect();
        let has_issuer = !issuers.is_empty();
        let roots = Roots::from_certificates(issuers).unwrap_or_default();
        let verdict = check_with(&self.policy, self.role, chain, &roots, &Facts::at(self.now));
        if !has_issuer
            && only_the_path_is_missing(&verdict)
            && let Some(leaf) = verdict.leaf()
        {
            return Ok(leaf.clone());
        }
        verdict.into_result()
    }

    /// Returns why the certificate is not this device's (N4).
    pub(super) fn other_device(&self, certificate: &Certificate) -> Option<OtherDevice> {
        self.device.as_ref()?.other(certificate)
    }

    /// Tells which device this is from now on: a certificate was put to use.
    pub(super) fn settle(&self, certificate: &Certificate) {
        if let Some(device) = &self.device {
            device.settle(certificate);
        }
    }

    /// Tells selection what would keep a certificate of a store from being shown.
    pub(super) fn judged(&self, candidate: Candidate, identity: &Identity) -> Candidate {
        let refused = self.check(&identity.chain_der()).err();
        let findings = refused.map(|refused| refused.findings().to_vec()).unwrap_or_default();
        // Without any CA in the file the path is for the peers to judge, whatever else is wrong.
        let is_alone = identity.authorities().is_empty();
        let findings = findings.into_iter().filter(|finding| !(is_alone && finding.rule == Rule::C2));
        let certificate = candidate.certificate();
        let other = self.other_device(certificate).map(|other| {
            let wanted = "a certificate of this device";
            refusal(Rule::C7, certificate, other.got(), wanted, &other.fix())
        });
        let key = unusable_key(certificate, identity);
        candidate.with_findings(findings.chain(other).chain(key))
    }
}

fn only_the_path_is_missing(verdict: &Verdict) -> bool {
    let mut refusals = verdict.findings().iter().filter(|finding| finding.severity == Severity::Refusal);
    refusals.all(|finding| finding.rule == Rule::C2)
}

/// C5: the TLS library takes fewer kinds of keys than files can hold.
fn unusable_key(certificate: &Certificate, identity: &Identity) -> Option<Finding> {
    let error = provider().key_provider.load_private_key(identity.key().clone_key()).err()?;
    let got = format!("a private key that TLS cannot use ({error})");
    let wanted = "an RSA, ECDSA or Ed25519 key that TLS can use";
    Some(refusal(Rule::C5, certificate, got, wanted, "have it issued for a key of another kind"))
}

fn refusal(rule: Rule, certificate: &Certificate, got: String, wanted: &str, fix: &str) -> Finding {
    Finding {
        rule,
        severity: Severity::Refusal,
        got,
        wanted: wanted.to_owned(),
        fix: fix.to_owned(),
        subject: certificate.subject().to_owned(),
        serial: certificate.serial_hex(),
        thumbprint: Some(certificate.thumbprint()),
        issuer: certificate.issuer().to_owned(),
    }
}
