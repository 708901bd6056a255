//! What can be typed behind `muster pack`.

use std::path::PathBuf;

use clap::Subcommand;

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
            Examples:\n  muster pack import basics.pack\n  muster pack import basics.pack -o json"
    )]
    Import {
        /// The pack
        file: PathBuf,
        /// Where its resources go, such as https://HOST:4443/Background/v1 [default: the context's Background Channel]
        #[arg(long, value_name = "URL", value_parser = address::background_channel)]
        background_channel: Option<String>,
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}
