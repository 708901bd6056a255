//! A Switch that runs already, found by its home alone: the home names its operator API and admin address; whoever listens
//! there is its process, and what that process listens at besides is where sessions connect.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Deserialize;

use super::Place;
use crate::simulated::{Dialled, dial, upgrade};
use crate::tls::{self, Dialler, Resume, Suite};

/// What to do when it cannot be found.
const NEXT: &str =
    "give its addresses and process: --home DIR --operator HOST:PORT --switch HOST:PORT --pid PID";
/// How long a port may take to show whether sessions connect there.
const PROBE: Duration = Duration::from_secs(5);
/// State `TCP_LISTEN` in /proc/net/tcp.
const LISTEN: &str = "0A";

#[derive(Debug, Deserialize)]
struct Contexts {
    #[serde(default)]
    current: String,
    #[serde(default, rename = "context")]
    contexts: Vec<Context>,
}

#[derive(Debug, Deserialize)]
struct Context {
    name: String,
    switch: String,
    #[serde(default)]
    admin: String,
}

/// What was typed beside the home.
#[derive(Debug, Clone, Default)]
pub(crate) struct Typed {
    pub(crate) operator: Option<String>,
    pub(crate) switch: Option<String>,
    pub(crate) pid: Option<u32>,
}

/// Finds the Switch of a home, or of a `muster dev --dir` whose home is in it.
pub(crate) async fn find(folder: &Path, typed: Typed) -> anyhow::Result<Place> {
    let home = home(folder)?;
    if let Typed { operator: Some(operator), switch: Some(sessions), pid } = typed {
        return Ok(Place { home, sessions, operator, admin: None, pid });
    }
    let context = context(&home)?;
    let operator = typed.operator.unwrap_or(context.switch);
    let listeners = listeners()?;
    let at = |address: &str| port(address).and_then(|port| listeners.get(&port).copied());
    let admin = Some(context.admin.as_str()).filter(|admin| !admin.is_empty());
    let pid = typed.pid.or_else(|| at(admin.unwrap_or(&operator)));
    let Some(pid) = pid else {
        bail!(
            "{}: nobody listens at {}, where its context `{}` says that the Switch is; start it (muster dev --dir DIR), or {NEXT}",
            home.display(),
            admin.unwrap_or(&operator),
            context.name
        );
    };
    let sessions = match typed.switch {
        Some(sessions) => sessions,
        None => {
            let known: BTreeSet<u16> =
                [operator.as_str(), &context.admin].into_iter().filter_map(port).collect();
            let candidates: Vec<u16> = listeners
                .iter()
                .filter(|(port, holder)| **holder == pid && !known.contains(port))
                .map(|(port, _)| *port)
                .collect();
            probe(&home, &candidates).await?
        }
    };
    let admin = admin.map(|admin| {
        let bare = admin.trim_start_matches("http://");
        bare.split('/').next().unwrap_or(bare).to_owned()
    });
    Ok(Place { home, sessions, operator, admin, pid: Some(pid) })
}

fn home(folder: &Path) -> anyhow::Result<PathBuf> {
    let inside = folder.join("home");
    let is_home = |folder: &Path| folder.join("trust").is_dir() && folder.join("operator").is_dir();
    if is_home(folder) {
        Ok(folder.to_owned())
    } else if is_home(&inside) {
        Ok(inside)
    } else {
        bail!(
            "{}: no home of muster (it has no trust/ and operator/, nor has home/ in it); `muster dev --dir DIR` makes one",
            folder.display()
        )
    }
}

fn context(home: &Path) -> anyhow::Result<Context> {
    let path = home.join("contexts.toml");
    let text = std::fs::read_to_string(&path).with_context(|| format!("{}: {NEXT}", path.display()))?;
    let contexts: Contexts = toml::from_str(&text).with_context(|| path.display().to_string())?;
    let current = contexts.current;
    let found = contexts.contexts.into_iter().find(|context| context.name == current);
    found.with_context(|| format!("{}: no context `{current}`; {NEXT}", path.display()))
}

/// The port of `http://host:port/` or `host:port`.
fn port(address: &str) -> Option<u16> {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    rest.split('/').next()?.rsplit_once(':')?.1.parse().ok()
}

/// Ports that somebody listens at, and the process, as far as its descriptors may be read.
pub(crate) fn listeners() -> anyhow::Result<BTreeMap<u16, u32>> {
    let mut inodes = BTreeMap::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        // A machine without IPv6 has no second table.
        let text = std::fs::read_to_string(table).unwrap_or_default();
        inodes.extend(text.lines().skip(1).filter_map(listening));
    }
    let mut holders = BTreeMap::new();
    for process in std::fs::read_dir("/proc")?.flatten() {
        let Ok(pid) = process.file_name().to_string_lossy().parse::<u32>() else { continue };
        // Each thread may have a table of descriptors of its own. A process may end meanwhile.
        for thread in std::fs::read_dir(process.path().join("task")).into_iter().flatten().flatten() {
            for descriptor in std::fs::read_dir(thread.path().join("fd")).into_iter().flatten().flatten() {
                let Ok(target) = std::fs::read_link(descriptor.path()) else { continue };
                let target = target.to_string_lossy();
                let inode = target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
                let port =
                    inode.and_then(|inode| inode.parse::<u64>().ok()).and_then(|inode| inodes.get(&inode));
                if let Some(port) = port {
                    holders.insert(*port, pid);
                }
            }
        }
    }
    Ok(holders)
}

/// Inode and port of a line of /proc/net/tcp, if it is of a socket that listens.
fn listening(line: &str) -> Option<(u64, u16)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let port = words.get(1)?.rsplit_once(':')?.1;
    (*words.get(3)? == LISTEN).then_some(())?;
    Some((words.get(9)?.parse().ok()?, u16::from_str_radix(port, 16).ok()?))
}

/// The port where a device gets a session's WebSocket.
async fn probe(home: &Path, candidates: &[u16]) -> anyhow::Result<String> {
    let [identity] = &tls::issue_devices(home, &["load-probe".to_owned()])?[..] else {
        bail!("no certificate")
    };
    let tls = Dialler::new(&tls::server_roots(home)?, Suite::X25519)?.config(identity, Resume::Never)?;
    for port in candidates {
        let address = format!("127.0.0.1:{port}");
        let opening = async {
            let stream = dial(&address, &Dialled::default(), Arc::clone(&tls)).await?;
            upgrade(stream, &format!("wss://{address}/v1/session"), Some("muster.v1")).await
        };
        if let Ok(Ok(_)) = tokio::time::timeout(PROBE, Box::pin(opening)).await {
            return Ok(address);
        }
    }
    bail!("none of the ports {candidates:?} of the Switch takes sessions; {NEXT}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found_by_the_port_that_it_listens_at() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();

        assert_eq!(listeners().unwrap().get(&port), Some(&std::process::id()));
    }

    #[test]
    fn ports_are_read_from_urls_and_addresses() {
        assert_eq!(port("http://127.0.0.1:4002"), Some(4002));
        assert_eq!(port("localhost:4001"), Some(4001));
        assert_eq!(port("http://127.0.0.1:4002/x:9"), Some(4002));
        assert_eq!(port("localhost"), None);
    }

    #[test]
    fn a_folder_that_is_no_home_is_refused_with_what_makes_one() {
        let folder = tempfile::tempdir().unwrap();

        let told = home(folder.path()).unwrap_err().to_string();

        assert!(told.contains("muster dev --dir"), "{told}");
    }
}
