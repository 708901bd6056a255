//! A session's frames over QUIC: the items of the one stream that the client opens (PROTOCOL.md §1).

use std::future::poll_fn;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::StatusCode;
use muster_pki::DeviceKey;
use muster_pki::device_key::{EXPORTER_BYTES, EXPORTER_LABEL};
use muster_proto::frame::item;
use muster_proto::limits::FRAME_BYTES_MAX;
use muster_proto::session::quic::Close;
use muster_service::credentials::OutgoingQuic;
use muster_service::quic;
use quinn::{ApplicationClose, ConnectionError, ReadError, RecvStream, SendStream, WriteError};
use tokio::time::sleep_until;

use super::End;
use super::pause::is_about_certificates;
use crate::answer;

/// How often the client looks whether its address has changed. A look sends nothing.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Bytes of one read: more than most frames have.
const READ_BYTES: usize = 16 << 10;

/// Items that leave together, unless one alone has more.
const BATCH_BYTES: usize = 16 << 10;

/// A connection with its stream.
#[derive(Debug)]
pub(super) struct QuicSocket {
    outgoing: OutgoingQuic,
    send: SendStream,
    receive: RecvStream,
    /// The beginning of an item of which the rest has not come.
    unread: Vec<u8>,
    /// Items that leave with the next flush.
    unsent: Vec<u8>,
    look_at: Instant,
}

impl QuicSocket {
    /// Opens the stream; who has no certificate proves its key first.
    pub(super) async fn open(outgoing: OutgoingQuic, key: Option<&DeviceKey>) -> Result<Self, End> {
        let connection = outgoing.connection().clone();
        let (send, receive) = connection.open_bi().await.map_err(lost)?;
        let mut unsent = Vec::new();
        if let Some(key) = key {
            let mut exported = [0; EXPORTER_BYTES];
            // It is there once the handshake is over.
            connection
                .export_keying_material(&mut exported, EXPORTER_LABEL, &[])
                .map_err(|_| End::Quic("TLS exports no keying material".to_owned()))?;
            item::put(&mut unsent, key.prove(&exported).as_bytes());
        }
        Ok(Self {
            outgoing,
            send,
            receive,
            unread: Vec::new(),
            unsent,
            look_at: Instant::now() + LOOK_INTERVAL,
        })
    }

    /// Waits for the next frame. It may be given up and asked again.
    pub(super) async fn hear(&mut self) -> Result<Bytes, End> {
        loop {
            let whole =
                item::first(&self.unread, FRAME_BYTES_MAX).map_err(|error| End::Quic(error.to_string()))?;
            if let Some(place) = whole {
                let end = place.end;
                let frame = Bytes::copy_from_slice(self.unread.get(place).unwrap_or_default());
                self.unread.drain(..end);
                return Ok(frame);
            }
            let Self { outgoing, receive, look_at, .. } = self;
            tokio::select! {
                biased;
                refused = poll_fn(|context| outgoing.poll_refused(context)) => {
                    return Err(End::ServerRefused(Box::new(refused)));
                }
                () = sleep_until((*look_at).into()) => self.look(),
                chunk = receive.read_chunk(READ_BYTES, true) => match chunk.map_err(unread)? {
                    Some(chunk) => self.unread.extend_from_slice(&chunk.bytes),
                    None => return Err(End::Quic("the Switch ended the session".to_owned())),
                },
            }
        }
    }

    /// Writes a frame; it leaves with the next flush at the latest.
    pub(super) async fn feed(&mut self, frame: &[u8]) -> Result<(), End> {
        item::put(&mut self.unsent, frame);
        if self.unsent.len() >= BATCH_BYTES { self.flush().await } else { Ok(()) }
    }

    /// Waits until the stream has taken everything.
    pub(super) async fn flush(&mut self) -> Result<(), End> {
        let Self { outgoing, send, unsent, .. } = self;
        while !unsent.is_empty() {
            tokio::select! {
                biased;
                refused = poll_fn(|context| outgoing.poll_refused(context)) => {
                    return Err(End::ServerRefused(Box::new(refused)));
                }
                // Given up here, nothing of it was written.
                written = send.write(unsent) => drop(unsent.drain(..written.map_err(unwritten)?)),
            }
        }
        Ok(())
    }

    /// Leaves: what was written arrives first. Whoever calls bounds the time.
    pub(super) async fn close(&mut self) {
        if self.flush().await.is_ok() && self.send.finish().is_ok() {
            drop(self.send.stopped().await);
        }
        self.outgoing.connection().close(Close::Done.code().into(), b"");
        self.outgoing.flushed().await;
    }

    fn look(&mut self) {
        let now = Instant::now();
        self.look_at = now + LOOK_INTERVAL;
        match self.outgoing.follow_address(now) {
            Ok(false) => {}
            Ok(true) => tracing::info!("the session goes on from another address or socket"),
            Err(error) => tracing::debug!(%error, "no other socket; the session stays where it is"),
        }
    }
}

fn unread(error: ReadError) -> End {
    match error {
        ReadError::ConnectionLost(error) => lost(error),
        ReadError::Reset(_)
        | ReadError::ClosedStream
        | ReadError::IllegalOrderedRead
        | ReadError::ZeroRttRejected => End::Quic(error.to_string()),
    }
}

fn unwritten(error: WriteError) -> End {
    match error {
        WriteError::ConnectionLost(error) => lost(error),
        WriteError::Stopped(_) | WriteError::ClosedStream | WriteError::ZeroRttRejected => {
            End::Quic(error.to_string())
        }
    }
}

/// Returns how a session ended whose connection did.
fn lost(error: ConnectionError) -> End {
    if let Some(alert) = quic::alert(&error).filter(|alert| is_about_certificates(*alert)) {
        return End::Refused(alert);
    }
    let ConnectionError::ApplicationClosed(close) = &error else {
        let told = error.to_string();
        return if error == ConnectionError::TimedOut { End::QuicSilent(told) } else { End::Quic(told) };
    };
    let text = answer::text(&close.reason);
    match Close::of_code(close.error_code.into_inner()) {
        Some(Close::Refused) => End::Denied(text),
        Some(Close::Busy) => {
            let (retry_after, why) = Close::read_busy(&text);
            let (status, text) = (StatusCode::SERVICE_UNAVAILABLE, why.to_owned());
            End::TurnedAway { status, retry_after, text }
        }
        Some(Close::Done | Close::Protocol) | None => End::QuicClosed(ended_with(close, &text)),
        // What we said did not come, or not in time.
        Some(Close::Late) => End::Quic(ended_with(close, &text)),
    }
}

fn ended_with(close: &ApplicationClose, text: &str) -> String {
    format!("the Switch ended the connection with {}: {text}", close.error_code)
}
