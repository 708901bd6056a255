//! One connection to a peer: WebSocket over TLS, messages in and out.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use futures_util::{SinkExt as _, StreamExt as _};
use rustls::{ClientConfig, HandshakeKind};
use tokio_tungstenite::tungstenite::Message;

use super::{mqtt, nats};
use crate::simulated::{Dialled, Socket, dial, upgrade};
use crate::worker::protocol::{Kind, Tag};

/// What every device subscribes to.
pub(crate) const ALL: &str = "all";
/// What those subscribe to besides who stop reading when that is wished.
pub(crate) const SLOW: &str = "slow";
/// Where devices answer.
pub(crate) const ANSWERS: &str = "answers";
/// What the publisher subscribes to, where nothing comes.
pub(crate) const NOTHING: &str = "nothing";

/// Who connects, and what it subscribes to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Topics<'a> {
    pub(crate) name: &'a str,
    pub(crate) topic: &'static str,
    pub(crate) more: Option<&'static str>,
}

/// What a peer sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    /// A message that was published.
    Message(Vec<u8>),
    /// A question whether the client lives.
    Ping,
    /// The subscription stands.
    Ready,
    /// Anything else.
    Other,
}

/// A connection whose subscription stands.
pub(crate) struct PeerSession {
    kind: Kind,
    socket: Socket,
    /// What came and is no whole item yet.
    rest: Vec<u8>,
}

impl PeerSession {
    /// Connects and subscribes.
    pub(crate) async fn open(
        kind: Kind,
        address: &str,
        Topics { name, topic, more }: Topics<'_>,
        dialled: &Dialled,
        tls: Arc<ClientConfig>,
    ) -> anyhow::Result<Self> {
        let stream = dial(address, dialled, tls).await?;
        let topics: Vec<&str> = [topic].into_iter().chain(more).collect();
        let (path, subprotocol, hello) = match kind {
            Kind::Nats => ("", None, nats::hello(&topics)),
            Kind::Mosquitto => ("mqtt", Some("mqtt"), mqtt::hello(name, &topics)?),
            Kind::Muster => bail!("the Switch is no peer"),
        };
        let socket = upgrade(stream, &format!("wss://{address}/{path}"), subprotocol).await?;
        let mut session = Self { kind, socket, rest: Vec::new() };
        session.send(hello).await?;
        loop {
            match session.next().await? {
                Item::Ready => return Ok(session),
                Item::Ping => session.pong().await?,
                Item::Message(_) | Item::Other => {}
            }
        }
    }

    /// Whether its TLS was that of an earlier session.
    pub(crate) fn resumed(&self) -> bool {
        self.socket.get_ref().get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Waits for the next item. What was read of one is kept when this is dropped.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Item> {
        loop {
            let taken = match self.kind {
                Kind::Nats => nats::take(&self.rest)?,
                Kind::Mosquitto => mqtt::take(&self.rest)?,
                Kind::Muster => bail!("the Switch is no peer"),
            };
            if let Some((item, length)) = taken {
                if length == self.rest.len() {
                    // An idle session keeps no buffer.
                    self.rest = Vec::new();
                } else {
                    self.rest.drain(..length);
                }
                return Ok(item);
            }
            match self.socket.next().await.context("the peer closed the connection")?? {
                Message::Binary(bytes) if self.rest.is_empty() => self.rest = bytes.to_vec(),
                Message::Binary(bytes) => self.rest.extend_from_slice(&bytes),
                Message::Text(text) => self.rest.extend_from_slice(text.as_bytes()),
                Message::Close(_) => bail!("the peer closed the connection"),
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }

    /// Publishes messages that begin with a tag each and have so many bytes, all in one go.
    pub(crate) async fn publish(&mut self, topic: &str, messages: &[(Tag, usize)]) -> anyhow::Result<()> {
        let mut all = Vec::new();
        for (tag, bytes) in messages {
            let mut payload = tag.to_vec();
            payload.resize((*bytes).max(tag.len()), 0x55);
            all.extend(match self.kind {
                Kind::Nats => nats::publish(topic, &payload),
                Kind::Mosquitto => mqtt::publish(topic, &payload)?,
                Kind::Muster => bail!("the Switch is no peer"),
            });
        }
        // Both protocols are streams: what begins in a frame need not end in it.
        self.send(all).await
    }

    /// Answers a ping, or tells that the client lives.
    pub(crate) async fn pong(&mut self) -> anyhow::Result<()> {
        let bytes = match self.kind {
            Kind::Mosquitto => mqtt::PING,
            Kind::Nats | Kind::Muster => nats::PONG,
        };
        self.send(bytes.to_vec()).await
    }

    /// Ends the connection in order.
    pub(crate) async fn close(mut self) {
        // The peer may have gone before.
        drop(self.socket.close(None).await);
    }

    async fn send(&mut self, bytes: Vec<u8>) -> anyhow::Result<()> {
        Ok(self.socket.send(Message::Binary(bytes.into())).await?)
    }
}
