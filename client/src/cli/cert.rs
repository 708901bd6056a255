//! `muster-client cert`: the certificates of `tls.store` (C5, S1, N1).

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::ops::Deref;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use muster_pki::select::{Outcome, Report, Row, Standing, Unfit};
use muster_pki::{Identity, IdentityFiles, NamedBytes};
use muster_service::credentials::{CertificateStore, Rules, read_at_most};
use muster_service::exit;
use muster_service::program::ConfigFiles;
use muster_signing::policy::Policy;
use rustls_pki_types::PrivateKeyDer;
use serde::Serialize;

use super::{NAME, loaded, print_json};
use crate::config::Config;
use crate::key::DeviceIdentity;
use crate::profile::{self, Stage};
use crate::{policy, running};

/// The largest file that is imported.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Characters of a line of PEM (RFC 7468).
const PEM_LINE: usize = 64;

/// What to do with the certificates.
#[derive(Debug, Subcommand)]
pub enum CertCommand {
    /// Put a certificate with its key into the store; a running client takes it up by itself if it is the better one.
    #[command(
        after_help = "Examples:\n  muster-client cert import w701.pfx --password-file pfx.password\n  \
                      muster-client cert import w701.pem --key w701.key"
    )]
    Import(ImportArguments),
    /// Show every certificate of the store, and why it is chosen or not, as JSON.
    #[command(after_help = "Example:\n  muster-client cert list | jq '.certificates[] | {subject, why}'")]
    List(ConfigFiles),
}

/// What to import.
#[derive(Debug, Args)]
pub struct ImportArguments {
    /// A PFX, or PEM with the certificate and its issuers.
    pub file: PathBuf,
    /// The certificate's key, where it does not stand in the same file.
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// A file with the password of the PFX or the key; one line.
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Where the configuration is.
    #[command(flatten)]
    pub files: ConfigFiles,
}

/// Why a command on the store did nothing.
#[derive(Debug, thiserror::Error)]
enum CertCliError {
    #[error(
        "tls.store is not set; this client shows the certificate in tls.certificate ({0}): put the new one there, or set tls.store"
    )]
    NoStore(String),
    #[error(
        "this client has no certificate (tls.identity = \"key\"): leave identity out, and name the certificate, or a tls.store"
    )]
    Keyed,
    #[error("{}: {cause}", path.display())]
    File { path: PathBuf, cause: io::Error },
    #[error("{file}: not imported, since it would never be shown: {reasons}")]
    Unfit { file: String, reasons: String },
    #[error("{0}")]
    Other(String),
}

/// What was imported.
#[derive(Debug, Serialize)]
struct Imported {
    file: String,
    subject: String,
    thumbprint: String,
    /// Why it is not shown yet; none: it may be at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

/// What there is.
#[derive(Debug, Serialize)]
struct Listed {
    /// Thumbprint; none: no certificate will do.
    chosen: Option<String>,
    certificates: Vec<Candidate>,
    /// Files that cannot be read.
    unread: Vec<Unread>,
}

#[derive(Debug, Serialize)]
struct Candidate {
    file: String,
    subject: String,
    issuer: String,
    thumbprint: String,
    not_after_s: u64,
    chosen: bool,
    why: String,
}

#[derive(Debug, Serialize)]
struct Unread {
    file: String,
    problem: String,
}

/// Does it.
#[must_use]
pub fn run(command: &CertCommand) -> ExitCode {
    let files = match command {
        CertCommand::Import(arguments) => &arguments.files,
        CertCommand::List(files) => files,
    };
    let config = match loaded(files) {
        Ok(config) => config,
        Err(code) => return code,
    };
    if config.tls.identity == DeviceIdentity::Key {
        return exit::refuse(NAME, &CertCliError::Keyed, exit::CONFIG);
    }
    if !config.tls.has_store() {
        let error = CertCliError::NoStore(config.tls.certificate.display().to_string());
        return exit::refuse(NAME, &error, exit::CONFIG);
    }
    let done = match command {
        CertCommand::Import(arguments) => import(arguments, &config).map(|it| print_json(&it)),
        CertCommand::List(_) => list(&config).map(|it| print_json(&it)),
    };
    done.unwrap_or_else(|error| exit::refuse(NAME, &error, exit::FAILURE))
}

fn import(arguments: &ImportArguments, config: &Config) -> Result<Imported, CertCliError> {
    let bytes = read(&arguments.file)?;
    let key = arguments.key.as_deref().map(read).transpose()?;
    let password = arguments.password_file.as_deref().map(read).transpose()?;
    let password = password.as_deref().map(|bytes| std::str::from_utf8(bytes)).transpose();
    let password = password.map_err(|_| CertCliError::Other("the password is not UTF-8".to_owned()))?;
    let password = password.map(|text| text.trim_end_matches(['\r', '\n']));
    let (file, key_file) = (arguments.file.display().to_string(), arguments.key.clone().unwrap_or_default());
    let key_file = key_file.display().to_string();
    let identity = Identity::read(&IdentityFiles {
        certificate: NamedBytes { what: &file, bytes: &bytes },
        key: key.as_ref().map(|bytes| NamedBytes { what: &key_file, bytes }),
        password,
    })
    .map_err(|error| CertCliError::Other(error.to_string()))?;
    let leaf = identity.leaf();
    let note = judge(&identity, &file, config)?;
    // By its thumbprint: a renewed certificate does not overwrite the one before, which may still be in use.
    let path = config.tls.store.join(format!("{}.pem", leaf.thumbprint()));
    write_private(&path, &pem(&identity))
        .map_err(|cause| CertCliError::File { path: path.clone(), cause })?;
    Ok(Imported {
        file: path.display().to_string(),
        subject: leaf.subject().to_owned(),
        thumbprint: leaf.thumbprint().to_string(),
        note,
    })
}

/// Refuses what would never be shown, and returns why something is not shown yet.
fn judge(identity: &Identity, file: &str, config: &Config) -> Result<Option<String>, CertCliError> {
    // What the client shows is its own to remember (S4).
    let Some(store) = store(config)? else { return Ok(None) };
    let outcome = store.judge(identity, file, &rules(config)?);
    let Outcome::Missing { missing, .. } = outcome else { return Ok(None) };
    let standing = missing.report().rows().first().map(Row::standing);
    let Some(Standing::Unfit(reasons)) = standing else { return Ok(None) };
    let passes = |reason: &Unfit| matches!(reason, Unfit::NotYetValid { .. } | Unfit::IssuerNotListed);
    let told: Vec<String> = reasons.iter().map(ToString::to_string).collect();
    if reasons.iter().all(passes) {
        return Ok(Some(format!("not shown yet: {}", told.join("; "))));
    }
    Err(CertCliError::Unfit { file: file.to_owned(), reasons: told.join("; ") })
}

/// Returns the store with the selection of the policy that is followed, or else the installed one.
fn store(config: &Config) -> Result<Option<CertificateStore>, CertCliError> {
    let copy = config.data_dir.join(policy::COPY);
    let followed = config.trust.has_policies().then(|| policy::read_copy(&copy)).transpose();
    let followed = followed.map_err(CertCliError::Other)?.flatten();
    Ok(profile::store(config, followed.as_ref().map(Policy::terms), Stage::Tried))
}

/// Returns what certificates of the store are judged by, as in the running client.
fn rules(config: &Config) -> Result<Rules, CertCliError> {
    let (rules, unruly) = running::rules_of_command(config);
    unruly.map_or(Ok(rules), |unruly| Err(CertCliError::Other(unruly.to_string())))
}

fn read(path: &Path) -> Result<impl Deref<Target = Vec<u8>>, CertCliError> {
    read_at_most(path, FILE_BYTES_MAX).map_err(|cause| CertCliError::File { path: path.to_owned(), cause })
}

/// Returns certificate, CAs and key as the store reads them without a password; the folder's mode keeps others out.
fn pem(identity: &Identity) -> String {
    let certificates = std::iter::once(identity.leaf()).chain(identity.authorities());
    let mut text: String = certificates.map(muster_pki::Certificate::pem).collect();
    let label = if matches!(identity.key(), PrivateKeyDer::Pkcs1(_)) {
        "RSA PRIVATE KEY"
    } else if matches!(identity.key(), PrivateKeyDer::Sec1(_)) {
        "EC PRIVATE KEY"
    } else {
        "PRIVATE KEY"
    };
    let base64 = STANDARD.encode(identity.key().secret_der());
    let lines: Vec<String> =
        base64.as_bytes().chunks(PEM_LINE).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    text.push_str(&format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n")));
    text
}

/// Writes a file that only its owner reads, and that a watcher of the folder sees whole.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    // The store passes hidden files over.
    let new = path.with_file_name(format!(".{name}.new"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, path)
}

fn list(config: &Config) -> Result<Listed, CertCliError> {
    // As it would be chosen at a start; what the client shows is its own to remember (S4).
    let Some(store) = store(config)? else {
        return Ok(Listed { chosen: None, certificates: Vec::new(), unread: Vec::new() });
    };
    let outcome = store.look(&rules(config)?).map_err(|error| CertCliError::Other(error.to_string()))?;
    let report = match &outcome {
        Outcome::Kept { choice, .. } | Outcome::Changed { choice, .. } => choice.report(),
        Outcome::Missing { missing, .. } => missing.report(),
    };
    Ok(listed(report, outcome.choice().map(|choice| choice.certificate().thumbprint().to_string())))
}

fn listed(report: &Report, chosen: Option<String>) -> Listed {
    let certificates = report.rows().iter().map(|row| {
        let certificate = row.candidate().certificate();
        Candidate {
            file: row.candidate().source().to_owned(),
            subject: certificate.subject().to_owned(),
            issuer: certificate.issuer().to_owned(),
            thumbprint: certificate.thumbprint().to_string(),
            not_after_s: certificate.not_after().as_secs(),
            chosen: matches!(row.standing(), Standing::Chosen(_)),
            why: row.standing().to_string(),
        }
    });
    let unread = report
        .unread()
        .iter()
        .map(|unread| Unread { file: unread.source.clone(), problem: unread.problem.clone() });
    Listed { chosen, certificates: certificates.collect(), unread: unread.collect() }
}
