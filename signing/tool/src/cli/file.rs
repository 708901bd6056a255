//! `muster-sign file`, and the options that files and packs have in common.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};

use super::{Output, SignerFiles};

/// What to do with a file.
#[derive(Debug, Subcommand)]
pub enum FileCommand {
    /// Sign a file of any size; the signature (detached CMS) is written beside it.
    #[command(
        after_help = "Examples:\n  muster-sign file sign muster-switch --key release.key --cert release.pem\n  \
                      muster-sign file sign muster-switch --key release.key --cert release.pem --timestamp http://timestamp.example/ \
                      --timestamp-roots stamps.pem\n\n\
                      Without a timestamp the signature ends with its signer's certificate; `muster-sign timestamp FILE.p7s` adds one later, too."
    )]
    Sign(SignFile),
    /// Verify a file by the signature beside it: who signed it, when, and below which root.
    #[command(
        after_help = "Examples:\n  muster-sign file verify muster-switch --roots releases.pem --timestamp-roots stamps.pem\n\n\
                      Without muster-sign:\n  \
                      openssl cms -verify -binary -inform DER -in FILE.p7s -content FILE -CAfile releases.pem -purpose any -out /dev/null"
    )]
    Verify(VerifyFile),
}

/// Arguments of `file sign`.
#[derive(Debug, Args)]
pub struct SignFile {
    /// The file.
    pub file: PathBuf,
    /// Key and certificate.
    #[command(flatten)]
    pub signer: SignerFiles,
    /// A timestamp in one go.
    #[command(flatten)]
    pub stamp: StampAtOnce,
    /// Where the signature (DER) goes; without it, FILE.p7s.
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Sign anew even where the same content has a signature with a timestamp there already. Without it, that signature stays where the same
    /// certificate made it and its timestamp holds (an earlier one proves more), and is refused to be written over where not.
    #[arg(long)]
    pub replace: bool,
    /// How to say what was done.
    #[command(flatten)]
    pub output: Output,
}

/// Arguments of `file verify`.
#[derive(Debug, Args)]
pub struct VerifyFile {
    /// The file.
    pub file: PathBuf,
    /// The signature (DER or PEM); without it, FILE.p7s.
    #[arg(long)]
    pub signature: Option<PathBuf>,
    /// Roots of those who may sign it (PEM). Named each time: who publishes software is not who writes definitions.
    #[arg(long)]
    pub roots: PathBuf,
    /// By what else it is judged.
    #[command(flatten)]
    pub trust: Judged,
    /// How to say what was found.
    #[command(flatten)]
    pub output: Output,
}

/// By what a signature is judged, besides the roots of its signer.
#[derive(Debug, Args)]
pub struct Judged {
    /// Roots of timestamp authorities (PEM); without it, trust/timestamps.pem of the home, if it is there.
    #[arg(long)]
    pub timestamp_roots: Option<PathBuf>,
    /// The operator's home: trust/timestamps.pem, and of packs trust/authors.pem.
    #[arg(long, env = "MUSTER_HOME")]
    pub home: Option<PathBuf>,
    /// A CRL (PEM or DER) of the signer's issuer; may be repeated.
    #[arg(long)]
    pub crl: Vec<PathBuf>,
}

/// A timestamp that is asked for while signing.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("believed").multiple(true))]
pub struct StampAtOnce {
    /// Have the signature stamped by the timestamp authority at http://HOST/PATH.
    #[arg(long, value_name = "URL", requires = "believed")]
    pub timestamp: Option<String>,
    /// With --timestamp: roots of timestamp authorities (PEM); without it, trust/timestamps.pem of the home.
    #[arg(long, group = "believed")]
    pub timestamp_roots: Option<PathBuf>,
    /// The operator's home: trust/timestamps.pem.
    #[arg(long, env = "MUSTER_HOME", group = "believed")]
    pub home: Option<PathBuf>,
}
