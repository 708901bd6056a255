//! What was seen of each outbox, of the latest outboxes of each device.
//!
//! A device has one outbox; it takes another when it loses its store. Whoever may speak for a device could name a new
//! one with each record, so only the latest are remembered. What a forgotten one sends again would be stored again.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use muster_proto::ids::{OutboxId, Sequence};
use muster_proto::seen::{Fresh, SeenSet};
use muster_proto::session::v1::SequenceRange;

use crate::engine::metrics;
use crate::engine::store::Write;

/// Outboxes remembered of a device: more than a device loses its store in the time that a record may wait in one.
pub(super) const OUTBOXES_MAX: usize = 16;

/// The outboxes of all devices.
#[derive(Debug, Default)]
pub(super) struct Outboxes {
    seen: BTreeMap<(u32, OutboxId), Outbox>,
    /// Those that changed, or were forgotten, since the last writes.
    touched: BTreeSet<(u32, OutboxId)>,
    /// The last moment of use given: milliseconds since 1970 or, if several fall into one, a little more.
    last_used: i64,
}

#[derive(Debug, Default)]
struct Outbox {
    set: SeenSet,
    used: i64,
}

impl Outboxes {
    /// Makes them of what was stored.
    pub(super) fn new(stored: Vec<(u32, OutboxId, i64, SeenSet)>) -> Self {
        let last_used = stored.iter().map(|(_, _, used, _)| *used).max().unwrap_or_default();
        let seen = stored.into_iter().map(|(number, id, used, set)| ((number, id), Outbox { set, used }));
        Self { seen: seen.collect(), touched: BTreeSet::new(), last_used }
    }

    /// Adds a sequence to what was seen of an outbox; a new outbox may make the device's oldest forgotten.
    pub(super) fn insert(&mut self, number: u32, id: OutboxId, sequence: Sequence, now_ms: i64) -> Fresh {
        self.last_used = now_ms.max(self.last_used.saturating_add(1));
        let known = self.seen.contains_key(&(number, id));
        let outbox = self.seen.entry((number, id)).or_default();
        outbox.used = self.last_used;
        let fresh = outbox.set.insert(sequence);
        if fresh == Fresh::New {
            self.touched.insert((number, id));
        }
        if !known {
            self.forget_oldest(number);
        }
        fresh
    }

    /// Adds what the client says it has dropped.
    pub(super) fn drop_ranges(&mut self, number: u32, id: OutboxId, dropped: Vec<SequenceRange>) {
        let Some(outbox) = self.seen.get_mut(&(number, id)) else { return };
        for range in dropped {
            if outbox.set.insert_range(range) == Fresh::New {
                self.touched.insert((number, id));
            }
        }
    }

    /// Gives what was seen of one number's outboxes to another: a device that was removed and comes again sends from the
    /// outbox it had.
    pub(super) fn hand_over(&mut self, from: u32, to: u32) {
        let ids: Vec<OutboxId> = self.seen.range(of_device(from)).map(|((_, id), _)| *id).collect();
        for id in ids {
            if let Some(outbox) = self.seen.remove(&(from, id)) {
                self.seen.insert((to, id), outbox);
                self.touched.extend([(from, id), (to, id)]);
            }
        }
    }

    /// Returns whether the sequence was seen.
    pub(super) fn contains(&self, number: u32, id: OutboxId, sequence: u64) -> bool {
        self.seen.get(&(number, id)).is_some_and(|outbox| outbox.set.contains(sequence))
    }

    /// Returns the highest sequence that was seen of an outbox; 0 if nothing of it is remembered.
    pub(super) fn highest(&self, number: u32, id: OutboxId) -> u64 {
        self.seen.get(&(number, id)).map_or(0, |outbox| outbox.set.highest())
    }

    /// Takes what is to be written since the last call.
    pub(super) fn poll_writes(&mut self) -> Vec<Write> {
        let touched = std::mem::take(&mut self.touched).into_iter();
        let write = |(number, outbox)| match self.seen.get(&(number, outbox)) {
            Some(Outbox { set, used }) => Write::Seen { number, outbox, used: *used, record: set.encode() },
            None => Write::SeenGone { number, outbox },
        };
        touched.map(write).collect()
    }

    fn forget_oldest(&mut self, number: u32) {
        let mut ids: Vec<_> =
            self.seen.range(of_device(number)).map(|((_, id), outbox)| (outbox.used, *id)).collect();
        ids.sort_unstable();
        for (_, id) in ids.iter().rev().skip(OUTBOXES_MAX) {
            self.seen.remove(&(number, *id));
            self.touched.insert((number, *id));
            metrics::outbox_forgotten();
        }
    }
}

/// The keys of one device.
fn of_device(number: u32) -> RangeInclusive<(u32, OutboxId)> {
    (number, OutboxId::from([0; 16]))..=(number, OutboxId::from([0xff; 16]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outbox_used_least_recently_is_forgotten_and_its_row_deleted() {
        let mut outboxes = Outboxes::default();
        for first in 0..16 {
            assert_eq!(insert(&mut outboxes, 1, first), Fresh::New);
        }
        assert_eq!(insert(&mut outboxes, 2, 0), Fresh::New);
        assert_eq!(insert(&mut outboxes, 1, 0), Fresh::Repeated);
        assert_eq!(outboxes.poll_writes().len(), 17);

        assert_eq!(insert(&mut outboxes, 1, 16), Fresh::New);

        let writes = outboxes.poll_writes();
        assert!(
            matches!(&writes[..], [Write::SeenGone { number: 1, outbox: gone }, Write::Seen { number: 1, outbox: new, .. }]
                if *gone == id(1) && *new == id(16)),
            "{writes:?}"
        );
        assert_eq!(insert(&mut outboxes, 1, 0), Fresh::Repeated);
        assert_eq!(insert(&mut outboxes, 2, 0), Fresh::Repeated);
    }

    #[test]
    fn what_was_used_before_the_start_is_forgotten_before_what_is_used_now() {
        let stored = (0..16).map(|first| (1, id(first), 100 - i64::from(first), SeenSet::new())).collect();
        let mut outboxes = Outboxes::new(stored);

        assert_eq!(insert(&mut outboxes, 1, 16), Fresh::New);

        assert!(matches!(outboxes.poll_writes()[0], Write::SeenGone { outbox, .. } if outbox == id(15)));
    }

    fn insert(outboxes: &mut Outboxes, number: u32, first: u8) -> Fresh {
        outboxes.insert(number, id(first), Sequence::try_from(1).unwrap(), 7)
    }

    fn id(first: u8) -> OutboxId {
        OutboxId::from([first; 16])
    }
}
