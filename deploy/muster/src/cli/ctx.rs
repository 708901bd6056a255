//! What can be typed behind `muster ctx`.

use clap::Subcommand;

use crate::address;
use crate::output::Format;

/// `muster ctx`
#[derive(Debug, Subcommand)]
pub(crate) enum Ctx {
    /// List contexts
    #[command(after_help = "Examples:\n  muster ctx list")]
    List {
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Make a context the current one
    #[command(after_help = "Examples:\n  muster ctx use production")]
    Use {
        /// Its name
        name: String,
    },
    /// Add or replace a context, and make it the current one
    #[command(after_help = "Example:\n  muster ctx add production --switch switch.example.org:4001 \\\n    \
        --background-channel https://background.example.org:4443/Background/v1 --tenant acme\n\n\
        What was seen of the Switch before, under the same name, is kept: its organisation, and the highest licence. `muster ctx remove` forgets it.")]
    Add {
        /// Its name
        #[arg(value_parser = address::context_name)]
        name: String,
        /// Address of the operator API, such as switch.example.org:4001
        #[arg(long, value_name = "HOST:PORT", value_parser = address::switch)]
        switch: String,
        /// Address of the Background Channel, such as https://HOST:4443/Background/v1
        #[arg(long, value_name = "URL", default_value = "", hide_default_value = true, value_parser = address::background_channel)]
        background_channel: String,
        /// Admin address of the Switch, such as http://127.0.0.1:4002
        #[arg(long, value_name = "URL", default_value = "", hide_default_value = true, value_parser = address::admin)]
        admin: String,
        /// The organisation whose orders may be signed there; without it, the one of the first order
        #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true, value_parser = address::tenant)]
        tenant: String,
    },
    /// Forget a context
    #[command(after_help = "Examples:\n  muster ctx remove staging")]
    Remove {
        /// Its name
        name: String,
    },
}
