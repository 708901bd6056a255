//! [`select_server`]: the certificate of a peer's HTTPS (S7).

use std::fmt;

use rustls_pki_types::UnixTime;

use super::Choice;
use super::candidate::Candidates;
use super::field::{Entrant, Field};
use super::fitness::{Unfit, unfit};
use super::name::Searched;
use super::preference::{Marks, ServerName, Step};
use super::report::Report;
use super::settings::Selection;
use crate::certificate::Certificate;
use crate::check::name::{is_wildcard_of, names};
use crate::revocation::RevocationIndex;
use crate::usage::ExtendedKeyUsage;

/// Where the certificate of a peer's HTTPS comes from (peer-copy.md P27).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerCertificates {
    /// The service makes one for itself; its key is pinned in the election (P31).
    SelfSigned,
    /// A PKI's; without one HTTPS stays closed (S7).
    Pki,
}

/// What this machine is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MachineNames<'a> {
    /// The host name, `W701`.
    pub host: &'a str,
    /// The FQDN, `W701.ACME.LOCAL`; the host name again where there is no domain.
    pub full: &'a str,
}

/// The same, kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerNames {
    host: String,
    full: String,
}

impl ServerNames {
    /// Takes host name and FQDN; the host name again where there is no domain.
    #[must_use]
    pub fn new(host: impl Into<String>, full: impl Into<String>) -> Self {
        Self { host: host.into(), full: full.into() }
    }

    /// Takes an FQDN, whose first label is the host name.
    #[must_use]
    pub fn of_full(full: &str) -> Self {
        let host = full.split_once('.').map_or(full, |(host, _)| host);
        Self::new(host, full)
    }

    /// Returns them as [`select_server`] takes them.
    #[must_use]
    pub fn as_names(&self) -> MachineNames<'_> {
        MachineNames { host: &self.host, full: &self.full }
    }
}

impl fmt::Display for ServerNames {
    /// Writes what is wanted of a certificate.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "wanted serverAuth and the name {:?} or {:?}, from a CA", self.host, self.full)
    }
}

/// The certificate that HTTPS opens with.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum ServerCertificate {
    /// One that the service makes, as was asked for.
    SelfSigned,
    /// This one of the store.
    Pki(Box<Choice>),
}

/// Chooses the certificate of a peer's HTTPS (S7), at start and when the store, the names or the revocation change.
///
/// A certificate of a PKI has serverAuth, the host name or the FQDN, an issuer listed in `cert_issuer` if that is set, and is
/// valid. Preferred is one that has both names, then the host name, then the FQDN, then the longest validity. A
/// wildcard in the leftmost label stands for the FQDN (C7).
///
/// # Errors
/// A PKI's was asked for, and there is none: HTTPS stays closed. It is never replaced by a self-signed one.
pub fn select_server(
    wanted: ServerCertificates,
    candidates: &Candidates,
    selection: &Selection,
    machine: MachineNames<'_>,
    now: UnixTime,
    revocation: Option<&RevocationIndex>,
) -> Result<ServerCertificate, ServerCertificateMissing> {
    if wanted == ServerCertificates::SelfSigned {
        return Ok(ServerCertificate::SelfSigned);
    }
    let field = Field::servers(candidates, selection, machine, now, revocation);
    match field.answer(candidates, field.preferred(), None) {
        Ok(choice) => Ok(ServerCertificate::Pki(Box::new(choice))),
        Err(missing) => Err(ServerCertificateMissing {
            names: ServerNames::new(machine.host, machine.full),
            report: missing.report,
        }),
    }
}

impl<'a> Field<'a> {
    /// Judges a store's certificates as servers' (S7).
    pub(super) fn servers(
        candidates: &'a Candidates,
        selection: &Selection,
        machine: MachineNames<'_>,
        now: UnixTime,
        revocation: Option<&RevocationIndex>,
    ) -> Self {
        let entrants = candidates.iter().enumerate().map(|(position, candidate)| {
            let certificate = candidate.certificate();
            let mut unfit = unfit(candidate, &ExtendedKeyUsage::ServerAuth, now, revocation);
            let server_name = server_name(certificate, machine);
            if server_name == ServerName::Neither {
                let got = names(certificate).into_iter().map(str::to_owned).collect();
                unfit.push(Unfit::Name { got });
            }
            let issuer = Searched::issuer(certificate).contains_any(selection.issuer());
            if !issuer && !selection.issuer().is_empty() {
                unfit.push(Unfit::IssuerNotListed);
            }
            let not_after = certificate.not_after();
            let marks = Marks { issuer, subject: false, full_name: false, server_name, not_after, position };
            Entrant { candidate, unfit, marks }
        });
        Self { entrants: entrants.collect(), steps: Step::SERVER }
    }
}

impl fmt::Display for ServerCertificate {
    /// Writes one line; `{:#}` writes the certificates of the store as a table below it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SelfSigned => f.write_str("a self-signed server certificate, as configured"),
            Self::Pki(choice) if f.alternate() => write!(f, "server {choice}\n{:#}", choice.report()),
            Self::Pki(choice) => write!(f, "server {choice}"),
        }
    }
}

/// No certificate for HTTPS, though a PKI's was asked for: HTTPS stays closed (S7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerCertificateMissing {
    names: ServerNames,
    report: Report,
}

impl ServerCertificateMissing {
    /// Returns every certificate of the store, and why it lost.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }
}

impl fmt::Display for ServerCertificateMissing {
    /// Writes one line; `{:#}` writes the report as a table below it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HTTPS stays closed: no server certificate; {}", self.names)?;
        if f.alternate() { write!(f, "\n{:#}", self.report) } else { write!(f, ": {}", self.report) }
    }
}

impl std::error::Error for ServerCertificateMissing {}

/// Returns which of the machine's names a certificate has; the CN counts only where there is no SAN dNSName (C7).
fn server_name(certificate: &Certificate, machine: MachineNames<'_>) -> ServerName {
    let names = names(certificate);
    let has = |wanted: &str| {
        let is_name = |name: &&str| name.eq_ignore_ascii_case(wanted) || is_wildcard_of(name, wanted);
        !wanted.is_empty() && names.iter().any(is_name)
    };
    match (has(machine.host), has(machine.full)) {
        (true, true) => ServerName::Both,
        (true, false) => ServerName::HostName,
        (false, true) => ServerName::FullName,
        (false, false) => ServerName::Neither,
    }
}
