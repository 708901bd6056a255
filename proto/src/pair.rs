//! Both halves of a session in virtual time, for tests of this crate and of others.
//!
//! A [`Pair`] joins a [`SwitchSession`] and a [`ClientSession`] by a link of fixed latency. Nothing sleeps and no clock is
//! read: [`Pair::advance`] moves time from one frame or deadline to the next, so a minute of heartbeats takes microseconds.
//! It is test support: no program uses it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::session::client::{ClientEvent, ClientSession, ClientSessionConfig};
use crate::session::switch::{SwitchEvent, SwitchSession, SwitchSessionConfig};
use crate::session::v1::Hello;

/// How a pair begins.
#[derive(Debug, Clone, Default)]
pub struct PairConfig {
    /// The Switch's half.
    pub switch: SwitchSessionConfig,
    /// The client's half.
    pub client: ClientSessionConfig,
    /// From the writing of a frame to its arrival, each way.
    pub latency: Duration,
}

/// What the link does with frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// Carries them.
    Up,
    /// Swallows them, as a half-open connection does: neither side is told.
    Silent,
}

/// A Switch's and a client's half with a link between them.
#[derive(Debug)]
pub struct Pair {
    /// The Switch's half.
    pub switch: SwitchSession,
    /// The client's half.
    pub client: ClientSession,
    /// What the link does from here on.
    pub link: Link,
    config: PairConfig,
    now: Instant,
    to_switch: VecDeque<(Instant, Bytes)>,
    to_client: VecDeque<(Instant, Bytes)>,
}

impl Pair {
    /// Begins a session at `now`, with the client's Hello not yet on its way.
    #[must_use]
    pub fn new(config: PairConfig, hello: Hello, now: Instant) -> Self {
        Self {
            switch: SwitchSession::new(config.switch.clone(), now),
            client: ClientSession::new(config.client.clone(), hello, now),
            link: Link::Up,
            config,
            now,
            to_switch: VecDeque::new(),
            to_client: VecDeque::new(),
        }
    }

    /// Returns the virtual time.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Loses the connection with all that is on its way, and begins a new session of the same client.
    pub fn reconnect(&mut self, hello: Hello) {
        *self = Self::new(self.config.clone(), hello, self.now);
    }

    /// Hands a message to the Switch that the client's half did not make, after the latency.
    pub fn inject_to_switch(&mut self, message: Bytes) {
        self.to_switch.push_back((self.now + self.config.latency, message));
    }

    /// Hands a message to the client that the Switch's half did not make, after the latency.
    pub fn inject_to_client(&mut self, message: Bytes) {
        self.to_client.push_back((self.now + self.config.latency, message));
    }

    /// Moves time on by `duration`: carries frames and calls each half at its deadlines, in the order of time.
    pub fn advance(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            self.carry();
            match self.next_moment().filter(|moment| *moment <= end) {
                Some(moment) => self.step(moment),
                None => break,
            }
        }
        self.now = end;
    }

    /// Moves time on until no frame is on its way; deadlines in between are kept.
    pub fn settle(&mut self) {
        self.carry();
        while let Some(arrival) = self.next_arrival() {
            self.advance(arrival.saturating_duration_since(self.now));
        }
    }

    /// Takes what the Switch's half has to tell.
    pub fn switch_events(&mut self) -> Vec<SwitchEvent> {
        std::iter::from_fn(|| self.switch.poll_event()).collect()
    }

    /// Takes what the client's half has to tell.
    pub fn client_events(&mut self) -> Vec<ClientEvent> {
        std::iter::from_fn(|| self.client.poll_event()).collect()
    }

    /// Puts on the link what both halves have to transmit.
    fn carry(&mut self) {
        let arrival = self.now + self.config.latency;
        while let Some(frame) = self.client.poll_transmit() {
            if self.link == Link::Up {
                self.to_switch.push_back((arrival, frame));
            }
        }
        while let Some(frame) = self.switch.poll_transmit() {
            if self.link == Link::Up {
                self.to_client.push_back((arrival, frame));
            }
        }
    }

    fn step(&mut self, moment: Instant) {
        self.now = self.now.max(moment);
        while let Some(message) = arrived(&mut self.to_switch, self.now) {
            self.switch.handle_message(&message, self.now);
        }
        while let Some(message) = arrived(&mut self.to_client, self.now) {
            self.client.handle_message(&message, self.now);
        }
        self.switch.handle_timeout(self.now);
        self.client.handle_timeout(self.now);
    }

    fn next_moment(&self) -> Option<Instant> {
        [self.next_arrival(), self.switch.poll_timeout(), self.client.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    fn next_arrival(&self) -> Option<Instant> {
        let first = |queue: &VecDeque<(Instant, Bytes)>| queue.front().map(|(arrival, _)| *arrival);
        first(&self.to_switch).into_iter().chain(first(&self.to_client)).min()
    }
}

fn arrived(queue: &mut VecDeque<(Instant, Bytes)>, now: Instant) -> Option<Bytes> {
    if queue.front().is_none_or(|(arrival, _)| *arrival > now) {
        return None;
    }
    queue.pop_front().map(|(_, message)| message)
}

#[cfg(test)]
mod tests;
