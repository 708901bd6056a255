//! [`Prepared`]: what is opened and checked before anything runs, and the tasks that are made of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use muster_endpoint::{HelperCommand, SqlValue};
use muster_pki::DeviceId;
use muster_service::credentials::{ClientCredentials, Deadlines};
use muster_service::health::{Component, Health, State};
use muster_service::shutdown::Shutdown;
use nix::fcntl::Flock;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::Tasks;
use super::credentials::{credentials, device};
use super::error::{StartError, in_file};
use super::lock::lock;
use super::recovered::{Recovered, machine};
use crate::background::{Poster, Road};
use crate::backoff::Backoff;
use crate::config::Config;
use crate::connection::{self, Connection, Link};
use crate::content::Content;
use crate::https::Https;
use crate::instructions::shell::{Shell, Workload};
use crate::instructions::{SignedAdmission, Work};
use crate::status::StatusSource;
use crate::store::Store;
use crate::url::{ServiceUrl, UrlError};
use crate::{attributes, clock, files, local};

/// Orders and documents between the session and the instructions. The session waits for room, then the Switch does.
const INBOX_MAX: usize = 64;

/// Progress and requests towards the session; what does not fit is left out, since results tell more.
const OUTBOUND_MAX: usize = 256;

/// By what name logs and metrics know certificate, roots and revocation lists.
const CREDENTIALS: &str = "device certificate";

/// What is opened and checked before anything runs.
pub(super) struct Prepared {
    pub(super) lock: Flock<File>,
    credentials: Arc<ClientCredentials>,
    /// What of certificate, roots and revocation lists somebody has to look after.
    certificate: Component,
    pub(super) device: DeviceId,
    attributes: BTreeMap<String, SqlValue>,
    admission: SignedAdmission,
    pub(super) store: Store,
    https: Option<Https>,
    content: Content,
    helper: HelperCommand,
}

impl Prepared {
    pub(super) fn open(config: &Config, shutdown: &Shutdown) -> Result<Self, StartError> {
        files::expect_kinds(&config.data_dir)?;
        files::expect_own(&config.data_dir)?;
        files::make_private_dir(&config.data_dir).map_err(in_file(&config.data_dir))?;
        let lock = lock(&config.data_dir)?;
        let credentials = credentials(config, Some(config.data_dir.join("revocation")))?;
        let device = device(config, &credentials)?;
        let attributes = attributes::collect(&device);
        let (trust, revocation) = (config.trust.clone(), Arc::clone(credentials.revocation()));
        let admission =
            SignedAdmission::load(trust, revocation, device.clone(), config.tenant.clone(), &attributes)?;
        let store = Store::open(&config.data_dir, &config.outbox, clock::wall_ms())?;
        let https = https(config, &credentials, shutdown)?;
        let content = Content::open(&config.data_dir, config.resources.clone(), https.clone())
            .map_err(in_file(&config.data_dir))?;
        let helper = helper(config).map_err(in_file(&config.helper.program))?;
        let health = Health::new();
        credentials.revocation().watch(shutdown, &health);
        credentials.watch(shutdown, &health, CREDENTIALS);
        let certificate = health.component(CREDENTIALS);
        if let State::Degraded(problem) | State::Failed(problem) = certificate.state() {
            tracing::warn!(problem, "this device's credentials need somebody");
        }
        Ok(Self {
            lock,
            credentials,
            certificate,
            device,
            attributes,
            admission,
            store,
            https,
            content,
            helper,
        })
    }

    /// Joins the parts by bounded channels, and spawns one task for each.
    pub(super) fn spawn(
        &self,
        config: &Config,
        recovered: Recovered,
        listener: UnixListener,
        stop: &CancellationToken,
    ) -> Result<(Tasks, StatusSource), StartError> {
        let down = Link::Down { since: Instant::now(), reason: "not yet connected".to_owned() };
        let (link_sender, link) = watch::channel(down);
        let (workload_sender, workload) = watch::channel(Workload::default());
        let (inbox_sender, inbox) = mpsc::channel(INBOX_MAX);
        let (outbound_sender, outbound) = mpsc::channel(OUTBOUND_MAX);
        let mut tasks = Tasks::new();
        let shell = Shell {
            machine: machine(config, self.admission.clone(), recovered),
            store: self.store.clone(),
            content: self.content.clone(),
            helper: self.helper.clone(),
            inbox,
            session: outbound_sender,
            workload: workload_sender,
            remember: config.instructions.remember,
            work: Work::default(),
            stop: stop.clone(),
        };
        tasks.spawn(shell.run());
        let connection = Connection {
            url: ServiceUrl::parse(&config.switch, "wss")?,
            credentials: Arc::clone(&self.credentials),
            files: connection::Files {
                certificate: config.tls.certificate.clone(),
                key: config.tls.key.clone(),
                roots: config.trust.switch.clone(),
            },
            config: config.session.clone(),
            store: self.store.clone(),
            attributes: attributes::named(&self.attributes),
            inbox: inbox_sender,
            outbound,
            workload: workload.clone(),
            link: link_sender,
            stop: stop.clone(),
        };
        tasks.spawn(connection.run());
        if let Some(https) = &self.https {
            tasks.spawn(self.poster(config, https, link.clone(), stop).run());
        }
        let (device, switch) = (self.device.to_string(), config.switch.clone());
        let (store, certificate) = (self.store.clone(), self.certificate.clone());
        let status = StatusSource { device, switch, store, link, workload, certificate };
        let serving = local::serve(listener, status.clone(), stop.clone());
        tasks.spawn(async move {
            serving.await;
            Ok(())
        });
        Ok((tasks, status))
    }

    fn poster(
        &self,
        config: &Config,
        https: &Https,
        link: watch::Receiver<Link>,
        stop: &CancellationToken,
    ) -> Poster {
        let (base, cap) = (config.session.reconnect_base, config.session.reconnect_cap);
        Poster {
            https: Https { silence: config.events.request_timeout, ..https.clone() },
            store: self.store.clone(),
            link,
            after: config.events.background_after,
            backoff: Backoff::new(base, cap, rand::random()),
            road: Road::default(),
            stop: stop.clone(),
        }
    }
}

fn https(
    config: &Config,
    credentials: &Arc<ClientCredentials>,
    shutdown: &Shutdown,
) -> Result<Option<Https>, UrlError> {
    if config.background_channel.is_empty() {
        return Ok(None);
    }
    Ok(Some(Https {
        base: ServiceUrl::parse(&config.background_channel, "https")?,
        credentials: Arc::clone(credentials),
        dial: Deadlines { connect: config.session.connect_timeout, tls: config.session.tls_timeout },
        silence: config.resources.stall_timeout,
        tracker: shutdown.tracker().clone(),
    }))
}

fn helper(config: &Config) -> io::Result<HelperCommand> {
    let program = match &config.helper.program {
        program if program.as_os_str().is_empty() => std::env::current_exe()?,
        program => program.clone(),
    };
    Ok(HelperCommand { program, arguments: config.helper.arguments.iter().map(Into::into).collect() })
}
