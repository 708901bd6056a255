//! `muster-sign exchange`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Judged, Output};

/// What to do with an exchange.
#[derive(Debug, Subcommand)]
pub enum ExchangeCommand {
    /// Verify packs, and write the list of them that a web server gives to `muster pack search`.
    #[command(
        after_help = "Example:\n  muster-sign exchange build packs/*.pack --url-prefix packs/ --home ~/.muster --out exchange.json\n\n\
                      Put the list on an https server, and the packs below its folder, here into packs/. Nobody signs the list, and nobody \
                      believes it: each pack is judged by its own signatures and by the licence, wherever it is imported. The same packs \
                      make the same list. Build it anew whenever a pack changes: its size and SHA-256 stand in it."
    )]
    Build(BuildExchange),
}

/// Arguments of `exchange build`.
#[derive(Debug, Args)]
pub struct BuildExchange {
    /// The packs.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// The folder of the packs below that of the list, such as packs/; without it, they lie beside the list.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "FOLDER/", value_parser = folder)]
    pub url_prefix: String,
    /// Roots of those who may sign the packs and their definitions (PEM); without it, trust/authors.pem of the home.
    #[arg(long, required_unless_present = "home")]
    pub roots: Option<PathBuf>,
    /// By what else they are judged.
    #[command(flatten)]
    pub trust: Judged,
    /// Where the list goes.
    #[arg(long)]
    pub out: PathBuf,
    /// How to say what was done.
    #[command(flatten)]
    pub output: Output,
}

fn folder(text: &str) -> Result<String, String> {
    if text.is_empty() || text.ends_with('/') {
        Ok(text.to_owned())
    } else {
        Err(format!("wanted a folder below that of the list, with `/` at its end, such as {text}/"))
    }
}
