//! [`Line`]: a connection under TLS that owns no buffer while nothing is under way.
//!
//! What is read and what is written passes through buffers of the thread. A line keeps what the socket has not taken yet, and the
//! beginning of a record of which the rest has not come; both are gone once they are whole. tokio-rustls keeps some kilobytes for each
//! connection instead, which is right for those that are few.

mod records;
#[cfg(test)]
pub(crate) mod tests;

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use muster_pki::CertificateDer;
use rustls::{ProtocolVersion, ServerConfig, ServerConnection};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;

pub use self::records::Keying;
use self::records::{Opened, READ_BYTES_MAX, Records, SCRATCH_BYTES};

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch { read: vec![0; SCRATCH_BYTES], sealed: Vec::new() });
}

/// What lines of a thread read into and seal into.
struct Scratch {
    read: Vec<u8>,
    sealed: Vec<u8>,
}

/// A server's connection.
#[derive(Debug)]
pub struct Line {
    stream: TcpStream,
    records: Records,
    unsent: Unsent,
}

/// A connection whose handshake is over.
#[derive(Debug)]
pub struct Accepted {
    /// The connection.
    pub line: Line,
    /// What the peer sent right behind its handshake.
    pub early: Vec<u8>,
}

/// What a read brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Came {
    /// Text, which was appended, or something of TLS's own.
    Some,
    /// The end: the peer closed, or cut the connection.
    End,
}

/// Records that the socket has not taken.
#[derive(Debug, Default)]
struct Unsent {
    bytes: Vec<u8>,
    taken: usize,
}

impl Line {
    /// Shakes hands.
    ///
    /// # Errors
    /// Why there is no connection, with the socket: the peer was told, and may be given time to read it. What TLS has to say is the error's inner one.
    pub async fn accept(
        config: Arc<ServerConfig>,
        stream: TcpStream,
        keying: Keying,
    ) -> Result<Accepted, (io::Error, TcpStream)> {
        let records = match Records::new(config, keying) {
            Ok(records) => records,
            Err(error) => return Err((of_tls(error), stream)),
        };
        let mut accepted =
            Accepted { line: Self { stream, records, unsent: Unsent::default() }, early: Vec::new() };
        match accepted.shake_hands().await {
            Ok(()) => Ok(accepted),
            Err(error) => {
                // The alert. Who does not take it is not told.
                drop(accepted.line.flush().await);
                Err((error, accepted.line.stream))
            }
        }
    }

    /// Returns the chain that the peer showed, or showed when the session began that this one resumes.
    #[must_use]
    pub fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.records.peer_certificates()
    }

    /// Returns the version that is spoken.
    #[must_use]
    pub fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.records.state().protocol_version()
    }

    /// Returns what keying material is exported from: a connection with [`Keying::Exported`].
    #[must_use]
    pub fn exporter(&self) -> Option<&ServerConnection> {
        self.records.exporter()
    }

    /// Reads once, and appends the text that came to `plain`.
    ///
    /// # Errors
    /// The socket's, or TLS's as the inner one; what the socket has not taken of the alert goes out with [`Self::poll_flush`].
    pub fn poll_receive(&mut self, context: &mut Context<'_>, plain: &mut Vec<u8>) -> Poll<io::Result<Came>> {
        SCRATCH.with_borrow_mut(|Scratch { read, sealed }| {
            let kept = self.records.resume(read);
            let mut room = ReadBuf::new(read.get_mut(kept..kept + READ_BYTES_MAX).unwrap_or_default());
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut room))?;
            let came = room.filled().len();
            if came == 0 {
                return Poll::Ready(Ok(Came::End));
            }
            sealed.clear();
            let received = read.get_mut(..kept + came).unwrap_or_default();
            let opened = self.records.open(received, plain, sealed);
            let written = self.unsent.write(&self.stream, sealed);
            // What the peer got wrong says more than that it does not take the alert.
            let opened = opened.map_err(of_tls)?;
            written?;
            Poll::Ready(Ok(match opened {
                Opened::More => Came::Some,
                Opened::Closed => Came::End,
            }))
        })
    }

    /// Reads once; see [`Self::poll_receive`].
    ///
    /// # Errors
    /// As there.
    pub async fn receive(&mut self, plain: &mut Vec<u8>) -> io::Result<Came> {
        std::future::poll_fn(|context| self.poll_receive(context, plain)).await
    }

    /// Seals `plain`, and gives the socket what it takes at once. The rest is kept and goes first; [`Self::poll_flush`] waits for it.
    ///
    /// # Errors
    /// The socket's, or TLS's as the inner one.
    pub fn send(&mut self, plain: &[u8]) -> io::Result<()> {
        SCRATCH.with_borrow_mut(|Scratch { sealed, .. }| {
            sealed.clear();
            self.records.seal(plain, sealed).map_err(of_tls)?;
            self.unsent.write(&self.stream, sealed)
        })
    }

    /// Returns whether the socket has taken everything.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.unsent.is_empty()
    }

    /// Returns the bytes that the socket has not taken.
    #[must_use]
    pub fn unsent_bytes(&self) -> usize {
        self.unsent.len()
    }

    /// Gives the socket what it has not taken.
    ///
    /// # Errors
    /// The socket's.
    pub fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let taken = ready!(Pin::new(&mut self.stream).poll_write(context, self.unsent.left()))?;
            if taken == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unsent.take(taken);
        }
        Poll::Ready(Ok(()))
    }

    /// Waits until the socket has taken everything.
    ///
    /// # Errors
    /// The socket's.
    pub async fn flush(&mut self) -> io::Result<()> {
        std::future::poll_fn(|context| self.poll_flush(context)).await
    }

    /// Says that nothing more will be said, and waits until the socket has taken that.
    ///
    /// # Errors
    /// The socket's, or TLS's as the inner one.
    pub async fn close(&mut self) -> io::Result<()> {
        self.begin_close()?;
        self.flush().await
    }

    /// Says that nothing more will be said, as far as the socket takes it at once.
    ///
    /// # Errors
    /// The socket's, or TLS's as the inner one.
    pub fn begin_close(&mut self) -> io::Result<()> {
        SCRATCH.with_borrow_mut(|Scratch { sealed, .. }| {
            sealed.clear();
            self.records.close(sealed).map_err(of_tls)?;
            self.unsent.write(&self.stream, sealed)
        })
    }

    /// Returns the socket.
    #[must_use]
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }
}

impl Accepted {
    async fn shake_hands(&mut self) -> io::Result<()> {
        while self.line.records.state().is_handshaking() {
            if self.line.receive(&mut self.early).await? == Came::End {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the connection ended in the TLS handshake",
                ));
            }
            self.line.flush().await?;
        }
        Ok(())
    }
}

impl Unsent {
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn len(&self) -> usize {
        self.bytes.len() - self.taken
    }

    fn left(&self) -> &[u8] {
        self.bytes.get(self.taken..).unwrap_or_default()
    }

    fn take(&mut self, bytes: usize) {
        self.taken += bytes;
        if self.is_empty() {
            *self = Self::default();
        }
    }

    /// Gives the socket what it takes of `sealed`, unless something waits already, and keeps the rest.
    fn write(&mut self, stream: &TcpStream, sealed: &[u8]) -> io::Result<()> {
        let mut left = sealed;
        while self.is_empty() && !left.is_empty() {
            match stream.try_write(left) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(taken) => left = left.get(taken..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.bytes.extend_from_slice(left);
        Ok(())
    }
}

fn of_tls(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
