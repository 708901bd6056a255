//! One connection: from an address and credentials to a socket with the protocol on it, and, where asked for, to its Welcome.

use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_pki::DeviceKey;
use muster_proto::session::client::{ClientEvent, ClientSession, ClientSessionConfig};
use muster_proto::session::v1::{Hello, Welcome};
use muster_service::credentials::ClientCredentials;
use tokio::sync::watch;
use tokio::time::{timeout, timeout_at};

use super::End;
use super::quic::QuicSocket;
use super::roads::{Dialled, Roads};
use super::socket::{Heard, Socket};
use super::websocket::WebSocket;
use crate::config::{SessionConfig, Transport};
use crate::identity::Identity;
use crate::instructions::shell::Workload;
use crate::store::{Store, StoreError};
use crate::url::ServiceUrl;

/// The version of the protocol that this client speaks.
const PROTOCOL_VERSION: u32 = 1;

/// Makes connections; each to one Switch, with one set of credentials.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// Deadlines.
    pub(crate) config: SessionConfig,
    /// What waits, and by which name.
    pub(crate) store: Store,
    /// Whose device this is, and what it tells of itself.
    pub(crate) identity: Identity,
    /// The device's key, if it has no certificate.
    pub(crate) key: Option<Arc<DeviceKey>>,
    /// Which licence is held.
    pub(crate) workload: watch::Receiver<Workload>,
    /// By which road Switches are reached.
    pub(crate) roads: Roads,
}

/// A connection whose Hello is about to be sent.
pub(crate) struct Opened {
    pub(super) socket: Socket,
    pub(super) protocol: ClientSession,
}

impl Caller {
    /// Connects.
    pub(super) async fn call(
        &self,
        credentials: &Arc<ClientCredentials>,
        url: &ServiceUrl,
    ) -> Result<Opened, End> {
        let key = self.key.as_deref();
        let socket = match Box::pin(self.roads.dial(&self.config, credentials, url.address())).await? {
            Dialled::Quic(outgoing) => Socket::Quic(Box::new(QuicSocket::open(outgoing, key).await?)),
            Dialled::Tls(stream) => {
                let limit = self.config.upgrade_timeout;
                let opened = WebSocket::open(*stream, url.to_string(), url.address(), key, limit).await?;
                Socket::WebSocket(Box::new(opened))
            }
        };
        let hello = self.hello().await?;
        let protocol = ClientSession::new(ClientSessionConfig::default(), hello, Instant::now());
        Ok(Opened { socket, protocol })
    }

    /// Connects, and waits for the Welcome.
    pub(crate) async fn call_to_welcome(
        &self,
        credentials: &Arc<ClientCredentials>,
        url: &ServiceUrl,
    ) -> Result<(Opened, Welcome), End> {
        let (end, transport) = match self.call(credentials, url).await {
            Ok(mut opened) => match opened.welcome(self.config.write_timeout).await {
                Ok(welcome) => return Ok((opened, welcome)),
                Err(end) => (end, Some(opened.socket.transport())),
            },
            Err(end) => (end, None),
        };
        self.note_unwelcomed(url, transport, &end);
        Err(end)
    }

    /// Notes what QUIC was good for, where no Welcome came: if something on the way lets a handshake through and no more, another road is taken for a
    /// while. `transport` is none where there was not even a stream.
    pub(super) fn note_unwelcomed(&self, url: &ServiceUrl, transport: Option<Transport>, end: &End) {
        if transport != Some(Transport::WebSocket) && end.may_be_the_road() {
            self.roads.rest(url.address(), self.config.quic_rest);
        }
    }

    /// Notes what QUIC was good for, where a session ended.
    pub(super) fn note_ended(&self, url: &ServiceUrl, transport: Transport, end: &End) {
        match transport {
            Transport::WebSocket => {}
            Transport::Quic if end.is_silence() => {
                self.roads.fell_silent(url.address(), self.config.quic_rest)
            }
            Transport::Quic => self.roads.held(url.address()),
        }
    }

    async fn hello(&self) -> Result<Hello, StoreError> {
        let now_ms = crate::clock::wall_ms();
        let (outbox, last_epoch, counts) = self
            .store
            .alone(move |tables| Ok((tables.outbox_id(), tables.epoch(now_ms)?, tables.outbox_counts())))
            .await?;
        let licence = self.workload.borrow().licence;
        Ok(Hello {
            outbox_id: outbox.to_vec(),
            last_epoch,
            versions: vec![PROTOCOL_VERSION],
            client_version: env!("CARGO_PKG_VERSION").to_owned(),
            attributes: self.identity.known().map(|known| known.named()).unwrap_or_default(),
            queued_results: counts.results,
            queued_events: counts.events,
            licence_digest: licence.map(|digest| digest.to_vec()).unwrap_or_default(),
        })
    }
}

impl Opened {
    /// Sends the Hello and waits for what the Switch says to it; the protocol has the deadline.
    async fn welcome(&mut self, write_timeout: Duration) -> Result<Welcome, End> {
        loop {
            while let Some(event) = self.protocol.poll_event() {
                match event {
                    ClientEvent::Welcome(welcome) => return Ok(welcome),
                    ClientEvent::GoAway { reason, reconnect_after, detail } => {
                        return Err(End::GoneAway { reason, reconnect_after, detail });
                    }
                    ClientEvent::Closed { reason } => return Err(End::Closed(reason)),
                    // Nothing else comes before a Welcome.
                    ClientEvent::Order { .. }
                    | ClientEvent::Acked { .. }
                    | ClientEvent::Document(_)
                    | ClientEvent::LicenceNotice(_)
                    | ClientEvent::PolicyNotice { .. } => {}
                }
            }
            self.transmit(write_timeout).await?;
            let deadline = self.protocol.poll_timeout().unwrap_or_else(|| Instant::now() + write_timeout);
            match timeout_at(deadline.into(), self.socket.hear()).await {
                Err(_) => self.protocol.handle_timeout(Instant::now()),
                Ok(Ok(Heard::Frame(frame))) => self.protocol.handle_message(&frame, Instant::now()),
                Ok(Ok(Heard::Life)) => self.protocol.handle_byte(Instant::now()),
                Ok(Err(end)) => return Err(end),
            }
        }
    }

    async fn transmit(&mut self, limit: Duration) -> Result<(), End> {
        while let Some(frame) = self.protocol.poll_transmit() {
            timeout(limit, self.socket.feed(frame)).await.map_err(|_| self.socket.silent(limit))??;
        }
        timeout(limit, self.socket.flush()).await.map_err(|_| self.socket.silent(limit))?
    }
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Opened").finish_non_exhaustive()
    }
}
