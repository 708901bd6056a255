//! Reads certificates, keys and roots, and tells everything that is wrong with them at once.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use muster_pki::{Role, Roots, Thumbprint};
use muster_service::credentials::{
    self, ClientCertificate, Clock, CredentialError, Keeping, Own, Revocation, RevocationFiles, Rules,
    ServerCredentials,
};

use crate::config::Config;
use crate::engine::Trust;

/// ALPN of sessions: the WebSocket upgrade is HTTP/1.1.
const SESSION_ALPN: &[u8] = b"http/1.1";

/// The pinned certificate as it was last seen, in `data_dir` (N2).
const REMEMBERED: &str = "pinned.pem";

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
    /// What `trust` was made of.
    pub(crate) trust_digest: Thumbprint,
}

/// Reads all files that the configuration names. Certificates are judged by `clock`; `kept` is the folder of what revocation
/// remembers over restarts, `None` for a mere check.
///
/// # Errors
/// Every problem, not only the first.
pub(crate) fn load(
    config: &Config,
    kept: Option<PathBuf>,
    clock: &Clock,
) -> Result<Loaded, Vec<CredentialProblem>> {
    // A mere check remembers nothing.
    let remembered = kept.as_ref().map(|_| config.data_dir.join(REMEMBERED));
    let (rules, unruly) = rules(config, kept, clock);
    let unruly = unruly.map(CredentialError::into_each).into_iter().flatten();
    let mut problems: Vec<CredentialProblem> =
        unruly.map(|error| CredentialProblem::Credential(error.to_string())).collect();
    let trust = match trust(config, &rules.revocation) {
        Ok(read) => Some(read),
        Err(found) => {
            problems.extend(found);
            None
        }
    };
    // One for both listeners: they show the same certificate, also where it is chosen from a folder.
    let own = config.tls.own(remembered);
    let asks = config.sessions.client_certificate;
    let devices = vec![(Role::Device, config.trust.devices.clone())];
    let sessions = server(&own, asks, devices, SESSION_ALPN, &rules);
    let roles = vec![
        (Role::Operator, config.trust.operators.clone()),
        (Role::Service, config.trust.services.clone()),
    ];
    let operators = server(&own, ClientCertificate::Required, roles, OPERATOR_ALPN, &rules);
    match (sessions, operators, trust) {
        (Ok(sessions), Ok(operators), Some((trust, trust_digest))) if problems.is_empty() => {
            Ok(Loaded { sessions, operators, trust, trust_digest })
        }
        (sessions, operators, _) => {
            // Both listeners show the same certificate: what is wrong with it is told once.
            let errors = [sessions.err(), operators.err()].into_iter().flatten();
            let each = errors.flat_map(CredentialError::into_each);
            // What roles share was told by the keys of `[trust]`.
            let found = each.filter(|error| !matches!(error, CredentialError::RootsOverlap { .. }));
            for problem in found.map(|error| error.to_string()) {
                let is_told = problems.iter().any(|told| told.to_string().contains(&problem));
                if !is_told {
                    problems.push(CredentialProblem::Credential(problem));
                }
            }
            Err(problems)
        }
    }
}

/// Reads the roots that signed documents are verified with, and a digest of what they and the revocation index say.
///
/// # Errors
/// Every problem with any role's roots, and roots that two roles share.
pub(crate) fn trust(
    config: &Config,
    revocation: &Arc<Revocation>,
) -> Result<(Arc<Trust>, Thumbprint), Vec<CredentialProblem>> {
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
    ];
    let mut read = |(role, path): (&'static str, &PathBuf)| match read_roots(path, &mut read_bytes) {
        Ok(roots) => (role, roots),
        Err(problem) => {
            problems.push(CredentialProblem::Roots { role, problem });
            (role, Roots::default())
        }
    };
    let roots = roots.map(&mut read);
    let policies = files.policies.as_ref().map(|path| read(("policies", path)));
    let timestamps = files.timestamps.as_ref().map(|path| read(("timestamps", path)));
    let all: Vec<_> = roots.iter().chain(&policies).chain(&timestamps).cloned().collect();
    problems.extend(shared(&all));
    if !problems.is_empty() {
        return Err(problems);
    }
    let [_, _, _, (_, authors), (_, orders), (_, licences)] = roots;
    // The number first: an index that is newer than it is taken once more.
    read_bytes.extend(revocation.generation().to_be_bytes());
    let [policies, timestamps] = [policies, timestamps].map(|named| named.map(|(_, roots)| roots));
    let trust = Trust {
        authors,
        orders,
        licences,
        policies,
        timestamps,
        revocation: Some(revocation.index()),
        sources: Some(Arc::clone(revocation)),
    };
    Ok((Arc::new(trust), Thumbprint::of(&read_bytes)))
}

/// Puts together what certificates of every role are judged by.
fn rules(config: &Config, kept: Option<PathBuf>, clock: &Clock) -> (Rules, Option<CredentialError>) {
    let trust = &config.trust;
    let roots = [
        (Role::Device, &trust.devices),
        (Role::Operator, &trust.operators),
        (Role::Service, &trust.services),
        (Role::Author, &trust.authors),
        (Role::OrderSigner, &trust.orders),
        (Role::Licensor, &trust.licences),
    ];
    let policies = trust.policies.as_ref().map(|path| (Role::Policy, path));
    let timestamps = trust.timestamps.as_ref().map(|path| (Role::Timestamp, path));
    let roles: Vec<_> = roots
        .into_iter()
        .chain(policies)
        .chain(timestamps)
        .map(|(role, path)| (role, path.clone()))
        .collect();
    let files = RevocationFiles {
        crls: config.crls.clone(),
        roots: roles.iter().map(|(_role, path)| path.clone()).collect(),
        own: config.tls.file(),
        servers: None,
        kept: kept.map_or(Keeping::Nothing, Keeping::In),
    };
    let (rules, error) = Rules::load(config.certificates, &config.revocation, files, clock.clone());
    (Rules { roles, ..rules }, error)
}

fn server(
    own: &Own,
    asks: ClientCertificate,
    roles: Vec<(Role, PathBuf)>,
    alpn: &[u8],
    rules: &Rules,
) -> Result<Arc<ServerCredentials>, CredentialError> {
    credentials::server_asking(asks, own.clone(), roles, vec![alpn.to_vec()], Role::Switch, rules.clone())
}

fn read_roots(path: &Path, read_bytes: &mut Vec<u8>) -> Result<Roots, String> {
    let name = path.display().to_string();
    let unreadable = |source| CredentialError::Read { path: path.to_owned(), source }.to_string();
    let bytes = credentials::read_at_most(path, credentials::FILE_BYTES_MAX).map_err(unreadable)?;
    let roots = Roots::from_pem(&bytes, &name).map_err(|error| error.to_string());
    read_bytes.extend_from_slice(&bytes);
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
