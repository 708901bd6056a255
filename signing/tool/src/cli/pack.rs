//! `muster-sign pack`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Judged, Output, SignerFiles, StampAtOnce};

/// What to do with a pack.
#[derive(Debug, Subcommand)]
pub enum PackCommand {
    /// Put signed definitions and the resources that they name into one archive, with a signed index.
    #[command(
        after_help = "Example:\n  muster-sign pack build definitions/ list.txt --name Acme-Security-Basics --version 1.0.0 \
                      --says 'Certificates and ports' --key author.key --cert author.pem --out basics.pack\n\n\
                      Files whose names end with .cms are signed definitions; all others are resources, and each must be named by a \
                      definition of the pack. A folder stands for the files in it. The same files make the same archive, but for the \
                      index's signature; `tar tf` shows it."
    )]
    Build(BuildPack),
    /// Verify a pack whole: its index, each member by size and digests, and each definition by its own signature.
    #[command(after_help = "Example:\n  muster-sign pack verify basics.pack --home ~/.muster\n\n\
                      Which of the definitions may be issued is the licence's matter: a Switch says so when the pack is imported.")]
    Verify(VerifyPack),
}

/// Arguments of `pack build`.
#[derive(Debug, Args)]
pub struct BuildPack {
    /// Signed definitions (*.cms), resources, and folders of such files.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// The pack's name, Prefix-Area-Thing as a definition's.
    #[arg(long)]
    pub name: String,
    /// The pack's version, such as 1.0.0.
    #[arg(long)]
    pub version: String,
    /// What it is for, in words.
    #[arg(long)]
    pub says: String,
    /// Key and certificate.
    #[command(flatten)]
    pub signer: SignerFiles,
    /// A timestamp over the index, in one go.
    #[command(flatten)]
    pub stamp: StampAtOnce,
    /// Where the pack goes.
    #[arg(long)]
    pub out: PathBuf,
    /// How to say what was done.
    #[command(flatten)]
    pub output: Output,
}

/// Arguments of `pack verify`.
#[derive(Debug, Args)]
pub struct VerifyPack {
    /// The pack.
    pub file: PathBuf,
    /// Roots of those who may sign the index and the definitions (PEM); without it, trust/authors.pem of the home.
    #[arg(long, required_unless_present = "home")]
    pub roots: Option<PathBuf>,
    /// By what else it is judged.
    #[command(flatten)]
    pub trust: Judged,
    /// How to say what was found.
    #[command(flatten)]
    pub output: Output,
}
