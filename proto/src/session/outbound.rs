//! The frames that wait to be written to a peer: by priority, bounded in bytes.

use std::collections::VecDeque;

use bytes::Bytes;

use super::PushError;
use crate::frame;
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
    queues: [VecDeque<Bytes>; 5],
    bytes: usize,
    bytes_max: usize,
}

impl Outbound {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { queues: Default::default(), bytes: 0, bytes_max }
    }

    pub(super) fn push(&mut self, priority: Priority, frame: Bytes) -> Result<(), PushError> {
        let needed = frame.len();
        if priority != Priority::Control && self.bytes.saturating_add(needed) > self.bytes_max {
            return Err(PushError::Busy { queued: self.bytes, needed, max: self.bytes_max });
        }
        self.push_granted(priority, frame);
        Ok(())
    }

    /// Queues a frame that something else bounds: control frames by their kind, results and events by their credit.
    pub(super) fn push_granted(&mut self, priority: Priority, frame: Bytes) {
        self.bytes = self.bytes.saturating_add(frame.len());
        self.queue(priority).push_back(frame);
    }

    /// Takes the next frame among those that are not later than `last`.
    pub(super) fn pop(&mut self, last: Priority) -> Option<Bytes> {
        let priorities = [Priority::Control, Priority::Stop, Priority::Work, Priority::Rows, Priority::Bulk];
        for priority in priorities.into_iter().filter(|priority| *priority <= last) {
            let queue = self.queue(priority);
            if let Some(frame) = queue.pop_front() {
                if queue.is_empty() {
                    // An idle session owns no buffer.
                    *queue = VecDeque::new();
                }
                self.bytes = self.bytes.saturating_sub(frame.len());
                return Some(frame);
            }
        }
        None
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn clear(&mut self) {
        self.queues = Default::default();
        self.bytes = 0;
    }

    fn queue(&mut self, priority: Priority) -> &mut VecDeque<Bytes> {
        let [control, stop, work, rows, bulk] = &mut self.queues;
        match priority {
            Priority::Control => control,
            Priority::Stop => stop,
            Priority::Work => work,
            Priority::Rows => rows,
            Priority::Bulk => bulk,
        }
    }
}

/// Encodes a frame of this body alone.
pub(super) fn encode(body: Body) -> Bytes {
    frame::encode(&Frame { proof: None, body: Some(body) })
}
