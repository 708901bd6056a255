//! The clients of a development fleet: real ones, each a process of its own with its SQL helpers below it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use muster_client::Config;
use muster_pki::{Role, UnixTime};
use muster_service::config::Sources;
use muster_service::shutdown::{self, Shutdown};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

use super::ready::Addresses;
use crate::exit::{Exit, Failure};
use crate::home::{Home, Secrecy, write_file};
use crate::pki_home::{PkiHome, Wanted};

/// A client's certificate in a development fleet lives this long.
const DAYS: i32 = 90;
/// One that ends sooner than this is issued anew when the fleet starts.
const RENEW_BEFORE: Duration = Duration::from_secs(7 * 86_400);
/// From SIGTERM to SIGKILL.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// One client's process.
#[derive(Debug)]
pub(super) struct DevClient {
    /// Its DeviceId.
    pub(super) name: String,
    child: Child,
    /// Its process id.
    pub(super) pid: u32,
}

/// The name of the n-th client, from 1.
pub(super) fn name(n: u16) -> String {
    format!("client-{n}.dev.muster")
}

/// Writes a client's certificate and configuration, and starts it.
pub(super) fn start(home: &Home, folder: &Path, n: u16, addresses: &Addresses) -> Result<DevClient, Failure> {
    let name = name(n);
    let own = folder.join("clients").join(&name);
    ensure_certificate(home, &own.join("tls"), &Wanted::named(Role::Device, &name, DAYS))?;
    let config = config(home, &own, &name, addresses)?;
    let text = toml::to_string(&config).map_err(|error| Failure::new(Exit::Refused, error.to_string()))?;
    let path = own.join("client.toml");
    write_file(&path, text.as_bytes(), Secrecy::Private)?;
    spawn(name, &own, &path)
}

/// Issues a certificate into `PATH.pem` and `PATH.key` unless a fresh one of the present CA is there.
pub(super) fn ensure_certificate(home: &Home, path: &Path, wanted: &Wanted) -> Result<(), Failure> {
    let certificate = path.with_extension("pem");
    let key = path.with_extension("key");
    let folder = crate::pki_home::folder(wanted.role)?;
    if key.exists() && is_fresh(&certificate, &home.path(&format!("pki/{folder}/issuing.pem"))) {
        return Ok(());
    }
    let issued = PkiHome::of(home).issue(wanted, UnixTime::now())?;
    write_file(&key, issued.key_pem.as_bytes(), Secrecy::Private)?;
    write_file(&certificate, issued.chain_pem.as_bytes(), Secrecy::Public)
}

/// Whether a certificate is of this issuer and stays valid for a while.
fn is_fresh(certificate: &Path, issuer: &Path) -> bool {
    let read = |path: &Path| {
        let bytes = std::fs::read(path).ok()?;
        let chain = muster_pki::pem::certificates(&bytes, "certificate").ok()?;
        chain.into_iter().map(|der| muster_pki::Certificate::from_der(&der).ok()).collect::<Option<Vec<_>>>()
    };
    let (Some(chain), Some(issuer)) = (read(certificate), read(issuer)) else { return false };
    let stays = |leaf: &muster_pki::Certificate| {
        leaf.not_after().as_secs() > UnixTime::now().as_secs() + RENEW_BEFORE.as_secs()
    };
    let same = |ca: &muster_pki::Certificate| {
        issuer.first().is_some_and(|issuer| issuer.thumbprint() == ca.thumbprint())
    };
    chain.first().is_some_and(stays) && chain.get(1).is_some_and(same)
}

fn config(home: &Home, own: &Path, name: &str, addresses: &Addresses) -> Result<Config, Failure> {
    let program = std::env::current_exe()
        .map_err(|error| Failure::new(Exit::Refused, format!("this program's own path: {error}")))?;
    let mut config = Config {
        switch: addresses.switch_url(),
        background_channel: addresses.background_url(),
        tenant: super::fleet::TENANT.to_owned(),
        data_dir: own.join("data"),
        computer_name: name.to_owned(),
        ..Config::default()
    };
    config.tls.certificate = own.join("tls.pem");
    config.tls.key = own.join("tls.key");
    config.trust.switch = home.roots("servers");
    config.trust.authors = home.roots("authors");
    config.trust.orders = home.roots("orders");
    config.trust.licences = home.roots("licences");
    config.helper.program = program;
    config.helper.arguments = vec!["__sql-helper".to_owned()];
    // Without a Switch for this long, a development client takes the other road, so that one need not wait to see it.
    config.events.background_after = Duration::from_secs(5);
    Ok(config)
}

fn spawn(name: String, own: &Path, config: &Path) -> Result<DevClient, Failure> {
    let failed = |error: std::io::Error| Failure::new(Exit::Refused, format!("start client {name}: {error}"));
    let program = std::env::current_exe().map_err(failed)?;
    let log = std::fs::File::create(own.join("client.log")).map_err(failed)?;
    let child = Command::new(program)
        .arg("__client")
        .arg("--config")
        .arg(config)
        .stdin(Stdio::null())
        .stdout(Stdio::from(log.try_clone().map_err(failed)?))
        .stderr(Stdio::from(log))
        // A Ctrl-C is for this process alone, which then stops its clients in order.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let pid = child.id().unwrap_or_default();
    Ok(DevClient { name, child, pid })
}

/// Stops clients: SIGTERM to all, then SIGKILL to those that stay.
pub(super) async fn stop(clients: Vec<DevClient>) {
    for client in &clients {
        if let Ok(pid) = i32::try_from(client.pid) {
            // One that has ended already needs no signal.
            kill(Pid::from_raw(pid), Signal::SIGTERM).ok();
        }
    }
    let deadline = tokio::time::Instant::now() + STOP_DEADLINE;
    for mut client in clients {
        if tokio::time::timeout_at(deadline, client.child.wait()).await.is_err() {
            drop(client.child.kill().await);
        }
    }
}

/// The hidden subcommand `__client`: runs one client until it is told to stop or its parent ends.
pub(super) fn run_one(path: &Path) -> Result<Exit, Failure> {
    // A client of a development fleet must not outlive it, however that ends.
    prctl::set_pdeathsig(Signal::SIGTERM).map_err(|error| Failure::new(Exit::Refused, error.to_string()))?;
    let refused =
        |error: &dyn std::error::Error| Failure::new(Exit::Refused, muster_service::exit::describe(error));
    let sources = Sources { file: Some(PathBuf::from(path)), ..Sources::default() };
    let config: Config =
        muster_service::config::load("client", &sources).map_err(|error| refused(&error))?.into_config();
    muster_service::telemetry::init(&config.log).map_err(|error| refused(&error))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| refused(&error))?;
    runtime.block_on(async {
        let shutdown = Shutdown::new();
        let signalled = shutdown::signal();
        let running =
            muster_client::start(config, shutdown.clone()).await.map_err(|error| refused(&error))?;
        let stop = shutdown.clone();
        let ended = tokio::select! {
            biased;
            signal = signalled => { drop(signal); stop.trigger(); Ok(()) }
            () = shutdown.cancelled() => Ok(()),
        };
        running.wait().await.and(ended).map_err(|error| refused(&error))?;
        Ok(Exit::Ok)
    })
}
