//! A device that listens to a peer: it subscribes, and notes what comes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustls::ClientConfig;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::session::{ALL, Item, PeerSession};
use crate::moment::Moment;
use crate::simulated::{AfterLoss, Manners, changed};
use crate::worker::protocol::Kind;
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
}

impl PeerDevice {
    pub(crate) fn new(
        kind: Kind,
        address: String,
        name: String,
        manners: Manners,
        tally: Arc<Tally>,
    ) -> Self {
        Self { kind, address, name, manners, tally, welcomed: None, place: None }
    }

    /// As [`crate::simulated::Device::run`].
    pub(crate) async fn run(
        mut self,
        tls: Arc<ClientConfig>,
        mut begun: Instant,
        place: Option<OwnedSemaphorePermit>,
        cancelled: CancellationToken,
    ) -> Self {
        let mut failures = 0;
        self.place = place;
        loop {
            let served = self.serve(Arc::clone(&tls), begun, &cancelled).await;
            self.place = None;
            let had_session = self.welcomed.take().is_some();
            if had_session {
                failures = 0;
                self.tally.ended();
            }
            let Err(error) = served else { return self };
            self.tally.failed(&self.name, format!("{error:#}"), had_session);
            if self.manners.after_loss == AfterLoss::End {
                return self;
            }
            let pause = self.manners.backoff.pause(failures);
            failures += 1;
            tokio::select! {
                biased;
                () = cancelled.cancelled() => return self,
                () = tokio::time::sleep(pause) => {}
            }
            begun = Instant::now();
        }
    }

    async fn serve(
        &mut self,
        tls: Arc<ClientConfig>,
        begun: Instant,
        cancelled: &CancellationToken,
    ) -> anyhow::Result<()> {
        let names = (self.name.as_str(), ALL);
        let opening =
            Box::pin(PeerSession::open(self.kind, &self.address, names, &self.manners.dialled, tls));
        let opened = tokio::select! {
            biased;
            () = cancelled.cancelled() => return Ok(()),
            opened = tokio::time::timeout(CONNECT_DEADLINE, opening) => opened,
        };
        let mut session = opened.context("no session in time")??;
        let welcomed = Moment::now();
        self.welcomed = Some(welcomed);
        self.place = None;
        self.tally.connected(begun.elapsed(), session.resumed());
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
                    Item::Message(payload) => {
                        let tag = payload.first_chunk().context("a message without a tag")?;
                        self.tally.arrived(*tag, welcomed, payload.len());
                    }
                    Item::Ping => session.pong().await?,
                    Item::Ready | Item::Other => {}
                },
                () = changed(&mut self.manners.wishes) => {}
            }
        }
    }
}
