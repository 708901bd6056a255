//! Acks that wait to be written: joined while they wait, so that a slow client costs ranges and not frames.

use crate::limits::ACK_RANGES_MAX;
use crate::session::v1::{Ack, Lane, SequenceRange};

/// What is to be acked in one lane.
#[derive(Debug, Default)]
struct Pending {
    ranges: Vec<SequenceRange>,
    credit_bytes: u64,
}

/// What is to be acked in both lanes.
#[derive(Debug, Default)]
pub(super) struct PendingAcks {
    results: Pending,
    events: Pending,
}

impl PendingAcks {
    pub(super) fn push(&mut self, lane: Lane, ranges: Vec<SequenceRange>, credit_bytes: u64) {
        let Some(pending) = self.lane(lane) else { return };
        pending.credit_bytes = pending.credit_bytes.saturating_add(credit_bytes);
        for range in ranges.into_iter().filter(|range| range.first > 0 && range.first <= range.last) {
            match pending.ranges.last_mut() {
                Some(last) if touches(*last, range) => {
                    last.first = last.first.min(range.first);
                    last.last = last.last.max(range.last);
                }
                Some(_) | None => pending.ranges.push(range),
            }
        }
    }

    /// Takes the next frame's worth: results before events, at most 1,000 ranges.
    pub(super) fn pop(&mut self) -> Option<Ack> {
        [Lane::Results, Lane::Events].into_iter().find_map(|lane| self.lane(lane)?.pop(lane))
    }

    pub(super) fn ranges(&self) -> usize {
        self.results.ranges.len() + self.events.ranges.len()
    }

    fn lane(&mut self, lane: Lane) -> Option<&mut Pending> {
        match lane {
            Lane::Results => Some(&mut self.results),
            Lane::Events => Some(&mut self.events),
            Lane::Unspecified => None,
        }
    }
}

impl Pending {
    fn pop(&mut self, lane: Lane) -> Option<Ack> {
        if self.ranges.is_empty() && self.credit_bytes == 0 {
            return None;
        }
        let rest = self.ranges.split_off(self.ranges.len().min(ACK_RANGES_MAX));
        let ranges = std::mem::replace(&mut self.ranges, rest);
        let credit_bytes = std::mem::take(&mut self.credit_bytes);
        Some(Ack { lane: lane.into(), ranges, credit_bytes })
    }
}

/// Returns whether two ranges overlap or follow on each other.
fn touches(one: SequenceRange, other: SequenceRange) -> bool {
    one.first <= other.last.saturating_add(1) && other.first <= one.last.saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_acks_become_one_range_with_the_sum_of_credits() {
        let mut acks = PendingAcks::default();

        for number in 1..=5 {
            acks.push(Lane::Events, vec![SequenceRange { first: number, last: number }], 10);
        }

        let ack = acks.pop().unwrap();
        assert_eq!(ack.ranges, [SequenceRange { first: 1, last: 5 }]);
        assert_eq!(ack.credit_bytes, 50);
        assert_eq!(acks.pop(), None);
    }

    #[test]
    fn what_exceeds_a_frame_goes_into_the_next_one() {
        let mut acks = PendingAcks::default();

        let every_other = (0..1_500).map(|n| SequenceRange { first: 2 * n + 1, last: 2 * n + 1 }).collect();
        acks.push(Lane::Results, every_other, 7);

        let sizes: Vec<_> =
            std::iter::from_fn(|| acks.pop()).map(|ack| (ack.ranges.len(), ack.credit_bytes)).collect();
        assert_eq!(sizes, [(1_000, 7), (500, 0)]);
    }
}
