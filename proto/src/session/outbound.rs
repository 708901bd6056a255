//! The frames that wait to be written to a peer: by priority, bounded in bytes.

use std::collections::VecDeque;

use bytes::Bytes;

use super::PushError;
use crate::frame::{self, Encoded};
use crate::session::v1::Frame;
use crate::session::v1::frame::Body;

/// Which frames overtake which; within one priority they keep their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Priority {
    /// Hello, Welcome, Ping.
    Control,
    /// Stops: nothing that they end may be sent before them.
    Stop,
    /// What makes a peer act: orders; progress and document requests.
    Work,
    /// Results; licence notices.
    Rows,
    /// Events; documents.
    Bulk,
}

/// Frames that wait to be written.
///
/// Control frames are always taken: both halves make a bounded number of them.
#[derive(Debug)]
pub(super) struct Outbound {
    /// By priority; within one, in the order of their coming.
    frames: VecDeque<(Priority, Encoded)>,
    bytes: usize,
    bytes_max: usize,
}

impl Outbound {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { frames: VecDeque::new(), bytes: 0, bytes_max }
    }

    pub(super) fn push(&mut self, priority: Priority, frame: impl Into<Encoded>) -> Result<(), PushError> {
        let frame = frame.into();
        let needed = frame.len();
        if priority != Priority::Control && self.bytes.saturating_add(needed) > self.bytes_max {
            return Err(PushError::Busy { queued: self.bytes, needed, max: self.bytes_max });
        }
        self.push_granted(priority, frame);
        Ok(())
    }

    /// Queues a frame that something else bounds: control frames by their kind, results and events by their credit.
    pub(super) fn push_granted(&mut self, priority: Priority, frame: impl Into<Encoded>) {
        let frame = frame.into();
        self.bytes = self.bytes.saturating_add(frame.len());
        let at = self.frames.partition_point(|(queued, _)| *queued <= priority);
        self.frames.insert(at, (priority, frame));
    }

    /// Takes the next frame among those that are not later than `last`.
    pub(super) fn pop(&mut self, last: Priority) -> Option<Encoded> {
        self.frames.front().filter(|(priority, _)| *priority <= last)?;
        let (_, frame) = self.frames.pop_front()?;
        if self.frames.is_empty() {
            // An idle session owns no buffer.
            self.frames = VecDeque::new();
        }
        self.bytes = self.bytes.saturating_sub(frame.len());
        Some(frame)
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn clear(&mut self) {
        self.frames = VecDeque::new();
        self.bytes = 0;
    }
}

/// Encodes a frame of this body alone.
pub(super) fn encode(body: Body) -> Bytes {
    frame::encode(&Frame { proof: None, body: Some(body) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_go_by_priority_and_within_one_in_the_order_of_their_coming() {
        let mut outbound = Outbound::new(100);
        let frame = |name: &'static str| Encoded::from(Bytes::from_static(name.as_bytes()));
        for (priority, name) in [
            (Priority::Bulk, "event 1"),
            (Priority::Work, "order 1"),
            (Priority::Bulk, "event 2"),
            (Priority::Stop, "stop"),
            (Priority::Work, "order 2"),
            (Priority::Control, "ping"),
        ] {
            outbound.push(priority, frame(name)).unwrap();
        }

        let early: Vec<_> = std::iter::from_fn(|| outbound.pop(Priority::Work)).collect();
        assert_eq!(early, ["ping", "stop", "order 1", "order 2"].map(frame));
        assert_eq!(outbound.bytes(), "event 1event 2".len());
        outbound.push(Priority::Rows, frame("result")).unwrap();
        let late: Vec<_> = std::iter::from_fn(|| outbound.pop(Priority::Bulk)).collect();

        assert_eq!(late, ["result", "event 1", "event 2"].map(frame));
        assert_eq!((outbound.bytes(), outbound.frames.capacity()), (0, 0));
    }
}
