//! The task of one session: moves frames between the wire and the protocol's half.
//!
//! Reading goes on while a write stalls, so that two full socket buffers cannot lock client and Switch together. All
//! deadlines of a session, the protocol's, the stalled write's and the certificate's end, are one entry in the shard's wheel.

use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use muster_pki::Role;
use muster_proto::frame::{self, FrameError};
use muster_proto::session::switch::SwitchEvent;
use muster_proto::session::v1::{CloseReason, Frame};
use tokio::task::coop::consume_budget;

use super::Shard;
use super::handshake::Visitor;
use super::session::{Ending, Session};
use super::talk;
use super::wire::{Heard, INVALID_DATA, Kind, UNSUPPORTED_DATA, Wire, WireError, Written};
use crate::refusal;
use crate::registry::Room;

/// How long the client may take to answer our close frame; it has its GoAway by then.
const CLOSE_LINGER: Duration = Duration::from_secs(2);

/// How long the certificate's end goes without a look at the wall clock, which may have been changed.
const CERTIFICATE_LOOK: Duration = Duration::from_secs(60);

/// Bytes that a stalled socket takes at least within `sessions.write_deadline`: a record of TLS.
const MOVED_BYTES_MIN: usize = 16 << 10;

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
    /// Its task panicked, or who wrote to it.
    Failed,
}

impl End {
    /// Returns its name in metrics and logs.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Stalled => "stalled",
            Self::Failed => "failed",
            Self::Closed(reason) => reason.name(),
        }
    }
}

/// What a turn of the socket brought.
enum Turn {
    /// The client said something.
    Heard(Heard<Said>),
    /// A deadline of the protocol passed, or the certificate has to be checked again.
    Woken,
    /// It is over.
    Ended(End),
}

/// A message of a client.
enum Said {
    /// A binary one, and its bytes.
    Frame(Result<Frame, FrameError>, usize),
    /// One of text, which the protocol does not have.
    Text,
}

impl Said {
    fn read(kind: Kind, bytes: &[u8]) -> Self {
        match kind {
            Kind::Binary => Self::Frame(frame::decode(bytes), bytes.len()),
            Kind::Text => Self::Text,
        }
    }
}

/// Runs a session until it ends.
pub(super) async fn run(shard: &Shard, session: &Rc<Session>, visitor: &Visitor, room: &mut Room) -> End {
    let mut pump = Pump {
        session: Rc::clone(session),
        write_deadline: shard.config.sessions.write_deadline,
        stall: None,
        must_look: false,
        // A key has no end.
        certificate_end_ms: visitor.certificate.map_or(i64::MAX, |shown| shown.not_after_ms),
        certificate_look: Instant::now(),
    };
    let end = loop {
        match std::future::poll_fn(|context| pump.turn(shard, context)).await {
            Turn::Heard(heard) => {
                receive(session, heard);
                talk::follow(shard, session, visitor);
            }
            Turn::Woken => {
                session.half(|half| half.handle_timeout(Instant::now()));
                // What ends a session without a certificate is a block.
                if session.take_recheck() && visitor.certificate.is_some() {
                    recheck(shard, session, visitor);
                }
            }
            Turn::Ended(end) => break end,
        }
        let asked = Instant::now();
        talk::converse(shard, session, visitor).await;
        // Nobody wrote meanwhile, which is not the client's doing.
        if let Some(stall) = &mut pump.stall {
            stall.since += asked.elapsed();
        }
        // What came in one read is many turns, and other sessions have theirs in between.
        consume_budget().await;
        if session.identity().is_some() {
            room.greet();
        }
    };
    if let Some(wire) = session.take_wire() {
        match end {
            End::Closed(_) => Box::pin(goodbye(wire)).await,
            End::Peer | End::Stalled | End::Failed => wire.hang_up(),
        }
    }
    end
}

/// Moves bytes for one session.
struct Pump {
    session: Rc<Session>,
    write_deadline: Duration,
    stall: Option<Stall>,
    /// The client was heard although something may be due: it is looked at before the client is heard again.
    must_look: bool,
    certificate_end_ms: i64,
    certificate_look: Instant,
}

/// Since when the socket has what it was given and does not take. A client on a slow line is written to all the time and may never be up to
/// date; it is stalled only if hardly anything of the same bytes goes.
#[derive(Debug, Clone, Copy)]
struct Stall {
    since: Instant,
    left: usize,
}

impl Pump {
    fn turn(&mut self, shard: &Shard, context: &mut Context<'_>) -> Poll<Turn> {
        let session = Rc::clone(&self.session);
        session.waker.register(context.waker());
        if let Some(end) = session.over() {
            return Poll::Ready(Turn::Ended(end));
        }
        // The wire is there until this has ended.
        session
            .wire(|wire| self.move_bytes(wire, shard, context))
            .unwrap_or(Poll::Ready(Turn::Ended(End::Peer)))
    }

    fn move_bytes(&mut self, wire: &mut Wire, shard: &Shard, context: &mut Context<'_>) -> Poll<Turn> {
        match self.write(wire, shard, context) {
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
        if std::mem::take(&mut self.must_look)
            && let due @ Poll::Ready(_) = self.time(shard)
        {
            return due;
        }
        match wire.poll_hear(context, Said::read) {
            Poll::Ready(Ok(Heard::End)) => return Poll::Ready(Turn::Ended(End::Peer)),
            Poll::Ready(Ok(heard)) => {
                // A client that never ends would put off every deadline.
                self.must_look = !self.session.is_scheduled();
                return Poll::Ready(Turn::Heard(heard));
            }
            Poll::Ready(Err(error)) => return self.unreadable(&error, shard),
            Poll::Pending => {}
        }
        // TLS may have had something to say of its own, which waits for the socket like the rest.
        if !wire.is_flushed() && self.write(wire, shard, context).is_err() {
            return Poll::Ready(Turn::Ended(End::Peer));
        }
        self.time(shard)
    }

    /// Writes what waits.
    fn write(&mut self, wire: &mut Wire, shard: &Shard, context: &mut Context<'_>) -> io::Result<Written> {
        let session = &self.session;
        // Also while the socket takes nothing: what waits outside of the protocol's queue is bounded by itself.
        session.fill();
        let written = wire.poll_tell(context, || session.poll_transmit())?;
        match written {
            Written::All => {
                self.stall = None;
                shard.written(session);
            }
            Written::Blocked { is_new } => {
                let left = wire.unsent_bytes();
                let moved = |stall: &Stall| stall.left.saturating_sub(left) >= MOVED_BYTES_MIN;
                if is_new || self.stall.as_ref().is_none_or(moved) {
                    let since = Instant::now();
                    self.stall = Some(Stall { since, left });
                    shard.schedule(session, since + self.write_deadline);
                }
            }
            Written::Yielded => {}
        }
        Ok(written)
    }

    /// A message that is no message ends the session with a word; a lost connection ends it without.
    fn unreadable(&mut self, error: &WireError, shard: &Shard) -> Poll<Turn> {
        tracing::debug!(%error, "session's socket is unreadable");
        match error {
            WireError::Violation(violation) if !self.session.half(|half| half.is_closed()) => {
                break_off(&self.session, violation.to_string());
                Poll::Ready(Turn::Woken)
            }
            // The last word waits for the socket.
            WireError::Violation(_) => self.time(shard),
            WireError::Line(_) => Poll::Ready(Turn::Ended(End::Peer)),
        }
    }

    /// Sees to what is due, and has the wheel wake the task for what is due next.
    fn time(&mut self, shard: &Shard) -> Poll<Turn> {
        let now = Instant::now();
        let stalled_until = self.stall.map(|stall| stall.since + self.write_deadline);
        if stalled_until.is_some_and(|until| until <= now) {
            return Poll::Ready(Turn::Ended(End::Stalled));
        }
        if self.certificate_look <= now {
            let left_ms = self.certificate_end_ms.saturating_sub(shard.wall.now_ms());
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
        if next <= now {
            return Poll::Ready(Turn::Woken);
        }
        shard.schedule(&self.session, next);
        Poll::Pending
    }
}

fn receive(session: &Session, heard: Heard<Said>) {
    let now = Instant::now();
    match heard {
        Heard::Message(Said::Frame(Ok(frame), bytes)) => {
            session.half(|half| half.handle_frame(frame, bytes, now));
        }
        Heard::Message(Said::Frame(Err(error), _)) => {
            session.wire(|wire| wire.set_close_code(INVALID_DATA));
            break_off(session, error.to_string());
        }
        Heard::Message(Said::Text) => {
            session.wire(|wire| wire.set_close_code(UNSUPPORTED_DATA));
            break_off(session, "a text message, wanted a binary one".to_owned());
        }
        Heard::Control | Heard::End => session.half(|half| half.handle_byte(now)),
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
fn recheck(shard: &Shard, session: &Session, visitor: &Visitor) {
    let check = |wire: &mut Wire| {
        let shown = wire.peer_certificates();
        shard.credentials.check_peer_role(shown.as_deref(), &[Role::Device], shard.wall.now())
    };
    if let Some(Err(refused)) = session.wire(check) {
        talk::follow(shard, session, visitor);
        let now_ms = shard.wall.now_ms();
        refusal::note(&shard.refusals, visitor.listener, refused.told(), visitor.address.get(), now_ms);
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

/// Closes the WebSocket and waits a moment for the client's answer.
async fn goodbye(wire: Wire) {
    if tokio::time::timeout(CLOSE_LINGER, wire.close()).await.is_err() {
        tracing::trace!("client did not answer the close");
    }
}
