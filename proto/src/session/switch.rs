//! The Switch's half of a session.
//!
//! States: `ExpectHello` → `ExpectWelcome` → `Established` → closed. The shell reads messages from its transport and
//! hands each to [`SwitchSession::handle_message`], or decodes it and uses [`SwitchSession::handle_frame`]; it writes
//! what [`SwitchSession::poll_transmit`] gives and acts on what [`SwitchSession::poll_event`] gives, after every call.
//! It deliberately knows no device, store or order: it carries them.

mod established;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use self::established::Established;
use super::acks::PendingAcks;
use super::outbound::{Outbound, Priority, encode};
use super::text::{millis, name, truncated};
use super::{PushError, VERSIONS};
use crate::common::v1::TargetState;
use crate::frame::{self, Encoded, FrameError};
use crate::ids::{Digest, Epoch, InstructionId};
use crate::limits::{self, SessionLimits};
use crate::session::v1::frame::Body;
use crate::session::v1::{
    CloseReason, Document, DocumentKind, Event, Frame, GoAway, Hello, Lane, LicenceNotice, PolicyNotice,
    Result as InstructionResult, SequenceRange, Welcome,
};

/// How one session behaves.
#[derive(Debug, Clone)]
pub struct SwitchSessionConfig {
    /// Shared by all sessions.
    pub limits: Arc<SessionLimits>,
    /// Between two pings of this session, jitter applied, so that sessions begun together do not ping together.
    pub ping_interval: Duration,
}

impl SwitchSessionConfig {
    /// Returns the behaviour under `limits` without jitter.
    #[must_use]
    pub fn new(limits: Arc<SessionLimits>) -> Self {
        let ping_interval = limits.ping_interval;
        Self { limits, ping_interval }
    }
}

impl Default for SwitchSessionConfig {
    fn default() -> Self {
        Self::new(Arc::default())
    }
}

/// The shell's answer to [`SwitchEvent::Hello`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WelcomeArgs {
    /// Greater than every epoch the device had before.
    pub epoch: Epoch,
    /// The Switch's wall clock, milliseconds since 1970, UTC.
    pub time_ms: i64,
    /// SHA-256 of the licence's envelope, if there is one.
    pub licence_digest: Option<Digest>,
    /// The highest sequence seen of the outbox that the Hello named, by whichever road, 0 if there is none.
    pub highest_sequence: u64,
    /// The highest that came over sessions; `None` is what a Switch says that does not tell the roads apart.
    pub highest_by_session: Option<u64>,
    /// Stops that follow, before any order.
    pub stops_due: u32,
}

/// What a session tells its shell.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub enum SwitchEvent {
    /// The client introduced itself. Answer with [`SwitchSession::push_welcome`] or [`SwitchSession::push_close`].
    Hello(Hello),
    /// The client has come this far with an instruction: `ACKED` or `RUNNING`.
    Progress {
        /// Which instruction.
        instruction: InstructionId,
        /// How far.
        state: TargetState,
    },
    /// A result and the bytes it took of the lane's credit. Commit it, then give both back by [`SwitchSession::push_ack`].
    Result(InstructionResult, u32),
    /// An event and the bytes it took of the lane's credit. Commit it, then give both back by [`SwitchSession::push_ack`].
    Event(Event, u32),
    /// The client lacks a document. Answer with [`SwitchSession::push_document`], its envelope empty if there is none.
    DocumentRequest {
        /// What it is.
        kind: DocumentKind,
        /// SHA-256 of its envelope.
        digest: Digest,
    },
    /// The client follows the policy of this serial, 0 for none. Answer with [`SwitchSession::push_policy_notice`].
    PolicyCheck {
        /// Which.
        serial: u64,
    },
    /// The session has ended. Write what [`SwitchSession::poll_transmit`] still gives (the last acks and the
    /// `GoAway`), under a deadline, then close the transport. Comes once, and nothing after it.
    Closed {
        /// Why.
        reason: CloseReason,
    },
}

/// The Switch's half of one session.
#[derive(Debug)]
pub struct SwitchSession {
    state: State,
    limits: Arc<SessionLimits>,
    ping_interval: Duration,
    outbound: Outbound,
    acks: PendingAcks,
    go_away: Option<Bytes>,
    /// At most two for each frame handed in; the shell empties it after each.
    events: VecDeque<SwitchEvent>,
    ignored: u64,
}

/// What the session waits for.
#[derive(Debug)]
enum State {
    ExpectHello(ExpectHello),
    ExpectWelcome(ExpectWelcome),
    Established(Established),
    Closed(CloseReason),
}

/// Nothing was heard yet.
#[derive(Debug)]
struct ExpectHello {
    deadline: Instant,
}

/// The shell has not answered the client's Hello yet.
#[derive(Debug)]
struct ExpectWelcome {
    version: u32,
    dead_at: Instant,
}

/// Why and with what words a session is closed by the machine itself.
#[derive(Debug)]
struct Violation(String);

impl SwitchSession {
    /// Begins a session whose transport is open; the client has until the hello deadline to introduce itself.
    #[must_use]
    pub fn new(config: SwitchSessionConfig, now: Instant) -> Self {
        let SwitchSessionConfig { limits, ping_interval } = config;
        Self {
            state: State::ExpectHello(ExpectHello { deadline: now + limits.hello_deadline }),
            outbound: Outbound::new(limits.outbound_bytes_max),
            limits,
            ping_interval,
            acks: PendingAcks::default(),
            go_away: None,
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

    /// Takes a frame that [`frame::decode`] has checked; `encoded_len` is its length on the wire, which credits count.
    pub fn handle_frame(&mut self, frame: Frame, encoded_len: usize, now: Instant) {
        self.handle_byte(now);
        let Some(body) = frame.body else {
            self.ignored = self.ignored.saturating_add(1);
            return;
        };
        let handled = match &mut self.state {
            State::Closed(_) => return,
            State::ExpectHello(_) => return self.handle_first(body, now),
            State::ExpectWelcome(_) => Err(Violation(format!("{} before the welcome", name(&body)))),
            State::Established(established) => established.handle(body, encoded_len, &mut self.ignored),
        };
        match handled {
            Ok(event) => self.events.extend(event),
            Err(Violation(detail)) => self.close(CloseReason::ProtocolError, Duration::ZERO, &detail),
        }
    }

    /// Takes the news that a message was no frame: the session ends with a `PROTOCOL_ERROR`.
    pub fn handle_malformed(&mut self, error: &FrameError) {
        self.close(CloseReason::ProtocolError, Duration::ZERO, &error.to_string());
    }

    /// Takes the news that any byte came, such as of a WebSocket ping: the client lives.
    pub fn handle_byte(&mut self, now: Instant) {
        let dead_at = now + self.limits.dead_after;
        match &mut self.state {
            State::ExpectHello(_) | State::Closed(_) => {}
            State::ExpectWelcome(expect) => expect.dead_at = dead_at,
            State::Established(established) => established.dead_at = dead_at,
        }
    }

    /// Tells the session that [`Self::poll_timeout`] may have passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        match &mut self.state {
            State::ExpectHello(expect) if now >= expect.deadline => {
                self.close(CloseReason::HelloTimeout, Duration::ZERO, "no hello in time");
            }
            State::ExpectWelcome(ExpectWelcome { dead_at, .. })
            | State::Established(Established { dead_at, .. })
                if now >= *dead_at =>
            {
                self.close(CloseReason::Idle, Duration::ZERO, "nothing was heard for too long");
            }
            State::Established(established) if now >= established.next_ping => {
                let ping = established.ping(now, self.ping_interval);
                self.outbound.push_granted(Priority::Control, encode(Body::Ping(ping)));
            }
            State::ExpectHello(_) | State::ExpectWelcome(_) | State::Established(_) | State::Closed(_) => {}
        }
    }

    /// Returns when [`Self::handle_timeout`] should next be called; `None` once the session is closed.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::ExpectHello(expect) => Some(expect.deadline),
            State::ExpectWelcome(expect) => Some(expect.dead_at),
            State::Established(established) => Some(established.next_ping.min(established.dead_at)),
            State::Closed(_) => None,
        }
    }

    /// Accepts the client: sends `Welcome` with the first credits. Without a Hello that waits, it does nothing.
    pub fn push_welcome(&mut self, welcome: WelcomeArgs, now: Instant) {
        let State::ExpectWelcome(ExpectWelcome { version, dead_at }) = self.state else { return };
        let limits = &self.limits;
        let idle = limits.dead_after.clamp(limits::IDLE_TIMEOUT_MIN, limits::IDLE_TIMEOUT_MAX);
        let body = Welcome {
            epoch: welcome.epoch.0,
            time_ms: welcome.time_ms,
            idle_timeout_ms: millis(idle),
            results_credit_bytes: limits.results_credit_bytes,
            events_credit_bytes: limits.events_credit_bytes,
            version,
            licence_digest: welcome.licence_digest.map_or_else(Vec::new, |digest| digest.to_vec()),
            highest_sequence: welcome.highest_sequence,
            highest_by_session: welcome.highest_by_session,
            stops_due: welcome.stops_due,
        };
        self.outbound.push_granted(Priority::Control, encode(Body::Welcome(body)));
        self.state = State::Established(Established {
            dead_at,
            next_ping: now + self.ping_interval,
            nonce: 0,
            results_credit_bytes: limits.results_credit_bytes,
            events_credit_bytes: limits.events_credit_bytes,
            documents: 0,
            is_policy_asked: false,
        });
    }

    /// Queues an order's frame as [`frame::encode`] and [`frame::with_proof`] gave it.
    ///
    /// # Errors
    /// [`PushError`]; the target stays queued.
    pub fn push_order(&mut self, encoded: impl Into<Encoded>) -> Result<(), PushError> {
        self.established()?;
        self.outbound.push(Priority::Work, encoded)
    }

    /// Queues a stop's frame, before every order that waits.
    ///
    /// # Errors
    /// [`PushError`]; it is sent when there is room, or in the next session.
    pub fn push_stop(&mut self, encoded: impl Into<Encoded>) -> Result<(), PushError> {
        self.established()?;
        self.outbound.push(Priority::Stop, encoded)
    }

    /// Acks what is on disk and gives the client credit. Ranges of 0 or that end before they begin are left out.
    ///
    /// A client that does not read its acks is closed as `SLOW`.
    pub fn push_ack(&mut self, lane: Lane, ranges: Vec<SequenceRange>, credit_bytes: u64) {
        let Ok(established) = self.established() else { return };
        established.grant(lane, credit_bytes);
        self.acks.push(lane, ranges, credit_bytes);
        if self.acks.ranges() > limits::PENDING_ACK_RANGES_MAX {
            self.close(CloseReason::Slow, Duration::ZERO, "acks are not read");
        }
    }

    /// Queues a document that the client asked for.
    ///
    /// # Errors
    /// [`PushError`]; the document is not sent, and the client asks again after [`limits::DOCUMENT_DEADLINE`].
    pub fn push_document(&mut self, document: Document) -> Result<(), PushError> {
        let established = self.established()?;
        established.documents = established.documents.saturating_sub(1);
        let frame = Frame { proof: None, body: Some(Body::Document(document)) };
        frame::check(&frame).map_err(PushError::Invalid)?;
        let Some(Body::Document(document)) = frame.body else { return Ok(()) };
        self.outbound.push(Priority::Bulk, frame::with_envelope(document))
    }

    /// Tells the client of another licence. Where the queue is full it is left out: the next Welcome names it, too.
    pub fn push_licence_notice(&mut self, digest: Digest) {
        if self.established().is_ok() {
            let notice = LicenceNotice { digest: digest.to_vec() };
            self.outbound.push(Priority::Rows, encode(Body::LicenceNotice(notice))).unwrap_or_default();
        }
    }

    /// Names a later policy to the client, or says that there is none. With others that are told at the same time, it asks for
    /// it at a moment of its own within `spread`. Where the queue is full it is left out: the client asks again.
    pub fn push_policy_notice(&mut self, digest: Option<Digest>, spread: Duration) {
        if let Ok(established) = self.established() {
            established.policy_checked();
            let digest = digest.map_or_else(Vec::new, |digest| digest.to_vec());
            let spread_ms = u32::try_from(spread.as_millis()).unwrap_or(u32::MAX);
            let notice = encode(Body::PolicyNotice(PolicyNotice { digest, spread_ms }));
            self.outbound.push(Priority::Rows, notice).unwrap_or_default();
        }
    }

    /// Ends the session: what waits is dropped but for acks, then `GoAway` is the last frame.
    ///
    /// `reconnect_after` is cut at [`limits::RECONNECT_AFTER_MAX`] and `detail` at 256 bytes.
    pub fn push_close(&mut self, reason: CloseReason, reconnect_after: Duration, detail: &str) {
        self.close(reason, reconnect_after, detail);
    }

    /// Takes the next frame to write: control, stops, orders, acks, notices, documents.
    #[must_use]
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        self.poll_transmit_pieces().map(Encoded::into_bytes)
    }

    /// As [`Self::poll_transmit`], without a copy of what is shared with other sessions.
    #[must_use]
    pub fn poll_transmit_pieces(&mut self) -> Option<Encoded> {
        let urgent = self.outbound.pop(Priority::Work);
        urgent
            .or_else(|| self.acks.pop().map(|ack| encode(Body::Ack(ack)).into()))
            .or_else(|| self.outbound.pop(Priority::Bulk))
            .or_else(|| self.go_away.take().map(Encoded::from))
    }

    /// Takes the next event.
    pub fn poll_event(&mut self) -> Option<SwitchEvent> {
        let event = self.events.pop_front();
        if self.events.is_empty() {
            // An idle session owns no buffer.
            self.events = VecDeque::new();
        }
        event
    }

    /// Returns whether the session has ended; frames may still wait in [`Self::poll_transmit`].
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.close_reason().is_some()
    }

    /// Returns why the session has ended; `None` while it has not.
    #[must_use]
    pub fn close_reason(&self) -> Option<CloseReason> {
        if let State::Closed(reason) = self.state { Some(reason) } else { None }
    }

    /// Returns whether Hello and Welcome were exchanged and the session has not ended.
    #[must_use]
    pub fn is_established(&self) -> bool {
        matches!(self.state, State::Established(_))
    }

    /// Returns the bytes that wait to be written, without acks.
    #[must_use]
    pub fn outbound_bytes(&self) -> usize {
        self.outbound.bytes()
    }

    /// Returns how many frames were ignored: of no known body, or requests for too many documents.
    #[must_use]
    pub fn ignored_frames(&self) -> u64 {
        self.ignored
    }

    fn handle_first(&mut self, body: Body, now: Instant) {
        let Body::Hello(hello) = body else {
            let detail = format!("{} before the hello", name(&body));
            return self.close(CloseReason::ProtocolError, Duration::ZERO, &detail);
        };
        let Some(version) = VERSIONS.into_iter().find(|version| hello.versions.contains(version)) else {
            let detail = format!("versions {:?} offered, {VERSIONS:?} spoken here", hello.versions);
            return self.close(CloseReason::Version, limits::RECONNECT_AFTER_MAX, &detail);
        };
        self.state = State::ExpectWelcome(ExpectWelcome { version, dead_at: now + self.limits.dead_after });
        self.events.push_back(SwitchEvent::Hello(hello));
    }

    fn established(&mut self) -> Result<&mut Established, PushError> {
        match &mut self.state {
            State::Established(established) => Ok(established),
            State::ExpectHello(_) | State::ExpectWelcome(_) => Err(PushError::NotEstablished),
            State::Closed(_) => Err(PushError::Closed),
        }
    }

    fn close(&mut self, reason: CloseReason, reconnect_after: Duration, detail: &str) {
        if self.is_closed() {
            return;
        }
        let go_away = GoAway {
            reason: reason.into(),
            reconnect_after_ms: millis(reconnect_after.min(limits::RECONNECT_AFTER_MAX)),
            detail: truncated(detail, limits::GO_AWAY_DETAIL_BYTES_MAX),
        };
        self.outbound.clear();
        self.go_away = Some(encode(Body::GoAway(go_away)));
        self.state = State::Closed(reason);
        self.events.push_back(SwitchEvent::Closed { reason });
    }
}
