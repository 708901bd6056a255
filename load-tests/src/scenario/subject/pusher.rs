//! How something is sent to the devices of a server: signed orders to the Switch, messages to a peer.

use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures_util::StreamExt as _;
use futures_util::future::try_join_all;
use futures_util::stream;
use muster_proto::ids::InstructionId;
use muster_proto::operator::v1::{ListClientsRequest, RemoveClientRequest};
use rustls::ClientConfig;

use crate::operator::Operator;
use crate::peer::collector::Collector;
use crate::peer::session::{ALL, NOTHING, PeerSession, SLOW as SLOW_TOPIC, Topics};
use crate::server::Place;
use crate::simulated::Dialled;
use crate::tls::{self, Dialler, Resume};
use crate::worker::process::SLOW;
use crate::worker::protocol::{Kind, Setup, Tag};

/// Devices that are removed at once.
const REMOVED_AT_ONCE: usize = 32;
/// Devices of one page; what the Switch gives at most.
const PAGE: u32 = 10_000;

/// Who sends.
pub(super) enum Pusher {
    Orders(Operator),
    Messages(Box<Publisher>),
}

/// Who sends to a peer's devices, and who takes their answers.
pub(super) struct Publisher {
    kind: Kind,
    address: String,
    tls: Arc<ClientConfig>,
    session: PeerSession,
    collector: Collector,
}

/// To which devices of a fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum To {
    All,
    /// Those that stop reading.
    Slow,
}

/// Messages that are about to be sent.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(super) what: Vec<What>,
    pub(super) to: To,
}

/// One of them.
#[derive(Debug)]
pub(super) enum What {
    /// The envelope of a signed order.
    Order(Vec<u8>),
    /// What a peer's message begins with.
    Tag(Tag),
}

impl To {
    /// The audience in a fleet whose names begin so.
    pub(super) fn audience(self, prefix: &str) -> String {
        match self {
            Self::All => format!("device.startsWith('{prefix}-')"),
            Self::Slow => format!("device.startsWith('{prefix}-{SLOW}-')"),
        }
    }

    fn topic(self) -> &'static str {
        match self {
            Self::All => ALL,
            Self::Slow => SLOW_TOPIC,
        }
    }
}

impl Publisher {
    /// Connects to a peer.
    pub(super) async fn open(setup: &Setup) -> anyhow::Result<Self> {
        let identities = tls::issue_devices(&setup.home, &["load-publisher".to_owned()])?;
        let identity = identities.first().context("no certificate")?;
        let tls =
            Dialler::new(&tls::server_roots(&setup.home)?, setup.suite)?.config(identity, Resume::Never)?;
        let (kind, address) = (setup.kind, setup.address.clone());
        let (session, collector) = connected(kind, &address, &tls).await?;
        Ok(Self { kind, address, tls, session, collector })
    }
}

async fn connected(
    kind: Kind,
    address: &str,
    tls: &Arc<ClientConfig>,
) -> anyhow::Result<(PeerSession, Collector)> {
    let topics = Topics { name: "load-publisher", topic: NOTHING, more: None };
    let session = PeerSession::open(kind, address, topics, &Dialled::default(), Arc::clone(tls)).await?;
    let collector = Collector::start(kind, address, Arc::clone(tls)).await?;
    Ok((session, collector))
}

impl Pusher {
    pub(super) async fn prepare(
        &self,
        count: u32,
        audience: &str,
        targets: u32,
        sql: &str,
    ) -> anyhow::Result<Vec<What>> {
        let Self::Orders(operator) = self else {
            return Ok((0..count).map(|_| What::Tag(rand::random())).collect());
        };
        let mut prepared = Vec::new();
        for _ in 0..count {
            let order = operator.prepare(sql, audience).await?;
            if order.targets < u64::from(targets) {
                bail!("the audience holds {} devices, {targets} are connected", order.targets);
            }
            prepared.push(What::Order(operator.sign(&order.order)?));
        }
        Ok(prepared)
    }

    pub(super) async fn send(&mut self, prepared: Prepared, bytes: usize) -> anyhow::Result<Vec<Tag>> {
        let Prepared { what, to } = prepared;
        match self {
            Self::Orders(operator) => {
                let operator = &*operator;
                let orders = what.into_iter().filter_map(What::order);
                let submitting = orders.map(|envelope| async move {
                    operator.submit(envelope, &format!("{:032x}", rand::random::<u128>())).await
                });
                let submitted = try_join_all(submitting).await?;
                let tags = submitted.iter().map(|instruction| InstructionId::from_str(instruction));
                let tags = tags.map(|id| id.map(Tag::from).map_err(|error| anyhow::anyhow!("{error}")));
                tags.collect()
            }
            Self::Messages(publisher) => {
                let tags: Vec<Tag> = what.into_iter().filter_map(What::tag).collect();
                let messages: Vec<(Tag, usize)> = tags.iter().map(|tag| (*tag, bytes)).collect();
                publisher.session.publish(to.topic(), &messages).await?;
                Ok(tags)
            }
        }
    }

    /// How many answers of a peer's devices came so far.
    pub(super) fn answers(&self) -> u64 {
        match self {
            Self::Orders(_) => 0,
            Self::Messages(publisher) => publisher.collector.counted(),
        }
    }

    /// Waits until so many answers of a peer's devices came; the Switch's devices are waited for otherwise.
    pub(super) async fn wait_for_answers(&mut self, count: u64, within: Duration) -> anyhow::Result<()> {
        match self {
            Self::Orders(_) => Ok(()),
            Self::Messages(publisher) => publisher.collector.wait(count, within).await,
        }
    }

    /// Another connection to a server that was started again.
    pub(super) async fn reconnect(&mut self, place: &Place) -> anyhow::Result<()> {
        match self {
            Self::Orders(operator) => *operator = Operator::connect(&place.home, &place.operator).await?,
            Self::Messages(publisher) => {
                let Publisher { kind, address, tls, .. } = &**publisher;
                let (session, collector) = connected(*kind, address, tls).await?;
                (publisher.session, publisher.collector) = (session, collector);
            }
        }
        Ok(())
    }

    /// Has the Switch forget the devices of an audience.
    pub(super) async fn remove(&self, audience: &str) -> anyhow::Result<()> {
        let Self::Orders(operator) = self else { return Ok(()) };
        loop {
            let request = ListClientsRequest {
                audience: audience.to_owned(),
                page_size: PAGE,
                page_token: String::new(),
            };
            let page = operator.clients().list_clients(request).await?.into_inner().clients;
            if page.is_empty() {
                return Ok(());
            }
            let removing = page.into_iter().map(|client| async move {
                operator.clients().remove_client(RemoveClientRequest { device: client.device }).await
            });
            let mut removed = stream::iter(removing).buffer_unordered(REMOVED_AT_ONCE);
            while let Some(answer) = removed.next().await {
                answer?;
            }
        }
    }
}

impl What {
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
