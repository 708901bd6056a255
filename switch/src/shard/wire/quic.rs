//! [`QuicLine`]: the one stream of a session over QUIC, as the wire sees it: what a [`Line`](muster_service::line::Line) is over TLS.
//!
//! What the stream has taken lies in quinn's buffers until the client has acknowledged it, within the windows of the connection.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use muster_pki::CertificateDer;
use muster_proto::session::quic::{Close, REASON_BYTES_MAX};
use muster_service::admission;
use muster_service::line::Came;
use muster_service::quic;
use quinn::{Connection, RecvStream, SendStream, WriteError};
use tokio_util::io::poll_read_buf;

/// Room for one read: more than most frames have.
const READ_BYTES: usize = 4 << 10;

/// The stream that the client opened.
#[derive(Debug)]
pub(in crate::shard) struct QuicLine {
    connection: Connection,
    send: SendStream,
    receive: RecvStream,
    /// What the stream has not taken.
    unsent: Vec<Bytes>,
}

impl QuicLine {
    /// Begins with a stream that the client opened.
    pub(in crate::shard) fn new(connection: Connection, (send, receive): (SendStream, RecvStream)) -> Self {
        Self { connection, send, receive, unsent: Vec::new() }
    }

    /// Returns the connection.
    pub(in crate::shard) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Notes that the client was welcomed.
    pub(in crate::shard) fn welcome(&self) {
        quic::welcome(&self.connection);
    }

    /// Returns the chain that the client showed.
    pub(in crate::shard) fn peer_certificates(&self) -> Option<Vec<CertificateDer<'static>>> {
        admission::chain(&self.connection)
    }

    /// Reads once, and appends what came to `plain`.
    ///
    /// # Errors
    /// The connection's.
    pub(in crate::shard) fn poll_receive(
        &mut self,
        context: &mut Context<'_>,
        plain: &mut Vec<u8>,
    ) -> Poll<io::Result<Came>> {
        plain.reserve(READ_BYTES);
        let came = ready!(poll_read_buf(Pin::new(&mut self.receive), context, plain))?;
        Poll::Ready(Ok(if came == 0 { Came::End } else { Came::Some }))
    }

    /// Reads once; see [`Self::poll_receive`].
    ///
    /// # Errors
    /// As there.
    pub(in crate::shard) async fn receive(&mut self, plain: &mut Vec<u8>) -> io::Result<Came> {
        poll_fn(|context| self.poll_receive(context, plain)).await
    }

    /// Gives the stream what it takes at once, without copying it. The rest is kept and goes first; [`Self::poll_flush`] waits for it.
    ///
    /// # Errors
    /// The connection's.
    pub(in crate::shard) fn send(&mut self, chunks: impl Iterator<Item = Bytes>) -> io::Result<()> {
        let is_first = self.is_flushed();
        self.unsent.extend(chunks.filter(|chunk| !chunk.is_empty()));
        if is_first {
            // Whoever is to be woken says so in `poll_flush`.
            match self.poll_flush(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(flushed) => flushed?,
                Poll::Pending => {}
            }
        }
        Ok(())
    }

    /// Returns whether the stream has taken everything.
    pub(in crate::shard) fn is_flushed(&self) -> bool {
        self.unsent.is_empty()
    }

    /// Returns the bytes that the stream has not taken.
    pub(in crate::shard) fn unsent_bytes(&self) -> usize {
        self.unsent.iter().map(Bytes::len).sum()
    }

    /// Gives the stream what it has not taken.
    ///
    /// # Errors
    /// The connection's.
    pub(in crate::shard) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.is_flushed() {
            ready!(poll_write(&mut self.send, context, &mut self.unsent))?;
            self.unsent.retain(|chunk| !chunk.is_empty());
        }
        // An idle session owns no buffer.
        if self.unsent.capacity() > 0 {
            self.unsent = Vec::new();
        }
        Poll::Ready(Ok(()))
    }

    /// Ends the session: what was written arrives first, as far as the client reads. Whoever calls bounds the time.
    pub(in crate::shard) async fn end(mut self, word: Option<(Close, String)>) {
        let flushed = poll_fn(|context| self.poll_flush(context)).await;
        if flushed.is_ok() && self.send.finish().is_ok() {
            // The client has it all, or has left.
            drop(self.send.stopped().await);
        }
        let (close, why) = word.unwrap_or((Close::Done, String::new()));
        self.close(close, &why);
    }

    /// Ends the connection with a word.
    pub(in crate::shard) fn close(&self, close: Close, why: &str) {
        let mut end = why.len().min(REASON_BYTES_MAX);
        while !why.is_char_boundary(end) {
            end -= 1;
        }
        self.connection.close(close.code().into(), why.get(..end).unwrap_or_default().as_bytes());
    }
}

/// Gives a stream the beginning of some chunks, of which what is left stays.
fn poll_write(
    stream: &mut SendStream,
    context: &mut Context<'_>,
    chunks: &mut [Bytes],
) -> Poll<Result<(), WriteError>> {
    // It writes once or not at all, so nothing is lost with it.
    pin!(stream.write_chunks(chunks)).poll(context).map_ok(drop)
}
