//! The command line of `muster-client`.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use muster_service::config::{CheckDepth, ConfigError, Loaded, Sources, load};
use muster_service::exit;
use muster_service::shutdown::{self, Shutdown};
use muster_service::{runtime, telemetry};

use crate::config::{Config, socket_in};
use crate::local::{self, Field, Reply, Request};
use crate::running::{DRAIN_TIMEOUT, credentials, start};

const PROGRAM: &str = "muster-client";

/// Worker threads: one for the session, one for everything else; helpers are processes of their own.
const WORKERS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1);

/// The agent on an endpoint.
#[derive(Debug, Parser)]
#[command(name = PROGRAM, version, about)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the client.
    Run(ConfigFiles),
    /// Show how the running client is, as JSON.
    Status(SocketArguments),
    /// Add an event to the running client's outbox.
    Event(EventArguments),
    /// Check or explain the configuration.
    Config(ConfigArguments),
    /// Run SQL apart from the client.
    #[command(hide = true)]
    SqlHelper,
}

/// Where the configuration is.
#[derive(Debug, Clone, Args)]
pub struct ConfigFiles {
    /// The configuration file.
    #[arg(
        long,
        env = "MUSTER_CLIENT_CONFIG",
        value_name = "FILE",
        default_value = "/etc/muster/client.toml"
    )]
    pub config: PathBuf,
    /// A folder of files that follow it, by name.
    #[arg(long, env = "MUSTER_CLIENT_CONF_D", value_name = "FOLDER")]
    pub conf_d: Option<PathBuf>,
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
        /// The particulars; whole numbers become numbers.
        #[arg(value_name = "KEY=VALUE", value_parser = parse_field)]
        fields: Vec<(String, Field)>,
    },
}

/// What to do with the configuration.
#[derive(Debug, Args)]
pub struct ConfigArguments {
    /// What to do.
    #[command(subcommand)]
    pub command: ConfigCommand,
}

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Say what is wrong with a file.
    Check {
        /// The configuration file.
        file: PathBuf,
        /// Also open the certificates, keys and roots that it names.
        #[arg(long)]
        files: bool,
    },
    /// Print every key, its value, and which layer set it.
    Explain(ConfigFiles),
}

/// Runs the client until a signal or a fault.
#[must_use]
pub fn run(files: &ConfigFiles) -> ExitCode {
    let config = match load_config(files) {
        Ok(loaded) => loaded.into_config(),
        Err(error) => return exit::refuse_config(PROGRAM, &error),
    };
    if let Err(error) = telemetry::init(&config.log) {
        return exit::refuse(PROGRAM, &error, exit::CONFIG);
    }
    match runtime(PROGRAM, WORKERS) {
        Ok(runtime) => runtime.block_on(serve(config)),
        Err(error) => exit::refuse(PROGRAM, &error, exit::UNAVAILABLE),
    }
}

async fn serve(config: Config) -> ExitCode {
    let shutdown = Shutdown::new();
    let signalled = shutdown::signal();
    let running = match start(config, shutdown.clone()).await {
        Ok(running) => running,
        Err(error) => return exit::refuse(PROGRAM, &error, exit::CONFIG),
    };
    tokio::select! {
        signal = signalled => match signal {
            Ok(signal) => tracing::info!(?signal, "stopping"),
            Err(error) => tracing::error!(%error, "signals cannot be received; stopping"),
        },
        () = shutdown.cancelled() => {}
    }
    let outcome = shutdown.drain(DRAIN_TIMEOUT).await;
    tracing::info!(?outcome, "stopped");
    match running.wait().await {
        Ok(()) => ExitCode::from(exit::OK),
        Err(error) => exit::refuse(PROGRAM, &*error, exit::FAILURE),
    }
}

/// Prints how the running client is.
#[must_use]
pub fn status(socket: &SocketArguments) -> ExitCode {
    ask(socket, &Request::Status {})
}

/// Adds an event.
#[must_use]
pub fn event(event: &EventArguments) -> ExitCode {
    let EventCommand::Post { socket, name, fields } = &event.command;
    let fields: BTreeMap<String, Field> = fields.iter().cloned().collect();
    ask(socket, &Request::Event { name: name.clone(), fields })
}

/// Checks or explains the configuration.
#[must_use]
pub fn config(config: &ConfigArguments) -> ExitCode {
    match &config.command {
        ConfigCommand::Check { file, files } => check(file, CheckDepth::from_flag(*files)),
        ConfigCommand::Explain(files) => match load_config(files) {
            Ok(loaded) => print(&loaded.explain().to_string()),
            Err(error) => exit::refuse_config(PROGRAM, &error),
        },
    }
}

fn check(file: &Path, depth: CheckDepth) -> ExitCode {
    let config = match load_config(&ConfigFiles { config: file.to_owned(), conf_d: None }) {
        Ok(loaded) => loaded.into_config(),
        Err(error) => return exit::refuse_config(PROGRAM, &error),
    };
    if depth == CheckDepth::Values {
        return print(&format!("{}: in order; --files also opens what it names", file.display()));
    }
    match credentials(&config) {
        Ok(_) => print(&format!("{}: in order", file.display())),
        Err(error) => exit::refuse(PROGRAM, &error, exit::CONFIG),
    }
}

fn load_config(files: &ConfigFiles) -> Result<Loaded<Config>, ConfigError> {
    let sources = Sources {
        file: Some(files.config.clone()),
        conf_d: files.conf_d.clone(),
        env_prefix: "MUSTER_CLIENT_".to_owned(),
        flags: Vec::new(),
    };
    load(PROGRAM, &sources)
}

fn ask(socket: &SocketArguments, request: &Request) -> ExitCode {
    let path = match &socket.data_dir {
        Some(data_dir) => socket_in(data_dir),
        None => match load_config(&socket.files) {
            Ok(loaded) => loaded.config().socket(),
            Err(error) => return exit::refuse_config(PROGRAM, &error),
        },
    };
    let runtime = match runtime(PROGRAM, NonZeroUsize::MIN) {
        Ok(runtime) => runtime,
        Err(error) => return exit::refuse(PROGRAM, &error, exit::UNAVAILABLE),
    };
    let refuse = |error: &dyn Error| exit::refuse(PROGRAM, error, exit::UNAVAILABLE);
    match runtime.block_on(local::ask(&path, request)) {
        Err(error) => refuse(&error),
        Ok(Reply::Sequence(sequence)) => print(&sequence.to_string()),
        Ok(Reply::Status(status)) => match serde_json::to_string_pretty(&status) {
            Ok(text) => print(&text),
            Err(error) => refuse(&error),
        },
        Ok(Reply::Error(error)) => refuse(&local::LocalError::Refused(error)),
    }
}

fn print(text: &str) -> ExitCode {
    match writeln!(std::io::stdout(), "{text}") {
        Ok(()) => ExitCode::from(exit::OK),
        Err(_) => ExitCode::from(exit::FAILURE),
    }
}

fn parse_field(text: &str) -> Result<(String, Field), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("got {text:?}, wanted KEY=VALUE"))?;
    let field = value.parse().map_or_else(|_| Field::Text(value.to_owned()), Field::Integer);
    Ok((name.to_owned(), field))
}
