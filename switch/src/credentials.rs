//! Reads certificates, keys and roots, and tells everything that is wrong with them at once.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use muster_pki::{Certificate, RevocationIndex, Role, Roots, Thumbprint, pem};
use muster_service::credentials::{self, Clock, CredentialError, CredentialFiles, ServerCredentials};

use crate::config::Config;
use crate::engine::Trust;
use crate::wall;

/// ALPN of sessions: the WebSocket upgrade is HTTP/1.1.
const SESSION_ALPN: &[u8] = b"http/1.1";

/// ALPN of gRPC.
const OPERATOR_ALPN: &[u8] = b"h2";

/// What is wrong with a file of `[tls]` or `[trust]`.
#[derive(Debug, thiserror::Error)]
pub enum CredentialProblem {
    /// A certificate or key is missing or unfit; names every finding.
    #[error("{0}")]
    Credential(String),
    /// Roots cannot be read.
    #[error("`trust.{role}`: {problem}")]
    Roots {
        /// The key.
        role: &'static str,
        /// What is wrong, with the file.
        problem: String,
    },
    /// Two roles trust one root, so that a certificate of one opens the other's doors.
    #[error(
        "`trust.{first}` and `trust.{second}` hold the same root {thumbprint}: give each role a root of its own"
    )]
    Shared {
        /// One key.
        first: &'static str,
        /// The other.
        second: &'static str,
        /// The root's SHA-256.
        thumbprint: String,
    },
}

/// Everything that was read.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// For clients.
    pub(crate) sessions: Arc<ServerCredentials>,
    /// For operators and services.
    pub(crate) operators: Arc<ServerCredentials>,
    /// For signed documents.
    pub(crate) trust: Arc<Trust>,
}

/// Reads all files that the configuration names. Certificates are judged by `clock`.
///
/// # Errors
/// Every problem, not only the first.
pub(crate) fn load(config: &Config, clock: &Clock) -> Result<Loaded, Vec<CredentialProblem>> {
    let (trust, mut problems) = match trust(config) {
        Ok((trust, _)) => (Some(trust), Vec::new()),
        Err(problems) => (None, problems),
    };
    let sessions = server(config, vec![(Role::Device, config.trust.devices.clone())], SESSION_ALPN, clock);
    let roles = vec![
        (Role::Operator, config.trust.operators.clone()),
        (Role::Service, config.trust.services.clone()),
    ];
    let operators = server(config, roles, OPERATOR_ALPN, clock);
    match (sessions, operators, trust) {
        (Ok(sessions), Ok(operators), Some(trust)) => Ok(Loaded { sessions, operators, trust }),
        (sessions, operators, _) => {
            // Both listeners show the same certificate: what is wrong with it is told once.
            let errors = [sessions.err(), operators.err()].into_iter().flatten();
            let found = errors.flat_map(CredentialError::into_each).map(|error| error.to_string());
            for problem in found {
                let is_told = problems.iter().any(|told| told.to_string().contains(&problem));
                if !is_told {
                    problems.push(CredentialProblem::Credential(problem));
                }
            }
            Err(problems)
        }
    }
}

/// Reads the roots and CRLs that signed documents are verified with, and a digest of all that was read.
///
/// # Errors
/// Every problem with any role's roots, and roots that two roles share.
pub(crate) fn trust(config: &Config) -> Result<(Arc<Trust>, Thumbprint), Vec<CredentialProblem>> {
    let mut problems = Vec::new();
    let mut read_bytes = Vec::new();
    let files = &config.trust;
    let roots = [
        ("devices", &files.devices),
        ("operators", &files.operators),
        ("services", &files.services),
        ("authors", &files.authors),
        ("orders", &files.orders),
        ("licences", &files.licences),
    ]
    .map(|(role, path)| match read_roots(path, &mut read_bytes) {
        Ok(roots) => (role, roots),
        Err(problem) => {
            problems.push(CredentialProblem::Roots { role, problem });
            (role, Roots::default())
        }
    });
    problems.extend(shared(&roots));
    let issuers: Vec<Certificate> = roots.iter().flat_map(|(_, roots)| roots.iter().cloned()).collect();
    let revocation = revocation(&config.crls, &issuers, &mut read_bytes).unwrap_or_else(|problem| {
        problems.push(problem);
        RevocationIndex::default()
    });
    if !problems.is_empty() {
        return Err(problems);
    }
    let [_, _, _, (_, authors), (_, orders), (_, licences)] = roots;
    let trust = Trust { authors, orders, licences, revocation: Some(revocation) };
    Ok((Arc::new(trust), Thumbprint::of(&read_bytes)))
}

/// Reads the CRLs; a file may hold the certificate of the CA that signed it beside the CRL.
fn revocation(
    files: &[PathBuf],
    issuers: &[Certificate],
    read_bytes: &mut Vec<u8>,
) -> Result<RevocationIndex, CredentialProblem> {
    let mut index = RevocationIndex::default();
    for path in files {
        let name = path.display().to_string();
        let problem = |problem: String| CredentialProblem::Credential(format!("{name}: {problem}"));
        let unreadable = |source| CredentialError::Read { path: path.clone(), source }.to_string();
        let bytes = std::fs::read(path).map_err(|error| CredentialProblem::Credential(unreadable(error)))?;
        let mut candidates = issuers.to_vec();
        // A CRL in DER has no certificates beside it.
        if let Ok(beside) = pem::read(&bytes, &name) {
            candidates.extend(beside.certificates.iter().filter_map(|der| Certificate::from_der(der).ok()));
        }
        index.add(&bytes, &candidates, wall::now()).map_err(|error| problem(error.to_string()))?;
        read_bytes.extend(bytes);
    }
    Ok(index)
}

fn server(
    config: &Config,
    roles: Vec<(Role, PathBuf)>,
    alpn: &[u8],
    clock: &Clock,
) -> Result<Arc<ServerCredentials>, CredentialError> {
    let own = CredentialFiles { certificate: config.tls.certificate.clone(), key: config.tls.key.clone() };
    credentials::server(own, roles, config.crls.clone(), vec![alpn.to_vec()], Role::Switch, clock.clone())
}

fn read_roots(path: &Path, read_bytes: &mut Vec<u8>) -> Result<Roots, String> {
    let name = path.display().to_string();
    let unreadable = |source| CredentialError::Read { path: path.to_owned(), source }.to_string();
    let bytes = std::fs::read(path).map_err(unreadable)?;
    let roots = Roots::from_pem(&bytes, &name).map_err(|error| error.to_string());
    read_bytes.extend(bytes);
    roots
}

fn shared(roots: &[(&'static str, Roots)]) -> Vec<CredentialProblem> {
    let mut found = Vec::new();
    for (index, (first, mine)) in roots.iter().enumerate() {
        for (second, theirs) in roots.iter().skip(index + 1) {
            if let Some(thumbprint) = mine.overlaps(theirs) {
                found.push(CredentialProblem::Shared { first, second, thumbprint: thumbprint.to_string() });
            }
        }
    }
    found
}
