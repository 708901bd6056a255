//! [`Wire`]: what one client says and hears: the messages of a WebSocket over a [`Line`], or the items of a QUIC stream.
//!
//! It owns no buffer while nothing is under way: text is read into, and frames are gathered in, buffers of the shard's thread. A long message,
//! which many sessions share, is not copied for one that reads slowly: over QUIC the stream holds it as it is, and over TLS a record of it is
//! sealed when the socket has taken the one before.

mod quic;
mod rest;
mod road;
#[cfg(test)]
mod tests;
mod websocket;

use std::borrow::Cow;
use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use muster_pki::CertificateDer;
use muster_proto::frame::Encoded;
use muster_proto::frame::item::{self, ItemError};
use muster_proto::session::quic::Close;
use muster_service::line::{Came, Line};
use tokio::task::coop::{consume_budget, poll_proceed};

pub(super) use self::quic::QuicLine;
use self::rest::{Held, Rest};
pub(super) use self::rest::{bound_unsent_bytes, is_crowded, unsent_bytes};
use self::road::Road;
pub(super) use self::websocket::{Kind, Violation};
use self::websocket::{Reader, Received};

/// Bytes of frames that leave in one write: one record of TLS.
const BATCH_BYTES: usize = 16 << 10;

/// The same where the sockets of a shard leave too much of what was sealed for them: who reads nothing then costs hardly anything, and who reads
/// some more writes.
const CROWDED_BATCH_BYTES: usize = 1 << 10;

/// Writes of one session outside of its task: a whole order of the usual size; the rest of a long one is its task's.
const WRITES_AT_ONCE: usize = 4;

/// Bytes from which on a message is not copied into a stream of QUIC: shorter ones cost less in one piece.
const SHARED_BYTES_MIN: usize = 2 << 10;

/// The code of a connection that did what it was for (RFC 6455 §7.4.1).
const NORMAL_CLOSE: u16 = 1000;

/// The code of one whose messages are of a kind that is not understood (as above).
pub(super) const UNSUPPORTED_DATA: u16 = 1003;

/// The code of one whose messages are not what they should be inside (as above).
pub(super) const INVALID_DATA: u16 = 1007;

thread_local! {
    static SCRATCH: RefCell<Scratch> =
        const { RefCell::new(Scratch { text: Vec::new(), frames: Vec::new(), chunks: Vec::new() }) };
}

/// What wires of a shard read into and gather in.
struct Scratch {
    text: Vec<u8>,
    frames: Vec<u8>,
    /// What a stream of QUIC is given, in pieces.
    chunks: Vec<Bytes>,
}

/// One client's messages.
#[derive(Debug)]
pub(super) struct Wire {
    line: Road,
    reader: Tongue,
    unread: Unread,
    /// What is left of a message whose beginning has left.
    rest: Option<Box<Rest>>,
    /// How much waits that was sealed for it.
    held: Held,
    /// The payload of the last ping, which waits for its answer; one before it need not be answered (RFC 6455 §5.5.3).
    #[expect(clippy::box_collection, reason = "a pointer in every session, and a ping in hardly any")]
    ping: Option<Box<Vec<u8>>>,
    /// How the client broke the rules: nothing more of it is read.
    violation: Option<Broken>,
    /// What the close frame will say.
    close_code: u16,
    /// The client's half is at its end.
    has_ended: bool,
    /// Our half is: RFC 6455 §5.5.1 has one close frame of each side.
    has_closed: bool,
}

/// How messages lie in what comes.
#[derive(Debug)]
enum Tongue {
    WebSocket(Reader),
    /// Items with their length in front, each of at most so many bytes.
    Items(usize),
}

/// How a client broke the rules of its road.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    /// Those of WebSocket.
    #[error(transparent)]
    WebSocket(#[from] Violation),
    /// Those of items.
    #[error(transparent)]
    Item(#[from] ItemError),
}

/// What a client said.
#[derive(Debug)]
pub(super) enum Heard<T> {
    /// A message, as whoever asked reads it.
    Message(T),
    /// Something of the WebSocket's own: the client lives.
    Control,
    /// The end.
    End,
}

/// Why nothing more is heard.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    /// The client broke the rules of its road.
    #[error(transparent)]
    Violation(#[from] Broken),
    /// The connection broke.
    #[error(transparent)]
    Line(#[from] io::Error),
}

/// How far a write came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// The socket has everything.
    All,
    /// The socket takes no more for the moment.
    Blocked {
        /// It took all of what blocked it before, and was given more.
        is_new: bool,
    },
    /// Others have their turn; the task is woken again.
    Yielded,
}

/// What one write had.
#[derive(Debug, Clone, Copy)]
struct Told {
    is_some: bool,
    /// Nothing more waits, but perhaps for the socket.
    is_all: bool,
}

/// Text that is not understood yet: the beginning of a frame, or frames behind the one that was heard last.
#[derive(Debug, Default)]
struct Unread {
    bytes: Vec<u8>,
    taken: usize,
}

impl Wire {
    /// Begins behind an upgrade that was answered. A message of the client has at most so many bytes.
    pub(super) fn new(line: Line, message_bytes_max: usize) -> Self {
        Self::with(Road::Tls(line), Tongue::WebSocket(Reader::new(message_bytes_max)), Vec::new())
    }

    /// Begins with a stream of which `early` was read.
    pub(super) fn over_quic(line: QuicLine, early: Vec<u8>, message_bytes_max: usize) -> Self {
        Self::with(Road::Quic(Box::new(line)), Tongue::Items(message_bytes_max), early)
    }

    fn with(line: Road, reader: Tongue, early: Vec<u8>) -> Self {
        Self {
            line,
            reader,
            unread: Unread { bytes: early, taken: 0 },
            rest: None,
            held: Held::default(),
            ping: None,
            violation: None,
            close_code: NORMAL_CLOSE,
            has_ended: false,
            has_closed: false,
        }
    }

    /// Returns the chain that the client showed.
    pub(super) fn peer_certificates(&self) -> Option<Cow<'_, [CertificateDer<'static>]>> {
        self.line.peer_certificates()
    }

    /// Returns where the client is, if that may change.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.line.address()
    }

    /// Notes that the client was welcomed.
    pub(super) fn welcome(&self) {
        self.line.welcome();
    }

    /// Hears the next thing; `read` makes of a message what is wanted of it, where it lies.
    pub(super) fn poll_hear<T>(
        &mut self,
        context: &mut Context<'_>,
        mut read: impl FnMut(Kind, &[u8]) -> T,
    ) -> Poll<Result<Heard<T>, WireError>> {
        loop {
            if let Some(heard) = self.hear_unread(&mut read)? {
                return Poll::Ready(Ok(heard));
            }
            if self.has_ended {
                return Poll::Ready(Ok(Heard::End));
            }
            if !self.unread.is_empty() {
                // Behind the beginning that is there, which is not copied again and again while a long message comes in small pieces.
                self.unread.settle();
                let came = ready!(self.line.poll_receive(context, &mut self.unread.bytes))?;
                self.has_ended = came == Came::End;
                continue;
            }
            let heard = SCRATCH.with_borrow_mut(|Scratch { text, .. }| {
                text.clear();
                let came = ready!(self.line.poll_receive(context, text))?;
                self.has_ended = came == Came::End;
                Poll::Ready(self.hear_text(text, &mut read))
            });
            if let Some(heard) = ready!(heard)? {
                return Poll::Ready(Ok(heard));
            }
        }
    }

    /// Returns whether the socket has taken everything.
    pub(super) fn is_flushed(&self) -> bool {
        self.rest.is_none() && self.line.is_flushed()
    }

    /// Returns the bytes that the socket has not taken.
    pub(super) fn unsent_bytes(&self) -> usize {
        self.line.unsent_bytes()
    }

    /// Has the close frame say something else than that all is well.
    pub(super) fn set_close_code(&mut self, code: u16) {
        self.close_code = code;
    }

    /// Ends the connection without waiting for the client, which ended its half or takes nothing.
    pub(super) fn hang_up(mut self) {
        // Who does not take it finds a connection that was cut.
        self.line.hang_up();
    }

    /// Tells the client what `next` has to say, in a few writes and as far as the socket takes it at once; returns whether that was all. If it
    /// was not, [`Self::poll_tell`] goes on.
    ///
    /// # Errors
    /// The socket's, or TLS's.
    pub(super) fn tell(&mut self, mut next: impl FnMut() -> Option<(Kind, Encoded)>) -> io::Result<bool> {
        let mut is_all = false;
        for _ in 0..WRITES_AT_ONCE {
            // What waits for the socket goes first.
            if is_all || !self.line.is_flushed() {
                break;
            }
            is_all = self.tell_some(&mut next)?.is_all;
        }
        self.held.set(self.line.sealed_bytes());
        Ok(is_all && self.line.is_flushed())
    }

    /// Tells the client what `next` has to say, and answers its pings. A client that takes everything at once gives others their turn: then
    /// the task is woken again.
    ///
    /// # Errors
    /// The socket's, or TLS's.
    pub(super) fn poll_tell(
        &mut self,
        context: &mut Context<'_>,
        next: impl FnMut() -> Option<(Kind, Encoded)>,
    ) -> io::Result<Written> {
        let written = self.poll_tell_all(context, next);
        self.held.set(self.line.sealed_bytes());
        written
    }

    fn poll_tell_all(
        &mut self,
        context: &mut Context<'_>,
        mut next: impl FnMut() -> Option<(Kind, Encoded)>,
    ) -> io::Result<Written> {
        let mut is_new = self.line.is_flushed();
        loop {
            if self.line.poll_flush(context)?.is_pending() {
                return Ok(Written::Blocked { is_new });
            }
            is_new = true;
            let Poll::Ready(turn) = poll_proceed(context) else { return Ok(Written::Yielded) };
            let Told { is_some, is_all } = self.tell_some(&mut next)?;
            if is_some {
                turn.made_progress();
            }
            if is_all && self.line.is_flushed() {
                return Ok(Written::All);
            }
        }
    }

    /// Tells as much as leaves in one write.
    fn tell_some(&mut self, next: impl FnMut() -> Option<(Kind, Encoded)>) -> io::Result<Told> {
        SCRATCH.with_borrow_mut(|Scratch { frames, chunks, .. }| {
            frames.clear();
            match &mut self.line {
                Road::Tls(line) => {
                    let pong = |frames: &mut Vec<u8>| {
                        let ping = self.ping.take();
                        ping.inspect(|ping| websocket::write_pong(frames, ping)).is_some()
                    };
                    let is_all = gather(frames, &mut self.rest, pong, next);
                    if !frames.is_empty() {
                        line.send(frames)?;
                    }
                    Ok(Told { is_some: !frames.is_empty(), is_all })
                }
                Road::Quic(line) => {
                    chunks.clear();
                    let is_all = collect(chunks, frames, next);
                    let is_some = !chunks.is_empty();
                    line.send(chunks.drain(..))?;
                    Ok(Told { is_some, is_all })
                }
            }
        })
    }

    /// Closes the WebSocket, and gives the client a moment to do so, too: closing a socket with unread bytes resets it, and the client might
    /// lose what it was told last. Whoever calls bounds the time.
    pub(super) async fn close(mut self) {
        let code = match self.violation {
            None => self.close_code,
            Some(Broken::WebSocket(violation)) => violation.close_code(),
            Some(Broken::Item(error)) => {
                return self.line.end(Some((Close::Protocol, error.to_string()))).await;
            }
        };
        if matches!(self.reader, Tongue::Items(_)) {
            return self.line.end(None).await;
        }
        // A connection that is broken is closed.
        if self.send_close(Some(code)).is_ok() && self.line.flush().await.is_ok() {
            while let Ok(Heard::Message(()) | Heard::Control) = self.hear_nothing().await {
                consume_budget().await;
            }
        }
        self.line.end(None).await;
    }

    fn send_close(&mut self, code: Option<u16>) -> io::Result<()> {
        // Nothing may come between the parts of a message; whoever does not get the rest of it finds a connection that was cut.
        if self.rest.is_some() || std::mem::replace(&mut self.has_closed, true) {
            return Ok(());
        }
        let mut frame = Vec::new();
        websocket::write_close(&mut frame, code);
        match &mut self.line {
            Road::Tls(line) => line.send(&frame),
            Road::Quic(_) => Ok(()),
        }
    }

    async fn hear_nothing(&mut self) -> Result<Heard<()>, WireError> {
        std::future::poll_fn(|context| self.poll_hear(context, |_, _| ())).await
    }

    /// Hears the first frame of what came, and keeps what is behind it.
    fn hear_text<T>(
        &mut self,
        text: &mut [u8],
        read: &mut impl FnMut(Kind, &[u8]) -> T,
    ) -> Result<Option<Heard<T>>, WireError> {
        let (used, heard) = match self.understand(text, read)? {
            Some((used, heard)) => (used, Some(heard)),
            None => (0, None),
        };
        self.unread.keep(text.get(used..).unwrap_or_default());
        Ok(heard)
    }

    /// Hears the first frame of what was kept.
    fn hear_unread<T>(
        &mut self,
        read: &mut impl FnMut(Kind, &[u8]) -> T,
    ) -> Result<Option<Heard<T>>, WireError> {
        if self.unread.is_empty() {
            return match self.violation {
                Some(violation) => Err(violation.into()),
                None => Ok(None),
            };
        }
        let mut unread = std::mem::take(&mut self.unread);
        let understood = self.understand(unread.left(), read)?;
        let heard = understood.map(|(used, heard)| {
            unread.take(used);
            heard
        });
        self.unread = unread;
        Ok(heard)
    }

    /// Understands the frame at the beginning of `text`; returns its bytes.
    fn understand<T>(
        &mut self,
        text: &mut [u8],
        read: &mut impl FnMut(Kind, &[u8]) -> T,
    ) -> Result<Option<(usize, Heard<T>)>, WireError> {
        if let Some(violation) = self.violation {
            return Err(violation.into());
        }
        let reader = match &mut self.reader {
            Tongue::Items(message_bytes_max) => {
                let item = item::first(text, *message_bytes_max).map_err(Broken::from);
                let item = item.inspect_err(|broken| self.violation = Some(*broken));
                let heard = |place: Range<usize>| {
                    (place.end, Heard::Message(read(Kind::Binary, text.get(place).unwrap_or_default())))
                };
                return Ok(item?.map(heard));
            }
            Tongue::WebSocket(reader) => reader,
        };
        let frame = reader.read(text).map_err(Broken::from);
        let frame = frame.inspect_err(|broken| self.violation = Some(*broken));
        let Some((used, received)) = frame? else { return Ok(None) };
        let heard = match received {
            Received::Whole(kind, place) => Heard::Message(read(kind, text.get(place).unwrap_or_default())),
            Received::Gathered(kind, gathered) => Heard::Message(read(kind, &gathered)),
            Received::Nothing => Heard::Control,
            Received::Ping(place) => {
                self.ping = Some(Box::new(text.get(place).unwrap_or_default().to_vec()));
                Heard::Control
            }
            Received::Close(code) => {
                self.has_ended = true;
                self.send_close(code)?;
                Heard::End
            }
        };
        Ok(Some((used, heard)))
    }
}

/// Gathers frames of a WebSocket, one write's worth: what is left of a message, a pong, and what `next` has to say. Returns whether that was all.
fn gather(
    frames: &mut Vec<u8>,
    left: &mut Option<Box<Rest>>,
    mut pong: impl FnMut(&mut Vec<u8>) -> bool,
    mut next: impl FnMut() -> Option<(Kind, Encoded)>,
) -> bool {
    let batch_bytes = if is_crowded() { CROWDED_BATCH_BYTES } else { BATCH_BYTES };
    let mut rest = left.take().map(|rest| *rest);
    let is_all = loop {
        if let Some(message) = &mut rest
            && !message.put(frames, batch_bytes)
        {
            break false;
        }
        rest = None;
        if frames.len() + websocket::HEADER_BYTES_MAX >= batch_bytes {
            break false;
        }
        if pong(frames) {
            continue;
        }
        if let Some((kind, message)) = next() {
            websocket::write_message_header(frames, kind, message.len());
            rest = Some(Rest::from(message));
        } else {
            break true;
        }
    };
    *left = rest.map(Box::new);
    is_all
}

/// Collects items of a stream, about one write's worth. What is long is not copied. Returns whether that was all.
fn collect(
    chunks: &mut Vec<Bytes>,
    short: &mut Vec<u8>,
    mut next: impl FnMut() -> Option<(Kind, Encoded)>,
) -> bool {
    let mut bytes = 0;
    let is_all = loop {
        if bytes >= BATCH_BYTES {
            break false;
        }
        let Some((_, message)) = next() else { break true };
        bytes += item::LENGTH_BYTES_MAX + message.len();
        item::put_length(short, message.len());
        for piece in message.into_pieces() {
            if piece.len() < SHARED_BYTES_MIN {
                short.extend_from_slice(&piece);
            } else {
                chunks.push(Bytes::copy_from_slice(short));
                short.clear();
                chunks.push(piece);
            }
        }
    };
    if !short.is_empty() {
        chunks.push(Bytes::copy_from_slice(short));
    }
    is_all
}

impl Unread {
    fn is_empty(&self) -> bool {
        self.taken == self.bytes.len()
    }

    fn left(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.taken..).unwrap_or_default()
    }

    fn keep(&mut self, text: &[u8]) {
        if !text.is_empty() {
            self.bytes.extend_from_slice(text);
        }
    }

    fn take(&mut self, bytes: usize) {
        self.taken += bytes;
        if self.is_empty() {
            *self = Self::default();
        }
    }

    /// Forgets what was taken, before more comes behind what is left.
    fn settle(&mut self) {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        // What a long message before it needed is not kept for a short one.
        if self.bytes.capacity() > 4 * (self.bytes.len() + BATCH_BYTES) {
            self.bytes.shrink_to(self.bytes.len() + BATCH_BYTES);
        }
    }
}
