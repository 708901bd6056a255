//! One server under load: its process, its fleet, and how something is sent to all of the fleet.

use std::str::FromStr as _;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures_util::future::try_join_all;
use muster_proto::ids::InstructionId;

use crate::measure::cores::Cores;
use crate::measure::cpu;
use crate::moment::Moment;
use crate::operator::Operator;
use crate::peer::server::PeerServer;
use crate::peer::session::{NOTHING, PeerSession};
use crate::report::{Latencies, memory_bytes};
use crate::server::Place;
use crate::simulated::Dialled;
use crate::tls::{self, Dialler, Resume};
use crate::worker::fleet::{Connected, Fleet};
use crate::worker::protocol::{Awaited, Kind, Sent, Setup, Tag};

/// All of one message.
const ARRIVAL_DEADLINE: Duration = Duration::from_secs(60);
/// All sessions.
pub(crate) const CONNECT_DEADLINE: Duration = Duration::from_secs(600);
/// Idle time before memory is read, so that handshake buffers are given back.
const SETTLE: Duration = Duration::from_secs(2);
/// Sessions that come and go before memory is first read, so that lazily built tables count for nobody.
const WARM_UP: u32 = 50;
/// The SQL of an order, which the fleet's devices do not run.
const QUESTION: &str = "SELECT name, version FROM os";

/// A server with its fleet.
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    /// The peer's version.
    pub(crate) version: Option<String>,
    pub(crate) fleet: Fleet,
    pub(crate) sessions: u32,
    /// Where the process is known.
    pub(crate) pid: Option<u32>,
    prefix: String,
    pusher: Pusher,
    server: Option<PeerServer>,
}

enum Pusher {
    Orders(Operator),
    Messages(Box<PeerSession>),
}

/// One or several messages to all.
#[derive(Debug)]
pub(crate) struct Pushed {
    /// Of the server, for one message to one device, microseconds; where its process is known.
    pub(crate) cpu_micros: Option<f64>,
    pub(crate) latencies: Latencies,
    /// The bytes of one message.
    pub(crate) bytes: usize,
    /// Messages that came to a device once more.
    pub(crate) repeats: u64,
}

/// How connecting went, and what it cost the server.
#[derive(Debug)]
pub(crate) struct ConnectedAt {
    pub(crate) connected: Connected,
    /// For one session, microseconds; where its process is known.
    pub(crate) cpu_micros: Option<f64>,
    pub(crate) per_second: f64,
}

impl Subject {
    /// The Switch.
    pub(crate) async fn switch(
        place: &Place,
        setup: Setup,
        (sessions, workers): (u32, u32),
        cores: &Cores,
    ) -> anyhow::Result<Self> {
        let operator = Operator::connect(&place.home, &place.operator)
            .await
            .with_context(|| format!("the operator API at {}", place.operator))?;
        let fleet = Fleet::start(&setup, (sessions, workers), cores, "muster").await?;
        Ok(Self {
            name: "muster",
            version: None,
            fleet,
            sessions,
            pid: place.pid,
            prefix: setup.prefix,
            pusher: Pusher::Orders(operator),
            server: None,
        })
    }

    /// A peer, which is started and ended with this.
    pub(crate) async fn peer(
        setup: Setup,
        (sessions, workers): (u32, u32),
        cores: &Cores,
    ) -> anyhow::Result<Self> {
        let name = match setup.kind {
            Kind::Nats => "nats",
            Kind::Mosquitto => "mosquitto",
            Kind::Muster => bail!("the Switch is no peer"),
        };
        let server = PeerServer::start(setup.kind, &setup.home, cores.server).await?;
        let setup = Setup { address: server.address.clone(), ..setup };
        let identities = tls::issue_devices(&setup.home, &["load-publisher".to_owned()])?;
        let identity = identities.first().context("no certificate")?;
        let tls =
            Dialler::new(&tls::server_roots(&setup.home)?, setup.suite)?.config(identity, Resume::Never)?;
        let names = ("load-publisher", NOTHING);
        let publisher = PeerSession::open(setup.kind, &server.address, names, &Dialled::default(), tls)
            .await
            .with_context(|| name)?;
        let fleet = Fleet::start(&setup, (sessions, workers), cores, name).await?;
        Ok(Self {
            name,
            version: Some(server.version.clone()),
            fleet,
            sessions,
            pid: Some(server.pid()),
            prefix: setup.prefix,
            pusher: Pusher::Messages(Box::new(publisher)),
            server: Some(server),
        })
    }

    /// Whether it is a peer, and not the Switch.
    pub(crate) fn is_peer(&self) -> bool {
        self.server.is_some()
    }

    /// Some sessions come and go.
    pub(crate) async fn warm_up(&mut self) -> anyhow::Result<()> {
        let count = WARM_UP.min(self.sessions);
        self.fleet.connect_more(count, ARRIVAL_DEADLINE).await?;
        self.fleet.disconnect(count).await?;
        self.quiet().await
    }

    /// Has all devices connect that have no session.
    pub(crate) async fn connect(&mut self) -> anyhow::Result<ConnectedAt> {
        let standing = self.fleet.counts().await?.standing;
        let before = self.cpu()?;
        let connected = self.fleet.connect().await?;
        let count = self.sessions - standing;
        let after = match self.pid {
            Some(pid) => Some(cpu::until_quiet(pid).await?),
            None => None,
        };
        let used = before.zip(after).map(|(before, after)| after.saturating_sub(before));
        let per_second = f64::from(count) / connected.took.as_secs_f64();
        Ok(ConnectedAt {
            connected,
            cpu_micros: used.map(|used| cpu::micros_each(used, u64::from(count))),
            per_second,
        })
    }

    /// Ends all sessions, and waits until the server has done what was left to do.
    pub(crate) async fn disconnect(&mut self) -> anyhow::Result<()> {
        self.fleet.disconnect(self.sessions).await?;
        self.quiet().await
    }

    /// Sends so many messages to all devices at once, of so many bytes at a peer, and waits until all have them.
    pub(crate) async fn push(&mut self, count: u32, bytes: usize) -> anyhow::Result<Pushed> {
        let prepared = self.prepare(count, self.sessions, QUESTION).await?;
        self.fleet.clear().await?;
        self.quiet().await?;
        let before = self.cpu()?;
        let at = Moment::now();
        let tags = self.send(prepared, bytes).await?;
        let wanted = u64::from(self.sessions) * u64::from(count);
        let counts = self.fleet.wait("had the message", Awaited::Arrivals, wanted, ARRIVAL_DEADLINE).await?;
        let after = match self.pid {
            Some(pid) => Some(cpu::until_quiet(pid).await?),
            None => None,
        };
        let sent: Vec<Sent> = tags.into_iter().map(|tag| Sent { tag, at }).collect();
        let arrived = self.fleet.arrived(&sent).await?;
        // What comes once more may come after the last of what was waited for.
        let repeats = self.fleet.counts().await?.repeats;
        if counts.lost > 0 || arrived.late > 0 {
            bail!("{}: {} sessions were lost, {} messages came late", self.name, counts.lost, arrived.late);
        }
        if arrived.standing.count() != wanted {
            bail!(
                "{}: {} of {wanted} messages came, and {} others",
                self.name,
                arrived.standing.count(),
                arrived.others
            );
        }
        let used = before.zip(after).map(|(before, after)| after.saturating_sub(before));
        Ok(Pushed {
            cpu_micros: used.map(|used| cpu::micros_each(used, wanted)),
            latencies: arrived.standing,
            bytes: arrived.bytes,
            repeats,
        })
    }

    /// Prepares and signs orders with this SQL for all devices; for a peer, makes tags.
    pub(crate) async fn prepare(
        &mut self,
        count: u32,
        targets: u32,
        sql: &str,
    ) -> anyhow::Result<Vec<Prepared>> {
        let Pusher::Orders(operator) = &self.pusher else {
            return Ok((0..count).map(|_| Prepared::Tag(rand::random())).collect());
        };
        let audience = format!("device.startsWith('{}')", self.prefix);
        let mut prepared = Vec::new();
        for _ in 0..count {
            let order = operator.prepare(sql, &audience).await?;
            if order.targets < u64::from(targets) {
                bail!("the audience holds {} devices, {targets} are connected", order.targets);
            }
            prepared.push(Prepared::Order(operator.sign(&order.order)?));
        }
        Ok(prepared)
    }

    /// Sends what was prepared, all at once; gives what each is known by.
    pub(crate) async fn send(&mut self, prepared: Vec<Prepared>, bytes: usize) -> anyhow::Result<Vec<Tag>> {
        let mut tags = Vec::with_capacity(prepared.len());
        match &mut self.pusher {
            Pusher::Orders(operator) => {
                let operator = &*operator;
                let orders = prepared.into_iter().filter_map(Prepared::order);
                let submitting = orders.map(|envelope| async move {
                    operator.submit(envelope, &format!("{:032x}", rand::random::<u128>())).await
                });
                for instruction in try_join_all(submitting).await? {
                    tags.push(
                        InstructionId::from_str(&instruction)
                            .map_err(|error| anyhow::anyhow!("{error}"))?
                            .into(),
                    );
                }
            }
            Pusher::Messages(session) => {
                for tag in prepared.into_iter().filter_map(Prepared::tag) {
                    session.publish(tag, bytes).await?;
                    tags.push(tag);
                }
            }
        }
        Ok(tags)
    }

    /// Waits until an instruction is complete, and gives how many answered.
    pub(crate) fn operator(&self) -> anyhow::Result<&Operator> {
        match &self.pusher {
            Pusher::Orders(operator) => Ok(operator),
            Pusher::Messages(_) => bail!("{} has no operators", self.name),
        }
    }

    /// Another connection to a Switch that was started again.
    pub(crate) async fn reconnect_operator(&mut self, place: &Place) -> anyhow::Result<()> {
        self.pusher = Pusher::Orders(Operator::connect(&place.home, &place.operator).await?);
        self.pid = place.pid;
        Ok(())
    }

    /// The CPU time of the server.
    pub(crate) fn cpu(&self) -> anyhow::Result<Option<Duration>> {
        self.pid.map(cpu::of_process).transpose()
    }

    /// Waits until the server has done what was left to do.
    pub(crate) async fn quiet(&self) -> anyhow::Result<()> {
        if let Some(pid) = self.pid {
            cpu::until_quiet(pid).await?;
        }
        Ok(())
    }

    /// The PSS of the server, when it has settled.
    pub(crate) async fn memory(&self) -> anyhow::Result<u64> {
        let pid = self.pid.context("the process of the Switch is not known; give --pid")?;
        tokio::time::sleep(SETTLE).await;
        memory_bytes(pid)
    }

    /// Ends the fleet, and a peer with it.
    pub(crate) fn close(self) -> anyhow::Result<()> {
        drop(self.fleet);
        self.server.map_or(Ok(()), PeerServer::stop)
    }
}

/// A message that is about to be sent.
#[derive(Debug)]
pub(crate) enum Prepared {
    /// The envelope of a signed order.
    Order(Vec<u8>),
    /// What a peer's message begins with.
    Tag(Tag),
}

impl Prepared {
    fn order(self) -> Option<Vec<u8>> {
        match self {
            Self::Order(envelope) => Some(envelope),
            Self::Tag(_) => None,
        }
    }

    fn tag(self) -> Option<Tag> {
        match self {
            Self::Tag(tag) => Some(tag),
            Self::Order(_) => None,
        }
    }
}
