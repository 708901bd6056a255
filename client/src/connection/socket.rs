//! [`Socket`]: a session's frames, over whichever road there is.

use std::time::Duration;

use bytes::Bytes;

use super::End;
use super::quic::QuicSocket;
use super::websocket::WebSocket;
use crate::config::Transport;

/// A connection that carries frames.
#[derive(Debug)]
pub(super) enum Socket {
    WebSocket(Box<WebSocket>),
    Quic(Box<QuicSocket>),
}

/// What came from the Switch.
#[derive(Debug)]
pub(super) enum Heard {
    /// A frame, as it is encoded.
    Frame(Bytes),
    /// Something of the road's own: the Switch lives.
    Life,
}

impl Socket {
    /// Returns the road.
    pub(super) fn transport(&self) -> Transport {
        match self {
            Self::WebSocket(_) => Transport::WebSocket,
            Self::Quic(_) => Transport::Quic,
        }
    }

    /// Waits for what the Switch says next. It may be given up and asked again.
    pub(super) async fn hear(&mut self) -> Result<Heard, End> {
        match self {
            Self::WebSocket(socket) => socket.hear().await,
            Self::Quic(socket) => socket.hear().await.map(Heard::Frame),
        }
    }

    /// Writes a frame; it leaves with the next flush at the latest.
    pub(super) async fn feed(&mut self, frame: Bytes) -> Result<(), End> {
        match self {
            Self::WebSocket(socket) => socket.feed(frame).await,
            Self::Quic(socket) => socket.feed(&frame).await,
        }
    }

    /// Waits until the road has taken everything.
    pub(super) async fn flush(&mut self) -> Result<(), End> {
        match self {
            Self::WebSocket(socket) => socket.flush().await,
            Self::Quic(socket) => socket.flush().await,
        }
    }

    /// Closes. Whoever calls bounds the time.
    pub(super) async fn close(&mut self) {
        match self {
            Self::WebSocket(socket) => socket.close().await,
            Self::Quic(socket) => socket.close().await,
        }
    }

    /// Returns how a session ends whose Switch has not read for so long.
    pub(super) fn silent(&self, limit: Duration) -> End {
        let told = format!("the Switch read nothing for {limit:?}");
        match self {
            Self::WebSocket(_) => End::WebSocket(told),
            Self::Quic(_) => End::QuicSilent(told),
        }
    }
}
