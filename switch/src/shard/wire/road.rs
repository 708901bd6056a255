//! [`Road`]: what carries the bytes of a session.

use std::borrow::Cow;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use muster_pki::CertificateDer;
use muster_proto::session::quic::Close;
use muster_service::admission;
use muster_service::line::{Came, Line};

use super::QuicLine;

/// TLS over TCP, or a stream of QUIC. Both keep only what could not leave.
#[derive(Debug)]
pub(super) enum Road {
    Tls(Line),
    Quic(Box<QuicLine>),
}

impl Road {
    /// Returns the chain that the client showed.
    pub(super) fn peer_certificates(&self) -> Option<Cow<'_, [CertificateDer<'static>]>> {
        match self {
            Self::Tls(line) => line.peer_certificates().map(Cow::Borrowed),
            Self::Quic(line) => line.peer_certificates().map(Cow::Owned),
        }
    }

    /// Returns where the client is, if that may change.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tls(_) => None,
            Self::Quic(line) => Some(line.connection().remote_address()),
        }
    }

    /// Notes that the client was welcomed: over QUIC it may send more ahead from here on.
    pub(super) fn welcome(&self) {
        match self {
            Self::Tls(_) => {}
            Self::Quic(line) => line.welcome(),
        }
    }

    /// Reads once, and appends what came to `plain`.
    pub(super) fn poll_receive(
        &mut self,
        context: &mut Context<'_>,
        plain: &mut Vec<u8>,
    ) -> Poll<io::Result<Came>> {
        match self {
            Self::Tls(line) => line.poll_receive(context, plain),
            Self::Quic(line) => line.poll_receive(context, plain),
        }
    }

    /// Returns whether it has taken everything.
    pub(super) fn is_flushed(&self) -> bool {
        match self {
            Self::Tls(line) => line.is_flushed(),
            Self::Quic(line) => line.is_flushed(),
        }
    }

    /// Returns the bytes that it has not taken.
    pub(super) fn unsent_bytes(&self) -> usize {
        match self {
            Self::Tls(line) => line.unsent_bytes(),
            Self::Quic(line) => line.unsent_bytes(),
        }
    }

    /// Returns the bytes that were made for this session alone, and that it has not taken; what goes over QUIC is shared, or short.
    pub(super) fn sealed_bytes(&self) -> usize {
        match self {
            Self::Tls(line) => line.unsent_bytes(),
            Self::Quic(_) => 0,
        }
    }

    /// Gives it what it has not taken.
    pub(super) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tls(line) => line.poll_flush(context),
            Self::Quic(line) => line.poll_flush(context),
        }
    }

    /// Waits until it has taken everything.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|context| self.poll_flush(context)).await
    }

    /// Ends the connection without waiting for anyone.
    pub(super) fn hang_up(&mut self) {
        match self {
            // Who does not take the word finds a connection that was cut.
            Self::Tls(line) => drop(line.begin_close()),
            Self::Quic(line) => line.close(Close::Done, ""),
        }
    }

    /// Ends the connection so that what was written arrives. Over QUIC it ends with a word, if there is one.
    pub(super) async fn end(self, word: Option<(Close, String)>) {
        match self {
            Self::Tls(line) => admission::end_line(line).await,
            Self::Quic(line) => line.end(word).await,
        }
    }
}
