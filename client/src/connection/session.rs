//! One session: the shell around `muster_proto`'s client half.

use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use http::Request;
use muster_proto::ids::Digest;
use muster_proto::limits::FRAME_BYTES_MAX;
use muster_proto::numbers::Standing;
use muster_proto::session::PushError;
use muster_proto::session::client::{ClientEvent, ClientSession, ClientSessionConfig};
use muster_proto::session::v1::{Event, Hello, Lane, Result as InstructionResult, SequenceRange, Welcome};
use muster_service::credentials::{Deadlines, DialError, dial};
use prost::Message as _;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep_until, timeout};
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};

use super::asks::Asks;
use super::drain::LaneDrain;
use super::pause::certificate_alert;
use super::{Connection, End, Link};
use crate::instructions::shell::{Inbound, Outbound};
use crate::store::{QueueLane, StoreError};

/// The subprotocol that both sides must name (PROTOCOL.md).
const SUBPROTOCOL: &str = "muster.v1";

/// The version of the protocol that this client speaks.
const PROTOCOL_VERSION: u32 = 1;

/// The read buffer of a connection (promises.md, "Limits").
const READ_BUFFER_BYTES: usize = 4 * 1024;

/// How long a client that stops takes leave of the Switch, which notices in any case: a small part of its drain.
const LEAVE: Duration = Duration::from_secs(1);

/// What may wait to be written: one frame of the largest size, and another behind it.
const WRITE_BUFFER_BYTES_MAX: usize = 2 * FRAME_BYTES_MAX + 64 * 1024;

type Socket = WebSocketStream<TlsStream<TcpStream>>;

impl Connection {
    /// Connects and drives one session to its end.
    pub(super) async fn session(&mut self) -> End {
        let stop = self.stop.clone();
        let opened = tokio::select! {
            biased;
            () = stop.cancelled() => return End::Stopped,
            opened = self.open() => opened,
        };
        let end = match opened {
            Ok(mut session) => session.drive().await.err().unwrap_or(End::Stopped),
            Err(end) => return end,
        };
        // If the instructions have ended, so has the client.
        drop(self.inbox.send(Inbound::Disconnected).await);
        let parted = self.store.write(|tables| {
            tables.parted();
            Ok(())
        });
        match parted.await {
            // A full disk refused somebody else's write of the same batch. Numbers then count as offered for longer,
            // which makes a copy of the store harder to tell and does no other harm.
            Ok(()) | Err(StoreError::DiskFull) => end,
            Err(error) => End::Store(error),
        }
    }

    async fn open(&mut self) -> Result<Session<'_>, End> {
        let timeouts = Deadlines { connect: self.config.connect_timeout, tls: self.config.tls_timeout };
        let stream = dial(&self.credentials, self.url.address(), timeouts).await?;
        let limit = self.config.upgrade_timeout;
        let late =
            || DialError::Late { step: "the WebSocket upgrade", address: self.url.address().clone(), limit };
        let socket = timeout(limit, upgrade(self.url.to_string(), stream)).await.map_err(|_| late())??;
        let hello = self.hello().await?;
        let protocol = ClientSession::new(ClientSessionConfig::default(), hello, Instant::now());
        // What was meant for an earlier session has no place in this one.
        while self.outbound.try_recv().is_ok() {}
        let appended = self.store.appended();
        Ok(Session {
            connection: self,
            socket,
            protocol,
            appended,
            asks: Asks::default(),
            results: LaneDrain::new(QueueLane::Results),
            events: LaneDrain::new(QueueLane::Events),
        })
    }

    async fn hello(&self) -> Result<Hello, StoreError> {
        let now_ms = crate::clock::wall_ms();
        let (outbox, last_epoch, counts) = self
            .store
            .write(move |tables| Ok((tables.outbox_id(), tables.epoch(now_ms)?, tables.outbox_counts())))
            .await?;
        let licence = self.workload.borrow().licence;
        Ok(Hello {
            outbox_id: outbox.to_vec(),
            last_epoch,
            versions: vec![PROTOCOL_VERSION],
            client_version: env!("CARGO_PKG_VERSION").to_owned(),
            attributes: self.attributes.clone(),
            queued_results: counts.results,
            queued_events: counts.events,
            licence_digest: licence.map(|digest| digest.to_vec()).unwrap_or_default(),
        })
    }
}

/// Returns how a session ended whose WebSocket broke.
fn broken(error: tungstenite::Error) -> End {
    if let tungstenite::Error::Io(io) = &error
        && let Some(alert) = certificate_alert(io)
    {
        return End::Refused(alert);
    }
    End::WebSocket(error.to_string())
}

async fn upgrade(url: String, stream: TlsStream<TcpStream>) -> Result<Socket, End> {
    let mut request: Request<()> = url.into_client_request().map_err(broken)?;
    request.headers_mut().insert("Sec-WebSocket-Protocol", http::HeaderValue::from_static(SUBPROTOCOL));
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(READ_BUFFER_BYTES)
        .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX)
        .max_message_size(Some(FRAME_BYTES_MAX))
        .max_frame_size(Some(FRAME_BYTES_MAX));
    let (socket, response) =
        tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await.map_err(broken)?;
    let chosen = response.headers().get("Sec-WebSocket-Protocol").and_then(|value| value.to_str().ok());
    if chosen != Some(SUBPROTOCOL) {
        return Err(End::WebSocket(format!(
            "the Switch chose the subprotocol {chosen:?}, wanted {SUBPROTOCOL:?}"
        )));
    }
    Ok(socket)
}

struct Session<'a> {
    connection: &'a mut Connection,
    socket: Socket,
    protocol: ClientSession,
    appended: watch::Receiver<u64>,
    asks: Asks,
    results: LaneDrain,
    events: LaneDrain,
}

impl Session<'_> {
    /// Runs until the session ends; there is always a reason.
    async fn drive(&mut self) -> Result<(), End> {
        let stop = self.connection.stop.clone();
        loop {
            // Writing may take long, a stop may not.
            tokio::select! {
                biased;
                () = stop.cancelled() => return self.leave().await,
                settled = self.settle() => settled?,
            }
            let deadline = self.protocol.poll_timeout();
            tokio::select! {
                biased;
                () = stop.cancelled() => return self.leave().await,
                message = self.socket.next() => self.handle_message(message)?,
                Some(outbound) = self.connection.outbound.recv() => self.handle_outbound(outbound),
                Ok(()) = self.appended.changed() => {
                    self.results.handle_append();
                    self.events.handle_append();
                }
                () = wait_until(deadline) => self.protocol.handle_timeout(Instant::now()),
            }
        }
    }

    /// Handles and sends everything that can be by now.
    async fn settle(&mut self) -> Result<(), End> {
        self.handle_events().await?;
        self.drain().await?;
        self.asks.send(&mut self.protocol);
        self.transmit().await?;
        // What was written may have made room.
        while self.asks.send(&mut self.protocol) > 0 {
            self.transmit().await?;
        }
        Ok(())
    }

    /// Ends the session since the client stops.
    async fn leave(&mut self) -> Result<(), End> {
        let limit = self.connection.config.write_timeout.min(LEAVE);
        drop(timeout(limit, self.socket.close(None)).await);
        Err(End::Stopped)
    }

    fn handle_message(&mut self, message: Option<Result<Message, tungstenite::Error>>) -> Result<(), End> {
        let now = Instant::now();
        let Some(message) = message else {
            return Err(End::WebSocket("the connection was closed".to_owned()));
        };
        match message.map_err(broken)? {
            Message::Binary(bytes) => {
                tracing::trace!(bytes = bytes.len(), "frame in");
                self.protocol.handle_message(&bytes, now);
            }
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => self.protocol.handle_byte(now),
            Message::Close(_) => self.protocol.handle_byte(now),
            Message::Text(_) => {
                return Err(End::WebSocket("the Switch sent text; frames are binary".to_owned()));
            }
        }
        Ok(())
    }

    fn handle_outbound(&mut self, outbound: Outbound) {
        match outbound {
            Outbound::Progress(instruction, state) => {
                if let Err(error) = self.protocol.push_progress(instruction, state) {
                    // A result tells more than a progress.
                    tracing::debug!(%error, "not sent");
                }
            }
            Outbound::Ask(kind, digest) => self.asks.push(kind, digest),
        }
    }

    async fn handle_events(&mut self) -> Result<(), End> {
        while let Some(event) = self.protocol.poll_event() {
            match event {
                ClientEvent::Welcome(welcome) => self.handle_welcome(welcome).await?,
                ClientEvent::Order { envelope, proof } => {
                    self.deliver(Inbound::Order { envelope, proof }).await?
                }
                ClientEvent::Acked { lane, ranges } => self.handle_acked(lane, ranges).await?,
                ClientEvent::Document(document) => {
                    let Ok(digest) = Digest::try_from(&document.digest[..]) else { continue };
                    let kind = document.kind();
                    self.deliver(Inbound::Document { kind, digest, envelope: document.envelope }).await?;
                }
                ClientEvent::LicenceNotice(digest) => self.deliver(Inbound::LicenceNotice(digest)).await?,
                ClientEvent::GoAway { reason, reconnect_after, detail } => {
                    return Err(End::GoneAway { reason, reconnect_after, detail });
                }
                ClientEvent::Closed { reason } => {
                    self.transmit().await?;
                    return Err(End::Closed(reason));
                }
            }
        }
        Ok(())
    }

    async fn handle_welcome(&mut self, welcome: Welcome) -> Result<(), End> {
        let (epoch, highest, switch_ms) = (welcome.epoch, welcome.highest_sequence, welcome.time_ms);
        let now_ms = crate::clock::wall_ms();
        let judged = self.connection.store.write(move |tables| {
            tables.keep_epoch(epoch)?;
            let standing = tables.welcomed(highest, switch_ms, now_ms)?;
            Ok((standing, tables.outbox_id(), tables.restored_at_ms(now_ms)?))
        });
        let (standing, outbox, restored_at_ms) = judged.await?;
        if standing == Standing::Copy {
            tracing::warn!(
                highest_sequence = highest,
                %outbox,
                "the store was brought back from a copy: the Switch has seen numbers that it never sent; it goes on under \
                 another outbox_id, events that waited in the copy may be listed twice, and instructions issued before are not run"
            );
            metrics::counter!(crate::metrics::OUTBOX_RENEWED).increment(1);
            self.deliver(Inbound::Judged { restored_at_ms, switch_ms }).await?;
            return Err(End::Renewed);
        }
        self.deliver(Inbound::Judged { restored_at_ms, switch_ms }).await?;
        tracing::info!(epoch, "session established");
        metrics::counter!(crate::metrics::SESSIONS).increment(1);
        self.connection.link.send_replace(Link::Up { epoch, since_ms: crate::clock::wall_ms() });
        if let Ok(digest) = Digest::try_from(&welcome.licence_digest[..]) {
            self.deliver(Inbound::LicenceNotice(digest)).await?;
        }
        Ok(())
    }

    async fn handle_acked(&mut self, lane: Lane, ranges: Vec<SequenceRange>) -> Result<(), End> {
        let lane = match lane {
            Lane::Results => QueueLane::Results,
            Lane::Events => QueueLane::Events,
            Lane::Unspecified => return Ok(()),
        };
        Ok(self.connection.store.write(move |tables| tables.acked(lane, &ranges)).await?)
    }

    /// Hands something to the instructions, which have the time of one write to take it.
    async fn deliver(&mut self, inbound: Inbound) -> Result<(), End> {
        match timeout(self.connection.config.write_timeout, self.connection.inbox.send(inbound)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Stopped),
            Err(_) => Err(End::Busy),
        }
    }

    /// Moves as much of the outbox into the session as there is credit for.
    async fn drain(&mut self) -> Result<(), End> {
        let store = &self.connection.store;
        while self.protocol.credit(Lane::Results) > 0 {
            let Some(queued) = self.results.peek(store).await? else { break };
            // The checksum held, so this decodes; what did not would be passed over.
            let Ok(result) = InstructionResult::decode(&queued.record[..]) else {
                self.results.pop();
                continue;
            };
            let (sequence, now_ms) = (queued.sequence, crate::clock::wall_ms());
            match self.protocol.push_result(result) {
                Ok(()) => {}
                Err(PushError::Invalid(error)) => {
                    let detail = format!("it ran, but its result breaks the protocol: {error}");
                    store.write(move |tables| tables.replace_result(sequence, &detail, now_ms)).await?;
                }
                // It is sent when there is credit, or in the next session.
                Err(_) => break,
            }
            self.results.pop();
        }
        while self.protocol.credit(Lane::Events) > 0 {
            let Some(queued) = self.events.peek(store).await? else { break };
            let Ok(event) = Event::decode(&queued.record[..]) else {
                self.events.pop();
                continue;
            };
            let sequence = queued.sequence;
            match self.protocol.push_event(event) {
                Ok(()) => {}
                Err(PushError::Invalid(error)) => {
                    tracing::error!(%error, sequence, "an event breaks the protocol; it is dropped");
                    let range = SequenceRange { first: sequence, last: sequence };
                    store.write(move |tables| tables.acked(QueueLane::Events, &[range])).await?;
                }
                Err(_) => break,
            }
            self.events.pop();
        }
        Ok(())
    }

    async fn transmit(&mut self) -> Result<(), End> {
        let limit = self.connection.config.write_timeout;
        let slow = |_| End::WebSocket(format!("the Switch read nothing for {limit:?}"));
        let mut is_written = false;
        while let Some(bytes) = self.protocol.poll_transmit() {
            timeout(limit, self.socket.feed(Message::Binary(bytes))).await.map_err(slow)?.map_err(broken)?;
            is_written = true;
        }
        if is_written {
            timeout(limit, self.socket.flush()).await.map_err(slow)?.map_err(broken)?;
        }
        Ok(())
    }
}

async fn wait_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
