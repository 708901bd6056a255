//! The other road of events: a Background Channel that keeps what it acked, and hands it on until the Switch has it.
//!
//! It is a model: its own tests drive the real one. What counts here is what the road does to the Switch: events that
//! come twice, late, and behind others that a session brought.

use muster_client::simulation::Post;
use muster_proto::relay::v1::RelayedEvent;
use muster_proto::session::v1::SequenceRange;
use muster_switch::simulation::{Answer, Ask};

use super::world::{Caller, Step, World};

/// Events handed on at once.
const RELAYED_MAX: usize = 12;

/// What was acked and is not handed on.
#[derive(Debug, Default)]
pub(super) struct Channel {
    spool: Vec<RelayedEvent>,
    /// How many the Switch was asked to take.
    asked: usize,
}

impl Channel {
    pub(super) fn is_empty(&self) -> bool {
        self.spool.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.spool.len()
    }
}

impl World {
    /// A device without a session posts what waits, if it gets that far.
    pub(super) fn post(&mut self, device: usize) -> Result<(), String> {
        let at = self.moment(device);
        let side = &mut self.devices[device];
        let generation = side.generation;
        let Some(live) = side.live.as_mut().filter(|live| !live.is_connected()) else { return Ok(()) };
        let posted = match live.post(at) {
            Ok(Some(post)) => {
                let after = self.rng.below(3_000);
                self.schedule(after, Step::Posted { device, generation, post });
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(stopped) => Err(stopped),
        };
        self.device_moved(device, posted)
    }

    /// A post arrives, and is acked once it is kept.
    pub(super) fn posted(&mut self, device: usize, generation: u32, post: Post) {
        if !self.is_calm && self.rng.chance(15) {
            return;
        }
        self.note(|_| format!("d{device:02} has posted {} events", post.events.len()));
        let name = self.device_name(device);
        let Post { outbox, events } = post;
        let ranges = events.iter().map(|event| SequenceRange { first: event.sequence, last: event.sequence });
        let ranges = ranges.collect();
        self.channel.spool.extend(events.into_iter().map(|event| RelayedEvent {
            device: name.clone(),
            outbox_id: outbox.to_vec(),
            event: Some(event),
        }));
        if self.rng.chance(75) {
            let after = self.rng.below(2_000);
            self.schedule(after, Step::PostAcked { device, generation, outbox, ranges });
        }
    }

    /// What is kept is handed on, now and then.
    pub(super) fn relay(&mut self) {
        let after = if self.is_calm { 500 } else { self.rng.between(200, 6_000) };
        self.schedule(after, Step::Relay);
        let count = self.channel.spool.len().min(RELAYED_MAX);
        let is_asking = self.calls.values().any(|caller| matches!(caller, Caller::Relay));
        if count > 0 && !is_asking {
            self.channel.asked = count;
            let events = self.channel.spool[..count].to_vec();
            self.ask(Ask::Relay(events), Caller::Relay);
        }
    }

    pub(super) fn relayed(&mut self, answer: Answer) {
        if !self.is_calm && self.rng.chance(15) {
            return;
        }
        let Answer::Relayed(response) = answer else { return };
        let refused: Vec<usize> =
            response.refused.iter().map(|refused| usize::try_from(refused.index).unwrap()).collect();
        let asked = std::mem::take(&mut self.channel.asked);
        let spool = std::mem::take(&mut self.channel.spool);
        let kept = spool.into_iter().enumerate().filter(|(at, _)| *at >= asked || refused.contains(at));
        self.channel.spool = kept.map(|(_, event)| event).collect();
    }
}
