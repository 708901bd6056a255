//! What can be typed behind `muster pack`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Listing;
use crate::address;
use crate::output::Format;

/// `muster pack`
#[derive(Debug, Subcommand)]
pub(crate) enum Pack {
    /// Import a pack (made by `muster-sign pack build`): all of its definitions, or none
    #[command(
        after_help = "The whole file is verified here first. Then its resources go to the Background Channel, those that it has \
            already left out, and when all of them are there the Switch takes the definitions, which it verifies itself.\n\
            What was interrupted goes on with the same command. A pack that is there already is no error.\n\
            Definitions that the licence does not cover are imported, too, and cannot be issued until it does.\n\n\
            With --exchange the pack is downloaded first, into a file without a name in TMPDIR: no more bytes than the list says, and \
            those bytes. It is then judged as any other file, and must be what the list told of it.\n\n\
            Examples:\n  muster pack import basics.pack\n  muster pack import basics.pack -o json\n  \
            muster pack import Acme-Security-Basics --exchange https://exchange.example.org/exchange.json"
    )]
    Import(PackImport),
    /// List the packs of an exchange: whatever its list says, which nobody has verified
    #[command(
        after_help = "Only packs that have all the words, in their names, in what they and their definitions say, or in who publishes \
            them. IMPORTED and LICENSED are of their definitions: yes, no, partly; `-` where the Switch does not tell. A definition that \
            is not imported counts as licensed if its signer is the one that the list names.\n\
            The server is asked over https alone, gets no certificate of ours, and is followed nowhere else.\n\n\
            Examples:\n  muster pack search https://exchange.example.org/exchange.json\n  \
            muster pack search https://exchange.example.org/exchange.json certificates -o json"
    )]
    Search(PackSearch),
}

/// `muster pack import`
#[derive(Debug, Args)]
pub(crate) struct PackImport {
    /// The pack: a file, or with --exchange its name in the list
    #[arg(value_name = "FILE|NAME")]
    pub(crate) pack: PathBuf,
    /// Download it from an exchange: the https URL of its list
    #[arg(long, value_name = "URL", value_parser = address::exchange)]
    pub(crate) exchange: Option<String>,
    /// Its version in the list [default: the highest]
    #[arg(long, value_name = "V", requires = "exchange")]
    pub(crate) pack_version: Option<String>,
    #[command(flatten)]
    pub(crate) server: WebServer,
    /// Where its resources go, such as https://HOST:4443/Background/v1 [default: the context's Background Channel]
    #[arg(long, value_name = "URL", value_parser = address::background_channel)]
    pub(crate) background_channel: Option<String>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Format,
}

/// `muster pack search`
#[derive(Debug, Args)]
pub(crate) struct PackSearch {
    /// The https URL of the list
    #[arg(value_parser = address::exchange)]
    pub(crate) url: String,
    /// Only packs that have all of these words
    #[arg(value_name = "WORD")]
    pub(crate) words: Vec<String>,
    #[command(flatten)]
    pub(crate) server: WebServer,
    #[command(flatten)]
    pub(crate) listing: Listing,
}

/// How a web server is judged.
#[derive(Debug, Args)]
pub(crate) struct WebServer {
    /// Roots of the exchange's server, PEM [default: HOME/trust/exchanges.pem if it is there, else those of the system]
    #[arg(long, value_name = "FILE")]
    pub(crate) https_roots: Option<PathBuf>,
}
