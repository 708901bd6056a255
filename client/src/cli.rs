//! The commands that only `muster-client` has: asking the client that runs on this machine.

pub mod cert;
pub mod trust;

use std::collections::BTreeMap;
use std::error::Error;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use muster_pki::text::escaped_json;
use muster_proto::common::v1::NamedValue;
use muster_proto::frame::{self, FrameError};
use muster_proto::session::v1::{Event, Frame, frame::Body};
use muster_service::program::{self, ConfigFiles, Standard, print};
use muster_service::{exit, runtime};
use serde::Serialize;

use crate::config::{Config, socket_in};
use crate::local::{self, Field, LocalError, Reply, Request};
use crate::program::Program;
use crate::value;

const NAME: &str = <Program as program::Program>::NAME;

/// The command line of `muster-client`.
#[derive(Debug, Parser)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// What every program does.
    #[command(flatten)]
    Standard(Standard),
    /// Show how the running client is, as JSON.
    Status(SocketArguments),
    /// Add an event to the running client's outbox.
    Event(EventArguments),
    /// Show which policy the running client follows, or have it ask for a later one.
    Policy(PolicyArguments),
    /// Look after the trust store of `trust.folder`: the servers that this client trusts.
    #[command(subcommand)]
    Trust(trust::TrustCommand),
    /// Look after the certificates of `tls.store`, of which this client shows one.
    #[command(subcommand)]
    Cert(cert::CertCommand),
    /// Run SQL apart from the client.
    #[command(hide = true)]
    SqlHelper,
}

/// Which running client.
#[derive(Debug, Clone, Args)]
pub struct SocketArguments {
    /// Where the configuration is.
    #[command(flatten)]
    pub files: ConfigFiles,
    /// The client's data_dir, instead of the one in its configuration.
    #[arg(long, value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,
}

/// What to do about policies.
#[derive(Debug, Args)]
pub struct PolicyArguments {
    /// What to do.
    #[command(subcommand)]
    pub command: PolicyCommand,
}

/// What to do about policies.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Show the policy that is followed, as JSON: serial, text, the serial of one that is tried beside it, and why the one in
    /// `policy.file` is not taken.
    #[command(after_help = "Example:\n  muster-client policy show | jq -r .text")]
    Show(SocketArguments),
    /// Ask the Switch for a later policy at once; the client asks by itself at each session and hourly.
    #[command(
        after_help = "Examples:\n  muster-client policy refresh && sleep 5 && muster-client policy show\n  \
                      muster-client policy refresh --retry"
    )]
    Refresh(RefreshArguments),
}

/// What is asked for.
#[derive(Debug, Args)]
pub struct RefreshArguments {
    /// Which client.
    #[command(flatten)]
    pub socket: SocketArguments,
    /// Look again at policies that were refused, and try again the last one if it gave no session in time.
    #[arg(long)]
    pub retry: bool,
}

/// What to do with the outbox.
#[derive(Debug, Args)]
pub struct EventArguments {
    /// What to do.
    #[command(subcommand)]
    pub command: EventCommand,
}

/// What to do with the outbox.
#[derive(Debug, Subcommand)]
pub enum EventCommand {
    /// Add an event, and print its number once it is on disk.
    Post {
        /// Which client.
        #[command(flatten)]
        socket: SocketArguments,
        /// What happened, such as `app.started`.
        name: String,
        /// The particulars, each key once; whole numbers become numbers.
        #[arg(value_name = "KEY=VALUE", value_parser = parse_field)]
        fields: Vec<(String, Field)>,
    },
}

/// Prints how the running client is.
#[must_use]
pub fn status(socket: &SocketArguments) -> ExitCode {
    ask(socket, &Request::Status {})
}

/// Shows the policy that is followed, or has a later one asked for.
#[must_use]
pub fn policy(policy: &PolicyArguments) -> ExitCode {
    match &policy.command {
        PolicyCommand::Show(socket) => ask(socket, &Request::Policy {}),
        PolicyCommand::Refresh(RefreshArguments { socket, retry }) => {
            ask(socket, &Request::RefreshPolicy { retry: *retry })
        }
    }
}

/// Adds an event.
#[must_use]
pub fn event(event: &EventArguments) -> ExitCode {
    let EventCommand::Post { socket, name, fields } = &event.command;
    match event_request(name, fields) {
        Ok(request) => ask(socket, &request),
        Err(error) => exit::refuse(NAME, &error, exit::USAGE),
    }
}

/// What is wrong with the arguments of `event post`.
#[derive(Debug, PartialEq, thiserror::Error)]
enum ArgumentError {
    #[error("event post: KEY=VALUE: `{0}` stands twice; give each key once")]
    Twice(String),
    #[error("event post: {argument}: {problem}")]
    Unfit { argument: String, problem: FrameError },
}

/// Makes the request, of what the Switch would take only.
fn event_request(name: &str, fields: &[(String, Field)]) -> Result<Request, ArgumentError> {
    let check = |argument: String, fields: Vec<NamedValue>| {
        let event = Event { sequence: 1, occurred_at_ms: 1, name: name.to_owned(), fields };
        frame::check(&Frame { body: Some(Body::Event(event)), proof: None })
            .map_err(|problem| ArgumentError::Unfit { argument, problem })
    };
    check(format!("NAME `{name}`"), Vec::new())?;
    let mut named = BTreeMap::new();
    for (key, field) in fields {
        check(format!("KEY=VALUE with key `{key}`"), vec![wire(key, field)])?;
        if named.insert(key.clone(), field.clone()).is_some() {
            return Err(ArgumentError::Twice(key.clone()));
        }
    }
    check("all KEY=VALUE together".to_owned(), fields.iter().map(|(key, field)| wire(key, field)).collect())?;
    Ok(Request::Event { name: name.to_owned(), fields: named })
}

fn wire(key: &str, field: &Field) -> NamedValue {
    match field {
        Field::Integer(number) => value::integer(key, *number),
        Field::Text(text) => value::text(key, text),
    }
}

fn ask(socket: &SocketArguments, request: &Request) -> ExitCode {
    let path = match &socket.data_dir {
        Some(data_dir) => socket_in(data_dir),
        None => match program::load::<Program>(&socket.files) {
            Ok(loaded) => loaded.config().socket(),
            Err(errors) => return exit::refuse_config(NAME, &errors),
        },
    };
    let refuse = |error: &dyn Error| exit::refuse(NAME, error, exit::UNAVAILABLE);
    let runtime = match runtime(NAME, NonZeroUsize::MIN) {
        Ok(runtime) => runtime,
        Err(error) => return refuse(&error),
    };
    match runtime.block_on(local::ask(&path, request)) {
        Err(LocalError::Unreachable { path, cause }) => refuse(&Unreachable { path, cause }),
        Err(error) => refuse(&error),
        Ok(Reply::Sequence(sequence)) => print(&sequence.to_string()),
        Ok(Reply::Status(status)) => print_json(&status),
        Ok(Reply::Policy(policy)) => print_json(&policy),
        Ok(Reply::Error(error)) => refuse(&LocalError::Refused(error)),
    }
}

/// Reads the configuration, for commands that work on its files.
fn loaded(files: &ConfigFiles) -> Result<Config, ExitCode> {
    match program::load::<Program>(files) {
        Ok(loaded) => Ok(loaded.config().clone()),
        Err(errors) => Err(exit::refuse_config(NAME, &errors)),
    }
}

fn print_json(shown: &impl Serialize) -> ExitCode {
    match serde_json::to_string_pretty(shown) {
        // Some of it is a Switch's or a document's text.
        Ok(text) => print(&escaped_json(&text)),
        Err(error) => exit::refuse(NAME, &error, exit::FAILURE),
    }
}

/// [`LocalError::Unreachable`] for whoever typed the command.
#[derive(Debug, thiserror::Error)]
#[error(
    "{path}: {cause}; is the client running? `systemctl status muster-client` says; its socket is for root and whoever \
     may enter its data_dir, --data-dir names another"
)]
struct Unreachable {
    path: PathBuf,
    cause: std::io::Error,
}

fn parse_field(text: &str) -> Result<(String, Field), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("got {text:?}, wanted KEY=VALUE"))?;
    let field = value.parse().map_or_else(|_| Field::Text(value.to_owned()), Field::Integer);
    Ok((name.to_owned(), field))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_made_of_its_arguments() {
        let request = event_request("app.started", &fields(&["port=80", "user=w"])).unwrap();

        let Request::Event { name, fields } = request else { panic!("{request:?}") };
        assert_eq!(name, "app.started");
        assert_eq!(fields["port"], Field::Integer(80));
        assert_eq!(fields["user"], Field::Text("w".to_owned()));
    }

    #[test]
    fn a_mistake_names_the_argument() {
        let many: Vec<String> = (0..33).map(|number| format!("key{number}=1")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let long = format!("key={}", "x".repeat(70_000));
        for (name, given, wanted) in [
            ("App Started", &[][..], "NAME `App Started`"),
            ("", &[], "NAME ``"),
            ("app.started", &["=1"], "key ``"),
            ("app.started", &["user=a", long.as_str()], "key `key`"),
            ("app.started", &["user=a", "user=b"], "`user` stands twice"),
            ("app.started", many.as_slice(), "all KEY=VALUE together"),
        ] {
            let error = event_request(name, &fields(given)).unwrap_err().to_string();

            assert!(error.contains(wanted), "{wanted}: {error}");
        }
    }

    fn fields(texts: &[&str]) -> Vec<(String, Field)> {
        texts.iter().map(|text| parse_field(text).unwrap()).collect()
    }
}
