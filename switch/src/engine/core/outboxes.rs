//! What was seen of each outbox, of the latest outboxes of each device.
//!
//! A device has one outbox; it takes another when it loses its store. Whoever may speak for a device could name a new
//! one with each record, so only the latest are remembered. What a forgotten one sends again would be stored again.
//!
//! A session's client names its own outbox; a Background Channel names whatever it likes. So outboxes that only relayed
//! events have named have a small share of their own, and never push out one that a `Hello` has named. For the same reason the
//! highest number that came over sessions is kept apart: a client takes a higher one than it ever sent for the proof that its store is an
//! older copy, and then ends everything that it had taken on.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use muster_proto::ids::{OutboxId, Sequence};
use muster_proto::seen::{Fresh, SeenSet};
use muster_proto::session::v1::SequenceRange;

use crate::engine::metrics;
use crate::engine::store::Write;

/// Outboxes remembered of a device: more than a device loses its store in the time that a record may wait in one.
pub(super) const OUTBOXES_MAX: usize = 16;

/// Outboxes remembered of a device that no `Hello` has named: a client that cannot reach the Switch has lost its store.
pub(super) const RELAYED_OUTBOXES_MAX: usize = 4;

/// An outbox as it is stored.
#[derive(Debug)]
pub(crate) struct StoredOutbox {
    pub(crate) number: u32,
    pub(crate) id: OutboxId,
    /// When it was last used.
    pub(crate) used: i64,
    /// Whether a `Hello` has named it.
    pub(crate) greeted: bool,
    pub(crate) set: SeenSet,
    /// The highest sequence that came over sessions; `None`: an earlier version did not tell the roads apart.
    pub(crate) by_session: Option<u64>,
}

/// By which road a record came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Road {
    Session,
    Background,
}

impl Road {
    /// Returns what a stored event has.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Background => "background",
        }
    }
}

/// The outboxes of all devices.
#[derive(Debug, Default)]
pub(super) struct Outboxes {
    seen: BTreeMap<(u32, OutboxId), Outbox>,
    /// Those that changed, or were forgotten, since the last writes.
    touched: BTreeSet<(u32, OutboxId)>,
    /// The last moment of use given: milliseconds since 1970 or, if several fall into one, a little more.
    last_used: i64,
}

#[derive(Debug)]
struct Outbox {
    set: SeenSet,
    used: i64,
    /// A `Hello` has named it.
    greeted: bool,
    /// The highest sequence that came over sessions; 0 if none did; `None`: not known.
    by_session: Option<u64>,
}

impl Default for Outbox {
    /// One that nobody has named yet: nothing came of it.
    fn default() -> Self {
        Self { set: SeenSet::default(), used: 0, greeted: false, by_session: Some(0) }
    }
}

impl Outboxes {
    /// Makes them of what was stored.
    pub(super) fn new(stored: Vec<StoredOutbox>) -> Self {
        let last_used = stored.iter().map(|outbox| outbox.used).max().unwrap_or_default();
        let outbox = |StoredOutbox { number, id, used, greeted, set, by_session }| {
            ((number, id), Outbox { set, used, greeted, by_session })
        };
        let seen = stored.into_iter().map(outbox);
        Self { seen: seen.collect(), touched: BTreeSet::new(), last_used }
    }

    /// Adds a sequence to what was seen of an outbox; a new outbox may make the device's oldest forgotten.
    pub(super) fn insert(
        &mut self,
        (number, id): (u32, OutboxId),
        sequence: Sequence,
        road: Road,
        now_ms: i64,
    ) -> Fresh {
        self.last_used = now_ms.max(self.last_used.saturating_add(1));
        let known = self.seen.contains_key(&(number, id));
        let outbox = self.seen.entry((number, id)).or_default();
        outbox.used = self.last_used;
        let fresh = outbox.set.insert(sequence);
        let is_higher = road == Road::Session && outbox.note_session(sequence.value());
        if fresh == Fresh::New || is_higher {
            self.touched.insert((number, id));
        }
        if !known {
            self.forget_oldest(number);
        }
        fresh
    }

    /// Notes that a session's `Hello` has named an outbox.
    pub(super) fn greet(&mut self, number: u32, id: OutboxId, now_ms: i64) {
        self.last_used = now_ms.max(self.last_used.saturating_add(1));
        let outbox = self.seen.entry((number, id)).or_default();
        outbox.used = self.last_used;
        if !std::mem::replace(&mut outbox.greeted, true) {
            self.touched.insert((number, id));
            self.forget_oldest(number);
        }
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

    /// Returns the highest sequence that was seen of an outbox, by whichever road; 0 if nothing of it is remembered.
    pub(super) fn highest(&self, number: u32, id: OutboxId) -> u64 {
        self.seen.get(&(number, id)).map_or(0, |outbox| outbox.set.highest())
    }

    /// Returns the highest sequence of an outbox that came over sessions; 0 if none did, or nothing of it is remembered; `None`: not known.
    pub(super) fn highest_by_session(&self, number: u32, id: OutboxId) -> Option<u64> {
        self.seen.get(&(number, id)).map_or(Some(0), |outbox| outbox.by_session)
    }

    /// Takes what is to be written since the last call.
    pub(super) fn poll_writes(&mut self) -> Vec<Write> {
        let touched = std::mem::take(&mut self.touched).into_iter();
        let write = |(number, outbox)| match self.seen.get(&(number, outbox)) {
            Some(Outbox { set, used, greeted, by_session }) => Write::Seen {
                number,
                outbox,
                used: *used,
                greeted: *greeted,
                by_session: *by_session,
                record: set.encode(),
            },
            None => Write::SeenGone { number, outbox },
        };
        touched.map(write).collect()
    }

    fn forget_oldest(&mut self, number: u32) {
        for (greeted, most) in [(true, OUTBOXES_MAX), (false, RELAYED_OUTBOXES_MAX)] {
            let of_device = self.seen.range(of_device(number));
            let of_kind = of_device.filter(|(_, outbox)| outbox.greeted == greeted);
            let mut ids: Vec<_> = of_kind.map(|((_, id), outbox)| (outbox.used, *id)).collect();
            ids.sort_unstable();
            for (_, id) in ids.iter().rev().skip(most) {
                self.seen.remove(&(number, *id));
                self.touched.insert((number, *id));
                metrics::outbox_forgotten();
            }
        }
    }
}

impl Outbox {
    /// Notes that a session brought a sequence that is in the set by now, unless there was no room; returns whether the mark of sessions went up.
    ///
    /// The device has sent it, whoever named it before. Of an outbox from before the roads were told apart, a higher one may have come over
    /// sessions than what comes now, which may be sent again: a mark below that would let an older copy of a store pass for the store. But
    /// nothing that came was higher than the set's highest, so what reaches that is the mark.
    fn note_session(&mut self, sequence: u64) -> bool {
        let is_higher = match self.by_session {
            Some(highest) => sequence > highest,
            None => sequence >= self.set.highest(),
        };
        if is_higher {
            self.by_session = Some(sequence);
        }
        is_higher
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
            outboxes.greet(1, id(first), 7);
            assert_eq!(insert(&mut outboxes, 1, first), Fresh::New);
        }
        assert_eq!(insert(&mut outboxes, 2, 0), Fresh::New);
        assert_eq!(insert(&mut outboxes, 1, 0), Fresh::Repeated);
        assert_eq!(outboxes.poll_writes().len(), 17);

        outboxes.greet(1, id(16), 7);
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
        let stored = |first| StoredOutbox {
            number: 1,
            id: id(first),
            used: 100 - i64::from(first),
            greeted: true,
            set: SeenSet::new(),
            by_session: Some(0),
        };
        let mut outboxes = Outboxes::new((0..16).map(stored).collect());

        outboxes.greet(1, id(16), 7);

        assert!(matches!(outboxes.poll_writes()[0], Write::SeenGone { outbox, .. } if outbox == id(15)));
    }

    #[test]
    fn outboxes_that_only_the_relay_names_push_out_no_other() {
        let mut outboxes = Outboxes::default();
        outboxes.greet(1, id(0), 7);
        assert_eq!(insert(&mut outboxes, 1, 0), Fresh::New);

        for first in 1..100 {
            assert_eq!(insert(&mut outboxes, 1, first), Fresh::New);
        }

        assert_eq!(outboxes.seen.len(), 1 + RELAYED_OUTBOXES_MAX);
        assert_eq!(insert(&mut outboxes, 1, 0), Fresh::Repeated);
        outboxes.greet(1, id(99), 7);
        assert_eq!(
            insert(&mut outboxes, 1, 99),
            Fresh::Repeated,
            "it keeps what was seen when a client names it"
        );
    }

    #[test]
    fn only_what_comes_over_sessions_raises_the_mark_of_sessions_also_if_it_is_a_repeat() {
        let mut outboxes = Outboxes::default();
        outboxes.greet(1, id(0), 7);
        outboxes.poll_writes();
        let mut take = |sequence: u64, road| {
            let fresh = outboxes.insert((1, id(0)), Sequence::try_from(sequence).unwrap(), road, 7);
            (fresh, outboxes.highest_by_session(1, id(0)), outboxes.poll_writes().len())
        };

        assert_eq!(take(1, Road::Session), (Fresh::New, Some(1), 1));
        assert_eq!(take(1 << 62, Road::Background), (Fresh::New, Some(1), 1));
        assert_eq!(take(5, Road::Background), (Fresh::New, Some(1), 1));
        assert_eq!(take(5, Road::Session), (Fresh::Repeated, Some(5), 1), "and it is written");
        assert_eq!(take(5, Road::Session), (Fresh::Repeated, Some(5), 0));
        assert_eq!(take(3, Road::Session), (Fresh::New, Some(5), 1));
        assert_eq!(outboxes.highest(1, id(0)), 1 << 62);
    }

    #[test]
    fn the_mark_of_sessions_of_an_outbox_from_before_is_known_once_one_brings_the_highest_of_all_and_not_by_what_is_lower_or_relayed()
     {
        let stored = |highest: u64| {
            let mut set = SeenSet::new();
            let _fresh = set.insert_range(SequenceRange { first: 1, last: highest });
            StoredOutbox { number: 1, id: id(0), used: 7, greeted: true, set, by_session: None }
        };
        let mut outboxes = Outboxes::new(vec![stored(9)]);
        let mut take = |sequence: u64, road| {
            let _fresh = outboxes.insert((1, id(0)), Sequence::try_from(sequence).unwrap(), road, 7);
            (outboxes.highest_by_session(1, id(0)), outboxes.poll_writes().len())
        };

        assert_eq!(take(3, Road::Session), (None, 0), "a higher one may have come over a session");
        assert_eq!(take(20, Road::Background), (None, 1));
        assert_eq!(take(15, Road::Session), (None, 1), "20 may have come over a session as well");
        assert_eq!(take(20, Road::Session), (Some(20), 1), "it is sent again, and written");
        assert_eq!(take(30, Road::Background), (Some(20), 1));
        assert_eq!(take(25, Road::Session), (Some(25), 1), "from then on it goes up with each");
        // One that was named first since the roads are told apart needs no such proof.
        assert_eq!(outboxes.highest_by_session(1, id(1)), Some(0));
    }

    fn insert(outboxes: &mut Outboxes, number: u32, first: u8) -> Fresh {
        outboxes.insert((number, id(first)), Sequence::try_from(1).unwrap(), Road::Background, 7)
    }

    fn id(first: u8) -> OutboxId {
        OutboxId::from([first; 16])
    }
}
