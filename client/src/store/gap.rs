//! What a full outbox dropped, and the events that tell exactly that.

use muster_proto::common::v1::{NamedValue, Value, value::Kind};
use muster_proto::limits::ACK_RANGES_MAX;
use muster_proto::seen::{GAP_EVENT, gap_field, gap_ranges};
use muster_proto::session::v1::{Event, SequenceRange};
use prost::Message;

use super::outbox::QueueLane;

/// What was dropped.
#[derive(Debug, Default)]
pub(super) struct Gap {
    pub(super) dropped: u64,
    results: u64,
    bytes: u64,
    pub(super) first: u64,
    pub(super) last: u64,
    /// Exactly what is gone: what still waits between the dropped events must not count as seen.
    ranges: Vec<SequenceRange>,
}

impl Gap {
    /// Adds a record. A gap that is dropped itself hands its count and its ranges on.
    pub(super) fn add(&mut self, sequence: u64, lane: QueueLane, record: &[u8]) {
        self.ranges.push(SequenceRange { first: sequence, last: sequence });
        if self.first == 0 {
            self.first = sequence;
        }
        self.last = sequence;
        if lane == QueueLane::Results {
            self.results += 1;
        } else if let Ok(event) = Event::decode(record)
            && event.name == GAP_EVENT
        {
            self.inherit(&event);
            return;
        }
        self.dropped += 1;
        self.bytes += record.len() as u64;
    }

    fn inherit(&mut self, older: &Event) {
        self.ranges.extend(gap_ranges(older));
        for field in &older.fields {
            let Some(Value { kind: Some(Kind::Integer(count)) }) = field.value else { continue };
            let count = u64::try_from(count).unwrap_or(0);
            match field.name.as_str() {
                "dropped" => self.dropped += count,
                "results" => self.results += count,
                "bytes" => self.bytes += count,
                "first" if count > 0 => self.first = self.first.min(count),
                _ => {}
            }
        }
    }

    /// Returns the fields of as many events as it takes to name everything; the first has the counts.
    pub(super) fn into_events(mut self) -> Vec<Vec<NamedValue>> {
        self.normalise();
        let field = |name: &str, value: u64| NamedValue {
            name: name.to_owned(),
            value: Some(Value { kind: Some(Kind::Integer(i64::try_from(value).unwrap_or(i64::MAX))) }),
        };
        let mut counts = [self.dropped, self.results, self.bytes];
        let events = self.ranges.chunks(ACK_RANGES_MAX).map(|ranges| {
            let [dropped, results, bytes] = std::mem::take(&mut counts);
            vec![
                field("dropped", dropped),
                field("results", results),
                field("bytes", bytes),
                field("first", ranges.first().map_or(0, |range| range.first)),
                field("last", ranges.last().map_or(0, |range| range.last)),
                gap_field(ranges),
            ]
        });
        events.collect()
    }

    /// Sorts the ranges and joins those that touch: a gap that was dropped itself names older ones than those before it.
    fn normalise(&mut self) {
        self.ranges.sort_unstable_by_key(|range| range.first);
        let mut joined: Vec<SequenceRange> = Vec::with_capacity(self.ranges.len());
        for range in std::mem::take(&mut self.ranges) {
            match joined.last_mut() {
                Some(last) if range.first <= last.last.saturating_add(1) => {
                    last.last = last.last.max(range.last)
                }
                _ => joined.push(range),
            }
        }
        self.ranges = joined;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(gap: Gap) -> Vec<Vec<(u64, u64)>> {
        let event =
            |fields| Event { sequence: 1_000_000, occurred_at_ms: 1, name: GAP_EVENT.to_owned(), fields };
        let ranges =
            |fields| gap_ranges(&event(fields)).iter().map(|range| (range.first, range.last)).collect();
        gap.into_events().into_iter().map(ranges).collect()
    }

    #[test]
    fn ranges_of_an_older_gap_are_put_in_order_and_joined() {
        let mut older = Gap::default();
        for sequence in [3, 4, 9] {
            older.add(sequence, QueueLane::Events, b"");
        }
        let fields = older.into_events().remove(0);
        let older = Event { sequence: 11, occurred_at_ms: 1, name: GAP_EVENT.to_owned(), fields };

        let mut gap = Gap::default();
        gap.add(5, QueueLane::Events, b"");
        gap.add(7, QueueLane::Results, b"");
        gap.add(11, QueueLane::Events, &older.encode_to_vec());

        assert_eq!((gap.dropped, gap.results), (5, 1));
        assert_eq!(named(gap), [[(3, 5), (7, 7), (9, 9), (11, 11)]]);
    }

    #[test]
    fn what_one_event_cannot_name_is_named_by_the_next() {
        let mut gap = Gap::default();
        for sequence in 1..=ACK_RANGES_MAX as u64 + 1 {
            gap.add(2 * sequence, QueueLane::Events, b"x");
        }

        let named = named(gap);

        assert_eq!((named[0].len(), named[1].len(), named.len()), (ACK_RANGES_MAX, 1, 2));
        assert_eq!(named[1], [(2_002, 2_002)]);
    }
}
