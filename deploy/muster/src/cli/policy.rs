//! What can be typed behind `muster policy`.

use std::path::PathBuf;

use clap::Subcommand;

use crate::output::Format;

/// `muster policy`
#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    /// Import signed client policies (made by `muster-sign policy sign`)
    #[command(
        after_help = "The Switch takes a serial that is higher than every one before, tells the devices in the policy's \
            audience, and carries it to them.\nThey verify it themselves, with the roots that they were installed with. Try \
            a change out on one device first: audience = 'device == \"web1.example.org\"'.\n\n\
            Examples:\n  muster policy import policy-7.cms\n  muster policy import policy-7.cms policy-8.cms -o json"
    )]
    Import {
        /// The files, in the order of their serials
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// List the policies that the Switch holds, and how many devices follow each
    #[command(after_help = "Examples:\n  muster policy list\n  muster policy list -o json")]
    List {
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Show one policy: its text, who signed it, whom it is for, and how many of them follow it
    #[command(after_help = "Examples:\n  muster policy show 7\n  muster policy show 7 -o json")]
    Show {
        /// Its serial
        serial: u64,
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}
