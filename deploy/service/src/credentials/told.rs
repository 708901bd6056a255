//! [`Told`]: a refusal as operators see it, with everything that C14 of trust.md asks for.

use muster_pki::{Certificate, DeviceId, Finding, Rule, Severity, Thumbprint};

use super::error::PeerRefused;

/// A certificate by what names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// Its SHA-256; `None`: it could not be read.
    pub thumbprint: Option<Thumbprint>,
    /// What it calls its holder: a device's DeviceId; empty: it has no usable name.
    pub name: String,
    /// Its subject.
    pub subject: String,
    /// Its serial number, hex.
    pub serial: String,
    /// Its issuer.
    pub issuer: String,
}

impl Shown {
    /// Takes what names a certificate.
    #[must_use]
    pub fn of(certificate: &Certificate) -> Self {
        Self {
            thumbprint: Some(certificate.thumbprint()),
            name: DeviceId::from_certificate(certificate).map(|name| name.to_string()).unwrap_or_default(),
            subject: certificate.subject().to_owned(),
            serial: certificate.serial_hex(),
            issuer: certificate.issuer().to_owned(),
        }
    }

    /// Takes what names a certificate in DER.
    #[must_use]
    pub fn of_der(der: &[u8]) -> Self {
        let unread = || Self { thumbprint: Some(Thumbprint::of(der)), ..Self::default() };
        Certificate::from_der(der).map_or_else(|_| unread(), |certificate| Self::of(&certificate))
    }
}

/// Who was refused, by which rules, and what would fix it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The rules that were broken, each once.
    pub rules: Vec<String>,
    /// What was got, what was wanted and what would fix it, one text a finding.
    pub findings: Vec<String>,
    /// Subject of the certificate that the findings are about: the peer's own, or that of a CA above it; empty: none was shown, or
    /// it could not be read.
    pub subject: String,
    /// Its serial number in hex.
    pub serial: String,
    /// Its SHA-256.
    pub thumbprint: String,
    /// Its issuer.
    pub issuer: String,
    /// Who was refused, whatever certificate is to blame.
    pub peer: ToldPeer,
}

/// The peer's own certificate in a refusal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToldPeer {
    /// As [`Shown::name`]. Nothing proves it.
    pub name: String,
    /// Its subject; empty: none was shown, or it could not be read.
    pub subject: String,
    /// Its serial number in hex.
    pub serial: String,
    /// Its SHA-256.
    pub thumbprint: String,
}

impl ToldPeer {
    fn of(shown: &Shown) -> Self {
        Self {
            name: shown.name.clone(),
            subject: shown.subject.clone(),
            serial: shown.serial.clone(),
            thumbprint: print(shown.thumbprint),
        }
    }
}

impl Told {
    /// Says of a peer's own certificate that it breaks one rule.
    #[must_use]
    pub fn new(rule: &str, finding: String, shown: &Shown) -> Self {
        Self {
            rules: vec![rule.to_owned()],
            findings: vec![finding],
            subject: shown.subject.clone(),
            serial: shown.serial.clone(),
            thumbprint: print(shown.thumbprint),
            issuer: shown.issuer.clone(),
            peer: ToldPeer::of(shown),
        }
    }
}

impl PeerRefused {
    /// Returns why an [`super::Outgoing`] connection broke, if its server is no longer accepted.
    #[must_use]
    pub fn of_live(error: &std::io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    /// Returns whether nothing is wrong but that an issuer has no fresh CRL: no new session then, and those that stand do (R6).
    #[must_use]
    pub fn lacks_only_a_crl(&self) -> bool {
        match self {
            Self::Unfit { refused, .. } => refused.lacks_only_a_crl(),
            Self::NoCertificate { .. }
            | Self::WrongRole { .. }
            | Self::Ambiguous { .. }
            | Self::Unnamed { .. } => false,
        }
    }

    /// Returns whether a server that was accepted before keeps what stands with it, though it gets nothing new: its issuers have no
    /// fresh CRL (R6), or its certificate has ended since (C9), as the one before a renewal does (N1).
    pub(super) fn keeps_what_stands(&self) -> bool {
        match self {
            Self::Unfit { refused, .. } => {
                let refusals = refused.findings().iter().filter(|one| one.severity == Severity::Refusal);
                refusals.map(|one| one.rule).all(|rule| matches!(rule, Rule::R6 | Rule::C9))
            }
            Self::NoCertificate { .. }
            | Self::WrongRole { .. }
            | Self::Ambiguous { .. }
            | Self::Unnamed { .. } => false,
        }
    }

    /// Returns the refusal as operators see it.
    #[must_use]
    pub fn told(&self) -> Told {
        match self {
            Self::Unfit { certificate, refused, .. } => {
                let broken: Vec<&Finding> = refused
                    .findings()
                    .iter()
                    .filter(|finding| finding.severity == Severity::Refusal)
                    .collect();
                unfit(certificate, &broken)
            }
            Self::NoCertificate { .. } => Told::new("C1", self.to_string(), &Shown::default()),
            Self::WrongRole { certificate, .. } | Self::Ambiguous { certificate, .. } => {
                Told::new("C2", self.to_string(), certificate)
            }
            Self::Unnamed { certificate, .. } => Told::new("C7", self.to_string(), certificate),
        }
    }
}

fn unfit(peer: &Shown, broken: &[&Finding]) -> Told {
    let mut rules: Vec<String> = Vec::new();
    for finding in broken {
        let rule = finding.rule.to_string();
        if !rules.contains(&rule) {
            rules.push(rule);
        }
    }
    let told =
        |one: &&Finding| format!("{}: got {}; wanted {}; fix: {}", one.rule, one.got, one.wanted, one.fix);
    let about = broken.iter().find(|finding| finding.thumbprint.is_some());
    let text = |of: fn(&Finding) -> &String| about.map(|about| of(about).clone()).unwrap_or_default();
    Told {
        rules,
        findings: broken.iter().map(told).collect(),
        subject: text(|finding| &finding.subject),
        serial: text(|finding| &finding.serial),
        thumbprint: print(about.and_then(|finding| finding.thumbprint)),
        issuer: text(|finding| &finding.issuer),
        peer: ToldPeer::of(peer),
    }
}

fn print(thumbprint: Option<Thumbprint>) -> String {
    thumbprint.map(|print| print.to_string()).unwrap_or_default()
}
