//! A device that listens to a peer: it subscribes, notes what comes, and answers it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustls::ClientConfig;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::session::{ALL, ANSWERS, Item, PeerSession, SLOW, Topics};
use crate::moment::Moment;
use crate::simulated::{Lasting, Manners, changed, last};
use crate::worker::protocol::{Kind, Tag};
use crate::worker::tally::Tally;

/// TCP, TLS, upgrade and subscription together.
const CONNECT_DEADLINE: Duration = Duration::from_secs(60);
/// How long a session that is ended in order may take to say so.
const FAREWELL: Duration = Duration::from_secs(1);

/// A device of a peer.
pub(crate) struct PeerDevice {
    kind: Kind,
    address: String,
    name: String,
    manners: Manners,
    tally: Arc<Tally>,
    welcomed: Option<Moment>,
    place: Option<OwnedSemaphorePermit>,
    /// Messages that it has not answered, since that is wished.
    unanswered: Vec<(Tag, usize)>,
}

impl PeerDevice {
    pub(crate) fn new(
        kind: Kind,
        address: String,
        name: String,
        manners: Manners,
        tally: Arc<Tally>,
    ) -> Self {
        Self { kind, address, name, manners, tally, welcomed: None, place: None, unanswered: Vec::new() }
    }

    /// As [`crate::simulated::Device::run`].
    pub(crate) async fn run(
        mut self,
        tls: Arc<ClientConfig>,
        begun: Instant,
        place: Option<OwnedSemaphorePermit>,
        cancelled: CancellationToken,
    ) -> Self {
        self.place = place;
        last(&mut self, tls, begun, cancelled).await;
        self
    }

    /// Notes a message, and answers it as a device of the Switch acks an order.
    async fn handle_message(
        &mut self,
        session: &mut PeerSession,
        welcomed: Moment,
        payload: &[u8],
    ) -> anyhow::Result<()> {
        if !self.manners.counts_message()? {
            return Ok(());
        }
        let tag = *payload.first_chunk().context("a message without a tag")?;
        self.tally.arrived(tag, welcomed, payload.len());
        self.unanswered.push((tag, tag.len()));
        self.answer(session).await
    }

    /// Answers what it has not, in one write.
    async fn answer(&mut self, session: &mut PeerSession) -> anyhow::Result<()> {
        if self.unanswered.is_empty() || self.manners.is_hushed() {
            return Ok(());
        }
        session.publish(ANSWERS, &std::mem::take(&mut self.unanswered)).await
    }
}

impl Lasting for PeerDevice {
    async fn serve(
        &mut self,
        tls: Arc<ClientConfig>,
        begun: Instant,
        cancelled: &CancellationToken,
    ) -> anyhow::Result<()> {
        let more = self.manners.slow.then_some(SLOW);
        let topics = Topics { name: &self.name, topic: ALL, more };
        let opening =
            Box::pin(PeerSession::open(self.kind, &self.address, topics, &self.manners.dialled, tls));
        let opened = tokio::select! {
            biased;
            () = cancelled.cancelled() => return Ok(()),
            opened = tokio::time::timeout(CONNECT_DEADLINE, opening) => opened,
        };
        let mut session = opened.context("no session in time")??;
        let welcomed = Moment::now();
        self.welcomed = Some(welcomed);
        self.place = None;
        self.tally.connected(begun.elapsed(), session.resumed(), welcomed);
        loop {
            if self.manners.is_paused() {
                tokio::select! {
                    biased;
                    () = cancelled.cancelled() => return Ok(()),
                    () = changed(&mut self.manners.wishes) => {}
                }
                continue;
            }
            tokio::select! {
                biased;
                () = cancelled.cancelled() => {
                    drop(tokio::time::timeout(FAREWELL, session.close()).await);
                    return Ok(());
                }
                item = session.next() => match item? {
                    Item::Message(payload) => self.handle_message(&mut session, welcomed, &payload).await?,
                    Item::Ping => session.pong().await?,
                    Item::Ready | Item::Other => {}
                },
                () = changed(&mut self.manners.wishes) => self.answer(&mut session).await?,
            }
        }
    }

    fn handle_end(&mut self) -> bool {
        self.place = None;
        self.unanswered.clear();
        let had_session = self.welcomed.take().is_some();
        if had_session {
            self.tally.ended();
        }
        had_session
    }

    async fn tell(&mut self, error: &anyhow::Error, had_session: bool) -> bool {
        self.tally.failed(&self.name, format!("{error:#}"), had_session);
        true
    }

    fn manners(&self) -> &Manners {
        &self.manners
    }
}
