//! `muster-client trust`: the trust store of `trust.folder` (T1, T2, T7).

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use muster_pki::Certificate;
use muster_pki::trust_store::{AnchorKind, Appended, fingerprint};
use muster_service::credentials::{Accepted, Address, Saved, TrustFolder, shown_by};
use muster_service::program::ConfigFiles;
use muster_service::{exit, runtime};
use serde::Serialize;

use super::{NAME, loaded, print_json};
use crate::profile;

/// How long a server may take to show its certificate.
const SHOWN_WITHIN: Duration = Duration::from_secs(20);

/// What to do with the trust store.
#[derive(Debug, Subcommand)]
pub enum TrustCommand {
    /// Save a server's certificate once its fingerprint is confirmed; a running client takes it up by itself.
    #[command(
        after_help = "Without --fingerprint it asks on a terminal, and refuses anywhere else: nothing is trusted unseen. The server's owner \
                      knows the fingerprint: `openssl x509 -in tls.pem -noout -fingerprint -sha256`.\n\nExample:\n  \
                      muster-client trust fetch switch.example.org:4000 --fingerprint SHA256:9f86d0…"
    )]
    Fetch(FetchArguments),
    /// Write the merged file anew at once; a running client does it by itself when one of the files changes.
    #[command(after_help = "Example:\n  muster-client trust rebuild")]
    Rebuild(ConfigFiles),
    /// Show whom the trust store trusts, in its order, as JSON.
    #[command(after_help = "Example:\n  muster-client trust show | jq -r '.[].subject'")]
    Show(ConfigFiles),
}

/// Which server.
#[derive(Debug, Args)]
pub struct FetchArguments {
    /// The server.
    #[arg(value_name = "HOST:PORT")]
    pub server: Address,
    /// The fingerprint that its owner tells, SHA-256.
    #[arg(long, value_name = "SHA256:…")]
    pub fingerprint: Option<String>,
    /// It is a site server: save it to cainfo-ss.pem.
    #[arg(long)]
    pub site_server: bool,
    /// Where the configuration is.
    #[command(flatten)]
    pub files: ConfigFiles,
}

/// Why a command on the trust store did nothing.
#[derive(Debug, thiserror::Error)]
enum TrustCliError {
    #[error(
        "trust.folder is not set; this client trusts the roots in trust.switch ({0}): add the server's root there, or set trust.folder"
    )]
    NoFolder(String),
    #[error(
        "not saved: nobody confirmed the fingerprint {found} of {subject}; give --fingerprint, or answer yes on a terminal"
    )]
    Unconfirmed { found: String, subject: String },
    #[error("not rebuilt, the trust store of before stays: {0}")]
    Kept(String),
    #[error("{0}")]
    Other(String),
}

/// What was saved.
#[derive(Debug, Serialize)]
struct Fetched {
    subject: String,
    fingerprint: String,
    /// It was not there before.
    is_new: bool,
    /// Certificates that are trusted now.
    certificates: usize,
    /// What of the trust store's files is not among them.
    problems: Vec<String>,
}

/// What was merged.
#[derive(Debug, Serialize)]
struct Merged {
    file: String,
    certificates: usize,
    problems: Vec<String>,
}

/// An anchor of the trust store.
#[derive(Debug, Serialize)]
struct Trusted {
    subject: String,
    /// `ca`: servers that it issued to; `server`: that one server.
    kind: &'static str,
    fingerprint: String,
    place: String,
}

/// Does it.
#[must_use]
pub fn run(command: &TrustCommand) -> ExitCode {
    let files = match command {
        TrustCommand::Fetch(arguments) => &arguments.files,
        TrustCommand::Rebuild(files) | TrustCommand::Show(files) => files,
    };
    let config = match loaded(files) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let Some(folder) = profile::folder(&config.trust) else {
        let error = TrustCliError::NoFolder(config.trust.switch.display().to_string());
        return exit::refuse(NAME, &error, exit::CONFIG);
    };
    let done = match command {
        TrustCommand::Fetch(arguments) => fetch(arguments, &folder).map(|fetched| print_json(&fetched)),
        TrustCommand::Rebuild(_) => rebuild(&folder).map(|merged| print_json(&merged)),
        TrustCommand::Show(_) => show(&folder).map(|anchors| print_json(&anchors)),
    };
    done.unwrap_or_else(|error| exit::refuse(NAME, &error, exit::FAILURE))
}

fn other(error: impl ToString) -> TrustCliError {
    TrustCliError::Other(error.to_string())
}

fn fetch(arguments: &FetchArguments, folder: &TrustFolder) -> Result<Fetched, TrustCliError> {
    let expected = arguments.fingerprint.as_deref().map(fingerprint::parse).transpose().map_err(other)?;
    let runtime = runtime(NAME, NonZeroUsize::MIN).map_err(other)?;
    let chain = runtime.block_on(shown_by(&arguments.server, SHOWN_WITHIN)).map_err(other)?;
    let leaf = chain.first().ok_or_else(|| other("it showed no certificate"))?;
    let certificate = Certificate::from_der(leaf).map_err(other)?;
    match expected {
        Some(expected) => fingerprint::confirm(&expected, &certificate).map_err(other)?,
        None => ask(&certificate)?,
    }
    let file = if arguments.site_server { Saved::SiteServer } else { Saved::Server };
    let note = format!("{}, fetched by `muster-client trust fetch`", arguments.server);
    let appended = folder.save(file, &certificate, &note).map_err(other)?;
    let rebuilt = folder.rebuild(false).map_err(other)?;
    Ok(Fetched {
        subject: certificate.subject().to_owned(),
        fingerprint: fingerprint::text(&certificate.thumbprint()),
        is_new: matches!(appended, Appended::Changed(_)),
        certificates: rebuilt.certificates,
        problems: rebuilt.problems,
    })
}

/// Asks whoever sits there; nobody does where there is no terminal.
fn ask(certificate: &Certificate) -> Result<(), TrustCliError> {
    let found = fingerprint::text(&certificate.thumbprint());
    let subject = certificate.subject().to_owned();
    let unconfirmed = || TrustCliError::Unconfirmed { found: found.clone(), subject: subject.clone() };
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(unconfirmed());
    }
    let issuer = certificate.issuer();
    write!(
        std::io::stderr(),
        "The server shows {subject:?}, issued by {issuer:?}, with the fingerprint\n  {found}\n\
         Is that what its owner told you? Type yes to trust it: "
    )
    .map_err(other)?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).map_err(other)?;
    if answer.trim() == "yes" { Ok(()) } else { Err(unconfirmed()) }
}

fn rebuild(folder: &TrustFolder) -> Result<Merged, TrustCliError> {
    let rebuilt = folder.rebuild(true).map_err(other)?;
    if rebuilt.inputs == Accepted::No {
        return Err(TrustCliError::Kept(rebuilt.problems.join("; ")));
    }
    Ok(Merged {
        file: folder.merged_file().display().to_string(),
        certificates: rebuilt.certificates,
        problems: rebuilt.problems,
    })
}

fn show(folder: &TrustFolder) -> Result<Vec<Trusted>, TrustCliError> {
    let store = folder.store().map_err(other)?;
    let anchors = store.anchors().iter().map(|anchor| Trusted {
        subject: anchor.certificate().subject().to_owned(),
        kind: match anchor.kind() {
            AnchorKind::Authority => "ca",
            AnchorKind::Leaf => "server",
        },
        fingerprint: fingerprint::text(&anchor.certificate().thumbprint()),
        place: anchor.place().to_owned(),
    });
    Ok(anchors.collect())
}
