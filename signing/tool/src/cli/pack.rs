//! `muster-sign pack`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use muster_signing::definition::DefinitionName;

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
    #[arg(long, value_parser = name)]
    pub name: String,
    /// The pack's version, such as 1.0.0.
    #[arg(long, value_parser = version)]
    pub version: String,
    /// What it is for, in words.
    #[arg(long, value_parser = words)]
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
    /// Sign anew even where the same members have an index with a timestamp there already. Without it, that index stays where the same
    /// certificate made it and its timestamp holds (an earlier one proves more), and is refused to be written over where not.
    #[arg(long)]
    pub replace: bool,
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

fn name(text: &str) -> Result<String, String> {
    text.parse::<DefinitionName>().map(|name| name.to_string()).map_err(|error| error.to_string())
}

fn version(text: &str) -> Result<String, String> {
    let version =
        semver::Version::parse(text).map_err(|error| format!("{error}; wanted one such as 1.0.0"))?;
    Ok(version.to_string())
}

fn words(text: &str) -> Result<String, String> {
    match text.trim().is_empty() {
        true => Err("nothing; wanted what it is for, in words".to_owned()),
        false => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pack_has_a_name_a_version_and_words_that_can_stand_in_one() {
        assert_eq!(name("Acme-Test-Pack").as_deref(), Ok("Acme-Test-Pack"));
        assert_eq!(version("1.0.0-rc.1").as_deref(), Ok("1.0.0-rc.1"));
        assert_eq!(words("Tests.").as_deref(), Ok("Tests."));
        assert!(name("Acme").is_err() && version("1").is_err());
        assert!(words("").is_err() && words(" \n").is_err());
    }
}
