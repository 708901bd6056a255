//! [`Prepared`]: what is opened and checked before anything runs, and the tasks that are made of it.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use muster_endpoint::HelperCommand;
use muster_pki::DeviceKey;
use muster_service::credentials::CredentialError;
use muster_service::health::{Component, Health, State};
use muster_service::shutdown::Shutdown;
use muster_signing::policy::Policy;
use nix::fcntl::Flock;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::Tasks;
use super::credentials::{Identifying, device, key, rules};
use super::error::{StartError, in_file};
use super::lock::lock;
use super::recovered::{Recovered, machine};
use crate::background::{Poster, Road};
use crate::backoff::Backoff;
use crate::config::Config;
use crate::connection::{Caller, Connection, Link, Roads, Takeover};
use crate::content::Content;
use crate::https::{Background, CertificateWatch, Https};
use crate::identity::{Identity, Known, Teller};
use crate::instructions::shell::{Inbound, Outbound, Shell, Workload};
use crate::instructions::{Confinement, Delayed, Due, LicenceAlarm, Room, SignedAdmission, Work};
use crate::policy::{
    self, Followed, Follower, Following, Heard, Keeper, Memory, Offers, PolicyFile, PolicyStatus, Watching,
};
use crate::profile::{Installed, Profile, ProfileError, Stage};
use crate::status::StatusSource;
use crate::store::{Store, StoredPolicies};
use crate::{clock, files, local};

/// Orders and documents between the session and the instructions. The session waits for room, then the Switch does.
const INBOX_MAX: usize = 64;

/// Progress and requests towards the session; what does not fit is left out, since results tell more.
const OUTBOUND_MAX: usize = 256;

/// By what name logs and metrics know certificate, roots and revocation lists.
const CREDENTIALS: &str = "device certificate";

/// What is told to the follower of policies and waits; a session has little to tell.
const HEARD_MAX: usize = 16;

/// The folder that belongs to this process, with its store.
pub(super) struct Opened {
    lock: Flock<File>,
    pub(super) store: Store,
}

impl Opened {
    pub(super) fn open(config: &Config) -> Result<Self, StartError> {
        files::expect_kinds(&config.data_dir)?;
        files::expect_own(&config.data_dir)?;
        files::make_private_dir(&config.data_dir).map_err(in_file(&config.data_dir))?;
        let lock = lock(&config.data_dir)?;
        let locks = config.data_dir.join(files::LOCKS);
        files::make_private_dir(&locks).map_err(in_file(&locks))?;
        let store = Store::open(&config.data_dir, &config.outbox, clock::wall_ms())?;
        Ok(Self { lock, store })
    }
}

/// What is opened and checked before anything runs.
pub(super) struct Prepared {
    pub(super) lock: Flock<File>,
    installed: Arc<Installed>,
    profile: Arc<Profile>,
    key: Option<Arc<DeviceKey>>,
    policies: Memory,
    watching: Watching,
    /// What of certificate, roots and revocation lists somebody has to look after.
    certificate: Component,
    pub(super) identity: Identity,
    /// Whoever finds out whose device this is; `None`: it is known.
    identifying: Option<Identifying>,
    admission: SignedAdmission,
    pub(super) store: Store,
    background: watch::Sender<Option<Https>>,
    content: Content,
    helper: HelperCommand,
}

impl Prepared {
    pub(super) fn of(
        opened: Opened,
        policies: StoredPolicies,
        config: &Config,
        shutdown: &Shutdown,
    ) -> Result<Self, StartError> {
        let Opened { lock, store } = opened;
        let policies = policy::remembered(policies);
        let key = key(config)?;
        let (installed, profile) = profile(config, key.clone(), &policies)?;
        let credentials = &profile.credentials;
        let device = device(credentials, key.as_deref())?;
        let teller = Teller::new(device.map(Known::of));
        let identity = teller.identity();
        let (trust, revocation) = (config.trust.clone(), Arc::clone(credentials.revocation()));
        let followed = Followed::new(Following::of(&policies));
        let (tenant, own) = (config.tenant.clone(), identity.clone());
        let admission = SignedAdmission::load(trust, revocation, own, tenant, followed)?;
        let background = watch::Sender::new(Https::of(&profile, config, shutdown));
        let content = Content::open(&config.data_dir, config.resources.clone(), Background::of(&background))
            .map_err(in_file(&config.data_dir))?
            .of(config.tls.identity);
        let helper = helper(config).map_err(in_file(&config.helper.program))?;
        let health = Health::new();
        credentials.revocation().watch(shutdown, &health);
        admission.trust().learn_signers(shutdown);
        let current = shutdown.token().child_token();
        credentials.watch_until(shutdown, current.clone(), &health, CREDENTIALS);
        let certificate = health.component(CREDENTIALS);
        if let State::Degraded(problem) | State::Failed(problem) = certificate.state() {
            tracing::warn!(problem, "this device's credentials need somebody");
        }
        let identifying = identity.known().is_none().then(|| Identifying {
            credentials: Arc::clone(credentials),
            teller,
            stop: shutdown.token().child_token(),
        });
        let watching = Watching { shutdown: shutdown.clone(), health, name: CREDENTIALS, current };
        Ok(Self {
            lock,
            installed,
            profile,
            key,
            policies,
            watching,
            certificate,
            identity,
            identifying,
            admission,
            store,
            background,
            content,
            helper,
        })
    }

    /// Joins the parts by bounded channels, and spawns one task for each.
    pub(super) fn spawn(
        &mut self,
        config: &Config,
        recovered: Recovered,
        listener: UnixListener,
        stop: &CancellationToken,
    ) -> (Tasks, StatusSource) {
        let down = Link::Down { since: Instant::now(), reason: "not yet connected".to_owned() };
        let (link_sender, link) = watch::channel(down);
        let (workload_sender, workload) = watch::channel(Workload::default());
        let (inbox_sender, inbox) = mpsc::channel(INBOX_MAX);
        let (outbound_sender, outbound) = mpsc::channel(OUTBOUND_MAX);
        let (heard_sender, heard) = mpsc::channel(HEARD_MAX);
        let address = self.profile.switch(0).map(ToString::to_string).unwrap_or_default();
        let (address_sender, address) = watch::channel(address);
        let mut tasks = Tasks::new();
        let ends = ShellEnds { inbox, session: outbound_sender.clone(), workload: workload_sender };
        let shell = self.shell(config, recovered, ends, stop);
        tasks.spawn(shell.run());
        let caller = self.caller(config, &workload);
        let takeover = Takeover::default();
        let connection = Connection {
            profile: Arc::clone(&self.profile),
            at: 0,
            caller: caller.clone(),
            store: self.store.clone(),
            inbox: inbox_sender,
            outbound,
            policy: heard_sender.clone(),
            takeover: takeover.clone(),
            address: address_sender,
            link: link_sender,
            stop: stop.clone(),
        };
        tasks.spawn(connection.run());
        tasks.spawn(self.poster(config, link.clone(), stop).run());
        if !config.policy.file.as_os_str().is_empty() {
            let (path, heard) = (config.policy.file.clone(), heard_sender.clone());
            tasks.spawn(PolicyFile { path, heard, stop: stop.clone() }.run());
        }
        let ends = Ends { caller, takeover, session: outbound_sender, heard, link: link.clone() };
        let follower = self.follower(config, ends, stop);
        let policy = follower.status.subscribe();
        tasks.spawn(follower.run());
        if let Some(identifying) = self.identifying.take() {
            tasks.spawn(identifying.run());
        }
        let (identity, store, certificate) =
            (self.identity.clone(), self.store.clone(), self.certificate.clone());
        let heard = heard_sender;
        let status = StatusSource { identity, address, store, link, workload, certificate, policy, heard };
        let serving = local::serve(listener, status.clone(), stop.clone());
        tasks.spawn(async move {
            serving.await;
            Ok(())
        });
        (tasks, status)
    }

    fn shell(
        &self,
        config: &Config,
        recovered: Recovered,
        ends: ShellEnds,
        stop: &CancellationToken,
    ) -> Shell<SignedAdmission> {
        Shell {
            machine: machine(config, self.admission.clone(), recovered),
            store: self.store.clone(),
            content: self.content.clone(),
            certificate: CertificateWatch::new(Background::of(&self.background)),
            helper: self.helper.clone(),
            confinement: Confinement::default(),
            room: Room::of(config),
            lists: self.admission.trust().lists(),
            inbox: ends.inbox,
            session: ends.session,
            workload: ends.workload,
            remember: config.instructions.remember,
            work: Work::default(),
            alarm: LicenceAlarm::default(),
            recorded: VecDeque::new(),
            delayed: Delayed::default(),
            due: Due::default(),
            stop: stop.clone(),
        }
    }

    fn caller(&self, config: &Config, workload: &watch::Receiver<Workload>) -> Caller {
        Caller {
            config: config.session.clone(),
            store: self.store.clone(),
            identity: self.identity.clone(),
            key: self.key.clone(),
            workload: workload.clone(),
            roads: Roads::default(),
        }
    }

    fn follower(&self, config: &Config, ends: Ends, stop: &CancellationToken) -> Follower {
        let Ends { caller, takeover, session, heard, link } = ends;
        let keeper = Keeper::new(
            &config.tenant,
            // Told as soon as it is known whose device this is.
            BTreeMap::new(),
            config.policy.trial,
            self.policies.clone(),
            clock::wall_ms(),
        );
        Follower {
            keeper,
            followed: self.admission.followed().clone(),
            offers: Offers::new(self.policies.rolled_back),
            identity: self.identity.clone(),
            installed: Arc::clone(&self.installed),
            trust: Arc::clone(self.admission.trust()),
            lists: self.admission.trust().lists(),
            unjudged: Vec::new(),
            judges_at: None,
            file: None,
            file_problem: String::new(),
            waits_for: String::new(),
            link,
            store: self.store.clone(),
            caller,
            takeover,
            background: self.background.clone(),
            session,
            heard,
            status: watch::Sender::new(PolicyStatus::default()),
            watching: self.watching.clone(),
            trying: None,
            copy: config.data_dir.join(policy::COPY),
            stop: stop.clone(),
        }
    }

    fn poster(&self, config: &Config, link: watch::Receiver<Link>, stop: &CancellationToken) -> Poster {
        let (base, cap) = (config.session.reconnect_base, config.session.reconnect_cap);
        Poster {
            background: Background::of(&self.background),
            silence: config.events.request_timeout,
            store: self.store.clone(),
            link,
            after: config.events.background_after,
            backoff: Backoff::new(base, cap, rand::random()),
            road: Road::default(),
            stop: stop.clone(),
        }
    }
}

/// The shell's ends of what it shares with others.
struct ShellEnds {
    inbox: mpsc::Receiver<Inbound>,
    session: mpsc::Sender<Outbound>,
    workload: watch::Sender<Workload>,
}

/// The follower's ends of what it shares with others.
struct Ends {
    caller: Caller,
    takeover: Takeover,
    session: mpsc::Sender<Outbound>,
    heard: mpsc::Receiver<Heard>,
    link: watch::Receiver<Link>,
}

/// Reads where and as whom the client connects: as the policy says that is followed, else as it was installed.
fn profile(
    config: &Config,
    key: Option<Arc<DeviceKey>>,
    policies: &Memory,
) -> Result<(Arc<Installed>, Arc<Profile>), StartError> {
    let (rules, unruly) = rules(config);
    let installed = Installed { config: config.clone(), rules, key };
    let policy = policies.current.as_ref().map(|kept| &kept.policy);
    match (installed.profile(policy, Stage::Followed), unruly) {
        (Ok(profile), None) => Ok((Arc::new(installed), Arc::new(profile))),
        (Ok(_), Some(unruly)) => Err(unruly.into()),
        (Err(error), unruly) => Err(match (policy, error) {
            (None, ProfileError::Url(error)) => error.into(),
            (None, ProfileError::Credentials(error)) => {
                CredentialError::Several(std::iter::once(error).chain(unruly).collect()).into()
            }
            (_, error) => {
                let serial = policy.map_or(0, Policy::serial);
                StartError::Policy { serial, cause: error.to_string() }
            }
        }),
    }
}

fn helper(config: &Config) -> io::Result<HelperCommand> {
    let program = match &config.helper.program {
        program if program.as_os_str().is_empty() => std::env::current_exe()?,
        program => program.clone(),
    };
    let arguments = config.helper.arguments.iter().map(Into::into).collect();
    let locks = std::path::absolute(config.data_dir.join(files::LOCKS))?;
    Ok(HelperCommand { program, arguments, closed: closed(config), locks })
}

/// What the client keeps for itself, wherever the configuration has it: its data, its keys, what may hold one, and their passwords.
fn closed(config: &Config) -> Vec<PathBuf> {
    let tls = &config.tls;
    // A PFX has the key beside the certificate.
    let keys = [&tls.key, &tls.certificate, &tls.store].map(Some);
    let named = [Some(&config.data_dir)].into_iter().chain(keys).chain([tls.password_file.as_ref()]);
    named.flatten().filter_map(|path| std::path::absolute(path).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_client_keeps_is_closed_to_scripts_wherever_it_is() {
        let mut config = Config { data_dir: "/srv/muster".into(), ..Config::default() };
        config.tls.key = "/srv/keys/tls.key".into();
        config.tls.certificate = "/srv/keys/device.pfx".into();
        config.tls.store = PathBuf::new();
        config.tls.password_file = Some("keys/password".into());

        let closed = helper(&config).unwrap().closed;

        let relative = std::env::current_dir().unwrap().join("keys/password");
        let wanted = ["/srv/muster", "/srv/keys/tls.key", "/srv/keys/device.pfx"].map(PathBuf::from);
        assert_eq!(closed, [&wanted[..], &[relative]].concat());
    }
}
