//! The clients of a development fleet: real ones, each a process of its own with its SQL helpers below it.

use std::future::poll_fn;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::task::Poll;
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
/// What a client writes, in its own folder.
pub(super) const LOG: &str = "client.log";
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

/// A client's process that ended though nobody stopped it.
#[derive(Debug)]
pub(super) struct Ended {
    name: String,
    pid: u32,
    status: std::io::Result<ExitStatus>,
}

impl Ended {
    /// Says which process ended, how, and what comes of it.
    pub(super) fn told(&self, folder: &Path) -> String {
        let how = match &self.status {
            Ok(status) => status.to_string(),
            Err(error) => format!("how is not known ({error})"),
        };
        let log = own_folder(folder, &self.name).join(LOG);
        format!(
            "{} (process {}) ended: {how}; it is not started again before the next `muster dev`; its log: {}",
            self.name,
            self.pid,
            log.display()
        )
    }
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
    tenant: &str,
    addresses: &Addresses,
) -> Result<DevClient, Failure> {
    let own = own_folder(folder, name);
    let config = Config { tenant: tenant.to_owned(), ..config(home, &own, name, addresses)? };
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
    config.trust.policies = home.roots("policies");
    config.trust.timestamps = home.roots("timestamps");
    config.helper.program = program;
    config.helper.arguments = vec!["__sql-helper".to_owned()];
    // Without a Switch for this long, a development client takes the other road, so that one need not wait to see it.
    config.events.background_after = Duration::from_secs(5);
    Ok(config)
}

fn spawn(name: String, own: &Path, config: &Path) -> Result<DevClient, Failure> {
    let failed = |error: std::io::Error| Failure::new(Exit::Refused, format!("start client {name}: {error}"));
    let program = std::env::current_exe().map_err(failed)?;
    let log = std::fs::File::create(own.join(LOG)).map_err(failed)?;
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

/// Waits until one of the processes ends, and takes it out. While there is none, it waits.
pub(super) async fn one_ended(clients: &mut Vec<DevClient>) -> Ended {
    let (index, status) = poll_fn(|context| {
        let mut each = clients.iter_mut().enumerate();
        each.find_map(|(index, client)| match pin!(client.child.wait()).poll(context) {
            Poll::Ready(status) => Some(Poll::Ready((index, status))),
            Poll::Pending => None,
        })
        .unwrap_or(Poll::Pending)
    })
    .await;
    let DevClient { name, pid, .. } = clients.remove(index);
    Ended { name, pid, status }
}

/// Stops clients: SIGTERM to all, then SIGKILL to those that stay.
pub(super) async fn stop(clients: Vec<DevClient>) {
    for client in &clients {
        // One that was seen to end has no id any more: another process may have it.
        if let Some(pid) = client.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            // One that ends at this moment needs no signal.
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

    fn process(name: &str, program: &str, arguments: &[&str]) -> DevClient {
        let child = Command::new(program).args(arguments).kill_on_drop(true).spawn().unwrap();
        let pid = child.id().unwrap();
        DevClient { name: name.to_owned(), child, pid }
    }

    #[tokio::test]
    async fn a_client_that_is_killed_is_named_with_its_status_and_what_comes_of_it() {
        let mut clients = vec![process("one", "sleep", &["600"]), process("two", "sleep", &["600"])];
        let killed = clients[1].pid;
        kill(Pid::from_raw(i32::try_from(killed).unwrap()), Signal::SIGKILL).unwrap();

        let ended = one_ended(&mut clients).await.told(Path::new("/fleet"));

        assert!(ended.starts_with(&format!("two (process {killed}) ended: signal: 9")), "{ended}");
        assert!(
            ended.contains("not started again") && ended.ends_with("/fleet/clients/two/client.log"),
            "{ended}"
        );
        assert_eq!(clients.iter().map(|client| client.name.as_str()).collect::<Vec<_>>(), ["one"]);
        stop(clients).await;
    }

    #[tokio::test]
    async fn a_client_that_ends_by_itself_is_named_with_its_exit_code() {
        let mut clients = vec![process("one", "sleep", &["600"]), process("two", "sh", &["-c", "exit 78"])];

        let ended = one_ended(&mut clients).await.told(Path::new("/fleet"));

        assert!(ended.contains("ended: exit status: 78"), "{ended}");
        stop(clients).await;
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
