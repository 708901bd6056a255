//! Assembles the fleet, keeps it, and ends it in order: clients, Switch, Background Channel.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_pki::{Role, UnixTime};
use muster_proto::operator::v1::{GetStatusRequest, ImportDefinitionRequest, ImportLicenceRequest};
use muster_service::credentials::{IssuerSettings, RevocationSettings};
use muster_service::exit::describe;
use muster_service::shutdown::{self, Shutdown};
use muster_service::telemetry::{self, LogConfig};
use muster_sign::FileKind;

use super::clients::{self, Admission, DevClient};
use super::crls;
use super::ready::{Addresses, Ready, ReadyFile};
use crate::cli::{Dev, Ports};
use crate::command::devices;
use crate::exit::{Exit, Failure};
use crate::home::{Context, Home, read_file};
use crate::operator::{Operator, answered};
use crate::output;
use crate::pki_home::{PkiHome, Wanted};
use crate::provision::{self, Revoked};

/// The organisation of a development fleet whose home names no other.
const TENANT: &str = "dev";
/// What to do when a file of the home cannot be read: what is not there is made at the start.
const NEXT: &str = "give it to the user who runs this, or delete it and run muster dev again";
/// A server's certificate in a development fleet lives this long.
const SERVER_DAYS: i32 = 90;
/// The roles whose roots the Switch has.
const TRUSTED_BY_SWITCH: [&str; 8] =
    ["devices", "operators", "services", "authors", "orders", "licences", "policies", "timestamps"];
/// The roles whose roots the Background Channel has.
const TRUSTED_BY_BACKGROUND_CHANNEL: [&str; 3] = ["devices", "operators", "servers"];
/// From the start of the clients until all of them have sessions.
const READY_DEADLINE: Duration = Duration::from_secs(60);
/// How often the sessions are counted meanwhile.
const READY_INTERVAL: Duration = Duration::from_millis(100);

/// Runs a fleet until SIGINT or SIGTERM, or until one of its parts fails.
pub(super) fn run(home: Option<PathBuf>, arguments: &Dev) -> Result<Exit, Failure> {
    let home = match (home, &arguments.dir) {
        (None, Some(dir)) => Home::locate(Some(dir.join("home")))?,
        (home, _) => Home::locate(home)?,
    };
    let folder = arguments.dir.clone().unwrap_or_else(|| home.path("dev"));
    let folder = std::path::absolute(&folder)
        .map_err(|error| Failure::usage(format!("{}: {error}", folder.display())))?;
    let _lock = lock(&folder)?;
    // Two fleets of one home would take turns at its context.
    std::fs::create_dir_all(home.folder())
        .map_err(|error| Failure::usage(format!("{}: {error}", home.folder().display())))?;
    let _home_lock = lock(home.folder())?;
    if let Some(parent) = arguments.ready_file.as_deref().and_then(Path::parent)
        && !parent.as_os_str().is_empty()
        && !parent.is_dir()
    {
        return Err(Failure::usage(format!("--ready-file: there is no folder {}", parent.display())));
    }
    let ready_file = arguments.ready_file.clone().map(ReadyFile::new).transpose()?;
    let log = LogConfig { filter: "warn".to_owned(), ..LogConfig::default() };
    telemetry::init(&log).map_err(|error| refused(&error))?;
    let tenant = tenant(&home)?;
    // Before there are CAs, so that theirs names the port as well.
    let crls = crls::open(&home, arguments.ports == Ports::Auto)?;
    let pki = PkiHome::of(&home);
    if !pki.exists() {
        output::note(&format!("making a development CA in {}", home.folder().display()));
        provision::provision(&home, &tenant, &pki.crl_base_url()?, UnixTime::now())?;
    } else {
        provision::renew(&home, &tenant, revoked_policy(arguments), UnixTime::now())?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| refused(&error))?;
    let shutdown = Shutdown::new();
    let fleet = Fleet { home, tenant, folder, ready_file, shutdown, runtime };
    fleet.run(arguments, crls)
}

/// The organisation that the home's licence is for, as `muster pki init --tenant` said: a Switch takes no other licence.
fn tenant(home: &Home) -> Result<String, Failure> {
    let tenant = provision::tenant(home, UnixTime::now())?.unwrap_or_else(|| TENANT.to_owned());
    if tenant != TENANT {
        output::note(&format!("the home was made for tenant `{tenant}`, and so is this fleet"));
    }
    Ok(tenant)
}

fn revoked_policy(arguments: &Dev) -> Revoked {
    if arguments.reissue { Revoked::IsReissued } else { Revoked::StaysOut }
}

/// Two fleets in one folder would share stores; the lock ends with the process.
fn lock(folder: &Path) -> Result<File, Failure> {
    std::fs::create_dir_all(folder).map_err(|error| {
        let problem =
            format!("{}: {error}; wanted a folder, or a path where one can be made", folder.display());
        Failure::usage(problem).with_next("muster dev --dir DIR")
    })?;
    let path = folder.join("lock");
    let file = File::create(&path).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            Err(Failure::usage(format!("another `muster dev` runs in {}", folder.display()))
                .with_next("stop it, or choose another folder: muster dev --dir DIR --ports auto"))
        }
        Err(std::fs::TryLockError::Error(error)) => {
            Err(Failure::usage(format!("{}: {error}", path.display())))
        }
    }
}

struct Fleet {
    home: Home,
    tenant: String,
    folder: PathBuf,
    ready_file: Option<ReadyFile>,
    shutdown: Shutdown,
    runtime: tokio::runtime::Runtime,
}

impl Fleet {
    fn run(self, arguments: &Dev, crls: Option<std::net::TcpListener>) -> Result<Exit, Failure> {
        {
            let _inside = self.runtime.enter();
            crls::publish(&self.home, crls, &self.shutdown);
        }
        let switch = muster_switch::start(self.switch_config(arguments.ports)?, self.shutdown.clone())
            .map_err(|error| refused(&error).with_next("muster dev --ports auto"))?;
        let background_config = self.background_config(arguments.ports, switch.operator_addr())?;
        let background = self
            .runtime
            .block_on(Box::pin(muster_background_channel::start(background_config, self.shutdown.clone())))
            .map_err(|error| refused(&error).with_next("muster dev --ports auto"))?;
        let addresses = Addresses {
            sessions: switch.session_addr(),
            operator: switch.operator_addr(),
            admin: switch.admin_addr(),
            background: background.addr(),
        };
        let outcome = self.runtime.block_on(Box::pin(self.serve(arguments, &addresses)));
        self.shutdown.trigger();
        let background_ended = self.runtime.block_on(background.wait());
        let switch_ended = switch.wait();
        outcome?;
        switch_ended.map_err(|error| refused(&error))?;
        background_ended.map_err(|error| refused(&error))?;
        output::note("stopped");
        Ok(Exit::Ok)
    }

    /// From a Switch that listens to a fleet that is told to stop.
    async fn serve(&self, arguments: &Dev, addresses: &Addresses) -> Result<(), Failure> {
        let context = Context {
            name: "dev".to_owned(),
            switch: addresses.operator(),
            background_channel: addresses.background_url(),
            admin: addresses.admin_url(),
            tenant: self.tenant.clone(),
        };
        self.home.use_context(context.clone())?;
        let operator = Operator::connect(&self.home, &context).await?;
        self.import(&operator).await?;
        let (mut clients, mut revoked) = (Vec::new(), Vec::new());
        for name in (1..=arguments.clients).map(clients::name) {
            match clients::admit(&self.home, &self.folder, &name, revoked_policy(arguments))? {
                Admission::Certified => {
                    clients.push(clients::start(&self.home, &self.folder, &name, &self.tenant, addresses)?);
                }
                Admission::Revoked => {
                    output::note(&format!("{name} is revoked, so it is not started"));
                    revoked.push(name);
                }
            }
        }
        let ended = self.until_stopped(addresses, &operator, (&mut clients, &revoked)).await;
        clients::stop(clients).await;
        ended
    }

    async fn until_stopped(
        &self,
        addresses: &Addresses,
        operator: &Operator,
        (clients, revoked): (&mut Vec<DevClient>, &[String]),
    ) -> Result<(), Failure> {
        let signal = shutdown::signal();
        let mut signal = std::pin::pin!(signal);
        let names: Vec<String> = clients.iter().map(|client| client.name.clone()).collect();
        let pids = clients.iter().map(|client| client.pid).collect();
        tokio::select! {
            biased;
            _ = signal.as_mut() => return Ok(()),
            () = self.shutdown.cancelled() => return Ok(()),
            ended = clients::one_ended(clients) => {
                return Err(Failure::new(Exit::Refused, ended.told(&self.folder)));
            }
            connected = tokio::time::timeout(READY_DEADLINE, all_connected(operator, &names)) => match connected {
                Ok(connected) => connected?,
                Err(_) => return Err(not_connected(operator, &names, &self.folder).await),
            },
        }
        let ready = Ready::new(&self.home, addresses, pids);
        if let Some(file) = &self.ready_file {
            ready.write(file.path())?;
        }
        ready.banner(&names, revoked)?;
        loop {
            tokio::select! {
                biased;
                _ = signal.as_mut() => {
                    output::note("\nstopping …");
                    return Ok(());
                }
                () = self.shutdown.cancelled() => return Ok(()),
                // The others go on: a device that is gone is what one may want to see.
                ended = clients::one_ended(clients) => output::note(&ended.told(&self.folder)),
            }
        }
    }

    /// Hands the licence and the signed definitions to the Switch, as an operator would.
    async fn import(&self, operator: &Operator) -> Result<(), Failure> {
        let envelope = read_file(&self.home.path("licence.cms"), FileKind::ENVELOPE, NEXT)?;
        self.import_licence(operator, envelope).await?;
        let folder = self.home.path("definitions");
        let entries = std::fs::read_dir(&folder)
            .map_err(|error| Failure::usage(format!("{}: {error}", folder.display())).with_next(NEXT))?;
        for entry in entries.flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "cms") {
                let envelope = read_file(&path, FileKind::ENVELOPE, NEXT)?;
                let imported =
                    answered(operator.definitions().import_definition(ImportDefinitionRequest { envelope }))
                        .await;
                imported.map_err(|status| Failure::from(status).in_file(&path))?;
            }
        }
        Ok(())
    }

    /// A licence that the Switch holds and that is newer than the home's was given to it by an operator, and stays.
    async fn import_licence(&self, operator: &Operator, envelope: Vec<u8>) -> Result<(), Failure> {
        match answered(operator.licence().import_licence(ImportLicenceRequest { envelope })).await {
            Ok(_) => Ok(()),
            Err(status) if status.code() == tonic::Code::FailedPrecondition => {
                let held = answered(operator.status().get_status(GetStatusRequest {})).await?;
                if held.licence_serial == 0 {
                    return Err(status.into());
                }
                output::note(&format!(
                    "the Switch keeps its licence {}: {}",
                    held.licence_serial,
                    status.message()
                ));
                Ok(())
            }
            Err(status) => Err(status.into()),
        }
    }

    fn switch_config(&self, ports: Ports) -> Result<muster_switch::Config, Failure> {
        let certificate = self.folder.join("certificates/switch");
        self.server_certificate(&certificate, "switch")?;
        let mut config = muster_switch::Config {
            listen: local(ports, 4000),
            operator_listen: local(ports, 4001),
            admin_listen: local(ports, 4002),
            data_dir: self.folder.join("switch"),
            tenant: self.tenant.clone(),
            crls: PkiHome::of(&self.home).crl_files(&TRUSTED_BY_SWITCH),
            revocation: self.revocation(&TRUSTED_BY_SWITCH),
            ..muster_switch::Config::default()
        };
        config.tls.certificate = certificate.with_extension("pem");
        config.tls.key = certificate.with_extension("key");
        config.trust.devices = self.home.roots("devices");
        config.trust.operators = self.home.roots("operators");
        config.trust.services = self.home.roots("services");
        config.trust.authors = self.home.roots("authors");
        config.trust.orders = self.home.roots("orders");
        config.trust.licences = self.home.roots("licences");
        config.trust.policies = Some(self.home.roots("policies"));
        config.trust.timestamps = Some(self.home.roots("timestamps"));
        Ok(config)
    }

    fn background_config(
        &self,
        ports: Ports,
        operator: SocketAddr,
    ) -> Result<muster_background_channel::Config, Failure> {
        let certificate = self.folder.join("certificates/background-channel");
        self.server_certificate(&certificate, "background-channel")?;
        let service = self.folder.join("certificates/relay");
        let wanted = Wanted::named(Role::Service, "background-channel.dev.muster", SERVER_DAYS);
        clients::ensure_certificate(&self.home, &service, &wanted)?;
        let mut config = muster_background_channel::Config {
            listen: local(ports, 4443),
            admin_listen: local(ports, 4442),
            data_dir: self.folder.join("background-channel"),
            crls: PkiHome::of(&self.home).crl_files(&TRUSTED_BY_BACKGROUND_CHANNEL),
            revocation: self.revocation(&TRUSTED_BY_BACKGROUND_CHANNEL),
            ..muster_background_channel::Config::default()
        };
        config.tls.certificate = certificate.with_extension("pem");
        config.tls.key = certificate.with_extension("key");
        config.trust.devices = self.home.roots("devices");
        config.trust.operators = self.home.roots("operators");
        config.trust.servers = self.home.roots("servers");
        config.relay.switch = format!("localhost:{}", operator.port());
        config.relay.certificate = service.with_extension("pem");
        config.relay.key = service.with_extension("key");
        Ok(config)
    }

    /// The CRLs are at hand as files, so that a revocation counts at once; nothing is fetched.
    fn revocation(&self, roles: &[&str]) -> RevocationSettings {
        let issuing = PkiHome::of(&self.home).issuing_files(roles);
        let issuers = issuing
            .into_iter()
            .map(|certificates| IssuerSettings { certificates, ..IssuerSettings::default() });
        RevocationSettings { fetch: false, issuers: issuers.collect(), ..RevocationSettings::default() }
    }

    fn server_certificate(&self, path: &Path, name: &str) -> Result<(), Failure> {
        let mut wanted = Wanted::named(Role::Switch, "localhost", SERVER_DAYS);
        wanted.dns_names = vec![format!("{name}.dev.muster")];
        wanted.ip_addresses = vec![Ipv4Addr::LOCALHOST.into()];
        clients::ensure_certificate(&self.home, path, &wanted)
    }
}

async fn all_connected(operator: &Operator, clients: &[String]) -> Result<(), Failure> {
    loop {
        let known = devices(operator, "", u32::MAX).await?;
        let online = |name: &String| known.iter().any(|device| device.online && device.device == *name);
        if clients.iter().all(online) {
            return Ok(());
        }
        tokio::time::sleep(READY_INTERVAL).await;
    }
}

/// Names the clients that are missing; each one's log says why.
async fn not_connected(operator: &Operator, clients: &[String], folder: &Path) -> Failure {
    let known = devices(operator, "", u32::MAX).await.unwrap_or_default();
    let offline = |name: &&str| !known.iter().any(|device| device.online && device.device == *name);
    let missing: Vec<&str> = clients.iter().map(String::as_str).filter(offline).collect();
    let log = folder.join("clients").join(missing.first().unwrap_or(&"NAME")).join(clients::LOG);
    Failure::new(Exit::Refused, format!("not connected within {READY_DEADLINE:?}: {}", missing.join(", ")))
        .with_next(format!("look into {}", log.display()))
}

fn local(ports: Ports, port: u16) -> SocketAddr {
    let port = match ports {
        Ports::Default => port,
        Ports::Auto => 0,
    };
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn refused(error: &dyn std::error::Error) -> Failure {
    Failure::new(Exit::Refused, describe(error))
}
