//! What a development fleet tells when everything answers: a banner for people, a JSON file for scripts.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::exit::Failure;
use crate::home::{Home, Secrecy, write_file};
use crate::output;

/// The ready file (README, "Set-up").
#[derive(Debug, Serialize)]
pub(super) struct Ready {
    /// The session endpoint, `wss://…`.
    switch: String,
    /// The operator API, `host:port`.
    operator: String,
    /// The Background Channel's base, `https://…`.
    background_channel: String,
    /// The Switch's admin address, `http://…`.
    admin: String,
    /// The home folder.
    home: PathBuf,
    /// Process ids.
    pid: Pids,
    /// The publisher's key, which signs definitions.
    publisher_key: PathBuf,
    /// The publisher's certificate.
    publisher_cert: PathBuf,
}

#[derive(Debug, Serialize)]
struct Pids {
    dev: u32,
    clients: Vec<u32>,
}

/// Where a fleet's parts are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addresses {
    /// Sessions.
    pub(super) sessions: SocketAddr,
    /// Operator API.
    pub(super) operator: SocketAddr,
    /// Switch's admin address.
    pub(super) admin: SocketAddr,
    /// Background Channel.
    pub(super) background: SocketAddr,
}

impl Addresses {
    /// The session endpoint.
    pub(super) fn switch_url(&self) -> String {
        format!("wss://localhost:{}/v1/session", self.sessions.port())
    }

    /// The operator API; certificates are for `localhost`.
    pub(super) fn operator(&self) -> String {
        format!("localhost:{}", self.operator.port())
    }

    /// The Background Channel's base.
    pub(super) fn background_url(&self) -> String {
        format!("https://localhost:{}/Background/v1", self.background.port())
    }

    /// The admin address.
    pub(super) fn admin_url(&self) -> String {
        format!("http://{}", self.admin)
    }
}

/// Where the file is to be: it is there while the fleet is ready, and at no other time.
#[derive(Debug)]
pub(super) struct ReadyFile(PathBuf);

impl ReadyFile {
    /// Takes away what a fleet left that was killed.
    pub(super) fn new(path: PathBuf) -> Result<Self, Failure> {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Failure::usage(format!("--ready-file: {}: {error}", path.display())))
            }
            Ok(()) | Err(_) => Ok(Self(path)),
        }
    }

    /// Returns where it is.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for ReadyFile {
    fn drop(&mut self) {
        // Who reads it later finds ports that nobody listens at; it is taken away by the next fleet at the latest.
        drop(std::fs::remove_file(&self.0));
    }
}

impl Ready {
    /// Collects what is to be told.
    pub(super) fn new(home: &Home, addresses: &Addresses, clients: Vec<u32>) -> Self {
        Self {
            switch: addresses.switch_url(),
            operator: addresses.operator(),
            background_channel: addresses.background_url(),
            admin: addresses.admin_url(),
            home: home.folder().to_owned(),
            pid: Pids { dev: std::process::id(), clients },
            publisher_key: home.path("publisher/key.pem"),
            publisher_cert: home.path("publisher/cert.pem"),
        }
    }

    /// Writes the file, whole or not at all.
    pub(super) fn write(&self, path: &Path) -> Result<(), Failure> {
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| Failure::new(crate::exit::Exit::Refused, error.to_string()))?;
        write_file(path, &text, Secrecy::Public)
    }

    /// Prints the banner.
    pub(super) fn banner(&self, names: &[String], revoked: &[String]) -> Result<(), Failure> {
        let mut devices = match names {
            [] => "none".to_owned(),
            [one] => one.clone(),
            [first, .., last] => format!("{first} … {last} ({} of them)", names.len()),
        };
        if !revoked.is_empty() {
            devices.push_str(&format!(
                "\n  revoked, not started {}\n                      \
                 (the same command with --reissue lets them in again)",
                revoked.join(", ")
            ));
        }
        let program = program();
        let option = if std::env::home_dir().is_some_and(|user| user.join(".muster") == self.home) {
            String::new()
        } else {
            format!(" --home {}", self.home.display())
        };
        output::print_line(&format!(
            "\nMuster is ready.\n\n  \
             switch              {}\n  operator API        {}\n  background channel  {}\n  \
             metrics, health     {}/metrics\n  home                {} (context `dev`)\n  clients             {devices}\n\n\
             Try, in another terminal:\n  \
             {program}{option} ask 'SELECT name, version FROM os'\n  \
             {program}{option} ask 'SELECT name, count(*) AS n FROM processes GROUP BY name ORDER BY n DESC LIMIT 5' --on 'os == \"linux\"'\n  \
             {program}{option} run Muster-Certificates-Expiring -p days=90\n\n\
             Ctrl-C stops all of it.",
            self.switch,
            self.operator,
            self.background_channel,
            self.admin,
            self.home.display(),
        ))
    }
}

/// How this program was called, so that the commands can be pasted.
fn program() -> String {
    std::env::args_os()
        .next()
        .map_or_else(|| "muster".to_owned(), |program| program.to_string_lossy().into_owned())
}
