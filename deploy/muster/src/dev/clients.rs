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
use crate::output;
use crate::pki_home::{PkiHome, Standing, Wanted};
use crate::provision::Revoked;

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

/// Whether a client may be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// It has a certificate.
    Certified,
    /// Its certificate was revoked, so nobody would let it in.
    Revoked,
}

/// Sees to a client's certificate. One that was revoked is replaced only when that is asked for.
pub(super) fn admit(home: &Home, folder: &Path, name: &str, revoked: Revoked) -> Result<Admission, Failure> {
    let path = own_folder(folder, name).join("tls");
    let wanted = Wanted::named(Role::Device, name, DAYS);
    if standing(home, &path, &wanted)? == Standing::Revoked {
        if revoked == Revoked::StaysOut {
            return Ok(Admission::Revoked);
        }
        issue(home, &path, &wanted)?;
        output::note(&format!("{name} was revoked and has a new certificate"));
    }
    ensure_certificate(home, &path, &wanted)?;
    Ok(Admission::Certified)
}

/// Writes a client's configuration, and starts it.
pub(super) fn start(
    home: &Home,
    folder: &Path,
    name: &str,
    addresses: &Addresses,
) -> Result<DevClient, Failure> {
    let own = own_folder(folder, name);
    let config = config(home, &own, name, addresses)?;
    let text = toml::to_string(&config).map_err(|error| Failure::new(Exit::Refused, error.to_string()))?;
    let path = own.join("client.toml");
    write_file(&path, text.as_bytes(), Secrecy::Private)?;
    spawn(name.to_owned(), &own, &path)
}

fn own_folder(folder: &Path, name: &str) -> PathBuf {
    folder.join("clients").join(name)
}

/// Issues a certificate into `PATH.pem` and `PATH.key` unless one of the present CA is there and stays for a while. A fleet
/// that was left alone for longer than its certificates live starts with new ones.
pub(super) fn ensure_certificate(home: &Home, path: &Path, wanted: &Wanted) -> Result<(), Failure> {
    let is_good = standing(home, path, wanted)? == Standing::Good;
    if is_good && path.with_extension("key").exists() { Ok(()) } else { issue(home, path, wanted) }
}

fn standing(home: &Home, path: &Path, wanted: &Wanted) -> Result<Standing, Failure> {
    let file = path.with_extension("pem");
    PkiHome::of(home).standing((wanted.role, &wanted.name), &file, RENEW_BEFORE, UnixTime::now())
}

fn issue(home: &Home, path: &Path, wanted: &Wanted) -> Result<(), Failure> {
    let issued = PkiHome::of(home).issue(wanted, UnixTime::now())?;
    write_file(&path.with_extension("key"), issued.key_pem.as_bytes(), Secrecy::Private)?;
    write_file(&path.with_extension("pem"), issued.chain_pem.as_bytes(), Secrecy::Public)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revoked_client_stays_out_until_it_is_reissued_under_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::locate(Some(folder.path().join("home"))).unwrap();
        let pki = PkiHome::of(&home);
        pki.create(UnixTime::now()).unwrap();
        let (one, two) = (name(1), name(2));
        let admit = |name: &str, revoked| admit(&home, folder.path(), name, revoked).unwrap();
        let certificate =
            |name: &str| std::fs::read(own_folder(folder.path(), name).join("tls.pem")).unwrap();
        assert_eq!(admit(&one, Revoked::StaysOut), Admission::Certified);
        assert_eq!(admit(&two, Revoked::StaysOut), Admission::Certified);
        let (first, second) = (certificate(&one), certificate(&two));

        pki.revoke(Role::Device, &two, UnixTime::now()).unwrap();

        assert_eq!(admit(&one, Revoked::StaysOut), Admission::Certified);
        assert_eq!(admit(&two, Revoked::StaysOut), Admission::Revoked);
        assert_eq!(certificate(&two), second);
        assert_eq!(admit(&two, Revoked::IsReissued), Admission::Certified);
        assert_eq!(admit(&two, Revoked::StaysOut), Admission::Certified);
        assert_ne!(certificate(&two), second);
        assert_eq!(certificate(&one), first, "who was not revoked keeps its own");
    }

    #[test]
    fn an_expired_certificate_is_issued_anew() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::locate(Some(folder.path().join("home"))).unwrap();
        let pki = PkiHome::of(&home);
        pki.create(UnixTime::now()).unwrap();
        let path = own_folder(folder.path(), "web1").join("tls");
        issue(&home, &path, &Wanted::named(Role::Device, "web1", -10)).unwrap();
        let wanted = Wanted::named(Role::Device, "web1", DAYS);
        assert_eq!(standing(&home, &path, &wanted).unwrap(), Standing::Ending);

        ensure_certificate(&home, &path, &wanted).unwrap();

        assert_eq!(standing(&home, &path, &wanted).unwrap(), Standing::Good);
    }
}
