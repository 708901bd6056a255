//! Who takes the answers of a peer's devices, as the Switch does of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustls::ClientConfig;
use tokio::task::JoinSet;

use super::session::{ANSWERS, Item, PeerSession, Topics};
use crate::simulated::Dialled;
use crate::worker::protocol::Kind;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(2);

/// A session that counts answers; it ends with this.
#[derive(Debug)]
pub(crate) struct Collector {
    counted: Arc<AtomicU64>,
    reading: JoinSet<anyhow::Result<()>>,
}

impl Collector {
    /// Connects and subscribes.
    pub(crate) async fn start(kind: Kind, address: &str, tls: Arc<ClientConfig>) -> anyhow::Result<Self> {
        let topics = Topics { name: "load-collector", topic: ANSWERS, more: None };
        let mut session = PeerSession::open(kind, address, topics, &Dialled::default(), tls).await?;
        let counted = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&counted);
        let mut reading = JoinSet::new();
        reading.spawn(async move {
            loop {
                match session.next().await? {
                    Item::Message(_) => {
                        counter.fetch_add(1, Ordering::Relaxed);
                    }
                    Item::Ping => session.pong().await?,
                    Item::Ready | Item::Other => {}
                }
            }
        });
        Ok(Self { counted, reading })
    }

    /// How many answers came.
    pub(crate) fn counted(&self) -> u64 {
        self.counted.load(Ordering::Relaxed)
    }

    /// Waits until so many answers came since it was begun.
    pub(crate) async fn wait(&mut self, count: u64, within: Duration) -> anyhow::Result<()> {
        let deadline = tokio::time::Instant::now() + within;
        while self.counted() < count {
            if let Some(ended) = self.reading.try_join_next() {
                ended?.context("who takes the answers")?;
            }
            if tokio::time::Instant::now() > deadline {
                bail!("{} of {count} answers came within {within:?}", self.counted());
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }
}
