//! The task of one session: moves frames between the socket and the protocol's half.
//!
//! Reading goes on while a write stalls, so that two full socket buffers cannot lock client and Switch together. The
//! task has one timer for all of its deadlines: the protocol's, the stalled write's, the certificate's end.

use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::{Sink as _, Stream as _, StreamExt as _};
use muster_pki::Role;
use muster_proto::frame;
use muster_proto::session::switch::SwitchEvent;
use muster_proto::session::v1::CloseReason;
use tokio::time::Sleep;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};

use super::Shard;
use super::handshake::Admitted;
use super::session::{Ending, Session};
use super::talk;
use super::upgrade::Socket;
use crate::metrics::Listener;
use crate::refusal;
use crate::wall::Wall;

/// How long the client may take to answer our close frame; it has its GoAway by then.
const CLOSE_LINGER: Duration = Duration::from_secs(2);

/// How long the certificate's end goes without a look at the wall clock, which may have been changed.
const CERTIFICATE_LOOK: Duration = Duration::from_secs(60);

/// How long a client that broke the protocol is told to stay away.
const BROKEN_RECONNECT_AFTER: Duration = Duration::from_secs(60);

/// Why a session's task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The client closed, or vanished.
    Peer,
    /// The protocol's half closed.
    Closed(CloseReason),
    /// A write stalled for too long.
    Stalled,
}

impl End {
    /// Returns its name in metrics and logs.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Stalled => "stalled",
            Self::Closed(reason) => reason.name(),
        }
    }
}

/// What a turn of the socket brought.
enum Turn {
    /// A message of the client.
    Received(Message),
    /// A deadline of the protocol passed, or the certificate has to be checked again.
    Woken,
    /// It is over.
    Ended(End),
}

/// Runs a session until it ends.
pub(super) async fn run(shard: &Shard, session: &Rc<Session>, admitted: Box<Admitted>) -> End {
    let Admitted { mut socket, visitor, mut room, path: _ } = *admitted;
    let mut pump = Pump {
        session: Rc::clone(session),
        timer: Box::pin(tokio::time::sleep(CERTIFICATE_LOOK)),
        write_deadline: shard.config.sessions.write_deadline,
        dirty: false,
        stall: Stall::default(),
        // A key has no end.
        certificate_end_ms: visitor.certificate.map_or(i64::MAX, |shown| shown.not_after_ms),
        certificate_look: Instant::now(),
    };
    let end = loop {
        match std::future::poll_fn(|context| pump.turn(&mut socket, shard, context)).await {
            Turn::Received(message) => receive(session, &message),
            Turn::Woken => {
                session.half(|half| half.handle_timeout(Instant::now()));
                // What ends a session without a certificate is a block.
                if session.take_recheck() && visitor.certificate.is_some() {
                    recheck(shard, session, &socket, visitor.address);
                }
            }
            Turn::Ended(end) => break end,
        }
        talk::converse(shard, session, &visitor).await;
        if session.identity().is_some() {
            room.greet();
        }
    };
    if matches!(end, End::Closed(_)) {
        Box::pin(goodbye(&mut socket)).await;
    }
    end
}

/// Moves bytes for one session.
struct Pump {
    session: Rc<Session>,
    timer: Pin<Box<Sleep>>,
    write_deadline: Duration,
    /// Something was given to the socket and not flushed.
    dirty: bool,
    stall: Stall,
    certificate_end_ms: i64,
    certificate_look: Instant,
}

impl Pump {
    fn turn(&mut self, socket: &mut Socket, shard: &Shard, context: &mut Context<'_>) -> Poll<Turn> {
        self.session.waker.register(context.waker());
        match self.write(socket, shard, context) {
            Ok(Written::All) if self.session.half(|half| half.is_closed()) => {
                return Poll::Ready(Turn::Ended(End::Closed(close_reason(&self.session))));
            }
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(%error, "session's socket is gone");
                return Poll::Ready(Turn::Ended(End::Peer));
            }
        }
        if self.session.awaits_recheck() {
            return Poll::Ready(Turn::Woken);
        }
        match Pin::new(&mut *socket).poll_next(context) {
            Poll::Ready(Some(Ok(message))) => return Poll::Ready(Turn::Received(message)),
            Poll::Ready(Some(Err(error))) => return self.unreadable(&error),
            Poll::Ready(None) => return Poll::Ready(Turn::Ended(End::Peer)),
            Poll::Pending => {}
        }
        self.time(&shard.wall, context)
    }

    /// Writes what waits.
    fn write(
        &mut self,
        socket: &mut Socket,
        shard: &Shard,
        context: &mut Context<'_>,
    ) -> Result<Written, SocketError> {
        loop {
            self.session.fill();
            if Pin::new(&mut *socket).poll_ready(context)?.is_pending() {
                self.stall.blocked(Instant::now());
                return Ok(Written::Some);
            }
            self.stall.ready();
            let Some(frame) = self.session.half(|half| half.poll_transmit()) else { break };
            self.dirty = true;
            Pin::new(&mut *socket).start_send(Message::Binary(frame))?;
        }
        if self.dirty {
            if Pin::new(&mut *socket).poll_flush(context)?.is_pending() {
                self.stall.unflushed(Instant::now());
                return Ok(Written::Some);
            }
            self.dirty = false;
            shard.written(&self.session);
        }
        self.stall = Stall::default();
        Ok(Written::All)
    }

    /// A message that is no message ends the session with a word; a lost connection ends it without.
    fn unreadable(&self, error: &SocketError) -> Poll<Turn> {
        tracing::debug!(%error, "session's socket is unreadable");
        if matches!(error, SocketError::Capacity(_) | SocketError::Protocol(_) | SocketError::Utf8(_))
            && !self.session.half(|half| half.is_closed())
        {
            break_off(&self.session, error.to_string());
            return Poll::Ready(Turn::Woken);
        }
        Poll::Ready(Turn::Ended(End::Peer))
    }

    fn time(&mut self, wall: &Wall, context: &mut Context<'_>) -> Poll<Turn> {
        let now = Instant::now();
        let stalled_until = self.stall.since.map(|since| since + self.write_deadline);
        if stalled_until.is_some_and(|until| until <= now) {
            return Poll::Ready(Turn::Ended(End::Stalled));
        }
        if self.certificate_look <= now {
            let left_ms = self.certificate_end_ms.saturating_sub(wall.now_ms());
            self.certificate_look =
                now + Duration::from_millis(u64::try_from(left_ms).unwrap_or(0)).min(CERTIFICATE_LOOK);
            if left_ms <= 0 {
                self.certificate_look = now + CERTIFICATE_LOOK;
                let detail = "the client's certificate has expired: renew it".to_owned();
                self.session.end(&Ending {
                    reason: CloseReason::CertificateExpired,
                    reconnect_after: Duration::ZERO,
                    detail,
                });
                return Poll::Ready(Turn::Woken);
            }
        }
        let mut next = self.certificate_look;
        for deadline in [self.session.half(|half| half.poll_timeout()), stalled_until].into_iter().flatten() {
            next = next.min(deadline);
        }
        if self.timer.deadline().into_std() != next {
            self.timer.as_mut().reset(next.into());
        }
        self.timer.as_mut().poll(context).map(|()| Turn::Woken)
    }
}

/// Since when the socket has not taken what was given to it.
///
/// A client on a slow line is written to all the time and may never be up to date. It is stalled only if the frame that
/// blocked the socket stays there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Stall {
    since: Option<Instant>,
    /// The socket refused a frame; what it then takes frees it.
    is_blocked: bool,
}

impl Stall {
    /// The socket takes no further frame.
    fn blocked(&mut self, now: Instant) {
        self.is_blocked = true;
        self.since.get_or_insert(now);
    }

    /// The socket takes a frame. That says something only if it did not before: one that is not blocked takes frames
    /// into its buffer, whatever became of those before.
    fn ready(&mut self) {
        if std::mem::take(&mut self.is_blocked) {
            self.since = None;
        }
    }

    /// What the socket took is still in its buffer.
    fn unflushed(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }
}

/// How far a write came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    /// Nothing waits.
    All,
    /// The socket takes no more for the moment.
    Some,
}

fn receive(session: &Session, message: &Message) {
    let now = Instant::now();
    match message {
        Message::Binary(bytes) => match frame::decode(bytes) {
            Ok(frame) => session.half(|half| half.handle_frame(frame, bytes.len(), now)),
            Err(error) => break_off(session, error.to_string()),
        },
        Message::Text(_) => break_off(session, "a text message, wanted a binary one".to_owned()),
        Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => {
            session.half(|half| half.handle_byte(now));
        }
    }
}

/// Ends a session whose client broke the protocol.
fn break_off(session: &Session, detail: String) {
    tracing::info!(device = %session.device, detail, "client broke the protocol");
    session.end(&Ending {
        reason: CloseReason::ProtocolError,
        reconnect_after: BROKEN_RECONNECT_AFTER,
        detail,
    });
}

/// Checks the certificate of a live session again (R3 of trust.md).
fn recheck(shard: &Shard, session: &Session, socket: &Socket, address: SocketAddr) {
    let (_, tls) = socket.get_ref().get_ref();
    if let Err(refused) =
        shard.credentials.check_peer_role(tls.peer_certificates(), &[Role::Device], shard.wall.now())
    {
        let now_ms = shard.wall.now_ms();
        refusal::note(&shard.refusals, Listener::Sessions, refused.told(), address, now_ms);
        let detail = refused.to_string();
        session.end(&Ending { reason: CloseReason::Revoked, reconnect_after: Duration::ZERO, detail });
    }
}

/// Returns the reason the protocol's half closed with.
fn close_reason(session: &Session) -> CloseReason {
    while let Some(event) = session.half(|half| half.poll_event()) {
        if let SwitchEvent::Closed { reason, .. } = event {
            return reason;
        }
    }
    CloseReason::Unspecified
}

/// Closes the WebSocket and waits a moment for the client's answer: closing a socket with unread bytes resets it, and
/// the client might lose the GoAway.
async fn goodbye(socket: &mut Socket) {
    let closing = async {
        if socket.close(None).await.is_ok() {
            while let Some(Ok(_)) = socket.next().await {}
        }
    };
    if tokio::time::timeout(CLOSE_LINGER, closing).await.is_err() {
        tracing::trace!("client did not answer the close");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_took_something_after_it_was_blocked_has_not_stalled_since_then() {
        let begin = Instant::now();
        let later = begin + Duration::from_secs(20);
        let mut stall = Stall::default();

        stall.blocked(begin);
        stall.blocked(later);
        assert_eq!(stall.since, Some(begin));
        stall.ready();
        assert_eq!(stall.since, None);
        stall.blocked(later);

        assert_eq!(stall.since, Some(later));
    }

    #[test]
    fn a_buffer_with_room_says_nothing_about_the_socket_behind_it() {
        let begin = Instant::now();
        let mut stall = Stall::default();

        stall.unflushed(begin);
        stall.ready();
        stall.unflushed(begin + Duration::from_secs(20));

        assert_eq!(stall.since, Some(begin));
    }
}
