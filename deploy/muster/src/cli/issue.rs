//! What can be typed behind `muster ask` and `muster run`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use muster_sign::key::KeySource;

use crate::output::Format;

/// What `ask` and `run` share.
#[derive(Debug, Args)]
pub(crate) struct Issue {
    /// For whom: an expression such as 'os == "linux" && cpus >= 4' [default: every device]
    #[arg(long, value_name = "EXPR", default_value = "", hide_default_value = true)]
    pub(crate) on: String,
    /// How long to wait for answers; the instruction goes on after it
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) wait: Duration,
    /// How long clients may start it, such as 1h [default: the definition's]
    #[arg(long, value_name = "TIME", value_parser = lifetime)]
    pub(crate) gather: Option<Duration>,
    /// How long the Switch keeps the results after that, such as 7d [default: the definition's]
    #[arg(long, value_name = "TIME", value_parser = lifetime)]
    pub(crate) keep: Option<Duration>,
    /// Show whom it would reach, and send nothing
    #[arg(long)]
    pub(crate) what_if: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Format,
    #[command(flatten)]
    pub(crate) key: OrderKey,
}

/// The key that signs the order.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Order key")]
pub(crate) struct OrderKey {
    /// A PEM file, a PFX, or the PKCS#11 URI of a token's key, such as 'pkcs11:token=orders;object=ann' [default: operator/order.key
    /// of the home]
    #[arg(long, env = "MUSTER_ORDER_KEY", value_name = "FILE|pkcs11:URI")]
    pub(crate) order_key: Option<KeySource>,
    /// Its certificate and those above it (PEM) [default: those beside the key]
    #[arg(long, env = "MUSTER_ORDER_CERT", value_name = "FILE", requires = "order_key")]
    pub(crate) order_cert: Option<PathBuf>,
    /// A file whose first line is the key's password or PIN; else MUSTER_KEY_PASSWORD, else the terminal is asked
    #[arg(long, value_name = "FILE")]
    pub(crate) key_password_file: Option<PathBuf>,
    /// The library of the token's maker, where the URI has no module-path
    #[arg(long, env = "MUSTER_PKCS11_MODULE", value_name = "FILE")]
    pub(crate) pkcs11_module: Option<PathBuf>,
}

/// `muster ask`
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  muster ask 'SELECT name, version FROM os'\n  \
    muster ask \"SELECT path, not_after FROM certificates WHERE path GLOB '/etc/ssl/*.pem'\" --on 'host.startsWith(\"web\")' --wait 30s\n\n\
    The tables: os host cpu memory disks mounts processes listening_ports interfaces routes users packages services \
    files certificates time.\n`muster ask 'SELECT * FROM TABLE LIMIT 1'` shows a table's columns.")]
pub(crate) struct Ask {
    /// The question: one SELECT over the tables of the machine
    #[arg(value_name = "SQL")]
    pub(crate) sql: String,
    #[command(flatten)]
    pub(crate) issue: Issue,
}

/// `muster run`
#[derive(Debug, Args)]
#[command(
    after_help = "Where the definition has an aggregate and every target has come to an end, a table shows that in the place of the rows, which --rows \
        shows. json, jsonl and csv are the rows in any case, so that scripts have what the definition declares; \
        `muster instruction aggregate ID -o json` is the aggregate for scripts.\n\n\
        Examples:\n  muster run Muster-Os-Version\n  muster run Muster-Os-Version --rows\n  \
        muster run Acme-Security-ExpiringCertificates -p days=14 --on 'os == \"linux\"' -o csv"
)]
pub(crate) struct Run {
    /// The definition's name
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Its version [default: the highest that is licensed, and none below what was seen from here]
    #[arg(long, value_name = "V", default_value = "", hide_default_value = true)]
    pub(crate) definition_version: String,
    /// An argument; repeat it for more
    #[arg(short, long = "param", value_name = "NAME=VALUE", value_parser = name_and_value)]
    pub(crate) parameters: Vec<(String, String)>,
    /// Do not ask for the device count before an action
    #[arg(long)]
    pub(crate) yes: bool,
    /// Show the rows of every device, also where the definition has an aggregate
    #[arg(long)]
    pub(crate) rows: bool,
    #[command(flatten)]
    pub(crate) issue: Issue,
}

/// Nothing can be gathered or kept in no time; the definition's own bounds are the Switch's to check.
fn lifetime(text: &str) -> Result<Duration, String> {
    let lifetime = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if lifetime < Duration::from_secs(1) { Err("expected at least 1s".to_owned()) } else { Ok(lifetime) }
}

fn name_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE, such as days=14".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_may_hold_equals_signs() {
        assert_eq!(name_and_value("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(name_and_value("=c").is_err());
    }
}
