//! The client's half of a session.
//!
//! States: `ExpectWelcome` → `Established` → closed. The shell owns journal and outbox: what was pushed and not acked
//! when the session ends is pushed again in the next one. After [`ClientEvent::Closed`] it waits with full jitter
//! (PROTOCOL.md, "Coming back") and begins a new session.

mod established;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use self::established::Established;
use super::outbound::{Outbound, Priority, encode};
use super::{PushError, VERSIONS};
use crate::common::v1::TargetState;
use crate::frame::{self, Encoded, FrameError};
use crate::ids::{Digest, InstructionId};
use crate::limits::SessionLimits;
use crate::session::v1::frame::Body;
use crate::session::v1::{
    CloseReason, Document, DocumentKind, DocumentRequest, Event, Frame, GoAway, Hello, InclusionProof, Lane,
    PolicyCheck, Pong, Progress, Result as InstructionResult, SequenceRange, Welcome,
};

/// How one session behaves.
#[derive(Debug, Clone, Default)]
pub struct ClientSessionConfig {
    /// Of these a client uses `hello_deadline` (until Welcome) and `outbound_bytes_max`; the Switch tells the rest.
    pub limits: Arc<SessionLimits>,
}

/// What a session tells its shell.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub enum ClientEvent {
    /// The Switch accepted the session; results and events may be pushed from here on.
    Welcome(Welcome),
    /// An order to verify, journal and run. It may have come before.
    Order {
        /// CMS SignedData over a `muster.order.v1.Order`.
        envelope: Bytes,
        /// Shows that the device is under the order's `members_root`, where it has one.
        proof: Option<InclusionProof>,
    },
    /// Results or events that are on the Switch's disk: delete them, then push more under the new credit.
    Acked {
        /// Of which lane.
        lane: Lane,
        /// Which sequences; none, where there was only new credit.
        ranges: Vec<SequenceRange>,
    },
    /// A document as asked for; an empty envelope: the Switch does not have it. Its digest is not checked yet.
    Document(Document),
    /// The Switch holds another licence; ask for it if it is not the one held.
    LicenceNotice(Digest),
    /// The Switch names the policy that it holds for this device.
    PolicyNotice {
        /// SHA-256 of its envelope; none: it holds no later one than was told.
        digest: Option<Digest>,
        /// How long all that are told at once may take to ask for it. A Switch may say anything: whoever asks has a bound.
        spread: Duration,
    },
    /// The Switch ends the session; [`ClientEvent::Closed`] follows.
    GoAway {
        /// Why.
        reason: CloseReason,
        /// Wait at least this long before the next attempt.
        reconnect_after: Duration,
        /// For people, at most 256 bytes of foreign text.
        detail: String,
    },
    /// The session has ended: close the transport. Comes once, and nothing after it.
    Closed {
        /// Why: the Switch's reason, or this half's own if the Switch was silent or broke the protocol.
        reason: CloseReason,
    },
}

/// The client's half of one session.
#[derive(Debug)]
pub struct ClientSession {
    state: State,
    outbound: Outbound,
    /// The nonce to answer; only the latest ping is, however many come.
    pong: Option<u64>,
    /// At most two for each frame handed in; the shell empties it after each.
    events: VecDeque<ClientEvent>,
    ignored: u64,
}

/// What the session waits for.
#[derive(Debug)]
enum State {
    ExpectWelcome(ExpectWelcome),
    Established(Established),
    Closed(CloseReason),
}

/// Hello is on its way.
#[derive(Debug)]
struct ExpectWelcome {
    deadline: Instant,
    versions: Vec<u32>,
}

/// What the Switch did against the protocol.
#[derive(Debug)]
struct Violation;

impl ClientSession {
    /// Begins a session whose transport is open: `hello` is the first frame to transmit.
    ///
    /// An empty `hello.versions` becomes [`VERSIONS`]. Check foreign attributes with [`frame::check`] first: a Switch
    /// closes the session of a Hello that breaks a limit.
    #[must_use]
    pub fn new(config: ClientSessionConfig, hello: Hello, now: Instant) -> Self {
        let versions = if hello.versions.is_empty() { VERSIONS.to_vec() } else { hello.versions };
        let hello = Hello { versions: versions.clone(), ..hello };
        let mut outbound = Outbound::new(config.limits.outbound_bytes_max);
        outbound.push_granted(Priority::Control, encode(Body::Hello(hello)));
        let deadline = now + config.limits.hello_deadline;
        Self {
            state: State::ExpectWelcome(ExpectWelcome { deadline, versions }),
            outbound,
            pong: None,
            events: VecDeque::new(),
            ignored: 0,
        }
    }

    /// Takes one binary message of the transport: decodes it, checks it and handles it.
    pub fn handle_message(&mut self, message: &[u8], now: Instant) {
        match frame::decode(message) {
            Ok(frame) => self.handle_frame(frame, message.len(), now),
            Err(error) => self.handle_malformed(&error),
        }
    }

    /// Takes a frame that [`frame::decode`] has checked, of `encoded_len` bytes on the wire.
    pub fn handle_frame(&mut self, frame: Frame, _encoded_len: usize, now: Instant) {
        self.handle_byte(now);
        let Frame { proof, body } = frame;
        let Some(body) = body else {
            self.ignored = self.ignored.saturating_add(1);
            return;
        };
        if self.is_closed() {
            return;
        }
        let handled = self.handle_body(body, proof, now);
        if let Err(Violation) = handled {
            self.close(CloseReason::ProtocolError);
        }
    }

    /// Takes the news that a message was no frame: the session ends.
    pub fn handle_malformed(&mut self, _error: &FrameError) {
        self.close(CloseReason::ProtocolError);
    }

    /// Takes the news that any byte came, such as of a WebSocket pong: the Switch lives.
    pub fn handle_byte(&mut self, now: Instant) {
        if let State::Established(established) = &mut self.state {
            established.heard(now);
        }
    }

    /// Tells the session that [`Self::poll_timeout`] may have passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        match &self.state {
            State::ExpectWelcome(expect) if now >= expect.deadline => self.close(CloseReason::HelloTimeout),
            State::Established(established) if now >= established.dead_at() => self.close(CloseReason::Idle),
            State::ExpectWelcome(_) | State::Established(_) | State::Closed(_) => {}
        }
    }

    /// Returns when [`Self::handle_timeout`] should next be called; `None` once the session is closed.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::ExpectWelcome(expect) => Some(expect.deadline),
            State::Established(established) => Some(established.dead_at()),
            State::Closed(_) => None,
        }
    }

    /// Says how far the client has come with an instruction: `ACKED` or `RUNNING`.
    ///
    /// # Errors
    /// [`PushError`]; leaving a progress out does no harm, the result counts.
    pub fn push_progress(&mut self, instruction: InstructionId, state: TargetState) -> Result<(), PushError> {
        self.established()?;
        let progress = Progress { instruction: instruction.to_vec(), state: state.into() };
        let frame = checked(Body::Progress(progress))?;
        self.outbound.push(Priority::Work, frame)
    }

    /// Sends a result under credit. It stays in the outbox until it is acked.
    ///
    /// # Errors
    /// [`PushError::NoCredit`] until an ack brings more; [`PushError::Invalid`] if the Switch would refuse it.
    pub fn push_result(&mut self, result: InstructionResult) -> Result<(), PushError> {
        self.push_lane(Lane::Results, Priority::Rows, Body::Result(result))
    }

    /// Sends an event under credit. It stays in the outbox until it is acked.
    ///
    /// # Errors
    /// [`PushError::NoCredit`] until an ack brings more; [`PushError::Invalid`] if the Switch would refuse it.
    pub fn push_event(&mut self, event: Event) -> Result<(), PushError> {
        self.push_lane(Lane::Events, Priority::Bulk, Body::Event(event))
    }

    /// Asks for a document. Asking again for the same one, after [`crate::limits::DOCUMENT_DEADLINE`], is fine.
    ///
    /// # Errors
    /// [`PushError::TooManyRequests`] while the session waits for as many documents as it may.
    pub fn push_document_request(&mut self, kind: DocumentKind, digest: Digest) -> Result<(), PushError> {
        let frame =
            checked(Body::DocumentRequest(DocumentRequest { kind: kind.into(), digest: digest.to_vec() }))?;
        let established = self.established()?;
        established.ask(kind, digest)?;
        self.outbound.push(Priority::Work, frame)
    }

    /// Tells which policy is followed, 0 for none, and asks for a later one.
    ///
    /// # Errors
    /// [`PushError`]; tell it again with the next session, or in an hour.
    pub fn push_policy_check(&mut self, serial: u64) -> Result<(), PushError> {
        self.established()?;
        let frame = checked(Body::PolicyCheck(PolicyCheck { serial }))?;
        self.outbound.push(Priority::Work, frame)
    }

    /// Takes the next frame to write: control, progress and requests, results, events.
    #[must_use]
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        let control = self.outbound.pop(Priority::Control).map(Encoded::into_bytes);
        control
            .or_else(|| self.pong.take().map(|nonce| encode(Body::Pong(Pong { nonce }))))
            .or_else(|| self.outbound.pop(Priority::Bulk).map(Encoded::into_bytes))
    }

    /// Takes the next event.
    pub fn poll_event(&mut self) -> Option<ClientEvent> {
        self.events.pop_front()
    }

    /// Returns the bytes that may be sent in a lane; 0 unless established.
    #[must_use]
    pub fn credit(&self, lane: Lane) -> u64 {
        match &self.state {
            State::Established(established) => established.credit(lane),
            State::ExpectWelcome(_) | State::Closed(_) => 0,
        }
    }

    /// Returns whether the session has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.close_reason().is_some()
    }

    /// Returns why the session has ended; `None` while it has not.
    #[must_use]
    pub fn close_reason(&self) -> Option<CloseReason> {
        if let State::Closed(reason) = self.state { Some(reason) } else { None }
    }

    /// Returns whether the Switch has accepted the session and it has not ended.
    #[must_use]
    pub fn is_established(&self) -> bool {
        matches!(self.state, State::Established(_))
    }

    /// Returns how many frames of no known body were ignored.
    #[must_use]
    pub fn ignored_frames(&self) -> u64 {
        self.ignored
    }

    fn handle_welcome(&mut self, welcome: Welcome, now: Instant) -> Result<(), Violation> {
        let State::ExpectWelcome(expect) = &self.state else { return Err(Violation) };
        if !expect.versions.contains(&welcome.version) {
            return Err(Violation);
        }
        self.state = State::Established(Established::new(&welcome, now));
        self.events.push_back(ClientEvent::Welcome(welcome));
        Ok(())
    }

    fn handle_body(
        &mut self,
        body: Body,
        proof: Option<InclusionProof>,
        now: Instant,
    ) -> Result<(), Violation> {
        let event = match body {
            Body::Welcome(welcome) => return self.handle_welcome(welcome, now),
            Body::GoAway(go_away) => {
                self.handle_go_away(go_away);
                return Ok(());
            }
            Body::Ping(ping) => {
                self.expect_established()?;
                self.pong = Some(ping.nonce);
                return Ok(());
            }
            Body::Order(order) => {
                self.expect_established()?;
                ClientEvent::Order { envelope: order.envelope, proof }
            }
            Body::Ack(ack) => {
                let lane = Lane::try_from(ack.lane).map_err(|_| Violation)?;
                self.expect_established()?.grant(lane, ack.credit_bytes);
                ClientEvent::Acked { lane, ranges: ack.ranges }
            }
            Body::Document(document) => {
                self.expect_established()?.answered(&document);
                ClientEvent::Document(document)
            }
            Body::LicenceNotice(notice) => {
                self.expect_established()?;
                ClientEvent::LicenceNotice(Digest::try_from(&notice.digest[..]).map_err(|_| Violation)?)
            }
            Body::PolicyNotice(notice) => {
                self.expect_established()?;
                let digest = Some(&notice.digest[..]).filter(|digest| !digest.is_empty());
                let digest = digest.map(Digest::try_from).transpose().map_err(|_| Violation)?;
                let spread = Duration::from_millis(u64::from(notice.spread_ms));
                ClientEvent::PolicyNotice { digest, spread }
            }
            Body::Hello(_)
            | Body::PolicyCheck(_)
            | Body::Pong(_)
            | Body::Progress(_)
            | Body::Result(_)
            | Body::Event(_)
            | Body::DocumentRequest(_) => return Err(Violation),
        };
        self.events.push_back(event);
        Ok(())
    }

    fn handle_go_away(&mut self, go_away: GoAway) {
        // The decoder let only known reasons through.
        let reason = CloseReason::try_from(go_away.reason).unwrap_or(CloseReason::ProtocolError);
        let reconnect_after = Duration::from_millis(go_away.reconnect_after_ms.into());
        self.events.push_back(ClientEvent::GoAway { reason, reconnect_after, detail: go_away.detail });
        self.close(reason);
    }

    fn expect_established(&mut self) -> Result<&mut Established, Violation> {
        self.established().map_err(|_| Violation)
    }

    fn push_lane(&mut self, lane: Lane, priority: Priority, body: Body) -> Result<(), PushError> {
        self.established()?;
        let frame = checked(body)?;
        self.established()?.spend(lane, frame.len())?;
        // The credit bounds what waits.
        self.outbound.push_granted(priority, frame);
        Ok(())
    }

    fn established(&mut self) -> Result<&mut Established, PushError> {
        match &mut self.state {
            State::Established(established) => Ok(established),
            State::ExpectWelcome(_) => Err(PushError::NotEstablished),
            State::Closed(_) => Err(PushError::Closed),
        }
    }

    fn close(&mut self, reason: CloseReason) {
        if !self.is_closed() {
            self.outbound.clear();
            self.pong = None;
            self.state = State::Closed(reason);
            self.events.push_back(ClientEvent::Closed { reason });
        }
    }
}

/// Encodes a body that the Switch will take.
fn checked(body: Body) -> Result<Bytes, PushError> {
    let frame = Frame { proof: None, body: Some(body) };
    frame::check(&frame).map_err(PushError::Invalid)?;
    Ok(frame::encode(&frame))
}
